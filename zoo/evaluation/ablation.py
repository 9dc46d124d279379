"""A network with parts taken out, run without being changed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np

from callbacks.autodiff import compiled
from zoo.evaluation.links import Link, classifier_of, layers_of, learns, links_of, named_blocks
from zoo.models.catalog import near_miss

IDENTITY, ZEROED, REDRAWN = "identity", "zeroed branch", "re-initialised"


@dataclass(frozen=True)
class Block:
    """What is taken out together.

    Attributes:
        name: What tables call it.
        first, last: Its links, as in `links[first:last]`.
        how: What stands in for it: IDENTITY, ZEROED or REDRAWN.
        layers: The layers whose weights are not used, or are drawn anew.
        zeroed: Tensors of the graph that are zeros, by `id`.
    """

    name: str
    first: int
    last: int
    how: str
    layers: Sequence[keras.Layer]
    zeroed: frozenset[int] = field(default_factory=frozenset)

    @property
    def parameters(self) -> int:
        """Numbers that the layers hold, statistics of batch normalisation included, as `count_params` has it."""
        return sum(layer.count_params() for layer in self.layers)


def span(name: str, names: Sequence[str], links: Sequence[Link]) -> tuple[int, int]:
    """The first link of a block and the one behind its last, from the names of its layers.

    Raises:
        ValueError: If there are none, or one is no layer of the network's, or is its classifier.
    """
    if isinstance(names, str) or not names:
        raise ValueError(f"`blocks` must give each block a list of layer names. Received: {names!r} for {name!r}")
    places = {}
    for i, link in enumerate(links):
        for layer in layers_of(link.nodes):
            places.setdefault(layer.name, []).append(i)
    for wrong in (word for word in names if word not in places):
        hint = near_miss(wrong, places)
        raise ValueError(f"`blocks` names {wrong!r} in {name!r}, which is no layer of the model. {hint}".strip())
    if classifier_of(links).name in names:
        raise ValueError(
            f"Block {name!r} holds {classifier_of(links).name!r}, the classifier, without which nothing can be told "
            "apart. Leave it out of `blocks`."
        )
    found = [place for word in names for place in places[word]]
    return min(found), max(found) + 1


def placed(name: str, names: Sequence[str], links: Sequence[Link], shapes: Mapping[int, tuple]) -> Block:
    """The block that some layers make, with what can stand in for it.

    Args:
        name: What it is called.
        names: Names of its layers.
        links: Those of the network.
        shapes: Real shapes in front of the block's first link and behind its last.

    Raises:
        ValueError: If `span` raises, or nothing can stand in for the layers.
    """
    first, last = span(name, names, links)
    inside = [node for link in links[first:last] for node in link.nodes]

    def whole(nodes):
        return all(layer.name in names for layer in layers_of(nodes) if learns(layer))

    same = shapes[first] == shapes[last] and links[first].entry.dtype == links[last - 1].exit.dtype
    if same and whole(inside):
        return Block(name, first, last, IDENTITY, _with_weights(inside))
    branches = links[first].branches if last == first + 1 else []
    if branches:
        shortcut = [tensor for tensor in inside[-1].input_tensors if not any(tensor is one for one in branches)]
        kept = links[first].before(shortcut)
        gone = [node for node in links[first].before(branches) if node not in kept]
        if whole(gone):
            return Block(name, first, last, ZEROED, _with_weights(gone), frozenset(map(id, branches)))
    layers = [layer for layer in _with_weights(inside) if layer.name in names]
    if not layers:
        raise ValueError(
            f"Nothing can stand in for block {name!r}: it has no weights to draw anew, and cannot be passed by. "
            "Leave it out of `blocks`."
        )
    return Block(name, first, last, REDRAWN, layers)


class Surgery:
    """A network that runs with or without its blocks; the weights it has are read and never written.

    What lies between two ends of blocks is compiled once, with the weights as arguments, so that a block with new
    weights costs no further compilation. All batches must have one shape.

    Args:
        model: Functional model of one input and one output.
        blocks: Block name to names of its layers; by default those of `named_blocks`.
        batch: A batch of pictures, from which batch normalisation of blocks with new weights takes its statistics.
        seed: Decides the new weights.

    Attributes:
        blocks: In the network's order.

    Raises:
        ValueError: If the model has no graph, has nothing to take out, `blocks` is wrong, or a layer cannot be drawn
            anew.
    """

    def __init__(self, model: keras.Model, blocks: Mapping[str, Sequence[str]] | None, batch: np.ndarray, seed: int):
        self._links = links_of(model)
        self._dtype = model.inputs[0].dtype
        everything = layers_of(node for link in self._links for node in link.nodes)
        self._weights = {id(weight): keras.ops.convert_to_tensor(weight) for x in everything for weight in x.weights}
        self._functions = {}
        names = named_blocks(self._links) if blocks is None else blocks
        if not names:
            raise ValueError(
                f"Model {model.name!r} has nothing to take out: no layer in front of its classifier learns, or all "
                "stand side by side with it. Name layers in `blocks`, such as blocks={'first': ['conv1']}."
            )
        spans = [span(name, layers, self._links) for name, layers in names.items()]
        self._edges = sorted({0, len(self._links), *(edge for ends in spans for edge in ends)})
        shapes = {edge: tuple(x.shape) for edge, x in self.walk(batch)}
        found = [placed(name, layers, self._links, shapes) for name, layers in names.items()]
        self.blocks = sorted(found, key=lambda block: (block.first, block.last))
        self._numbers = {layer.name: i for i, layer in enumerate(everything)}
        self._new = {}
        for edge, x in self.walk(batch):
            for block in self.starting(edge):
                if block.how == REDRAWN:
                    self._new[block.name] = self._redrawn(block, x, seed)

    def starting(self, edge: int) -> list[Block]:
        """The blocks whose first link is that."""
        return [block for block in self.blocks if block.first == edge]

    def walk(self, images) -> Iterator[tuple[int, Any]]:
        """(edge, what passes there) from the pictures to the output of the whole network."""
        x = keras.ops.convert_to_tensor(images, dtype=self._dtype)
        yield 0, x
        for edge, following in zip(self._edges, self._edges[1:], strict=False):
            x = self._between(edge, following, x)
            yield following, x

    def without(self, block: Block, x) -> Any:
        """What the network gives without a block, from what stands in front of it."""
        new = self._new.get(block.name, {})
        edge = block.first
        if block.how == IDENTITY:
            edge = block.last
        elif block.how == ZEROED:
            edge, x = block.last, self._between(block.first, block.last, x, zeroed=block.zeroed)
        for start, following in zip(self._edges, self._edges[1:], strict=False):
            if start >= edge:
                x = self._between(start, following, x, new)
        return x

    def _between(self, first, last, x, new: Mapping[int, Any] | None = None, zeroed=frozenset()):
        key = (first, last, zeroed)
        if key not in self._functions:
            self._functions[key] = self._compiled(first, last, zeroed=zeroed)
        function, weights = self._functions[key]
        return function(x, self._values(weights, new or {}))

    def _redrawn(self, block, x, seed) -> dict[int, Any]:
        """New weights of a block, by `id` of those they stand in for."""
        new = {}
        for layer in block.layers:
            drawn = _drawn(layer, np.random.SeedSequence([seed, self._numbers[layer.name]]))
            new.update(zip(map(id, layer.weights), drawn, strict=True))
        normalizing = [layer for layer in block.layers if isinstance(layer, keras.layers.BatchNormalization)]
        if normalizing:
            function, weights = self._compiled(block.first, block.last, settled=normalizing)
            new.update(zip(map(id, _statistics(normalizing)), function(x, self._values(weights, new)), strict=True))
        return new

    def _compiled(self, first, last, **how) -> tuple[Callable, list[keras.Variable]]:
        """`_run` for some links, as a function of what enters them and of the values of weights; these weights."""
        nodes = [node for link in self._links[first:last] for node in link.nodes]
        weights = list({id(weight): weight for layer in layers_of(nodes) for weight in layer.weights}.values())
        ends = self._links[first].entry, self._links[last - 1].exit
        # A partial, since TensorFlow takes functions of one text for one function that it compiles again and again.
        return compiled(partial(_run, nodes, ends, weights, **how)), weights

    def _values(self, weights, new):
        return [new.get(id(weight), self._weights[id(weight)]) for weight in weights]


def _run(nodes, ends, weights, x, values, *, zeroed=frozenset(), settled=()):
    """Runs calls of the graph, each behind those it needs, with weights of those values.

    Args:
        zeroed: Tensors of the graph, by `id`, that are to be zeros.
        settled: Layers of batch normalisation that take the mean and variance of what enters them.

    Returns:
        What comes out, or with `settled` the means and variances that were taken.
    """
    tensors = {id(ends[0]): x}
    with keras.StatelessScope(list(zip(weights, values, strict=True))) as scope:
        for node in nodes:
            if node.operation in settled:
                _settle(node.operation, tensors[id(node.input_tensors[0])], scope)
            _call(node, tensors, zeroed)
        if settled:
            return [scope.get_current_value(weight) for weight in _statistics(settled)]
    return tensors[id(ends[1])]


def _call(node, tensors, zeroed):
    """Runs one call of the graph in inference mode."""
    args, kwargs = node.arguments.fill_in(tensors)
    if getattr(node.operation, "_call_has_training_arg", False):
        kwargs["training"] = False
    outputs = keras.tree.flatten(node.operation(*args, **kwargs))
    for symbol, value in zip(node.outputs, outputs, strict=True):
        tensors[id(symbol)] = keras.ops.zeros_like(value) if id(symbol) in zeroed else value


def _statistics(normalizing):
    return [weight for layer in normalizing for weight in (layer.moving_mean, layer.moving_variance)]


def _settle(layer, x, scope):
    """Gives batch normalisation the mean and variance that its input has, in the scope alone."""
    rank = len(x.shape)
    axes = [axis for axis in range(rank) if axis != layer.axis % rank]
    mean, variance = keras.ops.moments(keras.ops.cast(x, layer.moving_mean.dtype), axes)  # pyright: ignore
    scope.add_update((layer.moving_mean, mean))
    scope.add_update((layer.moving_variance, variance))


def _drawn(layer, seeds: np.random.SeedSequence) -> list[Any]:
    """Values for the weights of a layer, from a copy of it that is built anew."""
    try:
        fresh = type(layer).from_config(_seeded(layer.get_config(), iter(seeds.generate_state(1000) >> 1)))
        if not fresh.built:
            fresh.build_from_config(layer.get_build_config())
        values = [keras.ops.convert_to_tensor(weight) for weight in fresh.weights]
        if [value.shape for value in values] != [weight.shape for weight in layer.weights]:
            raise ValueError("its copy has weights of other shapes")
    except Exception as error:
        raise ValueError(
            f"Layer {layer.name!r} cannot be drawn anew from its config: {error}. Leave it out with `blocks`, or give "
            f"{type(layer).__name__} a `get_config` and a `build`."
        ) from error
    return values


def _seeded(config, seeds):
    """A config in which each initialiser that draws has a seed of its own."""
    if isinstance(config, (list, tuple)):
        return type(config)(_seeded(part, seeds) for part in config)
    if not isinstance(config, dict):
        return config
    config = {key: _seeded(part, seeds) for key, part in config.items()}
    for key, part in config.items():
        if key.endswith("initializer") and isinstance(part, dict) and "seed" in (part.get("config") or {}):
            part["config"] = {**part["config"], "seed": int(next(seeds))}
    return config


def _with_weights(nodes):
    return [layer for layer in layers_of(nodes) if layer.weights]
