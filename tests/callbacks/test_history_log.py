import csv
import errno
import math
import signal

import keras
import numpy as np
import pandas as pd
import pytest

from callbacks.history_log import HistoryLog


def drive(path, logs, first=0):
    """A fit that logs these values, from an epoch on."""
    log = HistoryLog(path)
    log.on_train_begin()
    for epoch, values in enumerate(logs, start=first):
        log.on_epoch_begin(epoch)
        log.on_epoch_end(epoch, values)
    return log


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]


def losses(*values):
    return [{"loss": value} for value in values]


def test_a_row_an_epoch_comes_back_to_the_bit(tmp_path):
    path = tmp_path / "made" / "history.csv"
    values = [0.1 + 0.2, float(np.float32(1 / 3)), 1e-300]
    drive(path, [{"loss": value, "accuracy": 1} for value in values])
    assert read(path) == [{"epoch": i, "loss": value, "accuracy": 1} for i, value in enumerate(values, start=1)]
    assert [entry.name for entry in path.parent.iterdir()] == ["history.csv"]


def test_a_row_is_there_when_its_epoch_has_ended(tmp_path):
    log = HistoryLog(tmp_path / "history.csv")
    log.on_train_begin()
    for epoch in range(3):
        log.on_epoch_begin(epoch)
        log.on_epoch_end(epoch, {"loss": 1.0})
        assert len(read(log.path)) == epoch + 1


def test_what_is_not_finite_is_readable(tmp_path):
    path = tmp_path / "history.csv"
    drive(path, losses(math.nan, math.inf, -math.inf))
    assert path.read_text() == "epoch,loss\n1,nan\n2,inf\n3,-inf\n"
    assert np.array_equal(pd.read_csv(path)["loss"], [math.nan, math.inf, -math.inf], equal_nan=True)


def test_a_fit_that_goes_on_replaces_the_rows_from_there_on(tmp_path):
    path = tmp_path / "history.csv"
    drive(path, losses(1.0, 2.0, 3.0, 4.0))
    drive(path, losses(30.0, 40.0, 50.0), first=2)
    assert [row["loss"] for row in read(path)] == [1, 2, 30, 40, 50]
    assert [row["epoch"] for row in read(path)] == [1, 2, 3, 4, 5]


def test_a_fresh_fit_begins_anew_once_its_first_epoch_has_ended(tmp_path):
    path = tmp_path / "history.csv"
    drive(path, [{"loss": 1.0, "val_loss": 2.0}] * 2)
    log = HistoryLog(path)
    log.on_train_begin()
    log.on_epoch_begin(0)
    assert len(read(path)) == 2
    log.on_epoch_end(0, {"loss": 9.0})
    assert path.read_text() == "epoch,loss\n1,9.0\n"


@pytest.mark.parametrize("torn", ["3", "3,", "3,0.2", "3,0.25"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    path = tmp_path / "history.csv"
    drive(path, losses(1.0, 2.0))
    path.write_text(path.read_text() + torn)
    drive(path, losses(4.0), first=3)
    assert path.read_text() == "epoch,loss\n1,1.0\n2,2.0\n4,4.0\n"


def test_a_metric_that_comes_later_gets_a_column(tmp_path):
    path = tmp_path / "history.csv"
    drive(path, [{"loss": 1.0}, {"loss": 2.0, "val_loss": 3.0}, {"loss": 4.0}])
    assert path.read_text() == "epoch,loss,val_loss\n1,1.0,nan\n2,2.0,3.0\n3,4.0,nan\n"
    drive(path, [{"loss": 5.0, "f1": 0.5}], first=3)
    assert path.read_text().splitlines()[-1] == "4,5.0,nan,0.5"
    assert len(read(path)) == 4


@pytest.mark.parametrize(
    "text", ["dear diary", "loss,accuracy\n1,2\n", "epoch,loss\n0,1.0\n", "epoch,loss\n1\n2,1.0\n", "epoch\none\n"]
)
def test_the_file_of_another_program_is_left_alone(tmp_path, text):
    path = tmp_path / "history.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="`path` must name a table of HistoryLog"):
        drive(path, losses(1.0))
    assert path.read_text() == text


def test_a_binary_file_is_left_alone(tmp_path):
    path = tmp_path / "history.csv"
    path.write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(ValueError, match="holds something else"):
        drive(path, losses(1.0))
    assert path.read_bytes() == b"\x89PNG\r\n\xff\xfe"


@pytest.mark.parametrize("name", ["accuracy", "another"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, name):
    resource = pytest.importorskip("resource", reason="no limits on this system")
    path = tmp_path / "history.csv"
    log = drive(path, [{"loss": 1.0, "accuracy": 0.5}])
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log.on_epoch_begin(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 4, limits[1]))  # a part of a row still fits
    try:
        with pytest.raises(OSError, match="history.csv cannot be written: .* Make room") as caught:
            log.on_epoch_end(1, {"loss": 2.0, name: 0.75})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.csv"]


def test_a_table_that_vanishes_during_the_fit_is_written_again(tmp_path):
    log = drive(tmp_path / "history.csv", losses(1.0))
    log.path.unlink()
    log.on_epoch_begin(1)
    log.on_epoch_end(1, {"loss": 2.0})
    assert [row["loss"] for row in read(log.path)] == [1, 2]


def test_values_of_several_numbers_are_lists(tmp_path):
    drive(tmp_path / "history.csv", [{"f1": np.array([0.5, 1.0])}])
    assert pd.read_csv(tmp_path / "history.csv")["f1"][0] == "[0.5, 1.0]"


def test_a_fit_and_its_continuation_give_one_history(tmp_path):
    path = tmp_path / "history.csv"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    x = np.eye(4, 2)
    log, found = HistoryLog(path), {}
    for first, last in ((0, 2), (2, 3)):
        history = model.fit(
            x, x.sum(1), validation_split=0.5, initial_epoch=first, epochs=last, verbose=0, callbacks=[log]
        ).history
        for name, values in history.items():
            found.setdefault(name, []).extend(values)
    assert read(path) == [{"epoch": i + 1, **{name: values[i] for name, values in found.items()}} for i in range(3)]
