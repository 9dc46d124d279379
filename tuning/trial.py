"""One trial: an order in, a result out, whatever happens to the training."""

import contextlib
import errno
import gc
import json
import math
import os
import re
import shutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import keras

import zoo
from callbacks import Pruning, locking
from tuning import reference
from zoo.data.collection import Data
from zoo.files import new_folder, write_json, write_text
from zoo.training.fitting import NotFinite
from zoo.training.folder import CHECKPOINTS, CROSS_ENTROPY, EVALUATION, RECIPE, best_of, environment, epochs, finished
from zoo.training.recipe import Recipe
from zoo.transfer.writer import DISK_FULL
from zoo.wording import said

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
_DISK = {*DISK_FULL, errno.EROFS, errno.EIO}
_MISSING = (
    "Index the pictures again with load_data",  # a picture that is gone or another one by now
    "was changed after load_data saw it",
    "could not be fetched",  # weights
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

    What is wrong with the place rather than with the trial is raised, since the same order may do well later: a disk
    that is full or broken, pictures that are gone or others by now, weights that cannot be fetched.

    Args:
        order: Plain values.
            trial, folder: Its name, and where attempts are made, the folder `trials/NAME` of a search.
            reference: Folder from `reference.save`.
            model: A name, or None for the model of the reference.
            fields: Of the `Recipe`.
            objective, direction: A metric of `run.history`, a loss being that without penalties; "max" or "min".
            stop_after: Epochs after which to stop, or None.
            continues: Folder of an attempt of another trial, of the same fields, to go on with; or None. Where it holds
                no such run any more, training begins anew and ends the same.
            thresholds: For `callbacks.Pruning`, or None.
            left: A file, optional: once it is there, nobody waits for the result, and training ends with its epoch.
            halve: Optional. True begins with halved batches, since the process of an earlier attempt was killed, most
                likely for want of memory; half of what the attempts in `folder` began with. Where none came so far,
                the trial runs as ever.

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
        ValueError: If the order lacks an entry, the reference is damaged, or a picture is gone or another one.
        FileNotFoundError: If this process does not see the folder of the search, or that of the pictures.
        OSError: If a disk is full, or broken, or cannot be written. TensorFlow may raise an error of its own for it.
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
        data, smaller, notes = _data(order), {}, []
        if order["continues"]:
            if (before := _smaller_before(Path(order["continues"]))) is None:
                notes.append(f"{order['continues']} holds no run to go on with any more, so this training begins anew.")
                order = {**order, "continues": None}
            smaller = before or {}
        if order.get("halve") and not smaller and (smaller := _smaller(_begun(order["folder"]), len(data.train))):
            notes.append("The process of an earlier attempt was killed, so batches are halved.")
            order = {**order, "continues": None}  # the other run had larger batches
        result |= _attempted(order, data, smaller, notes)
        begun = _begun(order["folder"], result["attempt"])
        if result["kind"] == OUT_OF_MEMORY and not smaller and (smaller := _smaller(begun, len(data.train))):
            result |= _attempted({**order, "continues": None}, data, smaller)
        result |= {
            "halved": bool(smaller),
            "seconds": round(time.monotonic() - began, 3),
            "worker": f"{socket.gethostname()}:{os.getpid()}",
        }
        write_json(Path(order["folder"]) / result["attempt"] / RESULT, result)
        return result


def _attempted(order: dict[str, Any], data: Data, smaller: dict[str, int], notes: Sequence[str] = ()) -> dict[str, Any]:
    """What one training came to.

    Args:
        order: That of the trial.
        data: Of the order's reference.
        smaller: Fields that go before those of the order, where memory was short.
        notes: What its log begins with.

    Raises:
        Exception: Whatever it was, if the place is to blame; the folder of the attempt stays, without a result.
    """
    attempt = new_folder(order["folder"], "attempt")
    found: dict[str, Any] = {"attempt": attempt.name, "status": "failed", "score": None, "epochs": 0, "best_epoch": 0}
    found |= {"metrics": {}, "curve": [], "reason": "", "kind": "", "traceback": ""}
    try:
        with open(f"{attempt}.log", "w", encoding="utf-8") as log, _OUTPUT.into(log):
            for note in notes:
                print(note)
            history, pruned = _fitted(order, data, smaller, attempt)
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
    except Exception as error:  # whatever else it is, the search goes on
        if _of_the_place(error):
            with contextlib.suppress(OSError):  # there may be no room for it
                write_text(attempt / TRACEBACK, "".join(traceback.format_exception(error)))
            raise
        kind, reason = error.args if isinstance(error, _Failure) else (_kind(error), said(error))
        write_text(attempt / TRACEBACK, "".join(traceback.format_exception(error)))
        place = (attempt / TRACEBACK).relative_to(attempt.parents[2]).as_posix()
        found |= {"kind": kind, "reason": reason, "traceback": place}
    gc.collect()  # a model is a ring of references
    return found


def _data(order: dict[str, Any]) -> Data:
    """The data of an order's reference."""
    fields = order["fields"]
    purpose = fields.get("model", order["model"]), fields.get("image_size")
    return reference.load_data(order["reference"], repr(purpose))


def _fitted(
    order: dict[str, Any], data: Data, smaller: dict[str, int], attempt: Path
) -> tuple[dict[str, list[float]], bool]:
    """The history of a training in an attempt's folder, and whether it was pruned."""
    if order["continues"]:
        shutil.copytree(order["continues"], attempt, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)
    fields = dict(order["fields"])
    model = fields.pop("model", order["model"])
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


def _begun(folder: str, attempt: str = "attempt-*") -> Recipe | None:
    """What an attempt of a trial began with; of several, one whose batches were not halved. None where none began."""
    found = []
    for path in Path(folder).glob(f"{attempt}/{RECIPE}"):
        with contextlib.suppress(ValueError):  # of one that was killed while it was copied
            found.append(Recipe.load(path))
    return min(found, key=lambda recipe: int(recipe.accumulation), default=None)


def _smaller(recipe: Recipe | None, pictures: int) -> dict[str, int]:
    """Fields for batches of half the size, twice as many of them to a step.

    Of an odd size that is a picture more a step. Weights then move about as often: the last batch of an epoch is a
    smaller one and counts like any other in the mean of its step; and where an epoch has an odd number of batches, the
    one that is left over goes into the first step of the next epoch, or of a phase's last epoch into none.

    Args:
        recipe: With the batches that were too large; None where memory was short before the first one.
        pictures: For training: no batch has more of them.

    Returns:
        Nothing where there is no recipe, or no half.
    """
    if recipe is None or (size := min(int(recipe.batch_size), pictures)) < 2:
        return {}
    return {"batch_size": (size + 1) // 2, "accumulation": int(recipe.accumulation) * 2}


def _smaller_before(earlier: Path) -> dict[str, int] | None:
    """Those fields of the run that is gone on with, where it had them; None where there is no such run to go on with.

    Args:
        earlier: The folder of its attempt.
    """
    try:
        halved = json.loads((earlier / RESULT).read_text(encoding="utf-8"))["halved"]
        recipe = Recipe.load(earlier / RECIPE)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return None
    if not environment(earlier) or not (finished(earlier) or any((earlier / CHECKPOINTS).glob("**/epoch-*"))):
        return None
    return {"batch_size": int(recipe.batch_size), "accumulation": int(recipe.accumulation)} if halved else {}


def _of_the_place(error: BaseException) -> bool:
    """Whether a disk, the pictures or the network are to blame for an error, and not the trial.

    What is raised while batches are read comes from TensorFlow, as an error of its own that quotes the first one.
    """
    cause: BaseException | None = error
    while cause is not None:
        words = str(cause)
        numbers = {int(number) for number in re.findall(r"\[Errno (\d+)\]", words)}
        if numbers & _DISK or any(missing in words for missing in _MISSING):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


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
