"""What helps against overfitting: Ng 2018, "Machine Learning Yearning", chapter 27.

More data, regularisation, early stopping, and, last, a smaller network.
"""

import numpy as np

from zoo.evaluation.advice import neighbours
from zoo.evaluation.advice.against_bias import learned_weights
from zoo.evaluation.advice.situation import AMOUNTS, WAITED, Situation, Step
from zoo.models.catalog import CATALOG

LONG = 40  # epochs: from scratch, heavy augmentation hurt in 14 and helped in 60, see the README
POLICIES = ("none", "light", "medium", "heavy")


def against_variance(s: Situation) -> list[Step | None]:
    """In order; None for what does not apply. What would undo a step against bias is left out where both are."""
    return [
        _more_data(s),
        learned_weights(s),
        _stop_early(s),
        _augmentation(s),
        _dropout(s),
        _l2(s),
        _mixing(s),
        None if s.bias else _more_frozen(s),
        None if s.bias else _smaller(s),
    ]


def _more_data(s: Situation) -> Step:
    if s.data is None:
        return Step("More training pictures", {}, "Nothing closes the gap between train and dev as surely.")
    counts = s.counts
    mean, fewest = np.mean(list(counts.values())), min(counts, key=counts.__getitem__)
    why = f"There are {mean:.0f} a class, the fewest ({counts[fewest]}) of {fewest}."
    trained, held = len(s.data.train), len(s.data.dev) + len(s.data.test)
    if trained < held:
        share = trained / (trained + held)
        why += (
            f" Only {share:.0%} of the pictures are trained on: load_data(..., split=(0.7, 0.15, 0.15)) gives it more."
        )
    model = f'"{s.recipe.model}"' if s.now("model") else "model"
    return Step(
        "More training pictures", {}, f"{why} zoo.learning_curve({model}, data) says what more of them would bring."
    )


def _stop_early(s: Situation) -> Step | None:
    """For a `fit` of one's own: a training of ours stops by itself."""
    if s.recipe is not None or s.ran - s.best_epoch < WAITED:
        return None
    return Step(
        "Stop early",
        {},
        f"The best epoch was {s.best_epoch} of {s.ran}; callbacks.EarlyStopping ends on its weights.",
    )


def _augmentation(s: Situation) -> Step | None:
    title, why = "More augmentation", "Pictures that are changed in each epoch cannot be learned by heart."
    if s.recipe is None:
        return Step(title, {}, f"{why} augment.policy has named sets.")
    if s.recipe.augment not in POLICIES or s.frozen == "large":  # behind a frozen trunk it brought nothing: README
        return None
    level = POLICIES.index(s.recipe.augment)
    most = "heavy" if not s.pretrained and s.recipe.epochs >= LONG else "medium"
    if level >= POLICIES.index(most):
        return None
    to = POLICIES[max(level + 1, 2)] if most == "heavy" else POLICIES[level + 1]
    return Step(
        title,
        {"augment": (s.recipe.augment, to)},
        f"{why} It mirrors them, too: see with zoo preview that they keep their labels.{_was_stopped(s)}",
    )


def _dropout(s: Situation) -> Step | None:
    title, why = "More dropout", "It keeps units from relying on one another (Srivastava et al. 2014)."
    rate = s.now("dropout")
    if rate is None:
        return Step(title, {}, f"{why} Rates of 0.2 to 0.5 before the last layer are usual.")
    if rate >= 0.5:
        return None
    return Step(title, {"dropout": (rate, 0.5 if rate >= 0.2 else 0.2)}, why + _was_stopped(s))


def _l2(s: Situation) -> Step | None:
    """Where pre-trained weights move, towards them; else towards 0."""
    title, why = "Stronger L2 regularisation", "Small weights make smooth answers."
    if s.pretrained and s.frozen != "large" and s.recipe.weights is not None:
        name, first, most = "l2_sp", 0.01, 1.0
        why = "It holds the weights near the pre-trained ones, which know more pictures (Li et al. 2018)."
    else:
        name, first, most = "l2", 1e-4, 1e-2
    factor = s.now(name)
    if factor is None:
        return Step(title, {}, f"{why} kernel_regularizer=keras.regularizers.L2(1e-4) is a start.")
    if factor >= most:
        return None
    return Step(title, {name: (factor, float(f"{10 * factor:.3g}") if factor else first)}, why)


def _mixing(s: Situation) -> Step | None:
    if s.recipe is None or s.recipe.mixing != "none" or s.frozen == "large":
        return None
    return Step(
        "Mix pictures", {"mixing": ("none", "mixup")}, "Pictures between two classes smooth what lies between them."
    )


def _more_frozen(s: Situation) -> Step | None:
    if not s.pretrained or s.frozen == "large" or s.recipe.weights is None:
        return None
    more = AMOUNTS[AMOUNTS.index(s.frozen) + 1]
    return Step(
        "Freeze more", {"freeze": (s.recipe.freeze, more)}, "Fewer weights are left to learn pictures by heart."
    )


def _smaller(s: Situation) -> Step | None:
    if s.frozen == "large" or s.now("model") not in CATALOG:
        return None
    found = neighbours.smaller(s.recipe.model, min(s.recipe.image_size), s.pretrained)
    if found is None:
        return None
    return Step("A smaller network", s.network(found), "The last resort: it also takes away what the size is good for.")


def _was_stopped(s: Situation) -> str:
    return f" Early stopping has already ended the training at epoch {s.ran} of {s.now('epochs')}." if s.stopped else ""
