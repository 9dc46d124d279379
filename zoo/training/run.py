"""Run: one training with its folder, which holds everything about it."""

import contextlib
import csv
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

import augment
from zoo.data.collection import Data
from zoo.data.folders import picture_paths
from zoo.data.load import restore
from zoo.data.manifest import read_manifest
from zoo.data.memory import arrays
from zoo.data.pictures import Geometry
from zoo.data.split import Split
from zoo.evaluation import predictions
from zoo.evaluation.predictions import Evaluation
from zoo.files import write_json, write_text, writing
from zoo.models.outputs import checked_probabilities, prediction_table
from zoo.training import caching
from zoo.training.phases import phases
from zoo.training.recipe import Recipe
from zoo.transfer.freezing import freeze

RECIPE, DATA, ENVIRONMENT, MANIFEST = "recipe.json", "data.json", "environment.json", "manifest.csv"
CROSS_ENTROPY = "cross_entropy"  # the loss without penalties, in the history of runs that have some
HISTORY, MODEL = "history.csv", "model.keras"  # the model is written last: where it stands, the run is whole
CHECKPOINTS, GRADIENTS = "checkpoints", "gradients.csv"


class Run:
    """One training, finished.

    Attributes:
        model: The network with the weights of its best epoch; a model that was handed over is trained in place.
        recipe: Every choice, with its reason.
        history: Metric name to a value an epoch, over all phases; `val_` stands for the dev set.
        data: The data, at the size and crop that the network got.
        directory: The run's folder, absolute.
    """

    def __init__(
        self,
        model: keras.Model,
        recipe: Recipe,
        history: dict[str, list[float]],
        data: Data,
        directory: Path,
        cached: bool = False,
    ):
        self.model = model
        self.recipe = recipe
        self.history = history
        self.data = data
        self.directory = directory
        self._cached = cached  # whether the outputs of the frozen part were kept, so that they are used again

    @property
    def class_names(self) -> list[str]:
        """Labels in the order of the network's outputs."""
        return self.data.class_names

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose weights the model has; the last one where there was no dev set."""
        return best_of(self.history) + 1

    def evaluate(self, split: str = "test") -> Evaluation:
        """Figures and a row a picture for "test", "dev" or "train", also written to the folder `evaluation`.

        Raises:
            ValueError: If there is no such split, or it is empty.
        """
        if split not in ("train", "dev", "test"):
            raise ValueError(f'`split` must be "train", "dev" or "test". Received: split={split!r}')
        chosen = getattr(self.data, split)
        if len(chosen) == 0:
            filled = [name for name in ("train", "dev", "test") if len(getattr(self.data, name))]
            raise ValueError(f"This run has no {split} pictures. It has: {', '.join(filled)}.")
        outputs = caching.outputs(self.model, chosen) if self._cached else None
        evaluation = predictions.evaluate(self.model, chosen, outputs=outputs)
        evaluation.save(self.directory / "evaluation")
        return evaluation

    def predict(self, pictures) -> pd.DataFrame:
        """Label and probability a picture.

        Args:
            pictures: A file, a list of files, a folder, an array (n, height, width[, channels]) with pixels 0..255, or
                a split, such as that of `load_data(..., labels=False)`.

        Returns:
            Columns path, label, probability; a picture that cannot be read has an empty label, NaN, and its problem.

        Raises:
            FileNotFoundError: If a file does not exist.
        """
        from zoo.data import reading

        geometry: Geometry = self.data.geometry
        problems: dict[int, str] = {}
        if isinstance(pictures, Data):
            raise TypeError("`pictures` must be files, a folder, an array, or one split of a Data, such as data.test.")
        if isinstance(pictures, Split):
            shape = {"image_size": geometry.size, "crop": geometry.crop, "interpolation": geometry.interpolation}
            pixels = pictures.configured(**shape).pixels()
            names = pictures.relative_paths
        elif isinstance(pictures, np.ndarray):
            if pictures.ndim == 3 and pictures.shape[-1] in (3, 4) and pictures.shape[-1] == geometry.channels:
                raise ValueError(
                    "Pictures must have shape (n, height, width) or (n, height, width, channels); one picture x is "
                    f"x[None]. Received: shape={pictures.shape}"
                )
            pixels = reading.resized(arrays(pictures).source.images, geometry, "Resizing")
            names = [str(row) for row in range(len(pixels))]
        else:
            paths = picture_paths(pictures)
            pixels, problems = reading.read_files(paths, geometry)
            names = [str(path) for path in paths]
        if not names:
            return prediction_table([], np.zeros((0, len(self.class_names))), self.class_names)
        outputs = self.model.predict(pixels, batch_size=32, verbose=0)  # pyright: ignore[reportArgumentType]
        found = checked_probabilities(self.model, outputs)
        found[list(problems)] = np.nan
        return prediction_table(names, found, self.class_names, [problems.get(row, "") for row in range(len(names))])

    def export(self, directory: str | os.PathLike | None = None, formats: Sequence[str] = ("saved_model",)) -> Path:
        """Writes a SavedModel that takes picture files, proven in a fresh process to answer as the model does.

        Args:
            directory: Where to; by default the folder `export` of the run.
            formats: What to write.

        Raises:
            ValueError: If the folder holds something else, or the export answers differently.
        """
        from zoo.export.saved_model import export

        splits = (self.data.test, self.data.dev, self.data.train)
        samples = next(split for split in splits if len(split)).samples(32)
        return export(
            self.model,
            self.directory / "export" if directory is None else directory,
            class_names=self.class_names,
            image_size=self.data.geometry.size,
            preprocessing={name: getattr(self.data, name) for name in ("crop", "interpolation", "background")},
            samples=samples,
            formats=formats,
            facts={"figures": self._figures(), "data_fingerprint": self.data.fingerprint},
        )

    def _figures(self) -> dict:
        """The best epoch's figures, and the headlines of every evaluation that was made."""
        best = self.best_epoch
        figures = {"epoch": best, **{name: values[best - 1] for name, values in self.history.items()}}
        for split in ("train", "dev", "test"):
            path = self.directory / "evaluation" / f"{split}.json"
            if path.exists():
                found = json.loads(path.read_text(encoding="utf-8"))
                figures[split] = {name: found[name] for name in ("pictures", "accuracy", "accuracy_interval", "loss")}
        return figures

    def __repr__(self):
        best = self.best_epoch
        figures = ", ".join(f"{name} {values[best - 1]:.4f}" for name, values in self.history.items())
        return f"<Run {self.directory}: {self.recipe.model}, epoch {best} of {epochs(self.history)}, {figures}>"


def best_of(history: Mapping[str, Sequence[float]]) -> int:
    """The epoch, from 0, with the lowest finite loss on the dev set, penalties left out, or the last one."""
    losses = np.array(history.get(f"val_{CROSS_ENTROPY}", history.get("val_loss", ())), float)
    if not np.isfinite(losses).any():
        return epochs(history) - 1
    return int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))


def epochs(history: Mapping[str, Sequence[float]]) -> int:
    """How many epochs a history holds."""
    return len(next(iter(history.values()), ()))


def finished(directory: Path) -> bool:
    """Whether a folder holds a whole run."""
    return (directory / MODEL).exists() and (directory / HISTORY).exists()


def begun(directory: Path) -> bool:
    """Whether a folder holds a run, whole or not."""
    return (directory / RECIPE).exists()


def noted(directory: Path) -> bool:
    """Whether all is written that is known before the first step."""
    return (directory / MANIFEST).exists()


def write_start(directory: Path, recipe: Recipe, data: Data, environment: dict) -> None:
    """What is known before the first step: the recipe, the data, the machine."""
    write_json(directory / RECIPE, recipe.to_dict())
    write_json(directory / DATA, data.describe())
    write_json(directory / ENVIRONMENT, environment)
    with writing(directory / MANIFEST) as temporary:
        data.manifest.to_csv(temporary)


def write_end(directory: Path, model: keras.Model, history: dict[str, list[float]]) -> None:
    """The history, then the network of the best epoch."""
    table = pd.DataFrame({"epoch": range(1, epochs(history) + 1), **history})
    write_text(directory / HISTORY, table.to_csv(index=False))
    with writing(directory / MODEL) as temporary:
        model.save(temporary)


def load_run(directory: str | os.PathLike, data=None) -> Run:
    """A finished run from its folder.

    Args:
        directory: The run's folder.
        data: Needed only where the pictures cannot be found again: a Data of the same pictures where they were arrays,
            the new folder where they were moved.

    Raises:
        FileNotFoundError: If the folder holds no run, or one that is not finished, or its pictures are gone.
        ValueError: If `data` holds other pictures.
    """
    folder = Path(directory).resolve()
    missing = [name for name in (RECIPE, DATA, MANIFEST, MODEL, HISTORY) if not (folder / name).exists()]
    if not begun(folder):
        raise FileNotFoundError(f"{directory} holds no run: there is no {RECIPE} in it.")
    if missing:
        raise FileNotFoundError(f"The run in {directory} is not whole: {', '.join(missing)} missing. Train it again.")
    recipe = Recipe.load(folder / RECIPE)
    with _naming(folder / DATA):
        description = json.loads((folder / DATA).read_text(encoding="utf-8"))
        for name in ("source", "image_size", "channels", "crop", "interpolation", "fingerprint"):
            description[name]
    with _naming(folder / MANIFEST):
        manifest = read_manifest(folder / MANIFEST)
    with _naming(folder / HISTORY):
        history = _read_history(folder / HISTORY)
    restored = restore(description, manifest, data)
    _ = augment.Policy  # makes all augmentation layers known, which a model that was handed over may hold
    with _naming(folder / MODEL):
        model: Any = keras.saving.load_model(folder / MODEL, compile=False, safe_mode=True)
    model.zoo_weights = recipe.weights
    freeze(model, phases(recipe)[-1].freeze)  # a file does not hold that frozen dropout is silent
    return Run(model, recipe, history, restored, folder, cached=_was_cached(folder))


def mixing_asked(directory: Path) -> str | None:
    """What was asked for in place of the recipe's `mixing`, where that is known."""
    return _recorded(directory, lambda record: record["mixing_asked"])


def environment(directory: Path) -> dict:
    """What was noted of the machine and of decisions when the training began; empty where that cannot be read."""
    return dict(_recorded(directory, lambda record: record) or {})


def fingerprint_at_start(directory: Path) -> str | None:
    """The fingerprint of the model that was handed over, before it was trained."""
    return _recorded(directory, lambda record: record["model_at_start"])


def computed_once(directory: Path) -> list[bool] | None:
    """Whether each phase computes its frozen part once; None where that is not known."""
    return _recorded(directory, lambda record: [bool(part["computed_once"]) for part in record["frozen_part"]])


def _was_cached(directory: Path) -> bool:
    """Whether the last phase of a run computed its frozen part once; a hint, so a missing file says no."""
    return bool((computed_once(directory) or [False])[-1])


def _recorded(directory: Path, find: Callable[[dict], Any]) -> Any:
    """What the record of a run's environment holds; None where there is no such thing."""
    try:
        return find(json.loads((directory / ENVIRONMENT).read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _read_history(path: Path) -> dict[str, list[float]]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name != "epoch"}


@contextlib.contextmanager
def _naming(path: Path):
    """Turns whatever a damaged file leads to into an error that names it."""
    try:
        yield
    except Exception as error:
        what = " ".join(str(error).split())[:200]
        if unknown := re.search(r"Could not locate class '(\w+)'", str(error)):
            raise ValueError(
                f"{path} holds the class {unknown[1]}, which Keras does not know here. Import the module that "
                "registers it, then load the run again."
            ) from error
        raise ValueError(f"{path} is damaged, so the run cannot be loaded ({what}). Train it again.") from error
