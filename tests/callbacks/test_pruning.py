import math

import keras
import numpy as np
import pytest

from callbacks import Checkpoint, EarlyStopping, Pruning

NAN = math.nan


@pytest.fixture
def model():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    network.compile(keras.optimizers.SGD(0.1), "mse")
    return network


def drive(pruning, model, values, *, first=0, state=None):
    """Feeds a callback values of its metric, as one fit; returns how many epochs were run."""
    pruning.set_model(model)
    model.stop_training = False
    pruning.on_train_begin()
    if state is not None:
        pruning.set_state(state)
    for run, value in enumerate(values):
        pruning.on_epoch_begin(first + run)
        pruning.on_epoch_end(first + run, {pruning.monitor: value})
        if model.stop_training:
            return run + 1
    return len(values)


@pytest.mark.parametrize(
    ("thresholds", "mode", "values", "pruned"),
    [
        ([1.0, 1.0, 1.0], "min", (0.9, 2.0, 2.0), None),  # the best so far counts
        ([None, 1.0, 0.5], "min", (2.0, 1.0, 0.6), 2),  # and equal is not worse
        ([None, None], "min", (9.0, 9.0, 9.0), None),
        ([], "min", (9.0, NAN), None),
        ([0.5], "max", (0.4,), 0),
        ([None, 0.5], "max", (0.4, 0.5), None),
        ([None, 0.5], "min", (0.1, NAN), 1),  # not finite is worse, whatever came before
        ([None, 0.5], "max", (0.9, math.inf), 1),
        ([None, None, 0.5], "min", (NAN, NAN, 0.4), None),
        ([0.5, 0.5], "min", (0.4, 0.9, NAN), None),  # behind the last threshold
    ],
)
def test_it_stops_at_the_first_epoch_whose_best_so_far_is_worse(model, thresholds, mode, values, pruned):
    pruning = Pruning(thresholds, mode=mode)
    assert drive(pruning, model, values) == (len(values) if pruned is None else pruned + 1)
    assert pruning.pruned_epoch == pruned
    assert pruning.ends_run is (pruned is not None) is (pruning.reason is not None)


def test_it_says_why(model):
    pruning = Pruning([None, 0.5])
    drive(pruning, model, (0.75, 0.8))
    assert pruning.reason == "Training was pruned after epoch 2: val_loss was at best 0.75, and 0.5 was asked for."
    drive(pruning, model, (0.1, NAN))
    assert pruning.reason == "Training was pruned after epoch 2: val_loss was nan, and 0.5 was asked for."


def test_another_fit_begins_anew(model):
    pruning = Pruning([None, 0.5])
    drive(pruning, model, (0.1, 0.9))
    assert drive(pruning, model, (0.6, 0.6)) == 2 and pruning.pruned_epoch == 1
    assert drive(pruning, model, (0.6, 0.4)) == 2 and pruning.pruned_epoch is None


def test_fits_that_are_parts_of_a_run_count_on_from_what_came_before(model):
    pruning = Pruning([None, None, 0.5, 0.2])
    pruning.go_on({"loss": [8.0, 7.0], "val_loss": [0.4, 0.8]})
    assert drive(pruning, model, (0.9, 0.8, 0.7), first=10) == 2  # the second part begins at epoch 10 of a plan
    assert pruning.pruned_epoch == 3 and pruning.best == 0.4
    pruning.go_on({})
    assert drive(pruning, model, (0.9, 0.9, 0.9)) == 3 and pruning.pruned_epoch == 2


def test_a_fit_with_an_initial_epoch_counts_from_there(model):
    pruning = Pruning([None, 0.5, 0.2])
    assert drive(pruning, model, (0.3, 0.1), first=2) == 1
    assert pruning.pruned_epoch == 2


def test_another_process_knows_what_this_one_knew(model):
    first = Pruning([None, None, 0.5])
    drive(first, model, (0.4, 0.9))
    second = Pruning([None, None, 0.5, 0.3])
    assert drive(second, model, (0.9, 0.9), first=2, state=first.get_state()) == 2
    assert second.pruned_epoch == 3
    third = Pruning([None, None, 0.5, 0.3])
    drive(third, model, (), state=second.get_state())
    assert model.stop_training and third.ends_run and third.reason == second.reason


@pytest.mark.parametrize("extra", [(), (EarlyStopping(patience=9),)])
def test_a_pruned_fit_is_over_for_its_checkpoint(model, tmp_path, extra):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 2)).astype("float32"), rng.normal(size=(16, 1)).astype("float32")
    for _ in range(2):  # the second one is asked again, and runs no epoch
        pruning = Pruning([None, 0.0], "loss")
        history = model.fit(
            x,
            y,
            epochs=5,
            validation_data=(x, y),
            shuffle=False,
            verbose=0,
            callbacks=[*extra, pruning, Checkpoint(tmp_path / "checkpoints")],
        )
        assert history.epoch == [0, 1] and pruning.pruned_epoch == 1


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"thresholds": 0.5}, TypeError, "`thresholds` must be a list"),
        ({"thresholds": "0.5"}, TypeError, "`thresholds` must be a list"),
        ({"thresholds": [None, "0.5"]}, TypeError, r"`thresholds\[1\]` must be a number"),
        ({"thresholds": [NAN]}, ValueError, r"`thresholds\[0\]` must be finite, or None"),
        ({"thresholds": [], "mode": "auto"}, ValueError, '`mode` must be "min" or "max".*\'auto\''),
        ({"thresholds": [], "monitor": 3}, TypeError, "`monitor` must be the name"),
    ],
)
def test_what_cannot_be_used_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        Pruning(**given)


def test_a_metric_that_is_not_there_is_named(model):
    with pytest.raises(ValueError, match="The logs hold no metric 'val_loss'"):
        Pruning([0.5]).on_epoch_end(0, {"loss": 1.0})
