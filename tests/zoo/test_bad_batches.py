"""Unreadable pictures in a batch: the exported graph answers the others, and says nothing of these."""

import io
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from zoo.data.decode import compiled, decodable
from zoo.data.pictures import Geometry, graph_reads
from zoo.export.graph import read_pictures, write_saved_model
from zoo.export.saved_model import MARKER, load_export

NAMES = ["ant", "bee", "cat"]
BACKGROUND = (200, 30, 60)


def picture(width=40, height=30, seed=0, mode="RGB"):
    """A colourful picture without symmetry."""
    rng = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = rng.integers(0, 256, (5, 4, channels), np.uint8).squeeze()
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animated(kind, mode="RGB"):
    frames = [picture(seed=k, mode=mode) for k in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def bomb(side=14_000):
    """A black PNG of one bit a pixel: 24 KB as a file, 588 MB as RGB."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(side * (side // 8 + 1)), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def top_down(bmp):
    """The same rows read from the top, which a negative height says."""
    return bmp[:22] + struct.pack("<i", -struct.unpack("<i", bmp[22:26])[0]) + bmp[26:]


READABLE = {
    "jpeg": encoded(picture(), "JPEG"),
    "progressive jpeg": encoded(picture(), "JPEG", progressive=True),
    "jpeg behind a long comment": encoded(picture(), "JPEG", comment=b"x" * 60_000),
    "png": encoded(picture()),
    "png with alpha": encoded(picture(mode="RGBA")),
    "gif": encoded(picture().quantize(64), "GIF"),
    "bmp": encoded(picture(), "BMP"),
    "bmp from the top": top_down(encoded(picture(), "BMP")),
    "lossy webp": encoded(picture(), "WEBP"),
    "lossless webp": encoded(picture(), "WEBP", lossless=True),
    "lossy webp with alpha": encoded(picture(mode="RGBA"), "WEBP"),
}
CONVERTIBLE = {
    "tiff": encoded(picture(), "TIFF"),
    "palette bmp": encoded(picture().quantize(64), "BMP"),
    "grey bmp": encoded(picture(mode="L"), "BMP"),
    "animated gif": animated("GIF"),
    "animated webp": animated("WEBP"),
    "animated webp with alpha": animated("WEBP", "RGBA"),
}
LARGE = picture(200, 150)
UNREADABLE = {
    "empty": b"",
    "text": b"not a picture, however long this text may be",
    "magic bytes alone": b"\xff\xd8\xff",
    **{
        f"{kind} cut at {share}": encoded(LARGE, kind)[: int(share * len(encoded(LARGE, kind)))]
        for kind in ("JPEG", "PNG", "WEBP", "BMP")
        for share in (0.1, 0.5, 0.95)
    },
    "progressive jpeg cut": encoded(LARGE, "JPEG", progressive=True)[:-500],
    "bomb": bomb(),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export without its proof, of a network whose answers depend on every pixel."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 64, offset=-2),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    folder = tmp_path_factory.mktemp("export")
    write_saved_model(model, folder / "1", class_names=NAMES, geometry=Geometry((16, 16), background=BACKGROUND))
    (folder / "model.json").write_text(json.dumps({"format": MARKER, "class_names": NAMES, "model": "small"}))
    return folder


@pytest.fixture(scope="module")
def serve(exported):
    loaded = tf.saved_model.load(str(exported / "1"))

    def call(pictures):
        answer = loaded.signatures["serving_default"](image_bytes=tf.constant(pictures, tf.string))
        return {name: values.numpy() for name, values in answer.items()}

    return call


def test_unreadable_pictures_leave_the_others_their_answers(serve):
    good = list(READABLE.values())
    bad = [*UNREADABLE.values(), *CONVERTIBLE.values()]
    order = np.random.default_rng(0).permutation(len(good) + len(bad))
    mixed = [(good + bad)[k] for k in order]
    found = serve(mixed)
    refused = [(list(READABLE) + list(UNREADABLE) + list(CONVERTIBLE))[k] for k in order if k >= len(good)]
    unnamed = order >= len(good)
    assert dict(zip(refused, found["label"][unnamed], strict=True)) == dict.fromkeys(refused, b"")
    assert np.isnan(found["probability"][unnamed]).all() and np.isnan(found["probabilities"][unnamed]).all()

    readable = found["probabilities"][~unnamed]
    assert np.isfinite(readable).all() and np.ptp(readable, axis=0).max() > 0.01
    assert [label.decode() for label in found["label"][~unnamed]] == [NAMES[k] for k in readable.argmax(axis=1)]
    np.testing.assert_array_equal(found["probability"][~unnamed], readable.max(axis=1))
    filled = serve([good[k % len(good)] for k in order])  # the same places, readable pictures in all of them
    np.testing.assert_array_equal(filled["probabilities"][~unnamed], readable)
    alone = np.concatenate([serve([good[k]])["probabilities"] for k in order[~unnamed]])
    np.testing.assert_allclose(alone, readable, atol=1e-6)  # kernels may sum in another order at another size


@pytest.mark.parametrize("count", [1, 2])
def test_batch_of_nothing_readable_has_no_answers(serve, count):
    found = serve([b"text"] * count)
    assert found["label"].tolist() == [b""] * count
    assert np.isnan(found["probabilities"]).all() and found["probabilities"].shape == (count, 3)


def test_several_threads_ask_at_once(serve):
    batches = [[b"", encoded(picture(seed=k), "JPEG"), encoded(picture(seed=k + 1))][: 1 + k % 3] for k in range(24)]
    expected = [serve(batch)["probabilities"] for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda batch: serve(batch)["probabilities"], batches))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pixels_are_counted_before_they_are_made():
    ask = tf.function(decodable, input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)])
    for name, data in READABLE.items():
        assert ask(data, 40 * 30), name
        assert not ask(data, 40 * 30 - 1), name
    assert not ask(bomb()[:33], 14_000**2 - 1) and ask(bomb()[:33], 14_000**2)
    sides = struct.pack(">II", 2**31, 2**31)  # as signed numbers both are negative
    assert not ask(bomb()[:16] + sides + bomb()[24:33], 2**60)
    gif = READABLE["gif"]
    at = gif.index(b",\0\0\0\0")
    beyond = gif[: at + 1] + struct.pack("<HH", 60_000, 2) + gif[at + 5 :]  # the frame, not the canvas, says how large
    assert ask(beyond, 60_040 * 32) and not ask(beyond, 60_040 * 32 - 1)
    for name, data in CONVERTIBLE.items():
        assert not ask(data, 2**60) and not graph_reads(data), name


def test_pixels_are_those_that_training_sees():
    geometry = Geometry((97, 61), crop=0.9, interpolation="bicubic", background=BACKGROUND)
    read = tf.function(lambda files: read_pictures(files, geometry), autograph=False)
    pixels, readable = read(tf.constant([b"", *READABLE.values(), bomb()]))
    assert readable.numpy().tolist() == [False, *[True] * len(READABLE), False]
    expected = np.stack([compiled(geometry)(data) for data in READABLE.values()])
    np.testing.assert_array_equal(pixels, np.pad(expected, ((1, 1), (0, 0), (0, 0), (0, 0))))


def test_transparent_parts_lie_on_the_chosen_background(serve):
    image = picture(16, 16, mode="RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image).convert("RGB")
    layered, expected, colours = serve([encoded(image), encoded(flat), encoded(image.convert("RGB"))])["probabilities"]
    np.testing.assert_allclose(layered, expected, atol=0.01)  # Pillow blends in integers
    assert np.abs(colours - expected).max() > 0.05


def test_predict_converts_what_the_graph_cannot_read_and_counts_it(exported):
    model = load_export(exported)
    same = [encoded(Image.open(io.BytesIO(data)).convert("RGBA")) for data in CONVERTIBLE.values()]
    table = model.predict([*CONVERTIBLE.values(), READABLE["jpeg"]])
    assert table.columns.tolist() == ["path", "label", "probability"]
    np.testing.assert_allclose(table.probability[:-1], model.predict(same).probability, atol=1e-6)
    assert table.attrs["converted"] == {"TIFF": 1, "palette BMP": 2, "animated GIF": 1, "animated WebP": 2}
    assert model.predict(READABLE["jpeg"]).attrs["converted"] == {}


def test_predict_gives_the_reason_for_each_unreadable_picture(exported, serve, tmp_path):
    text = READABLE["png"][:33] + struct.pack(">I", 5) + b"tEXtsharp" + bytes(4) + READABLE["png"][33:]
    gif = bytearray(READABLE["gif"])
    gif[-582] = 0xFF
    damaged = {"png with a wrong checksum": text, "gif with damaged pixels": bytes(gif)}
    unreadable = {**UNREADABLE, **damaged}
    assert serve(list(damaged.values()))["label"].all()  # TensorFlow lets them pass
    (tmp_path / "folder").mkdir()
    names = [f"{k}.jpg" for k in range(len(unreadable))]
    for name, data in zip(names, unreadable.values(), strict=True):
        (tmp_path / "folder" / name).write_bytes(data)
    (tmp_path / "folder" / "good.png").write_bytes(READABLE["png"])
    table = load_export(exported).predict(tmp_path / "folder")
    bad = table.path.str.endswith(".jpg")
    assert bad.sum() == len(unreadable) and (table.problem != "").equals(bad)
    assert table.label[bad].eq("").all() and table.probability[bad].isna().all()
    assert table.label[~bad].isin(NAMES).all()
    by_name = {path.rpartition("/")[2]: problem for path, problem in zip(table.path, table.problem, strict=True)}
    assert "empty" in by_name["0.jpg"]
    assert "checksum" in by_name[names[list(unreadable).index("png with a wrong checksum")]].lower()
    assert "limit" in by_name[names[list(unreadable).index("bomb")]]


def test_command_says_that_pictures_were_converted(exported, tmp_path, command):
    for name in ("tiff", "palette bmp", "png"):
        (tmp_path / name).write_bytes((READABLE | CONVERTIBLE)[name])
    code, out, err = command("predict", exported, tmp_path)
    assert code == 0 and out.count(str(tmp_path)) == 3
    assert "2 pictures were converted before the model saw them (TIFF, palette BMP)." in err
    assert "converted" not in command("predict", exported, tmp_path / "png")[2]
