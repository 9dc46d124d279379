"""compare_optimizers: each optimizer at its own best rate, over several seeds, and whether they differ at all."""

import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from tuning import reference
from tuning.asked import changed, machine
from tuning.journal import Journal
from tuning.loop import SearchStopped, checked_executor, now, run_all
from tuning.optimizer_comparison import OptimizerComparison
from tuning.place import REFERENCE, TRIALS, folder_of, held, hired
from tuning.result import dev_loss
from tuning.space import plain
from tuning.trial import NOT_FINITE
from zoo.data.collection import Data
from zoo.files import shown
from zoo.training import preparing
from zoo.training.folder import HISTORY, read_history
from zoo.training.recipe import Recipe
from zoo.training.resuming import model_fingerprint
from zoo.transfer.fingerprint import digest

# The middle of each one's grid. Adam: Kingma and Ba 2015; RMSprop: Hinton 2012; momentum: Bengio 2012,
# https://arxiv.org/abs/1206.5533; SGD without it: ten times that, since a momentum of 0.9 adds steps up to ten times
# their length; AdaGrad: PyTorch's default, for that of Keras, 0.001, hardly moves.
USUAL = {"sgd": 1e-1, "momentum": 1e-2, "adagrad": 1e-2, "rmsprop": 1e-3, "adam": 1e-3, "adamw": 1e-3}
EXTENSIONS = 2  # rates beyond the grid that are tried where the best one lies at its edge
ASIDE = 1_000_000  # added to the seed while rates are searched: no training that chose a rate is also judged
OWN = ("model", "optimizer", "learning_rate", "seed")  # fields that the comparison sets

Train = Callable[[Sequence[tuple[str, float, int]]], list[dict]]  # (optimizer, rate, seed) each -> a result each


def compare_optimizers(
    model: str | keras.Model,
    data: Data,
    optimizers: Sequence[str] = tuple(USUAL),
    *,
    seeds: int = 3,
    rates: int = 5,
    workers: int | str = "auto",
    executor: Executor | None = None,
    directory: str | os.PathLike | None = None,
    seed: int = 0,
    resume: bool = True,
    **fields,
) -> OptimizerComparison:
    """Trains with each optimizer at the best of its own learning rates, several times over, all else being equal.

    First each one's rates are searched on a grid of half-decades around its usual one, by the highest dev accuracy,
    then the lowest dev loss; where the best lies at the edge, the grid goes on there by up to two. Then come the
    trainings that are compared, with the seeds `seed`, `seed` + 1 and so on; those of the search have another one, or
    each optimizer would be judged by the luck that chose its rate. What else an optimizer has (momentum, beta2, weight
    decay) stays as it usually is, and one tuned there, too, may fare better. Ranks turn with how much is tuned: Choi et
    al. 2019, https://arxiv.org/abs/1910.05446.

    A comparison that was interrupted goes on by the same call; a finished one returns at once; with more optimizers,
    rates or seeds, only the new trainings are run. A rate that diverges is a training that failed, and is counted. The
    test set is not touched.

    Args:
        model: As in `tuning.search`.
        data: From `zoo.load_data`, with a dev set.
        optimizers: Two or more of sgd, momentum (SGD with Nesterov's), adagrad, rmsprop, adam, adamw.
        seeds: Trainings of each that are compared.
        rates: Of each that are tried, 2 or more; half-decades, so that five span two powers of ten.
        workers: Processes, or "auto".
        executor: Runs the trainings in place of processes of our own, as in `tuning.search`.
        directory: Folder of the comparison; by default a new `runs/comparison-N`.
        seed: The first one.
        resume: False refuses a folder that holds a comparison.
        **fields: Fields of `zoo.Recipe` for all trainings, such as epochs=10, freeze="large".

    Returns:
        Table, curves and plot; the folder has them as table.csv, curves.csv, trainings.csv, plot.png and
        comparison.json.

    Raises:
        TypeError: If an argument is of the wrong kind, or a field is unknown.
        ValueError: If an argument is out of range, there is no dev set, a field does not fit one of the optimizers, or
            the folder holds something else; the message shows the difference.
        tuning.loop.SearchStopped: If no training succeeds; after those at the usual rates where none of them diverged.
        OSError: If another process works in the folder, or it cannot be written.

    Example:
        print(tuning.compare_optimizers("mobilenet_v2", data, seeds=3, epochs=10))
    """
    names = _checked(model, data, optimizers, seeds, rates, seed, fields)
    if executor is not None:
        checked_executor(executor)
    about = _about(model, data, fields)
    folder = folder_of(directory, what="comparison", resume=resume)
    with held(folder), hired(executor, workers, folder) as chosen:
        _begin(folder, model, data, about)

        def train(wishes: Sequence[tuple[str, float, int]]) -> list[dict]:
            orders = [_order(folder, model, about["fields"], *wish) for wish in wishes]
            return run_all(orders, directory=folder, executor=chosen)

        print(f"{shown(folder)}: {len(names)} optimizers, {rates} rates each or some more, one training a rate")
        searched = _search(names, rates, seed + ASIDE, train)
        _check_some([result for tried in searched.values() for result in tried.values()])
        best = {name: _rate(name, step) for name in names if (step := _best(searched[name])) is not None}
        wishes = [(name, rate, seed + i) for name, rate in best.items() for i in range(seeds)]
        print(f"Best rates: {', '.join(f'{name} {rate:g}' for name, rate in best.items())}; {seeds} trainings each now")
        compared = list(zip(wishes, train(wishes), strict=True))
        _check_some([result for _, result in compared])
        trainings, curves = _trainings(searched, compared), _curves(folder, compared)
        comparison = OptimizerComparison(trainings, curves, len(data.dev), about)
        comparison.save(folder)
    return comparison


def _checked(model, data, optimizers, seeds, rates, seed, fields) -> list[str]:
    """The optimizers, if all that was asked for can be done."""
    if not isinstance(data, Data):
        raise TypeError(f"`data` must come from zoo.load_data. Received: {type(data).__name__}")
    names = [optimizers] if isinstance(optimizers, str) else list(optimizers)
    for name in names:
        if name not in USUAL:
            near = difflib.get_close_matches(str(name), USUAL, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(USUAL)}."
            raise ValueError(f"No optimizer is called {name!r}. {hint}")
    if len(set(names)) < len(names) or len(names) < 2:
        raise ValueError(f"`optimizers` must name two or more, each once. Received: {', '.join(names) or 'none'}")
    for what, value, least in (("seeds", seeds, 1), ("rates", rates, 2), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"`{what}` must be a whole number of at least {least}. Received: {what}={value!r}")
    if own := [name for name in OWN if name in fields]:
        raise ValueError(
            f"`{own[0]}` is what a comparison of optimizers sets itself. Leave it out"
            f"{'; `rates` says how many are tried.' if own[0] == 'learning_rate' else '.'}"
        )
    for name in names:  # what one of them has no use for, such as momentum=, is refused before anything runs
        recipe = Recipe().with_fields({**fields, "optimizer": name})
        preparing.resolved(model, data, recipe)
    if not len(data.dev):
        raise ValueError(
            "Optimizers are compared on a dev set, and this data has none. Load it with split=(0.7, 0.15, 0.15)."
        )
    return names


def _about(model, data: Data, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What all trainings of a comparison have in common."""
    if isinstance(model, keras.Model):
        known = model_fingerprint(model) or digest(*(np.asarray(weight) for weight in model.weights))
        model = f"a model handed over ({known[:8]})"
    return {
        "model": model,
        "fields": plain(fields),
        "data": data.fingerprint,
        "picture": plain([data.image_size, data.channels, data.crop, data.interpolation, data.background]),
    }


def _begin(folder: Path, model, data: Data, about: dict[str, Any]) -> None:
    """Writes down what a folder is for, with data and model where other processes find them; or compares it.

    Raises:
        ValueError: If the folder was begun for something else.
    """
    journal = Journal(folder)
    try:
        events = journal.events()
        if not events:
            reference.save(model, data, folder / REFERENCE)
            journal.append({"event": "comparison", "time": now(), **about, **machine()})
            return
    finally:
        journal.close()
    there = events[0]
    if there["event"] != "comparison":
        raise ValueError(f"{shown(folder)} holds a search and no comparison. Choose another directory.")
    differing = [f"model is {there['model']!r} there and {about['model']!r} here"] * (there["model"] != about["model"])
    differing += [
        f"{name} is {old!r} there and {new!r} here" for name, old, new in changed(there["fields"], about["fields"])
    ]
    if any(there[name] != about[name] for name in ("data", "picture")):
        differing.append("the pictures, their size, their labels or their splits are others")
    if differing:
        raise ValueError(
            f"{shown(folder)} holds a comparison of something else: {'; '.join(differing)}. Choose another directory."
        )


def _search(names: Sequence[str], rates: int, seed: int, train: Train) -> dict[str, dict[int, dict]]:
    """The result of each rate that was tried, by half-decades from the optimizer's usual one.

    Raises:
        SearchStopped: If none succeeds at its usual rate, for reasons that no other rate could mend.
    """
    found: dict[str, dict[int, dict]] = {name: {} for name in names}

    def tried(wanted: Sequence[tuple[str, int]]) -> list[dict]:
        results = train([(name, _rate(name, step), seed) for name, step in wanted])
        for (name, step), result in zip(wanted, results, strict=True):
            found[name][step] = result
        return results

    grid = sorted((step - rates // 2 for step in range(rates)), key=lambda step: (abs(step), step))
    usual = tried([(name, grid[0]) for name in names])
    if all(result["kind"] != NOT_FINITE for result in usual):  # where one diverged, a lower rate may help
        _check_some(usual)
    wanted = [(name, step) for step in grid[1:] for name in names]
    for _ in range(1 + EXTENSIONS):
        tried(wanted)
        wanted = [(name, step) for name in names if (step := _beyond(found[name])) is not None]
    return found


def _beyond(tried: Mapping[int, dict]) -> int | None:
    """The step behind the edge at which the best one lies; None where it does not."""
    best = _best(tried)
    return {None: None, max(tried): max(tried) + 1, min(tried): min(tried) - 1}.get(best)


def _best(tried: Mapping[int, dict]) -> int | None:
    """The step with the highest accuracy, then the lowest loss; None where all failed."""
    completed = [step for step, result in tried.items() if result["status"] == "completed"]
    return min(completed, key=lambda step: (-tried[step]["score"], dev_loss(tried[step]["metrics"])), default=None)


def _rate(name: str, step: int) -> float:
    """The rate so many half-decades from the usual one, in three figures."""
    return float(f"{USUAL[name] * 10 ** (step / 2):.3g}")


def _order(folder: Path, model, fields: Mapping[str, Any], name: str, rate: float, seed: int) -> dict[str, Any]:
    """A training as `tuning.trial.run` takes it; its name says all that sets it apart from the others."""
    trial = f"{name}-{rate:g}-{seed}"
    return {
        "trial": trial,
        "folder": str(folder / TRIALS / trial),
        "reference": str(folder / REFERENCE),
        "model": None if isinstance(model, keras.Model) else model,
        "fields": {**fields, "optimizer": name, "learning_rate": rate, "seed": seed},
        "objective": "val_accuracy",
        "direction": "max",
        "stop_after": None,
        "continues": None,
        "thresholds": None,
    }


def _check_some(results: Sequence[dict]) -> None:
    """Ends a comparison of nothing."""
    if all(result["status"] != "completed" for result in results):
        raise SearchStopped(f"No training succeeded, so there is nothing to compare: {results[-1]['reason']}")


def _trainings(searched: Mapping[str, Mapping[int, dict]], compared: Sequence[tuple]) -> pd.DataFrame:
    """A row a training: those of the search by optimizer and rate, then those that are compared."""
    rows = []
    for name, tried in searched.items():
        for step in sorted(tried):
            rows.append((name, "search", _rate(name, step), tried[step]))
    rows += [(name, "compared", rate, result) for (name, rate, _), result in compared]
    return pd.DataFrame(
        {
            "optimizer": name,
            "part": part,
            "rate": rate,
            "seed": int(result["trial"].rsplit("-", 1)[1]),
            "status": result["status"],
            "accuracy": result["score"] if result["status"] == "completed" else math.nan,
            "loss": dev_loss(result["metrics"]) if result["status"] == "completed" else math.nan,
            "epochs": result["epochs"],
            "best_epoch": result["best_epoch"],
            "seconds": result["seconds"],
            "trial": result["trial"],
            "reason": result["reason"],
        }
        for name, part, rate, result in rows
    )


def _curves(folder: Path, compared: Sequence[tuple]) -> pd.DataFrame:
    """A row an epoch of each training that is compared: optimizer, rate, seed, epoch, and every metric."""
    tables = []
    for (name, rate, seed), result in compared:
        if result["status"] == "completed":
            history = read_history(folder / TRIALS / result["trial"] / result["attempt"] / HISTORY)
            table = pd.DataFrame(history)
            place = {"optimizer": name, "rate": rate, "seed": seed, "epoch": range(1, len(table) + 1)}
            tables.append(pd.DataFrame(place).join(table))
    return pd.concat(tables, ignore_index=True)
