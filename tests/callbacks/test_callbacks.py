import math

import keras
import numpy as np
import pytest

from callbacks import CosineDecay, EarlyStopping, TimeBudget


@pytest.fixture
def model():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    network.compile(keras.optimizers.SGD(0.1), "mse")
    return network


def drive(callback, model, logs, first=0):
    """Feeds a callback hand-written logs, and gives each epoch its own weights; returns the epochs that were run."""
    callback.set_model(model)
    model.stop_training = False
    callback.on_train_begin()
    for epoch, values in enumerate(logs, start=first):
        callback.on_epoch_begin(epoch)
        model.set_weights([np.full_like(weight, epoch) for weight in model.get_weights()])
        callback.on_epoch_end(epoch, values)
        if model.stop_training:
            break
    callback.on_train_end()
    return epoch


def weights_of(model):
    return float(model.get_weights()[0][0, 0])


def test_early_stopping_waits_and_ends_on_the_best_weights(model):
    stopper = EarlyStopping("val_loss", patience=2)
    last = drive(stopper, model, [{"val_loss": value} for value in (3.0, 1.0, 2.0, 1.5, 0.5)])
    assert last == 3
    assert (stopper.best, stopper.best_epoch, stopper.stopped_epoch) == (1.0, 1, 3)
    assert weights_of(model) == 1


def test_early_stopping_restores_the_best_weights_without_stopping(model):
    stopper = EarlyStopping("val_accuracy", patience=9)
    drive(stopper, model, [{"val_accuracy": value} for value in (0.5, 0.9, 0.7)])
    assert stopper.stopped_epoch is None
    assert weights_of(model) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_never_the_best(model, bad):
    stopper = EarlyStopping("val_loss", patience=3)
    drive(stopper, model, [{"val_loss": value} for value in (bad, 2.0, bad)])
    assert (stopper.best, stopper.best_epoch) == (2.0, 1)
    assert weights_of(model) == 1


def test_without_any_finite_value_there_is_no_best(model):
    stopper = EarlyStopping("val_loss", patience=2)
    drive(stopper, model, [{"val_loss": math.nan}] * 2)
    assert stopper.best is None
    assert weights_of(model) == 1  # what the last epoch left


def test_a_change_below_min_delta_is_no_improvement(model):
    stopper = EarlyStopping("val_loss", patience=1, min_delta=0.1)
    assert drive(stopper, model, [{"val_loss": value} for value in (1.0, 0.95, 0.1)]) == 1


def test_early_stopping_forgets_an_earlier_fit(model):
    stopper = EarlyStopping("val_loss", patience=2)
    drive(stopper, model, [{"val_loss": 0.1}])
    drive(stopper, model, [{"val_loss": 5.0}, {"val_loss": 6.0}])
    assert (stopper.best, stopper.best_epoch) == (5.0, 0)


def test_a_metric_that_is_not_logged_is_an_error_that_lists_those_that_are(model):
    with pytest.raises(ValueError, match="no metric 'val_loss'. They hold: accuracy, loss"):
        drive(EarlyStopping(), model, [{"loss": 1.0, "accuracy": 0.5}])


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_loss", "min"),
        ("val_accuracy", "max"),
        ("val_f1_score", "max"),
        ("mean_squared_error", "min"),
        ("auc", "max"),
    ],
)
def test_the_direction_is_read_from_the_name(name, direction):
    assert EarlyStopping(name).direction == direction


def test_a_name_without_a_direction_asks_for_one():
    with pytest.raises(ValueError, match="does not tell whether more is better"):
        EarlyStopping("val_wobble")
    assert EarlyStopping("val_wobble", direction="max").direction == "max"


def test_cosine_decay_follows_its_formula(model):
    rates = []
    decay = CosineDecay(4, floor=0.01)
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(logs["learning_rate"]))
    model.fit(np.zeros((4, 2)), np.zeros(4), epochs=5, verbose=0, callbacks=[decay, watch])
    wanted = [0.01 + 0.09 * (1 + math.cos(math.pi * min(t / 4, 1))) / 2 for t in range(5)]
    assert np.allclose(rates, wanted, rtol=1e-5)
    assert rates[0] == pytest.approx(0.1)


def test_cosine_decay_begins_at_its_first_epoch(model):
    history = model.fit(
        np.zeros((4, 2)), np.zeros(4), initial_epoch=3, epochs=6, verbose=0, callbacks=[CosineDecay(2, first_epoch=4)]
    ).history
    assert np.allclose(history["learning_rate"], [0.1, 0.1, 0.05], rtol=1e-5)


def test_cosine_decay_refuses_what_it_cannot_do(model):
    with pytest.raises(ValueError, match="`epochs`"):
        CosineDecay(0)
    with pytest.raises(ValueError, match="`floor` must not be negative"):
        CosineDecay(3, floor=-1)
    with pytest.raises(ValueError, match="above the optimizer's rate"):
        drive(CosineDecay(3, floor=1.0), model, [{}])
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)), "mse")
    with pytest.raises(ValueError, match="schedule of its own"):
        drive(CosineDecay(3), model, [{}])


def test_time_budget_stops_at_the_first_epoch_end_behind_it(model):
    times = iter((0.0, 4.0, 9.0, 11.0))
    budget = TimeBudget(10, clock=lambda: next(times))
    assert drive(budget, model, [{}] * 9) == 2
    assert budget.stopped_epoch == 2
    with pytest.raises(ValueError, match="`seconds` must be positive"):
        TimeBudget(0)
