"""Which files of a folder are meant, and what they show: class folders and split folders."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.data.names import class_name
from zoo.data.walking import Found, below, hidden, walk, written

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
}
ESCAPED = re.compile(r"(\\x(?:[89a-f][0-9a-f]|5c))")  # a byte above 127 or a backslash, as `written` says it
LOOSE = {"status": "in no class folder", "reason": "a picture's label is the folder that it lies in"}


class Entry(NamedTuple):
    """A row of a manifest before the file was looked at; with a status it is not looked at any more."""

    place: str  # what `open` takes
    path: str  # what the manifest says
    label: str = ""
    split: str = ""
    status: str = ""
    reason: str = ""
    folder: str = ""  # the class folder that it lies in, as the manifest says it


class Listing(NamedTuple):
    """What folders hold: a row a file, remarks, and every class folder."""

    entries: list[Entry]
    notes: list[str]
    classes: list[str]


def picture_paths(source) -> list[Path]:
    """The files meant by a path, a list of paths, or a folder with everything below it; links are followed.

    Raises:
        FileNotFoundError: If one of them does not exist; the message names it.
        ValueError: If a folder holds no files.
    """
    paths = []
    for item in [source] if isinstance(source, (str, os.PathLike)) else source:
        path = Path(item)
        if path.is_dir():
            found, _ = walk([str(path)], roots=[str(path)], base=str(path), follow_links=True)
            inside = [Path(file.place) for file in found if not file.status]
            if not inside:
                raise ValueError(f"The folder {path} holds no files.")
            paths += inside
        elif path.exists():
            paths.append(path)
        else:
            raise FileNotFoundError(f"There is no file {path}.")
    return paths


def located(root: Path, path: str) -> str:
    """The file that a manifest's path means, as `open` takes it: \\xNN may stand for a byte that is no UTF-8.

    Where there is no such file, but one whose name reads literally so, it is that.
    """
    place = os.path.join(root, path)
    if "\\x" not in path:
        return place
    raw = b"".join(
        bytes([int(part[2:], 16)]) if i % 2 else os.fsencode(part) for i, part in enumerate(ESCAPED.split(path))
    )
    decoded = os.path.join(root, os.fsdecode(raw))
    return place if os.path.lexists(place) and not os.path.lexists(decoded) else decoded


def labelled(folders: Sequence[str], base: str, *, depth: int, follow_links: bool) -> Listing:
    """Every file below folders that are laid out by class, perhaps in train/, val/ and test/ first.

    Args:
        folders: Real paths that do not lie in one another.
        base: Folder above them all, which paths are relative to.
        depth: How many folders below the top (or the split's folder) the class folders lie.
        follow_links: Also into folders outside of `folders`.

    Raises:
        ValueError: If there is a test or dev folder without one for training, if only some of the folders have splits,
            or if no file lies in a class folder; the message says what else was found.
    """
    layouts = {folder: _split_folders(folder) for folder in folders}
    if len({bool(splits) for splits in layouts.values()}) > 1:
        bare = next(folder for folder, splits in layouts.items() if not splits)
        raise ValueError(
            f"Some of the folders have train/ and val/ folders, {written(bare)} has none. Lay all of them out alike, "
            "or join the folders of one split only."
        )
    tops = {top: split for folder in folders for top, split in (layouts[folder] or {folder: ""}).items()}
    found, visited = walk(list(tops), roots=folders, base=base, follow_links=follow_links)
    entries, notes = [], []
    for folder in folders:
        if layouts[folder]:
            more, remarks = _beside_splits(folder, layouts[folder], base)
            entries += more
            notes += remarks
    entries += [_entry(item, base, depth, tops[item.top]) for item in found]
    if not any(entry.folder and not entry.status for entry in entries):
        raise ValueError(_nothing_found(folders, entries, depth))
    classes = [item for item in visited if len(item.parts) == depth]
    notes += _spellings(classes)
    return Listing(entries, notes, [_path(item, base) for item in classes])


def unlabelled(folders: Sequence[str], base: str, *, follow_links: bool) -> Listing:
    """Every file below folders, without a label and all of them for testing.

    Raises:
        ValueError: If there is no file.
    """
    found, _ = walk(folders, roots=folders, base=base, follow_links=follow_links)
    if not any(not item.status for item in found):
        raise ValueError(f"No pictures were found in {' or '.join(map(written, folders))}." + _links_out(found))
    entries = [Entry(item.place, _path(item, base), "", "test", item.status, item.reason) for item in found]
    return Listing(entries, [], [])


def _split_folders(folder: str) -> dict[str, str]:
    """Folders of splits directly in a folder, with the split of each; none where class folders stand there."""
    names = sorted(entry.name for entry in os.scandir(folder) if not hidden(entry.name) and entry.is_dir())
    given = {SPLIT_FOLDERS.get(name.lower()) for name in names}
    if given and given <= {"dev", "test"}:
        raise ValueError(
            f"{written(folder)} has folders for dev or test but none for training. Add train/, or one folder a class; "
            "for pictures without labels say labels=False."
        )
    if "train" in given and (given & {"dev", "test"} or given == {"train"}):
        chosen = [name for name in names if name.lower() in SPLIT_FOLDERS]
        return {os.path.join(folder, name): SPLIT_FOLDERS[name.lower()] for name in chosen}
    return {}


def _beside_splits(folder: str, splits: dict[str, str], base: str) -> tuple[list[Entry], list[str]]:
    """What lies beside the folders of splits: rows of files, and the names of folders passed over."""
    entries, notes = [], []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = written(os.path.relpath(entry.path, base))
        if hidden(entry.name):
            entries.append(Entry(entry.path, path, status="hidden", reason="hidden files and folders are passed over"))
        elif not entry.is_dir():
            entries.append(Entry(entry.path, path, **LOOSE))
        elif entry.path not in splits:
            notes.append(f"{path}: a folder beside the splits, passed over")
    return entries, notes


def _entry(item: Found, base: str, depth: int, split: str) -> Entry:
    """The row of something found below a class folder, or above all of them."""
    path = _path(item, base)
    if len(item.parts) <= depth:
        if item.status:
            return Entry(item.place, path, "", split, item.status, item.reason)
        return Entry(item.place, path, "", split, **LOOSE)
    name = written(item.parts[depth - 1])
    folder = "/".join(path.split("/")[: depth - len(item.parts)])
    return Entry(item.place, path, class_name(name) or name, split, item.status, item.reason, folder)


def _path(item: Found, base: str) -> str:
    """What the manifest calls a place."""
    return written(item.place[len(base.rstrip(os.sep)) + 1 :].replace(os.sep, "/")) or "."


def _spellings(classes: list[Found]) -> list[str]:
    """A remark on each class whose folders are spelled in several ways that look the same."""
    ways: dict[str, set[str]] = {}
    for item in classes:
        name = written(item.parts[-1])
        ways.setdefault(class_name(name), set()).add(name)
    return [
        f"{name}: one class of folders spelled {', '.join(map(ascii, sorted(spelled)))}"
        for name, spelled in ways.items()
        if len(spelled) > 1
    ]


def _nothing_found(folders: Sequence[str], entries: list[Entry], depth: int) -> str:
    place = "one folder a class" if depth == 1 else f"folders that hold one folder a class, {depth} deep"
    text = (
        f"No pictures were found in {' or '.join(map(written, folders))}. It must hold {place}, with pictures in each, "
        "or train/ and val/ folders laid out so."
    )
    loose = sum(entry.status == LOOSE["status"] for entry in entries)
    if loose:
        text += f" {loose} files lie in no such folder; labels=False takes pictures without labels."
    return text + _links_out(entries)


def _links_out(entries: Sequence[Entry | Found]) -> str:
    count = sum(entry.status == "outside the root" for entry in entries)
    return f" {count} links lead out of it; follow_links=True follows them." if count else ""


def real_folders(sources: Sequence[str | os.PathLike]) -> list[str]:
    """The folders without links in their paths.

    Raises:
        FileNotFoundError: If one does not exist.
        ValueError: If one is a file, or lies in another.
    """
    for source in map(Path, sources):
        if not source.exists():
            raise FileNotFoundError(f"There is no folder {written(str(source))}.")
        if not source.is_dir():
            raise ValueError(f"{written(str(source))} is a file. A folder with one folder a class is wanted.")
    folders = [os.path.realpath(source) for source in sources]
    for i, folder in enumerate(folders):
        for other in folders[:i]:
            if below(folder, other) or below(other, folder):
                raise ValueError(
                    "Folders that are joined must not lie in one another. "
                    f"Received: {written(other)}, {written(folder)}"
                )
    return folders
