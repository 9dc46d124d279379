import keras
import numpy as np
import pytest

import zoo
from zoo.models.stages import stages

# XLA compiles the parts otherwise than the whole
EXACT = 1e-6 if keras.backend.backend() == "tensorflow" else 1e-5
NAMES = ["convnet", "resnet18", "mobilenet_v2", "googlenet"]


def pictures(model, count=2):
    height, width, channels = (side or 64 for side in model.input_shape[1:])
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)


def ids(variables):
    return sorted(map(id, variables))


def small(name):
    side = max(zoo.info(name).smallest_size, 32)
    return zoo.create(name, classes=3, input_shape=(side, side, 3), dropout=0.2)


@pytest.mark.parametrize("name", [*NAMES[:3], pytest.param(NAMES[3], marks=[pytest.mark.slow, pytest.mark.long])])
def test_trunk_then_tail_is_the_model_and_the_tail_holds_all_that_trains(name):
    model = small(name)
    images = pictures(model)
    whole = model.predict(images, verbose=0)
    for amount in ("small", "medium", "large"):
        table = zoo.freeze(model, amount)
        trunk, tail = zoo.split_frozen(model)
        assert np.abs(tail.predict(trunk.predict(images, verbose=0), verbose=0) - whole).max() < EXACT
        assert ids(tail.trainable_variables) == ids(model.trainable_variables)
        assert not trunk.trainable_variables
        frozen = {row.stage for row in table.rows if not row.trains}
        held = [layer for stage, layers in stages(model).items() if stage in frozen for layer in layers]
        assert {layer.name for layer in held if layer.weights} <= {layer.name for layer in trunk.layers}


def test_pooling_behind_the_cut_makes_the_features_small():
    model = small("mobilenet_v2")
    zoo.freeze(model, "large")
    assert zoo.split_frozen(model)[0].output_shape == (None, 1280)
    zoo.freeze(model, "medium")
    assert zoo.split_frozen(model)[0].output_shape == (None, 2, 2, 96)


def branched(head):
    """A stem that two branches go out from, of which one takes a shortcut past the first trained layer."""
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, name="stem_scale")(image)
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem_conv")(x)
    a = keras.layers.Conv2D(4, 3, padding="same", name="stage1_a")(x)
    b = keras.layers.BatchNormalization(name="stage1_b")(x)
    y = keras.layers.Conv2D(4, 3, padding="same", name="stage2_conv")(a)
    y = keras.layers.Concatenate(name="stage2_join")([y, b, x])
    y = keras.layers.GlobalAveragePooling2D(name="head_pool")(y)
    return keras.Model(image, head(y), name="branched")


def dense(x):
    return keras.layers.Dense(2, activation="softmax", name="head_dense")(x)


def test_several_tensors_cross_the_cut():
    model = branched(dense)
    zoo.freeze(model, "medium")
    trunk, tail = zoo.split_frozen(model)
    images = pictures(model)
    crossing = trunk.predict(images, verbose=0)
    assert len(crossing) == len(trunk.outputs) == 3
    assert np.abs(np.asarray(tail(crossing)) - np.asarray(model(images))).max() < 1e-6


def test_training_the_tail_trains_the_model():
    model = branched(dense)
    zoo.freeze(model, "medium")
    trunk, tail = zoo.split_frozen(model)
    images, labels = pictures(model, 16), np.arange(16) % 2
    before = [weight.numpy() for weight in model.weights]
    tail.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    tail.fit(trunk.predict(images, verbose=0), labels, epochs=2, verbose=0)
    moved = {
        weight.path.split("/")[0]
        for weight, old in zip(model.weights, before, strict=True)
        if not np.array_equal(weight.numpy(), old)
    }
    assert moved == {"stage2_conv", "head_dense"}
    features = trunk.predict(images, verbose=0)
    assert np.abs(tail.predict(features, verbose=0) - model.predict(images, verbose=0)).max() < 1e-6


def test_a_sequential_model_frozen_by_hand_is_cut():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.ReLU(), keras.layers.Dense(2)])
    model.layers[0].trainable = False
    trunk, tail = zoo.split_frozen(model)
    x = np.ones((2, 4), "float32")
    assert trunk.output_shape == (None, 3)
    assert [type(layer).__name__ for layer in trunk.layers] == ["InputLayer", "Dense", "ReLU"]
    assert np.array_equal(tail(trunk(x)), model(x))


def test_a_frozen_layer_called_on_both_sides_of_the_cut_is_refused():
    image = keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    trained = keras.layers.Dense(4, name="trained")(shared(image))
    model = keras.Model(image, keras.layers.Add()([shared(trained), trained]))
    shared.trainable = False
    with pytest.raises(ValueError, match="behind 'trained'.* stand 'shared'"):
        zoo.split_frozen(model)


def test_frozen_layers_that_are_no_prefix_are_named():
    model = small("resnet20")
    zoo.freeze(model, "none")
    model.get_layer("stage2_block1_a_conv").trainable = False
    model.get_layer("stage3_block1_a_conv").trainable = False
    with pytest.raises(ValueError, match="'stem_conv'.*'stage2_block1_a_conv', 'stage3_block1_a_conv'"):
        zoo.split_frozen(model)


def test_dropout_and_batch_normalisation_that_still_act_stand_behind_the_cut():
    def network(between):
        layers = [keras.layers.Dense(3, name="a"), between, keras.layers.Dense(3, name="b"), keras.layers.Dense(2)]
        model = keras.Sequential([keras.Input((4,)), *layers])
        for layer in (layers[0], layers[2]):
            layer.trainable = False
        return model

    for between in (
        keras.layers.Dropout(0.5, name="between"),
        keras.layers.BatchNormalization(center=False, scale=False, name="between"),
        keras.layers.GaussianNoise(0.1, name="between"),
    ):
        with pytest.raises(ValueError, match="behind 'between'.* stand 'b'"):
            zoo.split_frozen(network(between))


def test_nothing_frozen_and_everything_frozen_are_refused():
    model = small("convnet")
    zoo.freeze(model, "none")
    with pytest.raises(ValueError, match="No layer of model 'convnet' is frozen"):
        zoo.split_frozen(model)
    zoo.freeze(model, "large")
    model.get_layer("head_dense").trainable = False
    model.get_layer("head_dropout").rate = 0.0
    with pytest.raises(ValueError, match="Every layer of model 'convnet' is frozen"):
        zoo.split_frozen(model)


def test_a_model_is_saved_as_before_after_it_was_cut(tmp_path):
    model = small("resnet20")
    zoo.freeze(model, "large")
    zoo.split_frozen(model)
    zoo.split_frozen(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    images = pictures(model)
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert np.array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))


def test_a_base_within_the_model_counts_by_its_layers():
    def network(*, freeze):
        base = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(3, name="b")], name="base"
        )
        for layer in base.layers[:freeze]:
            layer.trainable = False
        image = keras.Input((4,))
        return keras.Model(image, keras.layers.Dense(2, name="head")(base(image)), name="nested")

    trunk, tail = zoo.split_frozen(network(freeze=2))
    assert [layer.name for layer in trunk.layers][-1] == "base"
    assert len(tail.trainable_variables) == 2
    with pytest.raises(ValueError, match="'base' holds frozen layers, yet others"):
        zoo.split_frozen(network(freeze=1))


def test_the_parts_compute_in_the_precision_of_the_model():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = zoo.create("convnet", classes=2, input_shape=(8, 8, 3))
    finally:
        keras.config.set_dtype_policy(before)
    zoo.freeze(model, "medium")
    _, tail = zoo.split_frozen(model)
    tail.compile("adam", "sparse_categorical_crossentropy")
    assert isinstance(tail.optimizer, keras.optimizers.LossScaleOptimizer)
