"""Things that watch a fit: for any Keras model in a plain `model.fit`, on every backend."""

from callbacks.decay import CosineDecay
from callbacks.early_stopping import EarlyStopping
from callbacks.frozen_guard import FrozenGuard
from callbacks.time_budget import TimeBudget

__all__ = ["CosineDecay", "EarlyStopping", "FrozenGuard", "TimeBudget"]
