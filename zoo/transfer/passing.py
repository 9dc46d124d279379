"""One way of a frozen trunk over a split: read, augmented, computed, written, in chunks that can be taken up again."""

import json
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from zoo.data.order import parts, steps
from zoo.data.pictures import Geometry
from zoo.progress import track
from zoo.transfer.cutting import functional
from zoo.transfer.fingerprint import described, digest, fingerprint, keys_of
from zoo.transfer.fusing import Fused
from zoo.transfer.store import Record, Store

CHUNK = 64  # pictures that are read, checked and noted together
BATCHES = (32, 64)  # pictures a step; a longer pass tries both and goes on with the quicker
LONG = 60.0  # seconds that a pass has to take before trying another batch size pays


class Pass:
    """A trunk on its way over a split: timed by its first steps, so that it can be decided whether to go on.

    Args:
        trunk: Model of one picture whose weights stay as they are.
        split: A Split with an image size, or a pair of arrays.
        store: Where the features go.
        policy: Layer that augments, or None.
        like: Another pass of the same trunk, which has looked at its weights already.

    Attributes:
        pictures: The split.
        trunk: What the trunk's outputs depend on, as a digest.
        row_bytes: Bytes of one picture's features.
        entry: The features' place in the store.

    Raises:
        ValueError: If the policy cannot be repeated, or trunk and pictures do not fit.
    """

    def __init__(self, trunk: keras.Model, split, store: Store, *, policy=None, like: "Pass | None" = None):
        trunk = functional(trunk)
        self.pictures: Any = _Given(*split) if isinstance(split, (tuple, list)) else split
        if not len(self.pictures):
            raise ValueError("There are no pictures to compute features of.")
        shape = self.pictures.geometry.shape
        dtype = getattr(self.pictures, "dtype", "uint8")
        description, seen = (None, shape) if policy is None else described(policy, shape, dtype)
        _check_shape(trunk, seen)
        self.policy = policy
        self.trunk = like.trunk if like else fingerprint(trunk)
        facts = {
            "format": 1,  # raised when the same trunk and pictures shall give something else
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "trunk": self.trunk,
            "pictures": self.pictures.fingerprint,
            "policy": description,
        }
        about = {
            "model": trunk.name.removesuffix("_trunk"),
            "split": self.pictures.name,
            "policy": getattr(policy, "name", None),
            "size": list(shape),
            "behind": [tensor._keras_history.operation.name for tensor in trunk.outputs],
        }
        record = Record(_layout(trunk, seen))
        self.row_bytes = record.bytes
        self.entry = store.entry(digest(json.dumps(facts, sort_keys=True)), record, len(self.pictures), about)
        same = like is not None and policy is like.policy
        self._forward = like._forward if like and same else _Forward(trunk, policy, shape, dtype)
        self._seconds = dict.fromkeys(BATCHES, math.inf)  # a picture, in the quickest step of each batch size
        self._tries = dict.fromkeys(BATCHES, 0)  # chunks gone over with each
        self._done: dict[tuple[int, int], list[np.ndarray]] = {}  # what was computed while the time was taken

    def seconds_per_picture(self) -> float:
        """What the trunk costs for one picture, augmented but not read: noted by an earlier pass, or tried now."""
        known = self.entry.seconds_per_row
        if known is not None:
            return known
        self._forward.compile()
        count = len(self.pictures)
        size = min(BATCHES[0], count)
        for start in range(0, min(3 * size, count - size + 1), size):
            rows = np.arange(start, start + size)
            self._done[0, start] = self._timed(self._read(rows), rows, 0, BATCHES[0])
        return min(self._seconds.values())

    def whole(self, views: Sequence[int]) -> bool:
        """Whether the features are there already."""
        return all(map(self.entry.whole, views))

    def fill(self, views: Sequence[int]) -> list[str]:
        """Computes what is missing of some views.

        Returns:
            A sentence for each damaged file that was found and computed again.

        Raises:
            OSError: If the features have no room, or cannot be written.
        """
        if not self.whole(views):
            self._forward.compile()
            with self.entry.writing(views, on_wait=_say_waiting) as writers:
                chunks = sum(steps(len(self.pictures) - writer.rows, CHUNK) for writer in writers.values())
                for _ in track(self._fill(writers), "Computing the frozen part", chunks):
                    pass
            quickest = min(self._seconds.values())
            if math.isfinite(quickest):
                self.entry.set_seconds_per_row(quickest)
            if not self.whole(views):  # opens them, so that they stay readable whoever clears the cache now
                raise OSError(f"The features in {str(self.entry.folder)!r} were removed as soon as they were written.")
        self._done.clear()
        return self.entry.repaired

    def _read(self, rows):
        return self.pictures.pixels()[rows] if self.pictures.is_small else self.pictures.read(rows)

    def _fill(self, writers):
        """Goes over the pictures once, chunk by chunk, and yields after each view of a chunk."""
        count = len(self.pictures)
        begin = min((writer.rows for writer in writers.values()), default=count)
        left = sum(count - writer.rows for writer in writers.values())
        for rows, images in _ahead(self._read, parts(np.arange(begin, count), CHUNK)):
            for view, writer in writers.items():
                there = max(0, writer.rows - int(rows[0]))  # of another view, more may be there already
                if there < len(rows):
                    writer.append(self._chunk(images[there:], rows[there:], view, self._size(left)))
                    left -= len(rows) - there
                    yield
        for writer in writers.values():
            writer.finish()

    def _chunk(self, images, rows, view, size):
        """The features of one chunk of pictures, a step of `size` at a time."""
        self._tries[size] += 1
        found = []
        for at in range(0, len(rows), size):
            known = self._done.pop((view, int(rows[at])), None) if size == BATCHES[0] else None
            found.append(known or self._timed(images[at : at + size], rows[at : at + size], view, size))
        return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]

    def _size(self, left):
        """The batch size to go on with when so many pictures are left."""
        if left * min(self._seconds.values()) < LONG:
            return BATCHES[0]
        untried = [size for size in BATCHES if self._tries[size] < 2]  # the first step of each compiles
        return untried[0] if untried else min(self._seconds, key=self._seconds.__getitem__)

    def _timed(self, images, rows, view, size):
        began = time.perf_counter()
        found = self._forward(images, rows, view, size)
        self._seconds[size] = min(self._seconds[size], (time.perf_counter() - began) / len(rows))
        return found


class _Given:
    """Pictures and labels in memory, as they are."""

    name = "arrays"
    is_small = False  # there is nothing to decode, so nothing to keep

    def __init__(self, images, labels):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.ndim != 4 or labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(
                "A pair of arrays must be pictures (n, height, width, channels) and class indices (n,). "
                f"Received: shapes {images.shape} and {labels.shape}"
            )
        self.images, self.labels = images, labels
        self.dtype = images.dtype.name
        self.geometry = Geometry(images.shape[1:3], images.shape[3])
        self.class_names = [str(label) for label in range(labels.max(initial=0) + 1)]

    def __len__(self):
        return len(self.images)

    def read(self, rows):
        return self.images[rows]

    @property
    def fingerprint(self):
        return digest(str((self.images.shape, self.dtype)), self.images)


class _Forward:
    """A trunk behind a policy, compiled once: pictures, their rows, a view, a batch size -> what crosses the cut."""

    def __init__(self, trunk, policy, shape, dtype):
        self.trunk, self.policy = trunk, policy
        self.shape, self.dtype = shape, dtype
        self.run: Any = None

    def compile(self):
        if self.run is None:
            self.run = Fused(self.trunk, self.policy)
            self(np.zeros((1, *self.shape), self.dtype), np.zeros(1, int), 0, BATCHES[0])

    def __call__(self, images, rows, view, size) -> list[np.ndarray]:
        missing = [(0, size - len(images))]  # every step has one shape, so that one compiled graph serves them all
        padded = np.pad(images, missing + [(0, 0)] * 3, mode="edge")
        keys = np.pad(keys_of(rows, view), missing + [(0, 0)], mode="edge")
        outputs = self.run.predict_on_batch(padded if self.policy is None else (padded, keys))
        return [np.asarray(array)[: len(images)] for array in keras.tree.flatten(outputs)]


def _ahead(function, items):
    """(item, function of it) for each, a thread already at work on the next one."""
    with ThreadPoolExecutor(1) as pool:
        coming = deque()
        for item in items:
            coming.append((item, pool.submit(function, item)))
            if len(coming) > 1:
                ready, result = coming.popleft()
                yield ready, result.result()
        for ready, result in coming:
            yield ready, result.result()


def _layout(trunk, shape):
    """Shape and dtype of each tensor that crosses the cut, for one picture."""
    tensors = trunk.outputs
    if any(None in tensor.shape[1:] for tensor in tensors):
        tensors = keras.tree.flatten(trunk.compute_output_spec(keras.KerasTensor((None, *shape))))
    return tuple((tuple(tensor.shape[1:]), keras.backend.standardize_dtype(tensor.dtype)) for tensor in tensors)


def _check_shape(trunk, given):
    wanted = [tuple(tensor.shape[1:]) for tensor in trunk.inputs]
    sides = zip(wanted[0], given, strict=False)
    if len(wanted) != 1 or len(wanted[0]) != 3 or any(want not in (None, have) for want, have in sides):
        raise ValueError(
            f"The trunk takes {', '.join(map(str, wanted))} (height, width, channels), the pictures are {given}. "
            "Use data.configured(image_size=...)."
        )


def _say_waiting():
    print("Another process is computing these features; waiting for it.")
