"""Moving pictures about: every change of place at once, as one resampling."""

import math
from typing import Any

import keras
import numpy as np

from augment.augmentation import Augmentation, checked_range, checked_share, chosen, plain

ops: Any = keras.ops  # what it returns is declared as None in places

FLIPS = {None: (), "horizontal": (2,), "vertical": (1,), "both": (1, 2)}  # the axes that are turned about
FILLS = ("reflect", "nearest")  # TensorFlow's "wrap" is wrong at the seam


@keras.saving.register_keras_serializable(package="augment")
class RandomAffine(Augmentation):
    """Mirrors, turns, zooms, slants and shifts each training image by its own draw, as one resampling.

    Use it where a picture of the same thing could have been taken mirrored, from another angle or distance, or with the
    thing elsewhere in it; digits and text bear no mirror. Chained layers resample the image once each, and each time
    blur it a little; here all changes are composed into one matrix. In this order, about the centre of the image:
    mirror, slant, zoom, turn; then shift. Places are counted in pixels, so that an oblong image keeps its proportions.
    Outside training, and on a plain call, the layer returns its input unchanged, so it can stay in an exported model.
    Flips alone resample nothing and keep every pixel exactly.

    A saved model that holds the layer is read after `from augment import RandomAffine`. TensorFlow's resampling cannot
    be compiled by XLA, so on TensorFlow a model that holds the layer is not, unless it does nothing but flip.

    Args:
        flip: "horizontal" exchanges left and right, "vertical" top and bottom, "both" does each on its own; each with
            probability 1/2. None mirrors nothing.
        rotation: Largest angle to either side, in degrees, in [0, 180].
        zoom: z in [0, 1) draws factors from 1 - z to 1 + z; or a pair (low, high) of factors from 0.1 to 10. Above 1
            the thing in the image grows. All magnitudes are equally likely on a logarithmic scale.
        shear: Largest slant to either side, in [0, 1]: rows move sideways by this share of their distance from the
            middle row, 1 being 45 degrees.
        shift: Largest shift along either side, as a share of that side, in [0, 1); fractions of a pixel are drawn, too.
        fill: What is moved in from beyond an edge: "reflect" the image mirrored at that edge, "nearest" its last pixel;
            or a grey level from 0 to 255.
        interpolation: "bilinear" or "nearest".
        seed: Whole number of at least 0; 0 is a seed like any other.

    Call arguments:
        images: Pixels 0..255, integers or floats, whose dtype is kept: integers come out rounded.
        training: Whether to change the images.
        keys: Integers (batch, 2), epoch and picture, that decide each picture's draw; a running counter where absent.

    Input shape: (batch, height, width, channels).
    Output shape: the same.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """

    operation = "affine"

    def __init__(
        self,
        flip="horizontal",
        rotation=0.0,
        zoom: float | tuple[float, float] = 0.0,
        shear=0.0,
        shift=0.0,
        fill: str | float = "reflect",
        interpolation="bilinear",
        seed=0,
        **kwargs,
    ):
        super().__init__(seed, **kwargs)
        if not isinstance(flip, (str, type(None))) or flip not in FLIPS:
            raise ValueError(f'`flip` must be None, "horizontal", "vertical" or "both". Received: flip={flip!r}')
        fill = plain(fill)
        level = isinstance(fill, (int, float)) and not isinstance(fill, bool) and 0 <= fill <= 255
        if not level and not (isinstance(fill, str) and fill in FILLS):
            raise ValueError(
                f"`fill` must be one of {', '.join(FILLS)}, or a grey level from 0 to 255. Received: {fill!r}"
            )
        if interpolation not in ("bilinear", "nearest"):
            raise ValueError(f'`interpolation` must be "bilinear" or "nearest". Received: {interpolation!r}')
        self.flip = flip
        self.rotation = checked_share(rotation, "rotation", most=180)
        pair = isinstance(zoom, (tuple, list, np.ndarray))
        self.zoom = checked_range(zoom, "zoom", 0.1, 10) if pair else checked_share(zoom, "zoom", below=True)
        self.shear = checked_share(shear, "shear")
        self.shift = checked_share(shift, "shift", below=True)
        self.fill = fill
        self.interpolation = interpolation
        self._moves = bool(rotation or zoom or shear or shift)
        # TensorFlow's resampling cannot be compiled by XLA, and fit must not try
        self.supports_jit = not self._moves or keras.backend.backend() != "tensorflow"

    def augmented(self, images, keys):
        zoom = self.zoom if isinstance(self.zoom, tuple) else (1 - self.zoom, 1 + self.zoom)
        top, left, shift_x, shift_y, rotation, zoom, shear = self.draws.uniforms(
            images,
            keys,
            [
                (0.0, 1.0),
                (0.0, 1.0),
                (-self.shift, self.shift),
                (-self.shift, self.shift),
                (-math.radians(self.rotation), math.radians(self.rotation)),
                (math.log(zoom[0]), math.log(zoom[1])),
                (-self.shear, self.shear),
            ],
            first=1,  # a new change comes last: what the others draw must stay as it is
        )
        axes = FLIPS[self.flip]
        if not self._moves:
            for axis, share in ((1, top), (2, left)):
                if axis in axes:
                    images = chosen(share < 0.5, ops.flip(images, axis), images)
            return images
        height, width = (ops.cast(side, "float32") for side in ops.shape(images)[1:3])
        places = matrix(
            (height, width),
            flip_x=ops.where(left < 0.5, -1.0, 1.0) if 2 in axes else 1.0,
            flip_y=ops.where(top < 0.5, -1.0, 1.0) if 1 in axes else 1.0,
            rotation=rotation,
            zoom=ops.exp(zoom),
            shear_x=shear,
            shift_x=shift_x * width,
            shift_y=shift_y * height,
        )
        return resampled(images, places, fill=self.fill, interpolation=self.interpolation)


def matrix(size, *, rotation, flip_x=1.0, flip_y=1.0, zoom=1.0, shear_x=0.0, shear_y=0.0, shift_x=0.0, shift_y=0.0):
    """The eight numbers, (batch, 8), that lead from a place in the output to its place in the input.

    They are the rows a0 a1 a2 and b0 b1 b2 of x' = a0 x + a1 y + a2 and y' = b0 x + b1 y + b2, and two zeros of a
    perspective. Every change is a number or (batch, 1, 1, 1), and `rotation` (batch, 1, 1, 1).

    Args:
        size: (height, width) in pixels.
        rotation: In radians, counter-clockwise as seen.
        flip_x, flip_y: -1 to exchange left and right, top and bottom; else 1.
        zoom: Factor; above 1 enlarges.
        shear_x, shear_y: Pixels that a place moves to the right for each pixel that it lies lower, and downwards for
            each pixel that it lies further to the right.
        shift_x, shift_y: Pixels to the right and downwards.
    """
    centre_y, centre_x = ((side - 1) / 2 for side in size)
    cos, sin = ops.cos(rotation), ops.sin(rotation)
    scale = 1 / (zoom * (1 - shear_x * shear_y))
    a0, a1 = (cos - shear_x * sin) * scale * flip_x, -(sin + shear_x * cos) * scale * flip_x
    b0, b1 = (sin - shear_y * cos) * scale * flip_y, (cos + shear_y * sin) * scale * flip_y
    from_x, from_y = centre_x + shift_x, centre_y + shift_y
    a2 = centre_x - a0 * from_x - a1 * from_y
    b2 = centre_y - b0 * from_x - b1 * from_y
    none = ops.zeros_like(rotation)
    rows = [none + number for number in (a0, a1, a2, b0, b1, b2, 0.0, 0.0)]
    return ops.reshape(ops.concatenate(rows, axis=1), (-1, 8))


def resampled(images, places, *, fill: str | float = "reflect", interpolation="bilinear"):
    """Float32 images (n, h, w, c), each pixel taken from where `matrix` says."""
    constant = not isinstance(fill, str)
    return ops.image.affine_transform(
        images,
        places,
        interpolation=interpolation,
        fill_mode="constant" if constant else fill,
        fill_value=fill if constant else 0,
        data_format="channels_last",
    )
