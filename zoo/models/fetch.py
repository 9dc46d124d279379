"""Public weight files: from a cache on this machine, or fetched into it.

Files of keras.applications lie in Keras' own cache, files of the Hugging Face hub in the hub's, which other tools share
($HF_HUB_CACHE, $HF_HOME/hub or ~/.cache/huggingface/hub).
"""

import contextlib
import hashlib
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import h5py
from huggingface_hub import constants

from zoo.files import write_json
from zoo.models.entries import HubFile, WeightTag

_FETCH_SECONDS = 30
_ANSWER_SECONDS = 10  # for the hub's first answer
_SHA256 = re.compile("[0-9a-f]{64}")
_WAYS_OUT = "pass another file (`weights=PATH`), or start from fresh weights (`weights=None`)."


def cache_folder() -> Path:
    """Where published weights are kept: Keras' own cache, $KERAS_HOME/models or ~/.keras/models."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".keras") / "models"


def keras_file(tag: WeightTag, url: str, file: str, md5: str | None) -> Path:
    """A file of keras.applications, from Keras' cache or fetched into it; one that is cut short is fetched again.

    Raises:
        FileNotFoundError: If it is not there, or not the whole of it, and cannot be fetched.
    """
    import keras  # takes seconds, and files of the hub do not need it

    folder = cache_folder()
    path = folder / file
    if path.is_file() and _opens(path):
        return path
    state = f"is truncated in {str(folder)!r}" if path.is_file() else f"is not in {str(folder)!r}"
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
            f"The weights {tag.name!r} need the file {file!r}, which {state} and could not be fetched from {url} "
            f"({error}). Copy it there, {_WAYS_OUT}"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
        with contextlib.suppress(OSError):
            (folder / part).unlink()
    return path


def _opens(path: Path) -> bool:
    """Whether an HDF5 file is as long as it says."""
    try:
        with h5py.File(path, "r"):
            return True
    except OSError:
        return False


def hub_file(tag: WeightTag) -> Path:
    """A safetensors file of the Hugging Face hub, from the hub's cache or fetched into it.

    A file that is there is used without a request, and at "main" it stays the one that was fetched first: delete the
    repository's folder in the cache to have a newer one. Its content is held against its checksum before it is used for
    the first time, and again whenever its size or its date has changed; a damaged file is fetched once more. What was
    checked is noted in the folder `.zoo` of the repository's folder.

    A connection that breaks is taken up where it stopped, as long as the call lasts.

    Raises:
        FileNotFoundError: If the file is not there, or not what it should be, and cannot be fetched.
    """
    file = tag.file
    if not isinstance(file, HubFile) or not file.name.endswith(".safetensors"):
        raise ValueError(f"Only .safetensors files are taken from the hub. Received: {file}")
    path = _cached(file)
    fault = _fault(path, file) if path else None
    if path and not fault:
        return path
    try:
        fetched, etag = _fetch(file, path)
        new_fault = _fault(fetched, file, etag)
    except Exception as error:  # from the network, the disk or the hub, of many classes
        need = f"The weights {tag.name!r} need the file {file.name!r} of {file.repository!r} on the Hugging Face hub"
        if path:
            state = f"{str(path)!r} {fault} and could not be fetched again ({_reason(error)}). Delete it"
        else:
            folder = str(_folder(file))
            state = f"it is not in {folder!r} and could not be fetched ({_reason(error)}). Copy that folder here"
        raise FileNotFoundError(f"{need}; {state}, {_WAYS_OUT}") from error
    if new_fault:
        raise FileNotFoundError(
            f"The weights {tag.name!r} cannot be used: {str(fetched)!r}, just fetched from the Hugging Face hub, "
            f"{new_fault}. Delete it, {_WAYS_OUT}"
        )
    return fetched


def _folder(file: HubFile) -> Path:
    """The repository's folder in the hub's cache: blobs, refs and snapshots."""
    return Path(constants.HF_HUB_CACHE) / f"models--{file.repository.replace('/', '--')}"


def _cached(file: HubFile) -> Path | None:
    """The file at the commit that was used before, at the tag's, or at the one that the cache has for its branch."""
    snapshots = _folder(file) / "snapshots"
    commits = [_note(file).get("commit"), file.revision]
    with contextlib.suppress(OSError):
        commits.append((_folder(file) / "refs" / file.revision).read_text().strip())
    places = [snapshots / commit / file.name for commit in commits if commit]
    if file.sha256:  # another tool may have fetched the same file at another commit
        places = [path for path in snapshots.glob(f"*/{file.name}") if _kept_sha256(path) == file.sha256] + places
    return next((path for path in places if path.is_file()), None)


def _commit(path: Path, file: HubFile) -> str:
    return path.relative_to(_folder(file) / "snapshots").parts[0]


def _fetch(file: HubFile, unfit: Path | None) -> tuple[Path, str | None]:
    """The file in the hub's cache, in place of one that is no good, and the checksum that the hub gives for it."""
    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url  # takes half a second

    # The commit stays, unless the checksum says which file is meant.
    revision = _commit(unfit, file) if unfit and not file.sha256 else file.revision
    # A short request comes first: `hf_hub_download` asks a dead network again and again, for minutes.
    url = hf_hub_url(file.repository, file.name, revision=revision)
    etag = get_hf_file_metadata(url, timeout=_ANSWER_SECONDS).etag
    etag = etag if etag and _SHA256.fullmatch(etag) else None
    if etag and file.sha256 and etag != file.sha256:
        raise OSError(f"the SHA-256 of the hub's starts with {etag[:12]} instead of {file.sha256[:12]}")
    if unfit and not unfit.is_symlink():
        unfit.unlink()  # `hf_hub_download` replaces only what its links point to
    path = hf_hub_download(
        file.repository,
        file.name,
        revision=revision,
        force_download=unfit is not None,
        etag_timeout=_ANSWER_SECONDS,
    )
    return Path(path), etag


def _kept_sha256(path: Path) -> str | None:
    """The checksum that the hub's cache keeps: the name of what a snapshot's link points to.

    That may be a link as well, into a store with other names, so it is not followed further.
    """
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else None


def _fault(path: Path, file: HubFile, etag: str | None = None) -> str | None:
    """What is wrong with a file in the cache, as the end of a sentence about it; None if it is whole."""
    note = _note(file)
    state = {"commit": _commit(path, file), "size": path.stat().st_size, "changed": path.stat().st_mtime_ns}
    kept = _kept_sha256(path) or etag
    if file.sha256 and kept and kept != file.sha256:
        return f"is another version (its SHA-256 starts with {kept[:12]} instead of {file.sha256[:12]})"
    expected = file.sha256 or kept
    if state.items() <= note.items() and expected in (None, note["sha256"]):
        return None  # reading half a gigabyte again takes a second or so
    if expected is None and note.get("commit") == state["commit"]:
        expected = note["sha256"]
    if expected is None and not _is_whole(path):  # a copied cache without links, seen for the first time
        return "is damaged (its length is not what its header says)"
    with open(path, "rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if expected not in (None, found):
        return f"is damaged (its SHA-256 starts with {found[:12]} instead of {expected[:12]})"
    with contextlib.suppress(OSError):  # a cache that cannot be written is checked each time
        write_json(_note_path(file), {**state, "sha256": found})
    return None


def _note_path(file: HubFile) -> Path:
    return _folder(file) / ".zoo" / file.revision / f"{file.name}.json"


def _note(file: HubFile) -> dict[str, Any]:
    """Commit, size, date and checksum of the file when it was checked last; empty if it never was."""
    try:
        note = json.loads(_note_path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = isinstance(note, dict) and all(isinstance(note.get(word), str) for word in ("commit", "sha256"))
    return note if known else {}


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says: 8 bytes of length, the header, the tensors."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            header = json.loads(file.read(length)) if length <= size else {}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return 8 + length + max(ends) == size
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


def _reason(error: BaseException) -> str:
    """Why fetching failed, in a few words: the library wraps errors in others, with addresses and request numbers."""
    from huggingface_hub import errors

    known = {
        errors.RepositoryNotFoundError: "the hub has no such repository for you",
        errors.RevisionNotFoundError: "the repository has no such revision",
        errors.EntryNotFoundError: "the repository has no such file",
    }
    while True:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status:
            said = [text for kind, text in known.items() if isinstance(error, kind)]
            return said[0] if said else f"the hub answered with status {status}"
        if error.__cause__ is None:
            break
        error = error.__cause__
    text = re.sub(r"\s*https?://\S+", "", str(error)).strip().split("\n")[0]
    return text.rstrip(".:") or type(error).__name__
