"""One file: whether it holds a whole picture, and what it looks like. Light: worker processes import nothing more."""

import contextlib
import hashlib
import io
import os
import stat
import threading
import warnings
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from zoo.data.formats import HEAD, READERS, check_parts, ends_early, kind, webp_size
from zoo.data.likeness import perceptual_hash

MOST_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs: a quarter of a gigabyte as RGB
MOST_BYTES = 2**28
AT_ONCE = 1 << 22  # bytes; larger files are read piece by piece
TAIL = 1 << 16  # bytes; the end of a picture is looked for here first
END_OF_JPEG = b"\xff\xd9"
ORIENTATION = 0x0112  # EXIF 2.32, section 4.6.4
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DNG_VERSION, SUBFILE_TYPE = 50706, 254  # TIFF tags
DRAFT = 64  # pixels of a reduced JPEG picture: twice what the perceptual hash takes


def look(path: str | os.PathLike, most_pixels: int = MOST_PIXELS, most_bytes: int = MOST_BYTES) -> dict:
    """What can be said of one file; keys as in a manifest. Whatever is wrong with it is a status, not an exception."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            return _bad("unreadable", "neither file nor folder")
        with open(path, "rb") as file:
            return _look(file, found.st_size, most_pixels, most_bytes)
    except OSError as error:
        return _bad("unreadable", error.strerror or str(error))


def look_at_bytes(data: bytes, most_pixels: int = MOST_PIXELS, most_bytes: int = MOST_BYTES) -> dict:
    """The same of bytes, without their sha256."""
    head = data[:HEAD]
    name = kind(head)
    trouble = _trouble(name, len(data), most_bytes)
    return trouble or _picture(name, io.BytesIO(data), head, len(data), most_pixels)


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps Pillow's warnings back: the manifest says it, once a file.

    Filters belong to the whole process, so several threads share one change of them: the first to come makes it, the
    last to leave takes it back.
    """
    global _quiet, _visitors
    with _door:
        if not _visitors:
            _quiet = warnings.catch_warnings()
            _quiet.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _visitors += 1
    try:
        yield
    finally:
        with _door:
            _visitors -= 1
            if not _visitors:
                _quiet.__exit__(None, None, None)


_door = threading.Lock()
_visitors = 0
_quiet = warnings.catch_warnings()


def _look(file: BinaryIO, size: int, most_pixels: int, most_bytes: int) -> dict:
    head = file.read(HEAD)
    name = kind(head)
    facts: dict = {"bytes": size}
    if size > most_bytes:  # neither read nor hashed
        return facts | _trouble(name, size, most_bytes)
    if size <= AT_ONCE:
        data = head + file.read(size)
        facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        file = io.BytesIO(data)
    else:
        file.seek(0)
        facts["sha256"] = _sha256(file)
    trouble = _trouble(name, facts["bytes"], most_bytes)
    return facts | (trouble or _picture(name, file, head, facts["bytes"], most_pixels))


def _sha256(file: BinaryIO) -> str:
    found = hashlib.sha256()
    while piece := file.read(AT_ONCE):
        found.update(piece)
    return found.hexdigest()


def _trouble(name: str, size: int, most_bytes: int) -> dict:
    """What is wrong as far as size and first bytes tell; empty where nothing is."""
    if not size:
        return _bad("unreadable", "the file is empty")
    if not name:
        return _bad("not an image", "no picture format begins like this")
    if name not in READERS:
        return _bad("unsupported", f"a picture of format {name}; convert it to JPEG or PNG") | {"format": name}
    if size > most_bytes:
        return _bad("too large", f"{_count(size)} bytes; the limit is {_count(most_bytes)}") | {"format": name}
    return {}


def _picture(name: str, file: BinaryIO, head: bytes, size: int, most_pixels: int) -> dict:
    """Opens and decodes a picture of a format that we read, with as few pixels as possible."""
    facts: dict = {"format": name}
    try:
        if name == "WEBP":
            _check_size(*webp_size(head), facts, most_pixels)
        check_parts(name, file)
        file.seek(0)
        with READERS[name](file) as image:  # not through Image.open, which warns of sizes that are checked here
            _check_size(*_stored_size(image), facts, most_pixels)
            facts |= {"mode": image.mode, "orientation": _orientation(image)}
            if isinstance(image, TiffImageFile) and _is_raw(image):
                raise _Found("unsupported", "a picture of format camera raw; convert it to JPEG or PNG")
            if name == "TIFF" and image.mode in ("I", "F"):  # black or white, once they are cut to bytes
                reason = "pixels of 32 bits, whose range nobody knows; convert it to 8 or 16 bits"
                raise _Found("unsupported", reason)
            drafted = image.draft(None, (DRAFT, DRAFT))  # JPEG: every byte is read, few pixels are made
            image.load()
            facts["phash"] = _likeness(image, drafted[1] if drafted else None)
            facts["frames"] = _frames(image)
            _check_end(name, file)
    except _Found as found:
        return facts | _bad(*found.args)
    except Image.DecompressionBombError:  # where `most_pixels` was raised above what the reader takes
        reason = f"a {name} file like this is not read beyond {_count(2 * MOST_PIXELS)}"
        return facts | _bad("too large", f"{_measured(facts['width'], facts['height'])}; {reason}")
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        text = str(error) or type(error).__name__
        file.seek(max(0, size - TAIL))
        if isinstance(error, EOFError) or "truncated" in text.lower() or ends_early(name, head, file.read(), size):
            return facts | _bad("truncated", "the file ends before the picture does")
        return facts | _bad("unreadable", f"its header is damaged ({text})" if isinstance(error, SyntaxError) else text)
    return facts | {"status": "usable", "reason": ""}


class _Found(Exception):
    """Status and reason of a picture that is read no further."""


def _check_size(width: int, height: int, facts: dict, most_pixels: int) -> None:
    facts |= {"width": width, "height": height}
    if width * height > most_pixels:
        raise _Found("too large", f"{_measured(width, height)}; the limit is {_count(most_pixels)}")


def _check_end(name: str, file: BinaryIO) -> None:
    """Refuses what Pillow lets pass and other decoders do not: damaged or missing PNG chunks, JPEG without end.

    Raises:
        EOFError: If the end is missing.
        ValueError: If a chunk that counts (PNG 1.2, section 3.3) does not match its checksum.
    """
    if name == "PNG":
        file.seek(8)
        chunk = b""
        while chunk != b"IEND":
            length, chunk = int.from_bytes(_exactly(file, 4), "big"), _exactly(file, 4)
            found = zlib.crc32(chunk)
            for start in range(0, length, AT_ONCE):
                found = zlib.crc32(_exactly(file, min(AT_ONCE, length - start)), found)
            if found != int.from_bytes(_exactly(file, 4), "big") and chunk[:1].isupper():
                raise ValueError(f"chunk {chunk.decode('ascii', 'replace')} does not match its checksum")
    if name == "JPEG":
        file.seek(-min(TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
        if END_OF_JPEG not in file.read():  # a film may follow the picture
            file.seek(0)
            last = b""
            while END_OF_JPEG not in last:
                last = last[-1:] + _exactly(file, 1, AT_ONCE)


def _exactly(file: BinaryIO, least: int, most: int | None = None) -> bytes:
    found = file.read(most or least)
    if len(found) < least:
        raise EOFError
    return found


def _is_raw(image: TiffImageFile) -> bool:
    """Whether a TIFF file is a camera's raw file, whose first picture is only a preview."""
    return DNG_VERSION in image.tag_v2 or image.tag_v2.get(SUBFILE_TYPE) == 1


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as stored: of a TIFF file that lies on its side, Pillow gives them upright."""
    on_its_side = image.format == "TIFF" and _orientation(image) >= 5
    return (image.height, image.width) if on_its_side else image.size


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or none that can be read."""
    with contextlib.suppress(Exception):
        found = image.getexif().get(ORIENTATION, 1)
        return found if isinstance(found, int) and 1 <= found <= 8 else 1
    return 1


def _frames(image: Image.Image) -> int:
    """How many pictures follow each other; the first is what counts, so damage behind it does not matter."""
    with contextlib.suppress(Exception):
        return getattr(image, "n_frames", 1)
    return 1


def _likeness(image: Image.Image, box: tuple | None) -> str:
    """The perceptual hash of a decoded picture as we show it: upright, on white.

    Args:
        box: The part that a reduced JPEG picture fills, (0, 0, width, height); its last pixels stand for less.
    """
    try:
        if image.mode.startswith("I;16"):  # Pillow's own conversion saturates
            upright = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        elif image.has_transparency_data:
            layers = image.convert("RGBA")
            upright = Image.new("RGB", image.size, "white")
            upright.paste(layers, mask=layers.getchannel("A"))
        else:
            upright = image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise _Found("unsupported", f"pixels of mode {image.mode} ({error}); convert it to JPEG or PNG") from None
    orientation = _orientation(image)  # asked again: Pillow turns TIFF itself and forgets it then
    return perceptual_hash(upright, box, TURNS.get(orientation))


def _bad(status: str, reason: str) -> dict:
    return {"status": status, "reason": reason}


def _measured(width: int, height: int) -> str:
    return f"{width}x{height}, {_count(width * height)} pixels"


def _count(number: int) -> str:
    """A number as people read it."""
    return next((f"{number / unit:.3g} {name}" for unit, name in UNITS if number >= unit), str(number))


UNITS = ((10**9, "billion"), (10**6, "million"), (10**3, "thousand"))
