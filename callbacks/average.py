"""The exponentially weighted average, a plain object."""

import operator
from typing import Any

import numpy as np

from callbacks import checking


class ExponentialAverage:
    """Exponentially weighted average of the numbers or arrays that it is given one by one.

    v = beta * v + (1 - beta) * x, from v = 0; about the mean of the last 1 / (1 - beta) values. At the start v is too
    small, since it begins at 0: the bias correction v / (1 - beta ** t), with t values seen, makes the first average
    the first value itself. Kingma and Ba 2015, "Adam", section 3, https://arxiv.org/abs/1412.6980.

    A value that is not finite counts like any other, so the average is not finite from then on: leave such values out.

    Args:
        beta: Weight of what was before, in [0, 1); 0 keeps the last value only.
        correct: Whether to correct the bias of the first values.

    Attributes:
        value: The average, a float or an array of float64; None before the first value.
        count: Number of values seen.

    Raises:
        ValueError: If `beta` lies outside [0, 1), or a value has another shape than those before it.
        TypeError: If `beta` is no number, or a value is no number and no array of numbers.

    Example:
        >>> average = ExponentialAverage(0.5)
        >>> [round(average.update(x), 3) for x in (4.0, 1.0, 3.0)]
        [4.0, 2.0, 2.571]
    """

    def __init__(self, beta=0.9, correct=True):
        checking.beta("beta", beta)
        self.beta = beta
        self.correct = correct
        self.count = 0
        self._average = None

    @property
    def value(self) -> Any:
        if self._average is None:
            return None
        value = self._average / (1 - self.beta**self.count) if self.correct else self._average
        return value if np.ndim(value) else float(value)

    def update(self, value) -> Any:
        """Takes one more value into the average.

        Args:
            value: A number, or an array of the shape of those before it.

        Returns:
            The new average: a float, or an array of that shape.
        """
        value = _numbers(value)
        if self._average is None:
            self._average = np.zeros_like(value)
        elif value.shape != np.shape(self._average):
            raise ValueError(
                f"`value` must have the shape of those before it, {np.shape(self._average)}; begin another average for "
                f"other shapes. Received shape: {value.shape}"
            )
        self._average = self.beta * self._average + (1 - self.beta) * value
        self.count += 1
        return self.value

    def get_state(self):
        """The average before its correction, a float or array or None, and the number of values seen."""
        average = self._average
        if average is not None and not np.ndim(average):
            average = float(average)
        return {"average": average, "count": self.count}

    def set_state(self, state):
        """Takes back what `get_state` gave."""
        average = state["average"]
        self._average = None if average is None else np.array(average, "float64")
        self.count = operator.index(state["count"])


def _numbers(value):
    try:
        return np.array(value, "float64")
    except (TypeError, ValueError):
        raise TypeError(f"`value` must be a number or an array of numbers. Received: {type(value).__name__}") from None
