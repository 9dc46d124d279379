import subprocess
import sys

import keras
import numpy as np
import pytest

import augment

LIGHT = augment.policy("light", seed=4)


def keys_for(images, epoch=0):
    return np.stack([np.full(len(images), epoch), np.arange(len(images))], 1)


def test_the_policy_none_changes_nothing(digit_pictures):
    images = digit_pictures[0][..., np.newaxis]
    out = augment.policy("none")(images, training=True, keys=keys_for(images))
    assert np.array_equal(keras.ops.convert_to_numpy(out), images)
    assert str(augment.policy("none")) == "policy none: nothing is changed"


def test_an_unknown_policy_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="'wild'. There are: none, light, medium, heavy, trivial."):
        augment.policy("wild")


@pytest.mark.parametrize("size", [0, 2.5, (24, 20, 3), "24", True])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="`image_size` must be a positive whole number or"):
        augment.policy("heavy", size)


def test_every_policy_has_its_name_and_seed():
    for name in augment.POLICIES:
        made = augment.policy(name, image_size=(24, 20), seed=2)
        assert made.name == name
        assert [layer.seed for layer in made.layers] == [2] * len(made.layers)
        kinds = [type(layer) for layer in made.layers]
        assert len(set(kinds)) == len(kinds)  # two of a kind would draw alike


def test_light_mirrors_and_shifts():
    (layer,) = LIGHT.layers
    assert (layer.flip, layer.shift, layer.rotation, layer.seed) == ("horizontal", 0.1, 0, 4)


def test_stronger_policies_change_more(pictures):
    images = np.tile(pictures, (8, 1, 1, 1))
    moved = {}
    for name in ("none", "light", "medium", "heavy"):
        out = augment.policy(name, 24)(images, training=True, keys=keys_for(images))
        moved[name] = np.abs(keras.ops.convert_to_numpy(out).astype(float) - images).mean()
    assert moved["none"] == 0 < moved["light"] < moved["medium"] < moved["heavy"]


def test_small_pictures_are_blurred_less():
    def widest(size):
        return next(layer.sigma[1] for layer in augment.policy("heavy", size).layers if layer.name == "blur")

    assert widest(None) == widest(224) == 2.0
    assert widest((64, 96)) == pytest.approx(2.0 * 64 / 224)
    assert widest(8) == 0.2


def test_the_table_shows_every_layer_and_what_it_does():
    lines = str(augment.policy("medium", 224, seed=5)).splitlines()
    assert lines[0] == "policy medium"
    assert [line.split()[0] for line in lines[1:] if line[2] != " "] == ["RandomAffine", "ColorJitter"]
    assert "  RandomAffine    flip           horizontal" in lines
    assert "                  zoom           0.15" in lines
    assert "                  seed           5" in lines
    assert "2 to 2" not in str(augment.policy("heavy"))
    assert "0.8 to 1.5" in str(augment.policy("heavy"))


def test_pictures_are_rounded_once(pictures):
    medium, images = augment.policy("medium", 24), pictures
    exact = keras.ops.convert_to_numpy(medium(images.astype("float32"), training=True, keys=keys_for(images)))
    out = keras.ops.convert_to_numpy(medium(images, training=True, keys=keys_for(images)))
    assert np.array_equal(out, np.round(exact))


def test_policies_can_be_nested_and_crops_change_their_shape(pictures):
    cropped = augment.Policy([LIGHT, augment.RandomCrop((12, 10)), augment.ColorJitter(brightness=0.5)])
    assert cropped(pictures, training=True).shape == cropped(pictures).shape == (12, 12, 10, 3)
    assert cropped(keras.Input((24, 20, 3))).shape == (None, 12, 10, 3)
    assert np.array_equal(keras.ops.convert_to_numpy(cropped(pictures)), pictures[:, 6:18, 5:15])


@pytest.mark.parametrize("layers", [[keras.layers.Rescaling(1 / 255)], [augment.MixUp()], ["light"]])
def test_what_does_not_change_pictures_is_no_part_of_a_policy(layers):
    with pytest.raises(TypeError, match="`layers` must be augmentation layers that change pictures"):
        augment.Policy(layers)


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
    dataset = split.dataset(batch_size, training=True, policy=LIGHT)
    return [np.concatenate([np.asarray(images) for images, _ in dataset]) for _ in range(2)]


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
    script = "import sys, augment; augment.POLICIES; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_the_module_names_what_it_has():
    assert set(augment.__all__) <= set(dir(augment))
    assert all(callable(getattr(augment, name)) for name in augment.__all__ if name != "POLICIES")
    with pytest.raises(AttributeError, match="'augment' has no attribute 'RandomWild'"):
        _ = augment.RandomWild
