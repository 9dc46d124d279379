"""One process at a time in a folder."""

import json
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

NAME = ".lock"
_OWNER = ".lock.json"
FILES = (NAME, _OWNER)


class InUse(OSError):
    """A folder that another process works in."""


def hold(folder: str | os.PathLike) -> FileLock:
    """Takes the lock of a folder, for as long as the process lives or until it is released.

    The process that holds it may take it again: where a `fit` ended with an error, nobody released it.

    Args:
        folder: One that is there and can be written.

    Raises:
        InUse: If another process holds it; the message names it.
        OSError: If the lock cannot be written.
    """
    folder = Path(folder)
    lock = FileLock(folder / NAME, is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InUse(f"{folder} is in use by {_owner(folder)}. Wait until it ends, or stop it.") from None
    if lock.lock_counter == 1:
        text = json.dumps({"process": os.getpid(), "host": socket.gethostname()})
        (folder / _OWNER).write_text(text, encoding="utf-8")
    return lock


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']}"
    except (OSError, ValueError, LookupError, TypeError):  # between taking the lock and signing it
        return "another process"
