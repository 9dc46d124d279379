"""Processes to be killed, and what they left."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from callbacks.checkpoint import Checkpoint

_HERE = Path(__file__).parent
LIMIT = 120  # seconds, after which a process is taken to hang


@pytest.fixture(scope="session")
def fits():
    """The module `fits`, for what needs no process of its own."""
    spec = importlib.util.spec_from_file_location("fits", _HERE / "fits.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Process:
    """A process that was forked, and what it said."""

    def __init__(self, nursery, number, output):
        self._nursery, self.number, self.output = nursery, number, output

    def wait(self):
        """Its exit status: below 0 the signal that ended it."""
        status = self._nursery.ask(wait=self.number, seconds=LIMIT)
        assert status != "never", f"It hangs:\n{self.text}"
        return int(status)

    @property
    def text(self):
        return self.output.read_text()


class Nursery:
    """Forks processes that have imported everything already."""

    def __init__(self, folder):
        self._folder, self._count = folder, 0
        self._log = open(folder / "log.txt", "w")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error::RuntimeWarning:callbacks", _HERE / "fits.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(_HERE.parents[1])},
            cwd=folder,
        )
        assert self._answer() == "ready"

    def start(self, kind, folder, **options):
        """Begins a function of `fits` in a process of its own."""
        self._count += 1
        output = self._folder / f"{self._count}.txt"
        Path(folder).mkdir(exist_ok=True)
        number = int(self.ask(kind=kind, folder=str(folder), output=str(output), **options))
        return Process(self, number, output)

    def run(self, kind, folder, **options):
        """The same, to its end: status and output."""
        process = self.start(kind, folder, **options)
        return process.wait(), process.text

    def ask(self, **question):
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        return self._process.stdout.readline().strip()

    def close(self):
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()
        self._log.close()


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def whole(nursery, tmp_path_factory):
    """A folder in which a training of some kind was left alone; each is made once."""
    made = {}

    def make(kind, **options):
        key = json.dumps([kind, options], sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("whole")
            status, text = nursery.run(kind, made[key], **options)
            assert status == 0, text
            made[key].joinpath("output.txt").write_text(text)
        return made[key]

    return make


@pytest.fixture(scope="session")
def assert_same_end():
    """Holds that two trainings came to the same, to the bit."""

    def check(here, there):
        one, other = (np.load(folder / "end.npz") for folder in (here, there))
        assert [name for name in one if one[name].tobytes() != other[name].tobytes()] == []
        assert (here / "end.json").read_text() == (there / "end.json").read_text()
        for name in ("history.csv", "run/history.csv", "run/recipe.json"):  # when gradients are probed, the clock says
            assert (here / name).exists() == (there / name).exists()
            if (here / name).exists():
                assert (here / name).read_text() == (there / name).read_text(), name

    return check


class ByHand:
    """A fit of a small model, whose epochs are told to a checkpoint without training; its weights say the epoch."""

    def __init__(self, folder, **options):
        self.model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        self.model.compile(keras.optimizers.Adam(0.01), "mse")
        self.checkpoint = Checkpoint(folder, **options)
        self.epoch = 0

    def begin(self, *others):
        callbacks = [*others, self.checkpoint]
        self.model.stop_training = False
        self.model.history = keras.callbacks.History()
        self.model.history.epoch, self.model.history.history = [], {}
        for callback in callbacks:
            callback.set_model(self.model)
        for callback in callbacks:
            callback.set_params({"epochs": 99, "steps": 5})
        for callback in callbacks:
            callback.on_train_begin()
        self.epoch = self.model._initial_epoch or 0  # as the loop of `fit` does
        return self

    def run(self, epochs=1):
        for _ in range(epochs):
            self.checkpoint.on_epoch_begin(self.epoch)
            self.epoch += 1
            self.model.set_weights([np.full_like(weight, self.epoch) for weight in self.model.get_weights()])
            self.checkpoint.on_epoch_end(self.epoch - 1, {"loss": 1 / self.epoch})
        return self

    def end(self):
        self.checkpoint.on_train_end()
        return self

    @property
    def weights(self):
        """The epoch that the model's weights are of; 0 for those it was made with."""
        kernel = self.model.get_weights()[0]
        assert np.all(kernel == kernel[0, 0]) or not np.any(kernel == np.round(kernel)), "of several epochs"
        return int(kernel[0, 0]) if np.all(kernel == kernel[0, 0]) else 0


@pytest.fixture
def by_hand():
    return ByHand


@pytest.fixture(scope="session")
def two(tmp_path_factory):
    """A folder with the checkpoints of the second and third epoch."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    ByHand(folder).begin().run(3).end()
    return folder
