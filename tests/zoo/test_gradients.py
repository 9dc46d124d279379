"""Gradient check: right gradients pass, wrong ones are found in their layer, and the model stays as it was."""

import random

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, ops

import augment
from zoo.evaluation.float64 import in_float64, loss_of
from zoo.evaluation.gradients import GradientCheck, check_gradients
from zoo.models.registry import create

SIDE, CLASSES = 10, 4
DRAWS = np.random.default_rng(0)
X = DRAWS.uniform(0, 255, (8, SIDE, SIDE, 3)).astype("float32")
Y = np.array([0, 1, 2, 3, 0, 0, 1, 0])  # no class alike: where nothing is known, balance leaves no gradient


@keras.saving.register_keras_serializable("tests")
class Planted(layers.Layer):
    """A dense layer whose gradient is written by hand, and wrong where `bug` says so."""

    def __init__(self, units, bug="", **kwargs):
        super().__init__(**kwargs)
        self.units, self.bug = units, bug

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.bias = self.add_weight(shape=(self.units,), name="bias", initializer="zeros")

    def call(self, x):
        factors = {"doubled kernel": (1, 2, 1), "negated kernel": (1, -1, 1), "missing bias": (1, 1, 0)}
        factors |= {"stopped": (1, 0, 0), "halved input": (0.5, 1, 1), "one part in 5,000": (1, 1.0002, 1)}
        factors |= {"doubled bias": (1, 1, 2), "not a number": (1, float("nan"), 1)}
        by_input, by_kernel, by_bias = factors.get(self.bug, (1, 1, 1))

        @ops.custom_gradient
        def dense(x, kernel, bias):
            def gradient(*args, upstream=None):
                (g,) = args if upstream is None else (upstream,)
                return (
                    by_input * ops.matmul(g, ops.transpose(kernel)),
                    by_kernel * ops.matmul(ops.transpose(x), g),
                    by_bias * ops.sum(g, axis=0),
                )

            return ops.matmul(x, kernel) + bias, gradient

        return dense(x, self.kernel, self.bias)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "bug": self.bug}


def network(*middle, dtype=None, scale=1 / 127.5, offset=-1):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(scale, offset=offset, dtype=dtype),
            layers.Conv2D(6, 3, activation="relu", name="first", dtype=dtype),
            *middle,
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES, activation="softmax", name="last", dtype="float32"),
        ]
    )


def planted(bug):
    """The layer in question stands between two others."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(7, activation="gelu", name="before"),
            Planted(6, bug, name="mine"),
            layers.ReLU(),
            layers.Dense(CLASSES, name="behind"),
        ]
    )


def verdicts(check):
    return dict(zip(check.layers.layer, check.layers.verdict, strict=True))


def test_a_network_with_everything_that_draws_chance_is_right_and_repeats_to_the_bit():
    def build():
        return network(
            layers.BatchNormalization(name="norm"),
            layers.MaxPooling2D(),
            layers.SpatialDropout2D(0.3),
            layers.GaussianNoise(0.1),
            layers.Conv2D(4, 3, name="second", kernel_regularizer="l2"),
            layers.Dropout(0.5, name="drop"),
        )

    pictures = [augment.policy("medium", image_size=SIDE), layers.RandomRotation(0.1), layers.RandomContrast(0.2)]
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *pictures, *build().layers])

    first, again = (check_gradients(model, X, Y, seed=1) for _ in range(2))

    assert first.verdict in ("great", "acceptable") and first.suspect is None
    assert first.error < 1e-6
    assert first.layers.layer.tolist() == ["first", "norm", "second", "last"]
    assert first.layers.parameters.tolist() == [168, 12, 220, 20]
    assert first.layers.sampled.tolist() == [20, 12, 20, 20]
    assert first.layers.equals(again.layers) and first.error == again.error


@pytest.mark.parametrize(
    ("bug", "error"),
    [("doubled kernel", 1 / 3), ("negated kernel", 1), ("missing bias", 1), ("stopped", 1), ("not a number", 1)],
)
def test_a_planted_bug_is_found_in_its_layer_and_in_no_other(bug, error):
    check = check_gradients(planted(bug), X, Y)

    assert check.verdict == "look for a bug"
    assert check.suspect == "mine"
    found = verdicts(check)
    assert found.pop("mine") == "look for a bug"
    assert set(found.values()) <= {"great", "acceptable"}
    row = check.layers.set_index("layer").loc["mine"]
    assert row.error == pytest.approx(error, rel=1e-5)
    assert row.weight == ("bias" if "bias" in bug else row.weight)
    assert f"Look for a bug in 'mine' (its {row.weight})" in str(check)


def test_a_wrong_gradient_by_the_input_spoils_the_layers_before_and_the_words_say_where_to_look():
    check = check_gradients(planted("halved input"), X, Y)

    assert verdicts(check)["before"] == "look for a bug"
    assert {verdicts(check)[name] for name in ("mine", "behind")} <= {"great", "acceptable"}
    assert check.suspect == "before"
    assert "everything on the way from it to 'mine'" in check.sentences[0]


def test_what_happens_in_training_only_is_checked():
    class Stopping(layers.Layer):
        def call(self, x, training=False):
            return ops.stop_gradient(x) if training else x

    assert check_gradients(network(Stopping()), X, Y).suspect == "first"


def test_a_small_bug_is_suspect_and_no_bug_is_right():
    small = check_gradients(planted("one part in 5,000"), X, Y)
    assert small.verdict == verdicts(small)["mine"] == "suspect"
    assert small.suspect is None
    assert "1.0e-04 at 'mine'" in small.sentences[0]

    right, other = (check_gradients(planted(""), X, Y, seed=seed) for seed in (0, 1))
    assert {right.verdict, other.verdict} <= {"great", "acceptable"}
    assert right.error != other.error


def test_a_wrong_gradient_of_loss_or_penalty_is_found():
    def loss(y, outputs):
        return ops.sum(ops.stop_gradient(ops.square(y - outputs)) * outputs, axis=-1)

    found = check_gradients(planted(""), X, np.eye(CLASSES)[Y], loss)
    assert found.suspect == "behind" and "then in the loss" in found.sentences[0]

    model = network()
    model.get_layer("first").kernel.regularizer = lambda kernel: ops.sum(ops.stop_gradient(kernel) * kernel)
    found = check_gradients(model, X, Y)
    assert found.suspect == "first"
    assert verdicts(found)["last"] in ("great", "acceptable")


def test_kinks_are_left_out_and_excuse_no_bug():
    black = np.concatenate([X[:4], np.zeros_like(X[4:])])  # the hidden units of four pictures stand at 0 exactly

    def model(bug):
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [
                keras.Input((SIDE, SIDE, 3)),
                layers.Rescaling(1 / 255),
                layers.Flatten(),
                Planted(8, bug, name="mine"),
                layers.ReLU(),
                layers.Dense(CLASSES, name="behind"),
            ]
        )

    right = check_gradients(model(""), black, Y)
    kinks = right.layers.set_index("layer").kinks
    assert right.verdict in ("great", "acceptable")
    assert kinks["mine"] == 8 and kinks["behind"] == 0  # every bias, and no weight of the kernel
    assert "8 of 40 sampled parameters lie on a kink" in str(right)

    for bug in ("doubled bias", "doubled kernel", "missing bias"):
        wrong = check_gradients(model(bug), black, Y)
        assert wrong.verdict == "look for a bug" and wrong.suspect == "mine", bug


def test_the_model_and_keras_stay_as_they_were():
    inner = network(layers.BatchNormalization(), layers.Dropout(0.5))
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), augment.RandomNoise(), layers.RandomFlip(), *inner.layers])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model.compile("adam", loss, metrics=["accuracy"])
    model(X, training=True)  # takes seeds and statistics off their first values
    model.get_layer("last").bias.trainable = False
    before = [np.array(ops.convert_to_numpy(variable)) for variable in model.variables]
    assert len(before) > len(model.weights)  # seeds and counters are among them
    flags = [(variable.dtype, variable.trainable) for variable in model.variables]
    random.seed(5)
    chance = random.getstate()

    check_gradients(model, X, Y)
    with pytest.raises(ValueError, match="loss"):
        check_gradients(model, X, Y, lambda y, outputs: ops.cast(ops.mean(outputs), "float32"))

    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    assert [(variable.dtype, variable.trainable) for variable in model.variables] == flags
    assert model.loss is loss and loss.dtype == "float32"
    assert random.getstate() == chance
    assert keras.config.floatx() == "float32" and keras.config.dtype_policy().name == "float32"


def test_frozen_layers_are_named_and_not_checked():
    model = planted("doubled kernel")
    model.get_layer("mine").trainable = False
    model.get_layer("behind").kernel.trainable = False

    check = check_gradients(model, X, Y)

    rows = check.layers.set_index("layer")
    assert rows.verdict["mine"] == "frozen" and rows.sampled["mine"] == 0 and np.isnan(rows.error["mine"])
    assert rows.parameters["behind"] == 28 and rows.sampled["behind"] == CLASSES
    assert check.verdict in ("great", "acceptable")
    assert "'mine'" not in str(check) and "and 1 frozen, not checked" in str(check)

    model.trainable = False
    with pytest.raises(ValueError, match="no weights that train; unfreeze some"):
        check_gradients(model, X, Y)


def test_models_in_models_and_mixed_precision_are_checked_in_float64_all_through():
    keras.utils.set_random_seed(0)
    deep = layers.Conv2D(4, 3, name="deep", dtype="mixed_bfloat16")
    inner = keras.Sequential([keras.Input((8, 8, 6)), deep], name="in")
    model = network(inner, layers.BatchNormalization(name="norm"), dtype="mixed_bfloat16")

    check = check_gradients(model, X, Y)

    assert check.layers.layer.tolist() == ["first", "in/deep", "norm", "last"]
    assert check.error < 1e-6


class Narrow(layers.Layer):
    """Not registered, and float32 inside whatever it is told."""

    def __init__(self, way, **kwargs):
        super().__init__(**kwargs)
        self.way = way

    def build(self, shape):
        dtype = "float32" if self.way == "weight" else None
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain", dtype=dtype)

    def call(self, x):
        if self.way == "weight":
            return x * ops.cast(self.gain, x.dtype)
        narrow = ops.tanh(ops.cast(x, "float32"))
        return narrow if self.way == "output" else ops.cast(narrow, x.dtype) * ops.cast(ops.sign(self.gain), x.dtype)

    def get_config(self):
        return {**super().get_config(), "way": self.way}


@pytest.mark.parametrize(
    ("way", "what"),
    [
        ("weight", "its weight 'gain' is float32"),
        ("output", "its output is float32"),
        ("inside", "its output has no more digits than float32"),
    ],
)
def test_what_stays_float32_is_named(way, what):
    with pytest.raises(ValueError, match=f"Layer 'narrow' does not compute in float64, which differences need: {what}"):
        check_gradients(network(Narrow(way, name="narrow")), X, Y)


def test_a_layer_that_cannot_be_rebuilt_or_draws_chance_of_its_own_is_refused():
    class Nameless(layers.Layer):
        def __init__(self, gain):
            super().__init__(name="nameless")
            self.gain = gain

        def call(self, x):
            return x * self.gain

    class Chance(layers.Layer):
        def call(self, x):
            return x * random.random()

    with pytest.raises(ValueError, match="Layer 'nameless' cannot be rebuilt in float64. .*get_config"):
        check_gradients(network(Nameless(2.0)), X, Y)
    with pytest.raises(ValueError, match="The loss must be the same whenever it is computed"):
        check_gradients(network(Chance()), X, Y)


def test_every_form_of_loss_and_labels_gives_the_loss_it_stands_for_in_float64():
    logits = DRAWS.normal(size=(8, CLASSES))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = np.eye(CLASSES)[Y]
    entropy = -np.log(chances[np.arange(8), Y]).mean()
    smooth = -(np.log(chances) * (0.8 * rows + 0.2 / CLASSES)).sum(axis=1).mean()
    square = ((rows - logits) ** 2).mean()
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    softened = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    model, compiled = planted(""), planted("")
    compiled.compile("sgd", softened)

    class Squares(keras.losses.Loss):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, y_true, y_pred):
            return self.factor * ops.mean(ops.square(y_true - y_pred), axis=-1)

    def by_hand(y, outputs):
        return -ops.take_along_axis(ops.log_softmax(outputs), ops.reshape(y, (-1, 1)), axis=1)

    cases = [(model, None, Y, entropy), (model, None, rows, entropy), (model, sparse, rows, entropy)]
    cases += [(model, by_hand, Y, entropy), (model, softened, Y, smooth), (compiled, None, Y, smooth)]
    cases += [(compiled, "mse", Y, square), (model, keras.losses.MeanSquaredError(), rows, square)]
    cases += [(model, Squares(3), rows, 3 * square)]
    with in_float64():
        for network, loss, y, expected in cases:
            value = loss_of(network, loss, y, CLASSES)(ops.convert_to_tensor(logits))
            assert keras.backend.standardize_dtype(value.dtype) == "float64"
            assert float(value) == pytest.approx(expected, rel=1e-12)
        general = loss_of(model, keras.losses.CategoricalGeneralizedCrossEntropy(q=0.5), Y, CLASSES)  # takes indices
        expected = ((1 - chances[np.arange(8), Y] ** 0.5) / 0.5).mean()
        assert float(general(ops.convert_to_tensor(chances))) == pytest.approx(expected, rel=1e-12)
    assert sparse.dtype == softened.dtype == "float32"


def test_a_part_that_nothing_depends_on_gets_no_gradient_and_that_is_said():
    model = network(layers.Rescaling(1.0, offset=-1e6), layers.ReLU())

    check = check_gradients(model, X, Y)

    row = check.layers.set_index("layer").loc["first"]
    assert row.verdict == "no gradient" and row.error == 0
    assert "No gradient reaches 'first'" in str(check)
    assert check.verdict in ("great", "acceptable")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y": Y[:3]}, "`x` and `y` must have a row a picture each. Received: 8 pictures, and y of shape"),
        ({"y": Y + 1}, "`y` must hold class indices from 0 to 3, or rows of 4 numbers. Received: .* from 1 to 4"),
        ({"y": np.full((8, CLASSES), 0.25), "loss": "sparse_categorical_crossentropy"}, "Received: soft labels"),
        ({"x": X[:, :5]}, "`x` must have the shape of the model's input, .* Received: shape"),
        ({"x": np.full_like(X, np.nan)}, "`x` must hold finite numbers"),
        ({"x": X[:0], "y": Y[:0]}, "must have a row a picture each"),
        ({"loss": lambda y, outputs: ops.mean(outputs) * float("inf")}, "must be a finite number. Received: -?inf"),
        ({"loss": ["mse", "mae"]}, "`loss` must be a single loss. Received: 2"),
        ({"sample": 0}, "`sample` must be a whole number of at least 1. Received: sample=0"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0. Received: seed=-1"),
    ],
)
def test_bad_input_is_told_in_a_sentence(changed, message):
    with pytest.raises(ValueError, match=message):
        check_gradients(**{"model": planted(""), "x": X, "y": Y, **changed})


def test_the_text_fits_a_screen_with_the_worst_layers_first_and_names_are_escaped():
    table = pd.DataFrame(
        {
            "layer": [f"<b>{'long' * 20}_{i}" for i in range(40)],
            "parameters": 1_000_000,
            "sampled": 20,
            "error": 1e-9,
            "kinks": 1,
            "verdict": "great",
            "weight": "kernel",
        }
    )
    table.loc[30, ["error", "verdict"]] = 0.4, "look for a bug"
    table.loc[35, ["error", "verdict"]] = 2e-4, "suspect"
    check = GradientCheck("mine", 8, 0.1, table)

    lines = str(check).splitlines()

    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    assert [line.split()[-1] for line in lines[3:6]] == ["bug", "suspect", "great"]
    assert any(line.strip() == "and 16 more, all great" for line in lines)
    assert "<b>" not in check._repr_html_() and "&lt;b&gt;long" in check._repr_html_()


LARGE = [pytest.param(name, marks=pytest.mark.long) for name in ("inception_small", "mobilenet_v2")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnet", "resnet20", *LARGE])
def test_networks_of_the_zoo_are_right_at_random_weights(name):
    keras.utils.set_random_seed(0)
    model = create(name, classes=CLASSES, input_shape=(32, 32, 3), dropout=0.2, l2=1e-4)
    pictures = DRAWS.uniform(0, 255, (4, 32, 32, 3))

    check = check_gradients(model, pictures, Y[:4], sample=2)

    assert check.verdict in ("great", "acceptable"), str(check)
    assert len(check.layers) == sum(bool(layer.trainable_weights) for layer in model.layers)
