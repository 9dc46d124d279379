"""What a recipe says about changing pictures: the policy, mixing, and a look at both before the training."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd

import augment
from augment.contents import layers_of
from augment.linting import twice
from zoo.data.collection import Data
from zoo.training.recipe import Recipe

_PREVIEWED = 6  # pictures


def policy(recipe: Recipe) -> keras.layers.Layer | None:
    """The layer that changes each picture of an epoch anew; None where nothing is changed."""
    return None if recipe.augment == "none" else _policy(recipe)


def mixing(recipe: Recipe, classes: int, class_weights: Mapping[int, float] | None) -> Callable | None:
    """What mixes the pictures of a batch, or None: (images, labels, keys) -> images, labels[, weights of pictures].

    Class weights are given to the pictures there, since Keras would give a mixed picture that of one class.
    """
    if recipe.mixing == "none":
        return None
    layer = (augment.MixUp if recipe.mixing == "mixup" else augment.CutMix)(seed=int(recipe.seed))
    soft = augment.SoftLabels(classes, class_weights=class_weights)

    def mix(images, labels, keys) -> tuple[Any, ...]:
        images, labels = layer(images, labels, training=True, keys=keys)
        return (images, labels) if class_weights is None else (images, *soft.weighed(labels))

    return mix


def findings(model: keras.Model, recipe: Recipe) -> list[str]:
    """What cannot be meant in a model that was handed over."""
    found = augment.lint(model)
    if recipe.augment != "none":
        found += twice([_policy(recipe)], list(layers_of(model)))
    return found


def described(recipe: Recipe) -> str:
    """The policy as a table."""
    return str(_policy(recipe))


def preview(data: Data, recipe: Recipe):
    """A matplotlib figure of training pictures as the first epochs get them, one of each class in turn.

    Args:
        data: At the size of the recipe.
        recipe: Resolved.
    """
    labels = data.train.labels
    within = pd.Series(labels).groupby(labels).cumcount()  # the how-manieth of its class each picture is
    rows = np.lexsort((labels, within))[:_PREVIEWED]
    return augment.preview(_policy(recipe), data.train.read(rows), numbers=rows.tolist())


def _policy(recipe: Recipe) -> keras.layers.Layer:
    return augment.policy(recipe.augment, recipe.image_size, int(recipe.seed))
