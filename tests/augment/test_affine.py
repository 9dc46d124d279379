import keras
import numpy as np
import pytest
from keras import ops

from augment import RandomAffine


def keys_for(images, epoch=0):
    return np.stack([np.full(len(images), epoch), np.arange(len(images))], 1)


def augmented(layer, images, **given):
    return ops.convert_to_numpy(layer(images, training=True, **given))


def mirrored(images, *axes):
    return np.flip(images, axes) if axes else images


@pytest.mark.parametrize("given", [{}, {"training": False}, {"training": False, "keys": [[0, 0]] * 12}])
def test_outside_training_and_on_a_plain_call_nothing_changes(pictures, given):
    layer = RandomAffine(flip="both", shift=0.3)
    for images in (pictures, pictures.astype("float32") / 3):
        out = ops.convert_to_numpy(layer(images, **given))
        assert np.array_equal(out, images)
        assert out.dtype == images.dtype


@pytest.mark.parametrize(
    ("flip", "outcomes"),
    [("horizontal", [(), (1,)]), ("vertical", [(), (0,)]), ("both", [(), (0,), (1,), (0, 1)]), (None, [()])],
)
def test_flips_keep_every_pixel_and_take_each_outcome_equally_often(pictures, flip, outcomes):
    image = pictures[2]
    images = np.repeat(image[np.newaxis], 400, axis=0)
    out = augmented(RandomAffine(flip=flip), images, keys=keys_for(images))
    counts = [sum(np.array_equal(picture, mirrored(image, *axes)) for picture in out) for axes in outcomes]
    assert sum(counts) == 400
    assert min(counts) > 400 / len(outcomes) - 40


def test_what_a_picture_becomes_depends_on_its_keys_alone(pictures):
    layer = RandomAffine(flip="both", shift=0.2, seed=5)
    keys = keys_for(pictures, epoch=3)
    whole = augmented(layer, pictures, keys=keys)
    again = RandomAffine(flip="both", shift=0.2, seed=5)
    alone = [augmented(again, pictures[[row]], keys=keys[[row]]) for row in reversed(range(12))]
    assert np.array_equal(whole, np.concatenate(alone)[::-1])
    assert not np.array_equal(whole, augmented(layer, pictures, keys=keys_for(pictures, epoch=4)))
    assert not np.array_equal(whole, augmented(RandomAffine("both", shift=0.2, seed=0), pictures, keys=keys))


def test_without_keys_every_call_draws_anew(pictures):
    layer = RandomAffine(None, shift=0.2)
    assert not np.array_equal(augmented(layer, pictures), augmented(layer, pictures))


def test_a_shift_moves_by_up_to_its_share_of_either_side_in_both_directions():
    ramp = np.zeros((300, 40, 80, 2), "float32")  # each pixel holds its place: row, column
    ramp[..., 0], ramp[..., 1] = np.mgrid[:40, :80]
    out = augmented(RandomAffine(None, shift=0.25), ramp, keys=keys_for(ramp))
    moved = (ramp - out)[:, 20, 40]  # the centre sees no edge
    for side, shifts in zip((40, 80), moved.T, strict=True):
        assert -0.25 * side <= shifts.min() < -0.24 * side
        assert 0.24 * side < shifts.max() <= 0.25 * side
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.2
    assert (np.abs(moved - np.round(moved)) > 0.1).any()  # fractions of a pixel, too


def test_what_comes_in_from_beyond_an_edge_is_mirrored_there():
    ramp = np.tile(np.arange(40, dtype="float32")[:, np.newaxis], (8, 40, 1, 1))
    out = augmented(RandomAffine(None, shift=0.25), ramp, keys=keys_for(ramp))[:, 20, :, 0]
    for row in out:
        shift = 20 - row[20]
        places = np.arange(40) - shift
        beyond = np.abs(places + 0.5) - 0.5 if shift > 0 else 39.5 - np.abs(39.5 - places)
        inner = (beyond >= 0) & (beyond <= 39)  # between a pixel and its mirror image, resampling flattens
        assert inner.sum() >= 38
        assert np.allclose(row[inner], beyond[inner], atol=1e-3)


def test_mirror_and_shift_together_are_the_shifted_mirror_image(pictures):
    both, shift = RandomAffine("horizontal", shift=0.2, seed=1), RandomAffine(None, shift=0.2, seed=1)
    turned, plain = RandomAffine("horizontal", seed=1), pictures.astype("float32")
    keys = keys_for(pictures)
    in_one = augmented(both, plain, keys=keys)
    in_two = augmented(shift, augmented(turned, plain, keys=keys), keys=keys)
    assert np.allclose(in_one, in_two, atol=0.02)
    assert not np.allclose(in_one, augmented(shift, plain, keys=keys), atol=1)  # some were mirrored


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "bfloat16", "float32"])
def test_the_dtype_is_kept_and_whole_numbers_are_rounded(pictures, dtype):
    layer, keys = RandomAffine(None, shift=0.2), keys_for(pictures)
    exact = augmented(layer, pictures.astype("float32"), keys=keys)
    out = layer(ops.cast(pictures, dtype), training=True, keys=keys)
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    out = ops.convert_to_numpy(ops.cast(out, "float32"))
    if "int" in dtype:
        assert np.array_equal(out, np.round(exact))
    else:
        assert np.allclose(out, exact, atol={"float16": 0.07, "bfloat16": 0.6, "float32": 0}[dtype])


def test_black_and_white_stay_within_the_range(pictures):
    for value in (0, 255):
        flat = np.full_like(pictures, value)
        assert (augmented(RandomAffine("both", shift=0.5), flat) == value).all()


def test_low_precision_keeps_places_exact():
    ramp = np.tile(np.arange(300, dtype="float32")[:, np.newaxis], (4, 6, 1, 1))
    full, low = RandomAffine(None, shift=0.1), RandomAffine(None, shift=0.1, dtype="mixed_bfloat16")
    assert np.array_equal(augmented(low, ramp, keys=keys_for(ramp)), augmented(full, ramp, keys=keys_for(ramp)))


def test_the_configuration_rebuilds_the_layer():
    given = {
        "flip": "vertical",
        "rotation": 12,
        "zoom": [0.5, 2],
        "shear": 0.2,
        "shift": 0.3,
        "fill": 40,
        "interpolation": "nearest",
        "seed": 7,
        "name": "mine",
    }
    layer = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(RandomAffine(**given)))
    assert {name: getattr(layer, name) for name in given} == {**given, "zoom": (0.5, 2)}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_symbolic_output_is_what_comes(dtype):
    image = keras.Input((None, None, 3), dtype=dtype)
    out = RandomAffine("horizontal", shift=0.1)(image)
    assert out.shape == (None, None, None, 3)
    assert out.dtype == dtype


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"flip": "sideways"}, r"`flip` must be None, \"horizontal\".*flip='sideways'"),
        ({"rotation": 181}, r"`rotation` must lie in \[0, 180\]. Received: rotation=181"),
        ({"rotation": -1}, "`rotation` must lie in"),
        ({"rotation": (0, 10)}, "`rotation` must lie in"),
        ({"zoom": 1}, r"`zoom` must lie in \[0, 1\). Received: zoom=1"),
        ({"zoom": True}, "`zoom` must lie in"),
        (
            {"zoom": (1.2, 0.8)},
            r"`zoom` must be a pair \(low, high\) with 0.1 <= low <= high <= 10. Rec.*zoom=\(1.2, 0.8\)",
        ),
        ({"zoom": [0.05, 1]}, "`zoom` must be a pair"),
        ({"zoom": (1, 11)}, "`zoom` must be a pair"),
        ({"zoom": (1, 2, 3)}, "`zoom` must be a pair"),
        ({"zoom": ("1", 2)}, "`zoom` must be a pair"),
        ({"shear": 1.1}, r"`shear` must lie in \[0, 1\]. Received: shear=1.1"),
        ({"shear": None}, "`shear` must lie in"),
        ({"shift": 1.0}, r"`shift` must lie in \[0, 1\). Received: shift=1.0"),
        ({"shift": -0.1}, "`shift` must lie in"),
        (
            {"fill": "black"},
            "`fill` must be one of reflect, nearest, or a grey level from 0 to 255. Received: 'black'",
        ),
        ({"fill": 256}, "`fill` must be one of reflect, nearest, or a grey level from 0 to 255. Received: 256"),
        ({"fill": None}, "`fill` must be one of reflect, nearest, or a grey level from 0 to 255. Received: None"),
        ({"flip": ["horizontal"]}, "`flip` must be None"),
        ({"interpolation": "cubic"}, r"`interpolation` must be \"bilinear\" or \"nearest\". Received: 'cubic'"),
        ({"seed": -1}, "`seed` must be"),
    ],
)
def test_arguments_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        RandomAffine(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"rotation": 180, "shear": 1, "fill": 255, "interpolation": "nearest"},
        {"zoom": (0.1, 10), "fill": 0, "flip": None},
        {"zoom": [1, 1], "shift": 0.99},
    ],
)
def test_the_ends_of_the_ranges_are_accepted(pictures, given):
    out = augmented(RandomAffine(**given), pictures.astype("float32"))
    assert out.min() >= 0
    assert out.max() <= 255.001


def test_left_and_right_are_mirrored_by_default_and_nothing_else_is_done(pictures):
    layer, keys = RandomAffine(), keys_for(pictures)
    assert np.array_equal(
        augmented(layer, pictures, keys=keys), augmented(RandomAffine("horizontal"), pictures, keys=keys)
    )
    assert layer.supports_jit


@pytest.mark.parametrize("given", [{"rotation": 5}, {"zoom": 0.1}, {"zoom": (1, 2)}, {"shear": 0.1}, {"shift": 0.1}])
def test_xla_is_left_out_where_tensorflow_resamples(given):
    assert RandomAffine(**given).supports_jit == (keras.backend.backend() != "tensorflow")


@pytest.mark.parametrize("given", [{"rotation": 30}, {"zoom": 0.3}, {"shear": 0.4}, {"shift": 0.2}])
def test_what_one_change_draws_does_not_depend_on_the_others(given):
    ramp = np.zeros((8, 30, 50, 2), "float32")
    ramp[..., 0], ramp[..., 1] = np.mgrid[:30, :50]
    keys = keys_for(ramp)
    alone = augmented(RandomAffine(None, **given), ramp, keys=keys)
    others = {"rotation": 1e-4, "zoom": 1e-6, "shear": 1e-6, "shift": 1e-6, **given}
    assert np.abs(augmented(RandomAffine(None, **others), ramp, keys=keys) - alone).max() < 1e-2


def test_a_single_picture_without_a_batch_is_refused(pictures):
    with pytest.raises(ValueError, match="expected ndim=4"):
        RandomAffine("horizontal")(pictures[0], training=True)


def small_model(shift=0.2, **given):
    image = keras.Input((24, 20, 3), name="image")
    x = RandomAffine("both", shift=shift, name="augment")(image)
    x = keras.layers.Conv2D(4, 3, strides=2)(keras.layers.Rescaling(1 / 255)(x))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **given)
    return model


def test_fit_draws_anew_each_step_and_counts_no_weights(pictures):
    model = small_model()
    model.fit(pictures.astype("float32"), np.arange(12) % 3, batch_size=4, epochs=2, verbose=0)
    layer = model.get_layer("augment")
    drawn = ops.convert_to_numpy(layer.draws.state)[1]
    assert drawn == 6  # steps
    assert layer.weights == []


def test_fit_leaves_xla_out_where_it_cannot_resample(pictures):
    images, labels = pictures.astype("float32"), np.arange(12) % 3
    small_model(shift=0.0, jit_compile=True).fit(images, labels, verbose=0)
    if keras.backend.backend() != "tensorflow":
        small_model(jit_compile=True).fit(images, labels, verbose=0)
        return
    with pytest.warns(UserWarning, match="Proceeding with `jit_compile=False`"):
        model = small_model(jit_compile=True)
    model.fit(images, labels, verbose=0)


def test_predict_and_a_plain_call_agree_and_so_does_the_saved_model(pictures, tmp_path):
    model, images = small_model(), pictures.astype("float32")
    plain = ops.convert_to_numpy(model(images))
    assert np.allclose(model.predict(images, verbose=0), plain, atol=1e-5)
    assert not np.allclose(ops.convert_to_numpy(model(images, training=True)), plain, atol=1e-2)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert np.allclose(ops.convert_to_numpy(again(images)), plain, atol=1e-6)
    assert again.get_layer("augment").flip == "both"


def test_the_exported_model_does_not_augment(pictures, tmp_path):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("SavedModels are exported on the TensorFlow backend")
    model, images = small_model(), pictures.astype("float32")
    model.export(tmp_path / "export", verbose=False)
    exported = tf.saved_model.load(tmp_path / "export")
    for batch in (images, images[:5]):
        assert np.allclose(exported.serve(batch), model.predict(batch, verbose=0), atol=1e-5)
