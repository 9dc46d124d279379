"""Gradients, and functions made fast, on whichever backend runs: `keras.ops` has neither.

The one file of this room that imports TensorFlow or JAX, each inside the functions and only where it is the backend.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras


def value_and_grad(function: Callable[[list], Any], values: Sequence, *, has_aux: bool = False) -> tuple[Any, list]:
    """The value of a function and its gradient, by automatic differentiation.

    A value that the function does not use has a gradient of zeros. Call it eagerly or inside a `compiled` function.
    NumPy arrays become tensors; float64 stays float64, on JAX inside `float64()`.

    Args:
        function: Takes a list of tensors, returns a scalar tensor, or, with `has_aux`, (scalar, anything else).
        values: The floating-point tensors or arrays to differentiate by.
        has_aux: Whether `function` returns something beside the scalar.

    Returns:
        (value, gradients), where value is what `function` returned and gradients a list of tensors, of the shapes and
        dtypes of `values`.

    Raises:
        TypeError: If a value is no floating-point tensor, or is float64 where JAX would make it float32.
        ValueError: If what is to be differentiated is no scalar.
        NotImplementedError: On a backend other than TensorFlow and JAX.

    Example:
        >>> x = keras.ops.array([1.0, 3.0])
        >>> value, (slope,) = value_and_grad(lambda values: keras.ops.sum(values[0] ** 2), [x])
        >>> float(value), keras.ops.convert_to_numpy(slope).tolist()
        (10.0, [2.0, 6.0])
    """
    backend = _backend()
    tensors = [_tensor(value) for value in values]
    differentiate = _tensorflow if backend == "tensorflow" else _jax
    return differentiate(function, tensors, has_aux)


def compiled(function: Callable) -> Callable:
    """The function made fast: a graph on TensorFlow, XLA on JAX, itself on another backend.

    It takes tensors, and lists, tuples and dicts of tensors; it is traced once for each set of shapes, so what it reads
    besides its arguments counts as constant, except variables on TensorFlow.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False, reduce_retracing=True)
    if backend == "jax":
        import jax  # pyright: ignore[reportMissingImports]

        return jax.jit(function)
    return function


def float64():
    """Context in which float64 is possible on JAX too; elsewhere it always is.

    Some of Keras' operations make float32 of float64 on JAX even so, among them `tanh`, `sin` and `var`: look at the
    dtype of the result.
    """
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax  # pyright: ignore[reportMissingImports]

    return jax.enable_x64(True)


def _tensorflow(function, tensors, has_aux):
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        result = function(tensors)
        scalar = _scalar(result, has_aux)
    gradients = tape.gradient(scalar, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return result, [tf.convert_to_tensor(gradient) for gradient in gradients]  # a lookup's gradient is sparse


def _jax(function, tensors, has_aux):
    import jax  # pyright: ignore[reportMissingImports]

    def with_result(tensors):
        result = function(tensors)
        return _scalar(result, has_aux), result

    (_, result), gradients = jax.value_and_grad(with_result, has_aux=True)(tensors)
    return result, gradients


def _scalar(result, has_aux):
    scalar: Any = keras.ops.convert_to_tensor(result[0] if has_aux else result)
    shape = tuple(scalar.shape)
    if shape:
        raise ValueError(f"`function` must return a scalar; take a sum or mean. Received shape: {shape}")
    return scalar


def _tensor(value):
    wanted = keras.backend.standardize_dtype(value.dtype) if hasattr(value, "dtype") else None
    tensor: Any = keras.ops.convert_to_tensor(value)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise TypeError(f"`values` must be floating-point tensors. Received dtype: {dtype}")
    if wanted == "float64" != dtype:
        raise TypeError("`values` holds float64, which JAX makes float32. Call it inside `with autodiff.float64():`.")
    return tensor


def _backend():
    name = keras.backend.backend()
    if name not in ("tensorflow", "jax"):
        raise NotImplementedError(
            f"Gradients are there for the backends tensorflow and jax. Received: {name}; set KERAS_BACKEND to another."
        )
    return name
