"""Proof that what is frozen stands still: weights and statistics compared byte by byte while a model is fitted."""

import hashlib

import keras
import numpy as np

from callbacks.stateful import Announced
from callbacks.syncing import synchronize


class FrozenGuard(Announced):
    """Stops a fit in which a frozen weight moved, be it by one bit.

    Watched is every weight, statistics of batch normalisation included, of every layer at any depth whose own
    `trainable` is False when `fit` begins; the states of seed generators and metrics are no weights. They are compared
    after the first step and at the end. What is kept is a digest of 16 bytes a weight, so NaN equals itself, restored
    weights are no change, and the size of a change is not known.

    Args:
        model: The whole network, where the model that is fitted is only a part of it, such as the tail behind a frozen
            trunk; by default the fitted model.

    Attributes:
        checked: Number of weights watched; 0 where nothing is frozen.
        moved: Paths of the weights that moved, or None.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If `model` and the fitted model have no weight in common, or what is frozen is not built yet; both
            at the start of `fit`.
        RuntimeError: If a frozen weight moved; the message names layer and weight, and what to do.
    """

    def __init__(self, model=None):
        super().__init__()
        if model is not None and not isinstance(model, keras.Model):
            raise TypeError(f"`model` must be a Keras model, or None. Received: {type(model).__name__}")
        self.network = model  # `model` is Keras' own name for the one that is fitted
        self.checked = 0
        self.moved = None

    def on_train_begin(self, logs=None):
        watched = self.network or self.model
        if not watched.built and not all(layer.trainable for layer in watched._flatten_layers()):
            raise ValueError(
                f"Model {watched.name!r} is not built yet, so its frozen weights cannot be watched; call it on a "
                "batch, or give it an input shape."
            )
        if self.network is not None and not _ids(self.network.weights) & _ids(self.model.weights):
            raise ValueError(
                "`model` must be the network that the fitted model is a part of, made of the same layers. "
                f"Received: model {watched.name!r}, which has no weight in common with {self.model.name!r}"
            )
        self._frozen = _frozen_weights(watched)
        self._digests = None
        self.checked, self.moved = len(self._frozen), None
        self._begun = self._seen = False

    def on_epoch_begin(self, epoch, logs=None):
        if self._digests is None:  # not when the fit begins: then a `Checkpoint` still restores weights
            self._digests = [_digest(weight) for _, weight in self._frozen]

    def on_train_batch_begin(self, batch, logs=None):
        # The first step is looked at before the second one: a callback with an `on_train_batch_end` makes Keras wait
        # for the logs of every step.
        if self._begun and not self._seen:
            self._seen = True
            self._compare("after the first step")
        self._begun = True

    def on_train_end(self, logs=None):
        self._compare("at the end")

    def _compare(self, when):
        """Raises if a frozen weight has other bytes than at the start."""
        if not self._digests:  # nothing is frozen, or no epoch was run
            return
        synchronize(self.model)
        pairs = zip(self._frozen, self._digests, strict=True)
        moved = [(layer, weight) for (layer, weight), digest in pairs if _digest(weight) != digest]
        if not moved:
            return
        self.moved = tuple(weight.path for _, weight in moved)
        layer, weight = moved[0]
        others = f", as had {len(moved) - 1} more of the {self.checked} frozen weights" if moved[1:] else ""
        raise RuntimeError(
            f"Layer {layer.name!r} is frozen, yet its weight {weight.path!r} had moved {when} of fit{others}: "
            "set `trainable = False` on every layer that is to keep still, batch normalisation itself included (a "
            "parent called with training=False does not keep it), or use zoo.freeze, and compile the model again."
        )


def _frozen_weights(model):
    """(layer, weight) for all that is frozen, each weight once."""
    found = {}
    for layer in model._flatten_layers():  # Keras has no public walk into layers, nor a list of a layer's own weights
        if not layer.trainable:
            for weight in layer._trainable_variables + layer._non_trainable_variables:
                found.setdefault(id(weight), (layer, weight))
    return list(found.values())


def _ids(weights):
    return {id(weight) for weight in weights}


def _digest(weight):
    return hashlib.blake2b(np.asarray(keras.ops.convert_to_numpy(weight)).tobytes(), digest_size=16).digest()
