"""A model as a folder that stands alone: picture bytes in, labels out, in the layout that TensorFlow Serving loads."""

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd

try:
    import tensorflow as tf
except ModuleNotFoundError as error:
    if error.name != "tensorflow":
        raise
    raise ImportError(
        "Exporting, and reading an export, needs TensorFlow: pip install tensorflow. A model made on another backend "
        'is exported by saving it with model.save("model.keras"), and loading and exporting it in a Python with '
        "KERAS_BACKEND=tensorflow."
    ) from None

from zoo.data.folders import picture_paths
from zoo.data.inspecting import check
from zoo.data.names import refused_name
from zoo.data.pictures import Geometry, as_png
from zoo.export.graph import write_saved_model
from zoo.export.verify import read_samples, verify
from zoo.export.verify_child import reason
from zoo.files import write_json, write_text, writing_folder
from zoo.models.outputs import check_width, prediction_table
from zoo.progress import track

FORMATS = ("saved_model",)
MARKER = "menagerie-export"  # what model.json says of itself, so that a folder of ours is known from any other
BATCH = 32


def export(
    model: keras.Model,
    directory: str | os.PathLike,
    *,
    class_names: Sequence[str],
    image_size: int | tuple[int, int],
    preprocessing: Mapping | None = None,
    samples=None,
    formats: Sequence[str] = ("saved_model",),
    facts: Mapping | None = None,
) -> Path:
    """Writes a model as a SavedModel that takes picture files, and proves that it answers as `model.predict` does.

    Signatures, for a batch of any size, an empty one included:

    - `serving_default`: image_bytes, string (n,): files as JPEG, PNG, GIF, BMP or WebP -> label, string (n,);
      probability, float32 (n,), of that label; probabilities, float32 (n, classes). A file that cannot be read gets an
      empty label and NaN, the others their answers; so does one of more than 89 million pixels, a palette BMP, and an
      animated GIF or WebP.
    - `serve_images`: images, float32 (n, height, width, channels), 0..255, already at the model's size ->
      probabilities, float32 (n, classes).

    The folder appears only when the check in a fresh process has passed; an earlier export of ours is then replaced.

    Args:
        model: Classifier of pictures 0..255 that ends in a softmax, or in logits, to which softmax is applied.
        directory: Where to write; a new or empty folder, or an earlier export.
        class_names: Names in the order of the model's outputs.
        image_size: Side, or (height, width), of the pictures that the model takes.
        preprocessing: How a picture is brought to that size: `crop` (share of the shorter side that is kept, or None to
            squash; 1.0), `interpolation` ("bilinear", "bicubic" or "lanczos"; bilinear) and `background` (red, green
            and blue, 0..255, of what transparent parts are laid on; white).
        samples: Pictures to verify with, as paths, bytes or uint8 arrays; by default made-up ones.
            Pictures like those that the model will see make the better proof.
        formats: What to write; "saved_model" is all there is.
        facts: What else `model.json` is to say, such as figures; plain values.

    Returns:
        The folder, holding `1/` (the SavedModel), `labels.txt`, `model.json` and `verification.json`.

    Raises:
        ValueError: If an argument does not fit the model, Keras does not run on TensorFlow, or the folder holds
            anything but an export.
        OSError: If the folder cannot be written, or a sample cannot be read.
        ExportMismatch: If the exported model answers differently; no export is left, and an earlier one stays.

    Example:
        zoo.export(model, "export", class_names=["ant", "bee"], image_size=224, samples=["ant.jpg", "bee.jpg"])
    """
    _check_formats(formats)
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Exporting needs Keras on TensorFlow, but it runs on {keras.backend.backend()}. Save the model with "
            'model.save("model.keras"), and load and export it in a Python with KERAS_BACKEND=tensorflow.'
        )
    names = _check_names(class_names)
    check_width(model, names)
    geometry = _geometry(model, image_size, preprocessing)
    target = _check_target(directory)
    pictures = read_samples(samples)

    with writing_folder(target) as folder:
        write_saved_model(model, folder / "1", class_names=names, geometry=geometry)
        report = verify(folder / "1", model, class_names=names, geometry=geometry, samples=pictures)
        write_text(folder / "labels.txt", "".join(f"{name}\n" for name in names))
        write_json(folder / "model.json", {**(facts or {}), **_description(model, names, geometry)})
        write_json(folder / "verification.json", report)
    return Path(directory)


class Exported:
    """An export, read back: the SavedModel alone answers. Made by `load_export`.

    Attributes:
        directory: The folder of the export.
        class_names: Names in the order of the probabilities.
        description: What `model.json` says.
    """

    def __init__(self, directory: Path, description: dict):
        self.directory = directory
        self.description = description
        self.class_names: list[str] = description["class_names"]
        self._loaded = tf.saved_model.load(str(directory / "1"))  # its signatures live only as long as it does
        self._serve = self._loaded.signatures["serving_default"]

    def predict(self, pictures) -> pd.DataFrame:
        """What the pictures show. One that cannot be read does not stop the others.

        TIFF and the like are converted, and of an animation the first frame counts. PNG and GIF are looked at
        as `zoo.scan` does, which refuses damage that the SavedModel lets pass.

        Args:
            pictures: A path, a folder with everything below it, bytes of a file, or a list of paths and bytes.

        Returns:
            A row a picture: path ("bytes 0", "bytes 1", ... for bytes), label, probability; and problem where some
            picture could not be read, whose label is then empty and whose probability is NaN. Its
            `attrs["converted"]` counts, by kind of file, the pictures that Pillow had to read for the SavedModel, such
            as {"TIFF": 2}.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If a folder holds no files.
        """
        rows = _pictures(pictures)
        found = np.full((len(rows), len(self.class_names)), np.nan, np.float32)
        problems = [""] * len(rows)
        converted = Counter()
        starts = range(0, len(rows), BATCH)
        for start in track(starts, "Looking at pictures", len(starts)):
            batch = slice(start, start + BATCH)
            found[batch], problems[batch], kinds = self._answers([place for _, place in rows[batch]])
            converted.update(kinds)
        table = prediction_table([name for name, _ in rows], found, self.class_names, problems)
        table.attrs["converted"] = dict(converted)
        return table

    def _answers(self, places: list[Path | bytes]) -> tuple[np.ndarray, list[str], list[str]]:
        """Probabilities and problem of each picture, and the kinds of those that were converted."""
        read = [_seen(*_read(place)) for place in places]
        problems = [problem for _, problem in read]
        found = self._probabilities([data for data, _ in read])
        again, kinds = {}, {}
        for k in _unanswered(found):
            if not problems[k]:
                data, problems[k], kind = _converted(read[k][0])
                if not problems[k]:
                    again[k], kinds[k] = data, kind
        if again:
            found[list(again)] = self._probabilities(list(again.values()))
        for k in kinds.keys() & set(_unanswered(found)):
            problems[k] = "the exported model gives no numbers (NaN) for it"
            del kinds[k]
        return found, problems, list(kinds.values())

    def _probabilities(self, pictures: list[bytes]) -> np.ndarray:
        return self._serve(image_bytes=tf.constant(pictures, tf.string))["probabilities"].numpy()

    def __repr__(self):
        return f"<Exported {self.description['model']}: {len(self.class_names)} classes, {self.directory}>"


def load_export(directory: str | os.PathLike) -> Exported:
    """Reads an export back; neither the Keras model nor its code is needed.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no export of ours, or a damaged one.

    Example:
        zoo.load_export("export").predict(["ant.jpg", "bee.jpg"])
    """
    directory = Path(directory)
    if not directory.exists():
        raise FileNotFoundError(f"There is no folder {directory}. Write one with zoo.export or run.export.")
    description = read_description(directory)
    if description is None:
        raise ValueError(f"{directory} is no export: a model.json written by zoo.export is missing.")
    try:
        return Exported(directory, description)
    except Exception as error:  # TensorFlow raises nearly anything on a damaged folder
        raise ValueError(f"The export in {directory} is damaged; export it again. ({reason(error)})") from None


def read_description(directory: str | os.PathLike) -> dict | None:
    """What `model.json` says of an export of ours; None where the folder is something else."""
    try:
        found = json.loads((Path(directory) / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == MARKER else None


def fingerprint(model: keras.Model) -> str:
    """A SHA-256 of the weights, in their order, with shapes and types; names do not count."""
    digest = hashlib.sha256()
    for weight in model.weights:
        values = np.ascontiguousarray(weight.numpy())
        digest.update(f"{weight.dtype}{list(values.shape)}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _description(model, class_names, geometry) -> dict:
    return {
        "format": MARKER,
        "format_version": 1,
        "files": ["1", "labels.txt", "model.json", "verification.json"],
        "model": model.name,
        "class_names": class_names,
        "classes": len(class_names),
        "image_size": list(geometry.size),
        "channels": geometry.channels,
        "crop": geometry.crop,
        "interpolation": geometry.interpolation,
        "background": list(geometry.background),
        "parameters": model.count_params(),
        "weights_sha256": fingerprint(model),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "menagerie": _own_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }


def _check_formats(formats):
    wanted = [formats] if isinstance(formats, str) else list(formats)
    if not wanted or set(wanted) - set(FORMATS):
        raise ValueError(f"`formats` must be some of: {', '.join(FORMATS)}. Received: formats={formats!r}")


def _check_names(class_names) -> list[str]:
    names = [class_names] if isinstance(class_names, str) else [str(name) for name in class_names]
    if len(set(names)) < len(names):
        raise ValueError(f"`class_names` must differ from each other. Received: class_names={names}")
    bad = [name for name in names if refused_name(name)]
    if bad:
        raise ValueError(f"`class_names` must be text without line breaks or control characters. Received: {bad}")
    return names


def _geometry(model, image_size, preprocessing) -> Geometry:
    """The preparation of pictures that fits the model's input."""
    size = (image_size, image_size) if isinstance(image_size, (int, np.integer)) else tuple(image_size)
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ValueError(
            "Only a built model with one input (batch, height, width, channels) can be exported. "
            f"Received: inputs of shape {[tuple(tensor.shape) for tensor in inputs]}"
        )
    shape = tuple(inputs[0].shape[1:])
    unknown = set(preprocessing or {}) - {"crop", "interpolation", "background"}
    if unknown:
        raise ValueError(
            f"`preprocessing` takes crop, interpolation and background. Received: {', '.join(sorted(unknown))}"
        )
    if len(size) != 2 or any(side not in (None, given) for side, given in zip(shape, size, strict=False)):
        raise ValueError(
            f"`image_size` must be the size that the model takes, {shape[:2]}. Received: image_size={image_size}"
        )
    return Geometry((int(size[0]), int(size[1])), shape[2], **(preprocessing or {}))


def _check_target(directory) -> Path:
    """The folder to write, if nothing is lost by it."""
    target = Path(directory).resolve()  # of a link, what it points to
    if target.is_file():
        raise ValueError(f"`directory` must be a folder. Received: the file {directory}")
    entries = {entry.name for entry in target.iterdir()} if target.exists() else set()
    if not entries:
        return target
    description = read_description(target)
    if description is None:
        raise ValueError(f"The folder {directory} exists and is no earlier export. Choose another, or empty it.")
    strange = sorted(entries - set(description.get("files", [])))
    if strange:
        raise ValueError(
            f"The export in {directory} is not replaced, since the folder also holds other files: "
            f"{', '.join(strange[:5])}. Choose another folder, or move them."
        )
    return target


def _pictures(pictures) -> list[tuple[str, Path | bytes]]:
    """A name and the place or bytes of each picture."""
    if isinstance(pictures, (str, bytes, os.PathLike)):
        pictures = [pictures]
    rows: list[tuple[str, Path | bytes]] = []
    for item in pictures:
        if isinstance(item, bytes):
            rows.append((f"bytes {len(rows)}", item))
        else:
            rows += [(str(path), path) for path in picture_paths(item)]
    return rows


def _unanswered(found: np.ndarray) -> list[int]:
    return np.flatnonzero(np.isnan(found).any(axis=1)).tolist()


def _read(picture: Path | bytes) -> tuple[bytes, str]:
    """The bytes of a file, and why there are none."""
    try:
        return (picture if isinstance(picture, bytes) else picture.read_bytes()), ""
    except OSError as error:
        return b"", error.strerror or str(error)


def _seen(data: bytes, problem: str) -> tuple[bytes, str]:
    """The same, but nothing of a PNG or GIF that is damaged in a way that only Pillow minds, such as a checksum."""
    if data[:4] not in (b"\x89PNG", b"GIF8"):  # elsewhere looking finds no more, and costs a seventh of an answer
        return data, problem
    found = check(data)
    return (data, problem) if found["status"] == "usable" else (b"", found["reason"])


def _converted(data: bytes) -> tuple[bytes, str, str]:
    """A picture that the graph refuses as PNG, or why it is no use, and what kind of file it is."""
    found = check(data)
    if found["status"] != "usable":
        return b"", found["reason"], ""
    try:
        return as_png(data), "", _kind(data, found)
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files, and `check` makes few pixels
        return b"", str(error) or type(error).__name__, ""


def _kind(data: bytes, facts: dict) -> str:
    name = "WebP" if facts["format"] == "WEBP" else facts["format"]
    if name == "BMP":
        return "palette BMP" if int.from_bytes(data[28:30], "little") <= 8 else "BMP"
    return f"animated {name}" if name in ("GIF", "WebP") and facts["frames"] > 1 else name


def _own_version() -> str:
    try:
        return importlib.metadata.version("menagerie")
    except importlib.metadata.PackageNotFoundError:  # run from a folder that was never installed
        return "unknown"
