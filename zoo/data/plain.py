"""The decoder without TensorFlow: what `zoo.data.decode` does, by Pillow and numpy.

Decoded pixels are the same for every format that the graph reads, with one exception: a 16-bit RGB PNG whose
transparency is a single colour (tRNS) comes out opaque here, since Pillow keeps but 8 bits of it. Brought to a size,
pixels are within one grey level.
"""

import io
from typing import Literal

import numpy as np
from PIL import Image, ImageFile, ImageOps

from zoo.data.looking import TURNS
from zoo.data.pictures import GREY, MOST_SEGMENTS, WHITE, Geometry

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def prepare(data: bytes, geometry: Geometry) -> np.ndarray:
    """The bytes of one picture to uint8 pixels (height, width, channels), upright, ready for a network."""
    return fit(decode(data, geometry.channels, geometry.background), geometry)


def decode(data: bytes, channels: int = 3, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """The bytes of one picture to uint8 pixels (h, w, channels), whatever format Pillow knows.

    JPEG and what the graph cannot read is turned upright; of an animation the first frame counts; transparent parts are
    laid on `background`, unless `channels` is 4.

    Raises:
        OSError: If Pillow cannot read it; damaged files make its readers raise nearly anything else.
    """
    pixels = read(data)
    if channels == 4:
        return pixels if pixels.shape[-1] == 4 else np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    pixels = _laid_on(pixels, background)
    return pixels if channels == 3 else grey(pixels)


def read(data: bytes) -> np.ndarray:
    """The bytes of one picture to uint8 RGB (h, w, 3), or RGBA (h, w, 4) where it may be transparent."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format in ("JPEG", "MPO"):
            return _jpeg(image, data)
        if image.format == "PNG":
            return _png(image, data)
        if image.format == "GIF":
            return _gif(image)
        if image.format in ("WEBP", "BMP"):
            return _eight_bits(image)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):  # Pillow's own conversion saturates
            return _rgb(np.round(np.asarray(image, np.float32) / 257).astype(np.uint8))
        return _eight_bits(image)


def fit(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Scales and cuts one picture in a single antialiased resampling.

    Args:
        image: (h, w, channels), values 0..255, any dtype.
        geometry: The size wanted.

    Returns:
        uint8 (height, width, channels).
    """
    (height, width), (rows, columns) = geometry.size, image.shape[:2]
    box = columns, rows
    if geometry.crop is not None:
        scale = max(height / rows, width / columns) / geometry.crop
        box = min(columns, width / scale), min(rows, height / scale)
    left, top = (columns - box[0]) / 2, (rows - box[1]) / 2
    edges = left, top, min(columns, left + box[0]), min(rows, top + box[1])
    found = np.empty((height, width, image.shape[-1]), np.float32)
    for channel in range(image.shape[-1]):  # as floats, since Pillow rounds and clips bytes between rows and columns
        whole = Image.fromarray(image[..., channel].astype(np.float32))
        found[..., channel] = np.asarray(whole.resize((width, height), FILTERS[geometry.interpolation], box=edges))
    return _to_bytes(found)


def grey(rgb: np.ndarray) -> np.ndarray:
    """uint8 (..., 3) to uint8 (..., 1); a grey picture keeps its values exactly."""
    return _to_bytes(rgb.astype(np.float32) @ np.array(GREY, np.float32)[:, np.newaxis])


def _jpeg(image: Image.Image, data: bytes) -> np.ndarray:
    turn = TURNS.get(orientation(data))
    adobe = "adobe" in image.info
    image = image if turn is None else image.transpose(turn)
    if image.mode != "CMYK":
        return np.asarray(image.convert("RGB"))
    inks = np.asarray(image).astype(np.int32)
    light = 255 - inks if adobe else inks  # Pillow takes every file for Adobe's, which are inverted
    return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)


def _png(image: Image.Image, data: bytes) -> np.ndarray:
    depth, clear = data[24], image.info.get("transparency")
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        pixels = _rgb((values >> 8).astype(np.uint8))  # as TensorFlow does; within one of the exact quotient by 257
        if clear is None:
            return pixels
        return np.dstack([pixels, np.where(values == clear, 0, 255).astype(np.uint8)])
    if depth == 16 and image.mode == "RGB":
        image.info.pop("transparency", None)  # a colour of 16 bits, of which Pillow has kept 8
    elif depth < 8 and image.mode == "L" and clear is not None:
        image.info["transparency"] = clear * (255 // (2**depth - 1))  # Pillow has scaled the pixels only
    return _eight_bits(image)


def _gif(image: ImageFile.ImageFile) -> np.ndarray:
    left, top, right, bottom = image.tile[0].extents or (0, 0, *image.size)  # of the first frame
    if (left, top, right, bottom) == (0, 0, *image.size):
        return _eight_bits(image)
    rgba = np.zeros((image.height, image.width, 4), np.uint8)  # nothing lies around a smaller frame
    rgba[top:bottom, left:right] = np.asarray(image.convert("RGBA"))[top:bottom, left:right]
    return rgba


def _eight_bits(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., np.newaxis], 3, axis=-1)


def _laid_on(pixels: np.ndarray, background) -> np.ndarray:
    """RGB or RGBA to RGB; where nothing is transparent, the colours as they are."""
    rgb = pixels[..., :3]
    if pixels.shape[-1] == 3 or (pixels[..., 3] == 255).all():
        return rgb
    share = pixels[..., 3:].astype(np.float32) / 255
    return _to_bytes(rgb.astype(np.float32) * share + np.array(background, np.float32) * (1 - share))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.round(np.clip(values, 0, 255)).astype(np.uint8)


def orientation(data: bytes) -> int:
    """1 to 8, from the EXIF segment of a JPEG file (EXIF 2.32, section 4.6.4), wherever it stands; 1 without one.

    Pillow's own reading would also believe XMP, and tags of other types.
    """

    def number(at, size=2, order: Literal["big", "little"] = "big"):
        return int.from_bytes(data[at : at + size].ljust(size, b"\0"), order)

    at = 2  # segments follow each other until the picture itself begins
    for _ in range(MOST_SEGMENTS):
        start, marker = at + 10, data[at + 1 : at + 2]
        if data[at : at + 1] != b"\xff" or marker == b"\xda":
            return 1
        if marker == b"\xe1" and data[at + 4 : start] == b"Exif\0\0":
            break
        at += 2 + number(at + 2)
    else:
        return 1
    order = "big" if data[start : start + 2] == b"MM" else "little"
    table = start + number(start + 4, 4, order)
    for entry in range(table + 2, table + 2 + 12 * min(number(table, 2, order), 512), 12):
        if number(entry, 2, order) == 0x0112:
            value = number(entry + 8, 2, order)
            return value if 1 <= value <= 8 else 1
    return 1
