"""What a caller gets wrong is refused before anything is lost, and the refusal says what differs."""

import keras
import numpy as np
import pytest

import callbacks
from callbacks import snapshots

LEFT = b"somebody's work"


def contents(folder):
    """Every file below a folder with its bytes, locks apart."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan")])
def test_negative_seconds_are_refused(tmp_path, seconds):
    with pytest.raises(ValueError, match="`seconds` must not be negative. Received: seconds="):
        callbacks.Checkpoint(tmp_path / "new", seconds=seconds)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("make", [callbacks.EarlyStopping, callbacks.PlateauDecay])
def test_negative_patience_is_refused(make):
    with pytest.raises(ValueError, match="`patience` must"):
        make(patience=-1)


@pytest.mark.parametrize(
    "name", ["model.keras", "epoch-1", "epoch-0001-step-000000.bak", "backup/epoch-0001-step-000000"]
)
def test_a_folder_of_another_program_is_refused_and_left_as_it_is(tmp_path, name):
    folder = tmp_path / "backup"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(LEFT)
    with pytest.raises(ValueError, match="holds files that are none of ours"):
        callbacks.Checkpoint(folder)
    assert contents(folder) == {(folder / name).relative_to(folder): LEFT}


def test_the_backup_of_keras_is_refused_and_left_as_it_is(fits, tmp_path):
    model = fits.network()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    model.fit(*fits.pictures(), epochs=1, verbose=0, callbacks=[backup])
    before = contents(tmp_path)
    assert before
    with pytest.raises(ValueError, match="none of ours"):
        callbacks.Checkpoint(tmp_path / "backup")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("depth", ["checkpoints", "checkpoints/deeper"])
def test_a_file_in_the_way_is_named_and_left_as_it_is(tmp_path, depth):
    (tmp_path / "checkpoints").write_bytes(LEFT)
    with pytest.raises(OSError, match="checkpoints.* cannot be made: (File exists|Not a directory)"):
        callbacks.Checkpoint(tmp_path / depth)
    assert (tmp_path / "checkpoints").read_bytes() == LEFT


def test_a_metric_that_never_appears_is_named_with_those_that_do(by_hand, tmp_path):
    fit = by_hand(tmp_path, monitor="val_wobble", direction="max").begin()
    with pytest.raises(ValueError, match="The logs hold no metric 'val_wobble'. They hold: loss."):
        fit.run(1)
    fit.checkpoint._release()


def test_a_metric_without_a_direction_is_refused_before_the_training(tmp_path):
    with pytest.raises(ValueError, match="does not tell whether more is better"):
        callbacks.Checkpoint(tmp_path / "new", "val_wobble")
    assert not (tmp_path / "new").exists()


def fit_again(by_hand, folder, *others, **options):
    """A fit in a folder that is to be refused; the error's text. The folder is held to stay as it was."""
    before = contents(folder)
    fit = by_hand(folder, **options)
    weights = fit.model.get_weights()
    with pytest.raises(ValueError) as said:
        fit.begin(*others)
    assert contents(folder) == before
    assert all(np.array_equal(a, b) for a, b in zip(weights, fit.model.get_weights(), strict=True))
    return str(said.value)


def test_another_recipe_is_refused_with_the_fields_that_differ(by_hand, tmp_path):
    by_hand(tmp_path, recipe={"rate": 0.1, "epochs": 9, "sizes": (1, 2)}).begin().run(1).end()
    text = fit_again(by_hand, tmp_path, recipe={"rate": 0.2, "epochs": 9, "sizes": (1, 2)})
    assert f"The checkpoints in {tmp_path} belong to another recipe: rate: 0.1 there, 0.2 here. " in text
    assert "epochs" not in text
    assert "None" in fit_again(by_hand, tmp_path)
    by_hand(tmp_path, recipe={"rate": 0.1, "epochs": 9, "sizes": (1, 2)}).begin().end()


def test_other_data_is_refused(by_hand, tmp_path):
    by_hand(tmp_path, data="abc").begin().run(1).end()
    assert "belong to another data: 'abc' there, 'abd' here" in fit_again(by_hand, tmp_path, data="abd")


def test_other_callbacks_are_refused(by_hand, tmp_path):
    by_hand(tmp_path).begin().run(1).end()
    text = fit_again(by_hand, tmp_path, callbacks.CosineDecay(9))
    assert "belong to another training: callbacks: ['Checkpoint'] there, ['CosineDecay', 'Checkpoint'] here" in text


@pytest.mark.slow
def test_another_model_is_refused_with_what_differs(fits, tmp_path):
    fits.fit(tmp_path, epochs=1)
    before = contents(tmp_path / "checkpoints")
    with pytest.raises(ValueError, match=r"belong to another training: weights: .*6\]"):
        fits.fit(tmp_path, epochs=1, width=5)
    assert contents(tmp_path / "checkpoints") == before


def test_a_checkpoint_before_another_of_our_callbacks_is_refused(by_hand, tmp_path):
    fit = by_hand(tmp_path)
    after = callbacks.EarlyStopping("loss")
    with pytest.raises(ValueError, match="must stand behind our other callbacks"):
        fit.model.fit(np.zeros((4, 2)), np.zeros((4, 3)), verbose=0, callbacks=[fit.checkpoint, after])
    assert snapshots.positions(tmp_path) == []


CHANGED = [
    ({"fields": {"learning_rate": 2e-3}}, "another recipe: learning_rate is 0.001 there and 0.002 here"),
    ({"fields": {"learning_rate": 1e-3}, "pictures": 200}, "on other data, or another split"),
    ({"fields": {"learning_rate": 1e-3, "epochs": 5}}, "another recipe: epochs is 4 there and 5 here"),
    ({"fields": {"learning_rate": 1e-3}, "model": "resnet20"}, "another recipe: model is 'convnet' there"),
    ({"fields": {"learning_rate": 1e-3, "resume": False}}, "holds a run already, and resume=False"),
]


@pytest.mark.slow
@pytest.mark.parametrize("cases", [CHANGED[:2], pytest.param(CHANGED[2:], marks=pytest.mark.long)], ids=["few", "more"])
def test_a_fine_tuning_that_is_another_one_is_refused_with_what_differs(nursery, tmp_path, cases):
    first = {"signals": ["train", 1, 1, ["SIGKILL"]], "fields": {"learning_rate": 1e-3}}
    assert nursery.run("tuned", tmp_path, **first)[0] == -9
    before = contents(tmp_path / "run")
    for options, sentence in cases:
        status, text = nursery.run("tuned", tmp_path, **options)
        assert status == 1
        assert sentence in text
        assert "Choose another directory." in text
        assert contents(tmp_path / "run") == before
