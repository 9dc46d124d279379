"""Data and models that another process finds again, and those that it cannot."""

import dataclasses
import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

import zoo
from tuning import reference
from zoo.data.collection import Data
from zoo.data.sources import Files

ROOT = Path(__file__).parents[2]
SHADES = """
import keras


@keras.saving.register_keras_serializable(package="shades")
class Darker(keras.layers.Layer):
    def __init__(self, by=2.0, **kwargs):
        super().__init__(**kwargs)
        self.by = by

    def call(self, images):
        return images / self.by

    def get_config(self):
        return {**super().get_config(), "by": self.by}


@keras.saving.register_keras_serializable(package="shades")
class Forgetful(Darker):
    def get_config(self):
        return keras.layers.Layer.get_config(self)


@keras.saving.register_keras_serializable(package="shades")
def softened(x):
    return keras.ops.softplus(x)


def unregistered(x):
    return x / 2


@keras.saving.register_keras_serializable(package="shades")
class Ones(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape, dtype)


class Unregistered(Darker):
    pass


def local():
    @keras.saving.register_keras_serializable(package="shades")
    class Local(Darker):
        pass

    return Local
"""
DIGITS = """
import numpy as np
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits


class FewDigits(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.ClassLabel(num_classes=3)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        images, labels = load_digits(n_class=3, return_X_y=True)
        for i in range(60):
            yield i, {"image": images[i].reshape(8, 8, 1).astype(np.uint8), "label": labels[i]}
"""


@pytest.fixture
def shades(tmp_path, monkeypatch):
    """A module of a user's, with layers and an activation."""
    home = tmp_path / "modules"
    home.mkdir()
    (home / "shades.py").write_text(SHADES)
    monkeypatch.syspath_prepend(home)
    yield importlib.import_module("shades")
    del sys.modules["shades"]


@pytest.fixture
def few_digits(tmp_path, monkeypatch):
    """A data set that TensorFlow Datasets has prepared, and our cache not yet copied."""
    from tensorflow_datasets.core import registered

    (tmp_path / "few_digits_builder.py").write_text(DIGITS)
    monkeypatch.syspath_prepend(tmp_path)
    prepared = tmp_path / "prepared"
    importlib.import_module("few_digits_builder").FewDigits(data_dir=prepared).download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    yield
    del sys.modules["few_digits_builder"]
    registered._DATASET_REGISTRY.pop("few_digits")  # else a second test could not make it


@pytest.fixture
def arrays(digit_pictures):
    """Sixty pictures in memory."""
    return zoo.load_data((digit_pictures[0][:60], digit_pictures[1][:60]), channels=1)


def content(data):
    """What a network gets of each split."""
    return {
        split.name: (split.labels.tolist(), hashlib.sha256(split.pixels().tobytes()).hexdigest())
        for split in (data.train, data.dev, data.test)
        if len(split)
    }


def returned(data, folder):
    """The data as it comes back from a folder, once it was found to be the same."""
    facts = reference.save("convnet", data, folder)
    again = reference.load_data(folder)
    assert facts["data"] == again.fingerprint == data.fingerprint
    assert facts["pictures"] == {"train": len(data.train), "dev": len(data.dev), "test": len(data.test)}
    assert (again.class_names, again.channels, again.background) == (data.class_names, data.channels, data.background)
    assert (again.image_size, again.crop, again.interpolation) == (data.image_size, data.crop, data.interpolation)
    if data.image_size is None:
        data, again = data.configured(image_size=10), again.configured(image_size=10)
    assert content(again) == content(data)
    return again


def network(*hidden):
    """A small model with layers of a caller's in it."""
    x = image = keras.Input((8, 8, 1), name="image")
    for layer in hidden:
        x = layer(x)
    x = layers.Flatten()(x)
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.Dropout(0.5, seed=1)(x)))


def test_arrays_come_back_without_being_read_into_memory(arrays, tmp_path):
    again = returned(arrays, tmp_path / "reference")
    assert isinstance(again.source.images, np.memmap)
    assert not again.source.images.flags.writeable


def test_the_embedded_digits_come_back(tmp_path):
    assert returned(zoo.load_data("digits", channels=1), tmp_path / "reference").source.kind == "digits"


def test_a_folder_comes_back_whose_path_was_relative(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = zoo.load_data("photos", background=(10, 20, 30))
    reference.save("convnet", data, "reference")
    monkeypatch.chdir("/")
    again = reference.load_data(tmp_path / "reference")
    assert content(again.configured(image_size=10)) == content(data.configured(image_size=10))
    assert again.background == (10, 20, 30)


def test_a_source_with_a_relative_root_comes_back(photos, tmp_path, monkeypatch):
    data = zoo.load_data(photos)
    monkeypatch.chdir(tmp_path)
    data.source = Files(Path("photos"))
    reference.save("convnet", data, "reference")
    monkeypatch.chdir("/")
    again = reference.load_data(tmp_path / "reference")
    assert again.train.paths == zoo.load_data(photos).train.paths


def test_a_table_comes_back_with_names_that_need_quoting(photos, tmp_path):
    names = ["a,b", 'say "c"', "\u00e4\u00df\u6f22"]
    places = [(path, names[i]) for i, name in enumerate(("nought", "one", "two")) for path in (photos / name).iterdir()]
    table = pd.DataFrame([(str(path), name, i % 3) for i, (path, name) in enumerate(sorted(places))])
    table.set_axis(["path", "label", "patient"], axis=1).to_csv(tmp_path / "table.csv", index=False)
    data = zoo.load_data(tmp_path / "table.csv", image_size=(9, 12), group="patient")
    assert sorted(returned(data, tmp_path / "reference").class_names) == sorted(names)


def test_a_tensorflow_data_set_comes_back(few_digits, tmp_path):
    returned(zoo.load_data("tfds:few_digits", channels=1), tmp_path / "reference")


def test_what_was_cut_and_configured_stays_so(arrays, photos, tmp_path):
    sized = zoo.load_data(photos).configured(image_size=(9, 12), crop=0.8, interpolation="bicubic")
    few = arrays.fewer(20, seed=1)
    folds = list(arrays.folds(3, seed=2))
    for number, data in enumerate(
        (sized, few, few.configured(image_size=12, crop=0.5, interpolation="lanczos"), *folds, sized.fewer(9))
    ):
        returned(data, tmp_path / str(number))


def test_classes_keep_their_order(arrays, tmp_path):
    turned = Data(arrays.source, arrays.manifest, channels=1, class_names=arrays.class_names[::-1])
    assert returned(turned, tmp_path / "reference").class_names == ["2", "1", "0"]


def test_data_is_kept_until_the_reference_or_the_purpose_changes(arrays, tmp_path):
    reference.save("convnet", arrays, tmp_path / "reference")
    first = reference.load_data(tmp_path / "reference", "8 px")
    assert reference.load_data(tmp_path / "reference", "8 px") is first
    assert reference.load_data(tmp_path / "reference", "9 px") is not first
    reference.save("convnet", arrays.fewer(20), tmp_path / "reference")
    assert len(reference.load_data(tmp_path / "reference", "9 px").train) == 20


def test_a_reference_that_is_missing_or_damaged_is_named(arrays, tmp_path):
    with pytest.raises(FileNotFoundError, match="no reference in .*nowhere"):
        reference.load_data(tmp_path / "nowhere")
    reference.save("convnet", arrays, tmp_path / "reference")
    lines = (tmp_path / "reference" / "manifest.csv").read_text().splitlines(keepends=True)
    (tmp_path / "reference" / "manifest.csv").write_text("".join(lines[:-1]))
    os.utime(tmp_path / "reference" / "data.json", (1, 1))
    with pytest.raises(ValueError, match="damaged"):
        reference.load_data(tmp_path / "reference")


def test_a_source_of_ones_own_is_refused(arrays, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Remote(Files):
        pass

    data = Data(Remote(tmp_path), arrays.manifest)
    with pytest.raises(ValueError, match="`data` cannot reach another process: its source is a Remote"):
        reference.save("convnet", data, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


def test_places_that_only_this_process_sees_are_refused(photos, tmp_path):
    folder = os.open(photos, os.O_RDONLY)
    try:
        data = zoo.load_data(photos)
        data.source = Files(Path(f"/proc/self/fd/{folder}"))
        with pytest.raises(ValueError, match="/proc/self/fd/.* only this one sees"):
            reference.save("convnet", data, tmp_path / "reference")
        paths = [f"/proc/self/fd/{folder}/{path.relative_to(photos)}" for path in sorted(photos.glob("*/*"))]
        table = pd.DataFrame({"path": paths, "label": [path.split("/")[-2] for path in paths]})
        with pytest.raises(ValueError, match="/proc/self/fd/.*jpg is a place that only this one sees"):
            reference.save("convnet", zoo.load_data(table), tmp_path / "reference")
    finally:
        os.close(folder)


def test_no_data_and_no_model_are_refused(arrays, tmp_path):
    with pytest.raises(TypeError, match="`model` must be a name or a Keras model. Received: int"):
        reference.save(3, arrays, tmp_path / "reference")
    with pytest.raises(TypeError, match="`data` must come from zoo.load_data. Received: str"):
        reference.save("convnet", "photos", tmp_path / "reference")


def test_a_name_needs_no_file(arrays, tmp_path):
    assert reference.save("convnet", arrays, tmp_path / "reference")["model"] == "convnet"
    with pytest.raises(ValueError, match="only the name 'convnet'"):
        reference.load_model(tmp_path / "reference")


def test_a_model_comes_back_as_it_was_and_new_each_time(arrays, tmp_path, shades):
    conv = layers.Conv2D(2, 3, activation=shades.softened, kernel_initializer=shades.Ones())
    model = network(shades.Darker(4.0), conv, layers.Lambda(keras.ops.relu))
    model.compile("adam", loss=lambda y, p: keras.ops.mean(y - p))  # which a trial has no use for
    conv.trainable = False
    model.zoo_weights = "keras/mine"
    facts = reference.save(model, arrays, tmp_path / "reference")
    one, other = (reference.load_model(tmp_path / "reference") for _ in range(2))
    assert one is not other
    assert one.zoo_weights == "keras/mine"
    assert [layer.trainable for layer in one.layers] == [layer.trainable for layer in model.layers]
    pictures = arrays.configured(image_size=8).test.pixels().astype("float32")
    np.testing.assert_array_equal(one.predict(pictures, verbose=0), model.predict(pictures, verbose=0))
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
    assert facts["model"] == reference.save(model, arrays, tmp_path / "again")["model"]
    model.layers[-1].bias.assign([1.0, 0.0, 0.0])
    assert facts["model"] != reference.save(model, arrays, tmp_path / "again")["model"]


@pytest.mark.parametrize("state", ["fresh", "called", "fitted", "loaded"])
def test_a_sequential_model_comes_back_as_it_was(arrays, tmp_path, state):
    ends = [layers.Flatten(), layers.Dropout(0.5, seed=1), layers.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(1 / 255), *ends])
    pictures = arrays.configured(image_size=8).train.pixels().astype("float32")
    if state == "called":
        keras.Model(outside := keras.Input((8, 8, 1)), model(outside))
    if state == "fitted":
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(pictures, arrays.train.labels, verbose=0)
    if state == "loaded":
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    facts = reference.save(model, arrays, tmp_path / "reference")
    again = reference.load_model(tmp_path / "reference")
    assert isinstance(again, keras.Sequential)
    np.testing.assert_array_equal(again(pictures), model(pictures))
    assert facts["model"] == reference.save(again, arrays, tmp_path / "again")["model"]


def test_a_model_of_ours_needs_no_import(arrays, tmp_path):
    model = zoo.create("convnet", classes=3, input_shape=(32, 32, 1))
    reference.save(model, arrays, tmp_path / "reference")
    assert reference.load_model(tmp_path / "reference").name == "convnet"


def test_layers_that_another_process_cannot_know_are_named(arrays, tmp_path, shades, monkeypatch):
    def refused(model, words):
        with pytest.raises(ValueError, match=words):
            reference.save(model, arrays, tmp_path / "reference")
        assert not (tmp_path / "reference").exists()

    refused(network(shades.Unregistered(name="dim")), "Layer 'dim' holds Unregistered, which is not registered")
    refused(network(shades.local()(name="dim")), "Layer 'dim' holds Local, which was made inside a function")
    refused(network(layers.Lambda(lambda x: x / 2, name="half")), "Layer 'half' holds a lambda")
    refused(network(layers.Dense(2, activation=lambda x: x / 2, name="bent")), "Layer 'bent' holds a lambda")
    refused(network(shades.Forgetful(3.0, name="dim")), "cannot be read again .* another one then.*get_config")
    forgetful = keras.Sequential([keras.Input((8, 8, 1)), shades.Forgetful(3.0), layers.Flatten(), layers.Dense(3)])
    refused(forgetful, "cannot be read again .* another one then.*get_config")
    nested = keras.Sequential([keras.Input((8, 8, 1)), shades.Unregistered(name="deep")], name="inner")
    refused(network(nested), "Layer 'deep' holds Unregistered")
    bent = layers.Dense(2, activation=shades.unregistered, name="bent")
    refused(network(bent), "Layer 'bent' holds unregistered, which is not registered with Keras")
    monkeypatch.setattr(shades.Darker, "__module__", "__main__")
    refused(network(shades.Darker(name="dim")), "'dim' holds Darker, which was made in the script or notebook.*Put it")
    monkeypatch.setattr(shades.Darker, "__module__", "typed_in")
    refused(network(shades.Darker(name="dim")), "module typed_in, which cannot be imported")
    monkeypatch.setattr(shades.softened, "__module__", "__main__")
    refused(
        network(layers.Dense(2, activation=shades.softened, name="bent")),
        "'bent' holds softened, which was made in the script",
    )


@pytest.mark.slow
def test_another_process_has_the_same_data_and_model(arrays, photos, few_digits, tmp_path, shades):
    sets = [arrays.fewer(20), zoo.load_data(photos), zoo.load_data("digits"), zoo.load_data("tfds:few_digits")]
    sets = [data.configured(image_size=10) for data in sets]
    for number, data in enumerate(sets):
        reference.save("convnet", data, tmp_path / str(number))
    model = network(shades.Darker(4.0))
    reference.save(model, arrays, tmp_path / "own")
    code = f"""
import hashlib, json
import numpy as np
from pathlib import Path
from tuning import reference
home = Path({str(tmp_path)!r})
found = []
for number in range({len(sets)}):
    data = reference.load_data(home / str(number))
    splits = [split for split in (data.train, data.dev, data.test) if len(split)]
    found.append([data.fingerprint, [hashlib.sha256(split.pixels().tobytes()).hexdigest() for split in splits]])
model = reference.load_model(home / "own")
found.append(model(np.ones((1, 8, 8, 1), "float32")).numpy().tolist())
print(json.dumps(found))
"""
    path = os.pathsep.join([str(ROOT), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, cwd="/", capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    *found, output = json.loads(ended.stdout)
    assert found == [[data.fingerprint, [value for _, value in content(data).values()]] for data in sets]
    np.testing.assert_allclose(output, model(np.ones((1, 8, 8, 1), "float32")), rtol=1e-6)
