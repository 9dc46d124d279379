"""Public weight files: from a cache on this machine, or fetched into it."""

import os
import socket
from pathlib import Path

import keras

from zoo.models.entries import WeightTag

_FETCH_SECONDS = 30


def cache_folder() -> Path:
    """Where published weights are kept: Keras' own cache, $KERAS_HOME/models or ~/.keras/models."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".keras") / "models"


def keras_file(tag: WeightTag, url: str, file: str, md5: str | None) -> Path:
    """A file of keras.applications, from Keras' cache or fetched into it.

    Raises:
        FileNotFoundError: If it is not there and cannot be fetched.
    """
    folder = cache_folder()
    path = folder / file
    if path.is_file():
        return path
    part = f"{file}.{os.getpid()}.part"  # takes its name only when it is whole
    timeout = socket.getdefaulttimeout()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(_FETCH_SECONDS)  # a network that swallows packets would hang for minutes
        fetched = keras.utils.get_file(
            part, f"{url}/{file}", cache_dir=str(folder.parent), cache_subdir="models", file_hash=md5
        )
        os.replace(fetched, path)
    except Exception as error:  # Keras wraps what went wrong in a bare Exception
        raise FileNotFoundError(
            f"The weights {tag.name!r} need the file {file!r}, which is not in {str(folder)!r} and could not be "
            f"fetched from {url} ({error}). Copy it there, pass another file (`weights=PATH`), or start from fresh "
            "weights (`weights=None`)."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
        (folder / part).unlink(missing_ok=True)
    return path
