"""Pictures in another light: brightness, contrast, saturation and hue as one map of the colours."""

import math
from typing import Any

import keras
import numpy as np

from augment.augmentation import Augmentation, checked_share

ops: Any = keras.ops  # what it returns is declared as None in places

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: the grey of red, green and blue, as in PIL and torchvision
_RED, _GREEN, _BLUE = np.eye(3)

# Any turn that keeps greys and luma is GREY + cos * CHROMA + sin * QUARTER, each a matrix (to, from).
GREY = np.tile(LUMA, (3, 1))  # a colour's grey
CHROMA = np.eye(3) - GREY  # what is left: the differences from the grey
_RED_ROW, _BLUE_ROW = _BLUE - LUMA, LUMA - _RED  # a quarter turn of the plane of (red - grey, blue - grey)
_GREEN_ROW = -(LUMA[0] * _RED_ROW + LUMA[2] * _BLUE_ROW) / LUMA[1]  # so that the grey of it is nought
QUARTER = np.stack([_RED_ROW, _GREEN_ROW, _BLUE_ROW])


@keras.saving.register_keras_serializable(package="augment")
class ColorJitter(Augmentation):
    """Changes brightness, contrast, saturation and hue of each training image by its own draw, as one map.

    Use it where light, camera or season vary; leave hue and greyscale out where the colour is what tells classes apart.
    Howard 2013, https://arxiv.org/abs/1312.5402, in the words of torchvision's ColorJitter. All changes are composed
    into one affine map of the colour, in this order: brightness, contrast, saturation, hue. Departures: the order is
    fixed; pixels are clipped to 0..255 once, at the end, where torchvision clips and rounds after each change; and hue
    is turned as by the W3C's `hue-rotate` (Filter Effects 2018), about the grey axis with the luma kept, which is
    affine, where HSV's hue is not and lets yellow become as dark as blue. Luma is that of BT.601. Outside training, and
    on a plain call, the layer returns its input unchanged, so it can stay in an exported model.

    Args:
        brightness: Largest relative change, in [0, 1]: 0.2 draws factors from 0.8 to 1.2, uniformly. Black stays black.
        contrast: As `brightness`, of each pixel's distance from the mean grey of the image.
        saturation: As `brightness`, of each pixel's distance from its own grey.
        hue: Largest turn to either side, as a share of a full turn, in [0, 0.5]; 0.5 draws all hues alike.
        greyscale: Probability, in [0, 1], that an image loses its colours.
        seed: Whole number of at least 0; 0 is a seed like any other.

    Call arguments:
        images: Pixels 0..255, integers or floats, whose dtype is kept: integers come out rounded. Of four channels, the
            fourth is alpha and stays as it is. With one channel, or another number than three and four, brightness and
            contrast act on all channels, whose mean is the grey, and the others do nothing.
        training: Whether to change the images.
        keys: Integers (batch, 2), epoch and picture, that decide each picture's draw; a running counter where absent.

    Input shape: (batch, height, width, channels).
    Output shape: the same.

    Raises:
        ValueError: If an argument is out of range, or the number of channels is unknown.
    """

    operation = "colour"

    def __init__(self, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, greyscale=0.0, seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        self.brightness = checked_share(brightness, "brightness")
        self.contrast = checked_share(contrast, "contrast")
        self.saturation = checked_share(saturation, "saturation")
        self.hue = checked_share(hue, "hue", most=0.5)
        self.greyscale = checked_share(greyscale, "greyscale")

    def augmented(self, images, keys):
        brightness, contrast, saturation, hue, grey = self.draws.uniforms(
            images,
            keys,
            [
                (1 - self.brightness, 1 + self.brightness),
                (1 - self.contrast, 1 + self.contrast),
                (1 - self.saturation, 1 + self.saturation),
                (-math.tau * self.hue, math.tau * self.hue),
                (0.0, 1.0),
            ],  # a new change comes last: what the others draw must stay as it is
        )
        channels = channel_count(images)
        gain = brightness * contrast
        if channels in (3, 4) and (self.saturation or self.hue or self.greyscale):
            saturation = ops.where(grey < self.greyscale, 0.0, saturation)
            shape = ops.shape(images)
            pixels = ops.reshape(images, (shape[0], shape[1] * shape[2], channels))
            mixing = colour_matrix(gain, saturation, hue, channels)
            changed = ops.reshape(ops.matmul(pixels, mixing), shape)
        else:
            changed = gain * images
        if self.contrast:  # a grey is moved by neither saturation nor hue, so it can be added behind them
            changed = changed + (1 - contrast) * brightness * mean_grey(images)
        return with_alpha_of(images, ops.clip(changed, 0, 255))


def colour_matrix(gain, saturation, hue, channels=3):
    """The matrices (batch, channels, channels) that take a row of colours times them to the changed row.

    Factor, saturation and turn in radians are (batch, 1, 1, 1); saturation 0 leaves greys, 1 all colours. The luma is
    kept but for the factor. A fourth channel becomes 0.
    """
    gain, saturation, hue = (ops.reshape(drawn, (-1, 1, 1)) for drawn in (gain, saturation, hue))
    grey, chroma, quarter = (
        np.pad(part.T, (0, channels - 3)).astype(np.float32) for part in (GREY, CHROMA, QUARTER)
    )  # rows are what colours are taken from
    return gain * (grey + saturation * (ops.cos(hue) * chroma + ops.sin(hue) * quarter))


def mean_grey(images):
    """The mean grey of each image, (batch, 1, 1, 1)."""
    channels = channel_count(images)
    weights = np.append(LUMA, 0)[:channels] if channels in (3, 4) else np.full(channels, 1 / channels)
    # a side at a time: one float32 sum over millions of pixels loses a hundredth of a grey level
    colour = ops.mean(ops.mean(images, axis=2, keepdims=True), axis=1, keepdims=True)
    return ops.sum(colour * weights.astype(np.float32), axis=-1, keepdims=True)


def channel_count(images):
    """How many channels there are, which decides what they mean.

    Raises:
        ValueError: If it is unknown.
    """
    if images.shape[-1] is None:
        raise ValueError(
            "`images` must have a known number of channels: decode them with `channels=3`, or set their shape. "
            f"Received: images of shape {tuple(images.shape)}"
        )
    return images.shape[-1]


def with_alpha_of(images, changed):
    """The changed images, with the alpha of those they came from where there are four channels."""
    if channel_count(images) != 4:
        return changed
    shape = ops.shape(images)
    rows = (shape[0], shape[1], shape[2] * 4)  # whole rows meet a row six times as fast as pixels meet a pixel
    alpha = ops.tile(np.array([False, False, False, True]), (shape[2],))
    return ops.reshape(ops.where(alpha, ops.reshape(images, rows), ops.reshape(changed, rows)), shape)
