"""SearchResult: what a search found, read from its folder."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd

import zoo
from tuning import reference
from tuning.journal import NAME, Journal
from tuning.place import REFERENCE, TRIALS
from tuning.words import first_of
from zoo.files import shown
from zoo.training.folder import CROSS_ENTROPY, EVALUATION, LOOKS, epoch_of_recipe, looks
from zoo.training.run import Run

if TYPE_CHECKING:
    from tuning.importance import Importance
    from zoo.data.collection import Data

VERSION = 1  # of the journal
ONS = ("train", "train+dev")
COLUMNS = ("trial", "status", "score", "seconds", "epochs", "best_epoch", "attempts", "worker", "started", "ended")
COLUMNS += ("continues", "halved", "reason", "traceback")


class SearchResult:
    """The trials of a search and the best of them. Made by `tuning.search` and `tuning.load_search`; print it.

    A trial's score is the objective at the epoch whose weights it kept, so that it is the score of a model that is
    there. The best of many trials on one dev set looks better than it is: the test set says how good it is, and only
    `result.best_run.evaluate("test")` touches that.

    Attributes:
        directory: The folder of the search, absolute.
        objective, direction: What was searched for: a metric of `run.history`, and "max" or "min".
        algorithm, seed, model, space_name: What was asked for.
        space: A plain dict a hyperparameter: name, kind, range, scale, default.
        header: All that was written down when the search began.
        curves: Trial to the objective, a value an epoch.
    """

    def __init__(self, directory: Path, events: list[dict[str, Any]], data=None):
        self.directory = directory
        self.header = events[0]
        self._events = events
        self._data = data
        for name in ("objective", "direction", "algorithm", "seed", "model", "space", "space_name"):
            setattr(self, name, self.header[name])
        results = [event["result"] for event in events if event["event"] == "ended"]
        self.results: dict[str, dict] = {result["trial"]: result for result in results}
        self.curves = {name: result["curve"] for name, result in self.results.items() if result["curve"]}

    objective: str
    direction: str
    algorithm: str
    seed: int
    model: str
    space: list[dict[str, Any]]
    space_name: str

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row a trial, in the order in which they were proposed; failed ones have no score.

        Columns trial, status ("completed", "pruned", "failed", "unfinished"), score, seconds, epochs, best_epoch,
        attempts, worker, started, ended, continues (the trial whose training a Hyperband rung goes on with), halved
        (whether the batch was, for want of memory), reason, traceback (a file), then one for each hyperparameter, with
        nothing where it does not apply.
        """
        names = [hyperparameter["name"] for hyperparameter in self.space]
        times = {event["result"]["trial"]: event["time"] for event in self._events if event["event"] == "ended"}
        counts = Counter(event["trial"] for event in self._events if event["event"] == "started")
        rows = []
        for event in self._events:
            if event["event"] != "proposed":
                continue
            name = event["trial"]
            result = self.results.get(name, {"status": "unfinished"})
            score, values = result.get("score"), _applying(event)
            rows.append(
                {
                    **{column: result.get(column, "") for column in COLUMNS},
                    "trial": name,
                    "score": math.nan if score is None or result["status"] == "failed" else score,
                    "seconds": result.get("seconds", math.nan),
                    "epochs": result.get("epochs", 0),
                    "best_epoch": result.get("best_epoch", 0),
                    "attempts": max(counts[name], _number(result.get("attempt", ""))),  # Dask runs lost ones by itself
                    "ended": times.get(name, ""),
                    "continues": event["continues"] or "",
                    "halved": bool(result.get("halved")),
                    **{hyperparameter: values.get(hyperparameter) for hyperparameter in names},
                }
            )
        table = pd.DataFrame(rows, columns=[*COLUMNS, *names])
        table.attrs["hyperparameters"] = names
        return table

    @property
    def best_trial(self) -> str:
        """The name of the best completed trial: by score, then by the lower dev loss, then the earlier one.

        Raises:
            ValueError: If none was completed; the message says why the last one was not.
        """
        best = best_of(self.results.values(), self.direction)
        if best is None:
            failed = [result for result in self.results.values() if result["status"] == "failed"]
            why = f"; {len(failed)} failed, the last one: {failed[-1]['reason']}" if failed else ""
            raise ValueError(f"No trial of {shown(self.directory)} has been completed{why}.")
        return best

    @property
    def best(self) -> dict[str, Any]:
        """The hyperparameters of the best trial."""
        return self.values(self.best_trial)

    def values(self, trial: str) -> dict[str, Any]:
        """The hyperparameters of a trial, those that apply."""
        return _applying(self._proposed(trial))

    def fields(self, trial: str) -> dict[str, Any]:
        """The fields of a trial's recipe that the search gave; empty where the space made none."""
        return (self._proposed(trial).get("made") or {}).get("fields", {})

    def _proposed(self, trial: str) -> dict[str, Any]:
        """The proposal of a trial."""
        return next(event for event in self._events if event["event"] == "proposed" and event["trial"] == trial)

    @property
    def best_score(self) -> float:
        """The objective of the best trial."""
        return self.results[self.best_trial]["score"]

    @property
    def known_good(self) -> str | None:
        """The trial that trained the first one's recipe to its end: that itself, or a later rung of Hyperband's.

        None where there is no such trial, or it was not completed.
        """
        proposed = [event for event in self._events if event["event"] == "proposed"]
        last = proposed[0]["trial"] if proposed else None
        for event in proposed:
            last = event["trial"] if event["continues"] == last is not None else last
        epochs = next((event["epochs"] for event in proposed if event["trial"] == last), None)
        whole = self.algorithm != "hyperband" or epochs == self.header.get("epochs")
        return last if whole and self.results.get(last or "", {}).get("status") == "completed" else None

    @property
    def hopeful(self) -> bool:
        """Whether any trial was completed, so that there is a best one."""
        return any(result["status"] == "completed" for result in self.results.values())

    @cached_property
    def best_run(self) -> Run:
        """The best trial's own run, with the model that got the score, not one trained again."""
        return self.run(self.best_trial)

    def run(self, trial: str) -> Run:
        """The run of a trial that was completed or pruned.

        Args:
            trial: Its name, as in `trials`.

        Raises:
            ValueError: If there is no such trial, or it has left no run.
        """
        result = self.results.get(trial)
        if result is None or result["status"] == "failed":
            there = [name for name, result in self.results.items() if result["status"] != "failed"]
            raise ValueError(
                f"`trial` must be one of {', '.join(there) or 'those that ended well'}. Received: {trial!r}"
            )
        return zoo.load_run(self.folder(trial), self.data)

    def folder(self, trial: str) -> Path:
        """Where the run of a trial lies."""
        return self.directory / TRIALS / trial / self.results[trial]["attempt"]

    @property
    def test_looks(self) -> int:
        """How often the test set was looked at over all runs in the search's folder, those of `retrain` included."""
        return sum(looks(path.parents[1]) for path in self.directory.glob(f"**/{EVALUATION}/{LOOKS}"))

    @cached_property
    def data(self) -> "Data":
        """The data that was searched on."""
        if isinstance(self._data, (str, os.PathLike)):
            return reference.moved_data(self.directory / REFERENCE, self._data)
        return self._data if self._data is not None else reference.load_data(self.directory / REFERENCE)

    def retrain(
        self, data: "Data | None" = None, *, on: str = "train+dev", directory: str | os.PathLike | None = None
    ) -> Run:
        """Trains once more with the best trial's recipe, up to its best epoch, on more pictures.

        Args:
            data: Other data of the same classes; by default what was searched on.
            on: "train+dev" has no dev set left to watch or to judge by; "train" trains as the trial did.
            directory: The run's folder; by default `retrained` in that of the search, with the trial and `on` in its
                name where `data` is not given.

        Raises:
            ValueError: If `on` is neither, or there is no dev set to train on.
        """
        if on not in ONS:
            raise ValueError(f'`on` must be "train+dev" or "train". Received: on={on!r}')
        best = self.best_run
        chosen = self.data if data is None else data
        chosen = chosen.without_dev() if on == "train+dev" else chosen
        own = self.header["own_model"]
        keras.utils.set_random_seed(int(best.recipe.seed))  # as in a trial: layers of a model draw when it is loaded
        model = reference.load_model(self.directory / REFERENCE) if own else best.recipe.model
        if directory is None:
            name = f"retrained-{self.best_trial}-{on.replace('+', '-')}"
            directory = self.directory / (name if data is None else f"{name}-{chosen.fingerprint}")
        last = self._proposed(self.best_trial)["epochs"]
        if on == "train+dev":  # nothing else says when to stop
            last = epoch_of_recipe(best.directory, best.best_epoch)
        return zoo.fine_tune(model, chosen, recipe=best.recipe, directory=directory, stop_after=last)

    @cached_property
    def importance(self) -> "Importance":
        """How much of the scores' variation each hyperparameter accounts for; print it."""
        from tuning.importance import importance

        return importance(self)

    def report(self) -> Path:
        """Writes `report.html`: progress, importance, every hyperparameter against the objective, all trials, cost.

        Returns:
            The page, which needs nothing beside it.

        Raises:
            OSError: If it cannot be written; an earlier page stays.
        """
        from tuning.report import report

        return report(self)

    def __str__(self):
        counts = self.trials.status.value_counts()
        lines = [f"{shown(self.directory)}: " + ", ".join(f"{count} {status}" for status, count in counts.items())]
        if not self.hopeful:
            return lines[0]
        known = f"; {first_of(self)} {self.results[self.known_good]['score']:.4f}" if self.known_good else ""
        lines.append(f"best {self.objective} {self.best_score:.4f} (trial {self.best_trial}){known}")
        width = max(map(len, self.best), default=0)
        lines += [f"  {name:<{width}}  {figure(value)}" for name, value in self.best.items()]
        return "\n".join(lines)

    def __repr__(self):
        best = f", best {self.objective} {self.best_score:.4f}" if self.hopeful else ""
        return f"<SearchResult {self.directory}: {len(self.results)} trials{best}>"


def _applying(event: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a proposal without those that the space does not ask for beside the others."""
    return {name: value for name, value in event["values"].items() if name not in event.get("idle", ())}


def _number(attempt: str) -> int:
    """Which attempt a folder such as "attempt-2" is of; 0 where it is none."""
    return int(attempt.rpartition("-")[2] or 0)


def dev_loss(metrics: dict[str, float]) -> float:
    """The loss on dev, without penalties where there are some; infinity where there is none."""
    found = metrics.get(f"val_{CROSS_ENTROPY}", metrics.get("val_loss"))
    return math.inf if found is None else found


def figure(value: Any) -> str:
    """A hyperparameter's value in few characters."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    return str(value)


def load_search(directory: str | os.PathLike, data=None) -> SearchResult:
    """A search from its folder, finished or not.

    Args:
        directory: The folder.
        data: Where the pictures were moved since: a Data of them, or their folder.

    Raises:
        FileNotFoundError: If there is no search in it.
        ValueError: If its journal is damaged.
    """
    folder = Path(directory).resolve()
    if not (folder / NAME).is_file():
        raise FileNotFoundError(f"{shown(folder)} holds no search: there is no {NAME} in it.")
    events = Journal(folder).events()
    if not events:
        raise FileNotFoundError(f"The search in {shown(folder)} had not begun. Start it again.")
    return SearchResult(folder, begun(events, folder), data)


def begun(events: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Events of a journal, if they are those of a search.

    Raises:
        ValueError: If they are of something else, or of a version that is not known here.
    """
    first = events[0]
    if first["event"] != "search":
        raise ValueError(f"{shown(folder)} holds a {first['event']}, no search. Choose another directory.")
    if first.get("version") != VERSION:
        raise ValueError(
            f"The search in {shown(folder)} was written by another version of Menagerie (its journal has version "
            f"{first.get('version')}, this one reads {VERSION}). Use that one, or choose another directory."
        )
    return events


def best_of(results: Iterable[Mapping[str, Any]], direction: str) -> str | None:
    """The name of the best completed trial: by score, then by the lower dev loss, then the earlier one; or None."""
    sign = -1 if direction == "max" else 1
    ranks = [
        (sign * result["score"], dev_loss(result["metrics"]), result["trial"])
        for result in results
        if result["status"] == "completed"
    ]
    return min(ranks)[2] if ranks else None
