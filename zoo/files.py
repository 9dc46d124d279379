"""Writing so that an interruption leaves the old file or the new one, never half of one."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and renames it to `path` once it is written and on disk.

    The temporary name keeps the suffix, since Keras reads the format from it. Where the block raises, the
    temporary file goes and the old one stays.

    Raises:
        OSError: If the folder cannot be made or written; the message names the folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{shown(path)} is a folder; name a file.")
    if path.exists() and not path.is_file():  # a device such as /dev/null must not be replaced
        raise OSError(f"{shown(path)} is no regular file; name one.")
    path = Path(os.path.realpath(path))  # what a link points to is replaced, not the link
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name.split('.')[0]}-{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replaces the text of a file in one step."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value) -> None:
    """Replaces a JSON file in one step; NaN is refused, since other readers cannot read it."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def writing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Gives an empty folder beside `path` to fill, and puts it in `path`'s place when the block ends well.

    What stood at `path` goes only after the new folder is complete; where the block raises, it stays.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent))
    os.chmod(temporary, 0o777 & ~_umask())  # mkdtemp makes folders that nobody else can read
    try:
        yield temporary
        if path.exists():
            old = path.with_name(f"{temporary.name}.old")
            os.rename(path, old)
            os.rename(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def new_folder(parent: str | os.PathLike, name: str) -> Path:
    """Makes the first free PARENT/NAME-N, a folder that nobody else has.

    Raises:
        OSError: If it cannot be made.
    """
    parent = make_folder(parent)
    number = 1
    while True:
        with contextlib.suppress(FileExistsError):
            (parent / f"{name}-{number}").mkdir()
            return parent / f"{name}-{number}"
        number += 1


def make_folder(path: str | os.PathLike) -> Path:
    """Makes a folder with its parents and checks that it can be written.

    Raises:
        OSError: If it cannot be made, is a file, or cannot be written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"The folder {path} cannot be made: {error.strerror}. Choose another place to write to."
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f"The folder {path} cannot be written. Choose another place to write to.")
    return path


def cache_folder(name: str = "") -> Path:
    """A folder of ours in the user's cache: $XDG_CACHE_HOME/menagerie/`name`, or below ~/.cache; it may not exist."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "menagerie" / name


def shown(path: str | os.PathLike) -> str:
    """A path as people read it: relative where it lies below the working folder."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
