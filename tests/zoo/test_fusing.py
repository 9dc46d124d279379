"""The trunk as it runs in a pass gives what the trunk gives; on every backend."""

import keras
import numpy as np
import pytest
from keras import layers

import augment
import zoo
from zoo.transfer.fusing import Fused


def stirred(model, seed=0):
    """Batch normalisation as after training: no statistic is 0 or 1 any more."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


def pictures(model, count=3):
    height, width, channels = (side or 40 for side in model.input_shape[1:])
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)


def agree(model, fused, images):
    expected = keras.tree.flatten(model.predict(images, verbose=0))
    found = keras.tree.flatten(fused.predict_on_batch(images))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() <= 2e-5 * np.abs(other).max()


@pytest.mark.parametrize(
    ("name", "amount", "folded"),
    [("mobilenet_v2", "large", 52), ("resnet20", "medium", 13), ("convnet", "large", 3), ("inception_v3", "small", 23)],
)
def test_a_fused_trunk_gives_what_the_trunk_gives(name, amount, folded):
    row = zoo.info(name)
    side = max(row.smallest_size, 32)
    model = stirred(zoo.create(name, classes=3, input_shape=(side, side, 3)))
    zoo.freeze(model, amount)
    trunk, _ = zoo.split_frozen(model)
    fused = Fused(trunk)
    assert len(fused.replaced) == 2 * folded
    agree(trunk, fused, pictures(model))


def convolution(filters=4, **given):
    return layers.Conv2D(filters, 3, padding="same", **given)


def small(build):
    image = keras.Input((9, 10, 3))
    return stirred(keras.Model(image, build(image)))


CASES = {
    "with a bias": (1, lambda x: layers.BatchNormalization()(convolution()(x))),
    "without scale": (1, lambda x: layers.BatchNormalization(scale=False)(convolution(use_bias=False)(x))),
    "without centre": (1, lambda x: layers.BatchNormalization(center=False)(convolution(use_bias=False)(x))),
    "several filters a channel": (
        1,
        lambda x: layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=2, dilation_rate=2)(x)),
    ),
    "in groups": (1, lambda x: layers.BatchNormalization()(convolution(6, groups=2, strides=2)(convolution(4)(x)))),
    "an activation between": (0, lambda x: layers.BatchNormalization()(convolution(activation="relu")(x))),
    "along rows": (0, lambda x: layers.BatchNormalization(axis=1)(convolution()(x))),
}


@pytest.mark.parametrize("case", CASES)
def test_only_what_can_be_folded_is_folded(case):
    folded, build = CASES[case]
    model = small(build)
    fused = Fused(model)
    assert len(fused.replaced) == 2 * folded
    agree(model, fused, pictures(model))


def test_a_convolution_that_others_see_too_is_left_as_it_is():
    def shared_output(x):
        y = convolution(3)(x)
        return layers.Add()([layers.BatchNormalization()(y), y])

    def end(x):
        y = convolution(3)(x)
        return [layers.BatchNormalization()(y), y]

    def called_twice(x):
        both, after = convolution(3), layers.BatchNormalization()
        return after(both(both(x)))

    for build in (shared_output, end, called_twice):
        model = small(build)
        fused = Fused(model)
        assert not fused.replaced
        agree(model, fused, pictures(model))


def test_a_model_within_the_model_runs_as_it_is():
    inner = keras.Sequential([keras.Input((9, 10, 3)), convolution(), layers.BatchNormalization(), layers.Dropout(0.5)])
    model = small(lambda x: layers.BatchNormalization()(convolution()(inner(x))))
    fused = Fused(model)
    assert len(fused.replaced) == 2
    agree(model, fused, pictures(model))


def test_half_precision_is_not_folded():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = zoo.create("resnet20", classes=3)
        zoo.freeze(model, "large")
        trunk, _ = zoo.split_frozen(model)
        fused = Fused(trunk)
    finally:
        keras.config.set_dtype_policy(before)
    assert not fused.replaced
    images = pictures(model)
    found, expected = (np.asarray(run(images)) for run in (fused.predict_on_batch, trunk.predict_on_batch))
    assert np.allclose(found.astype("float32"), expected.astype("float32"), atol=1e-2)


def test_everything_behind_a_policy_runs_in_inference_mode():
    """A policy augments although nothing trains; what stands behind it must not think that something does."""

    def build(x):
        x = layers.Activation("relu")(layers.BatchNormalization()(layers.RandomFlip()(x)))
        return layers.Dropout(0.5)(convolution()(x))

    model = small(build)
    before = model.get_weights()
    images = pictures(model, 8)
    keys = np.stack([np.zeros(8), np.arange(8)], 1).astype("int32")
    policy = augment.RandomAffine(flip="horizontal")  # exact, so that only what stands behind it can differ
    fused = Fused(model, policy)
    expected = model.predict(np.asarray(policy(images, training=True, keys=keys)), verbose=0)
    assert np.allclose(fused.predict_on_batch((images, keys)), expected, rtol=1e-4, atol=1e-3)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_the_folded_weights_are_variables_of_the_model():
    model = small(lambda x: layers.BatchNormalization()(convolution()(x)))
    fused = Fused(model)
    assert {id(weight) for weight in fused.folded} <= {id(weight) for weight in fused.variables}
