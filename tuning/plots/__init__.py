"""Every picture of a search, as functions that return a `matplotlib.figure.Figure`, in the look of `zoo.plots`.

Example:
    tuning.plots.progress(result).savefig("progress.png", dpi=200)
    page.write(zoo.plots.svg(tuning.plots.parallel(result), "Which values go together with which score"))
"""

from tuning.plots.of_hyperparameters import hyperparameters, importance
from tuning.plots.of_parallel import parallel
from tuning.plots.of_trials import curves, progress

__all__ = ["curves", "hyperparameters", "importance", "parallel", "progress"]
