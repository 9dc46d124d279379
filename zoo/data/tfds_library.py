"""What we ask of TensorFlow Datasets: a builder that is prepared, its splits, and its pictures as they are stored."""

import contextlib
import difflib
import importlib.util
import logging
import os
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zoo.data.folders import SPLIT_FOLDERS
from zoo.progress import interactive, track

RETRIES = 3  # a second and a half; TFDS' own ten double their wait to more than three minutes


def data_dir() -> Path:
    """Where TFDS keeps prepared data sets; asked anew, since TFDS reads the variable only when it is imported."""
    return Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()


def prepared(text: str, name: str, config: str, version: str):
    """TFDS' builder of a data set that is ready to be read."""
    missing = [each for each in ("tensorflow", "tensorflow_datasets") if importlib.util.find_spec(each) is None]
    if missing:
        raise ImportError(
            f"Reading {text} for the first time needs TensorFlow Datasets with TensorFlow, and {' and '.join(missing)} "
            "cannot be imported. Install both: pip install tensorflow tensorflow-datasets."
        )
    import tensorflow_datasets as tfds

    full = name + (f"/{config}" if config else "") + (f":{version}" if version else "")
    given = os.environ.get("TFDS_DATA_DIR") and str(data_dir())  # None: the folders that the user told TFDS, too
    try:
        builder = tfds.builder(full, data_dir=given)
    except Exception as error:  # TFDS raises ValueError, AssertionError, RuntimeError and its own
        raise ValueError(_not_found(tfds, text, name, config, error)) from error
    _keys(tfds, text, builder.info)  # said before a long download
    with _hushed():
        ready = builder.is_prepared()
    if not ready:
        try:
            with _hushed(), _download_manners(tfds):
                builder.download_and_prepare()
        except Exception as error:  # requests', TFDS', whatever a builder's own code raises
            place = builder.data_dir_root
            raise OSError(
                f"{text} is not prepared in {place} and could not be downloaded and prepared ({_reason(error)}). "
                f"Prepare it on a machine with a network: tfds build {full} --data_dir {place}, "
                "or set TFDS_DATA_DIR to where it is."
            ) from error
    return builder


def _not_found(tfds, text: str, name: str, config: str, error: Exception) -> str:
    """Why TFDS gave no builder, in a sentence with the names that may have been meant."""
    names = tfds.list_builders(with_community_datasets=False)
    if name not in names:
        near = difflib.get_close_matches(name, names, 3)
        return (
            f"TensorFlow Datasets knows no {name!r}, and none is prepared in {data_dir()}."
            + (f" Did you mean {' or '.join(repr(other) for other in near)}?" if near else "")
            + " For a builder of your own, import its module first."
        )
    configs = list(tfds.builder_cls(name).builder_configs)
    if config and config not in configs:
        near = difflib.get_close_matches(config, configs, 3) or configs[:10]
        return f"{name!r} has no configuration {config!r}. " + (
            f"It has {', '.join(near)}{', ...' if len(near) < len(configs) else ''}." if configs else "It has none."
        )
    return f"TensorFlow Datasets cannot open {text} ({_reason(error)})."


@contextlib.contextmanager
def _download_manners(tfds) -> Iterator[None]:
    """A download that gives up soon where there is no network, and that writes nothing to standard output.

    Where it fails, the manners stay: threads of TFDS' own go on with what waits, and Python does not end before them.
    """
    from tensorflow_datasets.core.download import downloader

    retries = getattr(downloader, "MAX_RETRIES", RETRIES)
    downloader.MAX_RETRIES = RETRIES
    log = logging.getLogger("urllib3.connectionpool")  # a warning for every try and file
    level = log.level
    log.setLevel(logging.ERROR)
    if not interactive():
        tfds.disable_progress_bar()
    with contextlib.redirect_stdout(sys.stderr):
        yield
    log.setLevel(level)
    downloader.MAX_RETRIES = retries


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """TFDS without its warnings, which are on names that it uses itself and on folders that it makes in a moment."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _reason(error: Exception) -> str:
    """An error in a few words."""
    url = getattr(getattr(error, "request", None), "url", None)
    if isinstance(error, OSError) and url:  # what requests raises; its text is a screenful
        return f"no connection to {urllib.parse.urlsplit(url).hostname}"
    text = " ".join(str(error).split())[:400].rstrip(" .")
    return text if " " in text else f"{type(error).__name__} {text}".rstrip()


def kept_splits(text: str, info) -> tuple[dict[str, str], list[str]]:
    """TFDS' splits that are kept, each with ours, and a note on every other one."""
    kept = {name: SPLIT_FOLDERS[name] for name in info.splits if name in SPLIT_FOLDERS}
    if not kept and len(info.splits) == 1:
        kept = dict.fromkeys(info.splits, "")
    if not kept:
        raise ValueError(
            f"{text} has no split called train, validation or test. It has: {', '.join(info.splits) or 'none'}"
        )
    notes = [
        f"{name}: a split of {info.splits[name].num_examples} pictures beside {', '.join(kept)}, passed over"
        for name in info.splits
        if name not in kept
    ]
    return (kept if len(kept) > 1 else dict.fromkeys(kept, "")), notes


def _keys(tfds, text: str, info) -> tuple[str, str]:
    """The features that hold a row's picture and its label."""
    features = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    kinds = tfds.features
    pictures = [
        name
        for name, kind in features.items()
        if isinstance(kind, kinds.Image) and not isinstance(kind, kinds.LabeledImage) and kind.np_dtype != np.float32
    ]
    labels = [name for name, kind in features.items() if isinstance(kind, kinds.ClassLabel)]
    given = info.supervised_keys
    if given and given[0] in pictures and given[1] in labels:
        return given[0], given[1]
    if len(pictures) == len(labels) == 1:
        return pictures[0], labels[0]
    listed = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in features.items())
    raise ValueError(
        f"{text} does not say which picture bears which label: one Image of whole numbers and one ClassLabel are "
        f"wanted, or supervised_keys that name them. Its features: {listed or info.features}"
    )


def examples(text: str, builder, splits: dict[str, str]) -> Iterator[tuple[dict, bytes]]:
    """Path, label and split of every picture, with its bytes as they are stored."""
    import tensorflow_datasets as tfds

    picture, label = _keys(tfds, text, builder.info)
    names = builder.info.features[label]
    wanted = tfds.decode.PartialDecoding({picture: True, label: True}, {picture: tfds.decode.SkipDecoding()})
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)  # one shard behind the other

    def rows():
        for split, place in splits.items():
            with _hushed():
                stored = builder.as_dataset(split=split, shuffle_files=False, decoders=wanted, read_config=config)
            for number, example in enumerate(tfds.as_numpy(stored)):
                code = int(example[label])
                row = {"path": f"{split}/{number:06d}", "split": place}
                yield {**row, "label": names.int2str(code) if code >= 0 else ""}, bytes(example[picture])

    total = sum(builder.info.splits[split].num_examples for split in splits)
    try:
        yield from track(rows(), f"Reading {text}", total)
    except Exception as error:  # TensorFlow's, which this room does not import
        raise ValueError(
            f"What was prepared of {text} in {builder.data_dir} cannot be read ({_reason(error)}). "
            "Delete that folder, and open it again."
        ) from error
