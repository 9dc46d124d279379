"""One cycle: the rate up and down, the momentum down and up, in real fits against numpy."""

import json

import keras
import numpy as np
import pytest

from callbacks.one_cycle import OneCycle, move
from zoo.transfer.rates import scaled

STEPS, EPOCHS = 4, 3
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(2 * STEPS, 2)).astype("float32")
Y = (X @ [[1.0], [-2.0]]).astype("float32")
CYCLE = {"div": 10.0, "final_div": 100.0, "rise": 0.3, "momentum": (0.95, 0.5)}
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


def build(optimizer, **compiled):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.zeros((2, 1))])
    model.compile(optimizer, "mse", **compiled)
    return model


def fit(model, *callbacks, **given):
    given = {"epochs": EPOCHS, "batch_size": 2, "verbose": 0, "shuffle": False, **given}
    history = model.fit(X, Y, callbacks=list(callbacks), **given).history
    return model.get_weights()[0], history


def expected(kind, cycle=None):
    """The same fit in numpy, with the textbook's updates; `cycle` None leaves rate and momentum where they were."""
    w = np.zeros((2, 1))
    velocity, squares = np.zeros((2, 1)), np.zeros((2, 1))
    places = [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]
    for t, (epoch, step) in enumerate(places, start=1):
        rate, beta = (cycle.rate(epoch, step), cycle.momentum_at(epoch, step)) if cycle else (0.01, 0.9)
        x, y = X[2 * step : 2 * step + 2], Y[2 * step : 2 * step + 2]
        gradient = x.T @ (x @ w - y)  # of the mean over two pictures
        if kind == "adam":
            velocity = beta * velocity + (1 - beta) * gradient
            squares = 0.999 * squares + 0.001 * gradient**2
            w = w - rate * (velocity / (1 - beta**t)) / (np.sqrt(squares / (1 - 0.999**t)) + 1e-7)
        else:
            velocity = beta * velocity - rate * gradient
            w = w + (beta * velocity - rate * gradient if kind == "nesterov" else velocity)
    return w


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_rate_and_momentum_change_the_updates_of_their_fit_alone(kind):
    model, cycle = build(OPTIMIZERS[kind]()), OneCycle(0.05, **CYCLE)
    plain = expected(kind)
    cycled = expected(kind, cycle.begin(0.01, EPOCHS, STEPS))
    assert np.abs(plain - cycled).max() > 0.01
    # each fit must be free of what the one before compiled
    for callbacks, wanted in (([], plain), ([cycle], cycled), ([], plain)):
        start_anew(model, count=kind == "adam")
        weights, _ = fit(model, *callbacks)
        assert np.allclose(weights, wanted, atol=1e-5)
    assert float(model.optimizer.learning_rate) == np.float32(0.01)
    assert getattr(model.optimizer, "beta_1" if kind == "adam" else "momentum") == 0.9


def start_anew(model, count):
    """Weights and momenta at 0, and the optimizer's count of steps where it is to be as well."""
    model.set_weights([np.zeros((2, 1))])
    for variable in model.optimizer.variables:
        if variable.path.endswith(("momentum", "velocity")) or (count and variable.path.endswith("iteration")):
            variable.assign(np.zeros(variable.shape))


def test_momentum_none_leaves_the_optimizers_own_alone():
    model = build(keras.optimizers.SGD(0.01, momentum=0.9), run_eagerly=True)
    given = {**CYCLE, "momentum": None}
    weights, _ = fit(model, cycle := OneCycle(0.05, **given))

    class Kept:
        rate = staticmethod(cycle.rate)
        momentum_at = staticmethod(lambda epoch, step: 0.9)

    assert np.allclose(weights, expected("sgd", Kept), atol=1e-5)
    with pytest.raises(ValueError, match="no momentum to tell"):
        cycle.momentum_at(0, 0)


def test_rate_and_momentum_reach_an_optimizer_with_rates_by_stage():
    picture = keras.Input((1,), name="image")
    stage = keras.layers.Dense(1, use_bias=False, name="stage1_dense")(picture)
    head = keras.layers.Dense(1, use_bias=False, name="head_dense")(picture)
    model = keras.Model(picture, keras.layers.Add(name="head_add")([stage, head]))
    model.set_weights([np.zeros((1, 1))] * 2)
    optimizer = scaled(keras.optimizers.SGD(0.01, momentum=0.9), model, 0.5)
    model.compile(optimizer, lambda y_true, y_pred: keras.ops.mean(y_pred, axis=-1))  # both gradients are 1
    cycle = OneCycle(0.05, **CYCLE)
    model.fit(np.ones((6, 1)), np.ones((6, 1)), batch_size=1, verbose=0, callbacks=[cycle])
    way = speed = 0.0
    for step in range(6):
        speed = cycle.momentum_at(0, step) * speed - cycle.rate(0, step)
        way += speed
    assert np.allclose(np.ravel(model.get_weights()), [way / 2, way], atol=1e-6)


def test_the_momentum_moves_inside_a_loss_scale():
    inner = keras.optimizers.SGD(0.01, momentum=0.9)
    cycle = OneCycle(0.05, **CYCLE)
    weights, _ = fit(build(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0)), cycle)
    assert np.allclose(weights, expected("sgd", cycle), atol=1e-5)
    assert inner.momentum == 0.9


@pytest.mark.parametrize("name", ["Adam", "AdamW", "Adamax", "Nadam", "Lamb", "Lion"])
def test_a_moved_beta_1_acts_like_one_of_the_optimizers_own(name):
    kind = getattr(keras.optimizers, name)

    def steps(optimizer, moved=None):
        weight = keras.Variable(np.ones(2, "float32"))
        if moved is not None:
            move(optimizer, lambda iteration: keras.ops.where(iteration < 9, moved, 0.0))
        for gradient in ([1.0, -1.0], [-0.05, 0.04], [0.3, 0.2]):
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
        return keras.ops.convert_to_numpy(weight)

    assert np.allclose(steps(kind(0.1), moved=0.6), steps(kind(0.1, beta_1=0.6)), atol=1e-6)
    assert np.abs(steps(kind(0.1)) - steps(kind(0.1, beta_1=0.6))).max() > 1e-3


def test_the_cycle_reaches_its_three_rates():
    cycle = OneCycle(1.0).begin(0.1, epochs=10, steps=8)
    rates = [cycle.rate(epoch, step) for epoch in range(10) for step in range(8)]
    assert (rates[0], rates[-1]) == pytest.approx((1 / 25, 1e-5))
    assert int(np.argmax(rates)) == round(0.25 * 79)
    assert (np.diff(rates[:20]) > 0).all() and (np.diff(rates[20:]) < 0).all()
    assert cycle.rate(10, 0) == rates[-1]  # behind the end, nothing moves


def test_the_cycle_spans_the_fit_from_its_first_epoch_on():
    cycle = OneCycle(0.3, first_epoch=2, momentum=None)
    model = build(keras.optimizers.SGD(0.01), run_eagerly=True)
    _, history = fit(model, cycle, initial_epoch=2, epochs=5)
    same = OneCycle(0.3, momentum=None).begin(0.01, epochs=3, steps=STEPS)
    assert np.allclose(history["learning_rate"], [same.rate(epoch, STEPS - 1) for epoch in range(3)], rtol=1e-5)
    assert cycle.rate(0, 0) == pytest.approx(0.3 / 25)


def test_a_fit_of_one_step_has_a_cycle():
    model = build(keras.optimizers.SGD(0.01, momentum=0.9), run_eagerly=True)
    history = model.fit(X[:2], Y[:2], verbose=0, callbacks=[OneCycle(0.3)]).history
    assert np.isfinite(model.get_weights()[0]).all()
    assert history["learning_rate"] == pytest.approx([0.3])


def test_the_iterations_of_a_resumed_fit_tell_the_momentum():
    model = build(keras.optimizers.SGD(0.01, momentum=0.9), run_eagerly=True)
    cycle = OneCycle(0.05, **CYCLE)
    weights, known = [], {}

    def watch(epoch, step):
        if (epoch, step) == (1, 2):  # in the middle of an epoch
            known["state"] = json.loads(json.dumps(cycle.get_state()))
            weights[:] = model.get_weights()
            known["variables"] = [np.array(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]

    place = []
    begin = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: place.append(epoch),
        on_train_batch_begin=lambda step, logs: watch(place[-1], step),
    )
    whole, _ = fit(model, cycle, begin)

    again = OneCycle(0.05, **CYCLE)
    model = build(keras.optimizers.SGD(0.01, momentum=0.9), run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    again.set_model(model)
    again.set_params({"epochs": EPOCHS, "steps": STEPS})
    again.on_train_begin()
    model.set_weights(weights)
    for variable, value in zip(model.optimizer.variables, known["variables"], strict=True):
        variable.assign(value)
    again.set_state(known["state"])
    for epoch in range(1, EPOCHS):
        again.on_epoch_begin(epoch)
        for step in range(STEPS):
            again.on_train_batch_begin(step)
            if (epoch, step) >= (1, 2):
                model.train_on_batch(X[2 * step : 2 * step + 2], Y[2 * step : 2 * step + 2])
    again.on_train_end()
    assert np.allclose(model.get_weights()[0], whole, atol=1e-6)
    assert float(model.optimizer.learning_rate) == np.float32(0.01)


def test_a_fit_that_failed_leaves_no_second_momentum_behind():
    model = build(keras.optimizers.SGD(0.01, momentum=0.9), run_eagerly=True)

    def fail(batch, logs):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fit(model, OneCycle(0.05), keras.callbacks.LambdaCallback(on_train_batch_end=fail))
    start_anew(model, count=False)
    weights, _ = fit(model, cycle := OneCycle(0.05, **CYCLE))
    assert np.allclose(weights, expected("sgd", cycle), atol=1e-5)


def test_a_model_saved_within_the_fit_holds_a_plain_optimizer(tmp_path):
    model = build(keras.optimizers.SGD(0.01, momentum=0.9))
    path = tmp_path / "model.keras"
    fit(model, OneCycle(0.05), keras.callbacks.ModelCheckpoint(path))
    loaded = keras.models.load_model(path)
    assert loaded.optimizer.momentum == 0.9
    kept = [tuple(variable.shape) for variable in model.optimizer.variables]
    assert [tuple(variable.shape) for variable in loaded.optimizer.variables] == kept
    assert np.allclose(loaded.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (lambda: keras.optimizers.Adagrad(0.01), "Adagrad"),
        (lambda: keras.optimizers.RMSprop(0.01, momentum=0.9), "RMSprop"),
        (lambda: keras.optimizers.SGD(0.01), r"SGD\(momentum=0\)"),
    ],
)
def test_an_optimizer_whose_momentum_cannot_move_is_refused(make, received):
    with pytest.raises(ValueError, match=f"Received: {received}; leave it out with momentum=None"):
        fit(build(make()), OneCycle(0.05))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"highest": 0}, "`highest` must be positive"),
        ({"div": 0.5}, "`div` must be at least 1"),
        ({"final_div": 0}, "`final_div` must be at least 1"),
        ({"rise": 1.0}, "`rise` must lie between 0 and 1"),
        ({"momentum": (0.85, 0.95)}, "highest and its lowest value"),
        ({"momentum": (0.95,)}, "highest and its lowest value"),
        ({"momentum": 0.9}, "highest and its lowest value.* Received: momentum=0.9"),
        ({"first_epoch": -1}, "`first_epoch` must be at least 0"),
    ],
)
def test_one_cycle_refuses_what_it_cannot_do(given, message):
    with pytest.raises(ValueError, match=message):
        OneCycle(**{"highest": 1.0, **given})


def test_a_preview_shows_rate_and_momentum():
    figure = OneCycle(0.1).preview(5, steps_per_epoch=20)
    rates, momenta = figure.axes
    assert rates.lines[0].get_ydata().max() == pytest.approx(0.1, rel=1e-2)
    assert rates.get_yscale() == "log"
    assert momenta.lines[0].get_ydata().min() == pytest.approx(0.85, rel=1e-2)
    assert "momentum" in momenta.get_ylabel()
    assert len(OneCycle(0.1, momentum=None).preview(5, steps_per_epoch=20).axes) == 1
