"""Calibration: the temperature with which a model is right as often as it says it is.

Guo et al. 2017, "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599.
"""

from dataclasses import dataclass, replace

import keras
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from zoo.evaluation.predictions import Evaluation
from zoo.models.outputs import check_width
from zoo.models.temperature import temperature_of, with_temperature

BOUNDS = (0.05, 20.0)  # of the temperature; beyond, probabilities are one for all, or the same for all classes
FEW = 20  # pictures
_SMALLEST = float(np.finfo(np.float32).tiny)  # what a float32 softmax still tells from zero


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """A model with a temperature, and what that has changed on the pictures it was fitted on. Made by `calibrate`.

    Attributes:
        model: The model with the layer `head_temperature`.
        temperature: What its logits are divided by in all; above 1 where it was too sure of itself.
        before: accuracy, loss and calibration_error (as shares and nats) of the model that was handed over.
        after: The same of the new one; the accuracy is equal.
        split: Name of the split that it was fitted on.
        pictures: Their number.
        note: What is to be known about this fit; empty where all is well.
    """

    model: keras.Model
    temperature: float
    before: dict[str, float]
    after: dict[str, float]
    split: str
    pictures: int
    note: str = ""

    def figures(self) -> dict:
        """Everything but the model as plain values, ready for JSON."""
        return {
            "temperature": self.temperature,
            "split": self.split,
            "pictures": self.pictures,
            "before": self.before,
            "after": self.after,
            "note": self.note,
        }

    def __str__(self):
        before, after = self.before, self.after
        line = (
            f"temperature {self.temperature:.3g} ({self.pictures} {self.split} picture{'s' * (self.pictures != 1)}): "
            f"loss {before['loss']:.4f} -> {after['loss']:.4f}, "
            f"calibration error {before['calibration_error']:.1%} -> {after['calibration_error']:.1%}"
        )
        return f"{line}\n{self.note}" if self.note else line

    __repr__ = __str__


def calibrate(model: keras.Model, evaluation: Evaluation) -> Calibration:
    """Gives a model the temperature with the smallest cross-entropy on the pictures of an evaluation.

    One number is fitted, so what the model says first, and its accuracy, stay as they are. Fit on the dev set: on
    pictures that the model has learned it is surer than on others, and a test set is for the end. A temperature that
    the model has already is taken into account, so a second calibration changes nothing.

    The temperature stays as it is where no other has a smaller loss, and where every picture is right: such pictures
    cannot say how often the model errs, and the loss falls for ever as the temperature goes to 0.

    Args:
        model: Functional or Sequential classifier that ends in a softmax or in logits.
        evaluation: What this very model said to each picture, as from `zoo.evaluate(model, data.dev)`.

    Returns:
        The new model, which shares its layers with the old one, and figures before and after, as `Evaluation` has them.
        The fit itself tells the surest errors apart, while `Evaluation.loss` counts each p below 1e-7 as 1e-7.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If the evaluation has pictures without a label, one class only or another number of classes than the
            model, or the model is none that `with_temperature` can change.

    Example:
        from zoo.evaluation.calibration import calibrate

        calibration = calibrate(model, zoo.evaluate(model, data.dev))  # of a run: run.calibrate()
        print(calibration)
        model = calibration.model
    """
    if (np.asarray(evaluation.labels) < 0).any():
        raise ValueError(
            f"The {evaluation.split} evaluation has pictures without a label, so nothing says how often the model is "
            "right. Calibrate on a split with labels, such as data.dev."
        )
    if len(evaluation.class_names) < 2:
        raise ValueError(
            f"The {evaluation.split} evaluation knows one class only, of which every model is sure; it takes two."
        )
    present = temperature_of(model) or 1.0
    scaled = with_temperature(model, present)  # refuses what it cannot change before anything is computed
    check_width(model, evaluation.class_names)
    # softmax(log p / T) is softmax(z / T): the logits are known up to a constant a row
    logits = np.log(np.maximum(np.asarray(evaluation.probabilities, np.float64), _SMALLEST))
    factor, note = _fit(logits, np.asarray(evaluation.labels), evaluation.split)
    before = _figures(evaluation)
    after = _figures(replace(evaluation, probabilities=softmax(logits / factor, axis=1)))
    assert after["accuracy"] == before["accuracy"]  # noqa: S101, the order of the classes cannot change
    return Calibration(
        model=scaled if factor == 1 else with_temperature(model, present * factor),
        temperature=present * factor,
        before=before,
        after=after,
        split=evaluation.split,
        pictures=len(logits),
        note=note,
    )


def _fit(logits, labels, split) -> tuple[float, str]:
    """The temperature of logits (n, classes) with the smallest loss, and a sentence where there is something to say."""
    if (logits.argmax(axis=1) == labels).all():
        return 1.0, (
            f"Every {split} picture is right, which cannot say how often the model errs: the temperature stays as it "
            "was. Calibrate on more pictures."
        )
    low, high = np.log(BOUNDS)
    found = minimize_scalar(  # of log T there is one minimum: the loss is convex in 1 / T
        lambda log: _loss(logits, labels, np.exp(log)), bounds=(low, high), method="bounded", options={"xatol": 1e-7}
    )
    temperature = float(np.exp(found.x))
    if found.fun >= _loss(logits, labels, 1.0):
        temperature = 1.0
    notes = []
    if min(abs(found.x - low), abs(found.x - high)) < 0.01:
        notes.append(
            f"The loss would fall on beyond the factor of {temperature:.3g}, the end of what is tried: the model's "
            "probabilities say little about these pictures."
        )
    if len(labels) < FEW:
        notes.append(f"{len(labels)} pictures are few for it: the temperature is a rough guess.")
    return temperature, " ".join(notes)


def _loss(logits, labels, temperature) -> float:
    """Mean cross-entropy, in nats, of softmax(logits / temperature)."""
    return float(-np.mean(log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels]))


def _figures(evaluation) -> dict[str, float]:
    return {name: getattr(evaluation, name) for name in ("accuracy", "loss", "calibration_error")}
