"""Where a search works, and who works for it: its folder, one search in it at a time, and the processes."""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

from callbacks import locking
from callbacks.locking import InUse
from tuning import journal
from tuning.executor import WorkerPool
from zoo.files import make_folder, new_folder, shown

REFERENCE, TRIALS, LOGS = "reference", "trials", "workers"  # folders within it


def folder_of(directory: str | os.PathLike | None, *, what: str, resume: bool) -> Path:
    """The folder that was named, or the first free runs/WHAT-N.

    Args:
        directory: The folder, or None.
        what: Is done there, in a word.
        resume: Whether the folder may hold one already.

    Raises:
        ValueError: If it holds something else, or one that is not to be gone on with.
    """
    if directory is None:
        return new_folder(Path("runs").resolve(), what)
    folder = Path(directory).resolve()
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or (there and journal.NAME not in there and not _barely_begun(there)):
        raise ValueError(f"{shown(folder)} exists and holds no {what}. Choose another directory.")
    if not resume and journal.NAME in there:
        raise ValueError(f"{shown(folder)} holds a {what} already, and resume=False. Choose another directory.")
    return folder


def _barely_begun(there: set[str]) -> bool:
    """Whether a folder holds what is left where one ended before its journal began, and nothing else.

    A lock alone is no sign: every run has one, too.
    """
    rest = there - {REFERENCE, LOGS, *locking.FILES}
    return not there.isdisjoint(locking.FILES) and all(name.startswith(f".{REFERENCE}-") for name in rest)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps others out of a folder, those of the same process included.

    Raises:
        InUse: If somebody is in it.
    """
    lock = locking.hold(make_folder(folder))
    try:
        if lock.lock_counter > 1:
            raise InUse(f"{shown(folder)} is in use by another call in this process. Wait until it ends.")
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def hired(executor: Executor | None, workers: int | str, folder: Path) -> Iterator[Executor]:
    """What runs the trials: the executor that was handed over, or processes of our own, which end with the block."""
    if executor is not None:
        yield executor
        return
    pool = WorkerPool(workers, log_directory=make_folder(folder / LOGS))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
