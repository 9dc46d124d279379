"""Blurring pictures."""

import math
from typing import Any

import keras

from augment.augmentation import Augmentation, checked_range, checked_share, chosen
from augment.separable import applied, gaussian

ops: Any = keras.ops  # what it returns is declared as None in places


@keras.saving.register_keras_serializable(package="augment")
class RandomBlur(Augmentation):
    """Blurs some training images with a Gaussian, each by its own width.

    Use it where pictures may come out of focus or from cameras of less resolution, and where a network should look at
    shapes more than at fine texture. Outside training, and on a plain call, the layer returns its input unchanged.

    The blur of Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR),
    https://arxiv.org/abs/2002.05709, whose probability and widths at 224 pixels are the defaults. Departure: the kernel
    does not end at a tenth of the image's side, but after five standard deviations of the widest blur; edges are
    mirrored.

    Args:
        sigma: Standard deviations (low, high) in pixels, from 0.01 to 50, all equally likely. Below 0.3 next to nothing
            is seen.
        probability: Of an image being blurred, in [0, 1]; the others keep every pixel exactly.
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

    operation = "blur"

    def __init__(self, sigma=(0.1, 2.0), probability=0.5, seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        self.sigma = checked_range(sigma, "sigma", 0.01, 50)
        self.probability = checked_share(probability, "probability")

    def augmented(self, images, keys):
        share, sigma = self.draws.uniforms(images, keys, [(0.0, 1.0), self.sigma])
        height, width = ops.shape(images)[1:3]
        sigma = ops.reshape(sigma, (-1,))
        reach = math.ceil(5 * self.sigma[1])  # what lies beyond weighs less than a float32 can hold
        blurred = applied(images, gaussian(sigma, height, reach), gaussian(sigma, width, reach))
        return chosen(share < self.probability, blurred, images)
