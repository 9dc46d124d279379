"""What a picture is to the data room, without TensorFlow: the size it is brought to, and bytes that can be read."""

import io
from dataclasses import astuple, dataclass

import numpy as np
from PIL import Image

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, what JPEG and Pillow use
WHITE = (255, 255, 255)
MOST_SEGMENTS = 4096  # of a JPEG file; an EXIF segment behind more of them is not looked for
KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic", "lanczos": "lanczos3"}  # our names: TensorFlow's


@dataclass(frozen=True)
class Geometry:
    """How a picture is brought to the size of a network.

    Args:
        size: Height and width of the result, in pixels.
        channels: 3 for RGB, 1 for grey, 4 for RGB with alpha.
        crop: Share of the shorter side that is kept: that side goes to size / crop, then the centre is cut.
            None squashes the whole picture into `size`.
        interpolation: "bilinear", "bicubic" or "lanczos", always antialiased.
        background: Red, green and blue, 0..255, of what transparent parts are laid on, unless `channels` is 4.

    Raises:
        ValueError: If a value lies outside what is named above.
    """

    size: tuple[int, int]
    channels: int = 3
    crop: float | None = 1.0
    interpolation: str = "bilinear"
    background: tuple[int, int, int] = WHITE

    def __post_init__(self):
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"`size` must be (height, width), each at least 1. Received: size={self.size}")
        if self.channels not in (1, 3, 4):
            raise ValueError(f"`channels` must be 1, 3 or 4. Received: channels={self.channels}")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise ValueError(f"`crop` must lie in (0, 1], or be None to squash. Received: crop={self.crop}")
        if self.interpolation not in KERNELS:
            raise ValueError(
                f"`interpolation` must be one of {', '.join(KERNELS)}. Received: interpolation={self.interpolation!r}"
            )
        object.__setattr__(self, "background", _checked_colour(self.background))  # JSON gives lists, which do not hash

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a prepared picture."""
        return (*self.size, self.channels)

    @property
    def key(self) -> tuple:
        """All values, for fingerprints; a white background, which was once the only one, is left out."""
        return astuple(self) if self.background != WHITE else astuple(self)[:-1]


def _checked_colour(colour) -> tuple[int, int, int]:
    parts = tuple(colour) if isinstance(colour, (tuple, list, np.ndarray)) else ()
    whole = all(isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in parts)
    if len(parts) != 3 or not whole or not all(0 <= part <= 255 for part in parts):
        raise ValueError(
            "`background` must be red, green and blue, three whole numbers from 0 to 255. "
            f"Received: background={colour!r}"
        )
    red, green, blue = map(int, parts)
    return red, green, blue


def portable(data: bytes) -> bytes:
    """The same picture in a form that `decode` reads: itself where possible, else its first frame as PNG."""
    return data if graph_reads(data) else as_png(data)


def as_png(data: bytes) -> bytes:
    """The first frame of a picture, decoded by Pillow and upright, as PNG.

    Raises:
        OSError: If Pillow cannot read it.
    """
    from zoo.data.plain import read

    return encode_png(read(data))


def graph_reads(data: bytes) -> bool:
    """Whether `decode` reads these bytes itself."""
    if data[:3] == b"\xff\xd8\xff" or data[:4] == b"\x89PNG":
        return True
    if data[:4] == b"GIF8":
        return _is_still(data)
    if data[:2] == b"BM":  # 24 or 32 bits, and no mask that may tell of transparency
        return int.from_bytes(data[28:30], "little") in (24, 32) and data[30:31] == b"\x00"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return not (data[12:16] == b"VP8X" and data[20] & 0x02)  # animated
    return False


def _is_still(gif: bytes) -> bool:
    """Whether a GIF holds a single frame, as far as its blocks can be followed (GIF89a, appendix B)."""

    def table(flags):
        return 6 << (flags & 7) if flags & 0x80 else 0

    def past_parts(at):  # each with its length in front, up to one of length 0
        while at < len(gif) and gif[at]:
            at += 1 + gif[at]
        return at + 1

    at, frames = 13 + (table(gif[10]) if len(gif) > 10 else 0), 0
    while frames < 2 and at < len(gif) and gif[at] in b"!,":
        if gif[at] == 0x21:
            at = past_parts(at + 2)
        else:
            frames += 1
            at = past_parts(at + 11 + (table(gif[at + 9]) if len(gif) > at + 9 else 0))
    return frames == 1


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) to the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
