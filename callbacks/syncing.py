"""The weights and the optimizer of a model in the middle of a fit."""

from typing import Any

import keras


def synchronize(model):
    """On JAX the loop keeps the weights to itself until it is asked for them."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def stepping(optimizer) -> Any:
    """The optimizer that steps: the one inside, where there is a loss scale around it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def has_schedule(optimizer) -> bool:
    """Whether an optimizer sets its rate itself, so that no one else can."""
    # not by the public property, which hides a schedule behind its current value
    return not isinstance(stepping(optimizer)._learning_rate, keras.Variable)
