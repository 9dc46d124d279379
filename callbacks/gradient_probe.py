"""What a probe batch tells of a model: gradients and activations, group by group, and nothing of the model moves."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from callbacks import autodiff

ops: Any = keras.ops  # to pyright its functions may return None

_STAGE = re.compile(r"(stem|stage[1-9][0-9]*|head)(_|$)")
_RECTIFIERS = ("relu", "relu6")  # activations that are 0 over half a line


def groups_of(model: keras.Model, given: Mapping[str, Iterable[str]] | None = None) -> dict[str, list[keras.Layer]]:
    """The layers of each group of a model that holds something to train, in the model's order.

    Args:
        model: Any model; of a model in the model, the whole is one layer.
        given: Group to names of layers. By default the stages, where every layer that trains is called `stem_*`,
            `stage<k>_*` or `head_*`; else each layer that trains is a group, with those without weights behind it.

    Raises:
        ValueError: If `given` names no layer of the model, or one twice.
    """
    layers = {layer.name: layer for layer in model.layers}
    if given is None:
        placed = _by_stage(layers) or _by_layer(layers)
    else:
        placed = {name: group for group, names in given.items() for name in names}
        named = [name for names in given.values() for name in names]
        if missing := [name for name in named if name not in layers]:
            raise ValueError(f"`groups` must name layers of model {model.name!r}. Received: {missing[0]!r}")
        if len(named) != len(placed):
            twice = next(name for name in named if named.count(name) > 1)
            raise ValueError(f"`groups` must name a layer once. Received twice: {twice!r}")
    groups: dict[str, list[keras.Layer]] = {group: [] for group in placed.values()}
    for name, layer in layers.items():
        if name in placed:
            groups[placed[name]].append(layer)
    return {group: members for group, members in groups.items() if any(layer.trainable_weights for layer in members)}


def _by_stage(layers):
    """Layer to stage; None where a layer that trains is in no stage."""
    placed = {name: match.group(1) for name in layers if (match := _STAGE.match(name))}
    return placed if all(name in placed for name, layer in layers.items() if layer.trainable_weights) else None


def _by_layer(layers):
    """Layer to the name of the last layer with weights up to it: an activation belongs to its convolution."""
    placed, group = {}, None
    for name, layer in layers.items():
        group = name if layer.weights else group
        if group is not None:
            placed[name] = group
    return placed


class Probe:
    """Differentiates the compiled loss of a model on one batch, as the next training step would.

    Forward pass and loss run in a `keras.StatelessScope`: statistics of batch normalisation, seeds, counters and
    metrics stay as they are. Where the optimizer scales the loss (float16), the gradients are those of the scaled loss,
    divided in float32; where that overflows, those of the loss itself.

    On JAX it is compiled; on TensorFlow, too, from the second call on, unless `compiled` asks for it at once: a single
    probe is cheaper operation by operation (ResNet-20, 32 pictures, two cores: 0.7 s against 1.3 s), the others are
    2.5 times faster in a graph.

    Args:
        fitted: The compiled model that is fitted: loss and trainable weights are its own.
        network: The model that the pictures go into, `fitted` or one that holds it.
        groups: From `groups_of`; one that shares no weight with `fitted` is left out.
        compiled: Whether the first call is compiled on TensorFlow.

    Attributes:
        members: Group to the positions of its weights in `fitted.trainable_variables`.
    """

    def __init__(
        self,
        fitted: keras.Model,
        network: keras.Model,
        groups: Mapping[str, list[keras.Layer]],
        *,
        compiled: bool = True,
    ):
        self._fitted = fitted
        trained = fitted.trainable_variables
        position = {id(variable): i for i, variable in enumerate(trained)}
        members = {
            group: sorted({position[id(v)] for layer in layers for v in layer.trainable_variables if id(v) in position})
            for group, layers in groups.items()
        }
        self.members = {group: positions for group, positions in members.items() if positions}
        self._forward = _tapped(network, {group: groups[group] for group in self.members})
        known = {id(variable) for variable in trained}
        others = [*fitted.non_trainable_variables, *network.variables]
        self._fixed = list({id(v): v for v in others if id(v) not in known}.values())
        self._compiled = autodiff.compiled(self._measure)
        self._eager = not compiled and keras.backend.backend() == "tensorflow"

    def __call__(self, x: Any, y: Any, sample_weight: Any = None) -> tuple[float, dict[str, dict[str, float | None]]]:
        """The loss, and of each group `gradient_norm`, `dead`, `mean` and `spread`; None where there is no such thing.

        The loss is the one of the batch, penalties included.
        """
        scale = _scale(self._fitted.optimizer)
        loss, figures = self._measured(scale, x, y, sample_weight)
        if scale != 1 and not all(math.isfinite(figure["gradient_norm"]) for figure in figures.values()):
            loss, figures = self._measured(1.0, x, y, sample_weight)
        return loss, figures

    def _measured(self, scale, x, y, sample_weight):
        run: Any = self._measure if self._eager else self._compiled
        self._eager = False
        values = [[ops.convert_to_tensor(v.value) for v in some] for some in (self._trained, self._fixed)]
        loss, norms, last, rectified = run(*values, ops.convert_to_tensor(scale, "float32"), x, y, sample_weight)
        figures = {}
        for group in self.members:  # JAX hands dicts back in alphabetical order
            mean, spread = map(_number, last[group]) if group in last else (None, None)
            dead = [float(ops.convert_to_numpy(part).sum()) for part in rectified.get(group, [])]
            units = sum(int(part.shape[0]) for part in rectified.get(group, []))
            figures[group] = {
                "gradient_norm": _number(norms[group]),
                "dead": sum(dead) / units if units else None,
                "mean": mean,
                "spread": spread,
            }
        return _number(loss), figures

    @property
    def _trained(self):
        return self._fitted.trainable_variables

    def _measure(self, trained, fixed, scale, x, y, sample_weight):
        def scaled_loss(trained):
            state = [*zip(self._trained, trained, strict=True), *zip(self._fixed, fixed, strict=True)]
            with keras.StatelessScope(state_mapping=state, collect_losses=True):
                outputs, last, rectified = self._forward(x)
                # the wrapper knows whether an overridden `compute_loss` takes `training`
                loss = self._fitted._compute_loss(x, y, outputs, sample_weight, training=True)
            return ops.cast(loss, "float32") * scale, (
                loss,
                {group: _moments(ops.stop_gradient(tensor)) for group, tensor in last.items()},
                {group: [_dead(ops.stop_gradient(part)) for part in parts] for group, parts in rectified.items()},
            )

        (_, (loss, last, rectified)), gradients = autodiff.value_and_grad(scaled_loss, trained, has_aux=True)
        squares = [ops.sum(ops.square(ops.cast(gradient, "float32") / scale)) for gradient in gradients]
        norms = {group: ops.sqrt(sum(squares[i] for i in members)) for group, members in self.members.items()}
        return loss, norms, last, rectified


def _tapped(network, groups):
    """x -> (outputs, group to its last activation, group to what each of its ReLUs gave); no more than outputs where
    the model is no graph of its layers."""
    graph = getattr(network, "_functional", None) or network  # a Sequential keeps its graph to itself
    if not (hasattr(graph, "_nodes_by_depth") and type(network).call.__module__.startswith("keras.")):
        training = {"training": True} if network._call_has_training_arg else {}
        return lambda x: (network(x, **training), {}, {})
    place = {id(layer): group for group, layers in groups.items() for layer in layers}
    last: dict[str, Any] = {}
    rectified: dict[str, list[Any]] = {}
    for depth in sorted(graph._nodes_by_depth, reverse=True):  # Keras has no public walk through a graph
        for node in graph._nodes_by_depth[depth]:
            group = place.get(id(node.operation))
            if group is None or node.is_input or not keras.backend.is_float_dtype(node.outputs[0].dtype):
                continue
            last[group] = node.outputs[0]
            if _rectifies(node.operation):
                rectified.setdefault(group, []).append(node.outputs[0])
    taps = keras.Model(graph._inputs_struct, (graph._outputs_struct, last, rectified), name="gradient_probe")
    return lambda x: taps(x, training=True)


def _rectifies(layer):
    if isinstance(layer, keras.layers.ReLU):
        return not layer.negative_slope
    activation = getattr(layer, "activation", None)
    return any(activation is getattr(keras.activations, name) for name in _RECTIFIERS)


def _moments(tensor):
    """Mean and standard deviation over everything."""
    tensor = ops.cast(tensor, "float32")
    return ops.mean(tensor), ops.std(tensor)


def _dead(tensor):
    """1 for each unit or channel that is 0 for the whole batch at all positions, else 0."""
    first = len(tensor.shape) > 2 and keras.config.image_data_format() == "channels_first"
    channel = 1 if first else len(tensor.shape) - 1
    others = tuple(axis for axis in range(len(tensor.shape)) if axis != channel)
    return ops.cast(ops.max(tensor, axis=others) <= 0, "float32")


def _scale(optimizer):
    """What the optimizer multiplies the loss by now."""
    return float(ops.convert_to_numpy(optimizer.scale_loss(ops.ones(()))))


def _number(scalar) -> float:
    return float(ops.convert_to_numpy(scalar))
