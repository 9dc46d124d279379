"""Weight files: every tensor has a place, and what does not fit is named."""

import hashlib
import os
import socket
import urllib.request
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from zoo.models.catalog import info
from zoo.models.fetch import keras_file
from zoo.models.registry import create
from zoo.models.weights import adapt_channels

FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
needs_weights = pytest.mark.skipif(
    "ZOO_WEIGHTS" not in os.environ, reason="ZOO_WEIGHTS names no folder with ImageNet weights"
)


def tiny(classes=3, channels=3, **arguments):
    return create("convnet", classes=classes, input_shape=(8, 8, channels), **{"filters": (4, 8), **arguments})


def values(model):
    return {variable.path: variable.numpy() for variable in model.weights}


@pytest.fixture
def trained():
    """A small net whose every tensor differs from a fresh one's."""
    model = tiny(dropout=0.1)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1, weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of Keras."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "models").mkdir(parents=True)
    return tmp_path / "home" / "models"


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError(socket.gaierror("Name or service not known"))

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_every_tensor_of_a_file_is_loaded(trained, suffix, tmp_path):
    path = tmp_path / f"trained{suffix}"
    trained.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    x, y = np.zeros((4, 8, 8, 3)), np.eye(3)[[0, 1, 2, 0]]
    trained.fit(x, y, verbose=0)  # the file also holds the state of an optimizer and of a random generator
    (trained.save if suffix == ".keras" else trained.save_weights)(path)
    model = tiny(weights=path)
    for (name, expected), found in zip(values(trained).items(), values(model).values(), strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=name)
    assert model.zoo_weights == str(path)
    assert tiny().zoo_weights is None


def test_head_is_replaced_where_the_classes_differ(trained, tmp_path):
    path = str(tmp_path / "trained.weights.h5")
    trained.save_weights(path)
    model = tiny(classes=5, weights=path)
    np.testing.assert_array_equal(
        model.get_layer("stage1_conv").kernel.numpy(), trained.get_layer("stage1_conv").kernel.numpy()
    )
    assert model.get_layer("head_dense").kernel.numpy().std() > 0
    assert not np.any(model.get_layer("head_dense").bias.numpy())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"filters": (4, 9)},
            r"fit model 'convnet': layer 'stage1_conv' needs \[\(3, 3, 4, 9\)\], the file holds \[\(3, 3, 4, 8\)\]",
        ),
        (
            {"filters": (4, 8, 8)},
            r"layer 'stage2_conv' needs \[\(3, 3, 8, 8\)\], and the file has no such layer; layer 'stage2_bn'",
        ),
        ({"filters": (4,)}, r"layer 'head_dense' needs .*layer 'stage1_conv', \[\(3, 3, 4, 8\)\], has no place"),
        ({"batch_norm": False}, r"needs \[\(3, 3, 3, 4\), \(4,\)\], the file holds \[\(3, 3, 3, 4\)\]; .*; and 1 more"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(trained, other, message, tmp_path):
    path = tmp_path / "trained.weights.h5"
    trained.save_weights(path)
    with pytest.raises(ValueError, match=message):
        tiny(weights=path, **other)


@pytest.mark.parametrize("channels", [1, 4])
def test_first_convolution_is_adapted_to_other_channels(trained, channels, tmp_path):
    path = tmp_path / "trained.keras"
    trained.save(path)
    model = tiny(channels=channels, weights=path)
    kernel, colour = (m.get_layer("stem_conv").kernel.numpy() for m in (model, trained))
    assert kernel.shape == (3, 3, channels, 4)
    assert kernel.sum() == pytest.approx(colour.sum(), rel=0.02)
    np.testing.assert_array_equal(
        model.get_layer("stage1_conv").kernel.numpy(), trained.get_layer("stage1_conv").kernel
    )


def test_kernels_are_summed_for_one_channel_and_repeated_for_four():
    kernel = np.arange(6, dtype=np.float32).reshape(1, 1, 3, 2)
    np.testing.assert_array_equal(adapt_channels(kernel, 1), [[[[6, 9]]]])
    np.testing.assert_array_equal(adapt_channels(kernel, 4), 0.75 * kernel[:, :, [0, 1, 2, 0]])


def test_a_grey_picture_gives_what_its_colour_copy_gives(trained, tmp_path):
    path = tmp_path / "trained.keras"
    trained.save(path)
    grey = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1))
    np.testing.assert_allclose(tiny(channels=1, weights=path)(grey), trained(np.repeat(grey, 3, axis=-1)), atol=1e-5)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="'nowhere.weights.h5' is not there: no such weight file"):
        tiny(weights="nowhere.weights.h5")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.pth", "'.*model.pth' looks like a pickle, which can run any code"),
        ("model.safetensors", "There are no public safetensors files of 'convnet'"),
        ("model.npz", "Weights can be read from .weights.h5, .h5, .keras, .safetensors files. Received: .*model.npz"),
    ],
)
def test_files_that_cannot_be_read_are_refused(name, message, tmp_path):
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match=message):
        tiny(weights=tmp_path / name)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_a_truncated_file_is_an_error_that_says_so(trained, suffix, tmp_path):
    path = tmp_path / f"trained{suffix}"
    (trained.save if suffix == ".keras" else trained.save_weights)(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=f"trained{suffix}' is truncated or not what its name says .* Delete it"):
        tiny(weights=path)


def test_an_archive_without_weights_is_an_error(tmp_path):
    path = tmp_path / "empty.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match="empty.keras' is truncated or not what its name says"):
        tiny(weights=path)


def test_a_tensor_kept_in_another_file_is_not_read(trained, tmp_path):
    path, secret = tmp_path / "trained.weights.h5", tmp_path / "secret"
    trained.save_weights(path)
    secret.write_bytes(bytes(16))
    with h5py.File(path, "a") as file:
        bias = file["layers/dense/vars"]
        del bias["1"]
        bias.create_dataset("1", (3,), "float32", external=[(str(secret), 0, 12)])
    with pytest.raises(ValueError, match="'/layers/dense/vars/1' in .* is not stored in the file itself"):
        tiny(weights=path)


@pytest.mark.usefixtures("offline")
def test_missing_published_weights_say_what_to_do(cache):
    message = (
        f"The weights 'keras/mobilenet_v2' need the file '{FILE}', which is not in '{cache}' and could not be fetched "
        r"from https://.*\(.*Name or service not known.*\). Copy it there, pass another file \(`weights=PATH`\), or "
        r"start from fresh weights \(`weights=None`\)."
    )
    with pytest.raises(FileNotFoundError, match=message):
        create("mobilenet_v2", classes=2, weights="imagenet")
    assert not list(cache.iterdir())


def test_a_published_file_takes_its_name_when_it_is_whole(cache, tmp_path):
    content, tag = published(tmp_path), info("mobilenet_v2").weights[0]
    for _ in range(2):
        path = keras_file(tag, tmp_path.as_uri(), "features.h5", hashlib.md5(content).hexdigest())
        assert path == cache / "features.h5"
        assert path.read_bytes() == content
        assert [path.name for path in cache.iterdir()] == ["features.h5"]
        (tmp_path / "features.h5").unlink(missing_ok=True)  # the second time it comes from the cache


def published(folder):
    """Puts a small HDF5 file where it is fetched from; returns its bytes."""
    with h5py.File(folder / "features.h5", "w") as file:
        file["kernel"] = np.arange(2000.0)
    return (folder / "features.h5").read_bytes()


def test_a_published_file_that_is_cut_short_is_fetched_again(cache, tmp_path):
    content, tag = published(tmp_path), info("mobilenet_v2").weights[0]
    (cache / "features.h5").write_bytes(content[:-100])
    path = keras_file(tag, tmp_path.as_uri(), "features.h5", None)
    assert path.read_bytes() == content
    path.write_bytes(content[:-100])
    (tmp_path / "features.h5").unlink()
    with pytest.raises(FileNotFoundError, match="'features.h5', which is truncated in .* could not be fetched"):
        keras_file(tag, tmp_path.as_uri(), "features.h5", None)


def test_a_published_file_with_another_checksum_is_refused(cache, tmp_path):
    (tmp_path / "features.h5").write_bytes(b"something else")
    with pytest.raises(FileNotFoundError, match="'features.h5', which is not in .*Incomplete or corrupted file"):
        keras_file(info("mobilenet_v2").weights[0], tmp_path.as_uri(), "features.h5", "0" * 32)
    assert not list(cache.iterdir())


@needs_weights
@pytest.mark.usefixtures("offline")
class TestRealWeights:
    @pytest.fixture(autouse=True)
    def stock(self, cache):
        os.symlink(Path(os.environ["ZOO_WEIGHTS"]) / FILE, cache / FILE)

    @pytest.mark.parametrize("tag", ["imagenet", "keras/mobilenet_v2"])
    def test_tag_loads_every_feature_layer(self, tag, cache):
        model = create("mobilenet_v2", classes=2, input_shape=(96, 96, 3), weights=tag)
        assert model.zoo_weights == "keras/mobilenet_v2"
        loaded = 0
        with h5py.File(cache / FILE) as file:
            for name in file.attrs["layer_names"]:
                for key, weight in (
                    zip(file[name].attrs["weight_names"], model.get_layer(name).weights, strict=True)
                    if (name != "input_layer")
                    else ()
                ):
                    np.testing.assert_array_equal(weight.numpy(), file[name][key])
                    loaded += 1
        assert loaded == len(model.weights) - 2  # kernel and bias of the new head

    def test_features_serve_under_a_new_classifier_where_the_published_one_is_missing(self):
        with pytest.warns(UserWarning, match="The features of '.*_no_top.h5' are used, under a new classifier"):
            create("mobilenet_v2", classes=1000, input_shape=(32, 32, 3), weights="imagenet")

    @pytest.mark.parametrize("channels", [1, 4])
    def test_other_channels_get_the_statistics_of_the_colours(self, channels):
        model = create("mobilenet_v2", classes=2, input_shape=(32, 32, channels), weights="imagenet")
        assert model.get_layer("Conv1").kernel.shape == (3, 3, channels, 32)
        pixels = np.full((1, 32, 32, channels), 255, np.float32)
        np.testing.assert_allclose(model.get_layer("stem_normalize")(pixels), np.ones_like(pixels), atol=1e-6)

    def test_a_normalisation_of_ones_own_is_refused(self):
        with pytest.raises(ValueError, match="'keras/mobilenet_v2' bring their own normalisation; leave"):
            create("mobilenet_v2", classes=2, weights="imagenet", normalization=(0, 1))

    def test_weights_of_another_model_are_refused(self, cache):
        with pytest.raises(ValueError, match="do not fit model 'efficientnetv2_b0': layer 'stem_conv' needs"):
            create("efficientnetv2_b0", classes=2, input_shape=(32, 32, 3), weights=cache / FILE)

    def test_a_truncated_file_in_the_cache_is_an_error(self, cache):
        content = (cache / FILE).read_bytes()
        (cache / FILE).unlink()
        (cache / FILE).write_bytes(content[: len(content) // 2])
        with pytest.raises(FileNotFoundError, match=f"{FILE}', which is truncated in .* could not be fetched"):
            create("mobilenet_v2", classes=2, input_shape=(32, 32, 3), weights="imagenet")


def test_a_file_with_a_classifier_brings_it_along(tmp_path):
    keras.utils.set_random_seed(3)
    original = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=4)
    legacy = tmp_path / "with_top.h5"
    with h5py.File(legacy, "w") as file:  # the layout of the published files
        file.attrs["layer_names"] = [layer.name.encode() for layer in original.layers]
        for layer in original.layers:
            group = file.create_group(layer.name)
            keys = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [key.encode() for key in keys]
            for key, weight in zip(keys, layer.weights, strict=True):
                group[key] = weight.numpy()
    ours = create("mobilenet_v2", classes=4, input_shape=(32, 32, 3), weights=legacy)
    np.testing.assert_array_equal(
        ours.get_layer("head_dense").kernel.numpy(), original.get_layer("predictions").kernel.numpy()
    )
