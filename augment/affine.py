"""Moving pictures about: every change of place at once, as one resampling."""

from typing import Any

import keras

from augment.draws import Draws

ops: Any = keras.ops  # what it returns is declared as None in places

FLIPS = {None: (), "horizontal": (2,), "vertical": (1,), "both": (1, 2)}  # the axes that are turned about
# What tells the draws of one layer apart; mirrors have their axis. A new number must not change what the others draw.
SHIFT_X, SHIFT_Y = 3, 4


@keras.saving.register_keras_serializable(package="augment")
class RandomAffine(keras.layers.Layer):
    """Mirrors and shifts each training image by its own draw.

    Use it where a picture of the same thing could have been taken mirrored, or with the thing elsewhere in it; digits
    and text bear no mirror. Outside training, and on a plain call, the layer returns its input unchanged, so it can
    stay in an exported model. An image is resampled once, bilinearly, whatever is drawn for it; what is moved in from
    beyond an edge is the image mirrored at that edge. Flips alone resample nothing and keep every pixel exactly.

    A saved model that holds the layer is read after `from augment import RandomAffine`.

    Args:
        flip: "horizontal" exchanges left and right, "vertical" top and bottom, "both" does each on its own; each with
            probability 1/2. None mirrors nothing.
        shift: Largest shift along either side, as a share of that side, in [0, 1); fractions of a pixel are drawn, too.
        seed: Whole number of at least 0; 0 is a seed like any other.

    Call arguments:
        images: Pixels 0..255, integers or floats, whose dtype is kept: integers come out rounded.
        training: Whether to change the images.
        keys: Integers (batch, 2), epoch and picture, that decide each picture's draw; a running counter where absent.

    Input shape: (batch, height, width, channels).
    Output shape: the same.

    Raises:
        ValueError: If `flip` is unknown, `shift` lies outside [0, 1), or `seed` is negative or no whole number.
    """

    def __init__(self, flip=None, shift=0.0, seed=0, **kwargs):
        # places must stay float32 whatever the precision: bfloat16 cannot count to 257
        super().__init__(autocast=False, **kwargs)
        if flip not in FLIPS:
            raise ValueError(f'`flip` must be None, "horizontal", "vertical" or "both". Received: flip={flip!r}')
        if not 0 <= shift < 1:
            raise ValueError(f"`shift` must lie in [0, 1). Received: shift={shift}")
        self.flip = flip
        self.shift = shift
        self.seed = seed
        self.draws = Draws(seed, operation="affine")
        self.input_spec = keras.layers.InputSpec(ndim=4)
        # TensorFlow's resampling cannot be compiled by XLA, and fit must not try
        self.supports_jit = not shift or keras.backend.backend() != "tensorflow"

    def call(self, images, training=False, keys=None):
        if not training:
            return images
        if not self.shift:
            for axis in FLIPS[self.flip]:
                images = ops.where(self._mirror(images, keys, axis), ops.flip(images, axis), images)
            return images
        return _resampled(
            images,
            scale_x=ops.where(self._mirror(images, keys, axis=2), -1.0, 1.0),
            scale_y=ops.where(self._mirror(images, keys, axis=1), -1.0, 1.0),
            shift_x=self.draws.uniform(images, keys, -self.shift, self.shift, number=SHIFT_X),
            shift_y=self.draws.uniform(images, keys, -self.shift, self.shift, number=SHIFT_Y),
        )

    def _mirror(self, images, keys, axis):
        """Which images are mirrored along an axis, (batch, 1, 1, 1)."""
        return self.draws.chance(images, keys, 0.5 if axis in FLIPS[self.flip] else 0.0, number=axis)

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, images, training=False, keys=None):
        return keras.KerasTensor(images.shape, images.dtype)  # Keras would give the layer's dtype

    def get_config(self):
        return {**super().get_config(), "flip": self.flip, "shift": self.shift, "seed": self.seed}


def _resampled(images, *, scale_x, scale_y, shift_x, shift_y):
    """Scaled about the centre, then shifted by a share of the side; each change is (batch, 1, 1, 1)."""
    height, width = (ops.cast(side, "float32") for side in ops.shape(images)[1:3])
    dtype = keras.backend.standardize_dtype(images.dtype)
    moved = ops.image.affine_transform(
        ops.cast(images, "float32"),  # at uint8, TensorFlow would cut fractions off instead of rounding
        _matrix(scale_x, scale_y, shift_x * width, shift_y * height, (width - 1) / 2, (height - 1) / 2),
        interpolation="bilinear",
        fill_mode="reflect",
        data_format="channels_last",
    )
    # a mean of pixels is no darker and no brighter than they are: rounded, it needs no clipping
    return ops.cast(ops.round(moved) if "int" in dtype else moved, dtype)


def _matrix(scale_x, scale_y, shift_x, shift_y, centre_x, centre_y):
    """The eight numbers (batch, 8) that lead from a place in the output to its place in the input.

    Rows a0 a1 a2 and b0 b1 b2 of x' = a0 x + a1 y + a2 and y' = b0 x + b1 y + b2, then two zeros of a perspective.
    """
    none = ops.zeros_like(scale_x)
    a0, b1 = 1 / scale_x, 1 / scale_y
    a2 = centre_x - a0 * (centre_x + shift_x)
    b2 = centre_y - b1 * (centre_y + shift_y)
    return ops.reshape(ops.concatenate([a0, none, a2, none, b1, b2, none, none], axis=1), (-1, 8))
