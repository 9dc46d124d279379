"""A disk that is full or broken costs a checkpoint, never the one before it and never the training."""

import errno
import os
import warnings

import pytest

from callbacks import snapshots
from callbacks.snapshots import Position

ERRORS = [errno.ENOSPC, errno.EIO]
WRITING = ("mkdir", "open", "fsync", "replace", "rename")  # what a full disk refuses; removing it does not


def failing(number):
    """What stands in the place of a call that fails, unless it is one that makes room."""

    def fail(name, path):
        if name in WRITING:
            raise OSError(number, os.strerror(number), os.fspath(path) if not isinstance(path, int) else None)

    return fail


def failing_with_all(number):
    """The same for a disk that takes no change at all."""

    def fail(name, path):
        raise OSError(number, os.strerror(number), os.fspath(path) if not isinstance(path, int) else None)

    return fail


def whole_ones(folder):
    return [snapshots.read(folder / position.name) for position in snapshots.positions(folder)]


def test_there_are_calls_of_every_kind_to_fail(fits, tmp_path):
    fits.save(tmp_path, number=1)
    with fits.Changes(tmp_path) as counted:
        fits.save(tmp_path, number=2)
    assert {name for name, _ in counted.seen} >= {"mkdir", "open", "fsync", "replace", "unlink"}


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("act", [failing, failing_with_all])
@pytest.mark.parametrize("again", [False, True], ids=["once", "from then on"])
def test_a_write_that_fails_anywhere_leaves_the_old_checkpoint_or_the_new_one(fits, tmp_path, number, act, again):
    failed, moment = 0, 0
    while True:
        moment += 1
        folder = tmp_path / f"{moment}"
        folder.mkdir()
        fits.save(folder, number=1)
        try:
            with fits.Changes(folder, moment, act(number), again) as changes:
                fits.save(folder, number=2)
            said = None
        except OSError as error:
            said = error.errno
            failed += 1
        assert said in (None, number)
        snapshots.tidy(folder)
        (there,) = whole_ones(folder)
        assert there.state["number"] == 2 or said, f"without a word, after {changes.seen[moment - 1 :]}"
        assert [path.name for path in folder.iterdir()] == [Position(1, 0).name]
        fits.save(folder, number=3)
        assert whole_ones(folder)[0].state["number"] == 3
        if len(changes.seen) < moment:
            break
    assert failed >= 12


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_a_training_goes_on_over_a_checkpoint_that_cannot_be_written(fits, by_hand, tmp_path, number):
    moment, met = 0, 0
    while True:
        moment += 1
        folder = tmp_path / f"{moment}"
        fit = by_hand(folder).begin().run(1)
        fit.checkpoint._wait()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", RuntimeWarning)
            with fits.Changes(folder, moment, failing(number)) as changes:
                fit.run(1)
                fit.checkpoint._wait()
        kept = [there.position.epoch for there in whole_ones(folder)]
        if said:
            met += 1
            (warning,) = said
            assert str(warning.message) == (
                f"A checkpoint could not be written to {folder}: {os.strerror(number)}. "
                "Training goes on; earlier checkpoints are as they were."
            )
            assert 1 in kept
        else:
            assert kept == [2, 1]
        fit.run(1).end()
        assert [there.position.epoch for there in whole_ones(folder)][0] == 3
        again = by_hand(folder).begin()
        assert (again.weights, again.epoch) == (3, 3)
        again.end()
        assert all(path.name.startswith(("epoch-", ".lock")) for path in folder.iterdir())
        if len(changes.seen) < moment:
            break
    assert met >= 12


def test_a_disk_that_stays_full_is_told_each_time_and_the_old_checkpoint_serves(fits, by_hand, tmp_path):
    fit = by_hand(tmp_path).begin().run(1)
    fit.checkpoint._wait()
    with fits.Changes(tmp_path, 1, failing(errno.ENOSPC), again=True):
        with pytest.warns(RuntimeWarning, match="No space left on device. Training goes on") as said:
            fit.run(3).end()
    assert len([warning for warning in said if warning.category is RuntimeWarning]) == 3
    again = by_hand(tmp_path).begin()
    assert (again.weights, again.epoch) == (1, 1)
    again.run(1).end()
    assert again.checkpoint.written == 1


@pytest.mark.slow
def test_a_disk_that_is_full_in_the_middle_of_a_fit_does_not_change_it(fits, tmp_path):
    model, history, _ = fits.fit(tmp_path / "whole", epochs=2)
    folder = tmp_path / "full"
    with fits.Changes(folder / "checkpoints", 20, failing(errno.ENOSPC), again=True):
        with pytest.warns(RuntimeWarning, match="could not be written"):
            other, its_history, _ = fits.fit(folder, epochs=2)
    assert history.history == its_history.history
    assert [a.tobytes() for a in model.get_weights()] == [b.tobytes() for b in other.get_weights()]
