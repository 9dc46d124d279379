"""fine_tune: a network and data in, a fitted and documented run out; all of it around `model.fit`."""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import keras

from callbacks.locking import InUse
from zoo.data.collection import Data
from zoo.files import make_folder, new_folder, shown
from zoo.models.temperature import temperature_of, with_temperature
from zoo.progress import timed
from zoo.training import augmenting, caching, fitting, hardware, preparing, resuming
from zoo.training import folder as run_folder
from zoo.training.phases import phases
from zoo.training.recipe import Recipe
from zoo.training.run import Run, load_run
from zoo.transfer.freezing import freeze, original_rates


def fine_tune(
    model: str | keras.Model,
    data: Data,
    *,
    recipe: Recipe | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    cache_features: str | bool = "auto",
    directory: str | os.PathLike | None = None,
    time_limit: float | None = None,
    stop_after: int | None = None,
    resume: bool = True,
    **given,
) -> Run:
    """Fits a network to pictures and writes everything about it into a folder.

    Pre-trained networks are trained in two phases: the head alone, then all that is not frozen at a tenth of the rate;
    `freeze=("large", "medium", "small")` unfreezes them gradually, in phases of equal length. The dev set is watched;
    the run ends on the weights of the epoch with the lowest loss there. The test set is not touched.

    What the frozen part of the network gives for each picture is computed once and kept on disk, where measured time
    and size speak for it. The training is the same; only with augmentation and fewer `views` than epochs, pictures come
    round again. What was decided is printed and stands in `environment.json`, the views also in the recipe.

    Args:
        model: A name of `zoo.list_models()`; "auto"; or a Keras model that ends in one output a class.
        data: From `zoo.load_data`.
        recipe: Choices to start from, such as another run's `run.recipe`.
        callbacks: Callbacks of your own, handed to every `fit`.
        cache_features: "auto" keeps the frozen part's outputs where that saves time, but not with callbacks that are
            not of our `callbacks`: they would be handed a part of the network. True keeps them wherever there is room,
            False never.
        directory: The run's folder; by default a new `runs/NAME-N`. Where it holds the finished run of the same recipe
            and data, that is returned; one that was cut short goes on where it was, to the same end. So does a copy.
        time_limit: Seconds that this call may train; an epoch in which they run out is cut short, and the run is
            finished then. A run that is resumed has all of them again.
        stop_after: Epochs of the recipe after which this call stops; schedule, phases and patience stay those of the
            whole. The folder holds a run then, with the best epoch so far, which the same call with more of them or
            none goes on with, to the end that it would have come to at once; with as many or fewer it returns that
            run. `load_run` gives it until the longer one is written, a call that is killed meanwhile or not; then its
            evaluations go, and a report and an export stay as they were. A begun epoch is ended.
        resume: False refuses a folder that holds a run.
        **given: Fields of `Recipe`, such as epochs=20, freeze="large", weights="imagenet", seed=0.

    Raises:
        TypeError: If a field is unknown, `data` is no Data, or `stop_after` is no whole number.
        ValueError: If a field is out of range, the model does not fit the data, or the folder holds something else,
            such as a run of another recipe, on other data or from another model.
        FileNotFoundError: If weights are neither there nor can be fetched.
        OSError: If the folder cannot be written, or another process trains in it.

    Example:
        run = zoo.fine_tune("mobilenet_v2", zoo.load_data("photos"), epochs=20)
    """
    started = time.monotonic()
    if not isinstance(data, Data):
        raise TypeError(f"`data` must come from zoo.load_data. Received: {type(data).__name__}")
    if recipe is not None and not isinstance(recipe, Recipe):
        raise TypeError(f"`recipe` must be a zoo.Recipe, such as run.recipe. Received: {type(recipe).__name__}")
    if time_limit is not None and not (isinstance(time_limit, (int, float)) and time_limit > 0):
        raise ValueError(f"`time_limit` must be a number of seconds above 0. Received: time_limit={time_limit!r}")
    if stop_after is not None:
        _check_epochs(stop_after)
    callbacks = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks)
    if cache_features not in ("auto", True, False):
        raise ValueError(f'`cache_features` must be "auto", True or False. Received: {cache_features!r}')
    recipe = preparing.resolved(model, data, (recipe or Recipe()).with_fields(given))
    data = preparing.configured(data, recipe)
    folder = None if directory is None else Path(directory).resolve()
    begun = folder is not None and resuming.holds_run(folder, resume)
    if folder is not None and begun:
        recipe = resuming.settled(folder, model, recipe, data, cache_features)
        if run_folder.finished(folder, stop_after):
            stopped = run_folder.stopped_after(folder)
            how = f"stopped after {stopped} of {recipe.epochs} epochs" if stopped else "finished"
            print(f"{shown(folder)} holds this run already, {how}.")
            return _finished(folder, model, data)
    with contextlib.ExitStack() as stack:
        if folder is not None and begun:
            stack.enter_context(resuming.held(folder))
            if run_folder.finished(folder, stop_after):  # by another process, until just now
                return _finished(folder, model, data)
        own = isinstance(model, keras.Model)
        keras.utils.set_random_seed(int(recipe.seed))
        spent: dict[str, float] = {}
        with timed(spent, "building the network"):
            network = preparing.checked(model, data) if own else preparing.created(recipe, data)
        for finding in augmenting.findings(network, recipe) if own else ():
            print(finding)
        parts = phases(recipe)
        for phase in parts:
            freeze(network, phase.freeze)  # refuses what it cannot place before anything is written
        asked, earlier = recipe.mixing, None
        if folder is not None and begun:
            earlier = run_folder.computed_once(folder, len(parts))
        with timed(spent, "measuring what to compute once"):
            plans, recipe = caching.plans(network, data, recipe, parts, cache_features, callbacks, time_limit, earlier)
        if folder is None or not begun:
            folder = new_folder(Path("runs").resolve(), recipe.model) if folder is None else make_folder(folder)
            stack.enter_context(resuming.held(folder))
            if resuming.holds_run(folder, resume):
                raise InUse(f"{shown(folder)} was begun by another process meanwhile. The same call goes on with it.")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if begun:
            record = run_folder.environment(folder)
            record.setdefault("resumed", []).append(now)
            run_folder.write_json(folder / run_folder.ENVIRONMENT, record)
        else:
            frozen = [{**asdict(phase), **plan.record()} for phase, plan in zip(parts, plans, strict=True)]
            record = {"started": now, **hardware.environment(), "mixing_asked": asked, "frozen_part": frozen}
            record["model_at_start"] = resuming.model_fingerprint(network) if own else None
            run_folder.write_start(folder, recipe, data, record)
        print(f"{shown(folder)}\n{recipe}\n")

        deadline = None if time_limit is None else started + time_limit
        stop = None if stop_after is None else resuming.Stop(stop_after)
        history = fitting.fit(network, data, recipe, parts, plans, callbacks, deadline, folder, spent, stop)
        stopped = stop and stop.reached
        handover = resuming.Handover(folder, parts)
        ran = [number for number in range(len(parts)) if number == 0 or handover.begun(number) or stopped]
        record["frozen_part"] = [{**asdict(parts[number]), **plans[number].record()} for number in ran]
        record.pop("stopped_after", None)
        record["seconds"] = round(time.monotonic() - started, 1)  # of the process that ended it, as are its parts
        record["time"] = {what: round(seconds, 2) for what, seconds in spent.items()}
        if stopped:
            record["stopped_after"] = stopped
            print(f"Stopped after {stopped} of {recipe.epochs} epochs, as was asked for.")
        with original_rates(network):
            run_folder.write_end(folder, network, history, record)
        if not stopped:
            handover.tidy()
        return Run(network, recipe, history, data, folder, cached=run_folder.was_cached(folder))


def _check_epochs(stop_after) -> None:
    if isinstance(stop_after, bool) or not isinstance(stop_after, int):
        raise TypeError(f"`stop_after` must be a whole number of epochs, or None. Received: stop_after={stop_after!r}")
    if stop_after < 1:
        raise ValueError(f"`stop_after` must be at least 1 epoch, or None. Received: stop_after={stop_after}")


def _finished(folder: Path, model: str | keras.Model, data: Data) -> Run:
    """The run of a folder; a model that was handed over is trained in place, as ever."""
    run = load_run(folder, data)
    if isinstance(model, keras.Model):
        model.set_weights(run.model.get_weights())
        factor = temperature_of(run.model)
        run.model = model if factor is None else with_temperature(model, factor)
    return run
