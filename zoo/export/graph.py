"""What the SavedModel computes: files to pixels, pixels to answers, in plain TensorFlow operations."""

import math
import os
from collections.abc import Sequence

import keras
import tensorflow as tf

from zoo.data.decode import decodable, prepare
from zoo.data.inspecting import MOST_PIXELS
from zoo.data.pictures import Geometry
from zoo.models.outputs import probabilities


def write_saved_model(
    model: keras.Model, folder: str | os.PathLike, *, class_names: Sequence[str], geometry: Geometry
) -> None:
    """Writes the SavedModel with its two signatures, unverified. `zoo.export` is the door for users."""

    def from_pixels(pixels):
        count = tf.shape(pixels)[0]
        # Some kernels refuse a batch of nothing, so an empty one is given a black picture, which is cut off again.
        filler = tf.zeros([tf.cast(count == 0, tf.int32), *geometry.shape])
        outputs = model(tf.concat([tf.cast(pixels, tf.float32), filler], 0), training=False)
        return probabilities(model, outputs)[:count]

    def serve_images(images):
        return {"probabilities": tf.identity(from_pixels(images), name="probabilities")}

    def serving_default(image_bytes):
        pixels, readable = read_pictures(image_bytes, geometry)
        found = from_pixels(pixels)
        names = tf.gather(tf.constant(list(class_names)), tf.argmax(found, axis=-1))
        found = tf.where(readable[:, tf.newaxis], found, math.nan)
        return {
            "label": tf.where(readable, names, "", name="label"),
            "probability": tf.reduce_max(found, axis=-1, name="probability"),
            "probabilities": tf.identity(found, name="probabilities"),
        }

    archive = keras.export.ExportArchive()
    archive.add_endpoint(
        "serving_default", serving_default, input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")]
    )
    archive.add_endpoint(
        "serve_images",
        serve_images,
        input_signature=[tf.TensorSpec([None, *geometry.shape], tf.float32, name="images")],
    )
    archive.write_out(str(folder), verbose=False)  # pyright: ignore[reportAttributeAccessIssue]


def read_pictures(image_bytes, geometry: Geometry):
    """Files to pixels, where one that cannot be read leaves the others alone.

    An operation that fails ends a whole graph, `map_fn` included; only a tf.data pipeline can go on without the element
    that failed. Here it numbers the files, and what is missing at its end was unreadable.

    Args:
        image_bytes: Files, string (n,); n may be 0.
        geometry: How pictures are prepared.

    Returns:
        Pixels, uint8 (n, height, width, channels), black where a file cannot be read, and bool (n,), where it can.
    """
    count = tf.size(image_bytes, tf.int64)

    def read(row, data):
        data = tf.where(decodable(data, MOST_PIXELS), data, "")  # decoding nothing fails
        return row, prepare(data, geometry)

    files = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))
    found = files.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).ignore_errors()
    black = tf.data.Dataset.from_tensors((count, tf.zeros(geometry.shape, tf.uint8)))  # so that there is always one
    rows, pixels = found.concatenate(black).batch(count + 1).get_single_element()
    last = tf.size(rows) - 1
    place = tf.tensor_scatter_nd_update(tf.fill([count + 1], last), rows[:, tf.newaxis], tf.range(last + 1))[:count]
    return tf.gather(pixels, place), place < last
