"""Three kinds of head: what they compute, and what a file brings for them."""

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from zoo.models.heads import KINDS
from zoo.models.registry import create
from zoo.models.stages import stage_of

OTHERS = [(one, other) for one in KINDS for other in KINDS if one != other]
X = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)).astype("float32")


def tiny(head="linear", classes=3, filters=(4, 8), **arguments):
    return create("convnet", classes=classes, input_shape=(8, 8, 3), filters=filters, head=head, **arguments)


def values(model, start=""):
    return {v.path: keras.ops.convert_to_numpy(v) for v in model.weights if v.path.startswith(start)}


def filled(*arguments, **others):
    """A net whose every tensor differs from a fresh one's."""
    model, rng = tiny(*arguments, **others), np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1, weight.shape) for weight in model.get_weights()])
    return model


def head_layers(model):
    return [layer.name for layer in model.layers if layer.name.startswith("head_")]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("linear", ["head_pool", "head_dense"]),
        ("hidden", ["head_pool", "head_hidden", "head_dense"]),
        ("average+max", ["head_pool", "head_pool_max", "head_pool_both", "head_dense"]),
    ],
)
def test_layers_bear_the_names_of_the_contract(kind, expected):
    model = tiny(kind)
    assert sorted(head_layers(model)) == sorted(expected)
    assert {stage_of(model)[name] for name in expected} == {"head"}
    dropping = set(head_layers(tiny(kind, dropout=0.5))) - set(expected)
    assert dropping == {"head_dropout"} | ({"head_hidden_dropout"} if kind == "hidden" else set())


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_learns(kind):
    keras.utils.set_random_seed(0)
    model = tiny(kind, dropout=0.1, l2=1e-4)
    before = values(model, "head_")
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    model.fit(X, np.array([0, 1, 2, 0, 1, 2]), verbose=0)
    for path, value in values(model, "head_").items():
        assert np.any(value != before[path]), path
    np.testing.assert_allclose(model.predict(X, verbose=0).sum(axis=1), np.ones(6), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_computes_in_float32(kind):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny(kind, dropout=0.1)
    finally:
        keras.config.set_dtype_policy(before)
    assert {model.get_layer(name).compute_dtype for name in head_layers(model)} == {"float32"}
    assert model.get_layer("stage1_conv").compute_dtype == "bfloat16"
    assert model.output_shape == (None, 3)
    assert model(X).dtype in ("float32", np.float32)


def test_the_classifier_sees_average_and_largest_value_of_each_channel():
    model = tiny("average+max")
    found = keras.Model(model.input, [model.get_layer("head_pool").input, model.get_layer("head_pool_both").output])(X)
    last, both = (keras.ops.convert_to_numpy(tensor) for tensor in found)
    np.testing.assert_allclose(both, np.concatenate([last.mean(axis=(1, 2)), last.max(axis=(1, 2))], axis=1), rtol=1e-5)


def test_the_hidden_layer_is_as_wide_as_the_features_up_to_512():
    assert tiny("hidden").get_layer("head_hidden").kernel.shape == (8, 8)
    assert tiny("hidden", filters=(4, 600)).get_layer("head_hidden").kernel.shape == (600, 512)
    assert tiny("hidden").get_layer("head_hidden").activation is keras.activations.relu


def test_the_hidden_layer_is_as_wide_as_told():
    model = tiny("hidden", hidden_units=700)
    assert model.get_layer("head_hidden").kernel.shape == (8, 700)
    assert model.get_layer("head_dense").kernel.shape == (700, 3)
    for kind in ("linear", "average+max"):
        with pytest.raises(ValueError, match='`hidden_units` is the width of the head "hidden"'):
            tiny(kind, hidden_units=8)
    for units in (0, 2.5, True, "8"):
        with pytest.raises(ValueError, match="`hidden_units` must be a whole number of at least 1, or None"):
            tiny("hidden", hidden_units=units)


def test_kernels_of_every_head_are_drawn_and_held_small():
    keras.utils.set_random_seed(0)
    model = tiny("hidden", filters=(4, 400), l2=0.01)
    kernel = model.get_layer("head_hidden").kernel
    assert float(np.std(keras.ops.convert_to_numpy(kernel))) == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert model.get_layer("head_hidden").get_config()["kernel_initializer"]["class_name"] == "HeNormal"
    assert kernel.regularizer is not None


@pytest.mark.parametrize("kind", ["average", None, "max"])
def test_an_unknown_head_is_refused(kind):
    with pytest.raises(ValueError, match=f"`head` must be one of .'linear', 'hidden', 'average.max'.*head={kind!r}"):
        tiny(kind)


def test_average_and_largest_value_of_one_pixel_are_refused():
    with pytest.raises(ValueError, match='a map of one pixel.*"linear" or "hidden"'):
        tiny("average+max", filters=(4, 4, 4, 4))
    assert tiny("hidden", filters=(4, 4, 4, 4)).output_shape == (None, 3)
    model = create("convnet", classes=3, input_shape=(None, None, 3), head="average+max")
    assert model(X).shape == (6, 3)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_the_same_head_is_loaded_whole(kind, suffix, tmp_path):
    trained, path = filled(kind), tmp_path / f"trained{suffix}"
    (trained.save if suffix == ".keras" else trained.save_weights)(path)
    found = values(tiny(kind, weights=path))
    for name, expected in values(trained).items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


@pytest.mark.parametrize(("ours", "theirs"), OTHERS)
def test_a_head_of_another_kind_is_replaced(ours, theirs, tmp_path):
    trained, path = filled(theirs), tmp_path / "trained.weights.h5"
    trained.save_weights(path)
    for classes in (3, 5):
        model = tiny(ours, classes=classes, weights=path)
        for name in ("stem_conv", "stage1_conv", "stage1_bn"):
            for mine, other in zip(model.get_layer(name).weights, trained.get_layer(name).weights, strict=True):
                np.testing.assert_array_equal(keras.ops.convert_to_numpy(mine), keras.ops.convert_to_numpy(other))
        for path_of, value in values(model, "head_").items():
            assert np.any(value) == path_of.endswith("kernel"), path_of  # drawn; biases begin at 0


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize(("ours", "theirs"), [(5, 5), (5, 6), (None, 5), (5, None), (3, 8)])
def test_a_hidden_layer_is_loaded_where_it_is_as_wide_and_replaced_where_not(ours, theirs, suffix, tmp_path):
    trained, path = filled("hidden", hidden_units=theirs), tmp_path / f"trained{suffix}"
    (trained.save if suffix == ".keras" else trained.save_weights)(path)
    model = tiny("hidden", hidden_units=ours, weights=path)
    for name, expected in values(trained, "st").items():
        np.testing.assert_array_equal(values(model)[name], expected, err_msg=name)
    if ours == theirs:
        for name, expected in values(trained, "head_").items():
            np.testing.assert_array_equal(values(model)[name], expected, err_msg=name)
    else:
        for name, value in values(model, "head_").items():
            assert np.any(value) == name.endswith("kernel"), name  # drawn; biases begin at 0


@pytest.mark.parametrize("theirs", ["linear", "average+max"])
def test_a_hidden_layer_of_any_width_takes_the_place_of_another_head(theirs, tmp_path):
    path = tmp_path / "trained.weights.h5"
    filled(theirs).save_weights(path)
    model = tiny("hidden", hidden_units=16, weights=path)  # its head_dense has the inputs of "average+max"
    assert not np.any(keras.ops.convert_to_numpy(model.get_layer("head_dense").bias))
    filled("hidden", hidden_units=16).save_weights(path)
    model = tiny(theirs, weights=path)
    assert not np.any(keras.ops.convert_to_numpy(model.get_layer("head_dense").bias))


def test_a_head_whose_layers_do_not_fit_each_other_is_refused(tmp_path):
    path = tmp_path / "trained.weights.h5"
    net = tiny("hidden")
    pooled = net.get_layer("head_pool").output
    apart = [keras.layers.Dense(units, name=name)(pooled) for name, units in (("head_hidden", 5), ("head_dense", 3))]
    keras.Model(net.input, apart).save_weights(path)
    with pytest.raises(ValueError, match="layer 'head_hidden' needs"):
        tiny("hidden", hidden_units=7, weights=path)


def test_a_classifier_of_the_same_shape_under_another_head_is_not_taken(tmp_path):
    trained, path = filled("linear", filters=(4, 16)), tmp_path / "trained.weights.h5"
    trained.save_weights(path)
    model = tiny("hidden", filters=(4, 16), weights=path)  # its head_dense has 16 inputs, too
    assert not np.any(keras.ops.convert_to_numpy(model.get_layer("head_dense").bias))


def test_a_hidden_layer_is_kept_where_only_the_classes_differ(tmp_path):
    trained, path = filled("hidden"), tmp_path / "trained.weights.h5"
    trained.save_weights(path)
    model = tiny("hidden", classes=5, weights=path)
    for path_of, expected in values(trained, "head_hidden").items():
        np.testing.assert_array_equal(values(model)[path_of], expected)
    assert not np.any(keras.ops.convert_to_numpy(model.get_layer("head_dense").bias))


@pytest.mark.parametrize(("ours", "theirs"), OTHERS)
def test_a_file_of_another_network_is_refused_whatever_its_head(ours, theirs, tmp_path):
    path = tmp_path / "trained.weights.h5"
    filled(theirs, filters=(4, 8)).save_weights(path)
    with pytest.raises(ValueError, match="layer 'stage1_conv' needs"):
        tiny(ours, filters=(4, 6), weights=path)
    with pytest.raises(ValueError, match="the file's layer 'stage1_.*has no place"):
        tiny(ours, filters=(4,), weights=path)


@pytest.mark.parametrize(("kind", "classes"), [("hidden", 4), ("average+max", 2)])
def test_a_public_file_leaves_another_head_fresh(kind, classes, tmp_path):
    keras.utils.set_random_seed(1)
    size = {"input_shape": (64, 64, 3)}
    original = create("resnet18", classes=4, **size)
    path = tmp_path / "model.safetensors"
    save_file(in_torch(original), path)
    model = create("resnet18", classes=classes, head=kind, weights=path, **size)
    trunk = [variable.path for variable in original.weights if not variable.path.startswith("head_")]
    assert len(trunk) == len(original.weights) - 2
    found, expected = values(model), values(original)
    for name in trunk:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert not np.any(keras.ops.convert_to_numpy(model.get_layer("head_dense").bias))


def in_torch(model):
    """The weights of a ResNet as PyTorch holds them, with a classifier that is not zero anywhere."""
    from zoo.models.layouts.residual import resnet

    layers = [layer for layer in model.layers if layer.weights]
    prefixes, tensors = resnet([layer.name for layer in layers]), {}
    for layer in layers:
        norm = isinstance(layer, keras.layers.BatchNormalization)
        parts = ("weight", "bias", "running_mean", "running_var") if norm else ("weight", "bias")
        for part, value in zip(parts, layer.get_weights(), strict=False):
            turned = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim)
            tensors[f"{prefixes[layer.name]}.{part}"] = np.ascontiguousarray(
                value.transpose(turned) if turned else value
            )
    tensors["fc.bias"] = tensors["fc.bias"] + 1
    return tensors


@pytest.mark.parametrize("kind", ["hidden", "average+max"])
@pytest.mark.parametrize("top", [True, False])
def test_a_file_of_keras_applications_leaves_another_head_fresh(kind, top, tmp_path):
    keras.utils.set_random_seed(3)
    original = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), classes=4, include_top=top)
    original.save_weights(tmp_path / "original.weights.h5")
    model = create(
        "mobilenet_v2", classes=4, input_shape=(64, 64, 3), head=kind, weights=tmp_path / "original.weights.h5"
    )
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model.get_layer("Conv_1").kernel),
        keras.ops.convert_to_numpy(original.get_layer("Conv_1").kernel),
    )
    kernels = [value for path, value in values(model, "head_").items() if path.endswith("kernel")]
    assert len(kernels) == (2 if kind == "hidden" else 1)
    assert all(np.any(kernel) for kernel in kernels)
