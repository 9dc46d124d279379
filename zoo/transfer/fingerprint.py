"""What features depend on, as text that is equal only where all of it is equal."""

import hashlib
import inspect
import json
import math
import re
import sys
from types import FunctionType

import keras
import numpy as np

from zoo.models.graph import calls_of

_TRIED = 4  # pictures that a policy has to change twice in the same way
_LIBRARIES = ("keras", "tensorflow", "jax", "flax", "torch", "builtins")
_TRAINING = re.compile("^(name|trainable|momentum)$|_(initializer|regularizer|constraint)$")  # matters in training only
_WAY_OUT = "Use one of augment.policy, or train without cached features."


def described(policy: keras.layers.Layer, shape: tuple[int, ...], dtype: str) -> tuple[list[str], tuple[int, ...]]:
    """What decides a policy's draws, and the shape that it gives a picture of (height, width, channels).

    Raises:
        ValueError: If its draws cannot be made again, or cannot be told from those of another policy.
    """
    if not isinstance(policy, keras.layers.Layer) or "keys" not in inspect.signature(policy.call).parameters:
        raise ValueError(
            f"A policy whose views are kept must be a Keras layer called with `keys`. Received: {policy!r}. {_WAY_OUT}"
        )
    images = np.arange(_TRIED * math.prod(shape)).reshape(_TRIED, *shape).astype("uint8").astype(dtype)
    keys = keys_of(np.arange(_TRIED), 0)
    one, other = (np.asarray(policy(images, training=True, keys=keys)) for _ in range(2))
    if not np.array_equal(one, other):
        raise ValueError(
            f"Policy {policy.name!r} cannot be repeated: for the same `keys` it gave two results. {_WAY_OUT}"
        )
    try:
        config = json.dumps(_nameless(policy.get_config()), sort_keys=True)
    except (TypeError, ValueError, NotImplementedError):
        raise ValueError(
            f"Policy {policy.name!r} cannot be told from others: its `get_config` is no plain data. {_WAY_OUT}"
        ) from None
    return [config, digest(one)], one.shape[1:]


def _nameless(config):
    """A configuration without the names of layers, which depend on how many there were before."""
    if isinstance(config, dict):
        return {key: _nameless(value) for key, value in config.items() if key != "name"}
    return [_nameless(value) for value in config] if isinstance(config, (list, tuple)) else config


def fingerprint(trunk: keras.Model) -> str:
    """What decides a trunk's outputs: its layers, the code of those that are not Keras' own, and its weights.

    Raises:
        ValueError: If a layer does not say what it is made of.
    """
    code = sorted({_code(layer) for layer in trunk._flatten_layers()})
    return digest(_graph(trunk), *code, *(np.asarray(weight) for weight in trunk.weights))


def _graph(trunk):
    """Each call of a layer, what it is and what it takes; a fifth of the time of Keras' own description."""
    nodes = calls_of(trunk)
    number = {id(tensor): f"{i}.{j}" for i, node in enumerate(nodes) for j, tensor in enumerate(node.output_tensors)}

    def plain(value):
        return number[id(value)] if isinstance(value, keras.KerasTensor) else _plain(value)

    calls = []
    for node in nodes:
        operation = node.operation
        try:
            config = {name: value for name, value in operation.get_config().items() if not _TRAINING.search(name)}
        except NotImplementedError:
            raise ValueError(
                f"Layer {operation.name!r} has no `get_config`, so what it gives cannot be told from what another one "
                "gives. Write one, or train without cached features."
            ) from None
        given = keras.tree.map_structure(plain, (node.arguments.args, node.arguments.kwargs))
        calls.append((type(operation).__module__, type(operation).__name__, config, repr(given)))
    return json.dumps([calls, [number[id(tensor)] for tensor in trunk.outputs]], sort_keys=True, default=_plain)


def _plain(value):
    """A constant as text: arrays by all of their numbers, which `repr` would shorten."""
    return digest(np.asarray(value)) if hasattr(value, "shape") else repr(value)


def _code(layer):
    """The modules that a layer's own classes and functions come from: with other code the same config gives others."""
    given = {name: value for name, value in vars(layer).items() if isinstance(value, FunctionType)}
    if isinstance(layer, keras.Model):
        given.pop("loss", None)  # of `compile`, which decides no output
    names = {thing.__module__ for thing in (*type(layer).__mro__, *given.values())}
    return "".join(_source(name) for name in sorted(names) if name.split(".")[0] not in _LIBRARIES)


def _source(module):
    try:
        return inspect.getsource(sys.modules[module])
    except (OSError, TypeError, KeyError):  # typed into an interpreter
        return module


def digest(*pieces) -> str:
    """SHA-256 of texts and arrays, one behind the other."""
    found = hashlib.sha256()
    for piece in pieces:
        found.update(
            piece.encode() if isinstance(piece, str) else np.ascontiguousarray(piece).reshape(-1).view("u1").data
        )
    return found.hexdigest()


def keys_of(rows: np.ndarray, view: int) -> np.ndarray:
    """Epoch and picture of each row, int32 (n, 2): what decides its draws."""
    return np.stack([np.full(len(rows), view), rows], axis=1).astype(np.int32)
