"""Figures of the gradients of a training, as a `GradientMonitor` noted them."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from callbacks.gradient_verdicts import (
    DEAD_SHARE,
    EXPLODING_NORM,
    EXPLODING_RATIO,
    VANISHING_SHARE,
    WORST_FIRST,
    verdicts,
)
from zoo.evaluation.plots.style import (
    INK,
    PALETTE,
    SOFT,
    finite,
    label_ends,
    line,
    mark_missing,
    numbers,
    panels,
    percent,
    short,
    styled,
)

GROUPS = 8  # lines that can be told apart
FIGURES = ("gradient_norm", "weight_norm", "update_ratio", "dead")


@styled
def gradients(run_or_table) -> Figure:
    """Gradient norm, size of the steps and dead ReLUs of each group of layers over a training.

    Dashed lines are the limits of `callbacks.gradient_verdicts`: beyond them gradients explode, vanish, or units are
    dead. Of more than 8 groups those with the worst verdicts are shown.

    Args:
        run_or_table: A run (its gradients.csv is read), `GradientMonitor.table`, or the same as a DataFrame.

    Raises:
        FileNotFoundError: If the run has no gradients.csv.
        ValueError: If there is no record, or a column is missing.

    Example:
        monitor = callbacks.GradientMonitor(probe=(x, y))
        model.fit(..., callbacks=[monitor])
        plots.gradients(monitor.table)
    """
    records = gradient_records(run_or_table)
    groups, total = _worst_groups(records)
    at = _positions(records)
    figures = {
        name: {group: finite([_figure(record, group, name) for record in records]) for group in groups}
        for name in ("gradient_norm", "update_ratio", "dead")
    }
    titles = {"gradient_norm": "gradient norm", "update_ratio": "update ratio", "dead": "dead ReLUs"}
    drawn = [name for name in titles if any(np.isfinite(values).any() for values in figures[name].values())]
    drawn = drawn or ["gradient_norm"]  # of which nothing is a number, which is worth showing
    figure, axes = panels(*[1.7] * len(drawn))
    missing = False
    for one, name in zip(axes, drawn, strict=True):
        ends = []
        for (group, values), color in zip(figures[name].items(), PALETTE, strict=False):
            if np.isfinite(values).any():
                line(one, at, values if name == "dead" else np.where(values > 0, values, np.nan), color, linewidth=1.6)
                last = np.flatnonzero(np.isfinite(values))[-1]
                ends.append((at[last], values[last], short(group, 16), color))
            if name == "gradient_norm":  # the others may be unknown, which is no trouble
                missing |= mark_missing(one, at, values, color)
        one.set_ylabel(titles[name])
        if name == "dead":
            one.set_ylim(-0.03, 1.03)
            percent(one.yaxis)
            _limit(one, DEAD_SHARE, f"dead above {DEAD_SHARE:.0%}")
        else:
            one.set_yscale("log")
            numbers(one.yaxis)
            limit = EXPLODING_NORM if name == "gradient_norm" else EXPLODING_RATIO
            _limit(one, limit, f"exploding above {limit:g}")
        if name == "gradient_norm":
            _vanishing(one, at, records)
        label_ends(one, ends, 1.7)
    few = f", the {len(groups)} of {total} groups that do worst" if len(groups) < total else ""
    axes[0].set_title(f"gradients{few}{'; x: no number' * missing}")
    axes[-1].set_xlim(0, records[-1]["epoch"])
    axes[-1].set_xlabel("training (epochs done)")
    figure.align_ylabels(axes)
    return figure


def _limit(axes, value, text):
    axes.axhline(value, color=INK, alpha=0.5, linewidth=1, linestyle="--")
    axes.annotate(
        text,
        (0, value),
        xytext=(3, -3),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        va="top",
        fontsize=8,
        alpha=SOFT,
    )


def _vanishing(axes, at, records):
    """The line below which a group's gradient vanishes, a share of the largest group's."""
    norms = [[_figure(record, group, "gradient_norm") for group in record["groups"]] for record in records]
    largest = [max(several, default=0) for several in norms]
    line_below = finite(largest) * VANISHING_SHARE
    line(axes, at, np.where(line_below > 0, line_below, np.nan), INK, alpha=0.5, linewidth=1, linestyle="--")
    if np.isfinite(line_below).any():
        first = np.flatnonzero(np.isfinite(line_below))[0]
        axes.annotate(
            "vanishing below",
            (at[first], line_below[first]),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=8,
            alpha=SOFT,
        )


def gradient_records(run_or_table) -> list[dict[str, Any]]:
    """The records of a `GradientMonitor` as `callbacks.gradient_verdicts.verdicts` takes them, in their order.

    Args:
        run_or_table: As `gradients` takes it.

    Raises:
        FileNotFoundError: If the run has no gradients.csv.
        ValueError: If there is no record, or a column is missing.
    """
    if hasattr(run_or_table, "directory"):
        path = Path(run_or_table.directory) / "gradients.csv"
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: no gradients were recorded for this run.")
        text = path.read_text(encoding="utf-8")
        rows: Iterable[Mapping] = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())  # a torn last line is none
    elif isinstance(run_or_table, pd.DataFrame):
        rows = run_or_table.astype(object).where(run_or_table.notna(), None).to_dict("records")  # pyright: ignore
    else:
        rows = run_or_table
    records: dict[tuple[int, int], dict[str, Any]] = {}
    try:
        for row in rows:
            position = int(row["epoch"]), int(row["step"])
            record = records.setdefault(position, {"epoch": position[0], "step": position[1], "groups": {}})
            record["groups"][row["group"]] = {
                name: None if row[name] in (None, "") else float(row[name]) for name in FIGURES
            }
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"The gradients must be a table as GradientMonitor writes it, with the columns epoch, step, group, "
            f"{', '.join(FIGURES)}. Received one that cannot be read: {error!r}"
        ) from error
    if not records:
        raise ValueError("The gradients must be a table with one or more records. Received: one without any")
    return [records[position] for position in sorted(records)]


def _worst_groups(records):
    """Up to 8 names in the order of the network: those with the worst verdict, then the lowest gradient."""
    every = list(records[-1]["groups"])
    found = verdicts(records)
    norms = {group: np.nan_to_num(_figure(records[-1], group, "gradient_norm"), nan=-1) for group in every}
    ranked = sorted(every, key=lambda group: (WORST_FIRST.index(found[group]), norms[group]))
    chosen = set(ranked[:GROUPS])
    return [group for group in every if group in chosen], len(every)


def _figure(record, group, name):
    value = record["groups"].get(group, {}).get(name)
    return np.nan if value is None else value


def _positions(records):
    """Where each record lies, in epochs done; an epoch has one step more than the highest number of one."""
    steps = max(record["step"] for record in records) + 1
    return np.array([record["epoch"] - 1 + record["step"] / steps for record in records])
