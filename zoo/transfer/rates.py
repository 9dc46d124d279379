"""Layer-wise learning rates: the nearer a stage is to the picture, the smaller its steps.

Discriminative fine-tuning, Howard and Ruder 2018 (ULMFiT), https://arxiv.org/abs/1801.06146, with a constant ratio from
one stage to the next: the layer-wise decay of Clark et al. 2020 (ELECTRA), https://arxiv.org/abs/2003.10555.

Departure from the papers: the unit is a stage, not a layer.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras

from callbacks.syncing import stepping
from zoo.models.stages import stages

_EXCLUSIONS = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")  # not in an optimizer's config


def stage_rates(model: keras.Model, decay: float) -> dict[str, float]:
    """Stage name to the factor of its learning rate, from stem to head.

    The head has 1, the last stage `decay`, the one before `decay` squared, and so on; the stem has the smallest.

    Args:
        model: Flat model whose layers follow the naming contract.
        decay: Ratio of the rates of neighbouring stages, above 0 and at most 1.

    Raises:
        ValueError: If `decay` is out of its range.

    Example:
        >>> from zoo.models.registry import create
        >>> stage_rates(create("resnet20", classes=10), 0.5)
        {'stem': 0.0625, 'stage1': 0.125, 'stage2': 0.25, 'stage3': 0.5, 'head': 1.0}
    """
    if not 0 < decay <= 1:
        raise ValueError(
            f"`decay` must be above 0 and at most 1, which gives all stages one rate. Received: decay={decay}"
        )
    groups = stages(model)
    body = [stage for stage in groups if stage != "head"]
    factors = {stage: float(decay ** (len(body) - i)) for i, stage in enumerate(body)}
    return {stage: factors.get(stage, 1.0) for stage in groups}


def scaled(optimizer: keras.Optimizer, model: keras.Model, decay: float) -> keras.Optimizer:
    """A fresh optimizer like the given one, whose step for each weight has the rate times the factor of its stage.

    Works for any optimizer of Keras on TensorFlow and JAX, since it is the rate that is scaled, not the gradient, which
    Adam and its like would undo. Decoupled weight decay shrinks with the rate. `learning_rate` is still the head's:
    schedules and callbacks set it as ever. A weight that is in no stage of `model` has factor 1.

    The result is of the same class as `optimizer` and has the same config, so a saved model holds a plain optimizer:
    scale it again after loading.

    Args:
        optimizer: Compiled or not; neither changed nor used. The result starts without its momenta.
        model: Whole model, even where a part that shares its layers is fitted.
        decay: As in `stage_rates`.

    Raises:
        ValueError: If `decay` is out of its range, or below 1 for a model without weights in any stage but the head.

    Example:
        >>> from zoo.models.registry import create
        >>> model = create("resnet20", classes=10)
        >>> model.compile(scaled(keras.optimizers.AdamW(1e-3), model, 0.5), "sparse_categorical_crossentropy")
    """
    factors = _factors(model, decay)
    fresh = _fresh(optimizer)
    _scale(stepping(fresh), factors)
    return fresh


def _factors(model, decay) -> list[tuple[keras.Variable, float]]:
    rates = stage_rates(model, decay)
    factors = [
        (variable, rates[stage])
        for stage, layers in stages(model).items()
        for layer in layers
        for variable in layer.weights
    ]
    if decay < 1 and all(factor == 1 for _, factor in factors):
        raise ValueError(
            f"Model {model.name!r} has no weights in a stem or stage<k>, so there is nothing to scale by `decay`. Call "
            f"its layers stem_*, stage<k>_* and head_*, or leave the optimizer as it is. Received: decay={decay}"
        )
    return factors


def _fresh(optimizer):
    config = optimizer.get_config()
    if "learning_rate" in config and not isinstance(optimizer._learning_rate, keras.Variable):
        config["learning_rate"] = optimizer._learning_rate  # a schedule of the caller's need not be serialisable
    fresh = type(optimizer).from_config(config)
    source, target = stepping(optimizer), stepping(fresh)
    for attribute in _EXCLUSIONS:
        if hasattr(source, attribute):
            setattr(target, attribute, getattr(source, attribute))
    return fresh


def _scale(optimizer: Any, factors: Sequence[tuple[keras.Variable, float]]):
    """Makes an optimizer take each step, and each weight decay, with the rate of the variable's stage.

    Done on the object: a class of our own would be written into every saved model.
    """
    step, shrink, rate = optimizer.update_step, optimizer._apply_weight_decay, optimizer._get_current_learning_rate
    # Not by identity: on TensorFlow, steps get the variable that Keras' own wraps. The variables are kept, so that
    # none of their keys is given to another.
    places = {optimizer._var_key(variable): (variable, factor) for variable, factor in factors}

    def factor_of(variable):
        return places.get(optimizer._var_key(variable), (variable, 1.0))[1]

    def scaled_step(gradient, variable, learning_rate):
        return step(gradient, variable, _times(learning_rate, factor_of(variable)))

    def scaled_rate(factor):
        return _times(rate(), factor)

    def scaled_shrink(variables):
        try:
            for variable in variables:
                optimizer._get_current_learning_rate = partial(scaled_rate, factor_of(variable))
                shrink([variable])
        finally:
            optimizer._get_current_learning_rate = rate

    optimizer.update_step = scaled_step
    optimizer._apply_weight_decay = scaled_shrink


def _times(rate, factor):
    return rate if factor == 1 else rate * factor
