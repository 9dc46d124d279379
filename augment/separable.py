"""Blurring and resizing as weights: a matrix for the rows of each picture and one for its columns."""

from typing import Any

import keras

ops: Any = keras.ops  # what it returns is declared as None in places


def applied(images, rows, columns):
    """rows @ image @ columns transposed, in every channel, as float32 (n, H, W, c).

    Two products of matrices over all channels at once. Weights that are shares leave the range of the pixels by
    rounding alone, and that is cut off.

    Args:
        images: Pixels 0..255 as float32 (n, h, w, c).
        rows: Weights (n, H, h); each row of a matrix sums to one.
        columns: Weights (n, W, w), alike.
    """
    _, height, width, channels = ops.shape(images)
    tall, wide = ops.shape(rows)[1], ops.shape(columns)[1]
    x = ops.matmul(rows, ops.reshape(images, (-1, height, width * channels)))
    x = ops.transpose(ops.reshape(x, (-1, tall, width, channels)), (0, 2, 1, 3))
    x = ops.matmul(columns, ops.reshape(x, (-1, width, tall * channels)))
    x = ops.transpose(ops.reshape(x, (-1, wide, tall, channels)), (0, 2, 1, 3))
    return ops.clip(x, 0, 255)


def triangle(starts, lengths, side, size):
    """Weights (n, size, side) that resize a stretch of a side to `size` pixels.

    The filter of Pillow's BILINEAR and of an antialiased `tf.image.resize`: a triangle as wide as two pixels of the
    output, or of the input where the stretch is enlarged. It reaches beyond the stretch, though not beyond the picture.

    Args:
        starts: Where each stretch begins, in pixels from the picture's edge, (n,); fractions count.
        lengths: Its length in pixels, above 0, (n,).
        side: Pixels of the picture's side.
        size: Pixels that come out.
    """
    scale = lengths[:, None] / size
    centres = starts[:, None] + (ops.arange(size, dtype="float32") + 0.5) * scale  # (n, size)
    reach = ops.maximum(scale, 1.0)
    places = (ops.arange(side, dtype="float32") + 0.5) / reach  # (n, side)
    weights = ops.relu(1 - ops.abs(places[:, None, :] - (centres / reach)[:, :, None]))
    return weights / ops.sum(weights, axis=2, keepdims=True)


def gaussian(sigma, side, reach):
    """Weights (n, side, side) of a Gaussian blur with mirrored edges: d c b a | a b c d.

    Args:
        sigma: Standard deviations in pixels, (n,).
        side: Pixels of the picture's side.
        reach: Pixels to either side beyond which nothing counts, an integer.
    """
    steps = ops.arange(-reach, reach + 1, dtype="float32")
    taps = ops.exp(-0.5 * ops.square(steps / sigma[:, None]))  # (n, steps)
    taps = taps / ops.sum(taps, axis=1, keepdims=True)
    places = ops.arange(side)
    sources = ops.mod(places + ops.arange(-reach, reach + 1)[:, None], 2 * side)  # (steps, side)
    sources = ops.minimum(sources, 2 * side - 1 - sources)
    hits = ops.cast(sources[:, :, None] == places, "float32")  # where each step leads: (steps, side, side)
    return ops.reshape(ops.matmul(taps, ops.reshape(hits, (2 * reach + 1, -1))), (-1, side, side))
