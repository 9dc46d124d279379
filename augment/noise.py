"""Grainy pictures: Gaussian noise, and single pixels gone black or white."""

import math
from typing import Any

import keras

from augment.augmentation import Augmentation, checked_share
from augment.colour import with_alpha_of

ops: Any = keras.ops  # what it returns is declared as None in places


@keras.saving.register_keras_serializable(package="augment")
class RandomNoise(Augmentation):
    """Adds to training images the grain of a camera in the dark, and pixels that fail, each image at its own strength.

    Use it where cameras or light vary, or where a network must not rest on the finest texture. Outside training, and on
    a plain call, the layer returns its input unchanged, so it can stay in an exported model. Normal values come by Box
    and Muller 1958, "A Note on the Generation of Random Normal Deviates"; none is larger than 5.8 standard deviations.
    After the noise, pixels are clipped to 0..255.

    Args:
        gaussian: Largest standard deviation, in grey levels, in [0, 127]; each image draws its own below it. Every
            pixel and channel draws its own noise.
        salt_and_pepper: Largest share of pixels, in [0, 1], that become black or white in all channels, as many black
            as white on average; each image draws its own share below it.
        probability: Probability, in [0, 1], that an image is changed at all.
        seed: Whole number of at least 0; 0 is a seed like any other.

    Call arguments:
        images: Pixels 0..255, integers or floats, whose dtype is kept: integers come out rounded. Of four channels, the
            fourth is alpha and stays as it is.
        training: Whether to change the images.
        keys: Integers (batch, 2), epoch and picture, that decide each picture's draw; a running counter where absent.

    Input shape: (batch, height, width, channels).
    Output shape: the same.

    Raises:
        ValueError: If an argument is out of range, or the number of channels is unknown.
    """

    operation = "noise"

    def __init__(self, gaussian=10.0, salt_and_pepper=0.0, probability=0.5, seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        self.gaussian = checked_share(gaussian, "gaussian", most=127)
        self.salt_and_pepper = checked_share(salt_and_pepper, "salt_and_pepper")
        self.probability = checked_share(probability, "probability")

    def augmented(self, images, keys):
        chance, deviation, share = self.draws.uniforms(
            images, keys, [(0.0, 1.0), (0.0, self.gaussian), (0.0, self.salt_and_pepper)]
        )  # numbers 0 to 2; the fields are 3 and 4
        chosen = ops.cast(chance < self.probability, "float32")
        changed = images
        if self.gaussian:
            changed = changed + chosen * deviation * normals(self.draws.field(images, keys, number=3))
        if self.salt_and_pepper:
            pixel = self.draws.field(images[..., :1], keys, number=4)
            half = chosen * share / 2
            salt, pepper = ops.cast(pixel >= 1 - half, "float32"), ops.cast(pixel < half, "float32")
            changed = changed + 1e4 * (salt - pepper)  # far beyond white and black; half the cost of `where`
        return with_alpha_of(images, ops.clip(changed, 0, 255))


def normals(uniforms):
    """Standard normal values from values in [0, 1), (batch, height, width, channels) -> the same.

    Half of the values give the radius of a point in the plane, half its angle, and both its places are used: a third of
    the cost of the inverse error function, which on TensorFlow is also infinite at its last value below 1. Of an odd
    number, the one in the middle serves as a radius and as an angle, of two different points.
    """
    shape = ops.shape(uniforms)
    size = shape[1] * shape[2] * shape[3]
    half = (size + 1) // 2
    flat = ops.reshape(uniforms, (shape[0], size))
    radius = ops.sqrt(-2 * ops.log(1 - flat[:, :half]))  # 1 - u is at least 2**-24
    angle = math.tau * flat[:, size - half :]
    points = ops.concatenate([radius * ops.cos(angle), radius * ops.sin(angle)], axis=1)
    return ops.reshape(points[:, :size], shape)
