"""Progress on the terminal, shown to a person who watches, silent in pipes and logs; and where the time went."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")


def interactive() -> bool:
    """Whether somebody watches: a terminal or a notebook."""
    console = Console()
    return console.is_terminal or console.is_jupyter


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Passes `items` on and draws a bar on standard error, which is wiped when they end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not interactive()) as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)


@contextlib.contextmanager
def timed(spent: dict[str, float], what: str) -> Iterator[None]:
    """Adds the seconds that a block takes to those that `spent` has for it, also where it raises."""
    began = time.monotonic()
    try:
        yield
    finally:
        spent[what] = spent.get(what, 0.0) + time.monotonic() - began
