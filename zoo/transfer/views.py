"""One entry of the feature cache: its views, verified before they are read, and held while they are written."""

import contextlib
import json
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from zoo.files import make_folder, write_json
from zoo.transfer.writer import DISK_FULL, Chunk, NoRoom, Record, Writer, as_bytes, refusals, sound

FORMAT = 1
DESCRIPTION = "entry.json"
_OURS = re.compile(r"entry\.json|view\d+\.(features|json|partial|journal)|\.(entry|view\d+)-\d+\.tmp\.json")


class Views:
    """One entry of the cache; `Store.entry` makes it.

    Attributes:
        folder: Where its files are.
        record: Layout of a row.
        rows: Rows of each view.
        repaired: A sentence for each damage that was found and removed, so that it is computed again.
    """

    def __init__(
        self,
        folder: Path,
        lock: FileLock,
        record: Record,
        rows: int,
        about: dict,
        make_room: Callable[[int], None],
    ):
        self.folder = folder
        self.record = record
        self.rows = rows
        self.repaired: list[str] = []
        self._lock = lock
        self._make_room = make_room
        tensors = [{"shape": list(shape), "dtype": dtype} for shape, dtype in record.tensors]
        self._layout = {"format": FORMAT, "rows": rows, "tensors": tensors}
        self._about = about
        self._files: dict[int, int] = {}  # descriptors of the views that are whole and verified
        self._verifying = threading.Lock()
        weakref.finalize(self, _close, self._files)
        if self._misfit():
            with self._held() as held:
                if held:
                    self._settle()
        self.touch()

    def whole(self, view: int) -> bool:
        """Whether a view is complete and every byte of it is what was written; a damaged one is removed.

        It is read through once. From then on it can be read here, even if the cache drops it meanwhile.
        """
        if view in self._files:
            return True
        with self._verifying:
            if view not in self._files and not self._misfit() and self._fault(view):
                with self._held() as held:
                    fault = self._fault(view) if held else None  # again: somebody may just have mended it
                    if fault:
                        self._remove(f"view{view}.features", f"view{view}.json")
                        self.repaired.append(fault)
            return view in self._files

    @contextlib.contextmanager
    def writing(
        self, views: Sequence[int], *, on_wait: Callable[[], None] | None = None
    ) -> Iterator[dict[int, Writer]]:
        """Holds the entry for this thread and gives a writer for each view that is not whole by then.

        Room is made before the first byte is written. Whatever cuts the block short, what was appended is there the
        next time; only where the limit or the disk is too small, what is unfinished is removed.

        Args:
            views: Numbers of the views that are wanted.
            on_wait: Called once if another process writes the entry and has to be waited for.

        Raises:
            NoRoom: If the features fit neither into the limit of the cache nor onto the disk.
            OSError: If the folder cannot be written.
        """
        with self._held(wait=on_wait or (lambda: None)):
            self._settle()
            missing = [view for view in sorted(set(views)) if not self.whole(view)]
            writers = {}
            try:
                if missing:
                    with refusals(self.folder, "at the start"):
                        self._begin()
                        for view in missing:
                            writers[view] = Writer(self.folder, view, self.record, self.rows)
                    self._make_room(sum(self.rows - writer.rows for writer in writers.values()) * self.record.bytes)
                yield writers
            except OSError as error:
                if isinstance(error, NoRoom) or error.errno in DISK_FULL:
                    self._remove_unfinished()  # it would fill the disk and help nobody
                raise
            finally:
                for writer in writers.values():
                    writer.close()
                self.touch()

    def read(self, view: int, rows: np.ndarray) -> list[np.ndarray]:
        """Rows of a whole view, in the order asked for; several threads may read at once.

        The file is read, not mapped: mapped pages count as this process's memory, and a file that is cut short
        under a mapping kills the process.

        Args:
            view: Number of a view that is whole.
            rows: Row numbers, integers (m,).

        Returns:
            One array a tensor, (m, *shape).

        Raises:
            ValueError: If the view is not whole, or a row lies outside it.
            OSError: If the disk does not give the bytes back.
        """
        if not self.whole(view):
            raise ValueError(f"`view` must be one that is whole. Received: view={view}")
        rows = np.asarray(rows)
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not np.all((rows >= 0) & (rows < self.rows)):
            raise ValueError(f"`rows` must be integers (m,) below {self.rows}. Received: rows={rows}")
        arrays = self.record.empty(len(rows))
        fields = [(as_bytes(array).data, width) for array, width in zip(arrays, self.record.widths, strict=True)]
        file, row_bytes = self._files[view], self.record.bytes
        for i, row in enumerate(rows.tolist()):
            places = [field[i * width : (i + 1) * width] for field, width in fields]
            if os.preadv(file, places, row * row_bytes) != row_bytes:
                raise OSError(f"View {view} in {str(self.folder)!r} was cut short while it was read. Start again.")
        return arrays

    @property
    def seconds_per_row(self) -> float | None:
        """What a row cost when it was computed; None where that is not known."""
        return (read_description(self.folder) or {}).get("seconds_per_row")

    def set_seconds_per_row(self, seconds: float) -> None:
        """Notes what a row cost; nothing is noted where the entry has gone meanwhile."""
        description = read_description(self.folder)
        if description:
            write_json(self.folder / DESCRIPTION, {**description, "seconds_per_row": float(seconds)})

    def touch(self) -> None:
        """Notes that the entry is used now, so that the cache drops others first."""
        with contextlib.suppress(OSError):  # it may have gone, or be another user's
            os.utime(self.folder / DESCRIPTION)

    @contextlib.contextmanager
    def _held(self, wait: Callable[[], None] | None = None) -> Iterator[bool]:
        """Holds the entry's lock; where another process has it, calls `wait` and waits, or gives False without one."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            if wait is None:
                yield False
                return
            wait()
            self._lock.acquire(poll_interval=0.1)
        try:
            yield True
        finally:
            self._lock.release()

    def _begin(self) -> None:
        make_folder(self.folder)
        if read_description(self.folder) is None:
            write_json(self.folder / DESCRIPTION, {**self._layout, "about": self._about, "seconds_per_row": None})

    def _misfit(self) -> str | None:
        """Why the entry on disk is not this one; None where it is, or where there is none."""
        description = read_description(self.folder)
        if description is None:
            there = any(not name.startswith(".") for name in file_sizes(self.folder))  # more than a begun description
            return f"{DESCRIPTION} cannot be read, or is of another format" if there else None
        fits = all(description[name] == value for name, value in self._layout.items())
        return None if fits else "it holds other rows or other tensors"

    def _settle(self) -> None:
        """Removes the entry where it is not this one; the lock is held."""
        misfit = self._misfit()
        if misfit:
            remove_entry(self.folder)
            self.repaired.append(f"The features in {str(self.folder)!r} were removed: {misfit}.")

    def _fault(self, view: int) -> str | None:
        """Opens a view if it is whole. What is wrong with it, or None where it is whole or not there."""
        try:
            seal = (self.folder / f"view{view}.json").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            chunks = _chunks(json.loads(seal), self.rows)
            file = os.open(self.folder / f"view{view}.features", os.O_RDONLY)
        except (OSError, ValueError) as error:
            return self._damage(view, error)
        try:
            if os.fstat(file).st_size != self.rows * self.record.bytes:
                raise ValueError("its length is wrong")
            if sound(file, chunks, self.record.bytes) < len(chunks):
                raise ValueError("its bytes have changed")
        except (OSError, ValueError) as error:
            os.close(file)
            return self._damage(view, error)
        self._files[view] = file
        return None

    def _damage(self, view: int, error: Exception) -> str:
        reason = error.strerror if isinstance(error, OSError) else error
        return f"View {view} in {str(self.folder)!r} was removed: {reason}."

    def _remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def _remove_unfinished(self) -> None:
        names = set(file_sizes(self.folder)) - {DESCRIPTION}
        finished = {name for name in names if name.split(".")[0] + ".json" in names}
        self._remove(*(names - finished))
        if not finished:
            remove_entry(self.folder)


def read_description(folder: Path) -> dict | None:
    """What entry.json says, or None where it is not there or says nothing that this version understands."""
    try:
        description = json.loads((folder / DESCRIPTION).read_bytes())
        seconds = description["seconds_per_row"]
        record_of(description).bytes  # noqa: B018 - raises where a type is unknown
        known = description["format"] == FORMAT and isinstance(description["about"], dict)
        return description if known and description["rows"] >= 0 and (seconds is None or seconds >= 0) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def record_of(description: dict) -> Record:
    """The layout of a row, from an entry's description."""
    return Record(tuple((tuple(tensor["shape"]), tensor["dtype"]) for tensor in description["tensors"]))


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file in an entry's folder that is ours."""
    sizes = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(folder):
            if _OURS.fullmatch(name):
                with contextlib.suppress(FileNotFoundError):  # renamed or removed meanwhile
                    sizes[name] = (folder / name).stat().st_size
    return sizes


def remove_entry(folder: Path) -> int:
    """Removes an entry's files, and its folder where nothing else is in it; returns the bytes that were freed.

    The data goes first: a kill then leaves none that a later writer would take up under somebody who still reads it.
    """
    sizes = file_sizes(folder)
    for name in sorted(sizes, key=lambda name: not name.endswith(".features")):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody else's file is in it
        folder.rmdir()
    return sum(sizes.values())


def _chunks(seal: object, rows: int) -> list[Chunk]:
    """The chunks that a view's JSON names.

    Raises:
        ValueError: If it names none, or others than those of `rows` rows.
    """
    try:
        chunks = [(int(end), str(digest)) for end, digest in seal["chunks"]]  # type: ignore[index]
    except (TypeError, KeyError):
        raise ValueError("its list of digests cannot be read") from None
    ends = [0, *(end for end, _ in chunks)]
    if ends[-1] != rows or any(a >= b for a, b in zip(ends, ends[1:], strict=False)):
        raise ValueError("its digests are those of other rows")
    return chunks


def _close(files: dict[int, int]) -> None:
    for file in files.values():
        os.close(file)
