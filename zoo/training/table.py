"""The one table behind each "auto" of a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from zoo.models.catalog import CATALOG
from zoo.training.recipe import AUTO, BETA2, DECAY_RATES, MOMENTUM, WEIGHT_DECAY, Recipe


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


def _with(usual: Mapping[str, float]) -> Callable[[Facts, Recipe], bool]:
    return lambda facts, recipe: recipe.optimizer in usual


def _usual(usual: Mapping[str, float]) -> Callable[[Facts, Recipe], float]:
    return lambda facts, recipe: usual[recipe.optimizer]


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
    ("variant", _own, {}, "a model handed over is built"),
    ("variant", _always, {}, "{model} as it is by default"),
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
    ("momentum", _with(MOMENTUM), _usual(MOMENTUM), "usual: the gradients of some ten steps count"),
    ("momentum", _always, 0.0, lambda f, r: f"{r.optimizer} has none"),
    ("beta2", lambda f, r: r.optimizer == "rmsprop", BETA2["rmsprop"], "as RMSprop was proposed (Hinton 2012)"),
    ("beta2", _with(BETA2), _usual(BETA2), "as Adam was proposed (Kingma and Ba 2015)"),
    ("beta2", _always, 0.0, lambda f, r: f"{r.optimizer} has none"),
    ("weight_decay", _with(WEIGHT_DECAY), _usual(WEIGHT_DECAY), "what sets adamw apart from adam"),
    ("weight_decay", _always, 0.0, lambda f, r: f"{r.optimizer} has none unless it is asked for"),
    ("layer_decay", _always, 1.0, "all stages train at one rate"),
    ("schedule", _always, "cosine", "ends on small steps"),
    ("decay_rate", lambda f, r: r.schedule == "inverse time", DECAY_RATES["inverse time"],
     "the textbook's example: half the rate in the first epoch, a third in the second (Ng 2017)"),
    ("decay_rate", lambda f, r: r.schedule == "exponential", DECAY_RATES["exponential"],
     "the textbook's example: halved every 14 epochs (Ng 2017)"),
    ("decay_rate", _always, 0.0, lambda f, r: f"a {r.schedule} schedule has none"),
    ("epochs", _pretrained, 20, "pre-trained networks settle early; the dev set watches"),
    ("epochs", lambda f, r: f.pictures < 5000, 60, "from scratch on {pictures} pictures; the dev set watches"),
    ("epochs", _always, 30, "from scratch on {pictures} pictures; the dev set watches"),
    ("batch_size", lambda f, r: f.pictures < 5000, 32, "many steps an epoch for {pictures} pictures"),
    ("batch_size", _always, 128, "{pictures} pictures give steps enough"),
    ("accumulation", _always, 1, "every step moves the weights"),
    ("label_smoothing", lambda f, r: _scratch(f, r) and f.classes >= 100, 0.1, "from scratch with {classes} classes"),
    ("label_smoothing", _always, 0.0, "probabilities keep their meaning"),
    ("sampling", _always, "as is", "each picture once an epoch"),
    ("class_weights", lambda f, r: r.sampling == "balanced", "none", "every class is drawn equally often"),
    ("class_weights", lambda f, r: f.unevenness > 1.5, "balanced", "largest class {unevenness:.1f} times the smallest"),
    ("class_weights", _always, "none", "largest class {unevenness:.1f} times the smallest: even enough"),
    ("head", _own, "as given", "a model handed over keeps its head"),
    ("head", _always, "linear", "one dense layer, the least that can overfit"),
    ("hidden_units", lambda f, r: r.head == "hidden", None, "as wide as the features, at most 512"),
    ("hidden_units", _own, None, "a model handed over keeps its head"),
    ("hidden_units", _always, None, lambda f, r: f"the head {r.head!r} has no hidden layer"),
    ("dropout", _own, 0.0, "a model handed over keeps its head"),
    ("dropout", _always, 0.2, "before the last layer, against overfitting"),
    ("l1", _always, 0.0, "no kernel need be sparse"),
    ("l2", _always, 0.0, "weight decay is the optimizer's"),
    ("l2_sp", _always, 0.0, "nothing pulls back to the pre-trained weights"),
    ("kernel_initializer", _own, "as given", "a model handed over has its weights"),
    ("kernel_initializer", _pretrained, "he_normal", "only the head is drawn"),
    ("kernel_initializer", _always, "he_normal", "made for ReLU (He et al. 2015)"),
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
