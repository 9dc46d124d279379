"""Pictures in memory: arrays of a caller's, and the digits that come with scikit-learn."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from zoo.data.manifest import COLUMNS, FACTS, Manifest
from zoo.data.names import class_name
from zoo.data.pictures import encode_png
from zoo.data.twins import marked


@dataclass(frozen=True)
class Arrays:
    """Pictures in memory, uint8 (n, height, width, channels); a manifest path is the row's number.

    Args:
        images: All pictures.
        kind: "arrays", or "digits" for the embedded ones.
    """

    images: np.ndarray
    kind: str = "arrays"

    def absolute(self, path: str) -> str:
        """The row's number: pictures in memory have no better name."""
        return path

    def encoded(self, path: str, sha256: str) -> bytes:
        """One picture as PNG, which loses nothing."""
        return encode_png(self.picked([path], [sha256])[0])

    def picked(self, paths: Sequence[str], hashes: Sequence[str]) -> np.ndarray:
        """Some of the pictures.

        Raises:
            ValueError: If somebody has changed them since.
        """
        pixels = self.images[np.array(paths, int)]
        for path, image, sha256 in zip(paths, pixels, hashes, strict=True):
            if hashlib.sha256(image.tobytes()).hexdigest() != sha256:
                raise ValueError(
                    f"Picture {int(path)} of the arrays was changed after load_data saw it. Call load_data again."
                )
        return pixels

    def describe(self) -> dict:
        """What is needed to find the source again; arrays cannot be."""
        return {"kind": self.kind}


def digits(labels: bool = True) -> Manifest:
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn, scaled to 0..255."""
    from sklearn.datasets import load_digits

    images, numbers = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16))
    return arrays(pixels, numbers if labels else None, kind="digits")


def arrays(images, labels=None, *, kind: str = "arrays") -> Manifest:
    """Pictures in memory with their labels, or without: then all of them are for testing.

    No row is left out whatever it shows; equal pictures are marked as each other's duplicates.

    Args:
        images: (n, height, width) or (n, height, width, channels), values 0..255; fractions are rounded.
        labels: (n,) or (n, 1), numbers or text, one class a picture.
        kind: What the source says it is.

    Raises:
        ValueError: If shapes or values do not fit.
    """
    images = np.asarray(images)
    images = images[..., np.newaxis] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "Pictures must have shape (n, height, width) or (n, height, width, channels) with 1, 3 or 4 channels. "
            f"Received: shape={images.shape}"
        )
    names = [""] * len(images) if labels is None else _names(np.asarray(labels), len(images))
    images = _as_bytes(images)
    height, width = images.shape[1:3]
    known = {"format": "array", "height": height, "width": width, "frames": 1, "bytes": images[:1].nbytes}
    columns = {
        **FACTS,
        **known,
        "path": [f"{row:06d}" for row in range(len(images))],
        "label": names,
        "split": "" if labels is not None else "test",
        "sha256": [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
    }
    table = pd.DataFrame(columns, columns=COLUMNS, index=range(len(images)))
    marks = marked(table.assign(label=""))  # no conflict of labels: every row of a caller's arrays stays
    return Manifest(marks.assign(label=names), source=Arrays(images, kind))


def _names(labels: np.ndarray, count: int) -> list[str]:
    """A class name a picture; nothing may be missing."""
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or len(labels) != count:
        raise ValueError(
            "Labels must be one class a picture, shape (n,); for one-hot rows use labels.argmax(1). "
            f"Received: labels of shape {labels.shape} for {count} pictures"
        )
    names = [class_name(label) for label in labels.tolist()]
    missing = [row for row, name in enumerate(names) if not name]
    if missing:
        raise ValueError(f"{len(missing)} labels are missing, the first in row {missing[0]}. Leave those pictures out.")
    return names


def _as_bytes(images: np.ndarray) -> np.ndarray:
    """uint8 pixels, refusing what cannot be pixels of 0..255."""
    if images.dtype == np.uint8 or images.size == 0:
        return images.astype(np.uint8, copy=False)
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 255):  # also catches NaN
        raise ValueError(f"Pixels must lie in 0..255. Received: values from {low:g} to {high:g}")
    if images.dtype.kind in "fb" and 0 < high <= 1:
        raise ValueError(
            "Pixels must lie in 0..255; these look scaled to 0..1. Multiply them by 255. "
            f"Received: values from {low:g} to {high:g}"
        )
    return np.rint(images).astype(np.uint8)
