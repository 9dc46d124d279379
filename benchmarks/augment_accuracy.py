"""Does augmentation help? Dev accuracy with no, light, medium and heavy augmentation, three seeds each.

    ZOO_DATA=FOLDER python benchmarks/augment_accuracy.py [--quick] [CASE ...]

Cases:
  flowers      resnet20 from scratch at 64 px, 14 epochs, bfloat16, FOLDER/flowers (4,317 pictures, half of them dev).
               Early stopping is off, so that all policies train equally long
  long         as flowers, at 32 px and for 60 epochs: what strong augmentation is for. The record holds one seed of
               "none" and "heavy"
  hymenoptera  MobileNetV2 with ImageNet weights (in Keras' cache), all but the head frozen, up to 20 epochs and stopped
               early, FOLDER/hymenoptera (244 pictures to train on, 153 dev). As `fine_tune` does it by itself, kept
               views included

The seed decides split (flowers), initial weights, order and every draw. "best" is the accuracy of the epoch with the
lowest dev loss, which is what a run hands over, "last" that of the last epoch. The dev set chooses the epoch, so both
are a little flattering, alike for all policies. A difference below the spread is none. Results are written to
augment_accuracy.json beside this file after each run; what is there already, from the same commit, is not run again.
"""

import argparse
import json
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
from zoo.training import fitting  # noqa: E402

RECORD = Path(__file__).with_suffix(".json")
SEEDS = (0, 1, 2)
PATIENCE = fitting.PATIENCE
POLICIES = ("none", "light", "medium", "heavy")
SCRATCH = {
    "model": "resnet20",
    "weights": None,
    "split": (0.5, 0.5),
    "batch_size": 64,
    "precision": "mixed_bfloat16",
}
CASES = {
    "flowers": {**SCRATCH, "image_size": 64, "epochs": 14},
    "long": {**SCRATCH, "image_size": 32, "epochs": 60},
    "hymenoptera": {"model": "mobilenet_v2", "image_size": 224, "weights": "imagenet", "freeze": "large", "epochs": 20},
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs, nothing is written")
    arguments = parser.parse_args()
    photos = Path(os.environ.get("ZOO_DATA", ""))
    found = json.loads(RECORD.read_text())["results"] if RECORD.exists() and not arguments.quick else {}
    for case in arguments.cases or CASES:
        for seed in SEEDS[:1] if arguments.quick else SEEDS:
            for policy in POLICIES:
                rows = found.setdefault(case, {}).setdefault(policy, [])
                if any(row["seed"] == seed and row["commit"] == record.commit() for row in rows):
                    continue
                rows[:] = [row for row in rows if row["seed"] != seed]
                rows.append(measure(case, policy, seed, photos, arguments.quick))
                print(case, policy, rows[-1], flush=True)
                if not arguments.quick:
                    record.write(__file__, found)
    for case, policies in found.items():
        print(f"\n{case:12} {'best, median':>14} {'range':>16} {'last, median':>14} {'train, last':>12}")
        for policy, rows in policies.items():
            best, last, train = ([row[name] for row in rows] for name in ("best", "last", "train"))
            span = f"{min(best):.3f} to {max(best):.3f}"
            print(f"{policy:12} {statistics.median(best):14.3f} {span:>16} {statistics.median(last):14.3f}", end=" ")
            print(f"{statistics.median(train):12.3f}")


def measure(case, policy, seed, photos, quick):
    """Accuracies of one run."""
    fields = {**CASES[case], **({"epochs": 2} if quick else {})}
    given = {name: fields.pop(name) for name in ("image_size", "split") if name in fields}
    data = zoo.load_data(photos / ("flowers" if case == "long" else case), seed=seed, **given)
    fitting.PATIENCE = PATIENCE if case == "hymenoptera" else 2.0  # more epochs than there are
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        started = time.perf_counter()
        run = zoo.fine_tune(data=data, augment=policy, seed=seed, directory=Path(folder) / "run", **fields)
        seconds = time.perf_counter() - started
    accuracies = run.history["val_accuracy"]
    return {
        "seed": seed,
        "best": accuracies[run.best_epoch - 1],
        "last": accuracies[-1],
        "train": run.history["accuracy"][-1],
        "epochs": len(accuracies),
        "best_epoch": run.best_epoch,
        "views": run.recipe.views,
        "seconds": round(seconds, 1),
        "commit": record.commit(),
    }


if __name__ == "__main__":
    main()
