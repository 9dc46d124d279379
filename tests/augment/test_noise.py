import math

import keras
import numpy as np
import pytest
from keras import ops

from augment.noise import RandomNoise, normals


def keys_for(images, epoch=0):
    return np.stack([np.full(len(images), epoch), np.arange(len(images))], 1)


def flat(*shape, value=100, dtype="float32"):
    return np.full(shape, value, dtype)


def changed(layer, images, epoch=0, keys=None):
    keys = keys_for(images, epoch) if keys is None else keys
    call = compiled(layer) if keras.backend.backend() == "jax" else plain(layer)  # JAX compiles each step, or all once
    return ops.convert_to_numpy(call(images, keys))


def plain(layer):
    return lambda images, keys: layer(images, training=True, keys=keys)


def compiled(layer):
    if keras.backend.backend() == "jax":
        return pytest.importorskip("jax").jit(plain(layer))
    return pytest.importorskip("tensorflow").function(plain(layer), jit_compile=True)


def drawn(layer, images, number, high):
    """What each picture draws: 0 whether it is chosen, 1 its standard deviation, 2 its share of bad pixels."""
    return ops.convert_to_numpy(layer.draws.uniform(images, keys_for(images), 0.0, high, number=number))


def standard(images, epoch=0, **given):
    """The noise alone, in standard deviations."""
    layer = RandomNoise(gaussian=12.0, probability=1.0, **given)
    noise = changed(layer, images, epoch) - images
    return noise / ops.convert_to_numpy(layer.draws.uniform(images, keys_for(images, epoch), 0.0, 12.0, number=1))


def far_from_uniform(values, low, high):
    """Kolmogorov and Smirnov's distance, as a multiple of its 1 % bound."""
    ranks = (np.sort(values) - low) / (high - low)
    return np.abs(ranks - np.arange(len(ranks)) / len(ranks)).max() * math.sqrt(len(ranks)) / 1.63


def test_the_noise_is_normal_and_as_strong_as_drawn():
    noise = standard(flat(40, 24, 25, 3, value=128))
    deviations = noise.std(axis=(1, 2, 3))
    assert np.abs(deviations - 1).max() < 5 / math.sqrt(2 * 24 * 25 * 3)
    values = noise.ravel().astype("float64")  # 72,000
    assert abs(values.mean()) < 0.015
    assert abs(values.std() - 1) < 0.01
    assert abs(np.mean(values**3)) < 0.04
    assert abs(np.mean(values**4) - 3) < 0.1
    below = np.vectorize(math.erf)(values / math.sqrt(2))
    assert far_from_uniform(below, -1, 1) < 1


def test_each_picture_draws_its_own_strength_up_to_the_largest():
    images = flat(2000, 6, 6, 3, value=128)
    layer = RandomNoise(gaussian=20.0, probability=1.0)
    deviations = changed(layer, images).std(axis=(1, 2, 3))
    own = drawn(layer, images, 1, 20.0).ravel()
    assert np.corrcoef(deviations, own)[0, 1] > 0.98
    assert far_from_uniform(own, 0, 20) < 1
    assert own.max() > 19.9


@pytest.mark.parametrize("size", [(3, 3, 3), (4, 3, 2)])  # an odd number of values, and an even one
def test_pixels_channels_pictures_and_epochs_are_independent(size):
    count = 4000
    noise = standard(flat(count, *size, value=128)).reshape(count, -1)
    other = standard(flat(count, *size, value=128), epoch=1).reshape(count, -1)
    places = noise.shape[1]
    bound = 5 / math.sqrt(count)
    for function in (np.asarray, np.square, np.abs):
        values, others = function(noise), function(other)
        if function is np.asarray or places % 2 == 0:  # the value in the middle of an odd number serves two points
            assert np.abs(np.corrcoef(values.T) - np.eye(places)).max() < bound  # every place with every other
        assert abs(np.corrcoef(values.ravel(), others.ravel())[0, 1]) < bound / math.sqrt(places)
        assert abs(np.corrcoef(values[1:].ravel(), values[:-1].ravel())[0, 1]) < bound / math.sqrt(places)


def test_another_seed_makes_other_noise():
    images = flat(4, 30, 30, 3, value=128)
    assert abs(np.corrcoef(standard(images).ravel(), standard(images, seed=1).ravel())[0, 1]) < 0.05


def test_normal_values_are_finite_at_the_ends_of_the_range():
    least, most = 0.0, 1 - 2**-24
    ends = np.float32([[u, v] for u in (least, most) for v in (least, most)]).reshape(4, 1, 2, 1)
    values = ops.convert_to_numpy(normals(ends))
    assert np.isfinite(values).all()
    assert np.abs(values[:2]).max() == 0  # no radius
    assert np.allclose(values[2, 0, :, 0], [math.sqrt(48 * math.log(2)), 0], atol=1e-4)
    assert np.abs(values).max() < 5.8


def test_salt_and_pepper_hit_whole_pixels_in_the_drawn_share():
    images = flat(60, 50, 50, 3)
    layer = RandomNoise(gaussian=0, salt_and_pepper=0.4, probability=1.0)
    out = changed(layer, images)
    assert set(np.unique(out)) == {0, 100, 255}
    assert (np.ptp(out, axis=-1) == 0).all()
    black, white = ((out[..., 0] == value).mean(axis=(1, 2)) for value in (0, 255))
    shares = drawn(layer, images, 2, 0.4).ravel()
    bound = 5 * np.sqrt(0.2 / 2500)
    assert np.abs(black - shares / 2).max() < bound
    assert np.abs(white - shares / 2).max() < bound
    assert abs(black.mean() - white.mean()) < 0.01
    assert far_from_uniform(drawn(layer, flat(2000, 1, 1, 1), 2, 0.4).ravel(), 0, 0.4) < 1


def test_salt_and_pepper_fall_independently():
    images = flat(3000, 3, 3, 1)
    out = changed(RandomNoise(gaussian=0, salt_and_pepper=1.0, probability=1.0), images)
    signs = np.sign(out - images).reshape(3000, 9)  # -1, 0 or 1; zero on average whatever the picture's share
    assert np.abs(np.corrcoef(signs.T) - np.eye(9)).max() < 5 / math.sqrt(3000)
    assert abs(np.corrcoef(signs[1:].ravel(), signs[:-1].ravel())[0, 1]) < 5 / math.sqrt(27000)


def test_salt_and_pepper_cover_the_noise_and_leave_it_elsewhere():
    images = flat(20, 20, 20, 3)
    both = changed(RandomNoise(127.0, salt_and_pepper=0.5, probability=1.0), images)
    bad = changed(RandomNoise(0.0, salt_and_pepper=0.5, probability=1.0), images)
    noise = changed(RandomNoise(127.0, probability=1.0), images)
    assert np.array_equal(both, np.where(bad == 100, noise, bad))
    assert 0.1 < (bad != 100).mean() < 0.4


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_pictures_are_changed_with_their_probability_and_else_untouched(probability):
    images = flat(1500, 5, 5, 3)
    out = changed(RandomNoise(salt_and_pepper=0.5, probability=probability), images)
    touched = (out != images).any(axis=(1, 2, 3))
    assert abs(touched.mean() - probability) <= (0.05 if 0 < probability < 1 else 0)


def test_nothing_asked_changes_nothing():
    images = flat(8, 5, 5, 3)
    assert np.array_equal(changed(RandomNoise(gaussian=0, probability=1.0), images), images)


def test_pixels_stay_within_the_range_and_integers_are_rounded():
    images = flat(20, 16, 16, 3, value=10)
    layer = RandomNoise(gaussian=127.0, probability=1.0)
    out = changed(layer, images)
    assert out.min() == 0
    assert out.max() <= 255
    assert changed(layer, flat(20, 16, 16, 3, value=240)).max() == 255
    whole = changed(layer, images.astype("uint8"))
    assert whole.dtype == np.uint8
    assert np.array_equal(whole, np.round(out))


def test_alpha_stays_whatever_it_holds():
    images = flat(6, 8, 8, 4)
    images[..., 3] = np.linspace(-50, 400, 6)[:, None, None]  # clipping would show
    out = changed(RandomNoise(gaussian=50.0, salt_and_pepper=0.9, probability=1.0), images)
    assert np.array_equal(out[..., 3], images[..., 3])
    assert (out[..., :3] != images[..., :3]).mean() > 0.9
    two = changed(RandomNoise(gaussian=50.0, probability=1.0), flat(6, 8, 8, 2))
    assert (two != 100).mean(axis=(0, 1, 2)).min() > 0.9  # no alpha among two


def test_an_empty_batch_stays_empty():
    assert changed(RandomNoise(salt_and_pepper=0.1), np.zeros((0, 4, 4, 3), "uint8")).shape == (0, 4, 4, 3)


def test_what_is_drawn_is_the_same_on_every_backend_and_in_every_release():
    layer = RandomNoise(30.0, salt_and_pepper=0.5, probability=1.0, seed=7)
    out = changed(layer, flat(2, 3, 3, 1), keys=np.array([[0, 0], [3, 41]]))[..., 0]
    golden = [
        [[0, 86.0037, 82.9034], [0, 255, 78.8084], [0, 255, 97.7661]],
        [[95.1915, 94.0691, 119.4285], [90.6995, 124.6609, 86.9633], [125.1907, 108.2418, 104.8609]],
    ]
    assert np.allclose(out, golden, atol=0.01)


def test_xla_compiles_it_to_the_same():
    layer, images = RandomNoise(salt_and_pepper=0.3, probability=0.8), flat(12, 9, 11, 3)
    keys = keys_for(images)
    assert layer.supports_jit
    assert np.allclose(compiled(layer)(images, keys), plain(layer)(images, keys), atol=1e-3)


def test_a_pipeline_of_any_size_gives_the_same():
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("layers run in tf.data on the TensorFlow backend")
    layer, images = RandomNoise(salt_and_pepper=0.3), flat(12, 9, 11, 3)
    sizes = [tf.TensorSpec((None, None, None, 3), tf.float32), tf.TensorSpec((None, 2), tf.int64)]
    call = tf.function(lambda images, keys: layer(images, training=True, keys=keys), input_signature=sizes)
    assert np.allclose(call(images, keys_for(images)), changed(layer, images), atol=1e-3)
    colours_unknown = tf.TensorSpec((None, None, None, None), tf.float32)
    with pytest.raises(ValueError, match="known number of channels"):
        tf.function(lambda images: layer(images, training=True)).get_concrete_function(colours_unknown)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gaussian": 128}, r"`gaussian` must lie in \[0, 127\]. Received: gaussian=128"),
        ({"gaussian": "much"}, r"`gaussian` must lie in \[0, 127\]. Received: gaussian='much'"),
        ({"salt_and_pepper": 1.01}, r"`salt_and_pepper` must lie in \[0, 1\]. Received: salt_and_pepper=1.01"),
        ({"probability": -1}, r"`probability` must lie in \[0, 1\]. Received: probability=-1"),
    ],
)
def test_arguments_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        RandomNoise(**given)
