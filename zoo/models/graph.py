"""The graph of a functional model."""

import keras


def calls_of(model: keras.Model) -> list:
    """Every call of a layer or operation in a functional model, inputs first, each behind all that it takes.

    The one place that knows how: Keras has no public walk through a graph.
    """
    by_depth = model._nodes_by_depth  # pyright: ignore[reportAttributeAccessIssue]
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
