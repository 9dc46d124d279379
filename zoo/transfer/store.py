"""The feature cache on disk: one folder with a limit, in which each entry holds the outputs of a frozen network.

An entry is the folder `<directory>/<key>/`:

    entry.json          what it holds; its date says when it was used last
    view<k>.features    the rows, one behind the other, each all tensors of one picture
    view<k>.json        a digest for every chunk of rows, written last
    view<k>.partial     a view that is being written, and
    view<k>.journal     how far it is good

Locks live beside the entries, in `.locks`, and are never removed: a lock file that went with its entry would leave two
processes holding two files of one name.
"""

import math
import os
import re
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from zoo.files import cache_folder, make_folder
from zoo.transfer.views import DESCRIPTION, Views, file_sizes, read_description, record_of, remove_entry
from zoo.transfer.writer import NoRoom, Record, size

__all__ = ["Entry", "NoRoom", "Record", "Store", "Views", "default_directory", "default_limit"]

_KEY = re.compile("[0-9a-f]{8,128}")
_LIMIT = "MENAGERIE_CACHE_GB"


def default_directory() -> Path:
    """Where features are kept: $XDG_CACHE_HOME/menagerie/features, or below ~/.cache."""
    return cache_folder("features")


def default_limit() -> int:
    """Bytes that the cache may hold: $MENAGERIE_CACHE_GB gigabytes, 10 where it is not set.

    Raises:
        ValueError: If the variable is not a number, or a negative one.
    """
    text = os.environ.get(_LIMIT) or "10"
    try:
        return _checked_limit(int(float(text) * 1e9))
    except (ValueError, OverflowError):
        raise ValueError(
            f"The environment variable {_LIMIT} must be a number of gigabytes, 0 or more. Received: {text!r}"
        ) from None


@dataclass(frozen=True)
class Entry:
    """What the cache holds under one key.

    Attributes:
        key: Name of its folder.
        about: The facts that its maker gave.
        rows: Rows of each view.
        views: Numbers of the views that are complete.
        bytes: On disk, what is unfinished included.
        claimed: The same with every view that was begun counted in full.
        used: When it was used last.
    """

    key: str
    about: dict
    rows: int
    views: tuple[int, ...]
    bytes: int
    claimed: int
    used: datetime


class Store:
    """A folder of features that stays within a limit by dropping what was not used for longest.

    Args:
        directory: The folder, made where it is missing; None gives `default_directory()`.
        limit: Bytes; None gives `default_limit()`.

    Raises:
        OSError: If the folder cannot be made or written.
        ValueError: If the limit is negative.
    """

    def __init__(self, directory: str | os.PathLike | None = None, limit: int | None = None):
        self.limit = default_limit() if limit is None else _checked_limit(limit)
        self.directory = make_folder(default_directory() if directory is None else Path(directory).absolute())
        self._locks = make_folder(self.directory / ".locks")

    def entries(self) -> list[Entry]:
        """What is there, most recently used first."""
        found = [_entry(path) for path in self.directory.iterdir() if _KEY.fullmatch(path.name)]
        return sorted((entry for entry in found if entry), key=lambda entry: entry.used, reverse=True)

    def clear(self) -> int:
        """Removes every entry that nobody is writing and returns the bytes that were freed.

        Files that are not the cache's own stay.
        """
        return sum(self._drop(entry.key) or 0 for entry in self.entries())

    def entry(self, key: str, record: Record, rows: int, about: dict) -> Views:
        """Opens an entry, which need not be there yet; one that holds other rows or tensors is removed.

        Args:
            key: 8 to 128 hexadecimal digits, made from all that the features depend on except the view's number.
            record: Layout of a row.
            rows: Rows of each view.
            about: Plain facts for `entries`, such as the model's name; they decide nothing.

        Raises:
            ValueError: If the key is not hexadecimal.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"`key` must be 8 to 128 hexadecimal digits in lower case. Received: key={key!r}")
        return Views(
            self.directory / key,
            self._lock(key),
            record,
            rows,
            about,
            make_room=lambda needed: self.make_room(needed, keep=key),
        )

    def make_room(self, needed: int, *, keep: str) -> None:
        """Drops the least recently used entries until `needed` more bytes fit into the limit and onto the disk.

        What other processes are writing stays, and is counted at the size that it will have.

        Args:
            needed: Bytes that are about to be written.
            keep: Key of the entry that they are for.

        Raises:
            NoRoom: If they do not fit.
        """
        with self._lock("room"):
            entries = self.entries()
            own = sum(entry.bytes for entry in entries if entry.key == keep)
            others = [entry for entry in entries if entry.key != keep]
            free = shutil.disk_usage(self.directory).free
            if own + needed > self.limit:
                raise self._over_limit(own + needed, 0)
            if needed > free + sum(entry.bytes for entry in others):
                raise self._disk_full(needed, free)
            for oldest in others[::-1]:
                if not self._lacks(own + needed, needed, others):
                    return
                if self._drop(oldest.key) is not None:
                    others.remove(oldest)
            lack = self._lacks(own + needed, needed, others)
            if lack:
                raise lack

    def _lacks(self, total: int, needed: int, others: list[Entry]) -> NoRoom | None:
        """What is still in the way of `needed` bytes, beside the other entries that are left."""
        claimed = sum(entry.claimed for entry in others)
        if total + claimed > self.limit:
            return self._over_limit(total, claimed)
        free = shutil.disk_usage(self.directory).free - sum(entry.claimed - entry.bytes for entry in others)
        return self._disk_full(needed, free) if needed > free else None

    def _over_limit(self, total: int, claimed: int) -> NoRoom:
        busy = f", {size(claimed)} of which others are writing" if claimed else ""
        return NoRoom(
            f"The features need {size(total)}, and the cache in {str(self.directory)!r} may hold "
            f"{size(self.limit)}{busy}. "
            f"Set the environment variable {_LIMIT} to {math.ceil((total + claimed) / 1e9)} (gigabytes) or more."
        )

    def _disk_full(self, needed: int, free: int) -> NoRoom:
        return NoRoom(
            f"The features need {size(needed)}, and the disk of {str(self.directory)!r} has {size(max(free, 0))} free. "
            "Free some space on it, clear the feature cache, or pass another `directory`."
        )

    def _drop(self, key: str) -> int | None:
        """Removes an entry unless somebody is writing it; the bytes freed, or None where it stays."""
        lock = self._lock(key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        try:
            return remove_entry(self.directory / key)
        finally:
            lock.release()

    def _lock(self, name: str) -> FileLock:
        return FileLock(self._locks / f"{name}.lock")


def _entry(folder: Path) -> Entry | None:
    sizes = file_sizes(folder)
    if not sizes:
        return None
    description = read_description(folder)
    try:
        used = ((folder / DESCRIPTION) if DESCRIPTION in sizes else folder).stat().st_mtime
    except FileNotFoundError:  # removed meanwhile
        return None
    total = sum(sizes.values())
    when = datetime.fromtimestamp(used).astimezone()
    if description is None:
        return Entry(folder.name, {}, 0, (), total, total, when)
    view_bytes = description["rows"] * record_of(description).bytes
    numbers = sorted(int(name[4:-5]) for name in sizes if name.startswith("view") and name.endswith(".json"))
    whole = tuple(view for view in numbers if sizes.get(f"view{view}.features") == view_bytes)
    claims = sum(max(0, view_bytes - count) for name, count in sizes.items() if name.endswith(".partial"))
    return Entry(folder.name, description["about"], description["rows"], whole, total, total + claims, when)


def _checked_limit(limit: int) -> int:
    if limit < 0:
        raise ValueError(f"`limit` must be a number of bytes, 0 or more. Received: limit={limit}")
    return limit
