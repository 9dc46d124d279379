"""Files to facts, in parallel: threads for few files, processes for many, a cache for those seen before."""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zoo.data.looking import MOST_BYTES, MOST_PIXELS, look, look_at_bytes, without_warnings
from zoo.data.manifest import FACTS
from zoo.data.scan_cache import ScanCache
from zoo.progress import track

MANY = 4000  # files, from which on processes of their own pay
LOT = 256  # files that a process is asked for in one message


def inspect_all(
    paths: Sequence[str | os.PathLike],
    *,
    most_pixels: int = MOST_PIXELS,
    most_bytes: int = MOST_BYTES,
    root: str | os.PathLike | None = None,
) -> list[dict]:
    """What `inspect` says of each file, found in parallel.

    Args:
        paths: The files.
        most_pixels: Width times height, from the header; pictures beyond it are not decoded.
        most_bytes: Files beyond it are not even read.
        root: A folder that the files lie in: what was found is kept for it (`XDG_CACHE_HOME`, else ~/.cache, in
            menagerie/scans), and files of unchanged size and time are not opened again. Nothing is kept by default.
    """
    limits = (most_pixels, most_bytes)
    cache = ScanCache(root, limits) if root is not None else None
    rows: dict[int, dict] = {}
    fresh: list[int] = []
    for i, path in enumerate(paths):
        known = cache.find(path) if cache else None
        if known is None:
            fresh.append(i)
        else:
            rows[i] = known
    try:
        found = _look_at_all([os.fspath(paths[i]) for i in fresh], limits)
        for i, facts in zip(fresh, track(found, "Looking at files", len(fresh)), strict=True):
            rows[i] = {**FACTS, **facts}
            if cache:
                cache.add(paths[i], rows[i])
    finally:
        if cache:
            cache.save()  # also what an interrupted scan has found
    return [rows[i] for i in range(len(paths))]


def inspect(path: str | os.PathLike, *, most_pixels: int = MOST_PIXELS, most_bytes: int = MOST_BYTES) -> dict:
    """Everything the manifest says of one file, found without keeping its pixels.

    Format by content, size as stored, mode, frames, EXIF orientation, bytes, sha256 and perceptual hash, as far as they
    could be found; status "usable", "unreadable", "truncated", "not an image", "too large" or "unsupported", and the
    reason.
    """
    with without_warnings():
        return {**FACTS, **look(path, most_pixels, most_bytes)}


def check(data: bytes) -> dict:
    """Whether bytes are a whole picture: status and reason, and format, width, height and the like where known."""
    with without_warnings():
        return look_at_bytes(data)


def give_back_memory() -> None:
    """Returns what was freed to the system: after many files, Arrow and glibc would keep tens of megabytes of it."""
    if (arrow := sys.modules.get("pyarrow")) is not None:  # pandas' text lies there
        arrow.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other systems have no such thing
        ctypes.CDLL(None).malloc_trim(0)


def _look_at_all(paths: list[str], limits: tuple[int, int]) -> Iterator[dict]:
    """The facts of each path, in order."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(paths) < MANY:
        with without_warnings(), ThreadPoolExecutor(count) as pool:
            yield from pool.map(lambda path: look(path, *limits), paths)
        return
    lots = [paths[start : start + LOT] for start in range(0, len(paths), LOT)]
    with without_warnings(), _Workers(limits) as workers, ThreadPoolExecutor(count) as pool:
        for found in pool.map(workers.look, lots):
            yield from found


class _Workers:
    """A process for each thread that asks. Whatever one fails at is looked at here instead."""

    def __init__(self, limits: tuple[int, int]):
        self.limits = limits
        self.mine = threading.local()
        self.processes: list[subprocess.Popen] = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()  # it holds nothing that could be lost
            process.communicate()

    def look(self, paths: list[str]) -> list[dict]:
        """The facts of each path."""
        with contextlib.suppress(OSError, ValueError):
            process = self._process()
            process.stdin.write(json.dumps(paths) + "\n")
            process.stdin.flush()
            found = json.loads(process.stdout.readline())
            if len(found) == len(paths):
                return found
        return [look(path, *self.limits) for path in paths]

    def _process(self) -> subprocess.Popen[str]:
        if not hasattr(self.mine, "process"):
            root = str(Path(__file__).parents[2])  # found again wherever the parent found it
            self.mine.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "zoo.data.looker", *map(str, self.limits)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
                text=True,
                encoding="ascii",
                start_new_session=True,  # Ctrl-C is for the parent, which then ends its workers
            )
            self.processes.append(self.mine.process)
        return self.mine.process
