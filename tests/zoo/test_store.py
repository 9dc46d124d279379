"""The feature cache on disk: killed, cut short, damaged, full, shared."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from zoo.transfer.store import NoRoom, Record, Store, default_directory, default_limit
from zoo.transfer.writer import refusals

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef"
RECORD = Record((((2, 3), "float32"), ((), "int64"), ((5,), "bfloat16")))
ROWS = 50
CHUNK = 8

# what another process does: the same pass as `fill` below, telling after each chunk how far it is, and
# holding still after one of them until it is told to go on
OTHER = """
import sys
sys.path[:0] = [{tests!r}]
from zoo.transfer.store import Store
from test_store import *
entry = Store({directory!r}).entry(KEY, RECORD, ROWS, {{}})
def say(text):
    print(text, flush=True)
with entry.writing([0, 1], on_wait=lambda: say("waits")) as writers:
    say(f"writes {{sorted(writers)}}")
    for start in range(0, ROWS, CHUNK):
        for view, writer in writers.items():
            writer.append(features(view, start, start + CHUNK))
        say(start)
        if start == {hold}:
            sys.stdin.readline()
    for writer in writers.values():
        writer.finish()
say("done")
"""


def features(view, start=0, stop=ROWS):
    """The rows of a view from `start` to `stop`: random, and the same each time."""
    draw = np.random.default_rng(view)
    whole = [
        draw.normal(size=(ROWS, 2, 3)).astype(np.float32),
        draw.integers(-9, 9, ROWS),
        draw.normal(size=(ROWS, 5)).astype(ml_dtypes.bfloat16),
    ]
    return [array[start:stop] for array in whole]


def opened(store, key=KEY, **changes):
    return store.entry(key, **{"record": RECORD, "rows": ROWS, "about": {"model": "small"}, **changes})


def fill(entry, views=(0,), stop=ROWS, chunk=CHUNK):
    """Writes what is missing of `views`; up to row `stop` only, as if cut off there."""
    with entry.writing(views) as writers:
        for view, writer in writers.items():
            while writer.rows < stop:
                writer.append(features(view, writer.rows, min(writer.rows + chunk, stop)))
            if stop == ROWS:
                writer.finish()
    return entry


def assert_whole(entry, view=0):
    assert entry.whole(view)
    for received, expected in zip(entry.read(view, np.arange(ROWS)), features(view), strict=True):
        assert received.dtype == expected.dtype
        np.testing.assert_array_equal(received, expected)


def other(directory, hold=None):
    program = OTHER.format(tests=str(Path(__file__).parent), directory=str(directory), hold=hold)
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_for(process, text):
    """Reads what another process says up to a line."""
    for line in process.stdout:
        if line.strip() == text:
            return
    raise AssertionError(f"{text!r} was never said")


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "entry.json"}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "features", limit=10**6)


def test_rows_come_back_in_the_order_asked_for_with_shape_and_type(store):
    entry = fill(opened(store))
    rows = np.array([49, 0, 7, 7, 8])
    for received, expected in zip(entry.read(0, rows), features(0), strict=True):
        assert received.dtype == expected.dtype
        assert received.flags.c_contiguous
        np.testing.assert_array_equal(received, expected[rows])


def test_an_entry_tells_what_it_holds(store):
    entry = fill(opened(store), views=(0, 2))
    fill(entry, views=(5,), stop=20)
    entry.set_seconds_per_row(0.25)
    (found,) = store.entries()
    assert (found.key, found.about, found.rows, found.views) == (KEY, {"model": "small"}, ROWS, (0, 2))
    assert found.bytes == sum(path.stat().st_size for path in entry.folder.iterdir())
    assert found.claimed == found.bytes + (ROWS - 20) * RECORD.bytes
    assert opened(store).seconds_per_row == 0.25
    assert RECORD.bytes == 2 * 3 * 4 + 8 + 5 * 2


def test_a_split_without_rows_is_whole_and_empty(store):
    entry = opened(store, rows=0)
    with entry.writing([0]) as writers:
        writers[0].append(features(0, 0, 0))
        writers[0].finish()
    again = opened(store, rows=0)
    assert again.whole(0)
    assert [array.shape for array in again.read(0, np.arange(0))] == [(0, 2, 3), (0,), (0, 5)]


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(store):
    entry = opened(store)
    with entry.writing([0]) as writers:
        x, number, half = features(0, 0, 4)
        with pytest.raises(ValueError, match="`arrays` must hold one array a tensor"):
            writers[0].append([x.astype(np.float64), number, half])
        with pytest.raises(ValueError, match="`arrays` must hold one array a tensor"):
            writers[0].append([x, number[:3], half])
        with pytest.raises(ValueError, match="the 50 rows that are left. Received: 51"):
            writers[0].append([np.concatenate([array, array[:1]]) for array in features(0)])
        with pytest.raises(ValueError, match="all its 50 rows are there. Received: 0"):
            writers[0].finish()
        assert writers[0].rows == 0
    assert not entry.whole(0)


def test_rows_and_views_that_are_not_there_are_refused(store):
    entry = fill(opened(store))
    for rows in ([ROWS], [-1], [0.5], [[0]]):
        with pytest.raises(ValueError, match="`rows` must be integers"):
            entry.read(0, np.array(rows))
    with pytest.raises(ValueError, match="`view` must be one that is whole. Received: view=3"):
        entry.read(3, np.array([0]))


@pytest.mark.parametrize("key", ["../../home", "ABCDEF0123", "abc", ""])
def test_a_key_cannot_lead_out_of_the_folder(store, key):
    with pytest.raises(ValueError, match="`key` must be 8 to 128 hexadecimal digits"):
        opened(store, key)


# cut off


def test_a_cut_off_pass_goes_on_where_it_stopped(store):
    fill(opened(store), stop=24)
    with opened(store).writing([0]) as writers:
        assert writers[0].rows == 24
    assert_whole(fill(opened(store)))


@pytest.mark.parametrize("suffix", ["partial", "journal"])
def test_a_cut_at_any_byte_costs_the_last_chunks_only(store, suffix):
    folder = fill(opened(store), stop=24).folder
    before = bytes_of(folder)
    content = before[f"view0.{suffix}"]
    for cut in (0, 1, len(content) // 3, len(content) // 3 + 2, len(content) - 1, len(content)):
        for name, content in before.items():
            (folder / name).write_bytes(content)
        os.truncate(folder / f"view0.{suffix}", cut)
        kept = before["view0.journal"][:cut].count(b"\n") if suffix == "journal" else cut // (CHUNK * RECORD.bytes)
        with opened(store).writing([0]) as writers:
            assert writers[0].rows == kept * CHUNK
    assert_whole(fill(opened(store)))


def test_a_pass_can_be_cut_off_twice(store):
    folder = fill(opened(store), stop=24).folder
    with open(folder / "view0.journal", "ab") as journal:
        journal.write(b"32 0123")  # a line that a kill cut in two
    fill(opened(store), stop=40)
    with opened(store).writing([0]) as writers:
        assert writers[0].rows == 40


def test_a_finish_that_was_cut_off_loses_nothing(store):
    entry = opened(store)
    with entry.writing([0]) as writers:
        writers[0].append(features(0))
    os.rename(entry.folder / "view0.partial", entry.folder / "view0.features")  # and no view0.json
    assert not opened(store).whole(0)
    with opened(store).writing([0]) as writers:
        assert writers[0].rows == ROWS
        writers[0].finish()
    assert_whole(opened(store))


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_a_changed_byte_in_an_unfinished_view_costs_what_follows(store, chunk):
    path = fill(opened(store), stop=24).folder / "view0.partial"
    flip(path, chunk * CHUNK * RECORD.bytes + 5)
    with opened(store).writing([0]) as writers:
        assert writers[0].rows == chunk * CHUNK
    assert_whole(fill(opened(store)))


def test_a_killed_writer_is_gone_on_with_to_the_same_bytes(tmp_path):
    whole = fill(opened(Store(tmp_path / "whole")), views=(0, 1)).folder
    process = other(tmp_path / "cut", hold=16)
    wait_for(process, "16")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    entry = opened(Store(tmp_path / "cut"))
    assert not entry.whole(0)
    with entry.writing([0, 1]) as writers:
        assert (writers[0].rows, writers[1].rows) == (24, 24)
    fill(entry, views=(0, 1))
    assert bytes_of(entry.folder) == bytes_of(whole)
    assert entry.repaired == []


# A child is forked for each n, and killed just before its n-th call that changes the disk
KILLED_BEFORE_EACH_CALL = """
import os, signal, sys
sys.path[:0] = [{tests!r}]
from test_store import *
os.fsync = lambda file: None  # slow, and a kill loses nothing that the system has taken
CALLS = "open write truncate replace unlink mkdir rmdir utime".split()

def forked(work, *arguments):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        work(*arguments)
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(1)

def cut_off(directory, n):
    left = [n]
    def count(frame, event, called):
        if event == "c_call" and called.__name__ in CALLS:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(count)
    {work}

def go_on(directory):
    entry = opened(Store(directory))
    fill(entry, views=(0, 1))
    for view in (0, 1):
        assert_whole(opened(Store(directory)), view)
    assert {repairs} or entry.repaired == []

n, status = 0, None
while status != 0:
    n += 1
    directory = {directory!r} + f"/{{n}}"
    {before}
    status = forked(cut_off, directory, n)
    assert status in (0, signal.SIGKILL), (n, status)
    assert forked(go_on, directory) == 0, n
print(n)
"""


@pytest.mark.parametrize(
    ("before", "work", "repairs"),
    [
        ("pass", "fill(opened(Store(directory)), views=(0, 1), chunk=30)", False),
        ("fill(opened(Store(directory)), views=(0, 1))", "Store(directory).clear()", True),
    ],
    ids=["writing", "clearing"],
)
def test_a_kill_between_any_two_calls_to_the_disk_does_no_harm(tmp_path, before, work, repairs):
    program = KILLED_BEFORE_EACH_CALL.format(
        tests=str(Path(__file__).parent), directory=str(tmp_path), before=before, work=work, repairs=repairs
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > (30 if "fill(" in work else 7)  # the calls were seen


# damage


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cut(path, place):
    os.truncate(path, place)


def lengthen(path, place):
    with open(path, "ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("damage", [flip, cut, lengthen])
@pytest.mark.parametrize("place", [0, 100, ROWS * RECORD.bytes - 1])
def test_damaged_data_is_found_and_computed_again(store, damage, place):
    folder = fill(opened(store), views=(0, 1)).folder
    damage(folder / "view1.features", place)
    entry = opened(store)
    assert entry.whole(0)
    assert not entry.whole(1)
    assert not entry.whole(1)
    assert [sentence.startswith("View 1 in ") for sentence in entry.repaired] == [True]  # once
    assert_whole(fill(entry, views=(0, 1)), 1)
    assert_whole(entry, 0)


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("name", ["view0.json", "entry.json"])
def test_no_damaged_json_gives_wrong_rows(store, name, damage):
    fill(opened(store))
    path = store.directory / KEY / name
    content = path.read_bytes()
    found = 0
    places = range(0, len(content), 13)
    for place in places:
        path.write_bytes(content)
        damage(path, place)
        entry = opened(store)
        if not entry.whole(0):
            assert len(entry.repaired) == 1
            found += 1
        assert_whole(fill(entry))
    assert found > len(places) // 3  # blanks, names and the facts about it may change without harm


def test_a_damaged_view_stays_while_somebody_writes_the_entry(store):
    writer, reader = fill(opened(store)), opened(store)
    flip(writer.folder / "view0.features", 0)
    with writer.writing([1]):
        assert not reader.whole(0)
        assert reader.repaired == []
        assert (writer.folder / "view0.features").exists()
    assert not reader.whole(0)
    assert len(reader.repaired) == 1


def test_data_that_is_missing_is_computed_again(store):
    entry = fill(opened(store))
    (entry.folder / "view0.features").unlink()
    again = opened(store)
    assert not again.whole(0)
    assert "No such file" in again.repaired[0]
    assert_whole(fill(again))


@pytest.mark.parametrize(
    "changes", [{"rows": ROWS - 1}, {"record": Record((((2, 3), "float32"), ((), "int64"), ((5,), "float16")))}]
)
def test_an_entry_of_other_rows_or_tensors_is_never_used(store, changes):
    fill(opened(store))
    entry = opened(store, **changes)
    assert not entry.whole(0)
    assert "it holds other rows or other tensors" in entry.repaired[0]
    assert store.entries() == []


def test_an_entry_of_another_format_is_never_used(store):
    path = fill(opened(store)).folder / "entry.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    entry = opened(store)
    assert not entry.whole(0)
    assert "another format" in entry.repaired[0]
    assert_whole(fill(entry))


# two at once


def test_two_processes_make_one_set_of_features(tmp_path):
    first = other(tmp_path, hold=8)
    wait_for(first, "8")
    second = other(tmp_path)
    assert second.stdout.readline() == "waits\n"
    assert first.communicate("go on\n", timeout=60)[0].splitlines()[-1] == "done"
    assert second.communicate(timeout=60)[0].splitlines()[0] == "writes []"
    assert (first.returncode, second.returncode) == (0, 0)
    for view in (0, 1):
        assert_whole(opened(Store(tmp_path)), view)


def test_what_another_process_writes_is_neither_dropped_nor_taken_for_damaged(tmp_path):
    store = Store(tmp_path, limit=7 * ROWS * RECORD.bytes // 2)
    process = other(tmp_path, hold=8)
    wait_for(process, "8")
    entry = opened(store)
    assert not entry.whole(0)
    assert store.clear() == 0
    with pytest.raises(NoRoom, match="of which others are writing"):
        fill(opened(store, "f" * 8), views=(0, 1))  # two views fit alone, not beside the two that are begun
    assert process.communicate("go on\n", timeout=60)[0].splitlines()[-1] == "done"
    assert_whole(entry, 0)
    assert entry.repaired == []


def test_a_second_thread_waits_for_the_first(store):
    order = []

    def second():
        with opened(store).writing([0], on_wait=lambda: order.append("waits")) as writers:
            order.append(sorted(writers))

    with opened(store).writing([0]) as writers:
        thread = threading.Thread(target=second)
        thread.start()
        while not order and thread.is_alive():
            time.sleep(0.01)
        writers[0].append(features(0))
        writers[0].finish()
    thread.join()
    assert order == ["waits", []]


def test_what_is_open_can_be_read_after_the_cache_dropped_it(store):
    entry = fill(opened(store))
    assert entry.whole(0)
    assert store.clear() > ROWS * RECORD.bytes
    assert_whole(entry)
    assert not opened(store).whole(0)


# limits


def used(store):
    return [entry.key[0] for entry in store.entries()]


def test_the_least_recently_used_entry_goes_first(tmp_path):
    store = Store(tmp_path)
    for age, key in enumerate("abc"):
        entry = fill(opened(store, key * 8))
        os.utime(entry.folder / "entry.json", (age, age))
    assert used(store) == ["c", "b", "a"]
    store.limit = sum(entry.bytes for entry in store.entries()) + 100
    opened(store, "a" * 8)  # used again
    assert used(store) == ["a", "c", "b"]
    fill(opened(store, "d" * 8))
    assert used(store) == ["d", "a", "c"]
    assert sum(entry.bytes for entry in store.entries()) <= store.limit


def test_features_above_the_limit_are_refused_before_the_first_byte_and_drop_nothing(tmp_path):
    store = Store(tmp_path, limit=3 * ROWS * RECORD.bytes)
    fill(opened(store, "a" * 8))
    entry = opened(store)
    with pytest.raises(NoRoom, match=r"need 8.7 KB, and the cache .* MENAGERIE_CACHE_GB to 1 \(gigabytes\)"):
        fill(entry, views=range(4))
    assert used(store) == ["a"]
    assert not entry.folder.exists()


def test_features_above_the_free_disk_are_refused_and_drop_nothing(tmp_path):
    store = Store(tmp_path, limit=10**30)
    fill(opened(store))
    with pytest.raises(NoRoom, match=r"need [0-9.]+ GB, and the disk of .* has [0-9.]+ GB free. Free some"):
        fill(opened(store, "a" * 8, rows=10**18))
    assert used(store) == ["0"]


def test_a_full_disk_says_so_and_leaves_nothing_unfinished(store):
    entry = fill(opened(store), views=(7,))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(NoRoom, match=r"the disk of .* took no more after 1.0 KB of 2.1 KB \(File too large\)"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (30 * RECORD.bytes, hard))
            fill(entry, views=(0, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(bytes_of(entry.folder)) == ["view7.features", "view7.json"]
    assert_whole(entry, 7)
    assert_whole(fill(entry, views=(0, 1)), 1)


def test_another_refusal_of_the_disk_keeps_what_is_there(store):
    entry = opened(store)
    with pytest.raises(OSError, match="failed at the start .Input/output error.. Start again") as caught:
        with entry.writing([0]) as writers:
            writers[0].append(features(0, 0, CHUNK))
            with refusals(entry.folder, "at the start"):
                raise OSError(5, os.strerror(5))
    assert not isinstance(caught.value, NoRoom)
    with opened(store).writing([0]) as writers:
        assert writers[0].rows == CHUNK


def test_clearing_leaves_what_is_not_ours(store):
    folder = fill(opened(store), views=(0,)).folder
    fill(opened(store, "a" * 8), stop=24)
    (folder / "notes.txt").write_text("mine")
    (store.directory / "README").write_text("mine")
    (store.directory / ("b" * 8)).write_text("mine")
    expected = sum(entry.bytes for entry in store.entries())
    assert store.clear() == expected
    assert store.entries() == []
    left = sorted(path.relative_to(store.directory).as_posix() for path in store.directory.glob("[!.]*"))
    assert left == [KEY, "README", "b" * 8]
    assert os.listdir(folder) == ["notes.txt"]
    assert_whole(fill(opened(store)))


# places


def test_the_default_place_and_limit_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MENAGERIE_CACHE_GB", "0.5")
    store = Store()
    assert store.directory == default_directory() == tmp_path / "menagerie" / "features"
    assert store.directory.is_dir()
    assert store.limit == 500_000_000
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("MENAGERIE_CACHE_GB")
    assert default_directory() == Path.home() / ".cache" / "menagerie" / "features"
    assert default_limit() == 10_000_000_000


@pytest.mark.parametrize("value", ["ten", "-1", "nan", "inf", "10 GB"])
def test_a_limit_that_is_no_number_of_gigabytes_is_named(monkeypatch, value):
    monkeypatch.setenv("MENAGERIE_CACHE_GB", value)
    with pytest.raises(ValueError, match=f"MENAGERIE_CACHE_GB must be a number of gigabytes.*Received: '{value}'"):
        default_limit()


def test_a_negative_limit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`limit` must be a number of bytes, 0 or more. Received: limit=-1"):
        Store(tmp_path, limit=-1)


def test_a_file_in_the_way_of_the_folder_or_of_an_entry_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="The folder .*file/features cannot be made"):
        Store(tmp_path / "file" / "features")
    (tmp_path / KEY).write_text("")
    with pytest.raises(OSError, match=f"The folder .*{KEY} cannot be made"):
        fill(opened(Store(tmp_path)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "features").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="The folder .*features cannot be written"):
        Store(tmp_path / "features")
