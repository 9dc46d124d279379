"""What a checkpoint belongs to: the recipe, the data and the fit of which it is, and what may not take it up."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from callbacks.stateful import Stateful, peers


def about(model, params: Mapping[str, Any], recipe: Any, data: Any) -> dict[str, Any]:
    """What a checkpoint says of itself, as JSON would give it back."""
    return {
        "recipe": _plain(recipe),
        "data": _plain(data),
        "fit": {
            "steps": params.get("steps"),
            "optimizer": f"{type(model.optimizer).__name__} of {len(model.optimizer.variables)} variables",
            "callbacks": list(named(peers(model))),
            "weights": [list(variable.shape) for variable in model.variables],
        },
        "versions": {
            "python": sys.version.split()[0],
            "keras": keras.version(),
            "backend": keras.backend.backend(),
            "numpy": np.__version__,
        },
    }


def refuse_another(directory: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuses a checkpoint of another training; other versions are let pass.

    Raises:
        ValueError: If it is one; the message says where the two differ.
    """
    for name in ("recipe", "data", "fit"):
        if there[name] != here[name]:
            raise ValueError(
                f"The checkpoints in {directory} belong to another {'training' if name == 'fit' else name}: "
                f"{_difference(there[name], here[name])}. Choose another folder, or remove them to start anew."
            )


def named(callbacks: Iterable[Stateful]) -> dict[str, Stateful]:
    """Callbacks under names that are the same in every process."""
    names: dict[str, Stateful] = {}
    for callback in callbacks:
        kind = type(callback).__name__
        number = sum(name.split("-")[0] == kind for name in names)
        names[f"{kind}-{number + 1}" if number else kind] = callback
    return names


def checked(name: str, value: Any) -> Any:
    """Plain values.

    Raises:
        TypeError: If JSON cannot hold them.
    """
    try:
        json.dumps(_plain(value))
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be of plain values: text, numbers, lists, dicts. Received: {value!r}") from None
    return value


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _difference(there, here) -> str:
    """Where two descriptions differ, in words."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        return "; ".join(f"{name}: {_short(there.get(name))} there, {_short(here.get(name))} here" for name in names)
    return f"{_short(there)} there, {_short(here)} here"


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
