"""Trials handed to an executor, watched, and written down: what every kind of search shares."""

import concurrent.futures
import contextlib
import math
import re
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from tuning import trial as trials
from tuning.executor import WorkerDied, WorkerPool
from tuning.journal import Journal
from tuning.place import TRIALS
from zoo.files import make_folder, shown, write_text
from zoo.wording import said

WAIT, DONE = object(), object()  # what a source of orders says where there is none: later perhaps, or never
SAME_FAILURES = 5  # in a row, which end a search: the next one will fail, too
DEATHS = 3  # of the process that runs a trial, after which the trial is a failed one
NO_RECIPE = "no recipe"  # the kind of a failure before the trial could begin
ENDED = ("completed", "pruned")


class SearchStopped(RuntimeError):
    """A search that ended before its last trial, since going on would be of no use."""


class Orders(Protocol):
    """Where trials come from, and where their results go."""

    def next(self) -> Any:
        """The order of the next trial, WAIT or DONE; one with a "result" has failed before it could begin."""
        ...

    def ended(self, order: dict, result: dict) -> None:
        """Learns how a trial ended, once that is written down."""
        ...


class Watcher(Protocol):
    """Who is told what happens."""

    def started(self, order: dict) -> None:
        """A trial was handed over."""
        ...

    def ended(self, order: dict, result: dict) -> None:
        """A trial ended."""
        ...

    def tick(self) -> None:
        """Some time passed."""
        ...


def work(
    orders: Orders,
    executor: Executor,
    journal: Journal,
    *,
    width: int,
    watcher: Watcher | None = None,
    deadline: float | None = None,
    run: Callable[[dict], dict] = trials.run,
    same_failures: int | None = SAME_FAILURES,
) -> bool:
    """Runs trials, as many at once as there is width, until there are no more.

    Each is written down before it is handed over and when it has ended. One whose process died is handed over again.

    Args:
        orders: Gives them.
        executor: Runs them.
        journal: Where they are written down.
        width: How many at once.
        watcher: Is told.
        deadline: On `time.monotonic`; what runs then is left, and has not been run.
        run: From an order to a result, in another process.
        same_failures: In a row, for one reason, which end it; None where they say nothing of the next trial.

    Returns:
        Whether all were run; False where the time was up.

    Raises:
        SearchStopped: After so many failures, or where the executor takes no more or cannot run what it took.
    """
    running: dict[Future, tuple[dict, int]] = {}
    streak, kind = 0, ""
    sign = f"left-{uuid.uuid4().hex[:8]}"  # of this call: a later one runs the same trials again

    def start(order: dict, deaths: int = 0) -> None:
        if "folder" in order:
            order = {**order, "left": str(Path(order["folder"]) / sign)}
        journal.append({"event": "started", "trial": order["trial"], "time": now()})
        try:
            running[executor.submit(run, order)] = (order, deaths)
        except (BrokenExecutor, RuntimeError) as error:
            raise SearchStopped(f"{type(executor).__name__} takes no more trials: {error}") from error
        if watcher:
            watcher.started(order)

    def end(order: dict, result: dict) -> None:
        nonlocal streak, kind
        journal.append({"event": "ended", "time": now(), "result": result})
        orders.ended(order, result)
        if watcher:
            watcher.ended(order, result)
        failure = _same(result) if result["status"] == "failed" else ""
        streak, kind = (streak + 1 if failure == kind else 1, failure) if failure else (0, "")
        if streak == same_failures:
            where = f" See {shown(journal.path.parent / result['traceback'])}." if result["traceback"] else ""
            raise SearchStopped(
                f"{streak} trials in a row failed for the same reason, so no more are begun: {result['reason']}{where}"
            )

    try:
        while True:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            while len(running) < width and (order := orders.next()) not in (WAIT, DONE):
                if "result" in order:
                    end(order, order["result"])
                else:
                    start(order)
            if not running:
                return True
            finished, _ = concurrent.futures.wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in sorted(finished, key=lambda future: running[future][0]["trial"]):
                order, deaths = running.pop(future)
                try:
                    result = future.result()
                except (Exception, CancelledError) as error:
                    if not _died(error):
                        reason = said(error)
                        raise SearchStopped(f"Trial {order['trial']} could not be run: {reason}") from error
                    if deaths + 1 < DEATHS:
                        killed = getattr(error, "signal", None) == signal.SIGKILL
                        last = deaths + 2 == DEATHS  # want of memory does not go by itself
                        start({**order, "halve": True} if killed and last else order, deaths + 1)
                        continue
                    result = _of_the_dead(error, order, journal.path.parent)
                end(order, _checked(result, order, executor))
            if watcher:
                watcher.tick()
    finally:
        kept = [(future, order) for future, (order, _) in running.items() if not future.cancel()]
        done = [(future, order) for future, order in kept if future.done()]  # just now, and not since it was left
        for future, order in kept:
            if "left" in order and (future, order) not in done:
                with contextlib.suppress(OSError):  # of a full disk
                    make_folder(order["folder"])  # it may be handed over and not have begun
                    Path(order["left"]).touch()
        for future, order in done:
            if future.exception() is None:
                with contextlib.suppress(SearchStopped):
                    result = _checked(future.result(), order, executor)
                    journal.append({"event": "ended", "time": now(), "result": result})
                    orders.ended(order, result)


def run_all(
    orders: Sequence[dict], *, directory: Path, executor: Executor, run: Callable[[dict], dict] = trials.run
) -> list[dict]:
    """The results of orders that are all known, in their order; those that the folder's journal has are not run again.

    Args:
        orders: Each with a name of its own under "trial".
        directory: Where the journal lies.
        executor: Runs them.
        run: From an order to a result, in another process.

    Raises:
        SearchStopped: Where the executor takes no more; several failures in a row say nothing of the others.
    """
    journal = Journal(directory)
    found = {event["result"]["trial"]: event["result"] for event in journal.events() if event["event"] == "ended"}
    source = _Listed([order for order in orders if order["trial"] not in found], found)
    try:
        work(source, executor, journal, width=width_of(executor), run=run, same_failures=None)
    finally:
        journal.close()
    return [found[order["trial"]] for order in orders]


class _Listed:
    """Orders from a list; results go into a dict by the name of the trial."""

    def __init__(self, orders: Sequence[dict], found: dict[str, dict]):
        self._orders = iter(orders)
        self._found = found

    def next(self) -> Any:
        return next(self._orders, DONE)

    def ended(self, order: dict, result: dict) -> None:
        self._found[order["trial"]] = result


def checked_executor(executor: Any) -> Executor:
    """An executor that was handed over.

    Raises:
        TypeError: If it is none.
        ValueError: If its processes would be copies of this one, in which TensorFlow hangs.
    """
    if isinstance(executor, ProcessPoolExecutor) and executor._mp_context.get_start_method() == "fork":
        raise ValueError(
            "`executor` forks this process, and TensorFlow hangs in a copy of it. Make it with "
            'mp_context=multiprocessing.get_context("spawn"), or leave `executor` out and say how many `workers`.'
        )
    if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
        raise TypeError(
            "`executor` must be a concurrent.futures.Executor, with a method submit(function, argument), such as "
            "dask.distributed's client.get_executor(). Received: "
            f"{f'the class {executor.__name__}' if isinstance(executor, type) else type(executor).__name__}"
        )
    return executor


def width_of(executor: Any) -> int:
    """How many trials an executor runs at once, as far as it tells; else 2."""
    if isinstance(executor, WorkerPool):
        return executor.workers
    if isinstance(number := getattr(executor, "_max_workers", None), int):  # those of the standard library
        return number
    client = getattr(executor, "_client", None)
    if callable(getattr(client, "nthreads", None)):  # Dask's
        return max(1, sum(client.nthreads().values()))
    return 2


def now() -> str:
    """The time as a search writes it down."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _checked(result: Any, order: dict, executor: Executor) -> dict:
    """A trial's result, if it is one: what an executor makes up must not get into the journal.

    Raises:
        SearchStopped: If it is none.
    """
    entries = failure("", "", "")
    fine = isinstance(result, dict) and result.keys() >= entries.keys() and result["trial"] == order["trial"]
    if fine and (result["status"] == "failed" or (result["status"] in ENDED and _is_number(result["score"]))):
        return result
    raise SearchStopped(
        f"{type(executor).__name__} gave something for trial {order['trial']} that is no result of it: {result!r:.200}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _died(error: BaseException) -> bool:
    """Whether the process is gone that ran a trial."""
    return isinstance(error, (WorkerDied, BrokenExecutor)) or type(error).__name__ == "KilledWorker"  # Dask's


def _of_the_dead(error: BaseException, order: dict, folder: Path) -> dict:
    """The result of a trial whose process died again and again; all that is known of it goes into a file."""
    reason = said(next(iter(str(error).splitlines()), type(error).__name__))
    place = f"{TRIALS}/{order['trial']}/died.txt"
    make_folder((folder / place).parent)
    write_text(folder / place, f"{error}\n")
    return failure(order["trial"], "process died", f"its process died {DEATHS} times: {reason}", place)


def failure(trial: str, kind: str, reason: str, traceback: str = "") -> dict:
    """The result of a trial that came to nothing, as `tuning.trial.run` gives it."""
    return {
        "trial": trial,
        "status": "failed",
        "score": None,
        "attempt": "",
        "epochs": 0,
        "best_epoch": 0,
        "metrics": {},
        "curve": [],
        "seconds": 0.0,
        "started": now(),
        "worker": "",
        "reason": reason,
        "kind": kind,
        "traceback": traceback,
        "halved": False,
    }


def _same(result: dict) -> str:
    """What two failures for one reason have in common: numbers and places differ from trial to trial."""
    if result["kind"] == NO_RECIPE:  # of a function whose words may hold its values
        return NO_RECIPE
    return f"{result['kind']}: {re.sub(r'0x[0-9a-f]+|[0-9.e+-]*[0-9]', '#', result['reason'])}"
