"""From a wish to a recipe without an "auto", and to the network and the data that it describes."""

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from zoo.data.collection import Data
from zoo.data.order import steps
from zoo.models.catalog import CATALOG, find_tag, info
from zoo.models.outputs import checked_probabilities
from zoo.models.registry import create
from zoo.training import hardware
from zoo.training.phases import phases
from zoo.training.recipe import AUTO, Recipe
from zoo.training.table import Facts, resolve

# what is settled when a model is built
_BUILT = ("weights", "variant", "head", "hidden_units", "dropout", "l1", "l2", "kernel_initializer", "precision")


def check_labelled(data: Data) -> None:
    """Refuses pictures without labels.

    Raises:
        ValueError: If these are such.
    """
    if not data.class_names:
        raise ValueError("These pictures have no labels, so nothing can be learned from them; a run can predict them.")


def resolved(model: str | keras.Model, data: Data, recipe: Recipe) -> Recipe:
    """The recipe without an "auto" in it, but for `views` where that is to be measured."""
    check_labelled(data)
    if isinstance(recipe.class_weights, Mapping):
        data.train.class_weights(recipe.class_weights)  # refuses names of classes that there are not
    own = isinstance(model, keras.Model)
    if own:
        recipe = _for_own_model(model, recipe, data)
    elif model != AUTO or recipe.model == AUTO:
        recipe = recipe.with_fields({"model": model})
    if not own:  # what is "as given" was said of a model that was handed over
        kept = [name for name in ("head", "kernel_initializer", "precision") if getattr(recipe, name) == "as given"]
        recipe = recipe.with_fields(dict.fromkeys(kept, AUTO))
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
    recipe = resolve(recipe, facts)
    _check_accumulation(recipe, len(data.train))
    return recipe


def _check_accumulation(recipe: Recipe, pictures: int) -> None:
    """Refuses what would never move the weights in one of the phases."""
    shortest = min(phase.length for phase in phases(recipe)) * steps(pictures, int(recipe.batch_size))
    if int(recipe.accumulation) > shortest:
        raise ValueError(
            f"`accumulation` must be at most the steps of the shortest phase, {shortest} for {pictures} pictures with "
            f"batch_size={recipe.batch_size}. Received: accumulation={recipe.accumulation}"
        )


def _for_own_model(model: keras.Model, recipe: Recipe, data: Data) -> Recipe:
    """What a model that was handed over decides itself."""
    for name in _BUILT:
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


def configured(data: Data, recipe: Recipe) -> Data:
    """The data at the recipe's size, cropped and resampled as the weights were trained."""
    shape: dict[str, Any] = {"image_size": recipe.image_size}
    row = CATALOG.get(recipe.model)
    if recipe.weights and row and recipe.weights in ("imagenet", *(tag.name for tag in row.weights)):
        tag = find_tag(recipe.model, recipe.weights)
        shape |= {"crop": tag.crop, "interpolation": tag.interpolation}
    return data.configured(**shape)


def created(recipe: Recipe, data: Data) -> keras.Model:
    """The network that the recipe describes; from scratch it is normalised by the training pictures.

    Raises:
        ValueError: If the recipe pulls towards pre-trained weights and has none, or as `create`.
    """
    if recipe.l2_sp and not recipe.weights:
        raise ValueError(
            f"`l2_sp` pulls towards pre-trained weights, and there are none. Received: l2_sp={recipe.l2_sp}"
        )
    variant: Any = recipe.variant
    shared = inspect.signature(create).parameters
    if clash := [name for name in variant if name in shared]:
        raise ValueError(
            f"`variant` is for what the network itself takes, and {clash[0]!r} is the same for all networks; leave it "
            f"out. Received: variant={variant}"
        )
    with _precision(recipe.precision):
        return create(
            recipe.model,
            classes=len(data.class_names),
            input_shape=data.geometry.shape,
            weights=recipe.weights,
            normalization=None if recipe.weights else data.train.statistics(),
            head=recipe.head,
            hidden_units=None if recipe.hidden_units is None else int(recipe.hidden_units),
            dropout=float(recipe.dropout),
            l1=float(recipe.l1),
            l2=float(recipe.l2),
            kernel_initializer=recipe.kernel_initializer,
            **variant,
        )


@contextlib.contextmanager
def _precision(policy: str):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def checked(model: keras.Model, data: Data) -> keras.Model:
    """A model that was handed over, if it takes these pictures and names these classes.

    Raises:
        ValueError: If it does not.
    """
    height, width, channels = data.geometry.shape
    for have, takes in zip((height, width, channels), model.input_shape[1:], strict=True):
        if takes not in (None, have):
            raise ValueError(
                f"Model '{model.name}' takes pictures of {model.input_shape[1:]}. "
                f"The data has {height}x{width} with {channels} channels; see load_data's image_size and channels."
            )
    # refuses outputs that are neither probabilities nor logits
    checked_probabilities(model, model(data.train.read(np.arange(min(2, len(data.train)))), training=False))
    if model.output_shape[-1] != len(data.class_names):
        raise ValueError(
            f"Model '{model.name}' gives {model.output_shape[-1]} outputs for {len(data.class_names)} classes "
            f"({', '.join(data.class_names[:5])}{', ...' if len(data.class_names) > 5 else ''})."
        )
    return model
