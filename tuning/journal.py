"""The one file that a search lives in: events as lines of JSON, each on disk before anything follows from it."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.files import shown

NAME = "journal.jsonl"


class Journal:
    """An append-only file of events.

    Whatever kills a process leaves whole lines and at most one torn one at the end, which is dropped when the file is
    next written to: it was not acted upon.

    Args:
        folder: Where it lies; the folder exists.
    """

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self._file: int | None = None

    def events(self) -> list[dict[str, Any]]:
        """All events, in the order in which they happened; none where there is no file.

        Raises:
            ValueError: If a line that is not the last one is damaged.
        """
        return [event for _, event in self._lines()]

    def append(self, event: dict[str, Any]) -> None:
        """Adds an event, which is on disk when this returns.

        Raises:
            OSError: If it cannot be written; a part of it that was is taken back.
            ValueError: If the event is no plain JSON.
        """
        line = json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
        if self._file is None:
            self._file = self._opened()
        end = os.lseek(self._file, 0, os.SEEK_CUR)
        data = line.encode()
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except BaseException as error:  # Ctrl-C as well, after which a whole line may stay
            with contextlib.suppress(OSError):
                if isinstance(error, OSError):
                    os.ftruncate(self._file, end)
            with contextlib.suppress(OSError):
                self.close()  # what is half there yet is dropped when it is opened again, or nothing is added to it
            raise

    def close(self) -> None:
        """Closes the file; the next event opens it again."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _opened(self) -> int:
        """The file, behind its last whole line."""
        end = max((end for end, _ in self._lines()), default=0)
        new = not self.path.exists()
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.ftruncate(file, end)
        except OSError:
            os.close(file)
            raise
        os.lseek(file, end, os.SEEK_SET)
        if new:  # a file's name is part of its folder
            folder = os.open(self.path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        return file

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each event with the position in the file behind it."""
        if not self.path.exists():
            return
        end = 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            end += len(line)
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("it has no end")
                event = json.loads(line)
                if not isinstance(event, dict) or "event" not in event:
                    raise ValueError("it is no event")
            except ValueError as error:
                if number == len(lines):
                    return
                raise ValueError(
                    f"Line {number} of {shown(self.path)} is damaged, so the search cannot be used ({error}). Start it "
                    "in another directory."
                ) from None
            yield end, event
