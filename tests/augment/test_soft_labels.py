import keras
import numpy as np
import pytest
from keras import ops

from augment.mixing import MixUp
from augment.soft_labels import SoftLabels


def cross_entropy(targets, probabilities, smoothing):
    """Of each row, in float64."""
    targets = targets * (1 - smoothing) + smoothing / targets.shape[1]
    return -(targets * np.log(probabilities)).sum(1)


@pytest.fixture
def mixed_rows():
    """Mixed labels of two classes each, and what a network might say, (40, 5)."""
    rng = np.random.default_rng(0)
    share = rng.random((40, 1))
    labels = share * np.eye(5)[rng.integers(0, 5, 40)] + (1 - share) * np.eye(5)[rng.integers(0, 5, 40)]
    return labels.astype("float32"), rng.dirichlet(np.ones(5), 40).astype("float32")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_class_indices_become_one_hot_rows(dtype):
    rows = SoftLabels(4)(np.array([2, 0, 3], dtype))
    assert keras.backend.standardize_dtype(rows.dtype) == "float32"
    assert np.array_equal(ops.convert_to_numpy(rows), np.eye(4)[[2, 0, 3]])
    assert np.array_equal(ops.convert_to_numpy(SoftLabels(4)([2, 0, 3])), ops.convert_to_numpy(rows))


def test_rows_of_shares_pass_unchanged(mixed_rows):
    labels, _ = mixed_rows
    assert np.array_equal(ops.convert_to_numpy(SoftLabels(5)(labels)), labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_and_smoothing_compose_exactly_with_mixed_labels(mixed_rows, smoothing):
    labels, probabilities = mixed_rows
    weights = np.array([1.0, 0.2, 5.0, 2.0, 1.0])
    soft = SoftLabels(5, label_smoothing=smoothing, class_weights={1: 0.2, 2: 5, 3: 2.0})
    targets, sample_weights = soft.weighed(labels)
    # the loss that is wanted: each class's own loss, by its share and its weight
    wanted = np.zeros(len(labels))
    for index in range(5):
        one_hot = np.tile(np.eye(5)[index], (len(labels), 1))
        wanted += labels[:, index] * weights[index] * cross_entropy(one_hot, probabilities.astype("f8"), smoothing)
    loss = soft.compile()["loss"]
    for rows in range(len(labels)):  # row by row, since Keras gives the mean
        part = slice(rows, rows + 1)
        found = loss(targets[part], probabilities[part], sample_weight=sample_weights[part])
        assert np.isclose(float(found), wanted[rows], rtol=1e-6, atol=1e-6)
    assert np.isclose(float(loss(targets, probabilities, sample_weight=sample_weights)), wanted.mean(), rtol=1e-6)
    assert np.allclose(ops.convert_to_numpy(targets).sum(1), 1, atol=1e-6)


def test_logits_give_the_same_loss(mixed_rows):
    labels, probabilities = mixed_rows
    soft = SoftLabels(5, label_smoothing=0.1)
    from_logits = soft.compile(from_logits=True)["loss"](labels, np.log(probabilities) + 3)
    assert np.isclose(float(from_logits), float(soft.compile()["loss"](labels, probabilities)), rtol=1e-5)


def test_weights_of_unmixed_labels_are_those_of_their_classes():
    for given in ({0: 0.5, 2: 4.0}, [0.5, 1.0, 4.0], np.array([0.5, 1.0, 4.0])):
        targets, weights = SoftLabels(3, class_weights=given).weighed(np.array([2, 0, 1]))
        assert np.array_equal(ops.convert_to_numpy(weights), [4.0, 0.5, 1.0])
        assert np.array_equal(ops.convert_to_numpy(targets), np.eye(3)[[2, 0, 1]])


def test_without_class_weights_nothing_is_weighed(mixed_rows):
    targets, weights = SoftLabels(5).weighed(mixed_rows[0])
    assert np.allclose(ops.convert_to_numpy(targets), mixed_rows[0], atol=1e-6)
    assert np.allclose(ops.convert_to_numpy(weights), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 3]), r"Class indices must lie in 0..2. Received: 0 to 3; `classes` may be too small"),
        (np.array([-1, 0]), "Received: -1 to 0"),
        ([0, 3], "Received: 0 to 3"),
        (
            np.array([[1], [2]], "int32"),
            r"Received: int32 \(2, 1\); indices in a column become \(n,\) by labels\[:, 0\]",
        ),
        (
            np.array([0.0, 1.0], "float32"),
            r"class indices \(n,\), integers, or shares \(n, 3\), floats.*float32 \(2,\)",
        ),
        (np.zeros((2, 4), "float32"), r"shares \(n, 3\), floats. Received: float32 \(2, 4\)"),
        (np.eye(3, dtype="int32"), r"Received: int32 \(3, 3\)"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        SoftLabels(3)(labels)


def test_an_unseen_index_beyond_the_classes_adds_nothing():
    targets, weights = SoftLabels(3, class_weights={0: 2.0}).weighed(ops.convert_to_tensor([5, 0]))
    assert np.array_equal(ops.convert_to_numpy(targets), [[0, 0, 0], [1, 0, 0]])
    assert np.array_equal(ops.convert_to_numpy(weights), [0, 2])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"classes": 1}, "`classes` must be a whole number of at least 2. Received: classes=1"),
        ({"classes": 2.0}, "`classes` must be"),
        ({"label_smoothing": 1.0}, r"`label_smoothing` must lie in \[0, 1\). Received: label_smoothing=1.0"),
        ({"class_weights": {3: 1.0}}, r"`class_weights` must map class indices 0..2 to positive numbers.*{3: 1.0}"),
        ({"class_weights": {0: 0.0}}, "`class_weights` must"),
        ({"class_weights": [1.0, 2.0]}, "`class_weights` must"),
        ({"class_weights": {0: float("nan")}}, "`class_weights` must"),
    ],
)
def test_arguments_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        SoftLabels(**{"classes": 3, **given})


def small_model(soft):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), **soft.compile())
    return model


def test_a_model_learns_from_pictures_mixed_in_a_pipeline(digit_pictures):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.data maps keras.ops on the TensorFlow backend")
    images, labels = digit_pictures[0][..., np.newaxis], digit_pictures[1]
    soft, mix = SoftLabels(3, label_smoothing=0.1, class_weights={2: 2.0}), MixUp(0.4)
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    train = data.shuffle(1000, seed=0).batch(32).map(lambda images, labels: (images, soft(labels)))
    train = train.map(lambda *pair: mix(pair, training=True))
    train = train.map(lambda images, labels: (images, *soft.weighed(labels)))
    dev = data.batch(64).map(lambda images, labels: (images, soft(labels)))
    history = small_model(soft).fit(train, validation_data=dev, shuffle=False, epochs=4, verbose=0).history
    assert history["val_accuracy"][-1] > 0.95
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert (next(iter(train))[1].numpy().max(1) < 0.999).any()  # they were mixed


def test_a_model_learns_from_arrays_mixed_before(digit_pictures):
    soft, mix = SoftLabels(3, label_smoothing=0.1, class_weights={2: 2.0}), MixUp(0.4)
    rows = np.random.default_rng(0).permutation(len(digit_pictures[0]))
    images, labels = digit_pictures[0][rows][..., np.newaxis], digit_pictures[1][rows]
    mixed, targets = mix(images, soft(labels), training=True)
    targets, weights = map(ops.convert_to_numpy, soft.weighed(targets))
    model = small_model(soft)
    model.fit(ops.convert_to_numpy(mixed), targets, sample_weight=weights, epochs=5, verbose=0)
    assert model.evaluate(images, soft(labels), verbose=0, return_dict=True)["accuracy"] > 0.95
