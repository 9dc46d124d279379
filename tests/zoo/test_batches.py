"""Batches where Keras does not run on TensorFlow, weights of classes, and classes drawn equally often."""

import keras
import numpy as np
import pytest

import augment
import zoo
from zoo.data import batches
from zoo.data.order import balanced_order, steps


@pytest.fixture(scope="module")
def train(digit_pictures):
    """Classes of 24, 60 and about 120 pictures."""
    images, labels = digit_pictures
    most = np.array([24, 60, 200])
    within = np.array([np.sum(labels[:i] == label) for i, label in enumerate(labels)])
    kept = within < most[labels]
    return zoo.load_data((images[kept], labels[kept]), image_size=8, channels=1, split=(0.7, 0.3)).train


@pytest.fixture
def elsewhere(monkeypatch):
    """Batches as another backend gets them."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")


def arrays(dataset, count=None):
    """Every part of the batches, each joined."""
    found = [batch for batch, _ in zip(dataset, range(count or len(dataset)), strict=False)]
    return [np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*found, strict=True)]


def mix(images, labels, keys):
    return images, labels * 0.5 + 0.1, keras.ops.cast(keys[:, 1], "float32")


def all_kinds(split):
    """What each kind of batches gives in two epochs or so."""
    policy = augment.policy("light", 8)
    shuffled = batches.shuffled(split, 32, seed=3)
    augmented = batches.shuffled(split, 32, policy=policy, seed=3, balanced=True, class_weights="balanced")
    count = 2 * steps(len(split), 32)
    late = batches.stream(split, 32, policy=policy, mixing=mix, seed=4, epoch=2, step=3, one_hot=True)
    return [
        arrays(batches.in_order(split, 32, one_hot=True, class_weights={"1": 3})),
        arrays(shuffled),
        arrays(shuffled),
        arrays(augmented),
        arrays(augmented),
        arrays(late, count),
        arrays(batches.stream(split, 32, seed=4, balanced=True), count),
    ]


def test_batches_are_the_same_on_every_backend(train, monkeypatch):
    pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("compares with the pipeline of the TensorFlow backend")
    expected = all_kinds(train)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    found = all_kinds(train)
    assert isinstance(batches.in_order(train, 32), keras.utils.PyDataset)
    for one, other in zip(expected, found, strict=True):
        assert [part.dtype for part in one] == [part.dtype for part in other]
        assert [part.shape for part in one] == [part.shape for part in other]
        for mine, yours in zip(one, other, strict=True):
            assert np.abs(mine.astype(float) - yours.astype(float)).max() <= 1e-6
    assert not np.array_equal(found[1][1], found[2][1])  # the second epoch has an order of its own


def test_each_epoch_holds_every_picture_once_whatever_keras_asks_for(train, elsewhere):
    dataset = train.dataset(32, training=True, seed=1)
    assert len(dataset) == dataset.num_batches == steps(len(train), 32)
    dataset.on_epoch_end()  # Keras does this before the first epoch
    first, second = arrays(dataset), arrays(dataset)
    again = train.dataset(32, training=True, seed=1)
    assert np.array_equal(arrays(again)[0], first[0])
    assert not np.array_equal(first[0], second[0])
    for images, labels in (first, second):
        assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in train.pixels())
        assert np.array_equal(np.bincount(labels), np.bincount(train.labels))


def test_a_stream_begins_anywhere(train, elsewhere):
    endless = train.stream(32, seed=1)
    count = steps(len(train), 32)
    late = train.stream(32, seed=1, epoch=2, step=2)
    assert endless.num_batches is None
    assert [len(late[i][0]) for i in range(3)] == [1, 1, 32]  # the first ones are cheap
    for i in range(2, 2 * count):
        assert all(np.array_equal(one, other) for one, other in zip(late[i], endless[2 * count + i], strict=True))


def test_a_model_learns_from_batches_with_weights(train, elsewhere, monkeypatch):
    dataset = train.dataset(32, training=True, policy=augment.policy("light", 8), class_weights="balanced")
    monkeypatch.undo()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, jit_compile=False)
    losses = model.fit(dataset, epochs=10, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2


def test_weights_of_classes(train):
    counts = list(train.counts.values())
    balanced = train.class_weights("balanced")
    assert np.allclose([balanced[i] * counts[i] for i in range(3)], len(train) / 3)
    assert train.class_weights({"2": 0.5}) == {0: 1.0, 1: 1.0, 2: 0.5}
    for given in ("balanced", {"2": 0.5}):
        images, labels, weights = arrays(train.dataset(32, class_weights=given))
        assert weights.dtype == np.float32 and np.array_equal(images, train.pixels())
        assert np.allclose(weights, [train.class_weights(given)[label] for label in labels])
    assert batches.class_weights("balanced", {"a": 2, "b": 0, "c": 6}) == {0: 2.0, 1: 1.0, 2: 2 / 3}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("even", "must be \"balanced\" or {class name: weight}. Received: 'even'"),
        ({"cat": 1}, "names classes that the data does not have: cat. It has: 0, 1, 2."),
        ({"1": 0}, "must be numbers above 0, up to 1000000. Received: 0 for '1'"),
        ({"1": 1e7}, "must be numbers above 0, up to 1000000. Received: 10000000.0 for '1'"),
        ({"1": float("nan")}, "must be numbers above 0, up to 1000000. Received: nan for '1'"),
        ({"1": "2"}, "must be numbers above 0, up to 1000000. Received: '2' for '1'"),
    ],
)
def test_weights_that_cannot_be_are_refused(train, given, message):
    for ask in (train.class_weights, lambda how: train.dataset(class_weights=how)):
        with pytest.raises(ValueError) as caught:
            ask(given)
        assert f"`class_weights` {message}" in str(caught.value)


def test_balanced_draws_every_class_equally_often(train):
    images, labels = arrays(train.dataset(32, training=True, balanced=True))
    assert len(labels) == len(train)
    assert np.ptp(np.bincount(labels)) <= 1
    known = {image.tobytes(): label for image, label in zip(train.pixels(), train.labels, strict=True)}
    assert [known[image.tobytes()] for image in images] == labels.tolist()
    with pytest.raises(ValueError, match="`balanced` is for training alone, .* Add training=True"):
        train.dataset(balanced=True)


def test_a_balanced_class_is_gone_through_before_a_picture_comes_again():
    labels = np.array([0] * 3 + [1] * 7 + [4] * 30)
    epochs = [balanced_order(labels, 5, epoch) for epoch in range(9)]
    assert all(np.array_equal(rows, balanced_order(labels, 5, epoch)) for epoch, rows in enumerate(epochs))
    assert not np.array_equal(epochs[0], balanced_order(labels, 6, 0))
    for past in range(1, 10):
        drawn = np.bincount(np.concatenate(epochs[:past]), minlength=len(labels))
        for label in (0, 1, 4):
            assert np.ptp(drawn[labels == label]) <= 1
        assert np.ptp(np.bincount(labels, drawn)[[0, 1, 4]]) <= 1
    assert balanced_order(np.zeros(0, np.int64), 0, 0).shape == (0,)
