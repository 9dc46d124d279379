"""Pictures of a search's hyperparameters: the score against each, and how much hangs on it."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tuning.importance import Importance, configurations
from tuning.plots.view import LETTER, MANY, best_of, fitting, scored, view
from tuning.scale import Scale, scales
from zoo.evaluation.plots.style import (
    BLUE,
    INK,
    ORANGE,
    PURPLE,
    SMALL,
    SOFT,
    WIDTH,
    panels,
    percent,
    plain,
    short,
    styled,
)

ACROSS, HEIGHT = 1.9, 1.35  # inches of one picture
AWAY = 1.15  # where trials stand to which a hyperparameter does not apply
APART = 0.25  # of the distance of two choices, by which trials of one are spread to either side


@styled
def hyperparameters(result, names: Sequence[str] | None = None) -> Figure:
    """The score against each hyperparameter, on its own scale: a dot a configuration, the best one larger.

    Choices have a line at the median of their scores. Where a hyperparameter does not apply, dots stand at the dash.

    Args:
        result: A SearchResult.
        names: Which to draw, of those that varied; by default all of them.

    Raises:
        ValueError: If no trial has a score yet, or none of the hyperparameters varied, or one of `names` did not.
    """
    best = best_of(result)
    trials = configurations(scored(result.trials), best)
    varying = {scale.name: scale for scale in scales(result.space, trials)}
    names = list(varying) if names is None else list(names)
    if not names or not {*names} <= {*varying}:
        raise ValueError(
            "`names` must be hyperparameters that varied among trials with a score: "
            f"{', '.join(varying) or 'none did'}. Received: names={names}"
        )
    shown = view(result, trials.score)
    across = min(2, len(names))
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(WIDTH, down * (HEIGHT + 0.75) + 0.3), layout="constrained")
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        plain(axes)
        shown.apply(axes)
        axes.set_ylabel(result.objective if axes is grid.flat[0] or axes in grid[:, 0] else "")
        _scattered(axes, varying[name], trials, shown, best)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    figure.align_ylabels(grid[:, 0])
    return figure


def _scattered(axes, scale: Scale, trials, shown, best) -> None:
    places = scale.places(trials[scale.name])
    missing = np.isnan(places)
    scores, outside = shown.held(trials.score)
    middles = np.where(missing, AWAY, places)
    spread = middles.copy()
    step = 1 / max(len(scale.choices) - 1, 1)
    for place in set(middles) if scale.choices or missing.any() else ():
        same = np.flatnonzero(middles == place)
        if len(same) > 1 and (scale.choices or place == AWAY):
            reach = 0.04 if place == AWAY else min(0.06, APART * step)
            spread[same] += reach * np.linspace(-1, 1, len(same))[_mixed(len(same))]
            if len(same) > 2:
                median = np.median(scores[same])
                axes.plot(
                    [place - 1.4 * reach, place + 1.4 * reach], [median, median], color=INK, linewidth=2, alpha=SOFT
                )
    pruned = (trials.status == "pruned").to_numpy()
    for where, color, marker in ((~pruned, BLUE, "o"), (pruned, PURPLE, "s")):
        for off, mark in ((False, marker), (True, shown.edge)):
            some = where & (outside == off)
            axes.plot(
                spread[some], scores[some], mark, color=color, markerfacecolor=color if color == BLUE else "none",
                markersize=4, alpha=0.6, rasterized=len(trials) > MANY,
            )  # fmt: skip
    top = (trials.trial == best).to_numpy()
    axes.plot(spread[top], scores[top], "o", color=ORANGE, markersize=7, zorder=4)
    ticks = scale.ticks() + [(AWAY, "–")] * bool(missing.any())
    axes.set_xlim(-0.08, (AWAY if missing.any() else 1) + 0.08)
    width = sum(len(text) + 1.5 for _, text in ticks) * LETTER
    if scale.choices and width > ACROSS:  # names stand aslant, numbers thin out
        texts = [short(text, 18) for _, text in ticks]
        axes.set_xticks([place for place, _ in ticks], texts, rotation=35, ha="right", rotation_mode="anchor")
    else:
        kept = fitting(ticks, ACROSS)
        axes.set_xticks([place for place, _ in kept], [text for _, text in kept])
    axes.set_title(short(scale.name, 26), fontsize=SMALL + 1)


def _mixed(count: int) -> np.ndarray:
    """An order in which neighbours lie apart, the same each time."""
    return np.argsort(np.arange(count) * 0.6180339887 % 1)  # the golden ratio


@styled
def importance(importance: Importance) -> Figure:
    """A bar for the share of each hyperparameter in what forests know of the score, with its spread.

    Args:
        importance: What `tuning.importance.importance` gives.

    Raises:
        ValueError: If it has no figures; its note says why.
    """
    table = importance.table
    if not len(table):
        raise ValueError(f"There is no importance to draw. {importance.note}")
    figure, (axes,) = panels(0.24 * len(table) + 0.2)
    rows = np.arange(len(table))
    axes.barh(rows, table.importance, 0.7, color=BLUE, alpha=1 if importance.explained > 0 else 0.4)
    low, high = (table.importance - table.spread).clip(lower=0), table.importance + table.spread
    axes.hlines(rows, low, high, color=INK, linewidth=1, alpha=SOFT)
    for row, share, end in zip(rows, table.importance, high, strict=True):
        near = {"xytext": (4, 0), "textcoords": "offset points"}
        axes.annotate(f"{share:.0%}", (end, row), va="center", fontsize=SMALL, **near)
    axes.set_yticks(rows, [short(name, 24) for name in table.hyperparameter])
    axes.set(ylim=(len(table) - 0.4, -0.6), xlim=(0, 1.15 * float(high.max())), xlabel="share of the importance of all")
    axes.grid(False, axis="y")
    percent(axes.xaxis)
    return figure
