"""Tables with a path and a label a row, as CSV or DataFrame."""

import os
import re
import stat
import warnings
from pathlib import Path

import pandas as pd

from zoo.data.folders import SPLIT_FOLDERS, Entry, located
from zoo.data.manifest import COLUMNS
from zoo.data.names import class_name
from zoo.data.walking import written

OURS = ("path", "label", "split")
SPLIT_WORDS = {**SPLIT_FOLDERS, "": ""}  # what the column split may say
BEYOND = "beyond the header"
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV file, every value as text.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not comma-separated text in UTF-8, or a row has more fields than the header.
    """
    try:
        table = _read(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}.") from None
    except ValueError as error:  # no UTF-8, no columns, rows of other lengths
        raise ValueError(f"{path} cannot be read as comma-separated text in UTF-8: {str(error).strip()}") from None
    return table.rename(columns=str.strip)  # "path, label"


def _read(path: Path) -> pd.DataFrame:
    """The table; a comma behind the last field of every row is no field.

    Left alone, pandas would take the first fields of longer rows for an index, and shift all others.
    """
    how: dict = {"dtype": str, "keep_default_na": False, "index_col": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, **how)
        except pd.errors.ParserWarning:
            header = pd.read_csv(path, nrows=0, **how).columns.tolist()
        try:
            table = pd.read_csv(path, header=0, names=[*header, BEYOND], **how)
        except pd.errors.ParserWarning:
            table = pd.DataFrame({BEYOND: ["several"]})
    if table[BEYOND].str.strip().any():
        raise ValueError(f"its header names {len(header)} columns, and there are rows of more fields")
    return table.drop(columns=BEYOND)


def table_entries(table: pd.DataFrame, root: Path, name: str, *, labels: bool) -> tuple[list[Entry], pd.DataFrame]:
    """The rows of a user's table, and its further columns.

    Args:
        table: Columns path (absolute, or relative to `root`), label, perhaps split, and any further ones.
        root: Folder that a manifest's paths are relative to.
        name: What errors call the table.
        labels: Whether labels and splits count; otherwise every picture is for testing.

    Raises:
        ValueError: If a column is missing or bears a name of ours, a split is none, a path is an address of the
            network, or there are no rows.
    """
    table = table.rename(columns=str).reset_index(drop=True)
    _check_columns(table, name, labels)
    paths = [_text(path) for path in table["path"]]
    addresses = [path for path in paths if ADDRESS.match(path)]
    if addresses:
        raise ValueError(
            f"Pictures are read from files only; {len(addresses)} paths of {name} are addresses. Download them and "
            f"name the files. Received: {addresses[0]}"
        )
    names = [class_name(label) for label in table["label"]] if labels else [""] * len(table)
    splits = _splits(table, name) if labels else ["test"] * len(table)
    entries = []
    for path, label, split in zip(paths, names, splits, strict=True):
        place = located(root, path)
        if path != path.strip() and not os.path.lexists(place) and os.path.lexists(located(root, path.strip())):
            path = path.strip()  # "a.png , ants"
            place = located(root, path)
        if os.path.isabs(path):
            shown = written(os.path.relpath(place, root))
        else:  # an escaped one stays as it is
            shown = written(path) if place == os.path.join(root, path) else path
        entries.append(Entry(place, shown, label, split, *at_once(path, place, labels and not label)))
    return entries, table.drop(columns=[column for column in OURS if column in table.columns])


def _text(path) -> str:
    if isinstance(path, bytes):
        return os.fsdecode(path)
    return "" if pd.isna(path) else str(path)


def at_once(path: str, place: str, missing: bool) -> tuple[str, str]:
    """Status and reason of what need not be opened, or must not: reading a pipe never ends."""
    if missing:
        return "unlabelled", "its label is empty"
    if not path:
        return "unreadable", "its path is empty"
    try:
        mode = os.stat(place).st_mode
    except (OSError, ValueError) as error:  # no such file; a zero byte in its name
        return "unreadable", getattr(error, "strerror", "") or str(error)
    if stat.S_ISREG(mode):
        return "", ""
    return "unreadable", "a folder, not a file" if stat.S_ISDIR(mode) else "neither file nor folder"


def _splits(table: pd.DataFrame, name: str) -> list[str]:
    """The splits that a table gives, in our words."""
    if "split" not in table.columns:
        return [""] * len(table)
    words = ["" if pd.isna(word) else str(word).strip() for word in table["split"]]
    for word, path in zip(words, table["path"], strict=True):
        if word.lower() not in SPLIT_WORDS:
            raise ValueError(f"Column split of {name} may say train, dev or test. Received: {word!r} for {path}")
    return [SPLIT_WORDS[word.lower()] for word in words]


def _check_columns(table: pd.DataFrame, name: str, labels: bool):
    columns = list(table.columns)
    received = f"Received: columns {', '.join(columns)}"
    for column in ("path", "label") if labels else ("path",):
        if column not in columns:
            hint = " Columns are separated by commas." if re.search(r"[;\t|]", "".join(columns)) else ""
            hint += " Without labels, say labels=False." if column == "label" else ""
            raise ValueError(
                f"{name} has no column '{column}'. It needs path and label, and may have split.{hint} {received}"
            )
    taken = [column for column in columns if column in COLUMNS and column not in OURS]
    if taken:
        raise ValueError(
            f"{name} has columns that the manifest fills itself: {', '.join(taken)}. Rename or drop them. {received}"
        )
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise ValueError(f"{name} has several columns called {', '.join(twice)}. {received}")
    if not len(table):
        raise ValueError(f"{name} has no rows.")
