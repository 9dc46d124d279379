"""Data: how quickly are folders looked at and pictures read, and how much memory does it take?

    ZOO_DATA=FOLDER python benchmarks/data.py [--quick] [CASE ...]

Cases; every measurement runs in a process of its own, imports outside the clock:
  scan    `zoo.scan` of FOLDER/cifar10 (60,000 files of 32x32): cold, which is without a cache of ours (the files are in
          the system's), and again. Beside it the time that `image_dataset_from_directory` takes to list the same files,
          and torchvision's ImageFolder where it is installed; neither opens a file
  first   the first epoch of FOLDER/hymenoptera (train and val) at 224 px, batches of 32, shuffled: from the call of
          `load_data` to the last batch, cold and with the scan's cache; and the epoch alone. Keras'
          `image_dataset_from_directory(crop_to_aspect_ratio=True)` does the same work: shorter side, centre; it neither
          turns pictures upright nor smooths what it makes smaller. In turn, each after a small folder that compiles
          what there is to compile
  later   the epochs after it: pictures a second, un-augmented, ours and Keras' loader with `.cache()`
  bomb    a PNG of 200 million pixels in a folder of hymenoptera's bees: growth of resident memory by `zoo.scan`, at its
          peak; beside it that of Pillow's `load` of the file
  memory  FOLDER/cifar10 in memory: growth of resident memory from before `load_data` to after the last split's
          `pixels()`, by the bytes of the pixels; and its peak

Expected: at least 4,000 files a second cold and under 3 s warm; a first epoch not slower than Keras'; at least 3,000
pictures a second later; under 100 MB for the bomb; at most 1.3 times the pixels in memory.

Ratios are of neighbouring measurements. Results are written to data.json beside this file; those of cases that were not
run stay there, each with its date and commit.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(sys.path.pop(0))  # other scripts here are called as packages are

SIDE, BATCH = 224, 32
RECORD = Path(__file__).with_suffix(".json")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="a round of everything, nothing is written")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child](*arguments.cases)))
        return
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are: {', '.join(CASES)}")
    import record

    found = json.loads(RECORD.read_text())["results"] if RECORD.exists() else {}
    for case in arguments.cases or CASES:
        about = {"date": date.today().isoformat(), "commit": record.commit()}
        found[case] = {**CASES[case](1 if arguments.quick else 5), **about}
        print(case, json.dumps(found[case], indent=2), flush=True)
    if not arguments.quick:
        record.write(__file__, found)


def scan(rounds):
    source = place("cifar10")
    rows = []
    for _ in range(min(rounds, 3)):
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (child("scan", source, cache=cache) for _ in range(2))
        rows.append({"cold": cold, "warm": warm, "keras": child("list_keras", source)})
        if other := child("list_torchvision", source):
            rows[-1]["torchvision"] = other
    files = rows[0]["cold"]["files"]
    return {
        "files": files,
        "files a second, cold": spread([files / row["cold"]["seconds"] for row in rows]),
        "seconds": {name: spread([row[name]["seconds"] for row in rows]) for name in rows[0]},
        "usable": rows[0]["cold"]["usable"],
    }


def first(rounds):
    source = place("hymenoptera")
    rows = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (child("ours", source, cache=cache) for _ in range(2))
        rows.append({"cold": cold, "warm": warm, "keras": child("keras", source)})
    return {
        "Keras' seconds by ours": {
            "all of it, cold": spread([row["keras"]["all"] / row["cold"]["all"] for row in rows]),
            "all of it, scanned before": spread([row["keras"]["all"] / row["warm"]["all"] for row in rows]),
            "the epoch alone": spread([row["keras"]["epoch"] / row["warm"]["epoch"] for row in rows]),
        },
        "seconds": {
            name: {part: spread([row[name][part] for row in rows]) for part in ("all", "epoch")} for name in rows[0]
        },
        "pictures": rows[0]["cold"]["pictures"],
    }


def later(rounds):
    source = place("hymenoptera")
    with tempfile.TemporaryDirectory() as cache:
        rows = [(child("later_ours", source, cache=cache), child("later_keras", source)) for _ in range(rounds)]
    return {
        "ours by Keras'": spread([ours / keras for ours, keras in rows]),
        "pictures a second": {
            "ours": spread([ours for ours, _ in rows]),
            "Keras, cached": spread([keras for _, keras in rows]),
        },
    }


def bomb(rounds):
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        bees = shutil.copytree(place("hymenoptera") / "val" / "bees", Path(folder) / "photos" / "bees")
        file = bees / "huge.png"
        Image.new("RGB", (20_000, 10_000), "navy").save(file)
        rows = [child("bomb", Path(folder) / "photos", cache=cache) for _ in range(min(rounds, 3))]
        pillow = child("load_pillow", file)
        size = file.stat().st_size
    return {
        "grows by MB": spread([row["grown"] / 1e6 for row in rows]),
        "Pillow's load grows by MB": round(pillow / 1e6),
        "file KB": round(size / 1e3),
        "status": rows[0]["status"],
    }


def memory(rounds):
    with tempfile.TemporaryDirectory() as cache:
        rows = [child("memory", place("cifar10"), cache=cache) for _ in range(min(rounds, 3))]
    return {
        "by the pixels": spread([row["grown"] / row["pixels"] for row in rows]),
        "at its peak": spread([row["peak"] / row["pixels"] for row in rows]),
        "pixels MB": round(rows[0]["pixels"] / 1e6),
    }


def child_scan(source):
    import zoo

    zoo.scan  # imported  # noqa: B018
    started = time.perf_counter()
    manifest = zoo.scan(source)
    return {
        "seconds": time.perf_counter() - started,
        "files": len(manifest.table),
        "usable": len(manifest.usable),
        "statuses": manifest.table.status.value_counts().to_dict(),
    }


def child_list_keras(source):
    import keras

    started = time.perf_counter()
    for part in ("train", "test"):
        keras.utils.image_dataset_from_directory(Path(source) / part, image_size=(32, 32), verbose=False)
    return {"seconds": time.perf_counter() - started}


def child_list_torchvision(source):
    try:
        from torchvision.datasets import ImageFolder  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    started = time.perf_counter()
    for part in ("train", "test"):
        ImageFolder(str(Path(source) / part))
    return {"seconds": time.perf_counter() - started}


def child_ours(source):
    import zoo

    def all_batches(source):
        started = time.perf_counter()
        data = zoo.load_data(source, image_size=SIDE)
        indexed = time.perf_counter()
        count = 0
        for split in (data.train, data.dev):
            for images, _ in split.dataset(BATCH, training=True):
                count += len(images)
        ended = time.perf_counter()
        return {"all": ended - started, "epoch": ended - indexed, "pictures": count}

    with few(source) as folder:
        all_batches(folder)
    return all_batches(source)


def child_keras(source):
    def all_batches(source):
        started = time.perf_counter()
        parts = [keras_loader(Path(source) / part) for part in ("train", "val")]
        indexed = time.perf_counter()
        count = sum(len(images) for part in parts for images, _ in part)
        ended = time.perf_counter()
        return {"all": ended - started, "epoch": ended - indexed, "pictures": count}

    with few(source) as folder:
        all_batches(folder)
    return all_batches(source)


def child_later_ours(source):
    import zoo

    data = zoo.load_data(source, image_size=SIDE)
    return rate(data.train.dataset(BATCH, training=True))


def child_later_keras(source):
    pictures = keras_loader(Path(source) / "train", shuffle=False).unbatch().cache()
    return rate(pictures.shuffle(1000).batch(BATCH).prefetch(2))


def keras_loader(folder, **settings):
    import keras

    return keras.utils.image_dataset_from_directory(
        folder, image_size=(SIDE, SIDE), batch_size=BATCH, crop_to_aspect_ratio=True, verbose=False, **settings
    )


def rate(batches, epochs=8):
    """Pictures a second, of the epochs behind the first."""
    for _ in batches:
        pass
    count, started = 0, time.perf_counter()
    for _ in range(epochs):
        for images, _ in batches:
            count += len(images)
    return count / (time.perf_counter() - started)


def child_bomb(source):
    import zoo

    with few(place("hymenoptera")) as folder:
        zoo.scan(folder)
    before = resident()
    reset_peak()
    manifest = zoo.scan(source)
    table = manifest.table
    return {"grown": peak() - before, "status": table.status[table.path.str.endswith("huge.png")].item()}


def child_load_pillow(file):
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    Image.new("RGB", (9, 9)).load()
    before = resident()
    reset_peak()
    with Image.open(file) as image:
        image.load()
        return peak() - before


def child_memory(source):
    import gc

    import zoo

    with few(place("hymenoptera")) as folder:
        zoo.load_data(folder, image_size=32).train.pixels()
    gc.collect()
    before = resident()
    reset_peak()
    data = zoo.load_data(source, image_size=32)
    pixels = sum(split.pixels().nbytes for split in (data.train, data.dev, data.test))
    gc.collect()
    return {"grown": resident() - before, "peak": peak() - before, "pixels": pixels}


@contextlib.contextmanager
def few(source):
    """A folder of a few pictures a class, laid out as hymenoptera is."""
    with tempfile.TemporaryDirectory() as folder:
        for label in Path(source).glob("*/*/"):
            target = Path(folder) / label.relative_to(source)
            target.mkdir(parents=True)
            files = sorted(label.iterdir())
            for file in {*files[:4], *(file for file in files if file.suffix == ".gif")}:  # every format there is
                shutil.copy(file, target)
        yield Path(folder)


def resident():
    return status("VmRSS")


def peak():
    return status("VmHWM")


def status(name):
    """Bytes, from Linux' account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")


def child(name, *arguments, cache=None):
    """What a function gave in a process of its own."""
    environment = {**os.environ, **({"XDG_CACHE_HOME": str(cache)} if cache else {})}
    words = [sys.executable, __file__, "--child", name, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def place(name):
    if "ZOO_DATA" not in os.environ:
        raise SystemExit("ZOO_DATA must name a folder that holds cifar10/ and hymenoptera/.")
    return Path(os.environ["ZOO_DATA"]) / name


def spread(values):
    return {"median": figure(statistics.median(values)), "least": figure(min(values)), "most": figure(max(values))}


def figure(value):
    return float(f"{value:.4g}")


CASES = {case.__name__: case for case in (scan, first, later, bomb, memory)}
CHILDREN = {name.removeprefix("child_"): function for name, function in globals().items() if name.startswith("child_")}

if __name__ == "__main__":
    main()
