"""A search that is killed, again and again, and what comes of it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tuning
from tuning.journal import NAME

ROOT = Path(__file__).parents[2]
LIMIT = 300  # seconds, after which something is taken to hang
SCRIPT = """
import sys
import zoo, tuning  # an unguarded script, on purpose

def space(hp):
    return {
        "learning_rate": hp.Float("learning_rate", 1e-3, 1e-1, sampling="log", default=1e-2),
        "dropout": hp.Float("dropout", 0.0, 0.5, default=0.2),
    }

data = zoo.load_data("digits", image_size=8).fewer(60)
tuning.search(
    "convnet", data, space=space, algorithm=sys.argv[2], trials=8, workers=1, directory=sys.argv[1], epochs=3,
    variant={"filters": (2, 4)}, batch_size=16,
)
"""
COLUMNS = ["trial", "status", "score", "epochs", "best_epoch", "learning_rate", "dropout"]


def begun(folder, algorithm, output=subprocess.DEVNULL):
    """A process that searches."""
    command = [sys.executable, "-c", SCRIPT, str(folder), algorithm]
    return subprocess.Popen(command, cwd=ROOT, stdout=output, start_new_session=True)


def lines(folder):
    return (folder / NAME).read_bytes().count(b"\n") if (folder / NAME).exists() else 0


def workers_of(folder):
    """Processes that write into a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(place).startswith(str(folder)):
                found.append(int(place.parts[2]))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")
@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_killed_at_ten_random_moments_a_search_comes_to_the_same(tmp_path, algorithm):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    assert begun(alone, algorithm).wait(LIMIT) == 0
    chance, kills = random.Random(algorithm), 0
    for _ in range(10):
        process, before = begun(killed, algorithm), lines(killed)
        grown, end = chance.randint(1, 3), time.monotonic() + LIMIT
        while lines(killed) < before + grown and process.poll() is None:
            assert time.monotonic() < end, "The search did not go on"
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 1))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
        while left := workers_of(killed):
            assert time.monotonic() < end, f"{left} outlived the search"
            time.sleep(0.05)
    assert begun(killed, algorithm).wait(LIMIT) == 0
    one, other = (tuning.load_search(folder) for folder in (alone, killed))

    assert kills >= 5
    assert other.trials[COLUMNS].equals(one.trials[COLUMNS])
    assert other.trials.attempts.sum() > len(other.trials)
    assert (other.best_trial, other.best_score) == (one.best_trial, one.best_score)


@pytest.mark.slow
def test_a_second_search_is_refused_and_sigterm_ends_the_first_with_a_word(tmp_path):
    folder = tmp_path / "search"
    first, end = begun(folder, "random", subprocess.PIPE), time.monotonic() + LIMIT
    try:
        while not lines(folder):
            assert first.poll() is None and time.monotonic() < end, "The first search did not begin"
            time.sleep(0.01)
        command = [sys.executable, "-c", SCRIPT, str(folder), "random"]
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)

        assert second.returncode == 1
        assert f"InUse: {folder} is in use by process {first.pid}" in second.stderr

        first.terminate()
        said, _ = first.communicate(timeout=LIMIT)
        assert first.returncode == 128 + signal.SIGTERM
        assert b"Stopped; what was running will be run again" in said
        assert not workers_of(folder)
    finally:
        first.kill()
        first.wait(LIMIT)
