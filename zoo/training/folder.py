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
LOOKS = "test_looks.json"  # among the evaluations: how often the test set was looked at


def best_of(history: Mapping[str, Sequence[float]]) -> int:
    """The epoch, from 0, with the lowest finite loss on the dev set, penalties left out, or the last one."""
    losses = np.array(history.get(f"val_{CROSS_ENTROPY}", history.get("val_loss", ())), float)
    if not np.isfinite(losses).any():
        return epochs(history) - 1
    return int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))


def epochs(history: Mapping[str, Sequence[float]]) -> int:
    """How many epochs a history holds."""
    return len(next(iter(history.values()), ()))


def epoch_of_recipe(directory: Path, row: int) -> int:
    """The epoch of the recipe, from 1, that is a row of a run's history, from 1: patience may end a phase early."""
    parts = _recorded(directory, lambda record: [(part["first"], part["epochs"]) for part in record["frozen_part"]])
    rest = row
    for first, trained in parts or ():
        if rest <= trained:
            return first + rest
        rest -= trained
    return row


def whole(directory: Path) -> bool:
    """Whether a folder holds a run that `load_run` takes, be it one that was stopped and can go on."""
    return (directory / MODEL).exists() and (directory / HISTORY).exists()


def finished(directory: Path, stop_after: int | None = None) -> bool:
    """Whether a folder holds a whole run with nothing left to train, or nothing before the epoch that is to be last."""
    if not whole(directory):
        return False
    stopped = stopped_after(directory)
    return stopped is None or (stop_after is not None and stop_after <= stopped)


def stopped_after(directory: Path) -> int | None:
    """The epochs of the recipe after which a run was stopped, to go on some day; None where it was not."""
    return _recorded(directory, lambda record: int(record["stopped_after"]))


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


def write_end(directory: Path, model: keras.Model, history: dict[str, list[float]], environment: dict) -> None:
    """The history and what is known of the machine, then the network of the best epoch.

    Where the run was stopped before, that network and its evaluations go once the new network is on disk: they must not
    stand beside the history of another.
    """
    table = pd.DataFrame({"epoch": range(1, epochs(history) + 1), **history})
    with writing(directory / MODEL) as temporary:
        model.save(temporary)
        (directory / MODEL).resolve().unlink(missing_ok=True)
        for path in [*(directory / EVALUATION).glob("*.json"), *(directory / EVALUATION).glob("*.csv")]:
            if path.name != LOOKS:
                path.unlink()
        write_text(directory / HISTORY, table.to_csv(index=False))
        write_json(directory / ENVIRONMENT, environment)


def mixing_asked(directory: Path) -> str | None:
    """What was asked for in place of the recipe's `mixing`, where that is known."""
    return _recorded(directory, lambda record: record["mixing_asked"])


def environment(directory: Path) -> dict:
    """What was noted of the machine and of decisions when the training began; empty where that cannot be read."""
    return dict(_recorded(directory, lambda record: record) or {})


def fingerprint_at_start(directory: Path) -> str | None:
    """The fingerprint of the model that was handed over, before it was trained."""
    return _recorded(directory, lambda record: record["model_at_start"])


def computed_once(directory: Path, phases: int) -> list[bool] | None:
    """Whether each phase computes its frozen part once; None where that is not known.

    Where the end of a training was not written to its end, phases that it left out are not recorded, and do not.
    """
    known = _recorded(directory, lambda record: [bool(part["computed_once"]) for part in record["frozen_part"]])
    return None if known is None else [*known, *[False] * (phases - len(known))]


def data_fingerprint(directory: Path) -> str | None:
    """The fingerprint of the data of a run; None where that is not known."""
    return _recorded(directory, lambda record: record["fingerprint"], DATA)


def was_cached(directory: Path) -> bool:
    """Whether the last phase that ran computed its frozen part once; a hint, so a missing file says no."""
    stopped = stopped_after(directory)

    def find(record):
        return [part["computed_once"] for part in record["frozen_part"] if stopped is None or part["first"] < stopped]

    return bool((_recorded(directory, find) or [False])[-1])


def looks(directory: Path) -> int:
    """How often the test set of a run was evaluated; 0 where that cannot be read."""
    with contextlib.suppress(OverflowError):  # of a file that says infinity
        times = _recorded(directory, lambda record: int(record["times"]), f"{EVALUATION}/{LOOKS}")
        return max(0, times or 0)
    return 0


def _recorded(directory: Path, find: Callable[[dict], Any], file: str = ENVIRONMENT) -> Any:
    """What the record of a run's environment, or another one, holds; None where there is no such thing."""
    try:
        return find(json.loads((directory / file).read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def read_history(path: Path, until: int | None = None) -> dict[str, list[float]]:
    """Metric name to a value an epoch; with `until`, no later ones, such as those of a training that goes on."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if until is None or int(row["epoch"]) <= until]
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
