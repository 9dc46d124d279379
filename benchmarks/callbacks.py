"""Callbacks: what do they cost a training, beside Keras' own, and how long do a checkpoint and a range test take?

    ZOO_DATA=FOLDER KERAS_HOME=FOLDER python benchmarks/callbacks.py [--quick] [CASE ...]

Cases; the networks train on two cores in float32 without XLA, with AdamW as `fine_tune` sets it up:
  training    CIFAR ResNet-20, batches of 128 from arrays: 40 steps an epoch and 640 pictures to validate on. `fit` of
              two epochs without callbacks, with all callbacks of a default run (FrozenGuard, CosineDecay,
              EarlyStopping, GradientMonitor, HistoryLog, Checkpoint), and with what Keras has for it
              (ReduceLROnPlateau, EarlyStopping with restore_best_weights, CSVLogger, ModelCheckpoint with
              save_best_only, BackupAndRestore), in turn. Then a longer fit with each, every hook under a clock: the
              time inside, by callback. What slows the steps, as the writing in the background, is in the ratio alone
  checkpoint  MobileNetV2 at 224 px, two classes, all of it trained: the time in Checkpoint's hook, the time until the
              checkpoint has its name on the disk (fsync included) while training goes on and at the end of a fit, and
              what the steps lose meanwhile: with a save at every fourth step of 8 pictures, the two steps behind it
              less the two that follow, save by save (lost in noise where others use the cores; the processor time of
              the writing thread is not). Peers: BackupAndRestore(save_freq="epoch") and `model.save`, neither of which
              brings anything to the disk by force, hashes or renames
  finder      LearningRateFinder of 100 steps, batches of 16, on FOLDER/hymenoptera and MobileNetV2 with ImageNet
              weights, all but the head frozen: on the whole network at 224 px, and on the tail's features. Beside it
              `fit` of 100 such steps, in turn with it
  steps       WeightAverage a step and GradientMonitor a probe of 32 pictures, beside a step of the same fit: ResNet-20
              in batches of 128, MobileNetV2 at 224 px in batches of 32. The peer of WeightAverage is the optimizer's
              `use_ema`: its update alone, in a graph (biases, kernels and gains; ours averages the statistics of batch
              normalisation as well and leaves out what is not finite)

Expected: all of them together below 3 % of ResNet-20's epochs; a checkpoint of MobileNetV2 on the disk in 0.5 s and at
most 60 ms of training time; the range test in under 20 s. The cost is one of so many milliseconds a fit, an epoch and a
step: an epoch ten times as long has a tenth of the share, GradientMonitor excepted, which takes its share of the time.
Shares of epochs of other lengths are computed from the clocked hooks, with its share as measured (at most 4 % by its
own rule, and less in fits of more than some minutes, since it keeps its distance then).

Ratios are of neighbouring measurements. Without pictures of CIFAR in FOLDER/cifar10, random pixels do for ResNet-20.
Results are written to callbacks.json beside this file; those of cases that were not run stay there, each with its
date and commit, and how many of the cores were busy with other processes on the mean ("others").
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(sys.path.pop(0))  # `callbacks` is the package, not this script

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402

import zoo  # noqa: E402
from callbacks import (  # noqa: E402
    Checkpoint,
    CosineDecay,
    EarlyStopping,
    FrozenGuard,
    GradientMonitor,
    HistoryLog,
    LearningRateFinder,
    WeightAverage,
    snapshots,
)
from zoo.models.outputs import gives_logits  # noqa: E402
from zoo.training.fitting import OPTIMIZERS  # noqa: E402

BATCH, STEPS, DEV, PROBE, SIDE = 128, 40, 640, 32, 224
RECORD = Path(__file__).with_suffix(".json")
HOOKS = [name for name in dir(keras.callbacks.Callback) if name.startswith("on_")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="a round of everything, nothing is written")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are: {', '.join(CASES)}")
    import record

    found = json.loads(RECORD.read_text())["results"] if RECORD.exists() else {}
    for case in arguments.cases or CASES:
        about = {"date": date.today().isoformat(), "commit": record.commit()}
        started, before = now(), others()
        found[case] = {**CASES[case](arguments.quick), **about, "seconds": round(now() - started)}
        found[case]["others"] = round((others() - before) / (now() - started), 2)
        print(case, json.dumps(found[case], indent=2), flush=True)
    if not arguments.quick:
        record.write(__file__, found)


def training(quick):
    """Ratios of whole fits, then the longer fit hook by hook."""
    rounds, epochs, long = (1, 1, {"ours": 2, "keras": 1}) if quick else (3, 2, {"ours": 10, "keras": 4})
    x, y = cifar(STEPS * BATCH + DEV)
    model = compiled("resnet20", 10, 32)
    data = {"x": x[DEV:], "y": y[DEV:], "validation_data": (x[:DEV], y[:DEV]), "batch_size": BATCH, "verbose": 0}
    fit(model, [], epochs=1, **data)  # traced
    sides = {"without": lambda *_: [], "ours": ours, "keras": theirs}
    seconds, inside = {side: [] for side in sides}, {side: [] for side in sides}
    for _ in range(rounds):
        for side, assemble in sides.items():
            with tempfile.TemporaryDirectory() as folder:
                watchers = assemble(model, Path(folder), (x[:PROBE], y[:PROBE]), epochs)
                spent = clock(watchers)
                seconds[side].append(fit(model, watchers, epochs=epochs, **data))
                inside[side].append(sum(map(sum, spent.values())) / seconds[side][-1])
    ratios = {
        side: spread([mine / bare for mine, bare in zip(seconds[side], seconds["without"], strict=True)])
        for side in ("ours", "keras")
    }
    clocked = {}
    for side in ("ours", "keras"):
        with tempfile.TemporaryDirectory() as folder:
            watchers = sides[side](model, Path(folder), (x[:PROBE], y[:PROBE]), long[side])
            spent = clock(watchers)
            whole = fit(model, watchers, epochs=long[side], **data)
        clocked[side] = by_hook(spent, whole, long[side])
    return {
        "ratios of fits to those without": ratios,
        "share inside the hooks, of the same fits": {side: spread(inside[side]) for side in ratios},
        "inside the hooks, longer fits": clocked,
        f"seconds of {epochs} epochs": {side: spread(found) for side, found in seconds.items()},
    }


def ours(model, folder, probe, epochs):
    """As zoo/training/fitting.py assembles them."""
    patience = max(3, math.ceil(0.4 * epochs))
    return [
        FrozenGuard(model),
        CosineDecay(epochs),
        EarlyStopping("val_loss", "min", patience=patience),
        GradientMonitor(probe, path=folder / "gradients.csv"),
        HistoryLog(folder / "history.csv"),
        Checkpoint(folder / "checkpoints", "val_loss", "min"),
    ]


def theirs(model, folder, probe, epochs):
    known = keras.callbacks
    return [
        known.ReduceLROnPlateau(),
        known.EarlyStopping(patience=max(3, math.ceil(0.4 * epochs)), restore_best_weights=True),
        known.CSVLogger(str(folder / "history.csv")),
        known.ModelCheckpoint(str(folder / "best.keras"), save_best_only=True),
        known.BackupAndRestore(str(folder / "backup")),
    ]


def by_hook(spent, whole, epochs):
    """Milliseconds a fit, an epoch and a step, by callback; shares of the time that is left for the training."""
    rows = {}
    for (name, hook), took in spent.items():
        row = rows.setdefault(name, {"fit_ms": 0.0, "epoch_ms": 0.0, "step_ms": 0.0, "most_ms": 0.0})
        part = 1000 * sum(took)
        if hook.startswith("on_train_batch"):
            row["step_ms"] += part / epochs / STEPS
        elif hook in ("on_train_begin", "on_train_end"):
            row["fit_ms"] += part
        else:
            row["epoch_ms"] += part / epochs
        row["most_ms"] = max(row["most_ms"], 1000 * max(took))
    inside = sum(map(sum, spent.values()))
    alone = 1000 * (whole - inside) / epochs  # milliseconds of an epoch
    for row in rows.values():
        row["share"] = (row["fit_ms"] / epochs + row["epoch_ms"] + STEPS * row["step_ms"]) / alone
    total = {part: sum(row[part] for row in rows.values()) for part in ("fit_ms", "epoch_ms", "step_ms")}
    shares = {
        f"share of {epochs} epochs of {int(factor * STEPS * BATCH)} pictures": round(
            (total["fit_ms"] / epochs / factor + total["epoch_ms"] / factor + STEPS * total["step_ms"]) / alone, 4
        )
        for factor in (0.2, 1, 10)
    }
    return {
        "share": round(inside / (whole - inside), 4),
        **shares,
        "epoch_seconds": round(alone / 1000, 3),
        "callbacks": {name: rounded(row) for name, row in rows.items()},
    }


def checkpoint(quick):
    """Milliseconds, of saves while MobileNetV2 trains."""
    rounds, saves = (1, 3) if quick else (3, 12)
    model = compiled("mobilenet_v2", 2, SIDE)
    data = {**stream(SIDE, 2, 8), "epochs": 1, "verbose": 0}
    fit(model, [], **data, steps_per_epoch=2)
    found = defaultdict(list)
    for _ in range(rounds):
        for name, values in saved(model, data, 4 * (saves + 1)).items():
            found[name] += values
        with tempfile.TemporaryDirectory() as folder:
            backup = keras.callbacks.BackupAndRestore(str(Path(folder) / "backup"))
            backup.set_model(model)
            for _ in range(2 if quick else 4):
                found["BackupAndRestore, hook"].append(taken(lambda at=backup: at.on_epoch_end(0)))
                found["model.save"].append(taken(lambda at=folder: model.save(Path(at) / "model.keras")))
    found["of training time"] = [a + b for a, b in zip(found["hook"], found["steps behind it"], strict=True)]
    figures = {name: spread([1000 * value for value in values]) for name, values in found.items()}
    cost = figures["of training time"]["median"]
    return {
        "ratios to the training time of ours": {
            name: round(figures[name]["median"] / cost, 2) for name in ("BackupAndRestore, hook", "model.save")
        },
        "ms": figures,
    }


def saved(model, data, steps):
    """Seconds of each save of a fit that saves at every fourth step."""
    begun: list[float] = []
    named: list[float] = []
    worked: list[float] = []
    write = snapshots.write

    def noted(*arguments):
        before = time.thread_time()
        path = write(*arguments)
        named.append(now())
        worked.append(time.thread_time() - before)
        return path

    with tempfile.TemporaryDirectory() as folder:
        # a clock that counts steps, so that saves come when they are wanted
        keeper = Checkpoint(Path(folder) / "checkpoints", seconds=4, clock=lambda: max(len(begun) - 1, 0))
        spent = clock([keeper])
        snapshots.write = noted
        try:
            fit(model, [Steps(begun), keeper], **data, steps_per_epoch=steps)
        finally:
            snapshots.write = write
    hooks = spent["Checkpoint", "on_train_batch_begin"]
    alone = np.diff(begun) - hooks[:-1]
    at = [step for step in range(4, steps - 4, 4)]
    return {
        "hook": [hooks[step] for step in at],
        "steps behind it": [alone[k] + alone[k + 1] - alone[k + 2] - alone[k + 3] for k in at],
        "on disk, in training": [end - begun[step] for step, end in zip(at, named, strict=False)],
        "processor time of the writing": worked,
        "on disk, at the end": spent["Checkpoint", "on_epoch_end"],
        "step of 8 pictures": [float(np.median(alone))],
    }


def finder(quick):
    """Seconds of the range test and of as many steps of a plain fit."""
    rounds, steps = (1, 12) if quick else (2, 100)
    data = zoo.load_data(Path(os.environ["ZOO_DATA"]) / "hymenoptera", image_size=SIDE)
    model = zoo.create("mobilenet_v2", classes=2, weights="imagenet")
    zoo.freeze(model, "large")
    trunk, tail = zoo.split_frozen(model)
    few = data.train
    with tempfile.TemporaryDirectory() as folder:
        features = zoo.cache_features(trunk, few, directory=folder).read(np.arange(len(few)))
    one_hot = np.eye(2, dtype="float32")[few.labels]
    sides = {
        "whole network": (model, few.pixels(), one_hot),
        "tail on features": (tail, features[0] if len(features) == 1 else tuple(features), one_hot),
    }
    found = {}
    for name, (fitted, x, y) in sides.items():
        seconds = {"find": [], "fit": []}
        tried = None
        for _ in range(rounds):
            prepared(fitted)
            tried = LearningRateFinder(steps=steps)
            seconds["find"].append(taken(lambda at=fitted, a=x, b=y, it=tried: it.find(at, a, b, batch_size=16)))
            prepared(fitted)
            batches = tf.data.Dataset.from_tensor_slices((x, y)).repeat().batch(16)
            seconds["fit"].append(fit(fitted, [], x=batches, steps_per_epoch=steps, epochs=1, verbose=0))
        found[name] = {
            "ratio": spread([a / b for a, b in zip(seconds["find"], seconds["fit"], strict=True)]),
            "seconds": {side: spread(values) for side, values in seconds.items()},
            "steps": len(tried.rates) if tried else 0,
            "suggestion": tried.suggestion if tried else None,
        }
    return found


def steps(quick):
    """Milliseconds a step and a probe."""
    networks = {"resnet20": (10, 32, BATCH, 40), "mobilenet_v2": (2, SIDE, 32, 12)}
    found = {}
    for name, (classes, side, batch, count) in networks.items():
        model = compiled(name, classes, side)
        data = {**stream(side, classes, batch), "epochs": 1, "verbose": 0, "steps_per_epoch": 5 if quick else count}
        fit(model, [], **{**data, "steps_per_epoch": 2})
        (probe,) = stream(side, classes, PROBE)["x"].take(1)
        watchers = {"WeightAverage": WeightAverage(), "GradientMonitor": GradientMonitor(probe, every=1)}
        step, hooks = {}, {}
        for watcher, callback in watchers.items():
            begun: list[float] = []
            spent = clock([callback])
            fit(model, [Steps(begun), callback], **data)
            hooks[watcher] = spent[watcher, "on_train_batch_begin"]
            step[watcher] = (np.diff(begun) - hooks[watcher][:-1])[1:].tolist()
        ema = moving_average(model, 5 if quick else 50)
        found[name] = {
            "shares of a step": {
                "WeightAverage": statistics.median(hooks["WeightAverage"][3:])
                / statistics.median(step["WeightAverage"]),
                "use_ema": statistics.median(ema) / statistics.median(step["WeightAverage"]),
                "GradientMonitor, a probe": statistics.median(hooks["GradientMonitor"][2:])
                / statistics.median(step["GradientMonitor"]),
            },
            "ms": {
                "step": spread([1000 * value for value in step["WeightAverage"]]),
                "WeightAverage, a step": spread([1000 * value for value in hooks["WeightAverage"][3:]]),
                "WeightAverage, first": 1000 * max(hooks["WeightAverage"][:3]),
                "use_ema, a step": spread([1000 * value for value in ema]),
                "GradientMonitor, a probe": spread([1000 * value for value in hooks["GradientMonitor"][2:]]),
                "GradientMonitor, first": 1000 * hooks["GradientMonitor"][0],
            },
        }
    return found


def others():
    """Seconds of processor time that were not this process's."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK") - time.process_time()


def moving_average(model, count):
    """Seconds of the update that an optimizer with `use_ema` makes at each step."""
    optimizer = keras.optimizers.AdamW(use_ema=True)
    optimizer.build(model.trainable_variables)
    variables = model.trainable_variables
    update = tf.function(lambda: optimizer._update_model_variables_moving_average(variables), autograph=False)
    update()
    return [taken(update) for _ in range(count)]


def compiled(name, classes, side):
    model = zoo.create(name, classes=classes, input_shape=(side, side, 3))
    prepared(model)
    return model


def prepared(model):
    optimizer = OPTIMIZERS["adamw"](1e-3)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(from_logits=gives_logits(model))
    model.compile(optimizer, loss, metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")], jit_compile=False)


def fit(model, callbacks, **words):
    """Seconds."""
    return taken(lambda: model.fit(**words, shuffle=False, callbacks=list(callbacks)))


def cifar(count):
    """(uint8 pictures, one-hot targets): of ZOO_DATA, or noise."""
    folder = Path(os.environ.get("ZOO_DATA", "")) / "cifar10" / "train"
    paths = np.random.default_rng(0).permutation(sorted(map(str, folder.glob("*/*"))))[:count]
    if len(paths) < count:
        return noise(32, 10, count)
    names = sorted({Path(path).parent.name for path in paths})
    labels = [names.index(Path(path).parent.name) for path in paths]
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths]), np.eye(10, dtype="f4")[labels]


def noise(side, classes, count):
    generator = np.random.default_rng(0)
    targets = np.eye(classes, dtype="float32")[generator.integers(0, classes, count)]
    return generator.integers(0, 256, (count, side, side, 3), "uint8"), targets


def stream(side, classes, batch):
    """One batch without end."""
    return {"x": tf.data.Dataset.from_tensors(noise(side, classes, batch)).repeat()}


class Steps(keras.callbacks.Callback):
    """Notes when each step begins, callbacks included."""

    def __init__(self, begun):
        super().__init__()
        self.begun = begun

    def on_train_batch_begin(self, batch, logs=None):
        self.begun.append(now())


def clock(callbacks):
    """Puts a clock around every hook that the callbacks have; (callback, hook) -> seconds of each call."""
    spent = defaultdict(list)
    for callback in callbacks:
        for hook in HOOKS:
            if getattr(type(callback), hook) is not getattr(keras.callbacks.Callback, hook):
                setattr(callback, hook, clocked(getattr(callback, hook), spent[type(callback).__name__, hook]))
    return spent


def clocked(hook, seconds):
    def call(*arguments, **words):
        started = now()
        try:
            return hook(*arguments, **words)
        finally:
            seconds.append(now() - started)

    return call


def taken(work):
    started = now()
    work()
    return now() - started


now = time.perf_counter


def spread(values):
    return rounded({"median": statistics.median(values), "least": min(values), "most": max(values)})


def rounded(figures):
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


CASES = {"training": training, "checkpoint": checkpoint, "finder": finder, "steps": steps}


if __name__ == "__main__":
    main()
