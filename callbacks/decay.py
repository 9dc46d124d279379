"""Learning-rate decay by the textbook's formulas."""

import math

from callbacks import checking
from callbacks.decaying import Decay


class InverseTimeDecay(Decay):
    """The rate falls as start / (1 + rate * epoch), epochs counted from 1.

    Robbins and Monro 1951 show that rates falling like 1 / t converge; this form is that of Ng's "Improving Deep Neural
    Networks", 2017.

    Args:
        rate: How fast: the rate is halved when `rate` * epoch is 1.
        floor: Lowest rate.
        warmup: Epochs of linear warm-up before it; epoch 1 of the formula is the first one behind them.
        first_epoch: As in `Decay`.

    Raises:
        ValueError: If `rate` is not positive, and as `Decay`.

    Example:
        >>> decay = InverseTimeDecay(rate=1.0).begin(start=0.2)
        >>> [round(decay.rate(epoch), 3) for epoch in range(4)]
        [0.1, 0.067, 0.05, 0.04]
    """

    def __init__(self, rate, floor=0.0, *, warmup=0, first_epoch=0):
        super().__init__(floor, warmup, first_epoch)
        checking.positive("rate", rate)
        self.decay_rate = rate  # `rate` is the method

    def formula(self, done):
        return self.peak / (1 + self.decay_rate * (done + 1))


class ExponentialDecay(Decay):
    """The rate falls as start * rate ** epoch, epochs counted from 1.

    Ng, "Improving Deep Neural Networks", 2017.

    Args:
        rate: What remains of the rate after an epoch, above 0 and below 1; 0.95 is common.
        floor: Lowest rate.
        warmup: Epochs of linear warm-up before it; epoch 1 of the formula is the first one behind them.
        first_epoch: As in `Decay`.

    Raises:
        ValueError: If `rate` is out of its range, and as `Decay`.

    Example:
        >>> decay = ExponentialDecay(rate=0.5, floor=0.02).begin(start=0.1)
        >>> [decay.rate(epoch) for epoch in range(4)]
        [0.05, 0.025, 0.02, 0.02]
    """

    def __init__(self, rate, floor=0.0, *, warmup=0, first_epoch=0):
        super().__init__(floor, warmup, first_epoch)
        checking.inside("rate", rate)
        self.decay_rate = rate  # `rate` is the method

    def formula(self, done):
        return self.peak * self.decay_rate ** (done + 1)


class SqrtEpochDecay(Decay):
    """The rate falls as k / sqrt(epoch), epochs counted from 1.

    The step sizes of Zinkevich 2003, "Online Convex Programming and Generalized Infinitesimal Gradient Ascent".

    Args:
        k: Rate of epoch 1; by default the optimizer's own.
        floor: Lowest rate.
        warmup: Epochs of linear warm-up, up to `k`; epoch 1 of the formula is the first one behind them.
        first_epoch: As in `Decay`.

    Raises:
        ValueError: If `k` is not positive, and as `Decay`.

    Example:
        >>> decay = SqrtEpochDecay().begin(start=0.6)
        >>> decay.rate(0), decay.rate(3), decay.rate(15)
        (0.6, 0.3, 0.15)
    """

    def __init__(self, k=None, floor=0.0, *, warmup=0, first_epoch=0):
        super().__init__(floor, warmup, first_epoch)
        if k is not None:
            checking.positive("k", k)
        self.k = k

    @property
    def peak(self):
        return self.start if self.k is None else self.k

    def formula(self, done):
        return self.peak / math.sqrt(done + 1)


class SqrtStepDecay(SqrtEpochDecay):
    """The rate falls as k / sqrt(t), t the number of the mini-batch, from 1 over the whole training.

    The step sizes of Zinkevich 2003, "Online Convex Programming and Generalized Infinitesimal Gradient Ascent".

    Args:
        k: Rate of the first step; by default the optimizer's own.
        floor: Lowest rate.
        warmup: Steps of linear warm-up, up to `k`; step 1 of the formula is the first one behind them.
        first_epoch: As in `Decay`.

    Raises:
        ValueError: If `k` is not positive, or `fit` does not know how many steps an epoch has, and as `Decay`.

    Example:
        >>> decay = SqrtStepDecay(k=0.6).begin(start=0.1, steps=5)
        >>> decay.rate(0, step=0), decay.rate(0, step=3), decay.rate(3, step=0)
        (0.6, 0.3, 0.15)
    """

    per_step = True


class CosineDecay(Decay):
    """The rate falls along half a cosine, from the optimizer's own rate to `floor`.

    With t of n epochs done, floor + (start - floor) * (1 + cos(pi * t / n)) / 2: the first epoch trains at the
    optimizer's rate, and the rate stays at `floor` behind the last one. Loshchilov and Hutter 2017,
    https://arxiv.org/abs/1608.03983, without restarts.

    Args:
        epochs: Epochs that warm-up and decay take together; by default those of `fit`, from `first_epoch` on.
        floor: Rate at the end.
        per_step: Whether t and n are steps, as in the paper: better where there are few epochs.
        warmup: Epochs of linear warm-up before it, or steps where `per_step`.
        first_epoch: As in `Decay`.

    Raises:
        ValueError: If `epochs` is below 1, or the warm-up leaves nothing of them; if, with `per_step`, `fit` does not
            know how many steps an epoch has; and as `Decay`.

    Example:
        >>> decay = CosineDecay(4).begin(start=0.1)
        >>> [round(decay.rate(epoch), 3) for epoch in range(6)]
        [0.1, 0.085, 0.05, 0.015, 0.0, 0.0]
    """

    def __init__(self, epochs=None, floor=0.0, *, per_step=False, warmup=0, first_epoch=0):
        super().__init__(floor, warmup, first_epoch)
        if epochs is not None:
            checking.whole("epochs", epochs, least=1)
        self.epochs = epochs
        self.per_step = per_step

    def begin(self, start, epochs=None, steps=None):
        super().begin(start, epochs, steps)
        length = self._length(self.epochs)
        if self.warmup >= length:
            unit = "steps" if self.per_step else "epochs"
            raise ValueError(
                f"`warmup` must leave something of the {length} {unit} for the decay. Received: warmup={self.warmup}"
            )
        self._falling = length - self.warmup
        return self

    def formula(self, done):
        part = min(done / self._falling, 1.0)
        return self.floor + (self.peak - self.floor) * (1 + math.cos(math.pi * part)) / 2
