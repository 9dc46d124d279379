"""Image-changing layers and named policies, for any Keras model in a plain `model.fit`, on every backend.

Pixels 0..255 in and out; the layers stay off outside training. Importing this costs next to nothing: each name is
fetched, and each layer known to `keras.models.load_model`, on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augment.affine import RandomAffine
    from augment.blur import RandomBlur
    from augment.colour import ColorJitter
    from augment.crop import RandomCrop
    from augment.erase import RandomErase
    from augment.linting import lint
    from augment.mixing import CutMix, MixUp
    from augment.noise import RandomNoise
    from augment.policies import Policy
    from augment.previewing import preview
    from augment.soft_labels import SoftLabels
    from augment.trivial import TrivialAugment

_HOME = {
    "RandomAffine": "affine",
    "RandomBlur": "blur",
    "ColorJitter": "colour",
    "RandomCrop": "crop",
    "RandomErase": "erase",
    "lint": "linting",
    "CutMix": "mixing",
    "MixUp": "mixing",
    "RandomNoise": "noise",
    "Policy": "policies",
    "preview": "previewing",
    "SoftLabels": "soft_labels",
    "TrivialAugment": "trivial",
}
POLICIES = ("none", "light", "medium", "heavy", "trivial")

__all__ = [
    "POLICIES",
    "ColorJitter",
    "CutMix",
    "MixUp",
    "Policy",
    "RandomAffine",
    "RandomBlur",
    "RandomCrop",
    "RandomErase",
    "RandomNoise",
    "SoftLabels",
    "TrivialAugment",
    "lint",
    "policy",
    "preview",
]


def policy(name, image_size=None, seed=0):
    """The augmentation called `name`, as a layer; `print` shows what is in it.

    "none" changes nothing. "light" mirrors left and right and shifts. "medium" also turns, zooms and slants a little,
    and changes brightness, contrast and colours as daylight does. "heavy" does more of the same, and blurs, greys and
    erases parts of some pictures; for long trainings, since in a short one from scratch it costs accuracy. "trivial" is
    TrivialAugment-Wide (Mueller and Hutter 2021, https://arxiv.org/abs/2103.10158): one random change of any strength.

    Args:
        name: One of `POLICIES`.
        image_size: Side, or (height, width), of the pictures, in pixels: smaller pictures are blurred less.
        seed: Decides every draw; 0 is a seed like any other.

    Returns:
        A `Policy`, to be called with `(images, training=True, keys=keys)`; keys are explained there.

    Raises:
        ValueError: If there is no such policy, or a size or seed is none.

    Example:

    >>> print(policy("light", seed=3))
    policy light
      RandomAffine    flip           horizontal
                      shift          0.1
                      fill           reflect
                      interpolation  bilinear
                      seed           3
    """
    if name not in POLICIES:
        raise ValueError(f"No augmentation policy is called {name!r}. There are: {', '.join(POLICIES)}.")
    from augment.policies import named

    return named(name, image_size, seed)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'augment' has no attribute {name!r}")
    return getattr(importlib.import_module(f"augment.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
