"""Parallel coordinates of a search, lying: hyperparameters below each other, so that ten of them fit a phone, too."""

from typing import NamedTuple

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tuning.importance import configurations
from tuning.plots.view import LETTER, MANY, best_of, fitting, is_share, reach, said_score, scored, side, view
from tuning.scale import Scale, said, scales
from zoo.evaluation.plots.style import BLUE, INK, LOOK, ORANGE, SMALL, SOFT, WIDTH, plain, short, styled

# from poor to good, told apart by the colour-blind, on white and on a dark page; good ones cover more, too
POOR_TO_GOOD = LinearSegmentedColormap.from_list("poor to good", [BLUE, "#8b8791", ORANGE])
BETWEEN, HIGH = 0.42, 0.17  # inches: from a scale to the next, and a line of what is written on one
BOLD = 0.09  # inches that a bold character takes, about
ABOVE, BELOW = 0.45, 0.1  # inches around all scales
APART = 0.025  # of a scale, by which trials of one choice are spread to either side
AWAY = 1.1  # where trials stand to which a hyperparameter does not apply
Labels = list[tuple[float, str, int]]  # place, text, line


class Row(NamedTuple):
    """A scale: each trial's place, what is written where, what the best trial has."""

    name: str
    places: np.ndarray
    ticks: list[tuple[float, str]]
    best: str
    choices: bool


@styled
def parallel(result) -> Figure:
    """A line a configuration through its value of each hyperparameter that varied, down to its score.

    Each hyperparameter has its own scale: logarithmic where it was searched so, choices at equal distances. The colour
    runs from blue, poor, to orange, good, by rank. The thick line is the best trial, whose values stand at the right.
    What does not apply to a trial stands right of the scale, at the dash.

    Args:
        result: A SearchResult.

    Raises:
        ValueError: If no trial has a score yet.
    """
    top_trial = best_of(result)
    trials = configurations(scored(result.trials), top_trial)
    scores = trials.score.to_numpy(float)
    sign = 1 if result.direction == "max" else -1
    order = np.argsort(np.argsort(sign * scores, kind="stable"), kind="stable")
    best = np.flatnonzero(trials.trial == top_trial)
    rows = [_row(scale, trials[scale.name], order, best) for scale in scales(result.space, trials)]
    rows.append(_score_row(result, scores, best))
    end = AWAY if any(place == AWAY for row in rows for place, _ in row.ticks) else 1
    left = LETTER * max(len(row.name) for row in rows) + 0.2
    across = WIDTH - left - BOLD * max(len(row.best) for row in rows) - 0.15
    labels = [_labels(row, across / (end + 4 * APART)) for row in rows]
    heights = np.array([HIGH * (1 + max(line for *_, line in some)) for some in labels])
    bottoms = np.cumsum(heights + BETWEEN) - BETWEEN
    tops = bottoms - heights

    whole = bottoms[-1] + ABOVE + BELOW
    figure = Figure(figsize=(WIDTH, whole))
    thick = f"thick: trial {top_trial}, the best" if top_trial else "no trial was completed"
    title = {"va": "top", "fontsize": LOOK["axes.titlesize"]}
    figure.text(0.01, 1 - 0.12 / whole, f"blue: poor, orange: good; {thick}", **title)
    axes = figure.add_axes((left / WIDTH, BELOW / whole, across / WIDTH, bottoms[-1] / whole))
    axes.set(ylim=(bottoms[-1], 0), xlim=(-2 * APART, end + 2 * APART), xticks=[])
    axes.set_yticks((tops + bottoms) / 2, [row.name for row in rows])
    plain(axes)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for row, some, top, bottom in zip(rows, labels, tops, bottoms, strict=True):
        _draw_scale(axes, row, some, top, bottom)
    _draw_lines(axes, rows, order, best, tops, bottoms)
    return figure


def _draw_scale(axes, row: Row, labels: Labels, top: float, bottom: float) -> None:
    """A scale: two lines with what is written on it between them, and the best trial's value."""
    spans = [(-APART, 1 + APART), *((AWAY - APART, AWAY + APART) for place, *_ in labels if place == AWAY)]
    for start, end in spans:
        axes.hlines([top, bottom], start, end, color=INK, linewidth=0.8, alpha=0.45)
    for place, text, line in labels:
        axes.text(place, top + HIGH * (line + 0.5), text, ha=side(place), va="center", fontsize=SMALL, alpha=SOFT)
    beside = {"xytext": (4, 0), "textcoords": "offset points", "annotation_clip": False}
    middle = (1, (top + bottom) / 2)
    bold = {"fontsize": LOOK["font.size"], "fontweight": "bold"}
    axes.annotate(row.best, middle, xycoords=axes.get_yaxis_transform(), va="center", **beside, **bold)


def _draw_lines(axes, rows: list[Row], order, best, tops, bottoms) -> None:
    """A line a trial, from scale to scale; the better ones over the others."""
    quality = order / max(len(order) - 1, 1)
    strength = float(np.clip(25 / len(order), 0.12, 1))
    gaps = np.full(len(rows) - 1, np.nan)
    y = np.ravel(np.column_stack([bottoms[:-1], tops[1:], gaps]))
    for trial in np.argsort(order):
        places = np.array([row.places[trial] for row in rows])
        x = np.ravel(np.column_stack([places[:-1], places[1:], gaps]))
        good = quality[trial]
        faint = {"color": POOR_TO_GOOD(good), "linewidth": 0.9 + 0.7 * good, "alpha": strength * (0.3 + 0.6 * good)}
        style = {"color": INK, "linewidth": 2.4, "zorder": 4} if trial in best else {**faint, "zorder": 2 + good}
        axes.plot(x, y, rasterized=len(order) > MANY, **style)


def _row(scale: Scale, values, order: np.ndarray, best: np.ndarray) -> Row:
    places = scale.places(values)
    missing = np.isnan(places)
    places[missing] = AWAY
    for place in set(places if scale.choices else places[missing]):  # side by side, the better to the right
        same = np.flatnonzero(places == place)
        same = same[np.argsort(order[same], kind="stable")]
        places[same] += APART * np.linspace(-1, 1, len(same)) if len(same) > 1 else 0
    ticks = scale.ticks() + [(AWAY, "–")] * bool(missing.any())
    value = said(values.iloc[best[0]]) or "–" if len(best) else ""
    return Row(short(scale.name, 20), places, ticks, short(value, 14), bool(scale.choices))


def _score_row(result, scores: np.ndarray, best: np.ndarray) -> Row:
    shown = view(result, scores)
    held, _ = shown.held(scores)
    written = [shown.at(place) for place in (0.0, 0.5, 1.0)]
    if is_share(result.objective):  # whose axis ends above 1, so that a dot there is whole
        written[2] = min(written[2], 1.0)
    ticks = [(float(shown.places(score)), said_score(result.objective, score)) for score in written]
    value = said_score(result.objective, float(scores[best[0]])) if len(best) else ""
    return Row(short(result.objective, 20), shown.places(held), ticks, value, False)


def _labels(row: Row, unit: float) -> Labels:
    """What is written on a scale of `unit` inches: choices in as many lines as they need, numbers in one."""
    if not row.choices:
        return [(place, text, 0) for place, text in fitting(row.ticks, unit, within=True)]
    ends: list[float] = []
    found = []
    for place, text in row.ticks:
        text = short(text, 18)
        start, end = reach(place, text, unit, side(place))
        line = next((line for line, taken in enumerate(ends) if start > taken), len(ends))
        ends[line : line + 1] = [end + 0.7 * LETTER / unit]
        found.append((place, text, line))
    return found
