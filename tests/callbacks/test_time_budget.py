import keras
import numpy as np
import pytest

from callbacks.time_budget import TimeBudget


class Clock:
    """Shows the seconds that the test says have passed."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def drive(epochs, *, steps=1, total=None, behind=0.0, **settings):
    """Epochs of the given seconds, `behind` more after each; returns the budget, the last epoch and its steps."""
    clock = Clock()
    budget = TimeBudget(clock=clock, **settings)
    budget.set_model(model := keras.Sequential())
    budget.set_params({"epochs": total})
    model.stop_training = False
    budget.on_train_begin()
    epoch = done = 0
    for epoch, seconds in enumerate(epochs):
        budget.on_epoch_begin(epoch)
        for done in range(1, steps + 1):
            budget.on_train_batch_begin(done - 1)
            clock.now += seconds / steps
            if model.stop_training:
                break
        budget.on_epoch_end(epoch, {})
        clock.now += behind
        if model.stop_training:
            break
    return budget, epoch, done


def test_it_stops_where_the_next_epoch_would_not_fit():
    budget, epoch, _ = drive([4.0] * 9, seconds=14)
    assert epoch == budget.stopped_epoch == 2
    assert budget.reason == (
        "Training was stopped after epoch 3: of the 14 s 2 s were left, and another epoch takes 4 s."
    )


def test_an_epoch_that_just_fits_is_run():
    assert drive([4.0] * 9, seconds=16)[1] == 3


def test_the_reserve_is_left():
    budget, epoch, _ = drive([4.0] * 9, seconds=16, reserve=5)
    assert epoch == 1
    assert "of the 16 s less 5 s in reserve 3 s were left" in budget.reason


def test_the_first_epoch_which_compiles_does_not_count_once_there_is_another():
    assert drive([10.0] + [2.0] * 9, seconds=19)[1] == 0
    assert drive([10.0] + [2.0] * 9, seconds=20)[1] == 5


def test_the_longest_epoch_is_what_the_next_one_may_take():
    assert drive([1.0, 1.0, 5.0, 1.0, 1.0, 1.0], seconds=12)[1] == 3


def test_what_other_callbacks_do_behind_it_counts():
    assert drive([2.0] * 9, behind=2.0, seconds=13)[1] == 2


def test_an_epoch_longer_than_the_budget_is_cut():
    budget, epoch, steps = drive([20.0], steps=10, seconds=7)
    assert (epoch, steps) == (0, 5)  # 8 s have passed before the fifth step
    assert budget.stopped_epoch == 0
    assert budget.reason == "Epoch 1 was cut short: the 7 s ran out in it."


def test_one_step_is_made_however_small_the_budget():
    assert drive([20.0], steps=10, seconds=1e-9)[1:] == (0, 2)


def test_the_last_epoch_is_not_called_stopped():
    budget, epoch, _ = drive([4.0] * 3, seconds=12.5, total=3)
    assert (epoch, budget.stopped_epoch, budget.reason) == (2, None, None)


def test_time_that_is_up_at_an_epochs_end_is_said():
    assert drive([4.0, 9.0], seconds=10)[0].reason == "Training was stopped after epoch 2: the 10 s ran out."


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`seconds` must be positive. Received: seconds=0"):
        TimeBudget(0)
    with pytest.raises(ValueError, match="`reserve` must not be negative"):
        TimeBudget(1, reserve=-1)
    with pytest.raises(
        ValueError, match="`reserve` must leave something of `seconds`. Received: reserve=20, seconds=10"
    ):
        TimeBudget(10, reserve=20)
    with pytest.raises(TypeError, match="`seconds` must be a number. Received: seconds='10'"):
        TimeBudget("10")


@pytest.mark.parametrize("together", [1, 2])
def test_a_fit_is_cut_within_its_epoch_and_keeps_finite_figures(together):
    clock = Clock()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=together)
    tick = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: setattr(clock, "now", 100.0 + batch))
    x = np.eye(16, 2)
    budget = TimeBudget(4, clock=clock)
    history = model.fit(
        x, np.ones(16), batch_size=1, epochs=3, verbose=0, validation_data=(x, np.ones(16)), callbacks=[tick, budget]
    ).history
    assert model.optimizer.iterations == (5 if together == 1 else 6)
    assert len(history["val_loss"]) == 1
    assert np.isfinite([history["loss"], history["val_loss"]]).all()


def test_it_forgets_an_earlier_fit():
    clock = Clock()
    budget = TimeBudget(4, clock=clock)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.eye(2), np.ones(2), epochs=2, verbose=0, callbacks=[budget])
    clock.now += 100
    history = model.fit(np.eye(2), np.ones(2), epochs=2, verbose=0, callbacks=[budget])
    assert len(history.history["loss"]) == 2
    assert budget.stopped_epoch is None
