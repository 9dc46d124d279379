"""load_data: any source as three splits of checked, labelled pictures."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from zoo.data.collection import Data, checked_size
from zoo.data.pictures import Geometry
from zoo.data.scan import Manifest, natural, refused_name
from zoo.data.sources import Arrays, Files, digits, open_source
from zoo.data.splits import assign, check_fractions

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
) -> Data:
    """Indexes labelled pictures and shares them out; no pixels are kept yet.

    Args:
        source: A folder with one folder a class; a folder with `train/`, `val/` (or `valid/`, `dev/`) and perhaps
            `test/` laid out so, whose splits are kept; a CSV file or DataFrame with columns path and label and perhaps
            split; a pair (images, labels) of arrays with pixels 0..255; or "digits", scikit-learn's 1,797 handwritten
            digits, which need no network.
        image_size: Side, or (height, width), in pixels. By default the model's own size.
        split: Shares of train, dev and test where the source gives none; two numbers mean train and dev.
        group: What must not be torn apart: "duplicates" (equal files), a function of the path, or None.
        seed: Decides who goes where.
        channels: 3 for RGB, 1 for grey, 4 for RGB with alpha.
        bad: "leave out" lists unusable files in the manifest; "error" raises and names them.

    Raises:
        FileNotFoundError: If the source does not exist.
        ValueError: If an argument is out of range, fewer than two classes are found, or a class is too small.

    Example:
        >>> data = load_data("digits")
        >>> len(data.train), len(data.dev), len(data.test)
        (1259, 269, 269)
    """
    if bad not in ("leave out", "error"):
        raise ValueError(f'`bad` must be "leave out" or "error". Received: bad={bad!r}')
    shares = check_fractions(split)
    size = checked_size(image_size)
    Geometry(size or (1, 1), channels)  # refuses what no picture can be brought to
    opened, manifest = open_source(source)
    if bad == "error" and (len(manifest.troubles) or manifest.empty):
        raise ValueError("Some files cannot be used:\n  " + "\n  ".join(manifest.trouble_lines()))
    usable = manifest.usable
    names = natural(usable.label.unique().tolist())
    if len(names) < 2:
        raise ValueError(
            f"At least two classes are needed, each with usable pictures. Found: {', '.join(names) or 'none'}"
            + _first_troubles(manifest)
        )
    refused = [name for name in names if refused_name(name)]
    if refused:
        raise ValueError(f"Class names must be text without line breaks or control characters. Received: {refused}")
    if isinstance(opened, Arrays) and (opened.images.shape[-1], channels) not in FITTING:
        raise ValueError(
            f"The pictures have {opened.images.shape[-1]} channels, which cannot be brought to `channels`={channels}. "
            f"Say channels={opened.images.shape[-1]}."
        )
    table = manifest.table.copy()
    table.loc[usable.index, "split"] = _splits(usable, shares, group, seed)
    table.loc[~table.index.isin(usable.index), "split"] = ""
    missing = sorted(set(names) - set(table.label[table.split == "train"]))
    if missing:
        raise ValueError(f"The training split has no picture of: {', '.join(missing)}. Every class needs some there.")
    return Data(opened, replace(manifest, table=table), channels=channels, image_size=size)


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
        source = digits()[0]
    else:
        place = Path(data if data is not None else path).resolve()
        source = Files(place.parent if kind == "csv" and place.is_file() else place, kind)
        if not source.root.is_dir():
            raise FileNotFoundError(
                f"The pictures of the run are no longer in {source.root}. Say where they are now: data=FOLDER."
            )
    shape["image_size"] = checked_size(shape["image_size"])
    return Data(source, Manifest(manifest), channels=description["channels"], **shape)


def read_manifest(path: str | os.PathLike) -> pd.DataFrame:
    """A manifest written by `Manifest.to_csv`, labels as text whatever they look like."""
    numbers = {name: int for name in ("width", "height", "bytes")}
    return pd.read_csv(path, dtype=str, keep_default_na=False).astype(numbers)


def _splits(usable: pd.DataFrame, shares, group, seed: int) -> pd.Series:
    """The split of each usable row: given ones are kept, and dev is cut from train where it is missing."""
    given = usable.split
    if not given.any():
        return assign(usable, shares, group=group, seed=seed)
    if not given.all():
        raise ValueError(
            f"Some rows have a split and {int((given == '').sum())} have none. Give it for all or for none."
        )
    if (given == "dev").any() or shares[1] == 0:
        return given
    train = usable.loc[given == "train"]
    both = shares[0] + shares[1]
    cut = assign(train, (shares[0] / both, shares[1] / both, 0.0), group=group, seed=seed)
    return given.where(given != "train", cut.reindex(given.index))


def _first_troubles(manifest: Manifest) -> str:
    lines = manifest.trouble_lines()
    return ("; left out: " + "; ".join(lines[:3]) + (" ..." if len(lines) > 3 else "")) if lines else ""
