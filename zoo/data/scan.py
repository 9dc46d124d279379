"""Files to a checked manifest: what can be trained on, what cannot and why. Nothing in the folder is changed."""

import hashlib
import io
import os
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
COLUMNS = ["path", "label", "split", "status", "reason", "format", "width", "height", "bytes", "sha256"]


@dataclass(frozen=True)
class Manifest:
    """A row a file, with its status and the reason for it.

    Args:
        table: Columns path (relative to the source), label, split ("" where the source gives none), status
            ("usable", "unreadable", "not a picture", "too large"), reason, format, width and height in pixels, bytes,
            sha256.
        hidden: How many hidden files and folders were passed over.
        empty: Class folders without a single file.
    """

    table: pd.DataFrame
    hidden: int = 0
    empty: list[str] = field(default_factory=list)

    @property
    def usable(self) -> pd.DataFrame:
        """The rows that can be trained on."""
        return self.table.loc[self.table.status == "usable"]

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
    found, hidden, empty = _class_files(root)
    if not found:
        raise ValueError(
            f"No pictures were found in {root}. It must hold one folder a class, with pictures in each, "
            "or train/ and val/ folders laid out so."
        )
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size check says it better
        facts = list(track(pool.map(inspect, [path for path, _, _ in found]), "Looking at files", len(found)))
    rows = [
        {"path": path.relative_to(root).as_posix(), "label": label, "split": split, **fact}
        for (path, label, split), fact in zip(found, facts, strict=True)
    ]
    return Manifest(pd.DataFrame(rows, columns=COLUMNS), hidden, empty)


def inspect(path: Path) -> dict:
    """Everything the manifest says of one file, found without keeping its pixels."""
    facts = {"status": "usable", "reason": "", "format": "", "width": 0, "height": 0, "bytes": 0, "sha256": ""}
    try:
        data = path.read_bytes()
    except OSError as error:
        return {**facts, "status": "unreadable", "reason": error.strerror or str(error)}
    facts |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return facts | check(data)


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
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, OverflowError, MemoryError) as error:
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
            inside = _walk(path)[0]
            if not inside:
                raise ValueError(f"The folder {path} holds no files.")
            paths += inside
        elif path.exists():
            paths.append(path)
        else:
            raise FileNotFoundError(f"There is no file {path}.")
    return paths


def natural(names: Sequence[str]) -> list[str]:
    """Names in order: by value where all are whole numbers, by letters otherwise."""
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def _class_files(root: Path):
    """Every (file, label, split) below `root`, the number of hidden entries, and the class folders that are empty."""
    folders, _, hidden = _entries(root)
    given = {folder.name.lower() for folder in folders}
    by_split = "train" in {SPLIT_FOLDERS.get(name) for name in given} and given <= set(SPLIT_FOLDERS)
    tops = [(folder, SPLIT_FOLDERS[folder.name.lower()]) for folder in folders] if by_split else [(root, "")]
    found, empty = [], []
    for top, split in tops:
        for folder in _entries(top)[0]:
            files, passed_over = _walk(folder)
            hidden += passed_over
            found += [(path, folder.name, split) for path in files]
            if not files:
                empty.append(folder.relative_to(root).as_posix())
    return found, hidden, empty


def _walk(folder: Path) -> tuple[list[Path], int]:
    """All visible files below a folder, in a fixed order, and how many entries were passed over."""
    folders, files, hidden = _entries(folder)
    for inner in folders:
        more, passed_over = _walk(inner)
        files += more
        hidden += passed_over
    return files, hidden


def _entries(folder: Path) -> tuple[list[Path], list[Path], int]:
    """The visible folders and files directly in a folder, by name, and how many entries were passed over."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    shown = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in IGNORED]
    folders = [Path(entry.path) for entry in shown if entry.is_dir(follow_symlinks=False)]
    files = [Path(entry.path) for entry in shown if entry.is_file()]
    return folders, files, len(entries) - len(shown)


def _too_large(size: str) -> dict:
    return {"status": "too large", "reason": f"{size}; the limit is {MOST_PIXELS // 10**6} million pixels"}
