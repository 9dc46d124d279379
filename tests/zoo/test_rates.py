"""Each stage takes its share of a step, whichever optimizer steps."""

import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

from zoo.models.registry import create
from zoo.models.stages import stage_of
from zoo.transfer.rates import scaled, stage_rates

ROOT = Path(__file__).parents[2]
FACTORS = {"stem": 0.125, "stage1": 0.25, "stage2": 0.5, "head": 1.0}
PLAIN = {  # optimizers whose steps do not depend on where the weights are
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.1),
    "clipped": lambda: keras.optimizers.Adam(0.1, global_clipnorm=0.5),
    "nadam": lambda: keras.optimizers.Nadam(0.1),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.1, momentum=0.5),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "lion": lambda: keras.optimizers.Lion(0.1),
    "muon": lambda: keras.optimizers.Muon(0.1, weight_decay=0.0, adam_weight_decay=0.0, exclude_layers=["conv"]),
}


def convnet(**arguments):
    keras.utils.set_random_seed(1)
    return create("convnet", classes=2, input_shape=(8, 8, 3), filters=(4, 6, 8), **arguments)


def factors(model):
    """The factor of each weight that trains, by its path."""
    placed = stage_of(model)
    return {variable.path: FACTORS[placed[variable.path.split("/")[0]]] for variable in model.trainable_variables}


def snapshot(model):
    return {variable.path: np.array(keras.ops.convert_to_numpy(variable)) for variable in model.trainable_variables}


def steps(model, optimizer, count=2):
    """What a few steps with the same gradients add to each weight; the model is as before afterwards."""
    before, rng = snapshot(model), np.random.default_rng(0)
    gradients = [keras.ops.convert_to_tensor(rng.normal(0, 1, v.shape), "float32") for v in model.trainable_variables]
    for _ in range(count):
        optimizer.apply(gradients, model.trainable_variables)
    after = snapshot(model)
    for variable in model.trainable_variables:
        variable.assign(before[variable.path])
    return {path: after[path] - before[path] for path in after}


def fitted(model, optimizer, part=None, **fit):
    """The weights that a fit of one epoch leaves; the model is as before afterwards."""
    rng, before = np.random.default_rng(0), model.get_weights()
    part = part or model
    x, y = rng.uniform(0, 1, (8, *part.input_shape[1:])).astype("float32"), rng.integers(0, 2, 8)
    part.compile(optimizer, "sparse_categorical_crossentropy")
    part.fit(x, y, verbose=0, shuffle=False, **{"batch_size": 8, **fit})
    after = snapshot(model)
    model.set_weights(before)
    return after


def assert_scaled(start, plain, found, expected):
    for path, factor in expected.items():
        whole = plain[path] - start[path]
        np.testing.assert_allclose(found[path] - start[path], factor * whole, rtol=1e-3, atol=1e-6, err_msg=path)


def moves(start, after):
    return all(np.abs(after[path] - start[path]).max() > 1e-4 for path in start if "bias" not in path)


def test_factors_fall_from_head_to_stem():
    assert stage_rates(convnet(), 0.5) == FACTORS
    assert list(stage_rates(convnet(), 0.5)) == ["stem", "stage1", "stage2", "head"]
    assert set(stage_rates(convnet(), 1).values()) == {1.0}
    assert stage_rates(create("mobilenet_v2", classes=2, input_shape=(32, 32, 3)), 0.5)["stage4"] == 0.5


def test_a_model_without_a_head_starts_with_the_decay():
    model = convnet()
    assert stage_rates(keras.Model(model.input, model.get_layer("stage2_conv").output, name="mine"), 0.5) == {
        "stem": 0.125,
        "stage1": 0.25,
        "stage2": 0.5,
    }


@pytest.mark.parametrize("decay", [0, -0.5, 1.1, float("nan")])
def test_a_decay_out_of_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=f"`decay` must be above 0 and at most 1.*Received: decay={decay}"):
        scaled(keras.optimizers.SGD(), convnet(), decay)


def test_a_model_without_stages_is_refused():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 8, name="mine")(image)
    model = keras.Model(image, keras.layers.Flatten()(x), name="own")
    with pytest.raises(ValueError, match="Model 'own' has no weights in a stem or stage<k>"):
        scaled(keras.optimizers.SGD(), model, 0.5)
    assert isinstance(scaled(keras.optimizers.SGD(), model, 1), keras.optimizers.SGD)


@pytest.mark.parametrize("name", PLAIN)
def test_every_optimizer_takes_the_factor_of_each_stage(name):
    model = convnet()
    plain, found = (steps(model, make) for make in (PLAIN[name](), scaled(PLAIN[name](), model, 0.5)))
    for path, factor in factors(model).items():
        np.testing.assert_allclose(found[path], factor * plain[path], rtol=1e-4, atol=1e-6, err_msg=path)
        assert np.abs(plain[path]).min() > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.5),
        lambda: keras.optimizers.Muon(0.1, weight_decay=0.5, adam_weight_decay=0.5, exclude_layers=["conv"]),
    ],
)
def test_weight_decay_shrinks_with_the_rate(make):
    model = convnet()
    start = snapshot(model)
    without = make()
    for attribute in ("weight_decay", "adam_weight_decay"):
        if hasattr(without, attribute):
            setattr(without, attribute, 0.0)
    plain, free, found = (steps(model, one, count=1) for one in (make(), without, scaled(make(), model, 0.5)))
    for path, factor in factors(model).items():
        np.testing.assert_allclose(found[path], factor * plain[path], rtol=1e-3, atol=1e-6, err_msg=path)
        np.testing.assert_allclose(plain[path] - free[path], -0.1 * 0.5 * start[path], rtol=1e-3, atol=1e-6)


def test_what_was_excluded_from_weight_decay_stays_excluded():
    model = convnet()
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["kernel", "gamma"])
    fresh, without = scaled(optimizer, model, 0.5), scaled(keras.optimizers.AdamW(0.1, weight_decay=0.0), model, 0.5)
    found, free = steps(model, fresh, count=1), steps(model, without, count=1)
    np.testing.assert_array_equal(found["stem_conv/kernel"], free["stem_conv/kernel"])


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_step_of_fit_moves_each_stage_by_its_share(name):
    model = convnet()
    start = snapshot(model)
    plain = fitted(model, PLAIN[name]())
    found = fitted(model, scaled(PLAIN[name](), model, 0.5))
    assert_scaled(start, plain, found, factors(model))
    assert moves(start, plain)


def test_one_rate_for_all_equals_the_plain_optimizer_to_the_bit():
    model = convnet()
    make = lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)  # noqa: E731
    plain = fitted(model, make(), batch_size=2)
    for path, value in fitted(model, scaled(make(), model, 1.0), batch_size=2).items():
        np.testing.assert_array_equal(value, plain[path], err_msg=path)


def test_gradients_may_be_accumulated():
    model = convnet()
    start = snapshot(model)
    make = lambda: keras.optimizers.AdamW(0.1, weight_decay=0.5, gradient_accumulation_steps=2)  # noqa: E731
    plain = fitted(model, make(), batch_size=4)
    assert_scaled(start, plain, fitted(model, scaled(make(), model, 0.5), batch_size=4), factors(model))
    assert moves(start, plain)


def test_the_tail_of_a_model_takes_the_factors_of_the_whole():
    model = convnet()
    tail = keras.Model(model.get_layer("stage1_conv").input, model.output, name="tail")
    start = snapshot(model)
    plain = fitted(model, keras.optimizers.SGD(1.0), tail)
    found = fitted(model, scaled(keras.optimizers.SGD(1.0), model, 0.5), tail)
    assert_scaled(start, plain, found, factors(model))
    assert np.abs(plain["stage1_conv/kernel"] - start["stage1_conv/kernel"]).max() > 1e-4


def test_the_learning_rate_stays_in_the_hands_of_callbacks():
    model = convnet()
    start = snapshot(model)
    plain = fitted(model, keras.optimizers.SGD(1.0))
    optimizer = scaled(keras.optimizers.SGD(0.1), model, 0.5)
    found = fitted(model, optimizer, callbacks=[keras.callbacks.LearningRateScheduler(lambda _: 1.0)])
    assert_scaled(start, plain, found, factors(model))
    assert float(optimizer.learning_rate) == 1.0


def test_a_schedule_that_cannot_be_serialised_goes_on_acting():
    class Steep(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 * 0.5 ** keras.ops.cast(step, "float32")

        def get_config(self):
            return {}

    model = convnet()
    plain = steps(model, keras.optimizers.SGD(Steep()))
    found = steps(model, scaled(keras.optimizers.SGD(Steep()), model, 0.5))
    for path, factor in factors(model).items():
        np.testing.assert_allclose(found[path], factor * plain[path], rtol=1e-4, atol=1e-6, err_msg=path)
    np.testing.assert_allclose(
        plain["head_dense/kernel"], 1.5 * steps(model, keras.optimizers.SGD(0.1), 1)["head_dense/kernel"], rtol=1e-4
    )


@pytest.mark.parametrize("outside", [False, True])
def test_a_scaled_loss_takes_the_factors_too(outside):
    model = convnet()
    start = snapshot(model)
    plain = fitted(model, keras.optimizers.AdamW(0.1, weight_decay=0.5))
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    if outside:
        optimizer = scaled(keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0), model, 0.5)
    else:
        optimizer = keras.optimizers.LossScaleOptimizer(scaled(optimizer, model, 0.5), initial_scale=4.0)
    assert_scaled(start, plain, fitted(model, optimizer), factors(model))


def test_the_given_optimizer_is_left_alone():
    model, optimizer = convnet(), keras.optimizers.Adam(0.1)
    fresh = scaled(optimizer, model, 0.5)
    steps(model, fresh)
    assert fresh is not optimizer
    assert not optimizer.built
    assert type(fresh) is type(optimizer)
    assert fresh.get_config() == optimizer.get_config()


def test_a_saved_model_holds_a_plain_optimizer(tmp_path):
    model = convnet()
    fitted(model, scaled(keras.optimizers.Adam(0.1), model, 0.5))
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        stored = json.loads(archive.read("config.json"))["compile_config"]["optimizer"]
    assert (stored["module"], stored["class_name"], stored["registered_name"]) == ("keras.optimizers", "Adam", None)
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert int(loaded.iterations) == 1
    for ours, theirs in zip(model.optimizer.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="the tests above run on jax already")
def test_a_compiled_step_on_jax_moves_each_stage_by_its_share():
    tests = [f"{__file__}::{name}" for name in ("test_a_step_of_fit_moves_each_stage_by_its_share",)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
