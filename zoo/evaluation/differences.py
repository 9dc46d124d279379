"""Differences of a loss in float64, along directions in one weight at a time, each beside the slope it should equal."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

ops: Any = keras.ops  # to pyright its functions may return None

DIFFERENCES = 3  # of a weight
ACCEPTABLE = 1e-5  # relative error; beyond it something may be wrong
AGREEMENT = 1e-7  # of gradient and difference, at which no other step is tried
PLAIN = 1e-2  # disagreement that no other step is tried for, where the loss is smooth
# The first step is where rounding is bounded by 8e-7 of the gradient. That bound is generous: on ResNet-20 it moves
# differences by a tenth of it. Small steps feel rounding, large ones meet kinks.
SMALLEST, LARGEST = 1e-8, 1e-4  # in sizes of the weight
STEPS = (1.0, 0.25, 4.0, 0.05)  # times the first one


class Difference(NamedTuple):
    """One direction: the slope by automatic differentiation and by a difference, and what is known of the latter."""

    gradient: float
    difference: float
    noise: float  # what rounding may have done to it
    larger: float  # what a disagreement is measured by: the difference, or what is usual in this weight
    kink: bool = False

    @property
    def gap(self):
        return abs(self.difference - self.gradient)

    @property
    def nothing(self):
        """Whether no slope can be told from none."""
        return max(abs(self.gradient), abs(self.difference)) <= self.noise

    @property
    def off(self):
        """Whether the two disagree by more than rounding."""
        return self.gap > max(ACCEPTABLE * self.larger, self.noise)


class Slopes:
    """Slopes of the loss along directions in one weight at a time.

    Args:
        loss: Compiled function of the values of all weights.
        values: Where they are.
        here: The loss there, computed once already.
        gradients: The gradients there, as arrays.
    """

    def __init__(self, loss, values, here, gradients):
        self._loss, self._values, self.gradients = loss, values, gradients
        self._arrays = [as_array(value) for value in values]
        self._here = self._at()
        if not math.isfinite(self._here):
            raise ValueError(f"The loss of the pictures must be a finite number. Received: {self._here}")
        # two compilations of one loss may differ by rounding, in float32 where pictures are changed
        if (again := self._at()) != self._here or not math.isclose(again := here, self._here, rel_tol=1e-6):
            raise ValueError(
                f"The loss must be the same whenever it is computed. Received: {self._here}, then {again}. Some layer "
                "draws chance of its own; draw by keras.random with a keras.random.SeedGenerator that the layer holds."
            )
        self._rounding = self._measured()

    def size(self, i):
        """How large the values of a weight are; 1 for zeros."""
        return float(np.sqrt(np.mean(self._arrays[i] ** 2))) or 1.0

    def along(self, i, direction, scale) -> Difference:
        """Gradient and difference along a direction in weight i, where gradients are as large as `scale`."""
        gradient = float(np.sum(self.gradients[i] * direction))
        first = min(max(self._rounding / (2 * AGREEMENT * scale), SMALLEST), LARGEST) if scale else 1e-5
        best, kink = None, False
        for step in (first * factor for factor in STEPS):
            right, left = self._sides(i, direction, step)
            difference, noise, bend = (right + left) / 2, 4 * self._rounding / step, abs(right - left)
            found = Difference(gradient, difference, noise, max(abs(difference), scale))
            between = found.gap <= bend / 2 + noise  # the slopes to both sides
            kink = kink or (step < first and bend > 4 * noise and between)
            best = min(best or found, found, key=lambda one: one.gap)
            plain = found.gap > PLAIN * found.larger and found.gap > 10 * max(bend, noise)
            if found.gap <= AGREEMENT * found.larger or found.nothing or plain:
                break
        return best._replace(kink=kink and best.gap > AGREEMENT * best.larger)

    def _sides(self, i, direction, step):
        """Slopes to the right and to the left."""
        right = self._at(i, self._arrays[i] + step * direction) - self._here
        left = self._here - self._at(i, self._arrays[i] - step * direction)
        return right / step, left / step

    def _at(self, i=None, value=None):
        values = list(self._values)
        if i is not None:
            values[i] = ops.convert_to_tensor(value)
        return float(ops.convert_to_numpy(self._loss(values)))

    def _measured(self):
        """What rounding does to the loss: its second difference at a step at which nothing else can be left."""
        found = [float(np.finfo(float).eps) * abs(self._here)]
        for i in sorted({round(part * (len(self._values) - 1)) for part in (0, 1 / 3, 2 / 3, 1)}):
            shift = 1e-11 * self.size(i)
            ends = [self._at(i, self._arrays[i] + side * shift) for side in (1, -1)]
            found.append(abs(ends[0] - self._here + ends[1] - self._here) / 2)
        return max(found)


def differences(slopes: Slopes, i: int, count: int, draws) -> Iterator[tuple[int, Difference]]:
    """(parameters moved, difference) of each direction in which the parameters drawn from a weight are moved.

    Where those of one direction disagree, they are moved one by one until one of them does, too: at the kinks of
    several parameters at once, the gradient need not lie between the slopes to both sides.

    Args:
        slopes: Of the loss.
        i: The weight.
        count: How many of its parameters are drawn.
        draws: Generator that draws them.
    """
    gradient, size = slopes.gradients[i], slopes.size(i)
    places = draws.choice(gradient.size, count, replace=False)
    signs = draws.choice([-1.0, 1.0], count)
    scale = size * float(np.sqrt(np.mean(gradient.flat[places] ** 2)))

    def moved(some):
        direction = np.zeros(gradient.shape)
        direction.flat[places[some]] = signs[some] * size / math.sqrt(len(some))
        return slopes.along(i, direction, scale)

    for together in np.array_split(np.arange(count), min(DIFFERENCES, count)):
        found = moved(together)
        alone = []
        while found.off and len(together) > 1 and len(alone) < len(together):
            alone.append(moved(together[len(alone) : len(alone) + 1]))
            if alone[-1].off and not alone[-1].kink:
                alone, found = [], found._replace(kink=False)
                break
        if alone:
            yield from ((1, one) for one in alone)
        else:
            yield len(together), found


def as_array(tensor) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))
