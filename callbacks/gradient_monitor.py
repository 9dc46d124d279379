"""Whether gradients reach all of a network while it is fitted."""

import csv
import io
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from callbacks import gradient_verdicts
from callbacks.gradient_probe import Probe, groups_of
from callbacks.stateful import Stateful
from callbacks.syncing import synchronize
from callbacks.writing import replace

SHARE = 0.02  # of the time since fit began that probes may take
SPACING = 0.01  # of that time between two of them, so that a long fit has hundreds of records, not millions
# Steps that the first probe takes on TensorFlow, operation by operation: 6 of ResNet-20, 10 of MobileNetV2.
_FIRST_PROBE = 10
_FIGURES = ("gradient_norm", "weight_norm", "update_ratio", "dead", "mean", "spread")
_COLUMNS = ("epoch", "step", "loss", "group", *_FIGURES)


class GradientMonitor(Stateful):
    """Differentiates the loss of a fixed probe batch every now and then, and says whether the network can learn.

    `fit` shows callbacks no gradients, so a probe computes them anew, in training mode, from weights and loss of the
    next step. Nothing of the model moves: a fit ends on the same weights with and without it. Recorded at each probe,
    of each group of layers that holds something to train:

    - `gradient_norm`: ||g||, over all trainable weights of the group, in float32, of the unscaled loss;
    - `weight_norm`: ||w|| before the step, and `update_ratio`: ||w after - w before|| / ||w before|| of the step of
      `fit` that follows, the mean over the steps of one execution; both over kernels alone, since biases and gains may
      begin near 0; None where the group has no kernel, the ratio also where ||w|| is 0 or no step followed;
    - `dead`: share of units or channels behind a ReLU that are 0 for the whole probe at all positions; None where the
      group has no ReLU, or the model is no graph of its layers;
    - `mean` and `spread`: mean and standard deviation of the group's last activation; None where there is no graph.

    The verdict of a group is, by the medians of the last five records,

    - "exploding": the gradient or a weight is not finite, ||g|| > 1000, or the ratio is above 0.3;
    - "dead": more than 0.4 of its ReLUs are;
    - "vanishing": ||g|| is at most a ten-thousandth of the largest group's;
    - "healthy" otherwise.

    The thresholds and their sources stand in `callbacks.gradient_verdicts`: Pascanu et al. 2013, Karpathy's CS231n,
    Lu et al. 2019, Glorot and Bengio 2010. A learning rate that has come down to nothing is no trouble, so a small
    ratio is none, either. A probe of 32 pictures is enough.

    Args:
        probe: (x, y) or (x, y, sample_weight), one batch as `fit` takes it: arrays or tensors, or tuples, lists or
            dicts of them.
        every: Steps from one probe to the next, counted over epochs where `fit` knows their length; or "auto": as often
            as takes 2 % of the time, and once in any case: without a record before, at the last step of all.
        model: The whole network, and `probe` its batch, where the model that is fitted is only a part of it, such as
            the tail behind a frozen trunk; by default the fitted model.
        groups: Group to names of layers. By default the stages, where every layer that trains is called `stem_*`,
            `stage<k>_*` or `head_*`; else each layer that trains, a model in the model being one of them.
        path: A CSV file, a row for each group and probe. A fit that begins at a later epoch keeps the rows of the
            epochs before.
        clock: Function that returns seconds; tests hand in their own.

    Attributes:
        records: A dict for each probe: `epoch`, from 1, `step`, from 0, `loss`, and `groups`, group to its figures.
        table: The same, flat: a dict for each probe and group.
        verdicts: Group to verdict; empty before the first record.
        verdict: The worst of them, or None.

    Raises:
        TypeError: If `probe` is no tuple of two or three, or `model` no Keras model.
        ValueError: If the parts of `probe` differ in length or are empty, `every` is below 1; at the start of `fit`, if
            `groups` names no layer, or `model` shares no weight with the fitted model, or `path` holds something else.

    Example:
        >>> monitor = GradientMonitor(probe=(np.zeros((4, 8)), np.zeros((4, 1))))
        >>> # model.fit(..., callbacks=[monitor]); monitor.verdicts
        >>> print(monitor.verdict)
        None
    """

    def __init__(
        self,
        probe: tuple[Any, ...],
        every: int | str = "auto",
        model: keras.Model | None = None,
        groups: Mapping[str, Iterable[str]] | None = None,
        path: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__()
        _check_probe(probe)
        if every != "auto" and not (isinstance(every, int) and not isinstance(every, bool) and every >= 1):
            raise ValueError(f'`every` must be a number of steps, at least 1, or "auto". Received: every={every!r}')
        if model is not None and not isinstance(model, keras.Model):
            raise TypeError(f"`model` must be a Keras model, or None. Received: {type(model).__name__}")
        self.probe = probe
        self.every = every
        self.network = model  # `model` is Keras' own name for the one that is fitted
        self.groups = None if groups is None else {group: list(names) for group, names in groups.items()}
        self.path = None if path is None else Path(path).absolute()
        self.clock = clock
        self.records: list[dict[str, Any]] = []
        self._probe: Any = None
        self._batch: Any = None

    @property
    def table(self) -> list[dict[str, Any]]:
        return [row for record in self.records for row in _rows(record)]

    @property
    def verdicts(self) -> dict[str, str]:
        return gradient_verdicts.verdicts(self.records)

    @property
    def verdict(self) -> str | None:
        return gradient_verdicts.worst(self.verdicts)

    def get_state(self):
        return {
            "records": list(self.records),
            "first_epoch": self._first_epoch,
            "seen": list(self._seen),
            "pending": self._pending is not None,
        }

    def set_state(self, state):
        self.records = list(state["records"])
        self._first_epoch = state["first_epoch"]
        self._seen = tuple(state["seen"])
        self._again = self._seen if state["pending"] else None

    def on_train_begin(self, logs=None):
        network = self.network or self.model
        trained = {id(variable) for variable in self.model.trainable_variables}
        if self.network is not None and self.model.built and not trained & {id(v) for v in network.weights}:
            raise ValueError(
                "`model` must be the network that the fitted model is a part of, made of the same layers. "
                f"Received: model {network.name!r}, which trains no weight of {self.model.name!r}"
            )
        groups_of(network, self.groups)  # names that are wrong are said at once
        self.records = []
        self._probe = self._batch = None
        self._pending = self._first_epoch = self._again = None
        self._opened = False
        self._seen = (-1, 0)  # the last step that was looked at
        self._costs: list[float] = []  # seconds that each probe took
        self._first_step = self._step = 0.0  # seconds
        self._mark = None  # when the step at hand began
        self._began = self._last = self.clock()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if not self._opened:  # only now is it known where the fit goes on
            self._opened = True
            self._first_epoch = epoch if self._first_epoch is None else self._first_epoch
            if self.path is not None:
                replace(self.path, _text([_COLUMNS, *_kept(self.path, self._first_epoch), *map(_cells, self.table)]))

    def on_train_batch_begin(self, batch, logs=None):
        self._time_step()
        self._finish()
        position = (self._epoch, batch)
        if position < self._seen:  # a fit that was resumed passes over it
            return
        if position == self._again or (position > self._seen and self._due(batch)):
            self._look(position)
        self._seen, self._again = position, None
        self._mark = self.clock()

    def on_epoch_end(self, epoch, logs=None):
        self._time_step()
        self._finish()

    def on_train_end(self, logs=None):
        if not self.records and self._seen[0] >= 0 and self.every == "auto":  # stopped early, or of unknown length
            self._look(self._seen, follows=False)
            self._finish()
        self._probe = self._batch = None

    def _time_step(self):
        if self._mark is not None:
            self._step = self.clock() - self._mark
            self._first_step = self._first_step or self._step
            self._mark = None

    def _due(self, batch):
        model: Any = self._model  # by the public property, JAX would give all weights back, at every step
        if self._probe is None and not all(layer.built for layer in model._flatten_layers()):
            return False  # the first step builds it
        params: Any = self.params
        steps, execution = params.get("steps"), model.steps_per_execution
        if self.every != "auto":
            done = self._epoch * steps + batch if steps else batch
            return (done + self._execution(batch) - 1) // self.every > (done - 1) // self.every
        if not self.records and steps and self._epoch == params["epochs"] - 1 and batch + execution >= steps:
            return True
        if not self._first_step:
            return False
        now = self.clock()
        passed = now - self._began
        return sum(self._costs) + self._expected() <= SHARE * passed and now - self._last >= SPACING * passed

    def _expected(self):
        """Seconds that the next probe will take."""
        jax = keras.backend.backend() == "jax"
        if not self._costs:  # JAX compiles it, which takes as long as the first step did
            return self._first_step if jax else _FIRST_PROBE * self._step
        if len(self._costs) == 1:  # TensorFlow compiles the second one
            return 0.0 if jax else 2 * self._costs[0]
        return min(self._costs)

    def _look(self, position, follows=True):
        """Notes gradients and activations at the weights as they are; the step that follows completes the record."""
        self._settle()
        begin = self._last = self.clock()
        if self._probe is None:
            self._batch = keras.tree.map_structure(_tensor, tuple(self.probe))
            self._probe = self._first_probe()
        if self._probe.members:
            loss, figures = self._probe(*self._batch)
            before = self._weights() if follows else None
            norms = self._norms(before or self._weights())
            groups = {
                group: {
                    "gradient_norm": figure["gradient_norm"],
                    "weight_norm": norms[group],
                    "update_ratio": None,
                    **{key: figure[key] for key in ("dead", "mean", "spread")},
                }
                for group, figure in figures.items()
            }
            record = {"epoch": position[0] + 1, "step": position[1], "loss": loss, "groups": groups}
            self._pending = record, before, self._execution(position[1])
        self._costs.append(self.clock() - begin)

    def _first_probe(self):
        model: Any = self.model
        network = self.network or model
        if network is model:
            # `fit` does so on JAX; on TensorFlow the first step would build the loss, with variables of its own
            model._symbolic_build(data_batch=self._batch)
        # what is asked for by the step repeats to the bit in a fit that was resumed
        return Probe(model, network, groups_of(network, self.groups), compiled=self.every != "auto")

    def _finish(self):
        """Completes the record of the last probe by what the step has done to the weights."""
        if self._pending is None:
            return
        (record, before, steps), self._pending = self._pending, None
        self._settle()
        begin = self.clock()
        if before is not None:
            with np.errstate(all="ignore"):  # where it explodes
                change = self._norms([new - old for new, old in zip(self._weights(), before, strict=True)])
            for group, figure in record["groups"].items():
                if figure["weight_norm"]:
                    figure["update_ratio"] = change[group] / figure["weight_norm"] / steps
        self.records.append(record)
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                file.write(_text(map(_cells, _rows(record))))
        self._costs[-1] += self.clock() - begin

    def _execution(self, batch):
        """Steps that the execution at hand takes."""
        model: Any = self._model
        steps, execution = self.params.get("steps"), model.steps_per_execution
        return max(1, min(execution, steps - batch)) if steps else execution

    def _settle(self):
        """Weights as the steps so far have left them; what is waited for here is the fit's own work."""
        synchronize(self.model)
        if self.model.trainable_variables:
            keras.ops.convert_to_numpy(self.model.trainable_variables[-1])

    def _weights(self):
        # copies: JAX gives the memory of the weights to the next step
        return [np.array(keras.ops.convert_to_numpy(v), "float32") for v in self.model.trainable_variables]

    def _norms(self, values):
        """The L2 norm of the kernels in each group, None where it has none."""
        squares = {i: float(np.vdot(value, value)) for i, value in enumerate(values) if value.ndim > 1}
        kernels = {
            group: [squares[i] for i in members if i in squares] for group, members in self._probe.members.items()
        }
        return {group: math.sqrt(sum(parts)) if parts else None for group, parts in kernels.items()}


def _check_probe(probe):
    if not isinstance(probe, (tuple, list)) or len(probe) not in (2, 3):
        shape = f"{len(probe)} parts" if isinstance(probe, (tuple, list)) else type(probe).__name__
        raise TypeError(f"`probe` must be (x, y) or (x, y, sample_weight), as `fit` takes them. Received: {shape}")
    leaves = [leaf for leaf in keras.tree.flatten(tuple(probe)) if leaf is not None]
    if not all(getattr(leaf, "shape", ()) for leaf in leaves):
        raise TypeError("`probe` must hold arrays or tensors of one batch. Received something without a length.")
    lengths = sorted({int(leaf.shape[0]) for leaf in leaves})
    if len(lengths) != 1 or lengths[0] < 1:
        raise ValueError(f"The parts of `probe` must have one length, at least 1. Received lengths: {lengths}")


def _tensor(value):
    """What `fit` makes of an array."""
    if value is None:
        return None
    double = keras.backend.standardize_dtype(value.dtype) == "float64"
    return keras.ops.convert_to_tensor(value, keras.config.floatx() if double else None)


def _rows(record):
    """A record as rows of the table."""
    where = {key: record[key] for key in ("epoch", "step", "loss")}
    return [{**where, "group": group, **figures} for group, figures in record["groups"].items()]


def _cells(row):
    """A row of the table as text; an empty cell where there is no such figure."""
    return ["" if row[column] is None else str(row[column]) for column in _COLUMNS]


def _kept(path, epoch):
    """The rows of the first `epoch` epochs in a file of ours; a last line that was torn is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    header, *rows = [*csv.reader(line.decode(errors="replace") for line in lines)] or [[*_COLUMNS]]
    if tuple(header) != _COLUMNS or not all(len(row) == len(_COLUMNS) and row[0].isdecimal() for row in rows):
        raise ValueError(f"`path` must name a table of GradientMonitor or a new file; {path} holds something else.")
    return [row for row in rows if int(row[0]) <= epoch]


def _text(rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
