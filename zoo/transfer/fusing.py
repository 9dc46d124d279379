"""A frozen trunk as it runs quickest: batch normalisation multiplied into the convolutions before it."""

import inspect
from collections import Counter

import keras
import numpy as np
from keras import layers, ops

_EXACT = ("float32", "float64")  # with half precision, a product of rounded kernels would not be that of the network


class Fused(keras.Model):
    """Gives what a trunk gives in inference mode, behind a policy that augments, in fewer steps.

    A batch normalisation that stands alone behind a convolution scales and shifts its result by numbers that are
    fixed in a frozen network, so they go into the kernel and a bias (Jacob et al. 2018, section 3.2,
    https://arxiv.org/abs/1712.05877). Results differ in the last digits of float32. The trunk's weights are read once:
    do not change them as long as this is used, and do not save it.

    Args:
        trunk: Functional model.
        policy: Layer that augments, or None.

    Call arguments:
        inputs: Pictures (n, height, width, channels); with a policy, a pair of them and keys (n, 2).
    """

    def __init__(self, trunk, policy=None):
        super().__init__(name=f"{trunk.name}_fused", dtype="float32", autocast=False)
        self.trunk = trunk
        self.policy = policy
        self.replaced = {}  # operation -> what stands in its place
        self.folded = []  # where Keras looks for variables
        self.plain = all(layer.dtype_policy.name == "float32" for layer in trunk.layers)
        for convolution, normalization in _pairs(trunk):
            kernel, bias = (
                keras.Variable(
                    value, trainable=False, dtype=convolution.variable_dtype, name=f"{convolution.name}_{what}"
                )
                for value, what in zip(_folded(convolution, normalization), ("kernel", "bias"), strict=True)
            )
            self.folded += [kernel, bias]
            self.replaced[convolution] = _Convolution(convolution, kernel, bias)
            self.replaced[normalization] = lambda x, **_: x

    def call(self, inputs):
        if self.policy is not None:
            images, keys = inputs
            inputs = self.policy(images, training=True, keys=keys)
        return self.trunk._run_through_graph(self.trunk._standardize_inputs(inputs), operation_fn=self._operation)

    def _operation(self, operation):
        if operation in self.replaced:
            return self.replaced[operation]
        # Behind the call of a Keras layer stands a lot that a graph of one precision and no masks does not need, and
        # that takes most of the time in which it is traced.
        if not isinstance(operation, layers.Layer):
            return operation
        if "training" in inspect.signature(operation.call).parameters:  # else that of the policy would be taken over
            return lambda *given, **more: operation(*given, **{**more, "training": False})
        return operation.call if self.plain and type(operation).__module__.startswith("keras.") else operation


class _Convolution:
    """The call of a convolution with another kernel and bias."""

    def __init__(self, layer, kernel, bias):
        self.layer, self.kernel, self.bias = layer, kernel, bias

    def __call__(self, x):
        layer = self.layer
        if isinstance(layer, layers.DepthwiseConv2D):
            y = ops.depthwise_conv(
                x,
                self.kernel,
                strides=layer.strides,  # pyright: ignore[reportArgumentType]
                padding=layer.padding,
                data_format=layer.data_format,
                dilation_rate=layer.dilation_rate,  # pyright: ignore[reportArgumentType]
            )
        else:
            y = layer.convolution_op(x, self.kernel)
        return ops.add(y, self.bias)


def _pairs(trunk):
    """(convolution, batch normalisation) wherever the second takes all that the first gives, and nobody else does."""
    nodes = [node for nodes in trunk._nodes_by_depth.values() for node in nodes]
    calls = Counter(id(node.operation) for node in nodes)
    taken = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    ends = set(map(id, trunk.outputs))
    makers = {id(tensor): node.operation for node in nodes for tensor in node.output_tensors}
    for node in nodes:
        normalization = node.operation
        if type(normalization) is not layers.BatchNormalization or normalization.axis not in (-1, 3):
            continue
        tensor = node.input_tensors[0]
        convolution = makers[id(tensor)]
        alone = taken[id(tensor)] == 1 and id(tensor) not in ends and calls[id(convolution)] == 1
        if alone and calls[id(normalization)] == 1 and _linear(convolution):
            yield convolution, normalization


def _linear(layer) -> bool:
    """Whether a layer is a convolution and nothing else, in a precision that can be reckoned with."""
    return (
        type(layer) in (layers.Conv2D, layers.DepthwiseConv2D)
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and layer.dtype_policy.name in _EXACT
    )


def _folded(convolution, normalization) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias that do the work of both, reckoned in float64."""

    def numbers(variable, absent):
        return np.asarray(absent if variable is None else ops.convert_to_numpy(variable), np.float64)

    scale = numbers(normalization.gamma, 1.0) / np.sqrt(
        numbers(normalization.moving_variance, 1.0) + normalization.epsilon
    )
    kernel = numbers(convolution.kernel, 1.0)
    bias = numbers(convolution.bias, 0.0) - numbers(normalization.moving_mean, 0.0)
    depthwise = isinstance(convolution, layers.DepthwiseConv2D)  # its last two axes are the channels that come out
    return (
        kernel * (np.broadcast_to(scale, kernel[0, 0].size).reshape(kernel.shape[2:]) if depthwise else scale),
        bias * scale + numbers(normalization.beta, 0.0),
    )
