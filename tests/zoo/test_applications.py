"""Networks of keras.applications: the same numbers as the originals, and our contract around them."""

import json
import os
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from zoo.models.applications import renumbered
from zoo.models.catalog import info, list_models
from zoo.models.registry import create
from zoo.models.settings import kernels

ROWS = list_models(family="applications")
SHORT = {"mobilenet", "mobilenet_v3_small", "efficientnetv2_b0"}  # small ones, a way of loading each
LONG = [pytest.mark.slow, pytest.mark.long]
EVERY = [name if name in SHORT else pytest.param(name, marks=LONG) for name in ROWS]
CLASSES = 7
AUTOMATIC = [name for name in ROWS if name.startswith(("densenet", "inception", "resnet", "xception"))]


def original(name, **arguments):
    """Keras' network of that name."""
    constructor = info(name).numbers.get("constructor") or name.title().replace("net", "Net").replace("_", "")
    return getattr(keras.applications, constructor)(**{"weights": None, **arguments})


def preprocess(name, pictures):
    """What Keras does to raw pictures in front of that network; the identity where the network does it itself."""
    module = name.removesuffix("_keras")
    for family in ("densenet", "efficientnetv2", "resnet"):
        if module.startswith(family):
            module = {"efficientnetv2": "efficientnet_v2", "resnet": "resnet_v2"}.get(family, family)
    module = "mobilenet_v3" if module.startswith("mobilenet_v3") else module
    return getattr(keras.applications, module).preprocess_input(pictures.astype(np.float32))


def side(name):
    return 128 if "inception" in name else max(64, info(name).smallest_size)


def photos(size):
    """Four crops of the two photographs that scikit-learn brings along, uint8."""
    corners = [(0, 0), (100, 300)]
    return np.stack([p[y : y + size, x : x + size] for p in load_sample_images().images for y, x in corners])


def outputs(model, images):
    """What the model gives, without the seconds that `predict` takes to trace a large graph."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(images, training=False))


def settle(model, pictures):
    """Weights as after some training: no scale is 1, no offset is 0, and signals neither die nor explode."""
    rng = np.random.default_rng(0)
    normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in model.layers:
        for variable in layer.weights:
            if variable.name in ("gamma", "beta", "bias"):
                low, high = (0.6, 1.0) if variable.name == "gamma" else (-0.1, 0.1)
                variable.assign(rng.uniform(low, high, variable.shape))
        for kernel, kind in kernels(layer):
            if kind == "depthwise":  # Keras starts these too small
                kernel.assign(rng.normal(0, np.sqrt(2 / np.prod(kernel.shape[:2])), kernel.shape))
    momentum = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0
    model(pictures, training=True)  # the moving statistics become those of these pictures
    for layer, value in zip(normalizations, momentum, strict=True):
        layer.momentum = value
        variance = layer.moving_variance.numpy()
        layer.moving_variance.assign(variance * rng.uniform(1, 1.4, variance.shape) + 0.1 * variance.mean())


def write_legacy(model, path, names=None):
    """The layout of the published `.h5` files: a group a layer, in the order of the network."""
    with h5py.File(path, "w") as file:
        listed = [(names or {}).get(layer.name, layer.name) for layer in model.layers]
        file.attrs["layer_names"] = [name.encode() for name in listed]
        for name, layer in zip(listed, model.layers, strict=True):
            group = file.create_group(name)
            keys = [f"{name}/{number}:0" for number in range(len(layer.weights))]
            group.attrs["weight_names"] = [key.encode() for key in keys]
            for key, weight in zip(keys, layer.weights, strict=True):
                group[key] = weight.numpy()


@cache
def smallest(name):
    size = info(name).smallest_size
    return create(name, classes=3, input_shape=(size, size, 3))


@pytest.mark.parametrize("name", EVERY)
def test_outputs_are_those_of_the_original(name, tmp_path):
    for _ in range(3):  # the original's automatic names go on from here, as in the files that another process wrote
        keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization(), keras.layers.SeparableConv2D(1, 1)
    keras.utils.set_random_seed(2)
    size = side(name)
    theirs = original(name, input_shape=(size, size, 3), classes=CLASSES, classifier_activation=None)
    raw = photos(size)
    settle(theirs, preprocess(name, raw))
    write_legacy(theirs, tmp_path / "original.h5")

    tag = info(name).weights[0]
    ours = create(
        name,
        classes=CLASSES,
        input_shape=(size, size, 3),
        weights=tmp_path / "original.h5",
        normalization=(tag.mean, np.square(tag.std)),
        classifier_activation=None,
    )
    assert ours.count_params() == theirs.count_params()
    ready = preprocess(name, raw)
    expected = outputs(theirs, ready)
    assert expected.std(axis=0).max() > 1e-3  # pictures do make a difference
    np.testing.assert_allclose(outputs(ours, raw), expected, rtol=0, atol=1e-5)
    if "include_preprocessing" not in info(name).numbers.get("options", {}) and not name.startswith("mobilenet_v3"):
        # Pixels may differ in the last bit, since Keras divides before it subtracts; nothing else does.
        network = keras.Model(ours.get_layer("stem_normalize").output, ours.output)
        rounding = 1e-6 if name == "mobilenet" else 0  # whose classifier is a convolution in Keras
        np.testing.assert_allclose(outputs(network, ready), expected, rtol=0, atol=rounding)


@pytest.mark.slow
@pytest.mark.long
def test_names_are_those_of_a_new_process():
    script = """
import json, sys, keras
for constructor in sys.argv[1:]:
    keras.backend.clear_session()
    model = getattr(keras.applications, constructor)(weights=None, include_top=False, input_shape=(96, 96, 3))
    print(json.dumps([layer.name for layer in model.layers[1:]]))
"""
    constructors = [info(name).numbers["constructor"] for name in AUTOMATIC]
    done = subprocess.run([sys.executable, "-c", script, *constructors], capture_output=True, text=True, check=True)
    for name, names in zip(AUTOMATIC, map(json.loads, done.stdout.splitlines()), strict=True):
        assert [layer.name for layer in smallest(name).layers[2:-2]] == names


def test_names_do_not_depend_on_what_was_built_before():
    def built():
        return create("xception", classes=3, input_shape=(71, 71, 3))

    number = keras.backend.get_uid("conv2d")
    names = [variable.path for variable in built().weights]
    assert {path.split("/")[0] for path in names} > {"conv2d", "conv2d_1", "conv2d_2", "conv2d_3"}
    assert [variable.path for variable in built().weights] == names
    assert keras.backend.get_uid("conv2d") == number + 1  # and what is built next is named as ever


def test_names_that_went_on_counting_can_be_put_right():
    keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()
    image = keras.Input((71, 71, 3), name="image")
    model = keras.applications.Xception(weights=None, include_top=False, input_tensor=image)
    again = renumbered(model)
    assert model.get_layer(index=12).name.startswith("conv2d_")
    assert [layer.name for layer in again.layers[1:]] == [layer.name for layer in smallest("xception").layers[2:-2]]
    again.set_weights(model.get_weights())
    both = [keras.Model(network.inputs[0], network.outputs[0]) for network in (again, model)]
    np.testing.assert_array_equal(*(outputs(network, photos(71)) for network in both))
    assert renumbered(again) is again


@pytest.fixture(scope="module")
def narrow():
    """A MobileNet of half the width: as many layers as the catalog's, of other shapes."""
    return keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), alpha=0.5, classes=CLASSES)


def test_layer_that_does_not_fit_is_named_in_a_file_that_goes_by_order(narrow, tmp_path):
    write_legacy(narrow, tmp_path / "file.h5", {layer.name: f"other/{layer.name}" for layer in narrow.layers})
    message = r"layer 'conv1' needs \[\(3, 3, 3, 32\)\], the file holds \[\(3, 3, 3, 16\)\] in '/other/conv1/"
    with pytest.raises(ValueError, match=message):
        create("mobilenet", classes=CLASSES, input_shape=(32, 32, 3), weights=tmp_path / "file.h5")


def test_file_without_classifier_goes_by_order_too(tmp_path):
    theirs = original("mobilenet", input_shape=(32, 32, 3), include_top=False)
    write_legacy(theirs, tmp_path / "file.h5", {layer.name: f"other/{layer.name}" for layer in theirs.layers})
    ours = create("mobilenet", classes=CLASSES, input_shape=(32, 32, 3), weights=tmp_path / "file.h5")
    for layer in theirs.layers:
        if layer.weights:
            for weight, value in zip(ours.get_layer(layer.name).weights, layer.weights, strict=True):
                np.testing.assert_array_equal(weight, value)
    assert np.std(ours.get_layer("head_dense").kernel) > 0


def test_classifier_for_other_classes_is_replaced_and_the_hidden_layer_kept(tmp_path):
    theirs = original("mobilenet_v3_small", input_shape=(32, 32, 3))
    write_legacy(theirs, tmp_path / "file.h5")
    ours = create("mobilenet_v3_small", classes=CLASSES, input_shape=(32, 32, 3), weights=tmp_path / "file.h5")
    np.testing.assert_array_equal(ours.get_layer("conv_2").kernel, theirs.get_layer("conv_2").kernel)
    assert ours.output_shape == (None, CLASSES)
    headless = original("mobilenet_v3_small", input_shape=(32, 32, 3), include_top=False)
    write_legacy(headless, tmp_path / "headless.h5")
    with pytest.raises(ValueError, match=r"layer 'conv_2' needs .*, and the file has no such layer"):
        create("mobilenet_v3_small", classes=CLASSES, input_shape=(32, 32, 3), weights=tmp_path / "headless.h5")


@pytest.mark.parametrize("name", EVERY)
def test_files_are_those_that_keras_fetches(name, monkeypatch):
    class Asked(Exception):
        pass

    def get_file(fname, origin, file_hash=None, **_):
        raise Asked(origin, file_hash)

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)

    def asked(include_top):
        with pytest.raises(Asked) as caught, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras says that it takes the weights for 224 pixels where none are given
            original(name, weights="imagenet", include_top=include_top)
        return caught.value.args

    file = info(name).weights[0].file
    with_classifier = file.classifier or (file.name, file.md5)
    assert asked(True) == (f"{file.url}/{with_classifier[0]}", with_classifier[1])
    if file.classifier:
        assert asked(False) == (f"{file.url}/{file.name}", file.md5)


def test_fresh_kernels_have_the_distribution_that_keras_draws():
    keras.utils.set_random_seed(5)
    layer = smallest("xception").get_layer("block14_sepconv2")
    drawn = layer.pointwise_kernel.numpy()
    theirs = np.asarray(keras.initializers.HeNormal()(drawn.shape))
    shares = np.linspace(0, 1, 51)
    apart = np.quantile(drawn, shares) - np.quantile(theirs, shares)
    assert np.abs(apart).max() < 0.02 * theirs.std()
    assert isinstance(layer.pointwise_initializer, keras.initializers.HeNormal)


@pytest.mark.slow
@pytest.mark.long
def test_saved_file_opens_without_the_zoo(tmp_path):
    names = ["inception_resnet_v2_keras", "mobilenet_v3_small", "efficientnetv2_b0"]
    for name in names:
        smallest(name).save(tmp_path / f"{name}.keras")
    script = """
import sys, keras
for path in sys.argv[1:]:
    print(len(keras.models.load_model(path).layers))
assert "zoo" not in sys.modules
"""
    paths = [str(tmp_path / f"{name}.keras") for name in names]
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert [int(line) for line in done.stdout.split()] == [len(smallest(name).layers) for name in names]


@pytest.mark.skipif("ZOO_WEIGHTS" not in os.environ, reason="ZOO_WEIGHTS names no folder with ImageNet weights")
def test_mobilenet_v2_with_real_weights_gives_the_features_of_the_original():
    path = Path(os.environ["ZOO_WEIGHTS"]) / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    original = keras.applications.MobileNetV2(weights=str(path), include_top=False, input_shape=(224, 224, 3))
    ours = create("mobilenet_v2", classes=2, weights=path)
    features = keras.Model(ours.input, [ours.get_layer("stem_normalize").output, ours.get_layer("out_relu").output])
    raw = photos(224)
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
