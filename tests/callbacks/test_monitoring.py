import math

import keras
import numpy as np
import pytest

from callbacks.monitoring import direction_of, improves, value_of


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_loss", "min"),
        ("val_accuracy", "max"),
        ("val_f1_score", "max"),
        ("mean_squared_error", "min"),
        ("categorical_crossentropy", "min"),
        ("mae", "min"),
        ("auc", "max"),
    ],
)
def test_the_direction_is_read_from_the_name(name, direction):
    assert direction_of(name) == direction


def test_a_name_without_a_direction_asks_for_one():
    with pytest.raises(ValueError, match="'val_wobble' does not tell whether more is better"):
        direction_of("val_wobble")
    assert direction_of("val_wobble", "max") == "max"


def test_a_direction_that_is_no_direction_is_refused():
    with pytest.raises(ValueError, match='`direction` must be "max", "min" or None. Received: direction=\'up\''):
        direction_of("val_loss", "up")


def test_a_metric_knows_better_than_its_name():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae", keras.metrics.R2Score(name="loss_explained")])
    asked = []
    ask = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: asked.append(direction_of("val_loss_explained", None, model)),
        on_epoch_end=lambda epoch, logs: asked.append(direction_of("val_loss_explained", None, model)),
    )
    model.fit(np.eye(4, 2), np.arange(4.0)[:, None], verbose=0, callbacks=[ask])
    assert asked == ["max", "max"]  # before Keras made its metrics, and after
    assert direction_of("val_loss_explained") == "min"
    assert direction_of("val_loss_explained", "min", model) == "min"


def test_a_metric_of_one_of_several_outputs_is_found():
    image = keras.Input((2,))
    model = keras.Model(image, [keras.layers.Dense(1, name=name)(image) for name in ("left", "right")])
    model.compile("sgd", ["mse", "mse"], metrics=[[keras.metrics.BinaryAccuracy(name="hit")], ["mae"]])
    assert direction_of("val_left_hit", None, model) == "max"
    with pytest.raises(ValueError, match="'val_top_hit' does not tell"):
        direction_of("val_top_hit", None, model)


def test_a_value_that_is_not_logged_is_an_error_that_lists_those_that_are():
    with pytest.raises(ValueError, match="no metric 'val_loss'. They hold: accuracy, loss. .* needs validation data"):
        value_of("val_loss", {"loss": 1.0, "accuracy": 0.5})


def test_a_value_is_a_single_number():
    assert value_of("f1", {"f1": np.array([0.5], "float32")}) == 0.5
    with pytest.raises(ValueError, match=r"'f1' must be a single number to be watched. .*\(3,\)"):
        value_of("f1", {"f1": np.zeros(3)})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("direction", ["max", "min"])
def test_what_is_not_finite_is_never_better(value, direction):
    assert not improves(value, None, direction)
    assert not improves(value, 1.0, direction)


def test_better_is_better_by_more_than_min_delta():
    assert improves(0.5, None, "min", 9.0)
    assert improves(0.5, 1.0, "min", 0.4) and not improves(0.5, 1.0, "min", 0.5)
    assert improves(1.0, 0.5, "max", 0.4) and not improves(0.5, 1.0, "max")
    assert not improves(1.0, 1.0, "min")
