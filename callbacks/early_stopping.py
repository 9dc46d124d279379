"""Stopping when the dev set no longer gets better, always on the best weights."""

import numpy as np

from callbacks import checking
from callbacks.average import ExponentialAverage
from callbacks.monitoring import checked_direction, direction_of, improves, value_of
from callbacks.packing import finite
from callbacks.stateful import Stateful
from callbacks.syncing import synchronize


class EarlyStopping(Stateful):
    """Stops when a metric has not improved for a while, and ends on the best epoch's weights whether it stopped or not.

    A value that is not finite is never a best, counts as an epoch without improvement, and is left out of smoothing;
    nor is an epoch a best that leaves weights which are not finite. Where there is no best, the model keeps its last
    weights. Meant are the weights of the fitted model, statistics of batch normalisation included.

    Prechelt 1998, "Early Stopping - But When?", https://doi.org/10.1007/3-540-49430-8_3

    Args:
        monitor: Name of a metric in the logs.
        direction: "max", "min", or None to ask the compiled metric of that name, then the name itself.
        patience: Epochs without improvement before training stops; 0 and 1 both stop at the first one.
        min_delta: Smallest change that counts as an improvement.
        start_from_epoch: Epoch, from 0 as in `fit`, before which nothing is waited for. Earlier epochs count as best
            only where no later one had a finite value, so that a fit which ends before it still ends on its best.
        smoothing: Beta, in [0, 1), of the bias-corrected exponential average that is compared in place of the value
            itself; 0 compares the value. A noisy metric wants some: 0.5 averages about two epochs.

    Attributes:
        best: Best value, smoothed where there is smoothing, or None where none was finite.
        best_epoch: Its epoch, from 0, or None.
        stopped_epoch: Epoch, from 0, after which training was stopped, or None.
        reason: After the fit, a sentence that says which weights the model has, and why; epochs in it count from 1.

    Raises:
        TypeError: If an argument that should be a number is none, or `monitor` is no name.
        ValueError: If an argument is out of range, nothing tells the direction, or the logs hold no such metric; the
            latter two when `fit` begins and at the end of its first epoch.

    Example:
        >>> stopper = EarlyStopping("val_accuracy", patience=3)  # model.fit(..., callbacks=[stopper])
    """

    def __init__(
        self, monitor="val_loss", direction=None, patience=5, min_delta=0.0, *, start_from_epoch=0, smoothing=0.0
    ):
        super().__init__()
        checking.metric("monitor", monitor)
        checking.whole("patience", patience)
        checking.not_negative("min_delta", min_delta)
        checking.whole("start_from_epoch", start_from_epoch)
        checking.beta("smoothing", smoothing)
        self.monitor = monitor
        self.direction = None if direction is None else checked_direction(direction)
        self.patience = patience
        self.min_delta = min_delta
        self.start_from_epoch = start_from_epoch
        self.smoothing = smoothing
        self._reset()

    def on_train_begin(self, logs=None):
        self._reset()
        self._toward = direction_of(self.monitor, self.direction, self.model)

    def on_epoch_end(self, epoch, logs=None):
        if self.stopped_epoch is not None:  # of a run that was resumed after it had stopped
            self.model.stop_training = True
            return
        self._last_epoch = epoch
        value = value_of(self.monitor, logs)
        if np.isfinite(value):
            value = self._average.update(value)
        provisional = self.best_epoch is not None and self.best_epoch < self.start_from_epoch <= epoch
        if improves(value, None if provisional else self.best, self._toward, self.min_delta):
            synchronize(self.model)
            weights = [np.array(weight) for weight in self.model.get_weights()]
            if finite(weights):  # an accuracy goes on being finite when they are not
                self.best, self.best_epoch, self._waited, self._best_weights = value, epoch, 0, weights
                return
        if epoch < self.start_from_epoch:
            return
        self._waited += 1
        if self._waited >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.reason = self._sentence()
        if self._best_weights is not None:
            self.model.set_weights(self._best_weights)
            self._best_weights = None  # a copy of the whole network is worth giving back

    def get_state(self):
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_weights": self._best_weights,
            "stopped_epoch": self.stopped_epoch,
            "last_epoch": self._last_epoch,
            "waited": self._waited,
            "average": self._average.get_state(),
        }

    def set_state(self, state):
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._best_weights = state["best_weights"]
        self.stopped_epoch = state["stopped_epoch"]
        self._last_epoch = state["last_epoch"]
        self._waited = state["waited"]
        self._average.set_state(state["average"])
        if self.stopped_epoch is not None:
            self.model.stop_training = True

    def _reset(self):
        self.best = self.best_epoch = self.stopped_epoch = self.reason = None
        self._best_weights = self._last_epoch = None
        self._waited = 0
        self._average = ExponentialAverage(self.smoothing)

    def _sentence(self):
        """Which weights the model has, and why."""
        if self._last_epoch is None:
            return "No epoch was run."
        what = f"Smoothed {self.monitor}" if self.smoothing else self.monitor
        last = self._last_epoch + 1
        if self.best_epoch is None:
            ended = "ended" if self.stopped_epoch is None else "was stopped"
            return (
                f"{self.monitor} was never finite, or the weights were not: training {ended} after epoch {last}, whose "
                "weights the model has."
            )
        best = f"epoch {self.best_epoch + 1} ({self.best:.4g})"
        if self.stopped_epoch is None:
            return f"Training ended after epoch {last}. {what} was best in {best}, whose weights the model has."
        epochs = "1 epoch" if self._waited == 1 else f"{self._waited} epochs"
        return (
            f"{what} has not improved since {best}, so training was stopped after epoch {last}, {epochs} of patience. "
            f"The model has the weights of epoch {self.best_epoch + 1}."
        )
