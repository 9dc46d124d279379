"""Mixing each training picture with another of its batch, labels alike."""

from typing import Any

import keras
import numpy as np

from augment.augmentation import as_before, checked_share, plain
from augment.draws import Draws

ops: Any = keras.ops  # what it returns is declared as None in places

CELLS = 4096  # of the table of quantiles: what is drawn strays from the distribution by 1/8192 at most


class Mixing(keras.layers.Layer):
    """Base of the two: pictures and labels at the door, shares from a beta distribution, off unless training.

    It is no `Augmentation`, since it takes and gives a pair. A subclass names its `operation` and says in `mixed` what
    happens.
    """

    operation = ""

    def __init__(self, alpha, probability, seed, **kwargs):
        super().__init__(autocast=False, **kwargs)
        alpha = plain(alpha)
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha <= 100:
            raise ValueError(f"`alpha` must lie in (0, 100]. Received: alpha={alpha!r}")
        self.alpha = alpha
        self.probability = checked_share(probability, "probability")
        self.seed = plain(seed)
        self.draws = Draws(self.seed, operation=self.operation)
        self._quantiles = _beta_quantiles(alpha)

    def mixed(self, images, labels, keys):
        """The mixed pictures at the dtype that came in, and the share of its own that each keeps, (batch, 1, 1, 1)."""
        raise NotImplementedError

    def call(self, images, labels=None, training=False, keys=None):
        images, labels = self._checked(images, labels)
        if not training:
            return images, labels
        images, share = self.mixed(images, labels, keys)
        targets = _blend(ops.cast(labels, "float32"), ops.reshape(share, (-1, 1)))
        return images, ops.cast(targets, labels.dtype)

    def compute_output_spec(self, images, labels=None, training=False, keys=None):
        images, labels = self._checked(images, labels)
        return keras.KerasTensor(images.shape, images.dtype), keras.KerasTensor(labels.shape, labels.dtype)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha, "probability": self.probability, "seed": self.seed}

    def _beta(self, uniform):
        """Draws from Beta(alpha, alpha), symmetric about 1/2, from draws in [0, 1)."""
        place = ops.clip(uniform * CELLS - 0.5, 0.0, CELLS - 1.0)
        below = ops.minimum(ops.floor(place), CELLS - 2.0)
        row = ops.cast(below, "int32")
        table = ops.convert_to_tensor(self._quantiles)
        low, high = ops.take(table, row), ops.take(table, row + 1)
        return low + (high - low) * (place - below)

    def _checked(self, images: Any, labels: Any) -> tuple[Any, Any]:
        """Images and labels that fit each other, also where they came as a pair."""
        name = type(self).__name__
        if labels is None and isinstance(images, (tuple, list)) and len(images) != 2:
            raise ValueError(
                f"{name} mixes pairs of images and labels. Received: {len(images)} elements; weigh pictures behind it, "
                "as augment.SoftLabels(...).weighed does."
            )
        pair = labels is None and isinstance(images, (tuple, list)) and len(images) == 2
        images, labels = images if pair else (images, labels)
        if labels is None or not hasattr(images, "shape") or len(images.shape) != 4:
            raise ValueError(
                f"{name} needs images (n, height, width, channels) and labels: mix(images, labels, training=True). "
                f"Received: images {tuple(getattr(images, 'shape', ()))} and "
                f"{'no labels' if labels is None else 'labels'}."
            )
        dtype = keras.backend.standardize_dtype(labels.dtype)
        if len(labels.shape) != 2 or "float" not in dtype:
            raise ValueError(
                f"{name} needs labels as floats (n, classes), a row of shares a picture. Received: {dtype} "
                f"{tuple(labels.shape)}. augment.SoftLabels(classes) makes them from class indices."
            )
        if None not in (images.shape[0], labels.shape[0]) and images.shape[0] != labels.shape[0]:
            raise ValueError(
                f"{name} needs a row of labels for each picture. Received: {images.shape[0]} images and "
                f"{labels.shape[0]} rows of labels; both must be of one batch."
            )
        return images, labels


@keras.saving.register_keras_serializable(package="augment")
class MixUp(Mixing):
    """Blends each training picture with another of its batch, and their labels in the same shares.

    Use it where a network learns its training pictures by heart: mixed pictures never come twice. It needs labels as
    shares of the classes and a loss that takes them, and longer training; `augment.SoftLabels` gives both, with a
    complete example. Mix behind everything that changes single pictures.

    mixup, Zhang et al. 2018, https://arxiv.org/abs/1710.09412: lambda * picture + (1 - lambda) * partner, with lambda
    from Beta(alpha, alpha). Departures: each picture draws its own lambda, not one for the batch; the partner is the
    next picture of the batch, that of the last being the first, which in a shuffled batch is as random as the paper's
    permutation. lambda may be small, as in the paper: then the partner prevails. Unlike with all other layers, the
    result depends on which pictures share the batch, and in which order; lambda alone is decided by the keys. A batch
    of one picture stays as it is. Outside training, and on a plain call, images and labels are returned unchanged.

    Args:
        alpha: Of the beta distribution, in (0, 100]: 0.2 leaves most pictures nearly alone, 1 draws all shares equally
            often, more makes halves of both likelier.
        probability: Of a picture being mixed at all, in [0, 1].
        seed: Whole number of at least 0; 0 is a seed like any other.

    Call arguments:
        images: (batch, height, width, channels), integers or floats, whose dtype is kept: integers come out rounded.
            Or the pair (images, labels).
        labels: Floats (batch, classes), the share of each class, whose dtype is kept.
        training: Whether to mix.
        keys: Integers (batch, 2), epoch and picture, that decide each picture's draw; a running counter where absent.

    Output shape: the pair of images and labels, each as it came.

    Raises:
        ValueError: If an argument is out of range; in a call, if labels are no floats (batch, classes) or are not as
            many as the images.

    Example:

    >>> import numpy as np
    >>> images, labels = MixUp()(np.zeros((4, 8, 8, 3), "uint8"), np.eye(4, dtype="float32"), training=True)
    >>> tuple(labels.shape)
    (4, 4)
    """

    operation = "mixup"

    def __init__(self, alpha=0.2, probability=1.0, seed=0, **kwargs):
        super().__init__(alpha, probability, seed, **kwargs)

    def mixed(self, images, labels, keys):
        # in this order, which is part of the result: lambda, whether to mix
        share, chance = self.draws.uniforms(images, keys, [(0.0, 1.0), (0.0, 1.0)])
        share = ops.where(chance < self.probability, self._beta(share), 1.0)
        return as_before(_blend(ops.cast(images, "float32"), share), images.dtype), share


@keras.saving.register_keras_serializable(package="augment")
class CutMix(Mixing):
    """Covers a box of each training picture with what another of its batch shows there; labels by area.

    Use it as `MixUp`, or where the thing should be known by any of its parts: unlike blended pictures, cut ones look
    natural in each place.

    CutMix, Yun et al. 2019, https://arxiv.org/abs/1905.04899: the box has the share 1 - lambda of the picture's area
    and the picture's proportions, with lambda from Beta(alpha, alpha); its centre lies anywhere in the picture, and
    what reaches over an edge is cut off. Edges are rounded to whole pixels, so each pixel is kept exactly. A label is
    mixed by the share of pixels that really stayed, as in the authors' code. Departures: each picture draws its own
    box; partners as in `MixUp`, and all that is said there of batches holds here, too.

    Args:
        alpha: Of the beta distribution, in (0, 100]; 1 draws all areas equally often.
        probability: Of a picture being mixed at all, in [0, 1].
        seed: Whole number of at least 0; 0 is a seed like any other.

    Call arguments, output shape, errors: as those of `MixUp`.

    Example:

    >>> import numpy as np
    >>> pair = np.zeros((4, 8, 8, 3), "uint8"), np.eye(4, dtype="float32")
    >>> images, labels = CutMix(probability=0.5)(pair, training=True)
    >>> tuple(images.shape)
    (4, 8, 8, 3)
    """

    operation = "cutmix"

    def __init__(self, alpha=1.0, probability=1.0, seed=0, **kwargs):
        super().__init__(alpha, probability, seed, **kwargs)

    def mixed(self, images, labels, keys):
        # in this order, which is part of the result: lambda, centre from the top, centre from the left, whether to mix
        share, centre_y, centre_x, chance = self.draws.uniforms(images, keys, [(0.0, 1.0)] * 4)
        share = ops.where(chance < self.probability, self._beta(share), 1.0)
        side = ops.sqrt(1.0 - share)
        count, height, width, channels = ops.shape(images)
        rows, tall = _span(centre_y, side, height)
        columns, wide = _span(centre_x, side, width)
        # columns and channels as one axis: on two CPU cores a quarter of the time
        columns = ops.repeat(ops.reshape(columns, (-1, 1, width)), channels, axis=2)
        inside = ops.logical_and(ops.reshape(rows, (-1, height, 1)), columns)
        flat = (count, height, width * channels)
        cut = ops.where(inside, ops.reshape(_partners(images), flat), ops.reshape(images, flat))
        kept = 1.0 - tall * wide / ops.cast(height * width, "float32")
        return ops.reshape(cut, (count, height, width, channels)), kept


def _beta_quantiles(alpha):
    """Quantiles of Beta(alpha, alpha) in the middle of `CELLS` equal parts of probability, float32 (CELLS,)."""
    from scipy.special import betaincinv

    lower = betaincinv(alpha, alpha, (np.arange(CELLS // 2) + 0.5) / CELLS)
    return np.concatenate([lower, 1 - lower[::-1]]).astype(np.float32)  # symmetric to the last bit


def _partners(tensor):
    """The next of the batch for each; the first for the last."""
    return ops.roll(tensor, -1, axis=0)


def _blend(tensor, share):
    """share * tensor + (1 - share) * partner, in float32; where share is 1 the tensor exactly."""
    return tensor + (1.0 - share) * (_partners(tensor) - tensor)


def _span(centre, share, side):
    """Which of `side` pixels lie in a stretch about a centre, booleans (batch, side), and how many do.

    `centre` and `share` of the side are (batch, 1, 1, 1), as is the number of pixels, a float32.
    """
    length = ops.cast(side, "float32")
    low = ops.clip(ops.floor((centre - share / 2) * length + 0.5), 0.0, length)
    high = ops.clip(ops.floor((centre + share / 2) * length + 0.5), 0.0, length)
    places = ops.cast(ops.arange(side), "float32")[np.newaxis]
    low_edge, high_edge = ops.reshape(low, (-1, 1)), ops.reshape(high, (-1, 1))
    return ops.logical_and(places >= low_edge, places < high_edge), high - low
