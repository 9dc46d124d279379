"""Grad-CAM against an independent implementation, and against nets of which it is known where they look."""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from zoo.evaluation.explain import explain
from zoo.models.registry import create
from zoo.models.temperature import with_temperature

NETS = {  # builder, size, layer of the last feature map
    "resnet20": (
        lambda end: create("resnet20", classes=5, input_shape=(40, 32, 3), dropout=0.3, classifier_activation=end),
        "stage3_block3_out",
    ),
    "inception_small": (
        lambda end: create("inception_small", classes=5, input_shape=(40, 32, 3), classifier_activation=end),
        "stage3_module2_concat",
    ),
    "MobileNetV2": (
        lambda end: keras.applications.MobileNetV2(
            input_shape=(128, 128, 3), alpha=0.35, weights=None, classes=5, classifier_activation=end
        ),
        "out_relu",
    ),
}


@pytest.fixture(scope="module")
def grad_cam():
    path = Path(__file__).parents[1] / "reference" / "grad_cam.py"
    spec = importlib.util.spec_from_file_location("grad_cam", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.grad_cam


def lively(model):
    """Weights with which outputs differ from picture to picture, the same each time."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        drawn = rng.normal(size=weight.shape)
        if weight.path.endswith("kernel"):
            fan_in = weight.shape[:2] if weight.shape[-1] == 1 else weight.shape[:-1]  # depthwise, or all channels
            weight.assign(drawn * np.sqrt(2 / np.prod(fan_in)))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(1 + 0.2 * np.tanh(drawn))
        else:
            weight.assign(0.2 * drawn)
    return model


def pictures(shape, count=3):
    """Blobs: what is smooth excites deep maps in some places more than in others."""
    rng = np.random.default_rng(1)
    coarse = rng.uniform(0, 255, (count, 4, 4, shape[-1])).astype(np.float32)
    return np.asarray(keras.ops.image.resize(coarse, shape[:2]))


SLOW = ("inception_small", "MobileNetV2")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NETS])
def test_maps_are_those_of_the_reference(name, grad_cam):
    build, layer = NETS[name]
    model, logits = lively(build("softmax")), build(None)
    logits.set_weights(model.get_weights())
    x = pictures(model.input_shape[1:])
    if name == "MobileNetV2":
        x = x / 127.5 - 1
    expected = np.stack([grad_cam(logits, layer, picture) for picture in x])
    assert expected.shape == x.shape[:3] and np.ptp(expected, axis=(1, 2)).min() > 0.2
    assert np.abs(expected[0] - expected[1]).max() > 0.02

    found = explain(model, x, batch_size=2)  # the second batch is not full
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)

    wanted = [4, 0, 2]
    expected = np.stack([grad_cam(logits, layer, picture, k) for picture, k in zip(x, wanted, strict=True)])
    np.testing.assert_allclose(explain(logits, x, wanted), expected, atol=1e-4)
    np.testing.assert_allclose(explain(with_temperature(model, 4), x, wanted), expected, atol=1e-4)


def test_pictures_of_a_batch_do_not_touch_each_other():
    model = lively(NETS["resnet20"][0]("softmax"))
    x = pictures(model.input_shape[1:])
    alone = np.concatenate([explain(model, picture[np.newaxis], 3) for picture in x])
    np.testing.assert_allclose(explain(model, x, 3), alone, atol=1e-5)


def test_head_of_convolutions_scores_each_picture_alone():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(6, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.Conv2D(4, 1),
            layers.Softmax(),
            layers.Flatten(),
        ]
    )
    x, wanted = pictures((16, 16, 3))[:3], [3, 0, 1]
    alone = np.concatenate([explain(model, x[i : i + 1], wanted[i]) for i in range(3)])
    assert alone.max() == 1
    np.testing.assert_allclose(explain(model, x, wanted), alone, atol=1e-5)


def colour_seeker(end="softmax"):
    """Class 0 is evidence of red, class 1 of blue, class 2 what speaks against both; maps of 4 x 4."""
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(2, 8, strides=8, activation="relu", use_bias=False),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(3, use_bias=False, activation=end),
        ]
    )
    kernel = np.zeros((8, 8, 3, 2))
    kernel[..., 0, 0] = kernel[..., 2, 1] = 1 / 64
    model.set_weights([kernel, np.array([[4.0, 0, -4], [0, 4, -4]])])
    return model


def red_and_blue():
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    picture[:, :16, :16, 0] = picture[:, 16:, 16:, 2] = 255
    return picture


def test_heat_lies_where_the_evidence_is():
    red, blue, against = (explain(colour_seeker(), red_and_blue(), k)[0] for k in range(3))
    assert red[:12, :12].min() == 1 and blue[20:, 20:].min() == 1
    assert red[20:].max() == red[:, 20:].max() == 0
    np.testing.assert_allclose(blue, red[::-1, ::-1], atol=1e-6)
    assert not against.any()  # nothing speaks for it


def test_model_in_the_model_is_looked_into():
    expected = explain(colour_seeker(), red_and_blue(), 0)
    inside = colour_seeker()
    whole = keras.Sequential([keras.Input((32, 32, 3)), layers.RandomFlip(), inside])
    base = keras.Sequential([keras.Input((32, 32, 3)), *inside.layers[:2]])
    pooled = keras.Sequential([keras.Input((32, 32, 3)), *inside.layers[:3]])
    for part in (base, pooled):
        rest = inside.layers[len(part.layers) :]
        model = keras.Sequential([keras.Input((32, 32, 3)), part, *rest])
        np.testing.assert_allclose(explain(model, red_and_blue(), 0), expected, atol=1e-6)
    np.testing.assert_allclose(explain(whole, red_and_blue(), 0), expected, atol=1e-6)


def test_half_precision_gives_the_same_maps_in_float32():
    build = NETS["resnet20"][0]
    model = lively(build("softmax"))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = build("softmax")
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    x = pictures(model.input_shape[1:])
    found = explain(half, x, 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, explain(model, x, 1), atol=0.1)


def test_what_cannot_be_explained_is_refused():
    model, x = colour_seeker(), red_and_blue()
    assert explain(model, x[:0]).shape == (0, 32, 32)
    with pytest.raises(ValueError, match=r"\(n, height, width, channels\).* x\[None\]. Received: shape=\(32, 32, 3\)"):
        explain(model, x[0])
    with pytest.raises(ValueError, match=r"with \(None, None, 3\) behind the n"):
        explain(model, x[..., :1])
    with pytest.raises(ValueError, match="from 0 to 2, the model's classes. Received: class_index=3"):
        explain(model, x, 3)
    with pytest.raises(ValueError, match="or one for each of 1 pictures"):
        explain(model, x, [0, 1])
    with pytest.raises(TypeError, match="`class_index` must be an integer"):
        explain(model, x, 0.5)
    with pytest.raises(ValueError, match="`batch_size` must be above 0"):
        explain(model, x, batch_size=0)
    model.layers[1].kernel.assign(np.full((8, 8, 3, 2), np.nan))
    with pytest.raises(ValueError, match="gives no number .* 1 of 1 pictures, first for row 0"):
        explain(model, x)


def test_model_without_a_feature_map_is_refused():
    image = keras.Input((8, 8, 3))
    dense = layers.Dense(3)(layers.Flatten()(layers.Normalization(mean=0.0, variance=1.0)(image)))
    parts = [layers.GlobalMaxPooling2D()(layers.Conv2D(2, 3)(image)) for _ in range(2)]
    branches = layers.Dense(3)(layers.Concatenate()(parts))
    for output in (dense, branches):
        with pytest.raises(ValueError, match="has no feature map .* larger than one pixel that all goes through"):
            explain(keras.Model(image, output), np.zeros((1, 8, 8, 3)))
