"""Every picture that explains a model or a run, as functions that return a `matplotlib.figure.Figure`.

The report draws with them, and they serve in notebooks. No global state of matplotlib is touched, so nothing has to be
closed. `svg` turns any of them into a part of a page.

Example:
    evaluation = run.evaluate("dev")
    zoo.plots.confusion(evaluation).savefig("confusion.png", dpi=200)
    page.write(zoo.plots.svg(zoo.plots.history(run), "Loss and accuracy from epoch to epoch"))
"""

from zoo.evaluation.plots.inline_svg import svg
from zoo.evaluation.plots.of_findings import diagnosis, importance, learning_curve
from zoo.evaluation.plots.of_gradients import gradients
from zoo.evaluation.plots.of_predictions import confusion, heat_maps, per_class, reliability, worst
from zoo.evaluation.plots.of_training import curves, history

__all__ = [
    "confusion",
    "curves",
    "diagnosis",
    "gradients",
    "heat_maps",
    "history",
    "importance",
    "learning_curve",
    "per_class",
    "reliability",
    "svg",
    "worst",
]
