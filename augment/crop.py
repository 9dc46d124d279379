"""Cutting a piece out of pictures."""

import math
from typing import Any

import keras

from augment.augmentation import Augmentation, checked_range, plain
from augment.separable import applied, triangle

ops: Any = keras.ops  # what it returns is declared as None in places


@keras.saving.register_keras_serializable(package="augment")
class RandomCrop(Augmentation):
    """Cuts a box of random area, proportion and place out of each training image and resizes it to one size.

    Use it where a thing is still what it is when only a part is seen, or seen larger; the usual change in training
    for photographs. Hand in images somewhat larger than `size`, or many boxes are enlarged and blurred. Outside
    training, and on a plain call, the layer cuts out the centre at `size`, pixel by pixel, so that an exported model
    takes the same larger images.

    Szegedy et al. 2015, "Going Deeper with Convolutions", https://arxiv.org/abs/1409.4842, with the ranges that
    torchvision's RandomResizedCrop uses. Departures: boxes begin and end between pixels, too; shrinking is antialiased;
    a box that would stick out of the image ends at its edges and keeps its area, so that it leaves the drawn proportion
    by as little as it can. At the whole area it is the whole image.

    Args:
        size: Side, or (height, width), of what comes out, in pixels; no image may be smaller.
        scale: The box's share (low, high) of the image's area, from 0.01 to 1, all equally likely.
        ratio: The box's width over its height (low, high), from 0.1 to 10, all equally likely on a logarithmic scale.
        seed: Whole number of at least 0; 0 is a seed like any other.

    Call arguments:
        images: Pixels 0..255, integers or floats, whose dtype is kept: integers come out rounded.
        training: Whether to cut random boxes; else the centre is cut.
        keys: Integers (batch, 2), epoch and picture, that decide each picture's draw; a running counter where absent.

    Input shape: (batch, height, width, channels).
    Output shape: (batch, *size, channels).

    Raises:
        ValueError: If an argument is out of range, or images are smaller than `size`.
    """

    operation = "crop"

    def __init__(self, size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        size = tuple(map(plain, size)) if isinstance(size, (tuple, list)) else plain(size)
        sides = size if isinstance(size, tuple) else (size, size)
        if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
            raise ValueError(
                f"`size` must be a side or (height, width), in whole pixels above 0. Received: size={size!r}"
            )
        self.size = size
        self.scale = checked_range(scale, "scale", 0.01, 1)
        self.ratio = checked_range(ratio, "ratio", 0.1, 10)
        self._sides = tuple(sides)

    def call(self, images, training=False, keys=None):
        count, *_, channels = self.compute_output_shape(images.shape)
        if training:
            return super().call(images, training=True, keys=keys)
        starts = [(there - wanted) // 2 for there, wanted in zip(ops.shape(images)[1:3], self._sides, strict=True)]
        count = ops.shape(images)[0] if count is None else count
        return ops.slice(images, (0, *starts, 0), (count, *self._sides, channels))

    def augmented(self, images, keys):
        share, ratio, down, right = self.draws.uniforms(
            images, keys, [self.scale, tuple(math.log(bound) for bound in self.ratio), (0.0, 1.0), (0.0, 1.0)]
        )
        height, width = ops.shape(images)[1:3]
        top, left, tall, wide = boxes(share, ops.exp(ratio), down, right, (height, width))
        rows = triangle(top, tall, height, self._sides[0])
        return applied(images, rows, triangle(left, wide, width, self._sides[1]))

    def compute_output_shape(self, input_shape):
        sides = tuple(input_shape[1:3])
        if any(there is not None and there < wanted for there, wanted in zip(sides, self._sides, strict=True)):
            raise ValueError(
                f"RandomCrop cannot cut {self._sides} out of images of {sides}, height before width: "
                "ask for a smaller `size`, or resize the images first."
            )
        return (input_shape[0], *self._sides, input_shape[3])


def boxes(share, ratio, down, right, size):
    """Boxes within pictures, as top, left, height and width in pixels, each float32 (n,).

    Args:
        share: Of the picture's area, above 0 and at most 1, (n, 1, 1, 1) as all that follow.
        ratio: Width over height, as far as that fits.
        down, right: Where the box lies: 0 at the first edge, 1 at the last.
        size: (height, width) of the pictures.
    """
    share, ratio, down, right = (ops.reshape(number, (-1,)) for number in (share, ratio, down, right))
    height, width = (ops.cast(side, "float32") for side in size)
    tall = ops.clip(ops.sqrt(share * height * width / ratio), share * height, height)  # what is wider than high, too
    wide = ops.minimum(share * height * width / tall, width)
    return down * (height - tall), right * (width - wide), tall, wide
