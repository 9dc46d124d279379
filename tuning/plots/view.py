"""How scores are shown: as per cent or as they are, on which axis, and what is too far out to fit on it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from zoo.evaluation.histories import ACCURACIES
from zoo.evaluation.plots.style import numbers, percent, whole

WIDE = 30  # times between the worst and the best loss, from which on the axis is logarithmic
INNER = 1.5  # interquartile ranges, beyond which Tukey (1977) calls a value outside
MANY = 300  # trials, beyond which their marks are pixels within the drawing
LETTER = 0.08  # inches that a small character takes, about, in the wide fonts that browsers may have
MARGIN = 0.06  # of an axis, beyond the outermost score


def is_share(objective: str) -> bool:
    """Whether an objective is a share of pictures, which reads best as per cent."""
    name = objective.removeprefix("val_")
    return name in ACCURACIES or name == "binary_accuracy"


def said_score(objective: str, score: float, digits: int = 1) -> str:
    """A score as people read it."""
    if not np.isfinite(score):
        return ""
    return f"{score:.{digits}%}" if is_share(objective) else f"{score:.4g}"


@dataclass(frozen=True)
class View:
    """The part of an axis of scores on which trials can be told apart.

    Attributes:
        objective, direction: Those of the search.
        low, high: Ends of the axis.
        log: Whether it is logarithmic.
    """

    objective: str
    direction: str
    low: float
    high: float
    log: bool

    def held(self, scores) -> tuple[np.ndarray, np.ndarray]:
        """Scores, those off the axis at its poor edge; and which these are."""
        scores = np.asarray(scores, float)
        outside = (scores < self.low) | (scores > self.high)
        places = np.clip(self.places(scores), 0.025, 0.975)
        low, high = self._ends()
        moved = low + places * (high - low)
        return np.where(outside, np.exp(moved) if self.log else moved, scores), outside

    def places(self, scores) -> np.ndarray:
        """Where scores lie, from the axis' lower end (0) to the upper one (1)."""
        scores = np.asarray(scores, float)
        low, high = self._ends()
        return ((np.log(scores.clip(1e-300)) if self.log else scores) - low) / (high - low)

    def at(self, place: float) -> float:
        """The score at a place."""
        low, high = self._ends()
        value = low + place * (high - low)
        return float(np.exp(value) if self.log else value)

    def apply(self, axes: Axes) -> None:
        """Gives the axis upwards its range, scale and numbers."""
        if self.log:
            axes.set_yscale("log")
        axes.set_ylim(self.low, self.high)
        if is_share(self.objective):
            percent(axes.yaxis)
        elif self.log:
            numbers(axes.yaxis)
        axes.set_ylabel(self.objective)

    @property
    def edge(self) -> str:
        """The marker of a score beyond the poor edge."""
        return "v" if self.direction == "max" else "^"

    def _ends(self) -> tuple[float, float]:
        return (np.log(self.low), np.log(self.high)) if self.log else (self.low, self.high)


def view(result, scores, shown=()) -> View:
    """The axis for some scores: all but the few on the poor side that would squeeze the rest.

    Args:
        result: The search.
        scores: One or more finite numbers.
        shown: Scores that the axis is to hold in any case.
    """
    scores, shown = np.asarray(scores, float), np.asarray(shown, float)
    together = np.concatenate([scores, shown])
    share = is_share(result.objective)
    log = not share and together.min() > 0 and together.max() > WIDE * together.min()
    values = np.log(scores) if log else scores
    low, high = np.quantile(values, [0.25, 0.75])
    reach = INNER * (high - low)
    kept = values >= low - reach if result.direction == "max" else values <= high + reach
    inside = np.concatenate([values[kept], np.log(shown) if log else shown])
    low, high = inside.min(), inside.max()
    least = 0.02 if share else 1e-3 * max(abs(low), abs(high)) or 1.0
    room = max(MARGIN * (high - low), least / 2)
    low, high = low - room, high + room
    if log:
        low, high = np.exp(low), np.exp(high)
    elif share:
        low = max(low, 0.0)
        high = min(high, 1 + MARGIN * (1 - low))
    return View(result.objective, result.direction, float(low), float(high), bool(log))


def scored(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials that have a finite score: the completed ones, and pruned ones that got so far.

    Raises:
        ValueError: If there is none.
    """
    found = trials.loc[trials.status.isin(["completed", "pruned"]) & np.isfinite(trials.score.astype(float))]
    if not len(found):
        raise ValueError("No trial of this search has a score yet, so there is nothing to draw.")
    return found


def best_of(result) -> str | None:
    """The best trial; None where none was completed."""
    completed = result.trials.status == "completed"
    return result.best_trial if completed.any() else None


def side(place: float) -> str:
    """How a label is aligned that stays within its scale."""
    return "left" if place < 0.02 else "right" if 0.98 < place <= 1 else "center"


def reach(place: float, text: str, inches: float, aligned: str = "center") -> tuple[float, float]:
    """Where a label begins and ends on a scale of so many inches, 0 to 1."""
    wide = LETTER * len(text) / inches
    start = place - {"left": 0, "right": wide, "center": wide / 2}[aligned]
    return start, start + wide


def fitting(ticks: list[tuple[float, str]], inches: float, within: bool = False) -> list[tuple[float, str]]:
    """Ticks of a scale without those whose labels would touch others; both ends stay.

    Args:
        ticks: Places, rising, with their labels.
        inches: How long the scale is.
        within: Whether labels at the ends stay within the scale.
    """
    spans = [reach(place, text, inches, side(place) if within else "center") for place, text in ticks]
    gap = LETTER / inches
    kept = [0]
    for i in range(1, len(ticks) - 1):
        if spans[kept[-1]][1] + gap <= spans[i][0] and spans[i][1] + gap <= spans[-1][0]:
            kept.append(i)
    return [ticks[i] for i in (*kept, *range(max(1, len(ticks) - 1), len(ticks)))]


def whole_epochs(axes: Axes, most: int) -> None:
    """An axis of epochs."""
    axes.set(xlabel="epoch", xlim=(1 - 0.02 * most, max(most, 1.5) + 0.02 * most))
    whole(axes.xaxis)
