"""Proof that a SavedModel gives the answers of the model it was made from, in a process that knows nothing of us."""

import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from zoo.data.decode import compiled
from zoo.data.pictures import Geometry, encode_png, portable
from zoo.models.outputs import checked_probabilities

BATCH_SIZES = (1, 3, 32)
MIXED = 3  # of BATCH_SIZES, the size of the batch in whose middle stands a file that is no picture
TIMEOUT = 600  # seconds; loading a large network on a slow disk takes a minute or two

# Formats and modes of the pictures made up where no samples are given.
SYNTHETIC = (
    ("JPEG", "RGB"),
    ("JPEG", "L"),
    ("PNG", "RGB"),
    ("PNG", "RGBA"),
    ("PNG", "L"),
    ("GIF", "P"),
    ("WEBP", "RGB"),
    ("BMP", "RGB"),
)

# Largest difference in a probability that still counts as the same answer, by the precision the model computes in:
# float32 keeps 24 bits of a number, float16 11 and bfloat16 8, and the error grows with the depth of the network.
TOLERANCES = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}


class ExportMismatch(ValueError):
    """The exported model does not answer as the model it was made from."""


def verify(
    saved_model: str | os.PathLike,
    model: keras.Model,
    *,
    class_names: Sequence[str],
    geometry: Geometry,
    samples: Sequence[bytes],
    timeout: float = TIMEOUT,
) -> dict:
    """Compares a SavedModel, called in a fresh process, with `model.predict`.

    Both signatures answer at batch sizes 1, 3 and 32, each twice, and `predict` is asked at the same sizes, since a
    kernel may sum in another order at another size. Samples are repeated to fill a batch. A batch with an unreadable
    file in it must give that one an empty label and NaN, and leave the others' answers as they are. Everything runs on
    the CPU, where float32 means the same to both sides.

    Args:
        saved_model: Folder of the SavedModel.
        model: The model it was made from.
        class_names: Names in the order of the model's outputs.
        geometry: How pictures are prepared for the model.
        samples: Bytes of at least one picture, as `decode` reads them.
        timeout: Seconds that the fresh process may take.

    Returns:
        The report, ready for JSON: passed, tolerance, precision, max_difference (signature, then batch size),
        repeatable ("to the bit" or "within tolerance"), beside_unreadable (the same, of answers in a batch with an
        unreadable file), samples, seconds, versions, keras_imported.

    Raises:
        ExportMismatch: If an answer differs by more than the tolerance, or the fresh process fails.
    """
    started = time.monotonic()
    prepare = compiled(geometry)
    images = np.stack([prepare(data).numpy() for data in samples]).astype(np.float32)
    expected = {size: _predicted(model, images[np.arange(size) % len(images)]) for size in BATCH_SIZES}
    if not all(np.isfinite(values).all() for values in expected.values()):
        raise ExportMismatch("The model gives no numbers (NaN) for the samples, so it cannot be verified.")
    precision = compute_precision(model)
    tolerance = TOLERANCES[precision]

    with tempfile.TemporaryDirectory(prefix="menagerie-verify-") as name:
        folder = Path(name)
        for k, data in enumerate(samples):
            (folder / f"sample-{k}").write_bytes(data)
        np.save(folder / "images.npy", images)
        job = {"saved_model": str(Path(saved_model).resolve()), "samples": len(samples)}
        job |= {"batch_sizes": BATCH_SIZES, "mixed": MIXED}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        _run_child(folder, timeout)
        with np.load(folder / "answers.npz", allow_pickle=False) as stored:
            answers = dict(stored)
        facts = json.loads((folder / "answers.json").read_text(encoding="utf-8"))

    differences, same_bits = _compare(answers, expected, list(class_names), tolerance)
    untouched = _compare_mixed(answers, list(class_names), tolerance)
    return {
        "passed": True,
        "tolerance": tolerance,
        "precision": precision,
        "max_difference": differences,
        "repeatable": _degree(same_bits),
        "beside_unreadable": _degree(untouched),
        "samples": len(samples),
        "seconds": round(time.monotonic() - started, 2),
        "load_seconds": facts["load_seconds"],
        "call_seconds": facts["call_seconds"],
        "versions": {
            "python": facts["python"],
            "tensorflow": facts["tensorflow"],
            "numpy": facts["numpy"],
            "keras": keras.__version__,
        },
        "keras_imported": facts["keras_imported"],
    }


def compute_precision(model: keras.Model) -> str:
    """The coarsest number format in which a layer of the model computes, such as "float32"."""
    found = {str(layer.compute_dtype) for layer in model._flatten_layers() if layer.compute_dtype in TOLERANCES}
    return max(found, key=lambda name: TOLERANCES[name], default="float32")


def read_samples(samples) -> list[bytes]:
    """Paths, bytes or uint8 arrays (h, w, c) to bytes that the graph decodes; made-up pictures where there are none."""
    if samples is None:
        return synthetic_samples()
    if isinstance(samples, (str, bytes, os.PathLike)):
        samples = [samples]
    return [_sample(item) for item in samples] or synthetic_samples()


def _sample(item) -> bytes:
    if isinstance(item, np.ndarray):
        return encode_png(item.astype(np.uint8))
    if isinstance(item, bytes):
        return portable(item)
    try:
        return portable(Path(item).read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no sample {item}.") from None
    except OSError as error:
        raise OSError(f"The sample {item} cannot be read: {error.strerror or 'it is no picture'}.") from None


def synthetic_samples(seed: int = 0) -> list[bytes]:
    """Eight made-up pictures, from 20 to 200 pixels wide: JPEG, PNG in grey, colour and with alpha, GIF, WebP, BMP."""
    rng = np.random.default_rng(seed)
    found = []
    for kind, mode in SYNTHETIC:
        width, height = (int(side) for side in rng.integers(20, 200, 2))
        blocks = Image.fromarray(rng.integers(0, 256, (5, 4, 4), np.uint8), "RGBA").resize((width, height))
        if mode == "RGBA":
            picture = blocks
        elif mode == "P":
            picture = blocks.convert("RGB").quantize(64)
        else:
            picture = blocks.convert("RGB").convert(mode)
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        found.append(buffer.getvalue())
    return found


def _predicted(model, images: np.ndarray) -> np.ndarray:
    with keras.device("cpu:0"):
        return checked_probabilities(model, model.predict(images, batch_size=len(images), verbose=0))


def _run_child(folder: Path, timeout: float) -> None:
    """Runs `verify_child.py` on a job, away from our packages, this folder and the GPU."""
    command = [sys.executable, "-I", str(Path(__file__).with_name("verify_child.py")), str(folder)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise ExportMismatch(
            f"The exported model did not answer within {timeout:g} seconds in a fresh process, so it is not verified."
        ) from None
    if done.returncode < 0:
        raise ExportMismatch(
            f"The fresh process that checks the exported model was ended by signal {-done.returncode}, "
            "perhaps for lack of memory."
        )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ExportMismatch(f"The exported model fails in a fresh process: {last}")


def _compare(answers: dict, expected: dict[int, np.ndarray], class_names: list[str], tolerance: float):
    """Largest difference by signature and batch size, and whether the second calls gave the very bits of the first.

    `expected` holds the model's own probabilities by batch size.
    """
    differences = {"serving_default": {}, "serve_images": {}}
    same_bits = True
    for signature, found in differences.items():
        for size in BATCH_SIZES:
            first, second = (answers[f"{signature}/{size}/{call}/probabilities"] for call in (1, 2))
            what = f"signature {signature} at batch size {size}"
            if first.shape != (size, len(class_names)) or first.dtype != np.float32:
                raise ExportMismatch(
                    f"The exported model gives probabilities of shape {first.shape} and type {first.dtype} for {what}; "
                    f"{(size, len(class_names))} and float32 are wanted."
                )
            found[str(size)] = difference = _gap(first, expected[size])
            if not difference <= tolerance:
                raise ExportMismatch(
                    f"The exported model does not answer as the model does: probabilities differ by {difference:.2g} "
                    f"for {what}; up to {tolerance:g} is allowed."
                )
            if not _gap(first, second) <= tolerance:
                raise ExportMismatch(
                    f"The exported model is not repeatable: the same pictures gave probabilities that differ by "
                    f"{_gap(first, second):.2g} for {what}. A layer still behaves as in training."
                )
            same_bits &= bool(np.array_equal(first, second))
            if signature == "serving_default":
                _compare_labels(answers, size, expected[size], first, class_names, tolerance)
    return differences, same_bits


def _compare_labels(answers, size, expected, probabilities, class_names, tolerance):
    """The label is the most probable class, and the model's own where that is not a matter of rounding."""
    labels = answers[f"serving_default/{size}/1/label"]
    sure = answers[f"serving_default/{size}/1/probability"]
    own = np.array(class_names)[probabilities.argmax(axis=1)]
    if labels.tolist() != own.tolist() or not np.array_equal(sure, probabilities.max(axis=1)):
        raise ExportMismatch("The exported model's label and probability are not those of its most probable class.")
    ranked = np.sort(expected, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 2 * tolerance if len(class_names) > 1 else np.ones(size, bool)
    wrong = clear & (labels != np.array(class_names)[expected.argmax(axis=1)])
    if wrong.any():
        raise ExportMismatch(f"The exported model gives another label than the model for {int(wrong.sum())} pictures.")


def _compare_mixed(answers: dict, class_names: list[str], tolerance: float) -> bool:
    """Whether the readable pictures of the mixed batch got the very bits that they get without the unreadable one."""
    middle = MIXED // 2
    values, label, sure = (answers[f"mixed/{key}"] for key in ("probabilities", "label", "probability"))
    without = answers[f"serving_default/{MIXED}/1/probabilities"]
    if values.shape != without.shape or label[middle] or not np.isnan([sure[middle], *values[middle]]).all():
        raise ExportMismatch("The exported model gives a file that is no picture something else than no label and NaN.")
    others = np.arange(MIXED) != middle
    own = np.array(class_names)[values[others].argmax(axis=1)]
    gap = _gap(values[others], without[others])
    if not gap <= tolerance or label[others].tolist() != own.tolist():
        raise ExportMismatch(
            f"A file that is no picture changes the exported model's answers for others in its batch, by {gap:.2g}; "
            f"up to {tolerance:g} is allowed."
        )
    return bool(np.array_equal(values[others], without[others]))


def _degree(same_bits: bool) -> str:
    return "to the bit" if same_bits else "within tolerance"


def _gap(a, b) -> float:
    """Largest absolute difference; infinite where one is not a number."""
    gap = float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)))) if a.size else 0.0
    return gap if math.isfinite(gap) else math.inf
