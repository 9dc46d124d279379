"""A run that is stopped after some epochs is whole, and goes on as if it had never stopped."""

import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from callbacks import Checkpoint, Pruning
from zoo.training.folder import environment, epoch_of_recipe, read_history, stopped_after

WHOLE = {"epochs": 4, "batch_size": 32, "optimizer": "adam", "schedule": "cosine", "precision": "float32"}
PHASES = {**WHOLE, "freeze": ("large", "none"), "cache_features": True}
# On dev labels that contradict those of training, patience ends the head's phase of 7 epochs early.
PATIENT = {
    **PHASES,
    **{"epochs": 14, "batch_size": 16, "learning_rate": 0.03, "schedule": "constant", "seed": 0},
}


@pytest.fixture(scope="module")
def data(digit_pictures):
    images, labels = digit_pictures
    return zoo.load_data((images[:150], labels[:150]), image_size=8)


@pytest.fixture(scope="module")
def contrary(data, digit_pictures):
    images, labels = (part[:150] for part in digit_pictures)
    labels = np.where(data.manifest.table.split == "dev", (labels + 1) % 3, labels)
    return zoo.load_data((images, labels), image_size=8, split=data.manifest)


def train(data, folder, fields, stop_after=None, **more):
    return zoo.fine_tune("convnet", data, directory=folder, stop_after=stop_after, **fields, **more)


class Watch(Pruning):
    """Notes which epochs are begun, and ends the training with an error in one; of ours, so nothing else changes."""

    def __init__(self, quits=None, step=0):
        super().__init__([])
        self.quits, self.seen = (quits, step), []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if (epoch, 0) == self.quits:
            raise KeyboardInterrupt
        self.seen.append(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.quits:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(data, contrary, tmp_path_factory):
    """A run that was never stopped; each is made once."""
    made = {}

    def make(fields):
        key = repr(fields)
        if key not in made:
            folder = tmp_path_factory.mktemp("whole") / "run"
            made[key] = train(contrary if fields["epochs"] == 14 else data, folder, fields)
        return made[key]

    return make


def assert_same_run(one, other):
    """To the bit: history, the model at hand, and what stands in the folder."""
    assert one.history == other.history and one.best_epoch == other.best_epoch
    assert (one.directory / "history.csv").read_text() == (other.directory / "history.csv").read_text()
    files: list[Any] = [keras.saving.load_model(run.directory / "model.keras", compile=False) for run in (one, other)]
    for weights in zip(one.model.weights, other.model.weights, *(model.weights for model in files), strict=True):
        values = {np.asarray(keras.ops.convert_to_numpy(weight)).tobytes() for weight in weights}
        assert len(values) == 1, weights[0].path


def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(data, whole, tmp_path, capsys):
    there = whole(WHOLE)
    stopped = train(data, tmp_path / "run", WHOLE, 1)
    assert stopped.history == {name: values[:1] for name, values in there.history.items()}
    assert "Stopped after 1 of 4 epochs" in capsys.readouterr().out
    again = zoo.load_run(tmp_path / "run", data)
    assert again.history == stopped.history
    for one, other in zip(again.model.get_weights(), stopped.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.evaluate("dev").loss == pytest.approx(stopped.history["val_loss"][0], rel=1e-5)
    train(data, tmp_path / "run", WHOLE, 3)
    assert stopped_after(tmp_path / "run") == 3
    assert_same_run(train(data, tmp_path / "run", WHOLE), there)
    assert stopped_after(tmp_path / "run") is None


def test_as_many_epochs_or_fewer_return_the_run_as_it_is(data, tmp_path, capsys):
    first = train(data, tmp_path / "run", WHOLE, 2)
    written = (tmp_path / "run" / "model.keras").stat().st_mtime_ns
    for stop_after in (2, 1):
        capsys.readouterr()
        assert train(data, tmp_path / "run", WHOLE, stop_after).history == first.history
        assert "holds this run already, stopped after 2 of 4 epochs" in capsys.readouterr().out
    assert (tmp_path / "run" / "model.keras").stat().st_mtime_ns == written


def test_a_finished_run_is_returned_whatever_is_asked_for(data, whole, capsys):
    there = whole(WHOLE)
    assert train(data, there.directory, WHOLE, 1).history == there.history
    assert "holds this run already, finished" in capsys.readouterr().out


def test_all_epochs_or_more_finish_the_run(data, whole, tmp_path):
    run = train(data, tmp_path / "run", WHOLE, 4)
    assert stopped_after(run.directory) is None
    assert_same_run(run, whole(WHOLE))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "stops"),
    [
        pytest.param(WHOLE, (1, 2, 3), id="one phase", marks=pytest.mark.long),
        pytest.param(PHASES, (1, 3), id="in both phases, features kept", marks=pytest.mark.long),
        pytest.param(PHASES, (2,), id="at the border, features kept", marks=pytest.mark.long),
        pytest.param({**PHASES, "cache_features": False}, (1, 2, 3), id="everywhere"),
        pytest.param({**PHASES, "augment": "light"}, (1, 3), id="views", marks=pytest.mark.long),
        pytest.param(PATIENT, (6, 9), id="behind the patience of the first phase"),
        pytest.param(PATIENT, (1, 4, 7, 10), id="around it", marks=pytest.mark.long),
    ],
)
def test_copies_of_stopped_runs_go_on_as_if_they_had_never_stopped(
    data, contrary, whole, tmp_path, monkeypatch, fields, stops
):
    there = whole(fields)
    pictures = contrary if fields is PATIENT else data
    folder, seen = tmp_path / "run", []
    for number, stop_after in enumerate((*stops, None)):
        run = train(pictures, folder, fields, stop_after, callbacks=[watch := Watch()])
        seen += watch.seen
        if stop_after is not None:
            earlier = len(run.history["loss"])
            assert run.history == {name: values[:earlier] for name, values in there.history.items()}
            assert min(run.history["val_loss"]) == run.history["val_loss"][run.best_epoch - 1]
            shutil.copytree(folder, tmp_path / f"copy{number}")
            shutil.move(folder, tmp_path / f"gone{number}")
            folder = tmp_path / f"copy{number}"
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache{number}"))  # as on another machine
    assert_same_run(run, there)
    assert seen == sorted(set(seen)) and len(seen) == len(there.history["loss"])  # none was trained twice


@pytest.mark.slow
@pytest.mark.long
def test_where_patience_ended_a_phase_the_stop_behind_it_counts_epochs_of_the_recipe(contrary, whole, tmp_path):
    run = train(contrary, tmp_path / "run", PATIENT, 6)
    head = len(run.history["loss"])
    assert run.best_epoch < head < 6  # so the checkpoint's weights are not the model's
    assert stopped_after(run.directory) == 6
    assert len(train(contrary, tmp_path / "run", PATIENT, 9).history["loss"]) == head + 2
    run = train(contrary, tmp_path / "run", PATIENT, 13)  # patience ends the last phase before
    assert stopped_after(run.directory) is None
    assert_same_run(run, whole(PATIENT))


@pytest.mark.slow
def test_a_row_of_the_history_is_known_as_an_epoch_of_the_recipe(contrary, whole, tmp_path):
    run = whole(PATIENT)
    parts = environment(run.directory)["frozen_part"]
    trained = [part["epochs"] for part in parts]
    assert trained[0] < 7 and sum(trained) == len(run.history["loss"])
    for row in range(1, trained[0] + 1):
        assert epoch_of_recipe(run.directory, row) == row
    for row in range(1, trained[1] + 1):
        assert epoch_of_recipe(run.directory, trained[0] + row) == 7 + row

    quits(contrary, tmp_path / "run", PATIENT, 8)  # another process is told what the first phase took
    run = train(contrary, tmp_path / "run", PATIENT, callbacks=[Watch()])
    assert [part["epochs"] for part in environment(run.directory)["frozen_part"]] == trained
    assert epoch_of_recipe(tmp_path, 5) == 5  # of a run that does not say


def quits(data, folder, fields, epoch, stop_after=None):
    with pytest.raises(KeyboardInterrupt):
        train(data, folder, fields, stop_after, callbacks=[Watch(epoch)])


def test_a_continuation_that_is_cut_short_leaves_the_stopped_run(data, whole, tmp_path):
    folder = tmp_path / "run"
    first = train(data, folder, WHOLE, 1, callbacks=[Watch()])
    quits(data, folder, WHOLE, 3)
    assert len(read_history(folder / "history.csv")["loss"]) == 3
    run = zoo.load_run(folder, data)
    assert run.history == first.history and run.best_epoch == 1
    for one, other in zip(run.model.get_weights(), first.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert train(data, folder, WHOLE, 1).history == first.history
    assert_same_run(train(data, folder, WHOLE, callbacks=[Watch()]), whole(WHOLE))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long) for name in ("history.csv", "environment.json")] + ["model.keras"],
)
def test_a_kill_while_the_longer_run_is_written_leaves_none_that_is_half(data, whole, tmp_path, monkeypatch, name):
    folder, there, replace = tmp_path / "run", whole(WHOLE), os.replace
    train(data, folder, WHOLE, 1)

    def killed(source, target):
        if Path(target).name == name and not (folder / "model.keras").exists():
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        train(data, folder, WHOLE)
    with pytest.raises(FileNotFoundError, match=r"not whole: model\.keras missing"):
        zoo.load_run(folder, data)
    assert_same_run(train(data, folder, WHOLE), there)


@pytest.mark.parametrize(("fields", "epoch"), [(WHOLE, 2), pytest.param(PHASES, 3, marks=pytest.mark.slow)])
def test_a_training_that_was_further_already_stops_where_it_is(data, tmp_path, fields, epoch):
    quits(data, tmp_path / "run", fields, epoch)
    run = train(data, tmp_path / "run", fields, 1, callbacks=[watch := Watch()])
    assert len(run.history["loss"]) == epoch == stopped_after(run.directory) and watch.seen == []


@pytest.mark.slow
def test_an_epoch_that_was_begun_is_ended(data, whole, tmp_path, monkeypatch):
    monkeypatch.setitem(Checkpoint.__init__.__kwdefaults__, "seconds", 0.0)  # so that every step is saved
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", WHOLE, callbacks=[Watch(1, step=2)])
    run = train(data, tmp_path / "run", WHOLE, 1, callbacks=[Watch()])
    assert len(run.history["loss"]) == 2 == stopped_after(run.directory)
    assert_same_run(train(data, tmp_path / "run", WHOLE, callbacks=[Watch()]), whole(WHOLE))


def test_evaluations_of_the_shorter_run_go_with_its_model_and_looks_at_the_test_set_stay(data, tmp_path):
    train(data, tmp_path / "run", WHOLE, 1).evaluate("test")
    (tmp_path / "run" / "evaluation" / "notes.txt").write_text("mine")
    run = train(data, tmp_path / "run", WHOLE, 2)
    assert {path.name for path in (tmp_path / "run" / "evaluation").iterdir()} == {"notes.txt", "test_looks.json"}
    assert run.test_looks == 1


@pytest.mark.slow
@pytest.mark.long
def test_without_a_dev_set_the_last_epoch_so_far_counts(data, tmp_path):
    pictures = data.without_dev()
    there = train(pictures, tmp_path / "whole", WHOLE)
    run = train(pictures, tmp_path / "run", WHOLE, 2)
    assert run.best_epoch == 2
    assert_same_run(train(pictures, tmp_path / "run", WHOLE), there)


@pytest.mark.slow
def test_a_model_that_was_handed_over_goes_on_too(data, tmp_path):
    def model():
        return zoo.create("convnet", classes=3, input_shape=(8, 8, 3))

    keras.utils.set_random_seed(5)
    own = model()
    weights = own.get_weights()
    there = zoo.fine_tune(own, data, directory=tmp_path / "whole", epochs=2, batch_size=32)
    for stop_after in (1, None):
        own = model()
        own.set_weights(weights)
        run = zoo.fine_tune(own, data, directory=tmp_path / "run", epochs=2, batch_size=32, stop_after=stop_after)
        assert run.model is own
    for one, other in zip(run.model.get_weights(), there.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("stop_after", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_epochs_that_are_none_are_refused(data, tmp_path, stop_after, error):
    with pytest.raises(error, match=f"`stop_after` must be .*Received: stop_after={stop_after}"):
        train(data, tmp_path / "run", WHOLE, stop_after)
    assert not (tmp_path / "run").exists()


def test_a_pruned_phase_ends_the_run_which_is_finished_then(data, tmp_path, capsys):
    folder = tmp_path / "run"
    pruning = Pruning([None, 1e-9])
    run = train(data, folder, PHASES, 3, callbacks=[pruning])
    assert len(run.history["loss"]) == 2 and pruning.pruned_epoch == 1  # behind the first of two phases
    assert "Training was pruned after epoch 2: val_loss was at best" in capsys.readouterr().out
    assert train(data, folder, PHASES, callbacks=[Pruning([])]).history == run.history
    assert "holds this run already, finished" in capsys.readouterr().out


@pytest.mark.slow
def test_pruning_remembers_the_earlier_phases_and_processes(contrary, whole, tmp_path):
    head, losses = whole(PATIENT).best_epoch, whole(PATIENT).history["val_loss"]
    best = losses[head - 1]  # of the first phase, which patience ended
    assert head < len(losses) - 3 and min(losses[-4:]) > best
    last = len(losses) - 2
    thresholds = [None] * head + [best] * (last - head) + [best - 1e-6]
    at_once = train(contrary, tmp_path / "whole", PATIENT, callbacks=[pruning := Pruning(thresholds)])
    assert pruning.pruned_epoch == last and len(at_once.history["loss"]) == last + 1
    for stop_after in (6, 8, None):
        run = train(contrary, tmp_path / "run", PATIENT, stop_after, callbacks=[pruning := Pruning(thresholds)])
    assert pruning.pruned_epoch == last
    assert_same_run(run, at_once)


def test_a_pruned_run_that_was_killed_while_it_was_written_is_written_again(data, tmp_path, monkeypatch):
    replace = os.replace

    def killed(source, target):
        if Path(target).name == "model.keras":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        train(data, tmp_path / "run", PHASES, callbacks=[Pruning([1e-9])])
    assert len(train(data, tmp_path / "run", PHASES, callbacks=[Pruning([1e-9])]).history["loss"]) == 1
