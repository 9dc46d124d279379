"""The decays that are a formula of the epoch or the step, and what all decays share."""

import json
import math

import keras
import numpy as np
import pytest

from callbacks.decay import CosineDecay, ExponentialDecay, InverseTimeDecay, SqrtEpochDecay, SqrtStepDecay
from callbacks.one_cycle import OneCycle
from callbacks.plateau import PlateauDecay

STEPS = 2  # of two pictures each
X, Y = np.ones((2 * STEPS, 1), "float32"), np.zeros((2 * STEPS, 1), "float32")
EVERY = {
    "inverse": lambda: InverseTimeDecay(0.5),
    "exponential": lambda: ExponentialDecay(0.7, floor=0.02),
    "sqrt epoch": lambda: SqrtEpochDecay(warmup=1),
    "sqrt step": lambda: SqrtStepDecay(0.2, warmup=2),
    "cosine": lambda: CosineDecay(warmup=1),
    "cosine by the step": lambda: CosineDecay(per_step=True, warmup=2),
    "plateau": lambda: PlateauDecay("loss", patience=1, min_delta=10.0),
    "one cycle": lambda: OneCycle(0.3, momentum=None),
}
each_decay = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


def level(y_true, y_pred):
    """A loss whose gradient is 1 for the only weight: plain SGD goes down by the rate in each step."""
    return keras.ops.mean(y_pred, axis=-1)


def build(optimizer=None, **compiled):
    """One weight, at 0; not compiled by the backend, which takes most of the time, unless a test asks for it."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.zeros((1, 1))])
    model.compile(optimizer or keras.optimizers.SGD(0.1), level, **{"run_eagerly": True, **compiled})
    return model


def fit(model, *callbacks, **given):
    """Fits and returns the rates that the optimizer really took, a step each, by how far the weight went."""
    places = [float(model.get_weights()[0][0, 0])]
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: places.append(weight_of(model)),
    )
    given = {"epochs": 4, "batch_size": 2, "verbose": 0, "shuffle": False, **given}
    history = model.fit(X, Y, callbacks=[*callbacks, watch], **given).history
    return -np.diff(places), history


def weight_of(model):
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
    return float(model.get_weights()[0][0, 0])


def test_inverse_time_decay_trains_at_the_textbooks_rates():
    taken, history = fit(build(keras.optimizers.SGD(0.2), run_eagerly=False), InverseTimeDecay(1.0))
    wanted = [0.1, 0.2 / 3, 0.05, 0.04]
    assert np.allclose(taken, np.repeat(wanted, STEPS), atol=1e-6)
    assert np.allclose(history["learning_rate"], wanted, rtol=1e-5)


def test_exponential_decay_falls_to_its_floor():
    taken, _ = fit(build(), ExponentialDecay(0.5, floor=0.02))
    assert np.allclose(taken, np.repeat([0.05, 0.025, 0.02, 0.02], STEPS), atol=1e-6)


def test_sqrt_epoch_decay_starts_from_the_optimizers_rate_or_from_k():
    assert np.allclose(fit(build(), SqrtEpochDecay())[0], np.repeat(0.1 / np.sqrt([1, 2, 3, 4]), STEPS), atol=1e-6)
    assert np.allclose(fit(build(), SqrtEpochDecay(0.4))[0], np.repeat(0.4 / np.sqrt([1, 2, 3, 4]), STEPS), atol=1e-6)


def test_sqrt_step_decay_counts_steps_over_the_whole_training():
    taken, history = fit(build(run_eagerly=False), SqrtStepDecay())
    wanted = 0.1 / np.sqrt(np.arange(1, 4 * STEPS + 1))
    assert np.allclose(taken, wanted, atol=1e-6)
    assert np.allclose(history["learning_rate"], wanted[STEPS - 1 :: STEPS], rtol=1e-5)  # that of the last step


def test_cosine_decay_follows_its_formula_and_stays_at_the_floor():
    taken, _ = fit(build(), CosineDecay(4, floor=0.01), epochs=5)
    wanted = [0.01 + 0.09 * (1 + math.cos(math.pi * min(t / 4, 1))) / 2 for t in range(5)]
    assert np.allclose(taken, np.repeat(wanted, STEPS), atol=1e-6)
    assert taken[0] == pytest.approx(0.1)


def test_cosine_decay_takes_the_epochs_of_the_fit():
    _, history = fit(build(), CosineDecay(first_epoch=2), initial_epoch=2, epochs=6)
    wanted = [0.1 * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]
    assert np.allclose(history["learning_rate"], wanted, rtol=1e-5)


def test_cosine_decay_by_the_step_warms_up_in_steps():
    taken, _ = fit(build(), CosineDecay(per_step=True, warmup=4))
    wanted = [0.02, 0.04, 0.06, 0.08] + [0.1 * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]
    assert np.allclose(taken, wanted, atol=1e-6)


def test_a_decay_begins_at_its_first_epoch():
    _, history = fit(build(), CosineDecay(2, first_epoch=4), initial_epoch=3, epochs=6)
    assert np.allclose(history["learning_rate"], [0.1, 0.1, 0.05], rtol=1e-5)


def test_the_formula_begins_behind_the_warm_up():
    taken, _ = fit(build(keras.optimizers.SGD(0.3)), InverseTimeDecay(1.0, warmup=2))
    assert np.allclose(taken, np.repeat([0.1, 0.2, 0.15, 0.1], STEPS), atol=1e-6)


def test_the_warm_up_leads_to_k():
    decay = SqrtStepDecay(0.6, warmup=2).begin(0.1, steps=4)
    assert np.allclose([decay.rate(0, step) for step in range(4)], [0.2, 0.4, 0.6, 0.6 / math.sqrt(2)])


@pytest.mark.parametrize("kind", ["inverse", "sqrt step", "plateau", "one cycle"])
def test_the_optimizer_has_its_own_rate_again_and_a_second_fit_repeats_the_first(kind):
    model, decay = build(), EVERY[kind]()
    first, _ = fit(model, decay, epochs=3)
    assert float(model.optimizer.learning_rate) == np.float32(0.1)
    second, _ = fit(model, decay, epochs=3)
    assert np.allclose(first, second, atol=1e-5)
    assert len(set(np.round(first, 5))) > 1


class Resume(keras.callbacks.Callback):
    """Puts another process' weights, optimizer and state of a decay into a fit, as a checkpoint does."""

    def __init__(self, decay, state, weights, variables):
        super().__init__()
        self.given = decay, state, weights, variables

    def on_train_begin(self, logs=None):
        decay, state, weights, variables = self.given
        self.model.set_weights(weights)
        self.model.optimizer.build(self.model.trainable_variables)
        for variable, value in zip(self.model.optimizer.variables, variables, strict=True):
            variable.assign(value)
        decay.set_state(state)


class Capture(keras.callbacks.Callback):
    """Takes all of that in the middle of a fit."""

    def __init__(self, decay, last):
        super().__init__()
        self.decay, self.last = decay, last

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.last:
            variables = [np.array(keras.ops.convert_to_numpy(v)) for v in self.model.optimizer.variables]
            self.taken = json.loads(json.dumps(self.decay.get_state())), self.model.get_weights(), variables


@each_decay
def test_a_resumed_fit_takes_the_same_rates(make):
    whole = make()
    capture = Capture(whole, last=1)
    taken, _ = fit(build(), whole, capture, epochs=3)
    resumed = make()
    rest, _ = fit(build(), resumed, Resume(resumed, *capture.taken), initial_epoch=2, epochs=3)
    assert np.allclose(rest[1:], taken[2 * STEPS + 1 :], atol=1e-6)  # the first one begins at another weight


@each_decay
def test_a_rate_is_a_function_of_its_place(make):
    decay = make().begin(0.1, epochs=4, steps=STEPS)
    places = [(epoch, step) for epoch in range(4) for step in range(STEPS)]
    forth = [decay.rate(*place) for place in places]
    assert forth == [decay.rate(*place) for place in reversed(places)][::-1]
    if not decay.per_step:
        assert decay.rate(2, 0) == decay.rate(2, STEPS - 1)


def test_several_steps_in_one_execution_have_the_rate_of_the_first():
    model = build(steps_per_execution=STEPS, run_eagerly=False)
    fit(model, decay := SqrtStepDecay(), epochs=2)
    wanted = STEPS * sum(decay.rate(epoch, 0) for epoch in range(2))
    assert weight_of(model) == pytest.approx(-wanted, rel=1e-5)


@pytest.mark.parametrize("make", [EVERY["exponential"], EVERY["one cycle"]], ids=["by the epoch", "by the step"])
def test_the_rate_reaches_the_optimizer_inside_a_loss_scale(make):
    inner = keras.optimizers.SGD(0.1)
    model = build(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0))
    taken, history = fit(model, make())
    plain, expected = fit(build(), make())
    assert np.allclose(taken, plain, atol=1e-6)
    assert np.allclose(history["learning_rate"], expected["learning_rate"])
    assert float(inner.learning_rate) == np.float32(0.1)


def test_mixed_precision_trains_at_the_decays_rate():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = build(run_eagerly=False)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert type(model.optimizer).__name__ == "LossScaleOptimizer"
    taken, _ = fit(model, ExponentialDecay(0.5))
    assert np.allclose(taken[-STEPS:], 0.1 / 16, atol=1e-4)


def test_the_rate_of_a_subclassed_model_decays():
    class Line(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1, use_bias=False)

        def call(self, x):
            return self.dense(x)

    model = Line()
    model.compile(keras.optimizers.SGD(0.2), level, run_eagerly=True)
    history = model.fit(X, Y, epochs=2, batch_size=2, verbose=0, callbacks=[InverseTimeDecay(1.0)]).history
    assert np.allclose(history["learning_rate"], [0.1, 0.2 / 3], rtol=1e-5)


def test_two_decays_in_one_fit_are_refused():
    with pytest.raises(ValueError, match="Only one decay .* Received: CosineDecay, InverseTimeDecay"):
        fit(build(), CosineDecay(3), InverseTimeDecay(1.0))
    fit(build(), CosineDecay(3))  # what stood in the refused fit does no harm to the next one


@pytest.mark.parametrize(
    "schedule", [keras.optimizers.schedules.CosineDecay(0.1, 10), lambda: 0.1], ids=["schedule", "function"]
)
def test_an_optimizer_with_a_schedule_is_refused(schedule):
    with pytest.raises(ValueError, match="schedule of its own. Give it a plain rate"):
        fit(build(keras.optimizers.SGD(schedule)), CosineDecay(3))
    with pytest.raises(ValueError, match="schedule of its own"):
        fit(build(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule))), OneCycle(0.1))


def test_a_floor_above_the_start_rate_is_refused_when_fit_begins():
    with pytest.raises(ValueError, match="`floor` must not be above the start rate. Received: floor=1.0, start"):
        fit(build(), InverseTimeDecay(1.0, floor=1.0))
    model = build(keras.optimizers.SGD(0.7))  # which float32 holds as a little less
    assert np.allclose(fit(model, InverseTimeDecay(1.0, floor=0.7))[0], 0.7)


def test_steps_that_are_not_known_are_asked_for():
    def batches():
        while True:
            yield X[:2], Y[:2]

    with pytest.raises(ValueError, match="SqrtStepDecay must know how many steps .* give `steps_per_epoch`"):
        build().fit(batches(), callbacks=[SqrtStepDecay()], shuffle=False, verbose=0)
    given = {"steps_per_epoch": 4, "shuffle": False, "verbose": 0}
    history = build().fit(batches(), callbacks=[SqrtStepDecay()], **given).history
    assert history["learning_rate"][-1] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InverseTimeDecay(0), "`rate` must be positive. Received: rate=0"),
        (lambda: InverseTimeDecay(math.nan), "`rate` must be positive"),
        (lambda: ExponentialDecay(1.0), "`rate` must lie between 0 and 1"),
        (lambda: SqrtEpochDecay(-1), "`k` must be positive"),
        (lambda: SqrtStepDecay(0), "`k` must be positive"),
        (lambda: CosineDecay(0), "`epochs` must be at least 1"),
        (lambda: CosineDecay(2.5), "`epochs` must be .* a whole number. Received: epochs=2.5"),
        (lambda: CosineDecay(3, floor=-1), "`floor` must not be negative"),
        (lambda: CosineDecay(3, warmup=math.nan), "`warmup` must be at least 0. Received: warmup=nan"),
        (lambda: CosineDecay(3, warmup=-1), "`warmup` must be at least 0"),
        (lambda: CosineDecay(3, first_epoch=-1), "`first_epoch` must be at least 0"),
        (lambda: CosineDecay(3, warmup=3).begin(0.1), "leave something of the 3 epochs .* Received: warmup=3"),
        (lambda: CosineDecay(first_epoch=4).begin(0.1, epochs=4), "must begin before the last epoch"),
        (lambda: CosineDecay().begin(0.1), "must begin before the last epoch .* epochs=None"),
        (lambda: CosineDecay(3).rate(0), "not known before `fit`"),
        (lambda: InverseTimeDecay(1.0).preview(3), "`start` must be the rate"),
        (lambda: InverseTimeDecay(1.0).preview(0, start=0.1), "`epochs` must be at least 1"),
        (lambda: SqrtStepDecay().preview(3, start=0.1), "give `steps_per_epoch`"),
    ],
)
def test_a_decay_refuses_what_it_cannot_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_rate_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="`rate` must be a number. Received: rate='a'"):
        InverseTimeDecay("a")


class Fails(keras.callbacks.Callback):
    """Ends a fit by an error when a step of an epoch begins."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.now, batch) == (self.epoch, 1):
            raise RuntimeError("the disk is gone")


@pytest.mark.parametrize("again", ["the same decay", "another one"])
@pytest.mark.parametrize("epoch", [1, 3], ids=["in the warm-up", "behind it"])
@pytest.mark.parametrize("per_step", [False, True])
def test_after_an_error_a_second_fit_takes_the_rates_of_a_first_one(again, epoch, per_step):
    def make():
        return CosineDecay(floor=0.05, warmup=2, per_step=per_step)

    wanted, _ = fit(build(), make())
    model, decay = build(), make()
    with pytest.raises(RuntimeError, match="disk"):
        fit(model, decay, Fails(epoch))
    assert float(model.optimizer.learning_rate) != np.float32(0.1)
    taken, _ = fit(model, decay if again == "the same decay" else make())
    assert np.allclose(taken, wanted, atol=1e-6)
    assert float(model.optimizer.learning_rate) == np.float32(0.1)


def test_a_rate_that_was_set_after_an_error_is_the_start_of_the_next_fit():
    model = build(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=1.0))
    for rate in (0.1, 0.3):
        model.optimizer.learning_rate = rate
        with pytest.raises(RuntimeError, match="disk"):
            fit(model, ExponentialDecay(0.5), Fails(2))
    assert np.allclose(fit(model, ExponentialDecay(0.5), epochs=1)[0], 0.15, atol=1e-6)
    model.optimizer.learning_rate = 0.0375  # where the decay before the last one stood
    assert np.allclose(fit(model, ExponentialDecay(0.5), epochs=1)[0], 0.01875, atol=1e-6)


def test_a_preview_draws_the_rate_of_every_epoch():
    decay = InverseTimeDecay(1.0)
    figure = decay.preview(4, start=0.2)
    (axes,) = figure.axes
    x, y = axes.lines[0].get_data()
    assert np.allclose(x, [0, 1, 2, 3, 4])
    assert np.allclose(y[:4], [0.1, 0.2 / 3, 0.05, 0.04])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("training (epochs done)", "learning rate (size of a step)")
    assert axes.get_yscale() == "linear"
    assert decay.start is None  # nothing of the preview stays


def test_a_preview_of_steps_has_a_value_each_and_a_wide_one_a_log_axis():
    figure = SqrtStepDecay(0.1).preview(100, steps_per_epoch=200, start=1.0)
    (axes,) = figure.axes
    x, y = axes.lines[0].get_data()
    assert len(x) == 100 * 200 + 1 and x[-1] == 100
    assert y[-1] == pytest.approx(0.1 / math.sqrt(20_000))
    assert axes.get_yscale() == "log"
