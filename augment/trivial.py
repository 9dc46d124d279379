"""TrivialAugment: one change a picture, drawn from fourteen."""

import functools
import math
from typing import Any

import keras
import numpy as np

from augment.affine import matrix, resampled
from augment.augmentation import Augmentation
from augment.colour import LUMA

ops: Any = keras.ops  # what it returns is declared as None in places

BINS = 31  # of magnitudes
GREY = LUMA.astype(np.float32)
LEVELS = np.arange(256, dtype=np.int32)


@keras.saving.register_keras_serializable(package="augment")
class TrivialAugment(Augmentation):
    """Changes each training image in one way out of fourteen, drawn with its magnitude for each image.

    Use it where nothing is known about which changes the pictures bear: nothing has to be tuned. It is a strong
    augmentation, so train for long, and on its own but for a mirror and a crop. Each way is equally likely:

    | way | magnitude |
    | --- | --- |
    | identity, autocontrast, equalize | none |
    | shear x, shear y | 0 to 0.99 of the distance from the middle, to either side |
    | translate x, translate y | 0 to 32 whole pixels, to either side |
    | rotate | 0 to 135 degrees, to either side |
    | brightness, color, contrast, sharpness | factors from 0.01 to 1.99 |
    | posterize | 8 to 2 bits |
    | solarize | from 255 on to from 0 on |

    with 31 equally likely magnitudes from the least to the most. Colour and tone are changed as Pillow does it, but
    without its rounding on the way; a fourth channel is transparency, and only moved. "color" leaves pictures of any
    other number of channels than 3 and 4 as they are.
    Outside training, and on a plain call, the layer returns its input unchanged, so it can stay in an exported model.

    Images are changed one after another, so that each costs its own change alone; made for input pipelines on the CPU.
    On JAX call it within `fit` or `jax.jit`, since an eager call compiles anew each time. TensorFlow's resampling
    cannot be compiled by XLA, so on TensorFlow a model that holds the layer is not.

    Mueller and Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation",
    https://arxiv.org/abs/2103.10158, in its wide space as torchvision has it. Departures: resampling is bilinear, not
    by the nearest pixel; what comes in from beyond an edge is the image mirrored there, not black; shears are about the
    centre, not a corner; pixels may be floats (posterize rounds them down, equalize to whole numbers).

    Args:
        seed: Whole number of at least 0; 0 is a seed like any other.

    Call arguments:
        images: Pixels 0..255, integers or floats, whose dtype is kept: integers come out rounded.
        training: Whether to change the images.
        keys: Integers (batch, 2), epoch and picture, that decide each picture's draw; a running counter where absent.

    Input shape: (batch, height, width, channels).
    Output shape: the same.

    Raises:
        ValueError: If `seed` is negative or no whole number.
    """

    operation = "trivial"

    def __init__(self, seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def augmented(self, images, keys):
        if images.shape[0] == 0:
            return images  # a map looks at the first image
        way, magnitude = self.drawn(images, keys)
        return ops.map(_changed, (images, way, magnitude))

    def drawn(self, images, keys):
        """The row of `WAYS` and the magnitude for each image, int32 and float32 (batch,)."""
        ranges = [(0.0, float(len(WAYS))), (0.0, float(BINS)), (-1.0, 1.0)]
        draws = [ops.reshape(values, (-1,)) for values in self.draws.uniforms(images, keys, ranges)]
        way, step = (ops.cast(values, "int32") for values in draws[:2])
        # a table, because backends divide differently, and a threshold must not miss its grey level
        magnitude = ops.take(MAGNITUDES, BINS * way + step)
        return way, ops.where(ops.take(SIGNED, way) & (draws[2] < 0), -magnitude, magnitude)


def _changed(one):
    image, way, magnitude = one
    return ops.switch(way, [change for change, *_ in WAYS], image, magnitude)


def identity(image, _=None):
    return image


def moved(image, magnitude, change):
    """The image (h, w, c) with one of `matrix`'s changes."""
    size = tuple(ops.cast(side, "float32") for side in ops.shape(image)[:2])
    magnitude = ops.reshape(magnitude, (1, 1, 1, 1))
    places = matrix(size, **{"rotation": ops.zeros_like(magnitude), change: magnitude})
    return ops.clip(resampled(image[np.newaxis], places)[0], 0.0, 255.0)  # JAX may end just above


def translated(image, magnitude, change):
    return moved(image, ops.trunc(magnitude), change)


def rotated(image, degrees):
    return moved(image, degrees * (math.pi / 180), "rotation")


def on_colours(change):
    """A change of colours as one that leaves transparency alone."""

    @functools.wraps(change)
    def changed(image, *magnitude):
        if image.shape[-1] != 4:
            return ops.clip(change(image, *magnitude), 0.0, 255.0)
        colours = ops.clip(change(image[..., :3], *magnitude), 0.0, 255.0)
        return ops.concatenate([colours, image[..., 3:]], axis=-1)

    return changed


@on_colours
def brightness(image, magnitude):
    return image * (1 + magnitude)


@on_colours
def color(image, magnitude):
    """From grey (-1) over the image as it is (0) to twice the colour."""
    if image.shape[-1] != 3:
        return image
    grey = ops.sum(image * GREY, axis=-1, keepdims=True)
    return image + magnitude * (image - grey)


@on_colours
def contrast(image, magnitude):
    """From the mean grey (-1) over the image as it is (0) to twice the distance from it."""
    means = ops.mean(ops.mean(image, axis=0), axis=0)  # both at once, float32 runs out of digits
    grey = ops.sum(means * GREY) if image.shape[-1] == 3 else ops.mean(means)
    return image + magnitude * (image - grey)


@on_colours
def sharpness(image, magnitude):
    """From a smoothed image (-1) over the image as it is (0) to one as much sharper; the outermost pixels stay."""
    height, width = ops.shape(image)[:2]
    rows, columns = ops.arange(height)[:, np.newaxis, np.newaxis], ops.arange(width)[:, np.newaxis]
    inner = (rows > 0) & (rows < height - 1) & (columns > 0) & (columns < width - 1)
    padded = ops.pad(image, ((1, 1), (1, 1), (0, 0)))[np.newaxis]
    mean = ops.average_pool(padded, 3, 1, "valid", data_format="channels_last")[0]
    smooth = ops.where(inner, (9 * mean + 4 * image) / 13, image)  # ones about a five, as Pillow's SMOOTH
    return image + magnitude * (image - smooth)


@on_colours
def posterize(image, bits):
    """Keeps the upper bits of each pixel."""
    dropped = 8 - ops.cast(ops.round(bits), "int32")
    step = ops.cast(ops.left_shift(np.int32(1), dropped), "float32")  # a power may come out just below
    return ops.floor(image / step) * step


@on_colours
def solarize(image, threshold):
    """Inverts the pixels from a threshold on."""
    return ops.where(image >= threshold, 255 - image, image)


@on_colours
def autocontrast(image, _=None):
    """Stretches each channel to 0..255."""
    least, most = ops.min(image, axis=(0, 1)), ops.max(image, axis=(0, 1))
    flat = most - least < 1  # among whole numbers: equal. Less than a grey level is no contrast
    return ops.where(flat, image, (image - least) * (255 / ops.where(flat, 1.0, most - least)))


@on_colours
def equalize(image, _=None):
    """Spreads the pixels of each channel evenly over 0..255, by the table of Pillow's `ImageOps.equalize`."""
    channels = image.shape[-1]
    pixels = ops.cast(ops.clip(ops.round(image), 0, 255), "int32") + 256 * np.arange(channels, dtype=np.int32)
    pixels = ops.reshape(pixels, (-1,))
    counts = ops.reshape(ops.segment_sum(ops.ones_like(pixels), pixels, 256 * channels), (channels, 256))
    below = ops.cumsum(counts, axis=1) - counts
    step = ops.max(ops.where(counts > 0, below, 0), axis=1, keepdims=True) // 255  # without the brightest pixels
    table = ops.where(step > 0, (step // 2 + below) // ops.maximum(step, 1), LEVELS)
    return ops.reshape(ops.take(ops.cast(ops.reshape(table, (-1,)), "float32"), pixels), ops.shape(image))


# change, least and most of its magnitude, whether that has a random sign. A new way would change what seeds draw.
WAYS = (
    (identity, 0.0, 0.0, False),
    (functools.partial(moved, change="shear_x"), 0.0, 0.99, True),
    (functools.partial(moved, change="shear_y"), 0.0, 0.99, True),
    (functools.partial(translated, change="shift_x"), 0.0, 32.0, True),
    (functools.partial(translated, change="shift_y"), 0.0, 32.0, True),
    (rotated, 0.0, 135.0, True),
    (brightness, 0.0, 0.99, True),
    (color, 0.0, 0.99, True),
    (contrast, 0.0, 0.99, True),
    (sharpness, 0.0, 0.99, True),
    (posterize, 8.0, 2.0, False),
    (solarize, 255.0, 0.0, False),
    (autocontrast, 0.0, 0.0, False),
    (equalize, 0.0, 0.0, False),
)
MAGNITUDES = np.concatenate([np.linspace(least, most, BINS, dtype=np.float32) for _, least, most, _ in WAYS])
SIGNED = np.array([signed for *_, signed in WAYS])
