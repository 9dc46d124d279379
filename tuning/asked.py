"""What a search is asked for: checked, compared with what its folder was begun for, and turned into recipes."""

import contextlib
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import keras

from tuning.loop import now
from tuning.result import COLUMNS
from tuning.space import Space, differences
from zoo.data.collection import Data
from zoo.models.catalog import info
from zoo.training import preparing
from zoo.training.hardware import PACKAGES
from zoo.training.recipe import Recipe
from zoo.training.resuming import model_fingerprint

ALGORITHMS = ("bayesian", "random", "grid", "hyperband")
METRICS = ("accuracy", "loss", "cross_entropy")  # of fine_tune; `val_` before them is the dev set
PENALTIES = ("l1", "l2", "l2_sp")  # with one of them, there is a cross_entropy beside the loss
PICTURE = ("image_size", "channels", "crop", "interpolation", "background")  # what decides how one is read
UNSPEAKABLE = {
    "data": "the pictures, their labels or splits are others",
    "model_fingerprint": "the model that was handed over is another",
}
VERSION = 1  # of the journal


class Asked:
    """What was asked for, checked: what decides the trials, whoever runs them and wherever."""

    def __init__(self, model, data: Data, space: Space, algorithm, objective, direction, pruning, seed, fields):
        self.model = model
        self.own = isinstance(model, keras.Model)
        self.space = space
        self.algorithm = algorithm
        self.objective = objective
        self.direction = direction
        self.pruning = pruning
        self.seed = seed
        self.fields = fields
        recipe = self.recipe(space.defaults)
        self.epochs = int(preparing.resolved(recipe[0] if recipe[0] else model, data, recipe[1]).epochs)
        self._identity = {
            "space_name": space.name,
            "model": "a Keras model" if self.own else model,  # whose name Keras numbers anew in each process
            "model_fingerprint": model_fingerprint(model) if self.own else None,
            "fields": plain(fields),
            "algorithm": algorithm,
            "objective": objective,
            "direction": direction,
            "pruning": pruning,
            "seed": seed,
            "data": data.fingerprint,
            "picture": {name: plain(getattr(data, name)) for name in PICTURE},
            "epochs": self.epochs if algorithm == "hyperband" else None,
        }

    def recipe(self, values: Mapping[str, Any]) -> tuple[str | None, Recipe]:
        """The model (None for one handed over) and the recipe of a trial.

        Raises:
            ValueError: If the space sets what is also fixed for all trials.
        """
        chosen = self.space.fields(dict(values))
        if twice := sorted(set(chosen) & set(self.fields)):
            raise ValueError(
                f"{', '.join(f'`{name}`' for name in twice)} is set for all trials, and space {self.space.name!r} "
                "sets it, too. Leave one out; `tuning.spaces` holds pieces for a space without it."
            )
        model = chosen.pop("model", None if self.own else self.model)
        return model, Recipe().with_fields({"seed": self.seed, **self.fields, **chosen})

    def header(self) -> dict[str, Any]:
        """What is written down when a search begins."""
        return {
            "version": VERSION,
            "time": now(),
            **self._identity,
            "own_model": self.own,
            "space": self.space.describe(),
            **machine(),
        }

    def differing(self, earlier: Mapping[str, Any]) -> list[str]:
        """What a search that was begun with another header was for, in sentences; none where it was for the same."""
        found = []
        for name, here in self._identity.items():
            there = earlier.get(name)
            if there != here:
                found.append(UNSPEAKABLE.get(name, f"{name} is {there!r} there and {here!r} here"))
        return found + differences(earlier["space"], self.space.describe())


def checked(
    model, data, space, algorithm, trials, objective, direction, pruning, workers, seed, limit, fields
) -> Asked:
    """What was asked for, if it can be done.

    Raises:
        TypeError, ValueError: As `search`.
    """
    if not isinstance(data, Data):
        raise TypeError(f"`data` must come from zoo.load_data. Received: {type(data).__name__}")
    if not isinstance(model, (str, keras.Model)):
        raise TypeError(
            f'`model` must be a name of zoo.list_models(), "auto" or a Keras model. Received: {type(model).__name__}'
        )
    if isinstance(model, str) and model != "auto":
        info(model)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"`algorithm` must be one of {', '.join(ALGORITHMS)}. Received: algorithm={algorithm!r}")
    if direction not in ("max", "min"):
        raise ValueError(f'`direction` must be "max" or "min". Received: direction={direction!r}')
    if pruning not in (None, "median"):
        raise ValueError(f'`pruning` must be "median" or None. Received: pruning={pruning!r}')
    if pruning and algorithm == "hyperband":
        raise ValueError('`pruning` is what Hyperband does itself; leave it out, or take algorithm="random".')
    number = 1 if workers == "auto" else workers
    for name, value, least in (("trials", trials, 1), ("seed", seed, 0), ("workers", number, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"`{name}` must be a whole number of at least {least}. Received: {name}={value!r}")
    if limit is not None and not (isinstance(limit, (int, float)) and limit > 0):
        raise ValueError(f"`time_limit` must be a number of seconds above 0. Received: time_limit={limit!r}")
    Recipe().with_fields(fields)
    if "seed" in fields or "model" in fields:
        raise ValueError("`model` and `seed` are arguments of the search itself.")
    taken = Space(space, model)
    if clashing := [item["name"] for item in taken.describe() if item["name"] in COLUMNS]:
        raise ValueError(
            f"A hyperparameter cannot be called {clashing[0]!r}, which is a column of the table of trials. Call it "
            f"'{clashing[0]}_tried', say; the field of the recipe keeps its name."
        )
    asked = Asked(model, data, taken, algorithm, objective, direction, pruning, seed, fields)
    _check_objective(objective, data, asked)
    return asked


def _check_objective(objective: str, data: Data, asked: Asked) -> None:
    """Refuses a metric that no trial will have."""
    _, recipe = asked.recipe(asked.space.defaults)
    has_dev = bool(len(data.dev))
    penalised = any(getattr(recipe, name) not in ("auto", 0) for name in PENALTIES)
    there = [name for name in METRICS if name != "cross_entropy" or penalised]
    there += [f"val_{name}" for name in there] if has_dev else []
    if objective not in there:
        why = " There are no dev pictures to judge by." if not has_dev and str(objective).startswith("val_") else ""
        raise ValueError(f"`objective` must be one of {', '.join(there)}.{why} Received: objective={objective!r}")


def machine() -> dict[str, Any]:
    """Versions and machine, told without waking a device."""
    versions = {}
    for package in (*PACKAGES, "keras-tuner", "scikit-learn"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "backend": keras.backend.backend(),
        "versions": versions,
    }


def plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples as lists, numbers of numpy as numbers."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value
