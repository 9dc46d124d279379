"""What all learning-rate decays share: the optimizer's rate set by the epoch or by the step."""

import copy
import weakref
from typing import Any

import keras

from callbacks import checking
from callbacks.stateful import Stateful, peers
from callbacks.syncing import has_schedule, stepping, synchronize

_ROUNDING = 1e-6  # the optimizer holds its rate in float32, so a floor that is the same number may stand above it

# of each optimizer whose rate is not its own at the moment: its own rate, and what a decay set it to last
_own_rates: "weakref.WeakKeyDictionary[keras.Optimizer, tuple[float, float]]" = weakref.WeakKeyDictionary()


class Decay(Stateful):
    """What the decays share: a rate for each epoch or step, from the optimizer's own rate downwards.

    A subclass gives `formula`. During a linear warm-up the n-th epoch (or step) of `warmup` trains at
    n / (warmup + 1) of the full rate, and the formula begins behind it (gradual warm-up, Goyal et al. 2017,
    https://arxiv.org/abs/1706.02677). The rate that an epoch, or its last step, was trained with is logged as
    `learning_rate`. After `fit` the optimizer has its own rate again, so that a second fit starts where this one did;
    a fit that ends by an exception leaves the rate that it came to, and the next decay begins with the optimizer's own
    one again, unless another rate was set meanwhile.

    Where `fit` does several steps in one execution, they have the rate of the first of them.

    Args:
        floor: Lowest rate of the formula; the warm-up may begin below.
        warmup: Length of the warm-up, in steps where `per_step`, else in epochs.
        first_epoch: Epoch, from 0 as `fit` counts, at which warm-up and decay begin; earlier ones train at the full
            rate.

    Attributes:
        per_step: Whether the rate changes with every step.
        start: The optimizer's own rate, known once `fit` has begun.

    Raises:
        TypeError: If an argument that should be a number is none.
        ValueError: If an argument is out of its range; or, when `fit` begins, if `floor` is above the start rate, the
            optimizer has a schedule of its own, or there is another decay in the same fit.
    """

    per_step = False

    def __init__(self, floor=0.0, warmup=0, first_epoch=0):
        super().__init__()
        checking.not_negative("floor", floor)
        checking.whole("warmup", warmup)
        checking.whole("first_epoch", first_epoch)
        self.floor = floor
        self.warmup = warmup
        self.first_epoch = first_epoch
        self.start: Any = None
        self._epochs: Any = None
        self._steps: Any = None

    def begin(self, start, epochs=None, steps=None):
        """Learns what `fit` says when it begins; by hand, it makes `rate` work without one.

        Args:
            start: The optimizer's own rate.
            epochs: Number of the last epoch, from 1: `epochs` of `fit`.
            steps: Steps in an epoch, where they are known.

        Returns:
            The decay itself.

        Raises:
            ValueError: If the decay cannot be computed from these.
        """
        if start is None:
            raise ValueError("`start` must be the rate that the decay starts from. Received: start=None")
        checking.not_negative("start", start)
        if self.per_step and not steps:
            raise ValueError(
                f"{type(self).__name__} must know how many steps an epoch has, which the data does not tell: give "
                "`steps_per_epoch`."
            )
        self.start, self._epochs, self._steps = start, epochs, steps
        if self.floor > self.peak * (1 + _ROUNDING):
            raise ValueError(
                f"`floor` must not be above the start rate. Received: floor={self.floor}, start rate={self.peak:g}"
            )
        return self

    @property
    def peak(self) -> Any:
        """The full rate: what the warm-up leads to and the formula starts from."""
        return self.start

    def formula(self, done) -> float:
        """The rate when so many epochs (or steps) of the decay are done, warm-up and floor apart."""
        raise NotImplementedError

    def rate(self, epoch, step=0) -> float:
        """The learning rate of a step; both are counted from 0."""
        if self.start is None:
            raise ValueError("The start rate is not known before `fit`: give it with `begin(start)`.")
        done = self._done(epoch, step)
        if done < 0:
            return self.peak
        if done < self.warmup:
            return self.peak * (done + 1) / (self.warmup + 1)
        return max(self.floor, self.formula(done - self.warmup))

    def preview(self, epochs, *, steps_per_epoch: Any = None, start=None):
        """The rate against the epoch, before anything is trained.

        Args:
            epochs: As for `fit`.
            steps_per_epoch: Steps in an epoch; needed where `per_step`.
            start: The optimizer's own rate; that of the last `fit` where there was one.

        Returns:
            A matplotlib figure; `figure.savefig("rate.png")` writes it.

        Raises:
            ValueError: As `fit` would.
        """
        from callbacks.previewing import draw  # matplotlib is slow to import, and a fit needs none

        checking.whole("epochs", epochs, least=1)
        decay = copy.copy(self).begin(self.start if start is None else start, epochs, steps_per_epoch)
        return draw(decay.rate, epochs, steps_per_epoch if self.per_step else 1, type(self).__name__)

    def get_state(self):
        return {"start": self.start}

    def set_state(self, state):
        self.start = state["start"]  # the optimizer stands at a decayed rate by now

    def on_train_begin(self, logs=None):
        rivals = [type(peer).__name__ for peer in peers(self.model) if isinstance(peer, Decay)]
        if len(rivals) > 1:
            raise ValueError(
                f"Only one decay can set the rate of a fit; leave out the others. Received: {', '.join(rivals)}"
            )
        if has_schedule(self.model.optimizer):
            raise ValueError(
                "The optimizer has a learning-rate schedule of its own. Give it a plain rate, or leave the decay out."
            )
        _take_back(self.model.optimizer)
        params = self.params or {}
        self.begin(float(self.model.optimizer.learning_rate), params.get("epochs"), params.get("steps"))

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if not self.per_step:
            self._set(self.rate(epoch))

    def on_train_batch_begin(self, batch, logs=None):
        if self.per_step:
            synchronize(self.model)
            self._set(self.rate(self._epoch, batch))

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)

    def on_train_end(self, logs=None):
        self.model.optimizer.learning_rate = self.start
        _own_rates.pop(stepping(self.model.optimizer), None)

    def _set(self, rate):
        self.model.optimizer.learning_rate = rate
        _own_rates[stepping(self.model.optimizer)] = self.start, rate

    def _done(self, epoch, step):
        """Epochs, or steps, since the decay began; negative before it."""
        done = epoch - self.first_epoch
        return done * self._steps + step if self.per_step else done

    def _length(self, epochs=None):
        """Epochs, or steps, from `first_epoch` on: for so many epochs, or to the end of the fit."""
        if epochs is None:
            if not self._epochs or self._epochs <= self.first_epoch:
                raise ValueError(
                    f"{type(self).__name__} must begin before the last epoch of the fit. Received: "
                    f"first_epoch={self.first_epoch}, epochs={self._epochs}"
                )
            epochs = self._epochs - self.first_epoch
        return epochs * self._steps if self.per_step else epochs


def _take_back(optimizer):
    """Gives an optimizer its own rate back where a fit that ended by an exception left it at a decay's."""
    own, last = _own_rates.pop(stepping(optimizer), (None, None))
    if own is None:
        return
    rate = optimizer.learning_rate
    left: Any = keras.ops.cast(last, rate.dtype)
    if float(rate) == float(left):  # else another one was set meanwhile
        optimizer.learning_rate = own
