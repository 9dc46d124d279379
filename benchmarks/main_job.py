"""The main job: how good is a first run, and how long does it take?

    python benchmarks/main_job.py [--quick]

Two cases, three seeds each (the seed decides split, initial weights and order):
  digits       convnet from scratch at 16 px, 20 epochs; accuracy on the test split
  hymenoptera  MobileNetV2, ImageNet weights, frozen "large", 20 epochs; accuracy on its `val` folder, the dev set,
               which also chooses the epoch. Needs ZOO_DATA, and the weights in Keras' cache.
Seconds are those of `fine_tune` (decoding, building and fitting; imports are outside) and of `export` with its
verification. Results are written to main_job.json beside this file.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402, F401  # imported before the clock starts

import zoo  # noqa: E402
from zoo.training.hardware import environment  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="digits alone, one seed")
    quick = parser.parse_args().quick
    seeds = (0,) if quick else (0, 1, 2)
    cases = {"digits": lambda seed, folder: measure("convnet", digits(seed), "test", seed, folder)}
    photos = Path(os.environ.get("ZOO_DATA", "")) / "hymenoptera"
    if not quick and photos.is_dir():
        cases["hymenoptera"] = lambda seed, folder: measure(
            "mobilenet_v2", zoo.load_data(photos), "dev", seed, folder, weights="imagenet", freeze="large"
        )
    results = {}
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            runs = [case(seed, Path(folder) / str(seed)) for seed in seeds]
        results[name] = runs
        shown = {key: [run[key] for run in runs] for key in runs[0]}
        for key, values in shown.items():
            print(f"{name:12} {key:16} median {statistics.median(values):8.4f}  {min(values):.4f} to {max(values):.4f}")
    if quick:
        return
    record = {
        "date": date.today().isoformat(),
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "processor": processor(),
        "environment": environment(),
        "seeds": seeds,
        "results": results,
        "script": Path(__file__).read_text(encoding="utf-8"),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def digits(seed):
    return zoo.load_data("digits", image_size=16, seed=seed)


def measure(model, data, split, seed, folder, **fields):
    """Accuracy on a split, and seconds to fit and to export."""
    started = time.perf_counter()
    run = zoo.fine_tune(model, data, epochs=20, seed=seed, directory=folder, **fields)
    fitted = time.perf_counter()
    run.export()
    exported = time.perf_counter()
    return {
        "accuracy": run.evaluate(split).accuracy,
        "fit_seconds": round(fitted - started, 1),
        "export_seconds": round(exported - fitted, 1),
    }


def processor():
    """The processor's name, where the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
