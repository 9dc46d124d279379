"""Figures of a training: what was measured from epoch to epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from zoo.evaluation import histories
from zoo.evaluation.plots.style import (
    BLUE,
    INK,
    ORANGE,
    PALETTE,
    finite,
    label_ends,
    line,
    mark_missing,
    numbers,
    panels,
    percent,
    short,
    styled,
    whole,
)

# the first that a history has: the loss without penalties decides on the best epoch where there is one
LOSSES = ("cross_entropy", "loss")
ACCURACIES = (*histories.ACCURACIES, "binary_accuracy")
RATES = ("learning_rate", "lr")
WIDE = 30  # times between the highest and the lowest loss: a linear axis shows nothing of the low ones


@styled
def history(run_or_history) -> Figure:
    """Loss and accuracy of training (thin) and dev set (thick), the learning rate below, the best epoch marked.

    What a history lacks is left out, and so are values that are no number. The best epoch is the run's own; else that
    with the lowest loss on the dev set.

    Args:
        run_or_history: A run, what `model.fit` returned, or a dict or DataFrame of a list a metric.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it holds none of the metrics.

    Example:
        plots.history(model.fit(...)).savefig("history.png")
    """
    found = series(run_or_history)
    loss, accuracy = (_first(found, names) for names in (LOSSES, ACCURACIES))
    rate = next((name for name in RATES if name in found and np.isfinite(found[name]).any()), None)
    heights = [(loss, 1.7), (accuracy, 1.5), (rate, 0.6)]
    if not any(name for name, _ in heights):
        known = ", ".join(found) or "nothing"
        raise ValueError(
            "`run_or_history` must have a loss, an accuracy or a learning rate that is a finite number somewhere. "
            f"It has: {known}."
        )
    figure, axes = panels(*(height for name, height in heights if name))
    panel = dict(zip((name for name, _ in heights if name), axes, strict=True))
    epochs = np.arange(1, len(next(iter(found.values()))) + 1)
    best = _best(run_or_history, found, loss)
    if best:
        for one in axes:
            one.axvline(best, color=INK, alpha=0.4, linewidth=1, linestyle="--")
    drawn = [_metric(panel[name], epochs, found, name, best, height) for name, height in heights[:2] if name]
    notes = [f"best epoch: {best} of {len(epochs)}"] * bool(best) + ["x: no number"] * any(drawn)
    axes[0].set_title("; ".join(notes))
    if rate:
        _rate(panel[rate], epochs, found[rate])
    axes[-1].set_xlabel("epoch")
    axes[-1].set_xlim(0.5, len(epochs) + 0.5)
    whole(axes[-1].xaxis)
    figure.align_ylabels(axes)
    return figure


def _metric(axes, epochs, found, name, best, height):
    """A metric of train and dev, each named at its end; whether values are missing."""
    share = name in ACCURACIES
    ends, missing = [], False
    for key, who, color, width in ((name, "train", ORANGE, 1.2), (f"val_{name}", "dev", BLUE, 2.4)):
        values = found.get(key)
        if values is None or not np.isfinite(values).any():
            continue
        line(axes, epochs, values, color, linewidth=width)
        last = int(np.flatnonzero(np.isfinite(values))[-1])
        figure = f"{values[last]:.1%}" if share else f"{values[last]:.3g}"
        ends.append((epochs[last], values[last], f"{who} {figure}", color))
        if best and who == "dev" and np.isfinite(values[best - 1]):
            axes.plot(best, values[best - 1], color=color, marker="o", markersize=6)
        missing |= mark_missing(axes, epochs, values, color)
    axes.set_ylabel({"cross_entropy": "cross-entropy", "loss": "loss"}.get(name, "accuracy"))
    if share:
        percent(axes.yaxis)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, max(0, high - 0.1)), max(high, min(1.02, low + 0.1)))  # a tenth at least
    else:
        _log_where_wide(axes, [found.get(name, ()), found.get(f"val_{name}", ())], WIDE)
    label_ends(axes, ends, height)
    return missing


def _rate(axes, epochs, rates):
    """The learning rate as steps, so that a jump between two phases is one."""
    axes.stairs(rates, np.append(epochs, epochs[-1] + 1) - 0.5, baseline=None, color=INK, linewidth=1.2)
    if not _log_where_wide(axes, [rates], 10):
        axes.set_ylim(0, 1.15 * np.nanmax(rates))
    numbers(axes.yaxis)
    axes.set_ylabel("learning\nrate")


@styled
def curves(histories: Mapping[str, Sequence], metric: str = "val_loss") -> Figure:
    """One metric of several ways to train: the mean of each one's runs, and the band from the lowest to the highest.

    Runs may have different lengths: the mean of an epoch is that of the runs that came so far, values that are no
    number left out.

    Args:
        histories: Name to a list of histories, each as `history` takes them.
        metric: A key of all of them.

    Raises:
        ValueError: If there is nothing to draw, or a history lacks the metric.

    Example:
        plots.curves({"adam": [run_a, run_b], "sgd": [run_c, run_d]}, metric="val_accuracy")
    """
    if not histories or not all(len(several) for several in histories.values()):
        raise ValueError("`histories` must have one or more names with one or more histories each. Received: nothing")
    figure, (axes,) = panels(3.2)
    ends = []
    tables = {name: _table(name, several, metric) for name, several in histories.items()}
    for (name, table), color in zip(tables.items(), PALETTE * (len(tables) // len(PALETTE) + 1), strict=False):
        epochs = np.arange(1, table.shape[1] + 1)
        known = np.isfinite(table).any(axis=0)
        if not known.any():
            continue
        mean, low, high = (np.full(len(epochs), np.nan) for _ in range(3))
        mean[known] = np.nanmean(table[:, known], axis=0)
        low[known], high[known] = np.nanmin(table[:, known], axis=0), np.nanmax(table[:, known], axis=0)
        if len(table) > 1:
            axes.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
        line(axes, epochs, mean, color, linewidth=1.8)
        last = np.flatnonzero(known)[-1]
        runs = f" ({len(table)} runs)" if len(table) > 1 else ""
        ends.append((epochs[last], mean[last], f"{short(name, 18)}{runs}", color))
    axes.set(xlabel="epoch", ylabel=metric.removeprefix("val_").replace("_", " "))
    whole(axes.xaxis)
    share = metric.removeprefix("val_") in ACCURACIES
    if share:
        percent(axes.yaxis)
    else:
        _log_where_wide(axes, tables.values(), WIDE)
    where = " on the dev set" if metric.startswith("val_") else ""
    spread = ": mean, lowest and highest" if max(map(len, tables.values())) > 1 else ""
    axes.set_title(f"{metric.removeprefix('val_').replace('_', ' ')}{where}{spread}")
    label_ends(axes, ends, 3.2)
    return figure


def _table(name, several, metric):
    """(histories, epochs), NaN behind the end of each."""
    rows = []
    for one in several:
        found = series(one)
        if metric not in found:
            known = ", ".join(found) or "nothing"
            raise ValueError(f"`metric` must be in every history. {name!r} has: {known}. Received: metric={metric!r}")
        rows.append(found[metric])
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table


def series(run_or_history) -> dict[str, np.ndarray]:
    """Metric to its values, an epoch each, NaN where there is no finite number."""
    found = {str(name): finite(values) for name, values in histories.metrics(run_or_history).items() if name != "epoch"}
    lengths = {name: len(values) for name, values in found.items() if len(values)}
    if len(set(lengths.values())) > 1:
        known = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(
            f"A history must have one value an epoch of each metric; call fit with validation_freq=1. It has: {known}."
        )
    return {name: found[name] for name in lengths}


def _first(found, names):
    """The first of some metrics that is known of train or dev."""
    known = {name for name, values in found.items() if np.isfinite(values).any()}
    return next((name for name in names if name in known or f"val_{name}" in known), None)


def _best(run_or_history, found, loss):
    """The best epoch, from 1; None without a dev set."""
    values = found.get(f"val_{loss}", np.array([]))
    if not np.isfinite(values).any():
        return None
    own = getattr(run_or_history, "best_epoch", None)
    return int(np.nanargmin(values)) + 1 if own is None else int(own)


def _log_where_wide(axes, several, times) -> bool:
    """Makes the axis upwards logarithmic where the values span more than so many times."""
    values = np.concatenate([np.ravel(np.asarray(one, float)) for one in several])
    positive = values[np.isfinite(values)]
    wide = len(positive) > 0 and positive.min() > 0 and positive.max() > times * positive.min()
    if wide:
        axes.set_yscale("log")
        numbers(axes.yaxis)
    return wide
