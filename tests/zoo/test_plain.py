"""The decoder without TensorFlow against the graph: the same pixels from every format, sizes within a grey level."""

import functools
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from zoo.data import plain
from zoo.data.pictures import Geometry, encode_png, graph_reads, portable

BACKGROUND = (10, 200, 77)


def picture(mode="RGB", width=37, height=23, seed=0):
    """A smooth picture without symmetry."""
    channels = len(mode) if mode != "L" else 1
    values = np.random.default_rng(seed).integers(0, 256, (5, 4, channels), np.uint8)
    bands = [Image.fromarray(band) for band in np.moveaxis(values, -1, 0)]
    small = bands[0] if mode == "L" else Image.merge(mode, bands)
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(pixels, depth, kind, key=None):
    """A PNG as Pillow does not write it: (h, w, channels) numbers of `depth` bits, perhaps a transparent colour."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = pixels.shape
    bits = np.unpackbits(pixels.astype(">u2").reshape(height, -1, 1).view(np.uint8), axis=-1)[..., 16 - depth :]
    rows = np.packbits(bits.reshape(height, -1), axis=-1)
    colour = chunk(b"tRNS", np.array(key, ">u2").tobytes()) if key else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
        + colour
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
        + chunk(b"IEND", b"")
    )


def jpegs():
    yield "plain", encoded(picture(), "JPEG", quality=90)
    yield "one pixel", encoded(picture(width=1, height=1), "JPEG")
    yield "coarse", encoded(picture(width=131, height=77), "JPEG", quality=5, subsampling=2)
    yield "fine", encoded(picture(width=131, height=77), "JPEG", quality=100, subsampling=0)
    yield "progressive", encoded(picture(), "JPEG", progressive=True)
    yield "grey", encoded(picture("L"), "JPEG")
    yield "stored as RGB", encoded(picture(), "JPEG", keep_rgb=True)
    inks = encoded(picture("CMYK"), "JPEG", quality=95)
    adobe = inks.index(b"Adobe")
    yield "CMYK", inks
    yield "YCCK", inks[: adobe + 11] + b"\x02" + inks[adobe + 12 :]
    yield "CMYK, not Adobe's", inks[: adobe - 4] + inks[adobe + 12 :]
    for orientation in range(1, 9):
        for mode in ("RGB", "CMYK"):
            exif = Image.Exif()
            exif[0x0112] = orientation
            yield f"{mode} lying {orientation}", encoded(picture(mode), "JPEG", exif=exif)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
    yield "orientation in XMP alone", encoded(picture(), "JPEG", xmp=xmp)


def pngs():
    rng = np.random.default_rng(0)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield mode, encoded(picture("RGBA").convert(mode), "PNG")
    for depth in (1, 2, 4):
        yield f"palette of {depth} bits", encoded(picture().quantize(2**depth), "PNG", bits=depth)
        yield f"and a clear one, {depth}", encoded(picture().quantize(2**depth), "PNG", bits=depth, transparency=1)
        grey = rng.integers(0, 2**depth, (9, 8, 1))
        yield f"grey of {depth} bits", png(grey, depth, 0)
        yield f"and clear, {depth}", png(grey, depth, 0, key=[1])
    yield "translucent palette", encoded(picture().quantize(16), "PNG", transparency=bytes(range(0, 160, 10)))
    yield "a clear grey", encoded(picture("L"), "PNG", transparency=100)
    for kind, channels in ((0, 1), (2, 3), (4, 2), (6, 4)):
        yield f"16 bits, {channels} channels", png(rng.integers(0, 2**16, (9, 7, channels)), 16, kind)
    yield "a clear grey of 16 bits", png(rng.integers(0, 3, (9, 7, 1)), 16, 0, key=[1])


def others():
    for options in ({"lossless": True}, {"quality": 60}):
        for mode in ("RGB", "RGBA", "L"):
            yield f"WebP {mode} {options}", encoded(picture(mode), "WEBP", **options)
    colours = picture().quantize(32)
    yield "GIF", encoded(colours, "GIF")
    yield "GIF, clear", encoded(colours, "GIF", transparency=3, comment=b"x" * 700)
    yield "GIF, interlaced", encoded(colours, "GIF", interlace=1)
    for name, options in (("opaque", {}), ("clear", {"transparency": 3})):
        whole = encoded(colours, "GIF", **options)
        at = whole.index(b",\0\0\0\0")
        canvas = whole[:6] + struct.pack("<HH", 50, 40) + whole[10 : at + 1]
        yield f"GIF, {name}, on a larger canvas", canvas + struct.pack("<HH", 4, 2) + whole[at + 5 :]
    yield "GIF over its edge", whole[: at + 1] + struct.pack("<HH", 4, 2) + whole[at + 5 :]
    yield "BMP", encoded(picture(), "BMP")
    yield "BMP of 32 bits", encoded(picture("RGBA"), "BMP")


def converted():
    yield "TIFF", encoded(picture(), "TIFF")
    yield "TIFF, clear", encoded(picture("RGBA"), "TIFF")
    yield "TIFF, CMYK", encoded(picture("CMYK"), "TIFF")
    deep = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    yield "TIFF of 16 bits", encoded(Image.fromarray(deep), "TIFF")
    yield "TIFF, lying", encoded(picture(), "TIFF", tiffinfo={0x0112: 6})
    yield "BMP with a palette", encoded(picture().quantize(16), "BMP")
    yield "BMP with a mask of transparency", masked_bitmap()
    more = [picture("RGBA", seed=1)]
    yield "WebP, moving", encoded(picture("RGBA"), "WEBP", save_all=True, append_images=more, lossless=True)
    frames = [picture(seed=seed).quantize(32) for seed in range(3)]
    for name, options in (("", {}), (" and clear", {"transparency": 3})):
        moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], **options)
        yield f"GIF, moving{name}", moving
        at = moving.index(b",\0\0\0\0")
        canvas = moving[:6] + struct.pack("<HH", 50, 40) + moving[10 : at + 1]
        yield f"GIF, moving{name}, on a larger canvas", canvas + struct.pack("<HH", 4, 2) + moving[at + 5 :]


def masked_bitmap():
    pixels = np.asarray(picture("RGBA"))[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 124, 37, 23, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks + b"BGRs"
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels), 0, 0, 138) + header.ljust(124, b"\0") + pixels


def named(*kinds):
    return [pytest.param(data, id=name) for kind in kinds for name, data in kind()]


@functools.cache
def graph(channels):
    tf = pytest.importorskip("tensorflow")
    from zoo.data.decode import decode

    return tf.function(
        lambda data: decode(data, channels, BACKGROUND), input_signature=[tf.TensorSpec([], tf.string)], autograph=False
    )


@pytest.mark.parametrize("data", named(jpegs, pngs, others))
def test_both_decoders_give_the_same_pixels(data):
    assert portable(data) is data
    for channels in (1, 3, 4):
        expected = graph(channels)(data).numpy()
        np.testing.assert_array_equal(plain.decode(data, channels, BACKGROUND), expected)


@pytest.mark.parametrize("data", named(converted))
def test_what_the_graph_cannot_read_is_the_same_when_converted(data):
    assert not graph_reads(data)
    for channels in (1, 3, 4):
        expected = graph(channels)(portable(data)).numpy()
        np.testing.assert_array_equal(plain.decode(data, channels, BACKGROUND), expected)


def test_transparent_parts_lie_on_the_background():
    def shown(data, channels=3):
        return plain.decode(data, channels, BACKGROUND)

    rgba = np.asarray(picture("RGBA")).copy()
    rgba[:5, :, 3], rgba[5:9, :, 3] = 0, 255
    data = encode_png(rgba)
    assert (shown(data)[:5] == BACKGROUND).all()
    np.testing.assert_array_equal(shown(data)[5:9], rgba[5:9, :, :3])
    np.testing.assert_array_equal(shown(data, 4), rgba)
    assert (shown(data, 1)[:5] == round(0.299 * 10 + 0.587 * 200 + 0.114 * 77)).all()
    colours = picture().quantize(16)
    for kind in ("PNG", "GIF"):
        found = shown(encoded(colours, kind, transparency=3))
        np.testing.assert_array_equal((found == BACKGROUND).all(-1), np.asarray(colours) == 3)


def test_a_colour_key_of_sixteen_bits_is_the_one_exception():
    pixels = np.random.default_rng(0).integers(0, 2, (9, 7, 3))
    data = png(pixels * 257, 16, 2, key=[257, 257, 257])
    np.testing.assert_array_equal(plain.decode(data, 3, BACKGROUND), pixels)
    clear = (pixels == 1).all(-1)
    np.testing.assert_array_equal(graph(3)(data).numpy(), np.where(clear[..., None], BACKGROUND, pixels))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_sizes_are_within_a_grey_level_of_the_graph(interpolation):
    pytest.importorskip("tensorflow")
    from zoo.data import decode

    rng = np.random.default_rng(0)
    for height, width in ((120, 200), (200, 120), (31, 40), (1, 1), (700, 30)):
        for pixels in (np.asarray(picture(width=width, height=height)), rng.integers(0, 2, (height, width, 3)) * 255):
            for crop in (None, 1.0, 0.875):
                for size in ((32, 24), (64, 64)):
                    geometry = Geometry(size, crop=crop, interpolation=interpolation)
                    expected = decode.fit(pixels.astype(np.uint8), geometry).numpy().astype(int)
                    found = plain.fit(pixels.astype(np.uint8), geometry)
                    assert found.dtype == np.uint8
                    assert np.abs(found - expected).max() <= 1, (height, width, crop, size)


def test_a_picture_of_the_wanted_size_stays_as_it_is():
    pixels = np.asarray(picture(width=24, height=32))
    for interpolation in plain.FILTERS:
        np.testing.assert_array_equal(plain.fit(pixels, Geometry((32, 24), interpolation=interpolation)), pixels)


def test_prepared_pictures_have_the_shape_of_the_geometry():
    data = encoded(picture("RGBA", 60, 40), "PNG")
    for channels in (1, 3, 4):
        assert plain.prepare(data, Geometry((16, 20), channels)).shape == (16, 20, channels)


@pytest.mark.parametrize("data", [b"", b"no picture", encoded(picture(width=200, height=150), "JPEG")[:900]])
def test_what_is_no_whole_picture_raises(data):
    with pytest.raises(OSError):
        plain.decode(data)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_exif_block_that_is_cut_off_leads_nowhere():
    data = encoded(picture(), "JPEG")
    for block in (b"", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"II*\0\x08\0\0\0\x01\0\x12\x01"):
        segment = b"Exif\0\0" + block
        broken = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
        assert plain.orientation(broken) == 1
        np.testing.assert_array_equal(plain.decode(broken), plain.decode(data))
    for end in (2, 3, 4):
        assert plain.orientation(data[:end]) == 1
