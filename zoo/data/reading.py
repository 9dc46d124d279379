"""Pictures to pixels, many at a time: decoded, brought to one size, kept in memory or on disk.

On the TensorFlow backend the graph decodes that the export carries, elsewhere `zoo.data.plain`.
"""

import math
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.data import plain
from zoo.data.inspecting import check
from zoo.data.looking import without_warnings
from zoo.data.pictures import Geometry, as_png, portable
from zoo.files import cache_folder, make_folder
from zoo.progress import track

BUDGET = "MENAGERIE_MEMORY_GB"
_CHUNK = 64  # pictures that a thread takes at once
_THREADS = 2  # a core: TensorFlow parts the work on a picture among threads of its own, for which ours then wait


def memory_budget() -> int:
    """Bytes of prepared pictures, a split, beyond which they lie on disk: $MENAGERIE_MEMORY_GB, or 4 GiB.

    Raises:
        ValueError: If the variable is not a number, or a negative one.
    """
    text = os.environ.get(BUDGET) or "4"
    try:
        budget = int(float(text) * 2**30)
    except (ValueError, OverflowError):
        budget = -1
    if budget < 0:
        raise ValueError(f"The environment variable {BUDGET} must be a number of GiB, 0 or more. Received: {text!r}")
    return budget


def read(
    reader: Callable[[int], bytes], count: int, geometry: Geometry, title: str = ""
) -> tuple[np.ndarray, dict[int, str]]:
    """Decodes pictures in parallel.

    Args:
        reader: Gives the bytes of a row, 0 to `count` - 1; called from several threads.
        count: How many pictures.
        geometry: The size they are brought to.
        title: What the progress bar says; without it there is none.

    Returns:
        uint8 (n, height, width, channels), in memory or memory-mapped, and why some rows could not be read; those
        rows are black.
    """
    prepare = _decoder(geometry)
    problems = {}

    def fill(pixels, row):
        try:
            pixels[row] = prepare(reader(row))
        except Exception as error:  # Pillow's readers raise nearly anything on damaged files
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            problems[row] = text.splitlines()[0]

    return _filled(fill, count, geometry, title), problems


def read_files(paths: Sequence[Path], geometry: Geometry) -> tuple[np.ndarray, dict[int, str]]:
    """`read` for files that nobody has looked at yet."""

    def whole(row):
        data = paths[row].read_bytes()
        if reason := check(data)["reason"]:
            raise OSError(reason)
        return portable(data)

    return read(whole, len(paths), geometry, "Reading pictures")


def resized(images: np.ndarray, geometry: Geometry, title: str = "") -> np.ndarray:
    """uint8 pictures in memory, (n, h, w, channels), brought to a geometry; those that fit already stay as they are."""
    images = _channels(images, geometry.channels)
    if images.shape[1:] == geometry.shape and geometry.crop in (1.0, None):
        return images
    fit = _fitter(geometry)

    def fill(pixels, row):
        pixels[row] = fit(images[row])

    return _filled(fill, len(images), geometry, title)


def _decoder(geometry: Geometry) -> Callable[[bytes], Any]:
    """The bytes of one picture to its pixels, on the backend's own way."""
    if keras.backend.backend() != "tensorflow":
        return lambda data: plain.prepare(data, geometry)

    from zoo.data import decode

    graph = decode.compiled(geometry)

    def prepare(data):
        try:
            return graph(data)
        except decode.Refused:  # Pillow reads some files that TensorFlow refuses
            return graph(as_png(data))

    return prepare


def _fitter(geometry: Geometry) -> Callable[[np.ndarray], Any]:
    if keras.backend.backend() != "tensorflow":
        return lambda image: plain.fit(image, geometry)

    from zoo.data import decode

    return decode.fitter(geometry)


def _filled(fill: Callable[[np.ndarray, int], None], count: int, geometry: Geometry, title: str) -> np.ndarray:
    """Room for pictures, each row of it filled by one of a few threads."""
    pixels = room(count, geometry.shape)
    size = max(1, min(_CHUNK, count // (4 * _THREADS * (os.cpu_count() or 1))))

    def work(start):
        rows = range(start, min(start + size, count))
        for row in rows:
            fill(pixels, row)
        return rows

    def rows() -> Iterator[int]:
        with ThreadPoolExecutor(_THREADS * (os.cpu_count() or 1)) as pool:
            for done in pool.map(work, range(0, count, size)):
                yield from done

    with without_warnings():  # they were said when the pictures were looked at
        for _ in track(rows(), title, count) if title else rows():
            pass
    return pixels


def _channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Grey to RGB, RGB to grey; anything else must fit already."""
    have = images.shape[-1]
    if have == channels:
        return images
    if (have, channels) == (1, 3):
        return np.repeat(images, 3, axis=-1)
    if (have, channels) == (3, 1):
        return plain.grey(images)
    raise ValueError(f"Pictures with {have} channels cannot be brought to `channels`={channels}.")


def room(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Space for prepared pictures: memory, or beyond the budget a file that goes with the array."""
    if count * math.prod(shape) <= memory_budget():
        return np.zeros((count, *shape), np.uint8)
    handle, name = tempfile.mkstemp(suffix=".pixels", dir=make_folder(cache_folder()))
    os.close(handle)
    pixels = np.memmap(name, np.uint8, "w+", shape=(count, *shape))
    weakref.finalize(pixels, Path(name).unlink, missing_ok=True)
    return pixels
