"""What lies in a run's folder: names of files, and what is written into them and read back."""

import contextlib
import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from zoo.data.collection import Data
from zoo.files import write_json, write_text, writing
from zoo.training.recipe import Recipe

RECIPE, DATA, ENVIRONMENT, MANIFEST = "recipe.json", "data.json", "environment.json", "manifest.csv"
CROSS_ENTROPY = "cross_entropy"  # the loss without penalties, in the history of runs that have some
HISTORY, MODEL = "history.csv", "model.keras"  # the model is written last: where it stands, the run is whole
CHECKPOINTS, GRADIENTS, EVALUATION = "checkpoints", "gradients.csv", "evaluation"


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


def data_fingerprint(directory: Path) -> str | None:
    """The fingerprint of the data of a run; None where that is not known."""
    return _recorded(directory, lambda record: record["fingerprint"], DATA)


def was_cached(directory: Path) -> bool:
    """Whether the last phase of a run computed its frozen part once; a hint, so a missing file says no."""
    return bool((computed_once(directory) or [False])[-1])


def _recorded(directory: Path, find: Callable[[dict], Any], file: str = ENVIRONMENT) -> Any:
    """What the record of a run's environment, or another one, holds; None where there is no such thing."""
    try:
        return find(json.loads((directory / file).read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def read_history(path: Path) -> dict[str, list[float]]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name != "epoch"}


@contextlib.contextmanager
def naming(path: Path, way: str = "Train it again"):
    """Turns whatever a damaged file leads to into an error that names it, and the way out."""
    try:
        yield
    except Exception as error:
        what = " ".join(str(error).split())[:200]
        if unknown := re.search(r"Could not locate class '(\w+)'", str(error)):
            raise ValueError(
                f"{path} holds the class {unknown[1]}, which Keras does not know here. Import the module that "
                "registers it, then load the run again."
            ) from error
        raise ValueError(f"{path} is damaged, so the run cannot be used ({what}). {way}.") from error
