"""A frozen trunk is computed once: what does that save beside plain Keras, in time and in memory?

    ZOO_DATA=FOLDER python benchmarks/frozen.py [--quick] [CASE ...]

MobileNetV2 with ImageNet weights at 224 px, on FOLDER/hymenoptera (244 pictures to train on, 153 to validate on) and
FOLDER/flowers (4,317 pictures, a fifth of them for validation); the weights lie in Keras' cache. Cases:
  large        20 epochs, all but the head frozen, nothing augmented; our cache is empty
  large again  ours once more in a new process and a new run folder, the cache filled; the peer is that of "large",
               since plain Keras keeps nothing between two runs
  light        as "large", with augmentation: ours "light", the peer's a flip and a rotation
  medium       5 epochs of the head, then 15 with the last stage, at a tenth of the rate. The last stage's batch
               normalisation trains in ours and is frozen in the peer, as Keras' guide advises, which spares it work
  flowers      as "large" for 3 epochs: resident memory above that of the process when it has built the model and
               predicted 32 pictures. Seconds are those of the rest
  pass         pictures a second of `zoo.cache_features`, beside `predict` in batches of 64 of the same trunk on the
               same decoded pictures (the validation part of flowers), in one process, in turn

The peer is Keras' transfer-learning guide: `image_dataset_from_directory`, prefetched, and `fit`. "cached" is the same
with the decoded pictures kept in memory, which the guide's user has to think of, and which "flowers" has no memory for.
`jit_compile` is left at "auto", which means no XLA on a machine with processors only. Each measurement is a process of
its own. Imports are outside the clock; inside are the indexing of the data, the building of the model with its weights,
decoding, `fit` and, in ours, the run's folder. Ours stops early by itself and the peer does not, and no field of
`fine_tune` turns that off: read the epochs that were run beside the seconds. "accuracy" is that of the model that comes
out, on the validation pictures: in ours of the epoch with the lowest loss there, in the peer of the last one; "best" is
the best of any epoch.

Two rounds, in turn; ratios are the peer's figure by ours, of neighbouring measurements (in "pass" ours by the
peer's), so above 1 ours is better. Expected: "large" and "light" are bound by one pass in place of twenty,
"large again" by the start alone. Results are written to frozen.json beside this file, those of cases that were not run
stay there, each with its date and commit.
"""

import argparse
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
sys.path.append(sys.path.pop(0))  # `augment` is the package, not the script beside this one

SIDE, BATCH, DROPOUT, RATE = 224, 32, 0.2, 1e-3
HEAD_EPOCHS = 5  # of "medium", before the last stage moves: what fine_tune does, too
UNREADABLE = "imageNotFound.gif"  # a page of HTML in hymenoptera, at which Keras stops
RECORD = Path(__file__).with_suffix(".json")
SETTINGS = {
    "large": {"photos": "hymenoptera", "freeze": "large", "augment": "none", "epochs": 20},
    "light": {"photos": "hymenoptera", "freeze": "large", "augment": "light", "epochs": 20},
    "medium": {"photos": "hymenoptera", "freeze": "medium", "augment": "none", "epochs": 20},
    "flowers": {"photos": "flowers", "freeze": "large", "augment": "none", "epochs": 3},
}
PEERS = {"large": ["plain", "cached"], "light": ["cached"], "medium": ["cached"], "flowers": ["plain"]}
CASES = ("large", "large again", "light", "medium", "flowers", "pass")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="one round, nothing is written")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # a measurement: what this process is started for by itself
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--round", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.side, arguments.round, arguments.folder)))
        return
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are: {', '.join(CASES)}")
    photos = Path(os.environ.get("ZOO_DATA", ""))
    if missing := [name for name in ("hymenoptera", "flowers") if not (photos / name).is_dir()]:
        parser.error(f"ZOO_DATA must name a folder that holds {' and '.join(missing)}")
    cases = [case for case in CASES if case in (arguments.cases or CASES)]
    rounds = 1 if arguments.quick else 2
    results = {}
    for case in cases:
        if case == "large again" and "large" in cases:
            continue  # measured with it
        for number in range(rounds):
            for name, row in one_round(case, number, photos.resolve()).items():
                if name in cases:
                    results.setdefault(name, []).append(row)
    results = {case: summary(case, results[case]) for case in cases}
    if not arguments.quick:
        import record

        measured = {"date": date.today().isoformat(), "commit": record.commit()}
        earlier = json.loads(RECORD.read_text())["results"] if RECORD.exists() else {}
        record.write(__file__, {**earlier, **{case: {**found, **measured} for case, found in results.items()}})


def one_round(case, number, photos):
    """Ours and the peer once each, every one in a process of its own: {case: {side: figures}}."""
    setting = "large" if case == "large again" else case
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if case == "pass":
            return {case: child(case, "both", number, photos / "flowers", place)}
        source = photos / SETTINGS[setting]["photos"]
        readable = linked(source, place / "readable")
        sides = ["ours", *PEERS[setting]]
        found = {}
        for side in sides[::-1] if number % 2 else sides:
            found[side] = child(setting, side, number, source if side == "ours" else readable, place)
        rows = {setting: found}
        if setting == "large":
            rows["large again"] = {**found, "ours": child(setting, "ours", number, source, place)}
        return rows


def child(case, side, number, source, place):
    """What a fresh process measured; its cache folder is shared within a round."""
    words = ["--case", case, "--side", side, "--round", str(number), "--folder", str(source)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "cache")}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, *words], env=environment, capture_output=True, text=True, cwd=Path(__file__).parent
    )
    if done.returncode:
        raise SystemExit(f"{case}, {side}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    figures = json.loads(done.stdout.splitlines()[-1])
    print(f"  {case}, round {number}, {side}: {figures} ({time.perf_counter() - started:.0f} s in all)", flush=True)
    return figures


def linked(source, target):
    """The same folders with links to the pictures that Keras can read."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.name != UNREADABLE:
            link = target / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return target


def summary(case, rows):
    """Prints the ratios, then the absolute figures; returns both."""
    keys = {"flowers": ("memory_mb", "seconds"), "pass": ("pictures_a_second",)}.get(case, ("seconds",))
    ratios = {
        f"{peer} by ours, {key}": [row[peer][key] / row["ours"][key] for row in rows]
        for peer in rows[0]
        for key in keys
        if peer != "ours"
    }
    if case == "pass":  # more is better
        ratios = {"ours by plain": [1 / value for values in ratios.values() for value in values]}
    for key, values in ratios.items():
        print(f"{case:12} {key:32} {shown(values)}")
    for side in rows[0]:
        for key in rows[0][side]:
            print(f"{case:12} {side:6} {key:25} {shown([row[side][key] for row in rows])}")
    return {"ratios": ratios, "rounds": rows}


def shown(values):
    return f"median {statistics.median(values):9.3f}   {min(values):.3f} to {max(values):.3f}"


def measure(case, side, number, folder):
    """One measurement, in the process that was started for it."""
    if case == "pass":
        return one_pass(number, folder)
    memory = case == "flowers"
    if side == "ours":
        return ours(SETTINGS[case], number, folder, memory)
    return peer(SETTINGS[case], number, folder, memory, cached=side == "cached")


def ours(setting, seed, folder, memory):
    """`load_data` and `fine_tune`. With `memory` the network is built first, to know what it takes by itself."""
    import keras

    import zoo

    create, load_data, fine_tune = zoo.create, zoo.load_data, zoo.fine_tune  # imported now, before the clock starts
    model, split = "mobilenet_v2", (0.8, 0.2)  # the split counts where the folder gives none
    if memory:
        keras.utils.set_random_seed(seed)
        classes = sum(path.is_dir() for path in folder.iterdir())
        model = create(model, classes=classes, input_shape=(SIDE, SIDE, 3), weights="imagenet", dropout=DROPOUT)
    before = settled(model) if memory else 0.0
    fields = {name: setting[name] for name in ("freeze", "augment", "epochs")}
    with tempfile.TemporaryDirectory() as runs:
        started = time.perf_counter()
        data = load_data(folder, split=split, seed=seed)
        run = fine_tune(model, data, views="auto", seed=seed, directory=Path(runs) / "run", **fields)
        seconds = time.perf_counter() - started
    dev = run.history["val_accuracy"]
    return figures(seconds, dev, dev[run.best_epoch - 1], before)


def peer(setting, seed, folder, memory, cached=False):
    """Keras' transfer-learning guide, https://keras.io/guides/transfer_learning/."""
    import keras
    from keras import layers

    from zoo.models.catalog import CATALOG  # numbers only: which layer our last stage begins with

    keras.utils.set_random_seed(seed)
    classes = sum(path.is_dir() for path in (folder / "train" if (folder / "train").is_dir() else folder).iterdir())
    model = base = None
    if memory:
        model, base = plain_model(keras, layers, setting, classes)
    before = settled(model) if memory else 0.0
    started = time.perf_counter()
    train, dev = plain_data(keras, folder, seed, cached)
    if not memory:
        model, base = plain_model(keras, layers, setting, classes)
    epochs = setting["epochs"]
    head = HEAD_EPOCHS if setting["freeze"] == "medium" else epochs
    dev_accuracy = fit(keras, model, train, dev, RATE, 0, head)
    if head < epochs:
        release(base, layers, list(CATALOG["mobilenet_v2"].boundaries.values())[-1])
        dev_accuracy += fit(keras, model, train, dev, RATE / 10, head, epochs)
    return figures(time.perf_counter() - started, dev_accuracy, dev_accuracy[-1], before)


def plain_data(keras, folder, seed, cached):
    """Training and validation batches as Keras' guides feed them, decoded anew each epoch or kept in memory."""
    load, common = keras.utils.image_dataset_from_directory, {"image_size": (SIDE, SIDE), "batch_size": BATCH}
    if (folder / "train").is_dir():
        train = load(folder / "train", seed=seed, verbose=False, **common)
        dev = load(folder / "val", shuffle=False, verbose=False, **common)
    else:
        train, dev = load(folder, validation_split=0.2, subset="both", seed=seed, verbose=False, **common)
    if cached:
        train, dev = train.cache().shuffle(1000), dev.cache()
    return train.prefetch(2), dev.prefetch(2)


def plain_model(keras, layers, setting, classes):
    """The guide's network: a nested, frozen base in inference mode and a new head; returns it and the base."""
    base = keras.applications.MobileNetV2(include_top=False, weights="imagenet", input_shape=(SIDE, SIDE, 3))
    base.trainable = False
    image = x = keras.Input((SIDE, SIDE, 3))
    if setting["augment"] != "none":
        x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(x))
    x = base(layers.Rescaling(1 / 127.5, offset=-1)(x), training=False)
    x = layers.Dropout(DROPOUT)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(classes, activation="softmax")(x)), base


def release(base, layers, first):
    """Lets the layers from `first` on train, all batch normalisation excepted."""
    base.trainable = True
    late = False
    for layer in base.layers:
        late = late or layer.name == first
        layer.trainable = late and not isinstance(layer, layers.BatchNormalization)


def fit(keras, model, train, dev, rate, first, last):
    """Validation accuracy of each epoch."""
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(train, validation_data=dev, initial_epoch=first, epochs=last, verbose=0).history
    return history["val_accuracy"]


def one_pass(number, folder):
    """Pictures a second through the trunk: ours into the cache, and plain `predict`."""
    import zoo

    model = zoo.create("mobilenet_v2", classes=5, weights="imagenet", dropout=DROPOUT)
    zoo.freeze(model, "large")
    trunk, _ = zoo.split_frozen(model)
    data = zoo.load_data(folder, split=(0.8, 0.2), image_size=SIDE, seed=number)
    pixels = data.dev.pixels()
    for _ in range(2):  # traced and warm outside the clock
        trunk.predict(pixels[:64], batch_size=64, verbose=0)
    sides = {
        "ours": lambda: zoo.cache_features(trunk, data.dev),
        "plain": lambda: trunk.predict(pixels, batch_size=64, verbose=0),
    }
    found = {}
    for side in ("plain", "ours") if number % 2 else ("ours", "plain"):
        started = time.perf_counter()
        sides[side]()
        found[side] = {"pictures_a_second": round(len(pixels) / (time.perf_counter() - started), 1)}
    return found


def figures(seconds, accuracies, accuracy, before):
    """What every measurement hands back; memory is the peak since `settled`, or since the start."""
    return {
        "seconds": round(seconds, 2),
        "epochs": len(accuracies),
        "accuracy": round(accuracy, 4),
        "best": round(max(accuracies), 4),
        "last": round(accuracies[-1], 4),
        "memory_mb": round(resident("VmHWM") - before, 1),
    }


def settled(model):
    """Resident megabytes of a process whose model has predicted 32 pictures; the peak counts from here on."""
    import numpy as np

    model.predict(np.random.default_rng(0).uniform(0, 255, (32, SIDE, SIDE, 3)), verbose=0)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    return resident("VmRSS")


def resident(name):
    """A line of the process's memory in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


if __name__ == "__main__":
    main()
