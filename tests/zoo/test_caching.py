"""Training on kept features: the same as training on pictures, decided by measured seconds and bytes."""

import json

import keras
import numpy as np
import pytest

import callbacks
import zoo
from zoo.training import caching
from zoo.training.phases import Phase, phases
from zoo.training.recipe import Recipe
from zoo.transfer.passing import Pass
from zoo.transfer.store import Store


@pytest.fixture(scope="module")
def data(digit_pictures):
    return zoo.load_data(digit_pictures, image_size=8)


@pytest.fixture(scope="module")
def weights(data, tmp_path_factory):
    """A small network that has learned something."""
    folder = tmp_path_factory.mktemp("earlier")
    run = zoo.fine_tune("convnet", data, directory=folder / "run", epochs=1, batch_size=64, dropout=0.0)
    return str(run.directory / "model.keras")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fit(data, weights, folder, **fields):
    given = {"epochs": 3, "batch_size": 32, "weights": weights, "freeze": "large", "learning_rate": 1e-3, **fields}
    return zoo.fine_tune("convnet", data, directory=folder, **given)


def decisions(run):
    return json.loads((run.directory / "environment.json").read_text())["frozen_part"]


LONG = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize(
    "fields",
    [
        {"freeze": "large", "augment": "light", "views": 3},
        pytest.param(
            {"freeze": "medium", "augment": "light", "views": 4, "epochs": 4},
            marks=LONG,
        ),
        pytest.param(
            {
                "freeze": ("large", "small"),
                "label_smoothing": 0.1,
                "class_weights": "balanced",
                "head": "hidden",
                "epochs": 4,
            },
            marks=LONG,
        ),
    ],
    ids=["large", "medium after the head", "gradually"],
)
def test_training_with_a_view_an_epoch_equals_training_without_a_cache(data, weights, tmp_path, fields):
    kept = fit(data, weights, tmp_path / "kept", cache_features=True, **fields)
    plain = fit(data, weights, tmp_path / "plain", cache_features=False, **fields)
    assert all(decision["computed_once"] for decision in decisions(kept))
    assert not any(decision["computed_once"] for decision in decisions(plain))
    assert kept.history.keys() == plain.history.keys()
    for name in ("loss", "val_loss"):
        assert np.allclose(kept.history[name], plain.history[name], rtol=1e-4), name
    pixels = data.test.pixels()
    assert np.allclose(kept.model.predict(pixels), plain.model.predict(pixels), atol=1e-3)
    assert kept.history["loss"][0] != kept.history["loss"][1]


def test_fewer_views_than_epochs_come_round_again(data, weights, tmp_path):
    run = fit(data, weights, tmp_path / "run", cache_features=True, augment="light", views=2, schedule="constant")
    assert run.recipe.views == 2
    names = sorted(path.name for path in Store().directory.glob("*/view*.features"))
    assert names == ["view0.features", "view0.features", "view1.features"]  # of dev one, of train two
    all_views = fit(data, weights, tmp_path / "all", cache_features=True, augment="light", views=3)
    assert all_views.history["loss"][:2] != all_views.history["loss"][1:]


def test_what_is_frozen_stays_and_what_is_saved_is_the_whole_network(data, weights, tmp_path):
    earlier = keras.saving.load_model(weights)
    run = fit(data, weights, tmp_path / "run", cache_features=True, freeze="medium", dropout=0.2)
    again = zoo.load_run(run.directory, data)
    pixels = data.test.pixels()
    assert np.array_equal(again.model.predict(pixels), run.model.predict(pixels))
    for layer in earlier.layers:
        if layer.name.startswith(("stem_", "stage1_")):
            held = run.model.get_layer(layer.name).get_weights()
            assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), held, strict=True)), layer.name
    assert not np.array_equal(
        earlier.get_layer("stage2_conv").get_weights()[0], run.model.get_layer("stage2_conv").get_weights()[0]
    )
    assert isinstance(run.model.optimizer, keras.optimizers.AdamW)
    assert keras.saving.load_model(run.directory / "model.keras").compiled


def test_evaluation_goes_by_the_cache_and_says_the_same(data, weights, tmp_path, monkeypatch):
    run = fit(data, weights, tmp_path / "run", cache_features=True)
    passes = []
    fill = Pass.fill
    monkeypatch.setattr(Pass, "fill", lambda self, views: passes.append(self.pictures.name) or fill(self, views))
    for split in ("dev", "test"):
        found = run.evaluate(split)
        expected = zoo.evaluate(run.model, getattr(data, split))
        assert np.allclose(found.probabilities, expected.probabilities, atol=1e-6)
        assert np.isclose(found.loss, expected.loss)
    again = zoo.load_run(run.directory, data)
    assert again.evaluate("test").accuracy == run.evaluate("test").accuracy
    assert passes == ["dev", "test", "test", "test"]
    zoo.unfreeze(run.model)
    assert run.evaluate("test").accuracy == again.evaluate("test").accuracy  # without a frozen part, without the cache


def test_a_second_run_computes_nothing_again(data, weights, tmp_path, monkeypatch):
    first = fit(data, weights, tmp_path / "first", cache_features=True, augment="light", views=3)
    monkeypatch.setattr(Pass, "_timed", None)
    second = fit(data, weights, tmp_path / "second", augment="light", views=3)
    assert second.history == first.history
    assert "there already" in decisions(second)[0]["why"]


def test_without_room_the_training_goes_on_and_says_so(data, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MENAGERIE_CACHE_GB", "0.000001")
    run = fit(data, weights, tmp_path / "run", cache_features=True)
    why = decisions(run)[0]["why"]
    assert "computed in every step: its outputs would take" in why
    assert "the cache may hold 1.0 KB" in why
    assert why[1:] in capsys.readouterr().out
    assert len(run.history["loss"]) == 3


def test_a_disk_that_fills_up_during_the_pass_costs_only_the_cache(data, weights, tmp_path, monkeypatch, capsys):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zoo.transfer.writer._write", full)
    run = fit(data, weights, tmp_path / "run", cache_features=True)
    assert "No space left on device" in capsys.readouterr().out
    assert not decisions(run)[0]["computed_once"]
    assert len(run.history["loss"]) == 3
    assert not list(Store().directory.glob("*/view*"))


def test_a_cache_folder_that_cannot_be_made_is_named(data, weights, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    run = fit(data, weights, tmp_path / "run", cache_features=True)
    assert "The folder" in decisions(run)[0]["why"]
    assert "cannot be made" in decisions(run)[0]["why"]


def test_callbacks_of_others_switch_the_cache_off(data, weights, tmp_path):
    seen = []
    theirs = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: seen.append(theirs.model.name))
    run = fit(data, weights, tmp_path / "a", callbacks=[theirs])
    assert "LambdaCallback is no callback of ours" in decisions(run)[0]["why"]
    fit(data, weights, tmp_path / "b", callbacks=[theirs], cache_features=True)
    assert seen == ["convnet", "convnet_tail"]
    ours = fit(data, weights, tmp_path / "c", callbacks=[callbacks.TimeBudget(100)])
    assert "callback" not in decisions(ours)[0]["why"]


def test_little_to_save_is_left_alone_and_said(data, weights, tmp_path):
    run = fit(data, weights, tmp_path / "run")
    why = decisions(run)[0]["why"]
    assert "to keep its outputs" in why
    assert "s of computing and cost" in why


def slow_forward(monkeypatch, seconds):
    """A trunk that takes `seconds` a picture, as far as the clock can tell."""

    def timed(self, images, rows, view, size):
        self._seconds[size] = seconds
        return self._forward(images, rows, view, size)

    monkeypatch.setattr(Pass, "_timed", timed)


@pytest.mark.parametrize(
    ("seconds", "views"),
    # 5 s, which views may take in any case, buy 375 pictures 13 views, 1.3, 4.4; a quarter of 10 epochs is 2.5
    [(0.001, 10), (0.01, 2), (0.003, 4)],
    ids=["cheap", "dear", "between"],
)
def test_views_weigh_their_cost_against_the_epochs(data, weights, monkeypatch, seconds, views):
    slow_forward(monkeypatch, seconds)
    model = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), weights=weights)
    recipe = Recipe(model="convnet", weights=weights, freeze="large", augment="light", epochs=10, image_size=8, seed=0)
    parts = [Phase("large", 0, 10, 1e-3)]
    plans, settled = caching.plans(model, data, recipe, parts, True)
    assert settled.views == plans[0].views == views
    assert ("take turns in 10 epochs" in settled.reasons["views"]) == (views < 10)


def test_a_pass_longer_than_half_the_time_limit_is_not_made(data, weights, monkeypatch):
    slow_forward(monkeypatch, 1.0)
    model = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), weights=weights)
    recipe = Recipe(model="convnet", weights=weights, freeze="large", augment="none", views=0, image_size=8, seed=0)
    plans, _ = caching.plans(model, data, recipe, [Phase("large", 0, 10, 1e-3)], "auto", seconds=60)
    assert "over half of the time limit" in plans[0].why
    plans, _ = caching.plans(model, data, recipe, [Phase("large", 0, 10, 1e-3)], "auto", seconds=6000)
    assert plans[0].cached


def test_views_zero_augments_each_epoch_anew(data, weights, tmp_path):
    run = fit(data, weights, tmp_path / "run", cache_features=True, augment="light", views=0)
    assert "views=0" in decisions(run)[0]["why"]
    assert run.recipe.views == 0


def test_augmentation_from_scratch_needs_no_views(data, tmp_path):
    run = zoo.fine_tune("convnet", data, augment="light", epochs=1, batch_size=64, directory=tmp_path / "run")
    assert (run.recipe.freeze, run.recipe.views) == ("none", 0)
    assert decisions(run)[0]["why"] == "nothing is frozen"


def test_a_finished_run_with_measured_views_is_returned(data, weights, tmp_path):
    fields = {"augment": "light", "cache_features": True}
    run = fit(data, weights, tmp_path / "run", **fields)
    assert run.recipe.views >= 1
    again = fit(data, weights, tmp_path / "run", **fields)
    assert again.history == run.history


def test_phases_of_several_amounts_share_the_epochs():
    recipe = Recipe(weights="x", freeze=["large", "medium", "small"], epochs=20, learning_rate=1e-3)
    found = phases(recipe)
    assert [(phase.freeze, phase.first, phase.last) for phase in found] == [
        ("large", 0, 7),
        ("medium", 7, 13),
        ("small", 13, 20),
    ]
    assert [phase.rate for phase in found] == pytest.approx([1e-3, 1e-4, 5e-5])


@pytest.mark.parametrize("freeze", [("small", "large"), ("large", "large"), ("large", "tiny"), ()])
def test_amounts_that_do_not_fall_are_refused(freeze):
    with pytest.raises(ValueError, match="`freeze` must be one of none, small"):
        Recipe(freeze=freeze)


def test_more_phases_than_epochs_are_refused():
    with pytest.raises(ValueError, match="names 3 phases, and each needs an epoch"):
        Recipe(freeze=("large", "medium", "small"), epochs=2)


def test_unfreezing_gradually_keeps_the_pull_to_the_pretrained_weights(data, weights, tmp_path):
    fields = {"freeze": ("large", "medium", "small"), "epochs": 3, "layer_decay": 0.5, "learning_rate": 0.1}
    free = fit(data, weights, tmp_path / "free", **fields)
    held = fit(data, weights, tmp_path / "held", l2_sp=100.0, **fields)
    start = keras.saving.load_model(weights)

    def wandered(run, layer):
        return np.abs(run.model.get_layer(layer).get_weights()[0] - start.get_layer(layer).get_weights()[0]).max()

    assert wandered(held, "stage2_conv") < wandered(free, "stage2_conv")
    assert not any(variable.regularizer for variable in held.model.trainable_variables)
    assert held.recipe.freeze == ("large", "medium", "small")
    assert zoo.load_run(held.directory, data).recipe == held.recipe


def test_a_pull_needs_weights_to_pull_to(data, tmp_path):
    with pytest.raises(ValueError, match="`l2_sp`"):
        zoo.fine_tune("convnet", data, l2_sp=0.1, weights=None, directory=tmp_path / "run")


def test_the_policy_acts_in_training_without_a_frozen_part(data, tmp_path):
    runs = [
        zoo.fine_tune("convnet", data, augment=name, epochs=1, batch_size=64, directory=tmp_path / name)
        for name in ("none", "light")
    ]
    assert runs[0].history["loss"] != runs[1].history["loss"]


def test_penalties_do_not_decide_which_epoch_was_best(data, weights, tmp_path):
    """They grow with each phase that trains more, and would make its epochs look worse than those before."""
    run = fit(data, weights, tmp_path / "run", freeze="small", epochs=6, l2=0.01, learning_rate=0.01)
    best = run.best_epoch - 1
    assert best == int(np.argmin(run.history["val_cross_entropy"]))
    assert best != int(np.argmin(run.history["val_loss"]))
    assert run.evaluate("dev").loss == pytest.approx(run.history["val_cross_entropy"][best], rel=1e-3)


def test_phases_that_the_time_limit_left_out_are_not_recorded(data, weights, tmp_path):
    run = fit(data, weights, tmp_path / "run", freeze="small", epochs=8, time_limit=1e-3)
    assert [decision["freeze"] for decision in decisions(run)] == ["large"]
