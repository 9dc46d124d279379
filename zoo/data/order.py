"""The order in which pictures are served: a function of the seed and the epoch alone, so that it can be made again."""

import math
from collections.abc import Iterator

import numpy as np


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The rows of one epoch, shuffled."""
    return np.random.default_rng([seed, epoch]).permutation(count)


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
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"`batch_size` must be a whole number of at least 1. Received: batch_size={batch_size}")
    return int(batch_size)
