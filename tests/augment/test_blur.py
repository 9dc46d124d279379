import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage, stats

from augment.blur import RandomBlur


@pytest.fixture
def pictures(digit_pictures):
    """Handwritten digits in three colours, each pixel three by two, as float32 (8, 24, 16, 3)."""
    digits = np.stack([digit_pictures[0][i : i + 8] for i in range(3)], -1)
    return digits.repeat(3, axis=1).repeat(2, axis=2).astype("float32")


def keys_for(count, epoch=0):
    return np.stack([np.full(count, epoch), np.arange(count)], 1)


def blurred(layer, images, keys=None):
    def call(images, keys):
        return layer(images, training=True, keys=keys)

    if keras.backend.backend() == "jax":
        import jax

        call = jax.jit(call)  # several times faster than to compile each operation of each shape alone
    return ops.convert_to_numpy(call(images, keys_for(len(images)) if keys is None else np.asarray(keys)))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7, 9.0, 50.0])  # the last reach beyond the picture several times
def test_the_blur_is_scipys_with_mirrored_edges(pictures, sigma):
    out = blurred(RandomBlur((sigma, sigma), probability=1.0), pictures)
    wanted = ndimage.gaussian_filter(pictures.astype("float64"), sigma, mode="reflect", truncate=8, axes=(1, 2))
    assert np.abs(out - wanted).max() < 1e-3
    assert np.abs(wanted - pictures).max() > 0.5


def test_every_picture_draws_its_own_width_uniformly():
    dots = np.zeros((800, 41, 41, 1), "float32")
    dots[:, 20, 20] = 255
    out = blurred(RandomBlur((0.8, 3.5), probability=1.0), dots, keys=keys_for(800))[..., 0].astype("float64")
    squares = (np.arange(41) - 20.0) ** 2
    down, right = (out.sum(axis) @ squares / 255 for axis in (2, 1))  # a Gaussian's second moment is its variance
    assert np.allclose(down, right, atol=1e-3)
    assert stats.kstest(np.sqrt(down), stats.uniform(0.8, 2.7).cdf).pvalue > 0.001


def test_some_pictures_are_blurred_and_the_others_keep_every_pixel():
    images = np.random.default_rng(0).uniform(0, 255, (1000, 6, 5, 3)).astype("float32")
    for probability in (0.0, 0.3, 1.0):
        out = blurred(RandomBlur((1.0, 2.0), probability), images, keys=keys_for(1000))
        kept = (out == images).all((1, 2, 3))
        assert abs(1 - kept.mean() - probability) <= (0.05 if probability == 0.3 else 0)
        assert (np.abs(out - images).mean((1, 2, 3))[~kept] > 5).all()


def test_a_picture_of_one_colour_keeps_it():
    for value in (0.0, 93.7, 255.0):
        flat = np.full((20, 30, 17, 3), value, "float32")
        out = blurred(RandomBlur((0.1, 8.0), probability=1.0), flat)
        assert 0 <= out.min() and out.max() <= 255
        assert np.allclose(out, value, atol=1e-4)


def test_the_least_width_changes_nothing(pictures):
    assert np.array_equal(blurred(RandomBlur((0.01, 0.01), probability=1.0), pictures), pictures)


def test_each_picture_and_channel_is_blurred_alone(pictures):
    layer, keys = RandomBlur((1.0, 3.0), probability=1.0, seed=3), keys_for(8)
    whole = blurred(layer, pictures, keys=keys)
    others = np.concatenate([pictures[:1], np.zeros_like(pictures[1:])])
    others[..., 1:] = 255
    assert np.allclose(blurred(layer, others, keys=keys)[0, ..., 0], whole[0, ..., 0], atol=1e-4)
    assert np.allclose(blurred(layer, pictures[5:6], keys=keys[5:6]), whole[5:6], atol=1e-4)
    assert np.abs(whole - blurred(layer, pictures, keys=keys_for(8, epoch=1))).max() > 1


def test_whole_numbers_are_rounded(pictures):
    layer, keys = RandomBlur(probability=1.0), keys_for(8)
    out = blurred(layer, pictures.astype("uint8"), keys=keys)
    assert out.dtype == np.uint8
    assert np.array_equal(out, np.round(blurred(layer, pictures, keys=keys)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigma": (0.0, 1.0)}, r"`sigma` must be a pair .*0.01 <= low <= high <= 50. Received: sigma=\(0.0, 1.0\)"),
        ({"sigma": (2, 1)}, r"Received: sigma=\(2, 1\)"),
        ({"sigma": (1, 51)}, r"Received: sigma=\(1, 51\)"),
        ({"sigma": 1.0}, "Received: sigma=1.0"),
        ({"probability": 1.1}, r"`probability` must lie in \[0, 1\]. Received: probability=1.1"),
    ],
)
def test_arguments_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        RandomBlur(**given)


def test_graphs_of_unknown_sides_and_xla_blur_the_same(pictures):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function compiles Keras layers on the TensorFlow backend")
    layer, keys = RandomBlur((0.5, 4.0)), keys_for(8)
    eager = blurred(layer, pictures, keys=keys)
    assert layer.supports_jit
    unknown = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, 2), tf.int64)]
    for given in ({"input_signature": unknown}, {"jit_compile": True}):
        graph = tf.function(lambda images, keys: layer(images, training=True, keys=keys), **given)
        assert np.allclose(graph(pictures, keys), eager, atol=1e-3)
