"""A learning rate found by trying them all, from far too small to far too large, within one short fit."""

import itertools
import math
from typing import Any

import keras
import numpy as np

from callbacks import checking
from callbacks.average import ExponentialAverage
from callbacks.packing import random_state, set_random_state
from callbacks.syncing import has_schedule, synchronize

LEAST_FALL = 0.01  # of the loss: what falls by less is noise
BETA = 0.9  # see LearningRateFinder


class LearningRateFinder(keras.callbacks.Callback):
    """The learning-rate range test: the loss of step after step, at rates that grow evenly in logarithm.

    Step s of n trains at lowest * (highest / lowest) ** (s / (n - 1)). The test is over behind step n, or as soon as
    the loss is not finite, or its average has risen beyond `divergence` times its smallest value. Smith 2015, "Cyclical
    Learning Rates for Training Neural Networks", https://arxiv.org/abs/1506.01186; the growing rate and the average as
    in Gugger 2018, https://sgugger.github.io/how-do-you-find-a-good-learning-rate.html.

    Either with data of one's own choice,

        finder = LearningRateFinder().find(model, x, y)
        finder.suggestion, finder.plot()

    or as a callback, the last in the list, that takes over a fit: `model.fit(x, y, callbacks=[finder])`. It stops that
    fit, and where the fit is shorter than the test, the rates are spread over the steps that there are. With more than
    one step an execution, an execution is one point of the curve, at the rate of its first step.

    Afterwards weights, statistics of batch normalisation, seed generators, the optimizer with its rate, and the
    metrics are what they were, bit for bit; so are the random states of Python, NumPy and Keras. A fit in which the
    finder is a callback keeps the changed weights if an exception ends it, as Keras then tells no callback; `find` does
    not. Two tests on the same batches give the same curve; `fit` and many a dataset shuffle anew each time, the arrays
    of `find` are shuffled by its seed.

    The curve is smoothed with an `ExponentialAverage` of beta 0.9: the usual 0.98 looks back on 50 steps, half of the
    default test, and moves every feature of the curve to higher rates. The first tenth of the test decides nothing, as
    the average of few steps is noise.

    Args:
        lowest: First rate.
        highest: Last rate.
        steps: Steps of the test, at least 10.
        divergence: Rise of the averaged loss over its smallest value at which the test ends, above 1.

    Attributes:
        rates: Rates that were tried, an array (n,).
        losses: The loss of each step, before the step was taken, (n,).
        smoothed: Its average, (n,).
        steepest: Rate at which the averaged loss fell fastest.
        valley: Rate two thirds into the longest valley, the longest run of ever smaller values of the averaged loss,
            with any others between them: the idea of fastai's `valley`, https://docs.fast.ai/callback.schedule.html.
        suggestion: The rate to take: `valley`.
        why: None, or the reason for which there is no suggestion, and the three are None: the loss never fell.

    Raises:
        TypeError: If an argument that should be a number is none.
        ValueError: If an argument is out of range, the optimizer has a schedule of its own, or the model has no
            weights yet at the start of the fit.
    """

    def __init__(self, lowest=1e-7, highest=10.0, steps=100, divergence=4.0):
        super().__init__()
        checking.number("highest", highest, "be finite", math.isfinite)
        checking.number("lowest", lowest, f"be above 0 and below `highest`, {highest}", lambda it: 0 < it < highest)
        checking.whole("steps", steps, least=10)
        checking.number("divergence", divergence, "be above 1", lambda divergence: divergence > 1)
        self.lowest = lowest
        self.highest = highest
        self.steps = int(steps)
        self.divergence = divergence
        self._kept = None
        self._forget()

    def find(self, model, x, y=None, *, batch_size=32, seed=0):
        """Runs the test in a fit of its own, which leaves nothing behind in the model.

        Args:
            model: A compiled model.
            x: Arrays as `fit` takes them; or, without `y`, batches (x, y) or (x, y, weights): a `PyDataset`, read by
                index alone, or what can be read from its start as often as needed, such as a `tf.data.Dataset` or a
                list. Data that is shorter than the test is read again.
            y: Targets, where `x` is arrays.
            batch_size: Size of the batches cut from arrays.
            seed: Of the order in which arrays are read.

        Returns:
            The finder itself.

        Raises:
            ValueError: If the model is not compiled, there are no data, or `batch_size` is below 1.
            TypeError: If `x` holds no batches, or can be read only once.
        """
        checking.whole("batch_size", batch_size, least=1)
        if not model.compiled:
            raise ValueError("`model` must be compiled: the test is a training. Call `model.compile` first.")
        batches = _batches(x, y, batch_size, seed)
        first = next(batches, None)
        if first is None:
            raise ValueError("`x` holds no pictures: the test needs at least one batch.")
        if not model.built:
            model(first[0])
        known = {name: getattr(model, name, None) for name in ("history", "stop_training")}
        chance = random_state()  # already here, since Keras traces a model before a fit begins
        try:
            stream = (batch for batch in itertools.chain([first], batches))  # Keras takes no other iterator
            model.fit(stream, steps_per_epoch=self.steps, epochs=1, verbose=0, shuffle=False, callbacks=[self])
        finally:
            self._restore()
            set_random_state(chance)
            for name, value in known.items():
                setattr(model, name, value)
        return self

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        if has_schedule(optimizer):
            raise ValueError(
                "The optimizer has a learning-rate schedule of its own, which the test cannot take over. Compile the "
                "model with a plain rate for the test."
            )
        if not self.model.built:
            raise ValueError(
                f"Model {self.model.name!r} has no weights yet, so they cannot be put back; call it on a batch, or use "
                "`find`."
            )
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        self._forget()
        self._done = 0
        self._over = False
        self._length: Any = None
        self._average = ExponentialAverage(BETA)
        self._kept = _State(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        if self._length is None:
            params: dict[str, Any] = getattr(self, "params", None) or {}  # None where the hooks are driven by hand
            steps = params.get("steps")
            self._length = min(self.steps, steps * (params["epochs"] - epoch)) if steps else self.steps
        self._before = self._done

    def on_train_batch_begin(self, batch, logs=None):
        if self._over:
            return
        synchronize(self.model)
        self._done = self._before + batch
        part = min(self._done / max(self._length - 1, 1), 1.0)
        self._rate = self.lowest * (self.highest / self.lowest) ** part
        self.model.optimizer.learning_rate = self._rate
        self.model.reset_metrics()  # so that the loss in the logs is of this step, and no mean since the epoch's start

    def on_train_batch_end(self, batch, logs=None):
        self._done = self._before + batch + 1
        if self._over or self._take(float((logs or {})["loss"])) and self._done < self._length:
            return
        self._over = True
        self.model.stop_training = True
        synchronize(self.model)
        self._kept.restore()  # now, so that validation does not see the weights of the test

    def on_train_end(self, logs=None):
        self._restore()
        self._judge()

    def plot(self):
        """The curve, with the suggestions on it.

        Returns:
            A matplotlib figure.

        Raises:
            ValueError: If there is no curve yet.
        """
        if not len(self.rates):
            raise ValueError(f"There is nothing to plot: {self.why or 'run `find` first'}.")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses, color="0.75", linewidth=1, label="loss of the step")
        axes.plot(self.rates, self.smoothed, color="C0", label="averaged")
        for name, marker, colour in (("steepest", "v", "C1"), ("valley", "o", "C3")):
            rate = getattr(self, name)
            if rate is not None:
                height = float(np.interp(math.log(rate), np.log(self.rates), self.smoothed))
                axes.plot(rate, height, marker, color=colour, markersize=9, label=f"{name}: {rate:.2g}")
        axes.set_xscale("log")
        lowest, highest = self.smoothed.min(), self.smoothed.max()
        margin = 0.1 * (highest - lowest) or 1.0
        axes.set_ylim(lowest - margin, highest + margin)  # single steps may lie far outside
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.set_title("Learning-rate range test" + (f"\n{self.why}" if self.why else ""))
        axes.legend()
        axes.grid(alpha=0.3)
        return figure

    def _forget(self):
        self.rates = self.losses = self.smoothed = np.zeros(0)
        self.steepest = self.valley = self.suggestion = self.why = None

    def _take(self, loss):
        """Notes the loss of a step; returns whether the test goes on."""
        if not math.isfinite(loss):
            return False
        smoothed = self._average.update(loss)
        self.rates, self.losses = np.append(self.rates, self._rate), np.append(self.losses, loss)
        self.smoothed = np.append(self.smoothed, smoothed)
        settled = self.smoothed[self._length // 10 :]
        if not len(settled):
            return True
        best = settled.min()
        return smoothed <= best + (self.divergence - 1) * abs(best)  # divergence * best, for losses below 0 as well

    def _judge(self):
        """Reads the suggestions off the curve."""
        if len(self.rates) < 3:
            self.why = "the loss was not finite after fewer than 3 steps" if self._over else "the fit had under 3 steps"
            return
        first = min(self._length // 10, len(self.rates) - 3)
        rates, smoothed = self.rates[first:], self.smoothed[first:]
        start, end = _longest_fall(smoothed)
        if smoothed[start] - smoothed[end] <= LEAST_FALL * abs(smoothed[start]):
            self.why = f"the loss never fell by {LEAST_FALL:.0%} at any rate from {self.lowest:g} to {rates[-1]:g}"
            return
        slopes = np.gradient(smoothed, np.log(rates))[start : end + 1]
        self.steepest = float(rates[start + np.argmin(slopes)])
        self.valley = float(rates[start] * (rates[end] / rates[start]) ** (2 / 3))
        self.suggestion = self.valley

    def _restore(self):
        if self._kept is not None:
            self._kept.restore()
            self._kept.restore_metrics()
            self._kept = None  # a copy of the whole network is worth giving back


class _State:
    """Everything that a training step changes, as it is now."""

    def __init__(self, model):
        self.model = model
        self.copies = _copies([*model.variables, *model.optimizer.variables])
        self.metrics = _copies(model.metrics_variables)
        self.chance = random_state()

    def restore(self):
        _assign(self.copies)
        set_random_state(self.chance)

    def restore_metrics(self):
        """Apart from the rest, since `fit` still reads the logs of its epoch off them."""
        self.model.reset_metrics()  # those that only the first step made
        _assign(self.metrics)


def _copies(variables):
    # copies, here and below: on JAX the next step may write into the memory of an array that it was given
    return [(variable, np.array(keras.ops.convert_to_numpy(variable))) for variable in variables]


def _assign(copies):
    for variable, copy in copies:
        variable.assign(np.array(copy))


def _longest_fall(values):
    """First and last index of the longest subsequence of ever smaller values."""
    lengths, starts = np.ones(len(values), int), np.arange(len(values))
    for i in range(1, len(values)):
        reach = np.where(values[:i] > values[i], lengths[:i], 0)
        before = int(np.argmax(reach))
        if reach[before]:
            lengths[i], starts[i] = reach[before] + 1, starts[before]
    end = int(np.argmax(lengths))
    return int(starts[end]), end


def _batches(x, y, batch_size, seed):
    """Batches without end."""
    if y is not None:
        return _cut(x, y, batch_size, seed)
    if isinstance(x, keras.utils.PyDataset):
        return _indexed(x)
    if isinstance(x, np.ndarray) or keras.ops.is_tensor(x) or not hasattr(x, "__iter__") or iter(x) is x:
        raise TypeError(
            "`x` must be arrays together with `y`, or batches (x, y) that can be read more than once: a PyDataset, a "
            f"tf.data.Dataset or a list, not a generator. Received: {type(x).__name__} without `y`"
        )
    return _again(x)


def _cut(x, y, batch_size, seed):
    """Batches of arrays: one shuffled pass behind the other, all batches of the same size."""
    arrays = keras.tree.map_structure(np.asarray, (x, y))
    sizes = {len(array) for array in keras.tree.flatten(arrays)}
    if len(sizes) != 1:
        raise ValueError(f"`x` and `y` must hold equally many examples. Received: {sorted(sizes)}")
    size = sizes.pop()
    if not size:
        return
    generator = np.random.default_rng(seed)
    order = np.zeros(0, int)
    while True:
        while len(order) < batch_size:
            order = np.append(order, generator.permutation(size))
        chosen, order = order[:batch_size], order[batch_size:]
        yield keras.tree.map_structure(lambda array: array[chosen], arrays)  # noqa: B023 (used at once)


def _indexed(dataset):
    length = dataset.num_batches
    for index in itertools.count():
        yield _pair(dataset[index % length if length else index])


def _again(dataset):
    empty = False
    while not empty:
        empty = True
        for batch in dataset:
            empty = False
            yield _pair(batch)


def _pair(batch):
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise TypeError(
            f"`x` without `y` must hold batches (x, y) or (x, y, weights). Received a batch: {type(batch).__name__}"
        )
    return tuple(batch)
