"""Temperature: one number that makes a classifier as sure as it is right, and changes nothing of what it says first.

Guo et al. 2017, https://arxiv.org/abs/1706.04599: the probabilities are softmax(logits / temperature).
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import keras
from keras import layers

from zoo.models.outputs import gives_logits, passes_on

TEMPERATURE, SOFTMAX = "head_temperature", "head_softmax"


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """A model whose logits are divided by a temperature before the softmax; of a model of logits, the logits.

    Above 1 it is less sure than before, below 1 surer; the order of the classes stays. A temperature that the model has
    already is replaced. What divides is Keras' own layer `Rescaling`, called `head_temperature`, so files and exports
    of the model need nothing of ours. The model that was handed over stays as it was.

    Args:
        model: Functional or Sequential classifier that ends in a softmax or in logits.
        temperature: Above 0; 1 changes nothing.

    Returns:
        A model that shares all layers with the old one, weights and what is frozen included, but for those from the
        softmax on; a dense layer that has the softmax in itself is copied, under its name. Not compiled.

    Raises:
        TypeError: If `model` is no Keras model or `temperature` no number.
        ValueError: If the temperature is not above 0, or the model has no graph of layers, several outputs, or another
            output than softmax or logits.

    Example:
        >>> from zoo.models.registry import create
        >>> calibrated = with_temperature(create("resnet20", classes=10), 1.6)
        >>> [layer.name for layer in calibrated.layers[-3:]], round(temperature_of(calibrated), 6)
        (['head_dense', 'head_temperature', 'head_softmax'], 1.6)
    """
    if isinstance(temperature, bool) or not isinstance(temperature, Real):
        raise TypeError(f"`temperature` must be a number above 0. Received: temperature={temperature!r}")
    if not 0 < float(temperature) < math.inf:
        raise ValueError(f"`temperature` must be a number above 0. Received: temperature={temperature}")
    scores, behind = _scores(model)
    x = layers.Rescaling(1 / float(temperature), dtype="float32", name=TEMPERATURE)(scores)
    for layer in behind:
        x = layer(x)
    return _like(model, x)


def temperature_of(model: keras.Model) -> float | None:
    """The temperature that a model was given by `with_temperature`; None where it has none."""
    for layer in model._flatten_layers():  # Keras has no public walk into layers
        if layer.name == TEMPERATURE and isinstance(layer, layers.Rescaling):
            return 1 / float(layer.scale)
    return None


def without_softmax(model: keras.Model) -> keras.Model:
    """The scores of a classifier before softmax and temperature; arguments, sharing and errors as there.

    Example:
        >>> from zoo.models.registry import create
        >>> without_softmax(create("resnet20", classes=10)).layers[-1].activation.__name__
        'linear'
    """
    scores, _ = _scores(model)
    if len(scores.shape) != 2:  # of a convolution as wide as its map: what made it flat stood behind the softmax
        scores = layers.Flatten(dtype="float32")(scores)
    return _like(model, scores)


def _like(model, output):
    # a Sequential's `input` is that of its first call, which is another where it stands in a model
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    made = keras.Model(inputs, output, name=model.name)
    made.dtype_policy = model.dtype_policy  # with float16, `compile` scales the loss by it
    if hasattr(model, "zoo_weights"):
        made.zoo_weights = model.zoo_weights
    return made


def _scores(model) -> tuple[Any, Sequence[keras.Layer]]:
    """The tensor of scores before softmax and temperature, and the layers that belong behind it, made anew.

    Anew, since a layer that is called a second time goes on giving the tensor of its first call as its `output`.
    """
    output = _output(model)
    tensor, behind, softmax_seen = output, [], False
    while True:
        layer, node, _ = tensor._keras_history
        inputs = layer._inbound_nodes[node].input_tensors
        if layer.name == TEMPERATURE:
            return inputs[0], behind
        if not passes_on(layer) and (softmax_seen or not _is_softmax(layer)):
            break
        softmax_seen = softmax_seen or _is_softmax(layer)
        behind.insert(0, _again(layer))
        tensor = inputs[0]
    if getattr(layer, "outputs", None) and (not softmax_seen or gives_logits(layer)):  # a model in the model
        inner, behind_inner = _scores(layer)
        return _like(layer, inner)(inputs[0]), [*behind_inner, *behind]
    if softmax_seen:
        return tensor, behind
    if isinstance(layer, layers.Dense) and _names_softmax(layer.activation):
        dense = type(layer).from_config({**layer.get_config(), "activation": "linear"})
        scores = dense(inputs[0])
        dense.set_weights(layer.get_weights())
        return scores, [layers.Activation("softmax", dtype="float32", name=SOFTMAX), *behind]
    if gives_logits(model):
        return output, []
    raise ValueError(
        f"Model {model.name!r} must end in a softmax (a dense layer's, Activation or Softmax) or in logits. "
        f"Received: layer {layer.name!r} of type {type(layer).__name__} as the last; create it with one of them."
    )


def _output(model):
    """The one output of a model that is a graph of layers."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: {type(model).__name__}")
    if not (getattr(model, "inputs", None) and getattr(model, "outputs", None)):
        raise ValueError(
            f"Model {model.name!r} must be a functional one, or a Sequential one with a keras.Input, since its end is "
            f"built anew. Received: {type(model).__name__}; wrap it as keras.Model(inputs, outputs), or divide its "
            "logits by the temperature where it computes them."
        )
    shapes = [tuple(output.shape) for output in model.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(f"A classifier gives one output (pictures, classes). Received: outputs of shape {shapes}")
    return model.outputs[0]


def _is_softmax(layer) -> bool:
    """Whether a layer is a softmax and nothing else, such as `Softmax`, or the operation `keras.ops.softmax`."""
    if isinstance(layer, layers.Activation):
        return _names_softmax(layer.activation)
    return type(layer).__name__ == "Softmax" and layer.axis in (-1, 1)


def _names_softmax(activation) -> bool:
    return isinstance(activation, layers.Softmax) or getattr(activation, "__name__", "") == "softmax"


def _again(layer):
    if isinstance(layer, keras.Layer):
        return type(layer).from_config(layer.get_config())
    return layers.Softmax(dtype="float32", name=SOFTMAX)
