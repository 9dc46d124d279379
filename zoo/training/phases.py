"""The parts of a training: what is held still in each, for how long, and at which rate."""

from dataclasses import dataclass

from zoo.training.recipe import Recipe

HEAD_SHARE = 0.25  # of the epochs, for the head alone, before pre-trained weights move
BODY_RATE = 0.1  # of the learning rate, once they do


@dataclass(frozen=True)
class Phase:
    """A part of a training: what is held still, for which epochs (from 0, end excluded), at which rate."""

    freeze: str
    first: int
    last: int
    rate: float

    @property
    def length(self) -> int:
        """Epochs."""
        return self.last - self.first


def phases(recipe: Recipe) -> list[Phase]:
    """The phases of a resolved recipe.

    One amount frozen: the head first where pre-trained weights are to move, for a quarter of the epochs, then the rest
    at a tenth of the rate. Several, as in `freeze=("large", "medium", "small")`: an equal share of the epochs each,
    which is gradual unfreezing (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146); the head alone has the full
    rate, the first phase that moves more a tenth, and each further one half of that before it.
    """
    epochs, rate = recipe.epochs, recipe.learning_rate
    if not isinstance(epochs, int) or not isinstance(rate, float | int):
        raise ValueError("Phases are known once every field of the recipe is.")
    if isinstance(recipe.freeze, tuple):
        amounts = recipe.freeze
        ends = [round(epochs * (i + 1) / len(amounts)) for i in range(len(amounts))]
        heads = amounts.count("large")
        rates = [rate if i < heads else BODY_RATE * rate / 2 ** (i - heads) for i in range(len(amounts))]
        return [Phase(*part) for part in zip(amounts, [0, *ends], ends, rates, strict=False)]
    if recipe.weights is None or recipe.freeze == "large" or epochs == 1:
        return [Phase(recipe.freeze, 0, epochs, rate)]
    head = max(1, round(HEAD_SHARE * epochs))
    return [Phase("large", 0, head, rate), Phase(recipe.freeze, head, epochs, BODY_RATE * rate)]
