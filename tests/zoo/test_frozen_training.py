"""A frozen network trained on its features, from arrays alone: what must work on every backend, without TensorFlow."""

import keras
import numpy as np
import pytest

import augment
import zoo
from callbacks import EarlyStopping, FrozenGuard


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    model = zoo.create("convnet", classes=3, input_shape=(8, 8, 1), dropout=0.2)
    zoo.freeze(model, "medium")
    return model


@pytest.mark.parametrize("views", [0, 2])
def test_a_tail_learns_from_features_of_arrays(network, digit_pictures, tmp_path, views):
    images, labels = digit_pictures[0][..., np.newaxis], digit_pictures[1]
    trunk, tail = zoo.split_frozen(network)
    policy = augment.policy("light", 8) if views else None
    train = zoo.cache_features(trunk, (images[:400], labels[:400]), policy=policy, views=views, directory=tmp_path)
    dev = zoo.cache_features(trunk, (images[400:], labels[400:]), directory=tmp_path)
    guard = FrozenGuard(network)
    tail.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = tail.fit(
        train.stream(32),
        steps_per_epoch=13,
        validation_data=dev.dataset(64),
        epochs=6,
        callbacks=[guard, EarlyStopping("val_loss", patience=6)],
        shuffle=False,
        verbose=0,
    ).history
    assert guard.checked > 0
    assert max(history["val_accuracy"]) > 0.85
    found = network.predict(images[400:], verbose=0)
    expected = tail.predict(dev.in_order(50), verbose=0)
    assert np.allclose(found, expected, atol=1e-5)
    assert (found.argmax(1) == labels[400:]).mean() == pytest.approx(max(history["val_accuracy"]), abs=0.05)


def test_the_stream_trains_as_the_pictures_would(network, digit_pictures, tmp_path):
    """Each epoch in the order of seed and epoch, whatever iterators the backend starts and drops."""
    images, labels = digit_pictures[0][..., np.newaxis], digit_pictures[1]
    network.get_layer("head_dropout").rate = 0.0
    trunk, tail = zoo.split_frozen(network)
    features = zoo.cache_features(trunk, (images, labels), directory=tmp_path)
    start = tail.get_weights()

    def compiled():
        tail.set_weights(start)
        tail.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")

    compiled()
    steps = -(-len(labels) // 64)
    tail.fit(features.stream(64, seed=4, epoch=1), steps_per_epoch=steps, epochs=3, shuffle=False, verbose=0)
    streamed = tail.get_weights()
    compiled()
    for epoch in (1, 2, 3):
        rows = np.random.default_rng([4, epoch]).permutation(len(labels))
        tail.fit(*features.read(rows), labels[rows], batch_size=64, shuffle=False, verbose=0)
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(streamed, tail.get_weights(), strict=True))
    assert not np.allclose(streamed[0], start[0], atol=1e-4)
