import random

import keras
import numpy as np
import pytest
from keras import layers

from callbacks.early_stopping import EarlyStopping
from callbacks.rate_finder import LearningRateFinder, _longest_fall

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3)).astype("float32")
Y = np.argmax(X @ RNG.normal(size=(3, 3)) + 0.3 * RNG.normal(size=(80, 3)), axis=1)


EAGER = keras.backend.backend() == "tensorflow"  # for a few steps, the quicker way


def network(dtype="float32", **options):
    """Everything that has a state: batch normalisation, dropout, Adam, a metric."""
    keras.utils.set_random_seed(5)
    parts = [layers.Dense(8, dtype=dtype), layers.BatchNormalization(dtype=dtype), layers.ReLU(), layers.Dropout(0.2)]
    model = keras.Sequential([keras.Input((3,)), *parts, layers.Dense(3, activation="softmax")])
    optimizer = keras.optimizers.Adam(0.003)
    if dtype == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    return model


def line(rate=0.1, **options):
    """y = w * x from w = 1, which plain numbers can follow."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(rate), "mse", run_eagerly=EAGER, **options)
    return model


def softmax(*more):
    """Logistic regression of X and Y."""
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((3,)), *more, layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=EAGER)
    return model


class Careless(layers.Layer):
    """Draws from every generator there is."""

    def call(self, x):
        if EAGER:  # elsewhere Keras refuses it
            keras.random.normal((1,))
        return x + (random.random() + np.random.rand()) * 1e-3


def state(model):
    """Copies of all that a training step changes."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def same(before, after):
    return len(before) == len(after) and all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


class Batches(keras.utils.PyDataset):
    """Five batches that know what is done to them."""

    def __init__(self, broken=None):
        super().__init__()
        self.broken, self.hooks, self.read = broken, [], []

    def __len__(self):
        return 5

    def __getitem__(self, index):
        self.read.append(index)
        if len(self.read) == self.broken:
            raise OSError("the disk is gone")
        return X[16 * index :][:16], Y[16 * index :][:16]

    def on_epoch_begin(self):
        self.hooks.append("begin")

    def on_epoch_end(self):
        self.hooks.append("end")


def test_the_test_leaves_everything_as_it_was_and_repeats_itself():
    model = network()
    history = model.fit(X, Y, verbose=0)
    model.stop_training = "untouched"
    before = state(model)
    finder = LearningRateFinder(steps=30).find(model, X, Y, batch_size=16)
    assert same(before, state(model))
    assert model.history is history and model.stop_training == "untouched"
    losses = finder.losses
    assert np.array_equal(losses, finder.find(model, X, Y, batch_size=16).losses)
    assert not np.array_equal(losses[:10], finder.find(model, X, Y, batch_size=16, seed=1).losses[:10])
    assert same(before, state(model))


def test_the_random_states_of_python_numpy_and_keras_are_put_back():
    model = softmax(Careless())

    def draws():
        return random.random(), np.random.rand(), float(keras.random.normal((1,))[0])

    keras.utils.set_random_seed(1)
    wanted = draws()
    keras.utils.set_random_seed(1)
    LearningRateFinder(steps=10).find(model, X, Y)
    assert draws() == wanted


def test_an_optimizer_that_was_never_built_is_as_good_as_new():
    model = network(steps_per_execution=2)
    assert not model.optimizer.built
    finder = LearningRateFinder(steps=30).find(model, X, Y)
    assert len(finder.rates) <= 15  # an execution is a point
    fresh = keras.optimizers.Adam(0.003)
    fresh.build(model.trainable_variables)
    assert same([np.asarray(v) for v in fresh.variables], [np.asarray(v) for v in model.optimizer.variables])


def test_mixed_precision_is_put_back_with_its_loss_scale():
    model = network("mixed_float16")
    model.optimizer.build(model.trainable_variables)
    before = state(model)
    finder = LearningRateFinder(steps=10, highest=1e-2).find(model, X, Y)
    assert len(finder.losses) == 10 and np.all(np.isfinite(finder.losses))
    assert same(before, state(model)[: len(before)])
    assert float(model.optimizer.learning_rate) == np.float32(0.003)


def test_every_step_has_its_rate_and_its_own_loss():
    x = RNG.normal(size=(22, 1)).astype("float32")
    y = 3 * x
    model, finder = line(), LearningRateFinder(1e-3, 0.1, divergence=1000)
    model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[finder])
    rates = 1e-3 * 100 ** (np.arange(18) / 17)  # the range is spread over the steps that there are, in three epochs
    assert finder.rates == pytest.approx(rates)
    losses, w = [], 1.0
    for step, rate in enumerate(rates):
        part = slice(step % 6 * 4, step % 6 * 4 + 4)  # the sixth batch holds two examples
        losses.append(np.mean((w * x[part] - y[part]) ** 2))
        w -= rate * np.mean(2 * (w * x[part] - y[part]) * x[part])
    assert finder.losses == pytest.approx(losses, rel=1e-4)
    assert model.get_weights()[0] == 1
    assert float(model.optimizer.learning_rate) == np.float32(0.1)


def test_a_fit_ends_with_the_test_and_others_leave_nothing_of_its_weights():
    x = np.ones((40, 1), "float32")
    model, seen = line(), []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(model.get_weights()[0].item()))
    finder = LearningRateFinder(steps=15)
    data = {"validation_data": (x, 3 * x), "batch_size": 4, "epochs": 9, "verbose": 0}
    history = model.fit(x, 3 * x, callbacks=[watch, EarlyStopping("loss"), finder], **data).history
    assert len(finder.rates) <= 15 and len(seen) == 2
    assert seen[0] != 1 and seen[1] == 1 == model.get_weights()[0]
    assert history["val_loss"][1] == 4


def test_the_test_ends_where_the_loss_runs_away():
    x = np.ones((8, 1), "float32")
    model = line()
    finder = LearningRateFinder(1e-4, 1e4, steps=60).find(model, x, 3 * x, batch_size=8)
    assert 20 < len(finder.rates) < 60
    assert finder.smoothed[-1] > 4 * finder.smoothed.min()
    assert not np.any(finder.smoothed[:-1] > 4 * np.minimum.accumulate(finder.smoothed[:-1]))
    assert finder.suggestion == finder.valley is not None
    assert finder.why is None
    assert 1e-4 < finder.valley < 1 and 1e-4 < finder.steepest < 1  # beyond 1 each step makes it worse
    assert model.get_weights()[0] == 1


def test_a_loss_that_is_not_finite_ends_the_test():
    x = np.ones((8, 1), "float32")
    batches = [(x, x)] * 12 + [(x * np.nan, x)] + [(x, x)] * 20
    finder = LearningRateFinder(1e-4, 0.1, steps=30).find(line(), batches)
    assert len(finder.losses) == 12 and np.all(np.isfinite(finder.losses))
    first = LearningRateFinder(steps=10).find(line(), [(x * np.nan, x)])
    assert first.suggestion is None and "not finite" in first.why
    with pytest.raises(ValueError, match="nothing to plot: the loss was not finite"):
        first.plot()


def test_a_loss_that_never_falls_gives_no_suggestion_and_says_so():
    x = np.ones((8, 1), "float32")
    finder = LearningRateFinder(steps=20).find(line(), x, x)  # the weight is right already
    assert finder.suggestion is finder.valley is finder.steepest is None
    assert "never fell" in finder.why
    assert "never fell" in finder.plot().axes[0].get_title()


def test_the_suggestion_trains_better_than_rates_far_from_it():
    model = softmax()
    suggestion = LearningRateFinder(1e-5, 1e3, steps=60).find(model, X, Y, batch_size=16).suggestion
    start = model.get_weights()
    losses = []
    for rate in (suggestion / 100, suggestion, suggestion * 1000):
        model.set_weights(start)
        model.optimizer.learning_rate = rate
        losses.append(model.fit(X, Y, epochs=4, batch_size=16, verbose=0).history["loss"][-1])
    assert losses[1] < losses[0] and losses[1] < losses[2]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([5, 4, 6, 3, 2, 7, 1], (0, 6)), ([1, 2, 9, 8, 3, 4, 7], (2, 4)), ([1, 2, 3], (0, 0)), ([2, 2, 1], (0, 2))],
)
def test_the_longest_valley_steps_over_what_rises_in_between(values, wanted):
    assert _longest_fall(np.array(values)) == wanted


def test_a_dataset_is_read_by_index_and_over_again_and_keeps_its_place():
    data = Batches()
    model = softmax()
    finder = LearningRateFinder(highest=0.1, steps=12).find(model, data)
    assert data.hooks == []
    assert data.read[:12] == [index % 5 for index in range(12)]
    listed = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 80, 16)]
    assert np.array_equal(LearningRateFinder(highest=0.1, steps=12).find(model, listed).losses, finder.losses)


def test_an_exception_within_the_test_leaves_the_model_as_it_was():
    model = network(run_eagerly=EAGER)
    history = model.fit(X, Y, verbose=0)
    before = state(model)
    with pytest.raises(Exception, match="the disk is gone"):
        LearningRateFinder(steps=20).find(model, Batches(broken=12))
    assert same(before, state(model))
    assert model.history is history


def test_a_model_without_weights_is_built_from_the_data():
    model = keras.Sequential([layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=EAGER)
    x = np.ones((8, 2), "float32")
    assert len(LearningRateFinder(highest=0.1, steps=10).find(model, x, x[:, :1]).rates) == 10


def test_the_plot_shows_the_curve_and_both_suggestions():
    x = np.ones((8, 1), "float32")
    finder = LearningRateFinder(1e-4, 1e4, steps=60).find(line(), x, 3 * x)
    (axes,) = finder.plot().axes
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate", "loss")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"valley: {finder.valley:.2g}" in labels and f"steepest: {finder.steepest:.2g}" in labels
    marked = [entry for entry in axes.lines if entry.get_label().startswith("valley")]
    assert marked[0].get_xdata()[0] == finder.valley


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 0}, "`lowest` must be above 0"),
        ({"lowest": 1, "highest": 0.1}, "below `highest`"),
        ({"highest": float("inf")}, "`highest` must be finite"),
        ({"steps": 9}, "`steps` must be at least 10. Received: steps=9"),
        ({"steps": 10.5}, "`steps` must be at least 10, a whole number. Received: steps=10.5"),
        ({"divergence": 1}, "`divergence` must be above 1"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LearningRateFinder(**options)


def test_a_schedule_and_a_model_that_is_not_ready_are_refused():
    x = np.ones((8, 1), "float32")
    model = line(keras.optimizers.schedules.CosineDecay(0.1, 10))
    with pytest.raises(ValueError, match="schedule of its own"):
        LearningRateFinder().find(model, x, x)
    with pytest.raises(ValueError, match="must be compiled"):
        LearningRateFinder().find(keras.Sequential([layers.Dense(1)]), x, x)
    with pytest.raises(ValueError, match="nothing to plot: run `find` first"):
        LearningRateFinder().plot()


def test_data_that_are_no_batches_are_refused():
    x = np.ones((8, 1), "float32")
    finder, model = LearningRateFinder(), line()
    with pytest.raises(TypeError, match="Received: ndarray without `y`"):
        finder.find(model, x)
    with pytest.raises(TypeError, match="more than once.*not a generator. Received: generator"):
        finder.find(model, ((x, x) for _ in range(200)))
    with pytest.raises(TypeError, match=r"batches \(x, y\) or .* Received a batch: ndarray"):
        finder.find(model, [x, x])
    with pytest.raises(ValueError, match=r"equally many examples. Received: \[3, 8\]"):
        finder.find(model, x, x[:3])
    for empty in ((x[:0], x[:0]), ([],)):
        with pytest.raises(ValueError, match="no pictures"):
            finder.find(model, *empty)
