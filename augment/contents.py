"""What a tf.data pipeline and a model are made of, as far as it can be seen from outside.

Nothing of TensorFlow is imported: datasets are known by what they offer. Where something cannot be seen, it is absent.
"""

import dis
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from augment.augmentation import Augmentation
from augment.mixing import Mixing
from augment.policies import Policy

OURS = (Augmentation, Policy)
MIXING = (Mixing, keras.layers.MixUp, keras.layers.CutMix)
RANDOM = tuple(vars(keras.layers)[name] for name in dir(keras.layers) if name.startswith("Random"))
AUGMENTING = (*OURS, *MIXING, *RANDOM, keras.layers.RandAugment, keras.layers.AugMix)
NORMALISING = (keras.layers.Rescaling, keras.layers.Normalization)
PASSIVE = (
    keras.layers.InputLayer,
    keras.layers.Identity,
    keras.layers.Resizing,
    keras.layers.CenterCrop,
)  # what changes neither the meaning of pixels nor their chance

PATHS = 32  # of a pipeline that branches, beyond which nobody looks
DEPTH = 4  # of functions that call functions, the mapping's own being the first


class Stage(NamedTuple):
    """One transformation of a dataset: its class, the chains of layers that its functions apply, what it yields.

    The order within a chain is known, that of the chains of one stage is not. `training` says whether `training=True`
    stands in a function, without which our layers are off.
    """

    name: str
    chains: list[list]
    spec: Any
    training: bool


def is_pipeline(dataset) -> bool:
    """Whether something is a dataset of tf.data."""
    return hasattr(dataset, "_inputs") and hasattr(dataset, "element_spec")


def paths(dataset) -> list[list[Stage]]:
    """The ways from a source of a pipeline to its end, each as its stages in order."""
    dataset = getattr(dataset, "_dataset", dataset)  # within the adapter for the interface of TensorFlow 1
    try:
        inputs = dataset._inputs()
        functions = [wrapper._func for wrapper in dataset._functions()]
    except Exception:  # these are no public names, and any release may change them
        inputs, functions = [], []
    found = [_referred(function) for function in functions]
    chains = [chain for chains, _ in found for chain in chains]
    training = any(training for _, training in found)
    stage = Stage(type(dataset).__name__.lstrip("_"), chains, dataset.element_spec, training)
    before = [path for upstream in inputs for path in paths(upstream)][:PATHS] or [[]]
    return [[*path, stage] for path in before]


def referred(function) -> list[list]:
    """Chains of layers, and functions `preprocess_input`, that a function of a mapping refers to, each once."""
    return _referred(function)[0]


def _referred(function) -> tuple[list[list], bool]:
    """`referred`, and whether `training=True` stands in one of the functions."""
    found = {}  # id -> chain
    seen = {}  # id -> the value itself, so that no other gets its id
    training = []

    def visit(value, depth):
        if id(value) in seen:
            return
        seen[id(value)] = value
        if isinstance(value, keras.layers.Layer):
            steps = list(layers_of(value))
            # a network within a mapping, a teacher for instance, prepares its pictures for itself
            if all(isinstance(step, (*AUGMENTING, *NORMALISING, *PASSIVE)) for step in steps):
                found[id(value)] = steps
        elif is_preprocessing(value):
            found[id(value)] = [value]
        elif isinstance(value, functools.partial):
            training.append(value.keywords.get("training") is True)
            for part in (value.func, *value.args, *value.keywords.values()):
                visit(part, depth)
        elif isinstance(value, types.MethodType):
            if isinstance(value.__self__, (*AUGMENTING, *NORMALISING)):
                visit(value.__self__, depth)
            elif depth and not _is_library(value.__func__):
                training.append(_says_training(value.__func__.__code__))
                for part in _loaded(value.__func__, value.__self__):
                    visit(part, depth - 1)
        elif isinstance(value, types.FunctionType):
            if depth and not _is_library(value):
                training.append(_says_training(value.__code__))
                for part in _loaded(value):
                    visit(part, depth - 1)
        elif isinstance(value, (list, tuple)):
            for part in value:
                if isinstance(part, keras.layers.Layer):
                    visit(part, depth)
        elif hasattr(value, "python_function"):  # a tf.function
            visit(value.python_function, depth)
        elif hasattr(type(value), "__call__") and not isinstance(value, (type, types.ModuleType)):  # noqa: B004
            call = inspect.getattr_static(type(value), "__call__")
            if isinstance(call, types.FunctionType):
                visit(types.MethodType(call, value), depth)

    visit(function, DEPTH)
    return list(found.values()), any(training)


def layers_of(layer) -> Iterator[keras.layers.Layer]:
    """A layer, or the layers of a model in order, nested ones unfolded; a policy counts as one."""
    if isinstance(layer, AUGMENTING) or not hasattr(layer, "layers"):
        yield layer
    else:
        for inner in layer.layers:
            yield from layers_of(inner)


def line(model) -> list[keras.layers.Layer]:
    """The layers that pictures meet first, one after another, as far as they are known to keep pictures pictures."""
    steps = []
    for step in _chained(model):
        if not isinstance(step, (*AUGMENTING, *NORMALISING, *PASSIVE)):
            break
        steps.append(step)
    return steps


def is_preprocessing(value) -> bool:
    """Whether something is a `preprocess_input` of keras.applications."""
    return getattr(value, "__name__", "") == "preprocess_input" and "keras" in str(getattr(value, "__module__", ""))


def first_batch(dataset) -> Any:
    """The first element of a dataset as numpy arrays; None where there is none."""
    try:
        batch = next(iter(dataset.take(1))) if is_pipeline(dataset) else dataset[0]
        return keras.tree.map_structure(keras.ops.convert_to_numpy, batch)
    except Exception:  # a broken dataset is fit's to complain about
        return None


def images_and_labels(element) -> tuple[Any, Any]:
    """Both of an element or its description, each with a shape and a dtype; None in place of what is not clear."""
    if isinstance(element, dict):
        element = element.get("images"), element.get("labels")
    if not isinstance(element, (tuple, list)):
        element = (element,)
    images, labels, *_ = (*element, None, None)
    return _with_rank(images), _with_rank(labels)


def _chained(model):
    """Layers of a functional model, as long as each takes nothing but what the one before gives."""
    pictures = [tensor for tensor in getattr(model, "inputs", None) or [] if len(tensor.shape) == 4]
    if len(pictures) != 1:
        return
    tensor = pictures[0]
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        tensor = _behind(layer, tensor)
        if tensor is None:
            return
        if hasattr(layer, "layers") and not isinstance(layer, AUGMENTING):
            inner = list(_chained(layer))
            yield from inner
            if len(inner) < sum(not isinstance(step, keras.layers.InputLayer) for step in layers_of(layer)):
                return
        else:
            yield layer


def _behind(layer, tensor):
    """What a layer made of a tensor alone; None where it never did."""
    for node in getattr(layer, "_inbound_nodes", ()):
        if len(node.input_tensors) == 1 and node.input_tensors[0] is tensor:
            return node.outputs[0]
    return None


def _with_rank(part):
    try:
        len(part.shape)
    except (AttributeError, TypeError, ValueError):  # no tensor, or of unknown rank
        return None
    return part


def _says_training(code) -> bool:
    """Whether a call names `training`, and True stands anywhere beside it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    named = any(isinstance(constant, tuple) and "training" in constant for constant in code.co_consts)
    stands = any(constant is True for constant in code.co_consts)
    return (named and stands) or any(map(_says_training, inner))


def _is_library(function) -> bool:
    return (getattr(function, "__module__", None) or "").split(".")[0] in ("keras", "tensorflow", "numpy", "jax")


def _loaded(function, owner=None):
    """What the dotted names in a function's code lead to, such as that of `keras.layers.Rescaling`.

    `inspect.getclosurevars` takes each attribute for a global of that name, and looks into no inner function.
    """
    code = function.__code__
    known = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            known[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    defaults = function.__defaults__ or ()
    known.update(zip(code.co_varnames[: code.co_argcount][-len(defaults) :] if defaults else (), defaults, strict=True))
    known.update(function.__kwdefaults__ or {})
    if owner is not None and code.co_argcount:
        known[code.co_varnames[0]] = owner
    codes = [code]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        value = None
        for instruction in dis.get_instructions(code):
            name, kind = instruction.argval, instruction.opname
            if kind in ("LOAD_ATTR", "LOAD_METHOD"):
                value = _attribute(value, name)
            elif kind != "EXTENDED_ARG":
                yield value
                scope = function.__globals__ if kind in ("LOAD_GLOBAL", "LOAD_NAME") else known
                value = scope.get(name) if kind.startswith("LOAD_") and isinstance(name, str) else None
        yield value


def _attribute(value, name):
    """An attribute, without running anybody's properties."""
    if value is None:
        return None
    if isinstance(value, types.ModuleType):
        return getattr(value, name, None)
    found = inspect.getattr_static(value, name, None)
    if isinstance(found, (staticmethod, classmethod)):
        return found.__func__
    if isinstance(found, types.FunctionType) and name not in getattr(value, "__dict__", {}):
        return types.MethodType(found, value)
    return None if isinstance(found, (property, functools.cached_property)) else found
