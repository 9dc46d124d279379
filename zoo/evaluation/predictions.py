"""How good a model is on a split: one pass gives a row a picture, and every figure comes from those rows."""

import html
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from zoo.files import make_folder, write_json, writing
from zoo.models.outputs import check_width, checked_probabilities
from zoo.progress import interactive

SMALLEST = 1e-7  # Keras clips probabilities there too, so losses agree with those of `fit`
BATCH = 32
BINS = 15  # Guo et al. 2017
Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model said to each picture of a split, and the figures that follow from it.

    Printing it shows the figures on one screen. Made by `evaluate`, or from rows of one's own.

    Args:
        split: Name of the split.
        class_names: Names in the order of the columns of `probabilities`.
        paths: A name for each picture, in row order.
        labels: Index of the true class of each picture, (n,).
        probabilities: (n, classes), rows that sum to one.

    Raises:
        ValueError: If there are no rows, the lengths disagree, or a probability is not a number.
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
        broken = ~np.isfinite(self.probabilities).all(axis=1)
        if broken.any():
            raise ValueError(
                f"The model gives no number (NaN) for {int(broken.sum())} of {count} pictures, "
                f"first for {self.paths[int(np.argmax(broken))]}. Its weights have diverged; train it at a lower rate."
            )

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a picture: path, label and predicted (names), probability of the predicted class, loss.

        The loss is the cross-entropy -ln(p) of the true class, with p held above 1e-7.
        """
        names = np.array(self.class_names, dtype=object)
        return pd.DataFrame(
            {
                "path": self.paths,
                "label": names[self.labels],
                "predicted": names[self._predicted],
                "probability": self.probabilities.max(axis=1).astype(np.float64),
                "loss": -np.log(np.clip(self._of_truth, SMALLEST, 1)),
            }
        )

    @property
    def accuracy(self) -> float:
        """Share of pictures whose most probable class is the true one."""
        return float(np.mean(self._predicted == self.labels))

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy, as other pictures of the same kind would give (Wilson 1927)."""
        n, p = len(self.paths), self.accuracy
        centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        reach = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return max(0.0, centre - reach), min(1.0, centre + reach)

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
        before = np.arange(len(self.class_names)) < self.labels[:, np.newaxis]
        truth = self.probabilities[np.arange(len(self.labels)), self.labels][:, np.newaxis]
        ahead = (self.probabilities > truth) | ((self.probabilities == truth) & before)
        return float(np.mean(ahead.sum(axis=1) < 5))

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats."""
        return float(self.table.loss.mean())

    @cached_property
    def confusion(self) -> pd.DataFrame:
        """Counts of pictures: rows true classes, columns predicted ones."""
        counts = confusion_matrix(self.labels, self._predicted, labels=np.arange(len(self.class_names)))
        return pd.DataFrame(
            counts,
            index=pd.Index(self.class_names, name="label"),
            columns=pd.Index(self.class_names, name="predicted"),
        )

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """A row a class: precision, recall, f1 (0 where nothing was predicted or present), support (pictures)."""
        precision, recall, f1, support = precision_recall_fscore_support(
            self.labels,
            self._predicted,
            labels=np.arange(len(self.class_names)),
            zero_division=0,  # pyright: ignore[reportArgumentType]
        )
        columns = {"precision": precision, "recall": recall, "f1": f1, "support": support}
        return pd.DataFrame(columns, index=pd.Index(self.class_names, name="label"))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean gap between probability and accuracy over 15 bins of equal width.

        0 where a picture predicted with probability p is right in a share p of cases. Guo et al. 2017,
        https://arxiv.org/abs/1706.04599.
        """
        confidence = self.probabilities.max(axis=1).astype(np.float64)
        right = self._predicted == self.labels
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
        return float(np.abs(gaps).sum() / len(right))

    def worst(self, k: int = 10) -> pd.DataFrame:
        """The `k` rows of the table with the largest loss, worst first."""
        return self.table.sort_values("loss", ascending=False, kind="stable").head(_count(k))

    def most_confused(self, k: int = 10) -> pd.DataFrame:
        """The `k` commonest errors: label, predicted, count, share (of the pictures of that label)."""
        counts = self.confusion.to_numpy()
        true, predicted = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
        found = counts[true, predicted]
        order = np.argsort(-found, kind="stable")[: _count(k)]
        names = np.array(self.class_names, dtype=object)
        return pd.DataFrame(
            {
                "label": names[true[order]],
                "predicted": names[predicted[order]],
                "count": found[order],
                "share": found[order] / counts.sum(axis=1)[true[order]],
            }
        )

    def figures(self) -> dict:
        """All figures as plain numbers, ready for JSON."""
        return {
            "split": self.split,
            "pictures": len(self.paths),
            "classes": self.class_names,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "balanced_accuracy": self.balanced_accuracy,
            "top5": self.top5,
            "loss": self.loss,
            "calibration_error": self.calibration_error,
            "per_class": self.per_class.to_dict("index"),
            "confusion": self.confusion.to_numpy().tolist(),
        }

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes the table, with a column a class of probabilities, and the figures.

        Returns:
            The folder, which now holds `<split>.csv` and `<split>.json`.

        Raises:
            OSError: If the folder cannot be made or written.
        """
        folder = make_folder(folder)
        columns = [f"probability_{name}" for name in self.class_names]
        table = pd.concat([self.table, pd.DataFrame(self.probabilities, columns=columns)], axis=1)
        with writing(folder / f"{self.split}.csv") as temporary:
            table.to_csv(temporary, index=False)
        write_json(folder / f"{self.split}.json", self.figures())
        return folder

    def __str__(self):
        pictures, classes = len(self.paths), len(self.class_names)
        lines = [f"{self.split}: {pictures} picture{'s' * (pictures != 1)}, {classes} classes"]
        lines += [f"  {name:<18} {value:>7}  {note}".rstrip() for name, value, note in self._overview()]
        if classes > 1:
            weakest = self.per_class.loc[self.per_class.support > 0].sort_values("f1", kind="stable").head(5)
            lines += ["", f"  {'weakest classes':<26} {'precision':>9} {'recall':>7} {'f1':>6} {'pictures':>8}"]
            lines += [
                f"    {_short(row['label'], 24):<24} {row['precision']:>9.3f} {row['recall']:>7.3f} "
                f"{row['f1']:>6.3f} {row['support']:>8}"
                for row in weakest.reset_index().to_dict("records")
            ]
        confused = self.most_confused(5)
        if len(confused):
            lines += ["", "  most confused"]
            lines += [
                f"    {_short(row['label'], 24)} taken for {_short(row['predicted'], 24)}: "
                f"{row['count']} ({row['share']:.0%})"
                for row in confused.to_dict("records")
            ]
        return "\n".join(lines)

    def _repr_html_(self):
        rows = "".join(
            f"<tr><td>{name}</td><td>{value}</td><td>{note}</td></tr>" for name, value, note in self._overview()
        )
        title = f"{html.escape(self.split)}: {len(self.paths)} pictures, {len(self.class_names)} classes"
        tables = [self.per_class.round(3), self.most_confused(5).round(3)]
        return f"<h4>{title}</h4><table>{rows}</table>" + "".join(table.to_html() for table in tables if len(table))

    def _overview(self) -> list[tuple[str, str, str]]:
        """Name, value and note of each figure."""
        low, high = self.accuracy_interval
        rows = [
            ("accuracy", f"{self.accuracy:.2%}", f"95 % interval {low:.1%} to {high:.1%}"),
            ("balanced accuracy", f"{self.balanced_accuracy:.2%}", "every class counts alike"),
        ]
        if len(self.class_names) > 5:
            rows.append(("top-5 accuracy", f"{self.top5:.2%}", ""))
        rows.append(("loss", f"{self.loss:.4f}", "cross-entropy"))
        rows.append(("calibration error", f"{self.calibration_error:.2%}", "0 is perfect"))
        return rows

    @property
    def _predicted(self):
        return self.probabilities.argmax(axis=1)

    @property
    def _of_truth(self):
        return self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)


def evaluate(model: keras.Model, split, *, outputs: np.ndarray | None = None) -> Evaluation:
    """Runs a model over a split once, in row order, and keeps what it said to each picture.

    Args:
        model: Classifier of pictures 0..255 that ends in a softmax, or in logits, to which softmax is applied.
        split: One of `data.train`, `data.dev` and `data.test`; without an image size, it gets the model's.
        outputs: What the model gave for each picture, (n, classes), where that is known already.

    Returns:
        The table and the figures; `print` it for a summary.

    Raises:
        ValueError: If the split is empty, model and split disagree about picture size or number of classes, the outputs
            are no probabilities, or the model gives NaN.

    Example:
        evaluation = zoo.evaluate(model, data.test)
        print(evaluation.accuracy, evaluation.accuracy_interval)
    """
    if not len(split):
        raise ValueError(f"The {split.name} split has no pictures, so there is nothing to evaluate.")
    if not split.class_names:
        raise ValueError(
            f"The {split.name} split has no labels to compare with; run.predict says what a model sees in its pictures."
        )
    check_width(model, split.class_names)
    split = _fitted(model, split)
    if outputs is None:
        outputs = model.predict(
            split.dataset(batch_size=BATCH),
            steps=math.ceil(len(split) / BATCH),
            verbose="auto" if interactive() else 0,  # pyright: ignore[reportArgumentType]
        )
    return Evaluation(
        split.name,
        list(split.class_names),
        list(split.relative_paths),
        np.asarray(split.labels),
        checked_probabilities(model, outputs),
    )


def _fitted(model, split):
    """The split at the model's size where it has none; one of another size is refused. A side of None takes any."""
    wanted = tuple(model.inputs[0].shape[1:]) if getattr(model, "inputs", None) else ()
    if split.image_size is None and len(wanted) == 3 and None not in wanted[:2]:
        split = split.configured(image_size=wanted[:2])
    given = split.geometry.shape
    fits = all(side in (None, have) for side, have in zip(wanted, given, strict=False))
    if not fits or len(wanted) not in (0, 3):
        raise ValueError(
            f"The model takes pictures of shape {wanted} (height, width, channels), the split gives {given}. "
            "Use data.configured(image_size=...), or load_data(..., channels=...)."
        )
    return split


def _count(k):
    if k < 0:
        raise ValueError(f"`k` must be 0 or more. Received: k={k}")
    return k


def _short(text, most):
    return text if len(text) <= most else text[: most - 3] + "..."
