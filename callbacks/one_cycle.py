"""The one-cycle policy: a rate that rises before it falls, and a momentum that does the opposite."""

import copy
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from callbacks import checking
from callbacks.decaying import Decay
from callbacks.syncing import stepping

# the optimizers whose step reads the momentum each time it is taken, and where they keep it
_MOMENTA = {
    keras.optimizers.SGD: "momentum",
    keras.optimizers.Adam: "beta_1",  # and AdamW
    keras.optimizers.Adamax: "beta_1",
    keras.optimizers.Nadam: "beta_1",
    keras.optimizers.Lamb: "beta_1",
    keras.optimizers.Lion: "beta_1",
}


class OneCycle(Decay):
    """One cycle over the whole fit: the rate rises to `highest` and falls far below where it began.

    Of N steps, counted from 0, the first p = rise * (N - 1) lead up and the others down, each along half a cosine:

        step t up to p:  low + (highest - low) * (1 - cos(pi * t / p)) / 2,                   low = highest / div
        then:            end + (highest - end) * (1 + cos(pi * (t - p) / (N - 1 - p))) / 2,   end = highest / final_div

    The momentum, `momentum` of SGD and `beta_1` of Adam and its like, moves the other way, from the first of its two
    values to the second and back. The optimizer's own rate and momentum play no part; it has both again afterwards.

    Smith 2018, https://arxiv.org/abs/1803.09820. Departures: half cosines in place of straight lines, and the defaults
    below, as in fastai (Howard and Gugger 2020, https://arxiv.org/abs/2002.04688). Find `highest` with a learning-rate
    range test.

    The step that the momentum belongs to is counted by the optimizer's own iterations, so one that a loss scale passes
    over does not move it. `fit` is compiled anew for it, which costs a second fit of the same model that time again. A
    fit that ends by an exception leaves the model with the cycle's momentum: compile it again.

    Args:
        highest: Highest rate.
        div: By what to divide it for the rate of the first step.
        final_div: By what to divide it for the rate of the last step.
        rise: Share of the steps that lead up, above 0 and below 1.
        momentum: Its highest and lowest value, or None to leave the optimizer's own alone.
        first_epoch: Epoch, from 0 as `fit` counts, at which the cycle begins; earlier ones train as its first step.

    Raises:
        ValueError: If an argument is out of its range; when `fit` begins, if it does not know how many steps an epoch
            has, or the optimizer's momentum cannot be moved; and as `Decay`.

    Example:
        >>> cycle = OneCycle(1.0, div=10, final_div=100, rise=0.5).begin(start=0.1, epochs=1, steps=5)
        >>> [round(cycle.rate(0, step), 3) for step in range(5)]
        [0.1, 0.55, 1.0, 0.505, 0.01]
        >>> [round(cycle.momentum_at(0, step), 3) for step in range(5)]
        [0.95, 0.9, 0.85, 0.9, 0.95]
    """

    per_step = True

    def __init__(self, highest, *, div=25.0, final_div=1e5, rise=0.25, momentum=(0.95, 0.85), first_epoch=0):
        super().__init__(first_epoch=first_epoch)
        checking.positive("highest", highest)
        for name, value in (("div", div), ("final_div", final_div)):
            checking.number(name, value, "be at least 1, and finite", lambda value: 1 <= value < math.inf)
        checking.inside("rise", rise)
        if momentum is not None and not _is_range(momentum):
            raise ValueError(
                "`momentum` must hold its highest and its lowest value, between 0 and 1, or be None. "
                f"Received: momentum={momentum!r}"
            )
        self.highest = highest
        self.div = div
        self.final_div = final_div
        self.rise = rise
        self.momentum: Any = momentum
        self._first_iteration: int | None = None

    def begin(self, start, epochs=None, steps=None):
        super().begin(start, epochs, steps)
        self._last = self._length() - 1
        return self

    def rate(self, epoch, step=0):
        if self.start is None:
            raise ValueError("The length of the cycle is not known before `fit`: give it with `begin`.")
        low, end = self.highest / self.div, self.highest / self.final_div
        return float(self._cycle(self._done(epoch, step), low, self.highest, end, np))

    def momentum_at(self, epoch, step=0) -> float:
        """The momentum of a step; both are counted from 0."""
        if self.start is None or self.momentum is None:
            raise ValueError("There is no momentum to tell before `fit` or `begin`, or where it is None.")
        return float(self._momentum(self._done(epoch, step), np))

    def preview(self, epochs, *, steps_per_epoch=None, start=None):
        """The rate and the momentum against the epoch, before anything is trained.

        Args:
            epochs: As for `fit`.
            steps_per_epoch: Steps in an epoch.
            start: Plays no part.

        Returns:
            A matplotlib figure; `figure.savefig("rate.png")` writes it.

        Raises:
            ValueError: As `fit` would.
        """
        from callbacks.previewing import draw  # matplotlib is slow to import, and a fit needs none

        checking.whole("epochs", epochs, least=1)
        cycle = copy.copy(self).begin(self.highest, epochs, steps_per_epoch)
        momentum = None if self.momentum is None else cycle.momentum_at
        return draw(cycle.rate, epochs, cycle._steps, type(self).__name__, momentum)

    def get_state(self):
        return {**super().get_state(), "first_iteration": self._first_iteration}

    def set_state(self, state):
        super().set_state(state)
        self._first_iteration = state["first_iteration"]

    def on_train_begin(self, logs=None):
        super().on_train_begin()
        optimizer = stepping(self.model.optimizer)
        release(optimizer)  # what a fit that ended by an exception left behind
        self._first_iteration = None
        if self.momentum is not None:
            move(optimizer, self._momentum_of_iteration)
            self.model.make_train_function(force=True)  # else a second fit would run what the first one compiled

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        if self._first_iteration is None:
            count: Any = keras.ops.convert_to_numpy(stepping(self.model.optimizer)._iterations)
            self._first_iteration = int(count) - self._done(epoch, 0)

    def on_train_end(self, logs=None):
        super().on_train_end()
        if self.momentum is not None:
            release(stepping(self.model.optimizer))
            self.model.make_train_function(force=True)

    def _cycle(self, done, low, top, end, ops):
        """Along the cycle's half cosines, in numpy or in the operations of the backend."""
        peak = self.rise * self._last
        done = ops.clip(done, 0, self._last)
        rising = (1 - ops.cos(math.pi * done / max(peak, 1e-9))) / 2  # a fit of one step has no length
        falling = (1 + ops.cos(math.pi * (done - peak) / max(self._last - peak, 1e-9))) / 2
        return ops.where(done < peak, low + (top - low) * rising, end + (top - end) * falling)

    def _momentum(self, done, ops):
        highest, lowest = self.momentum
        return self._cycle(done, highest, lowest, highest, ops)

    def _momentum_of_iteration(self, iteration):
        return self._momentum(keras.ops.cast(iteration - self._first_iteration, "float32"), keras.ops)


def move(optimizer: Any, momentum: Callable[[Any], Any]) -> None:
    """Makes an optimizer take each step with the momentum of its iteration.

    Done on the object, and only while a step is taken, where Keras keeps a Python number that would be compiled into
    it: so its config and its variables stay as they are, and a model saved within the fit holds a plain optimizer.

    Args:
        optimizer: One that steps, built or not.
        momentum: The tensor of the count of earlier steps to a scalar tensor.

    Raises:
        ValueError: If the optimizer has no momentum that could be moved.
    """
    name = next((name for kind, name in _MOMENTA.items() if isinstance(optimizer, kind)), None)
    if name is None or getattr(optimizer, name) == 0:
        kinds = ", ".join(kind.__name__ for kind in _MOMENTA if kind is not keras.optimizers.SGD)
        raise ValueError(
            f"OneCycle can move the momentum of SGD with a momentum above 0 and of {kinds}, alone. Received: "
            f"{type(optimizer).__name__}{'' if name is None else f'({name}=0)'}; leave it out with momentum=None."
        )
    optimizer.apply = _Applying(optimizer, name, momentum)


def release(optimizer: Any) -> None:
    """Gives an optimizer its own momentum back."""
    if isinstance(optimizer.apply, _Applying):
        optimizer.apply = optimizer.apply.apply


def _is_range(momentum):
    try:
        highest, lowest = momentum
        return bool(1 > highest >= lowest > 0)
    except (TypeError, ValueError):
        return False


class _Applying:
    """An optimizer's `apply`, during which its momentum is that of the iteration."""

    def __init__(self, optimizer, name, momentum):
        self.optimizer, self.name, self.momentum = optimizer, name, momentum
        self.apply = optimizer.apply

    def __call__(self, grads, trainable_variables=None):
        own = getattr(self.optimizer, self.name)
        value = self.momentum(self.optimizer._iterations)  # the public count leaves accumulating steps out
        setattr(self.optimizer, self.name, _NotZero(value) if self.name == "momentum" else value)
        try:
            return self.apply(grads, trainable_variables)
        finally:
            setattr(self.optimizer, self.name, own)


class _NotZero:
    """A tensor that answers Python at once when SGD asks whether it has a momentum, which a traced one cannot."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __ne__(self, other):
        return True

    def __tf_tensor__(self, dtype=None, name=None):
        return self.tensor

    def __jax_array__(self):
        return self.tensor
