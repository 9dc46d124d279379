import io
import subprocess
import sys

import keras
import numpy as np
import pytest

from callbacks.tensorboard_log import TensorBoardLog, confusion_figure

accumulating = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.3), keras.layers.Dense(3, "softmax")])
    network.compile(keras.optimizers.Adam(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return network


def data():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(24, 2)).astype("float32")
    return x, draw.integers(0, 3, 24)


def read(folder):
    """What TensorBoard finds in a folder."""
    accumulator = accumulating.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return accumulator.Reload()


def scalars(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def pixels(event):
    from matplotlib.image import imread

    return imread(io.BytesIO(event.encoded_image_string))


def log_epochs(log, logs, first=0):
    log.on_train_begin()
    for epoch, values in enumerate(logs, start=first):
        log.on_epoch_begin(epoch)
        log.on_epoch_end(epoch, values)


def test_metrics_of_both_splits_lie_under_one_tag(tmp_path, model):
    x, y = data()
    history = model.fit(
        x, y, validation_data=(x, y), epochs=3, verbose=0, callbacks=[TensorBoardLog(tmp_path / "new")]
    ).history
    for folder, prefix in (("train", ""), ("validation", "val_")):
        assert set(read(tmp_path / "new" / folder).Tags()["scalars"]) == {"epoch_loss", "epoch_accuracy"}
        for name in ("loss", "accuracy"):
            found = scalars(tmp_path / "new" / folder, f"epoch_{name}")
            assert [step for step, _ in found] == [1, 2, 3]
            assert np.allclose([value for _, value in found], history[prefix + name], rtol=1e-6)


def test_an_epoch_can_be_read_when_it_has_ended(tmp_path):
    log = TensorBoardLog(tmp_path)
    log.on_train_begin()
    for epoch in range(2):
        log.on_epoch_begin(epoch)
        log.on_epoch_end(epoch, {"loss": 0.5, "f1": np.zeros(3)})
        assert len(scalars(tmp_path / "train", "epoch_loss")) == epoch + 1
    assert not (tmp_path / "validation").exists()


def test_a_fit_that_goes_on_replaces_what_came_after_its_start(tmp_path):
    log_epochs(TensorBoardLog(tmp_path), [{"loss": value} for value in (1.0, 2.0, 3.0, 4.0)])
    log_epochs(TensorBoardLog(tmp_path), [{"loss": 30.0}], first=2)
    assert scalars(tmp_path / "train", "epoch_loss") == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_fresh_fit_replaces_everything(tmp_path):
    pictures = np.zeros((1, 4, 4, 3))
    log_epochs(TensorBoardLog(tmp_path, images=pictures), [{"loss": 1.0}, {"loss": 2.0}])
    log_epochs(TensorBoardLog(tmp_path, images=pictures + 255), [{"loss": 9.0}])
    assert scalars(tmp_path / "train", "epoch_loss") == [(1, 9.0)]
    (picture,) = read(tmp_path / "train").Images("preview/0")
    assert pixels(picture)[..., :3].min() == 1


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_come_back_as_they_were(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, channels))
    log_epochs(TensorBoardLog(tmp_path, images=lambda: images + 0.2), [{}])
    found = read(tmp_path / "train")
    assert found.Tags()["images"] == ["preview/0", "preview/1"]
    (event,) = found.Images("preview/1")
    assert (event.step, event.height, event.width) == (0, 5, 7)
    shown = np.round(pixels(event) * 255)
    assert np.array_equal(shown[..., :3], np.broadcast_to(images[1][..., :3], (5, 7, 3)))


def test_a_figure_is_shown_and_goes_on_being_shown_after_a_restart(tmp_path):
    from matplotlib.figure import Figure

    calls = []

    def figure():
        calls.append(1)
        return Figure(figsize=(3, 2))

    log_epochs(TensorBoardLog(tmp_path, images=figure), [{"loss": 1.0}] * 2)
    log_epochs(TensorBoardLog(tmp_path, images=figure), [{"loss": 1.0}], first=1)
    (event,) = read(tmp_path / "train").Images("preview")
    assert (event.step, event.height, event.width) == (0, 200, 300)
    assert len(calls) == 1


def test_pictures_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`images` must be a figure or an array .* Received: shape \(4, 4, 3\)"):
        log_epochs(TensorBoardLog(tmp_path, images=np.zeros((4, 4, 3))), [{}])


@pytest.mark.parametrize("one_hot", [True, pytest.param(False, marks=[pytest.mark.slow, pytest.mark.long])])
def test_the_confusion_matrix_is_drawn_every_few_epochs(tmp_path, model, one_hot):
    x, y = data()
    answers = np.eye(3)[y] if one_hot else y
    log = TensorBoardLog(tmp_path, confusion=(x, answers, ["cat", "dog", "bird"]), every=2)
    model.fit(x, y, epochs=5, verbose=0, callbacks=[log])
    events = read(tmp_path / "validation").Images("confusion")
    assert [event.step for event in events] == [2, 4]
    assert pixels(events[0]).shape[:2] == (events[0].height, events[0].width)


def test_the_figure_counts_rows_of_the_truth(tmp_path):
    figure = confusion_figure(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), ["cat", "dog"])
    axes = figure.axes[0]
    cells = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "2", (1, 0): "1", (0, 1): "0", (1, 1): "1"}  # (predicted, true)
    assert np.allclose(axes.images[0].get_array(), [[2 / 3, 1 / 3], [0, 1]])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog"]
    assert axes.get_title() == "3 of 4 right"


def test_one_output_is_the_probability_of_the_second_class(tmp_path):
    network = keras.Sequential([keras.Input((1,)), keras.layers.Activation("linear")])
    network.compile("sgd", "mse")
    log = TensorBoardLog(tmp_path, confusion=(np.array([[0.1], [0.9]]), np.array([[0], [1]]), ["no", "yes"]))
    log.set_model(network)
    log_epochs(log, [{}])
    assert len(read(tmp_path / "validation").Images("confusion")) == 1


def test_looking_does_not_change_the_fit(tmp_path):
    x, y = data()
    ends = []
    for watch in (False, True):
        keras.utils.set_random_seed(1)
        network = keras.Sequential(
            [
                keras.Input((2,)),
                keras.layers.Dense(4),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.3),
                keras.layers.Dense(3, "softmax"),
            ]
        )
        network.compile(keras.optimizers.Adam(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
        log = TensorBoardLog(tmp_path, images=np.zeros((1, 2, 2, 3)), confusion=(x, y, "abc"))
        history = network.fit(
            x, y, validation_data=(x, y), epochs=3, batch_size=8, verbose=0, callbacks=[log] if watch else []
        )
        assert network.history is history
        ends.append((history.history, network.get_weights(), [np.asarray(v) for v in network.optimizer.variables]))
    assert ends[0][0] == ends[1][0]
    for first, second in zip(ends[0][1] + ends[0][2], ends[1][1] + ends[1][2], strict=True):
        assert np.array_equal(first, second)


def test_wrong_arguments_are_refused(tmp_path, model):
    x, y = data()
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        TensorBoardLog(tmp_path, every=0)
    with pytest.raises(ValueError, match="right answers from 0 to 1, .* from 0 to 2"):
        TensorBoardLog(tmp_path, confusion=(x, y, ["cat", "dog"]))
    with pytest.raises(ValueError, match="as many pictures as right answers"):
        model.fit(x, y, verbose=0, callbacks=[TensorBoardLog(tmp_path, confusion=(x[:-1], y, "abc"))])


def test_without_tensorboard_the_package_is_named(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        TensorBoardLog(tmp_path)


def test_the_modules_of_the_format_do_without_tensorflow():
    code = (
        "import io, sys; sys.modules['tensorflow'] = None\n"
        "from tensorboard.compat.proto import event_pb2, summary_pb2\n"
        "from tensorboard.summary.writer import record_writer\n"
        "record_writer.RecordWriter(io.BytesIO()).write(event_pb2.Event(step=1).SerializeToString())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
