import csv
import json
import os
import shutil
import stat
from pathlib import Path

import keras
import numpy as np
import pytest

import zoo
from zoo.training.fitting import OPTIMIZERS as FACTORIES
from zoo.training.phases import phases
from zoo.training.recipe import OPTIMIZERS, Recipe

QUICK = {"epochs": 2, "batch_size": 16}


@pytest.fixture(scope="module")
def data(digit_pictures):
    return zoo.load_data(digit_pictures, image_size=8)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return zoo.fine_tune("convnet", data, directory=tmp_path_factory.mktemp("runs") / "run", **QUICK)


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the run's folder, to be changed."""
    return Path(shutil.copytree(run.directory, tmp_path / "copied"))


def test_a_run_learns_and_writes_everything_about_itself(run, data):
    assert run.evaluate("test").accuracy > 0.8
    folder = run.directory
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["model"] == "convnet"
    assert recipe["reasons"]["epochs"] == "given"
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["keras"] == keras.__version__
    assert environment["seconds"] > 0
    with open(folder / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == data.manifest.table.split.tolist()
    with open(folder / "history.csv", newline="") as file:
        assert [float(row["val_loss"]) for row in csv.DictReader(file)] == run.history["val_loss"]
    assert {"test.csv", "test.json"} <= set(os.listdir(folder / "evaluation"))
    assert not [name for name in os.listdir(folder) if ".tmp" in name]


def test_the_model_has_the_weights_of_the_best_epoch(run):
    dev = run.evaluate("dev")
    assert run.history["val_accuracy"][run.best_epoch - 1] == pytest.approx(dev.accuracy, abs=1e-6)
    assert min(run.history["val_loss"]) == run.history["val_loss"][run.best_epoch - 1]


def test_the_same_seed_gives_the_same_run_and_another_another(run, data, tmp_path):
    again, other = (zoo.fine_tune("convnet", data, directory=tmp_path / str(i), seed=i, **QUICK) for i in (0, 1))
    assert again.history == run.history
    assert all(np.array_equal(a, b) for a, b in zip(run.model.get_weights(), again.model.get_weights(), strict=True))
    assert other.history != run.history


def test_a_recipe_handed_back_does_the_same_again(run, data, tmp_path):
    again = zoo.fine_tune("auto", data, recipe=run.recipe, directory=tmp_path / "again")
    assert again.recipe == run.recipe
    assert again.history == run.history


def test_a_run_comes_back_from_its_folder(run, data):
    again = zoo.load_run(run.directory, data)
    assert again.recipe == run.recipe
    assert again.history == run.history
    pixels = data.test.pixels()
    assert np.array_equal(again.model.predict(pixels, verbose=0), run.model.predict(pixels, verbose=0))
    with pytest.raises(ValueError, match="made from arrays"):
        zoo.load_run(run.directory)


def test_a_finished_folder_is_returned_and_nothing_else_is_overwritten(run, data, tmp_path, capsys):
    written = (run.directory / "model.keras").stat().st_mtime_ns
    again = zoo.fine_tune("convnet", data, directory=run.directory, **QUICK)
    assert again.history == run.history
    assert "finished" in capsys.readouterr().out
    with pytest.raises(ValueError, match="another recipe"):
        zoo.fine_tune("convnet", data, directory=run.directory, epochs=3, batch_size=16)
    with pytest.raises(ValueError, match="resume=False"):
        zoo.fine_tune("convnet", data, directory=run.directory, resume=False, **QUICK)
    assert (run.directory / "model.keras").stat().st_mtime_ns == written
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="is no run"):
        zoo.fine_tune("convnet", data, directory=tmp_path / "mine", **QUICK)
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


def test_a_folder_whose_run_was_cut_short_is_trained_again(run, copied, data):
    (copied / "history.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"not whole: history\.csv missing"):
        zoo.load_run(copied, data)
    again = zoo.fine_tune("convnet", data, directory=copied, **QUICK)
    assert again.history == run.history
    assert (copied / "history.csv").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(data, tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OSError, match="cannot be"):
        zoo.fine_tune("convnet", data, directory=tmp_path / "run", **QUICK)


def test_a_file_in_the_way_is_named(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="The folder .*run cannot be made"):
        zoo.fine_tune("convnet", data, directory=tmp_path / "file" / "run", **QUICK)


def test_new_folders_are_numbered(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "convnet-1").mkdir(parents=True)
    run = zoo.fine_tune("convnet", data, epochs=1, batch_size=64)
    assert run.directory == tmp_path / "runs" / "convnet-2"
    monkeypatch.chdir("/")
    run.evaluate("dev")  # a run stays where it is, wherever the program goes
    assert (tmp_path / "runs" / "convnet-2" / "evaluation" / "dev.csv").exists()


def test_uneven_classes_are_weighed(digit_pictures, tmp_path):
    images, labels = digit_pictures
    keep = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels > 0)[:120]])
    data = zoo.load_data((images[keep], labels[keep]), image_size=8)
    run = zoo.fine_tune("convnet", data, directory=tmp_path / "run", **QUICK)
    assert run.recipe.class_weights == "balanced"
    even = zoo.fine_tune("convnet", data, directory=tmp_path / "even", sampling="balanced", **QUICK)
    assert (even.recipe.sampling, even.recipe.class_weights) == ("balanced", "none")
    assert even.history["loss"] != run.history["loss"]
    named = zoo.fine_tune("convnet", data, directory=tmp_path / "named", class_weights={"0": 0.5, "1": 2.0}, **QUICK)
    assert zoo.load_run(named.directory, data).recipe == named.recipe
    with pytest.raises(ValueError, match="`class_weights` names classes that the data does not have: seven"):
        zoo.fine_tune("convnet", data, directory=tmp_path / "no", class_weights={"seven": 2.0}, **QUICK)
    assert not (tmp_path / "no").exists()


def test_without_a_dev_set_the_last_epoch_counts(digit_pictures, tmp_path):
    data = zoo.load_data(digit_pictures, image_size=8, split=(1.0, 0.0, 0.0))
    run = zoo.fine_tune("convnet", data, directory=tmp_path / "run", **QUICK)
    assert run.best_epoch == 2
    assert not [name for name in run.history if name.startswith("val_")]
    with pytest.raises(ValueError, match="no test pictures. It has: train"):
        run.evaluate("test")


def test_the_time_limit_stops_at_an_epoch_end(data, tmp_path):
    run = zoo.fine_tune("convnet", data, directory=tmp_path / "run", epochs=500, time_limit=1)
    assert 1 <= len(run.history["loss"]) < 500
    assert (tmp_path / "run" / "history.csv").exists()


def test_the_optimizer_asked_for_trains_at_a_constant_rate(data, tmp_path):
    run = zoo.fine_tune(
        "convnet",
        data,
        directory=tmp_path / "run",
        optimizer="momentum",
        schedule="constant",
        label_smoothing=0.1,
        **QUICK,
    )
    assert isinstance(run.model.optimizer, keras.optimizers.SGD)
    assert run.model.optimizer.momentum == 0.9
    assert "learning_rate" not in run.history
    assert run.history["loss"][1] < run.history["loss"][0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_recipe_can_be_made(name):
    assert float(FACTORIES[name](0.25).learning_rate) == 0.25


def test_a_rate_that_explodes_is_said_clearly(data, tmp_path):
    wanted = "dev loss was not finite in any epoch at a learning rate of 1e"
    with pytest.raises(ValueError, match=wanted), pytest.warns(RuntimeWarning, match="not finite after epoch 1"):
        zoo.fine_tune("convnet", data, directory=tmp_path / "run", optimizer="sgd", learning_rate=1e30, **QUICK)
    assert not (tmp_path / "run" / "model.keras").exists()


def test_head_first_then_all_at_a_tenth():
    recipe = Recipe(weights="keras/mobilenet_v2", freeze="medium", epochs=20, learning_rate=1e-3)
    head, rest = phases(recipe)
    assert (head.freeze, head.first, head.last, head.rate) == ("large", 0, 5, 1e-3)
    assert (rest.freeze, rest.first, rest.last) == ("medium", 5, 20)
    assert rest.rate == pytest.approx(1e-4)
    assert len(phases(Recipe(weights="x", freeze="large", epochs=20, learning_rate=1e-3))) == 1
    assert len(phases(Recipe(weights=None, freeze="none", epochs=20, learning_rate=1e-3))) == 1


def test_two_phases_are_one_history(data, tmp_path):
    earlier = zoo.fine_tune("convnet", data, directory=tmp_path / "a", **QUICK)
    run = zoo.fine_tune(
        "convnet",
        data,
        directory=tmp_path / "b",
        weights=str(earlier.directory / "model.keras"),
        freeze="small",
        epochs=4,
    )
    assert run.history["learning_rate"][0] == pytest.approx(1e-3)
    assert run.history["learning_rate"][1] == pytest.approx(1e-4)
    assert len(run.history["val_loss"]) == 4
    assert run.history["val_accuracy"][0] > 0.9  # it did not begin anew
    stem = [layer for layer in run.model.layers if layer.name.startswith(("stem_", "stage1_"))]
    for layer in stem:
        before = earlier.model.get_layer(layer.name).get_weights()
        assert all(np.array_equal(a, b) for a, b in zip(before, layer.get_weights(), strict=True)), layer.name


def own_model(classes=3, size=8):
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, activation="relu", name="stage1_conv"),
            keras.layers.GlobalAveragePooling2D(name="head_pool"),
            keras.layers.Dense(classes, name="head_dense"),  # logits
        ],
        name="mine",
    )


def test_a_model_of_ones_own_is_trained_as_it_is(data, tmp_path):
    run = zoo.fine_tune(own_model(), data, directory=tmp_path / "run", epochs=5, learning_rate=0.01, batch_size=8)
    assert run.recipe.model == "mine"
    assert (run.recipe.freeze, run.recipe.precision) == ("none", "as given")
    assert run.history["loss"][-1] < run.history["loss"][0]
    assert 0 < run.evaluate("test").loss < 2  # logits became probabilities


def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(ValueError, match="gives 4 outputs for 3 classes"):
        zoo.fine_tune(own_model(classes=4), data, directory=tmp_path / "run")
    with pytest.raises(ValueError, match="`dropout` belongs to the building"):
        zoo.fine_tune(own_model(), data, dropout=0.5, directory=tmp_path / "run")
    with pytest.raises(ValueError, match="needs pictures of at least"):
        zoo.fine_tune("resnet18", data, directory=tmp_path / "run")
    with pytest.raises(ValueError, match=r"No model is called 'resnet2'\. Did you mean 'resnet"):
        zoo.fine_tune("resnet2", data, directory=tmp_path / "run")
    with pytest.raises(TypeError, match=r"zoo\.load_data"):
        zoo.fine_tune("convnet", "photos", directory=tmp_path / "run")
    with pytest.raises(ValueError, match="`cache_features`"):
        zoo.fine_tune("convnet", data, cache_features="always", directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_predictions_of_files_folders_and_arrays_agree_with_the_evaluation(photos, tmp_path):
    data = zoo.load_data(photos, image_size=16)
    run = zoo.fine_tune("convnet", data, directory=tmp_path / "run", epochs=8, batch_size=8)
    table = run.evaluate("dev").table
    found = run.predict(data.dev.paths)
    assert list(found.label) == list(table.predicted)
    assert np.allclose(found.probability, table.probability, atol=1e-5)
    assert list(run.predict(data.dev.pixels()).label) == list(table.predicted)
    assert len(run.predict(photos)) == 36
    (photos / "one" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    mixed = run.predict([photos / "one" / "broken.jpg", data.dev.paths[0]])
    assert mixed.label.tolist() == ["", table.predicted[0]]
    assert np.isnan(mixed.probability[0])
    assert mixed.problem[0]


def test_callbacks_of_ones_own_are_called_in_every_epoch(data, tmp_path):
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    zoo.fine_tune("lenet5", data.configured(image_size=32), directory=tmp_path / "run", callbacks=[watch], **QUICK)
    assert seen == [0, 1]


@pytest.mark.slow
def test_a_pretrained_network_learns_real_photos_with_its_trunk_held_still(zoo_data, keras_home, tmp_path):
    data = zoo.load_data(zoo_data / "hymenoptera", image_size=96)
    run = zoo.fine_tune("mobilenet_v2", data, directory=tmp_path / "run", epochs=4, learning_rate=5e-3)
    assert run.recipe.freeze == "large"
    assert run.evaluate("dev").accuracy > 0.8
    fresh = zoo.create("mobilenet_v2", classes=2, input_shape=(96, 96, 3), weights="imagenet")
    for layer in fresh.layers:
        if not layer.name.startswith("head_"):
            held = run.model.get_layer(layer.name).get_weights()
            assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), held, strict=True)), layer.name


def test_half_precision_trains_evaluates_and_comes_back(data, tmp_path):
    run = zoo.fine_tune("convnet", data, directory=tmp_path / "run", precision="mixed_bfloat16", **QUICK)
    assert run.model.get_layer("stage1_conv").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"  # that of everybody else is left alone
    assert run.evaluate("test").accuracy > 0.8
    again = zoo.load_run(run.directory, data)
    assert again.model.get_layer("stage1_conv").compute_dtype == "bfloat16"


@pytest.mark.slow
@pytest.mark.long
def test_half_precision_is_exported_with_a_tolerance_of_its_own(data, tmp_path):
    again = zoo.fine_tune("convnet", data, directory=tmp_path / "run", precision="mixed_bfloat16", **QUICK)
    proof = json.loads((again.export() / "verification.json").read_text())
    assert proof["passed"]
    assert proof["precision"] == "bfloat16"


@pytest.mark.slow
@pytest.mark.long
def test_hymenoptera_with_a_frozen_mobilenet_reaches_94_percent(zoo_data, keras_home, tmp_path):
    run = zoo.fine_tune(
        "mobilenet_v2", zoo.load_data(zoo_data / "hymenoptera"), directory=tmp_path / "run", freeze="large", epochs=20
    )
    assert run.evaluate("dev").accuracy >= 0.94
    export = run.export()
    assert json.loads((export / "verification.json").read_text())["passed"]


def test_layers_of_any_name_are_trained_and_only_freezing_asks_for_the_contract(data, tmp_path):
    def network():
        return keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(4, 3),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )

    run = zoo.fine_tune(network(), data, directory=tmp_path / "run", **QUICK)
    assert len(run.history["loss"]) == 2
    assert zoo.load_run(run.directory, data).history == run.history
    with pytest.raises(ValueError, match="outside the naming contract"):
        zoo.fine_tune(network(), data, freeze="large", directory=tmp_path / "other", **QUICK)
    assert not (tmp_path / "other").exists()


def test_a_model_of_ones_own_is_known_again_by_its_first_weights(data, tmp_path):
    def network(seed):
        keras.utils.set_random_seed(seed)
        shrunk, pooled = keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()
        return keras.Sequential([keras.Input((8, 8, 3)), shrunk, pooled, keras.layers.Dense(3, activation="softmax")])

    first, again = network(1), network(1)
    run = zoo.fine_tune(first, data, directory=tmp_path / "run", **QUICK)
    same = zoo.fine_tune(again, data, directory=tmp_path / "run", **QUICK)
    assert same.model is again and same.history == run.history
    assert all(map(np.array_equal, again.get_weights(), first.get_weights()))  # trained in place, as ever
    with pytest.raises(ValueError, match="whether it began with the model handed over cannot be told, or it did not"):
        zoo.fine_tune(network(2), data, directory=tmp_path / "run", **QUICK)


def test_models_that_cannot_be_read_are_refused_in_one_sentence(data, tmp_path):
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    class_scores = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 3), keras.layers.GlobalMaxPooling2D()]
    )
    sizeless = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    with pytest.raises(ValueError, match="functional or Sequential"):
        zoo.fine_tune(Subclassed(), data, directory=tmp_path / "run")
    with pytest.raises(ValueError, match="sum"):
        zoo.fine_tune(class_scores, data, directory=tmp_path / "run")
    with pytest.raises(ValueError, match="any size; say image_size="):
        zoo.fine_tune(sizeless, data.configured(image_size=None), directory=tmp_path / "run")
    with pytest.raises(ValueError, match=r"takes pictures of \(8, 8\). Received: image_size=\(16, 16\)"):
        zoo.fine_tune(own_model(), data, image_size=16, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unfinished_folder_can_be_used_for_another_recipe(data, tmp_path):
    with pytest.raises(ValueError, match="Try a tenth"), pytest.warns(RuntimeWarning, match="not finite"):
        zoo.fine_tune("convnet", data, directory=tmp_path / "run", optimizer="sgd", learning_rate=1e30, **QUICK)
    run = zoo.fine_tune("convnet", data, directory=tmp_path / "run", optimizer="sgd", learning_rate=0.01, **QUICK)
    assert run.recipe.learning_rate == 0.01


@pytest.mark.parametrize("limit", [0, -5, float("nan"), "5"])
def test_a_time_limit_that_is_none_is_refused(data, tmp_path, limit):
    with pytest.raises(ValueError, match="`time_limit`"):
        zoo.fine_tune("convnet", data, directory=tmp_path / "run", time_limit=limit)
    assert not (tmp_path / "run").exists()


def test_weights_of_an_earlier_run_meet_the_pixels_they_were_trained_on(run, data):
    again = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), weights=run.directory / "model.keras")
    pixels = data.test.pixels()
    assert np.allclose(again.predict(pixels, verbose=0), run.model.predict(pixels, verbose=0), atol=1e-6)


@pytest.mark.parametrize("name", ["data.json", "history.csv", "model.keras", "recipe.json"])
def test_a_damaged_run_names_the_file(copied, data, name):
    (copied / name).write_bytes((copied / name).read_bytes()[:20])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        zoo.load_run(copied, data)


def test_pictures_that_were_replaced_are_not_taken_for_those_of_the_run(photos, tmp_path):
    data = zoo.load_data(photos, image_size=8)
    run = zoo.fine_tune("convnet", data, directory=tmp_path / "run", **QUICK)
    other = Path(shutil.copytree(photos, tmp_path / "other"))
    assert zoo.load_run(run.directory, other).evaluate("dev").accuracy == run.evaluate("dev").accuracy
    (other / data.dev.relative_paths[0]).write_bytes(Path(data.train.paths[0]).read_bytes())
    with pytest.raises(ValueError, match="another picture than when it was indexed"):
        zoo.load_run(run.directory, other).evaluate("dev")


def test_predicting_nothing_and_a_lone_picture(run, data):
    assert list(run.predict([]).columns) == ["path", "label", "probability"]
    with pytest.raises(ValueError, match=r"x\[None\]"):
        run.predict(data.test.pixels()[0])


def test_frozen_dropout_is_silent_again_after_loading(data, tmp_path):
    layer = "stage1_dropout"
    network = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), feature_dropout=0.5)
    held = zoo.fine_tune(network, data, freeze="large", directory=tmp_path / "run", **QUICK)
    assert held.model.get_layer(layer).rate == 0
    assert zoo.load_run(held.directory, data).model.get_layer(layer).rate == 0
    assert keras.saving.load_model(held.directory / "model.keras").get_layer(layer).rate == 0.5
