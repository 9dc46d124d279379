"""Rows of fixed size on their way to disk: appended in chunks, each with its digest, so that a cut-off pass goes on.

While a view is written, `view<k>.partial` grows chunk by chunk, and `view<k>.journal` says after each chunk up to which
row the data is good, and by which digest. When all rows are there, the data takes the name `view<k>.features`, and
`view<k>.json` with every digest is written last: where that stands, the view is whole.
"""

import contextlib
import errno
import hashlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path

import ml_dtypes
import numpy as np

from zoo.files import write_json

Chunk = tuple[int, str]  # the row it ends before, and the SHA-256 of its bytes

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_JOURNAL_LINE = re.compile(rb"(\d{1,18}) ([0-9a-f]{64})\n")
_BLOCK = 4 * 2**20  # bytes hashed at a time


class NoRoom(OSError):
    """The features do not fit: into the limit of the cache, or onto the disk."""


@dataclass(frozen=True)
class Record:
    """Layout of one row: (shape, dtype name) of each of its tensors, which lie one behind the other without gaps."""

    tensors: tuple[tuple[tuple[int, ...], str], ...]

    @cached_property
    def dtypes(self) -> list[np.dtype]:
        """NumPy's types, and those that it leaves to ml_dtypes, such as bfloat16."""
        return [np.dtype(getattr(ml_dtypes, name, name)) for _, name in self.tensors]

    @cached_property
    def widths(self) -> list[int]:
        """Bytes of each tensor."""
        return [math.prod(shape) * dtype.itemsize for (shape, _), dtype in zip(self.tensors, self.dtypes, strict=True)]

    @cached_property
    def bytes(self) -> int:
        """Bytes of one row."""
        return sum(self.widths)

    def packed(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Arrays (m, *shape), one a tensor -> m records as bytes, (m * self.bytes,).

        Raises:
            ValueError: If the arrays have other shapes or dtypes than the record.
        """
        m = len(arrays[0]) if arrays else 0
        expected = [((m, *shape), name) for shape, name in self.tensors]
        received = [(array.shape, array.dtype.name) for array in arrays]
        if received != expected:
            raise ValueError(f"`arrays` must hold one array a tensor: {expected}. Received: {received}")
        fields = [as_bytes(array).reshape(m, width) for array, width in zip(arrays, self.widths, strict=True)]
        return np.concatenate(fields, axis=1).reshape(-1)

    def empty(self, m: int) -> list[np.ndarray]:
        """Arrays (m, *shape), one a tensor, to be filled."""
        return [np.empty((m, *shape), dtype) for (shape, _), dtype in zip(self.tensors, self.dtypes, strict=True)]


class Writer:
    """Appends rows to one view; `Views.writing` makes it.

    Attributes:
        rows: Rows that are safely there: at first those of an earlier pass that was cut off, then each appended one.
    """

    def __init__(self, folder: Path, view: int, record: Record, total: int):
        self.rows = 0
        self._path = folder / f"view{view}"
        self._record = record
        self._total = total
        with contextlib.suppress(FileNotFoundError):  # a finish that was cut off before its last step
            os.replace(self._path.with_suffix(".features"), self._path.with_suffix(".partial"))
        # without buffers, so that a chunk has left this process before its line in the journal is written
        self._data = open(self._path.with_suffix(".partial"), "a+b", buffering=0)
        self._journal = open(self._path.with_suffix(".journal"), "a+b", buffering=0)
        noted = list(_noted(self._journal, total))
        good = sound(self._data.fileno(), [chunk for chunk, _ in noted], record.bytes)
        self._chunks = [chunk for chunk, _ in noted[:good]]
        self.rows = self._chunks[-1][0] if good else 0
        self._data.truncate(self.rows * record.bytes)
        self._journal.truncate(noted[good - 1][1] if good else 0)

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """Writes the next rows as one chunk.

        Args:
            arrays: One array a tensor, (m, *shape) and of the record's dtype.

        Raises:
            ValueError: If the arrays do not fit the record, or hold more rows than are left.
            NoRoom: If the disk is full. Let it leave the `writing` block, which then removes what is unfinished.
            OSError: If the disk refuses for another reason; what was written before can be gone on with.
        """
        data = self._record.packed(arrays).data
        m = len(arrays[0])
        if m > self._total - self.rows:
            raise ValueError(f"`arrays` may hold the {self._total - self.rows} rows that are left. Received: {m} rows")
        if not m:
            return
        chunk = self.rows + m, hashlib.sha256(data).hexdigest()
        with refusals(self._path.parent, self._progress()):
            _write(self._data, data)
            _write(self._journal, memoryview(b"%d %s\n" % (chunk[0], chunk[1].encode())))
        self._chunks.append(chunk)
        self.rows += m

    def finish(self) -> None:
        """Makes the view whole, once all rows are there.

        Raises:
            ValueError: If rows are missing.
            OSError: As in `append`.
        """
        if self.rows != self._total:
            raise ValueError(f"A view is finished once all its {self._total} rows are there. Received: {self.rows}")
        with refusals(self._path.parent, self._progress()):
            os.fsync(self._data.fileno())
            os.replace(self._path.with_suffix(".partial"), self._path.with_suffix(".features"))
            write_json(self._path.with_suffix(".json"), {"chunks": self._chunks})
        self._path.with_suffix(".journal").unlink()
        self.close()

    def close(self) -> None:
        self._data.close()
        self._journal.close()

    def _progress(self) -> str:
        return f"after {size(self.rows * self._record.bytes)} of {size(self._total * self._record.bytes)}"


def sound(file: int, chunks: Sequence[Chunk], width: int) -> int:
    """How many of the first chunks are what their digests say.

    Threads share the work, since hashing leaves Python's lock: 1.8 GB/s a core with SHA instructions.

    Args:
        file: Descriptor of the data.
        chunks: In row order.
        width: Bytes of a row.
    """
    starts = [0, *(end for end, _ in chunks[:-1])]
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        digests = pool.map(lambda start, chunk: _digest(file, start * width, chunk[0] * width), starts, chunks)
        for i, (digest, chunk) in enumerate(zip(digests, chunks, strict=False)):
            if digest != chunk[1]:
                return i
        return len(chunks)
    finally:
        pool.shutdown(cancel_futures=True)


def as_bytes(array: np.ndarray) -> np.ndarray:
    """An array's bytes, (array.nbytes,): the same memory where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def size(count: int) -> str:
    """Bytes as people read them."""
    unit, name = next(
        (unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")) if count >= unit or unit == 1e3
    )
    return f"{count / unit:.1f} {name}"


@contextlib.contextmanager
def refusals(folder: Path, when: str) -> Iterator[None]:
    """Puts what the disk refuses into one sentence; a full one is `NoRoom`."""
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # a sentence already
            raise
        if error.errno in DISK_FULL:
            raise NoRoom(
                f"The features cannot be kept: the disk of {str(folder)!r} took no more {when} ({error.strerror}). "
                "Free some space on it, clear the feature cache, or pass another `directory`."
            ) from error
        raise OSError(
            f"The features cannot be kept: writing to {str(folder)!r} failed {when} ({error.strerror}). "
            "Start again to go on from there, or pass another `directory`."
        ) from error


def _write(file: FileIO, data: memoryview) -> None:
    """All of it: a disk that is nearly full takes a part and refuses the rest at the next call."""
    while data:
        data = data[file.write(data) :]


def _noted(journal: FileIO, total: int) -> Iterator[tuple[Chunk, int]]:
    """Chunks of a journal and where their lines end, up to the first line that is not one."""
    journal.seek(0)
    row = place = 0
    for line in journal.read().splitlines(keepends=True):
        match = _JOURNAL_LINE.fullmatch(line)
        if not match or not row < int(match[1]) <= total:
            return
        row = int(match[1])
        place += len(line)
        yield (row, match[2].decode()), place


def _digest(file: int, start: int, end: int) -> str | None:
    """SHA-256 of the bytes from `start` to `end`; None where the disk does not give them."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(_BLOCK, end - start)))
    while start < end:
        try:
            count = os.preadv(file, [buffer[: end - start]], start)
        except OSError:
            return None
        if not count:
            return None
        digest.update(buffer[:count])
        start += count
    return digest.hexdigest()
