"""A learning rate that falls when a metric no longer gets better."""

import copy

from callbacks import checking
from callbacks.decaying import Decay
from callbacks.monitoring import checked_direction, direction_of, improves, value_of


class PlateauDecay(Decay):
    """Cuts the rate to a part of itself when a metric has not improved for a while.

    After c cuts the rate is start * factor ** c, and not below `floor`. A value that is not finite is never a best and
    counts as an epoch without improvement. The common practice of He et al. 2015, https://arxiv.org/abs/1512.03385
    ("divided by 10 when the error plateaus"), by the rules of Keras' ReduceLROnPlateau, except that a NaN does no harm
    and `cooldown` passes over as many epochs as it says, not one less.

    Args:
        monitor: Name of a metric in the logs.
        factor: What remains of the rate after a cut, above 0 and below 1.
        patience: Epochs without improvement before a cut.
        direction: "max", "min", or None to ask the compiled metric of that name, then the name itself.
        min_delta: Smallest change that counts as an improvement.
        cooldown: Epochs after a cut in which nothing is waited for.
        floor: Lowest rate.
        warmup: Epochs of linear warm-up, in which nothing is waited for.
        first_epoch: As in `Decay`.

    Attributes:
        best: Best value, or None where none was finite.
        cuts: Epochs, from 0, after which the rate was cut.

    Raises:
        ValueError: If an argument is out of its range, nothing tells the direction, or the logs hold no such metric;
            and as `Decay`.

    Example:
        >>> decay = PlateauDecay("val_accuracy", factor=0.5, patience=2).begin(start=0.1)
        >>> for epoch, accuracy in enumerate([0.6, 0.7, 0.7, 0.7]):
        ...     decay.observe(epoch, accuracy, "max")
        >>> [decay.rate(epoch) for epoch in range(5)]
        [0.1, 0.1, 0.1, 0.1, 0.05]
    """

    def __init__(
        self,
        monitor="val_loss",
        factor=0.1,
        patience=5,
        direction=None,
        *,
        min_delta=0.0,
        cooldown=0,
        floor=0.0,
        warmup=0,
        first_epoch=0,
    ):
        super().__init__(floor, warmup, first_epoch)
        checking.metric("monitor", monitor)
        checking.inside("factor", factor)
        checking.whole("patience", patience, least=1)
        checking.whole("cooldown", cooldown)
        checking.not_negative("min_delta", min_delta)
        self.monitor = monitor
        self.factor = factor
        self.patience = patience
        self.direction = None if direction is None else checked_direction(direction)
        self.min_delta = min_delta
        self.cooldown = cooldown

    def begin(self, start, epochs=None, steps=None):
        super().begin(start, epochs, steps)
        self.best, self.cuts = None, []
        self._waited = self._cooling = 0
        return self

    def formula(self, done):
        epoch = done + self.warmup + self.first_epoch
        return self.peak * self.factor ** sum(cut < epoch for cut in self.cuts)

    def observe(self, epoch, value, direction):
        """Takes in the metric of an epoch, counted from 0, and cuts the rate of the next one where it is time."""
        if self._cooling:
            self._cooling -= 1
            self._waited = 0
            waiting = False
        else:
            waiting = epoch >= self.first_epoch + self.warmup
        if improves(value, self.best, direction, self.min_delta):
            self.best, self._waited = value, 0
        elif waiting:
            self._waited += 1
            if self._waited >= self.patience and self.rate(epoch) > self.floor:
                self.cuts.append(epoch)
                self._waited, self._cooling = 0, self.cooldown

    def preview(self, epochs, *, values=None, start=None):
        """The rate against the epoch, for a metric that takes certain values.

        Args:
            epochs: As for `fit`.
            values: Value of the metric in each epoch; by default it never improves on its first one.
            start: The optimizer's own rate; that of the last `fit` where there was one.

        Returns:
            A matplotlib figure; `figure.savefig("rate.png")` writes it.

        Raises:
            ValueError: If `values` are not as many as the epochs, and as `fit` would.
        """
        from callbacks.previewing import draw  # matplotlib is slow to import, and a fit needs none

        checking.whole("epochs", epochs, least=1)
        values = [0.0] * epochs if values is None else list(values)
        if len(values) != epochs:
            raise ValueError(f"`values` must be one an epoch. Received: {len(values)} values for {epochs} epochs")
        decay = copy.copy(self).begin(self.start if start is None else start, epochs)
        direction = direction_of(self.monitor, self.direction)
        for epoch, value in enumerate(values):
            decay.observe(epoch, value, direction)
        return draw(decay.rate, epochs, 1, type(self).__name__)

    def get_state(self):
        known = {"best": self.best, "cuts": list(self.cuts), "waited": self._waited, "cooling": self._cooling}
        return {**super().get_state(), **known}

    def set_state(self, state):
        super().set_state(state)
        self.best, self.cuts = state["best"], list(state["cuts"])
        self._waited, self._cooling = state["waited"], state["cooling"]

    def on_train_begin(self, logs=None):
        super().on_train_begin()
        self._toward = direction_of(self.monitor, self.direction, self.model)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.observe(epoch, value_of(self.monitor, logs), self._toward)
