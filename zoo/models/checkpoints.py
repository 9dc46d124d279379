"""Public safetensors files, in PyTorch's layout, read as the layers of a Keras model."""

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open

from zoo.models.heads import HIDDEN

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")  # in the order of Keras' variables
_DTYPES = ("F16", "BF16", "F32", "F64")  # others hold quantised weights, which need their scales
_COUNTER = "num_batches_tracked"  # how many batches PyTorch has seen: no weight


class Tensor:
    """A tensor of a file, not yet read, in the order of axes that Keras has.

    Attributes:
        name: Its name in the file.
        shape: Its shape in that order.
    """

    def __init__(self, file, key: str, layer: keras.Layer, flattened: Sequence[int]):
        self.name = key
        self._file = file
        self._steps = list(_steps(tuple(file.get_slice(key).get_shape()), layer, flattened))
        self.shape: tuple[int, ...] = self._steps[-1][1]

    def __array__(self, dtype=None, copy=None):
        value = self._file.get_tensor(self.name)
        for turn, shape in self._steps:
            value = value.transpose(turn) if turn else value.reshape(shape)
        return np.asarray(value, dtype)


def _steps(shape, layer, flattened) -> Iterator[tuple[tuple[int, ...] | None, tuple[int, ...]]]:
    """From PyTorch's tensor to Keras': turns of the axes, and reshapes (None), each with the shape behind it."""
    yield None, shape
    if not hasattr(layer, "kernel") or len(shape) not in (2, 4):
        return
    if len(shape) == 2 and shape[1] == math.prod(flattened):
        shape = (shape[0], *flattened)
        yield None, shape
    turn = (2, 3, 1, 0) if len(shape) == 4 else (1, 0)  # inputs, then outputs last
    shape = tuple(shape[axis] for axis in turn)
    yield turn, shape


@contextmanager
def opened(path: Path, model: keras.Model, layout: str) -> Iterator[tuple[dict[str, Sequence[Any]], list[str]]]:
    """The tensors of a file under the names of the model's layers, and what is wrong with them.

    Wrong is a tensor that a layer misses, one of a type that is no plain number, and one that no layer asks for, unless
    the layout knows it as not needed. A layer that misses one has None.

    Args:
        path: File.
        model: Built model.
        layout: Rule from names of layers to names in the file, as "module:function".

    Raises:
        ValueError: If the file is no safetensors file, or not a whole one.
    """
    module, function = layout.split(":")
    rules = importlib.import_module(module)
    prefixes = getattr(rules, function)([layer.name for layer in _public(model)])
    ignored = getattr(rules, "IGNORED", {}).get(function, ())
    flattened = getattr(rules, "FLATTENED", {}).get(function, (0,))
    try:
        path.open("rb").close()  # safe_open says of a file that may not be read that it is not there
        file = safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(_damaged(path, error)) from error
    with file:
        keys = {key for key in file.keys() if not key.endswith(_COUNTER) and not key.startswith(ignored)}
        yield _by_layer(file, keys, model, prefixes, flattened)


def _damaged(path, error):
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"PK" or start[:1] == b"\x80":  # a zip archive, or the opcode that a pickle begins with
        return (
            f"The weight file {str(path)!r} is a pickle of PyTorch under the name of a safetensors file, so it is not "
            f"read. {how_to_convert(path)}"
        )
    return (
        f"The weight file {str(path)!r} is truncated or no safetensors file ({error}). Delete it, and fetch or save it "
        "again."
    )


def how_to_convert(path: Path) -> str:
    """What to do with a pickle of PyTorch."""
    return (
        "Where PyTorch is installed, convert it: "
        f"safetensors.torch.save_file(torch.load({path.name!r}, weights_only=True), {f'{path.stem}.safetensors'!r})"
    )


def _by_layer(file, keys, model, prefixes: Mapping[str, str | Sequence[str]], flattened):
    tensors, wrong, used = {}, [], set()
    for layer in _public(model):
        parts = _parts(layer)
        candidates = prefixes[layer.name]
        candidates = [candidates] if isinstance(candidates, str) else candidates
        prefix = next((name for name in candidates if f"{name}.{parts[0]}" in keys), candidates[0])
        needed = [f"{prefix}.{part}" for part in parts]
        absent = [key for key in needed if key not in keys]
        wrong += [f"tensor {key!r} for layer {layer.name!r} is not in the file" for key in absent]
        kinds = {key: file.get_slice(key).get_dtype() for key in needed if key in keys}
        wrong += [f"tensor {key!r} is of type {kind}" for key, kind in kinds.items() if kind not in _DTYPES]
        used.update(needed)
        tensors[layer.name] = None if absent else [Tensor(file, key, layer, flattened) for key in needed]
    for key in sorted(keys - used):
        shape = tuple(file.get_slice(key).get_shape())
        wrong.append(f"the file's tensor {key!r}, {shape}, has no place")
    return tensors, wrong


def _public(model):
    """The layers with weights that a public file may have: all but the hidden one of a head."""
    return [layer for layer in model.layers if layer.weights and layer.name != HIDDEN]


def _parts(layer) -> Sequence[str]:
    if isinstance(layer, keras.layers.BatchNormalization):
        return _BATCH_NORM
    return ("weight", "bias") if layer.use_bias else ("weight",)
