"""What comes out of a classifier, read in one way by evaluation, prediction and the export."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd


def gives_logits(model: keras.Model) -> bool:
    """Whether the model ends in scores of any size rather than in probabilities.

    That is so where the activation of its last layer is linear. Layers behind it that only pass values on, such as an
    `Activation("linear")` that turns half precision into float32, or only multiply them, such as the temperature of a
    calibrated model, are looked through.
    """
    outputs = keras.tree.flatten(getattr(model, "outputs", None) or [])
    layer = _maker(outputs[0]) if outputs else model.layers[-1]  # a subclassed model has no graph to read
    if isinstance(layer, keras.Model):
        return gives_logits(layer)
    activation = getattr(layer, "activation", None)
    return activation is keras.activations.linear or getattr(activation, "__name__", "") == "linear"


def probabilities(model: keras.Model, batch_outputs) -> Any:
    """Probabilities from what the model gave for a batch, in float32 whatever its precision.

    Logits go through softmax; probabilities are divided by their sum, which half precision leaves off 1. Works on
    arrays and inside a graph, on any backend.

    Args:
        model: The model that gave the outputs.
        batch_outputs: (n, classes), or a structure that holds that one tensor.

    Returns:
        Backend tensor (n, classes), float32, rows that sum to one.
    """
    tensors = keras.tree.flatten(batch_outputs)
    if len(tensors) != 1 or len(tensors[0].shape) != 2:
        shapes = [tuple(tensor.shape) for tensor in tensors]
        raise ValueError(f"A classifier gives one output (pictures, classes). Received: outputs of shape {shapes}")
    values = keras.ops.cast(tensors[0], "float32")
    if gives_logits(model):
        return keras.ops.softmax(values, axis=-1)
    return keras.ops.divide(values, keras.ops.sum(values, axis=-1, keepdims=True))


def checked_probabilities(model: keras.Model, outputs) -> np.ndarray:
    """`probabilities` as a numpy array, after a look at what the model gave.

    Args:
        model: The model that gave the outputs.
        outputs: (n, classes), concrete values, as from `model.predict`.

    Returns:
        (n, classes), float32, rows that sum to one.

    Raises:
        ValueError: If the outputs are neither logits nor probabilities, such as those of a sigmoid.
    """
    values = np.asarray(keras.ops.convert_to_numpy(probabilities(model, outputs)))
    if not gives_logits(model):
        raw = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(keras.tree.flatten(outputs)[0], "float32")))
        off = (raw < 0).any(axis=1) | (np.abs(raw.sum(axis=1) - 1) > 0.05)  # bfloat16 leaves a sum off by 0.02
        if off.any():
            row = int(np.argmax(off))
            raise ValueError(
                "The last layer must have a softmax (or no) activation, so that a row of outputs holds the "
                f"probabilities of all classes. Received: a row with the sum {raw[row].sum():.3g}"
            )
    return values


def check_width(model: keras.Model, class_names: Sequence[str]) -> None:
    """Holds the model to one output with a column a class; a subclassed model, whose output is not known, passes.

    Raises:
        ValueError: If it has several outputs, or another number of columns than there are classes.
    """
    outputs = keras.tree.flatten(getattr(model, "outputs", None) or [])
    if not outputs:
        return
    shapes = [tuple(output.shape) for output in outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(f"A classifier gives one output (pictures, classes). Received: outputs of shape {shapes}")
    if shapes[0][1] != len(class_names):
        raise ValueError(
            f"The model tells {shapes[0][1]} classes apart, but there are {len(class_names)} class names. "
            f"Create it with classes={len(class_names)}."
        )


def prediction_table(
    paths: Sequence[str],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    problems: Mapping[str, str] | Sequence[str] | None = None,
) -> pd.DataFrame:
    """A row a picture: what it shows, and how sure the model is.

    Args:
        paths: Names of the pictures, in row order.
        probabilities: (n, classes); the row of a picture that could not be read is NaN.
        class_names: Names in the order of the columns of `probabilities`.
        problems: Why pictures could not be read: by path, or one text a row, empty where all is well.

    Returns:
        Columns path, label, probability (of that label), and problem only where some picture has one. A picture that
        could not be read has an empty label and a NaN probability.

    Example:
        >>> print(prediction_table(["a.jpg"], np.array([[0.25, 0.75]]), ["ant", "bee"]))
            path label  probability
        0  a.jpg   bee         0.75
    """
    values = np.asarray(probabilities, np.float64).reshape(-1, len(class_names))
    readable = np.asarray(~np.isnan(values).any(axis=1))
    best = np.where(readable, np.nan_to_num(values).argmax(axis=1), 0)
    table = pd.DataFrame(
        {
            "path": [str(path) for path in paths],
            "label": [class_names[k] if fine else "" for k, fine in zip(best.tolist(), readable.tolist(), strict=True)],
            "probability": np.where(readable, values[np.arange(len(values)), best], np.nan),
        }
    )
    if problems is not None:
        texts = [problems.get(path, "") for path in paths] if isinstance(problems, Mapping) else list(problems)
        if any(texts):
            table["problem"] = texts
    return table


def passes_on(layer) -> bool:
    """Whether scores go through a layer as they are, but for a factor and an offset that all classes share."""
    if isinstance(layer, keras.layers.Activation):
        return layer.activation is keras.activations.linear
    shaping = (keras.layers.Dropout, keras.layers.Identity, keras.layers.Reshape, keras.layers.Flatten)
    return isinstance(layer, (*shaping, keras.layers.Rescaling))


def _maker(tensor):
    """The layer that made a tensor of the model's graph, looking through those that only pass it on."""
    layer, node, _ = tensor._keras_history
    if not passes_on(layer):
        return layer
    before = _maker(layer._inbound_nodes[node].input_tensors[0])
    return layer if isinstance(before, keras.layers.InputLayer) else before
