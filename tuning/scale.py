"""Each hyperparameter on the scale on which it was searched: where a value lies, and what is written there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

KEPT = 7  # ticks of a range at most


@dataclass(frozen=True)
class Scale:
    """A hyperparameter from one end of its range (0) to the other (1).

    Attributes:
        name: That of the hyperparameter.
        kind: "linear", "log", "reverse_log" (steps shrink towards the upper end), "ordered" (numbers to choose from, at
            equal distances) or "categories" (which have no order).
        low, high: The range, widened to what was tried outside it; not of choices.
        choices: The values to choose from; else empty.
    """

    name: str
    kind: str
    low: float = 0.0
    high: float = 1.0
    choices: tuple = ()

    def places(self, values) -> np.ndarray:
        """Where each value lies, 0 to 1; NaN where it is missing, since the hyperparameter did not apply."""
        values = pd.Series(list(values), dtype=object)
        missing = values.isna().to_numpy()
        if self.choices:
            index = {value: number for number, value in enumerate(self.choices)}
            found = [math.nan if gone else index[value] for value, gone in zip(values, missing, strict=True)]
            return np.array(found, float) / max(len(self.choices) - 1, 1)
        numbers = values.where(~missing, math.nan).to_numpy(float)
        if self.high == self.low:
            return np.where(missing, math.nan, 0.5)
        if self.kind == "log":
            return np.log(numbers / self.low) / math.log(self.high / self.low)
        if self.kind == "reverse_log":  # as KerasTuner samples it
            return 1 - np.log((self.high + self.low - numbers) / self.low) / math.log(self.high / self.low)
        return (numbers - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Places with what is written there, rising: both ends and some round values; of choices, all."""
        if self.choices:
            values: Sequence = self.choices
        elif self.high == self.low:
            values = [self.low]
        else:
            values = [self.low, *self._between(), self.high]
        return [(float(place), said(value)) for place, value in zip(self.places(values), values, strict=True)]

    def _between(self) -> list[float]:
        """Round values within the range."""
        if self.kind == "log":
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            if last - first >= 1:
                return [10.0**power for power in range(first, last + 1) if self.low < 10.0**power < self.high]
            return [math.sqrt(self.low * self.high)]
        if self.kind == "reverse_log":
            return [self.high + self.low - math.sqrt(self.low * self.high)]
        return [(self.low + self.high) / 2]


def scales(space: Sequence[dict[str, Any]], trials: pd.DataFrame) -> list[Scale]:
    """The scales of what varied among some trials, in the order of the space.

    Args:
        space: A search's hyperparameters, each with name, kind, low, high, sampling and values.
        trials: Theirs, with a column for each hyperparameter.
    """
    return [
        _scale(hyperparameter, pd.Series(trials[hyperparameter["name"]]))
        for hyperparameter in space
        if hyperparameter["name"] in trials and varied(trials[hyperparameter["name"]])
    ]


def varied(values) -> bool:
    """Whether there were two values or more, not counting that it did not apply."""
    return len(set(pd.Series(values).dropna())) > 1


def said(value: Any) -> str:
    """A value in few characters; nothing where there is none."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, float, np.integer, np.floating)):
        return "" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.6g}"
    return "" if value is None else str(value)


def _scale(hyperparameter: dict[str, Any], tried: pd.Series) -> Scale:
    name, tried = hyperparameter["name"], tried.dropna()
    if hyperparameter["kind"] in ("choice", "boolean"):
        listed = hyperparameter.get("values") or (False, True)
        choices = tuple(dict.fromkeys([*listed, *tried]))
        numbers = all(isinstance(value, (int, float, np.number)) for value in choices)
        return Scale(
            name, "ordered" if numbers else "categories", choices=tuple(sorted(choices)) if numbers else choices
        )
    low = float(min(hyperparameter["low"], tried.min()))
    high = float(max(hyperparameter["high"], tried.max()))
    kind = hyperparameter.get("sampling") or "linear"
    return Scale(name, kind if low > 0 else "linear", low, high)
