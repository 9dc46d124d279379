import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data.tfds import ABOUT, INDEX, PICTURES, Encoded, open_tfds, reopen

BUILDERS = '''
"""Scikit-learn's digits as a data set of the user's own."""

import numpy as np
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

SPLITS = {"train": 40, "validation": 12, "test": 9, "extra": 5}


class LittleDigits(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    SUPPORTED_VERSIONS = [tfds.core.Version("1.0.0")]
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="all"), tfds.core.BuilderConfig(name="train_only")]

    def _info(self):
        image = tfds.features.Image(shape=(8, 8, 1), encoding_format="png")
        digit = tfds.features.ClassLabel(names=["nought", "one", "two"])
        features = {"id": tfds.features.Text(), "image": image, "digit": digit}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        wanted = ["train"] if self.builder_config.name == "train_only" else SPLITS
        return {split: self._generate_examples(split) for split in wanted}

    def _generate_examples(self, split):
        images, digits = load_digits(n_class=3, return_X_y=True)
        first = sum(list(SPLITS.values())[: list(SPLITS).index(split)])
        for i in range(first, first + SPLITS[split]):
            pixels = np.round(images[i].reshape(8, 8, 1) * (255 / 16)).astype(np.uint8)
            pixels = 255 - pixels if self.version == "2.0.0" else pixels
            digit = -1 if split == "test" and i == first else digits[i]
            yield i, {"id": str(i), "image": pixels, "digit": digit}


class PairedDigits(LittleDigits):
    BUILDER_CONFIGS = []

    def _info(self):
        image = tfds.features.Image(shape=(8, 8, 1))
        features = {"left": image, "right": image, "distance": np.float32}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))


class FarDigits(LittleDigits):
    BUILDER_CONFIGS = []

    def _split_generators(self, dl_manager):
        dl_manager.download("http://127.0.0.1:9/digits.zip")
'''


@pytest.fixture(scope="module")
def builders(tmp_path_factory):
    """A module with builders, imported as a user does; TFDS keeps it for the whole process."""
    folder = tmp_path_factory.mktemp("builders")
    (folder / "digit_builders.py").write_text(BUILDERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("digit_builders")


@pytest.fixture(scope="module")
def prepared(builders, tmp_path_factory):
    """Both configurations of the digits, as TFDS stores them."""
    folder = tmp_path_factory.mktemp("prepared")
    for config in ("all", "train_only"):
        builders.LittleDigits(config=config, data_dir=folder).download_and_prepare()
    return folder


@pytest.fixture
def tfds_home(prepared, tmp_path, monkeypatch):
    """A cache that begins empty, beside what was prepared."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "menagerie" / "tfds"


def pixels(source, row):
    return np.asarray(Image.open(io.BytesIO(source.encoded(row.path, row.sha256))))


def run(code):
    """The code in a process of its own, with the same variables."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))


def test_pictures_labels_and_splits_are_those_that_tfds_gives(tfds_home, prepared):
    import tensorflow_datasets as tfds

    manifest = open_tfds("tfds:little_digits")
    table = manifest.table
    for stored, ours, count in (("train", "train", 40), ("validation", "dev", 12), ("test", "test", 9)):
        rows = table[table.split == ours]
        assert rows.path.tolist() == [f"{stored}/{i:06d}" for i in range(count)]
        theirs = tfds.as_numpy(tfds.load("little_digits", split=stored, data_dir=prepared))
        for (_, row), example in zip(rows.iterrows(), theirs, strict=True):
            np.testing.assert_array_equal(pixels(manifest.source, row), example["image"][..., 0])
            assert row.label == ("" if example["digit"] < 0 else ("nought", "one", "two")[example["digit"]])
    assert len(table) == 61
    assert manifest.notes == ["extra: a split of 5 pictures beside train, validation, test, passed over"]
    assert set(table.format) == {"PNG"} and set(table.width) == set(table.height) == {8}
    assert table[table.status == "unlabelled"].split.tolist() == ["test"]
    assert len(manifest.usable) == 60
    assert manifest.source.absolute("train/000003") == "tfds:little_digits/train/000003"


def test_a_data_set_with_one_split_leaves_the_sharing_out_to_us(tfds_home):
    for text in ("tfds:little_digits:train_only", "tfds:little_digits/train_only:1.0.0"):
        manifest = open_tfds(text)
        assert set(manifest.table.split) == {""}
        assert len(manifest.usable) == 40
        assert manifest.notes == []


def test_what_was_prepared_elsewhere_needs_no_builder(tfds_home, monkeypatch):
    from tensorflow_datasets.core import registered

    with monkeypatch.context() as stranger:  # a process that never imported the builder's module
        stranger.delitem(registered._DATASET_REGISTRY, "little_digits")
        manifest = open_tfds("tfds:little_digits")
    shutil.rmtree(tfds_home)
    assert open_tfds("tfds:little_digits").table.equals(manifest.table)


def test_the_second_opening_needs_neither_tensorflow_nor_tfds(tfds_home):
    first = open_tfds("tfds:little_digits")
    blocked = "import sys; sys.modules.update(tensorflow=None, tensorflow_datasets=None)\n"
    code = "from zoo.data.tfds import open_tfds\nprint(open_tfds({!r}).table.to_csv(), end='')"
    again = run(blocked + code.format("tfds:little_digits"))
    assert again.stdout == first.table.to_csv(), again.stderr
    other = run(blocked + code.format("tfds:little_digits:train_only"))
    assert "needs TensorFlow Datasets with TensorFlow, and tensorflow and tensorflow_datasets cannot be" in other.stderr


def test_a_run_finds_its_pictures_again(tfds_home):
    manifest = open_tfds("tfds:little_digits")
    described = json.loads(json.dumps(manifest.source.describe()))
    assert described == {"kind": "tfds", "name": "tfds:little_digits"}
    source = reopen(described["name"])
    assert isinstance(source, Encoded) and source == manifest.source
    for row in manifest.table.iloc[[0, 40, 60]].itertuples():
        assert source.encoded(row.path, row.sha256) == manifest.source.encoded(row.path, row.sha256)
    for path in ("train/000061", "test/000009", "extra/000000"):
        with pytest.raises(OSError, match="tfds:little_digits has no such picture any more"):
            source.encoded(path, row.sha256)


def test_a_damaged_copy_is_made_again(tfds_home):
    table = open_tfds("tfds:little_digits").table
    (folder,) = (path for path in tfds_home.iterdir() if path.is_dir())
    about = (folder / ABOUT).read_text()
    for name, content in (
        (PICTURES, (folder / PICTURES).read_bytes()[:-1]),
        (INDEX, (folder / INDEX).read_bytes().replace(b"nought", b"naught")),
        (ABOUT, about[: len(about) // 2].encode()),
        (ABOUT, about.replace('"layout": [\n    1', '"layout": [\n    0').encode()),
    ):
        assert (folder / name).read_bytes() != content
        (folder / name).write_bytes(content)
        assert open_tfds("tfds:little_digits").table.equals(table)
        assert (folder / ABOUT).read_text() == about


def test_a_damaged_picture_is_noticed_when_it_is_read_and_mended_by_the_next_opening(tfds_home):
    manifest = open_tfds("tfds:little_digits")
    (folder,) = (path for path in tfds_home.iterdir() if path.is_dir())
    data = bytearray((folder / PICTURES).read_bytes())
    data[len(data) // 2] ^= 255
    (folder / PICTURES).write_bytes(data)
    broken = []
    for row in manifest.table.itertuples():
        try:
            pixels(manifest.source, row)
        except OSError as error:
            broken.append(row)
            assert "is damaged; open tfds:little_digits again" in str(error)
    assert len(broken) == 1
    assert pixels(open_tfds("tfds:little_digits").source, broken[0]).shape == (8, 8)


def test_a_newly_prepared_version_is_seen_and_the_old_one_can_be_named(tfds_home, builders, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "own"))
    row = open_tfds("tfds:little_digits").table.iloc[0]  # prepares it, too
    with monkeypatch.context() as newer:
        newer.setattr(builders.LittleDigits, "VERSION", tfds.core.Version("2.0.0"))
        tfds.builder("little_digits", data_dir=tmp_path / "own").download_and_prepare()
        new = open_tfds("tfds:little_digits")
        old = open_tfds("tfds:little_digits:1.0.0")
    now = new.table.iloc[0]
    assert now.sha256 != row.sha256
    np.testing.assert_array_equal(pixels(new.source, now), 255 - pixels(old.source, row))
    with pytest.raises(OSError, match="another picture than when it was indexed"):
        new.source.encoded(row.path, row.sha256)
    assert open_tfds("tfds:little_digits").table.equals(new.table)  # the copy is whole, nothing newer is there


def test_what_cannot_be_opened_is_said_in_one_sentence(tfds_home, builders, capfd):
    with pytest.raises(ValueError, match="knows no 'litle_digits', .* Did you mean 'little_digits'"):
        open_tfds("tfds:litle_digits")
    with pytest.raises(ValueError, match="knows no 'cifar_10', .* Did you mean 'cifar10'"):
        open_tfds("tfds:cifar_10")
    with pytest.raises(ValueError, match="'little_digits' has no configuration 'trainonly'. It has train_only, ..."):
        open_tfds("tfds:little_digits:trainonly")
    with pytest.raises(ValueError, match="cannot open tfds:little_digits:all:9.0.0 .*1.0.0"):
        open_tfds("tfds:little_digits:all:9.0.0")
    with pytest.raises(ValueError, match=r"one ClassLabel .*left \(Image\), right \(Image\), distance"):
        open_tfds("tfds:paired_digits")
    for text in ("tfds:", "tfds:mnist:", "tfds:mnist/a/b", "tfds:../mnist", "mnist"):
        with pytest.raises(ValueError, match=f'"tfds:NAME:CONFIG".*Received: {re.escape(repr(text))}'):
            open_tfds(text)
    assert capfd.readouterr().out == ""


def test_without_a_network_the_error_names_what_to_prepare_and_where(tfds_home, prepared, builders, capfd):
    with pytest.raises(OSError) as caught:
        open_tfds("tfds:far_digits")
    assert str(caught.value) == (
        f"tfds:far_digits is not prepared in {prepared} and could not be downloaded and prepared (no connection to "
        f"127.0.0.1). Prepare it on a machine with a network: tfds build far_digits --data_dir {prepared}, or set "
        "TFDS_DATA_DIR to where it is."
    )
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) < 4
    assert not any(tfds_home.glob("far*"))


def test_a_prepared_data_set_that_is_damaged_is_named_and_leaves_no_copy(tfds_home, prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared, tmp_path / "own")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "own"))
    (shard,) = (tmp_path / "own").glob("little_digits/all/1.0.0/*-test.*")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match="What was prepared of tfds:little_digits in .* cannot be read .* Delete"):
        open_tfds("tfds:little_digits")
    assert [path.name for path in tfds_home.iterdir() if path.is_dir()] == []


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(tfds_home, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="cannot be made: .* XDG_CACHE_HOME"):
        open_tfds("tfds:little_digits")
    assert Path(tmp_path / "cache").read_text() == "a file"
