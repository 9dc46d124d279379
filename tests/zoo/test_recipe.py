import json
from dataclasses import fields, replace

import numpy as np
import pytest

from zoo.training.recipe import AUTO, Recipe
from zoo.training.table import TABLE, Facts, resolve

FACTS = Facts(
    pictures=245,
    classes=2,
    per_class=122.5,
    unevenness=1.02,
    side=375,
    image_size=None,
    precision=("float32", "a processor"),
)


def test_every_auto_is_resolved_with_a_reason():
    recipe = resolve(Recipe(), FACTS)
    for item in fields(Recipe):
        if item.name != "reasons":
            assert getattr(recipe, item.name) != AUTO, item.name
            assert recipe.reasons[item.name], item.name


def test_the_table_has_a_last_rule_for_every_field():
    extremes = [
        replace(FACTS, pictures=pictures, per_class=pictures / 10, side=side, unevenness=unevenness)
        for pictures in (30, 6000, 60_000)
        for side in (8, 500)
        for unevenness in (1.0, 9.0)
    ]
    for facts in extremes:
        recipe = resolve(Recipe(), facts)
        assert AUTO not in [getattr(recipe, item.name) for item in fields(Recipe) if item.name != "reasons"]
    assert {rule.field for rule in TABLE} == {item.name for item in fields(Recipe)} - {"reasons"}


def test_small_data_freeze_much_and_large_data_little():
    amounts = [resolve(Recipe(), replace(FACTS, per_class=n)).freeze for n in (50, 500, 5000)]
    assert amounts == ["large", "medium", "small"]
    assert resolve(Recipe(weights=None), FACTS).freeze == "none"
    assert "122 training pictures a class" in resolve(Recipe(), FACTS).reasons["freeze"]


def test_small_pictures_get_a_small_network():
    recipe = resolve(Recipe(), replace(FACTS, side=32))
    assert (recipe.model, recipe.weights, recipe.image_size) == ("resnet20", None, (32, 32))
    assert resolve(Recipe(), FACTS).model == "mobilenet_v2"


def test_uneven_classes_are_weighed_and_it_is_said():
    recipe = resolve(Recipe(), replace(FACTS, unevenness=4.0))
    assert recipe.class_weights == "balanced"
    assert "4.0 times" in recipe.reasons["class_weights"]
    assert resolve(Recipe(), FACTS).class_weights == "none"
    assert resolve(Recipe(sampling="balanced"), replace(FACTS, unevenness=4.0)).class_weights == "none"
    both = resolve(Recipe(sampling="balanced", class_weights="balanced"), FACTS)
    assert "favoured twice" in both.reasons["class_weights"]


def test_a_recipe_of_before_a_field_was_there_says_what_was_done_then(tmp_path):
    recipe = resolve(Recipe(), FACTS)
    old = {name: value for name, value in recipe.to_dict().items() if name != "sampling"}
    (tmp_path / "recipe.json").write_text(json.dumps(old))
    assert Recipe.load(tmp_path / "recipe.json") == recipe


def test_class_weights_may_be_given_by_name_and_come_back_from_a_file(tmp_path):
    recipe = resolve(Recipe(class_weights={"ant": 2, "bee": np.float32(0.5)}), FACTS)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    assert "ant: 2, bee: 0.5" in str(recipe)
    for wrong in ({"ant": 0}, {"ant": float("nan")}, {1: 2.0}, {}, "even"):
        with pytest.raises(ValueError, match="`class_weights` must be none, balanced, a mapping"):
            Recipe(class_weights=wrong)


def test_what_is_given_is_kept_and_called_given():
    recipe = resolve(Recipe(epochs=3, image_size=96), FACTS)
    assert (recipe.epochs, recipe.image_size) == (3, (96, 96))
    assert recipe.reasons["epochs"] == "given"


def test_a_resolved_recipe_resolves_to_itself_whatever_the_facts():
    recipe = resolve(Recipe(), FACTS)
    assert resolve(recipe, replace(FACTS, per_class=9999, side=8)) == recipe


def test_a_recipe_survives_its_file(tmp_path):
    recipe = resolve(Recipe(), FACTS)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    again = Recipe.load(tmp_path / "recipe.json")
    assert again == recipe
    assert again.reasons == recipe.reasons
    (tmp_path / "recipe.json").write_text('{"speed": 3}')
    with pytest.raises(ValueError, match="holds no recipe"):
        Recipe.load(tmp_path / "recipe.json")


def test_a_printed_recipe_shows_each_value_beside_its_reason():
    lines = str(resolve(Recipe(), FACTS)).splitlines()
    assert len(lines) == len(fields(Recipe)) - 1
    assert any(line.split()[:2] == ["freeze", "large"] and "fewer than 200" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("freeze", "most"),
        ("optimizer", "lion"),
        ("epochs", 0),
        ("epochs", True),
        ("learning_rate", -1.0),
        ("batch_size", 1.5),
        ("label_smoothing", 1),
        ("dropout", 1.0),
        ("l2", -0.1),
        ("precision", "half"),
        ("seed", -1),
        ("augment", "wild"),
    ],
)
def test_fields_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        Recipe(**{name: value})


def test_an_unknown_field_gets_the_nearest():
    with pytest.raises(TypeError, match="no field `epoch`. Did you mean `epochs`?"):
        Recipe().with_fields({"epoch": 3})


def test_a_field_that_is_given_anew_loses_its_old_reason():
    recipe = resolve(Recipe(), FACTS).with_fields({"epochs": 5})
    assert "epochs" not in recipe.reasons
    assert resolve(recipe, FACTS).reasons["epochs"] == "given"


def test_numbers_of_numpy_and_paths_are_taken(tmp_path):
    recipe = Recipe(
        epochs=np.int64(3), learning_rate=np.float32(0.5), image_size=[np.int64(8), 8], weights=tmp_path / "a.h5"
    )
    assert json.loads(json.dumps(recipe.to_dict()))["epochs"] == 3
    assert recipe.image_size == (8, 8)
    assert recipe.weights == str(tmp_path / "a.h5")
    assert Recipe(weights="none").weights is None


@pytest.mark.parametrize("value", [0, (8, 0), (1, 2, 3), 16.0, "large"])
def test_an_image_size_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="`image_size` must be"):
        Recipe(image_size=value)


def test_a_rate_without_end_is_refused():
    with pytest.raises(ValueError, match="`learning_rate` must be"):
        Recipe(learning_rate=float("inf"))
