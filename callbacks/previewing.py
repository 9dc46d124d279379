"""A picture of what a decay does to the learning rate."""

from collections.abc import Callable

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_WIDE = 100  # times between the highest and the lowest rate: a linear axis shows nothing of the low ones


def draw(
    rate: Callable[[int, int], float],
    epochs: int,
    steps: int,
    title: str,
    momentum: Callable[[int, int], float] | None = None,
) -> Figure:
    """The rate, and the momentum where it moves, over a whole training.

    Args:
        rate: (epoch, step), from 0, to the learning rate.
        epochs: Epochs to draw.
        steps: Values an epoch.
        title: Over the picture.
        momentum: (epoch, step), from 0, to the momentum.
    """
    places = [(epoch, step) for epoch in range(epochs) for step in range(steps)]
    edges = [place / steps for place in range(len(places) + 1)]
    rates = [rate(*place) for place in places]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    # drawn with one value more, since a step plot ends where its last value begins
    lines = axes.step(edges, [*rates, rates[-1]], where="post", color="tab:blue", label="learning rate")
    positive = [value for value in rates if value > 0]
    if positive and max(positive) > _WIDE * min(positive):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.set_xlabel("training (epochs done)")
    axes.set_ylabel("learning rate (size of a step)")
    axes.set_xlim(0, epochs)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if momentum is not None:
        values = [momentum(*place) for place in places]
        other = axes.twinx()
        lines += other.step(edges, [*values, values[-1]], where="post", color="tab:orange", label="momentum")
        other.set_ylabel("momentum (share of the last step)")
        figure.legend(handles=lines, loc="outside lower center", ncols=2)
    return figure
