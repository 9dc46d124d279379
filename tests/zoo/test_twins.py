import hashlib
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageOps

from zoo.data import twins
from zoo.data.inspecting import check
from zoo.data.twins import marked


def photo(seed, width=120, height=90):
    """Something with the structure of a photograph: noise whose strength falls with its frequency, in colour."""
    rng = np.random.default_rng(seed)
    sides = (2, 3, 5, 8, 16, 32)
    layers = {side: Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)) for side in sides}
    sums = sum(np.asarray(layer.resize((width, height)), np.float32) / side for side, layer in layers.items())
    return Image.fromarray((sums / sums.max() * 255).astype(np.uint8))


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def table(*rows):
    """Path, label and bytes to the rows that a scan makes of them."""
    facts = [
        {"path": path, "label": label, "twin": "", **check(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, label, data in rows
    ]
    return pd.DataFrame(facts)


def said(marked_table):
    return marked_table.set_index("path")[["status", "twin", "reason"]].T.to_dict("list")


def grouped(*images):
    """For each picture, the number of the first that shows the same."""
    rows = marked(table(*((str(i), "a", data) for i, data in enumerate(images))))
    return [int(twin or path) for path, twin in zip(rows.path, rows.twin, strict=True)]


def test_a_photo_saved_scaled_or_converted_anew_is_a_near_duplicate():
    image = photo(0)
    half, double = image.resize((60, 45), Image.Resampling.LANCZOS), image.resize((240, 180), Image.Resampling.BICUBIC)
    again = [saved(image, "JPEG", quality=quality) for quality in (30, 60, 95)]
    again += [saved(image, "WEBP", quality=70), saved(image, "GIF"), saved(image, "BMP"), saved(image, "TIFF")]
    again += [saved(half, "JPEG"), saved(double, "JPEG"), saved(half, "WEBP"), saved(double)]
    again += [saved(image.resize((101, 77)), "JPEG"), saved(image.convert("RGBA"))]
    assert grouped(saved(image), *again, saved(photo(1))) == [0] * (len(again) + 1) + [len(again) + 1]


def test_grey_of_16_bits_and_transparent_parts_show_what_is_seen():
    image = photo(0)
    grey = image.convert("L")
    deep = Image.fromarray(np.asarray(grey, np.uint16) * 257)
    assert grouped(saved(grey), saved(deep), saved(deep, "TIFF")) == [0, 0, 0]
    sides = image.copy()
    sides.putalpha(Image.fromarray(np.uint8(np.indices((90, 120))[1] > 60) * 255))
    flat = Image.new("RGB", image.size, "white")
    flat.paste(sides, mask=sides)
    assert grouped(saved(image), saved(sides), saved(flat, "JPEG")) == [0, 1, 1]


def test_a_picture_decoded_at_an_eighth_has_nearly_the_hash_of_the_whole_one():
    differing = []
    for seed in range(4):
        image = photo(seed, 521, 521)  # an eighth of it is 66 pixels wide, the last of which stands for one
        whole, reduced = (check(data)["phash"] for data in (saved(image), saved(image, "JPEG", quality=95)))
        differing.append((int(whole[:30], 16) ^ int(reduced[:30], 16)).bit_count())
    assert np.mean(differing) < 5  # taken as 66 whole pixels: 10


def test_a_photo_that_lies_on_its_side_shows_the_same_as_the_upright_one():
    image = photo(0)
    turns = {3: 180, 6: 90, 8: -90}  # how the camera was held: what EXIF says undoes it
    for orientation, angle in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        lying = image.rotate(angle, expand=True)
        for kind in ("JPEG", "TIFF"):
            assert grouped(saved(image), saved(lying, kind, exif=exif), saved(lying)) == [0, 0, 2], (orientation, kind)


def test_other_pictures_are_no_twins():
    image = photo(0)
    red, green, blue = image.split()
    others = [ImageOps.mirror(image), ImageOps.flip(image), image.rotate(180), image.crop((12, 9, 108, 81))]
    light, *chromas = image.convert("YCbCr").split()
    tinted = Image.merge("YCbCr", (light, *(chroma.point(lambda level: level + 20) for chroma in chromas)))
    others += [
        ImageOps.invert(image),
        Image.merge("RGB", (blue, red, green)),
        tinted.convert("RGB"),
        *(photo(seed) for seed in range(1, 30)),
    ]
    assert grouped(saved(image), *map(saved, others)) == list(range(len(others) + 1))


def test_plain_faded_and_tiny_pictures_have_no_perceptual_hash():
    flat = [Image.new("RGB", (64, 64), colour) for colour in ("white", "black", "red")]
    fades = [Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90)]
    dot = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(dot).point((32, 32), "black")
    noisy = Image.fromarray(np.random.default_rng(0).integers(127, 130, (64, 64, 3), np.uint8))
    for image in (*flat, *fades, dot, noisy, photo(0).resize((200, 15))):
        assert check(saved(image))["phash"] == ""
    assert check(saved(photo(0).resize((16, 16))))["phash"]


def test_the_first_stays_usable_and_the_others_name_it():
    image = photo(0)
    png, jpeg = saved(image), saved(image, "JPEG")
    before = table(("a.jpg", "cat", jpeg), ("b.png", "cat", png), ("c.jpg", "cat", jpeg), ("d.png", "cat", png))
    lone = table(("e.png", "cat", saved(photo(1))), ("f.txt", "cat", b"text"))
    rows = pd.concat([lone, before])  # an index with repeats
    kept = rows.copy()
    result = marked(rows)
    assert said(result) == {
        "e.png": ["usable", "", ""],
        "f.txt": ["not an image", "", "no picture format begins like this"],
        "a.jpg": ["usable", "a.jpg", ""],
        "b.png": ["near-duplicate", "a.jpg", "shows the same as a.jpg"],
        "c.jpg": ["duplicate", "a.jpg", "the same as a.jpg"],
        "d.png": ["duplicate", "a.jpg", "the same as b.png"],
    }
    pd.testing.assert_frame_equal(rows, kept)
    pd.testing.assert_frame_equal(marked(result), result)


def test_the_same_bytes_under_two_labels_are_a_conflict_on_every_row():
    image = photo(0)
    png, jpeg = saved(image), saved(image, "JPEG")
    result = marked(
        table(("a", "cat", png), ("b", "cat", png), ("c", "dog", png), ("d", "cat", jpeg), ("e", "dog", jpeg))
    )
    found = said(result)
    assert found["a"] == ["label conflict", "a", "the same as c, which is labelled dog"]
    assert found["b"] == ["label conflict", "a", "the same as c, which is labelled dog"]
    assert found["c"] == ["label conflict", "a", "the same as a, which is labelled cat"]
    assert found["e"] == ["label conflict", "d", "the same as d, which is labelled cat"]
    result = marked(result.assign(label="cat"))  # asked anew with other labels
    assert list(result.status) == ["usable", "duplicate", "duplicate", "near-duplicate", "duplicate"]


def test_near_twins_under_two_labels_are_kept_and_say_so():
    found = said(marked(table(("a", "cat", saved(photo(0))), ("b", "dog", saved(photo(0), "JPEG")))))
    assert found["a"] == ["usable", "a", ""]
    assert found["b"] == ["near-duplicate", "a", "shows the same as a, which is labelled cat"]


def hashed(signs, colour=(128, 128)):
    """Signs (n, 120) to rows with perceptual hashes, every content different."""
    tail = bytes(colour).hex()
    phash = [np.packbits(row).tobytes().hex() + tail for row in signs]
    numbers = [str(i) for i in range(len(phash))]
    return pd.DataFrame(
        {"path": numbers, "label": "a", "status": "usable", "reason": "", "sha256": numbers, "phash": phash, "twin": ""}
    )


def test_every_pair_within_the_limit_is_found_and_none_beyond():
    rng = np.random.default_rng(0)
    for distance in range(twins.NEAR + 2):
        first = rng.integers(0, 2, (200, 120))
        second = first.copy()
        for row in second:
            row[rng.choice(120, distance, replace=False)] ^= 1
        result = marked(hashed(np.concatenate([first, second])))
        near = (result.status == "near-duplicate").sum()
        assert near == (200 if distance <= twins.NEAR else 0)
        assert distance > twins.NEAR or (result.twin[200:] == result.path[:200].to_numpy()).all()


def test_a_chain_of_like_pictures_does_not_become_one_group():
    rng = np.random.default_rng(0)
    film = rng.integers(0, 2, (1, 120)).repeat(40, 0)
    for i, sign in enumerate(rng.permutation(120)):
        film[1 + i // 3 :, sign] ^= 1  # three signs differ from frame to frame
    result = marked(hashed(film))
    first = film[result.twin.astype(int)]
    assert result.twin.nunique() > 40 * 3 / twins.FARTHEST / 2
    assert (first != film).sum(1).max() <= twins.FARTHEST


def test_what_has_no_hash_has_no_twin():
    rows = hashed(np.zeros((3, 120), int)).assign(phash="", sha256="")
    assert (marked(rows).status == "usable").all()
    assert len(marked(rows[:0])) == 0


def test_many_frames_of_one_scene_are_one_group():
    frames = np.zeros((1500, 120), int)
    frames[0, ::2] = 1
    rng = np.random.default_rng(0)
    for row in frames[1:]:
        row[:] = frames[0]
        row[rng.choice(120, 3, replace=False)] ^= 1
    assert set(marked(hashed(frames)).twin) == {"0"}


@pytest.mark.slow
@pytest.mark.long
def test_sixty_thousand_pictures_are_compared_with_each_other():
    signs = np.random.default_rng(0).integers(0, 2, (60_000, 120))
    signs[59_999] = signs[7]
    result = marked(hashed(signs))
    assert list(result.path[result.status != "usable"]) == ["59999"]
