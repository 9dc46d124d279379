"""The one source of chance for pictures: a hash of (seed, epoch, picture, operation)."""

import hashlib
from typing import Any

import keras
import numpy as np

ops: Any = keras.ops  # what it returns is declared as None in places


class Draws(keras.random.SeedGenerator):
    """Draws for one operation of a layer, a value a picture.

    A value is a function of the seed, the operation, the draw's number and the picture's keys alone: no batch size,
    order, process or backend changes it, and a resumed training draws what it would have drawn. `keras.random` cannot
    do this, since it refuses seeds that are tensors.

    The hash is pcg4d of Jarzynski and Olano 2020, "Hash Functions for GPU Rendering",
    https://jcgt.org/published/0009/03/02/: four words of 32 bits are mixed with each other. Two of them are taken from
    the SHA-256 of seed, operation and number, so that all bits of a long seed count; two are epoch and picture. Of the
    result, the 24 upper bits of one word are kept, which is what a float32 holds. Not for secrets.

    Where keys are absent, a running counter serves as the epoch and the row in the batch as the picture. The counter
    is the state of a `SeedGenerator`, because Keras carries that through `fit` on every backend once a `Draws` is an
    attribute of a layer, and counts it among no weights; it is not saved. In a `tf.data` pipeline pass keys: parallel
    calls would take the counter's values in any order. So do in a `jax.jit` of your own, which would draw once for all.

    Args:
        seed: Whole number of at least 0, of any length.
        operation: Name of what is drawn for; two operations of one seed draw independently.

    Raises:
        ValueError: If `seed` is negative or no whole number.

    Example:

    >>> import numpy as np
    >>> images = np.zeros((2, 8, 8, 3))
    >>> keys = [[0, 11], [0, 12]]  # epoch 0, pictures 11 and 12
    >>> gain = Draws(0, "gain").uniform(images, keys, 0.8, 1.2)
    >>> tuple(gain.shape)
    (2, 1, 1, 1)
    """

    def __init__(self, seed, operation):
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"`seed` must be a whole number of at least 0. Received: seed={seed!r}")
        super().__init__(0)  # its state is the running counter; nothing is drawn from it
        self.seed = seed
        self.operation = operation

    def uniform(self, images, keys, low, high, *, number=0):
        """Values in [low, high) as float32 (batch, 1, 1, 1), ready to meet images in a product.

        Args:
            images: (batch, height, width, channels).
            keys: Integers (batch, 2), epoch and picture, at least 0 and below 2**31; or None.
            low: Least value, a number.
            high: Bound that is never reached, a number.
            number: Tells the draws of one operation apart.

        Raises:
            ValueError: If `keys` has another shape or does not hold integers.
        """
        return self.uniforms(images, keys, [(low, high)], first=number)[0]

    def uniforms(self, images, keys, ranges, *, first=0):
        """Several `uniform`s at the price of one: a draw for each (low, high), of the numbers from `first` on."""
        lows, highs = (np.array(bounds, np.float64) for bounds in zip(*ranges, strict=True))
        span = (highs - lows).astype(np.float32)
        words, _ = self._words(images, keys, range(first, first + len(ranges)))
        share = _share(words)  # (batch, ranges)
        # the bound is met by every value already; it keeps XLA from fusing product and sum, which then round otherwise
        above = ops.minimum(span * share, span)
        lows, highs = lows.astype(np.float32), highs.astype(np.float32)
        below = np.where(lows < highs, np.nextafter(highs, lows), lows)  # rounding may lift the sum to the bound itself
        drawn = ops.minimum(lows + above, below)
        return [ops.reshape(drawn[:, i], (-1, 1, 1, 1)) for i in range(len(ranges))]

    def chance(self, images, keys, probability, *, number=0):
        """True with a probability, as booleans (batch, 1, 1, 1); never at 0 and always at 1. Else like `uniform`."""
        return self.uniform(images, keys, 0.0, 1.0, number=number) < probability

    def field(self, images, keys, *, number=0):
        """A value in [0, 1) for every pixel and channel, float32 (batch, height, width, channels).

        Two words of the picture's hash are mixed with the running number of the pixel by the two-round hash that
        Wellons found by search, https://nullprogram.com/blog/2018/07/31/ (2018): a fifth of pcg4d's steps.
        """
        first, second = self._words(images, keys, [number])  # (batch, 1)
        shape = ops.shape(images)
        places = ops.cast(ops.arange(shape[1] * shape[2] * shape[3]), "uint32")
        word = places[np.newaxis] * np.uint32(0x9E3779B9) + first
        word = ops.bitwise_xor(word, ops.right_shift(word, np.uint32(16))) * np.uint32(0x21F0AAAD)
        word = ops.bitwise_xor(ops.bitwise_xor(word, ops.right_shift(word, np.uint32(15))), second)
        word = word * np.uint32(0x735A2D97)
        word = ops.bitwise_xor(word, ops.right_shift(word, np.uint32(15)))
        return ops.reshape(_share(word), shape)

    def _words(self, images, keys, numbers):
        """Two words uint32 (batch, numbers) for each picture and number."""
        count = ops.shape(images)[0]
        if keys is None:
            epochs = ops.cast(self.next()[1], "uint32") + ops.zeros((count,), "uint32")
            pictures = ops.cast(ops.arange(count), "uint32")  # TensorFlow counts in signed numbers only
        else:
            keys = _checked(keys, images)
            epochs, pictures = ops.cast(keys[:, 0], "uint32"), ops.cast(keys[:, 1], "uint32")
        digests = [hashlib.sha256(f"{self.seed}/{self.operation}/{number}".encode()).digest() for number in numbers]
        words = np.stack([np.frombuffer(digest, "<u4", count=2) for digest in digests])
        return _pcg4d(words[:, 0], words[:, 1], epochs[:, np.newaxis], pictures[:, np.newaxis])


def _share(words):
    """The 24 upper bits, which are what a float32 holds, as numbers in [0, 1)."""
    return ops.cast(ops.right_shift(words, np.uint32(8)), "float32") * 2.0**-24


def _checked(keys, images):
    """Keys as a tensor that fits the images."""
    keys = ops.convert_to_tensor(keys)
    batch = images.shape[0]
    fits = len(keys.shape) == 2 and keys.shape[1] == 2 and (None in (keys.shape[0], batch) or keys.shape[0] == batch)
    if not fits or "int" not in keras.backend.standardize_dtype(keys.dtype):
        raise ValueError(
            "`keys` must hold integers (batch, 2): epoch and picture of each image. "
            f"Received: {keras.backend.standardize_dtype(keys.dtype)} {tuple(keys.shape)} for {batch} images"
        )
    return keys


def _pcg4d(x, y, z, w):
    """Four words, uint32, each mixed with the others modulo 2**32; returns the first two.

    x and y are arrays (numbers,), z and w tensors (batch, 1).
    """
    x, y, z, w = (word * np.uint32(1664525) + np.uint32(1013904223) for word in (x, y, z, w))
    x, y, z, w = _cross(x, y, z, w)
    x, y, z, w = (ops.bitwise_xor(word, ops.right_shift(word, np.uint32(16))) for word in (x, y, z, w))
    return _cross(x, y, z, w)[:2]


def _cross(x, y, z, w):
    x = x + y * w
    y = y + z * x
    z = z + x * y
    return x, y, z, w + y * z
