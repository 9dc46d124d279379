"""Trainings of one recipe on parts of the training pictures, the frozen part of the network computed once for all."""

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from callbacks.interrupts import Stopped
from callbacks.packing import arrays_to_variables, variables_to_arrays
from zoo.data.collection import Data
from zoo.data.split import Split
from zoo.evaluation.figures import wilson
from zoo.training import caching, fitting, preparing
from zoo.training.caching import Plan
from zoo.training.folder import best_of
from zoo.training.phases import Phase, phases
from zoo.training.recipe import AUTO, Recipe
from zoo.transfer.freezing import freeze, original_rates


def trainings(
    model: str | keras.Model, data: Data, recipe: Recipe, numbers: Sequence[int], seeds: Sequence[int]
) -> tuple[list[dict[str, Any]], Recipe]:
    """Trains once for each seed and number of pictures, on some of the training pictures of `data`.

    Args:
        model: A name, or a Keras model, which stays as it is.
        data: With the image size of the network.
        recipe: Resolved but for `views`.
        numbers: Of pictures, rising.
        seeds: Each decides the pictures, the initial weights and the order.

    Returns:
        A row for each training (pictures, per_class, error on dev, low, high, seed), and the recipe with its `views`
        settled.
    """
    rows: list[dict[str, Any]] = []
    parts, count, began = phases(recipe), len(data.dev), time.monotonic()
    # where keeping outputs changes nothing but the time, it pays over so many trainings; else as `fine_tune` decides
    kept = True if recipe.augment == recipe.mixing == "none" else AUTO
    for seed in seeds:
        network, plans, recipe = _begun(model, data, recipe, parts, kept, seed)
        if not rows:
            for sentence in dict.fromkeys(plan.why for plan in plans):
                print(f"{sentence[0].upper()}{sentence[1:].rstrip('.')}.")
        start = variables_to_arrays(network.variables)
        for pictures in numbers:
            arrays_to_variables(start, network.variables)
            keras.utils.set_random_seed(seed)
            right = _right(network, data, replace(recipe, seed=seed), parts, plans, pictures)
            low, high = wilson(count - right, count)
            error, per_class = (count - right) / count, pictures / len(data.class_names)
            rows.append(dict(pictures=pictures, per_class=per_class, error=error, low=low, high=high, seed=seed))
            spent = time.monotonic() - began
            left = spent / len(rows) * (len(numbers) * len(seeds) - len(rows))
            print(f"  {pictures} pictures, seed {seed}: error {error:.1%} ({spent:.0f} s so far, {left:.0f} s to go)")
    return rows, recipe


def _begun(model, data: Data, recipe: Recipe, parts: Sequence[Phase], kept, seed: int):
    """The network as a training with this seed begins, how each phase is fitted, and the recipe as it is then.

    The plans follow the seed of the recipe, so that views that are kept are the same for all.
    """
    keras.utils.set_random_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        own = isinstance(model, keras.Model)
        network = preparing.checked(copied(model), data) if own else preparing.created(recipe, data)
        for phase in parts:
            freeze(network, phase.freeze)
        plans, recipe = caching.plans(network, data, recipe, parts, kept)
    return network, plans, recipe


def copied(model: keras.Model) -> keras.Model:
    """The same network with the same weights and seeds; the model handed over is left alone."""
    with original_rates(model):
        twin = keras.models.clone_model(model)
    arrays_to_variables(variables_to_arrays(model.variables), twin.variables)
    twin.zoo_weights = getattr(model, "zoo_weights", None)
    return twin


def _right(network, data: Data, recipe: Recipe, parts: Sequence[Phase], plans: Sequence[Plan], pictures: int) -> int:
    """How many pictures of dev are right after a training on so many."""
    part, rows = _part(data, pictures, int(recipe.seed))
    plans = [replace(plan, train=_Rows(plan.train, rows, part.train)) if plan.train else plan for plan in plans]
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            history = fitting.fit(network, part, recipe, parts, plans, (), None, Path(folder), {})
    except Stopped:  # behind a message of the training, which knows no better
        print("That folder was for the moment: a learning curve is begun anew.", file=sys.stderr)
        raise
    return round(history["val_accuracy"][best_of(history)] * len(data.dev))


def _part(data: Data, pictures: int, seed: int) -> tuple[Data, np.ndarray]:
    """The data with some of the training pictures, and their rows among all of them.

    They are gone round as often as comes nearest to the length of an epoch of all.
    """
    part = data.fewer(pictures, seed=seed)
    rounds = max(1, round(len(data.train) / pictures))
    index = pd.Index(np.tile(_index(part), rounds))
    part.train, part.dev = Split(part, "train", index), data.dev
    return part, _index(data).get_indexer(index)


def _index(data: Data) -> pd.Index:
    """Where the manifest has the training pictures, in the split's order."""
    usable = data.manifest.usable
    return usable.index[usable.split == "train"]


class _Rows:
    """Some rows of a way of the frozen part over all training pictures, as `Features` asks for them.

    Args:
        way: The pass over all of them.
        rows: Which ones.
        pictures: The split that they make.
    """

    def __init__(self, way, rows: np.ndarray, pictures: Split):
        self.pictures = pictures
        self.row_bytes = way.row_bytes
        self.entry = self
        self._way, self._rows = way, rows

    def fill(self, views: Sequence[int]) -> list[str]:
        """Computes what is missing, of all pictures."""
        return self._way.fill(views)

    def read(self, view: int, rows: np.ndarray) -> list[np.ndarray]:
        """The features of rows among the chosen ones."""
        return self._way.entry.read(view, self._rows[rows])
