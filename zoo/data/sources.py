"""Where pictures come from: any source as a manifest, which then reads one picture by its row."""

import hashlib
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pandas as pd

from zoo.data.folders import Entry, Listing, labelled, located, real_folders, unlabelled
from zoo.data.inspecting import MOST_BYTES, MOST_PIXELS, inspect_all
from zoo.data.manifest import COLUMNS, FACTS, TRAINABLE, Manifest
from zoo.data.memory import arrays, digits
from zoo.data.pictures import portable
from zoo.data.tables import ADDRESS, at_once, read_csv, table_entries
from zoo.data.twins import marked

ACCEPTED = (
    'a folder or a list of folders, a CSV file, a DataFrame, a pair (images, labels), "tfds:NAME", "digits" or a '
    "manifest from zoo.scan"
)
LIMITS = {"most_pixels": MOST_PIXELS, "most_bytes": MOST_BYTES}
BY_DEFAULT = {"depth": 1, "follow_links": False, **LIMITS}


class Source(Protocol):
    """What a manifest's pictures are read from."""

    @property
    def kind(self) -> str:
        """What sort of source it is."""
        ...

    def absolute(self, path: str) -> str:
        """The full path of a manifest row, as `open` takes it, where it is a file."""
        ...

    def encoded(self, path: str, sha256: str) -> bytes:
        """The bytes of one picture, in a form that the decoder reads; OSError where they are others by now."""
        ...

    def describe(self) -> dict:
        """What is needed to find the source again."""
        ...


@dataclass(frozen=True)
class Files:
    """Pictures in files below a root.

    Args:
        root: Folder that the manifest's paths are relative to.
        kind: "folder" or "csv".
    """

    root: Path
    kind: str = "folder"

    def absolute(self, path: str) -> str:
        """The full path of a manifest row, as `open` takes it."""
        return located(self.root, path)

    def encoded(self, path: str, sha256: str) -> bytes:
        """The bytes of one picture, in a form that the decoder reads.

        Raises:
            OSError: If they are not the bytes that were indexed.
        """
        data = Path(self.absolute(path)).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise OSError("it is another picture than when it was indexed")
        return portable(data)

    def describe(self) -> dict:
        """What is needed to find the source again."""
        return {"kind": self.kind, "path": str(self.root)}


def open_source(
    source,
    *,
    depth: int = 1,
    labels: bool = True,
    follow_links: bool = False,
    most_pixels: int = MOST_PIXELS,
    most_bytes: int = MOST_BYTES,
) -> Manifest:
    """A source of any kind as a manifest, its `source` set; the arguments are those of `zoo.scan`.

    Raises:
        FileNotFoundError, ValueError, TypeError: With what is wrong and what is accepted.
    """
    depth = _whole("depth", depth)
    limits = {"most_pixels": _whole("most_pixels", most_pixels), "most_bytes": _whole("most_bytes", most_bytes)}
    if isinstance(source, Manifest):
        if source.source is None:
            raise ValueError("This manifest does not know where its pictures are. Use one that zoo.scan returned.")
        given = {"depth": depth, "follow_links": follow_links, **limits}
        for name, value in given.items():
            if value != BY_DEFAULT[name]:
                raise ValueError(
                    f"`{name}` counts where files are looked at, and those of a manifest have been. Scan the source "
                    f"with {name}={value!r} instead."
                )
        return source if labels else _without_labels(source)
    if isinstance(source, pd.DataFrame):
        return _table(source, Path.cwd(), "The table", labels, limits)
    for item in source if isinstance(source, (tuple, list)) else [source]:
        if isinstance(item, str) and not item.strip():
            raise ValueError(f'`source` is an empty text. The folder that you are in is ".". Received: {source!r}')
    if isinstance(source, (tuple, list)) and source and all(isinstance(item, (str, os.PathLike)) for item in source):
        return _folders(source, depth, labels, follow_links, limits)
    if isinstance(source, (tuple, list)) and len(source) == 2:
        return arrays(source[0], source[1] if labels else None)
    shape = getattr(source, "shape", None)
    if shape is not None and not labels:
        return arrays(source)
    if shape is not None:
        raise TypeError(
            "`source` must be a pair (images, labels); for pictures without labels say labels=False. "
            f"Received: one array of shape {tuple(shape)}"
        )
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"`source` must be {ACCEPTED}. Received: {type(source).__name__}")
    text = os.fspath(source)
    if text == "digits":
        return digits(labels)
    if text.startswith("tfds:"):
        from zoo.data.tfds import open_tfds

        manifest = open_tfds(text)
        return manifest if labels else _without_labels(manifest)
    if ADDRESS.match(text):
        raise ValueError(f"`source` must lie on this machine. Download it and name the folder. Received: {text}")
    path = Path(source)
    if path.suffix.lower() == ".csv" and not path.is_dir():
        return _table(read_csv(path), path.parent.resolve(), path.name, labels, limits)
    return _folders([path], depth, labels, follow_links, limits)


def _folders(
    sources: Sequence[str | os.PathLike], depth: int, labels: bool, follow_links: bool, limits: dict
) -> Manifest:
    """One folder, or several that are joined: classes of one name are one class."""
    folders = real_folders(sources)
    base = os.path.commonpath(folders)
    if labels:
        listing = labelled(folders, base, depth=depth, follow_links=follow_links)
    else:
        listing = unlabelled(folders, base, follow_links=follow_links)
    entries = sorted(listing.entries, key=lambda entry: entry.place.split(os.sep))
    table = marked(_looked_at(entries, Path(base), limits))
    return Manifest(table, listing.notes, _without_pictures(listing, entries, table), Files(Path(base)))


def _table(table: pd.DataFrame, root: Path, name: str, labels: bool, limits: dict) -> Manifest:
    """A table with columns path and label, and perhaps others."""
    entries, extra = table_entries(table, root, name, labels=labels)
    found = pd.concat([_looked_at(entries, root, limits), extra], axis=1)
    return Manifest(marked(found), source=Files(root, kind="csv"))


def _looked_at(entries: Sequence[Entry], root: Path, limits: dict) -> pd.DataFrame:
    """A row an entry; each file without a status is looked at, once even where several rows name it."""
    places = list(dict.fromkeys(entry.place for entry in entries if not entry.status))
    facts = dict(zip(places, inspect_all(places, root=root, **limits), strict=True))
    found = [
        {**FACTS, "status": entry.status, "reason": entry.reason} if entry.status else facts[entry.place]
        for entry in entries
    ]
    columns = {name: [row[name] for row in found] for name in FACTS}
    columns |= {name: [getattr(entry, name) for entry in entries] for name in ("path", "label", "split")}
    return pd.DataFrame(columns, columns=COLUMNS)


def _without_pictures(listing: Listing, entries: Sequence[Entry], table: pd.DataFrame) -> list[str]:
    """The class folders in which nothing can be used."""
    usable = table.status.isin(TRAINABLE)
    filled = {entry.folder for entry, use in zip(entries, usable, strict=True) if use}
    return [folder for folder in listing.classes if folder not in filled]


def _without_labels(manifest: Manifest) -> Manifest:
    """The same pictures as if nobody had said what they show.

    Those that were passed over for want of a label are looked at now, within the limits that hold by default.
    """
    table = manifest.table.assign(label="", split="test")
    waiting = table.status.isin(("in no class folder", "unlabelled"))
    table.loc[waiting & (table.phash != ""), ["status", "reason"]] = ["usable", ""]  # it was read all the same
    rows = table.index[waiting & (table.sha256 == "")]
    if len(rows):
        source = manifest.source
        if not isinstance(source, Files):
            raise ValueError(
                f"{len(rows)} pictures of this manifest were never looked at, since they have no labels. "
                "Hand over the source itself, with labels=False."
            )
        places = [(path, source.absolute(path)) for path in table.loc[rows, "path"]]
        entries = [Entry(place, path, "", "test", *at_once(path, place, False)) for path, place in places]
        table.loc[rows, COLUMNS] = _looked_at(entries, source.root, LIMITS).set_index(rows)
    return replace(manifest, table=marked(table), empty=[])


def _whole(name: str, value) -> int:
    """A whole number from 1, of whatever type."""
    try:
        if not isinstance(value, bool) and (number := operator.index(value)) >= 1:
            return number
    except TypeError:
        pass
    raise ValueError(f"`{name}` must be a whole number from 1. Received: {name}={value!r}")
