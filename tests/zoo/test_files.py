import json
import os

import pytest

from zoo.files import make_folder, write_json, write_text, writing, writing_folder


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError, match="half way"), writing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise RuntimeError("half way")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_write_replaces_the_file_and_keeps_the_suffix_meanwhile(tmp_path):
    with writing(tmp_path / "model.weights.h5") as temporary:
        assert temporary.name.endswith(".h5")
        assert temporary.parent == tmp_path
        temporary.write_text("new")
    assert os.listdir(tmp_path) == ["model.weights.h5"]


def test_a_write_keeps_links_and_rights_and_never_replaces_a_device(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "old.txt").chmod(0o600)
    (tmp_path / "link.txt").symlink_to("old.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "old.txt").read_text() == "new"
    assert (tmp_path / "old.txt").stat().st_mode & 0o777 == 0o600
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe is no regular file"):
        write_text(tmp_path / "pipe", "new")


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    with writing_folder(tmp_path / "export") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), writing_folder(tmp_path / "export") as folder:
        (folder / "b").write_text("new")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["export"]
    assert os.listdir(tmp_path / "export") == ["a"]


def test_a_folder_is_replaced_whole(tmp_path):
    for name in ("a", "b"):
        with writing_folder(tmp_path / "export") as folder:
            (folder / name).write_text(name)
    assert os.listdir(tmp_path) == ["export"]
    assert os.listdir(tmp_path / "export") == ["b"]
    assert os.stat(tmp_path / "export").st_mode == os.stat(make_folder(tmp_path / "plain")).st_mode


def test_json_that_others_cannot_read_is_refused_and_the_old_file_stays(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="The folder .*file/inside cannot be made"):
        make_folder(tmp_path / "file" / "inside")
