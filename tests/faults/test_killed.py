"""A training that is killed goes on, as often as it takes, and ends as one left alone, to the bit."""

import random
import re

import pytest

from callbacks import snapshots
from callbacks.snapshots import Position

pytestmark = pytest.mark.slow

PLAIN = [
    pytest.param({"variant": "cosine"}, id="cosine"),
    pytest.param({"variant": "plateau"}, id="plateau and average"),
    pytest.param({"variant": "cycle"}, id="one cycle"),
    pytest.param({"variant": "cosine", "stream": False}, id="arrays"),
]
UNFREEZING = {"freeze": ("large", "none")}
TUNED = [
    pytest.param({**UNFREEZING, "cache_features": True}, id="two phases, features kept"),
    pytest.param({**UNFREEZING, "cache_features": False}, id="two phases", marks=pytest.mark.long),
    pytest.param({"augment": "light", "mixing": "mixup"}, id="augmented and mixed", marks=pytest.mark.long),
]


def changes(folder):
    """How often a training that was left alone changed something in its folder."""
    return int(re.search(r"changes: (\d+)", (folder / "output.txt").read_text()).group(1))


def go_on(nursery, kind, folder, **options):
    """Runs a training once more, to its end."""
    status, text = nursery.run(kind, folder, **options)
    assert status == 0, text


def kill_often(nursery, kind, folder, moments, **options):
    """Runs a training again and again, kills it at each of the moments, then leaves it alone; how often it was hit."""
    killed = 0
    for moment in moments:
        status, text = nursery.run(kind, folder, **moment, **options)
        assert status in (-9, 0), text
        killed += status == -9
    go_on(nursery, kind, folder, **options)
    return killed


def killed_at_changes(nursery, whole, assert_same_end, folder, times, options):
    there = whole("plain", **options)
    chance = random.Random(0)
    moments = [{"kill": chance.randrange(1, 2 * changes(there) // times)} for _ in range(times)]
    assert kill_often(nursery, "plain", folder, moments, **options) > times / 2
    assert_same_end(there, folder)


def test_a_fit_killed_at_changes_of_its_files_ends_as_one_left_alone(nursery, whole, assert_same_end, tmp_path):
    killed_at_changes(nursery, whole, assert_same_end, tmp_path, 5, {"variant": "cosine"})


@pytest.mark.long
@pytest.mark.parametrize("options", PLAIN)
def test_a_fit_killed_ten_times_at_changes_of_its_files_ends_as_one_left_alone(
    nursery, whole, assert_same_end, tmp_path, options
):
    killed_at_changes(nursery, whole, assert_same_end, tmp_path, 10, options)


@pytest.mark.long
@pytest.mark.parametrize("options", PLAIN)
def test_a_fit_killed_ten_times_at_any_moment_ends_as_one_left_alone(
    nursery, whole, assert_same_end, tmp_path, options
):
    chance = random.Random(1)
    moments = [{"moment": chance.uniform(0.2, 4)} for _ in range(10)]
    assert kill_often(nursery, "plain", tmp_path, moments, **options) >= 3
    assert_same_end(whole("plain", **options), tmp_path)


@pytest.mark.parametrize("fields", TUNED)
def test_a_fine_tuning_killed_at_changes_of_its_files_ends_as_one_left_alone(
    nursery, whole, assert_same_end, tmp_path, fields
):
    there = whole("tuned", fields=fields)
    chance = random.Random(2)
    moments = [{"kill": chance.randrange(1, changes(there) // 2)} for _ in range(4)]
    assert kill_often(nursery, "tuned", tmp_path, moments, fields=fields) >= 2
    assert_same_end(there, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("fields", TUNED)
def test_a_fine_tuning_killed_ten_times_at_any_moment_ends_as_one_left_alone(
    nursery, whole, assert_same_end, tmp_path, fields
):
    chance = random.Random(3)
    moments = [{"moment": chance.uniform(0.5, 6)} for _ in range(10)]
    assert kill_often(nursery, "tuned", tmp_path, moments, fields=fields) >= 3
    assert_same_end(whole("tuned", fields=fields), tmp_path)


@pytest.mark.parametrize("part", [pytest.param(0, id="few"), pytest.param(1, id="all", marks=pytest.mark.long)])
def test_a_fit_killed_within_a_save_ends_as_one_left_alone(nursery, whole, assert_same_end, tmp_path, part):
    options = {"seconds": 300.0, "epochs": 2}
    there = whole("plain", **options)
    moments = range(1, changes(there) + 1) if part else (9, changes(there) - 30)
    for moment in moments:
        folder = tmp_path / str(moment)
        assert nursery.run("plain", folder, kill=moment, **options)[0] == -9
        go_on(nursery, "plain", folder, **options)
        assert_same_end(there, folder)


@pytest.mark.parametrize("kind", ["save", "save_and_remove"])
def test_a_save_killed_at_any_of_its_changes_leaves_the_old_checkpoint_or_the_new_one(nursery, fits, tmp_path, kind):
    given = {"number": 2} if kind == "save" else {}
    fits.save(tmp_path, number=1)
    with fits.Changes(tmp_path) as counted:
        getattr(fits, kind)(tmp_path, **given)
    assert len(counted.seen) > 15
    found = set()
    for moment in range(1, len(counted.seen) + 1):
        folder = tmp_path / f"{moment}"
        folder.mkdir()
        fits.save(folder, number=1)
        status, text = nursery.run(kind, folder, kill=moment, **given)
        assert status == -9, text
        snapshots.tidy(folder)
        there = [snapshots.read(folder / position.name) for position in snapshots.positions(folder)]
        assert there, f"nothing is left after {counted.seen[moment - 1]}"
        snapshots.prepare(folder)  # refuses what is none of ours
        assert not list(folder.glob(".*"))
        found.add(there[0].state["number"])
        fits.save(folder, number=3)
        assert snapshots.read(folder / Position(1, 0).name).state["number"] == 3
    assert found == {1, 2}
