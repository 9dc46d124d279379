"""search: many trainings over a space of recipes, in processes of their own, none of them lost."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import keras

from callbacks.interrupts import Stopped
from tuning import reference
from tuning.asked import Asked, checked, machine
from tuning.journal import Journal
from tuning.live import Live
from tuning.loop import SearchStopped, checked_executor, now, width_of, work
from tuning.place import REFERENCE, folder_of, held, hired
from tuning.result import SearchResult, begun
from tuning.source import Source
from zoo.data.collection import Data
from zoo.files import shown

UNEQUAL = (
    "The loss holds each trial's label smoothing, so it does not compare trials of this space, which tunes that; "
    "val_accuracy does, or a space of your own without label_smoothing."
)


def search(
    model: str | keras.Model,
    data: Data,
    *,
    space: str | Callable[[Any], Mapping[str, Any]] = "head",
    algorithm: str = "bayesian",
    trials: int = 20,
    objective: str = "val_accuracy",
    direction: str = "max",
    pruning: str | None = None,
    workers: int | str = "auto",
    executor: Executor | None = None,
    directory: str | os.PathLike | None = None,
    seed: int = 0,
    resume: bool = True,
    time_limit: float | None = None,
    **fields,
) -> SearchResult:
    """Trains with one set of hyperparameters after another, and keeps them all; the first is the space's defaults.

    Each trial is a `zoo.fine_tune` in another process, so that it neither fills this one's memory nor takes it along
    when it dies. What is proposed and what came of it is written down at once: a search that is killed at any
    moment goes on by the same call with its `directory`, and only what was running is run again. A finished one returns
    at once; with more `trials`, it goes on. The test set is not touched.

    Args:
        model: A name of `zoo.list_models()`; "auto", where the space may choose; or a Keras model, which every trial
            begins with afresh.
        data: From `zoo.load_data`, with a dev set.
        space: "head" (what stands on a frozen network; all trials share one pass over the pictures), "transfer" (the
            network, how much of it is frozen, rates, augmentation), "scratch" (networks without learned weights), or a
            function from KerasTuner's `hp` to a dict of fields of `zoo.Recipe`; `tuning.spaces` holds pieces. With a
            ready one's defaults it is the known-good recipe, which `fine_tune` would choose.
        algorithm: "bayesian" (Gaussian process, Snoek et al. 2012), "random" (Bergstra and Bengio 2012), "grid", or
            "hyperband" (Li et al. 2018), whose trials go on with the training of earlier ones and count each time.
        trials: How many in all, those of an earlier call included.
        objective: "val_accuracy", "val_loss", "accuracy" or "loss", at the epoch whose weights are kept; a loss without
            penalties, but with label smoothing, so that it does not compare trials of a space that tunes that.
        direction: "max" for an accuracy, "min" for a loss.
        pruning: "median" ends a trial after the first epoch, from the third on, whose best value so far is worse than
            the median of those of the trials that were completed when it began (Golovin et al. 2017).
        workers: Processes, or "auto": as the cores, the memory and the GPUs allow. Of an executor, the trials it gets
            at once.
        executor: Runs the trials in place of processes of our own: any `concurrent.futures.Executor` whose workers see
            the same files and are no forks of this process, such as Dask's `client.get_executor(pure=False)`.
        directory: The search's folder; by default a new `runs/search-N`.
        seed: Decides proposals and trainings.
        resume: False refuses a folder that holds a search.
        time_limit: Seconds for this call. Trials that run then are left, and run again by the next call; an executor of
            your own ends them with their epoch.
        **fields: Fields of `zoo.Recipe` for all trials, such as epochs=10.

    Returns:
        All trials and the best run; of an unfinished search as well.

    Raises:
        TypeError: If an argument is of the wrong kind, or a field is unknown.
        ValueError: If an argument is out of range, there is nothing to tune, the data or the model cannot reach another
            process, or the folder holds a search for something else; the message shows the difference.
        tuning.loop.SearchStopped: After five failures in a row for one reason.
        OSError: If another process searches in the folder, or it cannot be written.

    Example:
        result = tuning.search("mobilenet_v2", zoo.load_data("photos"), space="head", trials=20)
    """
    began = time.monotonic()
    if executor is not None:
        checked_executor(executor)
    asked = checked(
        model, data, space, algorithm, trials, objective, direction, pruning, workers, seed, time_limit, fields
    )
    trials = int(trials)  # numpy's cannot be written down
    folder = folder_of(directory, what="search", resume=resume)
    if _finished(events := _events(asked, folder), trials):
        return SearchResult(folder, events, data)
    with held(folder):
        journal = Journal(folder)
        events = _events(asked, folder)
        try:
            if not events:
                about = {**asked.header(), "reference": reference.save(model, data, folder / REFERENCE)}
                events = [{"event": "search", **about}]
                journal.append(events[0])
            elif not reference.stands_for(folder / REFERENCE, data):  # pictures were moved, or it was removed
                reference.save(model, data, folder / REFERENCE)
            if not _finished(events, trials):
                begin = {"event": "begin", "time": now(), "trials": trials, "process": os.getpid(), **machine()}
                journal.append(begin)
                source = Source(asked, folder, journal, [*events, begin], trials)
                deadline = None if time_limit is None else began + time_limit
                with hired(executor, workers, folder) as chosen:
                    width = workers if executor is not None and isinstance(workers, int) else width_of(chosen)
                    _run(source, chosen, journal, width, deadline, SearchResult(folder, source.events, data), trials)
        finally:
            journal.close()
    return SearchResult(folder, Journal(folder).events(), data)


def _events(asked: Asked, folder: Path) -> list[dict]:
    """The events of a search that was begun in the folder; none where there is no such thing.

    Raises:
        ValueError: If it was for something else; the message shows the difference.
    """
    events = Journal(folder).events()
    if events and (differing := asked.differing(begun(events, folder))):
        raise ValueError(
            f"{shown(folder)} holds a search for something else: {'; '.join(differing)}. Choose another directory."
        )
    return events


@contextlib.contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM ends the search as Ctrl-C does, with the status that it has in a shell."""

    def end(number, frame):
        raise Stopped(128 + number)

    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:  # somebody else sees to it
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(source, executor, journal, width, deadline, result, trials) -> None:
    """Runs the trials with somebody watching."""
    with _terminating(), Live(result, trials, width) as live:
        try:
            if result.objective.endswith("loss") and any(item["name"] == "label_smoothing" for item in result.space):
                live.say(UNEQUAL)
            if not work(source, executor, journal, width=width, watcher=live, deadline=deadline):
                live.say(f"The time is up. {_way_on(result.directory)}")
            elif source.events[-1]["event"] == "exhausted":
                number = sum(event["event"] == "proposed" for event in source.events)
                live.say(f"The space has no more than {number} combinations, and all were tried.")
        except KeyboardInterrupt:
            live.say(f"Stopped; what was running will be run again. {_way_on(result.directory)}")
            raise
        except SearchStopped as stopped:
            journal.append({"event": "stopped", "time": now(), "why": str(stopped)})
            raise


def _way_on(folder: Path) -> str:
    return f"The same call with directory={shown(folder)!r} (zoo search: --out {shown(folder)}) goes on from there."


def _finished(events: list[dict], trials: int) -> bool:
    """Whether all trials that were asked for have ended, or there are no more."""
    ended = {event["result"]["trial"] for event in events if event["event"] == "ended"}
    proposed = {event["trial"] for event in events if event["event"] == "proposed"}
    return proposed <= ended and (len(ended) >= trials or any(event["event"] == "exhausted" for event in events))
