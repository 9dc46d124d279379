"""Data: what `load_data` gives, and what training, evaluation and export read."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from zoo.data import splits
from zoo.data.grouping import group_names, place
from zoo.data.manifest import Manifest
from zoo.data.names import natural
from zoo.data.pictures import WHITE, Geometry
from zoo.data.sources import Source
from zoo.data.split import Split


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

    def fewer(self, pictures: int, *, seed: int = 0) -> "Data":
        """A copy with so many of the training pictures; dev and test stay as they are.

        Every class keeps its share, and one picture at least. Of one seed, fewer pictures are a part of more. Twins
        come one after another, so that the cut parts those of one group a class at the most. Pictures that were
        prepared once are not prepared again.

        Args:
            pictures: How many, from one for each class to all of them.
            seed: Decides which.

        Raises:
            ValueError: If there are no labels, or `pictures` is out of range.

        Example:
            few = zoo.fine_tune("convnet", data.fewer(100))
        """
        if not self.class_names:
            raise ValueError("These pictures have no labels, so they cannot be shared out by class.")
        usable = self.manifest.usable
        rows = usable.loc[usable.split == "train"]
        least = rows.label.nunique()
        whole = isinstance(pictures, (int, np.integer)) and not isinstance(pictures, bool)
        if not (whole and least <= pictures <= len(rows)):
            raise ValueError(
                f"`pictures` must be a whole number from {least}, one for each class, to {len(rows)}, all training "
                f"pictures. Received: pictures={pictures!r}"
            )
        places = [place(seed, name) for name in group_names(rows, "duplicates")]
        drawn = rows[["label", "path"]].assign(place=places).sort_values(["place", "path"]).groupby("label").path
        rank, size = drawn.cumcount(), drawn.transform("size")
        turns = ((rank + 0.5) / size).where(rank > 0, -1.0)  # the first of each class come before all others
        left_out = turns.sort_values(kind="stable").index[pictures:]
        manifest = replace(self.manifest, table=self.manifest.table.drop(left_out))
        return self._copy(manifest, origin=self)

    def without_dev(self) -> "Data":
        """A copy whose dev pictures are training pictures, to train once more on all but the test set.

        For when everything is decided: nothing watches such a training, so its epochs should be those that were found
        with the dev set. Pictures that were prepared once are not prepared again.

        Raises:
            ValueError: If there is no dev set.

        Example:
            last = zoo.fine_tune("convnet", data.without_dev(), recipe=run.recipe)
        """
        if not len(self.dev):
            raise ValueError(
                "There is no dev set, so its pictures cannot be trained on. Train on the data as they are."
            )
        table = self.manifest.table.copy()
        usable = self.manifest.usable
        table.loc[usable.index[usable.split == "dev"], "split"] = "train"
        return self._copy(replace(self.manifest, table=table), origin=self)

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
