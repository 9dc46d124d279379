"""Stopping when the dev set no longer gets better, always on the best weights."""

import math

import keras

from callbacks.syncing import synchronize

RISING = ("accuracy", "acc", "auc", "precision", "recall", "f1", "iou", "r2")
FALLING = ("loss", "error", "entropy", "divergence")


class EarlyStopping(keras.callbacks.Callback):
    """Stops when a metric has not improved for a while, and ends on the best epoch's weights whether it stopped or not.

    A value that is not finite is never a best. Prechelt 1998, "Early Stopping - But When?"

    Args:
        monitor: Name of a metric in the logs.
        direction: "max", "min", or None to read it from the metric's name.
        patience: Epochs without improvement before training stops.
        min_delta: Smallest change that counts as an improvement.

    Attributes:
        best: Best value, or None where none was finite.
        best_epoch: Its epoch, from 0, or None.
        stopped_epoch: Epoch, from 0, after which training was stopped, or None.

    Raises:
        ValueError: If an argument is out of range, the name tells no direction, or the logs hold no such metric.
    """

    def __init__(self, monitor="val_loss", direction=None, patience=5, min_delta=0.0):
        super().__init__()
        if patience < 1:
            raise ValueError(f"`patience` must be at least 1. Received: patience={patience}")
        if min_delta < 0:
            raise ValueError(f"`min_delta` must not be negative. Received: min_delta={min_delta}")
        self.monitor = monitor
        self.direction = direction or _direction(monitor)
        if self.direction not in ("max", "min"):
            raise ValueError(f'`direction` must be "max", "min" or None. Received: direction={direction!r}')
        self.patience = patience
        self.min_delta = min_delta
        self._reset()

    def on_train_begin(self, logs=None):
        self._reset()

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(f"The logs hold no metric '{self.monitor}'. They hold: {', '.join(sorted(logs))}")
        value = float(logs[self.monitor])
        if self.improves(value):
            self.best, self.best_epoch, self.waited = value, epoch, 0
            synchronize(self.model)
            self.best_weights = self.model.get_weights()
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)
            self.best_weights = None  # a copy of the whole network is worth giving back

    def improves(self, value):
        """Whether a value is a new best."""
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        gain = value - self.best if self.direction == "max" else self.best - value
        return gain > self.min_delta

    def _reset(self):
        self.best = self.best_epoch = self.stopped_epoch = self.best_weights = None
        self.waited = 0


def _direction(monitor):
    """Whether a metric is meant to rise or to fall, by its name."""
    words = monitor.lower().split("_")
    if any(word in FALLING for word in words):
        return "min"
    if any(word in RISING for word in words):
        return "max"
    raise ValueError(
        f'The name \'{monitor}\' does not tell whether more is better. Say direction="max" or direction="min".'
    )
