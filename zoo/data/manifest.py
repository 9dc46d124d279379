"""A row a file: what the doctor found, what can be trained on, what cannot and why."""

import csv
import os
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from zoo.files import write_text, writing

FACTS = {  # what is said of a file whatever it is
    "status": "usable",
    "reason": "",
    "format": "",
    "width": 0,
    "height": 0,
    "mode": "",
    "frames": 0,
    "orientation": 1,
    "bytes": 0,
    "sha256": "",
    "phash": "",
    "twin": "",
}
COLUMNS = ["path", "label", "split", *FACTS]
NUMBERS = [name for name, value in FACTS.items() if isinstance(value, int)]
CONFLICT = "label conflict"
TRAINABLE = ("usable", "duplicate", "near-duplicate")  # twins stay, and stay together
PASSED_OVER = ("hidden", "link")  # nobody meant them to be pictures of their own


@dataclass(frozen=True)
class Manifest:
    """A row a file, with its status and the reason for it.

    Args:
        table: Columns path (relative to the source), label, split ("" where the source gives none), status
            ("usable", "duplicate", "near-duplicate"; left out are "unreadable", "truncated", "not an image",
            "too large", "unsupported", "label conflict", "outside the root", "in no class folder", "unlabelled";
            passed over are "hidden" and "link"), reason, format, width and height in pixels as stored, mode
            (Pillow's), frames, orientation (EXIF, 1 to 8), bytes, sha256, phash, twin (the path of the first picture
            that shows the same, on all of them; "" where there is no other); further ones of a user's table.
        notes: Folders that were passed over as a whole, a sentence each.
        empty: Class folders without a single picture.
        source: What the pictures are read from.
    """

    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    source: Any = field(default=None, repr=False, compare=False)

    @property
    def usable(self) -> pd.DataFrame:
        """The rows that can be trained on."""
        return self.table.loc[self.table.status.isin(TRAINABLE)]

    @property
    def hidden(self) -> int:
        """How many hidden files and folders were passed over."""
        return int((self.table.status == "hidden").sum())

    @property
    def troubles(self) -> pd.DataFrame:
        """The rows that cannot."""
        return self.table.loc[~self.table.status.isin((*TRAINABLE, *PASSED_OVER))]

    def trouble_lines(self, most: int = 20) -> list[str]:
        """One line a trouble, for people; where that makes more than `most`, one line a kind with examples."""
        from zoo.data import manifest_text

        return manifest_text.trouble_lines(self, most)

    def complaint(self) -> str:
        """Every file that cannot be used and every empty class folder by name, for an error; "" where there is none.

        Behind the first 200 of each, how many more there are.
        """
        from zoo.data import manifest_text

        return manifest_text.complaint(self)

    def to_csv(self, path: str | os.PathLike) -> None:
        """Writes the table as CSV; an interruption leaves the file that was there."""
        with writing(path) as temporary:
            # all text is quoted, since a name may hold a carriage return, which pandas would leave bare
            how: dict = {"quoting": csv.QUOTE_NONNUMERIC, "encoding": "utf-8", "errors": "backslashreplace"}
            self.table.to_csv(temporary, index=False, **how)

    def to_html(self, path: str | os.PathLike | None = None) -> Path | str:
        """One page about the pictures, with thumbnails of the doubtful ones; it needs no network.

        Pictures whose content changed since they were looked at, and all of them where no source is at hand, have
        placeholders instead.

        Args:
            path: The file to write. By default nothing is written.

        Returns:
            The path of the file, or the text of the page where no file was wished.

        Raises:
            OSError: If the file cannot be written; what stood there stays.
        """
        from zoo.data.manifest_page import page

        text = page(self)
        if path is None:
            return text
        write_text(path, text)
        return Path(path)

    def __str__(self):
        from zoo.data import manifest_text

        return manifest_text.screen(self)

    def _repr_html_(self):
        from zoo.data import manifest_text

        rows = [
            f"<tr><th>{escape(title)}</th><td>{'<br>'.join(escape(manifest_text.plain(line)) for line in lines)}</td>"
            for title, lines in manifest_text.sections(self)
        ]
        return f"<b>{escape(manifest_text.headline(self))}</b><table>{''.join(rows)}</table>"


def read_manifest(path: str | os.PathLike) -> pd.DataFrame:
    """A manifest written by `Manifest.to_csv`, labels as text whatever they look like.

    Columns that an earlier version did not know are filled in; further ones, of the user's table, come as text.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no manifest.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        missing = {name: str(FACTS[name]) for name in FACTS if name not in table.columns}
        table = table.assign(**missing).astype(dict.fromkeys(NUMBERS, int))
    except ValueError as error:  # no UTF-8, rows of other lengths, words for numbers
        raise ValueError(f"{path} cannot be read as a manifest: {error}. Write it with Manifest.to_csv.") from None
    if lacking := [name for name in ("path", "label", "split") if name not in table.columns]:
        raise ValueError(f"{path} is no manifest: it has no column '{lacking[0]}'. Write it with Manifest.to_csv.")
    return table
