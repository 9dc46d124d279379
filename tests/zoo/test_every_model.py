"""What must hold for every row of the catalog, at the smallest picture that the row allows.

Runs on whichever backend Keras has: `make test-jax` runs it without TensorFlow.
"""

import gc
import inspect
import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

import keras
import numpy as np
import pytest

from zoo.models.catalog import CATALOG, info, list_models
from zoo.models.entries import ModelInfo
from zoo.models.registry import create
from zoo.models.settings import kernels
from zoo.models.stages import stage_of, stages
from zoo.transfer.freezing import AMOUNTS, freeze, unfreeze

BACKEND = keras.backend.backend()
CLASSES = 3

# The quickest of each builder; the other rows are for the long run.
SHORT = {
    "tensorflow": {
        *("lenet5", "convnet", "inception_small", "googlenet"),
        *("resnet20", "resnet18", "mobilenet_v2", "mobilenet_v3_small"),
    },
    "jax": {"convnet", "inception_small", "resnet20", "mobilenet"},  # compiling takes a minute a row on two cores
}[BACKEND]


@dataclass(frozen=True)
class Subject:
    """A row of the catalog and one build of it for all tests; a test that changes the model puts it back."""

    row: ModelInfo
    model: keras.Model

    @property
    def name(self):
        return self.row.name

    @cached_property
    def pictures(self):
        return pictures(8, self.model.input_shape[1:])


# One of each builder that the short run leaves out, but for the two largest, which take minutes.
SLOW = {"alexnet", "vgg11", "inception_v3", "resnet50", "resnetv2_50", "densenet121"}
LONG = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(
    scope="module",
    params=[
        name if name in SHORT else pytest.param(name, marks=pytest.mark.slow if name in SLOW else LONG)
        for name in list_models()
    ],
)
def subject(request):
    """The rows in turn: pytest runs all tests of a row before it asks for the next, so one model is held at a time."""
    row = info(request.param)
    keras.utils.set_random_seed(1)
    yield Subject(row, create(row.name, classes=CLASSES, input_shape=smallest_shape(row)))
    keras.backend.clear_session()
    gc.collect()  # layers and the model hold each other


def smallest_shape(row):
    return (row.smallest_size, row.smallest_size, row.channels)


def pictures(count, shape):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def outputs(model, images):
    """What the model gives, without the seconds that `predict` takes to trace a large graph."""
    return keras.ops.convert_to_numpy(model(images, training=False))


def test_output_is_a_float32_probability_for_each_class(subject):
    output = outputs(subject.model, subject.pictures)
    assert output.shape == (8, CLASSES)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output.sum(axis=1), 1, atol=1e-5)


def test_uint8_and_float32_pictures_give_the_same_output(subject):
    raw = subject.pictures
    np.testing.assert_array_equal(
        outputs(subject.model, raw), outputs(subject.model, raw.astype(np.float32)), strict=True
    )


def test_pictures_one_pixel_too_small_are_refused(subject):
    size, channels = subject.row.smallest_size, subject.row.channels
    for shape in [(size - 1, size, channels), (size, size - 1, channels)]:
        with pytest.raises(ValueError, match=f"at least {size}x{size} pixels"):
            create(subject.name, classes=CLASSES, input_shape=shape)


def test_graph_is_flat_and_has_the_layers_that_all_share(subject):
    model = subject.model
    assert model.name == subject.name
    assert model.input.name == "image"
    assert model.layers[1].name == "stem_normalize"
    assert model.layers[-1].name == "head_dense"
    assert not [layer for layer in model.layers if isinstance(layer, (keras.Model, keras.layers.Lambda))]
    assert len(model.layers) == len(model.operations)  # no bare operation without a name of its own


def test_each_layer_has_the_stage_that_the_catalog_promises(subject):
    groups = stages(subject.model)
    placed = stage_of(subject.model)
    assert tuple(groups) == subject.row.stages
    assert placed.keys() == {layer.name for layer in subject.model.layers}
    order = [list(groups).index(stage) for stage in placed.values()]
    assert order == sorted(order)


def inputs_of(layer):
    """The tensors that a layer of a functional model takes."""
    return [tensor for node in layer._inbound_nodes for tensor in node.input_tensors]


def crossings(model):
    """For each stage but the first: the tensors of earlier stages that it or a later stage takes."""
    names = list(stages(model))
    position = {layer: names.index(stage) for layer, stage in stage_of(model).items()}
    crossing = [set() for _ in names[1:]]
    for layer in model.layers:
        for tensor in inputs_of(layer):
            source, _, index = tensor._keras_history
            assert position[source.name] <= position[layer.name], f"{layer.name} takes input from a later stage"
            for k in range(position[source.name], position[layer.name]):
                crossing[k].add((source.name, index))
    return crossing


def test_one_tensor_crosses_from_each_stage_to_the_next(subject):
    for tensors in crossings(subject.model):
        assert len(tensors) == 1, tensors


@contextmanager
def statistics_of(model, images):
    """Batch normalisation has the statistics of `images`, with nothing dropped, inside the context."""
    silent = {keras.layers.BatchNormalization: "momentum", keras.layers.Dropout: "rate"}
    chosen = [(layer, word) for layer in model.layers for kind, word in silent.items() if isinstance(layer, kind)]
    settings = [(layer, word, getattr(layer, word)) for layer, word in chosen]
    before = [(variable, np.array(variable)) for variable in model.non_trainable_variables]
    try:
        for layer, word in chosen:
            setattr(layer, word, 0.0)
        model(images, training=True)
        yield
    finally:
        for layer, word, value in settings:
            setattr(layer, word, value)
        for variable, value in before:
            variable.assign(value)


def gradients(model, images, labels):
    """Of the mean cross-entropy, for each trainable variable: no operation of Keras gives them on every backend."""
    values = [variable.value for variable in model.trainable_variables]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            losses = keras.losses.sparse_categorical_crossentropy(labels, model(images, training=False))
            loss = keras.ops.mean(losses)
        found = tape.gradient(loss, values)
    else:
        import jax

        def mean_loss(values):
            constants = [variable.value for variable in model.non_trainable_variables]
            output, _ = model.stateless_call(values, constants, images, training=False)
            return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, output))

        found = jax.jit(jax.grad(mean_loss))(values)
    return [None if gradient is None else keras.ops.convert_to_numpy(gradient) for gradient in found]


def test_each_trainable_weight_gets_a_gradient(subject):
    """With constant statistics: in training, batch normalisation subtracts what the biases in front of it add.

    That reaches back over additions and convolutions to the betas of MobileNet's linear bottlenecks: their gradient in
    training is rounding noise, 1e-8 of the others, which says nothing of whether they are connected.
    """
    model = subject.model
    with statistics_of(model, subject.pictures):
        found = gradients(model, subject.pictures, np.arange(len(subject.pictures)) % CLASSES)
    sizes = {}
    for variable, gradient in zip(model.trainable_variables, found, strict=True):
        assert gradient is not None, variable.path
        sizes[variable.path] = np.abs(gradient).max()
    assert np.isfinite(list(sizes.values())).all(), sizes
    # The smallest seen in any network is 6e-3; what is only rounding stays below 1e-6.
    assert not {path: size for path, size in sizes.items() if size < 1e-4}


def constructor_numbers(layer):
    """What a layer keeps of the arguments of its constructor, by name."""
    words = inspect.signature(type(layer).__init__).parameters
    return {
        word: plain(getattr(layer, word)) for word in words if word not in ("self", "args") and hasattr(layer, word)
    }


def plain(value):
    """A value that compares by content: initialisers, policies and their like as the class and its configuration."""
    if hasattr(value, "get_config"):
        return type(value).__name__, plain(value.get_config())
    if isinstance(value, dict):
        return {word: plain(part) for word, part in value.items()}
    if isinstance(value, (list, tuple)):  # a file knows lists only
        return tuple(plain(part) for part in value)
    return np.asarray(value).tolist() if isinstance(value, np.ndarray) or keras.ops.is_tensor(value) else value


def test_saved_model_file_gives_the_same_layers_and_equal_outputs(subject, tmp_path):
    model = subject.model
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")  # from its config, in plain Keras
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert stage_of(again) == stage_of(model)
    for old, new in zip(model.layers, again.layers, strict=True):
        assert type(new) is type(old)
        assert constructor_numbers(new) == constructor_numbers(old), old.name
        assert [tensor._keras_history[0].name for tensor in inputs_of(new)] == [
            tensor._keras_history[0].name for tensor in inputs_of(old)
        ]
    np.testing.assert_array_equal(outputs(model, subject.pictures), outputs(again, subject.pictures))


def test_larger_amounts_freeze_more(subject):
    model = subject.model
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


def test_half_precision_trains_one_step_on_four_channels_and_unequal_sides(subject):
    size = subject.row.smallest_size
    shape = (size + 3, size + 9, 4)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = create(subject.name, classes=CLASSES, input_shape=shape)
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.compute_dtype for layer in stages(model)["head"] if layer.name in ("head_pool", "head_dense")} == {
        "float32"
    }
    assert "bfloat16" in {layer.compute_dtype for layer in model.layers}
    eager = BACKEND == "tensorflow"  # tracing takes longer than the step; JAX on the other hand compiles each operation
    model.compile(
        keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy", run_eagerly=eager, jit_compile=not eager
    )
    fresh = [(kernel, np.array(kernel)) for layer in model.layers for kernel, _ in kernels(layer)]
    loss = model.train_on_batch(pictures(8, shape), np.arange(8) % CLASSES)
    assert np.isfinite(loss).all()
    for kernel, value in fresh:
        moved = keras.ops.convert_to_numpy(kernel)
        assert np.isfinite(moved).all(), kernel.path
        assert np.any(moved != value), kernel.path
    assert model(pictures(2, shape), training=False).dtype == "float32"


def shapes_at(model, size):
    """Layer name -> shape of its output for one picture of that size, without computing it."""
    every = keras.Model(model.input, {layer.name: layer.output for layer in model.layers})
    picture = keras.KerasTensor((1, size, size, model.input_shape[-1]), name="image")
    return {name: tensor.shape for name, tensor in every.compute_output_spec(picture).items()}


FULLY_CONNECTED = {"zoo.models.conv:vgg", "zoo.models.conv:alexnet"}  # whose hidden layers have to know the size


def multiply_adds(layer, shape):
    """Of a layer whose output has that shape."""
    total = 0
    for kernel, kind in kernels(layer):
        outputs = shape[-1] // kernel.shape[-2] if kind == "depthwise" else 1
        total += int(np.prod(shape[1:-1])) * outputs * int(np.prod(kernel.shape))
    return total


def test_published_network_has_the_figures_of_the_catalog_and_halves_the_picture_in_each_stage(subject):
    """Read off a network for one channel and sides of any length, which shows that these work too."""
    row = subject.row
    sides = [row.image_size if row.builder in FULLY_CONNECTED else None] * 2
    model = create(row.name, classes=row.classes, input_shape=(*sides, 1))
    shapes = shapes_at(model, row.image_size)
    first = next(layer for layer in model.layers if kernels(layer))
    missing = row.channels - 1  # the first kernel sees one channel only
    parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert parameters + missing * int(np.prod(first.kernel.shape)) == row.parameters
    macs = sum(multiply_adds(layer, shapes[layer.name]) for layer in model.layers)
    assert macs + missing * multiply_adds(first, shapes[first.name]) == row.macs
    if row.name in KERAS_IO:
        statistics = [variable for variable in model.non_trainable_variables if "stem_normalize" not in variable.path]
        total = row.parameters + sum(int(np.prod(variable.shape)) for variable in statistics)
        assert round(total / 1e6, 1) == KERAS_IO[row.name]

    sides = {name: shape[1] for name, shape in shapes.items() if len(shape) == 4}
    for layers, tensors in list(zip(stages(model).values(), [None, *crossings(model)], strict=True))[2:-1]:
        ((source, _),) = tensors
        inside = [sides[layer.name] for layer in layers if layer.name in sides]
        shrunk = next(side for side in inside if side < sides[source])
        assert abs(shrunk - sides[source] / 2) <= 1, layers[0].name  # borders may be lost
        # A second halving would leave a quarter; a network that ends in fully connected layers leaves one pixel.
        assert inside[-1] > sides[source] / 3 or inside[-1] == 1, layers[0].name


# Trainable parameters, exactly or in millions as printed; multiply-adds in millions, None where none were found.
PUBLISHED = {
    "lenet5": (0.06, None),  # LeCun et al. 1998, section II.B: 60,000
    # He et al. 2015, table 6; multiply-adds of akamaster/pytorch_resnet_cifar10
    "resnet20": (0.27, 41),
    "resnet32": (0.46, 69),
    "resnet44": (0.66, 97),
    "resnet56": (0.85, 126),
    "resnet110": (1.7, 253),
    "wrn28_10": (36.5, 5200),  # Zagoruyko and Komodakis 2016
    # torchvision's documentation: num_params and GFLOPS, which count multiply-adds
    "alexnet": (61_100_840, 714),
    "vgg11": (132_863_336, 7_609),
    "vgg13": (133_047_848, 11_308),
    "vgg16": (138_357_544, 15_470),
    "vgg19": (143_667_240, 19_632),
    "vgg11_bn": (132_868_840, 7_609),
    "vgg13_bn": (133_053_736, 11_308),
    "vgg16_bn": (138_365_992, 15_470),
    "vgg19_bn": (143_678_248, 19_632),
    "googlenet": (6_624_904, 1_498),
    "resnet18": (11_689_512, 1_814),
    "resnet34": (21_797_672, 3_664),
    "resnet50": (25_557_032, 4_089),
    "resnet101": (44_549_160, 7_801),
    "resnet152": (60_192_808, 11_514),
    "resnext50_32x4d": (25_028_904, 4_230),
    "resnext101_32x8d": (88_791_336, 16_414),
    "wide_resnet50_2": (68_883_240, 11_398),
    "wide_resnet101_2": (126_886_696, 22_753),
    "mobilenet_v2": (3_504_872, 301),
    "mobilenet_v3_small": (2_542_856, 57),
    "mobilenet_v3_large": (5_483_032, 217),
    "densenet121": (7_978_856, 2_834),
    "densenet169": (14_149_480, 3_360),
    "densenet201": (20_013_928, 4_291),
    "efficientnetv2_s": (21_458_488, 8_366),
    "efficientnetv2_m": (54_139_356, 24_582),
    "efficientnetv2_l": (118_515_272, 56_080),
    # timm's model cards; torchvision counts inception_v3's auxiliary classifier too, its multiply-adds are 5,713 M
    "inception_v3": (23.8, 5_713),
    "inception_v3_keras": (23.8, 5_713),
    "inception_v4": (42.7, 12_300),
    "inception_resnet_v2": (55.8, 13_200),
    "inception_resnet_v2_keras": (55.8, 13_200),
    "resnetv2_50": (25.5, 4_100),
    "mobilenet": (4.2, 569),  # Howard et al. 2017, table 6
    "xception": (22_855_952, None),  # Chollet 2017, table 3
    "efficientnetv2_b0": (7.1, 720),  # Tan and Le 2021, table 7: 7.1 M, 0.72 B
    # Only keras.io prints these, with the statistics of batch normalisation: KERAS_IO
    "efficientnetv2_b1": (None, None),
    "efficientnetv2_b2": (None, None),
    "efficientnetv2_b3": (None, None),
    "resnet50_v2": (None, None),
    "resnet101_v2": (None, None),
    "resnet152_v2": (None, None),
}
OWN = {"convnet", "inception_small"}

# https://keras.io/api/applications: parameters in millions, the statistics of batch normalisation included.
KERAS_IO = {
    "mobilenet": 4.3,
    "mobilenet_v2": 3.5,
    "efficientnetv2_b0": 7.2,
    "efficientnetv2_b1": 8.2,
    "efficientnetv2_b2": 10.2,
    "efficientnetv2_b3": 14.5,
    "efficientnetv2_s": 21.6,
    "efficientnetv2_m": 54.4,
    "efficientnetv2_l": 119.0,
    "densenet121": 8.1,
    "densenet169": 14.3,
    "densenet201": 20.2,
    "resnet50_v2": 25.6,
    "resnet101_v2": 44.7,
    "resnet152_v2": 60.4,
    "inception_v3_keras": 23.9,
    "inception_resnet_v2_keras": 55.9,
    "xception": 22.9,
}


@pytest.mark.parametrize("row", CATALOG.values(), ids=CATALOG)
def test_catalog_agrees_with_published_figures(row):
    if row.name in OWN:
        return
    parameters, macs = PUBLISHED[row.name]
    if parameters is None:
        assert row.name in KERAS_IO  # compared where the model is built
    elif isinstance(parameters, int):
        assert row.parameters == parameters
    else:
        assert round(row.parameters / 1e6, len(str(parameters).split(".")[1])) == parameters
    assert macs is None or abs(row.macs / 1e6 - macs) <= 0.02 * macs


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow is the backend here")
def test_tensorflow_is_not_needed():
    assert os.environ.get("KERAS_BACKEND") == BACKEND
    assert find_spec("tensorflow") is None
