"""What a report is made of: sections of blocks, each kind of which the page draws in its own way."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple


class Words(NamedTuple):
    """A paragraph; a quiet one explains. `code` are the parts of the text that are to be typed."""

    text: str
    quiet: bool = False
    code: Sequence[str] = ()
    kind = "words"


class Listing(NamedTuple):
    """Lines of equal standing."""

    lines: Sequence[str]
    kind = "listing"


class Drawing(NamedTuple):
    """An inline SVG, as `plots.svg` makes it; or a data URI in its place."""

    svg: str
    alt: str
    source: str = ""
    kind = "drawing"


class Tile(NamedTuple):
    """A figure said in large, with its name and what qualifies it."""

    name: str
    figure: str
    note: str = ""
    tone: str = ""


class Tiles(NamedTuple):
    """Figures side by side."""

    tiles: Sequence[Tile]
    kind = "tiles"


class Cell(NamedTuple):
    """A place in a table.

    Args:
        text: What is read.
        value: What its column is sorted by, NaN for nothing; None where that is the text.
        tone: "good", "warn", "bad", "quiet", or none of them.
        share: Draws a bar of that share of the column, 0 to 1.
    """

    text: str
    value: float | None = None
    tone: str = ""
    share: float | None = None

    @property
    def key(self) -> str:
        """The value as the page's script reads it."""
        return repr(float(self.value)) if self.value is not None and math.isfinite(self.value) else ""


class Table(NamedTuple):
    """Rows of cells.

    Args:
        heads: Titles of the columns.
        rows: A cell a column.
        title: Stands above.
        note: Stands below, such as how many rows are left out.
        sortable: Whether a click on a title sorts.
        stacked: On a phone the last cell of a row goes below the others, since it holds long text.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""
    sortable: bool = True
    stacked: bool = False
    kind = "table"


class Picture(NamedTuple):
    """A picture with what stands below it."""

    source: str  # data URI
    alt: str
    label: str = ""
    name: str = ""
    about: str = ""


class Gallery(NamedTuple):
    """Pictures; those of one group stand side by side."""

    groups: Sequence[Sequence[Picture]]
    kind = "gallery"


class Advice(NamedTuple):
    """One of the next steps: what to change, from what to what, why, and the call that does it."""

    title: str
    changes: Sequence[tuple[str, str, str]]
    why: str
    call: str


class Steps(NamedTuple):
    """Next steps, in order."""

    steps: Sequence[Advice]
    kind = "steps"


class Beside(NamedTuple):
    """Blocks side by side where there is room."""

    blocks: Sequence["Block"]
    kind = "beside"


Block = Words | Listing | Drawing | Tiles | Table | Gallery | Steps | Beside


class Section(NamedTuple):
    """What stands under one heading; `name` is its anchor."""

    name: str
    title: str
    blocks: Sequence[Block]


def pieces(text: str, code: Sequence[str]) -> list[str]:
    """A text in turns of words and of what is to be typed, words first and last.

    Example:
        >>> pieces("Then zoo export RUN does it.", ["zoo export RUN"])
        ['Then ', 'zoo export RUN', ' does it.']
    """
    return re.split(f"({'|'.join(map(re.escape, code))})", text) if code else [text]


def text(value, tone: str = "") -> Cell:
    """A cell of words."""
    return Cell(str(value), tone=tone)


def number(value: float | None, form: str = ",") -> Cell:
    """A cell of a figure, empty where there is none; it sorts as the number that it is."""
    missing = value is None or math.isnan(value)
    return Cell("", math.nan) if missing else Cell(format(value, form), value)
