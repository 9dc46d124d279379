"""One process a folder, and a signal that ends a training where it can go on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from callbacks import snapshots
from callbacks.snapshots import Position

pytestmark = pytest.mark.slow

STATUS = {"SIGTERM": 143, "SIGINT": 130}
NEXT = {"plain": "Run the same program again to go on from there.", "tuned": "The same call with directory="}


def options_of(kind):
    """A training in which nothing but a signal saves within an epoch."""
    fields = {"freeze": ("large", "none"), "cache_features": False}
    return {"seconds": 300.0, **({"fields": fields} if kind == "tuned" else {})}


def checkpoints(kind, folder):
    return folder / "checkpoints" if kind == "plain" else folder / "run" / "checkpoints" / "phase2"


def until(fact, limit=60):
    """Waits for something to become true."""
    end = time.monotonic() + limit
    while not (found := fact()):
        assert time.monotonic() < end, "It takes too long."
        time.sleep(0.02)
    return found


def stopped(process):
    """Whether a process has been halted."""
    with open(f"/proc/{process.number}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("kind", ["plain", pytest.param("tuned", marks=pytest.mark.long)])
def test_a_second_process_is_refused_while_the_first_trains(nursery, whole, assert_same_end, tmp_path, kind):
    options = options_of(kind)
    first = nursery.start(kind, tmp_path, signals=["train", 1, 2, ["SIGSTOP"]], **options)
    try:
        until(lambda: stopped(first))
        before = sorted(path.name for path in tmp_path.rglob("*"))
        status, text = nursery.run(kind, tmp_path, **options)
        folder = tmp_path / ("checkpoints" if kind == "plain" else "run")
        assert status == 1
        assert f"{folder} is in use by process {first.number} on " in text
        assert sorted(path.name for path in tmp_path.rglob("*")) == before
    finally:
        os.kill(first.number, signal.SIGCONT)
    assert first.wait() == 0
    assert_same_end(whole(kind, **options), tmp_path)


@pytest.mark.long
def test_a_folder_whose_process_was_killed_is_free(nursery, tmp_path):
    assert nursery.run("plain", tmp_path, signals=["train", 1, 2, ["SIGKILL"]])[0] == -9
    assert json.loads((tmp_path / "checkpoints" / ".lock.json").read_text())["process"]
    assert nursery.run("plain", tmp_path, epochs=4)[0] == 0


CASES = [
    ("plain", "SIGTERM", "train", 1, 3),
    ("plain", "SIGINT", "dev", 1, 1),
    ("tuned", "SIGTERM", "dev", 2, 0),
    *(
        pytest.param(*case, marks=pytest.mark.long)
        for case in [
            ("plain", "SIGTERM", "dev", 1, 2),
            ("plain", "SIGINT", "train", 2, 0),
            ("plain", "SIGINT", "train", 0, 0),
            ("plain", "SIGTERM", "dev", 3, 2),
            ("tuned", "SIGINT", "train", 2, 2),
            ("tuned", "SIGTERM", "train", 3, 1),
        ]
    ),
]


@pytest.mark.parametrize(("kind", "name", "where", "epoch", "step"), CASES)
def test_a_signal_saves_within_a_step_and_the_training_goes_on_from_there(
    nursery, whole, assert_same_end, tmp_path, kind, name, where, epoch, step
):
    options = options_of(kind)
    status, text = nursery.run(kind, tmp_path, signals=[where, epoch, step, [name]], **options)
    assert status == STATUS[name], text
    assert f"{name}: the step is finished and saved first; once more stops at once." in text
    assert f" in {checkpoints(kind, tmp_path)}. {NEXT[kind]}" in text
    assert "Traceback" not in text
    newest = snapshots.positions(checkpoints(kind, tmp_path))[0]
    assert snapshots.read(checkpoints(kind, tmp_path) / newest.name)
    if where == "train":
        assert newest == Position(epoch, step)
    else:  # every step of the epoch is done, and the validation begins anew
        assert newest.epoch == epoch and newest.step > 0
    assert not (tmp_path / "end.json").exists()
    status, text = nursery.run(kind, tmp_path, **options)
    assert status == 0, text
    assert_same_end(whole(kind, **options), tmp_path)


@pytest.mark.parametrize("names", [["SIGINT", "SIGINT"], pytest.param(["SIGINT", "SIGTERM"], marks=pytest.mark.long)])
def test_a_second_signal_stops_at_once(nursery, whole, assert_same_end, tmp_path, names):
    options = options_of("plain")
    status, text = nursery.run("plain", tmp_path, signals=["train", 2, 3, names], **options)
    assert status == -signal.Signals[names[1]], text
    assert "Saved after" not in text
    assert snapshots.positions(tmp_path / "checkpoints")[0] in [(2, 0), (1, 0)]  # what was being written may be lost
    assert nursery.run("plain", tmp_path, **options)[0] == 0
    assert_same_end(whole("plain", **options), tmp_path)


@pytest.mark.long
def test_a_signal_while_steps_are_passed_over_keeps_the_checkpoint(nursery, whole, assert_same_end, tmp_path):
    options = options_of("plain")
    assert nursery.run("plain", tmp_path, signals=["train", 1, 4, ["SIGTERM"]], **options)[0] == 143
    status, text = nursery.run("plain", tmp_path, signals=["train", 1, 2, ["SIGTERM"]], **options)
    assert status == 143, text
    assert "Saved after 1 epochs, step 4" in text
    assert snapshots.positions(tmp_path / "checkpoints")[0] == Position(1, 4)
    assert nursery.run("plain", tmp_path, **options)[0] == 0
    assert_same_end(whole("plain", **options), tmp_path)


@pytest.mark.long
def test_the_command_ends_with_the_signals_status_and_goes_on_when_given_again(tmp_path):
    command = [sys.executable, "-c", "from zoo.cli import main; main()", "train", "digits", "--model", "convnet"]
    command += ["--image-size", "8", "--epochs", "12", "--batch-size", "256", "--out"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def begin(folder):
        return subprocess.Popen(
            [*command, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
        )

    left, cut = tmp_path / "left", tmp_path / "cut"
    process = begin(cut)
    until(lambda: list(cut.glob("checkpoints/phase1/epoch-*")) or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert "Saved after " in error and str(cut / "checkpoints" / "phase1") in error
    assert "zoo train: --out cut" in error
    assert "Traceback" not in error
    assert not (cut / "model.keras").exists()
    for folder in (cut, left):
        process = begin(folder)
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert (cut / "history.csv").read_text() == (left / "history.csv").read_text()
    assert (cut / "model.keras").exists()
