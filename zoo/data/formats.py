"""What a file is by its first bytes, whatever it is called."""

import os
import re
from collections.abc import Callable
from typing import BinaryIO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

HEAD = 4096  # bytes that are enough to tell
# What can be trained on. A JPEG file with further pictures behind the first (MPO) is a JPEG file.
READERS: dict[str, Callable[..., ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
BEGINNINGS = {  # other picture formats are named, so that people know what to convert
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
    b"8BPS": "Photoshop",
    b"\x00\x00\x01\x00": "ICO",
    b"\x00\x00\x02\x00": "CUR",
    b"icns": "ICNS",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x00\x00\x00\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"v/1\x01": "OpenEXR",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"gimp xcf": "XCF",
    b"SIMPLE  =": "FITS",
    b"#?RADIANCE": "Radiance HDR",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"FUJIFILMCCD-RAW": "camera raw",
    b"IIU\x00": "camera raw",
    b"IIRO": "camera raw",
}
BRANDS = {  # of the ISO container, ISO/IEC 14496-12 and 23008-12; films share it
    b"avif": "AVIF",
    b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    b"crx ": "camera raw",
}
MOST_PARTS = 100_000  # segments of a JPEG file, chunks of a PNG file; the readers take microseconds for each
MOST_LOOSE = 1 << 18  # bytes of a JPEG file outside of segments, which its reader looks at one by one
STEP = 4096  # bytes that are searched at once
MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
BARE = {0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}  # markers without a length behind them
FIRST, SCAN = 0xC0, 0xDA  # markers: the lowest that a segment has, and that of the picture itself
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes; "BM" alone begins many a text


def kind(head: bytes) -> str:
    """The name of the picture format that a file begins like; "" where it is none.

    Args:
        head: The first `HEAD` bytes, or all there are.
    """
    for beginning, name in BEGINNINGS.items():
        if head.startswith(beginning):
            return "camera raw" if name == "TIFF" and head[8:10] == b"CR" else name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, int.from_bytes(head[:4], "big"), 4))]
        return next((BRANDS[brand] for brand in brands if brand in BRANDS), "")
    if head[:1] == b"P" and head[1:2] in b"1234567fF" and head[2:3].isspace():
        return "PNM"
    if b"<svg" in head.lstrip(b"\xef\xbb\xbf \t\r\n")[:2048] and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        return "SVG" if b"<html" not in head.lower() else ""
    return ""


def webp_size(head: bytes) -> tuple[int, int]:
    """Width and height that a WebP file declares (RFC 9649): its reader sets memory aside as soon as it is opened."""
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def check_parts(name: str, file: BinaryIO) -> None:
    """Refuses what would keep a reader busy for seconds before it finds no picture.

    Raises:
        EOFError: If a JPEG file ends before its first scan.
        ValueError: If there are too many parts, or too much between them.
    """
    if name == "JPEG":
        _check_segments(file)
    if name == "PNG":
        file.seek(8)
        for _ in range(MOST_PARTS):
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IEND":
                return
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
        raise ValueError(f"more than {MOST_PARTS:,} chunks")


def _check_segments(file: BinaryIO) -> None:
    """Walks through a JPEG file (ITU-T T.81, annex B) up to its first scan, as its reader does."""
    at, loose = 2, 0
    for _ in range(MOST_PARTS):
        file.seek(at)
        piece = file.read(STEP)
        found = MARKER.search(piece)
        if found is None and len(piece) < STEP:
            raise EOFError
        skipped = found.start() if found else STEP - 1  # the last byte may begin a marker
        at, loose = at + skipped, loose + skipped
        if loose > MOST_LOOSE:
            raise ValueError(f"more than {MOST_LOOSE:,} bytes between its segments")
        if not found:
            continue
        at, marker = at + 2, found[1][0]
        if marker == SCAN or marker < FIRST:  # those below, the reader itself refuses
            return
        if marker not in BARE:
            file.seek(at)
            at += max(2, int.from_bytes(file.read(2), "big"))
    raise ValueError(f"more than {MOST_PARTS:,} segments")


def ends_early(name: str, head: bytes, tail: bytes, size: int) -> bool:
    """Whether a file that could not be read lacks its end.

    Args:
        name: Its format.
        head: Its first bytes.
        tail: Its last bytes, some thousands.
        size: All its bytes.
    """
    match name:
        case "JPEG":
            return b"\xff\xd9" not in tail
        case "PNG":
            return b"IEND" not in tail
        case "GIF":
            return not tail.endswith(b";")
        case "WEBP":
            return 8 + int.from_bytes(head[4:8], "little") > size
        case "BMP":
            return int.from_bytes(head[2:6], "little") > size
        case _:
            order = "little" if head[:1] == b"I" else "big"
            return name == "TIFF" and head[2:3] != b"+" and int.from_bytes(head[4:8], order) >= size
