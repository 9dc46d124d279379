"""What a model gives for each picture of a split: in one pass, or as the mean over changed versions of the pictures."""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from augment import policy
from zoo.data.order import parts, steps
from zoo.models.outputs import check_width, checked_probabilities
from zoo.progress import interactive, track

BATCH = 32


def classes(model: keras.Model, split, class_names: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
    """Names in the order of the model's outputs, and the label of each picture as an index of them, -1 without one.

    There are no names where nobody gives any and the number of classes shows in what the model gives only.

    Raises:
        ValueError: If a class of the split has no place among the names, or the model is no classifier of so many.
    """
    labels = np.asarray(split.labels)
    names = list(split.class_names if class_names is None else class_names)
    if unknown := [name for name in split.class_names if name not in names]:
        raise ValueError(
            f"`class_names` must hold every class of the split. Received: {len(names)} names without {unknown[0]!r}"
        )
    shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(getattr(model, "outputs", None) or [])]
    names = names or numbers(shapes[0][-1] or 0 if shapes else 0)
    check_width(model, names)
    place = np.array([*(names.index(name) for name in split.class_names), -1])  # the last one for -1
    return names, place[labels]


def numbers(count: int) -> list[str]:
    """Names of classes that have none."""
    return [str(number) for number in range(count)]


def fitted(model: keras.Model, split):
    """The split at the model's size where it has none; one of another size is refused. A side of None takes any.

    Raises:
        ValueError: If the model takes pictures of another size than the split gives.
    """
    wanted = tuple(model.inputs[0].shape[1:]) if getattr(model, "inputs", None) else ()
    if split.image_size is None and len(wanted) == 3 and None not in wanted[:2]:
        split = split.configured(image_size=wanted[:2])
    given = split.geometry.shape
    fits = all(side in (None, have) for side, have in zip(wanted, given, strict=False))
    if not fits or len(wanted) not in (0, 3):
        raise ValueError(
            f"The model takes pictures of shape {wanted} (height, width, channels), the split gives {given}. "
            "Use data.configured(image_size=...), or load_data(..., channels=...)."
        )
    return split


def outputs(model: keras.Model, split) -> Any:
    """What the model gives, row by row."""
    return model.predict(
        split.dataset(batch_size=BATCH),
        steps=math.ceil(len(split) / BATCH),
        verbose="auto" if interactive() else 0,  # pyright: ignore[reportArgumentType]
    )


def changing(augment: str | keras.layers.Layer, split, views: int, seed: int) -> keras.layers.Layer | None:
    """The layer that makes a view of a picture, or None where "none" is asked for.

    Raises:
        TypeError: If `augment` is neither a name nor a layer that takes keys.
        ValueError: If there is no such policy, `views` is no whole number of at least 1, or the layer changes the size.
    """
    if isinstance(augment, str) and augment == "none":
        return None
    if isinstance(views, bool) or not isinstance(views, (int, np.integer)) or views < 1:
        raise ValueError(f"`views` must be a whole number of at least 1. Received: views={views!r}")
    shape = split.geometry.shape
    layer: Any = policy(augment, shape[:2], seed) if isinstance(augment, str) else augment
    keyed = isinstance(layer, keras.layers.Layer) and "keys" in inspect.signature(layer.call).parameters
    if not keyed:
        raise TypeError(
            "`augment` must be the name of a policy, or a layer that is called with (images, training=True, keys=keys) "
            f"such as augment.policy gives. Received: {augment!r}"
        )
    try:
        seen = layer(np.zeros((1, *shape), np.uint8), training=True, keys=np.zeros((1, 2), np.int64))
    except Exception as error:  # whatever a layer that wants something else raises
        raise TypeError(
            f"`augment` must be a layer that is called with pictures alone, such as augment.policy gives. Received: "
            f"{type(layer).__name__}, which fails so"
        ) from error
    given = [tuple(part.shape[1:]) for part in keras.tree.flatten(seen)]
    if given != [shape]:
        raise ValueError(f"`augment` must leave pictures at their size {shape}. Received: a layer that gives {given}")
    return layer


def mean_of_views(model: keras.Model, split, layer, views: int, first: np.ndarray) -> np.ndarray:
    """Mean probabilities over the pictures as they are and their views, float32 (n, classes).

    Args:
        model: The classifier.
        split: At its size.
        layer: Called with keys (view, picture), so that a view depends on nothing else.
        views: How many.
        first: Probabilities of the pictures as they are.
    """
    pixels, count = split.pixels(), len(split)
    changed = _Changed(model, layer)
    total = first.astype(np.float64)
    for rows in track(parts(np.arange(count), BATCH), "Looking at changed pictures", steps(count, BATCH)):
        filled = np.resize(rows, min(BATCH, count))  # every step has one shape, so that one compiled graph serves all
        images = pixels[filled]
        for view in range(views):
            keys = np.stack([np.full(len(filled), view), filled], axis=1)
            found = checked_probabilities(model, changed.predict_on_batch((images, keys)))
            total[rows] += found[: len(rows)]
    return (total / (1 + views)).astype(np.float32)


class _Changed(keras.Model):
    """A model behind a layer that changes pictures, so that both run as one graph."""

    def __init__(self, model, layer):
        super().__init__(name="changed", dtype="float32", autocast=False)  # both know their own precision
        self.behind, self.layer = model, layer

    def call(self, inputs):
        images, keys = inputs
        return self.behind(self.layer(images, training=True, keys=keys), training=False)
