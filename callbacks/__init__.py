"""Things that watch a fit: for any Keras model in a plain `model.fit`, on every backend."""

from callbacks.average import ExponentialAverage
from callbacks.checkpoint import Checkpoint
from callbacks.decay import CosineDecay, ExponentialDecay, InverseTimeDecay, SqrtEpochDecay, SqrtStepDecay
from callbacks.early_stopping import EarlyStopping
from callbacks.frozen_guard import FrozenGuard
from callbacks.gradient_monitor import GradientMonitor
from callbacks.history_log import HistoryLog
from callbacks.one_cycle import OneCycle
from callbacks.plateau import PlateauDecay
from callbacks.pruning import Pruning
from callbacks.rate_finder import LearningRateFinder
from callbacks.tensorboard_log import TensorBoardLog
from callbacks.time_budget import TimeBudget
from callbacks.weight_average import WeightAverage

__all__ = [
    "Checkpoint",
    "CosineDecay",
    "EarlyStopping",
    "ExponentialAverage",
    "ExponentialDecay",
    "FrozenGuard",
    "GradientMonitor",
    "HistoryLog",
    "InverseTimeDecay",
    "LearningRateFinder",
    "OneCycle",
    "PlateauDecay",
    "Pruning",
    "SqrtEpochDecay",
    "SqrtStepDecay",
    "TensorBoardLog",
    "TimeBudget",
    "WeightAverage",
]
