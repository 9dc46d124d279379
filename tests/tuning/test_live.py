"""What somebody sees of a search on a terminal."""

import keras_tuner
import pytest
from rich.console import Console

from tuning import spaces
from tuning.live import Live
from tuning.result import SearchResult

ENDED = {"curve": [], "metrics": {}, "reason": ""}
RESULTS = [
    {"trial": "0000", "status": "completed", "score": 0.91234, "seconds": 61.2, **ENDED},
    {"trial": "0001", "status": "pruned", "score": 0.5, "seconds": 7.0, **ENDED},
    {"trial": "0002", "status": "failed", "score": None, "seconds": 6125.0, **ENDED},
]


@pytest.fixture(params=[60, 80, 120])
def width(request):
    return request.param


def live(space, folder, reason="out of memory"):
    """Of a search with three trials that ended and one that runs."""
    hp = keras_tuner.HyperParameters()
    getattr(spaces, space)(hp)
    asked = {"objective": "val_accuracy", "direction": "max", "algorithm": "random", "seed": 0, "model": "auto"}
    events = [{"event": "search", "space": [], "space_name": space, **asked}]
    events += [{"event": "proposed", "trial": f"{i:04d}", "values": hp.values, "continues": None} for i in range(4)]
    results = [{**result, "reason": reason if result["status"] == "failed" else ""} for result in RESULTS]
    events += [{"event": "ended", "time": "", "result": result} for result in results]
    live = Live(SearchResult(folder, events), trials=30, workers=2)
    live.started({"trial": "0003"})
    return live


def drawn(live, width):
    """The lines of the table and of the sentence below it."""
    console = Console(width=width, height=40)
    with console.capture() as capture:
        console.print(live._drawn())
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("space", ["head", "transfer", "scratch"])
def test_hyperparameters_are_cut_and_nothing_else_is(tmp_path, space, width):
    lines = drawn(live(space, tmp_path), width)
    head, *rows = (line.split() for line in lines[:5])

    assert head == ["trial", "val_accuracy", "time", "hyperparameters"]
    assert rows[0][:4] == ["0000", "completed", "0.9123", "1:01"]
    assert rows[1][:4] == ["0001", "pruned", "0.5000", "0:07"]
    assert rows[2] == ["0002", "failed", "102:05", "out", "of", "memory"]
    assert rows[3][:3] == ["0003", "running", "0:00"]
    for line in (lines[1], lines[2], lines[4]):
        assert len(line) > width - 20 and line.endswith("…")  # one line a trial, and no room is wasted
    assert " ".join(lines[5:]).startswith("3 of 30 trials, best val_accuracy 0.9123 (trial 0000), 1 failed")


def test_what_fits_is_not_cut(tmp_path):
    _, first, *_ = drawn(live("head", tmp_path), 400)

    assert "learning_rate 0.001, " in first and "…" not in first


def test_brackets_in_a_reason_are_no_markup(tmp_path):
    lines = drawn(live("head", tmp_path, reason="no [bold] in [/photos]"), 80)

    assert lines[3].endswith("no [bold] in [/photos]")
