"""TensorFlow Datasets by name: every picture copied once, as it is stored, into a file of our own cache.

An entry of the cache is the folder `$XDG_CACHE_HOME/menagerie/tfds/<name>-<hash>/`:

    pictures.bin    the encoded pictures, one behind the other
    index.csv       their manifest, in that order
    about.json      the prepared data set that they come from, and how the two files can be told to be whole

From then on neither TensorFlow nor TFDS is needed, and a picture is read where it lies, so the largest takes no memory.
"""

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from zoo.data.looking import look_at_bytes, without_warnings
from zoo.data.manifest import COLUMNS, FACTS, Manifest, read_manifest
from zoo.data.pictures import portable
from zoo.data.tfds_library import data_dir, examples, kept_splits, prepared
from zoo.data.twins import marked
from zoo.files import cache_folder, make_folder, write_json, writing_folder

LAYOUT = 1  # of an entry; an entry of another layout is made again
PICTURES, INDEX, ABOUT = "pictures.bin", "index.csv", "about.json"
AT_ONCE = 256  # pictures in memory while they are looked at
_VERSION = r"\d+\.(?:\d+|\*)\.(?:\d+|\*)"
_TEXT = re.compile(
    rf"tfds:(?P<name>\w+)(?:[:/](?!{_VERSION}$)(?P<config>[\w.+-]+))?(?:[:/](?P<version>{_VERSION}))?", re.ASCII
)


@dataclass(frozen=True)
class Encoded:
    """Pictures of TFDS in our cache, as they are stored.

    Args:
        folder: The entry of the cache.
        name: What the data set was opened as, "tfds:NAME".
        first: The row of each split's first picture.
        offsets: Where each picture begins in the file, and where the last one ends, (n + 1,).
    """

    folder: Path
    name: str
    first: dict[str, int] = field(repr=False, compare=False)
    offsets: np.ndarray = field(repr=False, compare=False)

    @property
    def kind(self) -> str:
        """What sort of source it is."""
        return "tfds"

    def absolute(self, path: str) -> str:
        """The data set and the row: no file holds the picture alone."""
        return f"{self.name}/{path}"

    def encoded(self, path: str, sha256: str) -> bytes:
        """The bytes of one picture, in a form that the decoder reads.

        Raises:
            OSError: If they are not the bytes that were indexed.
        """
        split, _, number = path.rpartition("/")
        row = self.first.get(split, len(self.offsets)) + int(number)
        if row >= len(self.offsets) - 1:
            raise OSError(f"{self.name} has no such picture any more")
        with open(self.folder / PICTURES, "rb") as file:
            file.seek(self.offsets[row])
            data = file.read(self.offsets[row + 1] - self.offsets[row])
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            if found != read_manifest(self.folder / INDEX).sha256[row]:
                (self.folder / ABOUT).unlink(missing_ok=True)  # the next opening makes the entry again
                raise OSError(f"its copy in {self.folder} is damaged; open {self.name} again, which makes it anew")
            raise OSError("it is another picture than when it was indexed")
        return portable(data)

    def describe(self) -> dict:
        """What is needed to find the source again."""
        return {"kind": self.kind, "name": self.name}


def open_tfds(text: str) -> Manifest:
    """The pictures of a data set in TFDS' catalogue, or of a builder of one's own whose module was imported.

    A data set that is not prepared yet is downloaded and prepared by TFDS, into $TFDS_DATA_DIR or
    ~/tensorflow_datasets. Its splits train, validation and test are kept and others passed over; where it has but one,
    the column split is empty. Rows stand in the order of the stored records: "train/000123" is the 124th of train.

    The first opening reads everything once. Later ones read our cache, unless another version was prepared meanwhile.

    Args:
        text: "tfds:NAME", "tfds:NAME:CONFIG", either with a version behind it ("tfds:mnist:3.0.1"); TFDS' own
            spelling "NAME/CONFIG:1.2.3" is understood, too.

    Raises:
        ValueError: If there is no such data set, or it is not one picture with one label a row.
        OSError: If it is not prepared and cannot be downloaded, or the cache cannot be written.
        ImportError: If TensorFlow is needed and not installed.
    """
    name, config, version = _parsed(text)
    folder = _entry(name, config, version)
    manifest = _kept(folder, text)
    if manifest is not None:
        return manifest
    try:
        make_folder(folder.parent)
    except OSError as error:
        raise OSError(f"{error} The cache moves with the environment variable XDG_CACHE_HOME.") from None
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        manifest = _kept(folder, text)  # another process may have made it
        if manifest is None:
            _make(folder, text, prepared(text, name, config, version))
            manifest = _kept(folder, text)
    if manifest is None:
        raise OSError(f"The copy of {text} in {folder} was changed while it was made. Open it again.")
    return manifest


def reopen(name: str) -> Encoded:
    """The pictures of an earlier run, from the name that `describe` gave; errors are those of `open_tfds`."""
    return open_tfds(name).source


def _parsed(text: str) -> tuple[str, str, str]:
    """Name, configuration and version, the latter two "" where not given."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(
            'A TensorFlow data set is named "tfds:NAME" or "tfds:NAME:CONFIG", and a version may follow, as in '
            f'"tfds:mnist:3.0.1". Received: {text!r}'
        )
    return match["name"], match["config"] or "", match["version"] or ""


def _entry(name: str, config: str, version: str) -> Path:
    """The folder of the cache for what was asked for: TFDS, which knows the version, need not be loaded to find it."""
    key = hashlib.sha256(json.dumps([name, config, version, str(data_dir())]).encode()).hexdigest()[:12]
    slug = "-".join(part.replace("*", "x") for part in (name, config, version, key) if part)
    return cache_folder("tfds") / slug


def _kept(folder: Path, text: str) -> Manifest | None:
    """What the cache holds, if it is whole and nothing newer was prepared."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        index = (folder / INDEX).read_bytes()
        if about["layout"] != [LAYOUT, *COLUMNS] or about["bytes"] != (folder / PICTURES).stat().st_size:
            return None
        if hashlib.sha256(index).hexdigest() != about["index"]:
            return None
        now, then = _versions(Path(about["prepared"])), about["versions"]
        if any(then.get(version) != state for version, state in now.items()):  # one that is gone is no reason
            return None
        table = read_manifest(folder / INDEX)
        notes = about["notes"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    split = table.path.str.rpartition("/")[0]
    first = {name: int(row) for row, name in zip(*np.unique(split, return_index=True)[::-1], strict=True)}
    offsets = np.concatenate([[0], np.cumsum(table.bytes.to_numpy(np.int64))])
    return Manifest(table, notes=notes, source=Encoded(folder, text, first, offsets))


def _versions(folder: Path) -> dict[str, list[int]]:
    """The versions that are prepared in a folder, each with the size and time of its description."""
    found = ((path.parent.name, path.stat()) for path in folder.glob("*/dataset_info.json"))
    return {version: [state.st_size, state.st_mtime_ns] for version, state in found}


def _make(folder: Path, text: str, builder) -> None:
    """Copies a prepared data set into the cache."""
    for abandoned in folder.parent.glob(f".{folder.name}-*.tmp*"):  # of a process that was killed; we hold the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    splits, notes = kept_splits(text, builder.info)
    home = Path(builder.data_dir).parent
    versions = _versions(home)
    try:
        with writing_folder(folder) as new:
            table = _copy(examples(text, builder, splits), new / PICTURES)
            table.to_csv(new / INDEX, index=False)
            about = {
                "layout": [LAYOUT, *COLUMNS],
                "data_set": builder.info.full_name,
                "prepared": str(home),
                "versions": versions,
                "bytes": (new / PICTURES).stat().st_size,
                "index": hashlib.sha256((new / INDEX).read_bytes()).hexdigest(),
                "notes": notes,
            }
            write_json(new / ABOUT, about)
    except OSError as error:
        raise OSError(
            f"The pictures of {text} could not be copied to {folder} ({error}). "
            "The cache moves with the environment variable XDG_CACHE_HOME."
        ) from error


def _copy(stored: Iterator[tuple[dict, bytes]], path: Path) -> pd.DataFrame:
    """Writes the pictures one behind the other; the manifest's table, twins marked."""
    tables = [pd.DataFrame(columns=COLUMNS)]
    with open(path, "wb") as file, without_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(stored, AT_ONCE)):
            rows, pictures = zip(*chunk, strict=True)
            facts = pool.map(_facts, pictures)
            tables.append(pd.DataFrame([_row(*pair) for pair in zip(rows, facts, strict=True)], columns=COLUMNS))
            file.writelines(pictures)
    return marked(pd.concat(tables[1:] or tables, ignore_index=True))


def _facts(data: bytes) -> dict:
    return {**FACTS, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **look_at_bytes(data)}


def _row(row: dict, facts: dict) -> dict:
    if row["label"] == "":
        facts = {**facts, "status": "unlabelled", "reason": "TensorFlow Datasets gives it no label"}
    return {**facts, **row}
