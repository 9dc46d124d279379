"""Menagerie: a model zoo and fine-tuning workbench for image classification.

    import zoo

    data = zoo.load_data("photos")
    run = zoo.fine_tune("mobilenet_v2", data)
    print(run.evaluate("test"))
    run.export()

Importing this costs next to nothing: each name is fetched on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.data.collection import Data
    from zoo.data.load import load_data
    from zoo.data.manifest import Manifest
    from zoo.data.scan import scan
    from zoo.data.split import Split
    from zoo.evaluation import plots
    from zoo.evaluation.comparison import Comparison
    from zoo.evaluation.diagnosis import Diagnosis, diagnose
    from zoo.evaluation.explain import explain
    from zoo.evaluation.gradients import GradientCheck, check_gradients
    from zoo.evaluation.importance import LayerImportance, layer_importance
    from zoo.evaluation.predictions import Evaluation, evaluate
    from zoo.export.saved_model import export, load_export
    from zoo.models.catalog import ModelInfo, info, list_models
    from zoo.models.registry import create
    from zoo.models.stages import taps
    from zoo.training.fine_tune import fine_tune
    from zoo.training.learning_curve import LearningCurve, learning_curve
    from zoo.training.recipe import Recipe
    from zoo.training.run import Run, load_run
    from zoo.transfer.cutting import split_frozen
    from zoo.transfer.features import Features, cache_features
    from zoo.transfer.freezing import TrainableTable, freeze, unfreeze

_HOME = {
    "Comparison": "evaluation.comparison",
    "Data": "data.collection",
    "Diagnosis": "evaluation.diagnosis",
    "Evaluation": "evaluation.predictions",
    "Features": "transfer.features",
    "GradientCheck": "evaluation.gradients",
    "LayerImportance": "evaluation.importance",
    "LearningCurve": "training.learning_curve",
    "Manifest": "data.manifest",
    "ModelInfo": "models.catalog",
    "Recipe": "training.recipe",
    "Run": "training.run",
    "Split": "data.split",
    "TrainableTable": "transfer.freezing",
    "cache_features": "transfer.features",
    "check_gradients": "evaluation.gradients",
    "create": "models.registry",
    "diagnose": "evaluation.diagnosis",
    "evaluate": "evaluation.predictions",
    "explain": "evaluation.explain",
    "fine_tune": "training.fine_tune",
    "freeze": "transfer.freezing",
    "info": "models.catalog",
    "layer_importance": "evaluation.importance",
    "learning_curve": "training.learning_curve",
    "list_models": "models.catalog",
    "load_data": "data.load",
    "load_export": "export.saved_model",
    "load_run": "training.run",
    "scan": "data.scan",
    "split_frozen": "transfer.cutting",
    "taps": "models.stages",
    "unfreeze": "transfer.freezing",
}

__all__ = [
    "Comparison",
    "Data",
    "Diagnosis",
    "Evaluation",
    "Features",
    "GradientCheck",
    "LayerImportance",
    "LearningCurve",
    "Manifest",
    "ModelInfo",
    "Recipe",
    "Run",
    "Split",
    "TrainableTable",
    "cache_features",
    "check_gradients",
    "create",
    "diagnose",
    "evaluate",
    "explain",
    "export",
    "fine_tune",
    "freeze",
    "info",
    "layer_importance",
    "learning_curve",
    "list_models",
    "load_data",
    "load_export",
    "load_run",
    "plots",
    "scan",
    "split_frozen",
    "taps",
    "unfreeze",
]


def __getattr__(name: str) -> Any:
    if name == "export":
        return importlib.import_module("zoo.export")
    if name == "plots":
        return importlib.import_module("zoo.evaluation.plots")
    if name not in _HOME:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"zoo.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
