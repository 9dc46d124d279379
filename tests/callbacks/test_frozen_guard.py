"""Runs on whichever backend Keras has; one test takes JAX in a process of its own where it is installed."""

import importlib.util
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from callbacks import Checkpoint, EarlyStopping, FrozenGuard

SEEN = "after the first step"


@keras.saving.register_keras_serializable("frozen_guard_tests")
class RunningMean(layers.Layer):
    """Statistics as one writes them when nobody thinks of freezing: they move in every training step."""

    def build(self, shape):
        self.mean = self.add_weight(shape=(shape[-1],), name="mean", trainable=False)

    def call(self, x, training=False):
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * keras.ops.mean(x, axis=0))
        return x - self.mean


class Nudge(keras.callbacks.Callback):
    """Moves one weight by the smallest step there is at the end of an epoch."""

    def __init__(self, weight, epoch):
        super().__init__()
        self.weight, self.epoch = weight, epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            value = np.array(keras.ops.convert_to_numpy(self.weight))
            value.flat[0] = np.nextafter(value.flat[0], np.inf, dtype=value.dtype)
            self.weight.assign(value)


def network(*frozen, normal="batch"):
    """Dense, a layer with statistics, dropout, dense; the named layers frozen."""
    made = {"batch": layers.BatchNormalization, "mean": RunningMean}[normal]
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, name="first"),
            made(name="normal"),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(1, name="last"),
        ]
    )
    for name in frozen:
        model.get_layer(name).trainable = False
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def fit(model, *callbacks, epochs=1):
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 1.0, (12, *model.input_shape[1:])).astype("float32")
    y = rng.normal(size=(12, 1)).astype("float32")
    model.fit(x, y, batch_size=4, epochs=epochs, verbose=0, callbacks=list(callbacks))


def test_a_frozen_part_that_stands_still_passes():
    guard = FrozenGuard()
    fit(network("first", "normal", "drop"), guard, epochs=2)
    assert guard.checked == 2 + 4  # the statistics count, the state of the dropout's generator does not
    assert guard.moved is None


def test_where_nothing_is_frozen_nothing_is_checked():
    guard = FrozenGuard()
    fit(network(), guard)
    assert (guard.checked, guard.moved) == (0, None)


def test_frozen_layers_are_found_at_any_depth():
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="deep"), layers.Dense(4)])
    inner.get_layer("deep").trainable = False
    model = keras.Sequential([keras.Input((3,)), keras.Sequential([inner]), layers.Dense(1)])
    model.compile("sgd", "mse")
    guard = FrozenGuard()
    fit(model, guard)
    assert guard.checked == 2


def test_frozen_layers_that_the_first_step_would_build_are_refused():
    def unbuilt(trainable):
        model = keras.Sequential([layers.Dense(4, trainable=trainable), layers.Dense(1)])
        model.compile("sgd", "mse")
        guard = FrozenGuard()
        model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0, callbacks=[guard])
        return guard

    assert unbuilt(trainable=True).checked == 0
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match="is not built yet, so its frozen weights cannot be watched"):
            unbuilt(trainable=False)
    else:  # there fit builds the model before its callbacks begin
        assert unbuilt(trainable=False).checked == 2


def test_a_frozen_layer_that_goes_on_counting_is_caught():
    guard = FrozenGuard()
    with pytest.raises(RuntimeError, match=f"Layer 'normal' is frozen.*normal/mean' had moved {SEEN} of fit: set `tr"):
        fit(network("normal", normal="mean"), guard)
    assert guard.checked == 1
    assert [path.split("/")[-1] for path in guard.moved] == ["mean"]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others trace the step again, or refuse it")
def test_freezing_without_a_new_compile_is_caught():
    model = network()
    fit(model)  # traces the training step with everything in it
    model.get_layer("first").trainable = False
    model.get_layer("normal").trainable = False
    guard = FrozenGuard()
    with pytest.raises(RuntimeError, match="'first'.*as had 5 more of the 6 frozen weights.*compile the model again"):
        fit(model, guard)
    assert {path.split("/")[-1] for path in guard.moved} >= {"kernel", "moving_mean", "moving_variance"}
    model.compile("sgd", "mse")
    fit(model, guard)
    assert guard.moved is None


def test_a_move_after_the_first_step_is_caught_at_the_end():
    model = network("first")
    nudge = Nudge(model.get_layer("first").kernel, epoch=1)
    with pytest.raises(RuntimeError, match="'first'.*first/kernel' had moved at the end of fit"):
        fit(model, FrozenGuard(), nudge, epochs=2)


def test_a_single_step_is_checked_as_well():
    model = network("normal", normal="mean")
    with pytest.raises(RuntimeError, match="moved at the end"):
        model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0, callbacks=[FrozenGuard()])


def test_the_frozen_trunk_of_a_fitted_tail_is_watched_through_the_whole_network():
    whole = network("first", "normal")
    tail = keras.Model(whole.get_layer("normal").output, whole.outputs)
    tail.compile("sgd", "mse")
    guard = FrozenGuard(whole)
    fit(tail, guard, epochs=2)
    assert guard.checked == 6

    mean = whole.get_layer("normal").moving_mean
    fit(tail, FrozenGuard(), Nudge(mean, epoch=0))  # the tail alone does not know the layer
    with pytest.raises(RuntimeError, match="Layer 'normal'.*moving_mean"):
        fit(tail, guard, Nudge(mean, epoch=0))
    assert len(guard.moved) == 1


def test_weights_that_are_put_back_have_not_moved():
    model = network("first", "normal")
    guard = FrozenGuard()
    fit(model, EarlyStopping("loss", patience=1), guard, epochs=3)
    assert (guard.checked, guard.moved) == (6, None)


def test_nan_is_equal_to_itself():
    model = network("first")
    model.get_layer("first").bias.assign([math.nan] * 4)
    guard = FrozenGuard()
    fit(model, guard)
    assert guard.moved is None


def test_half_precision_is_compared_too():
    frozen = layers.Dense(1, dtype="bfloat16", trainable=False, name="half")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), frozen])
    model.compile("sgd", "mse")
    guard = FrozenGuard()
    fit(model, guard)
    assert guard.checked == 2


def test_a_guard_serves_several_fits():
    model = network("first")
    guard = FrozenGuard()
    fit(model, guard)
    model.get_layer("first").kernel.assign(np.ones((3, 4)))  # between two fits anything may be set
    fit(model, guard)
    assert (guard.checked, guard.moved) == (2, None)


def test_a_network_that_the_fitted_model_is_no_part_of_is_refused():
    with pytest.raises(ValueError, match="has no weight in common"):
        fit(network("first"), FrozenGuard(network("first")))
    with pytest.raises(TypeError, match="`model` must be a Keras model, or None. Received: str"):
        FrozenGuard("mobilenet_v2")


def test_weights_that_a_checkpoint_restores_have_not_moved(tmp_path):
    fit(network("first", "normal"), Checkpoint(tmp_path), epochs=1)
    model = network("first", "normal")  # whose frozen layer drew other weights
    drawn = model.get_layer("first").get_weights()[0]
    guard = FrozenGuard()
    fit(model, guard, Checkpoint(tmp_path), epochs=2)
    assert (guard.checked, guard.moved) == (6, None)
    assert not np.array_equal(model.get_layer("first").get_weights()[0], drawn)
    fit(model, guard, Checkpoint(tmp_path), epochs=2)  # runs no epoch, so there is nothing to compare
    assert (guard.checked, guard.moved) == (6, None)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_everything_here_holds_on_jax():
    if keras.backend.backend() == "jax":
        pytest.skip("this process runs on it")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
