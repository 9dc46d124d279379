"""What must hold for every row of the catalog, at the smallest picture that the row allows."""

from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo.models.catalog import CATALOG, info, list_models
from zoo.models.registry import create
from zoo.models.settings import kernels
from zoo.models.stages import stage_of, stages
from zoo.transfer.freezing import AMOUNTS, freeze, unfreeze

# Those of a builder that another row shows already: more blocks of resnet20, more layers of an application.
LONG = {"efficientnetv2_b0", "resnet32", "resnet44", "resnet56", "resnet110"}
EVERY = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in list_models()]
CLASSES = 3


def smallest_shape(name):
    row = info(name)
    return (row.smallest_size, row.smallest_size, row.channels)


@cache
def smallest(name):
    """One build a model for all tests; a test that changes it puts it back."""
    keras.utils.set_random_seed(1)
    return create(name, classes=CLASSES, input_shape=smallest_shape(name))


def pictures(name, count=4):
    return np.random.default_rng(0).integers(0, 256, (count, *smallest_shape(name)), dtype=np.uint8)


def outputs(model, images):
    """What the model gives, without the seconds that `predict` takes to trace a large graph."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(images, training=False))


@pytest.mark.parametrize("name", EVERY)
def test_output_is_a_float32_probability_for_each_class(name):
    output = outputs(smallest(name), pictures(name))
    assert output.shape == (4, CLASSES)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_uint8_and_float32_pictures_give_the_same_output(name):
    raw = pictures(name)
    model = smallest(name)
    np.testing.assert_array_equal(outputs(model, raw), outputs(model, raw.astype(np.float32)), strict=True)


@pytest.mark.parametrize("name", list_models())
def test_graph_is_flat_and_has_the_layers_that_all_share(name):
    model = smallest(name)
    assert model.name == name
    assert model.input.name == "image"
    assert model.layers[1].name == "stem_normalize"
    assert model.layers[-1].name == "head_dense"
    assert not [layer for layer in model.layers if isinstance(layer, (keras.Model, keras.layers.Lambda))]
    assert len(model.layers) == len(model.operations)  # no bare operation without a name of its own


@pytest.mark.parametrize("name", list_models())
def test_each_layer_has_the_stage_that_the_catalog_promises(name):
    model = smallest(name)
    groups = stages(model)
    assert tuple(groups) == info(name).stages
    assert stage_of(model).keys() == {layer.name for layer in model.layers}
    order = [list(groups).index(stage) for stage in stage_of(model).values()]
    assert order == sorted(order)


@pytest.mark.parametrize("name", EVERY)
def test_each_stage_after_the_first_halves_the_picture(name):
    row = info(name)
    model = create(name, classes=CLASSES, input_shape=(*[max(64, row.image_size)] * 2, row.channels))
    sides = [layers[-1].output.shape[1] for stage, layers in stages(model).items() if stage not in ("stem", "head")]
    for before, after in zip(sides, sides[1:], strict=False):
        # LeNet's convolutions lose their border besides
        assert after == -(-before // 2) or (name == "lenet5" and after < before / 2)


@pytest.mark.parametrize("name", EVERY)
def test_each_trainable_weight_gets_a_gradient(name):
    model = smallest(name)
    with tf.GradientTape() as tape:
        output = model(pictures(name, count=8), training=True)
        loss = -tf.reduce_mean(tf.math.log(output[:, 0] + 1e-7))
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
        assert np.any(gradient), variable.path


@pytest.mark.parametrize("name", EVERY)
def test_saved_model_file_gives_equal_outputs(name, tmp_path):
    model = smallest(name)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert stage_of(again) == stage_of(model)
    np.testing.assert_array_equal(outputs(model, pictures(name)), outputs(again, pictures(name)))


def multiply_adds(model):
    total = 0
    for layer in model.layers:
        for kernel, kind in kernels(layer):
            positions = int(np.prod(layer.output.shape[1:-1]))
            outputs = layer.output.shape[-1] // kernel.shape[-2] if kind == "depthwise" else 1
            total += positions * outputs * int(np.prod(kernel.shape))
    return total


@pytest.mark.parametrize("name", list_models())
def test_parameters_and_multiply_adds_are_those_of_the_catalog(name):
    row = info(name)
    model = create(name, classes=row.classes)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == row.parameters
    assert multiply_adds(model) == row.macs


# As printed in the papers, in millions, rounded as there; torchvision and keras.io give the others exactly.
PUBLISHED = {
    "lenet5": (0.06, None),  # LeCun et al. 1998, section II.B: 60,000
    "resnet20": (0.27, 41),  # He et al. 2015, table 6; multiply-adds of akamaster/pytorch_resnet_cifar10
    "resnet32": (0.46, 69),
    "resnet44": (0.66, 97),
    "resnet56": (0.85, 126),
    "resnet110": (1.7, 253),
    "resnet18": (11.69, 1800),  # torchvision: 11,689,512; He et al. 2015, table 1: 1.8e9
    "mobilenet_v2": (3.5, 300),  # Sandler et al. 2018, table 4: 300 M
    "efficientnetv2_b0": (7.1, 720),  # Tan and Le 2021, table 7: 7.1 M, 0.72 B
}


def test_catalog_agrees_with_published_figures():
    for name, (millions, multiply_adds) in PUBLISHED.items():
        row = info(name)
        digits = len(str(millions).split(".")[1])
        assert round(row.parameters / 1e6, digits) == millions, name
        assert multiply_adds is None or abs(row.macs / 1e6 - multiply_adds) <= 0.02 * multiply_adds, name
    assert CATALOG.keys() - PUBLISHED.keys() == {"convnet", "inception_small"}  # networks of our own


@pytest.mark.parametrize("name", EVERY)
def test_larger_amounts_freeze_more(name):
    model = smallest(name)
    training = []
    for amount in AMOUNTS:
        table = freeze(model, amount)
        training.append({variable.path for variable in model.trainable_variables})
        assert table.parameters == model.count_params()
    unfreeze(model)
    none, small, medium, large = training
    assert large <= medium <= small < none
    assert {path.split("/")[0].split("_")[0] for path in large} == {"head"}
    assert {variable.path for variable in model.trainable_variables} == none


@pytest.mark.parametrize("name", EVERY)
def test_channels_and_sides_other_than_the_default_work(name):
    size = info(name).smallest_size
    for shape in [(size, size + 9, 1), (size + 3, size, 4), (None, None, 3)]:
        model = create(name, classes=CLASSES, input_shape=shape)
        assert model.input_shape == (None, *shape)
