"""Public safetensors files: the last tensor has its place, and what does not fit is named as the file names it."""

import json
import pickle

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from zoo.models import weights as weight_files
from zoo.models.catalog import info
from zoo.models.checkpoints import _BATCH_NORM
from zoo.models.registry import create

SMALL = {"classes": 5, "input_shape": (32, 32, 3)}


@pytest.fixture(scope="module")
def resnet18():
    keras.utils.set_random_seed(1)
    model = create("resnet18", **SMALL)
    rng = np.random.default_rng(1)
    for variable in model.weights:
        if variable.name != "kernel":
            variable.assign(rng.uniform(0.5, 1, variable.shape))
    return model


@pytest.fixture(scope="module")
def published(resnet18, tmp_path_factory):
    """The file that PyTorch would have written of the same network, with its counters."""
    return written(resnet18, "resnet18", tmp_path_factory.mktemp("hub") / "model.safetensors")


def tensors_of(model, name):
    """The weights of a model of ours as PyTorch holds them."""
    module, function = info(name).layout.split(":")
    rules = __import__(module, fromlist=[function])
    layers = [layer for layer in model.layers if layer.weights]
    prefixes = getattr(rules, function)([layer.name for layer in layers])
    tensors = {}
    for layer in layers:
        prefix = prefixes[layer.name] if isinstance(prefixes[layer.name], str) else prefixes[layer.name][0]
        parts = _BATCH_NORM if isinstance(layer, keras.layers.BatchNormalization) else ("weight", "bias")
        for part, value in zip(parts, layer.get_weights(), strict=False):
            turned = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim)
            tensors[f"{prefix}.{part}"] = np.ascontiguousarray(value.transpose(turned) if turned else value)
        if parts == _BATCH_NORM:
            tensors[f"{prefix}.num_batches_tracked"] = np.array(7)
    return tensors


def written(model, name, path, **changes):
    """Writes the file; a change of None takes a tensor away."""
    tensors = {key: value for key, value in {**tensors_of(model, name), **changes}.items() if value is not None}
    save_file(tensors, path)
    return path


def assert_same_weights(one, other, but=()):
    for ours, theirs in zip(one.weights, other.weights, strict=True):
        if not ours.path.startswith(but):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)


def test_every_tensor_finds_its_layer(resnet18, published):
    model = create("resnet18", **SMALL, weights=published)
    assert_same_weights(model, resnet18)
    assert model.zoo_weights == str(published)
    assert create("resnet18", **SMALL, weights=str(published)).zoo_weights == str(published)


def test_the_classifier_is_replaced_where_the_number_of_classes_differs(resnet18, published):
    model = create("resnet18", classes=3, input_shape=(32, 32, 3), weights=published)
    assert model.output_shape == (None, 3)
    assert_same_weights(
        keras.Model(model.input, model.layers[-2].output), keras.Model(resnet18.input, resnet18.layers[-2].output)
    )


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_is_adapted_to_other_channels(resnet18, published, channels):
    model = create("resnet18", classes=5, input_shape=(32, 32, channels), weights=published)
    colour = resnet18.get_layer("stem_conv").kernel.numpy()
    expected = {1: colour.sum(axis=2, keepdims=True), 4: colour[:, :, [0, 1, 2, 0]] * 0.75}[channels]
    np.testing.assert_allclose(model.get_layer("stem_conv").kernel.numpy(), expected, rtol=1e-6)
    assert_same_weights(model, resnet18, but="stem_conv/")


def test_missing_left_over_and_misshapen_tensors_are_named(resnet18, tmp_path):
    cases = [
        (
            {"layer2.0.bn2.running_var": None},
            "tensor 'layer2.0.bn2.running_var' for layer 'stage2_block1_b_bn' is not in",
        ),
        ({"fc.weight": None, "fc.bias": None}, "tensor 'fc.weight' for layer 'head_dense' is not in the file"),
        (
            {"layer5.0.conv1.weight": np.zeros((2, 3))},
            r"the file's tensor 'layer5.0.conv1.weight', \(2, 3\), has no place",
        ),
        (
            {"layer1.0.conv1.weight": np.zeros((64, 64, 1, 1), np.float32)},
            r"'stage1_block1_a_conv' needs \[\(3, 3, 64, 64\)\], .* \[\(1, 1, 64, 64\)\] in 'layer1.0.conv1.weight'",
        ),
    ]
    for changes, message in cases:
        path = written(resnet18, "resnet18", tmp_path / "changed.safetensors", **changes)
        with pytest.raises(ValueError, match=f"do not fit model 'resnet18': .*{message}"):
            create("resnet18", **SMALL, weights=path)


def test_a_file_of_another_network_is_refused_with_its_tensors(published):
    with pytest.raises(ValueError, match="'layer1.2.conv1.weight' .* is not in the file.*and 77 more"):
        create("resnet34", **SMALL, weights=published)
    with pytest.raises(ValueError, match="do not fit model 'vgg11': tensor 'features.0.weight' for layer 'stem_conv1'"):
        create("vgg11", **SMALL, weights=published)


def test_nothing_is_loaded_where_one_tensor_does_not_fit(resnet18, published, tmp_path):
    path = written(
        resnet18, "resnet18", tmp_path / "changed.safetensors", **{"layer4.1.bn2.bias": np.zeros(3, np.float32)}
    )
    fresh = create("resnet18", **SMALL)
    before = fresh.get_weights()
    source = weight_files.find(info("resnet18"), path)
    assert source is not None
    with pytest.raises(ValueError, match=r"the file holds \[\(512,\), \(3,\), .* in 'layer4.1.bn2.bias'"):
        weight_files.load(fresh, source)
    for one, other in zip(before, fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_auxiliary_heads_are_known_and_left_out(tmp_path):
    keras.utils.set_random_seed(2)
    model = create("googlenet", **SMALL)
    extra = {"aux1.fc1.weight": np.zeros((2, 2), np.float32), "aux2.conv.bn.bias": np.zeros(2, np.float32)}
    path = written(model, "googlenet", tmp_path / "aux.safetensors", **extra)
    assert_same_weights(create("googlenet", **SMALL, weights=path), model)
    stray = {"aux3.fc1.weight": np.zeros((2, 2), np.float32)}
    with pytest.raises(ValueError, match=r"the file's tensor 'aux3.fc1.weight', \(2, 2\), has no place"):
        create("googlenet", **SMALL, weights=written(model, "googlenet", path, **extra, **stray))


def test_half_precision_files_are_read(resnet18, published, tmp_path):
    half = {key: value.astype(np.float16) if value.ndim else value for key, value in load_file(published).items()}
    save_file(half, tmp_path / "half.safetensors")
    model = create("resnet18", **SMALL, weights=tmp_path / "half.safetensors")
    np.testing.assert_allclose(
        model.get_layer("stem_conv").kernel.numpy(), resnet18.get_layer("stem_conv").kernel.numpy(), atol=1e-3
    )


def test_normalisation_comes_from_the_configuration_beside_the_file(published, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(published.read_bytes())
    assert create("resnet18", **SMALL, weights=path).get_layer("stem_normalize").input_mean == 127.5
    config = {
        "architecture": "resnet18",
        "pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    layer = create("resnet18", **SMALL, weights=path).get_layer("stem_normalize")
    np.testing.assert_allclose(layer.input_mean, [123.675, 116.28, 103.53])
    np.testing.assert_allclose(np.sqrt(layer.input_variance), [58.395, 57.12, 57.375])
    assert create("resnet18", **SMALL, weights=path, normalization=(0, 1)).get_layer("stem_normalize").input_mean == 0


def test_damaged_and_foreign_files_are_named(published, tmp_path):
    whole = published.read_bytes()
    path = tmp_path / "model.safetensors"
    for content in (whole[: len(whole) // 2], whole[:5], b"", b"<html>not found</html>" * 9):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is truncated or no safetensors file"):
            create("resnet18", **SMALL, weights=path)
    path.write_bytes(pickle.dumps({"conv1.weight": [1.0] * 99}))
    with pytest.raises(ValueError, match="is a pickle of PyTorch under the name of a safetensors file"):
        create("resnet18", **SMALL, weights=path)
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors' is not there: no such weight file"):
        create("resnet18", **SMALL, weights=tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("name", ["resnet18.pth", "weights.PKL", "pytorch_model.bin", "best.pth.tar"])
def test_pickles_are_refused_with_the_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({}))
    with pytest.raises(
        ValueError, match=r"can run any code .* safetensors.torch.save_file\(torch.load\('.*weights_only=True"
    ):
        create("resnet18", **SMALL, weights=tmp_path / name)


def test_models_without_public_safetensors_say_so(published):
    with pytest.raises(ValueError, match="no public safetensors files of 'resnet20'"):
        create("resnet20", classes=5, weights=published)


def test_unknown_tags_get_the_near_miss_and_the_list():
    with pytest.raises(ValueError, match=r"Did you mean 'timm/resnet18.tv_in1k'\? It has 'timm/resnet18.a1_in1k', "):
        create("resnet18", classes=5, weights="timm/resnet18.tv")
    with pytest.raises(
        ValueError, match="'alexnet' has no weights called 'imagenet': torchvision publishes .* pickle only"
    ):
        create("alexnet", classes=5, weights="imagenet")


def test_quantised_tensors_are_refused(resnet18, tmp_path):
    quantised = {"conv1.weight": np.ones((64, 3, 7, 7), np.int8)}
    path = written(resnet18, "resnet18", tmp_path / "quantised.safetensors", **quantised)
    with pytest.raises(ValueError, match="tensor 'conv1.weight' is of type I8"):
        create("resnet18", **SMALL, weights=path)


def test_a_stored_normalisation_that_does_not_fit_is_said_to_be_the_files(tmp_path):
    four = create("convnet", classes=3, input_shape=(8, 8, 4), normalization=([1, 2, 3, 4], [1, 1, 1, 1]))
    four.save(tmp_path / "four.keras")
    with pytest.raises(ValueError, match=r"four.keras' holds \(\[1.0, 2.0, 3.0, 4.0\], .*; give `normalization` for 3"):
        create("convnet", classes=3, input_shape=(8, 8, 3), weights=tmp_path / "four.keras")


def test_a_folder_is_no_weight_file(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(FileNotFoundError, match="x.safetensors' is a folder, not a weight file"):
        create("resnet18", **SMALL, weights=tmp_path / "x.safetensors")


@pytest.mark.slow
@pytest.mark.long
def test_fully_connected_layers_fit_whatever_the_size_of_the_picture(tmp_path):
    saved = create("vgg11", **SMALL)
    saved.save_weights(tmp_path / "vgg11.weights.h5")
    larger = create("vgg11", classes=5, input_shape=(256, 256, 3), weights=tmp_path / "vgg11.weights.h5")
    assert larger.get_layer("stage5_fc1").kernel.shape == (7, 7, 512, 4096)
    np.testing.assert_array_equal(
        larger.get_layer("stage5_fc1").kernel.numpy().reshape(-1, 4096), saved.get_layer("stage5_fc1").kernel.numpy()
    )
