"""What all augmentation layers share: off unless training, float32 inside, the caller's dtype outside."""

import inspect
import math
from typing import Any

import keras
import numpy as np

from augment.draws import Draws

ops: Any = keras.ops  # what it returns is declared as None in places


class Augmentation(keras.layers.Layer):
    """Base of the layers: a subclass names its `operation` and says in `augmented` what happens to the pictures.

    One base instead of a copy in each layer, because "untouched outside training" must hold for all of them alike.
    The configuration is read from the constructor: an argument, an attribute and a key are one word.
    """

    operation = ""

    def __init__(self, seed=0, **kwargs):
        # sums and places must stay float32 whatever the precision: bfloat16 cannot count to 257
        super().__init__(autocast=False, **kwargs)
        self.seed = plain(seed)
        self.draws = Draws(self.seed, operation=self.operation)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def augmented(self, images, keys):
        """The changed pictures; float32 in and out."""
        raise NotImplementedError

    def call(self, images, training=False, keys=None):
        if not training:
            return images
        return as_before(self.augmented(ops.cast(images, "float32"), keys), images.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, images, training=False, keys=None):
        return keras.KerasTensor(self.compute_output_shape(images.shape), images.dtype)  # Keras would give its own

    def get_config(self):
        names = [name for name in inspect.signature(type(self).__init__).parameters if name not in ("self", "kwargs")]
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def as_before(images, dtype):
    """float32 pixels at the dtype that came in; integers are rounded and stay within 0..255."""
    dtype = keras.backend.standardize_dtype(dtype)
    return ops.cast(ops.clip(ops.round(images), 0, 255) if "int" in dtype else images, dtype)


def chosen(which, one, other):
    """For each picture one where `which`, booleans (batch, 1, 1, 1), holds, and else the other of the same shape.

    Flat, since TensorFlow's selection takes five times as long with a condition that is spread over four axes.
    """
    flat = [ops.reshape(images, (-1, math.prod(ops.shape(other)[1:]))) for images in (one, other)]
    return ops.reshape(ops.where(ops.reshape(which, (-1, 1)), *flat), ops.shape(other))


def plain(value):
    """A number of numpy as one of Python, which configurations can hold; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def checked_share(value, name, most=1.0, below=False):
    """A number from 0 to `most`, or just below it.

    Raises:
        ValueError: If it is none.
    """
    value = plain(value)
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most
    if not fits or (below and value == most):
        raise ValueError(f"`{name}` must lie in [0, {most:g}{')' if below else ']'}. Received: {name}={value!r}")
    return value


def checked_range(value, name, least, most):
    """A pair (low, high), as two numbers with least <= low <= high <= most.

    Raises:
        ValueError: If it is none.
    """
    pair = tuple(map(plain, value)) if isinstance(value, (tuple, list, np.ndarray)) and np.ndim(value) == 1 else ()
    numbers = [x for x in pair if isinstance(x, (int, float)) and not isinstance(x, bool)]
    if len(pair) != 2 or len(numbers) != 2 or not least <= pair[0] <= pair[1] <= most:
        raise ValueError(
            f"`{name}` must be a pair (low, high) with {least:g} <= low <= high <= {most:g}. Received: {name}={value!r}"
        )
    return pair
