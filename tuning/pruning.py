"""The median rule: which value a trial must have reached by which epoch to be worth going on with."""

import warnings
from collections.abc import Sequence

import numpy as np

LEAST = 5  # completed trials before any is judged by them
GRACE = 2  # epochs in which nothing is judged


def medians(results: Sequence[dict], direction: str) -> list[float | None] | None:
    """The median, over completed trials, of the best value up to each epoch (Golovin et al. 2017, "Google Vizier").

    Departure: the paper's own rule takes running averages instead of the best of each; a trial that ended early counts
    on with its best.

    Args:
        results: Of trials, with their curves.
        direction: "max" or "min".

    Returns:
        A value an epoch, None for those that are not judged; None as long as there are fewer than `LEAST` trials.
    """
    curves = [result["curve"] for result in results if result["status"] == "completed" and result["curve"]]
    if len(curves) < LEAST:
        return None
    best = np.fmax.accumulate if direction == "max" else np.fmin.accumulate
    length = max(map(len, curves))
    rows = [best(np.array([*curve, *[curve[-1]] * (length - len(curve))], float)) for curve in curves]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an epoch for which no trial has a finite value
        middle = np.nanmedian(rows, axis=0)
    judged = [float(value) if np.isfinite(value) else None for value in middle[GRACE:]]
    return [None] * min(GRACE, length) + judged
