"""Evaluation: what do the report, the figures, the gradient check and layer importance cost?

    ZOO_DATA=FOLDER KERAS_HOME=FOLDER python benchmarks/evaluation.py [--quick] [CASE ...]

Cases; each runs in a process of its own, imports outside the clock:
  report      `run.report()` of a run on FOLDER/hymenoptera (frozen MobileNetV2, ImageNet weights, 3 epochs), less the
              time of the prediction passes in it, which are measured apart; the size of the page
  figures     `zoo.evaluate` of 10,000 pictures of FOLDER/cifar10 that are prepared already, with every figure of the
              result, less `model.predict` on the same pixels (ResNet-20); beside it the time that scikit-learn's
              `classification_report`, `log_loss` and `confusion_matrix` take for the same probabilities
  gradients   `zoo.check_gradients` of ResNet-20 on 8 pictures of 32x32; beside it the same differences by the
              textbook's loop, a compiled forward pass of the float64 network for each, extrapolated from 40 of them
  importance  `zoo.layer_importance` of that MobileNetV2 on the 153 pictures of hymenoptera's val; beside it the obvious
              way, a new network for each block, extrapolated from 3 of them

Expected: under 8 s, under 1 s, under 20 s and under 60 s.

Ratios are of neighbouring measurements. Results are written to evaluation.json beside this file; those of cases that
were not run stay there, each with its date and commit.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(sys.path.pop(0))  # other scripts here are called as packages are

RECORD = Path(__file__).with_suffix(".json")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="a round of everything, nothing is written")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(CASES[arguments.child]()))
        return
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are: {', '.join(CASES)}")
    import record

    found = json.loads(RECORD.read_text())["results"] if RECORD.exists() else {}
    for case in arguments.cases or CASES:
        rounds = [child(case) for _ in range(1 if arguments.quick else 3)]
        rows = {name: spread([row[name] for row in rounds]) for name in rounds[0]}
        found[case] = {**rows, "date": date.today().isoformat(), "commit": record.commit()}
        print(case, json.dumps(found[case], indent=2), flush=True)
    if not arguments.quick:
        record.write(__file__, found)


def report():
    with tempfile.TemporaryDirectory() as folder:
        run = fitted(Path(folder) / "run")
        run = zoo().load_run(run.directory)  # as `zoo report` does: nothing is traced or kept in memory
        passes, whole = {}, {}
        evaluate = run.evaluate
        run.evaluate = lambda split: timed(passes, split, lambda: evaluate(split))
        page = timed(whole, "report", run.report)
        return {
            "seconds beyond the passes": whole["report"] - sum(passes.values()),
            "seconds of the passes": sum(passes.values()),
            "page MB": page.stat().st_size / 1e6,
        }


def figures():
    import numpy as np
    from sklearn.metrics import classification_report, confusion_matrix, log_loss

    data = zoo().load_data(place("cifar10"), image_size=32, split=(0.7, 0.1, 0.2))
    split = data.test
    pixels = split.pixels()[:10_000]
    model = zoo().create("resnet20", classes=10)
    arrays = zoo().load_data((pixels, split.labels[:10_000]), split=(1, 0, 0), image_size=32).train
    arrays.pixels()
    model.predict(pixels[:64], batch_size=32, verbose=0)
    spent = {}
    # in turn, so that a noisy machine meets both
    for number in range(3):
        timed(spent, f"predict {number}", lambda: model.predict(pixels, batch_size=32, verbose=0))
        evaluation = timed(spent, f"evaluate {number}", lambda: zoo().evaluate(model, arrays))
    timed(spent, "all figures", lambda: (evaluation.figures(), str(evaluation), evaluation.label_errors()))
    given = evaluation.labels, evaluation.probabilities
    names = np.arange(10)
    timed(
        spent,
        "peer",
        lambda: (
            classification_report(given[0], given[1].argmax(1), labels=names, zero_division=0),
            log_loss(*given, labels=names),
            confusion_matrix(given[0], given[1].argmax(1)),
        ),
    )
    passes = {
        name: statistics.median(spent[f"{name} {number}"] for number in range(3)) for name in ("predict", "evaluate")
    }
    return {
        "seconds beyond predict": passes["evaluate"] - passes["predict"] + spent["all figures"],
        "of it figures, text and label errors": spent["all figures"],
        "seconds of predict": passes["predict"],
        "scikit-learn's report, loss and confusion": spent["peer"],
    }


def gradients():
    import keras
    import numpy as np

    from callbacks import autodiff

    model = zoo().create("resnet20", classes=10)
    draws = np.random.default_rng(0)
    x, y = draws.uniform(0, 255, (8, 32, 32, 3)), draws.integers(0, 10, 8)
    spent = {}
    check = timed(spent, "ours", lambda: zoo().check_gradients(model, x, y))
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    twin = keras.Model.from_config(
        json.loads(json.dumps(model.get_config()).replace('"float32"', '"float64"')),
    )
    twin.set_weights(model.get_weights())
    kernel = twin.trainable_variables[0]
    forward = autodiff.compiled(
        lambda: keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, twin(x, training=True)))
    )
    forward()

    def loop():
        for place in range(20):
            value = keras.ops.convert_to_numpy(kernel).copy()
            for step in (1e-6, -1e-6):
                moved = value.copy()
                moved.flat[place] += step
                kernel.assign(moved)
                float(forward())
            kernel.assign(value)

    timed(spent, "loop", loop)
    pairs = int(check.layers.sampled.sum())
    return {
        "seconds": spent["ours"],
        "parameters checked": pairs,
        "the loop takes times as long": spent["loop"] / 20 * pairs / spent["ours"],
        "relative error": check.error,
    }


def importance():
    import keras

    with tempfile.TemporaryDirectory() as folder:
        run = fitted(Path(folder) / "run")
    whole = zoo().load_data(place("hymenoptera"), image_size=224)
    split = whole.dev
    pixels = split.pixels()
    spent = {}
    found = timed(spent, "ours", lambda: zoo().layer_importance(run.model, split))

    def one():
        clone = keras.models.clone_model(run.model)
        clone.set_weights(run.model.get_weights())
        clone.predict(pixels, batch_size=32, verbose=0)

    for number in range(3):
        timed(spent, f"clone {number}", one)
    each = statistics.median(spent[f"clone {number}"] for number in range(3))
    return {
        "seconds": spent["ours"],
        "blocks": len(found.table),
        "pictures": len(split),
        "a network for each block takes times as long": each * len(found.table) / spent["ours"],
    }


CASES = {case.__name__: case for case in (report, figures, gradients, importance)}


def fitted(folder):
    """A run on hymenoptera: the head of a frozen MobileNetV2."""
    with contextlib.redirect_stdout(io.StringIO()):
        data = zoo().load_data(place("hymenoptera"))
        return zoo().fine_tune("mobilenet_v2", data, weights="imagenet", freeze="large", epochs=3, directory=folder)


def zoo():
    import zoo

    return zoo


def place(name):
    folder = os.environ.get("ZOO_DATA")
    if not folder or not (Path(folder) / name).is_dir():
        sys.exit(f"ZOO_DATA must be a folder that holds {name}.")
    return Path(folder) / name


def timed(spent, name, work):
    began = time.perf_counter()
    found = work()
    spent[name] = spent.get(name, 0) + time.perf_counter() - began
    return found


def child(case):
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, __file__, "--child", case],
            env={**os.environ, "XDG_CACHE_HOME": cache},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        sys.exit(f"{case} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def spread(values):
    """Median, lowest and highest."""
    values = [round(value, 9) for value in values]
    return {"median": statistics.median(values), "range": [min(values), max(values)]}


if __name__ == "__main__":
    main()
