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
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(sys.path.pop(0))  # `augment` is the package, not the script beside this one

import keras  # noqa: E402, F401  # imported before the clock starts
import record  # noqa: E402

import zoo  # noqa: E402


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
    record.write(__file__, results, seeds=seeds)


def digits(seed):
    return zoo.load_data("digits", image_size=16, seed=seed)


def measure(model, data, split, seed, folder, **fields):
    """Accuracy on a split, and seconds to fit and to export."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # so that no seed finds what another has kept
    started = time.perf_counter()
    run = zoo.fine_tune(model, data, epochs=20, seed=seed, directory=folder / "run", **fields)
    fitted = time.perf_counter()
    run.export()
    exported = time.perf_counter()
    return {
        "accuracy": run.evaluate(split).accuracy,
        "fit_seconds": round(fitted - started, 1),
        "export_seconds": round(exported - fitted, 1),
    }


if __name__ == "__main__":
    main()
