"""A frozen stage stands still in a plain `fit`, and says so."""

import keras
import numpy as np
import pytest
from keras import layers

from zoo.models.registry import create
from zoo.models.stages import stage_of, stages
from zoo.transfer.freezing import freeze, original_rates, unfreeze

SHAPE = (8, 8, 3)


def convnet(**arguments):
    return create("convnet", classes=2, input_shape=SHAPE, filters=(4, 6, 8), **arguments)


def fit(model, epochs=1):
    rng = np.random.default_rng(0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(rng.uniform(0, 255, (32, *model.input_shape[1:])), rng.integers(0, 2, 32), epochs=epochs, verbose=0)


def snapshot(model):
    return {weight.path: weight.numpy() for weight in model.weights}


def moved(model, before):
    """Stages of which any weight or statistic has changed by a bit."""
    placed = stage_of(model)
    return {placed[path.split("/")[0]] for path, value in snapshot(model).items() if np.any(value != before[path])}


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("none", {"stem", "stage1", "stage2", "head"}),
        ("small", {"stage2", "head"}),
        ("medium", {"stage2", "head"}),
        ("large", {"head"}),
    ],
)
def test_frozen_stages_do_not_move_to_the_bit_in_a_fit(amount, expected):
    model = convnet()
    table = freeze(model, amount)
    before = snapshot(model)
    fit(model)
    assert moved(model, before) == expected == {row.stage for row in table.rows if row.trains}


def test_frozen_stages_of_an_application_do_not_move_to_the_bit():
    model = create("mobilenet_v2", classes=2, input_shape=(32, 32, 3))
    freeze(model, "medium")
    before = snapshot(model)
    fit(model)
    assert moved(model, before) == {"stage4", "head"}


def test_table_shows_stage_by_stage_what_trains():
    table = freeze(convnet(), "small")
    assert str(table).splitlines() == [
        "convnet, amount frozen: small",
        "stage   layers  parameters  trains",
        "----------------------------------",
        "stem         5         124      no",
        "stage1       4         240      no",
        "stage2       4         464     yes",
        "head         2          18     yes",
        "----------------------------------",
        "total       15         846     482",
    ]
    assert list(table.to_frame().columns) == ["stage", "layers", "parameters", "trains"]
    assert table.to_frame().parameters.sum() == table.parameters == 846


def test_freezing_again_starts_from_nothing_frozen():
    model = convnet(feature_dropout=0.5)
    freeze(model, "large")
    assert freeze(model, "small").training == 482
    assert [model.get_layer(f"{name}_dropout").rate for name in ("stem", "stage1", "stage2")] == [0, 0, 0.5]
    unfreeze(model)
    assert [model.get_layer(f"{name}_dropout").rate for name in ("stem", "stage1", "stage2")] == [0.5, 0.5, 0.5]
    assert all(layer.trainable for layer in model.layers)


def test_a_model_made_untrainable_as_a_whole_trains_what_the_table_says():
    model = convnet()
    model.trainable = False
    freeze(model, "large")
    assert {variable.path for variable in model.trainable_variables} == {"head_dense/kernel", "head_dense/bias"}


def noisy():
    """A net of one's own with every layer of chance that Keras has."""
    image = keras.Input(SHAPE, name="photo")
    x = layers.Conv2D(4, 3, name="stem_conv")(image)
    x = layers.SpatialDropout2D(0.5, name="stem_spatial")(x)
    x = layers.GaussianNoise(0.5, name="stem_noise")(x)
    x = layers.Conv2D(4, 3, name="stage1_conv")(x)
    x = layers.AlphaDropout(0.5, name="stage1_alpha")(x)
    x = layers.GaussianDropout(0.5, name="stage1_gaussian")(x)
    x = layers.Conv2D(4, 3, name="stage2_conv")(x)
    x = layers.Dropout(0.5, noise_shape=(None, 1, 1, 1), name="stage2_depth")(x)
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    return keras.Model(image, layers.Dense(2, activation="softmax", name="head_dense")(x), name="mine")


def in_training(model, stage, count=2):
    """What comes out of the last layer of `stage` while training."""
    features = keras.Model(model.input, stages(model)[stage][-1].output)
    x = np.random.default_rng(0).uniform(0, 1, (8, *model.input_shape[1:])).astype(np.float32)
    return [keras.ops.convert_to_numpy(features(x, training=True)) for _ in range(count)], features(x, training=False)


def test_chance_is_silent_in_frozen_stages_and_only_there():
    model = noisy()
    freeze(model, "medium")
    (first, second), inference = in_training(model, "stage1")
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, inference)
    (first, second), _ = in_training(model, "stage2")
    assert np.any(first != second)
    unfreeze(model)
    for stage in ("stem", "stage1"):
        (first, second), _ = in_training(model, stage)
        assert np.any(first != second)


def test_stochastic_depth_of_a_frozen_application_is_silent():
    model = create("efficientnetv2_b0", classes=2, input_shape=(32, 32, 3))
    (first, second), _ = in_training(model, "stage3")
    assert np.any(first != second)
    freeze(model, "medium")
    (first, second), inference = in_training(model, "stage3")
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, inference, atol=1e-5)


def test_frozen_model_is_saved_with_its_real_rates(tmp_path):
    model = noisy()
    freeze(model, "large")
    with original_rates(model):
        model.save(tmp_path / "model.keras")
    assert model.get_layer("stage2_depth").rate == 0
    again = keras.models.load_model(tmp_path / "model.keras")
    chance = {"stem_spatial", "stage1_alpha", "stage1_gaussian", "stage2_depth"}
    assert {name: again.get_layer(name).rate for name in chance} == dict.fromkeys(chance, 0.5)
    assert again.get_layer("stem_noise").stddev == 0.5
    x = np.ones((2, *SHAPE), np.float32)
    np.testing.assert_array_equal(again(x), model(x))


def test_rates_are_silent_again_after_a_failed_save():
    model = noisy()
    freeze(model, "large")
    with pytest.raises(OSError, match="no space"), original_rates(model):
        raise OSError("no space")
    assert model.get_layer("stage2_depth").rate == 0


def unnamed():
    image = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Activation("relu", name="act")(x)
    x = layers.Conv2D(4, 3, name="deeper")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(2, activation="softmax", name="out")(x), name="mine")


def test_layers_within_a_layer_freeze_and_thaw_with_it():
    body = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Dropout(0.5)], name="stem_body")
    image = keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D(name="head_pool")(body(image))
    model = keras.Model(image, layers.Dense(2, name="head_dense", activation="softmax")(x))
    freeze(model, "large")
    assert [layer.trainable for layer in body.layers] == [False, False, False]
    assert body.layers[-1].rate == 0
    unfreeze(model)
    assert [layer.trainable for layer in body.layers] == [True, True, True]
    assert body.layers[-1].rate == 0.5


def test_a_layer_outside_the_naming_contract_is_an_error():
    message = (
        r"Layer 'conv' of model 'mine' is outside the naming contract \(stem, stage<k>, head\), so `freeze` cannot "
        "place it. Rename it, or set `trainable` by hand."
    )
    with pytest.raises(ValueError, match=message):
        freeze(unnamed(), "large")


def test_a_model_of_ones_own_is_frozen_by_a_map_of_its_layers():
    model = unnamed()
    table = freeze(model, "medium", stages={"stem": ["conv", "norm"], "stage1": ["deeper"], "head": ["out"]})
    assert [row.stage for row in table.rows if not row.trains] == ["stem"]
    before = snapshot(model)
    fit(model)
    still = {path.split("/")[0] for path, value in snapshot(model).items() if np.array_equal(value, before[path])}
    assert still == {"conv", "norm"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stem": ["conv", "norm"], "head": ["out"]}, "Layer 'deeper' of model 'mine' is outside the naming contract"),
        ({"stem": ["conv2"]}, r"`stages` names 'conv2', which is no layer of model 'mine'. Did you mean 'conv'\?"),
        ({"body": ["conv"]}, "A stage is called stem, stage<k> or head. Received: 'body' in `stages`"),
        ({"stem": ["conv"], "head": ["conv"]}, "`stages` puts layer 'conv' into both 'stem' and 'head'"),
    ],
)
def test_a_map_that_does_not_fit_is_an_error(given, message):
    with pytest.raises(ValueError, match=message):
        freeze(unnamed(), "large", stages=given)


def test_an_error_changes_nothing():
    model = unnamed()
    with pytest.raises(ValueError, match="outside the naming contract"):
        freeze(model, "large")
    assert all(layer.trainable for layer in model.layers)


def test_an_unknown_amount_and_an_unbuilt_model_are_errors():
    with pytest.raises(ValueError, match="`amount` must be one of .* Received: amount='half'"):
        freeze(convnet(), "half")
    with pytest.raises(ValueError, match="Model 'raw' is not built yet"):
        freeze(keras.Sequential([layers.Dense(2, name="head_dense")], name="raw"), "large")
