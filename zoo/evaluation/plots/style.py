"""How every figure looks: a palette, sizes, names cut to a length, labels where the lines end."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

WIDTH = 5.6  # inches: 400 px of a phone then shrink 9 points to 8 px and no further
# Each has a contrast of 3:1 or more with white and with #1a2027, as parts of a drawing need (WCAG 2.1, 1.4.11). Blue,
# orange and green are told apart by the colour-blind (Okabe and Ito 2008, https://jfly.uni-koeln.de/color/); where
# there are more, the names at the ends of the lines tell.
BLUE, ORANGE, GREEN, PURPLE = "#2079bd", "#d55e00", "#009e73", "#8b6fd1"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, "#a6761d", "#c45a94", "#1f8fa8", "#7c8794")
INK = "black"  # which `svg` turns into the page's own colour of text
SOFT = 0.7  # opacity of notes
SMALL = 9  # points
# In force while a figure is made, whatever the user's own settings: nothing of it stays behind.
LOOK: Any = {
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5"
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": SMALL,
}


def styled(function: Callable) -> Callable:
    """A function that draws, with the look of all figures."""
    return matplotlib.rc_context(LOOK)(function)


def panels(*heights: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure with axes of so many inches below each other, which share the one across."""
    room = 0.75  # inches for the title above and the name of the axis below
    figure = Figure(figsize=(width, sum(heights) + room), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
    for one in axes.flat:
        plain(one)
    return figure, list(axes.flat)


def plain(axes: Axes, grid: str = "both") -> None:
    """Ticks and grid as they are to be, also those that are made when the figure is drawn."""
    colors = {"labelcolor": INK, "grid_color": INK, "grid_alpha": 0.15}
    axes.tick_params(which="both", length=0, labelsize=SMALL, grid_linewidth=0.8, grid_linestyle="-", **colors)
    for spine in axes.spines.values():
        spine.set_alpha(0.5)
    for name in {"x", "y"} - set("xy" if grid == "both" else grid):
        axes.grid(False, axis=name)  # pyright: ignore[reportArgumentType]


def percent(axis) -> None:
    """Shares as per cent."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))


def numbers(axis) -> None:
    """Numbers as Python writes them, 0.001 and 1e-05: no powers in small type, which shrink away on a phone."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def whole(axis, most: int = 9) -> None:
    """Ticks at whole numbers alone."""
    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def short(text: object, most: int) -> str:
    """A name on one line, its middle cut out where it is longer; what cannot be printed becomes a space.

    The end stays, since names that begin alike differ there.
    """
    line = "".join(letter if letter.isprintable() else " " for letter in str(text))
    end = (most - 1) // 3
    return line if len(line) <= most else f"{line[: most - 1 - end].rstrip()}…{line[-end:].lstrip()}"


def finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The values as floats, NaN where they are no finite number."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values), values, np.nan)


def line(axes: Axes, x, y, color: str, **options):
    """A line that also shows points between two gaps, and one point alone."""
    y = finite(y)
    gap = np.concatenate([[True], np.isnan(y), [True]])
    lonely = ~gap[1:-1] & gap[:-2] & gap[2:]
    return axes.plot(x, y, color=color, marker="o", markersize=3.5, markevery=list(np.flatnonzero(lonely)), **options)


def mark_missing(axes: Axes, x, values, color: str) -> bool:
    """An x at the lower edge where a value is no finite number; whether there is one."""
    where = np.asarray(x)[np.isnan(finite(values))]
    if len(where):
        axes.plot(where, np.full(len(where), 0.03), "x", color=color, transform=axes.get_xaxis_transform())
    return len(where) > 0


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], height: float) -> None:
    """Names lines where they end, to the right of the axes, apart from each other; call it when the limits stand.

    Args:
        axes: Where the lines are.
        ends: (x, y, text, colour) of each line's last point.
        height: Of the axes, about, in inches.
    """
    ends = [end for end in ends if np.isfinite(end[1])]
    to_axes = axes.transData + axes.transAxes.inverted()
    axes.get_ylim()  # brings the transformations up to date
    wanted = np.array([to_axes.transform(end[:2])[1] for end in ends])
    order = np.argsort(wanted, kind="stable")
    places = _apart(wanted[order], 1.3 * SMALL / 72 / height)
    for i, place in zip(order, places, strict=True):
        x, y, text, color = ends[i]
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(1.05, place),
            textcoords="axes fraction",
            va="center",
            fontsize=SMALL,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 1, "shrinkA": 1, "shrinkB": 0},
        )


def _apart(wanted: np.ndarray, step: float) -> np.ndarray:
    """Rising places that lie `step` or more apart, each as near to the wanted one as that allows.

    Places that come too near to each other move as one block, whose middle stays where it was.
    """
    blocks: list[list[float]] = []
    for place in wanted:
        blocks.append([place])
        while len(blocks) > 1 and _start(blocks[-1], step) - _start(blocks[-2], step) < step * len(blocks[-2]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return np.array([_start(block, step) + step * i for block in blocks for i in range(len(block))])


def _start(block, step):
    return sum(block) / len(block) - step * (len(block) - 1) / 2
