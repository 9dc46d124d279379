"""Trials: an order in, a result out, whatever happens to the training."""

import errno
import importlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import zoo
from tuning import reference, trial
from zoo.training.folder import read_history
from zoo.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
MISHAPS = '''
import errno
import os

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="mishaps")
class Greedy(keras.layers.Layer):
    """Asks for 256 TB a picture where a batch has more than `most` pictures, which no machine has."""

    def __init__(self, most, **kwargs):
        super().__init__(**kwargs)
        self.most = most

    def call(self, images):
        excess = tf.maximum(tf.shape(images, tf.int64)[0] - self.most, 0)
        return images + tf.reduce_sum(tf.fill(tf.stack([excess, 2**46]), 0.0))

    def get_config(self):
        return {**super().get_config(), "most": self.most}


@keras.saving.register_keras_serializable(package="mishaps")
class Differences(keras.layers.Layer):
    """Subtracts what pictures have in common, from the differences of all pairs of a batch."""

    def call(self, rows):
        apart = keras.ops.expand_dims(rows, 1) - keras.ops.expand_dims(rows, 0)  # (batch, batch, values)
        return rows + keras.ops.stop_gradient(keras.ops.mean(apart, axis=1))


@keras.saving.register_keras_serializable(package="mishaps")
class Broken(keras.layers.Layer):
    """Reads from a disk that is broken, in the graph, where TensorFlow meets the error."""

    def call(self, images):
        def read(pictures):
            raise OSError(errno.EIO, os.strerror(errno.EIO), "/there")

        if isinstance(images, keras.KerasTensor) or tf.executing_eagerly():
            return images
        return tf.ensure_shape(tf.numpy_function(read, [images], images.dtype), images.shape)


@keras.saving.register_keras_serializable(package="mishaps")
class Stubborn(keras.layers.Layer):
    """Raises `error` as soon as there is one."""

    error = None

    def call(self, images):
        if self.error is not None:
            raise self.error
        return images


@keras.saving.register_keras_serializable(package="mishaps")
class Tired(Stubborn):
    """Raises it as soon as it is trained."""

    def call(self, images, training=False):
        return super().call(images) if training else images
'''


@pytest.fixture
def mishaps(tmp_path, monkeypatch):
    """A module of a user's, with layers that fail."""
    home = tmp_path / "modules"
    home.mkdir()
    (home / "mishaps.py").write_text(MISHAPS)
    monkeypatch.syspath_prepend(home)
    yield importlib.import_module("mishaps")
    del sys.modules["mishaps"]


@pytest.fixture
def data(digit_pictures):
    """Three classes of handwritten digits in memory."""
    images, labels = digit_pictures
    return zoo.load_data((images[:240], labels[:240]), channels=1, image_size=8)


def network(*hidden, channels=1):
    """A small model that tells digits apart, with layers of a caller's in front."""
    x = image = keras.Input((8, 8, channels), name="image")
    for layer in [layers.Rescaling(1 / 255), *hidden]:
        x = layer(x)
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(3, activation="softmax")(x))


def ordered(model, data, tmp_path, name="0000", **changes):
    """An order as a search makes it, with its reference written."""
    if not (tmp_path / "reference").exists():
        reference.save(model, data, tmp_path / "reference")
    order = {
        "trial": name,
        "folder": str(tmp_path / "trials" / name),
        "reference": str(tmp_path / "reference"),
        "model": model if isinstance(model, str) else None,
        "fields": {"epochs": 2, "learning_rate": 0.01, "batch_size": 64, "seed": 3},
        "objective": "val_accuracy",
        "direction": "max",
        "stop_after": None,
        "continues": None,
        "thresholds": None,
    }
    return json.loads(json.dumps({**order, **changes, "fields": {**order["fields"], **changes.get("fields", {})}}))


def lasting(result):
    """What does not depend on when and where a trial ran."""
    return {name: result[name] for name in ("status", "score", "epochs", "best_epoch", "metrics", "curve", "halved")}


def test_a_trial_tells_how_the_model_that_it_keeps_does(data, tmp_path, capsys):
    fields = {"variant": {"filters": [4, 8]}, "image_size": 16, "freeze": ["none"]}
    order = ordered("convnet", data.configured(image_size=None), tmp_path, fields=fields)
    result = trial.run(order)
    assert (result["status"], result["reason"], result["kind"], result["traceback"]) == ("completed", "", "", "")
    assert capsys.readouterr().out == ""
    assert "convnet" in (tmp_path / "trials" / "0000" / "attempt-1.log").read_text()
    run = zoo.load_run(tmp_path / "trials" / "0000" / "attempt-1", data)
    assert run.recipe.freeze == ("none",)
    assert run.recipe.variant == {"filters": (4, 8)}
    assert result["curve"] == run.history["val_accuracy"]
    assert (result["epochs"], result["best_epoch"]) == (2, run.best_epoch)
    assert result["metrics"] == {name: values[run.best_epoch - 1] for name, values in run.history.items()}
    assert result["score"] == pytest.approx(run.evaluate("dev").accuracy)
    assert result["seconds"] > 0
    assert result["worker"].endswith(f":{os.getpid()}")
    assert json.loads((run.directory / "result.json").read_text()) == json.loads(json.dumps(result)) == result


def test_a_sequential_model_is_trained(data, tmp_path):
    parts = [layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *parts])
    result = trial.run(ordered(model, data, tmp_path))
    assert (result["status"], result["reason"]) == ("completed", "")
    run = zoo.load_run(tmp_path / "trials" / "0000" / "attempt-1", data)
    assert result["score"] == pytest.approx(run.evaluate("dev").accuracy)


@pytest.mark.slow
@pytest.mark.long
def test_the_same_order_gives_the_same_result_in_a_new_attempt(data, tmp_path):
    model = network()
    order = ordered(model, data, tmp_path)
    one = trial.run(order)
    keras.utils.set_random_seed(99)
    other = trial.run(order)
    assert (one["attempt"], other["attempt"]) == ("attempt-1", "attempt-2")
    assert lasting(one) == lasting(other)
    weights = [zoo.load_run(tmp_path / "trials" / "0000" / f"attempt-{n}", data).model.get_weights() for n in (1, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_a_field_of_the_recipe_names_the_model(data, tmp_path):
    order = ordered("auto", data, tmp_path, fields={"model": "convnet", "variant": {"filters": [4]}, "epochs": 1})
    assert trial.run(order)["status"] == "completed"
    assert zoo.load_run(tmp_path / "trials" / "0000" / "attempt-1", data).recipe.model == "convnet"


@pytest.mark.slow
def test_going_on_with_a_trial_comes_to_what_one_training_would_have(data, tmp_path):
    fields = {"epochs": 4, "optimizer": "adam"}
    whole = trial.run(ordered(network(), data, tmp_path, "0000", fields=fields))
    first = trial.run(ordered(None, data, tmp_path, "0001", fields=fields, stop_after=2))
    before = {path.name for path in (tmp_path / "trials" / "0001" / "attempt-1").iterdir()}
    continues = str(tmp_path / "trials" / "0001" / "attempt-1")
    second = trial.run(ordered(None, data, tmp_path, "0002", fields=fields, continues=continues))
    assert first["epochs"] == 2
    assert first["curve"] == whole["curve"][:2]
    assert lasting(second) == lasting(whole)
    assert {path.name for path in (tmp_path / "trials" / "0001" / "attempt-1").iterdir()} == before
    runs = [zoo.load_run(tmp_path / "trials" / name / "attempt-1", data) for name in ("0000", "0002")]
    for one, other in zip(*(run.model.get_weights() for run in runs), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_where_there_is_no_run_to_go_on_with_a_trial_begins_anew(data, tmp_path):
    order = ordered(network(), data, tmp_path, fields={"epochs": 3}, stop_after=1)
    first = tmp_path / "trials" / "0000" / "attempt-1"
    trial.run(order)
    longer = {**order, "stop_after": 2, "continues": str(first)}

    def continued(name):
        result = trial.run({**longer, "trial": name, "folder": str(tmp_path / "trials" / name)})
        log = (tmp_path / "trials" / name / "attempt-1.log").read_text()
        return lasting(result), f"{first} holds no run to go on with any more" in log

    expected, anew = continued("0001")
    assert (expected["status"], expected["epochs"], anew) == ("completed", 2, False)
    for number, lacking in enumerate(("result.json", "recipe.json", "environment.json", "checkpoints", "")):
        aside = (first / lacking).rename(tmp_path / "aside")
        assert continued(f"{number + 2:04d}") == (expected, True)
        aside.rename(first / lacking)


def test_the_score_is_that_of_the_best_epoch_not_of_the_last(digit_pictures, tmp_path):
    images, labels = digit_pictures  # labels that mean nothing: what is learned makes the dev set worse
    data = zoo.load_data((images[:240], np.random.default_rng(0).permutation(labels[:240])), channels=1, image_size=8)
    fields = {"epochs": 12, "optimizer": "adam", "schedule": "constant"}
    model = network(layers.Flatten(), layers.Dense(64, activation="relu"))
    result = trial.run(ordered(model, data, tmp_path, fields=fields, objective="val_loss", direction="min"))
    assert result["best_epoch"] < result["epochs"]
    assert result["score"] == result["metrics"]["val_loss"] == min(result["curve"]) < result["curve"][-1]
    run = zoo.load_run(tmp_path / "trials" / "0000" / "attempt-1", data)
    assert result["metrics"]["val_accuracy"] == pytest.approx(run.evaluate("dev").accuracy)


def test_a_hopeless_trial_is_pruned(data, tmp_path):
    result = trial.run(ordered(network(), data, tmp_path, fields={"epochs": 5}, thresholds=[None, 1.1, 1.1]))
    assert (result["status"], result["epochs"]) == ("pruned", 2)
    assert result["score"] == result["curve"][result["best_epoch"] - 1]


@pytest.mark.filterwarnings("ignore:The weights are not finite")
class LeftIn(trial.Leaving):
    """Sees to it that the trial is left in its second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self._left.touch()


def test_a_trial_that_nobody_waits_for_ends_with_its_epoch(data, tmp_path, monkeypatch):
    left = tmp_path / "left"
    order = ordered(network(), data, tmp_path, left=str(left), fields={"epochs": 50})
    monkeypatch.setattr(trial, "Leaving", LeftIn)
    result = trial.run(order)
    assert (result["status"], result["kind"]) == ("failed", trial.LEFT)
    assert len(read_history(tmp_path / "trials" / "0000" / "attempt-1" / "history.csv")["loss"]) == 2
    trial.run(order)
    assert not (tmp_path / "trials" / "0000" / "attempt-2" / "history.csv").exists()
    left.unlink()
    monkeypatch.undo()
    assert trial.run({**order, "fields": {**order["fields"], "epochs": 1}})["status"] == "completed"


@pytest.mark.filterwarnings("ignore:The weights are not finite")
def test_a_trial_with_a_rate_far_too_large_is_not_finite(data, tmp_path):
    fields = {"learning_rate": 1e38, "optimizer": "sgd"}
    result = trial.run(ordered(network(), data, tmp_path, fields=fields))
    assert (result["status"], result["kind"], result["score"]) == ("failed", "not finite", None)
    assert "not finite in any epoch" in result["reason"]


def test_failures_have_a_kind_a_line_and_a_traceback(data, tmp_path, mishaps, monkeypatch):
    order = ordered(network(mishaps.Stubborn()), data, tmp_path, fields={"epochs": 1})
    errors = [
        (ZeroDivisionError("a\nb  " + "word " * 400), "ZeroDivisionError"),
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 MiB"), "out of memory"),
    ]
    for number, (error, kind) in enumerate(errors, start=1):
        monkeypatch.setattr(mishaps.Stubborn, "error", error)
        result = trial.run(order)
        assert (result["status"], result["kind"], result["score"]) == ("failed", kind, None)
        assert 0 < len(result["reason"]) <= 1000
        assert "\n" not in result["reason"]
        assert number > 1 or result["reason"].endswith("word …")
        assert result["traceback"] == f"trials/0000/attempt-{number}/traceback.txt"
        text = (tmp_path / result["traceback"]).read_text()
        assert text.startswith("Traceback")
        assert "mishaps.py" in text
        assert json.loads((tmp_path / "trials" / "0000" / f"attempt-{number}" / "result.json").read_text()) == result
    monkeypatch.setattr(mishaps.Stubborn, "error", None)
    assert trial.run(order)["status"] == "completed"


def test_weights_that_cannot_be_fetched_are_no_failure_of_the_trial(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(FileNotFoundError, match="could not be fetched"):
        trial.run(ordered("mobilenet_v2", zoo.load_data(photos), tmp_path))


def test_pictures_that_are_gone_are_no_failure_of_the_trial(photos, tmp_path):
    data = zoo.load_data(photos, image_size=8)
    picture = Path(data.train.paths[3])
    model = network(channels=3)
    order = ordered(model, data, tmp_path, fields={"epochs": 1})
    content = picture.read_bytes()
    picture.unlink()
    with pytest.raises(ValueError, match=f"{picture.name} cannot be used any more: No such file"):
        trial.run(order)
    assert "cannot be used any more" in (tmp_path / "trials" / "0000" / "attempt-1" / "traceback.txt").read_text()
    assert (tmp_path / "trials" / "0000" / "attempt-1.log").exists()
    assert not (tmp_path / "trials" / "0000" / "attempt-1" / "result.json").exists()
    picture.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="it is another picture than when it was indexed"):
        trial.run(order)
    picture.write_bytes(content)
    reference.load_data(order["reference"], "something else")  # or another process, which has none of it in memory
    aside = photos.rename(tmp_path / "aside")
    with pytest.raises(FileNotFoundError, match="no longer in .*photos"):
        trial.run(order)
    aside.rename(photos)
    result = trial.run(order)
    assert (result["status"], result["attempt"]) == ("completed", "attempt-3")


def test_arrays_that_were_changed_are_no_failure_of_the_trial(data, tmp_path):
    order = ordered(network(), data, tmp_path, fields={"epochs": 1})
    stored = tmp_path / "reference" / "pictures.npy"
    pictures = np.load(stored)
    np.save(stored, pictures[::-1])
    with pytest.raises(ValueError, match="was changed after load_data saw it"):
        trial.run(order)
    np.save(stored, pictures)
    reference.load_data(order["reference"], "something else")  # or another process
    assert trial.run(order)["status"] == "completed"


@pytest.mark.filterwarnings("ignore:A checkpoint could not be written")
def test_a_disk_that_takes_no_more_is_no_failure_of_the_trial(data, tmp_path):
    order = ordered(network(layers.Flatten(), layers.Dense(2000)), data, tmp_path, fields={"epochs": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # of a file: less than the model takes
    try:
        with pytest.raises(OSError, match="File too large"):
            trial.run(order)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in (tmp_path / "trials" / "0000" / "attempt-1" / "traceback.txt").read_text()
    assert not (tmp_path / "trials" / "0000" / "attempt-1" / "result.json").exists()
    assert trial.run(order)["status"] == "completed"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_what_a_disk_refuses_is_raised_through_whatever_wraps_it(data, tmp_path, mishaps, monkeypatch, code):
    order = ordered(network(mishaps.Tired()), data, tmp_path, fields={"epochs": 1})
    disk = OSError(code, os.strerror(code), "/there")
    wrapped = RuntimeError("no luck")
    wrapped.__cause__ = disk
    for error in (disk, wrapped, shutil.Error([("/here", "/there", str(disk))])):
        monkeypatch.setattr(mishaps.Tired, "error", error)
        with pytest.raises(type(error)):  # another one of its kind: Keras puts the layer's name into it
            trial.run(order)
    monkeypatch.setattr(mishaps.Tired, "error", FileNotFoundError(errno.ENOENT, "none", "/a/layer's/own"))
    result = trial.run(order)
    assert (result["status"], result["kind"]) == ("failed", "FileNotFoundError")


def test_a_disk_that_breaks_while_batches_are_read_is_raised(data, tmp_path, mishaps):
    result = ordered(network(mishaps.Broken()), data, tmp_path, fields={"epochs": 1})
    with pytest.raises(Exception, match="Input/output error") as caught:
        trial.run(result)
    assert not isinstance(caught.value, OSError)  # TensorFlow's own, of which only the words tell


def test_what_the_caller_asked_for_wrongly_is_told(data, tmp_path):
    model = network()
    result = trial.run(ordered(model, data, tmp_path, objective="val_f1"))
    assert (result["status"], result["kind"]) == ("failed", "no such objective")
    assert (
        result["reason"]
        == "The history has no 'val_f1'. It has: accuracy, learning_rate, loss, val_accuracy, val_loss."
    )
    result = trial.run(ordered(model, data, tmp_path, fields={"epoch": 2}))
    assert (result["status"], result["kind"]) == ("failed", "TypeError")
    assert "Did you mean `epochs`?" in result["reason"]


def test_a_broken_order_raises(data, tmp_path):
    order = ordered("convnet", data, tmp_path)
    with pytest.raises(ValueError, match="`order` lacks objective, thresholds"):
        trial.run({name: value for name, value in order.items() if name not in ("objective", "thresholds")})
    with pytest.raises(FileNotFoundError, match="shared disk"):
        trial.run({**order, "reference": str(tmp_path / "elsewhere")})
    assert not (tmp_path / "trials").exists()


def test_an_interrupt_ends_more_than_the_trial(data, tmp_path, mishaps, monkeypatch):
    order = ordered(network(mishaps.Tired()), data, tmp_path)
    monkeypatch.setattr(mishaps.Tired, "error", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        trial.run(order)
    assert not (tmp_path / "trials" / "0000" / "attempt-1" / "result.json").exists()
    monkeypatch.setattr(mishaps.Tired, "error", None)
    assert trial.run(order)["attempt"] == "attempt-2"


@pytest.mark.slow  # TensorFlow waits ten seconds for memory to become free
def test_want_of_memory_halves_the_batch_once_and_keeps_the_step(data, tmp_path, mishaps):
    order = ordered(network(mishaps.Greedy(64)), data, tmp_path, fields={"batch_size": 128, "epochs": 2}, stop_after=1)
    result = trial.run(order)
    assert (result["status"], result["attempt"], result["halved"]) == ("completed", "attempt-2", True)
    assert "OOM when allocating" in (tmp_path / "trials" / "0000" / "attempt-1" / "traceback.txt").read_text()
    recipe = zoo.load_run(tmp_path / "trials" / "0000" / "attempt-2", data).recipe
    assert (recipe.batch_size, recipe.accumulation) == (64, 2)
    continues = str(tmp_path / "trials" / "0000" / "attempt-2")
    longer = trial.run(
        {**order, "trial": "0001", "folder": f"{order['folder']}+", "stop_after": 2, "continues": continues}
    )
    assert (longer["status"], longer["attempt"], longer["halved"]) == ("completed", "attempt-1", True)
    assert longer["curve"][:1] == result["curve"]
    assert longer["epochs"] == 2


def recipe_of(tmp_path, attempt="attempt-1"):
    """Batch size and accumulation that an attempt began with."""
    recipe = Recipe.load(tmp_path / "trials" / "0000" / attempt / "recipe.json")
    return recipe.batch_size, recipe.accumulation


def test_batches_of_more_pictures_than_there_are_and_of_odd_sizes_keep_the_step(data, tmp_path, mishaps, monkeypatch):
    assert len(data.train) == 160
    order = ordered(network(mishaps.Tired()), data, tmp_path)
    monkeypatch.setattr(mishaps.Tired, "error", MemoryError())
    for number, (size, half) in enumerate(((512, 80), (33, 17), (2, 1))):
        result = trial.run({**order, "fields": {**order["fields"], "batch_size": size}})
        assert (result["status"], result["kind"], result["halved"]) == ("failed", "out of memory", True)
        assert recipe_of(tmp_path, f"attempt-{2 * number + 1}") == (size, 1)
        assert recipe_of(tmp_path, f"attempt-{2 * number + 2}") == (half, 2)
    result = trial.run({**order, "fields": {**order["fields"], "batch_size": 1}})
    assert (result["kind"], result["attempt"], result["halved"]) == ("out of memory", "attempt-7", False)


def test_a_trial_whose_process_was_killed_begins_with_half_a_batch(data, tmp_path, mishaps, monkeypatch):
    order = ordered(network(mishaps.Tired()), data, tmp_path, fields={"epochs": 1}) | {"halve": True}
    monkeypatch.setattr(mishaps.Tired, "error", KeyboardInterrupt())  # the end of more than the trial
    with pytest.raises(KeyboardInterrupt):
        trial.run(order)
    assert recipe_of(tmp_path, "attempt-1") == (64, 1)  # nothing was known that could be halved
    with pytest.raises(KeyboardInterrupt):
        trial.run(order)
    assert recipe_of(tmp_path, "attempt-2") == (32, 2)
    monkeypatch.setattr(mishaps.Tired, "error", MemoryError())
    result = trial.run(order)
    assert (result["status"], result["kind"], result["attempt"]) == ("failed", "out of memory", "attempt-3")
    assert recipe_of(tmp_path, "attempt-3") == (32, 2)  # once, however often it was killed
    monkeypatch.setattr(mishaps.Tired, "error", None)
    (tmp_path / "trials" / "0000" / "attempt-1" / "recipe.json").write_text("{")
    result = trial.run(order)
    assert (result["status"], result["halved"]) == ("completed", True)
    assert "was killed, so batches are halved" in (tmp_path / "trials" / "0000" / "attempt-4.log").read_text()


@pytest.mark.slow  # TensorFlow waits ten seconds for memory to become free
@pytest.mark.long
def test_want_of_memory_twice_is_a_failure(data, tmp_path, mishaps):
    result = trial.run(ordered(network(mishaps.Greedy(2)), data, tmp_path, fields={"batch_size": 8, "epochs": 1}))
    assert (result["status"], result["kind"], result["halved"]) == ("failed", "out of memory", True)
    assert result["traceback"] == "trials/0000/attempt-2/traceback.txt"
    assert not (tmp_path / "trials" / "0000" / "attempt-3").exists()


@pytest.mark.slow
@pytest.mark.long
def test_trials_in_threads_wait_for_one_another_and_leave_others_their_output(data, tmp_path, capsys):
    model = network()
    orders = [ordered(model, data, tmp_path, f"{n:04d}", fields={"seed": n, "epochs": 1}) for n in range(2)]
    alone = [lasting(trial.run(order)) for order in orders]
    capsys.readouterr()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(trial.run, order) for order in orders]
        while not all(future.done() for future in futures):
            print("watching")
            wait(futures, timeout=0.01)
    assert [lasting(future.result()) for future in futures] == alone
    assert set(capsys.readouterr().out.split()) == {"watching"}
    for n in range(2):
        assert "watching" not in (tmp_path / "trials" / f"{n:04d}" / "attempt-2.log").read_text()


@pytest.mark.slow
@pytest.mark.long
def test_a_process_that_is_really_short_of_memory_halves_the_batch(tmp_path, mishaps):
    pictures = np.random.default_rng(0).integers(0, 255, (5120, 8, 8, 1), "uint8")
    data = zoo.load_data((pictures, np.arange(5120) % 2), channels=1, image_size=8, split=(0.8, 0.1, 0.1), group=None)
    image = keras.Input((8, 8, 1))
    rows = mishaps.Differences()(layers.Flatten()(layers.Rescaling(1 / 255)(image)))
    model = keras.Model(image, layers.Dense(2, activation="softmax")(rows))
    order = ordered(model, data, tmp_path, fields={"batch_size": 4096, "epochs": 1})  # 4 GiB of differences, then 1
    first = tmp_path / "trials" / "0000" / "attempt-1" / "traceback.txt"
    code = f"""
import json, re, resource, threading, time
from pathlib import Path
import keras
from tuning import trial

def relieved():  # TensorFlow keeps what it got, so that there would be none for its threads
    while not Path({str(first)!r}).exists():
        time.sleep(0.001)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)

keras.ops.matmul(keras.ops.ones((8, 8)), keras.ops.ones((8, 8)))  # starts the threads
now = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + 3 * 2**30, resource.RLIM_INFINITY))
threading.Thread(target=relieved, daemon=True).start()
print(json.dumps(trial.run(json.loads({json.dumps(order)!r}))))
"""
    path = os.pathsep.join([str(ROOT), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert re.search(r"OOM when allocating tensor with shape\[\d+,\d+,64\]", first.read_text())
    assert (result["status"], result["attempt"], result["halved"]) == ("completed", "attempt-2", True)
