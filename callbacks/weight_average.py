"""The average of the weights over the steps of a fit, taken as the model where it is the better one."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from callbacks import checking
from callbacks.autodiff import compiled
from callbacks.early_stopping import EarlyStopping
from callbacks.monitoring import checked_direction, direction_of, improves, value_of
from callbacks.stateful import Stateful, peers
from callbacks.syncing import stepping, synchronize


class WeightAverage(Stateful):
    """Keeps an exponential average of the weights, evaluates it beside them, and ends on it where it is better.

    After every step v = beta * v + (1 - beta) * weights, from v = 0, and the average is v / (1 - beta ** t) after t
    steps: the bias correction of Kingma and Ba 2015, section 3, so that the average is of use from the first step on.
    Computed is the average itself, by m += (1 - beta) / (1 - beta ** t) * (weights - m), the same number; a weight that
    does not move keeps its bits. Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging",
    https://doi.org/10.1137/0330046; near it, Izmailov et al. 2018, https://arxiv.org/abs/1803.05407, with equal weights
    for late epochs.

    Averaged are all floating-point weights of the layers that train, so the statistics of batch normalisation as well,
    as in timm's ModelEmaV2: averaged weights need statistics of their own. What is frozen is left alone. The average
    is kept in float32 at least. A step that leaves any of these weights NaN or infinite does not count. With more than
    one step an execution, an execution counts as one step.

    The training goes on from the weights themselves, as without this callback. At the end of an epoch with validation,
    the average is evaluated on the same validation data (which costs the time of another validation; a Python
    generator of them goes on instead of starting over). Logged are `average_val_<name>` and `raw_val_<name>`, of the
    weights themselves; `val_<name>` is of the better of the two by `monitor`, and the model holds those weights while
    the callbacks behind this one look at the epoch. The fit ends on the average if it was the better one in the last
    epoch compared; without validation data it always does.

    Args:
        beta: Weight of what was before, in [0, 1); 0.999 averages about the last 1000 steps.
        monitor: Name of a metric in the logs, with val_.
        direction: "max", "min", or None to ask the compiled metric of that name, then the name itself.

    Attributes:
        better: Whether the average was the better one in the last epoch compared, or None.

    Raises:
        TypeError: If `beta` is no number, or `monitor` no name.
        ValueError: If an argument is out of range; when `fit` begins: nothing tells the direction, an `EarlyStopping`
            stands before this callback in the list or another `WeightAverage` in it, or the optimizer averages the
            weights itself; at the end of an epoch: the logs hold no such metric.

    Example:
        model.fit(x, y, validation_data=dev, epochs=9, callbacks=[WeightAverage(0.99), EarlyStopping()])
    """

    def __init__(self, beta=0.999, monitor="val_loss", direction=None):
        super().__init__()
        checking.beta("beta", beta)
        checking.metric("monitor", monitor)
        if not monitor.startswith("val_"):
            raise ValueError(
                "`monitor` must be a metric on the validation data, such as 'val_loss': on the training data the "
                f"average is not evaluated. Received: monitor={monitor!r}"
            )
        self.beta = beta
        self.monitor = monitor
        self.direction = None if direction is None else checked_direction(direction)
        self._update = compiled(self._averaged)
        self._reset()

    def on_train_begin(self, logs=None):
        self._reset()
        self._check()
        self._way = direction_of(self.monitor, self.direction, self.model)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._put_back()

    def on_train_batch_begin(self, batch, logs=None):
        # The step before this one is averaged here: with an `on_train_batch_end`, Keras waits for every step's logs.
        here = (self._epoch, batch)
        if self._begun is not None and here <= self._begun:
            return  # a step done already, before the fit was resumed
        self._average_step()
        self._begun = here

    def on_epoch_end(self, epoch, logs=None):
        self._average_step()
        validated = {name: value for name, value in (logs or {}).items() if name.startswith("val_")}
        # Keras keeps the validation data there for the length of a fit, and only there
        if not validated or getattr(self.model, "_eval_epoch_iterator", None) is None:
            return
        raw = value_of(self.monitor, validated)
        averaged = self._evaluate() if self._ready() else dict.fromkeys(validated, math.nan)
        value = value_of(self.monitor, averaged)
        self.better = improves(value, raw if math.isfinite(raw) else None, self._way)
        logs.update({f"raw_{name}": value for name, value in validated.items()})
        logs.update({f"average_{name}": value for name, value in averaged.items()})
        if self.better:
            logs.update(averaged)
        else:
            self._put_back()

    def on_train_end(self, logs=None):
        if self._ready() and self.better is not False and self._raw is None:
            self._swap_in()
        self._raw = None  # a copy of the weights is worth giving back

    def get_state(self):
        return {
            "average": None if self._average is None else _copy(self._average),
            "norm": float(self._norm),
            "begun": self._begun,
            "raw": self._raw,
            "better": self.better,
        }

    def set_state(self, state):
        self._average = None if state["average"] is None else ops.convert_to_tensor(state["average"])
        self._norm = ops.convert_to_tensor(state["norm"], "float32")
        self._begun = None if state["begun"] is None else tuple(state["begun"])
        self._raw = state["raw"]
        self.better = state["better"]

    def _reset(self):
        self._average: Any = None  # of all weights behind one another, bias-corrected
        self._norm: Any = 0.0  # 1 - beta ** t
        self._begun: Any = None  # (epoch, step) of the last step that began and is not averaged yet
        self._raw: Any = None  # the weights themselves, while the model holds their average
        self._variables: Any = None
        self._epoch = 0
        self.better: bool | None = None

    def _check(self):
        for peer in peers(self.model):
            if peer is self:
                break
            if isinstance(peer, EarlyStopping):
                raise ValueError(
                    "An `EarlyStopping` stands before the `WeightAverage` in the list of callbacks, so it would miss "
                    "the averaged weights; put it behind."
                )
        if any(isinstance(peer, WeightAverage) and peer is not self for peer in peers(self.model)):
            raise ValueError("The fit has two `WeightAverage`s, and only one can hold the model; leave one out.")
        if getattr(stepping(self.model.optimizer), "use_ema", False):
            raise ValueError(
                "The optimizer averages the weights itself and overwrites them at the end of fit; leave out its "
                "`use_ema`, or the `WeightAverage`."
            )

    def _average_step(self):
        """Takes the weights after the last step into the average, where that is not done yet."""
        if self._begun is None:
            return
        self._begun = None
        synchronize(self.model)
        values = [variable.value for variable in self._averaged_variables()]
        if not values:
            return
        if self._average is None:
            wide = "float64" if any(value.dtype == "float64" for value in values) else "float32"
            self._average = ops.zeros(sum(math.prod(value.shape) for value in values), wide)
            self._norm = ops.zeros((), "float32")
        self._average, self._norm = self._update(self._average, self._norm, values)

    def _ready(self):
        """Whether a step has been averaged."""
        return self._average is not None and float(self._norm) > 0

    def _evaluate(self):
        """The validation metrics of the average, which is in the model from here on."""
        self._swap_in()
        # without callbacks: those of the fit have seen this epoch's validation already
        found = self.model.evaluate(verbose=0, return_dict=True, _use_cached_eval_dataset=True)
        return {f"val_{name}": value for name, value in found.items()}

    def _averaged(self, average, norm, values):
        """One step of the average: (average, 1 - beta ** t) of the next step."""
        # one long vector: hundreds of small operations would cost ten times as much
        values = ops.concatenate([ops.reshape(ops.cast(value, average.dtype), (-1,)) for value in values])
        finite = ops.isfinite(ops.sum(values))  # a sum is finite if all that it sums is
        grown = self.beta * norm + (1 - self.beta)
        share = ops.cast((1 - self.beta) / grown, average.dtype)
        moved = average + share * (values - average)
        return ops.where(finite, moved, average), ops.where(finite, grown, norm)

    def _averaged_variables(self):
        if self._variables is None:
            found = {id(variable): variable for variable in self.model.trainable_variables}
            for layer in self.model._flatten_layers():  # Keras has no public walk into layers, nor their own weights
                for variable in layer._non_trainable_variables if layer.trainable else ():
                    if keras.backend.is_float_dtype(variable.dtype):  # no state of a seed generator, no counter
                        found.setdefault(id(variable), variable)
            self._variables = list(found.values())
        return self._variables

    def _swap_in(self):
        variables = self._averaged_variables()
        self._raw = [_copy(variable) for variable in variables]
        ends = np.cumsum([raw.size for raw in self._raw])
        for variable, raw, part in zip(variables, self._raw, np.split(_copy(self._average), ends[:-1]), strict=True):
            variable.assign(part.reshape(raw.shape).astype(raw.dtype))

    def _put_back(self):
        if self._raw is not None:
            for variable, value in zip(self._averaged_variables(), self._raw, strict=True):
                variable.assign(np.array(value))
            self._raw = None


def _copy(tensor):
    # copies, here and above: on JAX the next step may write into the memory of an array that it was given
    return np.array(ops.convert_to_numpy(tensor))
