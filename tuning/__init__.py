"""Searches over recipes and network shapes; the only room that knows Keras Tuner.

    import tuning, zoo

    result = tuning.search("mobilenet_v2", zoo.load_data("photos"), space="head", trials=20)
    print(result)
    result.best_run.export()

Importing this costs next to nothing: each name is fetched on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuning import plots, spaces
    from tuning.executor import WorkerPool
    from tuning.optimizers import OptimizerComparison, compare_optimizers
    from tuning.result import SearchResult, load_search
    from tuning.searching import search
    from tuning.stock import as_keras_tuner

_HOME = {
    "OptimizerComparison": "optimizers",
    "SearchResult": "result",
    "WorkerPool": "executor",
    "as_keras_tuner": "stock",
    "compare_optimizers": "optimizers",
    "load_search": "result",
    "search": "searching",
}

__all__ = [
    "OptimizerComparison",
    "SearchResult",
    "WorkerPool",
    "as_keras_tuner",
    "compare_optimizers",
    "load_search",
    "plots",
    "search",
    "spaces",
]


def __getattr__(name: str) -> Any:
    if name in ("plots", "spaces"):
        return importlib.import_module(f"tuning.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'tuning' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tuning.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
