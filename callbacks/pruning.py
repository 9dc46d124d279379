"""Giving up a training that others have shown to be hopeless."""

import math
from collections.abc import Mapping, Sequence

from callbacks import checking
from callbacks.monitoring import improves, value_of
from callbacks.stateful import Stateful


class Pruning(Stateful):
    """Stops at the end of the first epoch by which the best value so far is worse than that epoch's threshold.

    Thresholds come from other trainings of the same task: the median of what they had reached by each epoch makes the
    median stopping rule (Golovin et al. 2017, "Google Vizier", https://doi.org/10.1145/3097983.3098043). A value that
    is not finite is worse than every threshold of its epoch, whatever came before it.

    Epochs are those of the whole run, from 0. Where a run is several fits, `go_on` tells what came before; `fine_tune`
    does so for its phases, and ends the run with the phase that was pruned. A fit with an `initial_epoch` counts from
    there.

    Args:
        thresholds: A value an epoch, None for those that are not judged; epochs behind the last are not.
        monitor: Name of a metric in the logs.
        mode: Which values are better: "min" the lower ones, "max" the higher ones.

    Attributes:
        best: Best value so far, or None where none was finite.
        pruned_epoch: Epoch, from 0, after which training was stopped, or None.
        reason: A sentence that says why it was, epochs counted from 1, or None.

    Raises:
        TypeError: If a threshold is no number, or `monitor` is no name.
        ValueError: If a threshold is not finite, `mode` is another word, or the logs hold no such metric; the latter at
            the end of an epoch.

    Example:
        >>> pruning = Pruning([None, None, 0.9, 0.8])  # model.fit(..., callbacks=[pruning])
    """

    def __init__(self, thresholds: Sequence[float | None], monitor: str = "val_loss", mode: str = "min"):
        super().__init__()
        checking.metric("monitor", monitor)
        if mode not in ("min", "max"):
            raise ValueError(f'`mode` must be "min" or "max". Received: mode={mode!r}')
        if isinstance(thresholds, (str, Mapping)) or not hasattr(thresholds, "__iter__"):
            raise TypeError(f"`thresholds` must be a list of a number or None an epoch. Received: {thresholds!r}")
        self.thresholds = list(thresholds)
        for epoch, threshold in enumerate(self.thresholds):
            if threshold is not None:
                checking.number(f"thresholds[{epoch}]", threshold, "be finite, or None", math.isfinite)
        self.monitor = monitor
        self.mode = mode
        self._before: list[float] = []
        self._reset()

    @property
    def ends_run(self) -> bool:
        """Whether the run is over, and not only the fit."""
        return self.pruned_epoch is not None

    @property
    def stopped_epoch(self) -> int | None:
        """`pruned_epoch`, by the name under which `Checkpoint` asks whether a fit is over for good."""
        return self.pruned_epoch

    def go_on(self, history: Mapping[str, Sequence[float]]) -> None:
        """Tells what the fits before the next one came to, where they are parts of one run.

        Args:
            history: Metric name to a value an epoch; empty before the first.
        """
        self._before = [float(value) for value in history.get(self.monitor, ())]

    def on_train_begin(self, logs=None):
        self._reset()

    def on_epoch_end(self, epoch, logs=None):
        if self.ends_run:  # of a fit that was resumed after it had been pruned
            self.model.stop_training = True
            return
        self._epoch = epoch if self._epoch is None else self._epoch + 1
        value = value_of(self.monitor, logs)
        self._take(value)
        threshold = self.thresholds[self._epoch] if self._epoch < len(self.thresholds) else None
        if threshold is None or (math.isfinite(value) and not improves(threshold, self.best, self.mode)):
            return
        self.pruned_epoch = self._epoch
        reached = f"at best {self.best:.4g}" if math.isfinite(value) else f"{value}"
        self.reason = (
            f"Training was pruned after epoch {self._epoch + 1}: {self.monitor} was {reached}, and {threshold:.4g} was "
            "asked for."
        )
        self.model.stop_training = True

    def get_state(self):
        return {"best": self.best, "epoch": self._epoch, "pruned_epoch": self.pruned_epoch, "reason": self.reason}

    def set_state(self, state):
        self.best, self._epoch = state["best"], state["epoch"]
        self.pruned_epoch, self.reason = state["pruned_epoch"], state["reason"]
        if self.ends_run:
            self.model.stop_training = True

    def _reset(self):
        self.best = self.pruned_epoch = self.reason = None
        self._epoch = len(self._before) - 1 if self._before else None
        for value in self._before:
            self._take(value)

    def _take(self, value):
        if improves(value, self.best, self.mode):
            self.best = value
