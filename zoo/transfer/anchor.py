"""Weights on a leash: training pulls them back towards the values that they came with.

L2-SP, Li, Grandvalet and Davoine 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks",
https://arxiv.org/abs/1802.01483.

As in the authors' own code, the scale and shift of batch normalisation are free. Departures from the paper: biases are
held, too (its networks have none outside the head), and the head gets no penalty of its own here, since the optimizer's
weight decay does that.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
from keras import ops

_HELD = ("kernel", "bias")  # ends of names; what is left out scales and shifts: gamma, beta


class _Anchor(keras.regularizers.Regularizer):
    """strength / 2 * sum((weight - start) ** 2), and what the weight was regularised by before."""

    def __init__(self, start, strength, before):
        self.start, self.strength, self.before = start, strength, before

    def __call__(self, x):
        penalty = self.strength / 2 * ops.sum(ops.square(x - self.start))
        return penalty if self.before is None else penalty + self.before(x)


@contextmanager
def anchored(model: keras.Model, strength: float) -> Iterator[keras.Model]:
    """Inside the context, the loss holds `strength / 2` times the squared distance of the weights from where they are.

    Held are the kernels and biases that train when the context is entered, but for those of layers called `head_*`.
    A regulariser that a weight has already, such as that of `create(..., l2=...)`, goes on acting. Models that share
    the layers have the penalty, too, the tail of `split_frozen` among them.

    Compile inside the context: a model that was fitted before does not look again. Compile it again behind it, too.
    What is saved, inside or behind it, knows nothing of the penalty. The first values take as much memory as the
    weights that are held; JAX compiles them in besides, unless JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS=1 is set.

    Args:
        model: Built model with its pre-trained weights.
        strength: Alpha of the paper, which tried 0.001 to 1; 0 does nothing.

    Raises:
        ValueError: If `strength` is negative.

    Example:
        >>> from zoo.models.registry import create
        >>> model = create("convnet", classes=2, input_shape=(8, 8, 3))
        >>> with anchored(model, 0.1):
        ...     model.compile("sgd", "sparse_categorical_crossentropy")  # and fit
        ...     len(model.losses) > 0
        True
        >>> model.losses
        []
    """
    if not strength >= 0:
        raise ValueError(f"`strength` must not be negative; 0 leaves the weights free. Received: strength={strength}")
    held = _held(model) if strength else []
    before = [variable.regularizer for variable in held]
    try:
        for variable in held:
            # A variable, since a graph of TensorFlow would hold an array as a constant; made of numbers, since Keras
            # would share the tensor of another variable.
            start = keras.Variable(ops.convert_to_numpy(variable), trainable=False, dtype=variable.dtype, name="start")
            variable.regularizer = _Anchor(start, strength, variable.regularizer)
        yield model
    finally:
        for variable, regularizer in zip(held, before, strict=True):
            variable.regularizer = regularizer


def _held(model) -> list[keras.Variable]:
    found = {
        id(variable): variable
        for layer in model.layers
        if not layer.name.startswith("head_")
        for variable in layer.trainable_variables
        if variable.name.endswith(_HELD)
    }
    return list(found.values())
