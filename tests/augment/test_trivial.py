import functools

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from augment import trivial
from augment.trivial import WAYS, TrivialAugment

NAMES = (
    "identity",
    "shear x",
    "shear y",
    "translate x",
    "translate y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
LAYER = TrivialAugment(seed=3)


@pytest.fixture(scope="module")
def pictures(digit_pictures):
    """Digits in three colours of unlike range, with some noise, uint8 (10, 40, 56, 3)."""
    rng = np.random.default_rng(0)
    made = []
    for one, two in zip(digit_pictures[0][:10], digit_pictures[0][10:20], strict=True):
        large = [np.array(Image.fromarray(digit).resize((56, 40), Image.Resampling.BICUBIC)) for digit in (one, two)]
        made.append(np.stack([large[0], 40 + large[1] * 0.7, 60 + large[0] * 0.3 + large[1] * 0.2], -1))
    return np.clip(np.stack(made) + rng.normal(0, 6, (10, 40, 56, 3)), 3, 251).astype(np.uint8)


def keys_for(count, epoch=0):
    return np.stack([np.full(count, epoch), np.arange(count)], 1)


def applied(name, image, magnitude=0.0):
    """A way as numpy float32, at a magnitude."""
    change = WAYS[NAMES.index(name)][0]
    return ops.convert_to_numpy(change(np.asarray(image, np.float32), np.float32(magnitude)))


@functools.cache
def compiled():
    """The layer as a graph, for any batch and size; on JAX, eager calls would compile it each time."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(lambda images, keys: LAYER(images, training=True, keys=keys))
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, 2), tf.int64)]
    return tf.function(lambda x, keys: LAYER(x, training=True, keys=keys), input_signature=signature, autograph=False)


def changed(images, keys):
    """Through the layer in training, as numpy float32."""
    return ops.convert_to_numpy(compiled()(images.astype("float32"), keys))


@functools.cache
def drawn(count, layer=LAYER, epoch=0):
    images = np.zeros((count, 1, 1, 3), np.float32)
    return [ops.convert_to_numpy(values) for values in layer.drawn(images, keys_for(count, epoch))]


def excess(counts):
    """Chi-square against equal counts, in standard deviations from what chance gives."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


def pillow_way(name, picture, magnitude):
    image = Image.fromarray(picture)
    if name in ("brightness", "color", "contrast", "sharpness"):
        return np.array(getattr(ImageEnhance, name.capitalize())(image).enhance(1 + magnitude))
    if name == "posterize":
        return np.array(ImageOps.posterize(image, int(magnitude)))
    if name == "solarize":
        return np.array(ImageOps.solarize(image, magnitude))
    return np.array(getattr(ImageOps, name)(image))


TONES = (
    [(name, sign * size) for name in NAMES[6:10] for size in (0.0, 0.033, 0.5, 0.99) for sign in (-1, 1)]
    + [("posterize", bits) for bits in range(2, 9)]
    + [("solarize", threshold) for threshold in (0.0, 8.5, 85.0, 127.5, 170.0, 246.5, 255.0)]
    + [("autocontrast", 0.0), ("equalize", 0.0)]
)


@pytest.mark.parametrize(("name", "magnitude"), TONES)
def test_colours_and_tones_are_those_of_pillow(pictures, name, magnitude):
    exact = name in ("posterize", "solarize", "equalize")
    for picture in pictures[:3]:
        ours = np.round(applied(name, picture, magnitude))
        assert np.abs(ours - pillow_way(name, picture, magnitude)).max() <= (0 if exact else 1)


@pytest.mark.parametrize("size", [(2, 5), (16, 16), (20, 26), (90, 120)])
@pytest.mark.parametrize("levels", [1, 5, 256])
def test_equalize_is_the_table_of_pillow_for_any_number_of_pixels_and_levels(size, levels):
    rng = np.random.default_rng(0)
    picture = (255 * rng.integers(0, levels, (*size, 3)) // levels + 255 // levels // 2).astype(np.uint8)
    assert np.array_equal(applied("equalize", picture), np.array(ImageOps.equalize(Image.fromarray(picture))))


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 3)])
def test_the_outermost_pixels_are_not_sharpened(size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    ours = applied("sharpness", picture, 0.99)
    assert np.array_equal(ours != picture, np.pad(np.ones((1, 1, 3), bool), ((1, 1), (1, 1), (0, 0)))) == (
        size == (3, 3)
    )
    assert np.abs(np.round(ours) - pillow_way("sharpness", picture, 0.99)).max() <= 1


def reference(name, picture, magnitude):
    """A way of moving by SciPy, in float64: where each place of the output lies in the input, (row, column)."""
    picture = picture.astype(np.float64)
    centre = (np.array(picture.shape[:2]) - 1) / 2
    turn = np.radians(magnitude)
    inverse, shift = {
        "shear x": ([[1, 0], [-magnitude, 1]], (0, 0)),
        "shear y": ([[1, -magnitude], [0, 1]], (0, 0)),
        "translate x": (np.eye(2), (0, int(magnitude))),
        "translate y": (np.eye(2), (int(magnitude), 0)),
        "rotate": ([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]], (0, 0)),
    }[name]
    offset = centre - np.array(inverse) @ (centre + shift)
    parts = [
        ndimage.affine_transform(part, inverse, offset, order=1, mode="reflect") for part in picture.T.swapaxes(1, 2)
    ]
    return np.stack(parts, -1)


MOVES = [("rotate", 90.0), ("rotate", 4.5), ("rotate", -135.0)]
MOVES += [(f"shear {axis}", size) for axis in "xy" for size in (0.033, -0.5, 0.99)]
MOVES += [(f"translate {axis}", size) for axis in "xy" for size in (1.0667, -18.1333, 32.0, -32.0)]


@pytest.mark.parametrize(("name", "magnitude"), MOVES)
def test_moves_are_those_of_scipy(pictures, name, magnitude):
    ours, theirs = applied(name, pictures[0], magnitude), reference(name, pictures[0], magnitude)
    assert np.abs(ours - theirs).max() < 0.02
    assert np.abs(theirs - pictures[0]).mean() > 1


def test_translations_are_by_whole_pixels_and_keep_them(pictures):
    for x, y in ((5.9, 5), (-5.9, -5)):
        ours = applied("translate x", pictures[0], x)
        kept = slice(max(y, 0), 56 + min(y, 0))
        assert np.array_equal(ours[:, kept], pictures[0][:, slice(max(-y, 0), 56 - max(y, 0))])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_number_of_channels_is_changed_as_three_are(pictures, name, channels):
    picture = np.concatenate([pictures[0], pictures[1]], -1)[..., :channels]
    _, least, most, _ = WAYS[NAMES.index(name)]
    magnitude = (2 * least + 3 * most) / 5
    ours = applied(name, picture, magnitude)
    assert ours.shape == picture.shape
    if channels == 4:
        moves = name in NAMES[1:6]
        assert np.array_equal(ours[..., 3], picture[..., 3]) == (not moves)
        alone = [applied(name, picture[..., :3], magnitude), applied(name, picture[..., 3:], magnitude * moves)]
        assert np.array_equal(ours[..., :3], alone[0])
        assert not moves or np.array_equal(ours[..., 3:], alone[1])
    elif name in ("identity", "color"):
        assert np.array_equal(ours, picture)
    elif name != "contrast" or channels == 1:  # contrast is about a grey that all channels share
        each = [applied(name, np.repeat(picture[..., i : i + 1], 3, -1), magnitude)[..., 0] for i in range(channels)]
        assert np.allclose(ours, np.stack(each, -1), atol=1e-3)
        assert not np.array_equal(ours, picture)


@pytest.mark.parametrize("name", NAMES)
def test_float_pictures_stay_within_the_range(pictures, name):
    picture = pictures[0] / np.float32(251)  # hardly a grey level of contrast
    for image in (picture, picture * 254.9, np.full_like(picture, 255), np.zeros_like(picture)):
        for share in (-1, -0.5, 0.5, 1):
            _, least, most, signed = WAYS[NAMES.index(name)]
            magnitude = least + (most - least) * (share if signed else abs(share))
            ours = applied(name, image, magnitude)
            assert np.isfinite(ours).all()
            assert ours.min() >= 0
            assert ours.max() <= 255


def test_float_pictures_are_not_rounded_but_by_posterize_and_equalize(pictures):
    picture = pictures[0] * np.float32(0.99)
    for name in NAMES[6:]:
        ours = applied(name, picture, 3.0 if name == "posterize" else 0.495)
        assert np.array_equal(ours, np.round(ours)) == (name in ("posterize", "equalize"))


def test_less_than_a_grey_level_is_no_contrast():
    picture = np.tile(np.linspace(100, 100.9, 12, dtype="float32")[:, np.newaxis], (6, 1, 3))
    assert np.array_equal(applied("autocontrast", picture), picture)
    assert np.ptp(applied("autocontrast", (picture - 100) * 2)) == pytest.approx(255)


def test_every_way_is_equally_likely_and_so_is_every_magnitude_of_it():
    ways, magnitudes = drawn(60_000)
    assert abs(excess(np.bincount(ways, minlength=14))) < 4
    for row, (_, least, most, signed) in enumerate(WAYS):
        steps, counts = np.unique(np.abs(magnitudes[ways == row]), return_counts=True)
        assert np.allclose(steps, np.unique(np.linspace(least, most, 31)), atol=1e-5)
        assert len(steps) == 1 or abs(excess(counts)) < 4
        negative = (magnitudes[ways == row] < 0).mean()
        assert negative == (pytest.approx(0.5 * 30 / 31, abs=0.03) if signed else 0)


def test_the_magnitudes_are_those_of_torchvision():
    ranges = {name: row[1:] for name, row in zip(NAMES, WAYS, strict=True)}
    assert ranges["shear x"] == ranges["shear y"] == ranges["brightness"] == ranges["color"] == (0.0, 0.99, True)
    assert ranges["contrast"] == ranges["sharpness"] == (0.0, 0.99, True)
    assert ranges["translate x"] == ranges["translate y"] == (0.0, 32.0, True)
    assert ranges["rotate"] == (0.0, 135.0, True)
    assert ranges["solarize"] == (255.0, 0.0, False)
    ways, magnitudes = drawn(60_000)
    bits = np.unique(magnitudes[ways == NAMES.index("posterize")])
    rounded = 8 - (np.arange(31) / (30 / 6)).round()  # as torchvision has it
    kept = [len(np.unique(applied("posterize", trivial.LEVELS[:, np.newaxis, np.newaxis], number))) for number in bits]
    assert np.array_equal(np.log2(kept), rounded[::-1])


def test_each_picture_becomes_what_is_drawn_for_it(pictures):
    seen = set()
    for epoch in range(9):
        out = changed(pictures, keys_for(10, epoch))
        for picture, one, way, magnitude in zip(pictures, out, *drawn(10, epoch=epoch), strict=True):
            expected = applied(NAMES[way], picture, magnitude)
            assert np.abs(one - expected).max() < 0.02
            seen.add(way)
    assert len(seen) == 14


def test_what_a_picture_becomes_depends_on_its_keys_alone(pictures):
    keys = keys_for(10, epoch=2)
    whole = changed(pictures, keys)
    assert np.array_equal(changed(pictures[::-1], keys[::-1])[::-1], whole)
    assert np.allclose(changed(pictures[4:7], keys[4:7]), whole[4:7], atol=1e-4)
    for other in (drawn(50, epoch=3), drawn(50, TrivialAugment(seed=4))):
        assert not np.array_equal(drawn(50)[0], other[0])


def test_a_batch_may_be_empty(pictures):
    assert LAYER(pictures[:0], training=True).shape == (0, 40, 56, 3)


def test_xla_is_left_out_on_tensorflow_alone():
    assert LAYER.supports_jit == (keras.backend.backend() != "tensorflow")


def test_eager_calls_give_what_graphs_give_and_round_whole_numbers(pictures):
    keys = keys_for(10, epoch=1)
    eager = ops.convert_to_numpy(LAYER(pictures, training=True, keys=keys))
    assert eager.dtype == np.uint8
    assert np.abs(eager - changed(pictures, keys)).max() <= 0.52


def test_one_graph_changes_pictures_of_any_size(pictures):
    if keras.backend.backend() == "jax":
        pytest.skip("JAX compiles each size anew")
    cut = pictures[:3, 5:, :20]
    out = changed(cut, keys_for(3))
    for picture, one, way, magnitude in zip(cut, out, *drawn(3), strict=True):
        assert np.abs(one - applied(NAMES[way], picture, magnitude)).max() < 0.02
