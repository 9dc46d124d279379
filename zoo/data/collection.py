"""Data and its splits: what `load_data` gives, and what training, evaluation and export read."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import astuple
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from zoo.data.pictures import Geometry
from zoo.data.scan import Manifest, natural
from zoo.data.sources import Arrays, Source
from zoo.data.splits import NAMES

SMALL = 2**27  # bytes


class Data:
    """Pictures with labels, as three splits. Made by `load_data`.

    Attributes:
        train, dev, test: The splits; empty where absent.
        class_names: Labels in the order of the network's outputs.
        manifest: A row a file, left-out ones included, with the split of each.
        image_size: (height, width), or None until a model decides.
        channels, crop, interpolation: How pictures are brought to that size.
    """

    def __init__(
        self,
        source: Source,
        manifest: Manifest,
        *,
        channels: int = 3,
        image_size: tuple[int, int] | None = None,
        crop: float | None = 1.0,
        interpolation: str = "bilinear",
        prepared: dict | None = None,
    ):
        self.source = source
        self.manifest = manifest
        self.channels = channels
        self.image_size = image_size
        self.crop = crop
        self.interpolation = interpolation
        self.class_names = natural(manifest.usable.label.unique().tolist())
        self._prepared = {} if prepared is None else prepared
        self.train, self.dev, self.test = (Split(self, name) for name in NAMES)

    def configured(self, **changes) -> "Data":
        """A copy for another `image_size`, `crop` or `interpolation`; pictures already prepared are shared.

        Raises:
            TypeError: If something else is to be changed.
            ValueError: If a value is out of range.
        """
        unknown = set(changes) - {"image_size", "crop", "interpolation"}
        if unknown:
            raise TypeError(f"Only image_size, crop and interpolation can be configured. Received: {sorted(unknown)}")
        now: dict[str, Any] = {
            "image_size": self.image_size,
            "crop": self.crop,
            "interpolation": self.interpolation,
            **changes,
        }
        now["image_size"] = checked_size(now["image_size"])
        Geometry(now["image_size"] or (1, 1), self.channels, now["crop"], now["interpolation"])
        return Data(self.source, self.manifest, channels=self.channels, prepared=self._prepared, **now)

    @property
    def geometry(self) -> Geometry:
        """How every picture is prepared.

        Raises:
            ValueError: If no image size has been chosen yet.
        """
        if self.image_size is None:
            raise ValueError(
                "No image size is set. Give load_data an image_size, or use data.configured(image_size=...)."
            )
        return Geometry(self.image_size, self.channels, self.crop, self.interpolation)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of every usable picture's content, label and split; names and places do not count."""
        usable = self.manifest.usable
        rows = sorted(zip(usable.split, usable.label, usable.sha256, strict=True))
        return hashlib.sha256(json.dumps([self.class_names, rows]).encode()).hexdigest()[:16]

    def summary(self) -> str:
        """Classes by splits, what was left out, and what stands in two splits at once."""
        splits = [split for split in (self.train, self.dev, self.test) if len(split)]
        counts = pd.DataFrame({split.name: split.counts for split in splits}, index=self.class_names)
        counts.loc["all"] = counts.sum()
        usable = self.manifest.usable
        lines = [f"{len(usable)} pictures in {len(self.class_names)} classes", counts.to_string()]
        per_picture = usable.groupby("sha256").split.nunique()
        if (leaks := int((per_picture > 1).sum())) > 0:
            lines.append(f"{leaks} pictures stand in more than one split with equal content")
        labels = usable.groupby("sha256").label.nunique()
        if (torn := int((labels > 1).sum())) > 0:
            lines.append(f"{torn} pictures bear more than one label with equal content")
        if lines_of_trouble := self.manifest.trouble_lines():
            lines += ["left out:", *(f"  {line}" for line in lines_of_trouble)]
        return "\n".join(lines)

    def preview(self, per_class: int = 6, most_classes: int = 10):
        """A matplotlib figure: a row a class, with training pictures as the network gets them (without augmentation).

        Args:
            per_class: Pictures a row.
            most_classes: Rows at the most; the first classes are shown.
        """
        from zoo.data.preview import preview

        return preview(self, per_class, most_classes)

    def describe(self) -> dict:
        """What `restore` needs to make the same data again, beside the manifest."""
        return {
            "source": self.source.describe(),
            "image_size": self.image_size,
            "channels": self.channels,
            "crop": self.crop,
            "interpolation": self.interpolation,
            "class_names": self.class_names,
            "fingerprint": self.fingerprint,
        }

    def __repr__(self):
        return self.summary()


class Split:
    """One of train, dev and test.

    Attributes:
        name: "train", "dev" or "test".
        class_names: Labels in the order of the network's outputs.
    """

    def __init__(self, data: Data, name: str):
        usable = data.manifest.usable
        self.name = name
        self.class_names = data.class_names
        self._data = data
        self._rows = usable[usable.split == name]

    def __len__(self):
        return len(self._rows)

    def configured(self, **changes) -> "Split":
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
        """The class index of each picture, int64 (n,)."""
        number = {name: i for i, name in enumerate(self.class_names)}
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

    def dataset(self, batch_size: int = 32, training: bool = False, policy=None, seed: int = 0):
        """Batches for `model.fit`, `evaluate` or `predict`.

        Args:
            batch_size: Pictures a batch; the last one may be smaller.
            training: Shuffled, anew each time the dataset is gone through: the order is a function of the seed and of
                how often that was. Otherwise row by row.
            policy: A layer that augments in training, called with `keys` (epoch, picture).
            seed: Decides the order and nothing else.

        Returns:
            A tf.data.Dataset of images, uint8 (n, height, width, channels), and labels, int64 (n,). With a policy,
            images have the dtype that it returns.
        """
        from zoo.data import pipeline

        if training:
            return pipeline.shuffled(self, batch_size, policy=policy, seed=seed)
        return pipeline.in_order(self, batch_size)

    def stream(self, batch_size: int = 32, *, policy=None, seed: int = 0, epoch: int = 0, step: int = 0):
        """Epoch after epoch without end, for a `fit` with `steps_per_epoch` that is to go on where it was.

        Each epoch has its own order, a function of the seed and its number alone.

        Args:
            batch_size: Pictures a batch; the last one of an epoch may be smaller.
            policy: A layer that augments, called with `keys` (epoch, picture).
            seed: Decides the order and nothing else.
            epoch: The first one, from 0, such as `Checkpoint.position.epoch`.
            step: What stands for so many batches of the first epoch is cheap and not meant to be used.
        """
        from zoo.data import pipeline

        return pipeline.stream(self, batch_size, policy=policy, seed=seed, epoch=epoch, step=step)

    def pixels(self) -> np.ndarray:
        """All pictures prepared, uint8 (n, height, width, channels), made on first use and kept."""
        key = (self.name, self.geometry)
        if key not in self._data._prepared:
            self._data._prepared[key] = self._prepare(np.arange(len(self)), f"Reading {self.name}")
        return self._data._prepared[key]

    @property
    def is_small(self) -> bool:
        """Whether all pictures, prepared, take so little memory that they may be kept when few are asked for."""
        return len(self) * math.prod(self.geometry.shape) <= SMALL

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The pictures of some rows prepared, uint8 (m, height, width, channels); unlike `pixels`, it keeps none."""
        whole = self._data._prepared.get((self.name, self.geometry))
        return self._prepare(rows) if whole is None else whole[rows]

    def _prepare(self, rows: np.ndarray, title: str = "") -> np.ndarray:
        from zoo.data import pipeline

        if isinstance(self._data.source, Arrays):
            numbers = self._rows.path.astype(int).to_numpy()[rows]
            return pipeline.resized(self._data.source.images[numbers], self.geometry, title)
        readers = self._readers()
        pixels, problems = pipeline.read([readers[row] for row in rows], self.geometry, title)
        if problems:
            first = min(problems)
            raise ValueError(
                f"{self.paths[rows[first]]} cannot be used any more: {problems[first]}. "
                "Index the pictures again with load_data."
            )
        return pixels

    @property
    def fingerprint(self) -> str:
        """A hash of what a network gets: each picture's content, in row order, and how it is prepared."""
        shapes = [list(map(int, self._rows[side])) for side in ("height", "width")]  # arrays are hashed without theirs
        given = [self._rows.sha256.tolist(), shapes, astuple(self.geometry)]
        return hashlib.sha256(json.dumps(given).encode()).hexdigest()

    def samples(self, count: int) -> list[bytes]:
        """The file bytes of up to `count` pictures, spread evenly over the split; arrays come as PNG."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)) if len(self) else []
        readers = self._readers()
        return [readers[row]() for row in rows]

    def _readers(self) -> list[Callable[[], bytes]]:
        """A function a picture that gives its bytes."""
        source = self._data.source
        return [
            lambda path=path, sha256=sha256: source.encoded(path, sha256)
            for path, sha256 in zip(self._rows.path, self._rows.sha256, strict=True)
        ]

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


def checked_size(image_size) -> tuple[int, int] | None:
    """An image size as (height, width), or None.

    Raises:
        ValueError: If it is neither a positive whole number nor two of them.
    """
    if image_size is None:
        return None
    one = not hasattr(image_size, "__len__")
    size = (image_size, image_size) if one else tuple(image_size)
    if len(size) != 2 or not all(isinstance(side, (int, np.integer)) and side >= 1 for side in size):
        raise ValueError(f"`image_size` must be a positive whole number or (height, width). Received: {image_size}")
    return (int(size[0]), int(size[1]))
