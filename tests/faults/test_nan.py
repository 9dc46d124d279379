"""A training that meets NaN keeps its best finite epoch, and never saves weights that are not finite."""

import warnings

import keras
import numpy as np
import pytest

from callbacks import snapshots
from callbacks.snapshots import Position
from callbacks.syncing import synchronize

pytestmark = pytest.mark.slow
EPOCHS = 4


class Notes(keras.callbacks.Callback):
    """The weights of the model at the end of every epoch, and all its variables, generators included."""

    def __init__(self):
        super().__init__()
        self.weights, self.variables = [], []

    def on_epoch_end(self, epoch, logs=None):
        synchronize(self.model)
        self.weights.append(self.model.get_weights())
        self.variables.append([keras.ops.convert_to_numpy(variable) for variable in self.model.variables])


def same(weights, others):
    return all(np.array_equal(a, b) for a, b in zip(weights, others, strict=True))


def stored(folder):
    return [snapshots.read(folder / position.name) for position in snapshots.positions(folder)]


def finite(snapshot):
    return all(np.isfinite(array).all() for array in snapshot.arrays["model"].values())


@pytest.mark.parametrize("lost", [[0], [1], [0, 2]])
def test_epochs_without_a_finite_metric_are_never_the_best(fits, tmp_path, lost):
    notes = Notes()
    model, history, stopper = fits.fit(
        tmp_path, variant="cosine", seconds=300.0, extra=[fits.Lost(lost), notes], epochs=EPOCHS
    )
    losses = history.history["val_loss"]
    assert [epoch for epoch, loss in enumerate(losses) if np.isnan(loss)] == [e for e in lost if e < len(losses)]
    assert stopper.best_epoch == int(np.nanargmin(losses))
    assert same(model.get_weights(), notes.weights[stopper.best_epoch])
    best = Position(stopper.best_epoch + 1, 0)
    assert best in snapshots.positions(tmp_path / "checkpoints")
    (kept,) = [there for there in stored(tmp_path / "checkpoints") if there.position == best]
    arrays = [kept.arrays["model"][name] for name in sorted(kept.arrays["model"])]
    assert same(arrays, notes.variables[stopper.best_epoch])


def test_where_no_metric_was_ever_finite_the_training_stops_and_can_be_asked_again(fits, tmp_path):
    lost = range(EPOCHS)
    _, history, stopper = fits.fit(tmp_path, seconds=300.0, extra=[fits.Lost(lost)], epochs=EPOCHS)
    assert stopper.best is None and stopper.best_epoch is None
    assert history.epoch == [0, 1]  # patience is 2
    assert "was never finite" in stopper.reason
    _, again, _ = fits.fit(tmp_path, seconds=300.0, extra=[fits.Lost(lost)], epochs=EPOCHS)
    assert again.epoch == [0, 1]


@pytest.mark.parametrize("epoch", [0, 1])
def test_weights_that_are_not_finite_are_never_saved(fits, tmp_path, epoch):
    notes = Notes()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", RuntimeWarning)
        model, _, stopper = fits.fit(tmp_path, extra=[fits.Lost([epoch], "weights"), notes], epochs=EPOCHS)
    assert any("weights are not finite" in str(warning.message) for warning in said)
    there = stored(tmp_path / "checkpoints")
    assert there[0].position <= Position(epoch, 5)
    assert all(finite(snapshot) for snapshot in there)
    assert not any(path.name.endswith((".tmp", ".old")) for path in (tmp_path / "checkpoints").iterdir())
    if epoch:
        assert stopper.best_epoch == 0
        assert same(model.get_weights(), notes.weights[0])


def test_a_best_epoch_survives_a_restart_and_the_nan_behind_it(fits, tmp_path):
    notes = Notes()
    lost = fits.Lost([1], "val_loss")
    fits.fit(tmp_path, variant="cosine", extra=[lost, notes], seconds=300.0, epochs=2)
    lost = fits.Lost([2], "val_loss")
    model, _, stopper = fits.fit(tmp_path, variant="cosine", extra=[lost, notes], seconds=300.0)
    assert stopper.best_epoch == 0
    assert len(notes.weights) == 3  # patience is 2
    assert same(model.get_weights(), notes.weights[0])


def test_a_fine_tuning_whose_loss_is_never_finite_says_so(nursery, tmp_path):
    fields = {"optimizer": "sgd", "learning_rate": 1e30, "epochs": 2}
    for _ in range(2):  # the second time from what the first one left
        status, text = nursery.run("tuned", tmp_path, fields=fields)
        assert status == 1
        assert "The dev loss was not finite in any epoch at a learning rate of 1e+30. Try a tenth of it." in text
        assert not (tmp_path / "run" / "model.keras").exists()
    folder = tmp_path / "run" / "checkpoints" / "phase1"
    assert all(finite(there) for there in stored(folder))


def test_a_nan_in_the_training_loss_alone_is_no_reason_to_lose_a_checkpoint(fits, tmp_path):
    fits.fit(tmp_path, extra=[fits.Lost([1], "loss")], seconds=300.0, epochs=2)
    assert stored(tmp_path / "checkpoints")[0].position == Position(2, 0)
    _, history, _ = fits.fit(tmp_path, seconds=300.0, epochs=2)
    assert np.isnan(history.history["loss"][1])  # from the checkpoint; nothing was left to train
