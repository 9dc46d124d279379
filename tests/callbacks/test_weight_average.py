import keras
import numpy as np
import pytest
from keras import layers

from callbacks.early_stopping import EarlyStopping
from callbacks.syncing import synchronize
from callbacks.weight_average import WeightAverage

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)
EAGER = keras.backend.backend() == "tensorflow"  # for a few steps, the quicker way


def network(*frozen):
    """Dense, batch normalisation, dropout, dense; the named layers frozen."""
    keras.utils.set_random_seed(3)
    parts = [
        layers.Dense(4, name="first"),
        layers.BatchNormalization(name="normal"),
        layers.Dropout(0.5),
        layers.Dense(1),
    ]
    model = keras.Sequential([keras.Input((3,)), *parts])
    for name in frozen:
        model.get_layer(name).trainable = False
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9), "mse", metrics=["mae"])
    return model


def parabola(rate):
    """One weight w with the loss w ** 2, from w = 1: a step of SGD makes it w * (1 - 2 * rate)."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(rate), "mse", metrics=["mae"], run_eagerly=EAGER)
    return model


def fit(model, callbacks, epochs=4, **options):
    """Epochs of one step on the parabola."""
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    options = {"validation_data": (one, zero), "epochs": epochs, "verbose": 0} | options
    return model.fit(one, zero, callbacks=callbacks, **options).history


def weight(model):
    return float(model.get_weights()[0][0, 0])


class Trace(keras.callbacks.Callback):
    """The weights after every step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        synchronize(self.model)
        self.steps.append([np.array(value) for value in self.model.get_weights()])


def test_the_average_of_a_fit_follows_the_formula():
    model, trace = network(), Trace()
    model.fit(X, Y, batch_size=16, epochs=3, verbose=0, callbacks=[WeightAverage(0.8), trace])
    assert len(trace.steps) == 9
    found = model.get_weights()
    assert len(found) == 8  # kernels, biases, and gamma, beta, mean and variance of batch normalisation
    for i, value in enumerate(found):
        average = 0
        for step in trace.steps:
            average = 0.8 * average + 0.2 * step[i]
        assert np.allclose(value, average / (1 - 0.8**9), rtol=1e-5, atol=1e-7)
    for i in (0, 4):  # a kernel and the mean of batch normalisation: the average is not just the last step
        assert not np.allclose(found[i], trace.steps[-1][i], rtol=1e-3)


def test_the_first_average_is_the_weights_themselves():
    model = parabola(0.25)
    fit(model, [WeightAverage(0.999)], epochs=1, validation_data=None)
    assert weight(model) == 0.5


def test_what_is_frozen_keeps_its_bits():
    model = network("first", "normal")
    before = model.get_weights()
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=[WeightAverage(0.7)])
    after = model.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(before[:6], after[:6], strict=True))
    assert not np.array_equal(before[6], after[6])


def test_the_training_is_what_it_is_without_the_average():
    data = {"batch_size": 16, "epochs": 4, "verbose": 0, "validation_data": (X[:9], Y[:9]), "shuffle": False}
    plain = network().fit(X, Y, **data).history
    model = network()
    averaged = model.fit(X, Y, **data, callbacks=[WeightAverage(0.8)]).history
    assert averaged["loss"] == plain["loss"]
    assert averaged["mae"] == plain["mae"]
    assert averaged["raw_val_loss"] == plain["val_loss"]
    assert averaged["average_val_loss"] != plain["val_loss"]
    assert {len(values) for values in averaged.values()} == {4}


def test_an_average_that_is_better_is_logged_and_becomes_the_model():
    model, average = parabola(1.0), WeightAverage(0.5)  # w is -1, 1, -1, 1
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(weight(model)))
    history = fit(model, [average, watch])
    wanted = np.array([-1, 1 / 3, -3 / 7, 1 / 3])  # by hand: v = -1/2, 1/4, -3/8, 5/16 over 1/2, 3/4, 7/8, 15/16
    assert history["average_val_mae"] == pytest.approx(abs(wanted), rel=1e-6)
    assert history["raw_val_loss"] == pytest.approx([1, 1, 1, 1])
    assert history["val_loss"] == pytest.approx(wanted**2, rel=1e-6)
    assert history["val_mae"] == pytest.approx(abs(wanted), rel=1e-6)
    assert seen == pytest.approx(wanted, rel=1e-6)
    assert weight(model) == pytest.approx(1 / 3) and average.better is True


def test_an_average_that_is_worse_is_only_logged():
    model, average = parabola(0.25), WeightAverage(0.5)  # w is 1/2, 1/4, 1/8, 1/16
    history = fit(model, [average])
    assert history["val_mae"] == history["raw_val_mae"] == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 16])
    assert history["average_val_mae"][1] == pytest.approx(1 / 3)
    assert weight(model) == 1 / 16 and average.better is False


def test_early_stopping_behind_it_ends_on_the_best_average():
    model = parabola(1.0)
    fit(model, [WeightAverage(0.5), EarlyStopping("val_loss", patience=9)], epochs=3)
    assert weight(model) == pytest.approx(1 / 3)  # of the second epoch; the third has -3/7


def test_epochs_without_validation_log_none_of_it():
    model = parabola(1.0)
    history = fit(model, [WeightAverage(0.5)], epochs=5, validation_freq=2)
    assert {name: len(values) for name, values in history.items() if "val" in name} == {
        f"{kind}val_{name}": 2 for kind in ("", "raw_", "average_") for name in ("loss", "mae")
    }
    assert weight(model) == pytest.approx(-11 / 31)  # the average was better when it was last compared


def test_an_execution_of_several_steps_counts_as_one():
    model = parabola(0.25)
    model.compile(keras.optimizers.SGD(0.25), "mse", steps_per_execution=2)
    data = np.ones((4, 1)), np.zeros((4, 1))
    model.fit(*data, batch_size=1, verbose=0, callbacks=[WeightAverage(0.5)])
    assert weight(model) == pytest.approx((0.25 * 1 / 4 + 0.5 * 1 / 16) / 0.75)


def test_the_weights_of_the_next_step_are_averaged_with_those_of_a_resumed_fit():
    values = [5.0, 3.0, 8.0, 1.0]

    def run(callback, model, steps, state=None, done=0):
        callback.set_model(model)
        callback.on_train_begin()
        if state is not None:
            callback.set_state(state)
        callback.on_epoch_begin(0)
        for step in range(steps):
            callback.on_train_batch_begin(step)
            if step >= done:
                model.set_weights([np.full((1, 1), values[step])])

    def finish(callback):
        callback.on_epoch_end(0, {})
        callback.on_train_end()
        return weight(callback.model)

    whole = WeightAverage(0.5)
    run(whole, parabola(0.1), 4)
    wanted = finish(whole)
    assert wanted == pytest.approx((5 / 16 + 3 / 8 + 8 / 4 + 1 / 2) / (15 / 16))

    half, killed = WeightAverage(0.5), parabola(0.1)
    run(half, killed, 2)
    half.on_train_batch_begin(2)
    state = half.get_state()
    state["begun"] = list(state["begun"])  # as JSON gives it back
    again, resumed = WeightAverage(0.5), parabola(0.1)
    resumed.set_weights(killed.get_weights())
    run(again, resumed, 4, state, done=2)
    assert finish(again) == wanted


class Keep(keras.callbacks.Callback):
    """Weights and state at the end of an epoch, and back into another fit."""

    def __init__(self, average, epoch=None, kept=None):
        super().__init__()
        self.average, self.epoch, self.kept = average, epoch, kept

    def on_train_begin(self, logs=None):
        if self.kept:
            self.model.set_weights(self.kept[0])
            self.average.set_state(self.kept[1])

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.kept = self.model.get_weights(), self.average.get_state()


@pytest.mark.parametrize("last", [1, 3])
def test_a_fit_resumed_between_epochs_goes_on_from_the_weights_themselves(last):
    whole, average = parabola(0.99), WeightAverage(0.5)
    keep = Keep(average, epoch=last)
    history = fit(whole, [average, keep])
    resumed, average = parabola(0.99), WeightAverage(0.5)
    assert keep.kept[1]["raw"] is not None  # the model that was kept held the average
    again = fit(resumed, [average, Keep(average, kept=keep.kept)], initial_epoch=last + 1)
    assert weight(resumed) == weight(whole)
    assert {name: values[last + 1 :] for name, values in history.items()} == (again or dict.fromkeys(history, []))


def drive(values):
    """One epoch of steps that leave these values in the weight; the model at the end."""
    model, callback = parabola(0.1), WeightAverage(0.5)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    for step, value in enumerate(values):
        callback.on_train_batch_begin(step)
        model.set_weights([np.full((1, 1), value)])
    callback.on_epoch_end(0, {})
    callback.on_train_end()
    return weight(model)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_step_that_leaves_a_weight_not_finite_does_not_count(bad):
    assert drive([bad, 5.0, bad, bad, 2.0]) == drive([5.0, 2.0]) == pytest.approx(3)


def test_where_no_step_counts_the_model_is_left_alone():
    assert np.isnan(drive([np.nan, np.nan]))


def test_where_the_weights_break_down_the_average_is_the_better_model():
    model, average = parabola(0.25), WeightAverage(0.5)
    spoil = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: epoch == 2 and model.set_weights([np.full((1, 1), np.nan)])
    )
    history = fit(model, [average, spoil], epochs=3)
    assert np.isnan(history["raw_val_loss"][2]) and average.better is True
    assert weight(model) == pytest.approx(1 / 3)


def test_an_instance_serves_a_second_fit():
    average = WeightAverage(0.5)
    first, second = parabola(1.0), parabola(1.0)
    assert fit(first, [average]) == fit(second, [average])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"`beta` must lie in \[0, 1\). Received: beta=1"):
        WeightAverage(1)
    with pytest.raises(ValueError, match="`monitor` must be a metric on the validation data.*monitor='loss'"):
        WeightAverage(monitor="loss")
    with pytest.raises(TypeError, match="`monitor` must be the name of a metric"):
        WeightAverage(monitor=None)
    with pytest.raises(ValueError, match="`direction` must be"):
        WeightAverage(direction="up")
    with pytest.raises(ValueError, match="does not tell whether more is better"):
        fit(parabola(0.1), [WeightAverage(monitor="val_wobble")])
    with pytest.raises(ValueError, match="no metric 'val_auc'. They hold: val_loss, val_mae"):
        fit(parabola(0.1), [WeightAverage(monitor="val_auc")])


def test_a_list_of_callbacks_in_which_the_average_would_be_lost_is_refused():
    model = parabola(0.1)
    with pytest.raises(ValueError, match="`EarlyStopping` stands before the `WeightAverage`"):
        fit(model, [EarlyStopping(), WeightAverage()])
    with pytest.raises(ValueError, match="two `WeightAverage`s"):
        fit(model, [WeightAverage(), WeightAverage()])
    model.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    with pytest.raises(ValueError, match="`use_ema`"):
        fit(model, [WeightAverage()])
