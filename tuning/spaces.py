"""Spaces to search: functions from KerasTuner's `hp` to a plain dict of fields of `zoo.Recipe`.

`head`, `transfer` and `scratch` are ready; the pieces that they are made of make others:

    def mine(hp):
        return {"freeze": "medium", **spaces.learning_rate(hp), **spaces.augmentation(hp)}

    result = tuning.search("mobilenet_v2", data, space=mine)

Ranges, scales and the order of importance are those of Ng, "Improving Deep Neural Networks", 2017: what acts by its
order of magnitude is searched on a log scale, momentum by its distance from 1. In the ready spaces every default is
what `fine_tune` chooses by itself, so the first trial is the known-good recipe; what the data decides there (amount
frozen, batch size, label smoothing) comes as `usual`, and a piece alone has what suits few pictures. A piece under
`hp.conditional_scope` whose condition does not hold gives no field.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from augment import POLICIES

if TYPE_CHECKING:
    import keras
    from keras_tuner import HyperParameters

Fields = dict[str, Any]
BACKBONES = ("mobilenet_v2", "mobilenet_v3_large", "efficientnetv2_b0", "resnet18", "resnet50")  # with public weights
BUILDERS = ("resnet20", "convnet", "inception_small", "resnet32", "resnet56")
AMOUNTS = ("large", "medium", "small", "none")
USUAL = {"freeze": "large", "batch_size": 32, "label_smoothing": 0.0}  # what `fine_tune` chooses for few pictures
CONVNET = {"filters": (32, 64, 128), "depth": 1, "connections": "dense"}  # what the network does by itself


def head(hp: "HyperParameters", *, model: "str | keras.Model" = "auto", usual: Mapping[str, Any] = USUAL) -> Fields:
    """What stands on a frozen network. No field changes what that gives, so all trials share one pass over the data.

    Args:
        hp: KerasTuner's.
        model: As in `tuning.search`. "auto" is mobilenet_v2, since a network that stays as it is must have learned; a
            Keras model keeps its own head and dropout.
        usual: Defaults of what depends on the data; `tuning.search` gives those of its own.
    """
    fields = {"freeze": "large", "augment": "none", **({"model": BACKBONES[0]} if model == "auto" else {})}
    fields |= learning_rate(hp) | momentum(hp) | batch_size(hp, usual=usual["batch_size"])
    if isinstance(model, str):
        fields |= hidden_layer(hp) | dropout(hp)
    return fields | weight_decay(hp) | label_smoothing(hp, usual=usual["label_smoothing"])


def transfer(
    hp: "HyperParameters",
    *,
    model: "str | keras.Model" = "auto",
    usual: Mapping[str, Any] = USUAL,
    backbones: Sequence[str] = BACKBONES,
) -> Fields:
    """A pre-trained network: which, how much of it is frozen, at what rates the rest learns, on what pictures.

    Args:
        hp: KerasTuner's.
        model: As in `tuning.search`: only "auto" leaves the network to be chosen; a Keras model keeps its dropout.
        usual: As of `head`.
        backbones: The networks to choose from, the first one first.
    """
    fields = backbone(hp, backbones) if model == "auto" else {}
    fields |= learning_rate(hp) | freeze(hp, usual=usual["freeze"])
    with hp.conditional_scope("freeze", ["medium", "small", "none"]):  # one stage alone has no neighbour
        fields |= layer_decay(hp)
    fields |= augmentation(hp)
    if isinstance(model, str):
        fields |= dropout(hp)
    return fields | weight_decay(hp) | label_smoothing(hp, usual=usual["label_smoothing"])


def scratch(
    hp: "HyperParameters",
    *,
    model: "str | keras.Model" = "auto",
    usual: Mapping[str, Any] = USUAL,
    builders: Sequence[str] = BUILDERS,
) -> Fields:
    """A network without learned weights: which, its shape where it is `convnet`, and all of the training.

    The size of the pictures is left to the data, and epochs, which cost what the searcher can pay, to the call.

    Args:
        hp: KerasTuner's.
        model: As in `tuning.search`: only "auto" leaves the network to be chosen; a Keras model keeps its weights,
            dropout and initialiser.
        usual: As of `head`.
        builders: The networks to choose from, the first one first.
    """
    fields: Fields = {}
    if isinstance(model, str):
        fields |= {"weights": "none"}
    if model == "auto":
        fields |= backbone(hp, builders)
        if "convnet" in builders:
            with hp.conditional_scope("model", ["convnet"]):
                fields |= convnet(hp)
    elif model == "convnet":
        fields |= convnet(hp)
    fields |= learning_rate(hp) | optimizer(hp) | batch_size(hp, largest=128, usual=usual["batch_size"]) | schedule(hp)
    if isinstance(model, str):
        fields |= dropout(hp) | kernel_initializer(hp)
    return fields | label_smoothing(hp, usual=usual["label_smoothing"]) | augmentation(hp)


def learning_rate(hp: "HyperParameters") -> Fields:
    """1e-5 to 1e-1, log: what matters most."""
    return _applying(learning_rate=hp.Float("learning_rate", 1e-5, 1e-1, sampling="log", default=1e-3))


def momentum(hp: "HyperParameters") -> Fields:
    """0.9 to 0.999, log of the distance from 1, for averages over 10 to 1,000 steps; of momentum, adam and adamw."""
    return _below_one(momentum=hp.Float("one_minus_momentum", 1e-3, 1e-1, sampling="log", default=1e-1))


def beta2(hp: "HyperParameters") -> Fields:
    """0.9 to 0.9999, log of the distance from 1; of adam, adamw and rmsprop."""
    return _below_one(beta2=hp.Float("one_minus_beta2", 1e-4, 1e-1, sampling="log", default=1e-3))


def optimizer(hp: "HyperParameters") -> Fields:
    """Which one, with the moments and the weight decay that belong to it."""
    fields = _applying(
        optimizer=hp.Choice("optimizer", ["adamw", "adam", "momentum", "rmsprop", "adagrad"], default="adamw")
    )
    with hp.conditional_scope("optimizer", ["adamw", "adam", "momentum"]):
        fields |= momentum(hp)
    with hp.conditional_scope("optimizer", ["adamw", "adam", "rmsprop"]):
        fields |= beta2(hp)
    with hp.conditional_scope("optimizer", ["adamw", "momentum", "rmsprop", "adagrad"]):  # with it, adam is adamw
        fields |= weight_decay(hp)
    return fields


def batch_size(hp: "HyperParameters", *, largest: int = 512, usual: int = 32) -> Fields:
    """Powers of two from 16 to `largest`, ordered."""
    sizes = [size for size in (16, 32, 64, 128, 256, 512) if size <= largest]
    return _applying(batch_size=hp.Choice("batch_size", sizes, default=usual if usual in sizes else 32))


def hidden_layer(hp: "HyperParameters") -> Fields:
    """One dense layer as the head or another before it, and how many units that has."""
    fields = _applying(head=hp.Choice("head", ["linear", "hidden"]))
    with hp.conditional_scope("head", ["hidden"]):
        fields |= _applying(hidden_units=hp.Choice("hidden_units", [64, 128, 256, 512], default=256))
    return fields


def convnet(hp: "HyperParameters") -> Fields:
    """The shape of `convnet`: its width, its depth, and whether its connections are dense or sparse."""
    width = hp.Choice("filters", [16, 32, 64], default=32)  # of the stem; doubled in each of the two stages
    depth = hp.Int("depth", 1, 3)  # convolutions a stage
    connections = hp.Choice("connections", ["dense", "grouped", "depthwise"])
    if width is None:  # under a condition that does not hold
        return {}
    chosen = {"filters": (width, 2 * width, 4 * width), "depth": depth, "connections": connections}
    variant = {name: value for name, value in chosen.items() if value != CONVNET[name]}
    return {"variant": variant} if variant else {}


def schedule(hp: "HyperParameters") -> Fields:
    """How the rate falls, and how fast where the formula leaves that open."""
    kind = hp.Choice("schedule", ["cosine", "constant", "inverse time", "exponential", "sqrt"])
    with hp.conditional_scope("schedule", ["inverse time"]):
        inverse = hp.Float("inverse_time_rate", 1e-2, 1.0, sampling="log", default=1.0)
    with hp.conditional_scope("schedule", ["exponential"]):
        exponential = hp.Float("one_minus_exponential_rate", 1e-2, 2e-1, sampling="log", default=5e-2)
    return _applying(schedule=kind, decay_rate=inverse) | _below_one(decay_rate=exponential)


def dropout(hp: "HyperParameters") -> Fields:
    """0.2 to 0.5, before each dense layer of the head."""
    return _applying(dropout=hp.Float("dropout", 0.2, 0.5, default=0.2))


def weight_decay(hp: "HyperParameters") -> Fields:
    """1e-5 to 1e-1, log; decoupled from the gradients."""
    return _applying(weight_decay=hp.Float("weight_decay", 1e-5, 1e-1, sampling="log", default=1e-2))


def l2(hp: "HyperParameters") -> Fields:
    """None, or a power of ten from 1e-6 to 1e-2: squared kernels in the loss."""
    return _applying(l2=hp.Choice("l2", [0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]))


def l1(hp: "HyperParameters") -> Fields:
    """None, or a power of ten from 1e-7 to 1e-3: absolute kernels in the loss, which makes connections sparse."""
    return _applying(l1=hp.Choice("l1", [0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3]))


def label_smoothing(hp: "HyperParameters", *, usual: float = 0.0) -> Fields:
    """0 to 0.2."""
    return _applying(label_smoothing=hp.Float("label_smoothing", 0.0, 0.2, default=min(usual, 0.2)))


def kernel_initializer(hp: "HyperParameters") -> Fields:
    """He's or Glorot's scale of the first weights."""
    return _applying(kernel_initializer=hp.Choice("kernel_initializer", ["he_normal", "glorot_uniform"]))


def epochs(hp: "HyperParameters", *, usual: int = 20) -> Fields:
    """Half, once or twice the usual number; 20 with pre-trained weights."""
    numbers = [max(1, usual // 2), usual, 2 * usual]
    return _applying(epochs=hp.Choice("total_epochs", numbers, default=usual))


def augmentation(hp: "HyperParameters") -> Fields:
    """One of the named policies."""
    return _applying(augment=hp.Choice("augment", list(POLICIES), default="none"))


def freeze(hp: "HyperParameters", *, usual: str = "large") -> Fields:
    """The amount frozen, from large to none."""
    return _applying(freeze=hp.Choice("freeze", list(AMOUNTS), default=usual if usual in AMOUNTS else "large"))


def layer_decay(hp: "HyperParameters") -> Fields:
    """0.3 to 1: the ratio of the rates of neighbouring stages."""
    return _applying(layer_decay=hp.Float("layer_decay", 0.3, 1.0, default=1.0))


def image_size(hp: "HyperParameters", sizes: Sequence[int] = (96, 128, 160, 192, 224)) -> Fields:
    """One of `sizes` in pixels, the last one first."""
    return _applying(image_size=hp.Choice("image_size", list(sizes), default=sizes[-1]))


def backbone(hp: "HyperParameters", names: Sequence[str] = BACKBONES) -> Fields:
    """One of the networks `names`, the first one first."""
    return _applying(model=hp.Choice("model", list(names)))


def _applying(**fields: Any) -> Fields:
    """The fields that have a value: KerasTuner gives None under a condition that does not hold."""
    return {name: value for name, value in fields.items() if value is not None}


def _below_one(**distances: float | None) -> Fields:
    """Fields by their distance from 1."""
    return {name: 1 - distance for name, distance in distances.items() if distance is not None}
