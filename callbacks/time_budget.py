"""Stopping by the clock."""

import time

from callbacks import checking
from callbacks.stateful import Announced, pause


class TimeBudget(Announced):
    """Stops training in time, so that what comes after it, such as evaluation and export, still fits.

    At the end of an epoch it stops where the time left would not hold another one: the longest so far, callbacks and
    validation included, the first one of the fit left out as soon as there is another, since it compiles. An epoch in
    which the time runs out nevertheless is cut behind the step that runs; Keras still validates, and `reserve` should
    leave room for that. At least one step is made however small the budget. With a `Checkpoint` behind it, the same fit
    called again goes on from there.

    Args:
        seconds: Wall-clock budget in seconds, counted from the start of `fit`.
        reserve: Seconds of it to leave for what comes after the fit.
        clock: Function returning seconds; tests hand in their own.

    Attributes:
        stopped_epoch: Epoch, from 0, at the end of which, or in which, training was stopped, or None.
        reason: A sentence that says why training was stopped, epochs counted from 1, or None.

    Raises:
        TypeError: If `seconds` or `reserve` is no number.
        ValueError: If `seconds` is not positive, or `reserve` is negative or not below `seconds`.

    Example:
        >>> budget = TimeBudget(600, reserve=60)  # model.fit(..., callbacks=[budget])
    """

    def __init__(self, seconds, reserve=0.0, clock=time.monotonic):
        super().__init__()
        checking.number("seconds", seconds, "be positive", lambda seconds: seconds > 0)
        checking.not_negative("reserve", reserve)
        if reserve >= seconds:
            raise ValueError(
                f"`reserve` must leave something of `seconds`. Received: reserve={reserve}, seconds={seconds}"
            )
        self.seconds = seconds
        self.reserve = reserve
        self.clock = clock
        self.stopped_epoch = self.reason = None

    def on_train_begin(self, logs=None):
        self._mark = self.clock()  # the end of the last epoch: what other callbacks do behind us counts as well
        self._end = self._mark + self.seconds - self.reserve
        self._longest = 0.0
        self._epoch = self._epochs_seen = 0
        self.stopped_epoch = self.reason = None  # one instance may serve several fits

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.stopped_epoch is None and self.clock() >= self._end:
            self._stop(f"Epoch {self._epoch + 1} was cut short: {self._given()} ran out in it.")

    def on_epoch_end(self, epoch, logs=None):
        now = self.clock()
        took, self._mark = now - self._mark, now
        self._longest = took if self._epochs_seen < 2 else max(took, self._longest)
        self._epochs_seen += 1
        last = (self.params or {}).get("epochs")
        if self.stopped_epoch is not None or epoch + 1 == last:
            return
        left = self._end - now
        if left <= 0:
            self._stop(f"Training was stopped after epoch {epoch + 1}: {self._given()} ran out.")
        elif left < self._longest:
            self._stop(
                f"Training was stopped after epoch {epoch + 1}: of {self._given()} {left:.3g} s were left, and another "
                f"epoch takes {self._longest:.3g} s."
            )

    def _stop(self, reason):
        self.stopped_epoch, self.reason = self._epoch, reason
        pause(self.model)

    def _given(self):
        less = f" less {self.reserve:.3g} s in reserve" if self.reserve else ""
        return f"the {self.seconds:.3g} s{less}"
