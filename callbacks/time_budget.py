"""Stopping by the clock."""

import time

import keras


class TimeBudget(keras.callbacks.Callback):
    """Stops training at the first epoch end after `seconds` have passed.

    Args:
        seconds: Wall-clock budget in seconds, counted from the start of `fit`.
        clock: Function returning seconds; tests hand in their own.

    Attributes:
        stopped_epoch: Epoch, from 0, at which the budget ran out, or None.

    Raises:
        ValueError: If `seconds` is not positive.
    """

    def __init__(self, seconds, clock=time.monotonic):
        super().__init__()
        if not seconds > 0:
            raise ValueError(f"`seconds` must be positive. Received: seconds={seconds}")
        self.seconds = seconds
        self.clock = clock
        self.stopped_epoch = None

    def on_train_begin(self, logs=None):
        self.started = self.clock()
        self.stopped_epoch = None  # one instance may serve several fits

    def on_epoch_end(self, epoch, logs=None):
        if self.clock() - self.started >= self.seconds:
            self.stopped_epoch = epoch
            self.model.stop_training = True
