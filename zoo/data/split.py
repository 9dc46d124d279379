"""One of train, dev and test: its pictures, labels and batches."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from zoo.data import order
from zoo.data.memory import Arrays
from zoo.data.pictures import Geometry

if TYPE_CHECKING:
    from zoo.data.collection import Data

SMALL = 2**27  # bytes
SERVED = ["path", "label", "split", "sha256", "width", "height"]  # of a manifest, what pictures are served by


class Split:
    """One of train, dev and test.

    Attributes:
        name: "train", "dev" or "test".
        class_names: Labels in the order of the network's outputs.
    """

    def __init__(self, data: Data, name: str, index: pd.Index):
        self.name = name
        self.class_names = data.class_names
        self._data = data
        self._index = index

    def __len__(self):
        return len(self._index)

    @property
    def _rows(self) -> pd.DataFrame:
        """The pictures' rows of the manifest, which alone keeps them."""
        return self._data.manifest.table.loc[self._index, SERVED]

    def configured(self, **changes) -> Split:
        """The same pictures for another `image_size`, `crop` or `interpolation`, as `Data.configured` gives them."""
        return getattr(self._data.configured(**changes), self.name)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width), or None until a model decides."""
        return self._data.image_size

    @property
    def geometry(self) -> Geometry:
        """How every picture is prepared."""
        return self._data.geometry

    @cached_property
    def labels(self) -> np.ndarray:
        """The class index of each picture, int64 (n,); -1 where there are no labels."""
        number = {name: i for i, name in enumerate(self.class_names)} | {"": -1}
        return np.array([number[label] for label in self._rows.label], np.int64)

    @property
    def relative_paths(self) -> list[str]:
        """Paths relative to the source, as tables show them."""
        return self._rows.path.tolist()

    @property
    def paths(self) -> list[str]:
        """Absolute paths; for pictures in memory, their row numbers."""
        return [self._data.source.absolute(path) for path in self._rows.path]

    @property
    def counts(self) -> dict[str, int]:
        """Pictures a class."""
        found = self._rows.label.value_counts()
        return {name: int(found.get(name, 0)) for name in self.class_names}

    def class_weights(self, how: str | Mapping[str, float]) -> dict[int, float]:
        """A weight for each class index, for `fit(class_weight=...)`.

        Args:
            how: "balanced", n / (classes * n of the class), which gives each class the same say; or {name: weight},
                where classes left out weigh 1.

        Raises:
            ValueError: If `how` is neither, names an unknown class, or a weight is not above 0 or above a million.
        """
        from zoo.data.batches import class_weights

        return class_weights(how, self.counts)

    def dataset(
        self,
        batch_size: int = 32,
        training: bool = False,
        policy=None,
        seed: int = 0,
        *,
        class_weights: str | Mapping[str, float] | None = None,
        balanced: bool = False,
    ):
        """Batches for `model.fit`, `evaluate` or `predict`.

        Args:
            batch_size: Pictures a batch; the last one may be smaller.
            training: Shuffled, anew each time the dataset is gone through: the order is a function of the seed and of
                how often that was. Otherwise row by row.
            policy: A layer that augments in training, called with `keys` (epoch, picture).
            seed: Decides the order and nothing else.
            class_weights: Adds a weight for each picture, float32 (n,), that of its class as `class_weights` has it.
            balanced: In training, draws every class equally often: an epoch still has as many pictures, those of small
                classes several times, and not all of the large ones.

        Returns:
            A tf.data.Dataset of images, uint8 (n, height, width, channels), and labels, int64 (n,). With a policy,
            images have the dtype that it returns. Where Keras does not run on TensorFlow, a keras.utils.PyDataset with
            the same batches as arrays; give `fit` shuffle=False with it, else Keras shuffles the batches once more.

        Raises:
            ValueError: If an argument is out of range, or `balanced` is asked for out of training.
        """
        from zoo.data import batches

        if training:
            given = {"class_weights": class_weights, "balanced": balanced}
            return batches.shuffled(self, batch_size, policy=policy, seed=seed, **given)
        if balanced:
            raise ValueError("`balanced` is for training alone, since it repeats pictures. Add training=True.")
        return batches.in_order(self, batch_size, class_weights=class_weights)

    def stream(
        self,
        batch_size: int = 32,
        *,
        policy=None,
        seed: int = 0,
        epoch: int = 0,
        step: int = 0,
        balanced: bool = False,
    ):
        """Epoch after epoch without end, for a `fit` with `steps_per_epoch` that is to go on where it was.

        Each epoch has its own order, a function of the seed and its number alone.

        Args:
            batch_size: Pictures a batch; the last one of an epoch may be smaller.
            policy: A layer that augments, called with `keys` (epoch, picture).
            seed: Decides the order and nothing else.
            epoch: The first one, from 0, such as `Checkpoint.position.epoch`.
            step: What stands for so many batches of the first epoch is cheap and not meant to be used.
            balanced: Draws every class equally often, as in `dataset`.
        """
        from zoo.data import batches

        return batches.stream(self, batch_size, policy=policy, seed=seed, epoch=epoch, step=step, balanced=balanced)

    def pixels(self) -> np.ndarray:
        """All pictures prepared, uint8 (n, height, width, channels), made on first use and kept.

        Up to 4 GiB a split, or the environment's MENAGERIE_MEMORY_GB, they are kept in memory; beyond, in a file of the
        user's cache folder that is mapped into memory and goes with the array.
        """
        key = (self.name, self.geometry)
        if key not in self._data._prepared:
            origin = self._data._origin
            every = np.arange(len(self))
            found = self._prepare(every, f"Reading {self.name}") if origin is None else self._gathered(origin)
            self._data._prepared[key] = found
        return self._data._prepared[key]

    def _gathered(self, origin: Data) -> np.ndarray:
        """The pictures of a fold, from those that the whole data has prepared."""
        from zoo.data import reading

        pixels = reading.room(len(self), self.geometry.shape)
        for split in (origin.train, origin.dev, origin.test):
            places = split._index.get_indexer(self._index)
            here = np.flatnonzero(places >= 0)
            for rows in order.parts(here, 1024):  # few at a time: they may lie on disk
                pixels[rows] = split.pixels()[places[rows]]
        return pixels

    @property
    def is_small(self) -> bool:
        """Whether all pictures, prepared, take so little memory that they may be kept when few are asked for."""
        return len(self) * math.prod(self.geometry.shape) <= SMALL

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The pictures of some rows prepared, uint8 (m, height, width, channels); unlike `pixels`, it keeps none."""
        whole = self._data._prepared.get((self.name, self.geometry))
        return self._prepare(rows) if whole is None else whole[rows]

    def _prepare(self, rows: np.ndarray, title: str = "") -> np.ndarray:
        from zoo.data import reading

        paths, hashes = self._named(rows)
        if isinstance(self._data.source, Arrays):
            return reading.resized(self._data.source.picked(paths, hashes), self.geometry, title)
        pixels, problems = reading.read(
            lambda row: self._data.source.encoded(paths[row], hashes[row]), len(rows), self.geometry, title
        )
        if problems:
            first = min(problems)
            raise ValueError(
                f"{self._data.source.absolute(paths[first])} cannot be used any more: {problems[first]}. "
                "Index the pictures again with load_data."
            )
        return pixels

    @property
    def fingerprint(self) -> str:
        """A hash of what a network gets: each picture's content, in row order, and how it is prepared."""
        shapes = [list(map(int, self._rows[side])) for side in ("height", "width")]  # arrays are hashed without theirs
        given = [self._rows.sha256.tolist(), shapes, self.geometry.key]
        return hashlib.sha256(json.dumps(given).encode()).hexdigest()

    def samples(self, count: int) -> list[bytes]:
        """The file bytes of up to `count` pictures, spread evenly over the split; arrays come as PNG."""
        rows = (
            np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)) if len(self) else np.arange(0)
        )
        return [self._data.source.encoded(*names) for names in zip(*self._named(rows), strict=True)]

    def _named(self, rows: np.ndarray) -> tuple[list[str], list[str]]:
        """Path and hash of some rows; quick for few of many, as a pass over all asks chunk by chunk."""
        found = self._data.manifest.table.loc[self._index[rows], ["path", "sha256"]]
        return found.path.tolist(), found.sha256.tolist()

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and variance of each channel over all pixels, in grey levels 0..255."""
        pixels = self.pixels()
        total = np.zeros(pixels.shape[-1])
        squares = np.zeros(pixels.shape[-1])
        for start in range(0, len(pixels), 256):
            chunk = pixels[start : start + 256].astype(np.float64)
            total += chunk.sum((0, 1, 2))
            squares += (chunk**2).sum((0, 1, 2))
        count = pixels.size / pixels.shape[-1]
        mean = total / count
        return mean.tolist(), np.maximum(squares / count - mean**2, 1e-6).tolist()

    def __repr__(self):
        return f"<Split {self.name}: {len(self)} pictures in {len(self.class_names)} classes>"
