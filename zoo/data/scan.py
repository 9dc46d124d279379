"""Files to a checked manifest: what can be trained on, what cannot and why. Nothing in the folder is changed."""

import hashlib
import io
import os
import unicodedata
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from PIL import Image, UnidentifiedImageError

from zoo.progress import track

MOST_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs: a quarter of a gigabyte as RGB
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
}
IGNORED = {"__macosx", "thumbs.db", "desktop.ini"}
HIDDEN = "hidden"  # not worth a line each
FACTS = {"status": "usable", "reason": "", "format": "", "width": 0, "height": 0, "bytes": 0, "sha256": ""}
LOOSE = {
    **FACTS,
    "label": "",
    "split": "",
    "status": "in no class folder",
    "reason": "a picture's label is the folder that it lies in",
}
COLUMNS = ["path", "label", "split", "status", "reason", "format", "width", "height", "bytes", "sha256"]


@dataclass(frozen=True)
class Manifest:
    """A row a file, with its status and the reason for it.

    Args:
        table: Columns path (relative to the source), label, split ("" where the source gives none), status
            ("usable", "unreadable", "not a picture", "too large", "in no class folder", "unlabelled"), reason, format,
            width and height in pixels, bytes, sha256.
        notes: What was passed over without a look: a line each, "hidden" for hidden files and folders.
        empty: Class folders without a single file.
    """

    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    @property
    def usable(self) -> pd.DataFrame:
        """The rows that can be trained on."""
        return self.table.loc[self.table.status == "usable"]

    @property
    def hidden(self) -> int:
        """How many hidden files and folders were passed over."""
        return self.notes.count(HIDDEN)

    @property
    def troubles(self) -> pd.DataFrame:
        """The rows that cannot."""
        return self.table.loc[self.table.status != "usable"]

    def trouble_lines(self, most: int = 20) -> list[str]:
        """One line a trouble, for people; behind the first `most`, how many more there are."""
        rows = self.troubles
        lines = [
            f"{path}: {status} ({reason})"
            for path, status, reason in zip(rows.path, rows.status, rows.reason, strict=True)
        ]
        lines[most:] = [f"... and {len(lines) - most} more files, named in the manifest"] if len(lines) > most else []
        lines += [f"{name}: class folder without a picture" for name in self.empty]
        lines += [note for note in self.notes if note != HIDDEN]
        if self.hidden:
            lines.append(f"{self.hidden} hidden files or folders passed over")
        return lines

    def to_csv(self, path: str | os.PathLike) -> None:
        """Writes the table as CSV."""
        self.table.to_csv(path, index=False)

    def __str__(self):
        usable = self.usable
        lines = [f"{len(usable)} usable pictures of {len(self.table)} files"]
        lines += [f"  {label}: {count}" for label, count in usable.label.value_counts(sort=False).items()]
        if len(usable):
            lines.append(
                f"  sizes {usable.width.min()}x{usable.height.min()} to {usable.width.max()}x{usable.height.max()}"
            )
        return "\n".join([*lines, *(f"  {line}" for line in self.trouble_lines())])


def scan(folder: str | os.PathLike) -> Manifest:
    """Looks at every file of a folder of pictures and says which can be used.

    The folder holds one folder a class, or `train/`, `val/` (or `valid/`, `validation/`, `dev/`) and perhaps `test/`,
    each with one folder a class. What a file holds decides, not its extension. Hidden files are passed over.

    Returns:
        A manifest; print it for a summary.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no class folders, or no files in them.

    Example:
        print(zoo.scan("photos"))
    """
    root = Path(folder)
    if not root.exists():
        raise FileNotFoundError(f"There is no folder {root}.")
    if not root.is_dir():
        raise ValueError(f"`{root}` is a file. A folder with one folder a class is wanted.")
    found, loose, empty, notes = _class_files(root)
    if not found:
        raise ValueError(
            f"No pictures were found in {root}. It must hold one folder a class, with pictures in each, "
            "or train/ and val/ folders laid out so." + (f" {len(loose)} files lie in no such folder." if loose else "")
        )
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size check says it better
        facts = list(track(pool.map(inspect, [path for path, _, _ in found]), "Looking at files", len(found)))
    rows = [
        {"path": _text(path, root), "label": _text(root / label, root), "split": split, **fact}
        for (path, label, split), fact in zip(found, facts, strict=True)
    ]
    rows += [{**LOOSE, "path": _text(path, root)} for path in loose]
    return Manifest(pd.DataFrame(rows, columns=COLUMNS), notes, empty)


def inspect(path: Path) -> dict:
    """Everything the manifest says of one file, found without keeping its pixels."""
    try:
        str(path).encode()
        data = path.read_bytes()
    except OSError as error:
        return {**FACTS, "status": "unreadable", "reason": error.strerror or str(error)}
    except UnicodeEncodeError:
        return {**FACTS, "status": "unreadable", "reason": "its path is not UTF-8; rename it"}
    return {**FACTS, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **check(data)}


def check(data: bytes) -> dict:
    """Whether bytes are a whole picture: status and reason, and format, width, height where known."""
    if not data:
        return {"status": "unreadable", "reason": "the file is empty"}
    try:
        with Image.open(io.BytesIO(data)) as image:
            facts = {"format": str(image.format), "width": image.width, "height": image.height}
            if image.width * image.height > MOST_PIXELS:
                return facts | _too_large(f"{image.width}x{image.height} pixels")
            image.draft("L", (image.width // 8, image.height // 8))  # JPEG: every byte is read, few pixels are made
            image.load()
    except UnidentifiedImageError:
        return {"status": "not a picture", "reason": "no picture format known to Pillow"}
    except Image.DecompressionBombError:
        return _too_large("more than twice the limit")
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        return {"status": "unreadable", "reason": str(error) or type(error).__name__}
    return facts | {"status": "usable", "reason": ""}


def picture_paths(source) -> list[Path]:
    """The files meant by a path, a list of paths, or a folder with everything below it.

    Raises:
        FileNotFoundError: If one of them does not exist; the message names it.
        ValueError: If a folder holds no files.
    """
    paths = []
    for item in [source] if isinstance(source, (str, os.PathLike)) else source:
        path = Path(item)
        if path.is_dir():
            inside = _walk(path, path)[0]
            if not inside:
                raise ValueError(f"The folder {path} holds no files.")
            paths += inside
        elif path.exists():
            paths.append(path)
        else:
            raise FileNotFoundError(f"There is no file {path}.")
    return paths


def refused_name(name: str) -> bool:
    """Whether a class name cannot stand on a line of its own, as labels must in exports."""
    return not name.strip() or any(unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs") for letter in name)


def natural(names: Sequence[str]) -> list[str]:
    """Names in order: by value where all are whole numbers, by letters otherwise."""
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def _class_files(root: Path) -> tuple[list[tuple[Path, str, str]], list[Path], list[str], list[str]]:
    """Every (file, label, split) below `root`; files in no class folder; empty class folders; what was passed over."""
    folders, loose, notes = _entries(root, root)
    given = {SPLIT_FOLDERS.get(folder.name.lower()) for folder in folders}
    tops = [(root, "")]
    if given & {"dev", "test"} and given <= {"dev", "test"}:
        raise ValueError(
            f"{root} has folders for dev or test but none for training. Add train/, or one folder a class."
        )
    if "train" in given and (given & {"dev", "test"} or given == {"train"}):
        tops = [(folder, SPLIT_FOLDERS[folder.name.lower()]) for folder in folders if _is_split(folder)]
        notes += [
            f"{folder.name}: a folder beside the splits, passed over" for folder in folders if not _is_split(folder)
        ]
    found, empty = [], []
    for top, split in tops:
        if top != root:
            folders, more_loose, more_notes = _entries(top, root)
            loose += more_loose
            notes += more_notes
        for folder in folders:
            files, more_notes = _walk(folder, root)
            notes += more_notes
            found += [(path, folder.name, split) for path in files]
            if not files:
                empty.append(folder.relative_to(root).as_posix())
    return found, loose, empty, notes


def _is_split(folder: Path) -> bool:
    return folder.name.lower() in SPLIT_FOLDERS


def _walk(folder: Path, root: Path) -> tuple[list[Path], list[str]]:
    """All visible files below a folder, in a fixed order, and what was passed over."""
    folders, files, notes = _entries(folder, root)
    for inner in folders:
        more_files, more_notes = _walk(inner, root)
        files += more_files
        notes += more_notes
    return files, notes


def _entries(folder: Path, root: Path) -> tuple[list[Path], list[Path], list[str]]:
    """The visible folders and files directly in a folder, by name, and what was passed over."""
    folders, files, notes = [], [], []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name.lower() in IGNORED:
            notes.append(HIDDEN)
        elif entry.is_dir(follow_symlinks=False):
            folders.append(path)
        elif entry.is_file():
            files.append(path)
        else:
            what = "a link to a folder, not followed" if entry.is_dir() else "neither file nor folder"
            notes.append(f"{_text(path, root)}: {what}")
    return folders, files, notes


def _text(path: Path, root: Path) -> str:
    """A path below `root` as text that can be written; bytes that are no UTF-8 are escaped."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


def _too_large(size: str) -> dict:
    return {"status": "too large", "reason": f"{size}; the limit is {MOST_PIXELS // 10**6} million pixels"}
