"""Every kind of source as a manifest: tables, arrays, joined folders, pictures without labels."""

import os
import shutil
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import zoo
from zoo.data.manifest import COLUMNS, Manifest


def picture(path, seed=0):
    """A picture that looks like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(noise).resize((32, 32)).save(path, "PNG")
    return path


def by_path(manifest, column):
    return dict(zip(manifest.table.path, manifest.table[column], strict=True))


def test_a_table_gives_every_row_a_status(tmp_path, monkeypatch):
    picture(tmp_path / "pictures" / "a.png", 1)
    picture(tmp_path / "pictures" / "b ä.png", 2)
    os.mkfifo(tmp_path / "pipe.png")
    table = pd.DataFrame(
        [
            ("pictures/a.png", "ants", "x"),
            ("pictures/b ä.png", " bees", "x"),
            (str(tmp_path / "pictures" / "b ä.png"), "bees", "y"),
            ("gone.png", "ants", "y"),
            ("pipe.png", "ants", "y"),
            ("pictures", "ants", "y"),
            ("pictures/a.png", "", "z"),
            ("", "ants", "z"),
        ],
        columns=["path", "label", "patient"],
    )
    table.to_csv(tmp_path / "list.csv", index=False, encoding="utf-8-sig")
    monkeypatch.chdir(tmp_path)
    for manifest in (zoo.scan(tmp_path / "list.csv"), zoo.scan(table)):
        found = manifest.table
        assert found.status.tolist() == [
            *("usable", "usable", "duplicate", "unreadable", "unreadable", "unreadable", "unlabelled", "unreadable")
        ]
        assert found.label.tolist()[:3] == ["ants", "bees", "bees"]
        assert found.path[2] == found.twin[2] == "pictures/b ä.png"
        assert found.reason[3] == "No such file or directory"
        assert found.reason[4:].tolist() == [
            *("neither file nor folder", "a folder, not a file", "its label is empty", "its path is empty")
        ]
        assert list(found.columns) == [*COLUMNS, "patient"]
        assert found.patient.tolist() == table.patient.tolist()
        assert manifest.source.describe() == {"kind": "csv", "path": str(tmp_path)}
        assert manifest.source.absolute(found.path[0]) == str(tmp_path / "pictures" / "a.png")


def test_paths_that_no_system_takes_are_rows():
    table = zoo.scan(pd.DataFrame({"path": ["a\0b.png", "x" * 300, 7], "label": "ants"})).table
    assert table.status.tolist() == ["unreadable"] * 3
    assert table.reason.tolist() == ["embedded null byte", "File name too long", "No such file or directory"]


def test_a_file_under_two_labels_is_a_conflict(tmp_path):
    path = str(picture(tmp_path / "a.png"))
    assert set(zoo.scan(pd.DataFrame({"path": [path, path], "label": [0, 1]})).table.status) == {"label conflict"}


def test_labels_of_a_table_may_be_numbers_and_missing(tmp_path):
    paths = [str(picture(tmp_path / f"{i}.png", i)) for i in range(4)]
    table = pd.DataFrame({"path": paths, "label": [1.0, 2.0, np.nan, 10.0], "split": ["Train", "val", None, "test"]})
    found = zoo.scan(table).table
    assert found.label.tolist() == ["1", "2", "", "10"]
    assert found.split.tolist() == ["train", "dev", "", "test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path;label\na.png;x\n", r"no column 'path'.*separated by commas\. Received: columns path;label"),
        ("path,kind\na.png,x\n", r"no column 'label'.*say labels=False\. Received: columns path, kind"),
        ("path,label\na.png,x\nhttps://b.org/b.png,x\n", "1 paths of list.csv are addresses.*Received: https://b.org"),
        ("path,label,width\na.png,x,3\n", "the manifest fills itself: width. Rename"),
        ("path,label,split\na.png,x,holdout\n", "may say train, dev or test. Received: 'holdout' for a.png"),
        ("path,label\n", "has no rows"),
        ("path,label\na.png,x,1\n", "its header names 2 columns, and there are rows of more fields"),
        ("path,label\na.png,x,,\n", "its header names 2 columns, and there are rows of more fields"),
        ("path,label\na.png,x\nb.png,x,1\n", "Expected 2 fields in line 3, saw 3$"),
        ("path,label\nä.png,x\n", "cannot be read as comma-separated text in UTF-8"),
    ],
)
def test_tables_that_cannot_be_read_say_why(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        zoo.scan(tmp_path / "list.csv")


def test_a_header_may_have_spaces_behind_its_commas(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path, label\na.png, ants\n")
    assert zoo.scan(tmp_path / "list.csv").table.label.tolist() == ["ants"]


def test_commas_behind_the_rows_and_spaces_around_paths_change_nothing(tmp_path):
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / " b.png", 2)
    (tmp_path / "list.csv").write_text("path,label\na.png , 007,\n b.png,bees,\n")
    found = zoo.scan(tmp_path / "list.csv").table
    assert found[["path", "label", "status"]].to_numpy().tolist() == [
        ["a.png", "007", "usable"],
        [" b.png", "bees", "usable"],
    ]
    assert list(found.columns) == COLUMNS
    as_bytes = pd.DataFrame({"path": [os.fsencode(tmp_path / "a.png")], "label": ["ants"]})
    most: Any = np.int64(10**6)
    assert zoo.scan(as_bytes, most_pixels=most).table.status.tolist() == ["usable"]


def test_equal_arrays_are_twins_and_none_is_left_out(digit_pictures):
    images, labels = (part[:20].copy() for part in digit_pictures)
    images[7] = images[2]
    images[9] = 0
    manifest = zoo.scan((images, labels))
    assert len(manifest.usable) == 20
    assert manifest.table.status[7] == "duplicate"
    assert manifest.table.reason[7] == "the same as 000002"
    assert manifest.table.twin[[2, 7, 9]].tolist() == ["000002", "000002", ""]
    assert manifest.table.label.tolist() == [str(label) for label in labels]
    assert np.array_equal(manifest.source.images[..., 0], images)


def test_folders_are_joined_by_the_names_of_their_classes(tmp_path):
    for number, path in enumerate(("a/ants/1.png", "a/bees/2.png", "b/ants/3.png", "b/wasps/4.png")):
        picture(tmp_path / path, number)
    (tmp_path / "b" / "none").mkdir()
    manifest = zoo.scan([str(tmp_path / "b"), tmp_path / "a"])
    assert by_path(manifest, "label") == {
        "a/ants/1.png": "ants",
        "a/bees/2.png": "bees",
        "b/ants/3.png": "ants",
        "b/wasps/4.png": "wasps",
    }
    assert manifest.empty == ["b/none"]
    assert manifest.source.describe() == {"kind": "folder", "path": str(tmp_path)}
    assert zoo.scan((tmp_path / "a", tmp_path / "b")).table.equals(manifest.table)
    with pytest.raises(ValueError, match="must not lie in one another"):
        zoo.scan([tmp_path, tmp_path / "a"])


def test_joined_folders_keep_their_splits_or_have_none(tmp_path):
    for number, path in enumerate(("a/train/x/1.png", "a/val/x/2.png", "b/train/x/3.png", "b/test/x/4.png")):
        picture(tmp_path / path, number)
    joined = zoo.scan([tmp_path / "a", tmp_path / "b"])
    assert joined.table.split.tolist() == ["train", "dev", "test", "train"]
    assert set(joined.table.label) == {"x"}
    picture(tmp_path / "c" / "x" / "5.png", 5)
    with pytest.raises(ValueError, match="Some of the folders have train/ and val/ folders, .*c has none"):
        zoo.scan([tmp_path / "a", tmp_path / "c"])


def test_pictures_without_labels_are_for_testing(tmp_path, digit_pictures):
    for number, path in enumerate(("loose.png", "deep/er/in.png")):
        picture(tmp_path / "new" / path, number)
    (tmp_path / "new" / "notes.txt").write_text("text")
    paths = pd.DataFrame({"path": [str(tmp_path / "new" / "loose.png")], "label": ["ants"], "patient": [7]})
    for source, usable in ((tmp_path / "new", 2), (paths, 1), (paths[["path"]], 1), (digit_pictures[0][:5], 5)):
        manifest = zoo.scan(source, labels=False)
        assert len(manifest.usable) == usable
        assert set(manifest.table.label) == {""}
        assert set(manifest.table.split) == {"test"}
        assert manifest.empty == []
    assert "not an image" in set(zoo.scan(tmp_path / "new", labels=False).table.status)
    assert set(zoo.scan("digits", labels=False).table.label) == {""}
    (tmp_path / "new" / "deep" / "er" / "in.png").unlink()
    with pytest.raises(ValueError, match="2 files lie in no such folder; labels=False"):
        zoo.scan(tmp_path / "new")
    with pytest.raises(ValueError, match="No pictures were found"):
        zoo.scan(tmp_path / "new" / "deep", labels=False)


def test_a_manifest_is_a_source(tmp_path):
    for number, path in enumerate(("ants/1.png", "bees/2.png")):
        picture(tmp_path / path, number)
    manifest = zoo.scan(tmp_path)
    assert zoo.scan(manifest) is manifest
    assert zoo.scan(manifest, labels=False).table.label.tolist() == ["", ""]
    with pytest.raises(ValueError, match="does not know where its pictures are"):
        zoo.scan(Manifest(manifest.table))
    with pytest.raises(ValueError, match="`depth` counts where files are looked at.* with depth=2 instead"):
        zoo.scan(manifest, depth=2)
    with pytest.raises(ValueError, match="with most_pixels=9 instead"):
        zoo.scan(manifest, most_pixels=9)


def test_a_manifest_without_its_labels_shows_what_had_none(tmp_path):
    for number, path in enumerate(("ants/1.png", "bees/2.png", "loose.png")):
        picture(tmp_path / path, number)
    (tmp_path / "notes.txt").write_text("text")
    shutil.copy(tmp_path / "ants" / "1.png", tmp_path / "again.png")
    direct = zoo.scan(tmp_path, labels=False).table
    through = zoo.scan(zoo.scan(tmp_path), labels=False).table
    assert through.astype(str).equals(direct.astype(str))
    assert through.status.tolist().count("usable") == 3
    assert (through.dtypes == direct.dtypes).all()
    table = pd.DataFrame({"path": [str(tmp_path / "loose.png"), str(tmp_path)], "label": ["", ""]})
    found = zoo.scan(zoo.scan(table), labels=False).table
    assert found.reason.tolist() == ["", "a folder, not a file"]
    with pytest.raises(ValueError, match="2 pictures of this manifest were never looked at"):
        zoo.scan(Manifest(zoo.scan(table).table, source=zoo.scan("digits").source), labels=False)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (7, TypeError, "`source` must be a folder"),
        ([], TypeError, "Received: list"),
        (np.zeros((2, 8, 8)), TypeError, r"say labels=False. Received: one array of shape \(2, 8, 8\)"),
        ("https://b.org/pictures", ValueError, "must lie on this machine"),
        (__file__, ValueError, "is a file"),
        ("", ValueError, "`source` is an empty text"),
        (["", "a"], ValueError, "`source` is an empty text"),
    ],
)
def test_what_cannot_be_a_source_is_refused(source, error, message):
    with pytest.raises(error, match=message):
        zoo.scan(source)


def test_real_pictures_in_split_folders(zoo_data):
    manifest = zoo.scan(zoo_data / "hymenoptera")
    assert len(manifest.usable) == 398
    assert manifest.usable.groupby("split").size().to_dict() == {"dev": 153, "train": 245}
    assert by_path(manifest, "format")["train/ants/imageNotFound.gif"] == "GIF"
    assert manifest.notes == manifest.empty == []
