"""What a checkpoint keeps, in one process; kills, full disks and damage are in tests/faults."""

import itertools
import shutil
import signal

import keras
import numpy as np
import pytest
from filelock import FileLock

from callbacks import Checkpoint, CosineDecay, EarlyStopping, TimeBudget, snapshots
from callbacks.interrupts import SIGNALS
from callbacks.stateful import peers

CHANCE = np.random.default_rng(0)
X = CHANCE.normal(size=(64, 5)).astype("float32")
Y = CHANCE.integers(0, 2, 64)


class Lost(Exception):
    """A process that ends in the middle."""


class Breaks(keras.callbacks.Callback):
    """Ends a fit by an error at one of its hooks."""

    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self.lose)

    def lose(self, *_, **__):
        raise Lost


class Loses(keras.callbacks.Callback):
    """Ends a fit by an error when a step begins."""

    def __init__(self, epoch, step):
        super().__init__()
        self.place, self.epoch = (epoch, step), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            raise Lost


def network(*inside):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), *inside, keras.layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(*callbacks, model=None, epochs=4):
    model = model or network()
    dev = (X[:9], Y[:9]) if any(isinstance(callback, EarlyStopping) for callback in callbacks) else None
    model.fit(
        X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, validation_data=dev, callbacks=list(callbacks)
    )
    return model


def same(one, other):
    return one.history.history == other.history.history and all(
        map(np.array_equal, one.get_weights(), other.get_weights())
    )


LONG = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize("place", [pytest.param((0, 3), marks=LONG), pytest.param((2, 0), marks=LONG), (2, 5)])
def test_a_fit_goes_on_to_the_same_end(tmp_path, place):
    def watchers(folder):
        return CosineDecay(4), EarlyStopping("val_loss", patience=9), Checkpoint(tmp_path / folder, seconds=0)

    def rich():
        keras.utils.set_random_seed(0)  # layers draw their seeds when they are made
        return network(keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dropout(0.2))

    whole = fit(*watchers("whole"), model=rich())
    with pytest.raises(Lost):
        fit(*watchers("cut"), Loses(*place), model=rich())
    again = watchers("cut")
    assert again[-1].position == (place if place[1] else (2, 0))
    assert same(fit(*again, model=rich()), whole)
    assert again[1].best_epoch == int(np.argmin(whole.history.history["val_loss"]))


def test_a_fit_in_slices_of_time_ends_like_one_in_one_piece(tmp_path):
    whole = fit(Checkpoint(tmp_path / "whole"))
    for ticks in (4, 13, 7):
        clock = itertools.count()
        fit(TimeBudget(ticks, clock=lambda clock=clock: next(clock)), Checkpoint(tmp_path / "slices"))
    checkpoint = Checkpoint(tmp_path / "slices")
    assert (0, 0) < checkpoint.position < (4, 0)
    assert same(fit(checkpoint), whole)


def test_a_fit_that_was_done_or_had_stopped_is_not_gone_on_with(tmp_path):
    def watchers():
        stopper = EarlyStopping("val_accuracy", "min", patience=1)  # the wrong way, so that it stops
        return stopper, Checkpoint(tmp_path)

    first = fit(*watchers(), epochs=9)
    assert len(first.history.epoch) < 9
    again = watchers()
    assert same(fit(*again, epochs=9), first)
    assert again[-1].written == 0
    assert again[0].best_epoch is not None and "no" not in again[0].reason[:2]


def test_more_epochs_can_be_asked_for(tmp_path):
    whole = fit(Checkpoint(tmp_path / "whole"), epochs=5)
    fit(Checkpoint(tmp_path / "more"), epochs=2)
    assert same(fit(Checkpoint(tmp_path / "more"), epochs=5), whole)


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    class Tells(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_told"] = [3.0, 1.0, float("nan"), 2.0, 2.5][epoch]

    fit(Tells(), Checkpoint(tmp_path, "val_told", "min"), epochs=5)
    assert snapshots.positions(tmp_path) == [(5, 0), (4, 0), (2, 0)]


def test_what_is_damaged_is_passed_over_for_what_is_older(tmp_path):
    fit(Checkpoint(tmp_path), epochs=3)
    file = tmp_path / "epoch-0003-step-000000" / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.warns(RuntimeWarning, match="epoch-0003-step-000000 is damaged and not used: optimizer.safetensors"):
        assert Checkpoint(tmp_path).position == (2, 0)


def test_it_stands_behind_the_others(tmp_path):
    with pytest.raises(ValueError, match="Checkpoint must stand behind our other callbacks"):
        fit(Checkpoint(tmp_path), EarlyStopping("val_loss"))
    with pytest.raises(ValueError, match="Received: Checkpoint, TimeBudget"):
        fit(Checkpoint(tmp_path), TimeBudget(9))


def test_another_recipe_other_callbacks_and_another_model_are_refused(tmp_path):
    fit(EarlyStopping(), Checkpoint(tmp_path, recipe={"rate": 0.1, "seed": 0}, data="x"), epochs=1)
    with pytest.raises(ValueError, match="belong to another recipe: rate: 0.1 there, 0.2 here"):
        fit(EarlyStopping(), Checkpoint(tmp_path, recipe={"rate": 0.2, "seed": 0}, data="x"))
    with pytest.raises(ValueError, match="belong to another data: 'x' there, 'y' here"):
        fit(EarlyStopping(), Checkpoint(tmp_path, recipe={"rate": 0.1, "seed": 0}, data="y"))
    with pytest.raises(ValueError, match=r"another training: callbacks: \['EarlyStopping', 'Checkpoint'\] there"):
        fit(Checkpoint(tmp_path, recipe={"rate": 0.1, "seed": 0}, data="x"))
    with pytest.raises(ValueError, match="another training: optimizer: .*; weights"):
        other = network(keras.layers.Dense(3))
        fit(EarlyStopping(), Checkpoint(tmp_path, recipe={"rate": 0.1, "seed": 0}, data="x"), model=other)


def test_files_of_another_program_are_left_alone(tmp_path):
    (tmp_path / "checkpoint").write_text("mine")
    with pytest.raises(ValueError, match="holds files that are none of ours.*checkpoint"):
        Checkpoint(tmp_path)
    assert (tmp_path / "checkpoint").read_text() == "mine"


def test_a_fit_that_broke_leaves_neither_handlers_nor_a_begun_epoch_behind(tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    model, checkpoint = network(), Checkpoint(tmp_path, seconds=0)
    with pytest.raises(Lost):
        fit(checkpoint, Loses(1, 3), model=model)
    for hook in ("on_train_begin", "on_train_batch_end"):  # behind the restoring, and while steps are passed over
        with pytest.raises(Lost):
            fit(checkpoint, Breaks(hook), model=model)
    assert len(fit(model=model, epochs=2).history.epoch) == 2
    fit(checkpoint, model=model)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_the_lock_of_a_fit_that_was_refused_is_free(tmp_path):
    fit(Checkpoint(tmp_path, data="x"), epochs=1)
    with pytest.raises(ValueError, match="another data"):
        fit(Checkpoint(tmp_path, data="y"))
    assert not FileLock(tmp_path / ".lock", is_singleton=True, thread_local=False).is_locked


def test_metrics_of_one_number_a_class_come_back(tmp_path):
    def classes():
        model = keras.Sequential(
            [keras.Input((5,)), keras.layers.Dense(2, activation="softmax", kernel_initializer="ones")]
        )
        model.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.F1Score()])
        return model

    def run(model, epochs, folder):
        model.fit(X, np.eye(2)[Y], shuffle=False, epochs=epochs, verbose=0, callbacks=[Checkpoint(tmp_path / folder)])
        return model.history.history["f1_score"]

    whole = run(classes(), 3, "whole")
    run(classes(), 1, "cut")
    assert np.array_equal(run(classes(), 3, "cut"), whole) and np.shape(whole) == (3, 2)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere fit builds the model first")
def test_a_model_that_is_not_built_is_refused(tmp_path):
    model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="is not built yet"):
        fit(Checkpoint(tmp_path), model=model)


def test_a_budget_and_an_early_stopping_in_one_epoch_end_the_fit(tmp_path):
    def watchers(ticks):
        clock = itertools.count()
        stopper = EarlyStopping("val_accuracy", "min", patience=1)  # the wrong way, so that it stops
        return stopper, TimeBudget(ticks, clock=lambda: next(clock)), Checkpoint(tmp_path)

    whole = fit(*watchers(10**6), epochs=9)
    epochs = len(whole.history.epoch)
    for path in tmp_path.glob("epoch-*"):
        shutil.rmtree(path)
    fit(*watchers(9 * epochs), epochs=9)  # a tick a step and one an epoch: it runs out with the last one
    assert fit(*watchers(10**6), epochs=9).history.history == whole.history.history


def test_what_json_cannot_hold_is_refused_at_once(tmp_path):
    with pytest.raises(TypeError, match="`recipe` must be of plain values.*Received: {1}"):
        Checkpoint(tmp_path, recipe={1})
    fit(Checkpoint(tmp_path, recipe={"rate": np.float32(0.5)}), epochs=1)
    assert Checkpoint(tmp_path).position == (1, 0)


def test_the_best_epoch_is_told_by_one_metric_though_not_every_epoch_is_validated(tmp_path):
    model = network()
    model.fit(
        *(X, Y),
        epochs=4,
        verbose=0,
        validation_data=(X[:9], Y[:9]),
        validation_freq=2,
        callbacks=[Checkpoint(tmp_path)],
    )
    best = 2 * int(np.argmin(model.history.history["val_loss"])) + 2
    assert (best, 0) in snapshots.positions(tmp_path)
    state = snapshots.read(tmp_path / "epoch-0004-step-000000").state["callbacks"]["Checkpoint"]
    assert (state["watched"], state["best_position"]) == ("val_loss", [best, 0])


def test_every_kind_of_number_comes_back(tmp_path):
    import ml_dtypes

    arrays = {
        "half": np.arange(3).astype(ml_dtypes.bfloat16),
        "scalar": np.array(7, np.uint32),
        "empty": np.zeros((0, 2)),
        "turned": np.arange(6.0).reshape(2, 3).T.copy(),
        "flags": np.array([True, False]),
    }
    path = snapshots.write(tmp_path, snapshots.Position(1, 2), {"model": arrays}, {"a": float("nan")}, {"b": 1})
    found = snapshots.read(path)
    assert (found.position, found.about) == ((1, 2), {"b": 1})
    for name, array in arrays.items():
        assert found.arrays["model"][name].dtype == array.dtype
        assert np.array_equal(found.arrays["model"][name], array)


def test_callbacks_of_an_earlier_fit_are_no_peers():
    model = network()
    first, second = EarlyStopping(), EarlyStopping()
    fit(first, model=model, epochs=1)
    fit(second, model=model, epochs=1)
    assert peers(model) == [second]
