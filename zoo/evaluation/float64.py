"""A model's twin in float64: the same network with digits enough to take differences of its loss."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import dtypes  # what Keras computes in is decided there, and nowhere public

from augment.augmentation import Augmentation
from augment.policies import Policy
from callbacks import autodiff
from zoo.models.outputs import gives_logits

ops: Any = keras.ops  # to pyright its functions may return None

FLOAT64 = "float64"
_NARROWER = ("float16", "bfloat16", "float32")
# Layers that change pictures: they come before all that trains, so nothing depends on their digits, and Keras' and ours
# alike mix float32 into what they compute. The class that Keras' own share has no public name.
_OF_PICTURES = (Augmentation, Policy, keras.layers.RandomFlip.__base__)
_OF_INDICES = (keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalGeneralizedCrossEntropy)
_DITHER = 1e-9  # far below what float32 can hold, far above what float64 cannot


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Context in which Keras makes float64 whatever is not given another type; behind it everything is as before."""
    floatx, policy, chance = keras.config.floatx(), keras.config.dtype_policy(), random.getstate()
    narrowed: dict[str, str] = getattr(dtypes, "BIT64_TO_BIT32_DTYPE", {})  # on JAX `mean`, `var` and `tanh` obey it
    narrow = dict(narrowed)
    try:
        narrowed[FLOAT64] = FLOAT64
        keras.config.set_floatx(FLOAT64)
        keras.config.set_dtype_policy(FLOAT64)
        with autodiff.float64():
            yield
    finally:
        narrowed.update(narrow)
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
        random.setstate(chance)  # Keras draws the seeds of layers without one from it


def twin_of(model: keras.Model, x: np.ndarray) -> keras.Model:
    """The model again, every layer in float64, with its weights, statistics, seeds and what of it is frozen.

    Call it inside `in_float64`. Nothing is shared with the model but its regularisers. It is not compiled.

    Args:
        model: Built model whose layers can be made from their configuration.
        x: Pictures, for a model that is only built when it is called.

    Raises:
        ValueError: If it cannot be rebuilt, or holds a weight that is not float64.
    """
    classes = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}
    with keras.saving.custom_object_scope(classes):
        try:
            config = _widened(keras.saving.serialize_keras_object(model))
            # a Lambda is code of the caller's own, who runs it already
            twin = keras.saving.deserialize_keras_object(config, safe_mode=False)
            if not twin.built:
                twin(x[:1])
            _copy_state(model, twin)
        except Exception as error:
            what, reason = _broken(model) or (f"Model {model.name!r}", _first(error))
            raise ValueError(
                f"{what} cannot be rebuilt in float64. Each layer of your own needs a `get_config` that holds its "
                f"constructor's arguments, and must compute in the type of its inputs. Received: {reason}"
            ) from error
    for path, layer in walk(twin):
        narrow = [v for v in layer._trainable_variables if keras.backend.standardize_dtype(v.dtype) in _NARROWER]
        if narrow:
            raise ValueError(_stays(path, f"its weight {narrow[0].name!r} is {narrow[0].dtype}"))
    return twin


def walk(layer: keras.Layer, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, layer) of all layers in one, inputs first, each behind those it holds: "inner", "outer/inner"."""
    for inner in layer.layers if isinstance(layer, keras.Model) else layer._layers:
        yield from walk(inner, f"{path}/{inner.name}".removeprefix("/"))
    yield path or layer.name, layer


def loss_of(model: keras.Model, loss: Any, y: np.ndarray, classes: int) -> Callable[[Any], Any]:
    """What the model's outputs are measured by, as a function outputs -> scalar in float64, without penalties.

    Call it inside `in_float64`.

    Args:
        model: The model that is checked; its compiled loss is taken where `loss` is None, else its cross-entropy.
        loss: None, a name, a Keras loss, or a function (y, outputs).
        y: Class indices (n,), or a row a picture, (n, classes).
        classes: Columns of the output.

    Raises:
        ValueError: If there is more than one loss, or `y` does not fit it.
    """
    given = getattr(model, "loss", None) if loss is None and model.compiled else loss
    kinds = [kind for kind in keras.tree.flatten(given) if kind is not None]
    if len(kinds) > 1:
        raise ValueError(f"`loss` must be a single loss. Received: {len(kinds)} of them")
    if not kinds and classes == 1:
        raise ValueError("`loss` is needed for a model with a single output column that is not compiled.")
    kind: Any = keras.losses.get(kinds[0]) if kinds else _cross_entropy(model, y)
    truth = _truth(y, kind, classes)
    if isinstance(kind, keras.losses.Loss):
        again = object.__new__(type(kind))  # `copy` would go by the configuration, which a loss of one's own may lack
        again.__dict__.update(kind.__dict__, _dtype=FLOAT64, _dtype_policy=keras.dtype_policies.get(FLOAT64))
        kind = again
    return lambda outputs: ops.mean(kind(truth, outputs))


def check_precision(twin: keras.Model, run: Callable[[list, Any], Any], values: list, x: np.ndarray) -> None:
    """Holds every layer behind the first weight that trains, and the loss, to float64.

    Weights and pictures get digits that float32 cannot hold, so a layer that computes in less shows by its outputs,
    whatever type they have.

    Args:
        twin: The model in float64.
        run: (values of the trainable weights, pictures) -> loss.
        values: Values of the trainable weights.
        x: The pictures.

    Raises:
        ValueError: If something is narrower; it is named.
    """
    draws = np.random.default_rng(0)

    def dithered(value):
        array = np.asarray(ops.convert_to_numpy(value))
        exact = np.issubdtype(array.dtype, np.floating)
        return ops.convert_to_tensor(array * (1 + _DITHER * draws.random(array.shape)) if exact else array)

    found: list[tuple[str, str]] = []
    trained = {id(v) for v in twin.trainable_variables}
    begun: list[bool] = []

    def tapped(path, layer, call):
        def called(*args, **kwargs):
            try:
                outputs = call(*args, **kwargs)
            except Exception as error:
                found.append((path, f"it fails there: {_first(error)}"))
                raise
            if begun or any(id(v) in trained for v in layer.variables):
                begun.append(True)
                found.extend((path, fault) for fault in map(_fault, keras.tree.flatten(outputs)) if fault)
            return outputs

        return called

    tapping = [(path, layer) for path, layer in walk(twin) if not isinstance(layer, keras.layers.InputLayer)]
    before = [layer.__dict__.get("call") for _, layer in tapping]
    try:
        for path, layer in tapping:
            layer.__dict__["call"] = tapped(path, layer, layer.call)
        loss = run([dithered(value) for value in values], dithered(x))
    except Exception as error:
        if not found:
            raise ValueError(f"The loss cannot be computed in float64. Received: {_first(error)}") from error
        raise ValueError(_stays(*found[0])) from error
    finally:
        for (_, layer), call in zip(tapping, before, strict=True):
            layer.__dict__.pop("call", None)
            if call is not None:
                layer.__dict__["call"] = call
    if found:
        raise ValueError(_stays(*found[0]))
    dtype = keras.backend.standardize_dtype(loss.dtype)
    if dtype != FLOAT64:
        raise ValueError(f"The loss must be float64 for differences, as its inputs are here. Received: {dtype}")


def _fault(tensor) -> str:
    """What betrays that a tensor was computed in less than float64; empty where nothing does."""
    dtype = keras.backend.standardize_dtype(tensor.dtype) if hasattr(tensor, "dtype") else ""
    if dtype in _NARROWER:
        return f"its output is {dtype}"
    if dtype != FLOAT64:
        return ""
    values = np.asarray(ops.convert_to_numpy(tensor)).ravel()
    values = values[np.isfinite(values) & (values != np.round(values))]
    if (values == values.astype(np.float32)).all() and len(np.unique(values)) > 2:
        return "its output has no more digits than float32; one that rounds on purpose has no differences to check"
    return ""


def _widened(config):
    """A configuration with float64 in the place of each narrower type and each policy."""
    if isinstance(config, dict):
        kept = {key: value for key, value in config.items() if key != "compile_config"}
        return {key: _wide(value) if key == "dtype" else _widened(value) for key, value in kept.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_widened(value) for value in config)
    return config


def _wide(dtype):
    policy = isinstance(dtype, dict) and "DTypePolicy" in str(dtype.get("class_name"))
    return FLOAT64 if policy or dtype in (*_NARROWER, "mixed_float16", "mixed_bfloat16") else dtype


def _as_ever(call):
    """A call that finds Keras at float32, for layers that can do no other."""

    def called(*args, **kwargs):
        keras.config.set_floatx("float32")
        try:
            return call(*args, **kwargs)
        finally:
            keras.config.set_floatx(FLOAT64)

    return called


def _broken(model):
    """The first layer that does not come out of its own configuration, and why; None where all do."""
    for path, layer in walk(model):
        if layer is not model:
            try:
                keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer), safe_mode=False)
            except Exception as error:
                return f"Layer {path!r}", _first(error.__cause__ or error)
    return None


def _copy_state(model, twin):
    for layer, again in zip(model._flatten_layers(), twin._flatten_layers(), strict=True):
        if isinstance(layer, keras.layers.Lambda):
            again.function = layer.function  # a function does not come out of a configuration with its surroundings
        if isinstance(layer, _OF_PICTURES):
            again.dtype_policy = layer.dtype_policy
            again.__dict__["call"] = _as_ever(again.call)
    for variable, again in zip(_state(model), _state(twin), strict=True):
        value = np.asarray(ops.convert_to_numpy(variable))
        again.assign(value.astype(FLOAT64) if keras.backend.is_float_dtype(variable.dtype) else value)
        again.trainable, again.regularizer = variable.trainable, variable.regularizer


def _state(model):
    """Weights, statistics and seeds; not what metrics count."""
    metrics = {id(variable) for variable in model.metrics_variables}
    return [variable for variable in model.variables if id(variable) not in metrics]


def _cross_entropy(model, y):
    kind = keras.losses.SparseCategoricalCrossentropy if y.ndim == 1 else keras.losses.CategoricalCrossentropy
    return kind(from_logits=gives_logits(model))


def _truth(y, kind, classes):
    """`y` as the loss takes it: Keras' own take indices or rows, each another."""
    sparse = isinstance(kind, _OF_INDICES) or kind is keras.losses.sparse_categorical_crossentropy
    ours = type(kind) if isinstance(kind, keras.losses.Loss) else kind
    if classes == 1:
        y = y.reshape(-1, 1).astype(FLOAT64)
    elif sparse and y.ndim == 2:
        if not (((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all()):
            raise ValueError("`y` must hold class indices or one-hot rows for a sparse loss. Received: soft labels")
        y = y.argmax(axis=1)
    elif not sparse and y.ndim == 1 and str(getattr(ours, "__module__", "")).startswith("keras."):
        y = np.eye(classes)[y]
    return ops.convert_to_tensor(y)


def _stays(name, what):
    return (
        f"Layer {name!r} does not compute in float64, which differences need: {what}. Let it compute in the type of "
        "its inputs, and give `dtype` from its constructor to its base class."
    )


def _first(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {' '.join(lines)[:300] if lines else ''}"
