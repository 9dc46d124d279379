"""The rate that falls when a metric stands still."""

import json
import math

import keras
import numpy as np
import pytest

from callbacks.plateau import PlateauDecay


@pytest.fixture
def model():
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    network.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    return network


def drive(decay, model, values, name="val_loss", state=None, first=0):
    """Feeds a decay hand-written values; returns the logged rates."""
    decay.set_model(model)
    decay.set_params({"epochs": first + len(values), "steps": 1})
    decay.on_train_begin()
    if state is not None:
        decay.set_state(state)
    rates = []
    for epoch, value in enumerate(values, start=first):
        decay.on_epoch_begin(epoch)
        logs = {name: value}
        decay.on_epoch_end(epoch, logs)
        rates.append(logs["learning_rate"])
    return rates


def test_the_rate_is_cut_when_patience_ends(model):
    decay = PlateauDecay(factor=0.5, patience=2)
    rates = drive(decay, model, [3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0, 1.0])
    assert np.allclose(rates, [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025], rtol=1e-5)
    assert decay.cuts == [3, 6]
    decay.on_train_end()
    assert float(model.optimizer.learning_rate) == np.float32(0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_an_epoch_without_improvement(model, bad):
    decay = PlateauDecay(factor=0.5, patience=2)
    rates = drive(decay, model, [bad, 2.0, bad, bad, 1.0, bad])
    assert decay.cuts == [3]
    assert decay.best == 1.0
    assert rates[-1] == pytest.approx(0.05)


def test_a_metric_that_is_never_finite_has_its_cuts_too(model):
    decay = PlateauDecay(factor=0.5, patience=2)
    drive(decay, model, [math.nan] * 4)
    assert (decay.best, decay.cuts) == (None, [1, 3])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("patience", "cooldown", "floor"), [(1, 0, 0.0), (2, 1, 0.0), (3, 2, 0.02)])
def test_finite_values_are_met_as_by_keras(model, seed, patience, cooldown, floor):
    values = np.round(np.random.default_rng(seed).normal(size=40), 1).tolist()
    ours = drive(
        PlateauDecay("loss", 0.5, patience, min_delta=0.1, cooldown=cooldown, floor=floor), model, values, "loss"
    )
    model.optimizer.learning_rate = 0.1
    # a cooldown of n epochs in Keras passes over n - 1
    keras_own = keras.callbacks.ReduceLROnPlateau(
        "loss", 0.5, patience, min_delta=0.1, cooldown=cooldown + 1, min_lr=floor, mode="min"
    )
    keras_own.set_model(model)
    keras_own.on_train_begin()
    theirs = []
    for epoch, value in enumerate(values):
        logs = {"loss": value}
        keras_own.on_epoch_end(epoch, logs)
        theirs.append(logs["learning_rate"])
    assert np.allclose(ours, theirs, rtol=1e-5)
    assert len(set(theirs)) > 2


def test_a_rising_metric_is_read_as_such(model):
    decay = PlateauDecay("val_accuracy", patience=1)
    drive(decay, model, [0.5, 0.6, 0.7, 0.6], "val_accuracy")
    assert decay.cuts == [3]
    with pytest.raises(ValueError, match="does not tell whether more is better"):
        drive(PlateauDecay("val_wobble"), model, [1.0], "val_wobble")
    decay = PlateauDecay("val_wobble", direction="max", patience=1)
    drive(decay, model, [1.0, 2.0, 1.0], "val_wobble")
    assert decay.cuts == [2]


def test_nothing_is_waited_for_in_the_warm_up(model):
    decay = PlateauDecay(factor=0.5, patience=1, warmup=3)
    rates = drive(decay, model, [1.0] * 6)
    assert np.allclose(rates, [0.025, 0.05, 0.075, 0.1, 0.05, 0.025], rtol=1e-5)


def test_at_the_floor_there_are_no_more_cuts(model):
    decay = PlateauDecay(factor=0.1, patience=1, floor=0.005)
    rates = drive(decay, model, [1.0] * 6)
    assert np.allclose(rates, [0.1, 0.1, 0.01, 0.005, 0.005, 0.005], rtol=1e-5)
    assert decay.cuts == [1, 2]


@pytest.mark.parametrize("at", range(1, 8))
def test_a_resumed_fit_cuts_at_the_same_epochs(model, at):
    values = [3.0, 2.0, 2.0, math.nan, 2.0, 1.0, 1.0, 1.0, 1.0]
    make = lambda: PlateauDecay(factor=0.5, patience=2, cooldown=1)  # noqa: E731
    whole = drive(make(), model, values)
    model.optimizer.learning_rate = 0.1
    first = make()
    drive(first, model, values[:at])
    state = json.loads(json.dumps(first.get_state()))
    again = make()
    rest = drive(again, model, values[at:], state=state, first=at)  # the optimizer stands at the rate of the last epoch
    assert np.allclose(rest, whole[at:], rtol=1e-6)


def test_an_earlier_fit_is_forgotten(model):
    decay = PlateauDecay(factor=0.5, patience=1)
    drive(decay, model, [0.1] * 4)
    decay.on_train_end()
    assert drive(decay, model, [5.0]) == pytest.approx([0.1])
    assert decay.best == 5.0


def test_a_metric_that_is_not_logged_is_an_error_that_lists_those_that_are(model):
    with pytest.raises(ValueError, match="no metric 'val_loss'. They hold: learning_rate, loss"):
        model.fit(np.ones((2, 1)), np.ones(2), verbose=0, callbacks=[PlateauDecay()])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlateauDecay(factor=1.0), "`factor` must lie between 0 and 1"),
        (lambda: PlateauDecay(patience=0), "`patience` must be at least 1"),
        (lambda: PlateauDecay(cooldown=-1), "`cooldown` must be at least 0"),
        (lambda: PlateauDecay(min_delta=-1), "`min_delta` must not be negative"),
        (lambda: PlateauDecay(direction="up"), "`direction` must be"),
        (lambda: PlateauDecay().preview(3, values=[1.0], start=0.1), "one an epoch. Received: 1 values for 3 epochs"),
    ],
)
def test_plateau_decay_refuses_what_it_cannot_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_preview_draws_the_cuts():
    decay = PlateauDecay(factor=0.5, patience=2)
    (axes,) = decay.preview(4, values=[1.0, 2.0, 2.0, 2.0], start=0.1).axes
    assert np.allclose(axes.lines[0].get_ydata()[:4], [0.1, 0.1, 0.1, 0.05])
    (axes,) = decay.preview(8, start=0.1).axes  # a metric that never improves
    assert np.allclose(axes.lines[0].get_ydata()[:8], [0.1] * 3 + [0.05] * 2 + [0.025] * 2 + [0.0125])
