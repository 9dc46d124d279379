"""Figures of what was found out about a model: its errors, its blocks, what more pictures would bring."""

import numpy as np
from matplotlib.figure import Figure

from zoo.evaluation.figures import wilson
from zoo.evaluation.plots.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SMALL,
    SOFT,
    label_ends,
    panels,
    percent,
    short,
    styled,
)


@styled
def diagnosis(diagnosis) -> Figure:
    """Errors from what a person leaves to what the dev set shows, and the gaps between them by name, with intervals.

    Bars are errors; where it is known on how many pictures, with 95 % intervals. Ng, Machine Learning Yearning, 2018.

    Args:
        diagnosis: What `diagnose` gives.
    """
    errors = [
        ("human", diagnosis.human_error),
        ("train", diagnosis.train_error),
        ("train-dev", diagnosis.train_dev_error),
        ("dev", diagnosis.dev_error),
    ]
    errors = [(name, value) for name, value in errors if value is not None]
    gaps = [("avoidable bias", diagnosis.bias), ("variance", diagnosis.variance), ("mismatch", diagnosis.mismatch)]
    gaps = [(name, gap) for name, gap in gaps if gap is not None]
    figure, (axes,) = panels(0.72 * len(errors))
    axes.barh(range(len(errors)), [value for _, value in errors], 0.4, color=BLUE)
    ends = [value for _, value in errors]
    for row, (name, value) in enumerate(errors):
        if count := diagnosis.pictures.get(name):
            low, ends[row] = wilson(round(value * count), count)
            axes.plot([low, ends[row]], [row, row], color=INK, linewidth=1, alpha=SOFT)
    reach = max(*ends, 0.01)
    for row, (_, value) in enumerate(errors):
        axes.text(ends[row] + 0.01 * reach, row, f" {value:.1%}", va="center", fontsize=SMALL)
    for row, ((name, gap), (_, start), (_, end)) in enumerate(zip(gaps, errors, errors[1:], strict=False)):
        y = row + 0.5
        axes.plot([start, end], [y, y], color=ORANGE, linewidth=2, solid_capstyle="butt")
        for x in (start, end):
            axes.plot([x, x], [y - 0.12, y + 0.12], color=ORANGE, linewidth=2)
        sure = "" if gap.low is None else f" ({_points(gap.low)} to {_points(gap.high)})"
        axes.text(
            max(start, end) + 0.01 * reach, y, f" {name} {_points(gap.value)} points{sure}", va="center", fontsize=SMALL
        )
    axes.set_yticks(range(len(errors)), [name for name, _ in errors])
    axes.set(ylim=(len(errors) - 0.6, -0.4), xlim=(0, 1.7 * reach), xlabel="error, share of the pictures")
    percent(axes.xaxis)
    axes.grid(False, axis="y")
    axes.set_title(diagnosis.verdict)
    return figure


def _points(value):
    return f"{100 * value:.1f}"


@styled
def importance(importance) -> Figure:
    """The drop in accuracy with each block taken out, with its 95 % interval, in the order of the network.

    Colours tell the stages apart. A block whose interval holds 0 is pale: that it matters is not shown.

    Args:
        importance: What `layer_importance` gives.
    """
    table = importance.table
    names = table.stage.fillna("")  # a table that was read from a file
    stages = list(dict.fromkeys(names))
    number = names.map({stage: i for i, stage in enumerate(stages)}).to_numpy()
    places = np.arange(len(table)) + 0.6 * number  # some air between two stages
    shown = (table.low > 0) | (table.high < 0)
    figure, (axes,) = panels(0.2 * (places[-1] + 1) + 0.3)
    for place, stage, drop, low, high, sure in zip(
        places, number, table["drop"], table.low, table.high, shown, strict=True
    ):
        axes.barh(place, drop, 0.75, color=(BLUE, GREEN, PURPLE)[stage % 3], alpha=1 if sure else 0.4)
        axes.plot([low, high], [place, place], color=INK, linewidth=1, alpha=SOFT)
    for i, stage in enumerate(stages):
        axes.annotate(
            short(stage, 14),
            (1.02, places[number == i].mean()),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=SMALL,
            fontweight="bold",
        )
    axes.axvline(0, color=INK, linewidth=1, alpha=0.5)
    axes.set_yticks(places, [short(name, 24) for name in table.block])
    axes.set(ylim=(places[-1] + 0.7, -0.7), xlabel="accuracy lost without the block, with 95 % interval")
    axes.grid(False, axis="y")
    percent(axes.xaxis)
    pale = "" if shown.all() else "; pale: no change shown"
    axes.set_title(f"accuracy {importance.accuracy:.1%} on {importance.pictures:,} pictures{pale}")
    return figure


@styled
def learning_curve(curve) -> Figure:
    """Error against the number of training pictures: each fit, their means, and the law that follows them.

    Dots are single fits, circles their mean with the range from the lowest to the highest. The fitted law goes on,
    dashed, to twice the pictures there are.

    Args:
        curve: What `learning_curve` gives.
    """
    table = curve.table
    by_size = table.groupby("pictures").error
    mean, low, high = by_size.mean(), by_size.min(), by_size.max()
    sizes = mean.index.to_numpy(float)
    figure, (axes,) = panels(3.2)
    axes.plot(table.pictures, table.error, ".", color=BLUE, alpha=0.5, markersize=5)
    axes.vlines(sizes, low, high, color=BLUE, linewidth=1.5)
    axes.plot(sizes, mean, "o", color=BLUE, markersize=6)
    axes.set_xscale("log")
    axes.set_xlim(0.85 * sizes[0], 1.15 * sizes[-1])
    ticks, twice = list(sizes), 2 * curve.pictures
    axes.set_ylim(0, 1.1 * max(table.error.max(), 0.01))
    if curve.law is not None:
        a, b, c = curve.law
        inside, beyond = np.geomspace(sizes[0], sizes[-1]), np.geomspace(sizes[-1], twice)
        axes.plot(inside, a + b * inside**-c, color=ORANGE, linewidth=1.8)
        axes.plot(beyond, a + b * beyond**-c, color=ORANGE, linewidth=1.8, linestyle="--")
        ticks.append(twice)
        axes.set_xlim(0.85 * sizes[0], 1.1 * twice)
        end = a + b * twice**-c
        label_ends(axes, [(twice, end, f"{end:.1%}", ORANGE)], 3.2)
        axes.set_title(f"error = {a:.1%} + {b:.2g} · pictures^-{c:.2g}")
    kept = [tick for i, tick in enumerate(ticks) if i == 0 or tick >= ticks[i - 1] * (ticks[-1] / ticks[0]) ** 0.06]
    axes.set_xticks(kept, [f"{tick:,.0f}" for tick in kept])
    axes.set_xticks([], minor=True)
    percent(axes.yaxis)
    axes.set(xlabel="training pictures", ylabel="error on the dev set")
    return figure
