"""One trial: an order in, a result out, whatever happens to the training."""

import contextlib
import gc
import json
import math
import os
import shutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import keras

import zoo
from callbacks import Pruning, locking
from tuning import reference
from zoo.files import new_folder, write_json, write_text
from zoo.training.fitting import NotFinite
from zoo.training.folder import CROSS_ENTROPY, EVALUATION, RECIPE, best_of, epochs
from zoo.training.recipe import Recipe

OUT_OF_MEMORY, NOT_FINITE, NO_OBJECTIVE, LEFT = "out of memory", "not finite", "no such objective", "left"
NOBODY = "The search ended, and left this trial to be run again."
ENTRIES = ("trial", "folder", "reference", "model", "fields", "objective", "direction")
ENTRIES += ("stop_after", "continues", "thresholds")
PENALTIES = ("l1", "l2", "l2_sp")  # with one of them, there is a cross-entropy beside the loss
RESULT, TRACEBACK = "result.json", "traceback.txt"
NOT_COPIED = (RESULT, TRACEBACK, EVALUATION, "export", "report.html", *locking.FILES)  # of a run that is gone on with
_EXHAUSTED = ("ResourceExhaustedError", "OutOfMemoryError")  # of TensorFlow, of PyTorch
_WORDS = (
    "RESOURCE_EXHAUSTED",  # XLA
    "out of memory",  # CUDA
    "can't allocate memory",  # PyTorch
    "Status: 1, message: could not",  # oneDNN, whose status 1 is that
    "Cannot allocate memory",  # the system
)
_TRAINING = threading.Lock()  # seeds and standard output belong to the whole process


class _Failure(Exception):
    """A training that ended well and is of no use; its arguments are kind and reason."""


class Leaving(keras.callbacks.Callback):
    """Ends a training behind the epoch in which a file comes to be there: an executor may not stop what it runs."""

    reason = NOBODY

    def __init__(self, left: str):
        super().__init__()
        self._left = Path(left)

    @property
    def ends_run(self) -> bool:
        """Whether the file is there."""
        return self._left.exists()

    def on_epoch_end(self, epoch, logs=None):
        if self.ends_run:
            self.model.stop_training = True


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Trains what an order says, and tells how it went. A pure function of the order: any process may run it.

    Each call trains in a folder of its own, `attempt-1` and so on in the trial's, which then holds a run; what was
    printed meanwhile is beside it. One that runs out of memory is tried once more, with batches of half the size and
    twice as many of them to a step. Trials of one process wait for one another.

    Args:
        order: Plain values.
            trial, folder: Its name, and where attempts are made, the folder `trials/NAME` of a search.
            reference: Folder from `reference.save`.
            model: A name, or None for the model of the reference.
            fields: Of the `Recipe`.
            objective, direction: A metric of `run.history`, a loss being that without penalties; "max" or "min".
            stop_after: Epochs after which to stop, or None.
            continues: Folder of an attempt of another trial, of the same fields, to go on with; or None.
            thresholds: For `callbacks.Pruning`, or None.
            left: A file, optional: once it is there, nobody waits for the result, and training ends with its epoch.

    Returns:
        Plain values.
            trial, attempt, started, seconds, worker: What ran, when, how long, and where ("host:process").
            status: "completed", "pruned" or "failed".
            score: The objective at the best epoch, whose weights are kept; None if failed.
            epochs, best_epoch (from 1), metrics (at that epoch), curve (the objective, a value an epoch): of the run;
                values that are not finite are None.
            kind, reason, traceback: Of a failure, in a word, a line and a file; else "".
            halved: Whether batches were halved for want of memory.

    Raises:
        ValueError: If the order lacks an entry.
        FileNotFoundError: If this process does not see the folder of the search.
    """
    with _TRAINING:
        began = time.monotonic()
        if missing := [name for name in ENTRIES if name not in order]:
            raise ValueError(f"`order` lacks {', '.join(missing)}. Received: {', '.join(order)}")
        result = {"trial": order["trial"], "started": datetime.now(UTC).isoformat(timespec="milliseconds")}
        if not Path(order["reference"]).is_dir():
            raise FileNotFoundError(
                f"There is no {order['reference']} on {socket.gethostname()}. Every process that runs trials must see "
                "the folder of the search; on several machines it lies on a shared disk."
            )
        smaller = _smaller_before(order)
        result |= _attempted(order, smaller)
        attempt = Path(order["folder"]) / result["attempt"]
        if result["kind"] == OUT_OF_MEMORY and not smaller and (smaller := _smaller(attempt)):
            result |= _attempted({**order, "continues": None}, smaller)  # the other run had larger batches
        result |= {
            "halved": bool(smaller),
            "seconds": round(time.monotonic() - began, 3),
            "worker": f"{socket.gethostname()}:{os.getpid()}",
        }
        write_json(Path(order["folder"]) / result["attempt"] / RESULT, result)
        return result


def _attempted(order: dict[str, Any], smaller: dict[str, int]) -> dict[str, Any]:
    """What one training came to.

    Args:
        order: That of the trial.
        smaller: Fields that go before those of the order, where memory was short.
    """
    attempt = new_folder(order["folder"], "attempt")
    found: dict[str, Any] = {"attempt": attempt.name, "status": "failed", "score": None, "epochs": 0, "best_epoch": 0}
    found |= {"metrics": {}, "curve": [], "reason": "", "kind": "", "traceback": ""}
    try:
        with open(f"{attempt}.log", "w", encoding="utf-8") as log, _OUTPUT.into(log):
            history, pruned = _fitted(order, smaller, attempt)
        objective, best = _metric(order), best_of(history)
        if objective not in history:
            raise _Failure(NO_OBJECTIVE, f"The history has no {objective!r}. It has: {', '.join(sorted(history))}.")
        found |= {
            "epochs": epochs(history),
            "best_epoch": best + 1,
            "metrics": {name: _finite(values[best]) for name, values in history.items()},
            "curve": [_finite(value) for value in history[objective]],
        }
        if (score := found["metrics"][objective]) is None:
            raise _Failure(NOT_FINITE, f"{objective} was {history[objective][best]} in epoch {best + 1}, the best one.")
        found |= {"score": score, "status": "pruned" if pruned else "completed"}
    except Exception as error:  # whatever it is, the search goes on
        kind, reason = error.args if isinstance(error, _Failure) else (_kind(error), str(error))
        reason = " ".join(reason.split())[:300] or type(error).__name__
        write_text(attempt / TRACEBACK, "".join(traceback.format_exception(error)))
        place = (attempt / TRACEBACK).relative_to(attempt.parents[2]).as_posix()
        found |= {"kind": kind, "reason": reason, "traceback": place}
    gc.collect()  # a model is a ring of references
    return found


def _fitted(order: dict[str, Any], smaller: dict[str, int], attempt: Path) -> tuple[dict[str, list[float]], bool]:
    """The history of a training in an attempt's folder, and whether it was pruned."""
    if order["continues"]:
        shutil.copytree(order["continues"], attempt, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)
    fields = dict(order["fields"])
    model = fields.pop("model", order["model"])
    data = reference.load_data(order["reference"], repr((model, fields.get("image_size"))))
    if model is None:
        keras.utils.set_random_seed(int(fields.get("seed", 0)))  # layers without one draw theirs when they are loaded
        model = reference.load_model(order["reference"])
    pruning = Pruning(order["thresholds"], _metric(order), order["direction"]) if order["thresholds"] else None
    leaving = Leaving(order["left"]) if "left" in order else None
    if leaving and leaving.ends_run:
        raise _Failure(LEFT, NOBODY)
    fitted = zoo.fine_tune(
        model,
        data,
        callbacks=[callback for callback in (pruning, leaving) if callback],
        directory=attempt,
        stop_after=order["stop_after"],
        **{**fields, **smaller},
    )
    if leaving and leaving.ends_run:
        raise _Failure(LEFT, NOBODY)
    return fitted.history, bool(pruning and pruning.ends_run)


def _metric(order: dict[str, Any]) -> str:
    """The objective as the history names it: a loss is that without penalties, which differ from trial to trial."""
    penalised = any(order["fields"].get(name) not in (None, "auto", 0) for name in PENALTIES)
    return order["objective"].replace("loss", CROSS_ENTROPY) if penalised else order["objective"]


def _smaller(attempt: Path) -> dict[str, int]:
    """Fields for batches of half the size, and as many pictures a step as an attempt had.

    None where there is no half, or where memory was short before the first batch.
    """
    if not (attempt / RECIPE).exists():
        return {}
    recipe = Recipe.load(attempt / RECIPE)
    size = int(recipe.batch_size)
    return {"batch_size": size // 2, "accumulation": int(recipe.accumulation) * 2} if size > 1 else {}


def _smaller_before(order: dict[str, Any]) -> dict[str, int]:
    """Those fields of the run that is gone on with, where it had them."""
    if not order["continues"]:
        return {}
    earlier = Path(order["continues"])
    if not json.loads((earlier / RESULT).read_text(encoding="utf-8"))["halved"]:
        return {}
    recipe = Recipe.load(earlier / RECIPE)
    return {"batch_size": int(recipe.batch_size), "accumulation": int(recipe.accumulation)}


def _kind(error: BaseException) -> str:
    """What a failure is called; out of memory is known by the names and words that each backend has for it."""
    if isinstance(error, NotFinite):
        return NOT_FINITE
    cause: BaseException | None = error
    while cause is not None:
        words = str(cause)
        if isinstance(cause, MemoryError) or type(cause).__name__ in _EXHAUSTED or any(w in words for w in _WORDS):
            return OUT_OF_MEMORY
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _finite(value: float) -> float | None:
    """A value as JSON can hold it."""
    return float(value) if math.isfinite(value) else None


class _Divided:
    """Standard output of one thread in a file, of all others where it was: somebody may watch there.

    There is one for the whole process, since `print` does not keep what it writes to alive while it writes.
    """

    def __init__(self):
        self._thread: int | None = None
        self._mine: Any = None
        self._others: Any = None

    @contextlib.contextmanager
    def into(self, log: TextIO) -> Iterator[None]:
        """What this thread prints goes into a file."""
        self._mine, self._others, self._thread = log, sys.stdout, threading.get_ident()
        divided: Any = self
        try:
            with contextlib.redirect_stdout(divided):
                yield
        finally:
            self._thread = None

    def __getattr__(self, name):
        return getattr(self._mine if threading.get_ident() == self._thread else self._others, name)


_OUTPUT = _Divided()
