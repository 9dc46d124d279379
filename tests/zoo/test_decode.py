"""The decoder against Pillow: formats, orientation, transparency, resizing, and the same pixels wherever it runs."""

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from zoo.data.decode import compiled, decode, fit, grey, prepare
from zoo.data.pictures import MOST_SEGMENTS, Geometry, encode_png, graph_reads, portable
from zoo.data.plain import orientation


def picture(width=37, height=23, mode="RGB", seed=0):
    """A smooth picture without symmetry."""
    rng = np.random.default_rng(seed)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    small = Image.fromarray(rng.integers(0, 256, (5, 4, *channels), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(data, mode="RGB"):
    """What Pillow reads, uint8."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert(mode))


@functools.cache
def graph(channels):
    """The decoder as a graph, traced once."""
    return tf.function(
        lambda data: decode(data, channels), input_signature=[tf.TensorSpec([], tf.string)], autograph=False
    )


def read(data, channels=3):
    """What our graph reads, uint8 (h, w, channels)."""
    return graph(channels)(data).numpy()


def with_orientation(value, big_endian=False):
    """An EXIF block with that orientation behind another tag."""
    exif = Image.Exif()
    exif.endian = ">" if big_endian else "<"
    exif[0x010F] = "maker"
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 90}),
        ("JPEG", "RGB", {"quality": 60, "subsampling": 0}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "L", {}),
        ("PNG", "RGB", {}),
        ("PNG", "L", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGB", {"quality": 80}),
        ("GIF", "L", {}),
        ("BMP", "RGB", {}),
    ],
)
def test_pixels_are_those_of_pillow(kind, mode, options):
    data = encoded(picture(mode=mode), kind, **options)
    assert portable(data) is data
    np.testing.assert_array_equal(read(data), pillow(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_name_and_order_of_formats_do_not_matter(kind):
    assert read(encoded(picture(5, 9), kind)).shape == (9, 5, 3)


def test_a_gif_is_read_wherever_its_frame_begins():
    data = encoded(picture(120, 90).quantize(32), "GIF", transparency=3)
    for options in ({"comment": b"x" * 700}, {"interlace": 1}):
        assert graph_reads(encoded(picture().quantize(32), "GIF", **options))
    text = np.random.default_rng(0).integers(32, 122, 140_000, np.uint8).tobytes()  # XMP keeps no lengths of parts:
    xmp = b"\x21\xff\x0bXMP DataXMP" + text + b"\x01" + bytes(range(255, -1, -1)) + b"\x00"  # its end catches all
    at = data.index(b"\x21\xf9")
    behind = data[:at] + xmp + data[at:]
    assert portable(behind) is behind
    np.testing.assert_array_equal(read(behind, 4), read(data, 4))
    np.testing.assert_array_equal(read(data, 4)[..., 3], pillow(data, "RGBA")[..., 3])
    endless = data[:at] + b"\x21\xfe\x00" * 10_000 + data[at:]
    with pytest.raises(tf.errors.InvalidArgumentError):  # rather than minutes on the way
        read(endless)


@pytest.mark.parametrize("transparency", [None, 3])
def test_an_animated_gif_is_not_decoded_but_its_first_frame_made_portable(transparency):
    frames = [picture(300, 200, seed=k).quantize(32) for k in range(2)]
    options = {} if transparency is None else {"transparency": transparency}
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], **options)
    second = data.index(b"\x2c\0\0\0\0", data.index(b"\x2c\0\0\0\0") + 1)
    for moving in (data, data[:-30], data[: second + 1]):
        assert not graph_reads(moving)
        with pytest.raises(tf.errors.InvalidArgumentError):
            read(moving)
        np.testing.assert_array_equal(read(portable(moving), 4), pillow(data, "RGBA"))
    assert graph_reads(data[:second] + b"\x3b")
    np.testing.assert_array_equal(read(data[:second] + b"\x3b", 4)[..., 3], pillow(data, "RGBA")[..., 3])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("big_endian", [False, True])
def test_jpeg_is_turned_upright(orientation, big_endian):
    data = encoded(picture(), "JPEG", quality=95, exif=with_orientation(orientation, big_endian))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read(data), expected)


def test_orientation_is_found_behind_other_segments():
    data = encoded(picture(), "JPEG", exif=with_orientation(6))
    comment = b"\xff\xfe" + (60_002).to_bytes(2, "big") + b"x" * 60_000
    for count in (1, 5):
        found = data[:2] + count * comment + data[2:]
        np.testing.assert_array_equal(read(found), read(data))
        np.testing.assert_array_equal(compiled(Geometry((37, 23)))(found), read(data))
        assert orientation(found) == 6
    short = b"\xff\xfe\x00\x02"
    for count, turned in ((MOST_SEGMENTS - 2, True), (MOST_SEGMENTS, False)):  # JFIF's segment is one more
        found = data[:2] + count * short + data[2:]
        assert (read(found).shape == (37, 23, 3)) == (orientation(found) == 6) == turned


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_upright(value):
    data = encoded(picture(), "JPEG", exif=with_orientation(value))
    np.testing.assert_array_equal(read(data), pillow(data))


def test_exif_block_that_is_cut_off_leads_nowhere():
    data = encoded(picture(), "JPEG")
    for block in (
        b"Exif\x00\x00",
        b"Exif\x00\x00MM\x00*\xff\xff\xff\xff",
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff",
    ):
        segment = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
        np.testing.assert_array_equal(read(data[:2] + segment + data[2:]), pillow(data))


def test_palette_png_with_and_without_transparency():
    colours = picture().quantize(16)
    np.testing.assert_array_equal(read(encoded(colours, "PNG")), np.asarray(colours.convert("RGB")))
    data = encoded(colours, "PNG", transparency=3)
    found = read(data)
    clear = np.asarray(colours) == 3
    assert clear.any()
    assert (found[clear] == 255).all()
    np.testing.assert_array_equal(found[~clear], np.asarray(colours.convert("RGB"))[~clear])


def test_png_of_sixteen_bits_is_scaled():
    values = np.linspace(0, 65535, 20 * 30).astype(np.uint16).reshape(20, 30)
    data = encoded(Image.fromarray(values), "PNG")
    found = read(data)[..., 0].astype(float)
    assert np.abs(found - values / 257).max() <= 1
    assert found.min() == 0 and found.max() == 255


@pytest.mark.parametrize("value", [0, 1])
def test_png_of_one_bit(value):
    bits = Image.fromarray(np.random.default_rng(0).integers(0, 2, (9, 13)).astype(bool))
    data = encoded(bits, "PNG")
    np.testing.assert_array_equal(read(data), pillow(data))
    flat = encoded(Image.new("1", (4, 3), value), "PNG")
    np.testing.assert_array_equal(read(flat), np.full((3, 4, 3), 255 * value))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_png_of_few_bits(bits):
    colours = picture().quantize(2**bits)
    data = encoded(colours, "PNG", bits=bits)
    np.testing.assert_array_equal(read(data), pillow(data))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_transparent_parts_lie_on_white(kind, options):
    image = picture(mode="RGBA")
    data = encoded(image, kind, **options)
    white = Image.new("RGBA", image.size, "white")
    expected = np.asarray(Image.alpha_composite(white, image).convert("RGB")).astype(int)
    assert np.abs(read(data) - expected).max() <= 1  # Pillow blends in integers
    np.testing.assert_array_equal(read(data, channels=4), pillow(data, "RGBA"))


def test_grey_with_transparency_lies_on_white():
    rng = np.random.default_rng(0)
    image = Image.merge("LA", [Image.fromarray(rng.integers(0, 256, (9, 7), np.uint8)) for _ in range(2)])
    values, alpha = (np.asarray(band).astype(float) for band in image.split())
    expected = np.round(values * alpha / 255 + 255 - alpha)
    for channels in (1, 3):
        assert np.abs(read(encoded(image, "PNG"), channels) - expected[..., None]).max() <= 1


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_another_background_is_what_transparent_parts_lie_on(kind, options):
    image = picture(mode="RGBA")
    data = encoded(image, kind, **options)
    colour = Image.new("RGBA", image.size, (10, 200, 77))
    expected = np.asarray(Image.alpha_composite(colour, image).convert("RGB")).astype(int)
    assert np.abs(decode(data, 3, (10, 200, 77)).numpy() - expected).max() <= 1
    shown = prepare(encode_png(np.zeros((4, 4, 4), np.uint8)), Geometry((2, 2), background=(10, 200, 77)))
    assert (shown.numpy() == (10, 200, 77)).all()


def test_transparent_gif_lies_on_the_background():
    colours = picture().quantize(16)
    clear = np.asarray(colours) == 3
    expected = np.asarray(colours.convert("RGB")).copy()
    for options in ({}, {"interlace": 1}, {"comment": b"x" * 700}):
        data = encoded(colours, "GIF", transparency=3, **options)
        for background in ((255, 255, 255), (10, 200, 77)):
            expected[clear] = background
            np.testing.assert_array_equal(decode(data, 3, background), expected)
        np.testing.assert_array_equal(read(data, channels=4)[..., 3] == 0, clear)
    behind_the_palette = data.replace(b"\x21\xf9\x04\x01\x00\x00\x03", b"\x21\xf9\x04\x01\x00\x00\xfa")
    assert behind_the_palette != data
    np.testing.assert_array_equal(read(behind_the_palette), np.asarray(colours.convert("RGB")))


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_without_transparency_has_opaque_alpha(lossless):
    data = encoded(picture(), "WEBP", lossless=lossless)
    assert (read(data, channels=4)[..., 3] == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_grey_and_four_channels(kind):
    data = encoded(picture(), kind)
    rgb = read(data)
    found = read(data, channels=1)
    assert found.shape == (23, 37, 1)
    weighted = rgb.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(found[..., 0] - weighted).max() <= 0.5 + 1e-4
    assert read(data, channels=4).shape == (23, 37, 4)
    np.testing.assert_array_equal(read(data, channels=4)[..., :3], rgb)


def test_grey_keeps_the_values_of_a_grey_picture():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(read(encode_png(values), channels=1)[..., 0], values)
    np.testing.assert_array_equal(grey(np.repeat(values[..., None], 3, -1))[..., 0], values)


def test_what_the_graph_cannot_read_is_made_portable():
    colours = picture().quantize(16)
    tiff = encoded(picture(), "TIFF")
    bitmap = encoded(colours, "BMP")
    frames = [picture(seed=k) for k in range(2)]
    animated = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    for data in (tiff, bitmap, animated):
        assert not graph_reads(data)
        np.testing.assert_array_equal(read(portable(data)), pillow(data))
    deep = Image.fromarray(np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30))
    found = read(portable(encoded(deep, "TIFF")), channels=1)[..., 0].astype(float)
    assert np.abs(found - np.asarray(deep) / 257).max() <= 0.5


def test_transparency_survives_being_made_portable():
    image = picture(mode="RGBA")
    np.testing.assert_array_equal(read(portable(encoded(image, "TIFF")), channels=4), np.asarray(image))


def test_pixels_are_the_same_wherever_the_decoder_runs():
    geometry = Geometry((16, 20), interpolation="bicubic")
    data = [encoded(picture(90, 70), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP")]

    def one(item):
        return prepare(item, geometry)

    def all_of_them(items):
        return tf.map_fn(one, items, fn_output_signature=tf.uint8)

    compiled = tf.function(one, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    pipeline = list(tf.data.Dataset.from_tensor_slices(data).map(one))
    batch = tf.function(all_of_them, autograph=False)(tf.constant(data))
    for k, item in enumerate(data):
        eager = prepare(tf.constant(item), geometry).numpy()
        assert eager.shape == (16, 20, 3) and eager.dtype == np.uint8
        np.testing.assert_array_equal(compiled(item), eager)
        np.testing.assert_array_equal(pipeline[k], eager)
        np.testing.assert_array_equal(batch[k], eager)


FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("width", "height"), [(200, 120), (120, 200), (50, 50), (30, 18), (12, 300)])
def test_squashing_is_within_a_grey_level_of_pillow(width, height, interpolation):
    image = picture(width, height)
    found = fit(np.asarray(image), Geometry((32, 24), crop=None, interpolation=interpolation)).numpy()
    expected = resampled(np.asarray(image), (32, 24), (0, 0, width, height), interpolation)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize(("width", "height"), [(200, 120), (120, 200), (64, 64), (40, 31)])
def test_the_centre_of_the_scaled_picture_is_cut(width, height, crop):
    image = picture(width, height)
    found = fit(np.asarray(image), Geometry((32, 32), crop=crop)).numpy()
    side = min(width, height) * crop
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    expected = resampled(np.asarray(image), (32, 32), box, "bilinear")
    assert np.abs(found - expected).max() <= 1


def resampled(pixels, size, box, interpolation):
    """A float64 reference: each channel resampled from `box` (left, top, right, bottom), by Pillow's formula."""
    height, width = size
    rows = weights(pixels.shape[0], height, box[1], box[3], interpolation)
    columns = weights(pixels.shape[1], width, box[0], box[2], interpolation)
    values = np.einsum("ij,jkc,lk->ilc", rows, pixels.astype(np.float64), columns)
    return np.clip(np.round(values), 0, 255)


def weights(count, wanted, start, end, interpolation):
    """The share of each of `count` samples in each of `wanted`, with the kernel widened by the scale."""
    kernel, reach = KERNELS[interpolation]
    scale = (end - start) / wanted
    widened = max(scale, 1.0)
    centres = start + (np.arange(wanted) + 0.5) * scale
    distance = (np.arange(count) + 0.5 - centres[:, None]) / widened
    share = np.where(np.abs(distance) < reach, kernel(np.abs(distance)), 0)
    return share / share.sum(axis=1, keepdims=True)


def cubic(x):
    """Keys 1981 with a = -0.5."""
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)


KERNELS = {
    "bilinear": (lambda x: 1 - x, 1),
    "bicubic": (cubic, 2),
    "lanczos": (lambda x: np.sinc(x) * np.sinc(x / 3), 3),
}


@pytest.mark.parametrize("interpolation", FILTERS)
def test_the_reference_is_what_pillow_computes(interpolation):
    image = picture(97, 61)
    found = np.asarray(image.resize((24, 32), FILTERS[interpolation]))
    assert np.abs(found - resampled(np.asarray(image), (32, 24), (0, 0, 97, 61), interpolation)).max() <= 1


def test_picture_of_the_wanted_size_stays_as_it_is():
    pixels = np.asarray(picture(24, 32))
    for interpolation in FILTERS:
        np.testing.assert_array_equal(fit(pixels, Geometry((32, 24), interpolation=interpolation)), pixels)


def test_a_single_pixel_fills_any_size():
    assert (prepare(encoded(Image.new("RGB", (1, 1), (7, 8, 9)), "PNG"), Geometry((5, 3))).numpy() == [7, 8, 9]).all()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"no picture at all",
        b"\xff\xd8\xff\xe0" + b"\x00" * 40,
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 40,
        b"GIF89a" + b"\x00" * 3,
        b"BM" + b"\x00" * 5,
        b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    ],
)
def test_bytes_that_are_no_picture_raise(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        read(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_half_a_picture_raises(kind):
    data = encoded(picture(200, 150), kind)
    with pytest.raises(tf.errors.InvalidArgumentError):
        read(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (0, 3)}, "`size` must be .height, width., each at least 1"),
        ({"size": (3,)}, "`size` must be"),
        ({"channels": 2}, "`channels` must be 1, 3 or 4. Received: channels=2"),
        ({"crop": 0}, "`crop` must lie in .0, 1., or be None to squash. Received: crop=0"),
        ({"background": (255, 255)}, "`background` must be red, green and blue, three whole numbers from 0 to 255"),
        ({"background": (0, 0, 256)}, "Received: background=.0, 0, 256."),
        ({"background": (0.5, 0, 0)}, "`background` must be"),
        ({"background": "white"}, "Received: background='white'"),
        ({"interpolation": "nearest"}, "one of bilinear, bicubic, lanczos. Received: interpolation='nearest'"),
    ],
)
def test_geometry_refuses_what_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        Geometry(**{"size": (3, 3), **changes})


def test_a_geometry_is_told_apart_by_its_background():
    white, listed, black = (
        Geometry((3, 3), **given) for given in ({}, {"background": [255] * 3}, {"background": [0] * 3})
    )
    assert hash(white) == hash(listed) and white == listed and listed.background == (255, 255, 255)
    assert white.key == ((3, 3), 3, 1.0, "bilinear")  # as it was before there was a choice
    assert black != white and black.key == (*white.key, (0, 0, 0))
