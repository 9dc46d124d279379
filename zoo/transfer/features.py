"""The outputs of a frozen trunk for every picture of a split: computed once, kept on disk, served like the pictures."""

import os
from collections.abc import Callable, Iterable
from functools import partial

import keras
import numpy as np

from zoo.data.batches import Epochs, Stream
from zoo.data.order import Plan, balanced_order, order
from zoo.transfer.passing import Pass
from zoo.transfer.store import Store


class Features:
    """What a trunk gave for each picture of a split, row by row, in one or several augmented views.

    Attributes:
        labels: Class index of each picture, int64 (n,).
        class_names: Labels in the order of the network's outputs.
        views: Augmented versions of each picture; 0 where the pictures are as they are.
        row_bytes: Bytes of one picture's features.
        repaired: A sentence for each damaged file that was found and computed again.
    """

    def __init__(self, way: Pass, views: int = 0, kept: Iterable[int] | None = None):
        """Computes what is missing.

        Args:
            way: The pass that they come from.
            views: Augmented versions among which the epochs take turns, 0 without a policy.
            kept: Those that are needed, by default all.

        Raises:
            OSError: If the features have no room, or cannot be written.
        """
        self.kept = list(range(views or 1) if kept is None else kept)
        self.repaired = way.fill(self.kept)
        self.labels = np.asarray(way.pictures.labels)
        self.class_names = list(way.pictures.class_names)
        self.views = views
        self.row_bytes = way.row_bytes
        self._entry = way.entry

    def __len__(self):
        return len(self.labels)

    def read(self, rows: Iterable[int], view: int = 0) -> list[np.ndarray]:
        """The features of some rows: for each tensor that crosses the cut one array (m, ...).

        Raises:
            ValueError: If there is no such view.
        """
        if view not in self.kept:
            raise ValueError(f"These features have the views {self.kept}. Received: view={view}")
        return self._entry.read(view, np.asarray(rows, np.int64))

    def dataset(self, batch_size: int = 32, training: bool = False, seed: int = 0) -> keras.utils.PyDataset:
        """Batches of features and labels for the tail's `fit`, `evaluate` or `predict`, on every backend.

        Args:
            batch_size: Rows a batch; the last one may be smaller.
            training: Shuffled, anew each time the dataset is gone through: the order is a function of the seed and of
                how often that was, and so is the view. Otherwise row by row.
            seed: Decides the order and nothing else.
        """
        return Epochs(*self._served(batch_size, partial(order, len(self), seed) if training else None))

    def stream(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        step: int = 0,
        one_hot: bool = False,
        balanced: bool = False,
    ) -> keras.utils.PyDataset:
        """Epoch after epoch without end, from the one given: what `fit` gets with `steps_per_epoch`.

        Epoch e has the order that the pictures themselves would have, and view e modulo `views`. Labels are int64
        (n,), or with `one_hot` float32 (n, classes). What stands for the first `step` batches is not meant to be used.
        With `balanced` every class is drawn equally often.
        """
        drawn = partial(balanced_order, self.labels, seed) if balanced else partial(order, len(self), seed)
        return Stream(*self._served(batch_size, drawn, epoch, step, one_hot))

    def in_order(self, batch_size: int, *, one_hot: bool = False) -> keras.utils.PyDataset:
        """Row by row, the same each time."""
        return Epochs(*self._served(batch_size, None, one_hot=one_hot))

    def _served(
        self, batch_size: int, drawn: Callable[[int], np.ndarray] | None, epoch: int = 0, step: int = 0, one_hot=False
    ) -> tuple[Plan, Callable[[int, int], tuple]]:
        """Which rows stand where, and what `fit` gets for an epoch and a step."""
        plan = Plan(len(self), batch_size, drawn, epoch=epoch, skipped=step)
        targets = np.eye(len(self.class_names), dtype=np.float32)[self.labels] if one_hot else self.labels

        def batch(epoch, step):
            rows = plan.rows(epoch, step)
            arrays = self.read(rows, epoch % self.views if drawn and self.views else 0)
            return (arrays[0] if len(arrays) == 1 else tuple(arrays)), targets[rows]

        return plan, batch


def cache_features(
    trunk: keras.Model,
    split,
    *,
    policy=None,
    views: int = 0,
    directory: str | os.PathLike | None = None,
    limit: int | None = None,
) -> Features:
    """Runs a trunk over a split once and keeps what it gives, so that training what stands behind costs little.

    Features that are there already, made by the same weights from the same pictures, are used as they are; a pass that
    was cut short goes on where it stopped. The trunk computes in its own precision, in inference mode.

    Args:
        trunk: From `split_frozen`; any model of one picture whose weights stay as they are.
        split: One of `data.train`, `data.dev` and `data.test` with an image size; or a pair of arrays, pictures
            (n, height, width, channels) with pixels 0..255 as the trunk takes them, and class indices (n,).
        policy: Keras layer that augments, such as `augment.policy("light")`, called with `keys` (view, picture).
        views: Augmented versions of each picture to keep, at least 1 with a policy; epoch e trains on view e % views.
        directory: Where to keep them; by default `menagerie/features` in the user's cache folder.
        limit: Bytes that the folder may hold; what was not used for longest goes first. By default the environment's
            MENAGERIE_CACHE_GB, or 10 GB.

    Raises:
        ValueError: If the policy cannot be repeated, `views` does not fit it, or trunk and pictures do not fit.
        OSError: If the folder cannot be written, or the features have no room.

    Example:
        trunk, tail = zoo.split_frozen(model)
        train, dev = (zoo.cache_features(trunk, split) for split in (data.train, data.dev))
        tail.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        tail.fit(train.dataset(training=True), validation_data=dev.dataset(), epochs=20)
    """
    views = _checked_views(policy, views)
    return Features(Pass(trunk, split, Store(directory, limit), policy=policy), views)


def _checked_views(policy, views):
    if isinstance(views, bool) or not isinstance(views, (int, np.integer)) or views < 0:
        raise ValueError(f"`views` must be a whole number of at least 0. Received: views={views!r}")
    if policy is not None and views < 1:
        raise ValueError(
            f"`views` must be at least 1 with a policy: how many versions to keep. Received: views={views}"
        )
    if policy is None and views:
        raise ValueError(f"Without a policy every view is the same; leave `views` out. Received: views={views}")
    return int(views)
