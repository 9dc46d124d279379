"""The metrics of every epoch in a table on disk."""

import csv
import io
from pathlib import Path

import keras
import numpy as np

from callbacks.stateful import Announced
from callbacks.writing import append, replace


class HistoryLog(Announced):
    """Writes a row an epoch into a CSV file: `epoch`, from 1, then every metric of the logs.

    A row is on disk when its epoch ends; whatever is interrupted, the rows before it are whole. A fit that goes on
    from epoch n + 1 (`initial_epoch=n`) keeps the rows of the epochs 1 to n and replaces the others, when its first
    epoch has ended; so a fresh fit begins the table anew. A metric that comes later gets a column of its own, with
    `nan` where it was missing. Numbers come back to the bit with `float`.

    Stand it behind the callbacks that write into the logs, such as the learning-rate decays.

    Args:
        path: The file. Missing folders are made.

    Raises:
        ValueError: If the file holds anything but such a table; at the start of the first epoch, and the file stays.
        OSError: If the file cannot be written; what it held stays.

    Example:
        >>> log = HistoryLog("runs/first/history.csv")  # model.fit(..., callbacks=[log])
    """

    def __init__(self, path):
        super().__init__()
        self.path = Path(path).absolute()

    def on_train_begin(self, logs=None):
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []
        self._begun = self._appending = False

    def on_epoch_begin(self, epoch, logs=None):
        if not self._begun:  # only now is it known where the fit goes on
            self._begun = True
            columns, rows = _read(self.path)
            self._rows = [row for row in rows if int(row["epoch"]) <= epoch]
            self._columns = columns if self._rows else ["epoch"]

    def on_epoch_end(self, epoch, logs=None):
        row = {name: _text(value) for name, value in (logs or {}).items()} | {"epoch": str(epoch + 1)}
        new = [name for name in row if name not in self._columns]
        self._columns += new
        self._rows.append(row)
        try:
            if self._appending and not new and self.path.exists():
                append(self.path, _table(self._columns, [row]))
            else:
                header = {name: name for name in self._columns}
                replace(self.path, _table(self._columns, [header, *self._rows]))
        except OSError as error:
            raise OSError(
                error.errno,
                f"The history {self.path} cannot be written: {error.strerror}. Make room, or choose another path.",
            ) from error
        self._appending = True


def _read(path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a table of ours; a last line that was torn is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ["epoch"], []
    except UnicodeDecodeError:
        text = "not a table"
    lines = text.splitlines(keepends=True)
    if lines[1:] and not lines[-1].endswith("\n"):
        lines.pop()
    columns, *rows = [*csv.reader(lines)] or [["epoch"]]
    fine = "epoch" in columns and all(len(row) == len(columns) for row in rows)
    table = [dict(zip(columns, row, strict=True)) for row in rows] if fine else []
    if not fine or not all(row["epoch"].isdecimal() and int(row["epoch"]) for row in table):
        raise ValueError(
            f'`path` must name a table of HistoryLog, with a column "epoch" that counts from 1, or a new file; {path} '
            "holds something else. Choose another path, or move that file away."
        )
    return columns, table


def _table(columns, rows):
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="nan", lineterminator="\n").writerows(rows)
    return text.getvalue()


def _text(value):
    """A number so that `float` gives it back to the bit; an array as a list."""
    value = np.asarray(keras.ops.convert_to_numpy(value))
    return repr(float(value.reshape(()))) if value.size == 1 else str(value.tolist())
