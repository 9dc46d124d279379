"""What holds for every layer that changes pictures, and for policies of them."""

import keras
import numpy as np
import pytest
from keras import ops

import augment

# layer -> whether XLA compiles it on TensorFlow, whose resampling of affine maps it cannot
XLA = {
    "RandomAffine": False,
    "RandomAffine, flips alone": True,
    "RandomCrop": True,
    "ColorJitter": True,
    "RandomNoise": True,
    "RandomBlur": True,
    "RandomErase": True,
    "TrivialAugment": False,
    "policy medium": False,
    "policy heavy": False,
    "policy none": True,
}
SIZE = (20, 16)  # of RandomCrop; all others keep 24 x 20


def made(name, seed=3, **given):
    layers = {
        "RandomAffine": lambda: augment.RandomAffine(
            "both", rotation=20, zoom=0.2, shear=0.1, shift=0.1, seed=seed, **given
        ),
        "RandomAffine, flips alone": lambda: augment.RandomAffine("both", seed=seed, **given),
        "RandomCrop": lambda: augment.RandomCrop(SIZE, scale=(0.4, 1.0), seed=seed, **given),
        "ColorJitter": lambda: augment.ColorJitter(0.3, 0.3, 0.3, 0.1, 0.2, seed=seed, **given),
        "RandomNoise": lambda: augment.RandomNoise(20, 0.1, probability=0.9, seed=seed, **given),
        "RandomBlur": lambda: augment.RandomBlur((0.5, 2.0), probability=0.8, seed=seed, **given),
        "RandomErase": lambda: augment.RandomErase(probability=0.8, seed=seed, **given),
        "TrivialAugment": lambda: augment.TrivialAugment(seed=seed, **given),
    }
    return augment.policy(name.split()[1], 24, seed) if name.startswith("policy") else layers[name]()


every = pytest.mark.parametrize("name", XLA)
changing = pytest.mark.parametrize("name", [name for name in XLA if name != "policy none"])


def keys_for(images, epoch=0):
    return np.stack([np.full(len(images), epoch), np.arange(len(images))], 1)


def array(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def changed(layer, images, epoch=0):
    return array(layer(images, training=True, keys=keys_for(images, epoch)))


def still(name, images):
    return images[:, 2:22, 2:18] if name == "RandomCrop" else images


@every
def test_outside_training_and_on_a_plain_call_nothing_changes(name, pictures):
    layer = made(name)
    for images in (pictures, pictures.astype("float32") / 3):
        for given in ({}, {"training": False}, {"training": False, "keys": keys_for(images)}):
            out = layer(images, **given)
            assert np.array_equal(ops.convert_to_numpy(out), still(name, images))
            assert keras.backend.standardize_dtype(out.dtype) == images.dtype


@changing
def test_what_a_picture_becomes_depends_on_seed_and_keys_alone(name, pictures):
    layer, images, keys = made(name), pictures.astype("float32"), keys_for(pictures, 5)
    whole = changed(layer, images, 5)
    alone = [array(made(name)(images[[row]], training=True, keys=keys[[row]])) for row in reversed(range(12))]
    assert np.allclose(whole, np.concatenate(alone)[::-1], atol=5e-3)  # a sine's last bit hangs on how many there are
    assert not np.allclose(whole, changed(layer, images, 6), atol=0.6)
    assert not np.allclose(whole, changed(made(name, seed=0), images, 5), atol=0.6)


@changing
def test_without_keys_every_call_draws_anew(name, pictures):
    layer = made(name)
    assert not np.allclose(array(layer(pictures, training=True)), array(layer(pictures, training=True)), atol=0.6)


@every
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_the_dtype_is_kept_and_pixels_stay_within_the_range(name, dtype, pictures):
    layer, keys = made(name), keys_for(pictures)
    out = layer(ops.cast(pictures, dtype), training=True, keys=keys)
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    assert array(out).min() >= 0
    assert array(out).max() <= 255 + 1e-4  # a mean of white pixels, rounded
    exact = changed(layer, pictures.astype("float32"))
    assert np.abs(array(out) - exact).max() <= {"uint8": 0.501, "float16": 0.2, "float32": 0}[dtype]


@every
@pytest.mark.parametrize("channels", [1, 4])
def test_grey_pictures_and_those_with_alpha_are_changed_too(name, channels, pictures):
    images = np.concatenate([pictures, pictures[..., :1]], -1)[..., :channels]
    out = changed(made(name), images)
    assert out.shape == still(name, images).shape
    assert name == "policy none" or not np.array_equal(out, still(name, images))
    if channels == 4 and name in ("ColorJitter", "RandomNoise"):
        assert np.array_equal(out[..., 3], images[..., 3])  # what is transparent stays so


@every
def test_low_precision_changes_nothing(name, pictures):
    images = pictures.astype("float32")
    low = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made(name)))
    if not name.startswith("policy"):
        low = made(name, dtype="mixed_bfloat16")
    assert np.array_equal(changed(low, images), changed(made(name), images))


@every
def test_the_configuration_rebuilds_the_layer(name, pictures):
    layer = made(name)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert np.array_equal(changed(layer, pictures), changed(again, pictures))
    pairs = zip(layer.layers, again.layers, strict=True) if name.startswith("policy") else [(layer, again)]
    for one, other in pairs:
        config = one.get_config()
        assert {key: getattr(one, key) for key in config if key != "dtype"} == {
            key: getattr(other, key) for key in config if key != "dtype"
        }


@every
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_symbolic_output_is_what_comes(name, dtype):
    out = made(name)(keras.Input((None, None, 3), dtype=dtype))
    assert out.shape == ((None, *SIZE, 3) if name == "RandomCrop" else (None, None, None, 3))
    assert out.dtype == dtype
    fixed = made(name)(keras.Input((24, 20, 3), dtype=dtype), training=True)
    assert fixed.shape == ((None, *SIZE, 3) if name == "RandomCrop" else (None, 24, 20, 3))


@every
def test_it_works_in_a_map_over_batches(name, pictures):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("layers of another backend cannot enter TensorFlow's graphs")
    layer = made(name)
    images = tf.data.Dataset.from_tensor_slices((pictures, keys_for(pictures))).batch(5)
    unknown = images.map(lambda images, keys: (tf.ensure_shape(images, (None, None, None, 3)), keys))
    for dataset in (images, unknown):
        out = list(dataset.map(lambda images, keys: layer(images, training=True, keys=keys)))
        assert [len(batch) for batch in out] == [5, 5, 2]
        difference = np.concatenate([array(batch) for batch in out]) - changed(layer, pictures)
        assert np.abs(difference).max() <= 1  # sums of another order, rounded
        assert (difference != 0).mean() < 0.001


@every
def test_xla_compiles_what_it_can(name, pictures):
    layer, images, keys = made(name), pictures.astype("float32"), keys_for(pictures)
    if keras.backend.backend() == "jax":
        import jax

        assert layer.supports_jit
        out = jax.jit(lambda images, keys: layer(images, training=True, keys=keys))(images, keys)
        assert np.allclose(array(out), changed(layer, images), atol=0.05)
        return
    assert layer.supports_jit == XLA[name]
    tf = pytest.importorskip("tensorflow")
    compiled = tf.function(lambda images, keys: layer(images, training=True, keys=keys), jit_compile=True)
    if XLA[name]:
        assert np.allclose(array(compiled(images, keys)), changed(layer, images), atol=0.05)
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match="ImageProjectiveTransform"):
            compiled(images, keys)


@changing
def test_a_model_that_holds_it_predicts_without_it(name, pictures, tmp_path):
    image = keras.Input((24, 20, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(made(name)(image))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    images = pictures.astype("float32")
    plain = array(model(images))
    flat = still(name, images).reshape(12, -1) / 255
    dense = model.layers[-1]
    assert np.allclose(plain, flat @ array(dense.kernel) + array(dense.bias), atol=1e-4)
    assert np.allclose(model.predict(images, verbose=0), plain, atol=1e-5)
    assert not np.allclose(array(model(images, training=True)), plain, atol=1e-2)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert np.allclose(array(again(images)), plain, atol=1e-6)


@pytest.mark.parametrize("name", ["RandomCrop", "policy medium", "policy heavy", "TrivialAugment"])
def test_an_exported_model_does_not_augment(name, pictures, tmp_path):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("SavedModels are exported on the TensorFlow backend")
    image = keras.Input((24, 20, 3), name="image")
    x = keras.layers.Conv2D(4, 3, strides=2)(keras.layers.Rescaling(1 / 255)(made(name)(image)))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    images = pictures.astype("float32")
    model.export(tmp_path / "export", verbose=False)
    exported = tf.saved_model.load(tmp_path / "export")
    for batch in (images, images[:5]):
        assert np.allclose(exported.serve(batch), model.predict(batch, verbose=0), atol=1e-5)
        assert np.array_equal(exported.serve(batch), exported.serve(batch))


@every
def test_a_single_picture_without_a_batch_is_refused(name, pictures):
    with pytest.raises(ValueError, match="expected ndim=4"):
        made(name)(pictures[0], training=True)


@changing
def test_wrong_keys_are_refused(name, pictures):
    with pytest.raises(ValueError, match=r"`keys` must hold integers \(batch, 2\)"):
        made(name)(pictures, training=True, keys=np.zeros((12, 3), int))
