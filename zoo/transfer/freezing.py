"""Freezing by stage: a frozen stage keeps its weights and statistics and drops nothing.

Keras alone does not hold still: a frozen `Dropout` still drops in `fit`, and batch normalisation moves its statistics
unless it is frozen itself. Both are taken care of here, so a plain `model.fit` trains exactly what the table says.
"""

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import keras

from zoo.models import stages as staging

UNPLACED = "(no stage)"
AMOUNTS = ("none", "small", "medium", "large")
_CHANCE = {  # layers that change their input in training -> the attribute that says how much
    keras.layers.Dropout: "rate",  # SpatialDropout is one of them, and so is the stochastic depth of EfficientNet
    keras.layers.GaussianDropout: "rate",
    keras.layers.AlphaDropout: "rate",
    keras.layers.GaussianNoise: "stddev",
}
_REMEMBERED = "rate_before_freezing"


@dataclass(frozen=True)
class StageRow:
    """One stage: its name, how many layers and parameters it has, and whether it trains."""

    stage: str
    layers: int
    parameters: int
    trains: bool


@dataclass(frozen=True)
class TrainableTable:
    """What trains and what does not, stage by stage; printing it shows the table.

    Attributes:
        model: Name of the model.
        amount: What `freeze` was asked for.
        rows: A row a stage, from stem to head.
    """

    model: str
    amount: str
    rows: tuple[StageRow, ...]

    @property
    def parameters(self) -> int:
        """All parameters, the statistics of batch normalisation included."""
        return sum(row.parameters for row in self.rows)

    @property
    def training(self) -> int:
        """Parameters in stages that train."""
        return sum(row.parameters for row in self.rows if row.trains)

    def to_frame(self):
        """The rows as a pandas DataFrame."""
        import pandas as pd  # half a second that `freeze` itself can do without

        return pd.DataFrame([asdict(row) for row in self.rows])

    def __str__(self):
        cells = [("stage", "layers", "parameters", "trains")]
        cells += [
            (row.stage, str(row.layers), f"{row.parameters:,}", "yes" if row.trains else "no") for row in self.rows
        ]
        cells.append(("total", str(sum(row.layers for row in self.rows)), f"{self.parameters:,}", f"{self.training:,}"))
        widths = [max(len(row[i]) for row in cells) for i in range(4)]
        lines = [
            f"{stage:<{widths[0]}}  {layers:>{widths[1]}}  {parameters:>{widths[2]}}  {trains:>{widths[3]}}"
            for stage, layers, parameters, trains in cells
        ]
        rule = "-" * len(lines[0])
        title = f"{self.model}, amount frozen: {self.amount}"
        return "\n".join([title, lines[0], rule, *lines[1:-1], rule, lines[-1]])


def freeze(model: keras.Model, amount: str, *, stages: Mapping[str, Iterable[str]] | None = None) -> TrainableTable:
    """Freezes the first stages of a model, in place, and lets the others train.

    A frozen stage runs in inference mode: batch normalisation uses and keeps its statistics, dropout and noise are
    silent until `unfreeze`. Compile the model again afterwards, as always when `trainable` has changed.

    Args:
        model: Built model whose layers follow the naming contract, or are named in `stages`.
        amount: "small" freezes the stem and the first stage, "medium" all but the last stage and the head, "large" all
            but the head, "none" nothing. A small data set wants a large amount frozen. Only "large" freezes the last
            stage, even where it is the first.
        stages: For a model of one's own: stage name ("stem", "stage<k>", "head") to names of its layers.

    Returns:
        A table of what trains; print it.

    Raises:
        ValueError: If `amount` is none of the four, a layer with weights or dropout belongs to no stage (which "none"
            does not ask), or `stages` names a layer that the model does not have.

    Example:
        >>> from zoo.models.registry import create
        >>> freeze(create("resnet20", classes=10), "large").training
        650
    """
    if amount not in AMOUNTS:
        raise ValueError(f"`amount` must be one of {AMOUNTS}. Received: amount={amount!r}")
    groups = _groups(model, stages, strict=amount != "none")
    frozen = _frozen(list(groups), amount)
    unfreeze(model)
    for name in frozen:
        for layer in groups[name]:
            layer.trainable = False
            _silence(layer)
    rows = [
        StageRow(name, len(layers), sum(layer.count_params() for layer in layers), name not in frozen)
        for name, layers in groups.items()
    ]
    return TrainableTable(model.name, amount, tuple(rows))


def unfreeze(model: keras.Model):
    """Lets every layer train and drop again, in place; compile the model again afterwards."""
    for part in model._flatten_layers():  # Keras passes nothing on where the model itself was trainable already
        part.trainable = True
    for layer, attribute, rate in _silenced(model):
        setattr(layer, attribute, rate)
        delattr(layer, _REMEMBERED)


@contextmanager
def original_rates(model: keras.Model):
    """Frozen dropout bears its real rate inside the context, so that a model saved there has it in its config.

    Do not train inside: a step traced there would drop.
    """
    silenced = _silenced(model)
    for layer, attribute, rate in silenced:
        setattr(layer, attribute, rate)
    try:
        yield model
    finally:
        for layer, attribute, _ in silenced:
            setattr(layer, attribute, 0.0)


def _groups(model, stages, strict):
    """Stage -> layers; what could learn or drop and belongs to none is an error, or if not `strict` one more stage."""
    if not model.built:
        raise ValueError(f"Model {model.name!r} is not built yet; call it on a batch, or give it an input shape.")
    groups = staging.stages(model, stages)
    placed = {layer.name for layers in groups.values() for layer in layers}
    strange = [layer for layer in model.layers if layer.name not in placed and (layer.weights or _droppers(layer))]
    if strange and strict:
        raise ValueError(
            f"Layer {strange[0].name!r} of model {model.name!r} is outside the naming contract (stem, stage<k>, head), "
            "so `freeze` cannot place it. Rename it, or set `trainable` by hand."
        )
    return {**groups, UNPLACED: strange} if strange else groups


def _frozen(names, amount):
    """The stages to freeze; the last of stem and stages is never in a "small" or "medium" amount."""
    body = [name for name in names if name != "head"]
    return {
        "none": [],
        "small": [name for name in body[:-1] if name in ("stem", "stage1")],
        "medium": body[:-1],
        "large": body,
    }[amount]


def _droppers(layer) -> list[tuple[keras.Layer, str]]:
    """The layers of chance in a layer, itself and those within it, each with the attribute that says how much."""
    parts = layer._flatten_layers()  # Keras has no public walk into layers
    return [(part, attribute) for part in parts for kind, attribute in _CHANCE.items() if isinstance(part, kind)]


def draws(layer: keras.Layer) -> bool:
    """Whether a layer, or one within it, changes its input at random in training; silenced dropout does not."""
    silent = [part for part, attribute in _droppers(layer) if not getattr(part, attribute)]
    generators = [part for part in layer._flatten_layers() if getattr(part, "_seed_generators", None)]
    return any(part not in silent for part in [*generators, *(part for part, _ in _droppers(layer))])


def _silence(layer):
    for part, attribute in _droppers(layer):
        setattr(part, _REMEMBERED, getattr(part, attribute))
        setattr(part, attribute, 0.0)


def _silenced(model):
    """Silent layers of chance, the attribute that says how much, and what it said before."""
    return [
        (part, attribute, getattr(part, _REMEMBERED))
        for part, attribute in _droppers(model)
        if hasattr(part, _REMEMBERED)
    ]
