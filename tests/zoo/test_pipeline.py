import gc

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.data import batches, reading
from zoo.data.order import steps
from zoo.data.pictures import Geometry


@pytest.fixture
def train(digit_pictures):
    return zoo.load_data(digit_pictures, image_size=8, channels=1).train


def rows_of(dataset, split):
    """The row of each picture that a dataset gives, found by its pixels."""
    known = {image.tobytes(): row for row, image in enumerate(split.pixels())}
    return [known[image.tobytes()] for images, _ in dataset for image in images.numpy()]


def test_out_of_training_rows_come_in_order_with_their_labels(train):
    images, labels = zip(*[(x.numpy(), y.numpy()) for x, y in train.dataset(batch_size=50)], strict=True)
    assert np.array_equal(np.concatenate(images), train.pixels())
    assert np.array_equal(np.concatenate(labels), train.labels)
    assert images[0].dtype == np.uint8
    assert len(images[0]) == 50


def test_each_epoch_has_its_own_order_and_every_picture_once(train):
    dataset = train.dataset(training=True, seed=0)
    first, second = rows_of(dataset, train), rows_of(dataset, train)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(rows_of(train.dataset(), train))


def test_the_order_is_a_function_of_seed_and_epoch(train):
    first = train.dataset(training=True, seed=0)
    again = train.dataset(training=True, seed=0)
    other = train.dataset(training=True, seed=1)
    one = rows_of(first, train)
    assert rows_of(again, train) == one
    assert rows_of(other, train) != one
    assert rows_of(first, train) == rows_of(again, train)  # the second epoch, too


def test_the_stream_goes_on_where_an_epoch_begins(train):
    count = steps(len(train), 32)
    whole = rows_of(batches.stream(train, 32, seed=3).take(3 * count), train)
    late = rows_of(batches.stream(train, 32, seed=3, epoch=2).take(count), train)
    assert whole[2 * len(train) :] == late
    assert sorted(late) == sorted(rows_of(train.dataset(), train))


def test_one_hot_labels_are_the_labels(train):
    for (_, hot), (_, labels) in zip(batches.in_order(train, 64, one_hot=True), train.dataset(64), strict=True):
        assert np.array_equal(hot.numpy().argmax(1), labels.numpy())
        assert hot.shape[1] == 3


def test_behind_the_steps_that_were_done_the_stream_is_that_of_the_whole_epoch(train):
    steps = -(-len(train) // 32)
    whole = rows_of(batches.stream(train, 32, seed=3, epoch=1).take(2 * steps), train)
    late = train.stream(32, seed=3, epoch=1, step=2).take(2 * steps)
    assert [len(images) for images, _ in late.take(2)] == [1, 1]  # cheap
    assert rows_of(late.skip(2), train) == whole[64:]


def test_a_policy_gets_epoch_and_picture_of_each_row(train):
    dataset = train.dataset(batch_size=len(train), training=True, policy=lambda images, **given: given["keys"])
    keys = [next(iter(dataset))[0].numpy() for _ in range(2)]
    assert [set(key[:, 0]) for key in keys] == [{0}, {1}]
    assert sorted(keys[0][:, 1]) == list(range(len(train)))


def test_pictures_beyond_the_budget_lie_on_disk_and_go_with_the_array(photos, tmp_path, monkeypatch):
    in_memory = zoo.load_data(photos, image_size=16).train.pixels()
    monkeypatch.setenv("MENAGERIE_MEMORY_GB", "1e-6")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = zoo.load_data(photos, image_size=16)
    on_disk = data.train.pixels()
    assert isinstance(on_disk, np.memmap)
    assert np.array_equal(on_disk, in_memory)
    assert len(list((tmp_path / "cache" / "menagerie").glob("*.pixels"))) == 1
    found = np.concatenate([images.numpy() for images, _ in data.train.dataset(5)])
    assert np.array_equal(found, in_memory)
    data._prepared.clear()
    del on_disk
    gc.collect()
    assert list((tmp_path / "cache" / "menagerie").glob("*.pixels")) == []
    monkeypatch.setenv("MENAGERIE_MEMORY_GB", "plenty")
    with pytest.raises(ValueError, match="MENAGERIE_MEMORY_GB must be a number of GiB, 0 or more. Received: 'plenty'"):
        data.train.pixels()


def test_a_file_that_breaks_after_the_scan_is_named(photos):
    data = zoo.load_data(photos, image_size=16)
    broken = data.train.paths[3]
    with open(broken, "wb") as file:
        file.write(b"\xff\xd8\xff gone")
    with pytest.raises(ValueError, match=data.train.relative_paths[3]):
        data.train.pixels()


def test_pictures_that_cannot_be_read_leave_the_others_alone(photos):
    good = photos / "one" / "01.png"
    bad = photos / "one" / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    pixels, problems = reading.read_files([good, bad, good], Geometry((16, 16)))
    assert list(problems) == [1]
    assert np.array_equal(pixels[0], pixels[2])
    assert pixels[0].any()


def test_a_file_that_only_pillow_reads_is_read_all_the_same(photos):
    frames = [Image.fromarray(np.full((20, 20), shade, np.uint8)) for shade in (90, 200)]
    whole = photos / "one" / "moving.gif"
    frames[0].save(whole, save_all=True, append_images=frames[1:])
    cut = photos / "one" / "cut.gif"
    cut.write_bytes(whole.read_bytes()[:-30])  # the second frame is incomplete
    assert set(zoo.scan(photos).table.status) == {"usable"}
    pixels, problems = reading.read_files([whole, cut], Geometry((16, 16)))
    assert not problems
    assert (pixels == 90).all()


def test_statistics_are_those_of_the_training_pixels_alone(photos):
    data = zoo.load_data(photos, image_size=16)
    mean, variance = data.train.statistics()
    pixels = data.train.pixels().astype(float)
    assert np.allclose(mean, pixels.mean((0, 1, 2)))
    assert np.allclose(variance, pixels.var((0, 1, 2)))


def test_grey_and_colour_are_brought_to_the_channels_asked_for(photos):
    grey = zoo.load_data(photos, image_size=16, channels=1).train.pixels()
    colour = zoo.load_data(photos, image_size=16).train.pixels()
    assert grey.shape[-1] == 1
    assert np.abs(colour[..., :1].astype(int) - grey).max() <= 3  # the photos are grey, but JPEG tints them


def test_samples_are_whole_files_that_decode_to_the_same_pixels(photos):
    split = zoo.load_data(photos, image_size=16).test
    samples = split.samples(100)
    assert len(samples) == len(split)
    pixels, _ = reading.read(lambda row: samples[row], len(samples), split.geometry)
    assert np.array_equal(pixels, split.pixels())


def test_array_samples_decode_to_the_same_pixels(train):
    samples = train.samples(len(train))
    pixels, _ = reading.read(lambda row: samples[row], len(samples), train.geometry)
    assert np.array_equal(pixels, train.pixels())


@pytest.mark.parametrize("given", [{"batch_size": 0}, {"batch_size": True}, {"seed": -1}, {"seed": "a"}])
def test_batch_sizes_and_seeds_that_cannot_be_are_refused_at_once(train, given):
    (name,) = given
    for ask in (lambda: train.dataset(training=True, **given), lambda: train.stream(**given)):
        with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least"):
            ask()


def test_there_is_no_stream_of_nothing(photos):
    empty = zoo.load_data(photos, image_size=8, split=(0.5, 0.0, 0.5)).dev
    with pytest.raises(ValueError, match="The split dev has no pictures"):
        empty.stream(8)


def test_a_phone_picture_lying_on_its_side_is_turned(photos):
    tall = Image.fromarray(np.repeat(np.arange(0, 250, 5, dtype=np.uint8)[:, np.newaxis], 30, 1)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the file holds the picture lying on its side
    tall.rotate(90, expand=True).save(photos / "one" / "phone.jpg", exif=exif, quality=95)
    tall.save(photos / "one" / "upright.jpg", quality=95)
    (turned, upright), _ = reading.read_files(
        [photos / "one" / "phone.jpg", photos / "one" / "upright.jpg"], Geometry((32, 32))
    )
    assert np.abs(turned.astype(int) - upright).max() <= 2
