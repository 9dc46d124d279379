"""Going on with a training whose process ended: what its folder says, and where one phase handed over to the next."""

import contextlib
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import keras
import numpy as np

from callbacks import locking, snapshots
from callbacks.packing import (
    arrays_to_variables,
    pack,
    random_state,
    set_random_state,
    unpack,
    variables_to_arrays,
)
from callbacks.snapshots import Damaged, Position
from zoo.data.collection import Data
from zoo.files import make_folder, shown
from zoo.training import folder as run_folder
from zoo.training.phases import Phase
from zoo.training.recipe import AUTO, Recipe
from zoo.transfer.fingerprint import fingerprint


def holds_run(folder: Path, resume: bool) -> bool:
    """Whether a folder holds a run that is finished, or of which something was saved.

    Raises:
        ValueError: If it holds anything else than a run, or a run that is not to be gone on with.
    """
    if not folder.exists() or (folder.is_dir() and {path.name for path in folder.iterdir()} <= set(locking.FILES)):
        return False
    if folder.is_file() or not run_folder.begun(folder):
        raise ValueError(f"{shown(folder)} exists and is no run. Choose another directory.")
    if not resume:
        raise ValueError(f"{shown(folder)} holds a run already, and resume=False. Choose another directory.")
    saved = run_folder.noted(folder) and any((folder / run_folder.CHECKPOINTS).glob("**/epoch-*"))
    return saved or run_folder.whole(folder)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder.

    Raises:
        OSError: If another process trains there, or the folder cannot be written.
    """
    lock = locking.hold(make_folder(folder))
    try:
        yield
    finally:
        lock.release(force=True)


def settled(folder: Path, model: str | keras.Model, recipe: Recipe, data: Data, cache_features: str | bool) -> Recipe:
    """The recipe as it was settled when the training in a folder began.

    Raises:
        ValueError: If that was another recipe, other data, or another model that was handed over.
    """
    earlier = Recipe.load(folder / run_folder.RECIPE)
    if isinstance(model, keras.Model):
        recipe = replace(recipe, model=earlier.model)  # Keras numbers the names of models in a process
    if recipe.views == AUTO:
        recipe = replace(recipe, views=earlier.views)
    if cache_features is not False and run_folder.mixing_asked(folder) == recipe.mixing:
        recipe = replace(recipe, mixing=earlier.mixing)  # which is none, where outputs were kept
    differing = [
        f"{item.name} is {getattr(earlier, item.name)!r} there and {getattr(recipe, item.name)!r} here"
        for item in fields(recipe)
        if item.compare and getattr(earlier, item.name) != getattr(recipe, item.name)
    ]
    if differing:
        raise ValueError(
            f"{shown(folder)} holds a run of another recipe: {'; '.join(differing)}. Choose another directory."
        )
    there = run_folder.data_fingerprint(folder)
    if there is not None and there != data.fingerprint:
        raise ValueError(f"{shown(folder)} holds a run on other data, or another split. Choose another directory.")
    if isinstance(model, keras.Model):
        begun = run_folder.fingerprint_at_start(folder)
        if begun is None or begun != model_fingerprint(model):
            raise ValueError(
                f"{shown(folder)} holds a run, and whether it began with the model handed over cannot be told, or it "
                "did not. Choose another directory, or take a finished one with zoo.load_run."
            )
    return earlier


def model_fingerprint(model: keras.Model) -> str | None:
    """What decides a model's outputs, in short; None where a layer does not say what it is made of."""
    try:
        return fingerprint(getattr(model, "_functional", None) or model)  # what is inside a Sequential model
    except ValueError:
        return None


@dataclass
class Progress:
    """What the phases behind a training have come to.

    Attributes:
        phase: The one that comes next, from 0.
        history: Metric name to a value an epoch.
        best: The lowest dev loss, infinity where there was none. The model has its weights.
        trained: Epochs that each phase took.
    """

    phase: int
    history: dict[str, list[float]]
    best: float
    trained: list[int]


@dataclass
class Stop:
    """An end before the end.

    Attributes:
        after: Epochs of the recipe after which a training is to stop.
        reached: Those after which it did, with others left to train; None where it did not. An epoch that was begun
            before is ended, so these may be more.
    """

    after: int
    reached: int | None = None


class Handover:
    """The places in a run's folder where its phases save.

    Args:
        folder: The run's.
        phases: All of them.
    """

    def __init__(self, folder: Path, phases: Sequence[Phase]):
        self._folder = folder / run_folder.CHECKPOINTS
        self._phases = phases

    def directory(self, phase: int) -> Path:
        """Where the checkpoints of a phase are."""
        return self._folder / f"phase{phase + 1}"

    def begun(self, phase: int) -> bool:
        """Whether there are checkpoints of a phase."""
        return self.directory(phase).is_dir() and bool(snapshots.positions(self.directory(phase)))

    def save(self, model: keras.Model, progress: Progress) -> None:
        """Notes that a phase begins, with the weights of all before it.

        Raises:
            OSError: If it cannot be written.
        """
        arrays: dict[str, np.ndarray] = {}
        plain = {"phase": progress.phase, "history": progress.history, "best": progress.best}
        plain |= {"trained": progress.trained, "random": random_state()}
        state = pack(plain, arrays, "")
        position = Position(self._phases[progress.phase].first, 0)
        make_folder(self._folder)
        snapshots.write(
            self._folder, position, {"model": variables_to_arrays(model.variables), "state": arrays}, state, {}
        )

    def load(self, model: keras.Model) -> Progress:
        """Gives a model the weights with which its latest phase began; where there is none, it stays as it is."""
        if not self._folder.is_dir():
            return Progress(0, {}, float("inf"), [])
        for position in snapshots.positions(self._folder):
            try:
                found = snapshots.read(self._folder / position.name)
            except Damaged as error:
                warnings.warn(
                    f"{self._folder / position.name} is damaged and not used: {error}.", RuntimeWarning, stacklevel=2
                )
                continue
            arrays_to_variables(found.arrays["model"], model.variables)
            state = unpack(found.state, found.arrays["state"])
            set_random_state(state["random"])
            return Progress(state["phase"], state["history"], state["best"], state.get("trained", []))
        return Progress(0, {}, float("inf"), [])

    def tidy(self) -> None:
        """Leaves the checkpoints of the last phase that ran; a finished training needs no others."""
        for position in snapshots.positions(self._folder) if self._folder.is_dir() else ():
            snapshots.remove(self._folder, position)
        there = [phase for phase in range(len(self._phases)) if self.directory(phase).is_dir()]
        for phase in there[:-1]:
            shutil.rmtree(self.directory(phase), ignore_errors=True)
