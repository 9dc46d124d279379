"""Labels as shares of the classes: what mixed pictures need, with smoothing and class weights that stay exact."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from augment.augmentation import checked_share

ops: Any = keras.ops  # what it returns is declared as None in places


class SoftLabels:
    """Class indices to rows of shares, and the loss, metric and weights that belong to such rows.

    Use it wherever pictures are mixed by `MixUp` or `CutMix`: from the first mapping to `fit`, in a pipeline on
    TensorFlow:

        soft = augment.SoftLabels(3, label_smoothing=0.1, class_weights={2: 5.0})
        mix = augment.MixUp(alpha=0.2)
        train = pictures.shuffle(1000).batch(32)                           # images, class indices
        train = train.map(lambda images, labels: (images, soft(labels)))   # one-hot
        train = train.map(lambda *pair: mix(pair, training=True))          # mixed
        train = train.map(lambda images, labels: (images, *soft.weighed(labels)))
        dev = dev_pictures.batch(32).map(lambda images, labels: (images, soft(labels)))
        model.compile("adam", **soft.compile())
        model.fit(train, validation_data=dev, shuffle=False)

    Class weights do not go to `fit(class_weight=...)`: Keras takes the class with the largest share of a row, and a
    picture that is six tenths cat and four tenths dog would be weighed as all cat. With `weighed` each share is
    weighed by its own class: where w are the weights and y a row of shares, the loss wanted is the sum over classes k
    of y[k] * w[k] * CE(e[k]), e[k] being one-hot. Cross-entropy is linear in its target, so that this sum is s times
    CE(y * w / s) with s the sum of y * w: a sample weight and a row of shares. Label smoothing is linear, too, and
    smooths each e[k] just the same.

    Args:
        classes: How many there are, at least 2.
        label_smoothing: Share of each label that is spread over all classes evenly, in [0, 1); Szegedy et al. 2016,
            https://arxiv.org/abs/1512.00567.
        class_weights: {class index: weight}, classes left out weighing 1; or a weight for each class. None weighs all
            alike.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> import numpy as np
    >>> tuple(SoftLabels(3)(np.array([2, 0])).shape)
    (2, 3)
    """

    def __init__(self, classes, label_smoothing=0.0, class_weights=None):
        if isinstance(classes, bool) or not isinstance(classes, (int, np.integer)) or classes < 2:
            raise ValueError(f"`classes` must be a whole number of at least 2. Received: classes={classes!r}")
        self.classes = int(classes)
        self.label_smoothing = checked_share(label_smoothing, "label_smoothing", below=True)
        self.class_weights = class_weights
        self._weights = _weights(class_weights, self.classes)

    def __call__(self, labels):
        """One-hot rows, float32 (n, classes), for class indices (n,); rows that are floats already pass unchanged.

        An index that is no class is refused where labels are arrays or lists. Values of tensors cannot be seen inside
        a graph: there such a picture gets a row of zeros and adds nothing to the loss.

        Raises:
            ValueError: If labels are neither, or an index is no class.
        """
        if isinstance(labels, (list, tuple, np.ndarray)):
            labels = np.asarray(labels)
            if labels.dtype.kind in "iu" and labels.size and not 0 <= labels.min() <= labels.max() < self.classes:
                raise ValueError(
                    f"Class indices must lie in 0..{self.classes - 1}. Received: {labels.min()} to {labels.max()}; "
                    "`classes` may be too small."
                )
        labels = ops.convert_to_tensor(labels)
        dtype = keras.backend.standardize_dtype(labels.dtype)
        if "int" in dtype and len(labels.shape) == 1:
            return ops.one_hot(labels, self.classes, dtype="float32")
        if "float" in dtype and len(labels.shape) == 2 and labels.shape[1] in (None, self.classes):
            return labels
        raise ValueError(
            f"Labels must be class indices (n,), integers, or shares (n, {self.classes}), floats. "
            f"Received: {dtype} {tuple(labels.shape)}; indices in a column become (n,) by labels[:, 0]."
        )

    def weighed(self, labels):
        """Labels and sample weights, (n, classes) and (n,), that carry the class weights into a loss on mixed rows.

        Args:
            labels: Mixed rows or class indices, as in a call.
        """
        labels = self(labels)
        weighed = labels * ops.cast(self._weights, labels.dtype)
        weights = ops.sum(weighed, axis=1)
        return ops.divide_no_nan(weighed, weights[:, np.newaxis]), weights

    def compile(self, from_logits=False):
        """What `model.compile` needs for such labels: `model.compile("adam", **soft.compile())`.

        Args:
            from_logits: Whether the model ends without a softmax.
        """
        return {
            "loss": keras.losses.CategoricalCrossentropy(from_logits=from_logits, label_smoothing=self.label_smoothing),
            "metrics": [keras.metrics.CategoricalAccuracy(name="accuracy")],
        }


def _weights(given, classes):
    """A weight for each class, float32 (classes,)."""
    if given is None:
        return np.ones(classes, np.float32)
    listed = given if isinstance(given, (list, tuple, np.ndarray)) else ()
    pairs = dict(given) if isinstance(given, Mapping) else dict(enumerate(listed))
    numbers = all(isinstance(x, (int, float, np.number)) and 0 < x < np.inf for x in pairs.values())
    complete = isinstance(given, Mapping) or len(pairs) == classes
    if not numbers or not complete or not set(pairs) <= set(range(classes)):
        raise ValueError(
            f"`class_weights` must map class indices 0..{classes - 1} to positive numbers, or hold one for each class. "
            f"Received: class_weights={given!r}"
        )
    return np.array([pairs.get(index, 1.0) for index in range(classes)], np.float32)
