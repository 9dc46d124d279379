"""Bytes to pixels: one decoder for training, evaluation, prediction and the exported graph.

Everything here is a TensorFlow graph, so the SavedModel carries the very operations that training used. What that
graph cannot read (TIFF, palette BMP, animated GIF and WebP) `zoo.data.pictures.portable` turns into PNG before it.
"""

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.data.pictures import GREY, KERNELS, MOST_SEGMENTS, WHITE, Geometry
from zoo.data.plain import orientation

Refused = tf.errors.InvalidArgumentError  # what the graph raises for bytes that it cannot read
STARTS = [  # of files, by position: JPEG, PNG, GIF, BMP, WebP, anything else
    {0: b"\xff\xd8\xff"},
    {0: b"\x89PNG"},
    {0: b"GIF8"},
    {0: b"BM"},
    {0: b"RIFF", 8: b"WEBP"},
    {},
]
RUN = 256  # parts of a GIF that are passed at once where they are of one length, as they mostly are
MOST_STEPS = 1 << 13  # on the way through a GIF, half a second or so


def prepare(data, geometry: Geometry):
    """The bytes of one picture to uint8 pixels (height, width, channels), upright, ready for a network."""
    return fit(decode(data, geometry.channels, geometry.background), geometry)


@lru_cache(maxsize=8)
def compiled(geometry: Geometry) -> Callable[[bytes], tf.Tensor]:
    """`prepare` as graphs, one for each format that is met: those of all formats together take long to trace."""
    lock = threading.Lock()

    @lru_cache
    def traced(kind, turned):  # called without tf.function around it: for small pictures that counts
        def pixels(data):
            if kind == 0 and not turned:
                return _jpeg(data, geometry.channels)
            return _branches(data, geometry.channels, geometry.background)[kind]()

        graph = tf.function(lambda data: fit(pixels(data), geometry), autograph=False)
        return graph.get_concrete_function(tf.TensorSpec([], tf.string))

    def prepare(data):
        kind = next(
            k for k, start in enumerate(STARTS) if all(data[at:].startswith(text) for at, text in start.items())
        )
        with lock:  # not traced twice
            graph = traced(kind, kind == 0 and orientation(data) != 1)
        return graph(tf.constant(data, tf.string))

    return prepare


@lru_cache(maxsize=8)
def fitter(geometry: Geometry) -> Callable[[np.ndarray], tf.Tensor]:
    """`fit` for uint8 pictures of any size as a graph, traced once a geometry."""
    graph = tf.function(lambda image: fit(image, geometry), autograph=False)
    traced = graph.get_concrete_function(tf.TensorSpec([None, None, geometry.channels], tf.uint8))
    return lambda image: traced(tf.constant(image, tf.uint8))


def fit(image, geometry: Geometry):
    """Scales and cuts one picture in a single antialiased resampling.

    Args:
        image: (h, w, channels), values 0..255, any dtype.
        geometry: The size wanted.

    Returns:
        uint8 (height, width, channels).
    """
    height, width = geometry.size
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.constant([height, width], tf.float32) / shape
    if geometry.crop is not None:  # a quotient by a constant would round otherwise in some graphs than in others
        scale = tf.fill([2], tf.reduce_max(scale) * (1 / geometry.crop))
    shift = (tf.constant([height, width], tf.float32) - shape * scale) / 2
    kernel = KERNELS[geometry.interpolation]
    rows = _resampled(image, height, scale[0], shift[0], kernel)
    turned = _resampled(tf.transpose(rows, (1, 0, 2)), width, scale[1], shift[1], kernel)
    pixels = tf.cast(tf.round(turned), tf.uint8) if kernel == "triangle" else _to_bytes(turned)  # it never overshoots
    return tf.ensure_shape(tf.transpose(pixels, (1, 0, 2)), geometry.shape)


def _resampled(image, size, scale, shift, kernel):
    """(h, w, c) to float32 (size, w, c).

    Rows only: those are long vectors to TensorFlow, while it goes over columns pixel by pixel, which takes twice as
    long as everything else together.
    """
    height, width, channels = tf.unstack(tf.shape(image))
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(image, [1, height, 1, width * channels]),
        size=[size, 1],
        scale=tf.stack([scale, 1.0]),
        translation=tf.stack([shift, 0.0]),
        kernel_type=kernel,
        antialias=True,
    )
    return tf.reshape(pixels, [size, width, channels])


def decode(data, channels: int = 3, background: tuple[int, int, int] = WHITE):
    """The bytes of one picture to uint8 pixels (h, w, channels), by content whatever the file was called.

    JPEG is decoded exactly and turned upright by its EXIF orientation; transparent parts are laid on `background`,
    unless `channels` is 4. What is damaged, of another format or animated raises: the decoder of GIF would make the
    pixels of all frames, several times over.
    """
    start = tf.strings.substr(data, 0, 12) + b"\x00" * 12  # so that every part of it exists
    kinds = [
        tf.reduce_all([tf.strings.substr(start, at, len(text)) == text for at, text in parts.items()])
        for parts in STARTS
    ]
    kind = tf.argmax(tf.stack(kinds), output_type=tf.int32)  # the first that holds
    return tf.switch_case(kind, _branches(data, channels, background))


def _branches(data, channels, background):
    """What decodes each of `STARTS`."""
    plain = _from_rgb(channels)

    def layered(rgba):
        return rgba if channels == 4 else plain(_laid_on(rgba, background))

    return [
        lambda: _upright(_jpeg(data, channels), data),
        lambda: layered(_png(data, _Header(data, 32))),
        lambda: layered(_gif(data)),
        lambda: plain(tf.io.decode_bmp(data, channels=3)),
        lambda: layered(_webp(data, _Header(data, 32))),
        lambda: plain(tf.io.decode_image(data, channels=3, expand_animations=False)),  # raises, naming the formats
    ]


def grey(rgb):
    """uint8 (..., 3) to uint8 (..., 1); a grey picture keeps its values exactly."""
    return _to_bytes(tf.tensordot(tf.cast(rgb, tf.float32), tf.constant(GREY)[:, tf.newaxis], 1))


class _Header:
    """The first bytes of a file, or all, as integers; one behind the end reads as 0, so none leads out of bounds."""

    def __init__(self, data, size=-1):
        found = tf.io.decode_raw(tf.strings.substr(data, 0, size), tf.uint8)
        self.length = tf.size(found)
        self.bytes = tf.concat([found, tf.zeros([1], tf.uint8)], 0)

    def byte(self, at):
        """The byte at a position; positions may be a tensor of any shape."""
        inside = tf.logical_and(at >= 0, at < self.length)
        return tf.cast(tf.gather(self.bytes, tf.where(inside, at, self.length)), tf.int32)

    def number(self, at, size, big_endian):
        """An unsigned number of `size` bytes in either order."""
        parts = self.byte(tf.expand_dims(at, -1) + tf.range(size))
        weights = [256**i for i in range(size)]
        return tf.reduce_sum(parts * tf.where(big_endian, weights[::-1], weights), -1)

    def starts(self, text: bytes, at=0):
        """Whether `text` stands at a position."""
        return tf.reduce_all(self.byte(at + tf.range(len(text))) == list(text))


def _jpeg(data, channels):
    """A JPEG to uint8 pixels as they are stored."""
    return _from_rgb(channels)(tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"))


def _from_rgb(channels):
    return {1: grey, 3: _as_it_is, 4: _opaque}[channels]


def _upright(image, data):
    """Undoes the EXIF orientation of a JPEG picture."""
    rest = tf.strings.regex_replace(data, "Exif", "", replace_global=False)  # the quickest search that there is
    mentioned = tf.strings.length(rest) < tf.strings.length(data)
    orientation = tf.cond(mentioned, lambda: _orientation(_Header(data)), lambda: 1)

    def turned():
        found = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        found = tf.cond(_any(orientation, 2, 3, 6, 7), lambda: found[:, ::-1], lambda: found)
        return tf.cond(_any(orientation, 3, 4, 7, 8), lambda: found[::-1], lambda: found)

    return tf.cond(orientation > 1, turned, lambda: image)


def _orientation(head: _Header):
    """1 to 8, from the EXIF segment of a JPEG file (EXIF 2.32, section 4.6.4); 1 where there is none."""

    def is_exif(at):
        return tf.logical_and(head.starts(b"\xff\xe1", at), head.starts(b"Exif\x00\x00", at + 4))

    def walk_on(at):  # segments follow each other until the picture itself begins
        segment = tf.logical_and(head.byte(at) == 0xFF, tf.logical_and(head.byte(at + 1) != 0xDA, at < head.length))
        return tf.logical_and(segment, tf.logical_not(is_exif(at)))

    def over(at):
        return (at + 2 + head.number(at + 2, 2, True),)

    at = tf.while_loop(walk_on, over, (tf.constant(2),), maximum_iterations=MOST_SEGMENTS - 1)[0]
    start = at + 10
    big = head.starts(b"MM", start)
    table = start + head.number(start + 4, 4, big)
    entries = table + 2 + 12 * tf.range(head.number(table, 2, big))
    found = entries[:512][head.number(entries[:512], 2, big) == 0x0112]
    value = tf.cond(tf.size(found) > 0, lambda: head.number(found[0] + 8, 2, big), lambda: 1)
    return tf.where(tf.logical_and(is_exif(at), tf.logical_and(value >= 1, value <= 8)), value, 1)


def _png(data, head: _Header):
    """Any PNG to RGBA; below 8 bits TensorFlow writes the alpha of an opaque picture as 2 ** bits - 1."""
    rgba = tf.io.decode_png(data, channels=4)
    depth = head.byte(24)
    filler = tf.cast(tf.bitwise.left_shift(1, tf.minimum(depth, 8)) - 1, tf.uint8)
    misread = tf.logical_and(depth < 8, tf.reduce_all(rgba[..., 3] == filler))
    return tf.cond(misread, lambda: _opaque(rgba[..., :3]), lambda: rgba)


def _gif(data):
    """A GIF of one frame to RGBA; TensorFlow paints transparent pixels black and does not tell where they are.

    So that pixel is made visible: the flag of transparency is cleared, and the colour that stood for it is once black,
    once white. Where both readings differ, the picture is transparent.
    """
    head = _Header(data)
    control, frame, still = _gif_blocks(head)
    data = tf.where(still, data, "")  # decoding nothing fails
    flags, number = head.byte(frame + 9), head.byte(control + 6)
    table = tf.where(flags >= 0x80, frame + 10, 13)  # the frame's own colours, or those of all frames
    colours = tf.bitwise.left_shift(2, tf.bitwise.bitwise_and(tf.where(flags >= 0x80, flags, head.byte(10)), 7))
    place = table + 3 * number
    data = _replaced(data, frame + 1, b"\x00" * 4)  # TensorFlow's canvas is that of the largest frame, not the file's
    shown = _replaced(data, control + 3, b"\x00")

    def layered():
        first = tf.io.decode_gif(shown)[0]
        marked = [tf.io.decode_gif(_replaced(shown, place, mark))[0] for mark in (b"\x00" * 3, b"\xff" * 3)]
        clear = tf.reduce_any(marked[0] != marked[1], -1, keepdims=True)
        return tf.concat([first, tf.where(clear, tf.constant(0, tf.uint8), tf.constant(255, tf.uint8))], -1)

    transparent = (control > 0) & (head.byte(control + 3) % 2 == 1) & (number < colours)
    rgba = tf.cond(transparent, layered, lambda: _opaque(tf.io.decode_gif(data)[0]))
    left, top, width, height = (head.number(frame + at, 2, False) for at in (1, 3, 5, 7))
    below = tf.maximum(0, head.number(8, 2, False) - top - height)
    right = tf.maximum(0, head.number(6, 2, False) - left - width)
    around: Any = [[top, below], [left, right], [0, 0]]
    return tf.pad(rgba[:height, :width], around)  # nothing lies around a frame smaller than the canvas


def _gif_blocks(head: _Header):
    """Where the graphic control extension of the first frame begins, and the frame itself; 0 where there is none.

    And whether that frame is the only one, as far as the blocks can be followed (GIF89a, appendix B).
    """

    def table(flags):
        return tf.where(flags >= 0x80, tf.bitwise.left_shift(6, flags % 8), 0)

    def walk_on(at, in_parts, control, frame):
        return in_parts | (head.byte(at) == 0x21) | ((head.byte(at) == 0x2C) & (frame == 0))

    def over(at, in_parts, control, frame):
        first, label = head.byte(at), head.byte(at + 1)
        extends = first == 0x21
        run = tf.range(RUN) * (first + 1)  # parts each have their length in front; behind the last one stands a 0
        alike = tf.reduce_sum(tf.math.cumprod(tf.cast(head.byte(at + run) == first, tf.int32)))
        past_parts = at + tf.where(first > 0, alike * (first + 1), 1)
        past_begin = at + tf.where(extends, 2, 11 + table(head.byte(at + 9)))
        control = tf.where(~in_parts & extends & (label == 0xF9) & (frame == 0), at, control)
        frame = tf.where(in_parts | extends, frame, at)
        return tf.where(in_parts, past_parts, past_begin), ~in_parts | (first > 0), control, frame

    begin = 13 + table(head.byte(10)), tf.constant(False), tf.constant(0), tf.constant(0)
    at, in_parts, control, frame = tf.while_loop(walk_on, over, begin, maximum_iterations=MOST_STEPS)
    return control, frame, (frame > 0) & ~in_parts & (head.byte(at) != 0x21) & (head.byte(at) != 0x2C)


def _replaced(data, at, new: bytes):
    """The same bytes with others at a position."""
    return tf.strings.join([tf.strings.substr(data, 0, at), new, tf.strings.substr(data, at + len(new), -1)])


def _webp(data, head: _Header):
    """A still WebP to RGBA; the decoder refuses four channels for a file without alpha, and three with it."""
    alpha = tf.where(head.starts(b"VP8X", 12), head.byte(20), tf.where(head.starts(b"VP8L", 12), head.byte(24), 0))
    return tf.cond(
        tf.bitwise.bitwise_and(alpha, 0x10) > 0,
        lambda: tf.io.decode_webp(data, channels=4)[0],
        lambda: _opaque(tf.io.decode_webp(data, channels=3)[0]),
    )


def _opaque(rgb):
    return tf.concat([rgb, tf.fill(tf.concat([tf.shape(rgb)[:2], [1]], 0), tf.constant(255, tf.uint8))], -1)


def _laid_on(rgba, background):
    """RGBA to RGB; where nothing is transparent, the colours as they are."""
    rgb, alpha = rgba[..., :3], rgba[..., 3:]

    def blend():
        share = tf.cast(alpha, tf.float32) / 255
        return _to_bytes(tf.cast(rgb, tf.float32) * share + tf.constant(background, tf.float32) * (1 - share))

    return tf.cond(tf.reduce_all(alpha == 255), lambda: rgb, blend)


def _as_it_is(image):
    return image


def _to_bytes(values):
    return tf.cast(tf.round(tf.clip_by_value(values, 0, 255)), tf.uint8)


def _any(value, *options):
    return tf.reduce_any([value == option for option in options])


def decodable(data, most_pixels: int):
    """Whether `decode` reads a picture rightly and without filling memory, as far as it can be told without decoding.

    Pixels are counted before any are made: a PNG of 14000x14000 takes half a megabyte as a file and 588 MB as pixels.
    Palette BMP, which TensorFlow misreads, and animated GIF and WebP are refused too, as `graph_reads` does.

    Args:
        data: The bytes of one file, string ().
        most_pixels: The largest width times height.

    Returns:
        bool (). A picture may still turn out to be damaged; a damaged JPEG header raises.
    """
    sides = tf.cond(
        tf.strings.substr(data, 0, 3) == STARTS[0][0],
        lambda: tf.cast(tf.image.extract_jpeg_shape(data)[:2], tf.int64),
        lambda: _sides(data, _Header(data, 32)),
    )
    return tf.reduce_all(sides > 0) & (tf.reduce_prod(sides) <= most_pixels)


def _sides(data, head: _Header):
    """Two sides in pixels, int64 (2,), that a PNG, GIF, BMP or WebP states; 0 where `decode` would not read it."""

    def pair(first, second, size, big_endian=False):
        return tf.cast([head.number(first, size, big_endian), head.number(second, size, big_endian)], tf.int64)

    def is_webp(chunk):
        return head.starts(b"RIFF") & head.starts(b"WEBP" + chunk, at=8)

    packed = tf.bitwise.right_shift(head.number(21, 4, False), [0, 14])  # a lossless WebP keeps 14 bits a side
    kinds = [
        head.starts(b"\x89PNG"),
        head.starts(b"GIF8"),
        head.starts(b"BM") & _any(head.number(28, 2, False), 24, 32),
        is_webp(b"VP8 "),
        is_webp(b"VP8L"),
        is_webp(b"VP8X") & (tf.bitwise.bitwise_and(head.byte(20), 0x02) == 0),  # no animation
        True,
    ]
    return tf.switch_case(
        tf.argmax(tf.stack(kinds), output_type=tf.int32),
        [
            lambda: pair(16, 20, 4, True),
            lambda: _gif_sides(_Header(data)),
            lambda: tf.abs(pair(18, 22, 4)),  # the height of a BMP that begins at the top is negative
            lambda: tf.math.floormod(pair(26, 28, 2), 2**14),
            lambda: tf.cast(1 + tf.math.floormod(packed, 2**14), tf.int64),
            lambda: 1 + pair(24, 27, 3),
            lambda: tf.zeros([2], tf.int64),
        ],
    )


def _gif_sides(head: _Header):
    """Two sides of a GIF of one frame, which may reach beyond the canvas; 0 where there are more frames."""
    _, frame, still = _gif_blocks(head)
    canvas, place, size = (
        tf.stack([head.number(at + beside, 2, False) for beside in (0, 2)]) for at in (6, frame + 1, frame + 5)
    )
    return tf.cast(tf.where(still, tf.maximum(canvas, place + size), 0), tf.int64)
