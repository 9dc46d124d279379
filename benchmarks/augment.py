"""Augmentation: how quick is it beside Keras' layers, what does it cost a training, and how exact is it?

    ZOO_DATA=FOLDER python benchmarks/augment.py [--quick] [CASE ...]

Cases, all with pictures of 224x224x3 in batches of 64:
  chain    flip, rotation by up to 10 degrees, zoom by up to 0.15, shift by up to a tenth, brightness and contrast by up
           to 0.2: Keras' six layers one after another, and ours (RandomAffine and ColorJitter in a Policy); both fill
           with the mirrored picture, bilinearly. In a tf.function, pictures a second. For "nearest" as fill, too
  memory   of the chain, each side in a process of its own: resident MB above those before the first call
  policies each policy in the input pipeline, that is in a tf.data map with keys: pictures a second
  cost     milliseconds a picture of "medium" in the pipeline, beside a training step of ResNet-50 (batches of 16) and
           a forward pass of MobileNetV2 (`predict`, batches of 64)
  quality  on 24 photos of FOLDER/flowers: mean absolute difference, in grey levels, of one resampling from SciPy's in
           float64, with drawn rotation, zoom, slant and shift. And the contrast between neighbouring pixels, in shares
           of the photos', eight draws: by Keras' three geometric layers, by our one, and by three of ours that rotate,
           zoom and shift as that one does. A zoom changes it, too, so only the last two can be compared draw by draw

Expected: the chain at 2.5 times Keras' speed or more and no more memory; "medium" below 15 % of ResNet-50's step and
below MobileNetV2's forward; a difference far below one grey level. Rounds in turn, ratios of neighbouring measurements.
Results are written to augment.json beside this file; those of cases that were not run stay there, each with its date
and commit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(sys.path.pop(0))  # `augment` is the package, not this script

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import augment  # noqa: E402
import zoo  # noqa: E402

BATCH, SIDE, CALLS, ROUNDS = 64, 224, 8, 5
RECORD = Path(__file__).with_suffix(".json")
POLICIES = [name for name in augment.POLICIES if name != "none"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="one round of the chain, nothing is written")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)  # what a process of its own is started for
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(memory(*arguments.memory)))
        return
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are: {', '.join(CASES)}")
    if arguments.quick:
        print(json.dumps(chain("float32", 1), indent=2))
        return
    import record

    found = json.loads(RECORD.read_text())["results"] if RECORD.exists() else {}
    for case in arguments.cases or CASES:
        found[case] = {**CASES[case](), "date": date.today().isoformat(), "commit": record.commit()}
        print(case, json.dumps(found[case], indent=2), flush=True)
    record.write(__file__, found)


def chains():
    plain = {dtype: chain(dtype, ROUNDS) for dtype in ("float32", "uint8")}
    return {**plain, "float32, nearest": chain("float32", ROUNDS, fill="nearest")}


def memories():
    """MB."""
    return {f"{dtype} {side}": child("--memory", side, dtype) for dtype in ("float32", "uint8") for side in SIDES}


def policies():
    return {name: pipeline(augment.policy(name, SIDE), ROUNDS) for name in POLICIES}


def keras_chain(fill="reflect"):
    layers = keras.layers
    given = {"fill_mode": fill, "interpolation": "bilinear"}
    return keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(10 / 360, **given),
            layers.RandomZoom(0.15, **given),
            layers.RandomTranslation(0.1, 0.1, **given),
            layers.RandomBrightness(0.2),
            layers.RandomContrast(0.2),
        ]
    )


def our_chain(fill="reflect"):
    moved = augment.RandomAffine(flip="horizontal", rotation=10, zoom=0.15, shift=0.1, fill=fill)
    return augment.Policy([moved, augment.ColorJitter(brightness=0.2, contrast=0.2)])


SIDES = {"keras": keras_chain, "ours": our_chain}


def pictures(dtype, count=BATCH):
    """Noise, smoothed a little: the values do not matter here."""
    drawn = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3)).astype("float32")
    return (drawn / 2 + np.roll(drawn, 1, 2) / 2).astype(dtype)


def chain(dtype, rounds, fill="reflect"):
    """Pictures a second of both, in turn, and ratios."""
    images = tf.constant(pictures(dtype))
    made = {side: compiled(make(fill)) for side, make in SIDES.items()}
    for call in made.values():
        call(images)
    found = {side: [] for side in made}
    for _ in range(rounds):
        for side, call in made.items():
            found[side].append(BATCH * CALLS / seconds(lambda call=call: [call(images) for _ in range(CALLS)]))
    ratios = [ours / theirs for ours, theirs in zip(found["ours"], found["keras"], strict=True)]
    return {"ratio": spread(ratios), **{side: spread(values) for side, values in found.items()}}


def compiled(layer):
    return tf.function(lambda images: layer(images, training=True))


def memory(side, dtype):
    """MB of resident memory, at most, above that before the first call."""
    call, images = compiled(SIDES[side]()), tf.constant(pictures(dtype))
    before = status("VmRSS")
    for _ in range(CALLS):
        call(images)
    return round((status("VmHWM") - before) / 1024, 1)


def status(name):
    """kB, from the system's figures about this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def child(*words):
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def pipeline(policy, rounds):
    """Pictures a second of a policy in a tf.data map, above reading the same pictures without it."""
    images, batches = pictures("uint8"), 6
    keys = np.array([[0, row] for row in range(BATCH)])
    plain = tf.data.Dataset.from_tensors((images, keys)).cache().repeat()
    mapped = plain.map(lambda images, keys: policy(images, training=True, keys=keys))
    found = []
    for _ in range(rounds):
        iterators = [iter(dataset.prefetch(1)) for dataset in (plain, mapped)]
        for iterator in iterators:
            next(iterator), next(iterator)
        bare, full = (seconds(lambda it=it: [next(it) for _ in range(batches)]) for it in iterators)
        found.append(BATCH * batches / (full - bare))
    return spread(found)


def cost():
    """Milliseconds a picture."""
    medium = 1000 / pipeline(augment.policy("medium", SIDE), 3)["median"]
    images = pictures("float32", 16)
    labels = np.arange(16) % 10
    network = zoo.create("resnet50", classes=10, input_shape=(SIDE, SIDE, 3))
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=network_gives_logits(network)))
    network.train_on_batch(images, labels)
    step = min(seconds(lambda: network.train_on_batch(images, labels)) for _ in range(5)) / 16 * 1000
    small = zoo.create("mobilenet_v2", classes=10, input_shape=(SIDE, SIDE, 3))
    many = pictures("float32", 4 * BATCH)
    small.predict(many, batch_size=BATCH, verbose=0)
    forward = min(seconds(lambda: small.predict(many, batch_size=BATCH, verbose=0)) for _ in range(3)) / len(many)
    return {
        "medium_ms": round(medium, 2),
        "resnet50_step_ms": round(step, 2),
        "mobilenet_v2_forward_ms": round(1000 * forward, 2),
        "of_resnet50_step": round(medium / step, 4),
        "of_mobilenet_v2_forward": round(medium / (1000 * forward), 4),
    }


def network_gives_logits(network):
    from zoo.models.outputs import gives_logits

    return gives_logits(network)


def quality():
    """Differences from SciPy, and the contrast between neighbours that is left."""
    from scipy import ndimage

    from augment.affine import matrix, resampled

    photos = (
        zoo.load_data(Path(os.environ["ZOO_DATA"]) / "flowers", image_size=SIDE)
        .dev.read(np.arange(24))
        .astype("float32")
    )
    drawn = np.random.default_rng(0).uniform(-1, 1, (5, len(photos), 1, 1, 1)).astype("float32")
    places = matrix(
        (float(SIDE), float(SIDE)),
        rotation=np.radians(30) * drawn[0],
        zoom=np.exp(0.3 * drawn[1]),
        shear_x=0.2 * drawn[2],
        shift_x=0.1 * SIDE * drawn[3],
        shift_y=0.1 * SIDE * drawn[4],
    )
    ours = keras.ops.convert_to_numpy(resampled(photos, places))
    differences = []
    for photo, moved, (a0, a1, a2, b0, b1, b2, _, _) in zip(photos, ours, np.float64(places), strict=True):
        for channel in range(3):
            exact = ndimage.affine_transform(
                photo[..., channel].astype("float64"), [[b1, b0], [a1, a0]], [b2, a2], order=1, mode="reflect"
            )
            differences.append(np.abs(exact - moved[..., channel]).mean())
    found = {"mean_difference": float(np.mean(differences)), "largest": float(np.max(differences))}
    return {**found, "contrast": contrast(photos)}


def contrast(photos):
    """Of what three resamplings leave, and one."""
    one = augment.RandomAffine(flip=None, rotation=10, zoom=0.15, shift=0.1)
    three = [augment.RandomAffine(flip=None, **{name: getattr(one, name)}) for name in ("zoom", "rotation", "shift")]
    theirs = keras.Sequential(keras_chain().layers[1:4])
    found = {"keras": [], "ours": [], "ours, three": [], "gained": []}
    for seed in range(8):
        keras.utils.set_random_seed(seed)
        keys = np.array([[seed, row] for row in range(len(photos))])
        chained = photos
        for layer in three:
            chained = layer(chained, training=True, keys=keys)
        sides = {"keras": theirs(photos, training=True), "ours": one(photos, training=True, keys=keys)}
        for name, moved in {**sides, "ours, three": chained}.items():
            found[name].append(float(roughness(keras.ops.convert_to_numpy(moved)) / roughness(photos)))
        found["gained"].append(found["ours"][-1] - found["ours, three"][-1])
    return {name: spread(values) for name, values in found.items()}


def roughness(images):
    """Mean absolute difference of neighbouring pixels."""
    return (np.abs(np.diff(images, axis=1)).mean() + np.abs(np.diff(images, axis=2)).mean()) / 2


def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


CASES = {"chain": chains, "memory": memories, "policies": policies, "cost": cost, "quality": quality}


if __name__ == "__main__":
    main()
