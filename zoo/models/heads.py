"""From the last feature map to a probability for each class, in float32 whatever the precision."""

from collections.abc import Mapping

import keras
from keras import layers

from zoo.models.blocks import UNDRAWN

KINDS = ("linear", "hidden", "average+max")
DENSE, HIDDEN = "head_dense", "head_hidden"
_POOL, _BOTH = "head_pool", "head_pool_both"
_WIDEST = 512  # of the hidden layer, as in fastai's head


def head(x, kind, *, classes, hidden_units: int | None = None, dropout=0.0, activation: str | None = "softmax"):
    """Pooling, dropout where it is wanted, and the classifier `head_dense`.

    "linear" is one dense layer behind the average of the map. "hidden" puts a dense layer with ReLU between, of
    `hidden_units`, by default as wide as the features but at most 512; it drops before both. "average+max" has the
    largest value of each channel beside the average. Both are parts of the head of fastai's `vision_learner` (Howard
    and Gugger 2020, https://arxiv.org/abs/2002.04688), without its batch normalisation.

    (n, h, w, c) -> (n, classes)

    Raises:
        ValueError: If there is no such kind, if it has no hidden layer to be of `hidden_units`, or if the map is one
            pixel, whose average and largest value are one.
    """
    if kind not in KINDS:
        raise ValueError(f"`head` must be one of {KINDS}. Received: head={kind!r}")
    units = _checked_units(hidden_units, kind, features=x.shape[-1])
    if kind == "average+max":
        x = _average_and_max(x)
    else:
        x = layers.GlobalAveragePooling2D(dtype="float32", name=_POOL)(x)
    x = _dropped(x, dropout, "head_dropout")
    if kind == "hidden":
        x = _dense(x, units, "relu", HIDDEN)
        x = _dropped(x, dropout, "head_hidden_dropout")
    return _dense(x, classes, activation, DENSE)


def _checked_units(units, kind, *, features) -> int:
    if units is None:
        return min(_WIDEST, features)
    if kind != "hidden":
        raise ValueError(
            f'`hidden_units` is the width of the head "hidden"; leave it out with another one. '
            f"Received: hidden_units={units!r}, head={kind!r}"
        )
    if isinstance(units, bool) or not isinstance(units, int) or units < 1:
        raise ValueError(f"`hidden_units` must be a whole number of at least 1, or None. Received: {units!r}")
    return units


def kind_of(model: keras.Model) -> str:
    """The kind of head that a model of `create` has."""
    names = {layer.name for layer in model.layers}
    return "hidden" if HIDDEN in names else "average+max" if _BOTH in names else "linear"


def units_of(model: keras.Model) -> int | None:
    """The width of the hidden layer in the head of a model of `create`; None where there is no such layer."""
    return model.get_layer(HIDDEN).units if kind_of(model) == "hidden" else None


def kind_of_file(kernels: Mapping[str, tuple[int, int]], features: int) -> tuple[str, int | None] | None:
    """The kind of head that a file holds and the width of its hidden layer; None where it is none of ours.

    Args:
        kernels: Layer name to the inputs and outputs of its kernel.
        features: Channels of the last map.
    """
    inputs = {name: kernels[name][0] for name in (HIDDEN, DENSE) if name in kernels}
    units = kernels[HIDDEN][1] if HIDDEN in kernels else None
    expected = {
        "linear": {DENSE: features},
        "hidden": {HIDDEN: features, DENSE: units},
        "average+max": {DENSE: 2 * features},
    }
    return next(((kind, units) for kind in KINDS if expected[kind] == inputs), None)


def _average_and_max(x):
    if tuple(x.shape[1:3]) == (1, 1):
        raise ValueError(
            "The network ends in a map of one pixel, whose average and largest value are the same; take a larger "
            'picture or another head, "linear" or "hidden". Received: head=\'average+max\''
        )
    average = layers.GlobalAveragePooling2D(dtype="float32", name=_POOL)(x)
    largest = layers.GlobalMaxPooling2D(dtype="float32", name="head_pool_max")(x)
    return layers.Concatenate(dtype="float32", name=_BOTH)([average, largest])


def _dense(x, units, activation, name):
    return layers.Dense(units, activation=activation, kernel_initializer=UNDRAWN, dtype="float32", name=name)(x)


def _dropped(x, share, name):
    return layers.Dropout(share, dtype="float32", name=name)(x) if share else x
