"""Are the zoo's networks as quick as the plain ones? Ratios of ours to the original, 1.0 and above is as quick.

    python benchmarks/zoo_speed.py [--quick] [NAME ...]

For each network, ours and its peer in one process, in turn and with the order alternated: seconds to build, pictures a
second forward (`predict_on_batch`) and in training (`train_on_batch`, SGD with momentum), the same batch of float32
pictures, float32, no XLA. Both take raw pixels: the peer has the `Rescaling` of Keras' guides in front, which is the
cheapest preprocessing there is, ours its normalisation. The peer is the network of keras.applications with Keras' own
initial weights (ours has He's). Where there is no original (resnet20), and where the original is another network
(keras.applications puts ResNet-50's stride on the first 1x1 convolution, and so has 6 % fewer multiply-adds than the
one that public weights of today are for), it is the plainest Keras code, below.
A ratio is the median of the ratios of neighbouring runs. Results are written to zoo_speed.json beside this file.
"""

import argparse
import gc
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(sys.path.pop(0))  # `augment` is the package, not the script beside this one

import keras  # noqa: E402
import numpy as np  # noqa: E402
import record  # noqa: E402
from keras import layers  # noqa: E402

import zoo  # noqa: E402


def plain_resnet20():
    """He et al. 2015, section 4.2, in as few lines as Keras allows; shortcuts that widen are projections."""

    def block(x, filters, stride):
        y = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
        if stride > 1:
            x = layers.BatchNormalization()(layers.Conv2D(filters, 1, strides=stride, use_bias=False)(x))
        return layers.ReLU()(layers.Add()([x, y]))

    image, x = raw(32)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        for i in range(3):
            x = block(x, filters, stride if i == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def plain_resnet50():
    """He et al. 2015, table 1, with the stride on the 3x3 convolution."""

    def conv_bn(x, filters, kernel, stride=1):
        x = layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    def block(x, filters, stride):
        y = layers.ReLU()(conv_bn(x, filters, 1))
        y = layers.ReLU()(conv_bn(y, filters, 3, stride))
        y = conv_bn(y, 4 * filters, 1)
        if x.shape[-1] != 4 * filters:
            x = conv_bn(x, 4 * filters, 1, stride)
        return layers.ReLU()(layers.Add()([x, y]))

    image, x = raw(224)
    x = layers.ReLU()(conv_bn(x, 64, 7, 2))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for k, depth in enumerate((3, 4, 6, 3)):
        for i in range(depth):
            x = block(x, 64 * 2**k, 2 if k and i == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(1000, activation="softmax")(x))


def original(name, side=224):
    def build():
        image, pixels = raw(side)
        return keras.Model(image, getattr(keras.applications, name)(weights=None, input_tensor=pixels).output)

    return build


def raw(side):
    """An input for pixels 0..255, and what the guides make of it."""
    image = keras.Input((side, side, 3))
    return image, layers.Rescaling(1 / 127.5, offset=-1)(image)


# name of ours, pictures in a batch, side, classes, the peers
CASES = (
    ("resnet20", 128, 32, 10, {"plain Keras": plain_resnet20}),
    ("mobilenet_v2", 32, 224, 1000, {"keras.applications": original("MobileNetV2")}),
    ("resnet50", 16, 224, 1000, {"plain Keras": plain_resnet50, "keras.applications": original("ResNet50")}),
    ("inception_v3", 16, 299, 1000, {"keras.applications": original("InceptionV3", 299)}),
    ("vgg16", 8, 224, 1000, {"keras.applications": original("VGG16")}),
)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="networks to measure; all by default")
    parser.add_argument("--quick", action="store_true", help="two rounds instead of seven; nothing is written")
    arguments = parser.parse_args()
    rounds = 2 if arguments.quick else 7
    results = []
    for name, batch, side, classes, peers in CASES:
        for kind, build in peers.items():
            if not arguments.names or name in arguments.names:
                results.append({"network": name, "peer": kind, **compare(name, build, batch, side, classes, rounds)})
                print(line(results[-1]), flush=True)
    if not arguments.quick and not arguments.names:
        record.write(__file__, {"comparisons": results}, rounds=rounds)


def compare(name, build, batch, side, classes, rounds):
    """Ours against one peer: building, forward, training."""
    rng = np.random.default_rng(0)
    pictures = rng.uniform(0, 255, (batch, side, side, 3)).astype(np.float32)
    labels = rng.integers(0, classes, batch)
    builders = {"ours": lambda: zoo.create(name, classes=classes), "peer": build}
    building = in_turn({key: lambda b=b: seconds(b) for key, b in builders.items()}, rounds)
    models = {key: b() for key, b in builders.items()}
    for model in models.values():
        model.compile(keras.optimizers.SGD(0.001, momentum=0.9), "sparse_categorical_crossentropy", jit_compile=False)
    steps = 3
    forward = in_turn(
        {
            k: lambda m=m: seconds(lambda: [m.predict_on_batch(pictures) for _ in range(steps)])
            for k, m in models.items()
        },
        rounds,
    )
    training = in_turn(
        {k: lambda m=m: seconds(lambda: m.train_on_batch(pictures, labels)) for k, m in models.items()}, rounds
    )
    keras.backend.clear_session()
    return {
        "batch": batch,
        "build": figures(building, 1, "seconds"),
        "forward": figures(forward, steps * batch, "pictures a second"),
        "training": figures(training, batch, "pictures a second"),
    }


def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turn(measurements, rounds):
    """Seconds of each, round by round, the first to run changing; one round before that does not count."""
    taken = {key: [] for key in measurements}
    order = list(measurements)
    for number in range(rounds + 1):
        for key in order if number % 2 else order[::-1]:
            gc.collect()
            value = measurements[key]()
            if number:
                taken[key].append(value)
    return taken


def figures(taken, work, unit):
    """Ratio of speeds (ours over the peer's), its range, and both medians in `unit`."""
    ratios = [peer / ours for ours, peer in zip(taken["ours"], taken["peer"], strict=True)]
    medians = {key: statistics.median(values) for key, values in taken.items()}
    shown = medians if unit == "seconds" else {key: work / value for key, value in medians.items()}
    return {
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "unit": unit,
        **{key: round(value, 3) for key, value in shown.items()},
    }


def line(result):
    parts = [f"{result['network']:13} against {result['peer']:18}"]
    for key in ("build", "forward", "training"):
        f = result[key]
        parts.append(
            f"{key} {f['ratio']:.2f} ({f['range'][0]:.2f} to {f['range'][1]:.2f}): {f['ours']:.2f} to {f['peer']:.2f}"
        )
    return "  ".join(parts)


if __name__ == "__main__":
    main()
