"""Passing over the steps of an epoch that an earlier process has done."""

import weakref
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from callbacks.packing import number, variables_to_arrays


@dataclass
class Metrics:
    """The running metrics in the middle of an epoch.

    Attributes:
        arrays: The values of the model's metric variables.
        logs: What they come to.
    """

    arrays: list[np.ndarray]
    logs: dict[str, Any]

    @classmethod
    def of(cls, model) -> "Metrics":
        """Those of a model, which is synchronised."""
        arrays = list(variables_to_arrays(model.metrics_variables).values())
        return cls(arrays, {name: number(value) for name, value in model.get_metrics_result().items()})


class Start(int):
    """The epoch that a fit begins with, as Keras asks for it; in any other fit of the model it counts for nothing."""

    _model: "weakref.ref[keras.Model]"
    _history: "weakref.ref[keras.callbacks.History]"

    def __new__(cls, epoch, model):
        start = super().__new__(cls, epoch)
        start._model, start._history = weakref.ref(model), weakref.ref(model.history)
        return start

    def __bool__(self):
        model = self._model()
        return int(self) != 0 and model is not None and model.history is self._history()


def skip(model, steps: int, metrics: Metrics) -> None:
    """Lets the first steps of the epoch that begins pass without training; then the metrics are as given.

    Keras asks the model for its `train_function` at every step, so another one can stand there for a while. It draws
    each step's data and drops it.

    Args:
        model: One that is being fitted.
        steps: How many.
        metrics: The running metrics behind them.
    """
    stop_skipping(model)  # of a fit that ended with an error
    train, passed = model.train_function, 0
    history = weakref.ref(model.history)  # each fit has its own

    def passing(*arguments):  # (iterator), or on JAX (state, batches)
        nonlocal passed
        if model.history is not history():  # this fit ended with an error
            stop_skipping(model)
            return train(*arguments)
        *state, data = arguments
        drawn = data if isinstance(data, list) else [next(data) for _ in range(model.steps_per_execution)]
        passed += model.steps_per_execution
        if passed >= steps:
            stop_skipping(model)
            if state:
                *others, _ = state[0]
                state = [(*others, [keras.ops.convert_to_tensor(array) for array in metrics.arrays])]
            else:
                # Here metrics come into being with the first step, which has not been taken in this process.
                model._symbolic_build(data_batch=drawn[0])
                _assign(model.metrics_variables, metrics.arrays)
        return (metrics.logs, *state) if state else metrics.logs

    passing.instead_of = train  # type: ignore[attr-defined]
    model.train_function = passing


def skips(model) -> bool:
    """Whether the step that comes is passed over."""
    return hasattr(model.train_function, "instead_of")


def stop_skipping(model) -> None:
    """Gives a model its own function back, where `skip` took its place."""
    model.train_function = getattr(model.train_function, "instead_of", model.train_function)


def _assign(variables: list[Any], arrays: list[np.ndarray]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
