"""How often a run's test set was looked at is known."""

import json
import os
from datetime import UTC, datetime

import pytest

import zoo


@pytest.fixture
def run(digit_pictures, tmp_path):
    images, labels = digit_pictures
    data = zoo.load_data((images[:120], labels[:120]), image_size=8)
    return zoo.fine_tune("convnet", data, directory=tmp_path / "run", epochs=1, batch_size=32)


@pytest.mark.slow
def test_every_look_at_the_test_set_counts_and_none_at_the_others(run):
    assert run.test_looks == 0
    run.evaluate("dev")
    run.evaluate("train")
    run.evaluate(run.data.dev)
    assert run.test_looks == 0
    before = datetime.now(UTC).replace(microsecond=0)
    run.evaluate("test")
    assert run.test_looks == 1
    run.evaluate("test", save=False)
    run.evaluate("test", augment="light", views=1)
    assert run.test_looks == 3
    noted = json.loads((run.directory / "evaluation" / "test_looks.json").read_text())
    assert noted["times"] == 3 and before <= datetime.fromisoformat(noted["last"]) <= datetime.now(UTC)
    assert zoo.load_run(run.directory, run.data).test_looks == 3
    run.calibrate()
    assert run.test_looks == 3
    assert {"test.json", "test-light-1.json"} <= set(os.listdir(run.directory / "evaluation"))


@pytest.mark.slow
def test_a_count_that_cannot_be_read_begins_anew(run):
    path = run.directory / "evaluation" / "test_looks.json"
    run.evaluate("test")
    for text in ("", "[1]", '{"times": null}', '{"times": "many"}', '{"times": 1e999}', '{"times": -4}', "\0"):
        path.write_text(text)
        assert run.test_looks == 0
        run.evaluate("test", save=False)
        assert run.test_looks == 1


@pytest.mark.slow
def test_a_look_that_cannot_be_counted_is_no_error(run):
    (run.directory / "evaluation").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="This look at the test set could not be counted"):
        assert run.evaluate("test", save=False).accuracy >= 0
    assert run.test_looks == 0
