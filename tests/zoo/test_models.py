"""`create`, the catalog and what they say at the door."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from zoo.models import catalog, settings, table
from zoo.models.catalog import ROWS, find_tag, info, list_models
from zoo.models.registry import create
from zoo.models.stages import stage_of, taps


def tiny(**arguments):
    return create("convnet", **{"classes": 3, "input_shape": (8, 8, 3), "filters": (4, 8), **arguments})


def test_listing_models_imports_nothing_heavy():
    code = (
        "import sys; from zoo.models.catalog import list_models, info; str(info(list_models()[0]));"
        "assert not {'keras', 'numpy', 'tensorflow', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_are_listed_by_pattern_family_and_weights():
    assert list_models("resnet?0") == ["resnet20", "resnet50"]
    assert list_models("*net*", family="inception", pretrained=False) == ["googlenet"]
    assert list_models("resnet1*", pretrained=True) == [
        "resnet18",
        "resnet101",
        "resnet152",
        "resnet101_v2",
        "resnet152_v2",
    ]
    assert list_models("mobilenet*", pretrained=False) == []


def test_an_unknown_family_is_an_error_that_lists_them():
    with pytest.raises(ValueError, match="No family is called 'transformer'. The families are applications, conv"):
        list_models(family="transformer")


def test_info_reads_well():
    text = str(info("mobilenet_v2"))
    assert "3,504,872 with 1000 classes" in text
    assert "keras/mobilenet_v2: top-1 71.3 % at 224 pixels, Apache-2.0" in text


def test_a_row_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        info("resnet20").parameters = 0


def test_two_rows_of_one_name_are_an_error():
    with pytest.raises(ValueError, match="Two rows of the catalog are called 'lenet5'"):
        catalog.by_name([*ROWS, ROWS[0]])


def test_best_weights_are_the_first_tag():
    assert find_tag("mobilenet_v2", "imagenet") == info("mobilenet_v2").weights[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet81"}, r"No model is called 'resnet81'. Did you mean 'resnet18'\?"),
        ({"name": "transformer"}, "No model is called 'transformer'. The models are 'lenet5', 'convnet'"),
        ({"classes": 1}, "`classes` must be at least 2. Received: classes=1"),
        (
            {"input_shape": (3, 32, 3)},
            r"Model 'resnet20' needs pictures of at least 4x4 pixels. Received: .*\(3, 32, 3\)",
        ),
        ({"input_shape": (32, 32, 2)}, "Pictures have 1, 3 or 4 channels. Received:"),
        ({"input_shape": (32, 32)}, r"`input_shape` must be \(height, width, channels\). Received:"),
        ({"shortcuts": "identity"}, r"no argument 'shortcuts'. Did you mean 'shortcut'\? It takes shortcut."),
        ({"depth": 26}, "Model 'resnet20' has no argument 'depth'. It takes shortcut."),
        ({"name": "lenet5", "filters": 3}, "Model 'lenet5' has no argument 'filters'. It takes none of its own."),
        ({"shortcut": "none"}, "`shortcut` must be one of"),
        ({"name": "resnet18", "stem": "large"}, "`stem` must be one of"),
        (
            {"weights": "imagenet"},
            "Model 'resnet20' has no weights called 'imagenet': it has no published weights here",
        ),
        (
            {"name": "mobilenet_v2", "weights": "keras/mobilenet"},
            r"Did you mean 'keras/mobilenet_v2'\? It has 'keras/mobilenet_v2'",
        ),
        ({"normalization": 5}, r"`normalization` must be \(mean, variance\)"),
        ({"normalization": ([1, 2], [1, 2])}, "Received: .* for 3 channels"),
        ({"normalization": (0, 0)}, "the variance above 0. Received: normalization="),
        ({"input_shape": 32}, r"`input_shape` must be \(height, width, channels\). Received: input_shape=32"),
        (
            {"name": "mobilenet_v2", "weights": "imagenet", "normalization": (0, 1)},
            "'keras/mobilenet_v2' bring their own normalisation",
        ),
        ({"name": "resnet18", "weights": "imagenet", "stem": "large"}, "`stem` must be one of"),
        (
            {"name": "vgg11", "input_shape": (None, None, 3)},
            "Fully connected layers need to know the size",
        ),
        ({"name": "alexnet", "input_shape": (None, 100, 3)}, "Received: a map of Nonex2 before them"),
        ({"l2": -1}, "`l2` must not be negative"),
        ({"name": "convnet", "padding": "full"}, "`padding` must be one of"),
        ({"name": "convnet", "pooling": "min"}, "`pooling` must be one of"),
        ({"name": "convnet", "filters": ()}, "`filters` must hold at least one"),
        (
            {"name": "convnet", "padding": "valid", "input_shape": (8, 8, 3)},
            "The picture has shrunk to 1x1 before 'stage2', which needs 2 pixels",
        ),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        create(**{"name": "resnet20", "classes": 10, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 5.0}, "`classes` must be an integer of at least 2. Received: classes=5.0"),
        ({"classes": "5"}, "Received: classes='5'"),
        ({"weights": 5}, "`weights` must be None, a tag, or the path of a file. Received: weights=5"),
    ],
)
def test_an_argument_of_another_type_is_named(arguments, message):
    with pytest.raises(TypeError, match=message):
        create(**{"name": "resnet20", "classes": 10, **arguments})


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="The zoo's networks have channels last"):
            tiny()
    finally:
        keras.config.set_image_data_format("channels_last")


def normalized(model, pixels):
    return keras.ops.convert_to_numpy(model.get_layer("stem_normalize")(np.float32(pixels)))


def test_pixels_become_minus_one_to_one_by_default():
    np.testing.assert_allclose(normalized(tiny(), [[[[0, 127.5, 255]]]]), [[[[-1, 0, 1]]]], atol=1e-6)


def test_normalization_takes_numbers_or_one_a_channel():
    assert normalized(tiny(normalization=(100, 25)), [[[[110, 90, 100]]]]).ravel() == pytest.approx([2, -2, 0])
    both = (np.array([1.0, 2, 3]), np.array([1.0, 4, 9]))
    assert normalized(tiny(normalization=both), [[[[2, 4, 6]]]]).ravel() == pytest.approx([1, 1, 1])


def test_pictures_are_normalised_in_float32_and_classified_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny(dropout=0.5)
    finally:
        keras.config.set_dtype_policy("float32")
    computes = {layer.name: layer.compute_dtype for layer in model.layers}
    assert computes["stem_normalize"] == computes["head_pool"] == computes["head_dense"] == "float32"
    assert computes["stem_conv"] == computes["stage1_conv"] == "bfloat16"
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    probe = keras.Model(model.input, model.get_layer("stem_normalize").output)
    np.testing.assert_allclose(probe(pixels), pixels / 127.5 - 1, atol=1e-6)
    assert model(pixels).dtype == "float32"


def test_dropout_stands_before_the_classifier_and_only_where_it_drops():
    assert [layer.name for layer in tiny(dropout=0.3).layers][-3:] == ["head_pool", "head_dropout", "head_dense"]
    assert tiny(dropout=0.3).get_layer("head_dropout").rate == 0.3
    assert "head_dropout" not in [layer.name for layer in tiny().layers]


def test_logits_are_had_without_an_activation():
    assert tiny(classifier_activation=None).get_layer("head_dense").activation is keras.activations.linear


@pytest.mark.parametrize("name", ["convnet", "mobilenet_v2"])
def test_l2_reaches_every_kernel_and_survives_saving(name, tmp_path):
    model = create(name, classes=3, input_shape=(32, 32, 3), l2=1e-3)
    model.save(tmp_path / "model.keras")
    for candidate in (model, keras.models.load_model(tmp_path / "model.keras")):
        kernels = [kernel for layer in candidate.layers for kernel, _ in settings.kernels(layer)]
        assert len(kernels) == len([v for v in candidate.trainable_variables if v.name == "kernel"])
        expected = 1e-3 * sum(float(keras.ops.sum(kernel**2)) for kernel in kernels)
        assert len(candidate.losses) == len(kernels)
        assert float(sum(candidate.losses)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("initializer", "gain"),
    [
        ("he_normal", lambda fan_in, fan_out: 2 / fan_in),
        ("glorot_uniform", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
    ],
)
def test_initialiser_reaches_every_kernel_with_the_fans_that_a_unit_sees(initializer, gain):
    keras.utils.set_random_seed(0)
    model = create("mobilenet_v2", classes=10, input_shape=(32, 32, 3), kernel_initializer=initializer)
    checked = 0
    for layer in model.layers:
        for kernel, kind in settings.kernels(layer):
            height, width, *channels = kernel.shape if len(kernel.shape) == 4 else (1, 1, *kernel.shape)
            fan_in, fan_out = (1, channels[1]) if kind == "depthwise" else channels
            values = keras.ops.convert_to_numpy(kernel)
            expected = gain(height * width * fan_in, height * width * fan_out)
            assert values.var() == pytest.approx(expected, rel=8 / np.sqrt(values.size)), layer.name
            checked += kind == "depthwise"
    assert checked == 17


def test_initialiser_is_in_the_config_of_every_layer(tmp_path):
    model = tiny(kernel_initializer="glorot_uniform")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for name in ("stem_conv", "stage1_conv", "head_dense"):
        assert isinstance(again.get_layer(name).kernel_initializer, keras.initializers.GlorotUniform)


@pytest.mark.parametrize(
    "initializer",
    [
        "he_normal",
        "glorot_normal",
        keras.initializers.HeUniform(),
        keras.initializers.HeNormal(seed=3),
        keras.initializers.HeNormal(seed=keras.random.SeedGenerator(3)),
    ],
)
def test_kernels_of_one_shape_start_differently(initializer):
    model = create("resnet20", classes=10, kernel_initializer=initializer)
    one, other = (model.get_layer(f"stage1_block1_{part}_conv").kernel.numpy() for part in "ab")
    assert not np.allclose(one, other)


@pytest.mark.parametrize("initializer", ["he_normal", "glorot_uniform"])
def test_one_seed_gives_one_model(initializer):
    def kernel(seed):
        keras.utils.set_random_seed(seed)
        return tiny(kernel_initializer=initializer).get_layer("stage1_conv").kernel.numpy()

    np.testing.assert_array_equal(kernel(5), kernel(5))
    assert not np.allclose(kernel(5), kernel(6))


def test_convnet_is_built_as_told():
    model = create(
        "convnet",
        classes=3,
        input_shape=(40, 40, 1),
        filters=(4, 6),
        kernel_size=5,
        stride=2,
        padding="valid",
        pooling="average",
        batch_norm=False,
        feature_dropout=0.25,
    )
    assert [layer.name for layer in model.layers if layer.name.startswith("stage1")] == [
        "stage1_pool",
        "stage1_conv",
        "stage1_act",
        "stage1_dropout",
    ]
    assert isinstance(model.get_layer("stage1_pool"), keras.layers.AveragePooling2D)
    assert model.get_layer("stem_conv").output.shape == (None, 18, 18, 4)
    assert model.get_layer("stage1_conv").output.shape == (None, 3, 3, 6)
    assert model.get_layer("stage1_conv").use_bias


def test_convnet_without_pooling_shrinks_by_its_strides():
    assert tiny(pooling=None, stride=2).get_layer("stage1_conv").output.shape == (None, 2, 2, 8)


def test_identity_shortcut_keeps_every_second_pixel_and_adds_zeros():
    model = create("resnet20", classes=10)
    block = keras.Model(
        model.get_layer("stage1_block3_out").output, model.get_layer("stage2_block1_shortcut_widen").output
    )
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 16)).astype(np.float32)
    expected = np.concatenate([x[:, ::2, ::2], np.zeros((2, 16, 16, 16), np.float32)], axis=-1)
    np.testing.assert_array_equal(block(x), expected)


def test_projection_shortcut_adds_its_parameters():
    plain, projected = create("resnet20", classes=10), create("resnet20", classes=10, shortcut="projection")
    count = [sum(int(np.prod(v.shape)) for v in model.trainable_variables) for model in (plain, projected)]
    assert count[1] - count[0] == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


def test_small_stem_keeps_the_picture():
    model = create("resnet18", classes=10, input_shape=(32, 32, 3), stem="small")
    assert model.get_layer("stage1_block2_out").output.shape == (None, 32, 32, 64)


def test_a_boundary_that_names_no_layer_is_an_error():
    model = create("resnet20", classes=3)
    impostor = keras.Model(model.input, model.output, name="mobilenet_v2")
    with pytest.raises(ValueError, match="boundaries of 'mobilenet_v2' name no layer of this model: .*'Conv1'"):
        stage_of(impostor)


def test_taps_give_the_map_that_each_stage_hands_on():
    model = create("resnet18", classes=3, input_shape=(64, 64, 3))
    maps = taps(model)
    assert list(maps) == ["stage1", "stage2", "stage3", "stage4"]
    assert [tensor.shape[1:] for tensor in maps.values()] == [(16, 16, 64), (8, 8, 128), (4, 4, 256), (2, 2, 512)]
    pyramid = keras.Model(model.input, maps)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    features = keras.ops.mean(pyramid(images)["stage4"], axis=(1, 2))
    np.testing.assert_allclose(model.get_layer("head_dense")(features), model(images), atol=1e-6)


@pytest.mark.parametrize(("name", "side"), [("alexnet", 6), ("mobilenet_v3_small", 7)])
def test_the_last_tap_is_a_map_where_hidden_layers_follow(name, side):
    last = list(taps(create(name, classes=3, input_shape=(224, 224, 3))).values())[-1]
    assert last.shape[1:3] == (side, side)


def test_taps_of_a_model_of_ones_own():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first")(image)
    x = keras.layers.Conv2D(5, 3, name="second")(x)
    model = keras.Model(image, keras.layers.Flatten()(x))
    assert taps(model, {"stage1": ["first"], "stage2": ["second"]})["stage2"].shape == (None, 4, 4, 5)
    with pytest.raises(ValueError, match=r"No layer of model .* belongs to a stage: none is called stage<k>_\*"):
        taps(model)


def test_the_page_of_models_is_what_the_catalog_says():
    page = Path(__file__).parents[2] / "docs" / "models.md"
    assert page.read_text(encoding="utf-8") == table.page(), "run `make docs`"


def test_the_hidden_layers_of_vgg_see_a_single_pixel_in_a_graph_as_outside_of_one():
    model = create("vgg11", classes=2, input_shape=(32, 64, 3))
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3), np.uint8)
    assert np.allclose(model.predict(images, verbose=0), model(images), atol=1e-6)
