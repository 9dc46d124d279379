import importlib.util
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import augment
import zoo
from zoo.data import order
from zoo.transfer.fingerprint import described, fingerprint
from zoo.transfer.passing import Pass
from zoo.transfer.store import NoRoom, Store


@pytest.fixture(scope="module")
def data(digit_pictures):
    return zoo.load_data(digit_pictures, image_size=8)


@pytest.fixture(scope="module")
def parts():
    return cut(zoo.create("convnet", classes=3, input_shape=(8, 8, 3)))


def cut(model, amount="large"):
    zoo.freeze(model, amount)
    return zoo.split_frozen(model)


def files(directory):
    return {path.name: path for path in directory.rglob("view*")}


def test_features_are_what_the_trunk_gives_row_by_row(parts, data, tmp_path):
    trunk, _ = parts
    features = zoo.cache_features(trunk, data.train, directory=tmp_path)
    expected = trunk.predict(data.train.pixels(), verbose=0)
    rows = np.array([5, 0, len(data.train) - 1])
    assert np.allclose(features.read(range(len(data.train)))[0], expected, atol=1e-6)
    assert np.array_equal(features.read(rows)[0], features.read(range(len(data.train)))[0][rows])
    assert np.array_equal(features.labels, data.train.labels)
    assert features.class_names == data.class_names


def test_the_tail_learns_from_features_what_the_model_learns_from_pictures(data, tmp_path):
    model = zoo.create("convnet", classes=3, input_shape=(8, 8, 3))
    trunk, tail = cut(model, "medium")
    train, dev = (zoo.cache_features(trunk, split, directory=tmp_path) for split in (data.train, data.dev))
    tail.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    tail.fit(train.dataset(training=True), validation_data=dev.dataset(), epochs=5, verbose=0)
    assert zoo.evaluate(model, data.dev).accuracy > 0.9


def test_features_that_are_there_are_used_and_those_of_others_are_not(parts, data, tmp_path):
    trunk, _ = parts
    zoo.cache_features(trunk, data.dev, directory=tmp_path)
    written = {path: path.stat().st_mtime_ns for path in files(tmp_path).values()}
    zoo.cache_features(trunk, data.dev, directory=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("view*")} == written

    other = zoo.create("convnet", classes=3, input_shape=(8, 8, 3))
    other.set_weights([weight + 1e-7 for weight in other.get_weights()])
    found = zoo.cache_features(cut(other)[0], data.dev, directory=tmp_path)
    assert np.allclose(found.read([0])[0], cut(other)[0].predict(data.dev.pixels()[:1], verbose=0), atol=1e-6)
    assert len(Store(tmp_path).entries()) == 2
    zoo.cache_features(trunk, data.test, directory=tmp_path)
    assert len(Store(tmp_path).entries()) == 3


def test_what_decides_the_features_decides_the_key(digit_pictures, tmp_path):
    store = Store(tmp_path)

    def key(trunk, split, policy=None):
        return Pass(trunk, split, store, policy=policy).entry.folder.name

    images, labels = digit_pictures
    model = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), normalization=(100.0, 50.0))
    trunk, _ = cut(model)
    train = zoo.load_data((images, labels), image_size=8).train
    base = key(trunk, train)
    assert key(trunk, zoo.load_data((images, labels), image_size=8).train) == base
    changed = images.copy()
    changed[0, 0, 0] ^= 1
    others = [
        key(cut(model, "medium")[0], train),
        key(trunk, zoo.load_data((changed, labels), image_size=8, split=(1, 0, 0)).train),
        key(trunk, zoo.load_data((images, labels), image_size=8, split=(1, 0, 0)).train),
        key(trunk, zoo.load_data((images[::-1], labels[::-1]), image_size=8, split=(1, 0, 0)).train),
        key(trunk, zoo.load_data((images, labels), image_size=8, seed=1).train),
        key(trunk, train.configured(crop=0.9)),
        key(trunk, train, augment.policy("light", 8, seed=0)),
        key(trunk, train, augment.policy("light", 8, seed=1)),
        key(trunk, train, augment.RandomAffine(flip="horizontal", shift=0.2)),
    ]
    assert key(cut(model)[0], train) == base
    twin = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), normalization=(101.0, 50.0))
    twin.set_weights(model.get_weights())
    others.append(key(cut(twin)[0], train))
    assert len({base, *others}) == 1 + len(others)


def test_code_of_ones_own_layer_counts(data, tmp_path):
    """A layer whose `call` was edited gives other outputs under the same name and config."""

    def model(source, folder):
        folder.mkdir()
        (folder / "mine.py").write_text(textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location("mine", folder / "mine.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["mine"] = module  # inspect looks there
        spec.loader.exec_module(module)
        image = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(2, 3, name="conv", kernel_initializer="ones")(module.Mine(name="mine")(image))
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        whole = keras.Model(image, keras.layers.Dense(3, name="dense")(x), name="whole")
        whole.get_layer("conv").trainable = False
        return zoo.split_frozen(whole)[0]

    template = """
        import keras

        class Mine(keras.layers.Layer):
            def call(self, x):
                return x * {factor}
    """
    store = Store(tmp_path / "store")
    keys = []
    for factor in (1, 2):
        trunk = model(template.format(factor=factor), tmp_path / str(factor))
        keys.append(Pass(trunk, data.dev, store).entry.folder.name)
    assert keys[0] != keys[1]


def test_each_view_is_the_augmented_picture_of_its_epoch(parts, data, tmp_path):
    trunk, _ = parts
    policy = augment.policy("light", 8, seed=3)
    features = zoo.cache_features(trunk, data.train, policy=policy, views=3, directory=tmp_path)
    pixels, rows = data.train.pixels(), np.arange(len(data.train))
    for view in range(3):
        keys = np.stack([np.full(len(rows), view), rows], 1)
        expected = trunk.predict(np.asarray(policy(pixels, training=True, keys=keys)), verbose=0)
        off = np.abs(features.read(rows, view)[0] - expected).max(axis=1)
        assert np.mean(off > 1e-5) < 0.01 and off.max() < 0.05  # in a graph, half a grey level may round the other way
    assert features.views == 3
    with pytest.raises(ValueError, match=r"have the views \[0, 1, 2\]\. Received: view=3"):
        features.read(rows, 3)


def test_more_views_go_on_from_those_that_are_there(parts, data, tmp_path):
    trunk, _ = parts
    policy = augment.policy("light", 8)
    zoo.cache_features(trunk, data.dev, policy=policy, views=1, directory=tmp_path)
    first = files(tmp_path)["view0.features"].stat()
    zoo.cache_features(trunk, data.dev, policy=policy, views=2, directory=tmp_path)
    assert files(tmp_path)["view0.features"].stat().st_mtime_ns == first.st_mtime_ns
    assert "view1.features" in files(tmp_path)


def test_batches_have_the_order_of_the_pictures_and_the_view_of_the_epoch(parts, data, tmp_path):
    trunk, _ = parts
    features = zoo.cache_features(trunk, data.train, policy=augment.policy("light", 8), views=2, directory=tmp_path)
    steps = order.steps(len(data.train), 32)
    endless = features.stream(32, seed=5, epoch=3)
    resumed = features.stream(32, seed=5, epoch=3, step=2)
    assert all(np.array_equal(resumed[i][0], endless[i][0]) for i in range(2, 2 * steps))
    dataset = features.dataset(32, training=True, seed=5)
    assert len(dataset) == steps
    for past in range(3):
        for epoch, found in (
            (3 + past, [endless[past * steps + i] for i in range(steps)]),
            (past, [dataset.on_epoch_begin(), *(dataset[i] for i in range(steps))][1:]),
        ):
            rows = order.order(len(data.train), 5, epoch)
            assert np.array_equal(np.concatenate([x for x, _ in found]), features.read(rows, epoch % 2)[0])
            assert np.array_equal(np.concatenate([y for _, y in found]), data.train.labels[rows])
    even = np.bincount(data.train.labels[order.balanced_order(data.train.labels, 5, 3)])
    balanced = features.stream(32, seed=5, epoch=3, balanced=True)
    assert np.array_equal(np.bincount(np.concatenate([balanced[i][1] for i in range(steps)])), even)
    assert even.max() - even.min() <= 1
    x, y = features.in_order(7, one_hot=True)[0]
    assert np.array_equal(x, features.read(range(7))[0])
    assert np.array_equal(y.argmax(1), data.train.labels[:7])
    with pytest.raises(ValueError, match="`batch_size`"):
        features.dataset(0)


def test_arrays_that_belong_to_no_data_set_can_be_given(parts, data, tmp_path):
    trunk, _ = parts
    images, labels = data.dev.pixels(), data.dev.labels
    features = zoo.cache_features(trunk, (images, labels), directory=tmp_path)
    assert np.allclose(features.read([3])[0], trunk.predict(images[3:4], verbose=0), atol=1e-6)
    with pytest.raises(ValueError, match="class indices"):
        zoo.cache_features(trunk, (images, labels[:-1]), directory=tmp_path)


def test_a_pass_that_was_cut_off_goes_on_where_it_stopped(parts, data, tmp_path, monkeypatch):
    trunk, _ = parts
    monkeypatch.setattr("zoo.transfer.passing.CHUNK", 64)
    whole = zoo.cache_features(trunk, data.train, directory=tmp_path / "whole")
    assert len(data.train) > 3 * 64
    script = f"""
        import os, sys
        import zoo, numpy as np
        from zoo.transfer import passing
        passing.CHUNK = 64
        data = zoo.load_data((np.load({str(tmp_path / "x.npy")!r}), np.load({str(tmp_path / "y.npy")!r})), image_size=8)
        model = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), weights={str(tmp_path / "m.keras")!r})
        zoo.freeze(model, "large")
        trunk, _ = zoo.split_frozen(model)
        step, calls = passing.Pass._chunk, []
        def dying(*given):
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), 9)
            return step(*given)
        passing.Pass._chunk = dying
        zoo.cache_features(trunk, data.train, directory={str(tmp_path / "cut")!r})
    """
    source = data.source.images, data.manifest.table.label.to_numpy(str)
    np.save(tmp_path / "x.npy", source[0])
    np.save(tmp_path / "y.npy", source[1])
    model = zoo.create("convnet", classes=3, input_shape=(8, 8, 3))
    model.save(tmp_path / "m.keras")
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    partial = files(tmp_path / "cut")["view0.partial"].stat().st_size
    assert partial == 2 * 64 * whole.row_bytes

    trunk, _ = cut(zoo.create("convnet", classes=3, input_shape=(8, 8, 3), weights=tmp_path / "m.keras"))
    computed = []
    chunk = Pass._chunk
    monkeypatch.setattr(
        Pass, "_chunk", lambda self, images, rows, *rest: computed.extend(rows) or chunk(self, images, rows, *rest)
    )
    features = zoo.cache_features(trunk, data.train, directory=tmp_path / "cut")
    assert computed == list(range(128, len(data.train)))
    expected = trunk.predict(data.train.pixels(), verbose=0)
    assert np.allclose(features.read(range(len(data.train)))[0], expected, atol=1e-6)


@pytest.mark.parametrize("damage", ["truncate", "flip", "json"])
def test_damaged_files_are_noticed_and_computed_again(parts, data, tmp_path, damage):
    trunk, _ = parts
    before = zoo.cache_features(trunk, data.dev, directory=tmp_path).read(range(len(data.dev)))[0]
    file = files(tmp_path)["view0.json" if damage == "json" else "view0.features"]
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        content = content[:-1]
    else:
        content[len(content) // 2] ^= 1
    file.write_bytes(content)
    features = zoo.cache_features(trunk, data.dev, directory=tmp_path)
    assert np.allclose(features.read(range(len(data.dev)))[0], before, atol=1e-6)
    assert len(features.repaired) == 1


def test_policies_that_cannot_be_repeated_are_refused(parts, data, tmp_path):
    trunk, _ = parts

    @keras.saving.register_keras_serializable("tests")
    class Careless(keras.layers.Layer):
        def call(self, images, training=False, keys=None):
            return images + np.random.default_rng().integers(0, 9, images.shape).astype("uint8")

    class Silent(augment.RandomAffine):
        def get_config(self):
            return {**super().get_config(), "what": object()}

    for policy, message in (
        (keras.layers.RandomFlip(), "called with `keys`"),
        (lambda images, training, keys: images, "called with `keys`"),
        (Careless(), "cannot be repeated"),
        (Silent(flip="horizontal"), "cannot be told from others"),
    ):
        with pytest.raises(ValueError, match=message):
            zoo.cache_features(trunk, data.dev, policy=policy, views=2, directory=tmp_path)


def test_views_out_of_range_are_refused(parts, data, tmp_path):
    trunk, _ = parts
    policy = augment.policy("light", 8)
    for views, given, message in (
        (-1, None, "at least 0"),
        (1.5, policy, "whole number"),
        (0, policy, "at least 1 with a policy"),
        (2, None, "every view is the same"),
    ):
        with pytest.raises(ValueError, match=message):
            zoo.cache_features(trunk, data.dev, policy=given, views=views, directory=tmp_path)


def test_pictures_of_another_size_and_none_at_all_are_refused(parts, data, tmp_path):
    trunk, _ = parts
    with pytest.raises(ValueError, match=r"takes \(8, 8, 3\).*pictures are \(9, 9, 3\)"):
        zoo.cache_features(trunk, data.dev.configured(image_size=9), directory=tmp_path)
    with pytest.raises(ValueError, match="No image size"):
        zoo.cache_features(trunk, data.configured(image_size=None).dev, directory=tmp_path)
    with pytest.raises(ValueError, match="no pictures"):
        zoo.cache_features(trunk, (data.dev.pixels()[:0], data.dev.labels[:0]), directory=tmp_path)


def test_features_without_room_say_so(parts, data, tmp_path):
    trunk, _ = parts
    with pytest.raises(NoRoom, match="need .*, and the cache .* may hold 0.1 KB"):
        zoo.cache_features(trunk, data.dev, directory=tmp_path, limit=100)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be made"):
        zoo.cache_features(trunk, data.dev, directory=tmp_path / "file" / "cache")


def test_a_model_for_any_size_and_half_precision_are_kept_as_they_are(data, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = zoo.create("convnet", classes=3, input_shape=(None, None, 3))
    finally:
        keras.config.set_dtype_policy(before)
    trunk, _ = cut(model, "medium")
    features = zoo.cache_features(trunk, data.dev, directory=tmp_path)
    found = features.read([1, 2])[0]
    assert found.dtype.name == "bfloat16"
    expected = np.asarray(trunk.predict(data.dev.pixels()[1:3], verbose=0))
    assert np.allclose(found.astype("float32"), expected.astype("float32"), rtol=2e-2, atol=1e-2)


def test_described_gives_the_shape_that_a_policy_makes():
    assert described(augment.policy("light", 8), (8, 6, 3), "uint8")[1] == (8, 6, 3)


def test_constants_in_a_graph_and_code_around_a_layer_count():
    image = keras.Input((8, 8, 3))

    def trunk(build):
        output = keras.layers.Conv2D(2, 3, kernel_initializer="ones", trainable=False)(build(image))
        return keras.Model(image, output)

    builds = [
        lambda x: x / 255.0,
        lambda x: x / 127.5,
        lambda x: x - 1.0,
        lambda x: 1.0 - x,
        lambda x: x[:, :4],
        lambda x: x[:, 4:],
        lambda x: x * np.arange(3.0),
        lambda x: x * np.array([0.0, 1.0, 3.0]),
        lambda x: x[..., ::-1] + x * np.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3),
    ]
    found = [fingerprint(trunk(build)) for build in builds]
    assert len(set(found)) == len(builds)
    assert [fingerprint(trunk(build)) for build in builds] == found


def test_what_matters_in_training_only_leaves_the_features_alone():
    plain, held = (zoo.create("convnet", classes=3, input_shape=(8, 8, 3), l2=l2) for l2 in (0.0, 1e-4))
    held.set_weights(plain.get_weights())
    assert fingerprint(cut(plain)[0]) == fingerprint(cut(held)[0])
    before = fingerprint(plain)
    plain.compile("sgd", lambda truth, found: keras.ops.mean(keras.ops.square(truth - found)))
    assert fingerprint(plain) == before


def test_equal_bytes_in_another_shape_are_other_pictures():
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 16), np.uint8)
    labels = np.arange(40) % 2
    one, other = (
        zoo.load_data((pixels, labels), image_size=8, split=(1, 0, 0)).train.fingerprint
        for pixels in (images, images.reshape(40, 16, 4))
    )
    assert one != other


def test_models_that_cannot_be_looked_into_are_refused(data, tmp_path):
    class Own(keras.Model):
        def call(self, x):
            return x

    class Silent(keras.layers.Layer):
        def __init__(self, number):
            super().__init__()

        def call(self, x):
            return x

    image = keras.Input((8, 8, 3))
    for trunk, message in (
        (Own(), "must be a functional one"),
        (keras.Sequential([keras.layers.Flatten()]), "must be a functional one"),
        (keras.Model(image, Silent(object())(image)), "has no `get_config`"),
    ):
        with pytest.raises(ValueError, match=message):
            zoo.cache_features(trunk, data.dev, directory=tmp_path)
    sequential = keras.Sequential([image, keras.layers.GlobalAveragePooling2D()])
    assert zoo.cache_features(sequential, data.dev, directory=tmp_path).read([0])[0].shape == (1, 3)
