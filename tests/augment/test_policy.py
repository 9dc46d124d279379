import subprocess
import sys

import keras
import numpy as np
import pytest

import augment

LIGHT = augment.policy("light", seed=4)


def test_the_policy_none_changes_nothing():
    assert augment.policy("none") is None


def test_an_unknown_policy_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="'wild'. There are: none, light."):
        augment.policy("wild")


def test_every_policy_can_be_had():
    for name in augment.POLICIES:
        made = augment.policy(name, image_size=(24, 20), seed=2)
        assert name == "none" or (made.name, made.seed) == (name, 2)


def test_light_mirrors_and_shifts():
    assert (LIGHT.flip, LIGHT.shift, LIGHT.seed, LIGHT.name) == ("horizontal", 0.1, 4, "light")


def test_a_policy_is_rebuilt_from_its_configuration(digit_pictures):
    images = digit_pictures[0][:8, ..., np.newaxis]
    keys = np.stack([np.full(8, 2), np.arange(8)], 1)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(LIGHT))
    assert again.name == "light"
    one, other = (keras.ops.convert_to_numpy(layer(images, training=True, keys=keys)) for layer in (LIGHT, again))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, images)


def epochs_of(split, batch_size):
    """Two epochs of augmented pictures."""
    from zoo.data import pipeline

    dataset = pipeline.shuffled(split, batch_size, policy=LIGHT)
    return [np.concatenate([images.numpy() for images, _ in dataset]) for _ in range(2)]


def test_a_pipeline_gives_the_same_pictures_for_every_batch_size(digit_pictures):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.data calls the layer in TensorFlow's graphs, which other backends cannot enter")
    import zoo

    split = zoo.load_data(digit_pictures, image_size=8, channels=1).train
    one, other = epochs_of(split, 32), epochs_of(split, 5)
    assert np.array_equal(one, other)
    assert one[0].dtype == np.uint8
    assert not np.array_equal(np.sort(one[0].ravel()), np.sort(one[1].ravel()))  # the next epoch draws anew


def test_names_of_policies_cost_no_keras_import():
    script = "import sys, augment; augment.policy('none'); sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_the_module_names_what_it_has():
    assert "RandomAffine" in dir(augment)
    with pytest.raises(AttributeError, match="'augment' has no attribute 'RandomWild'"):
        _ = augment.RandomWild
