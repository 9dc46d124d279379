"""All phases of a training, one after another, each a plain `fit`."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from callbacks import (
    Checkpoint,
    CosineDecay,
    EarlyStopping,
    ExponentialDecay,
    FrozenGuard,
    GradientMonitor,
    HistoryLog,
    InverseTimeDecay,
    Pruning,
    SqrtEpochDecay,
    TimeBudget,
)
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
from zoo.training.folder import CROSS_ENTROPY, GRADIENTS, HISTORY, epochs
from zoo.training.phases import Phase
from zoo.training.recipe import MOMENTUM, WEIGHT_DECAY, Recipe, before
from zoo.training.resuming import Handover, Progress, Stop
from zoo.transfer.anchor import anchored
from zoo.transfer.cutting import split_frozen
from zoo.transfer.freezing import freeze, unfreeze
from zoo.transfer.rates import scaled

PATIENCE = 0.4  # of a phase's epochs without a better dev loss; a cosine gains most near its end
OPTIMIZERS = {
    "adamw": lambda rate, weight_decay=WEIGHT_DECAY["adamw"], **words: keras.optimizers.AdamW(
        rate, weight_decay=weight_decay or 0.0, **words
    ),  # which takes no None
    "adam": keras.optimizers.Adam,
    "sgd": keras.optimizers.SGD,
    "momentum": lambda rate, momentum=MOMENTUM["momentum"], **words: keras.optimizers.SGD(
        rate, momentum=momentum, nesterov=True, **words
    ),
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
}
# optimizer -> what Keras calls its running means' coefficients
_MEANS = {
    "adamw": {"beta_1": "momentum", "beta_2": "beta2"},
    "adam": {"beta_1": "momentum", "beta_2": "beta2"},
    "momentum": {"momentum": "momentum"},
    "rmsprop": {"rho": "beta2"},
}
_DEV_BATCH = 64
_PROBE = 32  # pictures of which gradients are watched
_DEV_BYTES = 2**24  # of features a step of evaluation, where the tail is small and each step has its price


class NotFinite(ValueError):
    """A training that came to nothing, since its loss was infinite or no number."""


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
    stop: Stop | None = None,
) -> dict[str, list[float]]:
    """Fits all phases, or what is left of them; the model ends on the best weights of them all.

    A callback of the caller that says `ends_run` behind a phase, as `Pruning` may, ends them all.

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
        stop: Where to stop before the end, or None; whether that was reached is noted in it.

    Returns:
        Metric name to a value an epoch.

    Raises:
        NotFinite: If the loss was never finite.
    """
    fitted = None
    unfreeze(model)  # so that the anchors are those of all pre-trained weights
    with anchored(model, float(recipe.l2_sp)):
        handover = Handover(folder, phases)
        progress = handover.load(model)
        history, best = progress.history, progress.best
        weights = model.get_weights() if math.isfinite(best) else None
        for plan, trained in zip(plans, progress.trained, strict=False):
            plan.trained = trained
        for number, (phase, plan) in enumerate(zip(phases, plans, strict=True)):
            if number < progress.phase:
                continue
            if deadline is not None and history and time.monotonic() >= deadline:
                break
            if stop is not None and phase.first >= stop.after and not handover.begun(number):
                stop.reached = stop.after
                break
            if number > progress.phase:
                handover.save(model, Progress(number, history, best, [plan.trained or 0 for plan in plans[:number]]))
            checkpoint = _checkpoint(handover.directory(number), recipe, data, phase, folder)
            print(freeze(model, phase.freeze))
            position = checkpoint.position
            last = _last(phase, position, stop)
            preparing = "computing the frozen part once" if plan.cached else "preparing the pictures"
            with timed(spent, preparing):
                fitted, training, probe = _materials(model, data, recipe, phase, plan, position)
            print(f"{plan.why[0].upper()}{plan.why[1:].rstrip('.')}.\n")
            if (0, 0) < position < (last, 0):
                print(f"Going on in epoch {position.epoch + 1}, step {position.step + 1}.\n")
            compile_phase(fitted, recipe, phase, whole=model)
            watchers, stopper = _watchers(model, recipe, phase, bool(len(data.dev)))
            if deadline is not None:
                watchers.append(TimeBudget(max(deadline - time.monotonic(), 1e-3)))
            for callback in callbacks:
                if isinstance(callback, Pruning):
                    callback.go_on(history)
            monitor = GradientMonitor(probe, groups=_groups(fitted), path=folder / GRADIENTS)
            with timed(spent, f"training with {phase.freeze} frozen" if phase.freeze != "none" else "training it all"):
                parts = fitted.fit(
                    **training,
                    initial_epoch=phase.first,
                    epochs=last,
                    callbacks=[*watchers, *callbacks, monitor, HistoryLog(folder / HISTORY), checkpoint],
                    shuffle=False,  # both kinds of batches come shuffled
                    verbose=1 if interactive() else 0,  # pyright: ignore[reportArgumentType]
                ).history
            plan.trained = epochs(parts)
            for name, values in parts.items():
                history.setdefault(name, []).extend(float(value) for value in values)
            if stopper is not None:
                print(stopper.reason)
            if trouble := [f"{stage} {verdict}" for stage, verdict in monitor.verdicts.items() if verdict != "healthy"]:
                print(f"Gradients: {', '.join(trouble)}. The figures are in {shown(folder / GRADIENTS)}.")
            if stopper is None:
                _check_finite(math.isfinite(history["loss"][-1]), "loss was not finite in the last epoch", phase)
            else:
                any_best = stopper.best is not None or weights is not None
                _check_finite(any_best, "dev loss was not finite in any epoch", phase)
                if stopper.best is not None and stopper.best < best:
                    best, weights = stopper.best, model.get_weights()
                else:
                    model.set_weights(weights)
            if ending := [callback for callback in callbacks if getattr(callback, "ends_run", False)]:
                print(getattr(ending[0], "reason", None) or f"{type(ending[0]).__name__} ends the run.")
                break
            if stop is not None and last < phase.last and not fitted.stop_training:
                stop.reached = last
                break
    if fitted is not model or recipe.l2_sp:  # handed over is the whole network, compiled, and free of the penalty
        compile_phase(model, recipe, phases[-1])
        model.optimizer.build(model.trainable_variables)  # else Keras complains when the model is loaded
    return history


def _last(phase: Phase, position: Position, stop: Stop | None) -> int:
    """Up to which epoch a phase is fitted; one that was begun is ended in any case."""
    return phase.last if stop is None else min(phase.last, max(stop.after, position.epoch + bool(position.step)))


def _checkpoint(directory: Path, recipe: Recipe, data: Data, phase: Phase, folder: Path) -> Checkpoint:
    """Where a phase saves, and goes on from."""
    given = recipe.to_dict()
    usual = before(given)
    fields = {name: value for name, value in given.items() if name != "reasons" and value != usual.get(name)}
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
    return bool(recipe.l1 or recipe.l2 or recipe.l2_sp)


def _optimizer(recipe: Recipe, rate: float) -> keras.Optimizer:
    """A fresh one, with what the recipe says of those numbers that it has."""
    words: dict[str, Any] = {
        "weight_decay": recipe.weight_decay or None,  # 0 would cost a pass over all weights
        "gradient_accumulation_steps": recipe.accumulation if recipe.accumulation != 1 else None,
    }
    words |= {word: getattr(recipe, name) for word, name in _MEANS.get(recipe.optimizer, {}).items()}
    return OPTIMIZERS[recipe.optimizer](float(rate), **words)  # Keras refuses a rate of 1


def compile_phase(model: keras.Model, recipe: Recipe, phase: Phase, whole: keras.Model | None = None) -> None:
    """A fresh optimizer, and the loss and metric that fit the model's outputs; with `whole`, its rates by stage."""
    optimizer = _optimizer(recipe, phase.rate)
    if optimizer.weight_decay is not None:
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


def _decay(recipe: Recipe, phase: Phase) -> keras.callbacks.Callback:
    """How the rate falls; the phase's first epoch is epoch 1 of every formula."""
    if recipe.schedule == "inverse time":
        return InverseTimeDecay(recipe.decay_rate, first_epoch=phase.first)
    if recipe.schedule == "exponential":
        return ExponentialDecay(recipe.decay_rate, first_epoch=phase.first)
    if recipe.schedule == "sqrt":
        return SqrtEpochDecay(first_epoch=phase.first)
    return CosineDecay(phase.length, first_epoch=phase.first)


def _watchers(model, recipe: Recipe, phase: Phase, has_dev: bool) -> tuple[list[Any], EarlyStopping | None]:
    """Our callbacks for one phase; the early stopping among them apart, where there is a dev set."""
    watchers: list[Any] = [FrozenGuard(model)]
    if recipe.schedule != "constant":
        watchers.append(_decay(recipe, phase))
    if not has_dev:
        return watchers, None
    stopper = EarlyStopping(_watched(recipe), "min", patience=max(3, math.ceil(PATIENCE * phase.length)))
    return [*watchers, stopper], stopper


def _watched(recipe: Recipe) -> str:
    """The dev set's loss, without penalties."""
    return f"val_{CROSS_ENTROPY}" if _penalised(recipe) else "val_loss"


def _check_finite(fine: bool, what: str, phase: Phase) -> None:
    if not fine:
        raise NotFinite(f"The {what} at a learning rate of {phase.rate:g}. Try a tenth of it.")
