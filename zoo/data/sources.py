"""Where pictures come from: each source gives a manifest and reads one picture by its row."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.data.pictures import encode_png, portable
from zoo.data.scan import COLUMNS, SPLIT_FOLDERS, Manifest, inspect, scan

SPLIT_WORDS = {**SPLIT_FOLDERS, "": ""}  # what the column split may say


@dataclass(frozen=True)
class Files:
    """Pictures in files below a root.

    Args:
        root: Folder that the manifest's paths are relative to.
        kind: "folder" or "csv".
    """

    root: Path
    kind: str = "folder"

    def absolute(self, path: str) -> str:
        """The full path of a manifest row."""
        return str(self.root / path)

    def encoded(self, path: str, sha256: str) -> bytes:
        """The bytes of one picture, in a form that the decoder reads.

        Raises:
            OSError: If they are not the bytes that were indexed.
        """
        data = (self.root / path).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise OSError("it is another picture than when it was indexed")
        return portable(data)

    def describe(self) -> dict:
        """What is needed to find the source again."""
        return {"kind": self.kind, "path": str(self.root)}


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
        return encode_png(self.images[int(path)])

    def describe(self) -> dict:
        """What is needed to find the source again; arrays cannot be."""
        return {"kind": self.kind}


Source = Files | Arrays


def open_source(source) -> tuple[Source, Manifest]:
    """A source of any kind with its manifest, labels as text.

    Raises:
        FileNotFoundError, ValueError, TypeError: With what is wrong and what is accepted.
    """
    if isinstance(source, pd.DataFrame):
        return _table(source, Path.cwd(), "the table")
    if isinstance(source, (tuple, list)) and len(source) == 2:
        return arrays(*source)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            '`source` must be a folder, a CSV file, a DataFrame, a pair (images, labels) or "digits". '
            f"Received: {type(source).__name__}"
        )
    if source == "digits":
        return digits()
    if str(source).startswith("tfds:"):
        raise ValueError(
            f"TensorFlow Datasets cannot be read by name yet. Received: source={str(source)!r}. "
            "Load it with tensorflow_datasets.load(..., as_supervised=True) and hand over (images, labels)."
        )
    path = Path(source)
    if path.suffix.lower() == ".csv" and not path.is_dir():
        return _table(_read_csv(path), path.parent.resolve(), path.name)
    return Files(path.resolve()), scan(path)


def digits() -> tuple[Arrays, Manifest]:
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn, scaled to 0..255."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    source, manifest = arrays(np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)), labels)
    return Arrays(source.images, kind="digits"), manifest


def arrays(images, labels) -> tuple[Arrays, Manifest]:
    """Pictures and labels in memory.

    Args:
        images: (n, height, width) or (n, height, width, channels), values 0..255; fractions are rounded.
        labels: (n,) or (n, 1), numbers or text, one class a picture.

    Raises:
        ValueError: If shapes or values do not fit.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    images = images[..., np.newaxis] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "Pictures must have shape (n, height, width) or (n, height, width, channels) with 1, 3 or 4 channels. "
            f"Received: shape={images.shape}"
        )
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(
            "Labels must be one class a picture, shape (n,); for one-hot rows use labels.argmax(1). "
            f"Received: labels of shape {labels.shape} for {len(images)} pictures"
        )
    images = _as_bytes(images)
    height, width = images.shape[1:3]
    facts = {"status": "usable", "reason": "", "format": "array", "height": height, "width": width}
    rows = [
        {
            "path": f"{i:06d}",
            "label": label,
            "split": "",
            **facts,
            "bytes": image.nbytes,
            "sha256": hashlib.sha256(image.tobytes()).hexdigest(),
        }
        for i, (image, label) in enumerate(zip(images, _as_text(labels.tolist()), strict=True))
    ]
    return Arrays(images), Manifest(pd.DataFrame(rows, columns=COLUMNS))


def _as_text(labels: list) -> list[str]:
    """Labels as text, whole numbers without a decimal point; nothing may be missing."""
    missing = [row for row, label in enumerate(labels) if label is None or label != label or label == ""]  # NaN != NaN
    if missing:
        raise ValueError(f"{len(missing)} labels are missing, the first in row {missing[0]}. Leave those pictures out.")
    return [str(int(label)) if isinstance(label, float) and label.is_integer() else str(label) for label in labels]


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


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}.") from None
    except ValueError as error:  # no UTF-8, no columns, rows of other lengths
        raise ValueError(f"{path} cannot be read as comma-separated text in UTF-8: {error}") from None


def _table(table: pd.DataFrame, root: Path, name: str) -> tuple[Files, Manifest]:
    """A table with columns path and label, and perhaps split, as a source."""
    for column in ("path", "label"):
        if column not in table.columns:
            raise ValueError(
                f"{name} has no column '{column}'. It needs path and label, and may have split. "
                f"Received: columns {', '.join(map(str, table.columns))}"
            )
    rows = []
    splits = table["split"] if "split" in table.columns else [""] * len(table)
    for path, label, split in zip(table["path"], table["label"], splits, strict=True):
        place = SPLIT_WORDS.get(str(split).lower())
        if place is None:
            raise ValueError(f"Column split of {name} may say train, dev or test. Received: {split!r} for {path}")
        facts = inspect(root / str(path))
        if pd.isna(label) or label == "":
            label, facts = "", {**facts, "status": "unlabelled", "reason": "its label is empty"}
        rows.append({"path": os.path.relpath(root / str(path), root), "label": str(label), "split": place, **facts})
    if not rows:
        raise ValueError(f"{name} has no rows.")
    return Files(root, kind="csv"), Manifest(pd.DataFrame(rows, columns=COLUMNS))
