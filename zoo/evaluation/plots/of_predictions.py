"""Figures of what a model said to each picture, from an `Evaluation`."""

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from zoo.evaluation.figures import wilson
from zoo.evaluation.plots.style import (
    BLUE,
    INK,
    ORANGE,
    SMALL,
    SOFT,
    WIDTH,
    panels,
    percent,
    short,
    styled,
    whole,
)

CLASSES = 20  # of a confusion matrix, so that its cells hold a number
ROWS = 30  # of a figure with a row a class
COLUMNS = 4  # pictures beside each other
DEPTH = 0.6  # opacity of a full cell: text stands out on it over white and over black alike
HEAT = 0.65  # opacity of the hottest place


@styled
def confusion(evaluation) -> Figure:
    """Which class is taken for which: rows are true classes, columns what was said, cells numbers of pictures.

    A cell is the deeper, the larger its share of the row's pictures, by the square root, so that rare errors are seen:
    blue where the answer is right, orange where it is wrong. Of more than 20 classes those with the most errors are
    shown.

    Args:
        evaluation: An `Evaluation` of pictures with labels.

    Raises:
        ValueError: If the pictures have no labels.
    """
    every = evaluation.confusion.to_numpy()
    wrong = every - np.diag(np.diag(every))
    errors = wrong.sum(axis=0) + wrong.sum(axis=1)
    shown = np.sort(np.argsort(-errors, kind="stable")[:CLASSES])
    counts = every[np.ix_(shown, shown)]
    shares = counts / np.maximum(every[shown].sum(axis=1, keepdims=True), 1)
    size, right, total = len(shown), int(np.trace(every)), int(every.sum())

    cell = float(np.clip(3 / size, 0.27, 0.55))  # inches
    figure, (axes,) = panels(cell * size + 0.6, width=WIDTH + 0.25 * max(0, size - 12))
    rows, columns = np.nonzero(counts)
    patches = PatchCollection(
        [Rectangle((column - 0.48, row - 0.46), 0.96, 0.92) for row, column in zip(rows, columns, strict=True)],
        facecolors=[
            to_rgba(BLUE if row == column else ORANGE, DEPTH * shares[row, column] ** 0.5)
            for row, column in zip(rows, columns, strict=True)
        ],
        linewidths=0,
    )
    axes.add_collection(patches)
    for row in range(size):
        for column in range(size):
            count = counts[row, column]
            if count or size <= CLASSES // 2:
                note = f"\n{shares[row, column]:.0%}" if count and size <= 6 else ""
                axes.text(
                    column,
                    row,
                    f"{count}{note}",
                    ha="center",
                    va="center",
                    fontsize=SMALL if size <= 12 else 8,
                    alpha=1 if count else 0.4,
                )
    names = [evaluation.class_names[i] for i in shown]
    room = 72 * (WIDTH - 1.3) / size / 5  # letters that fit under a cell
    across = max(map(len, names)) <= room
    axes.set_xticks(range(size), [short(name, 18) for name in names])
    axes.set_yticks(range(size), [short(name, 18) for name in names])
    if not across:
        for label in axes.get_xticklabels():
            label.set(rotation=90 if size > 12 else 40, rotation_mode="anchor", ha="right")
            label.set_verticalalignment("center" if size > 12 else "top")
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="predicted class", ylabel="true class")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(f"{evaluation.split}: {right:,} of {total:,} right")
    if size < len(every):
        axes.set_title(f"{evaluation.split}: the {size} of {len(every)} classes with the most errors")
    return figure


@styled
def reliability(evaluation) -> Figure:
    """Whether a probability of 0.9 means right in nine cases of ten, and how many pictures that rests on.

    Bars are accuracies, bin by bin of the probability of the predicted class, with 95 % intervals; what lies between
    a bar and the mean probability of its pictures is orange. The title has the expected calibration error, Guo et al.
    2017, https://arxiv.org/abs/1706.04599.

    Args:
        evaluation: An `Evaluation` of pictures with labels.

    Raises:
        ValueError: If the pictures have no labels.
    """
    bins = evaluation.reliability
    bins = bins[bins.pictures > 0]
    middle, width = (bins.low + bins.high) / 2, 0.9 * (bins.high - bins.low)
    figure, (above, below) = panels(2.6, 0.8)
    above.plot([0, 1], [0, 1], color=INK, alpha=0.5, linewidth=1, linestyle="--")
    above.bar(middle, bins.accuracy, width, facecolor=to_rgba(BLUE, 0.35), edgecolor=BLUE, label="accuracy")
    above.bar(
        middle,
        bins.confidence - bins.accuracy,
        width,
        bottom=bins.accuracy,
        facecolor=to_rgba(ORANGE, 0.5),
        edgecolor=ORANGE,
        label="gap to the mean probability",
    )
    for x, accuracy, pictures in zip(middle, bins.accuracy, bins.pictures, strict=True):
        above.plot([x, x], wilson(round(accuracy * pictures), pictures), color=INK, alpha=SOFT, linewidth=1)
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    percent(above.yaxis)
    figure.legend(loc="outside upper right", ncols=2, handlelength=1.5, borderpad=0)
    above.set_title(f"{evaluation.split}: calibration error {evaluation.calibration_error:.1%}")
    below.bar(middle, bins.pictures, width, color=BLUE)
    below.set(ylabel="pictures", xlabel="probability of the predicted class")
    whole(below.yaxis, 3)
    percent(below.xaxis)
    figure.align_ylabels([above, below])
    return figure


@styled
def per_class(evaluation) -> Figure:
    """Recall and precision of each class with 95 % intervals, the class with the lowest F1 first.

    Recall is the share of a class' pictures that is found, precision the share of what is called so that is right.
    Classes that do not occur are left out; of more than 30 those with the lowest F1 are shown.

    Args:
        evaluation: An `Evaluation` of pictures with labels.

    Raises:
        ValueError: If the pictures have no labels.
    """
    table = evaluation.per_class
    table = table.assign(found=np.diag(evaluation.confusion), said=evaluation.confusion.sum(axis=0).to_numpy())
    table = table[table.support > 0].sort_values("f1", kind="stable")
    shown = table.head(ROWS)
    figure, (axes,) = panels(0.35 * len(shown) + 0.6)
    for row, (found, support, said) in enumerate(zip(shown.found, shown.support, shown.said, strict=True)):
        for count, y, color, mark in ((support, row - 0.15, BLUE, "o"), (said, row + 0.15, ORANGE, "D")):
            if count:  # nothing was called so: there is no precision
                axes.plot(wilson(found, count), [y, y], color=color, linewidth=1.5)
                axes.plot(found / count, y, color=color, marker=mark, markersize=5)
    for name, color, mark in (("recall", BLUE, "o"), ("precision", ORANGE, "D")):
        axes.plot([], [], color=color, marker=mark, markersize=5, linewidth=1.5, label=name)
    axes.set_yticks(range(len(shown)), [f"{short(name, 18)} ({n:,})" for name, n in shown.support.items()])
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlim=(-0.02, 1.02), xlabel="share of the pictures, with 95 % interval")
    percent(axes.xaxis)
    few = f": the {len(shown)} of {len(table)} classes with the lowest F1" if len(shown) < len(table) else ""
    axes.set_title(f"{evaluation.split}{few or ': recall and precision'}")
    figure.legend(loc="outside upper right", ncols=2, handlelength=1.5, borderpad=0)
    return figure


@styled
def worst(evaluation, split, k: int = 12) -> Figure:
    """The pictures with the largest loss, each with "truth and its probability → answer and its probability".

    Args:
        evaluation: An `Evaluation` of pictures with labels.
        split: Where the pictures are, at a size: `run.data.dev`, or `data.dev.configured(image_size=...)`.
        k: How many, at least 1.

    Raises:
        ValueError: If the split has no size, lacks one of the pictures, or `k` is below 1.
    """
    if k < 1:
        raise ValueError(f"`k` must be 1 or more. Received: k={k}")
    if split.image_size is None:
        raise ValueError("`split` must have a size, as run.data.dev has. Use split.configured(image_size=224).")
    table = evaluation.worst(k)
    places = {path: row for row, path in enumerate(split.relative_paths)}
    missing = [path for path in table.path if path not in places]
    if missing:
        raise ValueError(f"`split` must hold the pictures of the evaluation. Received: {split!r} without {missing[0]}")
    images = split.read(np.array([places[path] for path in table.path]))
    truth = np.exp(-table.loss)
    titles = [
        f"{short(label, 14)} {p:.2f}\n→ {short(predicted, 13)} {q:.2f}"
        for label, p, predicted, q in zip(table.label, truth, table.predicted, table.probability, strict=True)
    ]
    figure, _ = _grid(images, titles)
    return figure


@styled
def heat_maps(images, maps, titles: Sequence[str] | None = None) -> Figure:
    """Each picture with its heat map over it: clear where the map is 0, bright where it is 1.

    Args:
        images: Pixels 0..255, (n, height, width, 1 or 3).
        maps: 0..1, (n, height, width), as `explain` gives them.
        titles: Over each picture.

    Raises:
        ValueError: If the shapes do not go together.

    Example:
        images = run.data.dev.read(range(8))
        plots.heat_maps(images, zoo.explain(run.model, images))
    """
    maps = np.asarray(maps, float)
    if len(images) == 0 or maps.shape != np.shape(images)[:3]:
        raise ValueError(
            "`maps` must have a map (height, width) for each of one or more pictures. "
            f"Received: maps of shape {maps.shape} for pictures of shape {np.shape(images)}"
        )
    figure, axes = _grid(images, titles)
    for one, heat in zip(axes, maps, strict=False):
        one.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=HEAT * np.clip(heat, 0, 1))
    return figure


def _grid(images, titles):
    """Pictures in rows of four."""
    images = np.asarray(images)
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"`titles` must have one a picture. Received: {len(titles)} for {len(images)} pictures")
    across = min(len(images), COLUMNS)
    down = -(-len(images) // across)
    side = WIDTH / COLUMNS
    lines = 0 if titles is None else max(title.count("\n") for title in titles) + 1
    height = side * images.shape[1] / images.shape[2] + 0.17 * lines
    figure = Figure(figsize=(side * across, height * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for one in axes:
        one.axis("off")
    for i, (one, image) in enumerate(zip(axes, images, strict=False)):
        grey = image.ndim == 2 or image.shape[-1] == 1
        one.imshow(image.astype(np.uint8), cmap="grey" if grey else None, vmin=0, vmax=255)
        if titles is not None:
            one.set_title(titles[i], loc="left", fontsize=SMALL)
    return figure, axes
