"""load_data: any source as three splits of checked, labelled pictures."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from zoo.data.collection import Data, checked_size
from zoo.data.inspecting import MANY, MOST_PIXELS, give_back_memory
from zoo.data.manifest import Manifest
from zoo.data.memory import Arrays, digits
from zoo.data.names import natural, refused_name
from zoo.data.pictures import WHITE, Geometry
from zoo.data.sources import Files, open_source
from zoo.data.splits import assign, from_earlier, read_split

FITTING = {(have, have) for have in (1, 3, 4)} | {(1, 3), (3, 1)}  # channels of arrays, and what they can be brought to


def load_data(
    source,
    *,
    image_size: int | tuple[int, int] | None = None,
    split=(0.7, 0.15, 0.15),
    group: str | Callable | None = "duplicates",
    seed: int = 0,
    channels: int = 3,
    bad: str = "leave out",
    labels: bool = True,
    depth: int = 1,
    follow_links: bool = False,
    most_pixels: int = MOST_PIXELS,
    background: tuple[int, int, int] = WHITE,
) -> Data:
    """Indexes labelled pictures and shares them out; no pixels are kept yet, and nothing in the source is changed.

    Args:
        source: A folder with one folder a class; a folder with `train/`, `val/` (or `valid/`, `dev/`) and perhaps
            `test/` laid out so, whose splits are kept; a list of such folders; a CSV file or DataFrame with columns
            path and label and perhaps split; "tfds:NAME" or "tfds:NAME:CONFIG", prepared by TensorFlow Datasets; a pair
            (images, labels) of arrays with pixels 0..255; "digits", scikit-learn's 1,797 handwritten digits, which need
            no network; or what `zoo.scan` gave.
        image_size: Side, or (height, width), in pixels. By default the model's own size.
        split: Shares of train, dev and test where the source gives none; two numbers mean train and dev. Or an earlier
            manifest (a file such as a run's `manifest.csv`, a table, or a Manifest): pictures that it knows, by their
            content, stay where they were.
        group: What must not be torn apart: "duplicates" (equal files and near twins), a column of a table such as
            "patient", a function of the path, or None.
        seed: Decides who goes where. A picture's place follows from its content and the seed alone, so that files that
            are added move no other; see `zoo.data.splits.assign`.
        channels: 3 for RGB, 1 for grey, 4 for RGB with alpha.
        bad: "leave out" lists unusable files in the manifest; "error" raises and names them.
        labels: False where there are none: all pictures, in whatever folders, become the split test, for predictions.
        depth: How many folders down the classes lie: 1 for `ant/1.jpg`, 3 for `2024/may/ant/1.jpg`.
        follow_links: Whether links may lead out of the folder.
        most_pixels: Pictures of more pixels than that are too large.
        background: Red, green and blue, 0..255, of what transparent parts are laid on, unless `channels` is 4.

    Raises:
        FileNotFoundError: If the source does not exist.
        ValueError: If an argument is out of range, fewer than two classes are found, or a class is too small.

    Example:
        >>> data = load_data("digits")
        >>> len(data.train), len(data.dev), len(data.test)
        (1238, 267, 292)
    """
    if bad not in ("leave out", "error"):
        raise ValueError(f'`bad` must be "leave out" or "error". Received: bad={bad!r}')
    wanted = read_split(split)
    size = checked_size(image_size)
    background = Geometry(size or (1, 1), channels, background=background).background  # refuses what no picture can be
    manifest = open_source(source, depth=depth, labels=labels, follow_links=follow_links, most_pixels=most_pixels)
    if bad == "error" and (complaint := manifest.complaint()):
        raise ValueError(complaint)
    opened = manifest.source
    if isinstance(opened, Arrays) and (opened.images.shape[-1], channels) not in FITTING:
        raise ValueError(
            f"The pictures have {opened.images.shape[-1]} channels, which cannot be brought to `channels`={channels}. "
            f"Say channels={opened.images.shape[-1]}."
        )
    usable = manifest.usable
    names = natural(usable.label.unique().tolist())
    table = manifest.table.assign(split=usable.split.reindex(manifest.table.index, fill_value=""))
    if not labels and usable.empty:
        raise ValueError("None of the pictures can be used" + _first_troubles(manifest))
    if labels and names != [""]:
        _check_names(names, manifest)
        table.loc[usable.index, "split"] = _splits(usable, wanted, group, seed)
        if missing := sorted(set(names) - set(table.label[table.split == "train"])):
            raise ValueError(
                f"Every class needs pictures in the training split. There are none of: {', '.join(missing)}"
            )
    data = Data(opened, replace(manifest, table=table), channels=channels, image_size=size, background=background)
    if len(table) >= MANY:
        give_back_memory()
    return data


def restore(description: dict, manifest: pd.DataFrame, data=None) -> Data:
    """The data of an earlier run, from what `describe` said and its manifest.

    Args:
        description: From `Data.describe`.
        manifest: The table stored with the run, from `read_manifest`.
        data: A Data of the same pictures, or the folder they were moved to; needed where they were arrays.

    Raises:
        FileNotFoundError: If the source is gone.
        ValueError: If `data` holds other pictures, or is needed and missing.
    """
    shape = {name: description[name] for name in ("image_size", "crop", "interpolation")}
    if isinstance(data, Data):
        if data.fingerprint != description["fingerprint"]:
            raise ValueError(
                "`data` holds other pictures, labels or splits than the run was made with. "
                f"Received: fingerprint {data.fingerprint}, the run has {description['fingerprint']}"
            )
        return data.configured(**shape)
    if data is not None and not isinstance(data, (str, os.PathLike)):
        raise TypeError(f"`data` must come from zoo.load_data, or be a folder. Received: {type(data).__name__}")
    kind, path = description["source"]["kind"], description["source"].get("path")
    if kind == "arrays":
        raise ValueError(
            "The run was made from arrays, which are not stored with it. Hand them over: data=load_data((x, y))."
        )
    if kind == "digits":
        source = digits().source
    elif kind == "tfds":
        from zoo.data.tfds import reopen

        source = reopen(description["source"]["name"])
    else:
        place = Path(data if data is not None else path).resolve()
        source = Files(place.parent if kind == "csv" and place.is_file() else place, kind)
        if not source.root.is_dir():
            raise FileNotFoundError(
                f"The pictures of the run are no longer in {source.root}. Say where they are now: data=FOLDER."
            )
    shape["image_size"] = checked_size(shape["image_size"])
    background = tuple(description.get("background", WHITE))  # an earlier version knew none but white
    shape |= {"channels": description["channels"], "background": background}
    shape["class_names"] = description.get("class_names")  # the order of the network's outputs, whatever is usual now
    return Data(source, Manifest(manifest, source=source), **shape)


def _splits(usable: pd.DataFrame, wanted, group, seed: int) -> pd.Series:
    """The split of each usable row: an earlier manifest's, or the given ones, dev cut from train where it is missing.

    Args:
        wanted: From `read_split`: shares, or an earlier manifest.
    """
    given = usable.split
    if isinstance(wanted, pd.DataFrame):
        name = "sha256" if "sha256" in wanted.columns else "path"
        known = usable[name].isin(wanted.loc[wanted["split"].fillna("") != "", name])
        return from_earlier(usable, wanted, group=group, seed=seed).where(known | (given == ""), given)
    if not given.any():
        return assign(usable, wanted, group=group, seed=seed)
    if not given.all():
        raise ValueError(
            f"Some rows have a split and {int((given == '').sum())} have none. Give it for all or for none."
        )
    if (given == "dev").any() or wanted[1] == 0:
        return given
    both = wanted[0] + wanted[1]
    cut = assign(usable.loc[given == "train"], (wanted[0] / both, wanted[1] / both, 0.0), group=group, seed=seed)
    return given.where(given != "train", cut.reindex(given.index))


def _check_names(names: list[str], manifest: Manifest) -> None:
    """Refuses classes that nothing can be trained on."""
    if len(names) < 2:
        raise ValueError(
            f"At least two classes are needed, each with usable pictures. Found: {', '.join(names) or 'none'}"
            + _first_troubles(manifest)
        )
    if refused := [name for name in names if refused_name(name)]:
        raise ValueError(f"Class names must be text without line breaks or control characters. Received: {refused}")


def _first_troubles(manifest: Manifest) -> str:
    lines = manifest.trouble_lines()
    return ("; left out: " + "; ".join(lines[:3]) + (" ..." if len(lines) > 3 else "")) if lines else ""
