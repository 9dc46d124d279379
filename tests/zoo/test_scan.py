import io
import os
import shutil

import pytest
from PIL import Image

import zoo
from zoo.data.scan import check, natural, picture_paths


def statuses(manifest):
    return dict(zip(manifest.table.path, manifest.table.status, strict=True))


def test_a_clean_folder_has_only_usable_pictures(photos):
    manifest = zoo.scan(photos)
    assert len(manifest.usable) == 36
    assert set(manifest.table.label) == {"nought", "one", "two"}
    assert manifest.table.path[0] == "nought/00.jpg"
    assert (manifest.table.height == 20).all()


def test_every_unusable_file_is_named_with_its_reason(photos):
    whole = (photos / "one" / "00.jpg").read_bytes()
    (photos / "one" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "one" / "empty.jpg").write_bytes(b"")
    (photos / "one" / "notes.txt").write_text("these are ones")
    (photos / "nothing").mkdir()
    manifest = zoo.scan(photos)
    found = statuses(manifest)
    assert found["one/half.jpg"] == "unreadable"
    assert found["one/empty.jpg"] == "unreadable"
    assert found["one/notes.txt"] == "not a picture"
    assert manifest.empty == ["nothing"]
    text = str(manifest)
    assert "36 usable pictures of 39 files" in text
    assert "one/empty.jpg: unreadable (the file is empty)" in text
    assert "nothing: class folder without a picture" in text


def test_a_summary_stays_short_whatever_is_wrong(photos):
    for i in range(50):
        (photos / "one" / f"note{i}.txt").write_text("text")
    lines = str(zoo.scan(photos)).splitlines()
    assert len(lines) < 30
    assert lines[-1].strip() == "... and 30 more files, named in the manifest"


def test_content_decides_not_the_extension(photos):
    os.rename(photos / "one" / "01.png", photos / "one" / "01.JPG")
    assert statuses(zoo.scan(photos))["one/01.JPG"] == "usable"


def test_hidden_files_are_passed_over_and_counted(photos):
    (photos / ".cache").mkdir()
    (photos / ".cache" / "x.png").write_bytes(b"x")
    (photos / "one" / ".DS_Store").write_bytes(b"x")
    (photos / "one" / "Thumbs.db").write_bytes(b"x")
    manifest = zoo.scan(photos)
    assert manifest.hidden == 3
    assert len(manifest.table) == 36


def test_a_bomb_is_refused_by_its_header():
    buffer = io.BytesIO()
    Image.new("1", (14_000, 14_000)).save(buffer, "PNG")
    found = check(buffer.getvalue())
    assert found["status"] == "too large"


def test_split_folders_are_recognised_under_all_their_names(photos, tmp_path):
    for name, split in (("Train", "train"), ("valid", "dev"), ("test", "test")):
        (tmp_path / "parts" / name).mkdir(parents=True)
        for label in ("one", "two"):
            target = tmp_path / "parts" / name / label
            target.mkdir()
            (target / "a.jpg").write_bytes((photos / label / "00.jpg").read_bytes())
        rows = zoo.scan(tmp_path / "parts").table
        assert set(rows.split[rows.path.str.startswith(name)]) == {split}


def test_a_class_called_train_is_a_class_beside_others(photos):
    os.rename(photos / "one", photos / "train")
    assert set(zoo.scan(photos).table.label) == {"nought", "train", "two"}


def test_class_names_that_are_numbers_stand_in_numeric_order():
    assert natural(["10", "9", "1"]) == ["1", "9", "10"]
    assert natural(["b10", "b9"]) == ["b10", "b9"]


def test_missing_and_empty_folders_are_said_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere"):
        zoo.scan(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="No pictures were found .* one folder a class"):
        zoo.scan(tmp_path)


def test_picture_paths_takes_a_file_a_list_and_a_folder(photos):
    one = photos / "one" / "00.jpg"
    assert picture_paths(one) == [one]
    assert picture_paths([str(one), photos / "two"])[0] == one
    assert len(picture_paths(photos)) == 36
    with pytest.raises(FileNotFoundError, match="There is no file .*gone.jpg"):
        picture_paths([one, photos / "gone.jpg"])


def test_folders_beside_train_and_val_are_passed_over_and_named(photos, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(photos, tmp_path / "parts" / split)
    shutil.copytree(photos, tmp_path / "parts" / "extra")
    manifest = zoo.scan(tmp_path / "parts")
    assert len(manifest.table) == 72
    assert "extra: a folder beside the splits, passed over" in str(manifest)


def test_val_and_test_without_train_are_no_classes(photos, tmp_path):
    for split in ("val", "test"):
        shutil.copytree(photos, tmp_path / "parts" / split)
    with pytest.raises(ValueError, match="none for training"):
        zoo.scan(tmp_path / "parts")


def test_links_and_loose_files_are_listed(photos):
    (photos / "linked").symlink_to(photos / "one")
    shutil.copy(photos / "one" / "00.jpg", photos / "loose.jpg")
    manifest = zoo.scan(photos)
    assert len(manifest.usable) == 36
    assert "linked: a link to a folder, not followed" in str(manifest)
    assert statuses(manifest)["loose.jpg"] == "in no class folder"


def test_a_name_that_is_no_utf_8_is_left_out_and_escaped(photos):
    source = os.fsencode(photos / "one" / "00.jpg")
    shutil.copy(source, source.replace(b"00.jpg", b"\xff.jpg"))
    manifest = zoo.scan(photos)
    assert len(manifest.usable) == 36
    assert "one/\\udcff.jpg: unreadable (its path is not UTF-8; rename it)" in str(manifest)


def test_whatever_a_reader_raises_is_a_reason_and_no_crash():
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "AVIF")
    data = bytearray(buffer.getvalue())
    data[40:120] = bytes(80)
    assert check(bytes(data))["status"] != "usable"
