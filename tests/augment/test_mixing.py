import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from augment.mixing import CutMix, MixUp

LAYERS = [MixUp, CutMix]


def keys_for(images, epoch=0):
    return np.stack([np.full(len(images), epoch), np.arange(len(images))], 1)


def mixed(layer, images, labels, **given):
    return tuple(ops.convert_to_numpy(part) for part in layer(images, labels, training=True, **given))


@pytest.fixture
def pair(digit_pictures):
    """Eight digits of unlike pixels in three channels, uint8 (8, 8, 8, 3), and one-hot labels of classes 0 to 7."""
    images = np.stack([digit_pictures[0][:8] // 2, digit_pictures[0][8:16], digit_pictures[0][16:24]], -1)
    return images, np.eye(8, dtype="float32")


def shares(layer, count):
    """The share of its own that each of many pictures keeps, read from the labels."""
    images = np.zeros((count, 4, 4, 1), "float32")
    labels = np.arange(count)[:, np.newaxis] % 2 * np.float32([[1, -1]]) + np.float32([[0, 1]])  # in turns
    _, targets = mixed(layer, images, labels, keys=keys_for(images))
    return (targets * labels).sum(1)


def kolmogorov_smirnov(drawn, alpha):
    """The statistic, taken where float32 tells numbers from 0 and 1."""
    places = np.linspace(0.0005, 0.9995, 2000)
    found = np.searchsorted(np.sort(drawn), places) / len(drawn)
    return np.abs(found - stats.beta(alpha, alpha).cdf(places)).max()


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1, 30])
def test_the_shares_of_mixup_follow_the_symmetric_beta_distribution(alpha):
    drawn = shares(MixUp(alpha), 20000)
    assert kolmogorov_smirnov(drawn, alpha) < 0.0138  # p = 0.001
    assert abs((drawn < 0.5).mean() - 0.5) < 0.012
    assert abs(drawn.var() - 1 / (4 * (2 * alpha + 1))) < 0.003


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0, 2.5, 100.0])
def test_the_table_of_quantiles_strays_by_half_a_cell_at_most(alpha):
    uniform = np.linspace(0, 1, 2**18, endpoint=False).astype("float32")
    drawn = ops.convert_to_numpy(MixUp(alpha)._beta(uniform))
    assert kolmogorov_smirnov(drawn, alpha) < 1 / 8192 + 1e-5
    assert np.allclose(drawn[1:], 1 - drawn[:0:-1], atol=1e-6)
    assert (np.diff(drawn) >= 0).all()
    assert 0 <= drawn.min() < drawn.max() <= 1


def test_mixup_blends_each_picture_and_label_with_the_next_in_the_same_shares(pair):
    images, labels = pair
    out, targets = mixed(MixUp(1.0), images.astype("float32"), labels, keys=keys_for(images))
    own = targets[np.arange(8), np.arange(8)].astype("float64")
    partner = np.roll(np.arange(8), -1)
    assert np.allclose(targets[np.arange(8), partner], 1 - own, atol=1e-6)
    share = own[:, np.newaxis, np.newaxis, np.newaxis]
    assert np.allclose(out, share * images + (1 - share) * images[partner], atol=1e-3)
    assert len(np.unique(own)) == 8  # each picture draws its own


def test_what_is_mixed_already_is_mixed_on(pair):
    images, labels = pair
    soft = (labels + 0.25).astype("float32") / 3
    _, targets = mixed(MixUp(1.0, seed=3), images, soft, keys=keys_for(images))
    _, own = mixed(MixUp(1.0, seed=3), images, labels, keys=keys_for(images))
    assert np.allclose(targets, own @ soft, atol=1e-6)
    assert np.allclose(targets.sum(1), 1, atol=1e-6)


def test_cutmix_takes_one_box_from_the_next_picture_and_labels_count_its_pixels(pair):
    height, width = 40, 60
    images = np.arange(30)[:, np.newaxis, np.newaxis, np.newaxis] * np.ones((1, height, width, 3))
    out, targets = mixed(CutMix(1.0), images.astype("uint8"), np.eye(30, dtype="float32"), keys=keys_for(images))
    partner = np.roll(np.arange(30), -1)
    clipped = 0
    for row in range(30):
        inside = out[row, :, :, 0] == partner[row]
        assert np.array_equal(out[row], np.where(inside[..., np.newaxis], partner[row], row) * np.ones((1, 1, 3)))
        lines, columns = inside.any(1), inside.any(0)
        assert np.array_equal(inside, np.outer(lines, columns))
        assert (np.diff(np.flatnonzero(lines)) == 1).all()
        assert (np.diff(np.flatnonzero(columns)) == 1).all()
        assert np.isclose(targets[row, row], 1 - inside.mean(), atol=1e-6)
        assert np.isclose(targets[row, partner[row]], inside.mean(), atol=1e-6)
        edges = (lines[0] or lines[-1], columns[0] or columns[-1])
        clipped += any(edges)
        if not any(edges):  # whole boxes have the picture's proportions
            assert abs(lines.sum() / height - columns.sum() / width) <= 1 / height + 1 / width
    assert 5 < clipped < 30


def test_boxes_of_cutmix_have_the_area_of_one_minus_lambda_and_lie_anywhere():
    side, count = 32, 2000
    images = (np.arange(count) % 2)[:, np.newaxis, np.newaxis, np.newaxis] * np.ones((1, side, side, 1), "float32")
    out, _ = mixed(CutMix(1.0), images, np.zeros((count, 2), "float32"), keys=keys_for(images))
    inside = (out != images)[..., 0]
    # how often a box covers the middle, an edge and a corner, from the paper's own words in float64
    share, centre_y, centre_x = np.random.default_rng(0).random((3, 400000))
    half = np.sqrt(1 - share) / 2
    for row, column in ((16, 16), (1, 16), (16, 1), (1, 1)):
        y, x = (row + 0.5) / side, (column + 0.5) / side
        expected = ((np.abs(centre_y - y) < half) & (np.abs(centre_x - x) < half)).mean()
        assert abs(inside[:, row, column].mean() - expected) < 0.035


@pytest.mark.parametrize("layer", LAYERS)
def test_a_share_of_the_pictures_is_mixed_at_all(layer):
    for probability, low, high in ((0.0, 0, 0), (0.3, 0.25, 0.34), (1.0, 0.9, 1)):
        assert low <= (shares(layer(1.0, probability=probability), 2000) < 1).mean() <= high


@pytest.mark.parametrize("layer", LAYERS)
def test_pictures_left_alone_come_back_exactly(pair, layer):
    images, labels = pair[0].astype("float32") / 3, pair[1] * np.float32(0.9)
    out, targets = mixed(layer(probability=0.0), images, labels)
    assert np.array_equal(out, images)
    assert np.array_equal(targets, labels)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_batch_of_one_stays_as_it_is(pair, layer):
    out, targets = mixed(layer(1.0), pair[0][:1], pair[1][:1])
    assert np.array_equal(out, pair[0][:1])
    assert np.array_equal(targets, pair[1][:1])


@pytest.mark.parametrize("layer", LAYERS)
def test_keys_decide_the_share_whatever_the_batch(pair, layer):
    images, labels = pair
    keys = keys_for(images, epoch=4)
    _, whole = mixed(layer(1.0, seed=9), images, labels, keys=keys)
    _, part = mixed(layer(1.0, seed=9), images[2:6], labels[2:6], keys=keys[2:6])
    assert np.array_equal(part[:3], whole[2:5])  # the last of a batch has another partner
    assert not np.array_equal(whole, mixed(layer(1.0, seed=9), images, labels, keys=keys_for(images))[1])
    assert not np.array_equal(whole, mixed(layer(1.0, seed=8), images, labels, keys=keys)[1])


@pytest.mark.parametrize("layer", LAYERS)
def test_without_keys_every_call_draws_anew(pair, layer):
    mix = layer(1.0)
    assert not np.array_equal(mixed(mix, *pair)[1], mixed(mix, *pair)[1])


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("given", [{}, {"training": False}])
def test_outside_training_both_come_back_untouched(pair, layer, given):
    for out in (layer()(*pair, **given), layer()(pair, **given)):
        for part, before in zip(out, pair, strict=True):
            assert np.array_equal(ops.convert_to_numpy(part), before)
            assert keras.backend.standardize_dtype(part.dtype) == before.dtype


@pytest.mark.parametrize("layer", LAYERS)
def test_a_pair_is_taken_like_two_arguments(pair, layer):
    keys = keys_for(pair[0])
    one, two = layer(1.0)(pair, training=True, keys=keys), layer(1.0)(*pair, training=True, keys=keys)
    assert all(np.array_equal(*map(ops.convert_to_numpy, parts)) for parts in zip(one, two, strict=True))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("label_dtype", ["float16", "float32"])
def test_dtypes_are_kept_and_whole_numbers_are_rounded(pair, layer, dtype, label_dtype):
    keys = keys_for(pair[0])
    exact = mixed(layer(1.0), pair[0].astype("float32"), pair[1], keys=keys)[0]
    images, labels = layer(1.0)(ops.cast(pair[0], dtype), ops.cast(pair[1], label_dtype), training=True, keys=keys)
    assert keras.backend.standardize_dtype(images.dtype) == dtype
    assert keras.backend.standardize_dtype(labels.dtype) == label_dtype
    out = ops.convert_to_numpy(ops.cast(images, "float32"))
    if "int" in dtype:
        assert np.array_equal(out, np.round(exact))
    else:
        assert np.allclose(out, exact, atol={"float16": 0.07, "bfloat16": 0.6, "float32": 0}[dtype])


@pytest.mark.parametrize("layer", LAYERS)
def test_low_precision_changes_nothing(pair, layer):
    keys = keys_for(pair[0])
    full = mixed(layer(1.0), *pair, keys=keys)
    low = mixed(layer(1.0, dtype="mixed_bfloat16"), *pair, keys=keys)
    assert all(np.array_equal(*parts) for parts in zip(full, low, strict=True))


def test_the_same_shares_on_every_backend():
    keys = {"keys": [[0, 0], [0, 1], [5, 2]]}
    images, labels = np.zeros((3, 10, 10, 1), "float32"), np.eye(3, dtype="float32")
    blended = np.diag(mixed(MixUp(0.2, seed=1), images, labels, **keys)[1])
    cut = np.diag(mixed(CutMix(seed=1), images, labels, **keys)[1])
    assert np.allclose(blended, MIXUP_GOLDEN, atol=2e-6)
    assert np.allclose(cut, CUTMIX_GOLDEN, atol=1e-6)


MIXUP_GOLDEN = [0.95574105, 0.00014281, 0.79496324]
CUTMIX_GOLDEN = [0.7, 0.7, 0.58]


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        (np.zeros((8,), "int32"), r"int32 \(8,\)"),
        (np.zeros((8, 3), "int32"), r"int32 \(8, 3\)"),
        (np.zeros((8,), "float32"), r"float32 \(8,\)"),
    ],
)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_labels_that_are_no_rows_of_shares_are_refused(pair, layer, labels, received, training):
    message = (
        rf"{layer.__name__} needs labels as floats \(n, classes\), a row of shares a picture. Received: {received}. "
        r"augment.SoftLabels\(classes\) makes them from class indices."
    )
    with pytest.raises(ValueError, match=message):
        layer()(pair[0], labels, training=training)


@pytest.mark.parametrize("layer", LAYERS)
def test_images_and_labels_of_different_number_are_refused(pair, layer):
    with pytest.raises(ValueError, match="a row of labels for each picture. Received: 8 images and 7 rows of labels"):
        layer()(pair[0], pair[1][:7], training=True)


@pytest.mark.parametrize("layer", LAYERS)
def test_missing_labels_and_single_pictures_are_refused(pair, layer):
    with pytest.raises(ValueError, match=r"images \(n, height, width, channels\) and labels.*8, 3\) and no labels"):
        layer()(pair[0], training=True)
    with pytest.raises(ValueError, match=r"Received: images \(8, 8, 3\) and labels"):
        layer()(pair[0][0], pair[1][:1], training=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha": 0}, r"`alpha` must lie in \(0, 100\]. Received: alpha=0"),
        ({"alpha": 101}, r"`alpha` must lie in \(0, 100\]. Received: alpha=101"),
        ({"alpha": None}, "`alpha` must lie in"),
        ({"probability": 1.5}, r"`probability` must lie in \[0, 1\]. Received: probability=1.5"),
        ({"seed": -1}, "`seed` must be a whole number"),
    ],
)
@pytest.mark.parametrize("layer", LAYERS)
def test_arguments_out_of_range_are_refused(layer, given, message):
    with pytest.raises(ValueError, match=message):
        layer(**given)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_configuration_rebuilds_the_layer(layer):
    given = layer(alpha=0.7, probability=0.6, seed=5, name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(given))
    assert type(again) is layer
    assert (again.alpha, again.probability, again.seed, again.name) == (0.7, 0.6, 5, "mine")


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("as_pair", [False, True])
def test_a_model_with_two_inputs_mixes_in_training_only(pair, layer, as_pair, tmp_path):
    image = keras.Input((None, None, 3), dtype="uint8")
    label = keras.Input((8,), dtype="float32")
    outputs = layer(1.0)([image, label]) if as_pair else layer(1.0)(image, label)
    assert [(out.shape, out.dtype) for out in outputs] == [
        ((None, None, None, 3), "uint8"),
        ((None, 8), "float32"),
    ]
    model = keras.Model([image, label], outputs)
    assert np.array_equal(model.predict(list(pair), verbose=0)[0], pair[0])
    assert not np.array_equal(ops.convert_to_numpy(model(list(pair), training=True)[1]), pair[1])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(ops.convert_to_numpy(again(list(pair))[1]), pair[1])
    assert again.layers[-1].alpha == 1.0


@pytest.mark.parametrize("layer", LAYERS)
def test_xla_compiles_it(pair, layer):
    mix, keys = layer(1.0, probability=0.7), keys_for(pair[0])
    assert mix.supports_jit
    eager = mixed(mix, *pair, keys=keys)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(lambda *given: mix(given, training=True, keys=keys), jit_compile=True)
    elif keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(lambda *given: mix(given, training=True, keys=keys))
    else:
        pytest.skip("neither TensorFlow nor JAX")
    out = compiled(*map(ops.convert_to_tensor, pair))
    assert np.abs(ops.convert_to_numpy(out[0]).astype("int32") - eager[0]).max() <= 1  # rounding at a half
    assert np.allclose(ops.convert_to_numpy(out[1]), eager[1], atol=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_pipeline_mixes_like_a_call(pair, layer):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.data maps keras.ops on the TensorFlow backend")
    mix, keys = layer(1.0), keys_for(pair[0])
    data = tf.data.Dataset.from_tensor_slices((*pair, keys)).batch(3)
    spec = (
        tf.TensorSpec((None, None, None, 3), tf.uint8),
        tf.TensorSpec((None, 8), tf.float32),
        tf.TensorSpec((None, 2), tf.int64),
    )
    loose = tf.data.Dataset.from_generator(lambda: iter(data), output_signature=spec)  # sides known only when running
    piped = loose.map(lambda images, labels, keys: mix((images, labels), training=True, keys=keys))
    for start, (images, labels) in zip((0, 3, 6), piped, strict=True):
        part = slice(start, start + 3)
        eager = mixed(mix, pair[0][part], pair[1][part], keys=keys[part])
        assert np.array_equal(images, eager[0])
        assert np.allclose(labels, eager[1], atol=1e-6)
