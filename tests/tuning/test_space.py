import json
from typing import Any

import keras
import numpy as np
import pytest

from tuning.space import Space, differences


def names(space):
    return [item["name"] for item in space.describe()]


def nested(hp):
    fields = {"optimizer": hp.Choice("optimizer", ["adamw", "momentum"])}
    with hp.conditional_scope("optimizer", ["momentum"]):
        if hp.Boolean("smooth"):
            pass
        with hp.conditional_scope("smooth", [True]):
            if (rate := hp.Float("smoothing", 0.0, 0.1)) is not None:
                fields["label_smoothing"] = rate
    return fields


def plain_ifs(hp):
    if hp.Choice("head", ["linear", "hidden"]) == "linear":
        return {"head": "linear"}
    if hp.Boolean("wide"):
        return {"head": "hidden", "hidden_units": hp.Int("wide_units", 512, 1024)}
    return {"head": "hidden", "hidden_units": hp.Int("units", 8, 64, step=2, sampling="log")}


def a_loop(hp):
    layers = [hp.Int(f"filters_{i}", 4, 8) for i in range(hp.Int("layers", 1, 3))]
    return {"variant": {"filters": layers}}


def both(hp):
    """A hyperparameter that only two choices together bring up."""
    first, second = hp.Choice("augment", ["none", "light"]), hp.Int("length", 1, 3)
    extra = hp.Float("rate", 0.1, 0.2) if first == "light" and second == 2 else 0.1
    return {"augment": first, "epochs": second, "learning_rate": extra}


def deep(hp):
    """Hyperparameters behind one choice of many, within one of many."""
    first = hp.Choice("first", list(range(200)))
    if first == 150 and hp.Choice("second", list(range(200))) == 150:
        return {"dropout": hp.Float("third", 0.0, 0.5)}
    with hp.conditional_scope("first", [150]):
        if hp.Choice("fourth", list(range(200))) == 150:
            return {"dropout": hp.Float("fifth", 0.0, 0.5)}
    return {}


def rare(hp):
    """A hyperparameter at one number of a million."""
    seed = hp.Int("number", 0, 1_000_000)
    return {"seed": seed, "dropout": hp.Float("late", 0.0, 0.5) if seed == 123_457 else 0.0}


@pytest.mark.parametrize(
    ("space", "expected", "defaults"),
    [
        (nested, ["optimizer", "smooth", "smoothing"], ["optimizer"]),
        (plain_ifs, ["head", "wide", "units", "wide_units"], ["head", "wide", "units", "wide_units"]),
        (a_loop, ["layers", "filters_0", "filters_1", "filters_2"], ["layers", "filters_0", "filters_1", "filters_2"]),
        (both, ["augment", "length", "rate"], ["augment", "length", "rate"]),
        (deep, ["first", "second", "third", "fourth", "fifth"], ["first", "second", "third"]),
    ],
)
def test_conditional_hyperparameters_are_found(space, expected, defaults):
    taken = Space(space, "auto")
    assert taken.name == space.__name__
    assert sorted(names(taken)) == sorted(expected)
    assert sorted(taken.defaults) == sorted(defaults)
    assert [item.name for item in taken.hyperparameters.space] == names(taken)
    taken.fields(taken.defaults)


def test_conditions_are_described_with_all_that_stand_around_them():
    entry = Space(nested, "auto").describe()[2]
    assert entry["conditions"] == [{"name": "optimizer", "values": ["momentum"]}, {"name": "smooth", "values": [True]}]
    assert json.loads(json.dumps(entry)) == entry


def test_what_shows_up_later_is_refused():
    space = Space(rare, "auto")
    assert space.fields({"number": 5}) == {"seed": 5, "dropout": 0.0}
    with pytest.raises(ValueError, match="'late' at number=123457 that did not show up"):
        space.fields({"number": 123_457})


def test_what_stands_under_an_if_that_does_not_hold_is_idle():
    space = Space(plain_ifs, "auto")
    values = {"head": "hidden", "wide": False, "units": 16, "wide_units": 512}
    assert space.idle(values) == ["wide_units"]
    assert space.idle({**values, "wide": True}) == ["units"]
    assert space.idle(space.defaults) == ["wide", "units", "wide_units"]
    assert Space(nested, "auto").idle({"optimizer": "momentum", "smooth": False}) == []


def test_values_must_be_those_of_the_space():
    space = Space("head", "mobilenet_v2")
    with pytest.raises(ValueError, match="has no hyperparameter 'learning_rat'. Did you mean 'learning_rate'?"):
        space.fields({**space.defaults, "learning_rat": 0.1})
    with pytest.raises(ValueError, match="lacks the hyperparameter 'learning_rate'"):
        space.fields({})


def test_numbers_come_as_they_were_declared():
    space = Space(plain_ifs, "auto")
    values = {"head": np.str_("hidden"), "wide": np.bool_(False), "units": 16.0, "wide_units": 1025}
    fields = space.fields(values)  # 16.0 is what KerasTuner's grid gives, 1025 what its log ranges can
    assert fields == {"head": "hidden", "hidden_units": 16}
    assert [type(value) for value in fields.values()] == [str, int]
    assert space.fields({**values, "wide": np.True_})["hidden_units"] == 1024


def test_numbers_of_numpy_and_tuples_become_plain():
    def space(hp):
        return {"epochs": np.int64(hp.Int("length", 1, 3)), "image_size": (8, 9), "variant": {"a": np.ones(2)}}

    fields = Space(space, "auto").fields({"length": 2})
    assert fields == {"epochs": 2, "image_size": [8, 9], "variant": {"a": [1.0, 1.0]}}
    assert type(fields["epochs"]) is int


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ([1], TypeError, "must return a dict of fields of zoo.Recipe. Received: list"),
        (None, TypeError, "Received: NoneType"),
        ({"learning_rat": 0.1}, ValueError, "'learning_rat', which is no field .* Did you mean 'learning_rate'?"),
        ({"kernel_size": 5}, ValueError, "'kernel_size', which .*belongs into `variant`"),
        ({"reasons": {}}, ValueError, "'reasons', which is no field"),
        ({1: 2}, ValueError, "1, which is no field"),
        ({"dropout": 1.5}, ValueError, "`dropout` must be a number in"),
        ({"dropout": float("nan")}, TypeError, "Received: dropout=nan"),
        ({"optimizer": "adagrad", "momentum": 0.5}, ValueError, "`momentum`"),
        ({"augment": keras.layers.RandomFlip}, TypeError, "must return numbers, text.*Received: augment=<class"),
        ({"model": "resnet21"}, ValueError, "No model is called 'resnet21'"),
    ],
)
def test_what_is_no_recipe_is_refused_before_anything_runs(fields, error, message):
    def space(hp):
        return fields if hp.Choice("which", ["good", "bad"]) == "bad" else {}

    with pytest.raises(error, match=message) as caught:
        Space(space, "auto")
    assert caught.value.__notes__ == ["Raised by space 'space' at which='bad'."]


def test_a_model_is_named_once():
    def space(hp):
        return {"model": hp.Choice("model", ["resnet20", "resnet32"])}

    assert Space(space, "auto").fields({"model": "resnet32"}) == {"model": "resnet32"}
    for model in ("resnet20", keras.Sequential(name="mine")):
        with pytest.raises(ValueError, match="names a model, and the call does, too"):
            Space(space, model)


def test_what_a_space_raises_passes_through_with_its_name():
    def mine(hp):
        raise KeyError(hp.Int("x", 1, 2))

    with pytest.raises(KeyError) as caught:
        Space(mine, "auto")
    assert caught.value.__notes__ == ["Raised by space 'mine' at x=1."]


@pytest.mark.parametrize(
    "space",
    [
        lambda hp: {},
        lambda hp: {"epochs": hp.Fixed("length", 3)},
        lambda hp: {"epochs": hp.Int("length", 3, 3), "dropout": hp.Choice("dropout", [0.1])},
    ],
)
def test_a_space_with_nothing_to_tune_is_refused(space):
    with pytest.raises(ValueError, match="nothing to tune: it needs a hyperparameter with at least two values"):
        Space(space, "auto")


def test_names_stand_for_one_thing():
    def ranges(hp):
        if hp.Boolean("b"):
            return {"dropout": hp.Float("rate", 0.0, 0.1)}
        return {"dropout": hp.Float("rate", 0.0, 0.2)}

    def conditions(hp):
        hp.Boolean("b")
        for value in (True, False):
            with hp.conditional_scope("b", [value]):
                hp.Float("rate", 0.0, 0.1)
        return {}

    for space in (ranges, conditions):
        with pytest.raises(ValueError, match="two hyperparameters called 'rate'"):
            Space(space, "auto")
    with pytest.raises(ValueError, match="begin with 'tuner/' are Hyperband's own. Received: 'tuner/epochs'"):
        Space(lambda hp: {"epochs": hp.Int("tuner/epochs", 1, 2)}, "auto")


def test_what_is_no_space_is_refused():
    with pytest.raises(ValueError, match="No space is called 'heads'. Did you mean 'head'?"):
        Space("heads", "auto")
    grid: Any = {"learning_rate": [0.1]}
    with pytest.raises(TypeError, match="`space` must be one of head, transfer, scratch, or a function"):
        Space(grid, "auto")
    with pytest.raises(ValueError, match="No model is called 'resnet21'"):
        Space("head", "resnet21")
    nothing: Any = None
    with pytest.raises(TypeError, match="`model` must be a name, auto or a Keras model"):
        Space("head", nothing)
    for space in ("head", "transfer"):
        with pytest.raises(ValueError, match="'resnet20' has no public ones. Take space='scratch'"):
            Space(space, "resnet20")


def test_differences_are_told_in_sentences():
    def there(hp):
        hp.Float("learning_rate", 1e-5, 1e-1, sampling="log")
        hp.Float("dropout", 0.0, 0.5)
        hp.Int("length", 1, 3)
        hp.Choice("optimizer", ["adam", "sgd"])
        return {}

    def here(hp):
        hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
        optimizer = hp.Choice("optimizer", ["adam", "adamw"])
        with hp.conditional_scope("optimizer", ["adam", "adamw"]):
            hp.Int("length", 1, 3)
        hp.Boolean("flag")
        return {"optimizer": optimizer}

    def turned(hp):
        hp.Boolean("flag")
        return here(hp)

    earlier, now = (json.loads(json.dumps(Space(space, "auto").describe())) for space in (there, here))
    assert differences(earlier, now) == [
        "learning_rate is 1e-05 to 0.1 (log) there and 0.0001 to 0.01 (log) here",
        "learning_rate is 1e-05 by default there and 0.001 by default here",
        "dropout is only there",
        "length applies everywhere there and applies where optimizer is adam or adamw here",
        "optimizer is one of 'adam', 'sgd' there and one of 'adam', 'adamw' here",
        "flag is only here",
    ]
    assert differences(now, Space(here, "auto").describe()) == []
    assert differences(now, Space(turned, "auto").describe()) == [
        "the hyperparameters come as learning_rate, optimizer, length, flag there and as flag, learning_rate, "
        "optimizer, length here"
    ]
