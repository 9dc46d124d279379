import math

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image, ImageEnhance

from augment.colour import CHROMA, GREY, LUMA, ColorJitter, colour_matrix

ALL = {"brightness": 0.6, "contrast": 0.7, "saturation": 0.9, "hue": 0.4, "greyscale": 0.3}


def keys_for(images, epoch=0):
    return np.stack([np.full(len(images), epoch), np.arange(len(images))], 1)


def pictures(channels, count=16, dtype="float32", size=(9, 12)):
    """Each of its own range of values, so that each has its own mean."""
    rng = np.random.default_rng(channels)
    tops = rng.uniform(30, 255, (count, 1, 1, channels))
    return (rng.uniform(0, 1, (count, *size, channels)) * tops).astype(dtype)


def changed(layer, images, keys=None):
    keys = keys_for(images) if keys is None else keys
    return ops.convert_to_numpy(layer(images, training=True, keys=keys))


def drawn(layer, images, number, low, high):
    return ops.convert_to_numpy(layer.draws.uniform(images, keys_for(images), low, high, number=number))


def reference(layer, images):
    """The definition, a change at a time, in float64; clipped at the end alone."""
    channels = images.shape[-1]
    coloured = channels in (3, 4)
    x = images[..., :3].astype("float64") if coloured else images.astype("float64")
    weights = LUMA if coloured else np.full(channels, 1 / channels)
    b, c, s = (
        drawn(layer, images, number, 1 - most, 1 + most).astype("float64")
        for number, most in enumerate((layer.brightness, layer.contrast, layer.saturation))
    )
    turn = math.tau * drawn(layer, images, 3, -layer.hue, layer.hue).astype("float64")[..., 0]
    s = np.where(drawn(layer, images, 4, 0.0, 1.0) < layer.greyscale, 0, s)
    x = x * b
    x = c * x + (1 - c) * np.mean(x @ weights, axis=(1, 2))[:, None, None, None]
    if coloured:
        x = s * x + (1 - s) * (x @ weights)[..., None]
        luma = x @ weights
        red, blue = x[..., 0] - luma, x[..., 2] - luma
        red, blue = np.cos(turn) * red + np.sin(turn) * blue, np.cos(turn) * blue - np.sin(turn) * red
        green = -(weights[0] * red + weights[2] * blue) / weights[1]
        x = luma[..., None] + np.stack([red, green, blue], -1)
    x = np.clip(x, 0, 255)
    return np.concatenate([x, images[..., 3:]], -1) if channels == 4 else x


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("given", [ALL, *({name: most} for name, most in ALL.items())])
def test_the_map_is_every_change_one_after_another(channels, given):
    images = pictures(channels)
    layer = ColorJitter(**given, seed=2)
    out = changed(layer, images)
    assert np.allclose(out, reference(layer, images), atol=2e-3)
    if channels in (3, 4) or "brightness" in given or "contrast" in given:
        assert np.abs(out - images).max() > 10
    else:
        assert np.array_equal(out, images)


@pytest.mark.parametrize(
    ("name", "number", "enhancer"),
    [
        ("brightness", 0, ImageEnhance.Brightness),
        ("contrast", 1, ImageEnhance.Contrast),
        ("saturation", 2, ImageEnhance.Color),
    ],
)
def test_each_change_alone_is_that_of_pil(name, number, enhancer):
    images = pictures(3, dtype="uint8")
    layer = ColorJitter(**{name: 0.8})
    out = changed(layer, images)
    factors = drawn(layer, images, number, 0.2, 1.8).ravel()
    theirs = np.stack(
        [
            np.asarray(enhancer(Image.fromarray(image)).enhance(float(factor)))
            for image, factor in zip(images, factors, strict=True)
        ]
    )
    assert out.dtype == np.uint8
    assert np.abs(out.astype(int) - theirs).max() <= 2  # PIL rounds the greys and cuts fractions off
    assert np.abs(out.astype(int) - theirs).mean() < 0.8


def test_grey_pictures_are_what_pil_converts_to():
    images = pictures(3, dtype="uint8")
    out = changed(ColorJitter(greyscale=1.0), images)
    theirs = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    assert np.abs(out.astype(int) - theirs[..., None]).max() <= 1


def turned(colours, hue, saturation=1.0):
    drawn = (np.full((1, 1, 1, 1), value, "float32") for value in (1.0, saturation, hue))
    return colours @ ops.convert_to_numpy(colour_matrix(*drawn)).astype("float64")[0]


def test_hue_keeps_luma_and_greys_and_a_full_turn_is_none():
    colours = np.random.default_rng(0).uniform(0, 255, (50, 3))
    greys = np.repeat(colours[:, :1], 3, axis=1)
    for hue in np.linspace(-math.pi, math.pi, 9):
        assert np.allclose(turned(colours, hue) @ LUMA, colours @ LUMA, atol=1e-3)
        assert np.allclose(turned(greys, hue, saturation=0.3), greys, atol=1e-3)
    assert np.allclose(turned(colours, math.tau), colours, atol=1e-3)
    assert np.allclose(turned(turned(colours, 1.0), -1.0), colours, atol=1e-3)
    assert np.allclose(turned(turned(colours, 1.0), 0.7), turned(colours, 1.7), atol=1e-3)
    assert np.allclose(turned(colours, math.pi), colours @ (GREY - CHROMA).T, atol=1e-3)  # the complements
    assert np.abs(turned(colours, math.pi / 2) - colours).max() > 50


def test_hue_turns_the_way_of_the_published_matrix():
    # https://www.w3.org/TR/filter-effects-1/ writes it with the luma of BT.709, in three digits
    red, green, blue = luma = np.array([0.213, 0.715, 0.072])
    theirs = np.array([[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]])
    quarter = ops.convert_to_numpy(colour_matrix(*np.array([1, 1, math.pi / 2], "float32").reshape(3, 1, 1, 1)))[0].T
    ours = quarter - GREY
    for row in (0, 2):  # differences from grey, whatever its weights are
        assert np.allclose(ours[row] - [0, LUMA, -LUMA][row - 1], theirs[row] - [0, luma, -luma][row - 1], atol=1e-3)
    assert np.allclose(theirs[1], -(red * theirs[0] + blue * theirs[2]) / green, atol=1e-3)
    assert np.allclose(ours[1], -(LUMA[0] * ours[0] + LUMA[2] * ours[2]) / LUMA[1], atol=1e-6)


def test_black_stays_black_and_the_range_is_kept():
    assert (changed(ColorJitter(brightness=1.0), 0 * pictures(3)) == 0).all()
    out = changed(ColorJitter(1.0, 1.0, 1.0, 0.5), pictures(3))
    assert out.min() == 0
    assert out.max() == 255


def test_nothing_asked_changes_nothing():
    for channels in (1, 3, 4):
        images = pictures(channels)
        assert np.array_equal(changed(ColorJitter(), images), images)


def test_factors_are_uniform_and_independent_of_each_other():
    images = np.full((2000, 2, 2, 3), 100, "float32")
    factors = changed(ColorJitter(brightness=0.3), images)[:, 0, 0, 0] / 100
    assert 0.7 - 1e-6 < factors.min() < 0.701
    assert 1.299 < factors.max() < 1.3 + 1e-6
    ranks = (np.sort(factors) - 0.7) / 0.6
    assert np.abs(ranks - np.arange(2000) / 2000).max() < 1.63 / math.sqrt(2000)  # Kolmogorov and Smirnov, 1 %
    layer = ColorJitter(**ALL)
    columns = [drawn(layer, images, number, 0.0, 1.0).ravel() for number in range(5)]
    assert np.abs(np.corrcoef(columns) - np.eye(5)).max() < 0.1


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_colours_are_lost_with_their_probability(probability):
    images = np.broadcast_to(np.float32([200, 100, 50]), (2000, 2, 2, 3))
    out = changed(ColorJitter(greyscale=probability), images)
    grey = np.ptp(out, axis=-1).max(axis=(1, 2)) < 1e-3
    assert abs(grey.mean() - probability) <= (0.04 if 0 < probability < 1 else 0)
    assert np.allclose(out[~grey], images[~grey], atol=1e-3)


def test_alpha_stays_whatever_it_holds():
    images = pictures(4)
    images[..., 3] = np.linspace(-50, 400, len(images))[:, None, None]  # clipping would show
    for given in ({"brightness": 1.0}, ALL):
        out = changed(ColorJitter(**given), images)
        assert np.array_equal(out[..., 3], images[..., 3])
        colours = changed(ColorJitter(**given), images[..., :3])
        assert np.allclose(out[..., :3], colours, atol=1e-3)


def test_an_empty_batch_stays_empty():
    assert changed(ColorJitter(**ALL), pictures(3)[:0]).shape == (0, 9, 12, 3)


def test_what_is_drawn_is_the_same_on_every_backend_and_in_every_release():
    images = np.broadcast_to(np.float32([[200, 100, 50], [20, 120, 90]]), (2, 1, 2, 3))
    out = changed(ColorJitter(0.3, 0.3, 0.5, 0.1, 0.1, seed=7), images, keys=np.array([[0, 0], [3, 41]]))
    golden = [
        [[228.7974, 131.0486, 60.8077], [33.8594, 143.7314, 119.2343]],
        [[255.0, 109.2212, 101.9926], [29.1927, 143.7077, 81.6845]],
    ]
    assert np.allclose(out[:, 0], golden, atol=0.01)


def test_xla_compiles_it_to_the_same():
    layer, images = ColorJitter(**ALL), pictures(3)
    assert layer.supports_jit
    assert np.allclose(compiled(layer)(images, keys_for(images)), changed(layer, images), atol=1e-3)


def compiled(layer):
    def call(images, keys):
        return layer(images, training=True, keys=keys)

    if keras.backend.backend() == "jax":
        return pytest.importorskip("jax").jit(call)
    return pytest.importorskip("tensorflow").function(call, jit_compile=True)


def test_a_pipeline_of_any_size_gives_the_same():
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("layers run in tf.data on the TensorFlow backend")
    layer, images = ColorJitter(**ALL), pictures(3)
    sizes = [tf.TensorSpec((None, None, None, 3), tf.float32), tf.TensorSpec((None, 2), tf.int64)]
    call = tf.function(lambda images, keys: layer(images, training=True, keys=keys), input_signature=sizes)
    assert np.allclose(call(images, keys_for(images)), changed(layer, images), atol=1e-3)
    colours_unknown = tf.TensorSpec((None, None, None, None), tf.float32)
    with pytest.raises(ValueError, match=r"known number of channels.*set their shape.*\(None, None, None, None\)"):
        tf.function(lambda images: layer(images, training=True)).get_concrete_function(colours_unknown)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"brightness": 1.5}, r"`brightness` must lie in \[0, 1\]. Received: brightness=1.5"),
        ({"contrast": -0.1}, r"`contrast` must lie in \[0, 1\]. Received: contrast=-0.1"),
        ({"saturation": (0.5, 1)}, r"`saturation` must lie in \[0, 1\]. Received: saturation=\(0.5, 1\)"),
        ({"hue": 0.6}, r"`hue` must lie in \[0, 0.5\]. Received: hue=0.6"),
        ({"greyscale": True}, r"`greyscale` must lie in \[0, 1\]. Received: greyscale=True"),
    ],
)
def test_arguments_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        ColorJitter(**given)
