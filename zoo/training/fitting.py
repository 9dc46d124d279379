"""All phases of a training, one after another, each a plain `fit`."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from callbacks import Checkpoint, CosineDecay, EarlyStopping, FrozenGuard, GradientMonitor, HistoryLog, TimeBudget
from callbacks.snapshots import Position
from zoo.data import batches
from zoo.data.collection import Data
from zoo.data.order import steps
from zoo.files import shown
from zoo.models.outputs import gives_logits
from zoo.models.stages import stages
from zoo.progress import interactive, timed
from zoo.training import augmenting, hardware
from zoo.training.caching import Plan
from zoo.training.folder import CROSS_ENTROPY, GRADIENTS, HISTORY
from zoo.training.phases import Phase
from zoo.training.recipe import BEFORE, Recipe
from zoo.training.resuming import Handover, Progress
from zoo.transfer.anchor import anchored
from zoo.transfer.cutting import split_frozen
from zoo.transfer.freezing import freeze, unfreeze
from zoo.transfer.rates import scaled

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
_DEV_BATCH = 64
_PROBE = 32  # pictures of which gradients are watched
_DEV_BYTES = 2**24  # of features a step of evaluation, where the tail is small and each step has its price


def fit(
    model: keras.Model,
    data: Data,
    recipe: Recipe,
    phases: Sequence[Phase],
    plans: Sequence[Plan],
    callbacks: Sequence[keras.callbacks.Callback],
    deadline: float | None,
    folder: Path,
    spent: dict[str, float],
) -> dict[str, list[float]]:
    """Fits all phases, or what is left of them; the model ends on the best weights of them all.

    Args:
        model: The whole network.
        data: With its image size.
        recipe: Resolved.
        phases: From `phases(recipe)`.
        plans: One a phase; where the frozen part turns out to find no room, the plan's `why` says so afterwards.
        callbacks: Those of the caller.
        deadline: On `time.monotonic`, or None.
        folder: The run's, where checkpoints are written and found.
        spent: Seconds that each kind of work took; what is done here is added.

    Returns:
        Metric name to a value an epoch.

    Raises:
        ValueError: If the loss was never finite.
    """
    fitted = None
    unfreeze(model)  # so that the anchors are those of all pre-trained weights
    with anchored(model, float(recipe.l2_sp)):
        handover = Handover(folder, phases)
        progress = handover.load(model)
        history, best = progress.history, progress.best
        weights = model.get_weights() if math.isfinite(best) else None
        for number, (phase, plan) in enumerate(zip(phases, plans, strict=True)):
            if number < progress.phase:
                continue
            if deadline is not None and history and time.monotonic() >= deadline:
                break
            if number > progress.phase:
                handover.save(model, Progress(number, history, best))
            checkpoint = _checkpoint(handover.directory(number), recipe, data, phase, folder)
            print(freeze(model, phase.freeze))
            position = checkpoint.position
            preparing = "computing the frozen part once" if plan.cached else "preparing the pictures"
            with timed(spent, preparing):
                fitted, training, probe = _materials(model, data, recipe, phase, plan, position)
            print(f"{plan.why[0].upper()}{plan.why[1:].rstrip('.')}.\n")
            if (0, 0) < position < (phase.last, 0):
                print(f"Going on in epoch {position.epoch + 1}, step {position.step + 1}.\n")
            _compile(fitted, recipe, phase, whole=model)
            watchers, stopper = _watchers(model, recipe, phase, bool(len(data.dev)))
            if deadline is not None:
                watchers.append(TimeBudget(max(deadline - time.monotonic(), 1e-3)))
            monitor = GradientMonitor(probe, groups=_groups(fitted), path=folder / GRADIENTS)
            with timed(spent, f"training with {phase.freeze} frozen" if phase.freeze != "none" else "training it all"):
                parts = fitted.fit(
                    **training,
                    initial_epoch=phase.first,
                    epochs=phase.last,
                    callbacks=[*watchers, *callbacks, monitor, HistoryLog(folder / HISTORY), checkpoint],
                    shuffle=False,  # both kinds of batches come shuffled
                    verbose=1 if interactive() else 0,  # pyright: ignore[reportArgumentType]
                ).history
            for name, values in parts.items():
                history.setdefault(name, []).extend(float(value) for value in values)
            if stopper is not None:
                print(stopper.reason)
            if trouble := [f"{stage} {verdict}" for stage, verdict in monitor.verdicts.items() if verdict != "healthy"]:
                print(f"Gradients: {', '.join(trouble)}. The figures are in {shown(folder / GRADIENTS)}.")
            if stopper is None:
                _check_finite(math.isfinite(history["loss"][-1]), "loss was not finite in the last epoch", phase)
                continue
            _check_finite(
                stopper.best is not None or weights is not None, "dev loss was not finite in any epoch", phase
            )
            if stopper.best is not None and stopper.best < best:
                best, weights = stopper.best, model.get_weights()
            else:
                model.set_weights(weights)
    if fitted is not model or recipe.l2_sp:  # handed over is the whole network, compiled, and free of the penalty
        _compile(model, recipe, phases[-1])
        model.optimizer.build(model.trainable_variables)  # else Keras complains when the model is loaded
    return history


def _checkpoint(directory: Path, recipe: Recipe, data: Data, phase: Phase, folder: Path) -> Checkpoint:
    """Where a phase saves, and goes on from."""
    given = recipe.to_dict().items()
    fields = {name: value for name, value in given if name != "reasons" and value != BEFORE.get(name)}
    return Checkpoint(
        directory,
        _watched(recipe) if len(data.dev) else "loss",
        "min",
        recipe={**fields, "phase": asdict(phase)},
        data=data.fingerprint,
        advice=f"The same call with directory={shown(folder)!r} (zoo train: --out {shown(folder)}) goes on from there.",
    )


def _materials(
    model, data, recipe, phase, plan, position: Position
) -> tuple[keras.Model, dict[str, Any], tuple[Any, np.ndarray]]:
    """What is fitted in a phase, on which batches, and a fixed batch: the tail on features, or the whole on pictures.

    Args:
        position: Where the phase goes on; behind its first epoch where it is resumed.
    """
    epoch, step = (position.epoch, position.step) if position != (0, 0) else (phase.first, 0)
    few = np.unique(np.linspace(0, len(data.train) - 1, _PROBE).astype(int))
    targets = np.eye(len(data.class_names), dtype=np.float32)[data.train.labels[few]]
    weights = None if recipe.class_weights == "none" else data.train.class_weights(recipe.class_weights)
    try:
        features = plan.features()
    except OSError as error:
        plan.train = plan.dev = None
        plan.why = f"the frozen part is computed in every step: {error}"
        features = None
    if features:
        train, dev = features
        for sentence in [*train.repaired, *(dev.repaired if dev else [])]:
            print(sentence)
        rows = max(_DEV_BATCH, _DEV_BYTES // train.row_bytes)
        return (
            split_frozen(model)[1],
            {
                "x": train.stream(
                    recipe.batch_size,
                    seed=recipe.seed,
                    epoch=epoch,
                    step=step,
                    one_hot=True,
                    balanced=recipe.sampling == "balanced",
                ),
                "steps_per_epoch": steps(len(train), recipe.batch_size),
                "validation_data": dev.in_order(rows, one_hot=True) if dev else None,
                "validation_steps": steps(len(dev), rows) if dev else None,  # else Keras reads all of it twice
                "class_weight": weights,
            },
            (_one_or_all(train.read(few, train.kept[0])), targets),
        )
    mixing = augmenting.mixing(recipe, len(data.class_names), weights)
    return (
        model,
        {
            "x": batches.stream(
                data.train,
                recipe.batch_size,
                policy=augmenting.policy(recipe),
                mixing=mixing,
                balanced=recipe.sampling == "balanced",
                seed=recipe.seed,
                epoch=epoch,
                step=step,
                one_hot=True,
            ),
            "class_weight": None if mixing else weights,
            "steps_per_epoch": steps(len(data.train), recipe.batch_size),
            "validation_data": batches.in_order(data.dev, _DEV_BATCH, one_hot=True) if len(data.dev) else None,
        },
        (data.train.read(few), targets),
    )


def _groups(fitted: keras.Model) -> dict[str, list[str]] | None:
    """The layers of each stage, for the monitor; None where the layers of a model handed over tell no stage."""
    try:
        return {name: [layer.name for layer in layers] for name, layers in stages(fitted).items()}
    except ValueError:
        return None


def _one_or_all(arrays: Sequence[np.ndarray]):
    """As `fit` takes the inputs of a model: alone, or a tuple."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _penalised(recipe: Recipe) -> bool:
    """Whether the loss holds more than the cross-entropy."""
    return bool(recipe.l2 or recipe.l2_sp)


def _compile(model: keras.Model, recipe: Recipe, phase: Phase, whole: keras.Model | None = None) -> None:
    """A fresh optimizer, and the loss and metric that fit the model's outputs; with `whole`, its rates by stage."""
    optimizer = OPTIMIZERS[recipe.optimizer](phase.rate)
    if recipe.optimizer == "adamw":
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if whole is not None and recipe.layer_decay != 1:
        optimizer = scaled(optimizer, whole, float(recipe.layer_decay))
    given: Any = {"from_logits": gives_logits(model), "label_smoothing": float(recipe.label_smoothing)}
    loss = keras.losses.CategoricalCrossentropy(**given)
    metrics: list[Any] = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    if _penalised(recipe):  # the more penalties, the more a phase trains
        metrics.append(keras.metrics.CategoricalCrossentropy(CROSS_ENTROPY, **given))
    compiled: Any = hardware.jit_compile(hardware.device())
    model.compile(optimizer, loss, metrics=metrics, jit_compile=compiled)


def _watchers(model, recipe: Recipe, phase: Phase, has_dev: bool) -> tuple[list[Any], EarlyStopping | None]:
    """Our callbacks for one phase; the early stopping among them apart, where there is a dev set."""
    watchers: list[Any] = [FrozenGuard(model)]
    if recipe.schedule == "cosine":
        watchers.append(CosineDecay(phase.length, first_epoch=phase.first))
    if not has_dev:
        return watchers, None
    stopper = EarlyStopping(_watched(recipe), "min", patience=max(3, math.ceil(PATIENCE * phase.length)))
    return [*watchers, stopper], stopper


def _watched(recipe: Recipe) -> str:
    """The dev set's loss, without penalties."""
    return f"val_{CROSS_ENTROPY}" if _penalised(recipe) else "val_loss"


def _check_finite(fine: bool, what: str, phase: Phase) -> None:
    if not fine:
        raise ValueError(f"The {what} at a learning rate of {phase.rate:g}. Try a tenth of it.")
