"""Recipe: every choice of a training; what stands behind each "auto" is in `zoo.training.table`."""

import difflib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import augment

AUTO = "auto"
MIXING = ("none", "mixup", "cutmix")
OPTIMIZERS = ("adamw", "adam", "sgd", "momentum", "rmsprop", "adagrad")
MOMENTUM = {"adamw": 0.9, "adam": 0.9, "momentum": 0.9}  # the optimizers that have one, and what is usual there
BETA2 = {"adamw": 0.999, "adam": 0.999, "rmsprop": 0.9}  # likewise
WEIGHT_DECAY = {"adamw": 0.01}  # of the others 0 (Loshchilov and Hutter 2019)
DECAY_RATES = {"inverse time": 1.0, "exponential": 0.95}  # the schedules that have one, and what is usual there
AMOUNTS = ("none", "small", "medium", "large")
CHOICES = {
    "augment": augment.POLICIES,
    "mixing": MIXING,
    "optimizer": OPTIMIZERS,
    "schedule": ("cosine", "constant", "inverse time", "exponential", "sqrt"),
    "sampling": ("as is", "balanced"),
    "head": ("linear", "hidden", "average+max", "as given"),
    "kernel_initializer": ("he_normal", "glorot_uniform", "as given"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16", "float64", "as given"),
}
RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "views": ("a whole number of at least 0", lambda value: isinstance(value, int) and value >= 0),
    "learning_rate": ("a number above 0", lambda value: _number(value) and value > 0),
    "momentum": ("a number in [0, 1)", lambda value: _number(value) and 0 <= value < 1),
    "beta2": ("a number in [0, 1)", lambda value: _number(value) and 0 <= value < 1),
    "weight_decay": ("a number of at least 0", lambda value: _number(value) and value >= 0),
    "decay_rate": ("a number of at least 0", lambda value: _number(value) and value >= 0),
    "epochs": ("a whole number of at least 1", lambda value: isinstance(value, int) and value >= 1),
    "batch_size": ("a whole number of at least 1", lambda value: isinstance(value, int) and value >= 1),
    "accumulation": ("a whole number of at least 1", lambda value: isinstance(value, int) and value >= 1),
    "label_smoothing": ("a number in [0, 1)", lambda value: _number(value) and 0 <= value < 1),
    "hidden_units": (
        "a whole number of at least 1, None",
        lambda value: value is None or isinstance(value, int) and value >= 1,
    ),
    "dropout": ("a number in [0, 1)", lambda value: _number(value) and 0 <= value < 1),
    "l1": ("a number of at least 0", lambda value: _number(value) and value >= 0),
    "l2": ("a number of at least 0", lambda value: _number(value) and value >= 0),
    "l2_sp": ("a number of at least 0", lambda value: _number(value) and value >= 0),
    "layer_decay": ("a number above 0 and at most 1", lambda value: _number(value) and 0 < value <= 1),
    "seed": ("a whole number of at least 0", lambda value: isinstance(value, int) and value >= 0),
}


@dataclass(frozen=True)
class Recipe:
    """Everything that was chosen for a training, by hand or by the table of `zoo.training.table`.

    Every field may be "auto"; a recipe that came out of `fine_tune` holds no "auto" any more, and does the
    same again when it is handed back.

    Args:
        model: Name of the network.
        variant: What the network itself takes, by name, such as {"filters": (16, 32)} of `convnet`; see `zoo.create`.
        weights: Weight tag, "imagenet", a file, or None for none.
        image_size: (height, width) in pixels, or one number for both.
        freeze: Amount that is held still: "none", "small", "medium" or "large"; or several, each smaller than the one
            before, for phases of equal length (gradual unfreezing, Howard and Ruder 2018).
        augment: Name of an augmentation policy.
        mixing: "mixup" or "cutmix" mixes the pictures of a batch and their labels; "none". Off while the outputs of
            the frozen part are kept.
        views: Augmented versions of each picture that are kept where the frozen part is computed once; epoch e trains
            on version e modulo `views`. 0 for none: each epoch is augmented anew.
        optimizer: One of `OPTIMIZERS`.
        learning_rate: Rate of the head or, from scratch, of everything; a whole pre-trained network gets a tenth.
        momentum: Coefficient of the running mean of the gradients: Nesterov's momentum (1983) of "momentum", beta_1 of
            "adam" and "adamw" (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980). 0 for the others.
        beta2: Coefficient of the running mean of the squared gradients: beta_2 of "adam" and "adamw", rho of "rmsprop"
            (Hinton 2012). 0 for the others.
        weight_decay: Share of each kernel that a step takes off, times the learning rate; apart from the loss, with
            any optimizer, biases and batch normalisation left out (Loshchilov and Hutter 2019,
            https://arxiv.org/abs/1711.05101). "adam" with it is "adamw".
        layer_decay: Ratio of the rates of neighbouring stages, the head's being the largest; 1 for one rate (Clark et
            al. 2020).
        schedule: "cosine", "constant", "inverse time", "exponential" or "sqrt": the decays of `callbacks`, each begun
            anew with a phase.
        decay_rate: How fast "inverse time" falls, above 0, or what "exponential" leaves of the rate after an epoch,
            above 0 and below 1. 0 for the others.
        epochs: Total over all phases.
        batch_size: Pictures a step; batch normalisation sees no more at a time.
        accumulation: Steps whose gradients are averaged before the weights move. What an epoch leaves over goes into
            the next one of its phase.
        label_smoothing: Share of the target spread over all classes (Szegedy et al. 2016).
        sampling: "balanced" draws every class equally often, rare ones repeatedly; "as is" each picture once an epoch.
        class_weights: "balanced" weighs each class in the loss by the inverse of its share; "none"; or a mapping of
            class names to weights above 0, where classes left out weigh 1.
        head: What stands behind the last map: "linear", "hidden" or "average+max"; see `zoo.create`.
        hidden_units: Width of the dense layer between in the head "hidden"; None for as many as there are features,
            at most 512.
        dropout: Rate before each dense layer of the head.
        l1: Factor of the absolute kernels in the loss (Tibshirani 1996).
        l2: Factor of the squared kernels in the loss.
        l2_sp: Half the factor of the squared distance from the pre-trained weights in the loss (Li et al. 2018).
        kernel_initializer: Where kernels start that no weights are loaded for: "he_normal" (He et al. 2015) or
            "glorot_uniform" (Glorot and Bengio 2010).
        precision: Keras dtype policy.
        seed: Decides initial weights, dropout and the order of pictures.
        reasons: Why each field is what it is.

    Raises:
        ValueError: If a field is out of range, or set where the optimizer or the schedule has no such thing.
    """

    model: str = AUTO
    variant: str | Mapping[str, Any] = field(default=AUTO, hash=False)  # resolved it is a mapping always
    weights: str | None = AUTO
    image_size: tuple[int, int] | int | str = AUTO
    freeze: str | tuple[str, ...] = AUTO
    augment: str = AUTO
    mixing: str = AUTO
    views: int | str = AUTO
    optimizer: str = AUTO
    learning_rate: float | str = AUTO
    momentum: float | str = AUTO
    beta2: float | str = AUTO
    weight_decay: float | str = AUTO
    layer_decay: float | str = AUTO
    schedule: str = AUTO
    decay_rate: float | str = AUTO
    epochs: int | str = AUTO
    batch_size: int | str = AUTO
    accumulation: int | str = AUTO
    label_smoothing: float | str = AUTO
    sampling: str = AUTO
    class_weights: str | Mapping[str, float] = AUTO
    head: str = AUTO
    hidden_units: int | str | None = AUTO
    dropout: float | str = AUTO
    l1: float | str = AUTO
    l2: float | str = AUTO
    l2_sp: float | str = AUTO
    kernel_initializer: str = AUTO
    precision: str = AUTO
    seed: int | str = AUTO
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        for item in fields(self):
            object.__setattr__(self, item.name, _plain(getattr(self, item.name)))
        if self.weights == "none":
            object.__setattr__(self, "weights", None)
        _check_freeze(self.freeze, self.epochs)
        _check_weights(self.class_weights)
        _check_variant(self.variant)
        for name, options in CHOICES.items():
            value = getattr(self, name)
            if value != AUTO and value not in options:
                raise ValueError(f"`{name}` must be one of {', '.join(options)}, or auto. Received: {name}={value!r}")
        for name, (wanted, fits) in RANGES.items():
            value = getattr(self, name)
            if value != AUTO and (isinstance(value, bool) or not fits(value)):
                raise ValueError(f"`{name}` must be {wanted}, or auto. Received: {name}={value!r}")
        _check_owned("momentum", self.momentum, "optimizer", self.optimizer, MOMENTUM)
        _check_owned("beta2", self.beta2, "optimizer", self.optimizer, BETA2)
        _check_decay_rate(self.decay_rate, self.schedule)
        sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)
        if self.image_size != AUTO and not (len(sides) <= 2 and all(isinstance(n, int) and n > 0 for n in sides)):
            raise ValueError(
                "`image_size` must be a positive whole number, (height, width), or auto. "
                f"Received: image_size={self.image_size!r}"
            )

    def with_fields(self, given: Mapping[str, Any]) -> "Recipe":
        """A copy with some fields set by hand.

        What the table chose to suit a field that changes, such as the optimizer's momentum, is "auto" again; so is the
        variant of another network.

        Raises:
            TypeError: If there is no such field; the message names the nearest.
        """
        known = [item.name for item in fields(self) if item.name != "reasons"]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(known)}."
                raise TypeError(f"A recipe has no field `{name}`. {hint}")
        changed = [name for name, value in given.items() if _plain(value) != getattr(self, name)]
        stale = [name for name, owner in _OWNERS.items() if owner in changed and self._settled(name)]
        given = {**dict.fromkeys(stale, AUTO), **given}
        reasons = {name: reason for name, reason in self.reasons.items() if name not in given}
        return replace(self, **given, reasons=reasons)

    def _settled(self, name: str) -> bool:
        """Whether a field was chosen for what its owner was, not by hand."""
        return name in self.reasons and (name == "variant" or self.reasons[name] != "given")

    def to_dict(self) -> dict:
        """Plain values, with the reasons under "reasons"."""
        return {**asdict(self), "reasons": dict(self.reasons)}

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Recipe":
        """A recipe from a run's `recipe.json`.

        Raises:
            ValueError: If the file holds something else.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            missing = {name: value for name, value in before(found).items() if name not in found}
            reasons = {**dict.fromkeys(missing, "as it was before there was a choice"), **found.get("reasons", {})}
            return cls(**{**missing, **found, "reasons": reasons})
        except (TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} holds no recipe: {error}") from None

    def __str__(self):
        names = [item.name for item in fields(self) if item.name != "reasons"]
        rows = [(name, _show(getattr(self, name)), self.reasons.get(name, "")) for name in names]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(
            f"{name:<{widths[0]}}  {value:<{widths[1]}}  {reason}".rstrip() for name, value, reason in rows
        )


_OWNERS = {
    "variant": "model",
    "momentum": "optimizer",
    "beta2": "optimizer",
    "weight_decay": "optimizer",
    "decay_rate": "schedule",
}  # field -> the field that it depends on


def before(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was done before a recipe had these fields; files of that time lack them.

    Args:
        values: The other fields of such a recipe; some of what was done depends on them.
    """
    optimizer = values.get("optimizer", AUTO)
    done = {"momentum": MOMENTUM, "beta2": BETA2, "weight_decay": WEIGHT_DECAY}
    return {
        "sampling": "as is",
        "variant": {},
        **{name: AUTO if optimizer == AUTO else usual.get(optimizer, 0.0) for name, usual in done.items()},
        "decay_rate": 0.0 if values.get("schedule") in ("cosine", "constant") else AUTO,
        "accumulation": 1,
        "hidden_units": None,
        "l1": 0.0,
        "kernel_initializer": "as given" if values.get("head") == "as given" else "he_normal",
    }


def _check_freeze(freeze, epochs):
    """Refuses what is neither an amount nor several in falling order, of which each finds an epoch."""
    amounts = freeze if isinstance(freeze, tuple) else (freeze,)
    known = [amount for amount in amounts if amount in AMOUNTS]
    sizes = [AMOUNTS.index(amount) for amount in known]
    if freeze != AUTO and (not amounts or len(known) < len(amounts) or sizes != sorted(set(sizes), reverse=True)):
        raise ValueError(
            f"`freeze` must be one of {', '.join(AMOUNTS)}, several of them with each smaller than the one before, or "
            f"auto. Received: freeze={freeze!r}"
        )
    if isinstance(freeze, tuple) and isinstance(epochs, int) and epochs < len(freeze):
        raise ValueError(f"`freeze` names {len(freeze)} phases, and each needs an epoch. Received: epochs={epochs}")


def _check_weights(weights):
    """Refuses what is neither a word nor a weight above 0 for each class that is named."""
    if isinstance(weights, Mapping):
        fits = bool(weights) and all(
            isinstance(name, str) and _number(weight) and not isinstance(weight, bool) and weight > 0
            for name, weight in weights.items()
        )
    else:
        fits = weights in (AUTO, "none", "balanced")
    if not fits:
        raise ValueError(
            "`class_weights` must be none, balanced, a mapping of class names to numbers above 0, or auto. "
            f"Received: class_weights={weights!r}"
        )


def _check_variant(variant):
    """Refuses what is no mapping of names to plain values, which a file gives back unchanged."""
    try:
        fits = variant == AUTO or _plain(json.loads(json.dumps(variant))) == {**variant}
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            "`variant` must be a mapping of names to numbers, text, None or tuples of these, or auto. "
            f"Received: variant={variant!r}"
        )


def _check_owned(name, value, owner, chosen, owners):
    """Refuses a value where the optimizer, or whatever owns the field, has no such thing."""
    if value not in (AUTO, 0) and chosen != AUTO and chosen not in owners:
        raise ValueError(
            f"`{name}` belongs to the {owner}s {', '.join(owners)}; with another one it must be 0 or auto. "
            f"Received: {name}={value!r}, {owner}={chosen!r}"
        )


def _check_decay_rate(rate, schedule):
    _check_owned("decay_rate", rate, "schedule", schedule, DECAY_RATES)
    if rate == AUTO or schedule not in DECAY_RATES:
        return
    if rate == 0 or schedule == "exponential" and rate >= 1:
        wanted = "above 0 and below 1" if schedule == "exponential" else "above 0"
        raise ValueError(
            f"`decay_rate` must be {wanted} for schedule={schedule!r}, or auto. Received: decay_rate={rate!r}"
        )


def _number(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _plain(value):
    """Numbers of numpy as numbers, paths as text, lists as tuples: what a JSON file gives back unchanged."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value.item() if hasattr(value, "item") else value


def _show(value) -> str:
    if isinstance(value, Mapping):
        shown = {name: f"{item:g}" if isinstance(item, float) else item for name, item in value.items()}
        return ", ".join(f"{name}: {item}" for name, item in shown.items()) or "none"
    if not isinstance(value, tuple) or not value:
        return str(value)
    return ("x" if isinstance(value[0], int) else ", ").join(map(str, value))
