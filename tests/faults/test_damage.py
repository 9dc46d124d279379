"""A checkpoint of which any byte is wrong is passed over, by name, for an older one."""

import random
import shutil

import pytest

from callbacks import snapshots
from callbacks.snapshots import Damaged, Position

NEWEST, OLDER = Position(3, 0).name, Position(2, 0).name
FILES = ["manifest.json", "state.json", "model.safetensors", "optimizer.safetensors", "state.safetensors"]
PARTS = 16


@pytest.fixture
def folder(two, tmp_path):
    """A copy of a folder with two checkpoints, the newer of which is to be damaged."""
    return shutil.copytree(two, tmp_path / "checkpoints")


def refused(path):
    """What is said of a snapshot that must not be read."""
    with pytest.raises(Damaged) as said:
        snapshots.read(path)
    return str(said.value)


def goes_on_from(folder, by_hand, *damaged):
    """The epoch whose weights a fit in the folder begins with; that the damaged checkpoints are named is held."""
    with pytest.warns(RuntimeWarning) as said:
        fit = by_hand(folder).begin()
    fit.end()
    for name in damaged:
        assert any(f"The checkpoint {folder / name} is damaged and not used: " in str(w.message) for w in said)
    assert sum(warning.category is RuntimeWarning for warning in said) == len(damaged)
    return fit.weights


def test_the_files_are_those_that_are_damaged_here(folder):
    assert sorted(path.name for path in (folder / NEWEST).iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_anywhere_is_noticed(folder, by_hand, name):
    path = folder / NEWEST / name
    whole = path.read_bytes()
    for part in range(PARTS):
        path.write_bytes(whole[: len(whole) * part // PARTS])
        assert name in refused(folder / NEWEST)
    path.write_bytes(whole[:-1])
    assert name in refused(folder / NEWEST)
    assert goes_on_from(folder, by_hand, NEWEST) == 2


@pytest.mark.parametrize("name", FILES)
def test_a_bit_that_flips_anywhere_is_noticed(folder, by_hand, name):
    path = folder / NEWEST / name
    whole, chance = path.read_bytes(), random.Random(name)
    places = [len(whole) * part // PARTS for part in range(PARTS)] + [len(whole) - 1]
    for place in places + [chance.randrange(len(whole)) for _ in range(24)]:
        other = bytearray(whole)
        other[place] ^= 1 << chance.randrange(8)
        path.write_bytes(other)
        refused(folder / NEWEST)
    assert goes_on_from(folder, by_hand, NEWEST) == 2


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_zeros_of_another_checkpoint_or_none_is_noticed(folder, by_hand, name):
    path = folder / NEWEST / name
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    refused(folder / NEWEST)
    if (folder / OLDER / name).read_bytes() != whole:
        shutil.copy(folder / OLDER / name, path)
        refused(folder / NEWEST)
    path.unlink()
    assert name in refused(folder / NEWEST)
    path.mkdir()
    refused(folder / NEWEST)
    path.rmdir()
    path.symlink_to("/dev/null")
    refused(folder / NEWEST)
    assert goes_on_from(folder, by_hand, NEWEST) == 2


def test_a_file_too_many_is_noticed(folder, by_hand):
    (folder / NEWEST / "more.safetensors").write_bytes(b"")
    assert "more.safetensors" in refused(folder / NEWEST)
    assert goes_on_from(folder, by_hand, NEWEST) == 2


@pytest.mark.parametrize("name", [Position(4, 0).name, Position(3, 1).name])
def test_a_checkpoint_at_another_position_than_its_own_is_noticed(folder, by_hand, name):
    (folder / NEWEST).rename(folder / name)
    assert "another name" in refused(folder / name)
    assert goes_on_from(folder, by_hand, name) == 2


def test_a_manifest_that_was_edited_is_noticed(folder, by_hand):
    path = folder / NEWEST / "manifest.json"
    path.write_text(path.read_text().replace('"step": 0', '"step": 1'))
    assert "manifest.json" in refused(folder / NEWEST)
    assert goes_on_from(folder, by_hand, NEWEST) == 2


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "3", '"x"', '{"sha256": 1}', "\xff"])
def test_a_manifest_that_is_none_is_noticed(folder, text):
    (folder / NEWEST / "manifest.json").write_bytes(text.encode("latin-1"))
    assert "manifest.json" in refused(folder / NEWEST)


def test_an_empty_folder_is_noticed(folder, by_hand):
    shutil.rmtree(folder / NEWEST)
    (folder / NEWEST).mkdir()
    assert goes_on_from(folder, by_hand, NEWEST) == 2


def test_where_all_are_damaged_the_training_begins_anew_and_names_them(folder, by_hand):
    for name in (NEWEST, OLDER):
        (folder / name / "model.safetensors").write_bytes(b"")
    assert goes_on_from(folder, by_hand, NEWEST, OLDER) == 0


def test_a_damaged_checkpoint_is_replaced_by_the_training_that_goes_on(folder, by_hand):
    (folder / NEWEST / "state.json").unlink()
    with pytest.warns(RuntimeWarning, match="is damaged"):
        fit = by_hand(folder).begin()
    fit.run(1).end()
    assert snapshots.read(folder / NEWEST).position == Position(3, 0)
    again = by_hand(folder).begin().end()
    assert again.weights == 3


def test_the_position_is_asked_before_the_fit_with_the_same_answer(folder, by_hand):
    (folder / NEWEST / "state.json").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert by_hand(folder).checkpoint.position == Position(2, 0)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("where", ["the phase", "the handover"])
def test_a_fine_tuning_with_a_damaged_checkpoint_ends_as_one_left_alone(
    nursery, whole, assert_same_end, tmp_path, where
):
    options = {"fields": {"freeze": ("large", "none"), "cache_features": False}}
    there = whole("tuned", **options)
    stop = ["train", 3 if where == "the phase" else 2, 1, ["SIGKILL"]]
    assert nursery.run("tuned", tmp_path, signals=stop, **options)[0] == -9
    checkpoints = tmp_path / "run" / "checkpoints"
    root = checkpoints if where == "the handover" else checkpoints / "phase2"
    newest = snapshots.positions(root)[0]
    (root / newest.name / "model.safetensors").write_bytes(b"")
    status, text = nursery.run("tuned", tmp_path, **options)
    assert status == 0, text
    assert f"{root / newest.name} is damaged and not used" in text
    assert_same_end(there, tmp_path)
