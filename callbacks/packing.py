"""What a fit knows, as plain values and arrays that can be written, and back."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state  # Keras keeps its own generator there, and nowhere public

_GENERATOR = "global_seed_generator"
_REFERENCE = "$array"  # the key that stands for an array in plain values


def pack(value: Any, arrays: dict[str, np.ndarray], name: str) -> Any:
    """Plain values for JSON; arrays go into `arrays`, under names that begin with `name`."""
    if isinstance(value, dict):
        return {str(key): pack(item, arrays, f"{name}/{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [pack(item, arrays, f"{name}/{i}") for i, item in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    arrays[name] = _copy(value)
    return {_REFERENCE: name}


def unpack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What `pack` got, with lists for tuples."""
    if isinstance(value, dict):
        if list(value) == [_REFERENCE]:
            return arrays[value[_REFERENCE]]
        return {key: unpack(item, arrays) for key, item in value.items()}
    return [unpack(item, arrays) for item in value] if isinstance(value, list) else value


def number(value: Any) -> float | np.ndarray:
    """A metric's value; some have one a class."""
    array = _copy(value)
    return float(array.reshape(())) if array.size == 1 else array


def variables_to_arrays(variables: Sequence[keras.Variable]) -> dict[str, np.ndarray]:
    """Copies of variables on the host, under names that keep their order."""
    return {f"{i:05d}/{variable.path}": _copy(variable) for i, variable in enumerate(variables)}


def arrays_to_variables(arrays: dict[str, np.ndarray], variables: Sequence[keras.Variable]) -> None:
    """Puts values back, into as many variables of the same shapes."""
    values = [arrays[name] for name in sorted(arrays)]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def finite(arrays: Iterable[np.ndarray]) -> bool:
    """Whether every number is."""
    return all(
        np.isfinite(value.astype(np.float32) if value.dtype.itemsize < 4 else value).all()
        for value in arrays
        if value.dtype.kind not in "iub"  # bfloat16 is of kind V
    )


def random_state() -> dict[str, Any]:
    """The states of Python's, numpy's and Keras' own generators; those of layers are variables of the model."""
    kind, keys, *rest = np.random.get_state()
    version, words, gauss = random.getstate()
    generator = global_state.get_global_attribute(_GENERATOR)  # None before something has asked for it
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, np.asarray(keys), *rest],
        "keras": None if generator is None else _copy(generator.state),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` gave."""
    generator = None
    if state["keras"] is not None:
        generator = global_state.get_global_attribute(_GENERATOR) or keras.random.SeedGenerator(0)
        generator.state.assign(state["keras"])
    global_state.set_global_attribute(_GENERATOR, generator)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))


def _copy(value) -> np.ndarray:
    array = np.asarray(keras.ops.convert_to_numpy(value))
    return array if array.flags.owndata and array.flags.c_contiguous else np.array(array, order="C")
