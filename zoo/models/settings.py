"""What `create` sets on all layers at once: how kernels start, and how they are held small."""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import keras
import numpy as np
from keras import initializers, regularizers

# Layer type -> its kernels: attribute of the variable, prefix of initialiser and regulariser. The first match counts.
_KERNELS = (
    (keras.layers.SeparableConv2D, (("depthwise_kernel", "depthwise"), ("pointwise_kernel", "pointwise"))),
    (keras.layers.DepthwiseConv2D, (("kernel", "depthwise"),)),
    ((keras.layers.Conv2D, keras.layers.Dense), (("kernel", "kernel"),)),
)

_CHUNK = 2**20  # numbers that one thread draws at a time


def kernels(layer: keras.Layer) -> list[tuple[keras.Variable, str]]:
    """The kernels of a layer, each with the prefix under which the layer keeps its initialiser and regulariser."""
    for types, names in _KERNELS:
        if isinstance(layer, types):
            return [(getattr(layer, attribute), prefix) for attribute, prefix in names]
    return []


def initialize(model: keras.Model, initializer, *, draw: str = ""):
    """Gives every kernel the initialiser and its first values; builders leave them at zero.

    He et al. 2015, https://arxiv.org/abs/1502.01852, and Glorot and Bengio 2010 scale by the number of inputs that a
    unit sees. Keras counts all channels for a depthwise kernel, which sees one; that is put right.

    Args:
        model: Built model.
        initializer: Name or object. A seeded one is moved on by one a kernel, so that no two kernels start alike.
        draw: Beginning of the names of the layers that get new values; the others are about to be loaded.
    """
    given = initializers.get(initializer)
    number = 0
    for layer in model.layers:
        for kernel, prefix in kernels(layer):
            wanted = _own_copy(given, number, depthwise=prefix == "depthwise")
            number += 1
            setattr(layer, f"{prefix}_initializer", wanted)
            if layer.name.startswith(draw):
                kernel.assign(_drawn(wanted, kernel, depthwise=prefix == "depthwise"))


def regularize(model: keras.Model, *, l1: float, l2: float):
    """Adds `l1` times the sum of absolute values and `l2` times the sum of squares of every kernel to the loss.

    Raises:
        ValueError: If one of them is negative.
    """
    for name, factor in (("l1", l1), ("l2", l2)):
        if factor < 0:
            raise ValueError(f"`{name}` must not be negative. Received: {name}={factor}")
    if not (l1 or l2):
        return
    for layer in model.layers:
        for kernel, prefix in kernels(layer):
            regularizer = regularizers.L1L2(l1, l2) if l1 else regularizers.L2(l2)
            setattr(layer, f"{prefix}_regularizer", regularizer)  # what the config holds
            kernel.regularizer = regularizer  # what acts


def _own_copy(initializer, number, *, depthwise) -> Callable:
    """An initialiser for one kernel: drawing anew, since one object gives the same values for the same shape."""
    seed = getattr(initializer, "seed", None)
    if not isinstance(initializer, initializers.Initializer) or isinstance(seed, keras.random.SeedGenerator):
        return initializer  # a generator goes on from kernel to kernel by itself; a copy would start again
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += number
    if depthwise and isinstance(initializer, initializers.VarianceScaling):
        return initializers.VarianceScaling(
            scale=initializer.scale,
            mode=initializer.mode,
            distribution=initializer.distribution,
            input_axes=(0, 1),  # kernel (h, w, channels, multiplier): a unit sees h * w values of one channel
            output_axes=(0, 1, 3),
            seed=config["seed"],
        )
    return type(initializer).from_config(config)


def _drawn(initializer, kernel, *, depthwise):
    """Values for a kernel: those of the initialiser, or of the same distribution where no seed says which.

    Keras takes four times as long for a number of He's distribution as for one of Glorot's, which is more than the rest
    of building a large network takes; looking numbers up in a table, on all cores, is about as fast as Glorot's.
    """
    if not _is_he_normal(initializer):
        return initializer(kernel.shape, dtype=kernel.dtype)
    inputs = math.prod(kernel.shape[:2] if depthwise else kernel.shape[:-1])
    table = _truncated_normal() * np.float32(math.sqrt(2 / inputs))
    values = np.empty(math.prod(kernel.shape), np.float32)

    def fill(number):
        part = values[number * _CHUNK : (number + 1) * _CHUNK]
        # The seed is drawn by Keras, so that `keras.utils.set_random_seed` holds; chunks do not depend on the cores.
        rng = np.random.Generator(np.random.SFC64([initializer.seed, number]))
        raw = rng.integers(2**64 - 1, size=-(-len(part) // 4), dtype=np.uint64, endpoint=True)  # four of 16 bits each
        np.take(table, raw.view(np.uint16)[: len(part)], out=part, mode="wrap")  # straight into place, unchecked

    chunks = range(-(-len(values) // _CHUNK))
    if len(chunks) == 1:
        fill(0)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(fill, chunks))
    return values.reshape(kernel.shape)


def _is_he_normal(initializer):
    if not isinstance(initializer, initializers.VarianceScaling) or initializer.get_config()["seed"] is not None:
        return False
    return (initializer.scale, initializer.mode, initializer.distribution) == (2, "fan_in", "truncated_normal")


@cache
def _truncated_normal():
    """65,536 values that are equally likely in a normal distribution cut at two deviations, scaled to variance 1."""
    shares = (np.arange(2**16) + 0.5) / 2**15 - 1
    values = np.asarray(keras.ops.convert_to_numpy(keras.ops.erfinv(np.float32(shares * math.erf(math.sqrt(2))))))
    return values / values.std()
