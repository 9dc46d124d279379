"""What is said to people: paths and commands that can be typed, errors and figures in a line, rows in columns."""

import shlex
import textwrap
from pathlib import Path

from zoo.files import shown

LONGEST = 1000  # characters of what an error says


def proof(found: dict) -> str:
    """What a verification found, in a phrase."""
    largest = max(value for batches in found["max_difference"].values() for value in batches.values())
    return f"largest difference {largest:.1e} of {found['tolerance']:.0e} allowed on {found['samples']} pictures"


def figures(run) -> str:
    """The figures of a run's best epoch in a line."""
    best = run.best_epoch
    names = {"val_accuracy": "dev accuracy", "val_loss": "dev loss", "accuracy": "training accuracy"}
    parts = [f"{label} {run.history[name][best - 1]:.4f}" for name, label in names.items() if name in run.history]
    return f"{word(run.directory)}: epoch {best} of {len(run.history['loss'])} is the best, {', '.join(parts)}"


def said(error: object) -> str:
    """What an error says, in a line; a long one ends at a word."""
    return textwrap.shorten(str(error), LONGEST, placeholder=" …") or type(error).__name__


def word(path: Path) -> str:
    """A path as it can be typed."""
    return shlex.quote(shown(path))


def moved(data: str | None) -> str:
    """The option as it was given, for the next command."""
    return "" if data is None else f" --data {shlex.quote(data)}"


def aligned(rows: list[tuple]) -> str:
    """Rows of text in columns."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
