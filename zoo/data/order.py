"""The order in which pictures are served: a function of the seed and the epoch alone, so that it can be made again."""

import math
from collections.abc import Callable, Iterator

import numpy as np


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The rows of one epoch, shuffled."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def balanced_order(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The rows of one epoch in which every class stands as often as any other, give or take one, shuffled.

    As many rows as there are pictures. Each class is gone through in an order of its own, from epoch to epoch, and
    begun anew, in another order, once all of its pictures were drawn.

    Args:
        labels: Class indices (n,); a class without pictures is not drawn.
    """
    count = len(labels)
    classes = np.unique(labels)
    turns = np.arange(epoch * count, (epoch + 1) * count)  # of all epochs; the classes take turns
    drawn = []
    for place, label in enumerate(classes):
        rows = np.flatnonzero(labels == label)
        mine = turns[turns % len(classes) == place] // len(classes)  # which draw of this class each one is
        for cycle in np.unique(mine // len(rows)):
            cycled = np.random.default_rng([seed, int(label), int(cycle), 1]).permutation(rows)
            drawn.append(cycled[mine[mine // len(rows) == cycle] % len(rows)])
    return np.random.default_rng([seed, epoch]).permutation(np.concatenate(drawn)) if drawn else np.arange(0)


class Plan:
    """Which rows stand in which batch: a function of the epoch and the step alone.

    Attributes:
        steps: Batches an epoch; the last one may be smaller.
        first: The first epoch, from 0.

    Args:
        count: Rows an epoch.
        batch_size: Rows a batch.
        order: The rows of an epoch by its number; None takes them as they come.
        epoch: The first one.
        skipped: Batches of it that nobody will use, and that hold a single row.

    Raises:
        ValueError: If the batch size is no whole number of at least 1.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        order: Callable[[int], np.ndarray] | None = None,
        *,
        epoch: int = 0,
        skipped: int = 0,
    ):
        self.batch_size = checked_batch_size(batch_size)
        self.steps = steps(count, self.batch_size)
        self.first = epoch
        self._skipped = skipped
        self._order = order
        self._known = (-1, np.arange(count))  # the latest epoch and its rows

    def place(self, index: int) -> tuple[int, int]:
        """Epoch and step of a batch, counted from the beginning of the first epoch."""
        past, step = divmod(index, self.steps)
        return self.first + past, step

    def rows(self, epoch: int, step: int) -> np.ndarray:
        """The rows of one batch."""
        known, rows = self._known
        if self._order is not None and known != epoch:
            rows = self._order(epoch)
            self._known = epoch, rows
        cut = rows[step * self.batch_size : (step + 1) * self.batch_size]
        return cut[:1] if epoch == self.first and step < self._skipped else cut


def parts(rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """The rows of each batch; the last one may be smaller."""
    return (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))


def steps(count: int, batch_size: int) -> int:
    """Batches an epoch; the last one may be smaller."""
    return math.ceil(count / batch_size)


def checked_batch_size(batch_size) -> int:
    """A batch size that can be used.

    Raises:
        ValueError: If it is no whole number of at least 1.
    """
    return _checked("batch_size", batch_size, 1)


def checked_seed(seed) -> int:
    """A seed that can be used.

    Raises:
        ValueError: If it is no whole number of at least 0.
    """
    return _checked("seed", seed, 0)


def _checked(name: str, number, least: int) -> int:
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}. Received: {name}={number!r}")
    return int(number)
