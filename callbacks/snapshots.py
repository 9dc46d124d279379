"""Snapshots on disk: folders that are whole or not there, and of which every byte is checked before one is used.

A snapshot is the folder `<directory>/epoch-0003-step-000120/`, called after the place where a fit goes on:

    model.safetensors, ...   arrays, a file a part
    state.json               everything else
    manifest.json            what wrote it, and length and SHA-256 of every other file and of itself

It is written under a hidden name, brought to the disk file by file, and renamed.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

PROGRAM, FORMAT = "menagerie snapshot", 1
MANIFEST, STATE, ARRAYS = "manifest.json", "state.json", ".safetensors"
_NAME = re.compile(r"epoch-(\d{4,})-step-(\d{6,})")
_LEFTOVER = re.compile(rf"\.{_NAME.pattern}\.\d+\.(tmp|old)")
_TYPES: dict[str, Any] = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BOOL": "bool",
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}


class Damaged(ValueError):
    """A snapshot that is not what was written."""


class Position(NamedTuple):
    """Where a fit goes on: whole epochs done, and steps done of the one behind them."""

    epoch: int
    step: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"epoch-{self.epoch:04d}-step-{self.step:06d}"


@dataclass(frozen=True)
class Snapshot:
    """What was read.

    Attributes:
        position: Where to go on.
        arrays: Part to name to array.
        state: Plain values.
        about: What the writer said of itself.
    """

    position: Position
    arrays: dict[str, dict[str, np.ndarray]]
    state: dict[str, Any]
    about: dict[str, Any]


def write(
    directory: Path,
    position: Position,
    arrays: Mapping[str, Mapping[str, np.ndarray]],
    state: Mapping[str, Any],
    about: Mapping[str, Any],
) -> Path:
    """Writes a snapshot; one that stood at the same position goes once the new one is whole.

    Raises:
        OSError: If it cannot be written; what was there before is still there.
    """
    path = directory / position.name
    temporary, old = (directory / f".{path.name}.{os.getpid()}.{end}" for end in ("tmp", "old"))
    try:
        for leftover in (temporary, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        os.mkdir(temporary)
        files = {f"{part}{ARRAYS}": safetensors.numpy.save(dict(values)) for part, values in arrays.items()}
        files[STATE] = json.dumps(state, ensure_ascii=False).encode()
        digests = {name: {"bytes": len(data), "sha256": _digest(data)} for name, data in files.items()}
        body = {"program": PROGRAM, "format": FORMAT, **position._asdict(), "files": digests, "about": dict(about)}
        files[MANIFEST] = json.dumps({**body, "sha256": _digest(_canonical(body))}, indent=1).encode()
        for name, data in files.items():
            with open(temporary / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync_folder(temporary)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        _sync_folder(directory)
    except OSError:
        if not path.exists() and old.exists():
            with contextlib.suppress(OSError):
                os.replace(old, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():  # else what was put aside is all that there is
            shutil.rmtree(old, ignore_errors=True)
    return path


def read(path: Path) -> Snapshot:
    """Reads a snapshot.

    Raises:
        Damaged: If any byte of it is not as it was written; the message says what is wrong.
    """
    try:
        manifest = _manifest(path)
        there, wanted = {entry.name for entry in os.scandir(path)}, {MANIFEST, *manifest["files"]}
        if there != wanted:
            raise Damaged(f"it holds {', '.join(sorted(there))} where {', '.join(sorted(wanted))} were written")
        data = {name: (path / name).read_bytes() for name in manifest["files"]}
    except OSError as error:
        raise Damaged(f"{error.strerror}: {error.filename}") from None
    for name, content in data.items():
        facts = manifest["files"][name]
        if len(content) != facts["bytes"]:
            raise Damaged(f"{name} has {len(content)} bytes where {facts['bytes']} were written")
        if _digest(content) != facts["sha256"]:
            raise Damaged(f"{name} has other bytes than were written")
    arrays = {name.removesuffix(ARRAYS): _arrays(data[name]) for name in data if name != STATE}
    position = Position(manifest["epoch"], manifest["step"])
    return Snapshot(position, arrays, json.loads(data[STATE]), manifest["about"])


def positions(directory: Path) -> list[Position]:
    """The positions of which there are snapshots, whole or not, newest first."""
    found = (_NAME.fullmatch(entry.name) for entry in os.scandir(directory) if entry.is_dir())
    there = [(match[0], Position(int(match[1]), int(match[2]))) for match in found if match]
    return sorted((position for name, position in there if position.name == name), reverse=True)


def prepare(directory: Path) -> None:
    """Makes a folder for snapshots, or refuses it; hidden files, such as file managers leave, are let be.

    Raises:
        ValueError: If it holds anything else.
        OSError: If it cannot be made or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"The folder {directory} cannot be made: {error.strerror}.") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"The folder {directory} cannot be written. Choose another one.")
    names = (entry.name for entry in os.scandir(directory))
    others = sorted(name for name in names if not (name.startswith(".") or _NAME.fullmatch(name)))
    if others:
        raise ValueError(
            f"{directory} holds files that are none of ours ({', '.join(others[:3])}{', ...' if others[3:] else ''}). "
            "Give the checkpoints a folder of their own."
        )


def remove(directory: Path, position: Position) -> None:
    """Removes a snapshot: first its name, so that a kill in between leaves none that looks damaged."""
    old = directory / f".{position.name}.{os.getpid()}.old"
    os.replace(directory / position.name, old)
    shutil.rmtree(old, ignore_errors=True)


def tidy(directory: Path) -> None:
    """Removes what a killed writer left; nobody else may be writing.

    A snapshot that was put aside for a new one comes back where the new one did not arrive.
    """
    for entry in list(os.scandir(directory)):
        match = _LEFTOVER.fullmatch(entry.name)
        if match and match[3] == "old":
            place = directory / Position(int(match[1]), int(match[2])).name
            if not place.exists():
                with contextlib.suppress(Damaged, OSError):
                    read(Path(entry.path))  # a removal that was cut short leaves a part
                    os.replace(entry.path, place)
                    continue
        if match:
            shutil.rmtree(entry.path, ignore_errors=True)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        digest = manifest.pop("sha256")
        if digest != _digest(_canonical(manifest)):
            raise Damaged(f"{MANIFEST} has other bytes than were written")
        if (manifest["program"], manifest["format"]) != (PROGRAM, FORMAT):
            raise Damaged(f"it is a {manifest['program']} of format {manifest['format']}")
        if Position(manifest["epoch"], manifest["step"]).name != path.name.split(".")[path.name.startswith(".")]:
            raise Damaged("it lies under another name than it was written")
    except Damaged:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"{MANIFEST} cannot be read") from None
    return manifest


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    # not safetensors.numpy.load, which does not know bfloat16
    return {
        name: np.frombuffer(entry["data"], _TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in safetensors.deserialize(data)
    }


def _canonical(body) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync_folder(path: Path) -> None:
    """Brings a folder's list of names to the disk."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
