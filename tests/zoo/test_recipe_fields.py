"""The fields of a recipe that a search varies: what each is by default, what it does to a training, what is refused."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest

import zoo
from callbacks import snapshots
from zoo.training import fitting
from zoo.training.phases import Phase
from zoo.training.recipe import OPTIMIZERS, Recipe
from zoo.training.table import Facts, resolve

FACTS = Facts(245, 2, 122.5, 1.02, 375, None, ("float32", "a processor"))
LATER = {
    "variant",
    "momentum",
    "beta2",
    "weight_decay",
    "decay_rate",
    "accumulation",
    "hidden_units",
    "l1",
    "kernel_initializer",
}
TINY = {"filters": (4, 8)}
PLAIN = {"batch_norm": False, "filters": (4, 8)}


@pytest.fixture(scope="module")
def data(digit_pictures):
    """90 pictures to train on, 30 to watch."""
    images, labels = digit_pictures
    rows = np.concatenate([np.flatnonzero(labels == label)[:40] for label in range(3)])
    return zoo.load_data((images[rows], labels[rows]), split=(0.8, 0.2), group=None, image_size=8)


@pytest.fixture
def tuned(data, tmp_path):
    """Trains a small network; each in a folder of its own."""

    def call(model="convnet", folder="run", **fields):
        if isinstance(model, str):
            fields = {"variant": TINY, **fields}
        return zoo.fine_tune(model, data, directory=tmp_path / folder, **{"epochs": 1, "batch_size": 16, **fields})

    return call


def plain_model():
    """Always the same, without batch normalisation and dropout."""
    keras.utils.set_random_seed(3)
    return zoo.create("convnet", classes=3, input_shape=(8, 8, 3), **PLAIN)


def values(model):
    return {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.weights}


# What the optimizers and schedules have, and have not


@pytest.mark.parametrize(
    ("optimizer", "momentum", "beta2", "weight_decay"),
    [
        ("adamw", 0.9, 0.999, 0.01),
        ("adam", 0.9, 0.999, 0.0),
        ("momentum", 0.9, 0.0, 0.0),
        ("rmsprop", 0.0, 0.9, 0.0),
        ("sgd", 0.0, 0.0, 0.0),
        ("adagrad", 0.0, 0.0, 0.0),
    ],
)
def test_each_optimizer_has_its_usual_numbers(optimizer, momentum, beta2, weight_decay):
    recipe = resolve(Recipe(optimizer=optimizer), FACTS)
    assert (recipe.momentum, recipe.beta2, recipe.weight_decay) == (momentum, beta2, weight_decay)


@pytest.mark.parametrize(
    ("schedule", "rate"),
    [("cosine", 0.0), ("constant", 0.0), ("sqrt", 0.0), ("inverse time", 1.0), ("exponential", 0.95)],
)
def test_each_schedule_has_its_usual_decay_rate(schedule, rate):
    assert resolve(Recipe(schedule=schedule), FACTS).decay_rate == rate


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "sgd", "momentum": 0.5}, "`momentum` belongs to the optimizers adamw, adam, momentum; "),
        ({"optimizer": "rmsprop", "momentum": 0.5}, "`momentum` belongs to the optimizers"),
        ({"optimizer": "momentum", "beta2": 0.5}, "`beta2` belongs to the optimizers adamw, adam, rmsprop; "),
        ({"schedule": "cosine", "decay_rate": 0.5}, "`decay_rate` belongs to the schedules inverse time, exponential;"),
        ({"schedule": "sqrt", "decay_rate": 0.5}, "`decay_rate` belongs to the schedules"),
        ({"schedule": "exponential", "decay_rate": 1.0}, "`decay_rate` must be above 0 and below 1 for"),
        ({"schedule": "exponential", "decay_rate": 0}, "`decay_rate` must be above 0 and below 1 for"),
        ({"schedule": "inverse time", "decay_rate": 0.0}, "`decay_rate` must be above 0 for"),
        ({"momentum": 1.0}, r"`momentum` must be a number in \[0, 1\)"),
        ({"beta2": -0.1}, r"`beta2` must be a number in \[0, 1\)"),
        ({"weight_decay": -1e-4}, "`weight_decay` must be a number of at least 0"),
        ({"decay_rate": -1}, "`decay_rate` must be a number of at least 0"),
        ({"schedule": "linear"}, "`schedule` must be one of cosine, constant, inverse time, exponential, sqrt"),
        ({"l1": -1.0}, "`l1` must be a number of at least 0"),
        ({"kernel_initializer": "zeros"}, "`kernel_initializer` must be one of he_normal, glorot_uniform"),
        ({"hidden_units": 0}, "`hidden_units` must be a whole number of at least 1, None, or auto"),
        ({"hidden_units": True}, "`hidden_units` must be a whole number"),
        ({"accumulation": 0}, "`accumulation` must be a whole number of at least 1"),
        ({"accumulation": 1.5}, "`accumulation` must be a whole number of at least 1"),
        ({"variant": ("filters",)}, "`variant` must be a mapping of names"),
        ({"variant": {3: 4}}, "`variant` must be a mapping of names"),
        ({"variant": {"filters": {4, 8}}}, "`variant` must be a mapping of names"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)


def test_a_number_that_an_optimizer_to_be_chosen_lacks_is_refused_once_it_is_known():
    assert resolve(Recipe(momentum=0.5), FACTS).momentum == 0.5  # adamw has one
    with pytest.raises(ValueError, match="belongs to the schedules"):
        resolve(Recipe(decay_rate=0.5), FACTS)  # cosine has none


def test_another_optimizer_has_its_own_numbers_again_but_keeps_what_was_given():
    recipe = resolve(Recipe(weight_decay=0.05), FACTS)
    other = resolve(recipe.with_fields({"optimizer": "rmsprop"}), FACTS)
    assert (other.momentum, other.beta2, other.weight_decay) == (0.0, 0.9, 0.05)
    assert resolve(recipe.with_fields({"schedule": "exponential"}), FACTS).decay_rate == 0.95
    assert recipe.with_fields({"optimizer": "adamw"}).momentum == 0.9
    chosen = resolve(recipe.with_fields({"optimizer": "momentum", "momentum": 0.8}), FACTS)
    assert (chosen.momentum, chosen.reasons["momentum"]) == (0.8, "given")
    with pytest.raises(ValueError, match="`momentum` belongs to"):
        chosen.with_fields({"optimizer": "sgd"})


def test_the_optimizer_gets_the_numbers_of_the_recipe():
    def config(**fields):
        recipe = resolve(Recipe(**fields), FACTS)
        return fitting._optimizer(recipe, 0.25).get_config()

    adam = config(optimizer="adam", momentum=0.8, beta2=0.95)
    assert (adam["beta_1"], adam["beta_2"], adam["weight_decay"]) == (0.8, 0.95, None)
    assert config(optimizer="adam", weight_decay=0.1)["weight_decay"] == 0.1
    assert config(optimizer="adamw")["weight_decay"] == 0.01
    assert config(optimizer="adamw", weight_decay=0.0)["weight_decay"] == 0.0
    momentum = config(optimizer="momentum", momentum=0.7, accumulation=3)
    assert (momentum["momentum"], momentum["nesterov"], momentum["gradient_accumulation_steps"]) == (0.7, True, 3)
    assert config(optimizer="rmsprop", beta2=0.5)["rho"] == 0.5
    assert config(optimizer="sgd")["gradient_accumulation_steps"] is None


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_takes_its_share_of_kernels_alone_whatever_the_optimizer(optimizer):
    x, y = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)), np.eye(3)[[0, 1, 2, 0]]

    def stepped(weight_decay):
        model = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), filters=(4,))
        model.set_weights([np.full(weight.shape, 0.1) for weight in model.get_weights()])
        recipe = resolve(Recipe(optimizer=optimizer, weight_decay=weight_decay), FACTS)
        fitting.compile_phase(model, recipe, Phase("none", 0, 1, 0.01))
        model.train_on_batch(x, y)
        return values(model)

    without, decayed = stepped(0.0), stepped(2.0)
    for path, value in without.items():
        share = 0.02 if path.endswith("kernel") else 0.0
        np.testing.assert_allclose(decayed[path], value - share * 0.1, rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"schedule": "inverse time", "decay_rate": 0.5}, [1 / 1.5, 1 / 2]),
        ({"schedule": "exponential", "decay_rate": 0.5}, [0.5, 0.25]),
        ({"schedule": "sqrt"}, [1, 1 / np.sqrt(2)]),
    ],
)
def test_the_rate_falls_by_the_formula_from_the_first_epoch_of_a_phase(fields, rates):
    recipe, phase = resolve(Recipe(**fields), FACTS), Phase("none", 3, 5, 0.01)
    (decay,) = [watcher for watcher in fitting._watchers(plain_model(), recipe, phase, False)[0] if is_decay(watcher)]
    decay.begin(start=0.01)
    np.testing.assert_allclose([decay.rate(3), decay.rate(4)], np.array(rates) * 0.01, rtol=1e-6)


def is_decay(callback):
    return hasattr(callback, "rate")


def test_a_schedule_begins_anew_with_each_phase(tuned):
    run = tuned(freeze=("large", "none"), epochs=4, learning_rate=0.01, schedule="exponential", decay_rate=0.5)
    np.testing.assert_allclose(run.history["learning_rate"], [0.005, 0.0025, 0.0005, 0.00025], rtol=1e-5)


# Accumulation


def test_accumulated_gradients_train_as_one_larger_batch(tuned):
    fields = {"optimizer": "momentum", "learning_rate": 0.01, "epochs": 2, "weight_decay": 0.01}
    large = values(tuned(plain_model(), "large", batch_size=30, **fields).model)
    small = values(tuned(plain_model(), "small", batch_size=15, accumulation=2, **fields).model)
    start = values(plain_model())
    for path, value in large.items():
        np.testing.assert_allclose(small[path], value, atol=1e-5, err_msg=path)
    assert max(np.abs(start[path] - value).max() for path, value in large.items()) > 0.01


def test_what_an_epoch_leaves_over_moves_the_weights_in_the_next(tuned):
    start = values(plain_model())
    fields = {"accumulation": 4, "batch_size": 32, "learning_rate": 1e-3}  # three steps an epoch
    moved = values(tuned(plain_model(), epochs=2, **fields).model)
    assert any(np.any(moved[path] != value) for path, value in start.items())


def test_more_accumulation_than_a_phase_has_steps_is_refused(tuned, tmp_path):
    with pytest.raises(ValueError, match="at most the steps of the shortest phase, 6 for 90 pictures"):
        tuned(accumulation=7)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="shortest phase, 6 for"):
        tuned(accumulation=7, epochs=2, freeze=("large", "none"))


# What a network is built with


def test_l1_is_in_the_loss_but_not_in_what_is_watched(tuned):
    run = tuned(l1=1e-2, dropout=0.0)
    kernels = [value for path, value in values(run.model).items() if path.endswith("kernel")]
    penalty = 1e-2 * sum(np.abs(kernel).sum() for kernel in kernels)
    assert float(sum(run.model.losses)) == pytest.approx(penalty, rel=1e-4)
    assert run.history["val_loss"][0] - run.history["val_cross_entropy"][0] == pytest.approx(penalty, rel=1e-3)
    assert run.evaluate("dev").loss == pytest.approx(run.history["val_cross_entropy"][0], rel=1e-3)


def test_both_penalties_add_up():
    model = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), l1=0.1, l2=0.01, **TINY)
    kernels = [value for path, value in values(model).items() if path.endswith("kernel")]
    expected = sum(0.1 * np.abs(kernel).sum() + 0.01 * np.square(kernel).sum() for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="`l1` must not be negative"):
        zoo.create("convnet", classes=3, l1=-0.1)


def test_the_network_is_built_as_the_recipe_says_and_comes_back(tuned, data):
    run = tuned(
        variant={"filters": [4, 6], "kernel_size": np.int64(5)},
        kernel_initializer="glorot_uniform",
        head="hidden",
        hidden_units=5,
    )
    assert run.model.get_layer("stage1_conv").kernel.shape == (5, 5, 4, 6)
    assert run.model.get_layer("head_hidden").units == 5
    assert run.model.get_layer("stem_conv").get_config()["kernel_initializer"]["class_name"] == "GlorotUniform"
    assert run.recipe.variant == {"filters": (4, 6), "kernel_size": 5}
    assert "filters: (4, 6), kernel_size: 5" in str(run.recipe)
    again = zoo.load_run(run.directory, data)
    assert again.recipe == run.recipe
    assert hash(again.recipe) == hash(run.recipe)


def test_a_variant_that_the_network_does_not_know_is_refused_with_the_nearest(tuned):
    with pytest.raises(ValueError, match="has no argument 'filter'. Did you mean 'filters'"):
        tuned(variant={"filter": (4, 8)})
    with pytest.raises(ValueError, match="`variant` is for what the network itself takes, and 'dropout' is"):
        tuned(variant={"dropout": 0.5})
    with pytest.raises(ValueError, match="`hidden_units` is the width of the head"):
        tuned(head="linear", hidden_units=5)


def test_another_network_leaves_the_variant_behind(tuned, data):
    recipe = tuned().recipe
    assert recipe.with_fields({"model": "convnet"}).variant == TINY
    assert resolve(recipe.with_fields({"model": "resnet20"}), FACTS).variant == {}
    given = recipe.with_fields({"variant": {"shortcut": "projection"}}).with_fields({"model": "resnet20"})
    assert given.variant == {"shortcut": "projection"}  # it was said after the old one was settled


@pytest.mark.parametrize(
    "fields", [{"variant": TINY}, {"l1": 0.1}, {"kernel_initializer": "he_normal"}, {"hidden_units": 4}]
)
def test_a_model_handed_over_is_built_already(fields, tuned):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` belongs to the building of a model"):
        tuned(plain_model(), **fields)


def test_a_recipe_of_a_model_handed_over_serves_for_another_and_for_a_name(tuned):
    recipe = tuned(plain_model(), "first").recipe
    assert (recipe.variant, recipe.kernel_initializer, recipe.hidden_units) == ({}, "as given", None)
    assert tuned(plain_model(), "second", recipe=recipe).recipe == replace(recipe, model=plain_model().name)
    assert tuned("convnet", "third", recipe=recipe).recipe.kernel_initializer == "he_normal"


# Recipes of before these fields


def without(recipe, path, later=frozenset(LATER)):
    """Writes a recipe as it was before there were these fields."""
    old = {name: value for name, value in recipe.to_dict().items() if name not in later}
    old["reasons"] = {name: reason for name, reason in recipe.reasons.items() if name not in later}
    path.write_text(json.dumps(old))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_old_recipe_says_what_was_done_then(optimizer, schedule, own, tmp_path):
    recipe = resolve(Recipe(optimizer=optimizer, schedule=schedule), replace(FACTS, own_model=own))
    without(recipe, tmp_path / "recipe.json")
    found = Recipe.load(tmp_path / "recipe.json")
    assert found == recipe
    assert LATER <= set(found.reasons)
    assert resolve(found.with_fields({"optimizer": "sgd"}), FACTS).momentum == 0.0


def test_what_an_old_recipe_leaves_open_stays_open(tmp_path):
    (tmp_path / "recipe.json").write_text('{"schedule": "exponential"}')
    found = resolve(Recipe.load(tmp_path / "recipe.json"), FACTS)
    assert (found.decay_rate, found.momentum, found.weight_decay) == (0.95, 0.9, 0.01)
    (tmp_path / "recipe.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="holds no recipe"):
        Recipe.load(tmp_path / "recipe.json")


@pytest.mark.parametrize("own", [False, True])
def test_an_old_run_that_stopped_goes_on_to_the_same_end(own, tuned, tmp_path):
    def trained(folder, **others):
        return tuned(plain_model() if own else "convnet", folder, epochs=2, **others)

    stopped = trained("stopped", stop_after=1).directory
    saved = next((stopped / "checkpoints").glob("phase1/epoch-*"))
    assert not (LATER - {"variant"}) & set(snapshots.read(saved).about["recipe"])  # as a checkpoint of that time
    without(Recipe.load(stopped / "recipe.json"), stopped / "recipe.json", LATER - {"variant"})
    shutil.copytree(stopped, tmp_path / "other")
    assert trained("stopped").history == trained("whole").history
    with pytest.raises(ValueError, match="momentum is 0.9 there and 0.8 here"):
        trained("other", momentum=0.8)


def test_an_accumulation_goes_on_with_what_an_epoch_left_over(tuned):
    fields = {"accumulation": 2, "epochs": 2, "batch_size": 30}  # three steps an epoch: one is left over
    tuned(folder="stopped", stop_after=1, **fields)
    assert tuned(folder="stopped", **fields).history == tuned(folder="whole", **fields).history


def test_a_checkpoint_knows_the_fields_that_were_not_there_before(data, tmp_path):
    recipe = resolve(Recipe(momentum=0.8, accumulation=2, schedule="exponential"), FACTS)
    checkpoint = fitting._checkpoint(tmp_path / "saved", recipe, data, Phase("none", 0, 1, 0.1), tmp_path)
    assert LATER & set(checkpoint.recipe) == {"momentum", "accumulation", "decay_rate"}


# The variants of convnet


@pytest.mark.parametrize("connections", ["dense", "grouped", "depthwise"])
def test_convnet_is_as_deep_and_as_densely_connected_as_told(connections):
    model = zoo.create(
        "convnet", classes=3, input_shape=(16, 16, 3), filters=(6, 8), depth=2, stride=2, connections=connections
    )
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.name for layer in convolutions] == ["stem_conv", "stem_conv2", "stage1_conv", "stage1_conv2"]
    assert {"stem_bn2", "stem_act2", "stage1_bn2", "stage1_act2"} <= {layer.name for layer in model.layers}
    shapes = [tuple(layer.kernel.shape) for layer in convolutions]
    expected = {
        "dense": [(3, 3, 3, 6), (3, 3, 6, 6), (3, 3, 6, 8), (3, 3, 8, 8)],
        "grouped": [(3, 3, 3, 6), (3, 3, 2, 6), (3, 3, 3, 8), (3, 3, 2, 8)],  # three, two and four groups
        "depthwise": [(3, 3, 3, 6), (1, 1, 6, 6), (1, 1, 6, 8), (1, 1, 8, 8)],
    }
    assert shapes == expected[connections]
    depthwise = [layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    names = ["stem_depthwise2", "stage1_depthwise", "stage1_depthwise2"] if connections == "depthwise" else []
    assert [layer.name for layer in depthwise] == names
    assert model.get_layer("stage1_act2").output.shape == (None, 2, 2, 8)  # only the first of a stage takes steps
    assert all(np.any(value) for path, value in values(model).items() if path.endswith("kernel"))  # they are drawn
    assert [row.stage for row in zoo.freeze(model, "large").rows] == ["stem", "stage1", "head"]


def test_convnet_is_by_default_what_it_was():
    model = zoo.create("convnet", classes=10)
    assert model.count_params() == 94_762 + 2 * (32 + 64 + 128)  # and the moving statistics
    assert [layer.name for layer in model.layers if layer.name.startswith("stage2")] == [
        "stage2_pool",
        "stage2_conv",
        "stage2_bn",
        "stage2_act",
    ]


@pytest.mark.parametrize("connections", ["grouped", "depthwise"])
def test_sparse_connections_learn(connections, tuned):
    run = tuned(
        variant={"filters": (8, 16), "connections": connections}, epochs=4, learning_rate=0.03, batch_size=8, dropout=0
    )
    assert run.history["accuracy"][-1] > 0.7


@pytest.mark.parametrize(("words", "message"), [({"depth": 0}, "`depth` must"), ({"connections": "loose"}, "one of")])
def test_convnet_refuses_other_depths_and_connections(words, message):
    with pytest.raises(ValueError, match=message):
        zoo.create("convnet", classes=3, **words)
