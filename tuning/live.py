"""A search as it goes on: a table that is drawn anew where somebody watches, else a line for each trial that ended."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from rich import live as rich_live
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tuning.result import SearchResult, best_of, figure
from zoo.files import shown
from zoo.progress import interactive

ROWS = 12  # of the table: what runs, and what ended last


class Live:
    """Tells of the trials while they run.

    Args:
        result: The search as it is; its events grow as it goes on.
        trials: How many there shall be.
        workers: How many run at once.
    """

    def __init__(self, result: SearchResult, trials: int, workers: int):
        self._result = result
        self._trials = trials
        self._workers = workers
        self._ended: dict[str, dict] = dict(result.results)
        self._running: dict[str, float] = {}
        self._live: rich_live.Live | None = None

    def __enter__(self) -> "Live":
        done = f", {len(self._ended)} of them done" if self._ended else ""
        workers = f"{self._workers} worker{'s' * (self._workers > 1)}"
        print(f"{shown(self._result.directory)}: {self._trials} trials{done}, {self._result.algorithm}, {workers}")
        if interactive():
            self._live = rich_live.Live(self._drawn(), console=Console(), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_):
        if self._live:
            self._live.stop()
            self._live = None

    def started(self, order: dict) -> None:
        """A trial was handed over."""
        self._running[order["trial"]] = time.monotonic()
        self._draw()

    def ended(self, order: dict, result: dict) -> None:
        """A trial ended."""
        self._running.pop(order["trial"], None)
        self._ended[order["trial"]] = result
        if self._live:
            self._draw()
        else:
            cells = self._cells(order["trial"])
            print(f"{cells[0]}  {cells[1]:<9}  {cells[2]:>8}  {cells[3]:>6}  {cells[4]}", flush=True)

    def tick(self) -> None:
        """Some time passed."""
        self._draw()

    def say(self, sentence: str) -> None:
        """Prints a sentence."""
        with contextlib.ExitStack() as stack:
            if self._live:
                self._live.stop()
                stack.callback(self._live.start)
            print(sentence, flush=True)

    def _draw(self) -> None:
        if self._live:
            self._live.update(self._drawn(), refresh=True)

    def _drawn(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, justify in (("trial", "left"), ("", "left"), (self._result.objective, "right"), ("time", "right")):
            table.add_column(name, justify=justify, no_wrap=True)  # pyright: ignore[reportArgumentType]
        table.add_column("hyperparameters")  # rich narrows the one that may wrap, and all where none may
        last = list(self._ended)[max(0, len(self._ended) + len(self._running) - ROWS) :]
        best = best_of(self._ended.values(), self._result.direction)
        for name in [*last, *self._running]:
            style = "bold" if name == best else "dim" if name in self._running else ""
            *cells, values = self._cells(name)
            table.add_row(*cells, Text(values, no_wrap=True, overflow="ellipsis"), style=style)
        return Group(table, Text(self._summary(best)))

    def _summary(self, best: str | None) -> str:
        said = [f"{len(self._ended)} of {self._trials} trials"]
        if best is not None:
            said.append(f"best {self._result.objective} {self._ended[best]['score']:.4f} (trial {best})")
        if failed := sum(result["status"] == "failed" for result in self._ended.values()):
            said.append(f"{failed} failed")
        return ", ".join([*said, "Ctrl-C stops it for now"])

    def _cells(self, name: str) -> Sequence[str]:
        """Trial, status, score, time, and the hyperparameters or the reason of a failure."""
        if name in self._running:
            return name, "running", "", _minutes(time.monotonic() - self._running[name]), self._values(name)
        result = self._ended[name]
        if result["status"] == "failed":
            return name, "failed", "", _minutes(result["seconds"]), result["reason"]
        return name, result["status"], f"{result['score']:.4f}", _minutes(result["seconds"]), self._values(name)

    def _values(self, name: str) -> str:
        values: dict[str, Any] = self._result.values(name)
        return ", ".join(f"{key} {figure(value)}" for key, value in values.items())


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
