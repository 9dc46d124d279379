"""Bytes to pixels: one decoder for training, evaluation, prediction and the exported graph.

Everything here is a TensorFlow graph, so the SavedModel carries the very operations that training used. What that
graph cannot read (TIFF, palette BMP, animated WebP) `zoo.data.pictures.portable` turns into PNG before it.
"""

import tensorflow as tf

from zoo.data.pictures import KERNELS, Geometry

HEADER = 1 << 17  # an EXIF segment ends within 64 KiB, but may stand behind another segment of that size
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, what JPEG and Pillow use


def prepare(data, geometry: Geometry):
    """The bytes of one picture to uint8 pixels (height, width, channels), upright, ready for a network."""
    return fit(decode(data, geometry.channels), geometry)


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
    if geometry.crop is not None:
        scale = tf.fill([2], tf.reduce_max(scale) / geometry.crop)
    shift = (tf.constant([height, width], tf.float32) - shape * scale) / 2
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=tf.cast(image, tf.float32)[tf.newaxis],
        size=[height, width],
        scale=scale,
        translation=shift,
        kernel_type=KERNELS[geometry.interpolation],
        antialias=True,
    )[0]
    return tf.ensure_shape(_to_bytes(pixels), geometry.shape)


def decode(data, channels: int = 3):
    """The bytes of one picture to uint8 pixels (h, w, channels), by content whatever the file was called.

    JPEG is decoded exactly and turned upright by its EXIF orientation; of an animation the first frame counts;
    transparent parts are laid on white, unless `channels` is 4.
    """
    head = _Header(data)
    kinds = [
        head.starts(b"\xff\xd8\xff"),
        head.starts(b"\x89PNG"),
        head.starts(b"GIF8"),
        head.starts(b"BM"),
        head.starts(b"RIFF") & head.starts(b"WEBP", at=8),
        True,
    ]
    kind = tf.argmax(tf.stack(kinds), output_type=tf.int32)  # the first that holds
    plain = _plain if channels == 3 else (_opaque if channels == 4 else grey)
    layered = {1: lambda rgba: grey(_on_white(rgba)), 3: _on_white, 4: _plain}[channels]
    return tf.switch_case(
        kind,
        [
            lambda: _upright(plain(tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")), head),
            lambda: layered(_png(data, head)),
            lambda: plain(tf.io.decode_gif(data)[0]),
            lambda: plain(tf.io.decode_bmp(data, channels=3)),
            lambda: layered(_webp(data, head)),
            lambda: plain(tf.io.decode_image(data, channels=3, expand_animations=False)),  # raises, naming the formats
        ],
    )


def grey(rgb):
    """uint8 (..., 3) to uint8 (..., 1); a grey picture keeps its values exactly."""
    return _to_bytes(tf.tensordot(tf.cast(rgb, tf.float32), tf.constant(GREY)[:, tf.newaxis], 1))


class _Header:
    """The first bytes of a file as integers; a byte behind the end reads as 0, so no file can lead out of bounds."""

    def __init__(self, data):
        found = tf.io.decode_raw(tf.strings.substr(data, 0, HEADER), tf.uint8)
        self.length = tf.size(found)
        self.bytes = tf.concat([found, tf.zeros([1], tf.uint8)], 0)

    def byte(self, at):
        """The byte at a position; positions may be a tensor of any shape."""
        inside = tf.logical_and(at >= 0, at < self.length)
        return tf.cast(tf.gather(self.bytes, tf.where(inside, at, self.length)), tf.int32)

    def number(self, at, size, big_endian):
        """An unsigned number of `size` bytes in either order."""
        parts = self.byte(tf.expand_dims(at, -1) + tf.range(size))
        weights = tf.constant([256**i for i in range(size)])
        return tf.reduce_sum(parts * tf.where(big_endian, weights[::-1], weights), -1)

    def starts(self, text: bytes, at=0):
        """Whether `text` stands at a position."""
        return tf.reduce_all(self.byte(at + tf.range(len(text))) == list(text))


def _upright(image, head: _Header):
    """Undoes the EXIF orientation of a JPEG picture."""
    orientation = _orientation(head)
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(_any(orientation, 2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    return tf.cond(_any(orientation, 3, 4, 7, 8), lambda: image[::-1], lambda: image)


def _orientation(head: _Header):
    """1 to 8, from the EXIF segment of a JPEG file (EXIF 2.32, section 4.6.4); 1 where there is none."""

    def is_exif(at):
        return tf.logical_and(head.starts(b"\xff\xe1", at), head.starts(b"Exif\x00\x00", at + 4))

    def walk_on(at):  # segments follow each other until the picture itself begins
        segment = tf.logical_and(head.byte(at) == 0xFF, tf.logical_and(head.byte(at + 1) != 0xDA, at < head.length))
        return tf.logical_and(segment, tf.logical_not(is_exif(at)))

    at = tf.while_loop(walk_on, lambda at: (at + 2 + head.number(at + 2, 2, True),), (tf.constant(2),))[0]
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


def _on_white(rgba):
    """RGBA to RGB; where nothing is transparent, the colours as they are."""
    rgb, alpha = rgba[..., :3], rgba[..., 3:]

    def blend():
        share = tf.cast(alpha, tf.float32) / 255
        return _to_bytes(tf.cast(rgb, tf.float32) * share + 255 * (1 - share))

    return tf.cond(tf.reduce_all(alpha == 255), lambda: rgb, blend)


def _plain(image):
    return image


def _to_bytes(values):
    return tf.cast(tf.round(tf.clip_by_value(values, 0, 255)), tf.uint8)


def _any(value, *options):
    return tf.reduce_any([value == option for option in options])
