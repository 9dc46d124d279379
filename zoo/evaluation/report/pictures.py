"""The pictures of a report: those that the network got wrong or doubts, what it looked at, and likely label errors."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image

from zoo.data.manifest_text import clip, counted
from zoo.evaluation.explain import explain
from zoo.evaluation.predictions import Evaluation
from zoo.evaluation.report.blocks import Block, Gallery, Picture, Section, Words
from zoo.pages import data_uri

SIDE = 224  # pixels of a picture on the page, at most; pure noise of that size makes 38 kB of text
WORST, DOUBTFUL, SUSPECTS = 12, 6, 8  # pictures; with heat maps, and suspects of two splits, 46 in all
NARROW = 0.5  # margin between the two best classes, below which a picture is doubtful
ABOUT = "Beside each is what spoke for the class that the network saw in it (Grad-CAM, Selvaraju et al. 2017)."
HEAT = 0.65  # how much of the picture the hottest place hides
HEIGHTS, SIDES = ("upper", "middle", "lower"), ("left", "middle", "right")


class Judged(NamedTuple):
    """An evaluation with the split that it is of."""

    evaluation: Evaluation
    split: Any


def worst(model, judged: Judged) -> Section:
    """The pictures with the largest loss, each beside what spoke for the class that the network saw in it."""
    rows = judged.evaluation.worst(WORST)
    return Section(
        "worst",
        "Worst pictures",
        [Words("Those with the largest loss.", quiet=True), *_shown(judged, rows, _wrong, model)],
    )


def doubtful(judged: Judged) -> Section:
    """The pictures between two classes."""
    rows = judged.evaluation.doubtful(DOUBTFUL)
    rows = rows.loc[rows.margin < NARROW]
    points = f"{100 * NARROW:.0f} points"
    about = (
        f"The most probable class is less than {points} ahead of the next. Pictures of this kind teach most."
        if len(rows)
        else f"One class is {points} or more ahead of all others on every picture."
    )
    return Section("doubtful", "Most doubtful pictures", [Words(about, quiet=True), *_shown(judged, rows, _torn)])


def label_errors(every: Sequence[Judged]) -> Section:
    """The pictures whose label is likely wrong, of splits that were not learned from."""
    blocks: list[Block] = []
    for judged in every:
        rows = judged.evaluation.label_errors()
        picture = f"{judged.evaluation.split} picture"
        if len(rows):
            more = f"; the first {SUSPECTS} are shown" if len(rows) > SUSPECTS else ""
            blocks.append(Words(f"{counted(len(rows), picture)}{more}. Look at them before anything else."))
            blocks += _shown(judged, rows.head(SUSPECTS), _suspect)
        else:
            blocks.append(Words(f"None among {counted(len(judged.evaluation.paths), picture)}."))
    about = (
        "Confident learning (Northcutt et al. 2021) counts, label by label, the pictures to which another class is as "
        "probable as it is, on average, to those labelled so. It suspects about that many, those which the other class "
        "is furthest ahead in; so each has a class that is more probable than its label, but a single one need not be "
        "sure. Training pictures are left out: the network has learned their labels, right or wrong."
    )
    if not every:
        blocks.append(Words("There are no pictures with labels that were not trained on."))
    return Section("labels", "Likely label errors", [Words(about, quiet=True), *blocks])


def _shown(judged: Judged, rows: pd.DataFrame, describe: Callable, model=None) -> list[Block]:
    """A gallery of some rows of an evaluation, with heat maps where a model is given."""
    if not len(rows):
        return [Words("There are none.")]
    place = {path: row for row, path in enumerate(judged.evaluation.paths)}
    try:
        images = judged.split.read(np.array([place[path] for path in rows.path]))
    except ValueError as error:
        return [Words(f"The pictures cannot be shown. {error}")]
    maps, note = (None, "") if model is None else _maps(model, images)
    groups = []
    for number, row in enumerate(rows.to_dict("records")):
        label, about = describe(row)
        alt = f"{clip(row['path'], 120)}: {about}"
        picture = Picture(data_uri(thumbnail(images[number])), alt, label, row["path"], about)
        group = [picture]
        if maps is not None:
            seen = f"what spoke for {clip(row['predicted'], 60)}"
            hot = thumbnail(overlay(images[number], maps[number]))
            group.append(Picture(data_uri(hot), f"{seen}: {where(maps[number])}", about=seen))
        groups.append(group)
    return [*([Words(note, quiet=True)] if note else []), Gallery(groups)]


def _maps(model, images: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Heat maps for the predicted classes; or none; and what to say of them."""
    try:
        return explain(model, images), ABOUT
    except ValueError as error:
        return None, f"There are no heat maps. {error}"


def _wrong(row: dict) -> tuple[str, str]:
    seen = "recognised" if row["label"] == row["predicted"] else f"taken for {clip(row['predicted'], 60)}"
    return row["label"], f"{seen}, {row['probability']:.1%}; loss {row['loss']:.2f}"


def _torn(row: dict) -> tuple[str, str]:
    other = row["probability"] - row["margin"]
    first, second = clip(row["predicted"], 60), clip(row["second"], 60)
    return row["label"], f"{first} {row['probability']:.1%} or {second} {other:.1%}"


def _suspect(row: dict) -> tuple[str, str]:
    seen = f"looks like {clip(row['suggested'], 60)}, {row['suggested_probability']:.1%}"
    return row["label"], f"{seen}; its label has {row['probability']:.1%}"


def thumbnail(pixels: np.ndarray) -> Image.Image:
    """A picture of at most 224 pixels a side; a small one is blown up by a whole factor, its pixels to be seen.

    Args:
        pixels: uint8 (height, width, channels); of one channel grey, of four the last is dropped.
    """
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    factor = SIDE // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((SIDE, SIDE))
    return image


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A grey picture with a heat map over it, the hotter the less of the picture; uint8 (height, width, 3).

    Args:
        pixels: uint8 (height, width, channels).
        heat: (height, width), 0 to 1.
    """
    grey = pixels[..., :3].mean(axis=-1, keepdims=True)
    colour = 255 * matplotlib.colormaps["inferno"](heat)[..., :3]
    cover = HEAT * heat[..., np.newaxis]
    return np.clip((1 - cover) * grey + cover * colour, 0, 255).astype(np.uint8)


def where(heat: np.ndarray) -> str:
    """In which ninth of the picture a heat map is hottest."""
    if not heat.any():
        return "nowhere in particular"
    bands = np.array_split(heat, 3, axis=0)
    ninths = [[part.sum() / max(part.size, 1) for part in np.array_split(band, 3, axis=1)] for band in bands]
    row, column = divmod(int(np.argmax(ninths)), 3)
    if row == column == 1:
        return "mostly in the middle"
    return f"mostly at the {HEIGHTS[row]} {SIDES[column]}"
