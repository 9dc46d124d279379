"""What the monitor sees of a fit, and that the fit does not see the monitor."""

import csv
import json
import math

import keras
import numpy as np
import pytest
from keras import layers

from callbacks.gradient_monitor import SHARE, GradientMonitor
from callbacks.gradient_probe import groups_of
from callbacks.syncing import synchronize

X = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")
EAGERLY = keras.backend.backend() == "tensorflow"  # quicker there for a few small steps


class Clock:
    """Goes on by a tick at each look."""

    def __init__(self, tick=1.0):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def network(*, activation="relu", depth=2, rate=0.1, optimizer=None, **settings):
    """Fully connected, 6 -> 8 -> ... -> 1, compiled."""
    keras.utils.set_random_seed(1)
    hidden = [layers.Dense(8, activation, name=f"dense{k}", **settings) for k in range(1, depth + 1)]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(1, name="last")], name="small")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(rate), loss, run_eagerly=EAGERLY)
    return model


def fit(model, *callbacks, epochs=1, **settings):
    return model.fit(X, Y, batch_size=8, shuffle=False, epochs=epochs, verbose=0, callbacks=[*callbacks], **settings)


def state_of(model):
    """Everything that a fit moves."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def test_a_fit_ends_on_the_same_bits_with_and_without_it():
    def fitted(*callbacks):
        keras.utils.set_random_seed(0)
        image = keras.Input((6, 6, 1))
        x = layers.Conv2D(4, 3, name="stem_conv")(image)
        x = layers.BatchNormalization(name="stem_bn")(x)
        x = layers.Dropout(0.5, name="stem_drop")(layers.ReLU(name="stem_act")(x))
        x = layers.GlobalAveragePooling2D(name="head_pool")(x)
        model = keras.Model(image, layers.Dense(1, "sigmoid", name="head_dense")(x))
        model.compile(keras.optimizers.Adam(), "binary_crossentropy", metrics=["accuracy"])
        pictures = np.repeat(X[:, None, :, None], 6, axis=1)
        history = model.fit(pictures, Y, batch_size=8, epochs=2, verbose=0, callbacks=[*callbacks]).history
        return state_of(model), history

    monitor = GradientMonitor((np.repeat(X[:4, None, :, None], 6, axis=1), Y[:4]), every=2)
    (watched, seen), (alone, expected) = fitted(monitor), fitted()

    for one, other in zip(watched, alone, strict=True):
        np.testing.assert_array_equal(one, other)
    assert seen == expected
    assert [(record["epoch"], record["step"]) for record in monitor.records] == [(1, 0), (1, 2), (2, 1)]
    assert list(monitor.verdicts) == ["stem", "head"]


def test_figures_are_those_of_the_loss_by_hand():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1, use_bias=False, kernel_regularizer="l2")])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    w = model.get_weights()[0].astype("float64")
    weight = np.linspace(0.5, 2, 24).astype("float32")
    monitor = GradientMonitor((X, Y, weight), every=1)

    model.fit(X, Y, sample_weight=weight, batch_size=24, verbose=0, callbacks=[monitor])

    errors = X @ w - Y
    gradient = 2 * X.T @ (weight[:, None] * errors) / 24 + 2 * 0.01 * w
    (record,) = monitor.records
    (figures,) = record["groups"].values()
    assert record["loss"] == pytest.approx((weight[:, None] * errors**2).mean() + 0.01 * (w**2).sum(), rel=1e-4)
    assert figures["gradient_norm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
    assert figures["weight_norm"] == pytest.approx(np.linalg.norm(w), rel=1e-5)
    assert figures["update_ratio"] == pytest.approx(0.5 * np.linalg.norm(gradient) / np.linalg.norm(w), rel=1e-3)
    assert figures["mean"] == pytest.approx((X @ w).mean(), rel=1e-3)
    assert figures["spread"] == pytest.approx((X @ w).std(), rel=1e-3)
    assert figures["dead"] is None


def test_dead_units_are_those_without_any_answer():
    model = network(depth=1)
    kernel, bias, *rest = model.get_weights()
    bias[:2] = -100  # of eight
    model.set_weights([kernel, bias, *rest])
    monitor = GradientMonitor((X, Y), every=1)

    fit(model, monitor)

    assert [record["groups"]["dense1"]["dead"] for record in monitor.records] == [0.25] * 3
    assert monitor.verdicts["dense1"] == "healthy"


@pytest.mark.parametrize(
    "settings, verdict",
    [
        ({"activation": "sigmoid", "depth": 10}, "vanishing"),
        (
            {"depth": 6, "kernel_initializer": keras.initializers.RandomNormal(stddev=8.0), "optimizer": "adam"},
            "exploding",
        ),
        ({"rate": 1e4}, "exploding"),
        ({"rate": math.inf}, "exploding"),
        ({"bias_initializer": keras.initializers.Constant(-50.0)}, "dead"),
        ({"kernel_initializer": "he_normal"}, "healthy"),
    ],
    ids=["deep sigmoids", "large weights", "large rate", "not finite", "large negative biases", "a good network"],
)
def test_verdicts_on_networks_that_have_the_trouble(settings, verdict):
    monitor = GradientMonitor((X, Y), every=1)

    fit(network(**settings), monitor)

    assert monitor.verdict == verdict, monitor.table
    if verdict == "vanishing":  # from the back to the front
        assert [monitor.verdicts[group] for group in ("dense1", "dense10", "last")] == [verdict, "healthy", "healthy"]


@pytest.mark.slow
def test_a_network_of_the_zoo_is_healthy():
    from zoo.models.registry import create

    keras.utils.set_random_seed(0)
    model = create("resnet20", classes=2, input_shape=(32, 32, 3))
    pictures = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)).astype("uint8")
    labels = np.arange(64) % 2
    pictures[labels == 1] //= 2
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    monitor = GradientMonitor((pictures[:16], labels[:16]), every=2)

    model.fit(pictures, labels, batch_size=16, epochs=2, verbose=0, callbacks=[monitor])

    assert monitor.verdicts == dict.fromkeys(["stem", "stage1", "stage2", "stage3", "head"], "healthy")
    assert all(
        figures["dead"] is not None for group, figures in monitor.records[0]["groups"].items() if group != "head"
    )


def test_groups_are_stages_where_names_say_so_and_layers_elsewhere():
    staged = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4, name="stem_a"),
            layers.ReLU(name="stem_act"),
            layers.Dense(4, name="stage1_a"),
            layers.Dense(1, name="head_dense"),
        ]
    )
    plain = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, name="a"), layers.ReLU(name="r"), layers.Dense(1, name="b")]
    )
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(4)], name="inner")
    nested = keras.Sequential([keras.Input((6,)), inner, layers.Dense(1, name="head_dense")])

    def names(model, **settings):
        return {group: [layer.name for layer in layers] for group, layers in groups_of(model, **settings).items()}

    assert names(staged) == {"stem": ["stem_a", "stem_act"], "stage1": ["stage1_a"], "head": ["head_dense"]}
    assert names(plain) == {"a": ["a", "r"], "b": ["b"]}
    assert names(nested) == {"inner": ["inner"], "head_dense": ["head_dense"]}
    assert names(plain, given={"all": ["b", "a"]}) == {"all": ["a", "b"]}
    staged.get_layer("stem_a").trainable = False
    assert names(staged) == {"stage1": ["stage1_a"], "head": ["head_dense"]}


@pytest.mark.parametrize(
    "groups, text", [({"a": ["dense9"]}, "dense9"), ({"a": ["last"], "b": ["last"]}, "twice.*last")]
)
def test_groups_that_cannot_be_are_refused_when_the_fit_begins(groups, text):
    with pytest.raises(ValueError, match=text):
        fit(network(), GradientMonitor((X, Y), groups=groups))


def test_the_tail_of_a_frozen_network_is_watched_by_features_or_by_pictures():
    model = network(depth=3)
    model.get_layer("dense1").trainable = False
    left, right = (model.get_layer(name).output for name in ("dense1", "dense2"))
    model.get_layer("dense2").trainable = False
    joined = layers.Dense(1, name="joined")(layers.Add(name="add")([left, right]))
    whole = keras.Model(model.inputs, joined)
    tail = keras.Model((left, right), joined)
    features = keras.Model(model.inputs, (left, right)).predict(X, verbose=0)
    monitors = [GradientMonitor((tuple(features), Y), every=1), GradientMonitor((X, Y), every=1, model=whole)]
    tail.compile("sgd", "mse")

    tail.fit(tuple(features), Y, batch_size=24, verbose=0, callbacks=monitors)

    by_features, by_pictures = (monitor.records[0]["groups"] for monitor in monitors)
    assert list(by_features) == list(by_pictures) == ["joined"]
    for key, value in by_features["joined"].items():
        assert by_pictures["joined"][key] == (value if value is None else pytest.approx(value, rel=1e-4)), key
    with pytest.raises(ValueError, match="made of the same layers"):
        tail.fit(tuple(features), Y, verbose=0, callbacks=[GradientMonitor((X, Y), model=network())])


def test_a_model_that_is_no_graph_shows_gradients_and_ratios():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = keras.Sequential([layers.Dense(4, "relu")], name="inner")
            self.dense = layers.Dense(1, name="dense")

        def call(self, x):
            return self.dense(self.inner(x))

    model = Own()  # not built yet: on TensorFlow the first step does that
    model.compile("sgd", "mse")
    monitor = GradientMonitor((X, Y), every=1)

    fit(model, monitor)

    figures = monitor.records[-1]["groups"]["inner"]
    assert figures["gradient_norm"] > 0 and figures["update_ratio"] > 0
    assert figures["dead"] is figures["mean"] is figures["spread"] is None
    assert monitor.verdict == "healthy"


@pytest.mark.parametrize("scale", [2.0**10, 2.0**60], ids=["a usual scale", "a scale that overflows"])
def test_gradients_in_float16_are_those_of_the_unscaled_loss(scale):
    def gradients(policy, optimizer):
        with_policy = network(optimizer=optimizer, dtype=policy)
        monitor = GradientMonitor((X, Y), every=1)
        fit(with_policy, monitor)
        return [figures["gradient_norm"] for figures in monitor.records[0]["groups"].values()]

    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=scale)

    np.testing.assert_allclose(gradients("mixed_float16", scaled), gradients("float32", None), rtol=0.02)


def test_the_logs_of_several_losses_are_those_of_a_fit_without_it():
    def history(*callbacks):
        keras.utils.set_random_seed(0)
        image = keras.Input((6,))
        outputs = {"a": layers.Dense(1, name="a")(image), "b": layers.Dense(2, name="b")(image)}
        model = keras.Model(image, outputs)
        model.compile("sgd", {"a": "mse", "b": "mae"}, metrics={"a": ["mae"]})
        y = {"a": Y, "b": X[:, :2]}
        return model.fit(X, y, batch_size=8, shuffle=False, epochs=2, verbose=0, callbacks=[*callbacks]).history

    monitor = GradientMonitor((X, {"a": Y, "b": X[:, :2]}), every=1)

    assert history(monitor) == history()
    assert len(monitor.records) == 6


def test_probes_come_every_n_steps_over_epochs_and_executions():
    model = network(rate=0.01)
    monitor = GradientMonitor((X, Y), every=2)
    fit(model, monitor, epochs=2)
    assert [(record["epoch"], record["step"]) for record in monitor.records] == [(1, 0), (1, 2), (2, 1)]

    model.compile(keras.optimizers.SGD(0.01), "mse", steps_per_execution=2)
    fit(model, monitor, epochs=2)  # steps 0-1, 2, 3-4, 5 of the whole fit
    assert [(record["epoch"], record["step"]) for record in monitor.records] == [(1, 0), (1, 2), (2, 0)]


def test_the_ratio_is_that_of_one_step_of_an_execution():
    ratios = []
    for steps in (1, 2):
        model = network(rate=1e-3)
        model.compile(keras.optimizers.SGD(1e-3), "mse", steps_per_execution=steps)
        monitor = GradientMonitor((X, Y), every=100)
        model.fit(np.tile(X, (2, 1)), np.tile(Y, (2, 1)), batch_size=24, shuffle=False, verbose=0, callbacks=[monitor])
        ratios.append(monitor.records[0]["groups"]["last"]["update_ratio"])

    assert ratios[0] == pytest.approx(ratios[1], rel=0.05)


def test_probes_by_the_clock_keep_to_their_share():
    clock = Clock()
    monitor = GradientMonitor((X, Y), clock=clock)
    monitor.set_params({"steps": 100, "epochs": 20})
    monitor.set_model(network())
    monitor.on_train_begin()
    positions = []
    for epoch in range(15):
        monitor.on_epoch_begin(epoch)
        for step in range(100):
            monitor.on_train_batch_begin(step)
            clock.now += 3  # the step
        monitor.on_epoch_end(epoch)
        positions += [(record["epoch"], record["step"]) for record in monitor.records[len(positions) :]]

    assert SHARE / 2 < sum(monitor._costs) / clock.now <= SHARE
    assert len(positions) > 50
    assert (1, 1) < positions[0] < (6, 0)  # not before the first step, nor when all is over


def test_a_short_fit_has_one_record_that_is_complete():
    monitor = GradientMonitor((X, Y))

    fit(network(), monitor, epochs=2)

    assert [(record["epoch"], record["step"]) for record in monitor.records] == [(2, 2)]
    assert monitor.records[0]["groups"]["last"]["update_ratio"] > 0


def test_a_fit_that_is_stopped_early_has_a_record_without_a_step():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    monitor = GradientMonitor((X, Y))

    fit(network(), Stop(), monitor, epochs=9)

    (record,) = monitor.records
    assert record["groups"]["last"]["update_ratio"] is None
    assert monitor.verdict == "healthy"


class Interruption(keras.callbacks.Callback):
    """Keeps weights and the monitor's state in front of a step, as a checkpoint does; or puts them back."""

    def __init__(self, monitor, at, kept=None):
        super().__init__()
        self.monitor, self.at, self.kept = monitor, at, kept

    def on_train_begin(self, logs=None):
        if self.kept:
            self.monitor.set_state(json.loads(self.kept[1]))

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            synchronize(self.model)
            if self.kept:
                self.model.set_weights(self.kept[0])
            else:
                self.kept = self.model.get_weights(), json.dumps(self.monitor.get_state())


@pytest.mark.parametrize("at", [(1, 1), (1, 2)], ids=["in front of a step with a probe", "behind it"])
def test_a_fit_that_is_resumed_has_the_records_of_one_that_was_not(tmp_path, at):
    whole = GradientMonitor((X, Y), every=2, path=tmp_path / "whole.csv")
    interruption = Interruption(whole, at)
    fit(network(), whole, interruption, epochs=3)

    resumed = GradientMonitor((X, Y), every=2, path=tmp_path / "resumed.csv")
    (tmp_path / "resumed.csv").write_bytes((tmp_path / "whole.csv").read_bytes()[:-5])  # later rows, the last one torn
    restoration = Interruption(resumed, at, interruption.kept)
    model = network(rate=0.1)
    model.fit(
        X,
        Y,
        batch_size=8,
        shuffle=False,
        epochs=3,
        initial_epoch=1,
        verbose=0,
        callbacks=[_First(restoration), resumed],
    )

    assert resumed.records == whole.records
    assert len(whole.records) == 5
    assert (tmp_path / "resumed.csv").read_text() == (tmp_path / "whole.csv").read_text()


class _First(keras.callbacks.Callback):
    """Puts weights back before the monitor looks, and the state after it has begun."""

    def __init__(self, interruption):
        super().__init__()
        self.interruption = interruption

    def on_epoch_begin(self, epoch, logs=None):
        self.interruption.set_model(self.model)
        self.interruption.on_epoch_begin(epoch)
        if epoch == 1:
            self.interruption.on_train_begin()

    def on_train_batch_begin(self, batch, logs=None):
        self.interruption.on_train_batch_begin(batch)


def test_the_file_holds_the_table_and_earlier_epochs_stay(tmp_path):
    path = tmp_path / "new" / "gradients.csv"
    first = GradientMonitor((X, Y), every=1, path=path)
    fit(network(), first, epochs=2)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [[row[key] for key in ("epoch", "step", "group")] for row in rows] == [
        [str(row[key]) for key in ("epoch", "step", "group")] for row in first.table
    ]
    assert [float(row["gradient_norm"]) for row in rows] == [row["gradient_norm"] for row in first.table]
    assert {row["dead"] for row in rows if row["group"] == "last"} == {""}

    second = GradientMonitor((X, Y), every=1, path=path)
    fit(network(rate=math.inf), second, epochs=2, initial_epoch=1)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows[::3]] == [(e, s) for e in "12" for s in "012"]
    assert rows[-1]["gradient_norm"] == "nan"


def test_a_file_of_someone_else_is_left_alone(tmp_path):
    (tmp_path / "other.csv").write_text("epoch,loss\n1,2\n")

    with pytest.raises(ValueError, match="other.csv holds something else"):
        fit(network(), GradientMonitor((X, Y), path=tmp_path / "other.csv"))

    assert (tmp_path / "other.csv").read_text() == "epoch,loss\n1,2\n"


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"probe": X}, TypeError, r"\(x, y\).*ndarray"),
        ({"probe": (X, 3)}, TypeError, "arrays or tensors"),
        ({"probe": (X, Y[:3])}, ValueError, r"\[3, 24\]"),
        ({"probe": (X[:0], Y[:0])}, ValueError, r"\[0\]"),
        ({"probe": (X, Y), "every": 0}, ValueError, "every=0"),
        ({"probe": (X, Y), "every": "epoch"}, ValueError, "auto"),
        ({"probe": (X, Y), "model": "small"}, TypeError, "Keras model.*str"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        GradientMonitor(**arguments)
