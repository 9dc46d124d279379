"""Named sets of augmentations, and the layer that they are."""

import inspect
from typing import Any

import keras

from augment.affine import RandomAffine
from augment.augmentation import Augmentation, as_before, plain
from augment.blur import RandomBlur
from augment.colour import ColorJitter
from augment.crop import RandomCrop
from augment.erase import RandomErase
from augment.mixing import CutMix, MixUp
from augment.noise import RandomNoise
from augment.trivial import TrivialAugment

ops: Any = keras.ops  # what it returns is declared as None in places

# every layer, so that a saved model that holds any of them can be read once this module is there
KNOWN = (RandomAffine, RandomBlur, RandomCrop, ColorJitter, RandomErase, RandomNoise, TrivialAugment, MixUp, CutMix)
COMMON_SIDE = 224  # pixels, for which blurs are given; smaller pictures are blurred less
# fmt: off
LAYERS = {
    "none": lambda side, seed: [],
    "light": lambda side, seed: [
        RandomAffine(flip="horizontal", shift=0.1, seed=seed, name="affine"),
    ],
    "medium": lambda side, seed: [
        RandomAffine(flip="horizontal", rotation=10, zoom=0.15, shear=0.1, shift=0.1, seed=seed, name="affine"),
        ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.01, seed=seed, name="colour"),
    ],
    "heavy": lambda side, seed: [
        RandomAffine(flip="horizontal", rotation=20, zoom=(0.8, 1.5), shear=0.2, shift=0.15, seed=seed, name="affine"),
        ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.03, greyscale=0.1, seed=seed, name="colour"),
        RandomBlur(sigma=(0.1, max(0.2, 2.0 * side / COMMON_SIDE)), probability=0.1, seed=seed, name="blur"),
        RandomErase(probability=0.25, area=(0.02, 0.2), seed=seed, name="erase"),
    ],
    "trivial": lambda side, seed: [
        TrivialAugment(seed=seed, name="trivial"),
    ],
}
# fmt: on


def named(name, image_size, seed):
    """What `augment.policy` gives for a name that is known."""
    side = min(_sides(image_size)) if image_size is not None else COMMON_SIDE
    return Policy(LAYERS[name](side, seed), name=name)


def _sides(image_size) -> tuple:
    """(height, width) of an image size.

    Raises:
        ValueError: If it is neither a positive whole number nor two of them.
    """
    sides = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    sides = tuple(map(plain, sides))
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    if len(sides) != 2 or len(whole) != 2:
        raise ValueError(f"`image_size` must be a positive whole number or (height, width). Received: {image_size!r}")
    return sides


@keras.saving.register_keras_serializable(package="augment")
class Policy(keras.layers.Layer):
    """Several augmentation layers one after another, as one layer.

    The pictures are float32 from the first layer to the last and are rounded once. `print(policy)` shows what is in it.
    Two layers of one kind need seeds of their own, or they draw alike. A saved model that holds layers of this package
    is read after `from augment import Policy`, which makes all of them known to Keras.

    Args:
        layers: Layers of this package that change pictures, in order; an empty list changes nothing.

    Call arguments:
        images: Pixels 0..255, integers or floats, whose dtype is kept.
        training: Whether to change the images.
        keys: Integers (batch, 2), epoch and picture, that decide each picture's draw; a running counter where absent.

    Input shape: (batch, height, width, channels).
    Output shape: the same, unless a `RandomCrop` is among the layers.

    Raises:
        TypeError: If something else is among the layers.
    """

    def __init__(self, layers, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not isinstance(layers, (list, tuple)):
            raise TypeError(f"`layers` must be a list of augmentation layers. Received: {layers!r}")
        for layer in layers:
            if not isinstance(layer, (Augmentation, Policy)):
                raise TypeError(
                    "`layers` must be augmentation layers that change pictures, such as augment.RandomAffine. "
                    f"Received: {layer!r}"
                )
        self.layers = list(layers)
        self.supports_jit = all(layer.supports_jit for layer in self.layers)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        for layer in self.layers:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, images, training=False, keys=None):
        if not training or not self.layers:
            for layer in self.layers:
                images = layer(images, training=False)
            return images
        changed = ops.cast(images, "float32")
        for layer in self.layers:
            changed = layer(changed, training=True, keys=keys)
        return as_before(changed, images.dtype)

    def compute_output_shape(self, input_shape):
        for layer in self.layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def compute_output_spec(self, images, training=False, keys=None):
        return keras.KerasTensor(self.compute_output_shape(images.shape), images.dtype)

    def get_config(self):
        layers: list[Any] = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        for layer in layers:
            layer.pop("build_config", None)  # the shape that came first is no part of what a policy is
        return {**super().get_config(), "layers": layers}

    @classmethod
    def from_config(cls, config):
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        return cls(**{**config, "layers": layers})

    def __str__(self):
        rows = [(type(layer).__name__, name, value) for layer in self.layers for name, value in settings(layer)]
        lines = [f"policy {self.name}" + ("" if rows else ": nothing is changed")]
        last = None
        for layer, name, value in rows:
            lines.append(f"  {'' if layer == last else layer:<14}  {name:<13}  {value}")
            last = layer
        return "\n".join(lines)


def settings(layer):
    """The arguments of a layer that are not zero or absent, as (name, text)."""
    for name in inspect.signature(type(layer).__init__).parameters:
        value = getattr(layer, name, None)
        if name in ("self", "kwargs", "layers") or (value in (None, 0, 0.0) and name != "seed"):
            continue
        pair = isinstance(value, tuple)
        yield name, f"{value[0]:.4g} to {value[1]:.4g}" if pair else str(value)
