"""The fresh process of a verification: loads a SavedModel as a stranger would and writes down what it answers.

    python -I verify_child.py JOB

JOB is a folder with `job.json`, the samples as `sample-<k>`, and `images.npy`. It is left with `answers.npz` and
`answers.json`. Beside the batches of samples, one with a file in its middle that is no picture is answered. Nothing is
imported but the standard library, numpy and TensorFlow.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

STRANGERS = ("zoo", "augment", "callbacks", "tuning", "keras_tuner")


def main(folder: Path) -> None:
    """Answers every batch of the job twice, and once the one that holds an unreadable file."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    samples = [(folder / f"sample-{k}").read_bytes() for k in range(job["samples"])]
    images = np.load(folder / "images.npy")

    started = time.monotonic()
    loaded = tf.saved_model.load(job["saved_model"])  # must stay alive as long as its signatures are called
    signatures = {name: loaded.signatures[name] for name in ("serving_default", "serve_images")}
    loading = time.monotonic() - started

    answers = {}
    for size in job["batch_sizes"]:
        for call in (1, 2):
            given = {
                "serving_default": {"image_bytes": tf.constant([samples[k % len(samples)] for k in range(size)])},
                "serve_images": {"images": tf.constant(images[np.arange(size) % len(samples)])},
            }
            for name, inputs in given.items():
                for key, values in signatures[name](**inputs).items():
                    answers[f"{name}/{size}/{call}/{key}"] = _storable(values.numpy())
    mixed = [samples[k % len(samples)] for k in range(job["mixed"])]
    mixed[len(mixed) // 2] = b"no picture"
    for key, values in signatures["serving_default"](image_bytes=tf.constant(mixed)).items():
        answers[f"mixed/{key}"] = _storable(values.numpy())
    ended = time.monotonic()

    met = [name for name in STRANGERS if name in sys.modules]
    if met:
        raise ImportError(f"the SavedModel needs {', '.join(met)}, so it would not run elsewhere")
    np.savez(folder / "answers.npz", **answers)
    facts = {
        "load_seconds": round(loading, 3),
        "call_seconds": round(ended - started - loading, 3),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "keras_imported": "keras" in sys.modules,
    }
    (folder / "answers.json").write_text(json.dumps(facts), encoding="utf-8")


def reason(error: Exception) -> str:
    """The line of a TensorFlow error that says what is wrong, without the names of nodes around it."""
    around = ("Graph execution error", "Detected at node", "<stack traces unavailable>", "[[")
    lines = [line.split("}} ")[-1].split(" [Op:")[0].strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.startswith(around)), type(error).__name__)


def _storable(values):
    """Byte strings as text, since an array of objects could only be stored with pickle."""
    if values.dtype == object:
        return np.array([value.decode("utf-8") for value in values.ravel()]).reshape(values.shape)
    return values


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except Exception as error:  # whatever it is, the parent needs it as one line
        sys.exit(f"{type(error).__name__}: {reason(error)}")
