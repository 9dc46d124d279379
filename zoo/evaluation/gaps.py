"""Errors as counts of pictures, and the gaps between them with their intervals."""

import math
from typing import NamedTuple

from zoo.evaluation.figures import difference, wilson
from zoo.evaluation.predictions import Evaluation

MOST = 1e6  # pictures that anybody would label
LARGE = 0.02  # our choice: Ng 2018 calls gaps of a point small and sets out to close those of several
SURELY = 0.01  # what a large bias is surely above; not 0, which one wrong picture takes its interval off


class Gap(NamedTuple):
    """A difference of two errors, with its 95 % interval; none where the numbers of pictures are unknown."""

    value: float
    low: float | None
    high: float | None

    @property
    def sizeable(self) -> bool:
        """Whether it is large by value."""
        return self.value >= LARGE - 1e-9  # differences of shares carry rounding

    @property
    def large(self) -> bool:
        """Whether it is large by value and, where that can be told, more than chance."""
        return self.sizeable and (self.low is None or self.low > 0)

    @property
    def range(self) -> str:
        """The interval in points, as "-0.5 to 7.8"; empty where there is none."""
        return "" if self.low is None or self.high is None else f"{100 * self.low:.1f} to {100 * self.high:.1f}"


class Seen(NamedTuple):
    """A share of wrong pictures, and of how many, where that is known."""

    error: float
    wrong: int | None = None
    pictures: int | None = None

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Seen":
        pictures = len(evaluation.paths)
        wrong = pictures - round(evaluation.accuracy * pictures)
        return cls(wrong / pictures, wrong, pictures)

    def named(self, split: str) -> str:
        """As "153 dev pictures"."""
        return f"{split} pictures" if self.pictures is None else f"{self.pictures} {split} pictures"

    @property
    def counts(self) -> str:
        """As "8 of 153 pictures, 95 % interval 2.7 % to 10.0 %"; empty where they are unknown."""
        if self.wrong is None or self.pictures is None:
            return ""
        low, high = wilson(self.wrong, self.pictures)
        return f"{self.wrong} of {self.pictures} pictures, 95 % interval {low:.1%} to {high:.1%}"


def avoidable(seen: Seen, human_error: float) -> Gap:
    """What an error is above that of people, at least 0; Wilson's interval, cut at 0 too."""
    value = max(0.0, seen.error - human_error)
    if seen.wrong is None or seen.pictures is None:
        return Gap(value, None, None)
    low, high = wilson(seen.wrong, seen.pictures)
    return Gap(value, max(0.0, low - human_error), max(0.0, high - human_error))


def much(bias: Gap) -> bool:
    """Whether an avoidable bias is large: by value and, where that can be told, surely above a point."""
    return bias.large and (bias.low is None or bias.low > SURELY)


def between(worse: Seen, better: Seen) -> Gap:
    """How much higher one error is than another, of other pictures; Newcombe's interval."""
    value = worse.error - better.error
    if None in worse or None in better:
        return Gap(value, None, None)
    return Gap(value, *difference(worse.wrong, worse.pictures, better.wrong, better.pictures))  # pyright: ignore


def enough(worse: Seen, better: Seen) -> int | None:
    """About how many pictures in place of `worse`'s would show the gap between the two; a multiple of 100.

    None where the numbers of pictures are unknown, or no number would, `better`'s being too few.
    """
    if worse.pictures is None or better.pictures is None:
        return None
    right = [(1 - part.error) for part in (better, worse)]
    count = worse.pictures
    while difference(right[0] * better.pictures, better.pictures, right[1] * count, count)[0] <= 0:
        count *= 1.05
        if count > MOST:
            return None
    return math.ceil(count / 100) * 100
