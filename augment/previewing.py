"""A look at what a policy makes of pictures, before anything is trained on them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from augment.augmentation import Augmentation
from augment.policies import Policy

DRAWS = 8


def preview(policy: keras.layers.Layer, images, numbers: Sequence[int] | None = None) -> Figure:
    """A row a picture: the original on the left, then what each of the first eight epochs would see.

    Args:
        policy: A layer of this package, such as `augment.policy("medium")`.
        images: Pixels 0..255, (n, height, width, channels), integers or floats; or a list of pictures, whose sizes may
            differ.
        numbers: What stands for each picture in `keys`, by default 0 to n - 1: with a picture's row in training, the
            draws are those of the training.

    Returns:
        A matplotlib figure; `figure.savefig("preview.png")` writes it.

    Raises:
        TypeError: If `policy` is none.
        ValueError: If there is no picture, one has another rank or range, or `numbers` are not as many.

    Example:
        augment.preview(augment.policy("medium"), data.train.pixels()[:6])
    """
    if not isinstance(policy, (Augmentation, Policy)):
        raise TypeError(f"`policy` must be a layer of this package, as augment.policy gives. Received: {policy!r}")
    pictures = [np.asarray(image) for image in images] if hasattr(images, "__len__") else []
    numbers = list(range(len(pictures)) if numbers is None else numbers)
    if not pictures or any(picture.ndim != 3 for picture in pictures):
        raise ValueError(
            "`images` must hold at least one picture (height, width, channels). "
            f"Received: {[picture.shape for picture in pictures]}"
        )
    for picture in pictures:
        if picture.dtype.kind == "f" and 0 < picture.max() <= 1 and (picture % 1).any():
            raise ValueError(
                f"`images` must hold pixels 0..255. Received: values up to {picture.max():.3g}; multiply them by 255"
            )
    if len(numbers) != len(pictures):
        raise ValueError(
            f"`numbers` must be one a picture. Received: {len(numbers)} numbers for {len(pictures)} pictures"
        )
    figure = Figure(figsize=(1.3 * (DRAWS + 1), 1.35 * len(pictures) + 0.2), layout="constrained")
    axes = figure.subplots(len(pictures), DRAWS + 1, squeeze=False)
    for row, picture, number in zip(axes, pictures, numbers, strict=True):
        keys = np.array([[epoch, number] for epoch in range(DRAWS)])
        changed = policy(np.repeat(picture[np.newaxis], DRAWS, axis=0), training=True, keys=keys)
        changed: Any = keras.ops.convert_to_numpy(changed)
        for axis, shown in zip(row, [picture, *changed], strict=True):
            _show(axis, shown)
    for axis, title in zip(axes[0], ["original", *(f"epoch {epoch + 1}" for epoch in range(DRAWS))], strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def _show(axis, picture):
    axis.axis("off")
    shown = np.clip(np.round(picture.astype("float32")), 0, 255).astype("uint8")
    channels = {1: 0, 2: 0, 4: slice(4)}.get(shown.shape[-1], slice(3))
    axis.imshow(shown[..., channels], cmap="grey", vmin=0, vmax=255)
