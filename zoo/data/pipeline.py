"""Manifest rows to batches: prepared once as uint8, then served in an order that can be made again."""

import math
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.data import decode
from zoo.data.order import checked_batch_size, order, parts, steps
from zoo.data.pictures import Geometry, as_png, portable
from zoo.data.scan import check
from zoo.files import make_folder
from zoo.progress import track

MEMORY = 4 * 2**30  # bytes of prepared pictures, a split, beyond which they lie on disk


def read(
    readers: Sequence[Callable[[], bytes]], geometry: Geometry, title: str = ""
) -> tuple[np.ndarray, dict[int, str]]:
    """Decodes pictures in parallel.

    Args:
        readers: One function a picture, returning its bytes.
        geometry: The size they are brought to.
        title: What the progress bar says; without it there is none.

    Returns:
        uint8 (n, height, width, channels), in memory or memory-mapped, and why some rows could not be read; those
        rows are black.
    """
    pixels = _room(len(readers), geometry.shape)
    prepare = compiled(geometry)
    problems = {}

    def fill(row):
        try:
            data = readers[row]()
            try:
                pixels[row] = prepare(data)
            except tf.errors.InvalidArgumentError:  # Pillow reads some files that TensorFlow refuses
                pixels[row] = prepare(as_png(data))
        except Exception as error:  # Pillow's readers raise nearly anything on damaged files
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            problems[row] = text.splitlines()[0]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        filled = pool.map(fill, range(len(readers)))
        for _ in track(filled, title, len(readers)) if title else filled:
            pass
    return pixels, problems


def read_files(paths: Sequence[Path], geometry: Geometry) -> tuple[np.ndarray, dict[int, str]]:
    """`read` for files that nobody has looked at yet."""

    def whole(path):
        data = path.read_bytes()
        if reason := check(data)["reason"]:
            raise OSError(reason)
        return portable(data)

    return read([lambda path=path: whole(path) for path in paths], geometry, "Reading pictures")


def resized(images: np.ndarray, geometry: Geometry, title: str = "") -> np.ndarray:
    """uint8 pictures in memory, (n, h, w, channels), brought to a geometry; those that fit already stay as they are."""
    images = _channels(images, geometry.channels)
    if images.shape[1:] == geometry.shape and geometry.crop in (1.0, None):
        return images
    fit = tf.function(
        lambda image: decode.fit(image, geometry), input_signature=[tf.TensorSpec(images.shape[1:], tf.uint8)]
    )
    pixels = _room(len(images), geometry.shape)
    for row, image in enumerate(track(images, title, len(images)) if title else images):
        pixels[row] = fit(image)
    return pixels


def in_order(split, batch_size: int, one_hot: bool = False) -> tf.data.Dataset:
    """Row by row, the same each time."""
    rows = np.arange(len(split))
    batches = _batches(split, lambda: ((0, part) for part in parts(rows, batch_size)), batch_size, one_hot=one_hot)
    return _of_length(batches, len(split), batch_size)


def shuffled(split, batch_size: int, *, policy=None, seed: int = 0) -> tf.data.Dataset:
    """One epoch each time it is gone through, every time in its own order."""
    epochs = iter(range(2**31))

    def plan():
        epoch = next(epochs)
        return ((epoch, part) for part in parts(order(len(split), seed, epoch), batch_size))

    return _of_length(_batches(split, plan, batch_size, policy=policy), len(split), batch_size)


def stream(
    split,
    batch_size: int,
    *,
    policy=None,
    mixing=None,
    seed: int = 0,
    epoch: int = 0,
    step: int = 0,
    one_hot: bool = False,
) -> tf.data.Dataset:
    """Epoch after epoch without end, from the one given: what `fit` gets with `steps_per_epoch`.

    `mixing` is called behind the policy, with images, labels and keys, and gives what `fit` gets. What stands for the
    first `step` batches is cheap and not meant to be used.
    """

    def plan():
        now, skipped = epoch, step
        while True:
            for number, part in enumerate(parts(order(len(split), seed, now), batch_size)):
                yield now, part[:1] if number < skipped else part
            now, skipped = now + 1, 0

    return _batches(split, plan, batch_size, policy=policy, mixing=mixing, one_hot=one_hot)


def _of_length(batches: tf.data.Dataset, count: int, batch_size: int) -> tf.data.Dataset:
    """Says how many batches there are: a generator cannot, and Keras would warn that it ran out."""
    return batches.apply(tf.data.experimental.assert_cardinality(steps(count, batch_size)))


def _batches(split, plan, batch_size: int, *, policy=None, mixing=None, one_hot: bool = False) -> tf.data.Dataset:
    """Pictures and labels along a plan of (epoch, rows), changed as they come."""
    checked_batch_size(batch_size)
    pixels, labels = split.pixels(), split.labels
    targets = np.eye(len(split.class_names), dtype=np.float32)[labels] if one_hot else labels

    def read(epoch, rows):
        return pixels[rows], targets[rows], np.stack([np.full(len(rows), epoch), rows], 1).astype(np.int64)

    def change(images, labels, keys):
        if policy is not None:
            images = policy(images, training=True, keys=keys)
        return (images, labels) if mixing is None else mixing(images, labels, keys)

    if keras.backend.backend() == "tensorflow" or (policy is None and mixing is None):
        return _generated(lambda: (read(*part) for part in plan()), read(0, np.arange(0))).map(change).prefetch(2)

    def changed(epoch, rows) -> tuple[Any, ...]:  # layers of another backend cannot enter TensorFlow's graphs
        return tuple(map(keras.ops.convert_to_numpy, change(*read(epoch, rows))))

    return _generated(lambda: (changed(*part) for part in plan()), changed(0, [0])).prefetch(2)


def _generated(generate, example: tuple[np.ndarray, ...]) -> tf.data.Dataset:
    """What a generator gives, batches of any size of such arrays."""
    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), tf.as_dtype(array.dtype)) for array in example)
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


@lru_cache(maxsize=8)
def compiled(geometry: Geometry):
    """The decoder as a graph, traced once a geometry."""
    return tf.function(
        lambda data: decode.prepare(data, geometry), input_signature=[tf.TensorSpec([], tf.string)], autograph=False
    )


def _channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Grey to RGB, RGB to grey; anything else must fit already."""
    have = images.shape[-1]
    if have == channels:
        return images
    if (have, channels) == (1, 3):
        return np.repeat(images, 3, axis=-1)
    if (have, channels) == (3, 1):
        return decode.grey(images).numpy()
    raise ValueError(f"Pictures with {have} channels cannot be brought to `channels`={channels}.")


def _room(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Space for prepared pictures: memory, or beyond `MEMORY` a file that goes with the array."""
    if count * math.prod(shape) <= MEMORY:
        return np.zeros((count, *shape), np.uint8)
    folder = make_folder(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "menagerie")
    handle, name = tempfile.mkstemp(suffix=".pixels", dir=folder)
    os.close(handle)
    pixels = np.memmap(name, np.uint8, "w+", shape=(count, *shape))
    weakref.finalize(pixels, Path(name).unlink, missing_ok=True)
    return pixels
