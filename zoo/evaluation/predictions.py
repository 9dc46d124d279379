"""How good a model is on a split: one pass gives a row a picture, and every figure comes from those rows."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from zoo.evaluation import comparison, figures, label_errors, passing, printing
from zoo.evaluation.comparison import Comparison
from zoo.files import make_folder, write_json, writing
from zoo.models.outputs import checked_probabilities


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model said to each picture of a split, and the figures that follow from it.

    Printing it shows the figures on one screen. Made by `evaluate`, or from rows of one's own. Without labels it holds
    predictions only, and every figure that needs the truth raises a ValueError that says so.

    Args:
        split: Name of the split.
        class_names: Names in the order of the columns of `probabilities`.
        paths: A name for each picture, in row order.
        labels: Index of the true class of each picture, (n,); -1 for all where there are no labels.
        probabilities: (n, classes), rows that sum to one.

    Raises:
        ValueError: If there are no rows, the lengths disagree, a label is no index of a class, or a probability is not
            a number.
    """

    split: str
    class_names: list[str]
    paths: list[str]
    labels: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self):
        count, classes = len(self.paths), len(self.class_names)
        if not count:
            raise ValueError(f"The {self.split} split has no pictures, so there is nothing to evaluate.")
        if self.probabilities.shape != (count, classes) or len(self.labels) != count:
            raise ValueError(
                f"`probabilities` must have a row a picture and a column a class, here {(count, classes)}. "
                f"Received: probabilities of shape {self.probabilities.shape} and {len(self.labels)} labels"
            )
        low, high = self.labels.min(), self.labels.max()
        if not (0 <= low <= high < classes or low == high == -1):
            raise ValueError(
                f"`labels` must be indices of the {classes} classes, or -1 for all pictures where there are no labels. "
                f"Received: labels from {low} to {high}"
            )
        broken = ~np.isfinite(self.probabilities).all(axis=1)
        if broken.any():
            raise ValueError(
                f"The model gives no number (NaN) for {int(broken.sum())} of {count} pictures, "
                f"first for {self.paths[int(np.argmax(broken))]}. Its weights have diverged; train it at a lower rate."
            )

    @property
    def labelled(self) -> bool:
        """Whether the true classes are known, so that there are figures."""
        return bool(self.labels[0] >= 0)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a picture: path, label and predicted (names), probability of the predicted class, loss.

        The loss is the cross-entropy -ln(p) of the true class, with p held above 1e-7. Without labels, they are empty
        and losses NaN.
        """
        names = np.array([*self.class_names, ""], dtype=object)  # -1 is the last one
        loss = figures.losses(self.labels, self.probabilities) if self.labelled else np.full(len(self.paths), np.nan)
        return pd.DataFrame(
            {
                "path": self.paths,
                "label": names[self.labels],
                "predicted": names[self._predicted],
                "probability": self._confidence,
                "loss": loss,
            }
        )

    @property
    def accuracy(self) -> float:
        """Share of pictures whose most probable class is the true one."""
        return float(np.mean(self._right))

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy, as other pictures of the same kind would give (Wilson 1927)."""
        return figures.wilson(int(self._right.sum()), len(self.paths))

    @property
    def balanced_accuracy(self) -> float:
        """Mean over the classes that occur of the share of their pictures that is right: a rare class counts as much.

        Brodersen et al. 2010, https://doi.org/10.1109/ICPR.2010.764.
        """
        return float(self.per_class.recall[self.per_class.support > 0].mean())

    @property
    def top5(self) -> float:
        """Share of pictures whose true class is among the five most probable; with up to five classes always 1.

        Of equally probable classes the one that comes first counts as the more probable, as in `argmax`.
        """
        return figures.top(self._true, self.probabilities, 5)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats."""
        return float(figures.losses(self._true, self.probabilities).mean())

    @cached_property
    def confusion(self) -> pd.DataFrame:
        """Counts of pictures: rows true classes, columns predicted ones."""
        return pd.DataFrame(
            figures.confusion(self._true, self._predicted, len(self.class_names)),
            index=pd.Index(self.class_names, name="label"),
            columns=pd.Index(self.class_names, name="predicted"),
        )

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """A row a class: precision, recall, f1 (0 where nothing was predicted or present), support (pictures)."""
        columns = figures.per_class(self.confusion.to_numpy())
        return pd.DataFrame(columns, index=pd.Index(self.class_names, name="label"))

    @property
    def never_predicted(self) -> list[str]:
        """Names of the classes that occur but were not predicted once: what a model that ignores a class looks like."""
        ignored = (self.confusion.sum(axis=1) > 0) & (self.confusion.sum(axis=0) == 0)
        return [name for name, never in zip(self.class_names, ignored, strict=True) if never]

    @cached_property
    def reliability(self) -> pd.DataFrame:
        """How often predictions of each probability are right: a row for each of 15 ranges of equal width.

        Columns low, high, pictures, confidence (mean probability) and accuracy; NaN in the last two where a range has
        no pictures. Guo et al. 2017, https://arxiv.org/abs/1706.04599.
        """
        return figures.reliability(self._right, self._confidence)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean gap between probability and accuracy over 15 ranges of equal width.

        0 where a picture predicted with probability p is right in a share p of cases. Guo et al. 2017,
        https://arxiv.org/abs/1706.04599.
        """
        return figures.calibration_error(self.reliability)

    def worst(self, k: int = 10) -> pd.DataFrame:
        """The `k` rows of the table with the largest loss, worst first."""
        order = np.argsort(-figures.losses(self._true, self.probabilities), kind="stable")
        return self.table.iloc[order[: _count(k)]]

    def doubtful(self, k: int = 10) -> pd.DataFrame:
        """The `k` pictures on which the model hesitates most: those with the smallest margin between two classes.

        Columns path, label, predicted, probability, second (the next best class) and margin (by how much the predicted
        class is more probable). Needs no labels; with a single class nothing is doubtful.
        """
        if len(self.class_names) == 1:
            k = 0 * _count(k)
            second, margin = np.zeros(len(self.paths), int), np.zeros(len(self.paths))
        else:
            second, margin = figures.second_best(self.probabilities)
        names = np.array(self.class_names, dtype=object)
        table = self.table.drop(columns="loss").assign(second=names[second], margin=margin)
        return table.sort_values("margin", kind="stable").head(_count(k))

    def label_errors(self) -> pd.DataFrame:
        """Pictures whose label is likely wrong, most suspect first, by confident learning; empty where there are none.

        Only for pictures that the model was not trained on, such as dev and test, or the dev sets of `data.folds`: of
        those that it was, it has learned the wrong labels, too. Northcutt, Jiang and Chuang 2021,
        https://arxiv.org/abs/1911.00068.

        Returns:
            Columns path, label, suggested (a class), probability (of the label) and suggested_probability.
        """
        rows = label_errors.label_errors(self._true, self.probabilities)
        named = self.probabilities[rows, self.labels[rows]].astype(np.float64)
        columns = {"predicted": "suggested", "probability": "suggested_probability"}
        found = self.table.iloc[rows].drop(columns="loss").rename(columns=columns)
        found.insert(3, "probability", named)
        return found

    def compare(self, other: "Evaluation") -> Comparison:
        """Whether this model is better than another one on the same pictures, or no difference is shown.

        Pictures are matched by path, in whatever order they come.

        Args:
            other: The evaluation of the other model.

        Returns:
            The verdict on this one against the other, with what it rests on; `print` it.

        Raises:
            TypeError: If `other` is no evaluation.
            ValueError: If there are no labels, or pictures or labels differ; the first that does is named.

        Example:
            print(run.evaluate("test").compare(other_run.evaluate("test")))
        """
        if not isinstance(other, Evaluation):
            raise TypeError(f"`other` must be an Evaluation, as `evaluate` gives. Received: {type(other).__name__}")
        return comparison.compare(self, other)

    def most_confused(self, k: int = 10) -> pd.DataFrame:
        """The `k` commonest errors: label, predicted, count, share (of the pictures of that label)."""
        true, predicted, count, share = (column[: _count(k)] for column in figures.confused(self.confusion.to_numpy()))
        names = np.array(self.class_names, dtype=object)
        return pd.DataFrame({"label": names[true], "predicted": names[predicted], "count": count, "share": share})

    def figures(self) -> dict:
        """All figures as plain numbers, ready for JSON; without labels, what was predicted how often."""
        found = {
            "split": self.split,
            "pictures": len(self.paths),
            "classes": self.class_names,
            "labelled": self.labelled,
        }
        if not self.labelled:
            return found | {"predicted": _plain(self.predictions.reset_index())}
        return found | {
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "balanced_accuracy": self.balanced_accuracy,
            "top5": self.top5,
            "loss": self.loss,
            "calibration_error": self.calibration_error,
            "never_predicted": self.never_predicted,
            "reliability": _plain(self.reliability),
            "per_class": self.per_class.to_dict("index"),
            "confusion": self.confusion.to_numpy().tolist(),
        }

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """A row a class: pictures predicted as it, and the mean probability of these predictions (NaN without any)."""
        pictures = np.bincount(self._predicted, minlength=len(self.class_names))
        total = np.bincount(self._predicted, weights=self._confidence, minlength=len(self.class_names))
        columns = {"pictures": pictures, "probability": total / np.where(pictures, pictures, np.nan)}
        return pd.DataFrame(columns, index=pd.Index(self.class_names, name="predicted"))

    def save(self, folder: str | os.PathLike, name: str | None = None) -> Path:
        """Writes the table, with a column a class of probabilities, and the figures.

        Args:
            folder: Made if need be.
            name: What the two files are called, without a suffix; by default as the split.

        Returns:
            The folder, which now holds `<name>.csv` and `<name>.json`.

        Raises:
            OSError: If the folder cannot be made or written.
        """
        folder, name = make_folder(folder), name or self.split
        columns = [f"probability_{label}" for label in self.class_names]
        table = pd.concat([self.table, pd.DataFrame(self.probabilities, columns=columns)], axis=1)
        with writing(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
        write_json(folder / f"{name}.json", self.figures())
        return folder

    def __str__(self):
        return printing.text(self)

    def _repr_html_(self):
        return printing.page(self)

    @cached_property
    def _predicted(self):
        return self.probabilities.argmax(axis=1)

    @cached_property
    def _confidence(self):
        return self.probabilities.max(axis=1).astype(np.float64)

    @property
    def _true(self) -> np.ndarray:
        """The labels, for what cannot do without."""
        if not self.labelled:
            raise ValueError(
                f"The {self.split} split has no labels, so it cannot be said what is right; `table` and `predictions` "
                "hold what the model sees in its pictures."
            )
        return self.labels

    @property
    def _right(self) -> np.ndarray:
        return self._predicted == self._true


def evaluate(
    model: keras.Model,
    split,
    *,
    outputs: np.ndarray | None = None,
    augment: str | keras.layers.Layer = "none",
    views: int = 4,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> Evaluation:
    """Runs a model over a split once, in row order, and keeps what it said to each picture.

    With test-time augmentation, each picture is also looked at in changed versions, and the probabilities are the mean
    over all of them: often a little more accurate, at `views` times the cost (Krizhevsky et al. 2012, section 4.1).

    Args:
        model: Classifier of pictures 0..255 that ends in a softmax, or in logits, to which softmax is applied.
        split: One of `data.train`, `data.dev` and `data.test`; without an image size, it gets the model's. Without
            labels, the evaluation holds predictions only.
        outputs: What the model gave for each picture, (n, classes), where that is known already.
        augment: Name of a policy, one of `augment.POLICIES`, or a layer as `augment.policy` gives, which is called with
            keys (view, picture) and leaves the size of pictures as it is. View k of a picture is always the same.
        views: Changed versions of each picture, beside the picture as it is.
        seed: Decides the changes of a named policy; a layer has its own.
        class_names: Names in the order of the model's outputs, by default those of the split. The labels of the split
            are found among them by name. Where neither names any, classes are called "0", "1", and so on.

    Returns:
        The table and the figures; `print` it for a summary.

    Raises:
        TypeError: If `model` is no Keras model, or `augment` is neither a name nor a layer that takes keys.
        ValueError: If the split is empty, model and split disagree about picture size or number of classes, a class of
            the split is not among `class_names`, the outputs are no probabilities, the model gives NaN, or what is said
            about augmentation is out of range.

    Example:
        evaluation = zoo.evaluate(model, data.test)
        print(evaluation.accuracy, evaluation.accuracy_interval)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model, such as zoo.create gives. Received: {type(model).__name__}")
    if not len(split):
        raise ValueError(f"The {split.name} split has no pictures, so there is nothing to evaluate.")
    names, labels = passing.classes(model, split, class_names)
    split = passing.fitted(model, split)
    layer = passing.changing(augment, split, views, seed)
    probabilities = checked_probabilities(model, passing.outputs(model, split) if outputs is None else outputs)
    if layer is not None:
        probabilities = passing.mean_of_views(model, split, layer, views, probabilities)
    names = names or passing.numbers(probabilities.shape[1])
    return Evaluation(split.name, names, list(split.relative_paths), labels, probabilities)


def _plain(table: pd.DataFrame) -> list[dict]:
    """Rows for JSON, which knows no NaN."""
    return [
        {name: None if value != value else value for name, value in row.items()} for row in table.to_dict("records")
    ]


def _count(k):
    if k < 0:
        raise ValueError(f"`k` must be 0 or more. Received: k={k}")
    return k
