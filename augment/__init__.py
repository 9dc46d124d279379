"""Image-changing layers and named policies. Pixels 0..255 in and out; the layers stay off outside training."""

POLICIES = ("none",)


def policy(name, image_size=None, seed=0):
    """The augmentation called `name`: a layer, or None for "none", which changes nothing.

    Args:
        name: One of `POLICIES`.
        image_size: Side, or (height, width), of the pictures, in pixels.
        seed: Decides every draw; 0 is a seed like any other.

    Raises:
        ValueError: If there is no such policy.
    """
    if name not in POLICIES:
        raise ValueError(f"No augmentation policy is called {name!r}. There is: {', '.join(POLICIES)}.")
    return None
