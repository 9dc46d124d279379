"""The same numbers as other implementations of the same networks, from the same weights."""

import json
import os
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.datasets import load_sample_images

from zoo.models.catalog import info
from zoo.models.registry import create
REFERENCE = Path(__file__).parents[1] / "reference"
SHORT = {"resnet18", "resnet50", "resnetv2_50", "googlenet"}
ORIGINALS = {
    "mobilenet_v2": (keras.applications.MobileNetV2, keras.applications.mobilenet_v2.preprocess_input),
    "efficientnetv2_b0": (keras.applications.EfficientNetV2B0, keras.applications.efficientnet_v2.preprocess_input),
}


def photos(side=224):
    """Four crops of the two photographs that scikit-learn brings along, uint8."""
    corners = [(0, 0), (100, 300)]
    return np.stack([p[y : y + side, x : x + side] for p in load_sample_images().images for y, x in corners])


def outputs(model, images):
    """What the model gives, without the seconds that `predict` takes to trace a large graph."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(images, training=False))


def portable(name, count):
    """`count` numbers in [-1, 1) that depend on a name alone, the same on every machine."""
    h = np.arange(count, dtype=np.uint32)  # which wraps around, as the hash wants it
    h *= np.uint32(2654435761)
    h += np.uint32(zlib.crc32(name.encode()))
    h ^= h >> 16
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> 13
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> 16
    return h / 2**31 - 1.0


def filled(name, shape):
    """Values for a tensor of a public checkpoint, by its name, shape and role."""
    u = portable(name, int(np.prod(shape))).reshape(shape)
    if name.endswith("running_var"):
        return 1.0 + 0.3 * u
    if name.endswith(("running_mean", "bias")):
        return 0.1 * u
    if len(shape) <= 1:
        return 1.0 + 0.2 * u
    return u * np.sqrt(6.0 / np.prod(shape[1:])) * 0.7


def checkpoint(golden, path):
    """Writes the filled tensors of a public model as the file that users have; returns its path."""
    save_file({key: filled(key, shape).astype(np.float32) for key, shape in golden["state_dict"].items()}, path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        path.stem if path.stem in SHORT else pytest.param(path.stem, marks=pytest.mark.slow)
        for path in sorted(REFERENCE.glob("*.json"))
    ],
)
def test_public_file_gives_the_logits_of_its_publisher(name, tmp_path):
    golden = json.loads((REFERENCE / f"{name}.json").read_text())
    size = golden["image_size"]
    path = checkpoint(golden, tmp_path / "model.safetensors")
    model = create(
        name,
        classes=1000,
        input_shape=(size, size, 3),
        weights=path,
        normalization=(0, 1),
        classifier_activation=None,
    )
    path.unlink()  # half a gigabyte for some
    assert info(name).parameters == golden["parameters"]
    image = portable(f"image{size}", size * size * 3).reshape(1, size, size, 3)
    logits = outputs(model, image)[0]
    expected = np.array(golden["logits"])
    assert np.linalg.norm(logits - expected) / np.linalg.norm(expected) < 1e-4


@pytest.mark.parametrize("name", ORIGINALS)
def test_applications_give_the_outputs_of_the_originals(name):
    build, preprocess = ORIGINALS[name]
    keras.utils.set_random_seed(2)
    original = build(weights=None, input_shape=(64, 64, 3), classes=7, classifier_activation=None)
    mean, variance = {
        "mobilenet_v2": (127.5, 127.5**2),
        "efficientnetv2_b0": (
            255 * np.array([0.485, 0.456, 0.406]),
            (255 * np.array([0.229, 0.224, 0.225])) ** 2,
        ),
    }[name]
    ours = create(name, classes=7, input_shape=(64, 64, 3), normalization=(mean, variance), classifier_activation=None)
    rng = np.random.default_rng(0)
    count = 0
    for layer in original.layers:
        if layer.weights:
            twin = ours.get_layer("head_dense" if layer.name == "predictions" else layer.name)
            twin.set_weights([_plausible(variable, rng) for variable in twin.weights])
            layer.set_weights(twin.get_weights())
            count += len(layer.weights)
    assert count == len(ours.weights)
    raw = photos(64)
    expected = outputs(original, preprocess(raw.astype(np.float32)))
    assert expected.std(axis=0).max() > 1e-3  # pictures do make a difference
    np.testing.assert_allclose(outputs(ours, raw), expected, atol=1e-5)


def _plausible(variable, rng):
    if variable.name in ("moving_variance", "gamma"):
        low = 0.8 if variable.name == "moving_variance" else 0.6  # more, and rounding would grow from layer to layer
        return rng.uniform(low, low + 0.4, variable.shape)
    if variable.name == "kernel" and len(variable.shape) > 1:
        return variable.numpy()
    return rng.uniform(-0.1, 0.1, variable.shape)


@pytest.mark.skipif("ZOO_WEIGHTS" not in os.environ, reason="ZOO_WEIGHTS names no folder with ImageNet weights")
def test_mobilenet_v2_with_real_weights_gives_the_features_of_the_original():
    path = Path(os.environ["ZOO_WEIGHTS"]) / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    original = keras.applications.MobileNetV2(weights=str(path), include_top=False, input_shape=(224, 224, 3))
    ours = create("mobilenet_v2", classes=2, weights=path)
    features = keras.Model(ours.input, [ours.get_layer("stem_normalize").output, ours.get_layer("out_relu").output])
    raw = photos()
    preprocessed = keras.applications.mobilenet_v2.preprocess_input(raw.astype(np.float32))
    expected = outputs(original, preprocessed)
    assert expected.max() == pytest.approx(6)  # ReLU6 is reached: these are trained weights, not noise
    pixels, found = outputs(features, raw)
    # Keras divides before it subtracts, which rounds the last bit of a pixel another way.
    np.testing.assert_allclose(pixels, preprocessed, atol=1.2e-7)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), expected.mean(axis=(1, 2)), atol=1e-5)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-5
    network = keras.Model(ours.get_layer("stem_normalize").output, ours.get_layer("out_relu").output)
    np.testing.assert_array_equal(outputs(network, preprocessed), expected)
