import math

import keras
import numpy as np
import pytest

from callbacks.early_stopping import EarlyStopping


@pytest.fixture
def model():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    network.compile(keras.optimizers.SGD(0.1), "mse")
    return network


def drive(callback, model, values, name="val_loss", *, first=0, state=None):
    """Feeds a callback values of a metric, and gives each epoch its own weights; returns the last epoch, or None."""
    callback.set_model(model)
    model.stop_training = False
    callback.on_train_begin()
    if state is not None:
        callback.set_state(state)
    epoch = None
    for epoch, value in enumerate(values, start=first):
        callback.on_epoch_begin(epoch)
        model.set_weights([np.full_like(weight, epoch) for weight in model.get_weights()])
        callback.on_epoch_end(epoch, {name: value})
        if model.stop_training:
            break
    return epoch


def end(callback, model):
    """Ends a fit; returns the epoch that the model's weights are of."""
    callback.on_train_end()
    return float(model.get_weights()[0][0, 0])


def test_it_waits_and_ends_on_the_best_weights(model):
    stopper = EarlyStopping("val_loss", patience=2)
    assert drive(stopper, model, (3.0, 1.0, 2.0, 1.5, 0.5)) == 3
    assert (stopper.best, stopper.best_epoch, stopper.stopped_epoch) == (1.0, 1, 3)
    assert end(stopper, model) == 1
    assert stopper.reason == (
        "val_loss has not improved since epoch 2 (1), so training was stopped after epoch 4, 2 epochs of patience. "
        "The model has the weights of epoch 2."
    )


def test_weights_that_are_not_finite_are_never_the_best(model):
    stopper = EarlyStopping("val_accuracy", patience=9)
    drive(stopper, model, (0.5,), "val_accuracy")
    model.set_weights([np.full_like(weight, math.nan) for weight in model.get_weights()])
    stopper.on_epoch_end(1, {"val_accuracy": 0.9})  # of a network whose every answer is the first class
    assert end(stopper, model) == 0
    assert (stopper.best, stopper.best_epoch) == (0.5, 0)


def test_it_restores_the_best_weights_without_stopping(model):
    stopper = EarlyStopping("val_accuracy", patience=9)
    drive(stopper, model, (0.5, 0.9, 0.7), "val_accuracy")
    assert stopper.stopped_epoch is None
    assert end(stopper, model) == 1
    assert stopper.reason == (
        "Training ended after epoch 3. val_accuracy was best in epoch 2 (0.9), whose weights the model has."
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_never_the_best(model, bad):
    stopper = EarlyStopping("val_loss", patience=3)
    drive(stopper, model, (bad, 2.0, bad))
    assert (stopper.best, stopper.best_epoch) == (2.0, 1)
    assert end(stopper, model) == 1


def test_without_any_finite_value_the_last_weights_stay(model):
    stopper = EarlyStopping("val_loss", patience=2)
    drive(stopper, model, [math.nan] * 5)
    assert (stopper.best, stopper.stopped_epoch) == (None, 1)
    assert end(stopper, model) == 1
    assert "was never finite, or the weights were not: training was stopped after epoch 2, whose" in stopper.reason


def test_a_change_below_min_delta_is_no_improvement(model):
    assert drive(EarlyStopping("val_loss", patience=1, min_delta=0.1), model, (1.0, 0.95, 0.1)) == 1


def test_no_patience_stops_at_the_first_epoch_without_improvement(model):
    assert drive(EarlyStopping("val_loss", patience=0), model, (2.0, 1.0, 1.5, 0.1)) == 2


def test_it_forgets_an_earlier_fit(model):
    stopper = EarlyStopping("val_loss", patience=2)
    drive(stopper, model, (0.1,))
    drive(stopper, model, (5.0, 6.0))
    assert (stopper.best, stopper.best_epoch, stopper.reason) == (5.0, 0, None)


def test_before_its_start_it_neither_waits_nor_keeps_a_best(model):
    stopper = EarlyStopping("val_loss", patience=2, start_from_epoch=4)
    assert drive(stopper, model, (0.1, 0.2, 0.3, 0.4, 2.0, 1.0, 3.0, 4.0, 5.0)) == 7
    assert (stopper.best, stopper.best_epoch) == (1.0, 5)
    assert end(stopper, model) == 5


@pytest.mark.parametrize("later", [(), (math.nan,)])
def test_a_fit_without_a_finite_value_behind_its_start_ends_on_the_best_before_it(model, later):
    stopper = EarlyStopping("val_loss", patience=2, start_from_epoch=3)
    drive(stopper, model, (3.0, 1.0, 2.0, *later))
    assert end(stopper, model) == 1
    assert stopper.best_epoch == 1


def test_smoothing_compares_the_corrected_average(model):
    values = (4.0, 1.0, math.nan, 3.0, 3.0)
    stopper = EarlyStopping("val_loss", patience=9, smoothing=0.5)
    drive(stopper, model, values[:2])
    assert stopper.best == pytest.approx((0.25 * 4 + 0.5 * 1) / 0.75)  # 2, by hand
    drive(stopper, model, values)
    # the finite values 4, 1, 3, 3 average to 4, 2, 2.57, 2.8
    assert (stopper.best, stopper.best_epoch) == (pytest.approx(2.0), 1)
    end(stopper, model)
    assert stopper.reason.startswith("Training ended after epoch 5. Smoothed val_loss was best in epoch 2 (2),")


def test_a_lucky_epoch_is_not_the_best_of_smoothed_values(model):
    stopper = EarlyStopping("val_loss", patience=9, smoothing=0.8)
    drive(stopper, model, (5.0, 0.9, 5.0, 1.0, 1.0, 1.0))
    assert stopper.best_epoch == 5


@pytest.mark.parametrize("cut", range(7))
def test_it_goes_on_where_it_stood(model, cut):
    values = (3.0, math.nan, 1.0, 1.5, 0.9, 1.2, 1.3, 0.1)
    settings = {"patience": 2, "start_from_epoch": 1, "smoothing": 0.3}
    whole = EarlyStopping("val_loss", **settings)
    assert drive(whole, model, values) == 6
    wanted = end(whole, model)

    first, second = EarlyStopping("val_loss", **settings), EarlyStopping("val_loss", **settings)
    drive(first, model, values[:cut])
    state = first.get_state()
    model.set_weights([np.full_like(weight, -1) for weight in model.get_weights()])
    drive(second, model, values[cut:], first=cut, state=state)
    assert end(second, model) == wanted
    for name in ("best", "best_epoch", "stopped_epoch", "reason"):
        assert getattr(second, name) == getattr(whole, name)


def test_gone_on_with_after_it_had_stopped_it_stops_again_on_the_best_weights(model):
    stopper = EarlyStopping("val_loss", patience=1)
    drive(stopper, model, (1.0, 2.0))
    state, again = stopper.get_state(), EarlyStopping("val_loss", patience=1)
    model.set_weights([np.full_like(weight, -1) for weight in model.get_weights()])
    drive(again, model, (0.1, 0.1), first=2, state=state)
    assert end(again, model) == 0
    assert (again.best_epoch, again.stopped_epoch) == (0, 1)


def test_the_direction_comes_from_the_compiled_metric(model):
    model.compile("sgd", "mse", metrics=[keras.metrics.R2Score(name="wobble")])
    stopper = EarlyStopping("val_wobble")
    drive(stopper, model, (0.1, 0.9, 0.5), "val_wobble")
    assert stopper.best == 0.9


def test_an_unknown_direction_is_said_before_the_first_epoch(model):
    with pytest.raises(ValueError, match="does not tell whether more is better"):
        drive(EarlyStopping("val_wobble"), model, ())


def test_a_metric_that_is_not_logged_is_an_error_that_lists_those_that_are(model):
    with pytest.raises(ValueError, match="no metric 'val_loss'. They hold: loss"):
        drive(EarlyStopping(), model, (1.0,), "loss")


@pytest.mark.parametrize(
    "wrong",
    [
        {"patience": -1},
        {"patience": math.nan},
        {"patience": 2.5},
        {"min_delta": -0.1},
        {"start_from_epoch": -1},
        {"smoothing": 1.0},
        {"direction": "up"},
    ],
)
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must"):
        EarlyStopping(**wrong)


def test_what_is_no_number_and_no_name_is_refused():
    with pytest.raises(TypeError, match="`patience` must be a number. Received: patience='3'"):
        EarlyStopping(patience="3")
    with pytest.raises(TypeError, match="`monitor` must be the name of a metric in the logs. Received: monitor=None"):
        EarlyStopping(monitor=None)


def test_a_fit_ends_on_the_weights_of_its_best_epoch(model):
    kept = []
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    model.compile(keras.optimizers.SGD(1.5), "mse")  # diverges
    stopper = EarlyStopping("loss", patience=3)
    x = np.random.default_rng(0).normal(size=(16, 2))
    history = model.fit(x, x @ [1.0, 2.0], epochs=9, batch_size=4, verbose=0, callbacks=[stopper, keep]).history
    best = int(np.nanargmin(history["loss"]))
    assert len(history["loss"]) == best + 4
    for ours, wanted in zip(model.get_weights(), kept[best], strict=True):
        assert np.array_equal(ours, wanted)
    assert not np.array_equal(model.get_weights()[0], kept[-1][0])
