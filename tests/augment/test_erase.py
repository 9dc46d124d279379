import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from augment.erase import RandomErase


def noise(count, height, width, channels=3):
    """Pictures of light and dark pixels, none of which comes near the mean."""
    chance = np.random.default_rng(0)
    shape = (count, height, width, channels)
    return (chance.uniform(0, 100, shape) + 155 * chance.integers(0, 2, shape)).astype("float32")


def keys_for(count, epoch=0):
    return np.stack([np.full(count, epoch), np.arange(count)], 1)


def erased(layer, images, keys=None):
    def call(images, keys):
        return layer(images, training=True, keys=keys)

    if keras.backend.backend() == "jax":
        import jax

        call = jax.jit(call)  # several times faster than to compile each operation of each shape alone
    return ops.convert_to_numpy(call(images, keys_for(len(images)) if keys is None else np.asarray(keys)))


def rectangles(images, out):
    """The changed stretch of each picture, (n, 4): top, left, height, width; all of it must have changed."""
    found = []
    for changed in (out != images).any(-1):
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        found.append((rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1))
    return np.array(found)


def test_the_rectangle_has_the_mean_colour_and_the_rest_keeps_every_pixel():
    images = noise(60, 30, 41)
    images[..., 1] /= 2
    out = erased(RandomErase(probability=1.0), images)
    for image, picture, (top, left, tall, wide) in zip(images, out, rectangles(images, out), strict=True):
        inside = np.s_[top : top + tall, left : left + wide]
        assert np.allclose(picture[inside], image.astype("float64").mean((0, 1)), atol=1e-3)
        picture[inside] = image[inside]
        assert np.array_equal(picture, image)


def test_rectangles_have_the_drawn_areas_proportions_and_places():
    images = noise(800, 120, 80, 1)
    out = erased(RandomErase(probability=1.0, area=(0.1, 0.3), ratio=(0.5, 3.0)), images, keys=keys_for(800))
    top, left, tall, wide = rectangles(images, out).T
    area, ratio = tall * wide / (120 * 80), tall / wide
    drawn = {
        "area": stats.uniform(0.1, 0.2).cdf(area),
        "ratio": stats.uniform(np.log(0.5), np.log(6)).cdf(np.log(ratio)),
        "down": (top + 0.5) / (120 - tall + 1),
        "right": (left + 0.5) / (80 - wide + 1),
    }
    for name, share in drawn.items():
        assert stats.kstest(share, "uniform").pvalue > 0.001, name
    assert np.abs(np.corrcoef(list(drawn.values())) - np.eye(4)).max() < 0.15
    assert top.min() == left.min() == 0
    assert ((top + tall).max(), (left + wide).max()) == (120, 80)


def test_a_rectangle_that_would_stick_out_keeps_its_area_and_ends_at_the_edges():
    images = noise(400, 20, 100, 1)
    out = erased(RandomErase(probability=1.0, area=(0.3, 0.9), ratio=(3.0, 3.0)), images, keys=keys_for(400))
    _, _, tall, wide = rectangles(images, out).T
    assert (tall == 20).all()  # a standing rectangle of this area is too high
    assert stats.kstest(wide / 100, stats.uniform(0.3, 0.6).cdf).pvalue > 0.001


def test_the_whole_area_is_the_whole_picture():
    images = noise(30, 14, 33)
    out = erased(RandomErase(probability=1.0, area=(1, 1), ratio=(0.1, 10)), images)
    assert np.allclose(out, np.broadcast_to(images.mean((1, 2), keepdims=True), images.shape), atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2)])
def test_tiny_pictures_lose_at_least_a_pixel(size):
    images = noise(50, *size)
    images[:, 0, 0] += 0.5  # a picture of a single pixel is its own mean
    out = erased(RandomErase(probability=1.0), images)
    assert np.isfinite(out).all()
    if size != (1, 1):
        assert (rectangles(images, out)[:, 2:] >= 1).all()


def test_some_pictures_are_erased_and_the_others_keep_every_pixel():
    images = noise(1000, 8, 8, 1)
    for probability in (0.0, 0.3, 1.0):
        out = erased(RandomErase(probability), images, keys=keys_for(1000))
        kept = (out == images).all((1, 2, 3))
        assert abs(1 - kept.mean() - probability) <= (0.05 if probability == 0.3 else 0)


def test_whole_numbers_get_the_rounded_mean():
    images = noise(20, 12, 12).astype("uint8")
    out = erased(RandomErase(probability=1.0), images)
    assert out.dtype == np.uint8
    for image, picture in zip(images, out, strict=True):
        changed = (picture != image).any(-1)
        assert changed.any()
        assert (np.abs(picture[changed] - image.mean((0, 1))) < 0.501).all()  # a half may go either way


@pytest.mark.parametrize(("size", "level"), [((7, 29), 255), ((300, 299), 255), ((300, 299), 253)])
def test_a_picture_of_one_colour_keeps_it_small_or_large(size, level):
    flat = np.full((1, *size, 3), level, "float32")
    out = erased(RandomErase(probability=1.0), flat)
    assert out.max() <= 255
    assert np.allclose(out, level, atol=1e-3)


def test_each_picture_loses_its_own_rectangle_by_its_keys_alone():
    layer, keys = RandomErase(probability=1.0, seed=3), keys_for(20)
    images = np.repeat(noise(1, 24, 24), 20, axis=0)
    out = erased(layer, images, keys=keys)
    assert len(np.unique(rectangles(images, out), axis=0)) > 15
    assert np.allclose(erased(layer, images[7:8], keys=keys[7:8]), out[7:8], atol=1e-4)
    assert not np.array_equal(erased(layer, images, keys=keys_for(20, epoch=1)), out)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"probability": -0.1}, r"`probability` must lie in \[0, 1\]. Received: probability=-0.1"),
        ({"area": (0.0, 0.3)}, r"`area` must be a pair .*0.001 <= low <= high <= 1. Received: area=\(0.0, 0.3\)"),
        ({"area": 0.2}, "Received: area=0.2"),
        ({"ratio": (0.3, 11)}, r"`ratio` must be a pair .*0.1 <= low <= high <= 10. Received: ratio=\(0.3, 11\)"),
    ],
)
def test_arguments_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        RandomErase(**given)


def test_graphs_of_unknown_sides_and_xla_erase_the_same():
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function compiles Keras layers on the TensorFlow backend")
    layer, images, keys = RandomErase(), noise(16, 30, 22), keys_for(16)
    eager = erased(layer, images, keys=keys)
    assert layer.supports_jit
    unknown = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, 2), tf.int64)]
    for given in ({"input_signature": unknown}, {"jit_compile": True}):
        graph = tf.function(lambda images, keys: layer(images, training=True, keys=keys), **given)
        assert np.allclose(graph(images, keys), eager, atol=1e-3)
