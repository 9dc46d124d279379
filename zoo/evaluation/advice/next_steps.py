"""What to do next: the textbook's advice for a verdict, each step with the argument to change in this very run.

Against bias, then against variance, then data that differ (Ng 2018, "Machine Learning Yearning", chapter 42). Labels
that look wrong come behind more pictures, and last where there is bias alone: wrong labels make errors of train and dev
alike, but so does a network that has not fitted its pictures, which then doubts labels that are right.
"""

import numpy as np

from zoo.evaluation.advice.against_bias import against_bias
from zoo.evaluation.advice.against_variance import against_variance
from zoo.evaluation.advice.situation import Situation, Step
from zoo.evaluation.figures import wilson

SUSPECT = 0.05  # of the dev pictures, from which on labels are worth a look,
EXPLAINED = 0.5  # if they are this share of its errors as well
RARE = 0.5  # of the pictures that the median class has
FAR_BELOW = 0.2  # of recall, from which on a rare class is left behind


def next_steps(situation: Situation) -> list[Step]:
    """What to do, in order; only what applies to this run and can be done, each once."""
    s = situation
    steps: list[Step | None] = []
    if s.bias or s.guessing:
        steps += against_bias(s)
    if s.variance and not s.guessing:  # nothing is learned by heart that is guessed
        more, *regularisation = against_variance(s)
        steps += [more, _labels(s), *regularisation]  # errors on pictures that are new may be as sure as wrong labels
    if s.mismatch:
        steps += _against_mismatch()
    steps.append(_rare_class(s))
    if s.bias:
        steps.append(_labels(s))
    if not (s.bias or s.variance or s.mismatch or s.guessing):
        steps += _when_good(s)
    found: dict[str, Step] = {}
    for step in filter(None, steps):
        found.setdefault(step.title, step)
    return list(found.values())


def _labels(s: Situation) -> Step | None:
    """Of a model that is right more often than not, most of its errors being on labels that look wrong."""
    if s.dev is None or s.dev.accuracy < 0.5 or s.guessing:
        return None
    pictures, suspects = len(s.dev.paths), len(s.dev.label_errors())
    if suspects < max(SUSPECT * pictures, EXPLAINED * (1 - s.dev.accuracy) * pictures):
        return None
    if s.bias:
        why = (
            "Their labels may be wrong, which would raise the errors of train and dev; or right: a network that has "
            "not fitted its training pictures suspects such, too."
        )
    else:
        why = "Wrong labels can only be learned by heart: they widen the gap to dev, and no other network helps."
    found = f'run.evaluate("dev").label_errors() suspects {suspects} of {pictures}.'
    return Step("Look at the labels", {}, f"{found} {why}")


def _against_mismatch() -> list[Step]:
    return [
        Step(
            "Look at what sets dev apart",
            {},
            'Compare run.evaluate("dev").worst(20) with data.preview(): camera, light, distance, background.',
        ),
        Step(
            "Make the training pictures more like those of dev",
            {},
            "Collect some of their kind, or imitate what differs by augmentation. More pictures like the present ones "
            "will not help.",
        ),
    ]


def _rare_class(s: Situation) -> Step | None:
    """The class with the lowest recall of the rare ones, where it is shown to be far below the rest."""
    if s.dev is None or s.data is None:
        return None
    counts, table = s.counts, s.dev.per_class
    rare = np.array([counts[name] for name in table.index]) < RARE * np.median(list(counts.values()))
    table = table[rare & (table.support > 0)]
    if table.empty:
        return None
    name = str(table.recall.idxmin())
    recall, support = (float(table.loc[name, column]) for column in ("recall", "support"))
    if s.dev.accuracy - recall < FAR_BELOW or wilson(round(recall * support), support)[1] >= s.dev.accuracy:
        return None
    why = (
        f"{recall:.0%} of its {support:.0f} dev pictures are right, of all {s.dev.accuracy:.0%}. It has {counts[name]} "
        f"of {sum(counts.values())} training pictures."
    )
    changes = {}
    if s.recipe.sampling == "balanced":
        why += " It is drawn as often as the others already, so only more pictures of it will help."
    elif s.recipe.class_weights == "none":
        changes["class_weights"] = ("none", "balanced")
    else:  # both at once would favour it twice
        changes = {"sampling": (s.recipe.sampling, "balanced"), "class_weights": (s.recipe.class_weights, "none")}
    return Step(f"Help the rare class {name}", changes, why)


def _when_good(s: Situation) -> list[Step | None]:
    test = "zoo.evaluate(model, data.test)" if s.recipe is None else 'run.evaluate("test")'
    if s.tested:
        check = None
    elif s.data is not None and not len(s.data.test):
        check = Step(
            "Set test pictures apart", {}, "Dev chose the epoch, so only fresh pictures give an honest figure."
        )
    else:
        check = Step(
            "Evaluate on the test set, once", {}, f"{test}: dev chose the epoch, so only test gives an honest figure."
        )
    more = Step("More dev pictures", {}, f"About {s.enough} of them would tell a gap like this one from chance.")
    export = "zoo.export" if s.recipe is None else "run.export()"
    people = Step(
        "Compare with people",
        {},
        f"human_error=0 was taken: of the dev error of {s.dev_error:.1%} only what people do better can be won.",
    )
    return [
        more if s.enough else None,
        check,
        Step("Export it", {}, f"{export} writes a SavedModel that is proven to answer alike."),
        people if s.human_error == 0 and s.dev_error > 0 else None,
    ]
