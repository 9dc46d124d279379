"""load_data: any source as three splits of checked, labelled pictures."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoo.data.pictures import Geometry
from zoo.data.scan import Manifest, natural
from zoo.data.sources import Arrays, Files, Source, digits, open_source
from zoo.data.splits import NAMES, assign, check_fractions


def load_data(
    source,
    *,
    image_size: int | tuple[int, int] | None = None,
    split=(0.7, 0.15, 0.15),
    group: str | Callable | None = "duplicates",
    seed: int = 0,
    channels: int = 3,
    bad: str = "leave out",
) -> "Data":
    """Indexes labelled pictures and shares them out; no pixels are kept yet.

    Args:
        source: A folder with one folder a class; a folder with `train/`, `val/` (or `valid/`, `dev/`) and perhaps
            `test/` laid out so, whose splits are kept; a CSV file or DataFrame with columns path and label and perhaps
            split; a pair (images, labels) of arrays with pixels 0..255; or "digits", scikit-learn's 1,797 handwritten
            digits, which need no network.
        image_size: Side, or (height, width), in pixels. By default the model's own size.
        split: Shares of train, dev and test where the source gives none; two numbers mean train and dev.
        group: What must not be torn apart: "duplicates" (equal files), a function of the path, or None.
        seed: Decides who goes where.
        channels: 3 for RGB, 1 for grey, 4 for RGB with alpha.
        bad: "leave out" lists unusable files in the manifest; "error" raises and names them.

    Raises:
        FileNotFoundError: If the source does not exist.
        ValueError: If an argument is out of range, fewer than two classes are found, or a class is too small.

    Example:
        >>> data = load_data("digits")
        >>> len(data.train), len(data.dev), len(data.test)
        (1259, 269, 269)
    """
    if bad not in ("leave out", "error"):
        raise ValueError(f'`bad` must be "leave out" or "error". Received: bad={bad!r}')
    shares = check_fractions(split)
    size = _size(image_size)
    Geometry(size or (1, 1), channels)  # refuses what no picture can be brought to
    opened, manifest = open_source(source)
    if bad == "error" and (len(manifest.troubles) or manifest.empty):
        raise ValueError("Some files cannot be used:\n  " + "\n  ".join(manifest.trouble_lines()))
    usable = manifest.usable
    names = natural(usable.label.unique().tolist())
    if len(names) < 2:
        raise ValueError(
            f"At least two classes are needed, each with usable pictures. Found: {', '.join(names) or 'none'}"
            + _first_troubles(manifest)
        )
    table = manifest.table.copy()
    table.loc[usable.index, "split"] = _splits(usable, shares, group, seed)
    table.loc[~table.index.isin(usable.index), "split"] = ""
    missing = sorted(set(names) - set(table.label[table.split == "train"]))
    if missing:
        raise ValueError(f"The training split has no picture of: {', '.join(missing)}. Every class needs some there.")
    return Data(opened, replace(manifest, table=table), channels=channels, image_size=size)


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
        now["image_size"] = _size(now["image_size"])
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

    def pixels(self) -> np.ndarray:
        """All pictures prepared, uint8 (n, height, width, channels), made on first use and kept."""
        from zoo.data import pipeline

        key = (self.name, self.geometry)
        if key not in self._data._prepared:
            if isinstance(self._data.source, Arrays):
                numbers = self._rows.path.astype(int).to_numpy()
                pixels = pipeline.resized(self._data.source.images[numbers], self.geometry)
            else:
                source, paths = self._data.source, self.relative_paths
                pixels, problems = pipeline.read(
                    [lambda path=path: source.encoded(path) for path in paths], self.geometry, f"Reading {self.name}"
                )
                if problems:
                    first = next(iter(problems))
                    raise ValueError(f"{paths[first]} cannot be read any more: {problems[first]}. Run load_data again.")
            self._data._prepared[key] = pixels
        return self._data._prepared[key]

    def samples(self, count: int) -> list[bytes]:
        """The file bytes of up to `count` pictures, spread evenly over the split; arrays come as PNG."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)) if len(self) else []
        return [self._data.source.encoded(self._rows.path.iloc[row]) for row in rows]

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


def restore(description: dict, manifest: pd.DataFrame, data=None) -> Data:
    """The data of an earlier run, from what `describe` said and its manifest.

    Args:
        description: From `Data.describe`.
        manifest: The table stored with the run.
        data: A Data of the same pictures, or the folder they were moved to; needed where they were arrays.

    Raises:
        FileNotFoundError: If the source is gone.
        ValueError: If `data` holds other pictures, or is needed and missing.
    """
    shape = {name: description[name] for name in ("image_size", "crop", "interpolation")}
    if isinstance(data, Data):
        if data.fingerprint != description["fingerprint"]:
            raise ValueError(
                "`data` holds other pictures, labels or splits than the run was made with. "
                f"Received: fingerprint {data.fingerprint}, the run has {description['fingerprint']}"
            )
        return data.configured(**shape)
    kind, path = description["source"]["kind"], description["source"].get("path")
    if kind == "arrays":
        raise ValueError(
            "The run was made from arrays, which are not stored with it. Hand them over: data=load_data((x, y))."
        )
    if kind == "digits":
        source = digits()[0]
    else:
        source = Files(Path(data if data is not None else path).resolve(), kind)
        if not source.root.is_dir():
            raise FileNotFoundError(
                f"The pictures of the run are no longer in {source.root}. Say where they are now: data=FOLDER."
            )
    table = manifest.fillna({"split": "", "reason": "", "format": ""})
    return Data(
        source, Manifest(table), channels=description["channels"], **{**shape, "image_size": _size(shape["image_size"])}
    )


def read_manifest(path: str | os.PathLike) -> pd.DataFrame:
    """A manifest written by `Manifest.to_csv`, labels as text whatever they look like."""
    numbers = {name: int for name in ("width", "height", "bytes")}
    return pd.read_csv(path, dtype=str, keep_default_na=False).astype(numbers)


def _size(image_size) -> tuple[int, int] | None:
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, (int, np.integer)) else tuple(image_size)
    if len(size) != 2 or not all(isinstance(side, (int, np.integer)) and side >= 1 for side in size):
        raise ValueError(f"`image_size` must be a positive whole number or (height, width). Received: {image_size}")
    return (int(size[0]), int(size[1]))


def _splits(usable: pd.DataFrame, shares, group, seed: int) -> pd.Series:
    """The split of each usable row: given ones are kept, and dev is cut from train where it is missing."""
    given = usable.split
    if not given.any():
        return assign(usable, shares, group=group, seed=seed)
    if not given.all():
        raise ValueError(
            f"Some rows have a split and {int((given == '').sum())} have none. Give it for all or for none."
        )
    if (given == "dev").any() or shares[1] == 0:
        return given
    train = usable.loc[given == "train"]
    both = shares[0] + shares[1]
    cut = assign(train, (shares[0] / both, shares[1] / both, 0.0), group=group, seed=seed)
    return given.where(given != "train", cut.reindex(given.index))


def _first_troubles(manifest: Manifest) -> str:
    lines = manifest.trouble_lines()
    return ("; left out: " + "; ".join(lines[:3]) + (" ..." if len(lines) > 3 else "")) if lines else ""
