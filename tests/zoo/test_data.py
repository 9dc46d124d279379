import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import zoo
from zoo.data.load import restore
from zoo.data.manifest import read_manifest


def splits_of(data):
    rows = data.manifest.usable
    return dict(zip(rows.path, rows.split, strict=True))


def test_digits_are_stratified_and_complete():
    data = zoo.load_data("digits")
    assert sum(map(len, (data.train, data.dev, data.test))) == 1797
    assert data.class_names == [str(digit) for digit in range(10)]
    for name, total in pd.Series(data.manifest.usable.label).value_counts().items():
        for split in (data.dev, data.test):
            assert split.counts[name] >= 0.5 * 0.15 * total
    assert [len(split) / 1797 for split in (data.dev, data.test)] == pytest.approx([0.15, 0.15], abs=0.02)


def test_digits_are_scaled_to_0_255():
    pixels = zoo.load_data("digits", image_size=8, channels=1).train.pixels()
    assert pixels.shape[1:] == (8, 8, 1)
    assert pixels.dtype == np.uint8
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_the_same_seed_gives_the_same_split_and_another_another(photos):
    first = splits_of(zoo.load_data(photos))
    assert splits_of(zoo.load_data(photos)) == first
    assert splits_of(zoo.load_data(photos, seed=1)) != first


def test_files_added_to_one_class_move_nothing_in_another(photos):
    before = splits_of(zoo.load_data(photos))
    for i in range(5):
        Image.fromarray(np.full((20, 20), 40 * i, np.uint8)).save(photos / "one" / f"new{i}.png")
    after = splits_of(zoo.load_data(photos))
    for path, split in before.items():
        if not path.startswith("one/"):
            assert after[path] == split


def test_renaming_a_file_does_not_move_it(photos):
    before = splits_of(zoo.load_data(photos))
    (photos / "one" / "00.jpg").rename(photos / "one" / "zz.jpg")
    assert splits_of(zoo.load_data(photos))["one/zz.jpg"] == before["one/00.jpg"]


def test_equal_files_are_never_in_two_splits(photos):
    for i in range(12):
        shutil.copy(photos / "one" / f"{i:02d}.{'png' if i % 2 else 'jpg'}", photos / "one" / f"copy{i}.jpg")
    usable = zoo.load_data(photos).manifest.usable
    assert usable.groupby("sha256").split.nunique().max() == 1
    alone = zoo.load_data(photos, group=None).manifest.usable
    assert alone.groupby("sha256").split.nunique().max() > 1


def test_a_function_keeps_its_groups_together(photos):
    data = zoo.load_data(photos, group=lambda path: path[:-5], split=(0.6, 0.4))  # 00 and 01 together, and so on
    usable = data.manifest.usable
    assert usable.groupby(usable.path.str[:-5]).split.nunique().max() == 1
    assert len(data.test) == 0


@pytest.fixture
def parts(photos, tmp_path):
    """The photos laid out as train/ and test/."""
    for label in ("nought", "one", "two"):
        for i, file in enumerate(sorted((photos / label).iterdir())):
            target = tmp_path / "parts" / ("test" if i < 3 else "train") / label
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return tmp_path / "parts"


def test_split_folders_are_kept_and_dev_is_cut_from_train(parts):
    data = zoo.load_data(parts)
    assert all(path.startswith("test/") for path in data.test.relative_paths)
    assert len(data.test) == 9
    assert all(path.startswith("train/") for path in [*data.train.relative_paths, *data.dev.relative_paths])
    assert len(data.train) + len(data.dev) == 27
    assert min(data.dev.counts.values()) > 0


def test_a_given_dev_folder_is_dev(parts):
    (parts / "test").rename(parts / "val")
    data = zoo.load_data(parts)
    assert (len(data.train), len(data.dev), len(data.test)) == (27, 9, 0)


def test_pictures_in_two_given_splits_are_counted(parts):
    shutil.copy(next((parts / "train" / "one").iterdir()), parts / "test" / "one" / "again.jpg")
    data = zoo.load_data(parts)
    assert "1 picture of test is also in train: test/one/again.jpg = train/one/" in data.summary()
    assert data.leaks.path.tolist() == ["test/one/again.jpg"]


def test_paths_are_absolute_in_splits_and_relative_in_tables(photos):
    data = zoo.load_data(photos)
    assert all(
        path == str(photos / relative) for path, relative in zip(data.dev.paths, data.dev.relative_paths, strict=True)
    )
    assert data.dev.labels.dtype == np.int64
    assert [data.class_names[label] for label in data.dev.labels] == [
        path.split("/")[0] for path in data.dev.relative_paths
    ]


def test_unusable_files_are_left_out_or_raise(photos):
    (photos / "one" / "bad.jpg").write_bytes(b"no picture")
    data = zoo.load_data(photos)
    assert "one/bad.jpg" not in data.train.relative_paths
    assert "one/bad.jpg: not an image" in data.summary()
    (photos / "nothing").mkdir()
    with pytest.raises(ValueError, match="(?s)one/bad.jpg.*nothing"):
        zoo.load_data(photos, bad="error")


def test_arrays_take_numbers_text_and_any_pixel_type(digit_pictures):
    images, labels = digit_pictures
    named = np.array(["a", "b", "c"])[labels]
    data = zoo.load_data((images, named), image_size=8)
    assert data.class_names == ["a", "b", "c"]
    assert data.train.pixels().shape[1:] == (8, 8, 3)
    floats = zoo.load_data((images.astype(np.float32), named), image_size=8)
    assert floats.fingerprint == data.fingerprint
    assert zoo.load_data((images, labels[:, np.newaxis])).class_names == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x / 255.0, y), "look scaled to 0..1"),
        (lambda x, y: (x.astype(int) * 2, y), r"must lie in 0\.\.255"),
        (lambda x, y: (x, y[:-1]), "one class a picture"),
        (lambda x, y: (x, np.eye(3)[y]), r"labels\.argmax"),
        (lambda x, y: (x[..., np.newaxis].repeat(2, -1), y), "1, 3 or 4 channels"),
        (lambda x, y: (x, y * 0), "At least two classes"),
    ],
)
def test_arrays_that_cannot_be_pictures_are_refused(digit_pictures, change, message):
    with pytest.raises(ValueError, match=message):
        zoo.load_data(change(*digit_pictures))


def test_a_csv_file_and_a_table_are_sources(photos, tmp_path):
    rows = zoo.load_data(photos).manifest.table
    table = pd.DataFrame(
        {"path": "photos/" + rows.path, "label": rows.label, "split": rows.split.replace("dev", "val")}
    )
    table.to_csv(tmp_path / "list.csv", index=False)
    data = zoo.load_data(tmp_path / "list.csv")
    assert data.class_names == ["nought", "one", "two"]
    assert list(data.manifest.table.split) == list(rows.split)
    with pytest.raises(ValueError, match="no column 'label'. .* Received: columns path, kind"):
        zoo.load_data(table.rename(columns={"label": "kind"})[["path", "kind"]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": (0.5, 0.2, 0.2)}, "adding up to 1"),
        ({"split": (0, 0.5, 0.5)}, "train above 0"),
        ({"image_size": 0}, "`image_size`"),
        ({"channels": 2}, "`channels`"),
        ({"group": "patient"}, "`group`"),
        ({"bad": "ignore"}, "`bad`"),
    ],
)
def test_arguments_out_of_range_are_named(photos, arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.load_data(photos, **arguments)


def test_one_class_and_tiny_classes_are_refused(photos):
    for file in list((photos / "one").iterdir())[2:]:
        file.unlink()
    with pytest.raises(ValueError, match="Class 'one' has 2 different pictures, too few"):
        zoo.load_data(photos)
    shutil.rmtree(photos / "one")
    shutil.rmtree(photos / "two")
    with pytest.raises(ValueError, match="At least two classes are needed.*Found: nought"):
        zoo.load_data(photos)


def test_what_cannot_be_a_source_is_refused():
    with pytest.raises(TypeError, match="`source` must be a folder"):
        zoo.load_data(7)
    with pytest.raises(ValueError, match="Download it and name the folder"):
        zoo.load_data("https://127.0.0.1/photos")


def test_configured_is_a_copy_with_a_size_of_its_own(photos):
    data = zoo.load_data(photos)
    with pytest.raises(ValueError, match="No image size is set"):
        data.train.dataset()
    copy = data.configured(image_size=(16, 24), crop=0.9)
    assert data.image_size is None
    assert copy.train.pixels().shape[1:] == (16, 24, 3)
    with pytest.raises(ValueError, match="`crop`"):
        data.configured(crop=1.5)
    with pytest.raises(TypeError, match="size"):
        data.configured(size=3)


def test_the_fingerprint_follows_content_not_places(photos, tmp_path):
    first = zoo.load_data(photos).fingerprint
    moved = shutil.move(photos, tmp_path / "elsewhere")
    assert zoo.load_data(moved).fingerprint == first
    Image.new("RGB", (9, 9)).save(tmp_path / "elsewhere" / "one" / "black.png")
    assert zoo.load_data(moved).fingerprint != first


def test_data_come_back_from_a_manifest(photos, tmp_path):
    data = zoo.load_data(photos, image_size=12)
    data.manifest.to_csv(tmp_path / "manifest.csv")
    again = restore(data.describe(), read_manifest(tmp_path / "manifest.csv"))
    assert again.fingerprint == data.fingerprint
    assert again.test.paths == data.test.paths
    assert np.array_equal(again.test.pixels(), data.test.pixels())
    shutil.move(photos, tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="data=FOLDER"):
        restore(data.describe(), read_manifest(tmp_path / "manifest.csv"))
    moved = restore(data.describe(), read_manifest(tmp_path / "manifest.csv"), tmp_path / "moved")
    assert np.array_equal(moved.test.pixels(), data.test.pixels())


def test_preview_draws_a_row_a_class(photos, tmp_path):
    figure = zoo.load_data(photos).preview(per_class=4)
    assert len(figure.axes) == 12
    figure.savefig(tmp_path / "preview.png")
    with Image.open(tmp_path / "preview.png") as picture:
        assert len(picture.getcolors(1 << 24) or [None] * 99) > 50  # not an empty page


def test_hymenoptera_keeps_its_splits(zoo_data):
    data = zoo.load_data(zoo_data / "hymenoptera")
    assert (len(data.train), len(data.dev), len(data.test)) == (245, 153, 0)
    assert data.class_names == ["ants", "bees"]


def test_a_copy_in_another_class_is_left_out_with_its_original_and_moves_nothing(photos):
    before = splits_of(zoo.load_data(photos))
    shutil.copy(photos / "two" / "03.png", photos / "nought" / "copy.png")
    data = zoo.load_data(photos)
    after = splits_of(data)
    assert set(before) - set(after) == {"two/03.png"}
    assert after == {path: before[path] for path in after}
    assert "two/03.png: label conflict" in data.summary()


def test_arrays_keep_every_row_and_say_where_labels_contradict(digit_pictures):
    images, labels = digit_pictures
    data = zoo.load_data((np.concatenate([images, images[:1]]), [*labels, (labels[0] + 1) % 3]))
    assert sum(map(len, (data.train, data.dev, data.test))) == len(images) + 1
    assert "1 pictures bear more than one label" in data.summary()


def test_an_earlier_manifest_holds_the_split(photos, tmp_path):
    before = zoo.load_data(photos, seed=3, split=(0.5, 0.25, 0.25))
    before.manifest.to_csv(tmp_path / "manifest.csv")
    Image.effect_noise((20, 20), 50).save(photos / "one" / "new.png")
    after = splits_of(zoo.load_data(photos, split=tmp_path / "manifest.csv"))
    assert after.pop("one/new.png") in ("train", "dev", "test")
    assert after == splits_of(before)


def test_an_earlier_manifest_counts_more_than_split_folders(parts):
    fold = next(iter(zoo.load_data(parts).folds(3)))
    assert splits_of(zoo.load_data(parts, split=fold.manifest)) == splits_of(fold)
    with pytest.raises(ValueError, match="None of the 36 pictures is in the earlier manifest"):
        zoo.load_data(parts, split=zoo.load_data("digits"))


def test_arrays_that_were_changed_since_are_refused(digit_pictures):
    images, labels = digit_pictures[0].copy(), digit_pictures[1]
    data = zoo.load_data((images, labels), image_size=8)
    images[:] = 0
    with pytest.raises(ValueError, match="was changed after load_data saw it"):
        data.train.pixels()


def test_folds_share_out_all_but_the_test_set_and_decode_nothing_twice(photos):
    data = zoo.load_data(photos, image_size=16)
    pixels = dict(zip([*data.train.paths, *data.dev.paths], [*data.train.pixels(), *data.dev.pixels()], strict=True))
    for file in photos.rglob("*.*"):
        file.unlink()
    seen = []
    for part in data.folds(3):
        assert part.test.paths == data.test.paths and not set(part.train.paths) & set(part.dev.paths)
        assert min(part.dev.counts.values()) > 0
        for split in (part.train, part.dev):
            assert all(
                np.array_equal(pixels[path], image) for path, image in zip(split.paths, split.pixels(), strict=True)
            )
        seen += part.dev.paths
    assert sorted(seen) == sorted(pixels)


def test_pictures_without_labels_are_for_prediction(photos):
    data = zoo.load_data(photos, labels=False, image_size=16)
    assert (len(data.train), len(data.dev), len(data.test)) == (0, 0, 36)
    assert data.class_names == [] and set(data.test.labels) == {-1}
    assert "36 pictures without labels" in data.summary()
    with pytest.raises(ValueError, match="have no labels, so nothing can be learned"):
        zoo.fine_tune("convnet", data, epochs=1)
    for file in photos.rglob("*.*"):
        file.write_text("no picture")
    with pytest.raises(ValueError, match="None of the pictures can be used; left out"):
        zoo.load_data(photos, labels=False)


def test_a_table_may_use_every_word_that_folders_may(photos):
    rows = zoo.load_data(photos).manifest.table
    words = rows.split.map({"train": "Training", "dev": "validation", "test": "testing"})
    data = zoo.load_data(
        pd.DataFrame({"path": [str(photos / path) for path in rows.path], "label": rows.label, "split": words})
    )
    assert list(data.manifest.table.split) == list(rows.split)


def test_missing_labels_are_never_a_class(photos, digit_pictures):
    images, labels = digit_pictures
    with pytest.raises(ValueError, match="1 labels are missing, the first in row 0"):
        zoo.load_data((images, np.where(np.arange(len(labels)) == 0, np.nan, labels)))
    assert zoo.load_data((images, labels.astype(float))).class_names == ["0", "1", "2"]
    rows = zoo.load_data(photos).manifest.table
    table = pd.DataFrame({"path": [str(photos / path) for path in rows.path], "label": rows.label})
    table.loc[0, "label"] = None
    data = zoo.load_data(table)
    assert data.class_names == ["nought", "one", "two"]
    assert "unlabelled" in data.summary()


def test_channels_that_do_not_fit_are_refused_at_once(digit_pictures):
    images, labels = digit_pictures
    with pytest.raises(ValueError, match="Say channels=4"):
        zoo.load_data((images[..., np.newaxis].repeat(4, -1), labels))


def test_class_names_may_be_of_any_script_but_need_a_line_of_their_own(photos):
    (photos / "one").rename(photos / "می‌خواهم 👩‍🌾")
    assert "می‌خواهم 👩‍🌾" in zoo.load_data(photos).class_names
    (photos / "two").rename(photos / "two\tthree")
    with pytest.raises(ValueError, match="without line breaks or control characters"):
        zoo.load_data(photos)


def test_a_table_that_is_none_is_named(tmp_path):
    (tmp_path / "latin.csv").write_bytes("path,label\nä.jpg,x\n".encode("latin-1"))
    (tmp_path / "empty.csv").write_text("")
    for name in ("latin.csv", "empty.csv"):
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            zoo.load_data(tmp_path / name)


def test_without_dev_all_but_the_test_set_is_for_training_and_nothing_is_decoded_twice(photos):
    data = zoo.load_data(photos, image_size=16)
    pixels = dict(zip([*data.train.paths, *data.dev.paths], [*data.train.pixels(), *data.dev.pixels()], strict=True))
    fingerprint = data.fingerprint
    for file in photos.rglob("*.*"):
        file.unlink()
    more = data.without_dev()
    assert sorted(more.train.paths) == sorted(pixels) and len(more.dev) == 0
    assert more.test.paths == data.test.paths and more.class_names == data.class_names
    for path, image in zip(more.train.paths, more.train.pixels(), strict=True):
        np.testing.assert_array_equal(image, pixels[path])
    assert len(data.dev) > 0 and data.fingerprint == fingerprint != more.fingerprint
    with pytest.raises(ValueError, match="no dev set, so its pictures cannot be trained on"):
        more.without_dev()


def test_without_dev_also_of_a_fold_and_at_another_size(photos):
    part = next(iter(zoo.load_data(photos, image_size=16).folds(3)))
    more = part.without_dev().configured(image_size=12)
    assert set(more.train.paths) == {*part.train.paths, *part.dev.paths}
    assert more.train.pixels().shape == (len(part.train) + len(part.dev), 12, 12, 3)
