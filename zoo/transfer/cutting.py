"""A network in two parts: the frozen prefix, whose outputs do not change, and what is trained behind it."""

import math

import keras

from zoo.models.graph import calls_of
from zoo.transfer.freezing import draws

_UNKNOWN_SIDE = 64  # pixels that a side of no fixed length counts as, when the sizes of cuts are compared
_NAMED = 5  # layers in an error message


def split_frozen(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cuts a network behind its frozen layers.

    Both parts are made of the model's own layers: train the tail, and the model has learned. The cut lies behind the
    last frozen layer; what follows without weights and without chance, such as the pooling of a head, goes to the
    trunk where that makes what crosses the cut smaller. Several tensors may cross, as with the branches of an Inception
    module; the tail then takes a tuple of them.

    Args:
        model: Functional or Sequential model, frozen with `zoo.freeze` or by hand. Do not change what is frozen as long
            as the parts are used.

    Returns:
        The trunk, from pictures to what crosses the cut, and the tail, from there to the model's output. Run the trunk
        in inference mode, as `predict` does; the tail wants a `compile` of its own.

    Raises:
        ValueError: If nothing is frozen, everything is, or a frozen layer stands behind one that trains or that draws
            at random in training; the message names the layers.

    Example:
        >>> from zoo.models.registry import create
        >>> from zoo.transfer.freezing import freeze
        >>> model = create("resnet20", classes=10)
        >>> _ = freeze(model, "large")
        >>> trunk, tail = split_frozen(model)
        >>> trunk.output_shape, len(tail.trainable_variables)
        ((None, 64), 2)
    """
    model = functional(model)
    nodes = calls_of(model)
    early = _early(nodes)
    _check(model, nodes, early)
    crossing = _one_or_all(min(_cuts(nodes, early, model.outputs), key=_bytes))
    trunk = keras.Model(_one_or_all(model.inputs), crossing, name=f"{model.name}_trunk")
    tail = keras.Model(crossing, _one_or_all(model.outputs), name=f"{model.name}_tail")
    for part in (trunk, tail):
        part.dtype_policy = model.dtype_policy  # with float16, `compile` scales the loss by it
    return trunk, tail


def functional(model: keras.Model) -> keras.Model:
    """A model as a graph of its layers.

    Raises:
        ValueError: If it is not made of a graph.
    """
    if hasattr(model, "_nodes_by_depth"):
        return model
    if not (getattr(model, "inputs", None) and getattr(model, "outputs", None)):
        raise ValueError(
            f"Model {model.name!r} must be a functional one, or a Sequential one with a keras.Input, since it is cut "
            f"between its layers. Received: {type(model).__name__}"
        )
    graph = keras.Model(_one_or_all(model.inputs), _one_or_all(model.outputs), name=model.name)
    graph.dtype_policy = model.dtype_policy
    return graph


def _one_or_all(tensors):
    """A tuple where there are several: what a dataset gives is one, too."""
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def _early(nodes):
    """The calls whose outputs are the same for a picture at every step of a training."""
    early, steady = [], set()
    for node in nodes:
        if not _acts(node.operation) and all(id(tensor) in steady for tensor in node.input_tensors):
            early.append(node)
            steady.update(map(id, node.output_tensors))
    return early


def _acts(operation) -> bool:
    """Whether a layer does something else from step to step of a training: it learns, counts or draws."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    counting = any(
        isinstance(part, keras.layers.BatchNormalization) and part.trainable for part in operation._flatten_layers()
    )
    return bool(operation.trainable_weights) or counting or draws(operation)


def _frozen(node) -> bool:
    """Whether something that could learn keeps still, be it within a layer of layers."""
    layer = node.operation
    if not isinstance(layer, keras.layers.Layer):
        return False
    return any(not part.trainable and part.weights for part in layer._flatten_layers())


def _check(model, nodes, early):
    """Refuses what has no frozen part, no other part, or the frozen one not in front."""
    if not any(map(_frozen, nodes)):
        raise ValueError(
            f"No layer of model {model.name!r} is frozen, so there is nothing to cut off. "
            'Call zoo.freeze(model, "large").'
        )
    kept = set(map(id, early))
    late = [node for node in nodes if id(node) not in kept]
    if not late:
        raise ValueError(f"Every layer of model {model.name!r} is frozen, so nothing is left to train behind the cut.")
    behind = list(dict.fromkeys(node.operation.name for node in late if _frozen(node) and not _acts(node.operation)))
    if behind:
        first = next(node.operation.name for node in late if _acts(node.operation))
        more = f" and {len(behind) - _NAMED} more" if behind[_NAMED:] else ""
        named = ", ".join(map(repr, behind[:_NAMED])) + more
        raise ValueError(
            f"The frozen layers of model {model.name!r} are no prefix of it: behind {first!r}, which trains or draws "
            f"at random, stand {named}. Freeze a beginning of the model with zoo.freeze, which also silences dropout."
        )
    if not any(map(_frozen, early)):
        mixed = next(node.operation.name for node in late if _frozen(node))
        raise ValueError(
            f"Nothing in front of model {model.name!r} is frozen as a whole: {mixed!r} holds frozen layers, yet others "
            "in it train or draw at random. Build a flat model, or freeze all of it."
        )


def _cuts(nodes, early, outputs):
    """What crosses, for each place to cut at: behind the last frozen layer, or after some of the free ones there.

    The longest trunk comes first, so that of equal cuts it is taken.
    """
    needed, wanted = set(), [node for node in early if _frozen(node)]
    made_by = {id(tensor): node for node in early for tensor in node.output_tensors}
    while wanted:
        node = wanted.pop()
        if id(node) not in needed:
            needed.add(id(node))
            wanted += [made_by[id(tensor)] for tensor in node.input_tensors]
    free = [node for node in early if id(node) not in needed]
    for length in range(len(free), -1, -1):
        trunk = [node for node in early if id(node) in needed] + free[:length]
        inside = set(map(id, trunk))
        behind = [tensor for node in nodes if id(node) not in inside for tensor in node.input_tensors]
        taken = set(map(id, [*behind, *outputs]))
        yield [tensor for node in trunk for tensor in node.output_tensors if id(tensor) in taken]


def _bytes(tensors) -> int:
    """What a picture's tensors at a cut take."""
    sides = [[side or _UNKNOWN_SIDE for side in tensor.shape[1:]] for tensor in tensors]
    return sum(math.prod(shape) * _width(tensor.dtype) for shape, tensor in zip(sides, tensors, strict=True))


def _width(dtype) -> int:
    return int("".join(filter(str.isdigit, dtype)) or 8) // 8
