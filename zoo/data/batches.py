"""Pictures and labels in batches, on every backend: tf.data where Keras runs on TensorFlow, else a PyDataset.

Both serve what a `Plan` says, so that order, labels and keys are the same everywhere.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from zoo.data.order import Plan, balanced_order, checked_seed, order

MOST_WEIGHT = 1e6  # beyond it, float32 loses the pictures of every other class


def in_order(split, batch_size: int, *, one_hot: bool = False, class_weights=None):
    """Row by row, the same each time; arguments as those of `stream` and `shuffled`."""
    plan = Plan(len(split), batch_size)
    return _served(plan, Batches(split, plan, one_hot=one_hot, class_weights=class_weights), endless=False)


def shuffled(split, batch_size: int, *, policy=None, seed: int = 0, class_weights=None, balanced: bool = False):
    """One epoch each time it is gone through, every time in its own order.

    `class_weights` add the weight of each picture to images and labels, as `picture_weights` reads them.
    """
    plan = Plan(len(split), batch_size, _order(split, seed, balanced))
    return _served(plan, Batches(split, plan, policy=policy, class_weights=class_weights), endless=False)


def stream(
    split,
    batch_size: int,
    *,
    policy=None,
    mixing=None,
    seed: int = 0,
    epoch: int = 0,
    step: int = 0,
    one_hot: bool = False,
    balanced: bool = False,
):
    """Epoch after epoch without end, from the one given: what `fit` gets with `steps_per_epoch`.

    `mixing` is called behind the policy, with images, labels and keys, and gives what `fit` gets. What stands for the
    first `step` batches is cheap and not meant to be used.

    Raises:
        ValueError: If there are no pictures, or an argument is out of range.
    """
    if not len(split):
        raise ValueError(f"The split {split.name} has no pictures, so there is nothing to stream.")
    plan = Plan(len(split), batch_size, _order(split, seed, balanced), epoch=epoch, skipped=step)
    return _served(plan, Batches(split, plan, policy=policy, mixing=mixing, one_hot=one_hot), endless=True)


def class_weights(how: str | Mapping[str, float], counts: Mapping[str, int]) -> dict[int, float]:
    """A weight for each class index.

    Args:
        how: "balanced", n / (classes * n of the class), so that each class has the same say; or {name: weight}, where
            classes left out weigh 1.
        counts: Pictures of each class, in the order of the network's outputs.

    Raises:
        ValueError: If `how` is neither, names an unknown class, or a weight is not above 0 or above a million.
    """
    if how == "balanced":
        present = [count for count in counts.values() if count]
        return {i: sum(present) / (len(present) * count) if count else 1.0 for i, count in enumerate(counts.values())}
    if not isinstance(how, Mapping):
        raise ValueError(f'`class_weights` must be "balanced" or {{class name: weight}}. Received: {how!r}')
    if unknown := [name for name in how if name not in counts]:
        raise ValueError(
            f"`class_weights` names classes that the data does not have: {', '.join(map(str, unknown))}. "
            f"It has: {', '.join(counts)}."
        )
    for name, weight in how.items():
        number = isinstance(weight, (int, float, np.number)) and not isinstance(weight, bool)
        if not number or not 0 < weight <= MOST_WEIGHT:
            raise ValueError(
                f"`class_weights` must be numbers above 0, up to {MOST_WEIGHT:.0f}. Received: {weight!r} for {name!r}"
            )
    return {i: float(how.get(name, 1.0)) for i, name in enumerate(counts)}


class Batches:
    """What each batch of a split holds.

    Attributes:
        augments: Whether batches are changed by layers.
        changed: What `arrays` gives, after policy and mixing and without keys; a function of tensors, too.

    Args:
        split: With its image size.
        plan: Which rows.
        policy: A layer that augments, called with keys (epoch, picture).
        mixing: What is called behind it, with images, labels and keys.
        one_hot: Labels as float32 rows (n, classes) rather than int64 (n,).
        class_weights: As `class_weights` takes them; None adds no weights.
    """

    def __init__(self, split, plan: Plan, *, policy=None, mixing=None, one_hot: bool = False, class_weights=None):
        self.augments = policy is not None or mixing is not None
        self.changed = partial(_changed, policy, mixing)
        self._plan = plan
        labels = split.labels
        served = [split.pixels(), np.eye(len(split.class_names), dtype=np.float32)[labels] if one_hot else labels]
        if class_weights is not None:
            weights = split.class_weights(class_weights)
            served.append(np.array([weights[i] for i in range(len(weights))], np.float32)[labels])
        self._served = served

    @property
    def empty(self) -> list[np.ndarray]:
        """A batch without rows: dtypes and shapes."""
        return [*(np.zeros((0, *array.shape[1:]), array.dtype) for array in self._served), np.zeros((0, 2), np.int64)]

    def arrays(self, epoch: int, step: int) -> list[np.ndarray]:
        """Images, labels, weights where they were asked for, and keys, as they lie there."""
        rows = self._plan.rows(int(epoch), int(step))
        keys = np.stack([np.full(len(rows), epoch), rows], 1).astype(np.int64)
        return [*(np.asarray(array[rows]) for array in self._served), keys]

    def batch(self, epoch: int, step: int) -> tuple[Any, ...]:
        """One batch as arrays; layers are called as they are on the backend that runs."""
        found = self.changed(*self.arrays(epoch, step))
        return tuple(part if isinstance(part, np.ndarray) else keras.ops.convert_to_numpy(part) for part in found)


class Stream(keras.utils.PyDataset):
    """Batch i of all epochs; a function of i alone, since Keras starts and drops iterators as it likes.

    Args:
        plan: Which rows stand where.
        batch: Epoch and step to what `fit` gets.
    """

    def __init__(self, plan: Plan, batch: Callable[[int, int], tuple]):
        super().__init__()
        self.plan = plan
        self.batch = batch

    @property
    def num_batches(self) -> int | None:
        """None: there is no end."""
        return None

    def __getitem__(self, index):
        return self.batch(*self.plan.place(index))


class Epochs(Stream):
    """One epoch each time it is gone through."""

    begun = 0

    @property
    def num_batches(self) -> int:
        return self.plan.steps

    def __len__(self):
        return self.plan.steps

    def __getitem__(self, index):
        return self.batch(self.plan.first + max(0, self.begun - 1), index)

    def __iter__(self):
        self.on_epoch_begin()
        return (self[index] for index in range(len(self)))

    def on_epoch_begin(self):  # Keras calls `on_epoch_end` more often than an epoch ends
        self.begun += 1


def _changed(policy, mixing, images, labels, *rest) -> tuple[Any, ...]:
    """Images, labels, perhaps weights, and keys, after policy and mixing and without the keys; arrays or tensors."""
    *weights, keys = rest
    if policy is not None:
        images = policy(images, training=True, keys=keys)
    return (images, labels, *weights) if mixing is None else mixing(images, labels, keys)


def _order(split, seed: int, balanced: bool) -> Callable[[int], np.ndarray]:
    seed = checked_seed(seed)
    return partial(balanced_order, split.labels, seed) if balanced else partial(order, len(split), seed)


def _served(plan: Plan, batches: Batches, *, endless: bool):
    if keras.backend.backend() != "tensorflow":
        return (Stream if endless else Epochs)(plan, batches.batch)

    from zoo.data import pipeline

    return (pipeline.endless if endless else pipeline.epochs)(plan, batches)
