"""Whether one model is better than another, from what both said to the same pictures."""

import html
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import bdtr, chdtrc

DRAWS = 10_000
FEW = 25  # discordant pictures below which McNemar's test is made exactly
LEVEL = 0.05
NOTHING = "no difference shown"


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same pictures side by side; made by `Evaluation.compare`.

    A difference is called one only where two methods agree: McNemar's test gives a p-value below 0.05, and the 95 %
    interval of the paired bootstrap leaves out zero. Both look at the pictures that one model alone gets right, so that
    smaller differences show than in the intervals of either model.

    Attributes:
        split: Name of the split.
        pictures: How many there are.
        both: How many both get right.
        only_first: How many the first alone gets right.
        only_second: How many the second alone gets right.

    Example:
        >>> print(Comparison("test", pictures=200, both=150, only_first=30, only_second=10))
        test: better, by 10.0 points (95 % interval 4.0 to 16.0) on 200 pictures
          accuracy                90.00% against 80.00%
          only the first right    30
          only the second right   10
          McNemar's test          p = 0.0027
    """

    split: str
    pictures: int
    both: int
    only_first: int
    only_second: int

    @property
    def verdict(self) -> str:
        """Of the first against the second: "better", "worse" or "no difference shown"."""
        low, high = self.interval
        if self.p_value >= LEVEL or low <= 0 <= high:
            return NOTHING
        return "better" if low > 0 else "worse"

    @property
    def difference(self) -> float:
        """Accuracy of the first less that of the second."""
        return (self.only_first - self.only_second) / self.pictures

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference, as other pictures of the same kind would give: 10,000 paired bootstraps.

        Each draws as many pictures, with both answers to them, as there are (Efron and Tibshirani 1993, chapter 13), so
        that its counts follow a multinomial distribution; they are drawn from it, always the same ones.
        """
        alone = self.only_first, self.only_second, self.pictures - self.only_first - self.only_second
        drawn = np.random.default_rng(0).multinomial(self.pictures, np.array(alone) / self.pictures, DRAWS)
        low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / self.pictures, [0.025, 0.975])
        return float(low), float(high)

    @property
    def p_value(self) -> float:
        """Of McNemar's test (1947, https://doi.org/10.1007/BF02295996) of whether either alone is right as often.

        Exact below 25 pictures that only one gets right; else by chi-squared with Edwards' (1948) correction.
        """
        one, other = self.only_first, self.only_second
        count = one + other
        if count < FEW:
            return float(min(1.0, 2 * bdtr(min(one, other), count, 0.5)))
        return float(chdtrc(1, max(0, abs(one - other) - 1) ** 2 / count))

    def figures(self) -> dict:
        """All figures as plain numbers, ready for JSON."""
        return {
            "split": self.split,
            "verdict": self.verdict,
            "pictures": self.pictures,
            "accuracy": [(self.both + self.only_first) / self.pictures, (self.both + self.only_second) / self.pictures],
            "difference": self.difference,
            "interval": list(self.interval),
            "p_value": self.p_value,
            "both": self.both,
            "only_first": self.only_first,
            "only_second": self.only_second,
        }

    def __str__(self):
        rows = [f"  {name:<22}  {value}" for name, value in self._overview()]
        return "\n".join([f"{self.split}: {self._headline()}", *rows])

    def _repr_html_(self):
        rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in self._overview())
        return f"<h4>{html.escape(self.split)}: {self._headline()}</h4><table>{rows}</table>"

    def _headline(self) -> str:
        low, high = (100 * end for end in self.interval)
        by = 100 * self.difference
        sign = -1 if self.verdict == "worse" else 1
        ends = sorted((sign * low, sign * high))
        shown = f"(95 % interval {ends[0]:.1f} to {ends[1]:.1f}) on {self.pictures} picture{'s' * (self.pictures != 1)}"
        return f"{self.verdict}{':' if self.verdict == NOTHING else ', by'} {sign * by:.1f} points {shown}"

    def _overview(self) -> list[tuple[str, str]]:
        first, second = self.figures()["accuracy"]
        p = self.p_value
        return [
            ("accuracy", f"{first:.2%} against {second:.2%}"),
            ("only the first right", str(self.only_first)),
            ("only the second right", str(self.only_second)),
            ("McNemar's test", f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"),
        ]


def compare(first, second) -> Comparison:
    """Compares two evaluations picture by picture, matched by path, in whatever order.

    Raises:
        ValueError: If one has no labels, a path stands twice, or pictures or labels differ; the first is named.
    """
    (paths, labels, right), (others, other_labels, other_right) = _known(first), _known(second)
    place = pd.Index(others).get_indexer(pd.Index(paths))
    if (place < 0).any() or len(others) != len(paths):
        lacking = paths[np.argmax(place < 0)] if (place < 0).any() else others[~pd.Index(others).isin(paths)][0]
        where = "second" if (place < 0).any() else "first"
        raise ValueError(
            f"Two evaluations are compared on the same pictures; {lacking} is missing in the {where}. "
            "Evaluate both models on one split."
        )
    differ = labels != other_labels[place]
    if differ.any():
        row = int(np.argmax(differ))
        raise ValueError(
            f"Two evaluations are compared on the same labels; {paths[row]} is {labels[row]!r} in the first and "
            f"{other_labels[place[row]]!r} in the second. Evaluate both models on one split."
        )
    other_right = other_right[place]
    return Comparison(
        split=first.split,
        pictures=len(paths),
        both=int((right & other_right).sum()),
        only_first=int((right & ~other_right).sum()),
        only_second=int((~right & other_right).sum()),
    )


def _known(evaluation):
    """Paths, labels by name, and whether each prediction is right."""
    if not evaluation.labelled:
        raise ValueError(
            f"The {evaluation.split} split has no labels, so it cannot be said which model is better on it."
        )
    table = evaluation.table
    twice = table.path.duplicated()
    if twice.any():
        raise ValueError(f"Pictures are matched by path, and {table.path[twice].iloc[0]} stands there twice.")
    return table.path.to_numpy(object), table.label.to_numpy(object), (table.label == table.predicted).to_numpy()
