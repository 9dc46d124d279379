"""What advice looks at, and the shape that it has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from zoo.evaluation.predictions import Evaluation
from zoo.models.catalog import CATALOG
from zoo.models.entries import ModelInfo

STEEP = 0.1  # of its value a loss loses over the last fifth of the epochs where it is clearly not at its end
FEW = 3  # epochs, below which a loss shows no course
WAITED = 3  # epochs without a better dev loss, the fewest after which early stopping ends a training
# settled in a model that is handed over
BUILT = (
    "model",
    "variant",
    "weights",
    "image_size",
    "head",
    "hidden_units",
    "dropout",
    "l1",
    "l2",
    "kernel_initializer",
)
AMOUNTS = ("none", "small", "medium", "large")


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        title: In a few words.
        changes: Argument of `zoo.fine_tune` to (from, to); empty where the step is no argument's.
        why: One or two sentences.
    """

    title: str
    changes: dict[str, tuple[Any, Any]]
    why: str


@dataclass(frozen=True)
class Situation:
    """What the advice looks at; None for what is not known, as of the history of anybody's `fit`.

    Attributes:
        bias, variance, mismatch: Which gaps are large.
        enough: Dev pictures that would tell a gap which is large by value, but may be chance; None where none is.
        guessing: Whether even the training pictures are little more than guessed.
        human_error, dev_error: Shares.
        history: Metric name to a value an epoch.
        best_epoch: From 1.
        recipe: Every choice of the training.
        data: Its pictures.
        dev: What the model says to those of dev.
        tested: Whether it has been evaluated on those of test.
    """

    bias: bool
    variance: bool
    mismatch: bool
    enough: int | None
    guessing: bool
    human_error: float
    dev_error: float
    history: Mapping[str, Sequence[float]]
    best_epoch: int
    recipe: Any = None
    data: Any = None
    dev: Evaluation | None = None
    tested: bool = False

    @property
    def own(self) -> bool:
        """Whether the model was handed over built."""
        return self.recipe is not None and self.recipe.head == "as given"

    def now(self, field: str) -> Any:
        """The value of an argument; None where it is unknown, or settled in a model that was handed over."""
        return None if self.recipe is None or (self.own and field in BUILT) else getattr(self.recipe, field)

    @property
    def frozen(self) -> str:
        """The amount that was frozen in the end."""
        freeze = "none" if self.recipe is None else self.recipe.freeze
        return freeze if isinstance(freeze, str) else freeze[-1]

    @property
    def pretrained(self) -> bool:
        return self.recipe is not None and (self.recipe.weights is not None or self.frozen != "none")

    @property
    def loss(self) -> np.ndarray:
        """Training loss an epoch, without penalties."""
        return np.asarray(self.history.get("cross_entropy", self.history.get("loss", ())), float)

    @property
    def ran(self) -> int:
        """Epochs."""
        return max(map(len, self.history.values()), default=0)

    @property
    def stopped(self) -> bool:
        """Whether early stopping ended it."""
        planned = self.now("epochs")
        return planned is not None and self.ran < planned and self.ran - self.best_epoch >= WAITED

    @property
    def steep(self) -> bool:
        """Whether the training was clearly not at its end: its loss still fell, or it had hardly begun."""
        if self.stopped or not len(self.loss):
            return False
        if self.ran < FEW:
            return self.best_epoch == self.ran
        part = max(1, self.ran // 5)
        return bool(self.loss[-1] < (1 - STEEP) * self.loss[-1 - part])

    @cached_property
    def counts(self) -> dict[str, int]:
        """Training pictures a class; empty where the pictures are not known."""
        return {} if self.data is None else self.data.train.counts

    @cached_property
    def side(self) -> float:
        """The median of the shorter sides of the pictures as they are, in pixels; 0 where they are not known."""
        return 0 if self.data is None else float(self.data.manifest.usable[["width", "height"]].min(axis=1).median())

    def network(self, row: ModelInfo) -> dict[str, tuple[Any, Any]]:
        """What changes with the network: its name, its weights where some are in use, the size it was made for."""
        recipe, here = self.recipe, CATALOG[self.recipe.model]
        changes: dict[str, tuple[Any, Any]] = {"model": (here.name, row.name)}
        if recipe.weights is not None:
            changes["weights"] = (recipe.weights, row.weights[0].name)
        common = recipe.image_size == (here.image_size, here.image_size)
        if common and row.image_size != here.image_size or min(recipe.image_size) < row.smallest_size:
            changes["image_size"] = (recipe.image_size, (row.image_size, row.image_size))
        return changes


def call(recipe, changes: Mapping[str, Any]) -> str:
    """The call that trains as `recipe` says but for some changes; "" where there are none.

    A model that was handed over has to be handed over again.

    Args:
        recipe: Of the run, which the call takes for `run`.
        changes: Argument of `zoo.fine_tune` to its new value.
    """
    if not changes:
        return ""
    own = recipe.head == "as given" and "model" not in changes
    model = "model" if own else repr(changes.get("model", recipe.model))
    given = ", ".join(f"{name}={value!r}" for name, value in changes.items() if name != "model")
    return f"zoo.fine_tune({model}, run.data, recipe=run.recipe{', ' if given else ''}{given})"
