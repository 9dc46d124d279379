"""What is taken from a folder as people really have it, and what is passed over and why."""

import os
import shutil
import socket
import unicodedata

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import zoo
from zoo.data.folders import picture_paths
from zoo.data.manifest import TRAINABLE
from zoo.data.names import class_name, natural


def rows(manifest):
    return manifest.table.set_index("path")


def statuses(manifest):
    return dict(zip(manifest.table.path, manifest.table.status, strict=True))


def picture(path, seed=0):
    """A picture that looks like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(noise).resize((32, 32)).save(path, "PNG")
    return path


def tree(folder):
    """Everything below a folder: kind, size, time of change and target of links."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            state = os.lstat(path)
            target = os.readlink(path) if os.path.islink(path) else ""
            found[path] = (state.st_mode, state.st_size, state.st_mtime_ns, target)
    return found


@pytest.fixture
def hostile(photos, tmp_path):
    """Three good classes, and all that goes wrong."""
    elsewhere = picture(tmp_path / "elsewhere" / "far.png", 1)
    one = photos / "one"
    (one / "empty.jpg").write_bytes(b"")
    (one / "notes.txt").write_text("these are ones")
    (one / "Thumbs.db").write_bytes(b"x")
    (one / ".hidden.png").write_bytes(b"x")
    picture(one / "not a JPEG.JPG", 2)
    picture(one / "ümläut ☃.png", 3)
    picture(one / "deep" / "er" / "in.png", 4)
    shutil.copy(picture(one / "raw.png", 5), os.fsencode(one) + b"/\xe9t\xe9.png")
    os.mkdir(os.fsencode(photos) + b"/caf\xe9")
    shutil.copy(picture(tmp_path / "spare.png", 6), os.fsencode(photos) + b"/caf\xe9/x.png")
    shutil.copy(one / "00.jpg", photos / "two" / "another class.jpg")
    picture(photos / ".cache" / "x.png", 7)
    picture(photos / "__MACOSX" / "x.png", 8)
    picture(photos / "loose.png", 9)
    picture(photos / ".store" / "kept.png", 10)
    (photos / "nothing").mkdir()
    (photos / "only hidden").mkdir()
    (photos / "only hidden" / ".DS_Store").write_bytes(b"x")
    (photos / "hopeless").mkdir()
    (photos / "hopeless" / "a.png").write_bytes(b"no picture")
    (one / "annexed.png").symlink_to("../.store/kept.png")
    (one / "broken.png").symlink_to("nowhere.png")
    (one / "itself.png").symlink_to("itself.png")
    (one / "far.png").symlink_to(elsewhere)
    (one / "up").symlink_to("..")
    (photos / "again").symlink_to("two")
    (photos / "far").symlink_to(elsewhere.parent)
    os.mkfifo(one / "pipe.png")
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(os.path.relpath(one / "socket.png"))  # the system allows some hundred letters
    return photos


def test_every_file_of_a_hostile_folder_has_its_status(hostile):
    manifest = zoo.scan(hostile)
    found = statuses(manifest)
    expected = {
        "one/empty.jpg": "unreadable",
        "one/notes.txt": "not an image",
        "one/Thumbs.db": "hidden",
        "one/.hidden.png": "hidden",
        ".cache": "hidden",
        "__MACOSX": "hidden",
        ".store": "hidden",
        "only hidden/.DS_Store": "hidden",
        "one/not a JPEG.JPG": "usable",
        "one/ümläut ☃.png": "usable",
        "one/deep/er/in.png": "usable",
        "one/raw.png": "usable",
        "one/\\xe9t\\xe9.png": "duplicate",
        "caf\\xe9/x.png": "usable",
        "one/00.jpg": "label conflict",
        "two/another class.jpg": "label conflict",
        "loose.png": "in no class folder",
        "hopeless/a.png": "not an image",
        "one/annexed.png": "usable",
        "one/broken.png": "unreadable",
        "one/itself.png": "unreadable",
        "one/far.png": "outside the root",
        "one/up": "link",
        "again": "link",
        "far": "outside the root",
        "one/pipe.png": "unreadable",
        "one/socket.png": "unreadable",
    }
    assert {path: found.pop(path) for path in expected} == expected
    assert len(found) == 35
    assert set(found.values()) <= set(TRAINABLE)
    assert manifest.hidden == 6
    assert manifest.empty == ["hopeless", "nothing", "only hidden"]
    table = rows(manifest)
    assert table.label["caf\\xe9/x.png"] == "caf\\xe9"
    assert table.label["one/deep/er/in.png"] == "one"
    assert table.reason["again"] == "already looked at as two"
    assert "neither file nor folder" in table.reason["one/pipe.png"]
    assert "follow_links=True" in table.reason["one/far.png"]
    assert "two/another class.jpg" in table.reason["one/00.jpg"]
    assert list(manifest.table.path) == list(zoo.scan(hostile).table.path)


def test_what_was_found_can_be_opened_written_and_read_again(hostile, tmp_path):
    manifest = zoo.scan(hostile)
    for path, sha256 in zip(manifest.usable.path, manifest.usable.sha256, strict=True):
        with open(manifest.source.absolute(path), "rb"):
            assert manifest.source.encoded(path, sha256)
    manifest.to_csv(tmp_path / "manifest.csv")
    assert "caf\\xe9/x.png" in (tmp_path / "manifest.csv").read_text(encoding="utf-8")
    listed = hostile / "list.csv"
    manifest.usable[["path", "label"]].to_csv(listed, index=False)
    assert zoo.scan(listed).usable.sha256.tolist() == manifest.usable.sha256.tolist()


def test_no_two_files_share_a_path(tmp_path):
    places = [b"\xff.png", b"\\xff.png", b"\\x5cxff.png", b"\\x5c.png", b"\\\xff.png", b"\\xcafe.png", b"\\xff\xfe.png"]
    for seed, name in enumerate(places):
        shutil.copy(picture(tmp_path / "spare.png", seed), os.fsencode(tmp_path / "a") + name)
    for seed in range(2):
        picture(tmp_path / "set" / "two" / f"{seed}.png", 20 + seed)
    (tmp_path / "set" / "one").mkdir()
    for name in places:
        os.rename(os.fsencode(tmp_path / "a") + name, os.fsencode(tmp_path / "set" / "one") + b"/" + name)
    manifest = zoo.scan(tmp_path / "set")
    found = manifest.table.path[manifest.table.label == "one"].tolist()
    assert len(set(found)) == len(places)
    assert {os.fsencode(os.path.basename(manifest.source.absolute(path))) for path in found} == set(places)
    assert {"one/\\xff.png", "one/\\x5cxff.png"} <= set(found)
    manifest.table[["path", "label"]].to_csv(tmp_path / "set" / "list.csv", index=False)
    assert zoo.scan(tmp_path / "set" / "list.csv").table[["path", "sha256"]].equals(manifest.table[["path", "sha256"]])
    os.remove(os.fsencode(tmp_path / "set" / "one") + b"/\xff.png")
    literal = pd.DataFrame({"path": ["set/one/\\xff.png"], "label": ["x"]})  # of a table that nobody escaped
    literal["path"] = str(tmp_path) + "/" + literal["path"]
    assert zoo.scan(literal).table.status.tolist() == ["usable"]


def test_nothing_in_the_source_is_changed(hostile, tmp_path):
    before = tree(tmp_path)
    zoo.scan(hostile)
    zoo.scan(hostile, follow_links=True)
    assert tree(tmp_path) == before
    for i in range(1, 3):  # enough of them to be shared out
        shutil.copy(picture(tmp_path / f"{i}.png", 20 + i), os.fsencode(hostile) + b"/caf\xe9/%d.png" % i)
    before = tree(tmp_path)
    data = zoo.load_data(hostile, image_size=8)
    assert len(data.train.pixels()) == len(data.train)
    assert tree(tmp_path) == before


def test_links_that_lead_out_are_followed_where_asked_for(hostile):
    (hostile / "far" / "back").symlink_to(hostile)
    manifest = zoo.scan(hostile, follow_links=True)
    found = statuses(manifest)
    assert found["one/far.png"] == "label conflict"  # the same picture in the class `far`
    assert found["far/far.png"] == "label conflict"
    assert found["far/back"] == "link"
    assert "outside the root" not in set(found.values())


def test_a_real_folder_goes_before_a_link_to_it_whatever_they_are_called(tmp_path):
    picture(tmp_path / "m" / "x.png", 1)
    (tmp_path / "a").symlink_to("m")
    (tmp_path / "z").symlink_to("m")
    picture(tmp_path / ".store" / "x.png", 2)
    for name in ("d", "b", "c"):  # the folder itself is hidden, so the first link shows it
        (tmp_path / name).symlink_to(".store")
    found = statuses(zoo.scan(tmp_path))
    assert found.pop(".store") == "hidden"
    assert found == {"a": "link", "b/x.png": "usable", "c": "link", "d": "link", "m/x.png": "usable", "z": "link"}


def test_a_class_may_be_a_link_to_a_folder_that_nothing_else_shows(tmp_path):
    picture(tmp_path / "set" / "train" / "ants" / "x.png", 1)
    picture(tmp_path / "set" / "pool" / "bees" / "y.png", 2)
    (tmp_path / "set" / "val").mkdir()
    (tmp_path / "set" / "train" / "bees").symlink_to("../pool/bees")
    (tmp_path / "set" / "train" / "all").symlink_to("..")
    manifest = zoo.scan(tmp_path / "set")
    assert statuses(manifest) == {"train/all": "link", "train/ants/x.png": "usable", "train/bees/y.png": "usable"}
    assert rows(manifest).label["train/bees/y.png"] == "bees"
    assert manifest.notes == ["pool: a folder beside the splits, passed over"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_opened_is_a_row(photos):
    (photos / "one").chmod(0)
    try:
        manifest = zoo.scan(photos)
    finally:
        (photos / "one").chmod(0o700)
    assert statuses(manifest)["one"] == "unreadable"
    assert manifest.empty == ["one"]


def test_class_folders_may_lie_deeper(tmp_path):
    for number, path in enumerate(("a/x/ants/1.png", "a/y/ants/deep/2.png", "b/x/bees/3.png")):
        picture(tmp_path / path, number)
    picture(tmp_path / "a" / "x" / "above.png", 9)
    (tmp_path / "b" / "y" / "wasps").mkdir(parents=True)
    manifest = zoo.scan(tmp_path, depth=3)
    assert dict(zip(manifest.table.path, manifest.table.label, strict=True)) == {
        "a/x/above.png": "",
        "a/x/ants/1.png": "ants",
        "a/y/ants/deep/2.png": "ants",
        "b/x/bees/3.png": "bees",
    }
    assert statuses(manifest)["a/x/above.png"] == "in no class folder"
    assert manifest.empty == ["b/y/wasps"]
    with pytest.raises(ValueError, match="one folder a class, 5 deep.* 4 files lie in no such folder"):
        zoo.scan(tmp_path, depth=5)
    with pytest.raises(ValueError, match="`depth` must be a whole number from 1. Received: depth=0"):
        zoo.scan(tmp_path, depth=0)


def test_split_folders_are_recognised_under_all_their_names(tmp_path):
    for number, (name, split) in enumerate((("Train", "train"), ("valid", "dev"), ("test", "test"))):
        for label in ("one", "two"):
            picture(tmp_path / name / label / "a.png", 2 * number + (label == "two"))
        manifest = zoo.scan(tmp_path)
        assert set(manifest.table.split[manifest.table.path.str.startswith(name)]) == {split}
        assert set(manifest.table.label) == {"one", "two"}
    picture(tmp_path / "extra" / "one" / "b.png", 8)
    (tmp_path / "README").write_text("about")
    manifest = zoo.scan(tmp_path)
    assert manifest.notes == ["extra: a folder beside the splits, passed over"]
    assert statuses(manifest)["README"] == "in no class folder"
    assert len(manifest.usable) == 6
    shutil.rmtree(tmp_path / "Train")
    shutil.rmtree(tmp_path / "extra")
    with pytest.raises(ValueError, match="none for training"):
        zoo.scan(tmp_path)


def test_a_class_called_train_is_a_class_beside_others(photos):
    os.rename(photos / "one", photos / "train")
    assert set(zoo.scan(photos).table.label) == {"nought", "train", "two"}


def test_class_names_that_look_alike_are_one_class(tmp_path):
    composed = unicodedata.normalize("NFC", "café")
    picture(tmp_path / composed / "1.png", 1)
    picture(tmp_path / unicodedata.normalize("NFD", "café") / "2.png", 2)
    picture(tmp_path / "ants" / "3.png", 3)
    picture(tmp_path / "ants " / "4.png", 4)
    manifest = zoo.scan(tmp_path)
    assert set(manifest.usable.label) == {"ants", composed}
    assert manifest.notes[0] == "ants: one class of folders spelled 'ants', 'ants '"
    assert len(manifest.notes) == 2


def test_class_names_that_are_numbers_stand_in_numeric_order():
    assert natural(["10", "9", "1", "01"]) == ["01", "1", "9", "10"]
    assert natural(["b10", "b9"]) == ["b10", "b9"]
    assert natural(["10", "1.5", "0", "-1", "-10", "1.0", "1"]) == ["-10", "-1", "0", "1", "1.0", "1.5", "10"]
    assert natural(["10", "9", "1e3"]) == ["10", "1e3", "9"]
    assert natural(["1" * 5000, "2"]) == ["2", "1" * 5000]


def test_labels_of_any_type_are_names():
    assert [class_name(label) for label in (" ants ", 3, 3.0, 2.5, np.float32(4), True, b"bees")] == [
        *("ants", "3", "3", "2.5", "4", "True", "bees")
    ]
    assert [class_name(label) for label in (None, float("nan"), "", " ")] == [""] * 4


def test_missing_and_empty_folders_are_said_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere"):
        zoo.scan(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="No pictures were found .* one folder a class"):
        zoo.scan(tmp_path)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "out").symlink_to("/")
    with pytest.raises(ValueError, match="1 links lead out of it; follow_links=True follows them"):
        zoo.scan(tmp_path / "inside")


def test_picture_paths_takes_a_file_a_list_and_a_folder(photos, tmp_path):
    one = photos / "one" / "00.jpg"
    assert picture_paths(one) == [one]
    assert picture_paths([str(one), photos / "two"])[:2] == [one, photos / "two" / "00.jpg"]
    picture(tmp_path / "elsewhere.png")
    (photos / "two" / "far.png").symlink_to(tmp_path / "elsewhere.png")
    (photos / "two" / "round").symlink_to("..")
    assert len(picture_paths(photos)) == 37
    with pytest.raises(FileNotFoundError, match="There is no file .*gone.jpg"):
        picture_paths([one, photos / "gone.jpg"])
