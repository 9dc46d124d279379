"""A network's graph as a chain of links, and the blocks that it is made of."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from zoo.models.graph import calls_of

# What layers of one block have in common in the names of the zoo and of keras.applications; the last part but one is
# for Inception-ResNet, whose blocks are numbered twice.
_BLOCK = re.compile(r"((?:\w+?_)??(?:block|module)_?\d+[a-z]?(?:_\d+(?=_mixed$))?|expanded_conv(?:_\d+)?)(?:_|$)")
_MERGED = re.compile(r"_(add|concat|mixed|out)$")
_NORMALIZING = (
    keras.layers.Normalization,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)


@dataclass(frozen=True, eq=False)
class Link:
    """Calls of layers between two places of the graph where a single tensor passes.

    Attributes:
        nodes: The calls, each behind those whose outputs it takes.
        entry, exit: The tensors on both sides.
    """

    nodes: list
    entry: Any
    exit: Any

    def before(self, tensors: Iterable) -> list:
        """The calls of this link that some of its tensors depend on."""
        wanted = set(map(id, tensors))
        found = []
        for node in reversed(self.nodes):
            if any(id(tensor) in wanted for tensor in node.outputs):
                found.append(node)
                wanted.update(map(id, node.input_tensors))
        return found[::-1]

    @property
    def branches(self) -> list:
        """What is added, or joined, to a shortcut at the end of the link; empty where there is no shortcut.

        Of a sum the shortcut is the operand with the fewest layers that learn, of a concatenation the entry itself.
        """
        operands = list(self.nodes[-1].input_tensors)
        if len(self.nodes) < 2 or len(operands) < 2:
            return []
        kind = type(self.nodes[-1].operation).__name__  # `x + y` is an operation of that name, and no layer
        if kind == "Concatenate":
            branches = [tensor for tensor in operands if tensor is not self.entry]
            return branches if len(branches) < len(operands) else []
        if kind != "Add":
            return []
        lengths = [sum(map(learns, layers_of(self.before([tensor])))) for tensor in operands]
        shortest = min(lengths)
        if lengths.count(shortest) > 1:
            return []
        return [tensor for tensor, length in zip(operands, lengths, strict=True) if length > shortest]


def learns(layer) -> bool:
    """Whether a layer has weights and is no normalisation."""
    return bool(getattr(layer, "weights", None)) and not isinstance(layer, _NORMALIZING)


def layers_of(nodes: Iterable) -> list[keras.Layer]:
    """The layers that are called, each once; operations that are no layers are left out."""
    found = dict.fromkeys(node.operation for node in nodes)
    return [layer for layer in found if isinstance(layer, keras.Layer)]


def links_of(model: keras.Model) -> list[Link]:
    """A network as a chain.

    Raises:
        ValueError: If the model is not made of a graph with one input and one output.
    """
    inputs, outputs = (getattr(model, name, None) or [] for name in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"Model {model.name!r} must be a functional one with one input and one output, or a Sequential one with a "
            f"keras.Input, since blocks are found in its graph. Received: {type(model).__name__} with {len(inputs)} "
            f"inputs and {len(outputs)} outputs"
        )
    nodes = [node for node in calls_of(keras.Model(inputs[0], outputs[0])) if not node.is_input]
    uses = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    uses[id(outputs[0])] += 1
    links, entry, live, gathered = [], inputs[0], {id(inputs[0])}, []
    for node in nodes:
        gathered.append(node)
        uses.subtract(map(id, node.input_tensors))
        live.update(id(tensor) for tensor in node.outputs)
        live = {tensor for tensor in live if uses[tensor] > 0}
        made = [tensor for tensor in node.outputs if id(tensor) in live]
        if len(live) == 1 and made:
            links.append(Link(gathered, entry, made[0]))
            entry, gathered = made[0], []
    return links


def named_blocks(links: Sequence[Link]) -> dict[str, list[str]]:
    """The blocks of a network, each with the names of its layers, in the network's order.

    A block is what lies between the two ends of a fork, such as a residual block or an Inception module; elsewhere what
    the names of the layers hold together; else one layer that learns with the normalisation and activation behind it.
    Normalisation alone is no block, and neither is the last layer that learns, the classifier.
    """
    groups, key, padding = [], None, []
    for link in links:
        named = _key(link)
        layers = layers_of(link.nodes)
        fork = len(link.nodes) > 1
        gate = fork and type(link.nodes[-1].operation).__name__ == "Multiply" and named is not None and named == key
        resized = link.exit.shape != link.entry.shape
        if fork and not gate:
            groups += [[link], []]
            key, padding = None, []
        elif named is not None and named == key:
            groups[-1] += [*padding, link]
            padding = []
        elif named is not None or any(map(learns, layers)):
            groups.append([*padding, link])
            key, padding = named, []
        elif isinstance(layers[0] if layers else None, keras.layers.ZeroPadding2D):
            padding = [link]  # part of the convolution behind it
        elif groups and not resized:
            groups[-1] += [*padding, link]
            padding = []
        else:
            groups.append([])
            key, padding = None, []
    classifier = classifier_of(links)
    blocks = {}
    for group in map(_trimmed, groups):
        layers = [layer for link in group for layer in layers_of(link.nodes)]
        if any(map(learns, layers)) and classifier not in layers:
            blocks[_free(_name(group, layers), blocks)] = [layer.name for layer in layers]
    return blocks


def classifier_of(links):
    """The last layer that learns, or the last one where none does."""
    layers = layers_of(node for link in links for node in link.nodes)
    return next((layer for layer in reversed(layers) if learns(layer)), layers[-1])


def _key(link):
    """The block that the names of a link's layers tell, the most exact one; None where they tell none."""
    found = [match.group(1) for node in link.nodes if (match := _BLOCK.match(node.operation.name))]
    return max(found, key=len, default=None)


def _name(group, layers):
    operation = group[-1].nodes[-1].operation
    key = _key(group[0])
    if len(group[0].nodes) == 1:  # a chain
        return key or next(layer.name for layer in layers if learns(layer))
    automatic = re.sub(r"_\d+$", "", operation.name).replace("_", "") == type(operation).__name__.lower()
    return key if automatic and key else _MERGED.sub("", operation.name)


def _free(name, taken):
    number = next(i for i in range(1, len(taken) + 2) if (f"{name}_{i}" if i > 1 else name) not in taken)
    return f"{name}_{number}" if number > 1 else name


def _trimmed(group):
    """Without what changes the shape at its ends and learns nothing, such as a pooling; padding in front stays."""

    def loose(link):
        layers = layers_of(link.nodes)
        return link.exit.shape != link.entry.shape and not any(map(learns, layers))

    while group and loose(group[-1]):
        group = group[:-1]
    while group and loose(group[0]) and not isinstance(group[0].nodes[0].operation, keras.layers.ZeroPadding2D):
        group = group[1:]
    return group
