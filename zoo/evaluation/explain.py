"""Where a network looked: Grad-CAM, Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391.

The heat at a place is relu(sum_k w_k * A_k) for the channels A_k of the last feature map, where w_k is the mean over
all places of the derivative of the class's score, before softmax, by A_k.
"""

import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from callbacks import autodiff
from zoo.models.graph import calls_of
from zoo.models.temperature import without_softmax

ops: Any = keras.ops  # to pyright its functions may return None

_PREDICTED = -1


def explain(
    model: keras.Model,
    images: np.ndarray,
    class_index: int | Sequence[int] | np.ndarray | None = None,
    *,
    batch_size: int = 32,
) -> np.ndarray:
    """Heat maps of what in each picture spoke for a class (Grad-CAM).

    The map is that of the last features larger than one pixel through which all goes on its way to the output, in a
    model of the catalog the last of `zoo.taps`. The network runs in inference mode. A map says where evidence for the
    class is, relative to the picture's strongest; how much there is in all, it does not say.

    Args:
        model: Functional or Sequential classifier that ends in a softmax or in logits; it may hold another model.
        images: Pictures (n, height, width, channels) in the size and the range that the model takes: 0..255 for all of
            the zoo. Those of a split come from `split.read(rows)`.
        class_index: Whose evidence to look for: an index for all pictures, one a picture, or None for the class that
            the model predicts for each.
        batch_size: Pictures at a time.

    Returns:
        Heat from 0 to 1, float32, (n, height, width): the largest of a map is 1, or all are 0 where nothing speaks for
        the class.

    Raises:
        TypeError: If `model` is no Keras model, or a class or the batch size no integer.
        ValueError: If the pictures have another shape than the model takes, a class or the batch size is out of its
            range, the model has no feature map, no graph of layers or another output, or it gives NaN.

    Example:
        >>> from zoo.models.registry import create
        >>> pictures = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
        >>> explain(create("resnet20", classes=10), pictures, class_index=[3, 7]).shape
        (2, 32, 32)
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Heat maps are made with channels last. Call keras.config.set_image_data_format('channels_last')."
        )
    scorer = without_softmax(model)
    images = _checked_images(scorer, images)
    classes = _checked_classes(class_index, len(images), scorer.output_shape[-1])
    size = _checked_size(batch_size, len(images))
    cut = _cut(scorer)
    if cut is None:
        raise ValueError(
            f"Model {model.name!r} has no feature map (height, width, channels) larger than one pixel that all goes "
            "through, so there is no place to show. Grad-CAM is for convolutional networks."
        )
    heat = _heat(*cut)
    if len(images) > size or keras.backend.backend() == "jax":  # on TensorFlow a single batch is quicker uncompiled
        heat = autodiff.compiled(heat)
    found = [np.zeros((0, *images.shape[1:3]), np.float32)]
    for start in range(0, len(images), size):
        pictures = images[start : start + size].astype(np.float32)
        rows, missing = len(pictures), size - len(pictures)
        pictures = np.pad(pictures, [(0, missing), (0, 0), (0, 0), (0, 0)])  # one shape, so it is compiled once
        wanted = np.pad(classes[start : start + size], (0, missing))
        found.append(ops.convert_to_numpy(heat(ops.convert_to_tensor(pictures), ops.convert_to_tensor(wanted)))[:rows])
    maps = np.concatenate(found)
    broken = ~np.isfinite(maps).all(axis=(1, 2))
    if broken.any():
        raise ValueError(
            f"The model gives no number (NaN) for {int(broken.sum())} of {len(maps)} pictures, first for row "
            f"{int(np.argmax(broken))} of `images`. Look at its weights and at the pixels."
        )
    return maps


def _heat(front: Sequence[keras.Model], back: Sequence[keras.Model]):
    """A function (pictures, classes) -> heat maps at the size of the pictures."""

    def heat(pictures, classes):
        features = ops.cast(_through(front, pictures), "float32")

        def score(values):
            scores = ops.cast(_through(back, values[0]), "float32")
            chosen = ops.where(classes == _PREDICTED, ops.argmax(ops.stop_gradient(scores), axis=-1), classes)
            # in inference mode a picture's score hangs on no other's map, so the sum's slopes are each one's own
            return ops.sum(scores * ops.one_hot(chosen, scores.shape[-1], dtype="float32"))

        _, (slopes,) = autodiff.value_and_grad(score, [features])
        weights = ops.mean(slopes, axis=(1, 2), keepdims=True)
        small = ops.relu(ops.sum(weights * features, axis=-1, keepdims=True))
        large = ops.image.resize(small, pictures.shape[1:3], interpolation="bilinear")[..., 0]
        most = ops.max(large, axis=(1, 2), keepdims=True)
        return ops.where(most > 0, large / ops.where(most > 0, most, 1.0), large)

    return heat


def _through(models, x):
    for model in models:
        x = model(x, training=False)
    return x


def _cut(model: keras.Model) -> tuple[list[keras.Model], list[keras.Model]] | None:
    """The models in front of the last feature map and those behind it, each a part of the graph; None if there is none.

    Looks into a model in the model where the graph around it has no such map behind it.
    """
    graph = keras.Model(model.inputs, model.outputs)
    nodes = calls_of(graph)
    learned = [_learns(node.operation) for node in nodes]
    crossing = {id(graph.outputs[0])}  # what the nodes behind take from those in front
    for i in range(len(nodes) - 1, -1, -1):
        operation, inputs = nodes[i].operation, nodes[i].input_tensors
        made = nodes[i].output_tensors[0]
        if crossing == {id(made)}:  # all goes through it
            if _is_map(made) and any(learned[: i + 1]):
                return _part(graph.inputs[0], made), _part(made, graph.outputs[0])
            if getattr(operation, "outputs", None) and (inner := _cut(operation)):
                before, after = _part(graph.inputs[0], inputs[0]), _part(made, graph.outputs[0])
                return [*before, *inner[0]], [*inner[1], *after]
        crossing.difference_update(map(id, nodes[i].output_tensors))
        crossing.update(map(id, inputs))
    return None


def _part(start, end) -> list[keras.Model]:
    return [] if start is end else [keras.Model(start, end)]  # Keras makes no model of nothing


def _learns(operation) -> bool:
    """Whether what comes out is more than the picture in another range."""
    if isinstance(operation, keras.layers.Normalization):
        return False
    return isinstance(operation, keras.layers.Layer) and bool(operation.weights)


def _is_map(tensor) -> bool:
    return len(tensor.shape) == 4 and tuple(tensor.shape[1:3]) != (1, 1)


def _checked_images(model, images) -> np.ndarray:
    wanted = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if len(wanted) != 1 or len(wanted[0]) != 3:
        raise ValueError(f"The model must take one picture (height, width, channels). Received: inputs {wanted}")
    try:
        found = np.asarray(images)
    except ValueError:  # pictures of several sizes
        found = np.empty(0, object)
    fits = found.ndim == 4 and all(side in (None, have) for side, have in zip(wanted[0], found.shape[1:], strict=True))
    if not fits or found.dtype.kind not in "uif":
        raise ValueError(
            f"`images` must be an array of numbers (n, height, width, channels) with {wanted[0]} behind the n, such as "
            f"split.read(rows); one picture x is x[None]. Received: shape={found.shape}, dtype={found.dtype}"
        )
    return found


def _checked_classes(class_index, count, classes) -> np.ndarray:
    """A class a picture, (n,), or -1 for the predicted one."""
    if class_index is None:
        return np.full(count, _PREDICTED, np.int32)
    found = np.asarray(class_index)
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"`class_index` must be an integer, one a picture, or None. Received: {class_index!r}")
    if found.shape not in ((), (count,)):
        raise ValueError(
            f"`class_index` must be one integer, or one for each of {count} pictures. Received: shape={found.shape}"
        )
    if ((found < 0) | (found >= classes)).any():
        raise ValueError(
            f"`class_index` must be from 0 to {classes - 1}, the model's classes. Received: class_index={class_index}"
        )
    return np.broadcast_to(found, count).astype(np.int32)


def _checked_size(batch_size, count) -> int:
    try:
        size = operator.index(batch_size)
    except TypeError:
        raise TypeError(f"`batch_size` must be an integer above 0. Received: batch_size={batch_size!r}") from None
    if size < 1:
        raise ValueError(f"`batch_size` must be above 0. Received: batch_size={batch_size}")
    return max(1, min(size, count))
