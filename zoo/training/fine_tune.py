"""fine_tune: a network and data in, a fitted and documented run out; all of it around `model.fit`."""

import contextlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from callbacks import CosineDecay, EarlyStopping, TimeBudget
from zoo.data import pipeline
from zoo.data.collection import Data
from zoo.files import make_folder, shown
from zoo.models.catalog import CATALOG, find_tag, info
from zoo.models.outputs import checked_probabilities, gives_logits
from zoo.models.registry import create
from zoo.progress import interactive
from zoo.training import hardware
from zoo.training import run as run_folder
from zoo.training.recipe import AUTO, Facts, Recipe, resolve
from zoo.training.run import Run, load_run
from zoo.transfer.freezing import freeze, original_rates

HEAD_SHARE = 0.25  # of the epochs, for the head alone, before pre-trained weights move
BODY_RATE = 0.1  # of the learning rate, once they do
WEIGHT_DECAY = 0.01  # of AdamW; biases and batch normalisation are left out (Loshchilov and Hutter 2019)
PATIENCE = 0.4  # of a phase's epochs without a better dev loss; a cosine gains most near its end
OPTIMIZERS = {
    "adamw": lambda rate: keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY),
    "adam": lambda rate: keras.optimizers.Adam(rate),
    "sgd": lambda rate: keras.optimizers.SGD(rate),
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "rmsprop": lambda rate: keras.optimizers.RMSprop(rate),
    "adagrad": lambda rate: keras.optimizers.Adagrad(rate),
}


@dataclass(frozen=True)
class Phase:
    """A part of a training: what is held still, for which epochs (from 0, end excluded), at which rate."""

    freeze: str
    first: int
    last: int
    rate: float


def fine_tune(
    model: str | keras.Model,
    data: Data,
    *,
    recipe: Recipe | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    cache_features: str | bool = "auto",
    directory: str | os.PathLike | None = None,
    time_limit: float | None = None,
    resume: bool = True,
    **given,
) -> Run:
    """Fits a network to pictures and writes everything about it into a folder.

    Pre-trained networks are trained in two phases: the head alone, then all that is not frozen at a tenth of the rate.
    The dev set is watched; the run ends on the weights of the epoch with the lowest loss there. The test set is not
    touched.

    Args:
        model: A name of `zoo.list_models()`; "auto"; or a Keras model that ends in one output a class.
        data: From `zoo.load_data`.
        recipe: Choices to start from, such as another run's `run.recipe`.
        callbacks: Callbacks of your own, handed to every `fit`.
        cache_features: "auto" or False. The frozen part is computed anew each epoch; nothing is cached yet.
        directory: The run's folder; by default a new `runs/NAME-N`. Where it holds the finished run of the same recipe
            and data, that is returned; one that was cut short is trained anew.
        time_limit: Seconds after which training stops at the end of an epoch.
        resume: False refuses a folder that holds a run.
        **given: Fields of `Recipe`, such as epochs=20, freeze="large", weights="imagenet", seed=0.

    Raises:
        TypeError: If a field is unknown, or `data` is no Data.
        ValueError: If a field is out of range, the model does not fit the data, or the folder holds something else.
        FileNotFoundError: If weights are neither there nor can be fetched.
        OSError: If the folder cannot be written.

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
    callbacks = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks)
    if cache_features not in ("auto", False):
        raise ValueError(f'`cache_features` must be "auto" or False in this version. Received: {cache_features!r}')
    recipe = _resolved(model, data, (recipe or Recipe()).with_fields(given))
    data = _configured(data, recipe)
    folder = None if directory is None else Path(directory).resolve()
    if folder is not None and (whole := _earlier_run(folder, model, recipe, data, resume)):
        print(f"{shown(folder)} holds this run already, finished.")
        return whole

    keras.utils.set_random_seed(recipe.seed)
    network = model if isinstance(model, keras.Model) else _created(recipe, data)
    _check_fit(network, data)
    freeze(network, recipe.freeze)  # refuses what it cannot place before anything is written
    folder = _new_folder(recipe.model) if folder is None else make_folder(folder)
    record = {"started": datetime.now(UTC).isoformat(timespec="seconds"), **hardware.environment()}
    run_folder.write_start(folder, recipe, data, record)
    print(f"{shown(folder)}\n{recipe}\n")

    history = _fit(network, data, recipe, callbacks, started, time_limit)
    with original_rates(network):
        run_folder.write_end(folder, network, history)
    record["seconds"] = round(time.monotonic() - started, 1)
    run_folder.write_json(folder / run_folder.ENVIRONMENT, record)
    return Run(network, recipe, history, data, folder)


def phases(recipe: Recipe) -> list[Phase]:
    """The parts of a training: head first where pre-trained weights are to move, else one."""
    epochs, rate = recipe.epochs, recipe.learning_rate
    if not isinstance(epochs, int) or not isinstance(rate, float | int):
        raise ValueError("Phases are known once every field of the recipe is.")
    if recipe.weights is None or recipe.freeze == "large" or epochs == 1:
        return [Phase(recipe.freeze, 0, epochs, rate)]
    head = max(1, round(HEAD_SHARE * epochs))
    return [Phase("large", 0, head, rate), Phase(recipe.freeze, head, epochs, BODY_RATE * rate)]


def _fit(model, data, recipe, callbacks, started, time_limit) -> dict[str, list[float]]:
    """All phases one after another; the model ends on the best weights of them all."""
    history: dict[str, list[float]] = {}
    best = math.inf
    weights = None
    for phase in phases(recipe):
        print(f"{freeze(model, phase.freeze)}\n")
        _compile(model, recipe, phase.rate)
        watchers, stopper = _watchers(recipe, phase, bool(len(data.dev)))
        if time_limit is not None:
            left = time_limit - (time.monotonic() - started)
            if left <= 0 and history:
                break
            watchers.append(TimeBudget(max(left, 1e-3)))
        parts = model.fit(
            pipeline.stream(data.train, recipe.batch_size, seed=recipe.seed, epoch=phase.first, one_hot=True),
            steps_per_epoch=pipeline.steps(len(data.train), recipe.batch_size),
            initial_epoch=phase.first,
            epochs=phase.last,
            validation_data=pipeline.in_order(data.dev, 64, one_hot=True) if len(data.dev) else None,
            class_weight=_class_weights(data) if recipe.class_weights == "balanced" else None,
            callbacks=[*watchers, *callbacks],
            shuffle=False,  # the stream is shuffled, and Keras would say that it cannot
            verbose=1 if interactive() else 0,
        ).history
        for name, values in parts.items():
            history.setdefault(name, []).extend(float(value) for value in values)
        if stopper is None:
            _check_finite(math.isfinite(history["loss"][-1]), "loss was not finite in the last epoch", phase)
            continue
        _check_finite(stopper.best is not None or weights is not None, "dev loss was not finite in any epoch", phase)
        if stopper.best is not None and stopper.best < best:
            best, weights = stopper.best, model.get_weights()
        else:
            model.set_weights(weights)
    return history


def _check_finite(fine: bool, what: str, phase: Phase) -> None:
    if not fine:
        raise ValueError(f"The {what} at a learning rate of {phase.rate:g}. Try a tenth of it.")


def _watchers(recipe: Recipe, phase: Phase, has_dev: bool) -> tuple[list[Any], EarlyStopping | None]:
    """Our callbacks for one phase; the early stopping among them apart, where there is a dev set."""
    length = phase.last - phase.first
    watchers: list[Any] = [CosineDecay(length, first_epoch=phase.first)] if recipe.schedule == "cosine" else []
    if not has_dev:
        return watchers, None
    stopper = EarlyStopping("val_loss", patience=max(3, math.ceil(PATIENCE * length)))
    return [*watchers, stopper], stopper


def _compile(model: keras.Model, recipe: Recipe, rate: float) -> None:
    """A fresh optimizer, and the loss and metric that fit the model's outputs."""
    optimizer = OPTIMIZERS[recipe.optimizer](rate)
    if recipe.optimizer == "adamw":
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(gives_logits(model), label_smoothing=float(recipe.label_smoothing))
    metric = keras.metrics.CategoricalAccuracy(name="accuracy")
    compiled: Any = hardware.jit_compile(hardware.device())
    model.compile(optimizer, loss, metrics=[metric], jit_compile=compiled)


def _class_weights(data: Data) -> dict[int, float]:
    """Weights that give each class the same say: n / (classes * n of the class)."""
    counts = list(data.train.counts.values())
    return {i: sum(counts) / (len(counts) * count) for i, count in enumerate(counts)}


def _resolved(model: str | keras.Model, data: Data, recipe: Recipe) -> Recipe:
    """The recipe without an "auto" in it."""
    own = isinstance(model, keras.Model)
    if own:
        recipe = _for_own_model(model, recipe, data)
    elif model != AUTO or recipe.model == AUTO:
        recipe = recipe.with_fields({"model": model})
    if not own and recipe.precision == "as given":
        recipe = recipe.with_fields({"precision": AUTO})  # said of a model that was handed over
    if not own and recipe.model != AUTO:
        info(recipe.model)  # an unknown name is refused with the nearest known one
    usable = data.manifest.usable
    counts = list(data.train.counts.values())
    facts = Facts(
        pictures=len(data.train),
        classes=len(counts),
        per_class=len(data.train) / len(counts),
        unevenness=max(counts) / min(counts),
        side=int(usable[["width", "height"]].min(axis=1).median()),
        image_size=data.image_size,
        precision=hardware.precision(hardware.device()),
        own_model=own,
    )
    return resolve(recipe, facts)


def _for_own_model(model: keras.Model, recipe: Recipe, data: Data) -> Recipe:
    """What a model that was handed over decides itself."""
    for name in ("weights", "dropout", "l2", "precision"):
        if getattr(recipe, name) != AUTO and recipe.reasons.get(name, "given") == "given":
            raise ValueError(f"`{name}` belongs to the building of a model, and this one is built. Leave it out.")
    inputs, outputs = (getattr(model, name, None) or [] for name in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4:
        raise ValueError(
            "A model that is handed over must be a functional or Sequential one with a keras.Input of pictures, "
            f"(batch, height, width, channels), and one output. Received: {type(model).__name__} '{model.name}' with "
            f"inputs {[tuple(tensor.shape) for tensor in inputs]}"
        )
    size = tuple(inputs[0].shape[1:3])
    fields: dict[str, Any] = {"model": model.name, "weights": getattr(model, "zoo_weights", None)}
    if None not in size:
        asked = recipe.image_size if recipe.reasons.get("image_size", "given") == "given" else AUTO
        asked = (asked, asked) if isinstance(asked, int) else asked
        for wish in (asked, data.image_size):
            if wish not in (AUTO, None, size):
                raise ValueError(f"Model '{model.name}' takes pictures of {size}. Received: image_size={wish}")
        fields["image_size"] = size
    elif recipe.image_size == AUTO and data.image_size is None and model.name not in CATALOG:
        raise ValueError(f"Model '{model.name}' takes pictures of any size; say image_size=.")
    reasons = {name: "as handed over" for name in fields}
    recipe = recipe.with_fields(fields)
    return replace(recipe, reasons={**recipe.reasons, **reasons})


def _configured(data: Data, recipe: Recipe) -> Data:
    """The data at the recipe's size, cropped and resampled as the weights were trained."""
    shape: dict[str, Any] = {"image_size": recipe.image_size}
    row = CATALOG.get(recipe.model)
    if recipe.weights and row and recipe.weights in ("imagenet", *(tag.name for tag in row.weights)):
        tag = find_tag(recipe.model, recipe.weights)
        shape |= {"crop": tag.crop, "interpolation": tag.interpolation}
    return data.configured(**shape)


def _created(recipe: Recipe, data: Data) -> keras.Model:
    """The network that the recipe describes; from scratch it is normalised by the training pictures."""
    with _precision(recipe.precision):
        return create(
            recipe.model,
            classes=len(data.class_names),
            input_shape=data.geometry.shape,
            weights=recipe.weights,
            normalization=None if recipe.weights else data.train.statistics(),
            dropout=float(recipe.dropout),
            l2=float(recipe.l2),
        )


@contextlib.contextmanager
def _precision(policy: str):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check_fit(model: keras.Model, data: Data) -> None:
    """Whether a model takes these pictures and names these classes."""
    height, width, channels = data.geometry.shape
    for have, takes in zip((height, width, channels), model.input_shape[1:], strict=True):
        if takes not in (None, have):
            raise ValueError(
                f"Model '{model.name}' takes pictures of {model.input_shape[1:]}. "
                f"The data has {height}x{width} with {channels} channels; see load_data's image_size and channels."
            )
    # refuses outputs that are neither probabilities nor logits
    checked_probabilities(model, model(data.train.pixels()[:2], training=False))
    if model.output_shape[-1] != len(data.class_names):
        raise ValueError(
            f"Model '{model.name}' gives {model.output_shape[-1]} outputs for {len(data.class_names)} classes "
            f"({', '.join(data.class_names[:5])}{', ...' if len(data.class_names) > 5 else ''})."
        )


def _earlier_run(folder: Path, model, recipe: Recipe, data: Data, resume: bool) -> Run | None:
    """The finished run of the same recipe and data, where the folder holds it.

    Raises:
        ValueError: If it holds another run, or files that are none of ours.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    name = shown(folder)
    if folder.is_file() or not run_folder.begun(folder):
        raise ValueError(f"{name} exists and is no run. Choose another directory.")
    if not resume:
        raise ValueError(f"{name} holds a run already, and resume=False. Choose another directory.")
    if not run_folder.finished(folder):
        return None
    if isinstance(model, keras.Model):
        raise ValueError(
            f"{name} holds a finished run, and whether it began with the model handed over cannot be told. "
            "Choose another directory, or take it with zoo.load_run."
        )
    if Recipe.load(folder / run_folder.RECIPE) != recipe:
        raise ValueError(f"{name} holds a run of another recipe. Choose another directory.")
    return load_run(folder, data)


def _new_folder(name: str) -> Path:
    """The first free runs/NAME-N."""
    runs = make_folder(Path("runs").resolve())
    number = 1
    while True:
        with contextlib.suppress(FileExistsError):
            (runs / f"{name}-{number}").mkdir()
            return runs / f"{name}-{number}"
        number += 1
