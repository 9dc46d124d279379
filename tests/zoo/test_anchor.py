"""Anchored weights stay near where they were, and leave no trace of it."""

import json
import zipfile

import keras
import numpy as np
import pytest

from zoo.models.registry import create
from zoo.transfer.anchor import anchored


def convnet(**arguments):
    keras.utils.set_random_seed(1)
    return create("convnet", classes=2, input_shape=(8, 8, 3), filters=(4, 6), **arguments)


def snapshot(model):
    return {variable.path: np.array(keras.ops.convert_to_numpy(variable)) for variable in model.trainable_variables}


def fit(model, epochs=12, **compiled):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 1, (32, *model.input_shape[1:])).astype("float32"), rng.integers(0, 2, 32)
    model.compile(keras.optimizers.SGD(0.02), "sparse_categorical_crossentropy", **compiled)
    return model.fit(x, y, epochs=epochs, batch_size=8, verbose=0).history["loss"]


def distances(model, start):
    return {path: float(np.abs(value - start[path]).max()) for path, value in snapshot(model).items()}


def shift(model, by=0.5):
    for variable in model.trainable_variables:
        variable.assign(variable + by)


def total(model):
    return float(sum(keras.ops.convert_to_numpy(loss) for loss in model.losses))


@pytest.mark.parametrize("compiled", [{}, {"jit_compile": True}])
def test_anchored_weights_stay_and_free_ones_wander(compiled):
    model = convnet()
    start = snapshot(model)
    with anchored(model, 45.0):
        fit(model, **compiled)
    held = distances(model, start)
    model = convnet()
    fit(model, **compiled)
    free = distances(model, start)
    for name in ("stem_conv/kernel", "stage1_conv/kernel"):
        assert held[name] < 0.3 * free[name]
    for name in ("head_dense/kernel", "stage1_bn/gamma"):
        assert held[name] > 0.2 * free[name]


def test_the_penalty_is_half_the_strength_times_the_squared_distance():
    model = convnet(batch_norm=False)
    with anchored(model, 0.3):
        assert total(model) == 0
        shift(model)
        held = [v for v in model.trainable_variables if not v.path.startswith("head_")]
        assert {variable.name for variable in held} == {"kernel", "bias"}
        assert total(model) == pytest.approx(0.15 * 0.25 * sum(np.prod(v.shape) for v in held), rel=1e-5)


def test_head_and_batch_normalisation_are_free():
    model = convnet()
    with anchored(model, 1.0):
        held = {variable.path for variable in model.trainable_variables if variable.regularizer is not None}
    assert held == {"stem_conv/kernel", "stage1_conv/kernel"}


def test_kernels_of_depthwise_convolutions_are_held():
    model = create("mobilenet", classes=2, input_shape=(32, 32, 3))
    with anchored(model, 1.0):
        held = {layer.name for layer in model.layers for v in layer.weights if v.regularizer is not None}
    assert held == {layer.name for layer in model.layers if "kernel" in {v.name for v in layer.weights}} - {
        "head_dense"
    }
    assert "conv_dw_1" in held


def test_the_loss_of_a_fit_holds_the_penalty():
    model = convnet()
    plain = fit(model, epochs=1)
    model = convnet()
    with anchored(model, 2.0):
        shift(model)
        weights = model.get_weights()
        penalty = total(model)
        model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        rng = np.random.default_rng(0)
        x, y = rng.uniform(0, 1, (8, 8, 8, 3)).astype("float32"), rng.integers(0, 2, 8)
        inside = model.evaluate(x, y, verbose=0)
    model.set_weights(weights)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    assert inside - model.evaluate(x, y, verbose=0) == pytest.approx(penalty, rel=1e-4)
    assert np.isfinite(plain).all()


def test_a_model_that_shares_the_layers_has_the_penalty():
    model = convnet()
    tail = keras.Model(model.get_layer("stage1_conv").input, model.output, name="tail")
    with anchored(model, 2.0):
        shift(model)
        kernel = model.get_layer("stage1_conv").kernel
        assert total(tail) == pytest.approx(0.25 * np.prod(kernel.shape), rel=1e-5)
        start = snapshot(tail)
        fit(tail, epochs=1)
        pulled = 0.5 * (1 - (1 - 0.02 * 2.0) ** 4)  # from half a unit away, in four steps
        assert distances(tail, start)["stage1_conv/kernel"] == pytest.approx(pulled, abs=0.01)
    assert tail.losses == []


def test_frozen_weights_are_not_counted():
    model = convnet()
    model.get_layer("stem_conv").trainable = False
    with anchored(model, 2.0):
        assert len(model.losses) == 1


def test_a_regulariser_of_the_model_goes_on_acting_and_comes_back():
    model = convnet(l2=0.1)
    before, plain = [variable.regularizer for variable in model.trainable_variables], total(model)
    with anchored(model, 1.0):
        assert total(model) == pytest.approx(plain, rel=1e-5)
        kernel = model.get_layer("stem_conv").kernel
        kernel.assign(kernel + 1.0)
        moved = total(model)
    assert [variable.regularizer for variable in model.trainable_variables] == before
    assert moved - total(model) == pytest.approx(0.5 * np.prod(kernel.shape), rel=1e-4)


def test_an_error_inside_takes_the_penalty_away():
    model = convnet()
    with pytest.raises(KeyError), anchored(model, 1.0):
        raise KeyError
    assert model.losses == []


def test_nothing_of_it_is_a_weight_or_saved(tmp_path):
    model = convnet()
    model.save(tmp_path / "before.keras")
    names = [variable.path for variable in model.weights]
    with anchored(model, 1.0):
        fit(model, epochs=1)
        assert [variable.path for variable in model.weights] == names
        assert len(model.optimizer.variables) == 2  # iterations and rate
        model.save(tmp_path / "inside.keras")
    model.save(tmp_path / "behind.keras")
    before, inside, behind = (layers_in(tmp_path / f"{name}.keras") for name in ("before", "inside", "behind"))
    assert before == inside == behind
    loaded = keras.saving.load_model(tmp_path / "inside.keras")
    assert loaded.losses == []


def layers_in(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))["config"]


def test_no_strength_does_nothing_and_a_negative_one_is_refused():
    model = convnet()
    with anchored(model, 0):
        assert model.losses == []
    for strength in (-0.1, float("nan")):
        with (
            pytest.raises(ValueError, match=f"`strength` must not be negative.*strength={strength}"),
            anchored(model, strength),
        ):
            pass
