"""Data and model in a folder, so that another process, on this machine or on a shared disk, has the very same."""

import functools
import importlib
import importlib.util
import json
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.data.collection import Data, checked_size
from zoo.data.load import restore
from zoo.data.manifest import Manifest, read_manifest
from zoo.data.memory import Arrays
from zoo.data.sources import Files
from zoo.data.tfds import Encoded
from zoo.files import write_json, writing_folder
from zoo.training.folder import DATA, MANIFEST, MODEL
from zoo.training.resuming import model_fingerprint
from zoo.transfer.fingerprint import digest
from zoo.wording import said

FACTS, PICTURES = "reference.json", "pictures.npy"
SHAPE = ("image_size", "channels", "crop", "interpolation", "background", "class_names")
WAY_OUT = "Put it into a module of its own, decorated with @keras.saving.register_keras_serializable()."
OF_A_PROCESS = ("/proc/", "/dev/fd/")  # what lies there is another thing, or nothing, to another process


def save(model: str | keras.Model, data: Data, folder: str | os.PathLike) -> dict:
    """Writes what another process needs to have the same data and model, and reads it back once to be sure.

    Pictures in files stay where they are; arrays are stored. A folder that was there is replaced as a whole.

    Args:
        model: A name, of which nothing more is needed, or a Keras model; of that nothing of `compile` is kept, since
            `fine_tune` compiles it anew.
        data: From `zoo.load_data`, or cut from such by `folds`, `fewer` and their like.
        folder: Where to.

    Returns:
        Plain values to write down, equal only for equal data and model: "data", its fingerprint; "pictures", how many
        each split has; "classes", how many; "model", its name or the fingerprint of what was handed over.

    Raises:
        TypeError: If `model` or `data` is something else.
        ValueError: If a part cannot reach another process; the message names it and the way out.
        OSError: If the folder cannot be written.
    """
    if not isinstance(model, (str, keras.Model)):
        raise TypeError(f"`model` must be a name or a Keras model. Received: {type(model).__name__}")
    if not isinstance(data, Data):
        raise TypeError(f"`data` must come from zoo.load_data. Received: {type(data).__name__}")
    _check_source(data)
    description = data.describe()
    if isinstance(data.source, Files):
        description["source"]["path"] = os.path.abspath(data.source.root)
    with writing_folder(folder) as new:
        write_json(new / DATA, description)
        data.manifest.to_csv(new / MANIFEST)
        if isinstance(data.source, Arrays):
            np.save(new / PICTURES, data.source.images, allow_pickle=False)
        _check_same(data, _restored(new))
        facts: dict[str, Any] = {
            "data": data.fingerprint,
            "pictures": {split.name: len(split) for split in (data.train, data.dev, data.test)},
            "classes": len(data.class_names),
        }
        own: dict[str, Any] = {}
        if isinstance(model, str):
            facts["model"] = model
        else:
            own = _write_model(model, new / MODEL)
            facts["model"] = _fingerprint(_checked(model, new / MODEL))
        write_json(new / FACTS, {**facts, **own})
    return facts


def load_data(folder: str | os.PathLike, purpose: str = "") -> Data:
    """The data of a reference. It is kept, with the pictures that are prepared from it, for the next call.

    Args:
        folder: Written by `save`.
        purpose: What the pictures are prepared for; for another purpose those that were prepared are let go.

    Raises:
        FileNotFoundError: If there is no such reference, or the pictures are not to be found from here.
        ValueError: If it is damaged.
    """
    folder = Path(folder).resolve()
    if not (folder / DATA).exists():
        raise FileNotFoundError(f"There is no reference in {folder}. Every process of a search must see its folder.")
    state = (folder / DATA).stat()
    return _kept(folder, (state.st_ino, state.st_size, state.st_mtime_ns), purpose)


def moved_data(folder: str | os.PathLike, place: str | os.PathLike) -> Data:
    """The data of a reference, whose pictures were moved since; arrays lie in the reference itself.

    Raises:
        FileNotFoundError: If there is no such reference, or no such folder.
    """
    folder = Path(folder)
    if (folder / PICTURES).exists():
        return load_data(folder)
    return restore(_described(folder), read_manifest(folder / MANIFEST), place)


def stands_for(folder: str | os.PathLike, data: Data) -> bool:
    """Whether a reference is whole, and finds its pictures where some data of the same fingerprint has them."""
    folder = Path(folder)
    try:
        there = _restored(folder)
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    whole = "modules" not in facts or (folder / MODEL).exists()
    return whole and type(there.source) is type(data.source) and list(_places(there)) == list(_places(data))


def _places(data: Data) -> Iterator[str]:
    """Where each picture lies; none of those in memory."""
    if isinstance(data.source, Files):
        yield from (os.path.abspath(data.source.absolute(path)) for path in data.manifest.usable.path)


def _described(folder: Path) -> dict:
    return json.loads((folder / DATA).read_text(encoding="utf-8"))


def load_model(folder: str | os.PathLike) -> keras.Model:
    """The model that was handed over, a new one each time, not compiled.

    Raises:
        ValueError: If the reference has only the name of one, or the file is damaged.
        ImportError: If the module of a layer cannot be imported here.
    """
    folder = Path(folder)
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    if "modules" not in facts:
        raise ValueError(f"The reference in {folder} holds no model, only the name {facts['model']!r}.")
    for module in facts["modules"]:
        importlib.import_module(module)  # which makes its classes known to Keras
    model: Any = _read_model(folder / MODEL)
    if "weights" in facts:
        model.zoo_weights = facts["weights"]  # what `zoo.create` notes on a model, and a file does not hold
    return model


@functools.lru_cache(maxsize=1)
def _kept(folder: Path, state: tuple[int, ...], purpose: str) -> Data:
    return _restored(folder)


def _restored(folder: Path) -> Data:
    """The data as the files of a reference describe it."""
    description = _described(folder)
    table = read_manifest(folder / MANIFEST)
    if (folder / PICTURES).exists():
        images = np.load(folder / PICTURES, mmap_mode="r", allow_pickle=False)
        source = Arrays(images, description["source"]["kind"])
        shape = {name: description[name] for name in SHAPE}
        shape |= {"image_size": checked_size(shape["image_size"]), "background": tuple(shape["background"])}
        data = Data(source, Manifest(table, source=source), **shape)
    else:
        data = restore(description, table)
    if data.fingerprint != description["fingerprint"]:
        raise ValueError(f"The reference in {folder} is damaged: its pictures are not those that were written.")
    return data


def _check_source(data: Data) -> None:
    """Refuses pictures that another process cannot read."""
    if type(data.source) not in (Files, Arrays, Encoded):
        raise ValueError(
            f"`data` cannot reach another process: its source is a {type(data.source).__name__}, which only this one "
            "knows how to open. Load it with zoo.load_data from a folder, a table, arrays or a TensorFlow data set."
        )
    if isinstance(data.source, Files):
        paths = map(data.source.absolute, data.manifest.usable.path)
        places = (os.path.normpath(path) for path in (os.path.abspath(data.source.root) + os.sep, *paths))
        if place := next((place for place in places if f"{place}/".startswith(OF_A_PROCESS)), None):
            raise ValueError(
                f"`data` cannot reach another process: {place} is a place that only this one sees. Copy its pictures, "
                "or the table that names them, into a folder and load that."
            )


def _check_same(data: Data, again: Data) -> None:
    """Refuses data that does not come back as it was."""
    for name in ("fingerprint", *SHAPE):
        if getattr(again, name) != getattr(data, name):
            raise ValueError(
                f"`data` cannot reach another process: its {name} is {getattr(data, name)!r} here and "
                f"{getattr(again, name)!r} there."
            )
    for split in (data.train, data.dev, data.test):
        for path, other in zip(split.relative_paths, getattr(again, split.name).relative_paths, strict=True):
            if path != other:
                raise ValueError(
                    f"`data` cannot reach another process: its picture {path!r} would be {other!r} there. Rename it."
                )


def _write_model(model: keras.Model, path: Path) -> dict:
    """Writes a model, and says which modules have to be imported before it is read.

    Raises:
        ValueError: If a layer, or what a layer is made of, cannot be read in another process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*includes a `lambda`")  # which is refused below, by the layer's name
        try:
            model.save(path)
        except Exception as error:  # whatever a layer's `get_config` raises
            raise ValueError(f"Model '{model.name}' cannot be written for other processes: {error}") from error
    with zipfile.ZipFile(path) as file:
        config = json.loads(file.read("config.json"))
    config.pop("compile_config", None)
    modules = sorted({module for where, item in _objects(config, "") if (module := _module_of(item, where))})
    tag = {"weights": model.zoo_weights} if hasattr(model, "zoo_weights") else {}
    return {"modules": modules, **tag}


def _read_model(path: Path) -> keras.Model:
    model: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
    return model


def _checked(model: keras.Model, path: Path) -> keras.Model:
    """A model as it comes back from its file, if that is the same.

    Raises:
        ValueError: If it is not, or cannot be read at all.
    """
    try:
        again = _read_model(path)
        pairs = zip(model.get_weights(), again.get_weights(), strict=True)
        if _alike(model, again) and all(np.array_equal(one, other) for one, other in pairs):
            return again
        why = "it is another one then"
    except Exception as error:  # whatever a layer's constructor raises
        why = said(error)
    raise ValueError(
        f"Model '{model.name}' cannot be read again after it was written: {why}. See that `get_config` of each of its "
        "layers names every argument of its constructor."
    )


def _alike(model: keras.Model, again: keras.Model) -> bool:
    """Whether two models answer alike, which tells of arguments that no `get_config` names."""
    if not getattr(model, "inputs", None):
        return True  # no functional one: `fine_tune` refuses it
    noise = np.random.default_rng(0)

    def pictures(tensor):
        return noise.uniform(0, 1, (2, *(side or 64 for side in tensor.shape[1:]))).astype("float32")

    # a Sequential model is no part of its own graph, and has no `input` until it is called in another one's
    asked = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    given = keras.tree.map_structure(pictures, asked)
    one, two, other = (keras.tree.flatten(each(given, training=False)) for each in (model, model, again))
    steady = all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))  # else there is nothing to compare
    return not steady or all(np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(one, other, strict=True))


def _objects(config, where: str) -> Iterator[tuple[str, dict]]:
    """Every object in Keras' description of a model, with the layer that it belongs to."""
    if isinstance(config, dict):
        inner = config.get("config")
        if isinstance(inner, dict) and isinstance(inner.get("name"), str) and "class_name" in config:
            where = inner["name"]
        if "class_name" in config or _is_code(config):
            yield where, config
        config = list(config.values())
    for item in config if isinstance(config, list) else ():
        yield from _objects(item, where)


def _is_code(config: dict) -> bool:
    """Whether it is what Keras writes of a lambda, which it does not always say."""
    value = config.get("value")
    lone = set(config) == {"value"} and isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)
    return lone or config.get("class_name") == "__lambda__"


def _module_of(item: dict, where: str) -> str:
    """The module that makes an object known to Keras; "" for Keras' own.

    Raises:
        ValueError: If another process has no such module, or would not know the object after importing it.
    """
    if _is_code(item):
        raise ValueError(f"Layer '{where}' holds a lambda, which another process cannot read. {WAY_OUT}")
    function = item["class_name"] == "function"
    name = item["config"] if function else item.get("registered_name")
    known: Any = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    module = known.__module__ if known is not None else item.get("module") or ""
    if known is None and (_built_in(name) if function else not name or module.split(".")[0] == "keras"):
        return ""
    trouble = (
        "was made in the script or notebook that is running"
        if module == "__main__"
        else "is not registered with Keras"
        if known is None
        else "was made inside a function"
        if "<locals>" in known.__qualname__
        else f"is of module {module}, which cannot be imported"
        if not _importable(module)
        else ""
    )
    if trouble:
        short = str(name).rpartition(">")[-1]
        raise ValueError(f"Layer '{where}' holds {short}, which {trouble}, so another process has none. {WAY_OUT}")
    return module


def _built_in(name) -> bool:
    """Whether Keras knows a function by its name, whoever asks."""
    try:
        keras.saving.deserialize_keras_object({"module": "builtins", "class_name": "function", "config": name})
    except (TypeError, ValueError):
        return False
    return True


def _importable(module: str) -> bool:
    """Whether a module comes from a file that another process can import, too."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return found is not None and found.has_location


def _fingerprint(model: keras.Model) -> str:
    """What a model is: where a layer does not say what it is made of, its weights must do."""
    found = model_fingerprint(model)
    return (found or digest(*(np.asarray(weight) for weight in model.weights)))[:16]
