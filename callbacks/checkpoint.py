"""Checkpoints of a fit, from which it goes on to the same end."""

import math
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from callbacks import locking, snapshots
from callbacks.belonging import about, checked, named, refuse_another
from callbacks.interrupts import Interrupts
from callbacks.monitoring import direction_of, improves, value_of
from callbacks.packing import (
    arrays_to_variables,
    finite,
    number,
    pack,
    random_state,
    set_random_state,
    unpack,
    variables_to_arrays,
)
from callbacks.skipping import Metrics, Start, skip, skips, stop_skipping
from callbacks.snapshots import Damaged, Position, Snapshot
from callbacks.stateful import Stateful, announced, paused, peers, unpause
from callbacks.syncing import synchronize

KEPT = 2  # the newest ones, beside the best
CHEAP = 0.25  # seconds of writing that every epoch may cost
SHARE = 0.1  # of the time, beyond that
_OVER = 2**31  # an epoch behind every last one
_pending: dict[Path, Future] = {}  # what is being written, also for a fit that ended with an error meanwhile


class Checkpoint(Stateful):
    """Saves everything that a fit needs to go on, and goes on from there when the same `fit` is called again.

    Saved are weights, statistics and seed generators of the model, the optimizer with its slots and rate, the running
    metrics, the history, the generators of Python, numpy and Keras, and what our other callbacks know: at the end of
    epochs (of every one, unless writing takes more than a tenth of the time), and within them after `seconds`. The
    next `fit` with the same folder starts from the newest whole checkpoint; a resumed training ends like one that was
    never interrupted, to the bit where the operations themselves are repeatable.

    It stands behind our other callbacks in the list. In the middle of an epoch the steps that were done are passed
    over: their batches are drawn and dropped. So the data must come in an order that the epoch decides, and begin at
    epoch `position.epoch`: an endless stream that is made for each `fit` reads it there. What Keras shuffles from
    arrays itself comes in another order, an endless stream needs steps that `steps_per_execution` divides, and the
    states of recurrent layers are not kept. A fit that an early stopping has ended is over, whatever its patience then.
    Operations that are not repeatable are a GPU's matter: TensorFlow's need
    `tf.config.experimental.enable_op_determinism()` there.

    A checkpoint is a folder that is written under another name, brought to the disk and renamed, with the SHA-256 of
    every file. One that is damaged is passed over with a warning. Weights that are not finite are never saved. Writing
    happens in the background; where it fails, a warning says so and training goes on. One process at a time may use a
    folder.

    SIGTERM and SIGINT finish the step, save, and end the program with a message; a second one ends it at once.

    Args:
        directory: Folder for nothing else.
        monitor: Metric whose best epoch is kept besides the newest two; by default "val_loss" where there is one,
            else "loss".
        direction: "max", "min", or None to read it from the metric's name.
        recipe: Plain values that say how is trained: a checkpoint of another recipe is refused.
        data: Fingerprint of the data, likewise.
        seconds: Between two checkpoints within an epoch; 0 for one at every step.
        advice: How to go on, the end of the message after a signal.

    Attributes:
        position: Where the next fit goes on, `(epoch, step)` from 0; `(0, 0)` where it begins.
        written: Checkpoints written in this fit.

    Raises:
        ValueError: If the folder holds anything else, or checkpoints of another recipe, other data, or a fit with
            other callbacks, steps an epoch, optimizer or shapes of weights; if the model is not built; or if the
            callback does not stand behind our others.
        TypeError: If `recipe` or `data` is not of plain values.
        RuntimeError: If the folder has changed since `position` was read.
        OSError: If the folder cannot be made or written, or another process uses it (`locking.InUse`).

    Example:
        checkpoint = callbacks.Checkpoint("run/checkpoints")
        model.fit(x, y, shuffle=False, epochs=20, callbacks=[callbacks.EarlyStopping(), checkpoint])
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        monitor: str | None = None,
        direction: str | None = None,
        *,
        recipe: Any = None,
        data: Any = None,
        seconds: float = 300.0,
        advice: str = "Run the same program again to go on from there.",
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__()
        if not isinstance(seconds, (int, float)):
            raise TypeError(f"`seconds` must be a number of at least 0. Received: seconds={seconds!r}")
        if not seconds >= 0:
            raise ValueError(f"`seconds` must not be negative. Received: seconds={seconds}")
        if monitor is not None:
            direction_of(monitor, direction)
        self.directory = Path(directory).absolute()
        self.monitor, self.direction = monitor, direction
        self.recipe, self.data = checked("recipe", recipe), checked("data", data)
        self.seconds, self.advice, self.clock = seconds, advice, clock
        self.written = 0
        snapshots.prepare(self.directory)
        self._start = Position(0, 0)  # where the fit that runs began
        self._told: Position | None = None
        self._damaged: set[Position] = set()  # those that were named
        self._interrupts = Interrupts()
        self._rows: list[dict[str, Any]] = []

    @property
    def position(self) -> Position:
        """Where the next fit goes on; read from the disk."""
        newest = self._newest()
        self._told = newest.position if newest else Position(0, 0)
        return self._told

    def get_state(self):
        return {
            "watched": self._watched,
            "best": self._best,
            "best_position": self._best_position,
            "best_kept": self._best_kept,
        }

    def set_state(self, state):
        self._watched, self._best = state["watched"], state["best"]
        found = [state[name] and Position(*state[name]) for name in ("best_position", "best_kept")]
        self._best_position = found[0]
        there = snapshots.positions(self.directory)
        self._best_kept = next((position for position in found if position in there), None)

    def on_train_begin(self, logs=None):
        others = announced(self.model)
        if others[-1] is not self:
            raise ValueError(
                f"Checkpoint must stand behind our other callbacks, to save what they know. Received: "
                f"{', '.join(type(callback).__name__ for callback in others)}"
            )
        if not self.model.built:
            raise ValueError(
                f"Model {self.model.name!r} is not built yet, so there is nothing to save or to put back; call it on a "
                "batch, or give it an input shape."
            )
        unpause(self.model)
        self._lock = locking.hold(self.directory)
        try:
            self._begin()
        except BaseException:
            self._lock.release(force=True)
            raise
        self._interrupts.listen(self.model)

    def _begin(self):
        """Makes everything ready, or puts it back as it was."""
        self._warned = False
        self._wait()
        snapshots.tidy(self.directory)
        snapshot = self._newest()
        self._start = snapshot.position if snapshot else Position(0, 0)
        told, self._told = self._told, None
        if told not in (None, self._start):
            raise RuntimeError(
                f"The checkpoints in {self.directory} have changed since `position` was read, and data made for it "
                "would not fit. Make callback and data again."
            )
        self._kept = [self._start] if snapshot else []
        self._watched = self._best = self._best_position = self._best_kept = None
        self._rows = []
        self._epoch, self._step = self._start
        self._metrics = self._last_metrics = Metrics([], {})
        self._stopped = self._cut = False
        self._writing = 0.0  # seconds that the last one took to write
        self.written = 0
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        if snapshot:
            self._restore(snapshot)
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._saved_at = self.clock()

    def on_epoch_begin(self, epoch, logs=None):
        self._refill_history()
        self._epoch, self._step = epoch, 0
        if epoch == self._start.epoch and self._start.step:
            skip(self.model, self._start.step, self._last_metrics)

    def on_train_batch_begin(self, batch, logs=None):
        self._step = batch
        if skips(self._model):
            self._cut = paused(self._model)
            if self._interrupts.received:
                self._leave(self._start)
            return
        if self._interrupts.received:
            self._save(Position(self._epoch, batch), at_once=True)
            self._leave(Position(self._epoch, batch))
        # by a budget of time, which lets this step run: it will be taken again (and on JAX `self.model` costs a copy)
        if paused(self._model):
            self._cut = True
            self._save(Position(self._epoch, batch))
        elif batch and self.clock() - self._saved_at >= self.seconds:
            self._save(Position(self._epoch, batch))

    def on_test_begin(self, logs=None):
        # the weights stay as they are while the dev set is gone through, but the metrics do not
        self._metrics = Metrics.of(self.model)

    def on_test_batch_begin(self, batch, logs=None):
        if self._interrupts.received:
            done = Position(self._epoch, self._step + self.model.steps_per_execution)
            self._save(done, at_once=True, metrics=self._metrics)
            self._leave(done)

    def on_epoch_end(self, epoch, logs=None):
        stop_skipping(self.model)
        if self._cut:
            return
        self._rows.append({"epoch": epoch, **{name: number(value) for name, value in (logs or {}).items()}})
        position = Position(epoch + 1, 0)
        self._watch(logs or {})
        value = value_of(self._watched, logs) if self.monitor or self._watched in (logs or {}) else math.nan
        final = any(getattr(peer, "stopped_epoch", None) is not None for peer in peers(self.model))
        self._stopped = bool(self.model.stop_training) and (final or not paused(self.model))
        last = bool(self.model.stop_training) or epoch + 1 == self.params.get("epochs")
        interrupted = bool(self._interrupts.received)
        if last or interrupted or not self._too_soon():
            if improves(value, self._best, direction_of(self._watched, self.direction), 0.0):
                self._best, self._best_position = value, position
            self._save(position, at_once=last or interrupted)
        if interrupted:
            self._leave(position)

    def _watch(self, logs):
        """Settles which metric tells the best epoch; not every epoch need have been validated."""
        name = self.monitor or ("val_loss" if "val_loss" in (self._watched, *logs) else "loss")
        if name != self._watched:
            self._watched, self._best, self._best_position = name, None, None

    def on_train_end(self, logs=None):
        if self._interrupts.received:
            self._leave(Position(self._epoch + 1, 0))
        self._refill_history()
        self._wait()
        self._writer.shutdown()
        self._release()

    def _release(self):
        self._interrupts.stop()
        self._lock.release(force=True)

    def _leave(self, position):
        """Ends the program after a signal; everything is saved."""
        stop_skipping(self.model)
        self._wait()
        if position not in self._kept:
            message = f"Stopped in epoch {position.epoch + 1}, and nothing could be saved."
        else:
            steps = f", step {position.step} of {self.params.get('steps') or '?'}" if position.step else ""
            message = f"Saved after {position.epoch} epochs{steps} in {self.directory}. {self.advice}"
        self._writer.shutdown()
        self._release()
        self._interrupts.obey(message)

    def _too_soon(self):
        """Whether writing would take too large a share of the time."""
        return self._writing > CHEAP and self.clock() - self._saved_at < self._writing / SHARE

    def _save(self, position, at_once=False, metrics=None):
        """Copies everything that is to be saved, and hands it to the writer."""
        self._wait()
        synchronize(self.model)
        known: dict[str, np.ndarray] = {}
        states = {name: callback.get_state() for name, callback in named(peers(self.model)).items()}
        running = metrics or (Metrics.of(self.model) if position.step else Metrics([], {}))
        plain = {
            "callbacks": states,
            "random": random_state(),
            "metrics": running.arrays,
            "logs": running.logs,
            "rows": self._rows,
            "stopped": self._stopped,
        }
        state = pack(plain, known, "")
        arrays = {
            "model": variables_to_arrays(self.model.variables),
            "optimizer": variables_to_arrays(self.model.optimizer.variables),
            "state": known,
        }
        self._saved_at = self.clock()
        written = self._writer.submit(self._write, position, arrays, state, self._about(), self._best_position)
        _pending[self.directory] = written
        if at_once:
            self._wait()

    def _write(self, position, arrays, state, about, best):
        """Writes a checkpoint and drops those that are no longer needed; in the background."""
        began = self.clock()
        if not finite(arrays["model"].values()):
            return f"The weights are not finite after {_where(position)}, so they were not saved."
        snapshots.write(self.directory, position, arrays, state, about)
        self.written += 1
        self._kept = sorted({*self._kept, position})
        if best == position:  # not before it is on the disk: it takes the place of another one
            self._best_kept = best
        needed = {*self._kept[-KEPT:], self._best_kept}
        for old in snapshots.positions(self.directory):
            if old < position and old not in needed:
                snapshots.remove(self.directory, old)
        self._kept = [kept for kept in self._kept if kept in needed]
        self._writing = self.clock() - began
        return None

    def _wait(self):
        """Waits for the writer, and says what it met."""
        pending = _pending.pop(self.directory, None)
        try:
            trouble = pending and pending.result()
        except OSError as error:
            trouble = (
                f"A checkpoint could not be written to {self.directory}: {error.strerror or error}. "
                "Training goes on; earlier checkpoints are as they were."
            )
            self._warned = False
        if trouble and not self._warned:  # weights that are not finite stay so
            self._warned = True
            warnings.warn(trouble, RuntimeWarning, stacklevel=2)

    def _restore(self, snapshot: Snapshot):
        """Puts everything back where it was; the metrics follow behind Keras' own reset."""
        refuse_another(self.directory, snapshot.about, self._about())
        synchronize(self.model)
        arrays_to_variables(snapshot.arrays["model"], self.model.variables)
        arrays_to_variables(snapshot.arrays["optimizer"], self.model.optimizer.variables)
        state = unpack(snapshot.state, snapshot.arrays["state"])
        for name, callback in named(peers(self.model)).items():
            callback.set_state(state["callbacks"][name])
        set_random_state(state["random"])
        self._rows = state["rows"]
        self._last_metrics = Metrics(state["metrics"], state["logs"])
        self.model._initial_epoch = Start(_OVER if state["stopped"] else snapshot.position.epoch, self.model)

    def _refill_history(self):
        """Gives Keras' history the epochs of the earlier process."""
        history = self.model.history
        if self._rows and not history.epoch:
            history.epoch = [row["epoch"] for row in self._rows]
            for row in self._rows:
                for name, value in row.items():
                    if name != "epoch":
                        history.history.setdefault(name, []).append(value)

    def _newest(self) -> Snapshot | None:
        """The newest whole checkpoint; those that are damaged are named in a warning."""
        if writing := _pending.get(self.directory):  # for a fit that ended with an error just now
            wait([writing])
        for position in snapshots.positions(self.directory):
            try:
                return snapshots.read(self.directory / position.name)
            except Damaged as error:
                if position in self._damaged:
                    continue
                self._damaged.add(position)
                warnings.warn(
                    f"The checkpoint {self.directory / position.name} is damaged and not used: {error}.",
                    RuntimeWarning,
                    stacklevel=4,
                )
        return None

    def _about(self):
        return about(self.model, self.params or {}, self.recipe, self.data)


def _where(position) -> str:
    return f"epoch {position.epoch}" + (f", step {position.step} of the next one" if position.step else "")
