"""Fits that the tests kill, and the process that they are forked from.

Run as a program, it imports everything once and then forks a process for every line it reads, which ends as a program
of its own would. No TensorFlow operation runs before the fork: threads would not survive it.

Started with `kill=[k, delay]`, such a process ends itself with SIGKILL `delay` seconds before its k-th change of a file
or folder below its folder; with `fail=[k, errno]` that change fails.
"""

import builtins
import functools
import io
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import callbacks
from callbacks import snapshots
from callbacks.snapshots import Position
from callbacks.syncing import synchronize

EPOCHS, BATCH, PICTURES = 4, 8, 48
STEPS = PICTURES // BATCH


class Stream(keras.utils.PyDataset):
    """Endless batches in an order that the epoch decides."""

    def __init__(self, x, y, epoch):
        super().__init__()
        self.x, self.y, self.epoch = x, y, epoch

    @property
    def num_batches(self):
        return None

    def __getitem__(self, number):
        epochs, step = divmod(number, STEPS)
        order = np.random.default_rng([7, self.epoch + epochs]).permutation(len(self.x))
        rows = order[BATCH * step :][:BATCH]
        return self.x[rows], self.y[rows]


class Draws(keras.callbacks.Callback):
    """Logs a number from each generator that belongs to the process."""

    def on_epoch_end(self, epoch, logs=None):
        draws = {"python": random.random(), "numpy": np.random.random(), "keras": keras.random.uniform(())}
        logs.update({name: float(value) for name, value in draws.items()})


class Signals(keras.callbacks.Callback):
    """Sends signals to its own process, in the middle of an epoch or of a validation."""

    def __init__(self, where, epoch, step, names):
        super().__init__()
        self.where, self.moment, self.names = where, (epoch, step), names

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self._send("train", batch)

    def on_test_batch_begin(self, batch, logs=None):
        self._send("dev", batch)

    def _send(self, where, batch):
        if (where, (self.epoch, batch)) == (self.where, self.moment):
            for name in self.names:
                os.kill(os.getpid(), signal.Signals[name])


class Lost(keras.callbacks.Callback):
    """Loses a metric of some epochs, as a division by zero does, or the weights, as a step too large does."""

    def __init__(self, epochs, what="val_loss"):
        super().__init__()
        self.epochs, self.what = epochs, what

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.what == "weights" and self.epoch in self.epochs and batch == 3:
            synchronize(self.model)
            self.model.set_weights([weight * np.nan for weight in self.model.get_weights()])

    def on_epoch_end(self, epoch, logs=None):
        if epoch in self.epochs and self.what != "weights":
            logs.update({self.what: float("nan")})


def pictures(seed=0):
    """Noise with a class in it, small enough to fit in a second."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, PICTURES)
    return (rng.normal(size=(PICTURES, 8, 8, 3)) + y[:, None, None, None] / 2).astype("float32"), y


def network(width=6):
    """A convolutional network with state of its own: batch normalisation, and dropout with its seed."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(width, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.AdamW(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def watchers(variant):
    """Callbacks with a state, in three sets."""
    return {
        "cosine": lambda: [callbacks.CosineDecay(EPOCHS), callbacks.EarlyStopping(patience=2)],
        "plateau": lambda: [
            callbacks.PlateauDecay(patience=1, factor=0.5),
            callbacks.WeightAverage(0.9),
            callbacks.EarlyStopping(patience=9),
        ],
        "cycle": lambda: [callbacks.OneCycle(0.02), callbacks.EarlyStopping("val_accuracy", patience=9)],
    }[variant]()


def fit(folder, *, variant="cosine", seconds=0.0, stream=True, extra=(), width=6, epochs=EPOCHS, seed=0, **known):
    """One fit with checkpoints in `folder`; the model, Keras' history and the early stopping."""
    folder = Path(folder)
    x, y = pictures(seed)
    model = network(width)
    ours = watchers(variant)
    checkpoint = callbacks.Checkpoint(folder / "checkpoints", seconds=seconds, **known)
    data = (
        {"x": Stream(x, y, checkpoint.position.epoch), "steps_per_epoch": STEPS, "shuffle": False}
        if stream
        else {"x": x, "y": y, "batch_size": BATCH, "shuffle": False}
    )
    history = model.fit(
        **data,
        epochs=epochs,
        validation_data=(x[:24], y[:24]),
        validation_batch_size=BATCH,
        verbose=0,  # pyright: ignore[reportArgumentType]
        callbacks=[*extra, *ours, Draws(), callbacks.HistoryLog(folder / "history.csv"), checkpoint],
    )
    return model, history, ours[-1]


def note(folder, weights, **plain):
    """What a training came to, to the bit."""
    np.savez(folder / "end.npz", *weights)
    (folder / "end.json").write_text(json.dumps(plain))


def plain(folder, *, signals=None, **options):
    """A plain `fit`, noted."""
    model, history, stopper = fit(folder, extra=[Signals(*signals)] if signals else [], **options)
    note(
        folder,
        model.get_weights(),
        history=history.history,
        epochs=history.epoch,
        best_epoch=stopper.best_epoch,
        slots=[np.asarray(keras.ops.convert_to_numpy(v)).tolist() for v in model.optimizer.variables],
    )


def tuned(folder, *, pictures=240, signals=None, seconds=0.0, model="convnet", fields=None):
    """A `zoo.fine_tune` of handwritten digits, noted."""
    from sklearn.datasets import load_digits

    import zoo

    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # so that a kill meets the feature cache as well
    defaults: Any = callbacks.Checkpoint.__init__.__kwdefaults__
    defaults["seconds"] = seconds  # fine_tune leaves them alone, and its steps here are short
    images, labels = load_digits(n_class=3, return_X_y=True)
    data = zoo.load_data((np.uint8(images[:pictures].reshape(-1, 8, 8) * 15), labels[:pictures]), image_size=8)
    run = zoo.fine_tune(
        model,
        data,
        directory=folder / "run",
        callbacks=[Signals(*signals)] if signals else [],
        **{"epochs": EPOCHS, "batch_size": 32, **(fields or {})},
    )
    note(folder, run.model.get_weights(), history=run.history, best_epoch=run.best_epoch)


def save(folder, *, number):
    """A checkpoint alone, whose arrays hold its number."""
    arrays = {part: {"a": np.full(50, number, "float32")} for part in ("model", "optimizer", "state")}
    snapshots.tidy(folder)
    snapshots.write(folder, Position(1, 0), arrays, {"number": number}, {})


def save_and_remove(folder):
    """What a checkpoint does when a third one arrives."""
    snapshots.tidy(folder)
    for epoch in (1, 2):
        snapshots.write(folder, Position(epoch, 0), {"model": {"a": np.full(50, epoch)}}, {"number": epoch}, {})
    snapshots.remove(folder, Position(1, 0))


class Changes:
    """Counts what changes below a folder, and does something at the k-th change instead.

    Args:
        folder: What lies elsewhere is left alone.
        number: k, from 1, or None to count alone.
        act: Called in the place of the k-th change, with the name of the call and the path.
        again: Whether every later one is met, too: a disk that is full stays so.
    """

    CALLS = ("mkdir", "replace", "rename", "fsync", "unlink", "rmdir")

    def __init__(self, folder, number: int | None = None, act: Any = None, again=False):
        self.folder, self.number, self.act, self.again = str(folder), number, act, again
        self.seen = []

    def __enter__(self):
        self._before = [(os, name, getattr(os, name)) for name in self.CALLS]
        self._before += [(builtins, "open", builtins.open), (io, "open", io.open)]
        for owner, name, call in self._before:
            setattr(owner, name, functools.partial(self._called, name, call))
        return self

    def __exit__(self, *_):
        for owner, name, call in self._before:
            setattr(owner, name, call)

    def _called(self, name, call, first, *more, **named):
        if self._counts(name, first, more, named):
            self.seen.append((name, str(first)))
            there = len(self.seen)
            if self.number is not None and (there == self.number or (self.again and there > self.number)):
                self.act(name, first)
        return call(first, *more, **named)

    def _counts(self, name, first, more, named):
        if name == "fsync":
            first = os.readlink(f"/proc/self/fd/{first}")
        elif name == "open":
            mode = more[0] if more else named.get("mode", "r")
            if isinstance(first, int) or not set(mode) & set("wax+"):
                return False
        elif named.get("dir_fd") is not None:
            first = f"{os.readlink('/proc/self/fd/{}'.format(named['dir_fd']))}/{first}"
        return os.fspath(first).startswith(self.folder)


def end_oneself(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def work(kind, folder, kill=None, moment=None, **options):
    """One line's worth, in a process of its own."""
    folder = Path(folder)
    if moment is not None:
        timer = threading.Timer(moment, end_oneself)
        timer.daemon = True
        timer.start()
    with Changes(folder, kill, end_oneself) as changes:
        globals()[kind](folder, **options)
    print("changes:", len(changes.seen), flush=True)


def serve():
    """Forks a process for every line; answers with its number, or with the status of one that is waited for."""
    print("ready", flush=True)
    while line := sys.stdin.readline():
        asked = json.loads(line)
        if "wait" in asked:
            print(_waited(**asked), flush=True)
            continue
        number = os.fork()
        if number == 0:
            output = os.open(asked.pop("output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            return asked
        print(number, flush=True)
    return None


def _waited(wait, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number, status = os.waitpid(wait, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(wait, signal.SIGKILL)
    os.waitpid(wait, 0)
    return "never"


if __name__ == "__main__":
    if keras.backend.backend() == "tensorflow":  # elsewhere, plain fits alone
        import zoo.data.load
        import zoo.training.fine_tune  # noqa: F401

    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = serve()
    if job is not None:
        work(**job)
