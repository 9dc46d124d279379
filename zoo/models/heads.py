"""From the last feature map to a probability for each class, in float32 whatever the precision."""

from collections.abc import Mapping

import keras
from keras import layers

from zoo.models.blocks import UNDRAWN

KINDS = ("linear", "hidden", "average+max")
DENSE, HIDDEN = "head_dense", "head_hidden"
_POOL, _BOTH = "head_pool", "head_pool_both"
_WIDEST = 512  # of the hidden layer, as in fastai's head


def head(x, kind, *, classes, dropout=0.0, activation: str | None = "softmax"):
    """Pooling, dropout where it is wanted, and the classifier `head_dense`.

    "linear" is one dense layer behind the average of the map. "hidden" puts a dense layer with ReLU between, as wide as
    the features but at most 512; it drops before both. "average+max" has the largest value of each channel beside the
    average. Both are parts of the head of fastai's `vision_learner` (Howard and Gugger 2020,
    https://arxiv.org/abs/2002.04688), without its batch normalisation.

    (n, h, w, c) -> (n, classes)

    Raises:
        ValueError: If there is no such kind, or if the map is one pixel, whose average and largest value are one.
    """
    if kind not in KINDS:
        raise ValueError(f"`head` must be one of {KINDS}. Received: head={kind!r}")
    features = x.shape[-1]
    if kind == "average+max":
        x = _average_and_max(x)
    else:
        x = layers.GlobalAveragePooling2D(dtype="float32", name=_POOL)(x)
    x = _dropped(x, dropout, "head_dropout")
    if kind == "hidden":
        x = _dense(x, min(_WIDEST, features), "relu", HIDDEN)
        x = _dropped(x, dropout, "head_hidden_dropout")
    return _dense(x, classes, activation, DENSE)


def kind_of(model: keras.Model) -> str:
    """The kind of head that a model of `create` has."""
    names = {layer.name for layer in model.layers}
    return "hidden" if HIDDEN in names else "average+max" if _BOTH in names else "linear"


def kind_of_file(kernels: Mapping[str, int], features: int) -> str | None:
    """The kind of head that a file holds: layer name to the inputs of its kernel; None where it is none of ours."""
    inputs = {name: kernels[name] for name in (HIDDEN, DENSE) if name in kernels}
    expected = {
        "linear": {DENSE: features},
        "hidden": {HIDDEN: features, DENSE: min(_WIDEST, features)},
        "average+max": {DENSE: 2 * features},
    }
    return next((kind for kind in KINDS if expected[kind] == inputs), None)


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
