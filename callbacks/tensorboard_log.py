"""What TensorBoard shows of a fit, written without TensorFlow."""

import io
import itertools
import os
import platform
import time
from pathlib import Path

import keras
import numpy as np

from callbacks.stateful import Announced

_PICTURES = 32  # more than that nobody looks at
_counter = itertools.count()  # two files may be begun within a second


class TensorBoardLog(Announced):
    """Writes what TensorBoard shows: every metric an epoch, pictures at the start, the confusion matrix.

    Look at it with `tensorboard --logdir DIRECTORY`. Metrics go into the folders `train` and `validation`, so that both
    lie in one chart (tags `epoch_loss`, ...); the step is the epoch, from 1. A fit that goes on from an epoch
    (`initial_epoch`) replaces what an earlier one wrote from there on. Everything is on disk when an epoch ends.

    Needs the package `tensorboard`, not TensorFlow. Stand it behind the callbacks that write into the logs.

    Args:
        directory: The folder. Missing folders are made.
        images: Pictures that are shown at step 0: an array (n, height, width, channels) of 0..255 with 1, 3 or 4
            channels, of which the first 32 are taken; a matplotlib figure; or a function without arguments that gives
            either. Tag `preview`.
        confusion: `(x, y, class_names)`: what the fitted model is to predict, as `model.predict` takes it; the right
            answers, indices (n,) or one-hot (n, classes); and the names in order. Drawn as tag `confusion`. A model
            with one output means the probability of the second class.
        every: Epochs between two confusion matrices.

    Raises:
        ImportError: If `tensorboard` is not installed.
        ValueError: If an argument is out of range or has the wrong shape.

    Example:
        log = TensorBoardLog("runs/first/tensorboard", confusion=(x, y, ["cat", "dog"]))
        model.fit(..., callbacks=[log])
    """

    def __init__(self, directory, *, images=None, confusion=None, every=1):
        super().__init__()
        _protos()  # missing is said now, not after the first epoch
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: every={every}")
        if confusion is not None:
            x, y, names = confusion
            confusion = x, _indices(y, len(names)), [str(name) for name in names]
        self.directory = Path(directory).absolute()
        self.images = images
        self.confusion = confusion
        self.every = every

    def on_train_begin(self, logs=None):
        self._files: dict[str, Path] = {}
        self._first = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._first is not None:
            return
        self._first = epoch + 1 if epoch else 0  # a fresh fit replaces the preview as well
        known = any(self.directory.glob("train/events.out.tfevents.*"))
        if self.images is not None and not (epoch and known):
            images = self.images() if callable(self.images) else self.images
            self._write("train", 0, [_image(tag, png, size) for tag, png, size in _previews(images)])

    def on_epoch_end(self, epoch, logs=None):
        step = epoch + 1
        parts: dict[str, list] = {"train": [], "validation": []}
        for name, value in (logs or {}).items():
            value = np.asarray(keras.ops.convert_to_numpy(value))
            if value.size == 1:
                part = "validation" if name.startswith("val_") else "train"
                tag = f"epoch_{name.removeprefix('val_')}"
                parts[part].append(_value(tag=tag, simple_value=float(value.reshape(()))))
        if self.confusion is not None and step % self.every == 0:
            x, truth, names = self.confusion
            figure = confusion_figure(truth, _classes(self.model.predict(x, verbose=0)), names)
            parts["validation"].append(_image("confusion", *_png(figure)))
        for part, values in parts.items():
            if values:
                self._write(part, step, values)

    def _write(self, part, step, values):
        """Adds one event to the file of a part; the file is closed each time, since Keras tells nothing of a crash."""
        event, summary, records = _protos()
        events = []
        if part not in self._files:
            folder = self.directory / part
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{int(time.time()):010d}.{platform.node()}.{os.getpid()}.{next(_counter)}"
            self._files[part] = folder / name
            start = event.SessionLog(status=event.SessionLog.START)  # what stands at this step or later is outdated
            events = [{"file_version": "brain.Event:2"}, {"step": self._first, "session_log": start}]
        events.append({"step": step, "summary": summary.Summary(value=values)})
        with open(self._files[part], "ab") as file:
            writer = records.RecordWriter(file)
            for fields in events:
                writer.write(event.Event(wall_time=time.time(), **fields).SerializeToString())


def confusion_figure(truth, predicted, class_names):
    """A confusion matrix: rows are the right classes, columns the predicted ones, colours the share of the row.

    Args:
        truth: Indices of the right classes (n,).
        predicted: Indices of the predicted ones (n,).
        class_names: In order.

    Returns:
        A matplotlib figure; counts stand in the cells of up to 20 classes.
    """
    from matplotlib.figure import Figure

    classes = len(class_names)
    if predicted.shape != truth.shape or max(truth.max(), predicted.max()) >= classes:
        raise ValueError(
            "`confusion` must hold as many pictures as right answers, and a name for every class of the model. "
            f"Received: {len(truth)} answers, {classes} names; predicted: shape {predicted.shape}, up to "
            f"{predicted.max(initial=0)}"
        )
    counts = np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(4 + 0.35 * classes, 16)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, label="share of the true class", shrink=0.8)
    ticks = np.arange(0, classes, max(1, classes // 40))  # more names than that run into each other
    axes.set_xticks(ticks, [class_names[i] for i in ticks], rotation=90 if classes > 4 else 0)
    axes.set_yticks(ticks, [class_names[i] for i in ticks])
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"{np.trace(counts)} of {counts.sum()} right")
    if classes <= 20:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    return figure


def _protos():
    """The modules that hold the format, (event, summary, record writer)."""
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer import record_writer
    except ImportError as error:
        raise ImportError(
            f"TensorBoardLog needs the package 'tensorboard': pip install tensorboard ({error})."
        ) from error
    return event_pb2, summary_pb2, record_writer


def _value(**fields):
    return _protos()[1].Summary.Value(**fields)


def _image(tag, png, size):
    """An image value; size is (height, width)."""
    image = _protos()[1].Summary.Image(height=size[0], width=size[1], colorspace=4, encoded_image_string=png)
    return _value(tag=tag, image=image)


def _previews(images):
    """(tag, PNG, size) for a figure or for each picture of an array."""
    if hasattr(images, "savefig"):
        yield ("preview", *_png(images))
        return
    images = np.asarray(keras.ops.convert_to_numpy(images))
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "`images` must be a figure or an array (n, height, width, channels) of 1, 3 or 4 channels. "
            f"Received: shape {images.shape}"
        )
    from matplotlib.image import imsave

    for i, picture in enumerate(images[:_PICTURES]):
        pixels = np.clip(np.round(picture.astype("float32")), 0, 255).astype("uint8")
        buffer = io.BytesIO()
        imsave(buffer, np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels, format="png")
        yield f"preview/{i}", buffer.getvalue(), pixels.shape[:2]


def _png(figure):
    """A figure as PNG, and its (height, width)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    png = buffer.getvalue()
    width, height = (
        int.from_bytes(png[i : i + 4], "big") for i in (16, 20)
    )  # the header, wherever the figure came from
    return png, (height, width)


def _indices(y, classes):
    """Right answers as indices (n,)."""
    y = np.asarray(keras.ops.convert_to_numpy(y))
    if y.ndim == 2:
        y = y.argmax(axis=-1) if y.shape[1] > 1 else y[:, 0]
    y = y.astype("int64")
    if y.ndim != 1 or not y.size or y.min() < 0 or y.max() >= classes:
        raise ValueError(
            f"`confusion` must hold right answers from 0 to {classes - 1}, one for each of the {classes} class names, "
            f"or one-hot. Received: shape {y.shape}" + (f", from {y.min()} to {y.max()}" if y.size else "")
        )
    return y


def _classes(outputs):
    """Predicted indices (n,)."""
    outputs = np.asarray(outputs)
    return outputs.argmax(axis=-1) if outputs.shape[-1] > 1 else (outputs[:, 0] > 0.5).astype("int64")
