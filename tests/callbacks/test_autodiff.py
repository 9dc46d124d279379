"""Gradients and compiled functions on the backend that runs."""

import keras
import numpy as np
import pytest
from keras import ops

from callbacks import autodiff


def numpy(tensors):
    return [ops.convert_to_numpy(tensor) for tensor in tensors]


def test_value_and_gradient_of_a_known_function():
    x, y = np.array([1.0, -2.0], "float32"), np.array(3.0, "float32")

    value, gradients = autodiff.value_and_grad(lambda values: ops.sum(values[0] ** 2) * values[1], [x, y])

    assert float(value) == 15
    dx, dy = numpy(gradients)
    np.testing.assert_array_equal(dx, [6, -12])
    np.testing.assert_array_equal(dy, 5)


def test_a_value_that_is_not_used_has_a_gradient_of_zeros():
    _, gradients = autodiff.value_and_grad(lambda values: values[0] * 2, [np.float32(1), np.ones((2, 3), "float32")])

    np.testing.assert_array_equal(numpy(gradients)[1], np.zeros((2, 3)))


def test_what_stands_beside_the_scalar_comes_back():
    def function(values):
        return ops.sum(values[0]), {"square": values[0] ** 2}

    (value, aux), (gradient,) = autodiff.value_and_grad(function, [np.full(2, 3, "float32")], has_aux=True)

    assert float(value) == 6
    np.testing.assert_array_equal(ops.convert_to_numpy(aux["square"]), [9, 9])
    np.testing.assert_array_equal(ops.convert_to_numpy(gradient), [1, 1])


def test_a_gradient_in_float64_agrees_with_a_difference_to_float64_precision():
    x = np.linspace(-1, 1, 5)
    step = 1e-6

    def function(values):
        return ops.sum(ops.exp(values[0]) ** 3)

    with autodiff.float64():
        value, (gradient,) = autodiff.value_and_grad(function, [x])
        ends = [float(function([ops.convert_to_tensor(x + side * step * np.eye(5)[0])])) for side in (1, -1)]
        gradient = ops.convert_to_numpy(gradient)

    assert keras.backend.standardize_dtype(value.dtype) == "float64"
    np.testing.assert_allclose(gradient, 3 * np.exp(3 * x), rtol=1e-14)
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(gradient[0], rel=1e-8)


def test_float64_is_never_made_float32_silently():
    def slope():
        return autodiff.value_and_grad(lambda values: ops.sum(values[0]), [np.ones(2)])[1][0]

    if keras.backend.backend() == "jax":
        with pytest.raises(TypeError, match="float64"):
            slope()
    else:
        assert keras.backend.standardize_dtype(slope().dtype) == "float64"


def test_the_gradient_of_a_lookup_is_dense():
    table = np.arange(6, dtype="float32").reshape(3, 2)

    _, (gradient,) = autodiff.value_and_grad(lambda values: ops.sum(ops.take(values[0], [2, 2], axis=0)), [table])

    np.testing.assert_array_equal(ops.convert_to_numpy(gradient), [[0, 0], [0, 0], [2, 2]])


def test_gradients_inside_a_compiled_function():
    @autodiff.compiled
    def slopes(values):
        return autodiff.value_and_grad(lambda values: ops.sum(ops.exp(values[0])), values)

    for x in (np.float32([0, 1]), np.float32([0, 1, 2])):
        value, (gradient,) = slopes([ops.convert_to_tensor(x)])

        np.testing.assert_allclose(float(value), np.exp(x).sum(), rtol=1e-6)
        np.testing.assert_allclose(ops.convert_to_numpy(gradient), np.exp(x), rtol=1e-6)


@pytest.mark.parametrize(
    "function, values, error, text",
    [
        (lambda values: values[0], [np.ones(2, "float32")], ValueError, r"scalar.*\(2,\)"),
        (lambda values: ops.sum(values[0]), [np.ones(2, "int32")], TypeError, "floating-point.*int32"),
    ],
)
def test_what_cannot_be_differentiated_is_an_error(function, values, error, text):
    with pytest.raises(error, match=text):
        autodiff.value_and_grad(function, values)
