"""Temperature and calibration: what the new model says, what it shares with the old one, and which number is fitted."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy.optimize import root_scalar
from scipy.special import softmax
from sklearn.datasets import load_digits

from zoo.evaluation.calibration import calibrate
from zoo.evaluation.predictions import Evaluation
from zoo.models.outputs import gives_logits
from zoo.models.registry import create
from zoo.models.stages import stage_of
from zoo.models.temperature import temperature_of, with_temperature, without_softmax
from zoo.transfer.cutting import split_frozen
from zoo.transfer.freezing import freeze

PIXELS = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype(np.float32)


def small(*end, dtype=None):
    """A convolution and pooling with the given end, of outputs that do not saturate."""
    keras.utils.set_random_seed(1)
    begin = [keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layers.Conv2D(6, 3), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([*begin, *end], name="small")
    dense = next(layer for layer in model._flatten_layers() if isinstance(layer, layers.Dense))
    dense.kernel.assign(4 * np.random.default_rng(2).normal(size=dense.kernel.shape))
    return model


def with_operation():
    model = small(layers.Dense(3))
    return keras.Model(model.inputs[0], keras.ops.softmax(model.outputs[0]))


def in_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return small(layers.Dense(3), layers.Activation("softmax", dtype="float32"))
    finally:
        keras.config.set_dtype_policy("float32")


ENDS = {
    "dense layer": lambda: small(layers.Dense(3, activation="softmax", name="mine")),
    "activation": lambda: small(layers.Dense(3), layers.Activation("softmax")),
    "softmax layer": lambda: small(layers.Dense(3), layers.Softmax()),
    "operation": with_operation,
    "cast behind": lambda: small(layers.Dense(3, activation="softmax"), layers.Activation("linear", dtype="float32")),
    "model in the model": lambda: small(
        keras.Sequential([keras.Input((6,)), layers.Dense(3, activation="softmax"), layers.Reshape((3,))])
    ),
    "half precision": in_half_precision,
}


@pytest.mark.parametrize("end", ENDS)
def test_probabilities_are_those_of_the_divided_logits(end):
    model = ENDS[end]()
    before = np.asarray(model(PIXELS))
    assert before.max() < 0.999
    calibrated = with_temperature(model, 2.5)
    np.testing.assert_allclose(calibrated(PIXELS), softmax(np.log(before) / 2.5, axis=1), atol=1e-6)
    np.testing.assert_allclose(with_temperature(calibrated, 1)(PIXELS), before, atol=1e-6)
    np.testing.assert_array_equal(model(PIXELS), before)
    assert not gives_logits(calibrated)
    assert (temperature_of(model), temperature_of(calibrated)) == (None, pytest.approx(2.5))
    scores = np.asarray(without_softmax(calibrated)(PIXELS), np.float32)
    np.testing.assert_allclose(softmax(scores, axis=1), before, atol=1e-6)


def test_model_of_logits_stays_one():
    model = small(layers.Dense(3), layers.Activation("linear", dtype="float32"))
    calibrated = with_temperature(with_temperature(model, 7), 2.5)
    assert gives_logits(calibrated)
    np.testing.assert_allclose(calibrated(PIXELS), np.asarray(model(PIXELS)) / 2.5, rtol=1e-5)
    np.testing.assert_allclose(without_softmax(calibrated)(PIXELS), model(PIXELS), rtol=1e-5)


def in_a_model(model):
    return keras.Sequential([keras.Input((8, 8, 3)), model, layers.Softmax()])


@pytest.mark.parametrize("end", ["dense layer", "activation", "model in the model", "logits in a model"])
def test_second_temperature_replaces_the_first(end):
    if end == "logits in a model":
        model = small(layers.Dense(3))
        first, model = in_a_model(with_temperature(model, 5)), in_a_model(model)
    else:
        model = ENDS[end]()
        first = with_temperature(model, 5)
    twice, once = with_temperature(first, 2), with_temperature(model, 2)
    assert temperature_of(first) == pytest.approx(5)
    assert sum("temperature" in layer.name for layer in twice._flatten_layers()) == 1
    assert temperature_of(twice) == pytest.approx(2)
    np.testing.assert_array_equal(twice(PIXELS), once(PIXELS))


def test_freezing_cutting_and_files_go_on_working(tmp_path):
    model = create("resnet20", classes=3, input_shape=(32, 32, 3), dropout=0.2)
    model.zoo_weights = "a tag"
    freeze(model, "medium")
    calibrated = with_temperature(model, 1.7)
    pixels = np.repeat(np.repeat(PIXELS, 4, 1), 4, 2)
    before = np.asarray(calibrated(pixels))

    assert (calibrated.name, calibrated.zoo_weights) == ("resnet20", "a tag")
    assert calibrated.get_layer("stem_conv") is model.get_layer("stem_conv")
    assert len(calibrated.trainable_variables) == len(model.trainable_variables)
    assert {stage_of(calibrated)[name] for name in ("head_dense", "head_temperature", "head_softmax")} == {"head"}
    freeze(calibrated, "large")
    trunk, tail = split_frozen(calibrated)
    np.testing.assert_allclose(tail(trunk(pixels)), before, atol=1e-6)

    calibrated.save(tmp_path / "model.keras")
    calibrated.save_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras", compile=False)(pixels), before)
    for file in ("model.keras", "model.weights.h5"):  # the weights alone: a new model is as sure as the first
        again = create("resnet20", classes=3, input_shape=(32, 32, 3), weights=tmp_path / file)
        np.testing.assert_allclose(again(pixels), model(pixels), atol=1e-6)


@pytest.mark.slow
@pytest.mark.long
def test_export_agrees_with_the_calibrated_model(tmp_path):
    from zoo.data.pictures import encode_png
    from zoo.export.saved_model import export, load_export

    model = with_temperature(create("convnet", classes=3, input_shape=(32, 32, 3)), 3)
    path = export(model, tmp_path / "export", class_names=["ant", "bee", "cat"], image_size=32)  # compares, or raises
    pixels = np.repeat(np.repeat(PIXELS, 4, 1), 4, 2).astype(np.uint8)
    found = load_export(path).predict([encode_png(picture) for picture in pixels])
    np.testing.assert_allclose(found.probability, np.max(model(pixels), axis=1), atol=1e-5)


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ValueError, match="must be a number above 0. Received: temperature="):
        with_temperature(small(layers.Dense(3)), temperature)


def test_model_that_cannot_have_a_temperature_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="must be a functional one, or a Sequential one.*Received: Own"):
        with_temperature(Own(name="own"), 2)
    with pytest.raises(ValueError, match="must end in a softmax .* or in logits. Received: layer 'last' of type Dense"):
        with_temperature(small(layers.Dense(3, activation="sigmoid", name="last")), 2)
    with pytest.raises(ValueError, match=r"gives one output \(pictures, classes\)"):
        with_temperature(small(layers.Dense(6), layers.Reshape((2, 3)), layers.Softmax()), 2)
    with pytest.raises(TypeError, match="must be a number"):
        with_temperature(small(layers.Dense(3)), "2")


def rows(probabilities, labels, split="dev"):
    names = [f"class {k}" for k in range(probabilities.shape[1])]
    return Evaluation(split, names, [f"{k}.jpg" for k in range(len(labels))], np.asarray(labels), probabilities)


def drawn(temperature, count=3000, classes=4):
    """Rows of a model whose logits are `temperature` times what the labels are drawn from."""
    rng = np.random.default_rng(3)
    logits = 1.5 * rng.normal(size=(count, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return rows(softmax(temperature * logits, axis=1).astype(np.float32), labels)


def classifier(classes=4):
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(classes, activation="softmax")])


@pytest.mark.parametrize("planted", [0.4, 3.0])
def test_planted_temperature_is_found(planted):
    evaluation = drawn(planted)
    found = calibrate(classifier(), evaluation)
    assert found.temperature == pytest.approx(planted, rel=0.05)
    assert found.after["loss"] < found.before["loss"] - 0.02
    assert found.after["calibration_error"] < 0.03 < found.before["calibration_error"]
    assert found.before == pytest.approx(
        {name: getattr(evaluation, name) for name in ("accuracy", "loss", "calibration_error")}, rel=1e-5
    )
    assert temperature_of(found.model) == pytest.approx(found.temperature)

    logits = np.log(evaluation.probabilities.astype(np.float64))

    def slope(inverse):  # of the loss by 1 / T
        p = softmax(inverse * logits, axis=1)
        return np.mean((p * logits).sum(axis=1) - logits[np.arange(len(logits)), evaluation.labels])

    assert 1 / found.temperature == pytest.approx(root_scalar(slope, bracket=(0.05, 20)).root, rel=1e-5)


def test_surest_errors_count_in_full():
    # softmax in float32 gives 1e-30 here: held above 1e-7, this error would cost no more than one of 1e-7
    p = np.tile(np.array([[1.0, 1e-30]]), (40, 1))
    found = calibrate(classifier(2), rows(p, [1] * 8 + [0] * 32))
    expected = 30 * np.log(10) / np.log(4)  # then p = 0.8, the share that is right
    assert found.temperature == pytest.approx(20, rel=1e-3) and expected > 20
    assert "would fall on beyond the factor of 20" in found.note
    p[:, 1] = 1e-9
    assert calibrate(classifier(2), rows(p, [1] * 8 + [0] * 32)).temperature == pytest.approx(
        9 * np.log(10) / np.log(4), rel=1e-4
    )


def test_overfitted_digits_are_calibrated_once():
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    for _ in range(120):
        model.train_on_batch(x[:100], y[:100])
    dev, labels = x[500:1100], y[500:1100]
    evaluation = rows(model.predict(dev, verbose=0), labels)
    found = calibrate(model, evaluation)
    again = rows(found.model.predict(dev, verbose=0), labels)

    assert found.temperature > 1.2
    assert again.loss == pytest.approx(found.after["loss"], rel=1e-4)
    assert again.loss < evaluation.loss - 0.02
    assert again.calibration_error == pytest.approx(found.after["calibration_error"], abs=0.005)
    np.testing.assert_array_equal(again.probabilities.argmax(1), evaluation.probabilities.argmax(1))
    assert calibrate(found.model, again).temperature == pytest.approx(found.temperature, rel=1e-4)
    assert str(found).startswith(f"temperature {found.temperature:.3g} (600 dev pictures): loss {evaluation.loss:.4f}")
    assert found.note == "" and found.figures()["before"]["accuracy"] == evaluation.accuracy


def test_pictures_that_are_all_right_leave_the_temperature():
    evaluation = rows(np.tile(np.float32([0.7, 0.3]), (30, 1)), [0] * 30)
    found = calibrate(with_temperature(classifier(2), 1.5), evaluation)
    assert found.temperature == pytest.approx(1.5)
    assert found.after == pytest.approx(found.before)
    assert "Every dev picture is right" in str(found)


def test_few_pictures_get_a_sentence():
    found = calibrate(classifier(2), rows(np.tile(np.float32([0.9, 0.1]), (5, 1)), [0, 0, 0, 0, 1]))
    assert found.temperature == pytest.approx(np.log(9) / np.log(4), rel=1e-4)  # then p = 0.8, the share that is right
    assert found.note == "5 pictures are few for it: the temperature is a rough guess."


def test_rows_that_cannot_be_fitted_are_refused():
    level = np.full((3, 2), 0.5, np.float32)
    with pytest.raises(ValueError, match="dev evaluation has pictures without a label"):
        calibrate(classifier(2), rows(level, [-1, -1, -1]))
    with pytest.raises(ValueError, match="knows one class only"):
        calibrate(classifier(1), rows(np.ones((3, 1), np.float32), [0, 0, 0]))
    with pytest.raises(ValueError, match="tells 4 classes apart, but there are 2 class names"):
        calibrate(classifier(4), rows(level, [0, 1, 0]))
