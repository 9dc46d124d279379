import inspect
import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras_tuner import HyperParameters, Objective
from keras_tuner.oracles import RandomSearchOracle

import zoo
from tuning import spaces
from tuning.space import Space
from zoo.models.conv import convnet
from zoo.training.preparing import created, resolved
from zoo.training.recipe import Recipe
from zoo.transfer.cutting import split_frozen
from zoo.transfer.fingerprint import fingerprint
from zoo.transfer.freezing import freeze

PIECES = [
    spaces.learning_rate,
    spaces.momentum,
    spaces.beta2,
    spaces.optimizer,
    spaces.batch_size,
    spaces.hidden_layer,
    spaces.convnet,
    spaces.schedule,
    spaces.dropout,
    spaces.weight_decay,
    spaces.l2,
    spaces.l1,
    spaces.label_smoothing,
    spaces.kernel_initializer,
    spaces.epochs,
    spaces.augmentation,
    spaces.freeze,
    spaces.layer_decay,
    spaces.image_size,
    spaces.backbone,
]
NETWORKS = [
    ("head", "auto"),
    ("head", "resnet18"),
    ("transfer", "auto"),
    ("transfer", "densenet121"),
    ("scratch", "auto"),
    ("scratch", "convnet"),
    ("scratch", "mobilenet_v2"),
]


def own_model():
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(2, 3, name="stage1_conv")(image)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    return keras.Model(image, keras.layers.Dense(2, activation="softmax", name="head_dense")(x), name="mine")


def some_data(side, pictures=40):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (pictures, side, side, 3), dtype=np.uint8)
    return zoo.load_data((pixels, np.arange(pictures) % 2))


def at(function, **values):
    """The fields where hyperparameters have these values and the others their defaults."""
    hp = HyperParameters()
    hp.values = values
    return function(hp)


def names(space):
    return [item["name"] for item in space.describe()]


def corners(space, **values):
    """For each hyperparameter, the values of all with its own at each end of its range or at each choice."""
    for entry in space.describe():
        for end in entry["values"] or [entry["low"], entry["high"]]:
            hp = HyperParameters()
            for item in space.hyperparameters.space:
                if hp.is_active(item):
                    hp.values[item.name] = {**values, entry["name"]: end}.get(item.name, item.default)
            yield hp.values


@pytest.mark.parametrize(("space", "model"), NETWORKS)
def test_the_defaults_are_the_recipe_that_fine_tune_chooses_by_itself(space, model):
    data = some_data(32 if space == "scratch" else 96)
    fields = Space(space, model).fields(Space(space, model).defaults)
    alone = Recipe(weights="none") if space == "scratch" else Recipe()
    assert resolved(fields.pop("model", model), data, Recipe().with_fields(fields)) == resolved(model, data, alone)


@pytest.mark.parametrize("space", ["head", "transfer", "scratch"])
def test_a_model_handed_over_keeps_what_is_its_own(space):
    model, data = own_model(), some_data(8)
    taken = Space(space, model)
    recipe = resolved(model, data, Recipe().with_fields(taken.fields(taken.defaults)))  # refuses what is the model's
    alone = resolved(model, data, Recipe(freeze="auto" if space == "scratch" else "large"))
    assert replace(recipe, epochs=alone.epochs) == alone
    assert recipe.epochs == alone.epochs
    assert not {"dropout", "head", "hidden_units", "model", "kernel_initializer", "filters"} & set(names(taken))


@pytest.mark.parametrize(("space", "model"), NETWORKS)
def test_every_default_lies_within_its_range(space, model):
    for entry in Space(space, model).describe():
        if entry["values"]:
            assert entry["default"] in entry["values"], entry
        else:
            assert entry["low"] <= entry["default"] <= entry["high"], entry


@pytest.mark.parametrize(("space", "model"), NETWORKS)
def test_what_an_oracle_proposes_is_a_recipe(space, model):
    taken = Space(space, model)
    oracle = RandomSearchOracle(Objective("val_accuracy", "max"), 40, seed=1, hyperparameters=taken.hyperparameters)
    seen = []
    for _ in range(40):
        values = oracle.populate_space("one")["values"]
        fields = taken.fields(values)
        assert json.loads(json.dumps(fields)) == fields
        seen.append(Recipe().with_fields(fields))
    assert len({str(recipe) for recipe in seen}) == 40


def test_no_trial_of_the_head_changes_what_the_trunk_gives():
    data = some_data(8)
    space = Space("head", "mobilenet_v2")
    assert len(names(space)) <= 8
    trunks = set()
    for values in [{}, *corners(space, head="hidden")]:
        fields = at(lambda hp: spaces.head(hp, model="convnet"), **values)
        assert (fields["freeze"], fields["augment"]) == ("large", "none")
        recipe = resolved("convnet", data, Recipe(image_size=8).with_fields(fields))
        model = created(recipe, data.configured(image_size=8))
        freeze(model, "large")
        trunk, _ = split_frozen(model)
        for weight in trunk.weights:  # learned ones would be loaded
            weight.assign(keras.ops.ones(weight.shape))
        trunks.add(fingerprint(trunk))
    assert len(trunks) == 1


def test_a_model_named_in_the_call_is_not_searched():
    for space in ("transfer", "scratch"):
        assert "model" in names(Space(space, "auto"))
        assert "model" not in names(Space(space, "resnet50"))
    assert "filters" in names(Space("scratch", "convnet"))
    assert "filters" not in names(Space("scratch", "resnet20"))


def test_each_backbone_has_public_weights_and_each_builder_is_there():
    assert set(spaces.BACKBONES) <= set(zoo.list_models(pretrained=True))
    assert set(spaces.BUILDERS) <= set(zoo.list_models())


def test_networks_may_be_chosen_by_the_caller():
    space = Space(lambda hp: spaces.transfer(hp, backbones=("resnet18", "resnet34")), "auto")
    assert space.defaults["model"] == "resnet18"
    space = Space(lambda hp: spaces.scratch(hp, builders=("resnet20", "resnet32")), "auto")
    assert "filters" not in names(space)


def test_the_moments_follow_the_optimizer():
    def fields(optimizer):
        return set(at(spaces.optimizer, optimizer=optimizer))

    assert fields("adamw") == {"optimizer", "momentum", "beta2", "weight_decay"}
    assert fields("adam") == {"optimizer", "momentum", "beta2"}
    assert fields("momentum") == {"optimizer", "momentum", "weight_decay"}
    assert fields("rmsprop") == {"optimizer", "beta2", "weight_decay"}
    assert fields("adagrad") == {"optimizer", "weight_decay"}


def test_the_decay_follows_the_schedule():
    assert at(spaces.schedule) == {"schedule": "cosine"}
    inverse = at(spaces.schedule, schedule="inverse time", inverse_time_rate=0.5)
    assert inverse == {"schedule": "inverse time", "decay_rate": 0.5}
    exponential = at(spaces.schedule, schedule="exponential")
    assert exponential == {"schedule": "exponential", "decay_rate": 0.95}


def test_distances_from_one_are_searched_on_a_log_scale():
    entries = {entry["name"]: entry for entry in Space("scratch", "auto").describe()}
    for name in ("learning_rate", "one_minus_momentum", "one_minus_beta2", "weight_decay"):
        assert entries[name]["sampling"] == "log", name
    assert at(spaces.momentum, one_minus_momentum=0.001) == {"momentum": 0.999}
    assert (at(spaces.momentum), at(spaces.beta2)) == ({"momentum": 0.9}, {"beta2": 0.999})


def test_layers_decay_only_where_several_train():
    assert "layer_decay" not in at(spaces.transfer)
    for amount in ("medium", "small", "none"):
        assert at(spaces.transfer, freeze=amount, layer_decay=0.5)["layer_decay"] == 0.5


def test_the_network_takes_what_the_space_gives_it():
    usual = {name: value.default for name, value in inspect.signature(convnet).parameters.items()}
    assert {name: usual[name] for name in spaces.CONVNET} == spaces.CONVNET
    for filters, depth, connections in ((32, 3, "dense"), (16, 1, "grouped"), (64, 2, "depthwise")):
        fields = at(spaces.convnet, filters=filters, depth=depth, connections=connections)
        model = zoo.create("convnet", classes=2, input_shape=(16, 16, 3), **fields["variant"])
        kernels = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        assert kernels[0].filters == filters
        assert len(kernels) >= 3 * depth


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.__name__)
def test_a_piece_is_fields_where_it_applies_and_nothing_elsewhere(piece):
    def space(hp):
        with_it = hp.Boolean("with_it")
        with hp.conditional_scope("with_it", [True]):
            fields = piece(hp)
        assert bool(fields) <= with_it
        return fields

    taken = Space(space, "auto")
    assert taken.fields(taken.defaults) == {}
    found = [taken.fields(values) for values in corners(taken, with_it=True) if values["with_it"]]
    assert all(found) or piece is spaces.convnet  # whose defaults are the network's own
    assert len({json.dumps(fields) for fields in found}) > 1
