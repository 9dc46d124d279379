"""Batches as a tf.data pipeline: read, augmented and mixed while the network computes."""

import itertools
import weakref
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.data.batches import Batches
from zoo.data.order import Plan


def endless(plan: Plan, batches: Batches) -> tf.data.Dataset:
    """All epochs, one after another."""
    places = tf.data.Dataset.counter().map(lambda index: (plan.first + index // plan.steps, index % plan.steps))
    return _batches(places, batches)


def epochs(plan: Plan, batches: Batches) -> tf.data.Dataset:
    """One epoch each time it is gone through, of the number of times that it was."""
    begun = itertools.count(plan.first)

    def places(_):
        epoch = tf.numpy_function(lambda: np.int64(next(begun)), [], tf.int64)
        return tf.data.Dataset.range(plan.steps).map(lambda step: (epoch, step))

    one = tf.data.Dataset.from_tensors(0).flat_map(places)
    return _batches(one, batches).apply(tf.data.experimental.assert_cardinality(plan.steps))


def _batches(places: tf.data.Dataset, batches: Batches) -> tf.data.Dataset:
    """What stands at each (epoch, step), changed as it comes."""
    empty = batches.empty
    there: Any = weakref.ref(batches)  # TensorFlow never lets go of a function, and this one would hold all pictures

    def read(epoch, step):
        dtypes = [tf.as_dtype(array.dtype) for array in empty]
        arrays = tf.numpy_function(lambda *place: there().arrays(*place), [epoch, step], dtypes)
        return tuple(tf.ensure_shape(array, (None, *like.shape[1:])) for array, like in zip(arrays, empty, strict=True))

    served: Any = places.map(read)
    served.held = batches  # by the dataset, and by all that are made from it
    # what a layer draws is a function of the keys, so that batches may be changed at the same time
    return served.map(batches.changed, num_parallel_calls=tf.data.AUTOTUNE if batches.augments else None).prefetch(2)
