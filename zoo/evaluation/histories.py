"""What anybody's `model.fit` leaves behind: read, checked, and its best epoch."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

ACCURACIES = ("accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy")


def metrics(given) -> dict[str, list[float]]:
    """Metric name to a value an epoch, of whatever `fit` gave."""
    given = getattr(given, "history", given)
    if isinstance(given, pd.DataFrame):
        given = {str(name): column.tolist() for name, column in given.items()}
    if not isinstance(given, Mapping):
        raise TypeError(
            "`run_or_history` must be a run of fine_tune, what `model.fit` returned, its dict, or a DataFrame. "
            f"Received: {type(given).__name__}"
        )
    for name, values in given.items():
        if isinstance(values, str) or not hasattr(values, "__len__"):
            raise TypeError(
                f"A history has a list of values, one an epoch, for each metric. Received: {name}={values!r}"
            )
    return {name: list(values) for name, values in given.items()}


def best_epoch(history: Mapping[str, list[float]]) -> tuple[float, float, int]:
    """Training and dev error of the epoch, from 1, with the lowest val_loss, or of the last one."""
    metric = next((name for name in ACCURACIES if name in history and f"val_{name}" in history), None)
    if metric is None:
        alone = next((name for name in ACCURACIES if name in history), None)
        way = (
            f"`val_{alone}` is missing: call fit with validation_data."
            if alone
            else 'Compile the model with metrics=["accuracy"] and call fit with validation_data.'
        )
        raise ValueError(
            f"The history has no training and dev accuracy. {way} It has: {', '.join(history) or 'nothing'}."
        )
    losses = history.get("val_cross_entropy", history.get("val_loss"))
    columns = [history[metric], history[f"val_{metric}"], losses or history[metric]]
    if len(set(map(len, columns))) > 1:
        raise ValueError(
            "The history has not one value an epoch of each metric, so epochs cannot be matched; call fit with "
            f"validation_freq=1. It has {len(columns[0])} of {metric} and {len(columns[1])} of val_{metric}."
        )
    train, dev, loss = (np.asarray(column, float) for column in columns)
    usable = np.isfinite(train) & np.isfinite(dev)
    if not usable.any():
        raise ValueError(f"The history has no epoch with both {metric} and val_{metric}.")
    if min(train[usable].min(), dev[usable].min()) < 0 or max(train[usable].max(), dev[usable].max()) > 1:
        raise ValueError(
            f"Accuracies are shares in [0, 1]; divide per cent by 100. Received: {metric} up to {np.nanmax(train):g}"
        )
    watched = usable & np.isfinite(loss)
    last = int(np.flatnonzero(usable)[-1])
    best = int(np.where(watched, loss, np.inf).argmin()) if losses is not None and watched.any() else last
    return float(1 - train[best]), float(1 - dev[best]), best + 1
