"""Whether the frozen part of a phase is computed once, by measured seconds and bytes; and how it is used."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryFile
from typing import Any

import keras
import numpy as np

from callbacks import autodiff
from zoo.data.collection import Data
from zoo.data.split import Split
from zoo.training import augmenting
from zoo.training.phases import Phase
from zoo.training.recipe import AUTO, Recipe
from zoo.transfer.cutting import split_frozen
from zoo.transfer.features import Features
from zoo.transfer.freezing import freeze
from zoo.transfer.passing import Pass
from zoo.transfer.store import NoRoom, Store
from zoo.transfer.writer import size

VIEWS_SHARE = 0.25  # of what the frozen part costs without a cache, that computing augmented views may cost
CHEAP = 5.0  # seconds that views may take in any case
SMALLEST_SAVING = 2.0  # seconds; below, compiling another graph costs what is saved
_BATCH = 64  # rows a step of evaluation
_PROBE = bytes(2**22)  # written and read back to time the disk


@dataclass
class Plan:
    """How a phase is fitted.

    Attributes:
        why: The decision and its reason, in a sentence.
        train, dev: The frozen part's way over the splits, where it is computed once; dev only where there is one.
        views: Augmented versions among which the epochs take turns; 0 without augmentation.
        kept: Those that the phase needs.
        trained: Epochs that the phase took, where it has run; fewer than planned where patience ended it.
    """

    why: str
    train: Pass | None = None
    dev: Pass | None = None
    views: int = 0
    kept: Sequence[int] = (0,)
    trained: int | None = None

    @property
    def cached(self) -> bool:
        """Whether the frozen part is computed once."""
        return self.train is not None

    def record(self) -> dict:
        """The decision as plain values."""
        took = {} if self.trained is None else {"epochs": self.trained}
        return {"computed_once": self.cached, "why": self.why, **took}

    def features(self) -> tuple[Features, Features | None] | None:
        """The features of train and dev, computed now; None where the frozen part is computed in every step.

        Raises:
            OSError: If they cannot be written.
        """
        if self.train is None:
            return None
        return Features(self.train, self.views, self.kept), Features(self.dev) if self.dev else None


def plans(
    model: keras.Model,
    data: Data,
    recipe: Recipe,
    phases: Sequence[Phase],
    wish: str | bool,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    seconds: float | None = None,
    earlier: Sequence[bool] | None = None,
) -> tuple[list[Plan], Recipe]:
    """A plan for each phase, and the recipe with its `views` and `mixing` settled.

    Args:
        model: The whole network; its layers are frozen as in each phase in turn.
        data: With the image size of the network.
        recipe: Resolved but for `views`, which may be "auto".
        phases: The parts of the training.
        wish: "auto"; True to compute the frozen part once wherever that can be done; False.
        callbacks: Those of the caller.
        seconds: What the training may take, or None.
        earlier: Whether each phase computes the frozen part once, where that was decided when the training began.
    """
    refusal = _refusal(wish, callbacks)
    decided = dict(zip(phases, earlier, strict=True)) if earlier else {}
    if refusal and any(decided.values()):
        raise ValueError(
            f"This training began with the frozen part computed once, which cannot go on: {refusal}. Call it as it was "
            "begun, or choose another directory."
        )
    found: dict[Phase, Plan] = {}
    for phase in sorted(phases, key=lambda phase: -phase.length):  # the longest decides about the views of all
        if phase.freeze == "none":
            found[phase] = Plan("nothing is frozen")
            continue
        try:
            if refusal:
                raise ValueError(refusal)
            if not decided.get(phase, True):
                raise ValueError("so it was decided when this training began")
            found[phase] = _plan(model, data, recipe, phase, bool(decided) or wish is True, seconds)
        except (OSError, ValueError) as error:
            found[phase] = Plan(f"the frozen part is computed in every step: {error}")
        if recipe.views == AUTO and found[phase].views:
            recipe = _with_views(recipe, found[phase].views, _why_views(found[phase], phase))
    if recipe.views == AUTO:
        recipe = _with_views(recipe, 0, "each epoch is augmented anew: no frozen part is computed once")
    plans = [found[phase] for phase in phases]
    return plans, _with_mixing(recipe, plans, phases)


def outputs(model: keras.Model, split: Split) -> np.ndarray | None:
    """What a network with a frozen part gives for each picture, by way of the cache; None where that cannot be."""
    try:
        trunk, tail = split_frozen(model)
        features = Features(Pass(trunk, split, Store()))
    except (OSError, ValueError):
        return None
    # not by `predict`: each split has a tail of its own, and TensorFlow complains of the third one that is traced
    run = autodiff.compiled(partial(tail, training=False))
    batches: Any = features.in_order(_BATCH)
    found = [run(keras.tree.map_structure(keras.ops.convert_to_tensor, batches[i][0])) for i in range(len(batches))]
    return np.concatenate([np.asarray(keras.ops.convert_to_numpy(part)) for part in found])


def _refusal(wish, callbacks) -> str | None:
    """Why nothing is cached in the whole run, or None."""
    if wish is False:
        return "cache_features=False"
    strange = [type(callback).__name__ for callback in callbacks if not _ours(callback)]
    if strange and wish == AUTO:
        return (
            f"{strange[0]} is no callback of ours and would be handed a part of the network; "
            "cache_features=True does it all the same"
        )
    return None


def _ours(callback) -> bool:
    return type(callback).__module__.split(".")[0] in ("callbacks", "tuning")


def _plan(model, data, recipe, phase, forced, seconds) -> Plan:
    """The plan of a phase with something frozen.

    Raises:
        ValueError, OSError: If the frozen part is better computed in every step, or has to be; the message says why.
    """
    store = Store()
    freeze(model, phase.freeze)
    trunk, _ = split_frozen(model)
    policy = augmenting.policy(recipe)
    train = Pass(trunk, data.train, store, policy=policy)
    dev = Pass(trunk, data.dev, store, like=train) if len(data.dev) else None
    cost = train.seconds_per_picture()

    views = 0
    if policy is not None:
        room = min(store.limit, disk_usage(store.directory).free) - len(data.dev) * train.row_bytes
        fitting = room // (len(data.train) * train.row_bytes)
        views = recipe.views if recipe.views != AUTO else _views(phase.length, len(data.train) * cost, fitting)
        if not views:
            raise ValueError("views=0 augments each epoch anew")
    kept = sorted({epoch % views for epoch in range(phase.first, phase.last)}) if views else [0]
    missing = sum(len(data.train) for view in kept if not train.whole([view]))
    missing += len(data.dev) if dev and not dev.whole([0]) else 0

    pictures = len(data.train) + len(data.dev)
    saved = cost * (phase.length * pictures - missing)
    needed = train.row_bytes * (len(data.train) * len(kept) + len(data.dev))
    if needed > store.limit:
        raise NoRoom(f"its outputs would take {size(needed)}, and the cache may hold {size(store.limit)}")
    if missing and not forced:
        _weigh(saved, needed, missing * train.row_bytes, phase.length * pictures * train.row_bytes, store)
        if seconds is not None and missing * cost > seconds / 2:
            raise ValueError(f"a pass over the pictures takes {missing * cost:.0f} s, over half of the time limit")
    what = f"{size(train.row_bytes)} a picture" + (f", {len(kept)} view{'s' * (len(kept) > 1)}" if views else "")
    how = f"it saves about {saved:.0f} s" if missing else "its outputs are there already"
    return Plan(f"the frozen part is computed once ({what}): {how}", train, dev, views, kept)


def _weigh(saved, needed, written, read, store):
    """Raises where keeping outputs costs more than it saves.

    Args:
        saved: Seconds of computing.
        needed, written, read: Bytes on disk, bytes to be written, and bytes read over all epochs.
        store: Where to.
    """
    per_byte_written, per_byte_read = _disk(store.directory)
    if needed > _memory() / 2:  # it will not stay in memory, so each epoch reads it from the disk
        per_byte_read = max(per_byte_read, per_byte_written)
    spent = written * per_byte_written + read * per_byte_read
    if saved - spent < SMALLEST_SAVING:
        raise ValueError(
            f"to keep its outputs ({size(needed)}) would save {saved:.1f} s of computing and cost {spent:.1f} s of "
            "writing and reading"
        )


def _disk(folder: Path) -> tuple[float, float]:
    """Seconds to write a byte to the disk, and to read one that was just written."""
    with TemporaryFile(dir=folder, buffering=0) as file:
        began = time.perf_counter()
        file.write(_PROBE)
        os.fsync(file.fileno())
        written = time.perf_counter()
        file.seek(0)
        file.read(len(_PROBE))
        return (written - began) / len(_PROBE), (time.perf_counter() - written) / len(_PROBE)


def _memory() -> float:
    """Bytes of memory, 0 where the system does not tell."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _views(epochs: int, one: float, fitting: int) -> int:
    """As many views as cost a share of what augmenting each epoch anew would, and as find room; 2 at least.

    Args:
        epochs: Of the phase.
        one: Seconds that a view takes.
        fitting: Views that there is room for.
    """
    budget = max(VIEWS_SHARE * epochs * one, CHEAP)
    number = min(max(2, int(budget / one + 1e-6)), epochs, fitting)
    if number < min(2, epochs):
        raise NoRoom(
            f"there is room for {max(0, fitting)} views of the training pictures, and fewer than two help little"
        )
    return number


def _why_views(plan: Plan, phase: Phase) -> str:
    if plan.views == phase.length:
        return "one for each epoch"
    times = phase.length / plan.views
    return f"they take turns in {phase.length} epochs; one for each would take {times:.1f} times as long"


def _with_views(recipe: Recipe, views: int, why: str) -> Recipe:
    recipe = recipe.with_fields({"views": views})
    return replace(recipe, reasons={**recipe.reasons, "views": why})


def _with_mixing(recipe: Recipe, plans: Sequence[Plan], phases: Sequence[Phase]) -> Recipe:
    """Mixing is off where outputs of single pictures are kept; in all phases, or in those that the reason names."""
    if recipe.mixing == "none":
        return recipe
    kept = [phase for phase, plan in zip(phases, plans, strict=True) if plan.cached]
    epochs = ", ".join(f"{phase.first + 1} to {phase.last}" for phase in kept)
    why = f"off in the epochs {epochs}, where the frozen part's outputs are kept" if kept else "given"
    if len(kept) == len(phases):
        why = (
            f"{recipe.mixing} is switched off: the frozen part's outputs of single pictures are kept; "
            "ask for it with cache_features=False (--no-cache)"
        )
        recipe = replace(recipe, mixing="none")
    return replace(recipe, reasons={**recipe.reasons, "mixing": why})
