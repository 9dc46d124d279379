"""Which stage a layer belongs to: told by its name, by the catalog's boundaries, or by the caller.

Freezing, feature taps, layer-wise rates and ablation all ask here.
"""

import re
from collections.abc import Iterable, Mapping

import keras

from zoo.models.catalog import CATALOG, near_miss

_STAGE = r"(stem|stage[1-9][0-9]*|head)"


def stage_of(model: keras.Model, stages: Mapping[str, Iterable[str]] | None = None) -> dict[str, str]:
    """Layer name to stage name, for each layer of `model` that has a stage, in the model's order.

    A layer is placed by `stages`, else, in a model of the catalog whose layers keep names of their own, by the
    catalog's boundaries, else by its own name: `stem_*`, `stage<k>_*`, `head_*`. Inputs belong to the stem. A layer
    that nothing places is left out.

    Args:
        model: Flat model.
        stages: For a model of one's own: stage name to names of its layers.

    Raises:
        ValueError: If `stages` or the catalog names a layer that the model does not have, if a stage's name is outside
            the contract, or if two stages claim one layer.
    """
    row = CATALOG.get(model.name)
    if row is not None and row.boundaries:
        placed = _by_boundaries(model, row.boundaries)
    else:
        placed = _by_name(model)
    return {**placed, **_given(model, stages or {})}


def stages(model: keras.Model, stages: Mapping[str, Iterable[str]] | None = None) -> dict[str, list[keras.Layer]]:
    """The layers of each stage that the model has, from stem to head; arguments and errors as in `stage_of`."""
    return _stages(model, stages)


def _stages(model, stages):
    placed = stage_of(model, stages)
    groups = {name: [] for name in sorted(set(placed.values()), key=_position)}
    for layer in model.layers:
        if layer.name in placed:
            groups[placed[layer.name]].append(layer)
    return groups


def taps(model: keras.Model, stages: Mapping[str, Iterable[str]] | None = None) -> dict[str, keras.KerasTensor]:
    """The last feature map of each stage, for `keras.Model(model.input, zoo.taps(model))` and its like.

    It is what the stage hands on, or, in a last stage that ends in fully connected layers or behind a global pooling,
    the last that is larger than one pixel. Stem and head are left out. Arguments and errors as in `stage_of`; besides:

    Raises:
        ValueError: If no layer of the model belongs to a stage.

    Example:
        >>> from zoo.models.registry import create
        >>> {name: tensor.shape for name, tensor in taps(create("resnet20", classes=10)).items()}
        {'stage1': (None, 32, 32, 16), 'stage2': (None, 16, 16, 32), 'stage3': (None, 8, 8, 64)}
    """
    groups = _stages(model, stages)
    maps = {stage: _last_map(layers) for stage, layers in groups.items() if stage not in ("stem", "head")}
    if not maps:
        raise ValueError(
            f"No layer of model {model.name!r} belongs to a stage: none is called stage<k>_*. Name them in `stages`, "
            'such as stages={"stage1": [layer names]}.'
        )
    return maps


def _last_map(layers):
    outputs = [layer.output for layer in layers]
    maps = [tensor for tensor in outputs if len(tensor.shape) == 4 and tensor.shape[1:3] != (1, 1)]
    return (maps or outputs)[-1]


def _by_name(model):
    placed = {}
    for layer in model.layers:
        match = re.match(_STAGE + "(_|$)", layer.name)
        if isinstance(layer, keras.layers.InputLayer):
            placed[layer.name] = "stem"
        elif match:
            placed[layer.name] = match.group(1)
    return placed


def _by_boundaries(model, boundaries):
    starts = {layer: stage for stage, layer in boundaries.items()}
    missing = starts.keys() - {layer.name for layer in model.layers}
    if missing:
        raise ValueError(f"The catalog's boundaries of {model.name!r} name no layer of this model: {sorted(missing)}.")
    placed, stage = {}, "stem"
    for layer in model.layers:  # boundaries stand where one tensor passes, so the order of the layers is enough
        stage = "head" if layer.name.startswith("head_") else starts.get(layer.name, stage)
        placed[layer.name] = stage
    return placed


def _given(model, stages):
    names = [layer.name for layer in model.layers]
    placed = {}
    for stage, layers in stages.items():
        if not re.fullmatch(_STAGE, stage):
            raise ValueError(f"A stage is called stem, stage<k> or head. Received: {stage!r} in `stages`")
        for layer in layers:
            if layer not in names:
                hint = near_miss(layer, names)
                raise ValueError(f"`stages` names {layer!r}, which is no layer of model {model.name!r}. {hint}".strip())
            if placed.setdefault(layer, stage) != stage:
                raise ValueError(f"`stages` puts layer {layer!r} into both {placed[layer]!r} and {stage!r}.")
    return placed


def _position(stage):
    if stage in ("stem", "head"):
        return 0 if stage == "stem" else float("inf")
    return int(stage.removeprefix("stage"))
