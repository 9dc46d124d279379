import io
import itertools
import json
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data import inspecting
from zoo.data.inspecting import check, inspect, inspect_all
from zoo.data.looking import without_warnings
from zoo.data.manifest import FACTS

ROOT = Path(__file__).parents[2]


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photo():
    """A picture with structure at every scale, as photographs have it: RGB, 96 x 64."""
    rng = np.random.default_rng(0)
    noise = sum(
        np.asarray(Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).resize((96, 64)), np.float32) / side
        for side in (2, 4, 8, 16)
    )
    return Image.fromarray((noise / noise.max() * 255).astype(np.uint8))


@pytest.fixture
def scanned(tmp_path):
    """Writes bytes to a file and inspects it; warnings are errors in these tests."""

    def call(data, **limits):
        path = tmp_path / "file"
        path.write_bytes(data)
        return inspect(path, **limits)

    return call


def grey_png(width, height):
    """The bytes of a PNG file of zeros, made without its pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


READ = {
    "JPEG": ("RGB", "JPEG", {}),
    "grey JPEG": ("L", "JPEG", {}),
    "CMYK JPEG": ("CMYK", "JPEG", {}),
    "progressive JPEG": ("RGB", "JPEG", {"progressive": True}),
    "PNG": ("RGB", "PNG", {}),
    "palette PNG": ("P", "PNG", {"transparency": 0}),
    "PNG with alpha": ("RGBA", "PNG", {}),
    "16-bit PNG": ("I;16", "PNG", {}),
    "1-bit PNG": ("1", "PNG", {}),
    "WEBP": ("RGB", "WEBP", {}),
    "lossless WEBP": ("RGBA", "WEBP", {"lossless": True}),
    "GIF": ("P", "GIF", {}),
    "BMP": ("RGB", "BMP", {}),
    "palette BMP": ("P", "BMP", {}),
    "TIFF": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "16-bit TIFF": ("I;16", "TIFF", {}),
    "CMYK TIFF": ("CMYK", "TIFF", {}),
}


@pytest.mark.parametrize("name", READ)
def test_every_format_that_is_read_is_told_by_content_and_where_it_ends_early(name, photo, scanned):
    mode, kind, options = READ[name]
    image = Image.fromarray(np.asarray(photo.convert("L"), np.uint16) * 257) if mode == "I;16" else photo.convert(mode)
    data = saved(image, kind, **options)
    facts = scanned(data)
    assert (facts["status"], facts["reason"]) == ("usable", "")
    assert facts["format"] == name.split()[-1].replace("alpha", "PNG")
    assert (facts["width"], facts["height"], facts["bytes"]) == (96, 64, len(data))
    assert len(facts["phash"]) == 34
    assert facts.keys() == FACTS.keys()
    for share in (0.3, 0.6, 0.9):
        assert scanned(data[: int(share * len(data))])["status"] == "truncated", share


def test_frames_mode_and_orientation_are_told_and_the_size_is_the_stored_one(photo, scanned):
    lying = Image.Exif()
    lying[0x0112] = 6
    for kind in ("JPEG", "TIFF", "PNG", "WEBP"):
        facts = scanned(saved(photo, kind, exif=lying))
        assert (facts["width"], facts["height"], facts["orientation"], facts["mode"]) == (96, 64, 6, "RGB")
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        assert scanned(saved(photo, kind, save_all=True, append_images=[photo.rotate(180)]))["frames"] == 2
    several = saved(photo, "MPO", save_all=True, append_images=[photo.rotate(180)])
    assert (scanned(several)["format"], scanned(several)["frames"]) == ("JPEG", 1)


OTHERS = {
    "AVIF": b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00mif1miaf",
    "HEIC": b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic",
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "Photoshop": b"8BPS\x00\x01" + bytes(40),
    "ICO": b"\x00\x00\x01\x00\x01\x00" + bytes(40),
    "PNM": b"P6\n1 1\n255\nabc",
    "camera raw": b"II*\x00\x10\x00\x00\x00CR\x02\x00" + bytes(40),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_picture_formats_are_unsupported_and_named(name, scanned):
    facts = scanned(OTHERS[name])
    assert (facts["status"], facts["format"]) == ("unsupported", name)
    assert facts["reason"] == f"a picture of format {name}; convert it to JPEG or PNG"


def test_pixels_of_32_bits_are_unsupported_and_those_of_16_are_not(scanned):
    for mode in ("I", "F"):
        facts = scanned(saved(Image.new(mode, (9, 9), 70_000), "TIFF"))
        assert (facts["status"], facts["width"]) == ("unsupported", 9)
        assert facts["reason"] == "pixels of 32 bits, whose range nobody knows; convert it to 8 or 16 bits"
    wide = np.random.default_rng(0).integers(0, 65_536, (40, 40)).astype(np.uint16)
    shown = check(saved(Image.fromarray((wide >> 8).astype(np.uint8)), "PNG"))["phash"]
    for kind in ("PNG", "TIFF"):
        facts = scanned(saved(Image.fromarray(wide), kind))
        assert (facts["status"], facts["phash"]) == ("usable", shown)


def test_damage_that_keeps_readers_busy_is_found_before_they_begin(photo, scanned):
    jpeg, png = saved(photo, "JPEG"), saved(photo, "PNG")
    empty = struct.pack(">I", 0) + b"abCd" + struct.pack(">I", zlib.crc32(b"abCd"))
    for junk in (bytes(10**6), b"\xff" * 10**6, b"\xff\x00" * 10**6):
        assert scanned(b"\xff\xd8\xff" + junk)["status"] == "truncated"
        assert scanned(jpeg[:20] + junk + jpeg[20:])["reason"] == "more than 262,144 bytes between its segments"
    assert scanned(jpeg[:2] + b"\xff\xe0\x00\x02" * 100_000 + jpeg[2:])["reason"] == "more than 100,000 segments"
    assert scanned(png[:33] + empty * 100_000 + png[33:])["reason"] == "more than 100,000 chunks"
    fill, long = b"\xff" * 5000, (b"\xff\xe2\xff\xff" + bytes(65_533)) * 90
    for sound in (jpeg[:2] + fill + jpeg[2:], jpeg[:2] + long + fill + jpeg[2:], jpeg[:20] + bytes(5000) + jpeg[20:]):
        assert scanned(sound)["status"] == "usable"
    assert scanned(png[:33] + empty * 1000 + png[33:])["status"] == "usable"


def test_what_is_no_picture_is_told_from_what_is_damaged(photo, scanned):
    film = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2"
    for data in (b"these are ones", b"BMW is a car, as many people know", film, b"<html><svg></svg></html>", b"P1ease"):
        assert scanned(data)["status"] == "not an image", data
    assert scanned(b"")["reason"] == "the file is empty"
    png = bytearray(saved(photo, "PNG"))
    png[len(png) // 2] ^= 255
    assert scanned(png)["reason"] == "chunk IDAT does not match its checksum"
    assert scanned(png)["status"] == "unreadable"
    empty = bytearray(saved(photo, "BMP"))
    empty[18:22] = bytes(4)
    assert "its header is damaged" in scanned(empty)["reason"]
    assert scanned(saved(photo.convert("L"), "JPEG")[:-1])["status"] == "truncated"  # Pillow would read it
    assert scanned(saved(photo, "JPEG") + b"x" * 200_000)["status"] == "usable"  # phones append films


def test_nothing_but_files_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert inspect(tmp_path / "pipe")["reason"] == "neither file nor folder"
    assert inspect(tmp_path / "gone")["reason"] == "No such file or directory"
    (tmp_path / "loop").symlink_to("loop")
    assert inspect(tmp_path / "loop")["status"] == "unreadable"


def test_limits_are_kept_before_decoding(photo, tmp_path, scanned):
    facts = scanned(saved(photo, "PNG"), most_pixels=96 * 64 - 1)
    assert (facts["status"], facts["width"]) == ("too large", 96)
    assert facts["reason"] == "96x64, 6.14 thousand pixels; the limit is 6.14 thousand"
    assert scanned(saved(photo, "PNG"), most_pixels=96 * 64)["status"] == "usable"
    vast = bytearray(saved(Image.new("L", (20, 20)), "TIFF"))
    for side in (256, 257):  # the tags of width and height
        at = vast.index(struct.pack("<H", side), 8)
        vast[at : at + 12] = struct.pack("<HHII", side, 4, 1, 30_000)
    facts = scanned(vast, most_pixels=10**10)
    assert facts["status"] == "too large"
    assert facts["reason"].startswith("30000x30000, 900 million pixels; a TIFF file like this")
    huge = tmp_path / "huge"
    huge.write_bytes(saved(photo, "JPEG"))
    os.truncate(huge, 2**33)  # sparse; reading it would take long
    facts = inspect(huge)
    assert facts["reason"] == "8.59 billion bytes; the limit is 268 million"
    assert (facts["status"], facts["bytes"], facts["sha256"]) == ("too large", 2**33, "")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_scan_of_200_megapixels_takes_little_memory(kind, tmp_path):
    data = grey_png(20_000, 10_000)
    if kind == "WEBP":  # its reader would set memory aside for every pixel
        first, second = Image.new("RGBA", (20, 10)), Image.new("RGBA", (20, 10), "red")
        data = bytearray(saved(first, "WEBP", save_all=True, append_images=[second]))
        data[24:30] = (16_382).to_bytes(3, "little") + (16_382).to_bytes(3, "little")
    (tmp_path / "scan").write_bytes(data)
    script = (
        "import resource, sys; from zoo.data.inspecting import inspect\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "inspect(__file__ if '__file__' in dir() else sys.executable); before = most()\n"
        "print(inspect(sys.argv[1])['status'], (most() - before) // 1024, sep=',')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "scan")]
    status, grown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split(",")
    assert status == "too large"
    assert int(grown) < 100  # MiB


def test_warnings_of_the_reader_are_kept_back_in_every_thread(photo, tmp_path):
    data = saved(photo.convert("P"), "PNG", transparency=bytes(range(256)))
    broken = saved(photo, "TIFF").replace(struct.pack("<HHI", 262, 3, 1), struct.pack("<HHI", 262, 3, 9))
    paths = []
    for i in range(40):
        paths.append(tmp_path / f"{i}")
        paths[-1].write_bytes(broken if i % 2 else data)
    before = list(warnings.filters)
    threads = [threading.Thread(target=inspect_all, args=(paths,)) for _ in range(4)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inside = list(warnings.filters)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert warnings.filters == inside
    assert not caught
    with without_warnings():
        with without_warnings():
            pass
        assert warnings.filters != before
    assert warnings.filters == before


@pytest.fixture
def folder(photo, tmp_path):
    """Twelve pictures, old enough to be remembered, and a text."""
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(12):
        (root / f"{i:02d}.png").write_bytes(saved(photo.rotate(10 * i), "PNG"))
    (root / "notes.txt").write_text("text")
    return root


@pytest.fixture
def remembered(tmp_path, monkeypatch):
    """An empty cache that keeps files of any age; a function that gives its file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("zoo.data.scan_cache.SETTLED", 0)
    return lambda: next((tmp_path / "home" / "menagerie" / "scans").iterdir())


def rows(cache):
    return json.loads(cache.read_text().split("\n")[1])["rows"]


def test_what_was_found_is_kept_until_a_file_changes(folder, remembered):
    paths = sorted(folder.iterdir())
    first = inspect_all(paths)
    assert inspect_all(paths, root=folder) == first
    assert rows(remembered()).keys() == {path.name for path in paths}

    text = remembered().read_text().split("\n")[1].replace('"usable"', '"remembered"')
    remembered().write_text(f"{zlib.crc32(text.encode())}\n{text}")
    times = paths[0].stat()
    paths[0].write_bytes(paths[0].read_bytes()[::-1])
    os.utime(paths[0], ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time
    found = inspect_all(paths, root=folder)
    assert [row["status"] for row in found] == ["not an image", *["remembered"] * 11, "not an image"]
    assert inspect_all(paths, root=folder, most_pixels=100)[1]["status"] == "too large"


def test_what_nobody_asks_for_stays_until_it_is_gone_and_names_that_moved_are_not_believed(folder, remembered):
    paths = sorted(folder.iterdir())
    inspect_all(paths, root=folder)
    (folder / "11.png").unlink()
    inspect_all(paths[:1], root=folder)
    assert rows(remembered()).keys() == {path.name for path in paths} - {"11.png"}
    same = saved(Image.new("RGB", (8, 8), "red"), "BMP"), saved(Image.new("RGB", (8, 8), "blue"), "BMP")
    for name, data in zip("ab", same, strict=True):
        (folder / name).mkdir()
        (folder / name / "x.bmp").write_bytes(data)
        os.utime(folder / name / "x.bmp", (0, 0))
    both = [folder / "a" / "x.bmp", folder / "b" / "x.bmp"]
    before = inspect_all(both, root=folder)
    assert rows(remembered())["a/x.bmp"][0][-1] == both[0].stat().st_ino  # where clocks tick slowly, times are equal
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        (folder / old).rename(folder / new)
    assert [row["sha256"] for row in inspect_all(both, root=folder)] == [row["sha256"] for row in before[::-1]]


def test_files_that_just_changed_are_not_remembered(folder, remembered, monkeypatch):
    monkeypatch.setattr("zoo.data.scan_cache.SETTLED", 2 * 10**9)
    os.utime(folder / "00.png", (0, 0))  # its date is old, its content is not
    inspect_all(sorted(folder.iterdir()), root=folder)
    with pytest.raises(FileNotFoundError):
        remembered()


@pytest.mark.parametrize(
    "old, new", [(b"usable", b"us\xffble"), (b"usable", b"unable"), (b"{", b""), (b'": "', b'": "0')]
)
def test_a_cache_that_is_damaged_or_of_another_version_is_none(old, new, folder, remembered):
    paths = sorted(folder.iterdir())
    first = inspect_all(paths, root=folder)
    remembered().write_bytes(remembered().read_bytes().replace(b"usable", new, 1))
    assert inspect_all(paths, root=folder) == first
    assert len(rows(remembered())) == 13


def test_a_cache_that_cannot_be_written_is_none(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(inspect_all(sorted(folder.iterdir()), root=folder)) == 13


def test_processes_find_what_threads_find_and_lose_nothing_when_killed(folder, monkeypatch):
    odd = os.fsencode(folder) + b"/\xff name.png"
    Path(os.fsdecode(odd)).write_bytes((folder / "00.png").read_bytes())
    paths = sorted(folder.iterdir()) * 4
    expected = inspect_all(paths)
    monkeypatch.setattr(inspecting, "MANY", 1)
    monkeypatch.setattr(inspecting, "LOT", 4)
    started = []
    start = subprocess.Popen

    def noted(*args, **options):
        started.append(start(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    assert inspect_all(paths) == expected
    assert started
    assert all(process.poll() is not None for process in started)

    def killed(*args, **options):
        noted(*args, **options).kill()
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", killed)
    assert inspect_all(paths) == expected
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(subprocess, "Popen", start)
    assert inspect_all(paths) == expected


def test_a_worker_ends_with_its_parent(folder):
    worker = [sys.executable, "-m", "zoo.data.looker", "1000000", "1000000"]
    with subprocess.Popen(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        process.stdin.write(json.dumps([str(folder / "00.png")]) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())[0]["status"] == "usable"
        process.stdin.close()  # what the system does for a parent that was killed
        assert process.wait(10) == 0


def test_an_interrupted_scan_keeps_what_it_found(folder, remembered, monkeypatch):
    paths = sorted(folder.iterdir())

    def interrupted(items, *args):
        yield from itertools.islice(items, 5)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(inspecting, "track", interrupted)
        with pytest.raises(KeyboardInterrupt):
            inspect_all(paths, root=folder)
    assert len(rows(remembered())) == 5
    assert len(inspect_all(paths, root=folder)) == 13


def test_check_says_of_bytes_what_inspect_says_of_files(photo, scanned):
    data = saved(photo, "JPEG")
    assert scanned(data) == {**FACTS, **check(data), "bytes": len(data), "sha256": scanned(data)["sha256"]}
    assert check(grey_png(14_000, 14_000))["status"] == "too large"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in READ if name not in ("GIF", "BMP")])
def test_whatever_was_damaged_is_usable_only_where_the_decoder_reads_it(name, photo):
    from zoo.data.decode import decode
    from zoo.data.pictures import portable

    mode, kind, options = READ[name]
    image = Image.fromarray(np.asarray(photo.convert("L"), np.uint16) * 257) if mode == "I;16" else photo.convert(mode)
    whole = saved(image, kind, **options)
    rng = np.random.default_rng(0)
    for i in range(60):
        data = bytearray(whole if i % 3 else whole[: rng.integers(len(whole))])
        for at in rng.integers(0, min(len(data), 200 if i % 2 else len(data)), 2 * (i % 3)):
            data[at] = rng.integers(256)
        if check(bytes(data))["status"] == "usable":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert decode(portable(bytes(data))).shape[-1] == 3
