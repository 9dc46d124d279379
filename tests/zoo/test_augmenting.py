"""Augmentation and mixing in a training: what the recipe says of them, and what the network gets."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import augment
import zoo
from zoo.data.batches import stream
from zoo.training import augmenting
from zoo.training.recipe import Recipe


@pytest.fixture(scope="module")
def data(digit_pictures):
    return zoo.load_data(digit_pictures, image_size=8)


@pytest.fixture(scope="module")
def weights(data, tmp_path_factory):
    """A small network that has learned something."""
    folder = tmp_path_factory.mktemp("earlier")
    run = zoo.fine_tune("convnet", data, directory=folder / "run", epochs=1, batch_size=64)
    return str(run.directory / "model.keras")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fit(data, folder, **fields):
    return zoo.fine_tune("convnet", data, directory=folder, batch_size=64, **{"epochs": 1, **fields})


def recipe(**fields):
    return Recipe(image_size=(8, 8), seed=1, **{"augment": "light", "mixing": "none", **fields})


@pytest.mark.parametrize("mixing", ["mixup", pytest.param("cutmix", marks=[pytest.mark.slow, pytest.mark.long])])
def test_mixing_acts_in_training(data, tmp_path, mixing):
    plain = fit(data, tmp_path / "plain", learning_rate=1e-9, mixing="none")
    mixed = fit(data, tmp_path / "mixed", learning_rate=1e-9, mixing=mixing)
    assert mixed.recipe.mixing == mixing
    assert not np.isclose(mixed.history["loss"][0], plain.history["loss"][0], rtol=1e-3)


def batches(data, recipe, weights=None):
    mixing = augmenting.mixing(recipe, 3, weights)
    policy = augmenting.policy(recipe)
    served = stream(data.train, 16, policy=policy, mixing=mixing, seed=0, epoch=2, one_hot=True)
    if keras.backend.backend() != "tensorflow":
        return [served[index] for index in range(3)]
    return list(served.take(3).as_numpy_iterator())


def test_pictures_and_labels_of_a_batch_are_mixed_alike(data):
    plain, mixed = batches(data, recipe()), batches(data, recipe(mixing="mixup"))
    for (images, labels), (both, soft) in zip(plain, mixed, strict=True):
        assert both.dtype == np.uint8
        assert np.allclose(soft.sum(1), 1)
        own = np.full(len(images), np.nan)
        partner = np.roll(labels, -1, 0), np.roll(labels, 1, 0)
        for row in range(len(images)):
            for other, turned in zip(partner, (-1, 1), strict=True):
                share = soft[row] @ labels[row]
                picture = share * images[row] + (1 - share) * np.roll(images.astype(float), turned, 0)[row]
                if (labels[row] != other[row]).any() and np.abs(picture - both[row]).max() <= 0.51:
                    own[row] = share
        told = (labels != partner[0]).any(1) & (labels != partner[1]).any(1)
        assert told.sum() > 3
        assert np.isfinite(own[told]).all()


def test_class_weights_of_mixed_pictures_are_mixed(data):
    weights = {0: 1.0, 1: 2.0, 2: 4.0}
    plain, weighed = batches(data, recipe(mixing="mixup")), batches(data, recipe(mixing="mixup"), weights)
    for (images, labels), (same, targets, shares) in zip(plain, weighed, strict=True):
        assert np.array_equal(images, same)
        assert np.allclose(shares, labels @ [1, 2, 4], rtol=1e-5)
        assert np.allclose(targets * shares[:, np.newaxis], labels * [1, 2, 4], rtol=1e-5)


def test_uneven_classes_train_with_mixing(digit_pictures, tmp_path):
    images, labels = digit_pictures
    kept = np.flatnonzero((labels != 2) | (np.cumsum(labels == 2) <= 40))
    data = zoo.load_data((images[kept], labels[kept]), image_size=8)
    run = fit(data, tmp_path / "run", mixing="mixup", epochs=3)
    assert run.recipe.class_weights == "balanced"
    assert run.history["loss"][-1] < run.history["loss"][0]


def test_layers_of_another_backend_act_before_the_pipeline(data, monkeypatch):
    expected = batches(data, recipe(mixing="cutmix"), {0: 1.0, 1: 2.0, 2: 4.0})
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for one, other in zip(expected, batches(data, recipe(mixing="cutmix"), {0: 1.0, 1: 2.0, 2: 4.0}), strict=True):
        assert [array.shape for array in one] == [array.shape for array in other]
        assert all(np.allclose(a, b, atol=1) for a, b in zip(one, other, strict=True))


def test_mixing_is_off_where_outputs_of_pictures_are_kept_and_the_recipe_says_so(data, weights, tmp_path):
    given = {"weights": weights, "freeze": "large", "augment": "light", "views": 2, "epochs": 2}
    run = fit(data, tmp_path / "kept", mixing="mixup", cache_features=True, **given)
    assert run.recipe.mixing == "none"
    assert run.recipe.reasons["mixing"].startswith("mixup is switched off: the frozen part's outputs")
    assert "--no-cache" in (run.directory / "recipe.json").read_text()
    plain = fit(data, tmp_path / "plain", mixing="none", cache_features=True, **given)
    assert run.history == plain.history
    again = fit(data, tmp_path / "kept", mixing="mixup", cache_features=True, **given)  # finished: it comes back
    assert again.history == run.history
    for other in ({"mixing": "cutmix", "cache_features": True}, {"mixing": "mixup", "cache_features": False}):
        with pytest.raises(ValueError, match="holds a run of another recipe"):
            fit(data, tmp_path / "kept", **given, **other)
    mixed = fit(data, tmp_path / "mixed", mixing="mixup", cache_features=False, **given)
    assert mixed.recipe.mixing == "mixup"
    assert mixed.history["loss"] != plain.history["loss"]


@pytest.mark.slow
@pytest.mark.long
def test_phases_without_kept_outputs_mix(data, weights, tmp_path):
    run = fit(
        data, tmp_path / "run", weights=weights, freeze=("large", "none"), mixing="mixup", cache_features=True, epochs=3
    )
    assert run.recipe.mixing == "mixup"
    assert run.recipe.reasons["mixing"] == "off in the epochs 1 to 2, where the frozen part's outputs are kept"
    kept = json.loads((run.directory / "environment.json").read_text())["frozen_part"]
    assert [phase["computed_once"] for phase in kept] == [True, False]
    all_mixed = fit(data, tmp_path / "all", recipe=run.recipe, cache_features=False, epochs=3)
    assert (all_mixed.recipe.mixing, all_mixed.recipe.reasons["mixing"]) == ("mixup", "given")


def test_a_preview_shows_what_the_first_epochs_get(data):
    figure = augmenting.preview(data, recipe(augment="medium"))
    columns = len(figure.axes) // 6
    shown = [axis.get_images()[0].get_array().data for axis in figure.axes]
    labels = data.train.labels
    rows = [np.flatnonzero(labels == label)[i] for i in range(2) for label in range(3)]
    medium = augment.policy("medium", (8, 8), seed=1)
    for place, row in enumerate(rows):
        picture = data.train.pixels()[row]
        assert np.array_equal(shown[place * columns], picture)
        seen = medium(picture[np.newaxis], training=True, keys=[[3, int(row)]])
        assert np.array_equal(shown[place * columns + 4], keras.ops.convert_to_numpy(seen)[0])


def test_an_unknown_way_of_mixing_is_refused():
    with pytest.raises(ValueError, match="`mixing` must be one of none, mixup, cutmix, or auto. Received: mixing="):
        Recipe(mixing="all")


def test_the_command_preview_writes_a_picture(tmp_path, command):
    path = tmp_path / "looks" / "preview.png"
    code, out, err = command("preview", "digits", "--augment", "heavy", "--image-size", "16", "--out", path)
    assert (code, err) == (0, "")
    assert "policy heavy\n  RandomAffine" in out
    assert f"{path}: training pictures of 16x16, eight epochs of each" in out
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_train_shows_the_pictures_first(tmp_path, command):
    path = tmp_path / "preview.png"
    words = ["train", "digits", "--model", "convnet", "--image-size", "8", "--epochs", "1", "--augment", "trivial"]
    code, out, _ = command(*words, "--mixing", "cutmix", "--preview", path, "--out", tmp_path / "run")
    assert code == 0
    assert path.exists()
    assert out.index("eight epochs of each") < out.index("learning_rate")
    saved = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (saved["augment"], saved["mixing"]) == ("trivial", "cutmix")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--augment", "wild"], "`augment` must be one of none, light, medium, heavy, trivial, or auto"),
        (["--out", "preview.jpg"], "A preview is written as PNG; name it so. Received: preview.jpg"),
        (["--model", "resnet81"], "Did you mean"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(words, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("preview", "digits", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_meant_in_a_model_that_is_handed_over_is_said(data, tmp_path, capsys):
    layers = keras.layers
    steps = [keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), augment.RandomAffine(shift=0.1), layers.Flatten()]
    zoo.fine_tune(keras.Sequential([*steps, layers.Dense(3)]), data, epochs=1, directory=tmp_path / "run")
    assert "RandomAffine comes behind Rescaling in the model and expects pixels 0..255: put it before." in (
        capsys.readouterr().out
    )


def test_augmentation_in_a_model_that_is_handed_over_is_not_done_twice_in_silence(data):
    model = keras.Sequential([keras.Input((8, 8, 3)), augment.policy("light", 8), keras.layers.Flatten()])
    assert augmenting.findings(model, recipe(augment="none")) == []
    found = augmenting.findings(model, recipe(augment="medium"))
    assert len(found) == 1
    assert found[0].startswith("Pictures are augmented twice, by Policy in the dataset and by Policy in the model")


@pytest.mark.slow
@pytest.mark.long
def test_a_run_whose_model_augments_is_loaded_in_another_process(digit_pictures, tmp_path):
    layers = keras.layers
    policy = augment.Policy([augment.RandomNoise(), augment.RandomCrop(6)])
    model = keras.Sequential([keras.Input((8, 8, 3)), policy, layers.Flatten(), layers.Dense(10)])
    run = zoo.fine_tune(model, zoo.load_data("digits", image_size=8), epochs=1, directory=tmp_path / "run")
    script = "import sys, zoo; print(zoo.load_run(sys.argv[1]).evaluate('test').accuracy)"
    done = subprocess.run([sys.executable, "-c", script, run.directory], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(run.evaluate("test").accuracy)


def test_a_class_that_keras_does_not_know_is_named(data, tmp_path):
    @keras.saving.register_keras_serializable(package="mine")
    class Halved(keras.layers.Layer):
        def call(self, x):
            return x / 2

    model = keras.Sequential([keras.Input((8, 8, 3)), Halved(), keras.layers.Flatten(), keras.layers.Dense(3)])
    run = zoo.fine_tune(model, data, epochs=1, directory=tmp_path / "run")
    keras.saving.get_custom_objects().pop("mine>Halved")
    with pytest.raises(ValueError, match="holds the class Halved, which Keras does not know here"):
        zoo.load_run(run.directory, data)


def test_a_preview_without_augmentation_is_refused(command, tmp_path):
    code, _, err = command("train", "digits", "--preview", tmp_path / "preview.png")
    assert (code, err.strip()) == (
        2,
        "zoo: A preview shows what an augmentation does; choose one, such as --augment medium.",
    )


def test_a_folder_in_the_place_of_a_preview_is_named(command, tmp_path):
    (tmp_path / "preview.png").mkdir()
    code, _, err = command("preview", "digits", "--image-size", "8", "--out", tmp_path / "preview.png")
    assert (code, err.strip()) == (2, f"zoo: {tmp_path / 'preview.png'} is a folder; name a file.")
