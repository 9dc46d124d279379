"""Which blocks of a network its accuracy hangs on: each is taken out in turn, and the drop is measured."""

import html
import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from zoo.data.order import parts
from zoo.evaluation.ablation import REDRAWN, Surgery
from zoo.evaluation.figures import Z, wilson
from zoo.evaluation.links import links_of
from zoo.evaluation.passing import fitted
from zoo.evaluation.predictions import evaluate
from zoo.evaluation.printing import WIDTH, short
from zoo.files import make_folder, writing
from zoo.models.outputs import probabilities
from zoo.models.stages import stage_of
from zoo.progress import track

LINES = 30  # blocks that are printed
BAR = 16  # columns
NAMED = 3  # blocks in a sentence
# How far the network run block by block may be from the network as it is. Two orders of computing differ by some 1e-7
# in float32, by 1e-3 where a GPU rounds factors to TF32, and by 1e-2 in half precision; a wrong graph by far more.
CLOSE, CLOSE_IN_HALF = 5e-3, 0.1


@dataclass(frozen=True, eq=False)
class LayerImportance:
    """What each block of a network is worth on a split; printing it shows a bar a block. Made by `layer_importance`.

    Attributes:
        model: Name of the network.
        split: Name of the split.
        pictures: How many it has.
        accuracy: That of the whole network.
        commonest: Share of the pictures that naming the commonest class every time would get right.
        parameters: How many the whole network has.
        table: A row a block in the network's order: block, stage (empty where it has none), how (what stands in for
            it: "identity", "zeroed branch" or "re-initialised"), parameters (taken out, or drawn anew), accuracy
            (without it), drop (in accuracy), low and high (95 % interval of the drop).
    """

    model: str
    split: str
    pictures: int
    accuracy: float
    commonest: float
    parameters: int
    table: pd.DataFrame

    @cached_property
    def advice(self) -> list[str]:
        """What the figures mean for leaving blocks out and for freezing, in sentences."""
        low, _ = wilson(round(self.accuracy * self.pictures), self.pictures)
        if low <= self.commonest:
            return [
                f"The network gets {self.accuracy:.1%} of the pictures right, and naming the commonest class every "
                f"time {self.commonest:.1%}: it has not been shown to know anything that a block could be worth. "
                "Train it first."
            ]
        table = self.table
        needless = table.loc[table.low <= 0]
        free = needless.loc[needless.how != REDRAWN].sort_values("parameters", ascending=False, kind="stable")
        new = needless.loc[needless.how == REDRAWN]
        lines = []
        if len(free):
            each, hold = ("can each", "together they hold") if len(free) > 1 else ("can", "it holds")
            lines.append(
                f"{_listed(free.block)} {each} be left out at no shown cost; {hold} "
                f"{free.parameters.sum() / self.parameters:.0%} of the parameters. What {self.pictures} pictures do "
                f"not show may still be up to {100 * free.high.max():.1f} points."
            )
        elif (table.how != REDRAWN).any():
            lines.append("No block can be left out without a shown cost.")
        if len(new):
            lines.append(
                f"{_listed(new.block)} cannot be left out, since the shapes around differ, but new weights there are "
                "not shown to cost anything: fewer channels may do."
            )
        most = table.loc[table.low > 0].sort_values("drop", ascending=False, kind="stable").head(NAMED)
        if len(most):
            drops = [f"{row['block']} ({100 * row['drop']:.1f} points)" for row in most.to_dict("records")]
            lines.append(f"Most hangs on {_listed(drops)}.")
        lines += self._on_stages()
        if len(table) > 1:
            lines.append(
                "Each block was taken out alone, without training afterwards, and the effects of several do not add "
                "up: leave out one, train on, and measure again."
            )
        return lines

    def _on_stages(self) -> Iterator[str]:
        """On freezing: the stages from the front whose every block matters, and those where none is shown to."""
        groups = self.table.groupby("stage", sort=False)
        matters = {str(stage): (rows.low > 0).to_numpy() for stage, rows in groups if stage}
        front = list(takewhile(lambda stage: matters[stage].all(), matters))
        inner = [stage for stage in matters if stage.startswith("stage")]
        holds = {"medium": inner[:-1], "small": inner[:1]}
        amount = next((name for name, held in holds.items() if held and {*held} <= {*front}), None)
        if amount:
            held = [stage for stage in front if stage in ("stem", *holds[amount])]
            yield (
                f"Every block of {_listed(held, len(held))} matters, and early stages carry what most pictures share: "
                f'to train on with few pictures, hold them with freeze="{amount}".'
            )
        idle = [stage for stage in inner if not matters[stage].any()]
        if idle:
            yield (
                f"No block of {_listed(idle, len(idle))} is shown to matter: little is lost in training "
                f"{'it' if len(idle) == 1 else 'them'} anew."
            )

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes the table.

        Returns:
            The folder, which now holds `importance.csv`.

        Raises:
            OSError: If the folder cannot be made or written.
        """
        folder = make_folder(folder)
        with writing(folder / "importance.csv") as temporary:
            self.table.to_csv(temporary, index=False)
        return folder

    @property
    def _title(self):
        pictures = f"{self.pictures} picture{'s' * (self.pictures != 1)}"
        return f"{self.split}: {pictures}, accuracy {self.accuracy:.2%}; each block of {self.model} taken out alone"

    def __str__(self):
        rows = self.table.sort_values("drop", ascending=False, kind="stable").head(LINES).sort_index()
        scale = max(self.table["drop"].to_numpy().max(), 1e-9)
        lines = [short(self._title, WIDTH), f"  {'':<24} {'':<6} {'':<14} {'':<{BAR}} points lost, 95 % interval"]
        for row in rows.to_dict("records"):
            mark = "#" if row["low"] > 0 or row["high"] < 0 else "."
            bar = mark * math.ceil(BAR * max(row["drop"], 0) / scale)
            lines.append(
                f"  {short(row['block'], 24):<24} {short(row['stage'], 6):<6} {row['how']:<14} {bar:<{BAR}} "
                f"{100 * row['drop']:>6.1f}  {100 * row['low']:>5.1f} to {100 * row['high']:.1f}"
            )
        if left := len(self.table) - len(rows):
            lines.append(f"  and {left} with smaller drops, in .table")
        if ((self.table.low <= 0) & (self.table.high >= 0)).any():
            lines.append("  ... no change shown: the interval holds 0")
        return "\n".join([*lines, "", *(textwrap.fill(line, WIDTH) for line in self.advice)])

    def _repr_html_(self):
        table = self.table.assign(parameters=self.table.parameters.map("{:,}".format)).round(3)
        advice = "".join(f"<li>{html.escape(line)}</li>" for line in self.advice)
        return f"<h4>{html.escape(self._title)}</h4>{table.to_html(index=False)}<ul>{advice}</ul>"


def layer_importance(
    model: keras.Model,
    split,
    *,
    batch_size: int = 32,
    blocks: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> LayerImportance:
    """The drop in accuracy with each block of a network taken out, one at a time; the network stays as it is.

    Blocks are found in the graph: what lies between a fork and the place where it closes, such as a residual block or
    an Inception module; elsewhere what names hold together (`block_1_*`), or one layer that learns, with the
    normalisation and activation behind it. The classifier is left in, and so is normalisation that stands alone.

    For a block that hands on the shape it takes stands the identity (Veit et al. 2016,
    https://arxiv.org/abs/1605.06431); for one beside a projecting shortcut, zeros on the branch; for any other, the
    same block with new weights (Zhang et al. 2019, https://arxiv.org/abs/1902.01996), drawn by its own initialisers.
    Its batch normalisation then takes mean and variance from up to `batch_size` of the pictures: with those of a fresh
    layer, values grow or vanish for a reason that has nothing to do with what the block had learned. New weights also
    disturb what follows, so drops of re-initialised blocks compare best with each other.

    The interval is that of Bonett and Price 2012, https://doi.org/10.3102/1076998611411915, for two shares of the same
    pictures. It is made for each block alone: of twenty blocks that do nothing, one is expected to miss 0.

    Args:
        model: Functional classifier, or Sequential with a keras.Input.
        split: One of `data.train`, `data.dev` and `data.test`, with labels; without an image size, it gets the model's.
        batch_size: Pictures that are read and computed at a time, which is what memory holds.
        blocks: Block name to the names of its layers, in place of the blocks that are found; they may overlap.
        seed: Decides the new weights.

    Returns:
        A table with a row a block, and what it means; `print` it for a bar a block.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If the split is empty or has no labels, the model has no graph or nothing to take out, `blocks` is
            wrong, or as `evaluate` raises.

    Example:
        found = zoo.layer_importance(run.model, data.dev)
        print(found)
        zoo.layer_importance(model, data.dev, blocks={"the end": ["conv4", "conv5"]}).table
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model, such as zoo.create gives. Received: {type(model).__name__}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"`batch_size` must be a whole number of at least 1. Received: batch_size={batch_size!r}")
    if not len(split):
        raise ValueError(f"The {split.name} split has no pictures, so there is nothing that a block could be worth.")
    if (np.asarray(split.labels) < 0).any():
        raise ValueError(f"The {split.name} split has no labels, so it cannot be said what is right. Add labels.")
    split = fitted(model, split)
    count = len(split)
    size = min(batch_size, count)
    links_of(model)  # refuses what is no graph
    evaluation = evaluate(model, split)  # first: on JAX `predict` gives the memory of weights to others
    surgery = Surgery(model, blocks, _read(split, np.linspace(0, count - 1, size).astype(int)), seed)
    whole = np.empty_like(evaluation.probabilities)
    right = {block.name: np.zeros(count, bool) for block in surgery.blocks}

    def taking_out():
        for rows in parts(np.arange(count), size):
            images = _read(split, np.pad(rows, (0, size - len(rows)), mode="edge"))  # one shape compiles once
            for edge, x in surgery.walk(images):
                for block in surgery.starting(edge):
                    outputs = _array(surgery.without(block, x))[: len(rows)]
                    right[block.name][rows] = _right(outputs, evaluation.labels[rows])
                    yield
            whole[rows] = _array(probabilities(model, x))[: len(rows)]

    for _ in track(taking_out(), "Taking out blocks", -(-count // size) * len(surgery.blocks)):
        pass
    _check_same(model, whole, evaluation.probabilities)
    stages = stage_of(model)
    table = _table(surgery.blocks, stages, _right(whole, evaluation.labels), right)
    return LayerImportance(
        model=model.name,
        split=split.name,
        pictures=count,
        accuracy=float(_right(whole, evaluation.labels).mean()),
        commonest=float(np.bincount(evaluation.labels).max() / count),
        parameters=model.count_params(),
        table=table,
    )


def interval(only_first, only_second, count: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % confidence interval of the difference of two shares of the same pictures, the first less the second.

    Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data", https://doi.org/10.3102/1076998611411915. It has some width even where no picture tells the two apart.

    Args:
        only_first, only_second: How many pictures only one of the two gets right; numbers, or arrays of one shape.
        count: Of how many, above 0.

    Returns:
        (low, high), within -1 and 1.

    Example:
        >>> low, high = interval(20, 5, 100)
        >>> print(f"{low:.3f} to {high:.3f}")
        0.051 to 0.243
    """
    first, second = ((np.asarray(part) + 1) / (count + 2) for part in (only_first, only_second))
    centre = first - second
    reach = Z * np.sqrt((first + second - centre**2) / (count + 2))
    return np.maximum(centre - reach, -1), np.minimum(centre + reach, 1)


def _table(blocks, stages, right, without) -> pd.DataFrame:
    count = len(right)
    rows = []
    for block in blocks:
        stage = next((stages[layer.name] for layer in block.layers if layer.name in stages), "")
        kept = without[block.name]
        low, high = interval(np.sum(right & ~kept), np.sum(~right & kept), count)
        accuracy, drop = kept.mean(), right.mean() - kept.mean()
        rows.append((block.name, stage, block.how, block.parameters, accuracy, drop, float(low), float(high)))
    columns = ["block", "stage", "how", "parameters", "accuracy", "drop", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _check_same(model, ours, its):
    """Holds the network run block by block to the network as it is: a difference would be a fault of this file."""
    close = CLOSE if keras.backend.standardize_dtype(model.compute_dtype) == "float32" else CLOSE_IN_HALF
    difference = float(np.abs(ours - its).max())
    if not difference <= close:
        raise RuntimeError(
            f"Run block by block, model {model.name!r} gives other probabilities than as a whole, by up to "
            f"{difference:.2g}. Please report this, with the model."
        )


def _right(outputs, labels):
    """Whether each row of outputs is largest at the label; never where it holds a NaN."""
    return (outputs.argmax(axis=1) == labels) & ~np.isnan(outputs).any(axis=1)


def _array(outputs) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32")))


def _read(split, rows):
    return split.pixels()[rows] if split.is_small else split.read(rows)


def _listed(names, most: int = NAMED) -> str:
    """Names in a sentence: a, b and c, or a, b, c and 4 more."""
    names = list(names)
    parts = names[:most] + ([f"{len(names) - most} more"] if len(names) > most else [])
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
