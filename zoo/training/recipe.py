"""Recipe: every choice of a training, and the one table behind each "auto"."""

import difflib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import augment
from zoo.models.catalog import CATALOG

AUTO = "auto"
BEFORE = {"sampling": "as is"}  # what was done before a recipe had these fields; files of that time lack them
MIXING = ("none", "mixup", "cutmix")
OPTIMIZERS = ("adamw", "adam", "sgd", "momentum", "rmsprop", "adagrad")
AMOUNTS = ("none", "small", "medium", "large")
CHOICES = {
    "augment": augment.POLICIES,
    "mixing": MIXING,
    "optimizer": OPTIMIZERS,
    "schedule": ("cosine", "constant"),
    "sampling": ("as is", "balanced"),
    "head": ("linear", "hidden", "average+max", "as given"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16", "float64", "as given"),
}
RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "views": ("a whole number of at least 0", lambda value: isinstance(value, int) and value >= 0),
    "learning_rate": ("a number above 0", lambda value: _number(value) and value > 0),
    "epochs": ("a whole number of at least 1", lambda value: isinstance(value, int) and value >= 1),
    "batch_size": ("a whole number of at least 1", lambda value: isinstance(value, int) and value >= 1),
    "label_smoothing": ("a number in [0, 1)", lambda value: _number(value) and 0 <= value < 1),
    "dropout": ("a number in [0, 1)", lambda value: _number(value) and 0 <= value < 1),
    "l2": ("a number of at least 0", lambda value: _number(value) and value >= 0),
    "l2_sp": ("a number of at least 0", lambda value: _number(value) and value >= 0),
    "layer_decay": ("a number above 0 and at most 1", lambda value: _number(value) and 0 < value <= 1),
    "seed": ("a whole number of at least 0", lambda value: isinstance(value, int) and value >= 0),
}


@dataclass(frozen=True)
class Recipe:
    """Everything that was chosen for a training, by hand or by `TABLE`.

    Every field may be "auto"; a recipe that came out of `fine_tune` holds no "auto" any more, and does the
    same again when it is handed back.

    Args:
        model: Name of the network.
        weights: Weight tag, "imagenet", a file, or None for none.
        image_size: (height, width) in pixels, or one number for both.
        freeze: Amount that is held still: "none", "small", "medium" or "large"; or several, each smaller than the one
            before, for phases of equal length (gradual unfreezing, Howard and Ruder 2018).
        augment: Name of an augmentation policy.
        mixing: "mixup" or "cutmix" mixes the pictures of a batch and their labels; "none". Off while the outputs of
            the frozen part are kept.
        views: Augmented versions of each picture that are kept where the frozen part is computed once; epoch e trains
            on version e modulo `views`. 0 for none: each epoch is augmented anew.
        optimizer: One of `OPTIMIZERS`.
        learning_rate: Rate of the head or, from scratch, of everything; a whole pre-trained network gets a tenth.
        layer_decay: Ratio of the rates of neighbouring stages, the head's being the largest; 1 for one rate (Clark et
            al. 2020).
        schedule: "cosine" or "constant".
        epochs: Total over all phases.
        batch_size: Pictures a step.
        label_smoothing: Share of the target spread over all classes (Szegedy et al. 2016).
        sampling: "balanced" draws every class equally often, rare ones repeatedly; "as is" each picture once an epoch.
        class_weights: "balanced" weighs each class in the loss by the inverse of its share; "none"; or a mapping of
            class names to weights above 0, where classes left out weigh 1.
        head: What stands behind the last map: "linear", "hidden" or "average+max"; see `zoo.create`.
        dropout: Rate before each dense layer of the head.
        l2: Factor of the squared kernels in the loss.
        l2_sp: Half the factor of the squared distance from the pre-trained weights in the loss (Li et al. 2018).
        precision: Keras dtype policy.
        seed: Decides initial weights, dropout and the order of pictures.
        reasons: Why each field is what it is.

    Raises:
        ValueError: If a field is out of range.
    """

    model: str = AUTO
    weights: str | None = AUTO
    image_size: tuple[int, int] | int | str = AUTO
    freeze: str | tuple[str, ...] = AUTO
    augment: str = AUTO
    mixing: str = AUTO
    views: int | str = AUTO
    optimizer: str = AUTO
    learning_rate: float | str = AUTO
    layer_decay: float | str = AUTO
    schedule: str = AUTO
    epochs: int | str = AUTO
    batch_size: int | str = AUTO
    label_smoothing: float | str = AUTO
    sampling: str = AUTO
    class_weights: str | Mapping[str, float] = AUTO
    head: str = AUTO
    dropout: float | str = AUTO
    l2: float | str = AUTO
    l2_sp: float | str = AUTO
    precision: str = AUTO
    seed: int | str = AUTO
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        for item in fields(self):
            object.__setattr__(self, item.name, _plain(getattr(self, item.name)))
        if self.weights == "none":
            object.__setattr__(self, "weights", None)
        _check_freeze(self.freeze, self.epochs)
        _check_weights(self.class_weights)
        for name, options in CHOICES.items():
            value = getattr(self, name)
            if value != AUTO and value not in options:
                raise ValueError(f"`{name}` must be one of {', '.join(options)}, or auto. Received: {name}={value!r}")
        for name, (wanted, fits) in RANGES.items():
            value = getattr(self, name)
            if value != AUTO and (isinstance(value, bool) or not fits(value)):
                raise ValueError(f"`{name}` must be {wanted}, or auto. Received: {name}={value!r}")
        sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)
        if self.image_size != AUTO and not (len(sides) <= 2 and all(isinstance(n, int) and n > 0 for n in sides)):
            raise ValueError(
                "`image_size` must be a positive whole number, (height, width), or auto. "
                f"Received: image_size={self.image_size!r}"
            )

    def with_fields(self, given: Mapping[str, Any]) -> "Recipe":
        """A copy with some fields set by hand.

        Raises:
            TypeError: If there is no such field; the message names the nearest.
        """
        known = [item.name for item in fields(self) if item.name != "reasons"]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(known)}."
                raise TypeError(f"A recipe has no field `{name}`. {hint}")
        reasons = {name: reason for name, reason in self.reasons.items() if name not in given}
        return replace(self, **given, reasons=reasons)

    def to_dict(self) -> dict:
        """Plain values, with the reasons under "reasons"."""
        return {**asdict(self), "reasons": dict(self.reasons)}

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Recipe":
        """A recipe from a run's `recipe.json`.

        Raises:
            ValueError: If the file holds something else.
        """
        try:
            return cls(**{**BEFORE, **json.loads(Path(path).read_text(encoding="utf-8"))})
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} holds no recipe: {error}") from None

    def __str__(self):
        names = [item.name for item in fields(self) if item.name != "reasons"]
        rows = [(name, _show(getattr(self, name)), self.reasons.get(name, "")) for name in names]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(
            f"{name:<{widths[0]}}  {value:<{widths[1]}}  {reason}".rstrip() for name, value, reason in rows
        )


@dataclass(frozen=True)
class Facts:
    """What the table looks at.

    Args:
        pictures: Training pictures.
        classes: Number of classes.
        per_class: Training pictures a class, on average.
        unevenness: Training pictures of the largest class by those of the smallest.
        side: Median shorter side of the pictures, in pixels.
        image_size: The user's wish, or None.
        precision: What suits the device, and why.
        own_model: The model was handed over built.
    """

    pictures: int
    classes: int
    per_class: float
    unevenness: float
    side: int
    image_size: tuple[int, int] | None
    precision: tuple[str, str]
    own_model: bool = False


def _always(facts: Facts, recipe: Recipe) -> bool:
    return True


def _pretrained(facts: Facts, recipe: Recipe) -> bool:
    return recipe.weights is not None


def _tagged(facts: Facts, recipe: Recipe) -> bool:
    return recipe.model in CATALOG and bool(CATALOG[recipe.model].weights)


def _own(facts: Facts, recipe: Recipe) -> bool:
    return facts.own_model


def _scratch(facts: Facts, recipe: Recipe) -> bool:
    return recipe.weights is None


@dataclass(frozen=True)
class Rule:
    """One line of the table: where `when` holds, `field` becomes `value`, because of `why`.

    `value` and `why` may be functions of (facts, recipe so far); `why` may name facts in braces.
    """

    field: str
    when: Callable[[Facts, Recipe], bool]
    value: Any
    why: Any


# The first rule of a field whose condition holds decides. Fields are settled from top to bottom, so a rule may look at
# the fields above its own.
# fmt: off
TABLE = tuple(Rule(*row) for row in (
    ("model", lambda f, r: f.side <= 64, "resnet20", "pictures of {side} px need no larger network"),
    ("model", _always, "mobilenet_v2", "small, quick and pre-trained"),
    ("weights", _tagged, lambda f, r: CATALOG[r.model].weights[0].name, "the best public weights of {model}"),
    ("weights", _always, None, "{model} has no public weights here: from scratch"),
    ("image_size", lambda f, r: f.image_size is not None, lambda f, r: f.image_size, "asked for with the data"),
    ("image_size", _always, lambda f, r: CATALOG[r.model].image_size, "what {model} was made for"),
    ("freeze", _scratch, "none", "there are no learned weights to keep"),
    ("freeze", lambda f, r: f.per_class < 200, "large", "{per_class:.0f} training pictures a class, fewer than 200"),
    ("freeze", lambda f, r: f.per_class < 1000, "medium", "{per_class:.0f} training pictures a class, 200 to 1,000"),
    ("freeze", _always, "small", "{per_class:.0f} training pictures a class, 1,000 or more"),
    ("augment", _always, "none", "off unless it is asked for"),
    ("mixing", _always, "none", "off unless it is asked for"),
    ("views", lambda f, r: r.augment == "none", 0, "nothing is augmented"),
    ("views", lambda f, r: r.freeze == "none" and _scratch(f, r), 0, "nothing is frozen, so no view is kept"),
    ("optimizer", _always, "adamw", "does well untuned (Loshchilov and Hutter 2019)"),
    ("learning_rate", _always, 1e-3, "the usual rate of Adam; below the head, pre-trained weights get a tenth"),
    ("layer_decay", _always, 1.0, "all stages train at one rate"),
    ("schedule", _always, "cosine", "ends on small steps"),
    ("epochs", _pretrained, 20, "pre-trained networks settle early; the dev set watches"),
    ("epochs", lambda f, r: f.pictures < 5000, 60, "from scratch on {pictures} pictures; the dev set watches"),
    ("epochs", _always, 30, "from scratch on {pictures} pictures; the dev set watches"),
    ("batch_size", lambda f, r: f.pictures < 5000, 32, "many steps an epoch for {pictures} pictures"),
    ("batch_size", _always, 128, "{pictures} pictures give steps enough"),
    ("label_smoothing", lambda f, r: _scratch(f, r) and f.classes >= 100, 0.1, "from scratch with {classes} classes"),
    ("label_smoothing", _always, 0.0, "probabilities keep their meaning"),
    ("sampling", _always, "as is", "each picture once an epoch"),
    ("class_weights", lambda f, r: r.sampling == "balanced", "none", "every class is drawn equally often"),
    ("class_weights", lambda f, r: f.unevenness > 1.5, "balanced", "largest class {unevenness:.1f} times the smallest"),
    ("class_weights", _always, "none", "largest class {unevenness:.1f} times the smallest: even enough"),
    ("head", _own, "as given", "a model handed over keeps its head"),
    ("head", _always, "linear", "one dense layer, the least that can overfit"),
    ("dropout", _own, 0.0, "a model handed over keeps its head"),
    ("dropout", _always, 0.2, "before the last layer, against overfitting"),
    ("l2", _always, 0.0, "weight decay is the optimizer's"),
    ("l2_sp", _always, 0.0, "nothing pulls back to the pre-trained weights"),
    ("precision", _own, "as given", "a model handed over keeps its precision"),
    ("precision", _always, lambda f, r: f.precision[0], lambda f, r: f.precision[1]),
    ("seed", _always, 0, "fixed, so that the run can be made again"),
))
# fmt: on


def resolve(recipe: Recipe, facts: Facts) -> Recipe:
    """Replaces every "auto" by the table's value, and notes the reason for each field.

    Where the table says nothing, as about the `views` of a network that is partly frozen, "auto" stays.
    """
    chosen = {item.name: getattr(recipe, item.name) for item in fields(recipe) if item.name != "reasons"}
    reasons = {name: recipe.reasons.get(name, "given") for name, value in chosen.items() if value != AUTO}
    for rule in TABLE:
        if getattr(recipe, rule.field) == AUTO and rule.when(facts, recipe):
            value = rule.value(facts, recipe) if callable(rule.value) else rule.value
            why = rule.why(facts, recipe) if callable(rule.why) else rule.why
            reasons[rule.field] = str(why).format(model=recipe.model, **asdict(facts))
            recipe = replace(recipe, **{rule.field: value})
    if recipe.sampling == recipe.class_weights == "balanced":
        reasons["class_weights"] += "; rare classes, drawn more often already, are favoured twice"
    size = recipe.image_size
    recipe = replace(recipe, image_size=(size, size) if isinstance(size, int) else size)
    return replace(recipe, reasons={name: reasons[name] for name in chosen if name in reasons})


def _check_freeze(freeze, epochs):
    """Refuses what is neither an amount nor several in falling order, of which each finds an epoch."""
    amounts = freeze if isinstance(freeze, tuple) else (freeze,)
    known = [amount for amount in amounts if amount in AMOUNTS]
    sizes = [AMOUNTS.index(amount) for amount in known]
    if freeze != AUTO and (not amounts or len(known) < len(amounts) or sizes != sorted(set(sizes), reverse=True)):
        raise ValueError(
            f"`freeze` must be one of {', '.join(AMOUNTS)}, several of them with each smaller than the one before, or "
            f"auto. Received: freeze={freeze!r}"
        )
    if isinstance(freeze, tuple) and isinstance(epochs, int) and epochs < len(freeze):
        raise ValueError(f"`freeze` names {len(freeze)} phases, and each needs an epoch. Received: epochs={epochs}")


def _check_weights(weights):
    """Refuses what is neither a word nor a weight above 0 for each class that is named."""
    if isinstance(weights, Mapping):
        fits = bool(weights) and all(
            isinstance(name, str) and _number(weight) and not isinstance(weight, bool) and weight > 0
            for name, weight in weights.items()
        )
    else:
        fits = weights in (AUTO, "none", "balanced")
    if not fits:
        raise ValueError(
            "`class_weights` must be none, balanced, a mapping of class names to numbers above 0, or auto. "
            f"Received: class_weights={weights!r}"
        )


def _number(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _plain(value):
    """Numbers of numpy as numbers, paths as text, lists as tuples: what a JSON file gives back unchanged."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value.item() if hasattr(value, "item") else value


def _show(value) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {weight:g}" for name, weight in value.items())
    if not isinstance(value, tuple):
        return str(value)
    return ("x" if isinstance(value[0], int) else ", ").join(map(str, value))
