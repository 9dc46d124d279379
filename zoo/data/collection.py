"""Data and its splits: what `load_data` gives, and what training, evaluation and export read."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from zoo.data import order, splits
from zoo.data.manifest import Manifest
from zoo.data.memory import Arrays
from zoo.data.names import natural
from zoo.data.pictures import WHITE, Geometry
from zoo.data.sources import Source

SMALL = 2**27  # bytes
SERVED = ["path", "label", "split", "sha256", "width", "height"]  # of a manifest, what pictures are served by


class Data:
    """Pictures with labels, as three splits. Made by `load_data`.

    Attributes:
        train, dev, test: The splits; empty where absent.
        class_names: Labels in the order of the network's outputs.
        manifest: A row a file, left-out ones included, with the split of each.
        image_size: (height, width), or None until a model decides.
        channels, crop, interpolation, background: How pictures are brought to that size.
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
        background: tuple[int, int, int] = WHITE,
        prepared: dict | None = None,
        origin: "Data | None" = None,
        class_names: Sequence[str] | None = None,
    ):
        self.source = source
        self.manifest = manifest
        self.channels = channels
        self.image_size = image_size
        self.crop = crop
        self.interpolation = interpolation
        self.background = background
        usable = manifest.usable
        found = [name for name in usable.label.unique().tolist() if name]
        self.class_names = natural(found) if class_names is None else list(class_names)
        self._prepared = {} if prepared is None else prepared
        self._origin = origin  # the data that a fold is cut from
        self.train, self.dev, self.test = (
            Split(self, name, usable.index[usable.split == name]) for name in splits.NAMES
        )

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
        origin = self._origin and self._origin.configured(**changes)
        return self._copy(self.manifest, self._prepared, origin, **now)

    def _copy(self, manifest: Manifest, prepared=None, origin: "Data | None" = None, **changes) -> "Data":
        """The same source with another manifest or another size."""
        shape: dict[str, Any] = {
            name: getattr(self, name) for name in ("channels", "image_size", "crop", "interpolation", "background")
        }
        shape["class_names"] = self.class_names
        return Data(self.source, manifest, prepared=prepared, origin=origin, **(shape | changes))

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
        return Geometry(self.image_size, self.channels, self.crop, self.interpolation, self.background)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of every usable picture's content, label and split; names and places do not count."""
        usable = self.manifest.usable
        rows = sorted(zip(usable.split, usable.label, usable.sha256, strict=True))
        return hashlib.sha256(json.dumps([self.class_names, rows]).encode()).hexdigest()[:16]

    def summary(self) -> str:
        """Classes by splits, what was left out, and what stands in two splits at once."""
        usable = self.manifest.usable
        if self.class_names:
            filled = [split for split in (self.train, self.dev, self.test) if len(split)]
            counts = pd.DataFrame({split.name: split.counts for split in filled}, index=self.class_names)
            counts.loc["all"] = counts.sum()
            lines = [f"{len(usable)} pictures in {len(self.class_names)} classes", counts.to_string(max_rows=40)]
        else:
            lines = [f"{len(usable)} pictures without labels"]
        lines += splits.leak_lines(usable)
        labels = usable.groupby("sha256").label.nunique()
        if (torn := int((labels > 1).sum())) > 0:  # arrays alone: of files, neither is usable
            lines.append(f"{torn} pictures bear more than one label with equal content")
        if lines_of_trouble := self.manifest.trouble_lines():
            lines += ["left out:", *(f"  {line}" for line in lines_of_trouble)]
        return "\n".join(lines)

    @cached_property
    def leaks(self) -> pd.DataFrame:
        """Pictures of dev and test that another split holds, too: path, split, twin_path, twin_split, kind."""
        return splits.leaks(self.manifest.usable)

    def folds(self, k: int = 5, *, group: str | Callable | None = "duplicates", seed: int = 0) -> Iterator["Data"]:
        """k-fold cross-validation: the pictures of train and dev in k parts, each of them dev once.

        The parts are stratified as evenly as groups allow, and repeatable. The test set stays as it is. Pictures that
        were prepared once are not prepared again.

        Args:
            k: How many parts, at least 2.
            group: What must not be torn apart, as in `load_data`.
            seed: Decides who goes where.

        Raises:
            ValueError: If there are no labels, `k` is below 2, or a class has fewer groups than parts.

        Example:
            figures = [zoo.fine_tune("convnet", part).evaluate("dev").accuracy for part in data.folds(5)]
        """
        if not self.class_names:
            raise ValueError("These pictures have no labels, so they cannot be shared out by class.")
        usable = self.manifest.usable
        rows = usable.loc[usable.split != "test"]
        numbers = splits.folds(rows, k, group=group, seed=seed)

        def parts():
            for number in range(k):
                table = self.manifest.table.copy()
                table.loc[rows.index, "split"] = np.where(numbers == number, "dev", "train")
                yield self._copy(replace(self.manifest, table=table), origin=self)

        return parts()

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
            "background": self.background,
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

        if isinstance(self._data.source, Arrays):
            picked = self._rows.iloc[rows]
            pixels = self._data.source.picked(picked.path.tolist(), picked.sha256.tolist())
            return reading.resized(pixels, self.geometry, title)
        paths, hashes = (np.array(self._rows[name].tolist(), object)[rows] for name in ("path", "sha256"))
        pixels, problems = reading.read(
            lambda row: self._data.source.encoded(paths[row], hashes[row]), len(rows), self.geometry, title
        )
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
        given = [self._rows.sha256.tolist(), shapes, self.geometry.key]
        return hashlib.sha256(json.dumps(given).encode()).hexdigest()

    def samples(self, count: int) -> list[bytes]:
        """The file bytes of up to `count` pictures, spread evenly over the split; arrays come as PNG."""
        places = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)) if len(self) else []
        rows = self._rows.iloc[places]
        return [self._data.source.encoded(*names) for names in zip(rows.path, rows.sha256, strict=True)]

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
