"""Run: one training with its folder, which holds everything about it."""

import json
import os
import re
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from zoo.files import write_json, writing
from zoo.models.outputs import checked_probabilities, prediction_table
from zoo.training import caching
from zoo.training.folder import (
    DATA,
    EVALUATION,
    HISTORY,
    LOOKS,
    MANIFEST,
    MODEL,
    RECIPE,
    begun,
    best_of,
    data_fingerprint,
    epochs,
    looks,
    naming,
    read_history,
    stopped_after,
    was_cached,
)
from zoo.training.phases import phases
from zoo.training.recipe import Recipe
from zoo.transfer.freezing import freeze

if TYPE_CHECKING:
    from zoo.evaluation.calibration import Calibration
    from zoo.evaluation.diagnosis import Diagnosis


class Run:
    """One training, finished, or stopped to go on some day.

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

    def evaluate(
        self, split: str | Split = "test", *, augment: str = "none", views: int = 4, save: bool = True
    ) -> Evaluation:
        """Figures and a row a picture for "test", "dev" or "train", also written to the folder `evaluation`.

        That the test set is looked at is counted, written or not: the more often something was decided by its figures,
        the less they say of new pictures. A report with them in its headline is a look, too.

        Args:
            split: A name; or the split of other pictures, such as `zoo.load_data("new").train`, of classes of the run
                or without labels, of which nothing is written.
            augment: Test-time augmentation: name of the policy under which each picture is seen `views` times more.
                What is written then bears both in its name.
            views: Augmented versions of each picture.
            save: Whether to write at all.

        Raises:
            TypeError: If `augment` is no name; `zoo.evaluate(run.model, ...)` takes layers.
            ValueError: If there is no such split, it is empty, or it has a class that the run has not.
        """
        if not isinstance(augment, str):
            raise TypeError(
                '`augment` must be the name of a policy, such as "light"; zoo.evaluate(run.model, run.data.test, '
                f"augment=...) takes layers. Received: {type(augment).__name__}"
            )
        seen = {"augment": augment, "views": views, "seed": int(self.recipe.seed)}
        if isinstance(split, Split):
            return predictions.evaluate(self.model, self._sized(split), class_names=self.class_names, **seen)
        evaluation = self._evaluated(split, seen, save)
        if split == "test":
            self._count_look()
        return evaluation

    def _evaluated(self, split: str, seen: dict[str, Any], save: bool = True) -> Evaluation:
        """Figures of one of the run's splits, as `evaluate` has them, not counted."""
        if split not in ("train", "dev", "test"):
            raise ValueError(f'`split` must be "train", "dev" or "test". Received: split={split!r}')
        chosen = getattr(self.data, split)
        if len(chosen) == 0:
            filled = [name for name in ("train", "dev", "test") if len(getattr(self.data, name))]
            raise ValueError(f"This run has no {split} pictures. It has: {', '.join(filled)}.")
        outputs = caching.outputs(self.model, chosen) if self._cached else None
        evaluation = predictions.evaluate(self.model, chosen, outputs=outputs, **seen)
        if save:
            how = "" if seen["augment"] == "none" else f"-{seen['augment']}-{seen['views']}"
            evaluation.save(self.directory / EVALUATION, f"{split}{how}")
        return evaluation

    @property
    def test_looks(self) -> int:
        """How often the test set was evaluated, in this process or another; 0 where that is not known."""
        return looks(self.directory)

    def _count_look(self) -> None:
        """Notes that the test set was looked at."""
        noted = {"times": self.test_looks + 1, "last": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            write_json(self.directory / EVALUATION / LOOKS, noted)
        except OSError as error:
            warnings.warn(f"This look at the test set could not be counted: {error}", RuntimeWarning, stacklevel=3)

    def diagnose(self, *, human_error: float = 0.0, train_dev=None) -> "Diagnosis":
        """Underfitting, overfitting, both or neither, and what to do next; see `zoo.diagnose`."""
        from zoo.evaluation.diagnosis import diagnose

        return diagnose(self, human_error=human_error, train_dev=train_dev)

    def calibrate(self) -> "Calibration":
        """Makes probabilities mean what they say: fits a temperature on dev and puts it into the model.

        The model is then another object, with the layer `head_temperature` (Guo et al. 2017), and is written to the
        folder, so that evaluation, prediction and export go on agreeing; labels stay as they were. Evaluations that
        were written before are made again; a report and an export are not. Those of the test set are no further looks
        at it: which answers are right stays as it was.

        Raises:
            ValueError: If there are no dev pictures, or the model does not end in a softmax or in logits.
        """
        from zoo.evaluation.calibration import calibrate

        found = calibrate(self.model, self.evaluate("dev"))
        with writing(self.directory / MODEL) as temporary:
            found.model.save(temporary)
        self.model = found.model
        write_json(self.directory / EVALUATION / "calibration.json", found.figures())
        for path in sorted((self.directory / EVALUATION).glob("*.json")):
            if name := re.fullmatch(r"(train|dev|test)(?:-([a-z]+)-([0-9]+))?", path.stem):
                seen = {"augment": name[2] or "none", "views": int(name[3] or 1), "seed": int(self.recipe.seed)}
                self._evaluated(name[1], seen)
        return found

    def report(self, *, compare: "Run | str | os.PathLike | None" = None, importance: bool = False) -> Path:
        """Writes `report.html`: one page with figures, verdict, next steps, curves, worst pictures and what was done.

        Its headline is the test set where that has been evaluated, and else the dev set.

        Args:
            compare: Another run on the same data, or its folder, to compare with picture by picture.
            importance: Take out each block of the network to see what it is worth, which takes a minute or more.

        Returns:
            The page, which needs nothing beside it. Its figures are in the folder `evaluation`, too.

        Raises:
            ValueError: If the other run has other pictures.
            OSError: If it cannot be written; an earlier page stays.
        """
        from zoo.evaluation.report import report

        other = compare
        if isinstance(compare, (str, os.PathLike)):  # its pictures may be arrays, or have moved with this run's
            same = data_fingerprint(Path(compare)) == self.data.fingerprint
            other = load_run(compare, self.data if same else None)
        return report(self, compare=other, importance=importance)

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
            pixels = self._sized(pictures).pixels()
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

    def _sized(self, split: Split) -> Split:
        """A split prepared as the pictures of this run are."""
        geometry = self.data.geometry
        return split.configured(image_size=geometry.size, crop=geometry.crop, interpolation=geometry.interpolation)

    def _figures(self) -> dict:
        """The best epoch's figures, and the headlines of every evaluation that was made."""
        best = self.best_epoch
        figures = {"epoch": best, **{name: values[best - 1] for name, values in self.history.items()}}
        for split in ("train", "dev", "test"):
            path = self.directory / EVALUATION / f"{split}.json"
            if path.exists():
                names = ("pictures", "accuracy", "accuracy_interval", "loss")
                with naming(path, f'run.evaluate("{split}") makes it again'):
                    found = json.loads(path.read_text(encoding="utf-8"))
                    figures[split] = {name: found[name] for name in names}
        return figures

    def __repr__(self):
        best = self.best_epoch
        figures = ", ".join(f"{name} {values[best - 1]:.4f}" for name, values in self.history.items())
        return f"<Run {self.directory}: {self.recipe.model}, epoch {best} of {epochs(self.history)}, {figures}>"


def load_run(directory: str | os.PathLike, data=None) -> Run:
    """A run from its folder, finished or stopped by `stop_after`.

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
    with naming(folder / DATA):
        description = json.loads((folder / DATA).read_text(encoding="utf-8"))
        for name in ("source", "image_size", "channels", "crop", "interpolation", "fingerprint"):
            description[name]
    with naming(folder / MANIFEST):
        manifest = read_manifest(folder / MANIFEST)
    with naming(folder / HISTORY):
        stopped = stopped_after(folder)
        history = read_history(folder / HISTORY, stopped)
    restored = restore(description, manifest, data)
    _ = augment.Policy  # makes all augmentation layers known, which a model that was handed over may hold
    with naming(folder / MODEL):
        model: Any = keras.saving.load_model(folder / MODEL, compile=False, safe_mode=True)
    model.zoo_weights = recipe.weights
    ran = [phase for phase in phases(recipe) if stopped is None or phase.first < stopped]
    freeze(model, ran[-1].freeze)  # a file does not hold that frozen dropout is silent
    return Run(model, recipe, history, restored, folder, cached=was_cached(folder))
