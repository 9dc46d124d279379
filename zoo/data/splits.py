"""Stratified, grouped, repeatable train / dev / test."""

import os
from collections.abc import Callable

import numpy as np
import pandas as pd

from zoo.data.folds import folds
from zoo.data.grouping import group_names, place
from zoo.data.leaks import leak_lines, leaks
from zoo.data.manifest import Manifest, read_manifest
from zoo.data.mending import NAMES, mend

__all__ = ["NAMES", "assign", "check_fractions", "folds", "from_earlier", "leak_lines", "leaks", "read_split"]


def check_fractions(split) -> tuple[float, float, float]:
    """The three shares, as they are or from two (train, dev).

    Raises:
        ValueError: If they are not two or three shares of which train is above 0, adding up to 1.
    """
    try:
        shares = tuple(float(share) for share in split) if hasattr(split, "__len__") else (float(split),)
    except (TypeError, ValueError):
        shares = ()
    shares = (*shares, 0.0) if len(shares) == 2 else shares
    if len(shares) != 3 or min(shares) < 0 or shares[0] == 0 or not abs(sum(shares) - 1) <= 1e-6:  # NaN is no share
        raise ValueError(
            f"`split` must give the shares of train, dev and test, adding up to 1, with train above 0. "
            f"Received: split={split}"
        )
    return shares


def read_split(split) -> tuple[float, float, float] | pd.DataFrame:
    """What `split=` says: the three shares, or the table of an earlier manifest to hold on to.

    Args:
        split: Two or three shares; the path of a manifest.csv; a manifest, its table, or a Data whose manifest counts.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If shares are out of range, or the table has no column split, or neither sha256 nor path.
    """
    if isinstance(split, (str, os.PathLike)):
        if not os.path.isfile(split):
            raise FileNotFoundError(
                f"There is no file {split}. `split` must be shares such as (0.7, 0.15, 0.15), "
                "the path of an earlier manifest.csv, or that manifest."
            )
        try:
            table = read_manifest(split)
        except ValueError as error:  # pandas' and the codec's own
            raise ValueError(f"{split} cannot be read as the CSV file of a manifest: {error}") from error
    else:
        manifest = getattr(split, "manifest", split)
        table = manifest.table if isinstance(manifest, Manifest) else manifest
    if not isinstance(table, pd.DataFrame):
        return check_fractions(split)
    if "split" not in table.columns or not {"sha256", "path"} & set(table.columns):
        raise ValueError(
            "An earlier manifest as `split` must have the columns split and sha256 (or path). "
            f"Received: columns {', '.join(map(str, table.columns))}"
        )
    return table


def assign(table: pd.DataFrame, shares, *, group: str | Callable | None, seed: int) -> pd.Series:
    """A split for every row: each class shared out by chance that can be repeated, no group torn apart.

    Where a group goes depends on the hash of the seed and its name alone, the name of a lone picture being its content:
    neither file names nor order nor other pictures count, so a file that is added moves no other. Shares are therefore
    met on average, not to the picture.

    Small classes would come out badly: each split gets at least one group of each class, training four fifths of its
    share and the others half of theirs, so where chance gave less, the groups nearest to the threshold move, as few as
    possible. Only in such a class can an added file move others. (So can a near twin of a picture, which may take that
    picture with it.) To hold a split fixed whatever is added, give the earlier manifest as `split=`.

    Args:
        table: Columns path, label, sha256, twin, and the one that `group` names; index any.
        shares: Shares of train, dev and test.
        group: "duplicates" keeps pictures of equal content and near twins together; the name of a column, or a
            function of the path, also those that it says the same of; None lets every picture go alone.
        seed: Another seed, another split; 0 is a seed like any other.

    Returns:
        "train", "dev" or "test" on the index of `table`.

    Raises:
        ValueError: If a class has fewer groups than there are splits to fill, or there is no column `group`.
    """
    chosen = _placed(table, group_names(table, group), shares, seed, _unit(group), held={})
    return pd.Series(chosen, index=table.index, dtype=object)


def from_earlier(
    table: pd.DataFrame, earlier: pd.DataFrame, shares=None, *, group: str | Callable | None, seed: int
) -> pd.Series:
    """The splits of an earlier manifest, and a split for the pictures that are new.

    A picture is known by its content, where the earlier table tells it, otherwise by its path; it keeps its split even
    where `group` would now join it to others. A new one goes where its group is, and otherwise as `assign` places it;
    only new ones are moved to fill a small class. What has vanished since does not matter.

    Args:
        table: As for `assign`.
        earlier: Column split, and sha256 or path; rows without a split do not count.
        shares: Shares of train, dev and test for the new ones; by default those of the earlier manifest.
        group: As for `assign`.
        seed: Decides where the new ones go.

    Raises:
        ValueError: If no picture is known, a split has another name than train, dev or test, or as for `assign`.
    """
    known = _known(table, earlier)
    if not any(known):
        raise ValueError(
            f"None of the {len(table)} pictures is in the earlier manifest given as `split`. "
            "Give the manifest of the same pictures, or shares."
        )
    if shares is None:
        counts = [earlier["split"].tolist().count(name) for name in NAMES]
        if counts[0] == 0:
            raise ValueError("The earlier manifest given as `split` has no training pictures. Leave them in it.")
        shares = check_fractions([count / sum(counts) for count in counts])
    names = group_names(table, group)
    held: dict[str, str] = {}
    for name, split in zip(names, known, strict=True):
        if split:  # torn apart before: as good as any, but the same whatever the order of rows
            held[name] = min(held.get(name, split), split, key=NAMES.index)
    placed = _placed(table, names, shares, seed, _unit(group), held)
    chosen = [old or new for old, new in zip(known, placed, strict=True)]
    return pd.Series(chosen, index=table.index, dtype=object)


def _placed(table: pd.DataFrame, names: list[str], shares, seed: int, unit: str, held: dict[str, str]) -> list[str]:
    """A split for each row: as `held` says of its group, otherwise by the hash, and mended by those."""
    if not names:
        return []
    groups, distinct = pd.factorize(np.array(names, object), sort=True)  # sorted: no order of rows is left
    places = np.array([place(seed, name) for name in distinct])
    test, dev = shares[2], shares[2] + shares[1]
    chosen = np.where(places < test, 2, np.where(places < dev, 1, 0))
    free = np.array([name not in held for name in distinct])
    chosen[~free] = [NAMES.index(held[name]) for name in distinct[~free]]
    away = np.stack([np.maximum(dev - places, 0), np.maximum(test - places, places - dev), places - test], axis=1)
    labels, classes = pd.factorize(table["label"].astype(str).to_numpy(object), sort=True)
    mend(chosen, groups, labels, away=away.clip(0), free=free, shares=shares, classes=classes.tolist(), unit=unit)
    return [NAMES[number] for number in chosen[groups]]


def _known(table: pd.DataFrame, earlier: pd.DataFrame) -> list[str]:
    """The split that each row had; "" for new ones."""
    nothing = [""] * len(earlier)
    splits, contents, paths = (
        earlier[name].fillna("").tolist() if name in earlier.columns else nothing
        for name in ("split", "sha256", "path")
    )
    if odd := sorted({str(split) for split in splits} - {*NAMES, ""}):
        raise ValueError(f"Column split of an earlier manifest may say train, dev or test. Received: {odd[0]!r}")
    by_both, by_content, by_path = {}, {}, {}
    rows = [row for row in zip(splits, contents, paths, strict=True) if row[0]]
    for split, content, path in sorted(rows, key=lambda row: -NAMES.index(row[0])):  # train comes last and stays
        if content:
            by_both[content, path] = by_content[content] = split
        else:
            by_path[path] = split
    return [
        by_both.get((content, path)) or by_content.get(content) or by_path.get(path) or ""
        for content, path in zip(table["sha256"], table["path"], strict=True)
    ]


def _unit(group) -> str:
    return "different pictures" if group is None or group == "duplicates" else "groups of pictures"
