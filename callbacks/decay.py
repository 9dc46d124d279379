"""Learning-rate decay by the epoch."""

import math

import keras


class CosineDecay(keras.callbacks.Callback):
    """Lets the learning rate fall along half a cosine, from the optimizer's own rate to `floor`.

    With t epochs done of n, the rate is floor + (start - floor) * (1 + cos(pi * t / n)) / 2: the first epoch trains at
    the optimizer's rate. After n epochs the rate stays at `floor`. The rate is logged as `learning_rate`.
    Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, without restarts.

    Args:
        epochs: Epochs that the decay takes.
        floor: Rate at the end.
        first_epoch: Epoch, from 0 as `fit` counts, at which the decay begins; earlier ones train at the full rate.

    Raises:
        ValueError: If `epochs` is below 1, `floor` is negative or above the optimizer's rate, or the optimizer has a
            schedule of its own.
    """

    def __init__(self, epochs, floor=0.0, first_epoch=0):
        super().__init__()
        if epochs < 1:
            raise ValueError(f"`epochs` must be at least 1. Received: epochs={epochs}")
        if floor < 0:
            raise ValueError(f"`floor` must not be negative. Received: floor={floor}")
        self.epochs = epochs
        self.floor = floor
        self.first_epoch = first_epoch

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        # the public property hides a schedule behind its current value
        if isinstance(optimizer.get_config().get("learning_rate"), dict):
            raise ValueError(
                "The optimizer has a learning-rate schedule of its own. Give it a plain rate, or leave the decay out."
            )
        self.start = float(optimizer.learning_rate)
        if self.floor > self.start:
            raise ValueError(
                f"`floor` must not be above the optimizer's rate. Received: floor={self.floor}, rate={self.start:g}"
            )

    def rate(self, epoch):
        """The learning rate of an epoch, counted from 0."""
        done = min(max(epoch - self.first_epoch, 0) / self.epochs, 1.0)
        return self.floor + (self.start - self.floor) * (1 + math.cos(math.pi * done)) / 2

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate = self.rate(epoch)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)

    def on_train_end(self, logs=None):
        self.model.optimizer.learning_rate = self.start  # a second fit starts where this one did
