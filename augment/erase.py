"""Hiding a part of pictures."""

import math
from typing import Any

import keras

from augment.augmentation import Augmentation, checked_range, checked_share

ops: Any = keras.ops  # what it returns is declared as None in places


@keras.saving.register_keras_serializable(package="augment")
class RandomErase(Augmentation):
    """Fills a rectangle in some training images with the image's own mean colour.

    Use it where things may be hidden in part, and against a network that relies on a single detail. Outside training,
    and on a plain call, the layer returns its input unchanged.

    Zhong et al. 2017, "Random Erasing Data Augmentation", https://arxiv.org/abs/1708.04896. Departures: the paper fills
    with random values, which brings a texture and a spread of colours that no image has, and costs a draw for each
    pixel; the mean colour hides as much. Proportions are drawn on a logarithmic scale, so that lying and standing
    rectangles are equally likely. A rectangle that would stick out of the image keeps its area and ends at the edges,
    where the paper draws again.

    Args:
        probability: Of an image losing a rectangle, in [0, 1]; the others keep every pixel exactly.
        area: The rectangle's share (low, high) of the image's area, from 0.001 to 1, all equally likely; its sides are
            rounded to whole pixels, at least one.
        ratio: The rectangle's height over its width (low, high), from 0.1 to 10, all equally likely on a logarithmic
            scale.
        seed: Whole number of at least 0; 0 is a seed like any other.

    Call arguments:
        images: Pixels 0..255, integers or floats, whose dtype is kept: integers come out rounded.
        training: Whether to change the images.
        keys: Integers (batch, 2), epoch and picture, that decide each picture's draw; a running counter where absent.

    Input shape: (batch, height, width, channels).
    Output shape: the same.

    Raises:
        ValueError: If an argument is out of range.
    """

    operation = "erase"

    def __init__(self, probability=0.5, area=(0.02, 0.33), ratio=(0.3, 3.3), seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        self.probability = checked_share(probability, "probability")
        self.area = checked_range(area, "area", 0.001, 1)
        self.ratio = checked_range(ratio, "ratio", 0.1, 10)

    def augmented(self, images, keys):
        chosen, area, ratio, down, right = self.draws.uniforms(
            images,
            keys,
            [(0.0, 1.0), self.area, tuple(math.log(bound) for bound in self.ratio), (0.0, 1.0), (0.0, 1.0)],
        )
        _, height, width, channels = ops.shape(images)
        tall, wide = _sides(area, ops.exp(ratio), height, width)
        rows = _stretch(down, tall, height) & (chosen < self.probability)  # (n, 1, 1, height)
        columns = _stretch(right, wide, width)
        # all pixels at once would add up to more than a float32 counts exactly: TensorFlow
        # made 255.27 of white in a single picture of 300 pixels
        colour = ops.mean(ops.mean(images, axis=1), axis=1)
        colour = ops.clip(colour, 0, 255)  # where XLA multiplies by the inverse of a count, white still ends above 255
        # (n, height, width * channels) is several times faster than a mask with one channel
        lines = ops.reshape(images, (-1, height, width * channels))
        inside = ops.reshape(rows, (-1, height, 1)) & ops.reshape(
            ops.repeat(columns, channels, axis=3), (-1, 1, width * channels)
        )
        filled = ops.where(inside, ops.tile(colour[:, None, :], (1, 1, width)), lines)
        return ops.reshape(filled, (-1, height, width, channels))


def _sides(area, ratio, height, width):
    """Whole pixels of rectangles that fit into height x width."""
    height, width = (ops.cast(side, "float32") for side in (height, width))
    tall = ops.clip(ops.sqrt(area * height * width * ratio), area * height, height)
    wide = area * height * width / tall
    return ops.clip(ops.round(tall), 1, height), ops.clip(ops.round(wide), 1, width)


def _stretch(share, length, side):
    """Which pixels of a side belong to a stretch of this length, at any of its places with equal chance."""
    room = ops.cast(side, "float32") - length
    start = ops.minimum(ops.floor(share * (room + 1)), room)
    places = ops.arange(side, dtype="float32")
    return (places >= start) & (places < start + length)
