"""From a tag or a file to the layers of a model. Every tensor is accounted for, nothing is unpickled."""

import json
import math
import os
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from zoo.models import checkpoints, fetch, heads
from zoo.models.catalog import find_tag
from zoo.models.entries import KerasFile, ModelInfo, WeightTag

HEAD = heads.DENSE
_SAFETENSORS = ".safetensors"
_READABLE = (".weights.h5", ".h5", ".keras", _SAFETENSORS)
_REFUSED = (".pth", ".pth.tar", ".pt", ".pkl", ".pickle", ".bin", ".ckpt")


@dataclass(frozen=True)
class Source:
    """Where weights come from.

    Attributes:
        row: The model that it is for.
        place: A file of the caller's, or published weights that are still to be found or fetched.
        normalization: Mean and variance that a file says its pictures were normalised by.
    """

    row: ModelInfo
    place: Path | WeightTag
    normalization: tuple | None = None

    @property
    def tag(self) -> WeightTag | None:
        """The published weights; None for a file of the caller's."""
        return self.place if isinstance(self.place, WeightTag) else None

    @property
    def name(self) -> str:
        return self.place.name if isinstance(self.place, WeightTag) else str(self.place)


def find(row: ModelInfo, weights: str | os.PathLike | None) -> Source | None:
    """What `weights` means for a model; None for fresh weights. Nothing is fetched yet.

    Raises:
        TypeError: If it is neither a text nor a path.
        ValueError: If it is neither a tag of the model nor a kind of file that can be read.
        FileNotFoundError: If the file is not there.
    """
    if weights is None:
        return None
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(f"`weights` must be None, a tag, or the path of a file. Received: weights={weights!r}")
    if not _is_path(weights):
        return Source(row, find_tag(row.name, str(weights)))
    path = Path(weights).expanduser()
    kind = path.name.lower()
    if kind.endswith(_REFUSED):
        raise ValueError(
            f"{str(path)!r} looks like a pickle, which can run any code when it is opened, so it is not read. "
            f"{checkpoints.how_to_convert(path)}"
        )
    if not kind.endswith(_READABLE):
        raise ValueError(f"Weights can be read from {', '.join(_READABLE)} files. Received: weights={str(weights)!r}")
    if not path.is_file():
        what = "is a folder, not a weight file" if path.is_dir() else "is not there: no such weight file"
        raise FileNotFoundError(f"{str(path)!r} {what}.")
    if not kind.endswith(_SAFETENSORS):
        return Source(row, path, normalization=_stored_normalization(path))
    if row.layout is None:
        raise ValueError(
            f"There are no public safetensors files of {row.name!r}, so it is not known how their tensors are called. "
            f"Weights of this model can be read from {', '.join(_READABLE[:-1])} files. "
            f"Received: weights={str(weights)!r}"
        )
    return Source(row, path, normalization=_timm_normalization(path))


def _stored_normalization(path: Path) -> tuple | None:
    """Mean and variance of the layer `stem_normalize` in a `.keras` file; weights alone would meet other numbers."""
    if not path.name.lower().endswith(".keras"):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        return None  # what is wrong with the file is said where its tensors are read
    found = [layer["config"] for layer in layers if layer["config"].get("name") == "stem_normalize"]
    return (found[0]["mean"], found[0]["variance"]) if found else None


def _timm_normalization(path: Path) -> tuple | None:
    """Mean and variance from the `config.json` that lies beside every file of timm's on the hub."""
    try:
        config = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))["pretrained_cfg"]
        mean, std = ([255 * float(number) for number in config[word]] for word in ("mean", "std"))
    except (OSError, KeyError, ValueError, TypeError):
        return None
    return mean, [value**2 for value in std]


def load(model: keras.Model, source: Source):
    """Puts the tensors of a file into the layers of the same names; the model is changed only if all of them fit.

    A classifier for another number of classes is left as it is, and so is a head of another kind than the file's, and
    one that a file of keras.applications does not hold. The first convolution of a file for colour pictures is adapted
    to 1 or 4 channels.

    Raises:
        ValueError: If the file cannot be read, or a tensor is missing, left over or of another shape.
        FileNotFoundError: If published weights are neither there nor can be fetched.
    """
    row, path = source.row, source.place
    if isinstance(path, WeightTag):
        same_head = heads.kind_of(model) == "linear" and model.output_shape[-1] == row.classes
        path = _fetched(path, with_classifier=same_head)
    with ExitStack() as stack:
        if path.name.lower().endswith(_SAFETENSORS):
            tensors, wrong = stack.enter_context(checkpoints.opened(path, model, str(row.layout)))
        else:
            tensors, wrong = stack.enter_context(_open(path)), []
            if row.boundaries:
                tensors = _under_our_names(model, tensors, row.classifier)
        for variable, value in _plan(model, tensors, wrong, path, headless=bool(row.boundaries)):
            variable.assign(np.asarray(value))


def _is_path(weights):
    if isinstance(weights, os.PathLike) or weights.lower().endswith((*_READABLE, *_REFUSED)):
        return True
    try:
        return Path(weights).is_file()
    except OSError:  # too long for a path
        return False


def _fetched(tag: WeightTag, *, with_classifier):
    file = tag.file
    if not isinstance(file, KerasFile):
        return fetch.hub_file(tag)
    if file.classifier is not None and with_classifier:
        try:
            return fetch.keras_file(tag, file.url, *file.classifier)
        except FileNotFoundError as missing:
            if not (fetch.cache_folder() / file.name).is_file():
                raise
            warnings.warn(f"{missing} The features of {file.name!r} are used, under a new classifier.", stacklevel=4)
    return fetch.keras_file(tag, file.url, file.name, file.md5)


@contextmanager
def _open(path: Path) -> Iterator[dict[str, Sequence[h5py.Dataset]]]:
    """The tensors of a file, not yet read: layer name -> its datasets in the order of the layer's variables."""
    with ExitStack() as stack:
        try:
            content = path
            if path.name.endswith(".keras"):
                archive = stack.enter_context(zipfile.ZipFile(path))
                content = stack.enter_context(archive.open("model.weights.h5"))
            file = stack.enter_context(h5py.File(content, "r"))
            tensors = _legacy_tensors(file) if "layer_names" in file.attrs else _tensors(file, path)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"The weight file {str(path)!r} is truncated or not what its name says ({error}). "
                "Delete it, and fetch or save it again."
            ) from error
        yield tensors


class _InOrder(dict):
    """Tensors of a file that lists its layers in the order of the network."""


def _legacy_tensors(file):
    """The layout of keras.applications' files: a group a layer, which lists its variables."""
    layers = _InOrder()
    for name in file.attrs["layer_names"]:
        group = file[_text(name)]
        variables = [_dataset(group, _text(variable)) for variable in group.attrs["weight_names"]]
        if variables:
            layers[_text(name)] = variables
    return layers


def _tensors(file, path):
    """The layout of `.weights.h5` and `.keras`: groups called after classes; `vars` has the layer's name."""
    layers = {}

    def visit(place, group):
        if not place.endswith("vars") or not isinstance(group, h5py.Group) or not len(group):
            return
        if "seed_generator" in place:  # the state of a random generator is no weight
            return
        name = group.attrs.get("name")
        if name is None or name in layers:
            raise ValueError(f"The weight file {str(path)!r} does not name its layers one by one, at {place!r}.")
        layers[_text(name)] = [_dataset(group, str(i)) for i in range(len(group))]

    if "layers" not in file:
        raise ValueError(f"The weight file {str(path)!r} holds no layers; is it one that Keras saved?")
    file["layers"].visititems(visit)
    return layers


def _under_our_names(model, tensors, classifier):
    """The tensors of a file of keras.applications under the names of our layers.

    Many published files have names of an older Keras (`conv1/bn`) or of the process that wrote them (`conv2d_97`), and
    Keras itself goes by the order of the layers alone. Where each layer is known, names are the safer way.
    """
    ours = [name for name, variables in _variables(model).items() if variables and name != heads.HIDDEN]
    known = tensors.keys() - {classifier} <= set(ours)
    if isinstance(tensors, _InOrder) and not known and len(tensors) in (len(ours), len(ours) - 1):
        tensors = dict(zip(ours, tensors.values(), strict=False))  # the head is the last of ours
    elif classifier in tensors:
        tensors[HEAD] = tensors.pop(classifier)
    return tensors


def _dataset(group, name):
    data = group[name]
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise ValueError(
            f"{data.name!r} in {group.file.filename!r} is not stored in the file itself, so it is not read."
        )
    return data


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name)


def _variables(model) -> dict[str, list]:
    """Layer name -> its variables in the order in which Keras saves them."""
    return {layer.name: layer.weights for layer in model.layers}


def _plan(model, tensors: Mapping[str, Sequence[Any] | None], wrong: list[str], path: Path, *, headless: bool):
    """Pairs of variable and what becomes its value; raises before anything is assigned.

    `wrong` is what is known to be wrong already; None stands for tensors that are named there. A headless file may lack
    the classifier.
    """
    layers, another_head, plan = _variables(model), _another_head(model, tensors), []
    replaced = [
        f"layer {name!r} needs {_shapes(layers[name])}, the file's head is another"
        for name in layers
        if name in another_head
    ]
    first = next(name for name, variables in layers.items() if variables)
    for name, variables in layers.items():
        if name in another_head:
            continue
        found = tensors.get(name)
        if found is None:
            if variables and name not in tensors and not (name in (heads.HIDDEN, HEAD) and headless):
                wrong.append(f"layer {name!r} needs {_shapes(variables)}, and the file has no such layer")
            continue
        found = _same_rank(variables, found)
        if _shapes(found) == _shapes(variables):
            plan += list(zip(variables, found, strict=True))
        elif name == HEAD and _differ_in_classes_only(variables, found):
            continue
        elif name == first and _differ_in_channels_only(variables, found):
            kernel = adapt_channels(np.asarray(found[0]), variables[0].shape[2])
            plan += list(zip(variables, [kernel, *found[1:]], strict=True))
        else:
            shapes = f"{_shapes(variables)}, the file holds {_shapes(found)}"
            wrong.append(f"layer {name!r} needs {shapes}{_culprit(variables, found)}")
    left_over = [
        f"the file's layer {name!r}, {_shapes(tensors[name])}, has no place"
        for name in tensors
        if name not in layers and name not in another_head
    ]
    if wrong or left_over:
        wrong = [*wrong, *replaced, *left_over]  # in a file of another network, the head does not fit either
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        shown = (
            wrong if len(wrong) < 4 else [*wrong[:2], wrong[-1]]
        )  # what is missing comes first, what is left over last
        raise ValueError(f"The weights in {str(path)!r} do not fit model {model.name!r}: {'; '.join(shown)}{more}.")
    return plan


def _another_head(model, tensors) -> Collection[str]:
    """The layers of a head, if the file's is of another kind or width, so that it is replaced as a whole."""
    layers = (heads.HIDDEN, HEAD)
    shapes = {name: tensors[name][0].shape for name in layers if tensors.get(name)}
    kernels = {name: (math.prod(shape[:-1]), shape[-1]) for name, shape in shapes.items()}
    found = heads.kind_of_file(kernels, features=model.get_layer("head_pool").output.shape[-1])
    return () if found in (None, (heads.kind_of(model), heads.units_of(model))) else layers


def _shapes(variables):
    return [tuple(variable.shape) for variable in variables]


def _same_rank(variables, found):
    """The tensors of a file, the kernel reshaped where a convolution there is a dense layer here, or the other way."""
    if not variables or len(variables) != len(found):
        return found
    (ours, theirs), others = (tuple(tensors[0].shape) for tensors in (variables, found)), found[1:]
    if {len(ours), len(theirs)} == {2, 4} and math.prod(ours[:-1]) == math.prod(theirs[:-1]):
        return [_Reshaped(found[0], (*ours[:-1], theirs[-1])), *others]
    return found


class _Reshaped:
    """A tensor of a file, not yet read, in another shape."""

    def __init__(self, data, shape):
        self.data, self.shape, self.name = data, shape, data.name

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.data, dtype).reshape(self.shape)


def _culprit(variables, found):
    """The file's name of the first tensor that does not fit, where that tells more than the layer's."""
    pairs = zip(_shapes(variables), found, strict=False)
    names = [data.name for shape, data in pairs if tuple(data.shape) != shape]
    telling = [name for name in names[:1] if not name.startswith("/layers/")]  # Keras numbers its own by class
    return f" in {telling[0]!r}" if telling else ""


def _differ_in_classes_only(variables, found):
    ours, theirs = _shapes(variables), _shapes(found)
    one_number = len({shape[-1] for shape in theirs}) == 1
    return one_number and [shape[:-1] for shape in ours] == [shape[:-1] for shape in theirs]


def _differ_in_channels_only(variables, found):
    ours, theirs = _shapes(variables), _shapes(found)
    kernels_match = len(ours[0]) == len(theirs[0]) == 4 and ours[0][:2] + ours[0][3:] == theirs[0][:2] + theirs[0][3:]
    return kernels_match and ours[1:] == theirs[1:] and theirs[0][2] == 3


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A kernel for three colours made fit for another number of channels, as timm does.

    One channel gets the sum over the colours; more get the colours in turn, scaled to keep its size.

    (h, w, 3, filters) -> (h, w, channels, filters)
    """
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    turns = np.arange(channels) % kernel.shape[2]
    return kernel[:, :, turns] * (kernel.shape[2] / channels)
