"""Image-changing layers and named policies, for any Keras model in a plain `model.fit`, on every backend.

Pixels 0..255 in and out; the layers stay off outside training. Importing this costs next to nothing: each layer is
fetched, and known to `keras.models.load_model`, on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augment.affine import RandomAffine

_HOME = {"RandomAffine": "affine"}
POLICIES = ("none", "light")

__all__ = ["POLICIES", "RandomAffine", "policy"]


def policy(name, image_size=None, seed=0):
    """The augmentation called `name`: a layer, or None for "none", which changes nothing.

    "light" mirrors left and right with probability 1/2 and shifts by up to a tenth of each side.

    Args:
        name: One of `POLICIES`.
        image_size: Side, or (height, width), of the pictures, in pixels.
        seed: Decides every draw; 0 is a seed like any other.

    Returns:
        None, or a layer to be called with `(images, training=True, keys=keys)`; keys are explained there.

    Raises:
        ValueError: If there is no such policy.

    Example:

    >>> policy("light", seed=3).shift
    0.1
    """
    if name not in POLICIES:
        raise ValueError(f"No augmentation policy is called {name!r}. There are: {', '.join(POLICIES)}.")
    if name == "none":
        return None
    from augment.affine import RandomAffine

    return RandomAffine(flip="horizontal", shift=0.1, seed=seed, name="light")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'augment' has no attribute {name!r}")
    return getattr(importlib.import_module(f"augment.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
