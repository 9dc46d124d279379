"""What helps against underfitting: Ng 2018, "Machine Learning Yearning", chapter 25.

A larger network, longer training, less regularisation, another architecture; before them what the run itself shows, a
network that learns nothing, a loss that does not move or still falls.
"""

from typing import Any

import numpy as np

from zoo.evaluation.advice import neighbours
from zoo.evaluation.advice.situation import AMOUNTS, FEW, Situation, Step
from zoo.models.catalog import CATALOG

FLAT = 0.05  # of its value a loss has lost in all where the training got nowhere
DIVERGED = 1.5  # times its smallest value
LATE = 0.75  # of the epochs, behind which the best one says that there was more to come
USUAL_RATE = {"sgd": 1e-2, "momentum": 1e-2}  # Keras' defaults; 1e-3 for the other optimizers
LARGER = 1.25  # times the present side, below which larger pictures are not worth their time
PHOTO = 64  # pixels of a picture's shorter side, above which what ImageNet taught is of use


def against_bias(s: Situation) -> list[Step | None]:
    """In order; None for what does not apply. What would undo a step against variance is left out where both are."""
    return [
        _see_whether_it_learns(s),
        _other_rate(s),
        _longer(s) if s.steep and not s.guessing else None,
        _bigger(s),
        _longer(s),
        learned_weights(s),
        _less_frozen(s),
        None if s.variance else _less_regularised(s),
        _larger_pictures(s),
        _other_architecture(s),
    ]


def _see_whether_it_learns(s: Situation) -> Step | None:
    if not s.guessing:
        return None
    return Step(
        "See whether it can learn at all",
        {},
        "Even the training pictures are little more than guessed. data.preview() shows whether pictures and labels fit "
        "together, gradients.csv in the run's folder whether gradients arrive, zoo.check_gradients whether they are "
        "right.",
    )


def _other_rate(s: Situation) -> Step | None:
    """Lower where the loss diverged; where it never moved, towards the usual rate."""
    loss, rate = s.loss, s.now("learning_rate")
    finite = loss[np.isfinite(loss)]
    if not len(finite):
        return None
    smallest = finite.min()
    diverged = len(finite) < len(loss) or loss[-1] > DIVERGED * smallest
    if not diverged and (len(loss) < FEW or smallest < (1 - FLAT) * loss[0]):
        return None
    found = f"ended at {loss[-1]:.3g} after {smallest:.3g}" if diverged else f"hardly moved from {loss[0]:.3g}"
    why = f"The training loss {found}. callbacks.LearningRateFinder shows which rates work."
    if rate is None:
        return Step("A lower learning rate" if diverged else "Another learning rate", {}, why)
    up = not diverged and rate < USUAL_RATE.get(s.recipe.optimizer, 1e-3)
    to = float(f"{rate * (10 if up else 0.1):.3g}")
    return Step(f"A {'higher' if up else 'lower'} learning rate", {"learning_rate": (rate, to)}, why)


def _longer(s: Situation) -> Step | None:
    improving = s.best_epoch > LATE * s.ran and s.recipe is not None
    if s.stopped or not (s.steep or improving):
        return None
    planned = s.now("epochs") or s.ran
    why = "It went on getting better" if s.ran < FEW or not s.steep else "The training loss still fell steeply"
    return Step(
        "Train longer", {"epochs": (planned, 2 * planned)}, f"{why}: the best epoch was {s.best_epoch} of {s.ran}."
    )


def _bigger(s: Situation) -> Step | None:
    title, why = "A bigger network", "What cannot fit its training pictures is too small, first of all."
    if s.now("model") not in CATALOG:
        return Step(title, {}, f"{why} Widen its layers, or add some, till it fits them.")
    found = neighbours.larger(s.recipe.model, min(s.recipe.image_size), s.pretrained)
    if found is None:
        return None
    times = found.parameters / CATALOG[s.recipe.model].parameters
    return Step(title, s.network(found), f"{why} {found.name} has {times:.2g} times the parameters.")


def learned_weights(s: Situation) -> Step | None:
    """From scratch to published weights: the model's own, or those of the usual small network for photos."""
    name = s.now("model")
    if s.pretrained or name not in CATALOG or s.side <= PHOTO:
        return None
    row = CATALOG[name] if CATALOG[name].weights else CATALOG["mobilenet_v2"]
    changes = {} if row.name == name else s.network(row)
    return Step(
        "Start from learned weights",
        {**changes, "weights": (None, row.weights[0].name), "freeze": (s.recipe.freeze, "auto")},
        "What ImageNet taught, edges, colours and textures, need not be learned from these pictures again.",
    )


def _less_frozen(s: Situation) -> Step | None:
    if not s.pretrained or s.frozen == "none":
        return None
    return Step(
        "Freeze less",
        {"freeze": (s.recipe.freeze, AMOUNTS[AMOUNTS.index(s.frozen) - 1])},
        f'With a "{s.frozen}" amount frozen only what stands behind it can adapt to these pictures.',
    )


def _less_regularised(s: Situation) -> Step | None:
    title = "Less regularisation"
    if s.recipe is None:
        return Step(
            title, {}, "Dropout, weight decay, label smoothing and strong augmentation all keep it from fitting."
        )
    to: dict[str, Any] = {"mixing": "none", "label_smoothing": 0.0, "l2_sp": 0.0, "l2": 0.0, "l1": 0.0}
    to["dropout"] = 0.2 if (s.now("dropout") or 0) > 0.2 else 0.0
    to["augment"] = {"trivial": "light", "heavy": "medium", "medium": "light"}.get(s.recipe.augment, "none")
    changes = {name: (s.now(name), value) for name, value in to.items() if s.now(name) not in (None, "auto", value)}
    if not changes:
        return None
    return Step(title, changes, "It keeps the network from fitting the training pictures, which is not yet the danger.")


def _larger_pictures(s: Situation) -> Step | None:
    size = s.now("image_size")
    if size is None or s.data is None:
        return None
    unit = 32 if min(size) > 64 else 8  # so that halving the picture stage after stage stays even
    factor = min(2, s.side / min(size))
    larger = tuple(int(factor * length // unit * unit) for length in size)
    if min(larger) < LARGER * min(size):
        return None
    return Step(
        "Larger pictures",
        {"image_size": (size, larger)},
        f"The pictures' shorter side is {s.side:.0f} pixels in the median; the network sees {min(size)} of them.",
    )


def _other_architecture(s: Situation) -> Step | None:
    title = "Another architecture"
    if s.now("model") not in CATALOG:
        return Step(
            title, {}, "Another kind of network may fit what more of the same does not; zoo.list_models() has some."
        )
    found = neighbours.other(s.recipe.model, min(s.recipe.image_size), s.pretrained)
    if found is None:
        return None
    times = found.parameters / CATALOG[s.recipe.model].parameters
    return Step(title, s.network(found), f"{found.name} is built otherwise, with {times:.2g} times the parameters.")
