"""Pictures of a search's trials: their scores as time went by, and their learning curves."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tuning.plots.view import MANY, best_of, said_score, scored, view, whole_epochs
from tuning.words import KNOWN_GOOD, first_of
from zoo.evaluation.plots.style import BLUE, GREEN, INK, ORANGE, PURPLE, SOFT, finite, label_ends, line, panels, styled

HEIGHT = 3.0  # inches


@styled
def progress(result) -> Figure:
    """Each trial's score by the time it ended, and the best so far as steps; pruned and failed ones are marked.

    Time is that in which trials ran: pauses of a search that was gone on with later are left out. A dashed line is the
    score of the first trial. What is far out on the poor side stands at the edge.

    Args:
        result: A SearchResult.

    Raises:
        ValueError: If no trial has a score yet.

    Example:
        tuning.plots.progress(result).savefig("progress.png")
    """
    trials = result.trials
    found, at = scored(trials), elapsed(trials)
    shown = view(result, found.score)
    unit, name = next(pair for pair in UNITS if at.max() >= 2 * pair[0] or pair[0] == 1)
    at = pd.Series(at / unit)
    figure, (axes,) = panels(HEIGHT)
    shown.apply(axes)
    notes = []
    for status, color, marker in (("completed", BLUE, "o"), ("pruned", PURPLE, "s")):
        some = found.loc[found.status == status]
        scores, outside = shown.held(some.score)
        when = at.loc[some.index].to_numpy()
        for where, mark in ((~outside, marker), (outside, shown.edge)):
            hollow = "none" if status == "pruned" else color
            axes.plot(
                when[where], scores[where], mark, color=color, markerfacecolor=hollow, markersize=5, alpha=0.75,
                rasterized=len(trials) > MANY,
            )  # fmt: skip
        notes += ["square: pruned"] * (status == "pruned" and len(some) > 0)
        notes += ["arrow: off the axis"] * bool(outside.any() and "arrow: off the axis" not in notes)
    failed = at.loc[trials.index[trials.status == "failed"]]
    if len(failed):
        axes.plot(failed, np.full(len(failed), 0.03), "x", color=ORANGE, transform=axes.get_xaxis_transform())
        notes.append("x: failed")
    ends = []
    completed = found.loc[found.status == "completed"]
    if len(completed):
        order = at.loc[completed.index].sort_values(kind="stable").index
        so_far = completed.score[order].astype(float)
        so_far = so_far.cummax() if result.direction == "max" else so_far.cummin()
        steps, _ = shown.held([*so_far, so_far.iloc[-1]])
        axes.step([*at.loc[order], at.max()], steps, where="post", color=ORANGE, linewidth=1.8, zorder=1)
        ends.append((at.max(), steps[-1], f"best {said_score(result.objective, so_far.iloc[-1])}", ORANGE))
        if result.known_good:
            first = float(trials.score[trials.trial == result.known_good].iloc[0])
            (height,), _ = shown.held([first])
            axes.axhline(height, color=INK, linewidth=1, linestyle="--", alpha=0.5)
            who = "known-good" if first_of(result) == KNOWN_GOOD else "first"
            ends.append((at.max(), height, f"{who} {said_score(result.objective, first)}", INK))
    axes.set_xlim(0, 1.03 * at.max() or 1)
    axes.set_xlabel(f"{name} of searching")
    axes.set_title("; ".join(notes))
    label_ends(axes, ends, HEIGHT)
    return figure


UNITS = ((3600, "hours"), (60, "minutes"), (1, "seconds"))


def elapsed(trials: pd.DataFrame) -> pd.Series:
    """Seconds in which any trial ran, until each one ended; NaN where it has not.

    Args:
        trials: With the columns `ended` (ISO 8601) and `seconds`; by one clock, as that of the search.
    """
    ended = pd.to_datetime(trials.ended.replace("", None), utc=True, errors="coerce", format="ISO8601")
    end = (ended - ended.min()).dt.total_seconds().to_numpy(float)
    start = end - np.nan_to_num(trials.seconds.to_numpy(float))
    known = np.isfinite(end)
    spans: list[list[float]] = []  # in which something ran, apart from each other
    for begun, over in sorted(zip(start[known], end[known], strict=True)):
        if spans and begun <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], over)
        else:
            spans.append([begun, over])
    found = np.array([sum(np.clip(moment - begun, 0, over - begun) for begun, over in spans) for moment in end])
    return pd.Series(np.where(known, found, np.nan), trials.index)


@styled
def curves(result) -> Figure:
    """The objective from epoch to epoch of every trial, with the best one's and the first one's on top.

    Dots are at the epochs whose weights were kept, which are those of the lowest loss on dev and not always the highest
    of the curve. The axis holds these two curves and most of the others.

    Args:
        result: A SearchResult.

    Raises:
        ValueError: If no trial has a finite value.
    """
    lines = {name: finite(values) for name, values in result.curves.items() if np.isfinite(finite(values)).any()}
    if not lines:
        raise ValueError("No trial of this search has a learning curve yet, so there is nothing to draw.")
    best, first = best_of(result), str(result.trials.trial.iloc[0])
    kept = dict(zip(result.trials.trial, result.trials.best_epoch.astype(int), strict=True))
    named = {first: ("first", GREEN), best: ("best", ORANGE)}  # a first that is the best counts as the best
    outstanding = [values[np.isfinite(values)] for name, values in lines.items() if name in named]
    lasts = [values[np.isfinite(values)][-1] for values in lines.values()]
    shown = view(result, lasts, np.concatenate([*outstanding, []]))
    figure, (axes,) = panels(HEIGHT)
    faint = float(np.clip(12 / len(lines), 0.2, 0.7))
    for name, values in lines.items():
        if name not in named:
            line(axes, np.arange(1, len(values) + 1), values, BLUE, linewidth=1, alpha=faint, zorder=2,
                 rasterized=len(lines) > MANY)  # fmt: skip
    ends = []
    for name, (who, color) in named.items():
        if name in lines:
            values = lines[name]
            line(axes, np.arange(1, len(values) + 1), values, color, linewidth=2.2, zorder=3)
            last = int(np.flatnonzero(np.isfinite(values))[-1])
            ends.append((last + 1, float(shown.held([values[last]])[0][0]), who, color))
            if 0 < (epoch := kept[name]) <= len(values) and np.isfinite(values[epoch - 1]):
                axes.plot(epoch, values[epoch - 1], "o", color=color, markersize=6, zorder=4)
    status = dict(zip(result.trials.trial, result.trials.status, strict=True))
    notes = ["dot: the epoch that was kept"]
    pruned = [(len(values), values[-1]) for name, values in lines.items() if status.get(name) == "pruned"]
    if pruned:
        x, y = zip(*pruned, strict=True)
        y, _ = shown.held(y)
        axes.plot(x, y, "s", color=PURPLE, markerfacecolor="none", markersize=4, alpha=SOFT, zorder=2)
        notes.append("square: pruned")
    axes.set_title("; ".join(notes))
    shown.apply(axes)
    whole_epochs(axes, max(map(len, lines.values())))
    label_ends(axes, ends, HEIGHT)
    return figure
