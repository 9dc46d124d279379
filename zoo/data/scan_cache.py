"""What was found in a folder last time, so that only files that changed are opened again.

One file a folder and limits, in the user's cache folder; never in the folder itself.
"""

import contextlib
import hashlib
import json
import os
import time
import zlib

from PIL import __version__ as pillow

from zoo.files import cache_folder, write_text

VERSION = f"2 {pillow}"  # what is found depends on the reader, too
SETTLED = 2 * 10**9  # nanoseconds; a younger file may change again without a new time, on file systems that count so


class ScanCache:
    """Rows of facts by path, as long as the file, its size and its times are the same.

    Those that nobody asks for stay as long as there is something of that name.

    A cache that cannot be read, or is of another version, is an empty one; one that cannot be written is none.

    Args:
        root: The folder that the files lie in.
        limits: What the facts depend on besides the file.
    """

    def __init__(self, root: str | os.PathLike, limits: tuple[int, ...]):
        self.root = os.path.join(root, "")
        name = hashlib.sha256(os.fsencode(os.path.realpath(root)) + repr(limits).encode()).hexdigest()[:32]
        self.path = cache_folder("scans") / f"{name}.json"
        self.old = self._read()
        self.new: dict[str, list] = {}
        self.states: dict[str, list] = {}
        self.began = time.time_ns()

    def find(self, path: str | os.PathLike) -> dict | None:
        """The facts of a file where they were found in its present state; otherwise that state is noted for `add`."""
        key, state = self._key(path), _state(path)
        entry = self.old.get(key)
        if not entry or entry[0] != state:
            self.states[key] = state
            return None
        self.new[key] = entry
        return dict(zip(self.names, entry[1], strict=True))

    def add(self, path: str | os.PathLike, facts: dict) -> None:
        """Remembers the facts of a file, found after `find` was asked for it."""
        key = self._key(path)
        state = self.states[key]
        if state and facts["bytes"] == state[0] and self.began - max(state[1:3]) > SETTLED:
            self.names = list(facts)
            self.new[key] = [state, list(facts.values())]

    def save(self) -> None:
        """Writes what was found, where that is news, together with what is known of other files."""
        unasked = self.old.keys() - self.new.keys() - self.states.keys()
        kept = {
            key: self.old[key] for key in self.old if key in unasked and os.path.lexists(os.path.join(self.root, key))
        }
        if self.new | kept != self.old:
            text = json.dumps({"version": VERSION, "names": self.names, "rows": self.new | kept})
            with contextlib.suppress(OSError):
                write_text(self.path, f"{zlib.crc32(text.encode())}\n{text}")

    def _read(self) -> dict[str, list]:
        self.names: list[str] = []
        try:
            checksum, text = self.path.read_text(encoding="utf-8").split("\n")
            content = json.loads(text)
            if int(checksum) == zlib.crc32(text.encode()) and content["version"] == VERSION:
                self.names = content["names"]
                return content["rows"]
        except (OSError, ValueError):
            pass
        return {}

    def _key(self, path: str | os.PathLike) -> str:
        return os.fspath(path).removeprefix(self.root)


def _state(path: str | os.PathLike) -> list:
    """Size, times of the last change of content and of anything, and number; empty where they cannot be told."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]  # folders may have changed names
