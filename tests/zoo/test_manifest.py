import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from zoo.data.manifest import COLUMNS, FACTS, Manifest, read_manifest
from zoo.data.manifest_text import clip
from zoo.data.sources import Files
from zoo.data.twins import marked

KINDS = (
    "unreadable",
    "truncated",
    "not an image",
    "too large",
    "unsupported",
    "label conflict",
    "outside the root",
    "in no class folder",
    "unlabelled",
)


def rows(*given, **fields):
    """A table with a row for each path or dictionary; what is not said is like an ordinary photo's."""
    photo = {**FACTS, "format": "JPEG", "mode": "RGB", "frames": 1, "width": 40, "height": 30, "bytes": 900}
    ordinary = {**photo, "label": "ants", "split": ""}
    dicts = [row if isinstance(row, dict) else {"path": row} for row in given]
    contents = [{"sha256": f"{i:064x}"} for i in range(len(dicts))]
    filled = [{**ordinary, **content, **fields, **row} for content, row in zip(contents, dicts, strict=True)]
    return pd.DataFrame(filled, columns=[*COLUMNS, *({} if not dicts else set(filled[0]) - set(COLUMNS))])


@pytest.fixture
def pictures(tmp_path):
    """A folder of real pictures with its manifest: twins, a conflict, one on its side, a slim one, one that is gone."""
    root = tmp_path / "pictures"
    noise = np.random.default_rng(0)
    table = []

    def add(path, pixels, label="ants", **fields):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(pixels)
        picture.save(root / path, **({"exif": fields.pop("exif")} if "exif" in fields else {}))
        data = (root / path).read_bytes()
        width, height = picture.size
        known = {"width": width, "height": height, "bytes": len(data), "sha256": str(hash(data)), "format": path[-3:]}
        table.append({"path": path, "label": label, **known, **fields})

    photos = noise.integers(0, 256, (4, 300, 400, 3), np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    add("ants/a.jpg", photos[0])
    add("bees/a <b> & 'c'.jpg", photos[0], "bees")
    add("ants/b.jpg", photos[1], twin="ants/b.jpg")
    add("ants/b again.png", photos[1], twin="ants/b.jpg", status="near-duplicate")
    add("ants/lying.jpg", photos[2], exif=exif, orientation=6)
    add("ants/slim.jpg", photos[3][:10])
    add("ants/gone.jpg", photos[3][:80, :60])
    os.remove(root / "ants/gone.jpg")
    for row in table[:2]:
        row |= {"status": "label conflict", "reason": "the same as another", "sha256": "same", "twin": "ants/a.jpg"}

    class Source(Files):
        def encoded(self, path, sha256):
            return (self.root / path).read_bytes()

    return Manifest(rows(*table), source=Source(root))


def test_the_summary_says_what_there_is_and_names_every_trouble():
    table = rows(
        {"path": "ants/1.jpg", "twin": "ants/1.jpg", "split": "train"},
        {"path": "ants/2.jpg", "twin": "ants/1.jpg", "status": "duplicate", "sha256": "0" * 64, "split": "train"},
        {"path": "bees/3.jpg", "twin": "ants/1.jpg", "status": "near-duplicate", "label": "bees", "split": "test"},
        {"path": "ants/4.png", "format": "PNG", "mode": "P", "width": 400, "height": 300, "orientation": 8},
        {"path": "ants/5.jpg", "status": "label conflict", "sha256": "f", "reason": "the same as bees/5.jpg"},
        {"path": "bees/5.jpg", "status": "label conflict", "sha256": "f", "label": "bees"},
        {"path": "ants/6.txt", "status": "not an image", "reason": "text"},
        {"path": "ants/.x", "status": "hidden"},
    )
    text = str(Manifest(table, empty=["wasps"], notes=["extra: a folder beside the splits, passed over"]))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "4 usable pictures of 7 files in 2 classes"
    for line in (
        "classes ants: 3, bees: 1",
        "formats JPEG: 3, PNG: 1",
        "colours RGB: 3, P: 1; 1 turned upright by EXIF",
        "sizes smallest 40x30 (ants/1.jpg), median 40x30",
        "largest 300x400 (ants/4.png)",
        "splits train: 2, test: 1",
        "test: 1 also in another split, such as",
        "bees/3.jpg (test) = ants/1.jpg (train)",
        "1 duplicate ants/2.jpg = ants/1.jpg",
        "1 near-duplicate bees/3.jpg (bees) ~ ants/1.jpg (ants)",
        "1 of them under another label than the twin",
        "1 label conflict ants/5.jpg (ants) = bees/5.jpg (bees)",
        "1 not an image ants/6.txt (text)",
        "1 empty class folders without a usable picture: wasps",
        "1 hidden files or folders, passed over",
        "notes extra: a folder beside the splits, passed over",
    ):
        assert line in lines


def test_classes_and_their_figures_stand_whole_however_long_the_titles_are():
    few = [{"path": f"{i}.jpg", "label": f"class number {i:02d}"} for i in range(9)]
    many = [{"path": f"m{i}.jpg", "label": f"another class number {i}"} for i in range(40)]
    loose = {"path": "x" * 60, "status": "in no class folder", "reason": "r"}
    shown = str(Manifest(rows(*few, *[loose] * 1000)))
    for row in few:
        assert f"{row['label']}: 1" in shown
    assert max(map(len, shown.splitlines())) <= 100
    shown = str(Manifest(rows(*many, *[loose] * 1000)))
    assert re.search(r"largest: another \.\.\. number \d+: 1, another \.\.\. ?number \d+: 1\n", shown)


def test_the_summary_stays_on_one_screen_whatever_is_wrong():
    name = "名" * 70 + "/" + "n" * 150
    fields = {"reason": "r" * 300, "sha256": "same"}
    table = [{"path": f"{kind}{i}{name}", "status": kind, **fields} for kind in KINDS for i in range(50)]
    table += [
        {"path": f"{s}{i}{name}", "status": s, "twin": f"u{i}"} for s in ("duplicate", "hidden") for i in range(9)
    ]
    usable = [{"path": f"u{i}", "label": f"class {i} {name}", "twin": f"u{i}", "split": "dev"} for i in range(200)]
    near = [{"path": f"v{i}", "label": "b\n\x1b[0m", "status": "near-duplicate", "twin": f"u{i}"} for i in range(9)]
    near = [{**row, "split": "test", "width": i} for i, row in enumerate(near)]
    whole = Manifest(rows(*table, *usable, *near), notes=[name] * 30, empty=[name] * 300)
    lines = str(whole).splitlines()
    assert len(lines) <= 40
    assert max(sum(1 + (letter == "名") for letter in line) for line in lines) <= 100
    assert "\x1b" not in str(whole)
    for kind in KINDS:
        assert re.search(rf"50 {kind} +{kind}0名", str(whole)) or kind == "label conflict"
    assert "and 49 more" in str(whole)


def test_ten_thousand_unreadable_files_are_one_line_with_examples():
    table = rows(*[f"ants/{i}.jpg" for i in range(10_000)], status="unreadable", reason="damaged")
    other = rows("ants/notes\n.txt", status="not an image", reason="text")
    manifest = Manifest(pd.concat([table, other], ignore_index=True), empty=["wasps"])
    assert manifest.trouble_lines() == [
        "10,000 files unreadable: ants/0.jpg (damaged), ants/1.jpg (damaged), ants/2.jpg (damaged) and 9,997 more",
        "ants/notes\\n.txt: not an image (text)",
        "wasps: class folder without a usable picture",
    ]


def test_a_complaint_names_all_files_up_to_two_hundred_and_every_empty_folder():
    table = rows(*[f"ants/{i}.jpg" for i in range(230)], status="truncated", reason="half")
    text = Manifest(table, empty=["wasps", "flies"]).complaint()
    lines = text.splitlines()
    assert lines[0] == "230 files cannot be used:"
    assert lines[200] == "  ants/199.jpg: truncated (half)"
    assert "30 more" in lines[201] and "230 truncated" in lines[201]
    assert lines[202:] == ["2 class folders without a usable picture:", "  wasps", "  flies"]
    assert Manifest(rows("ants/1.jpg")).complaint() == ""


def test_an_empty_table_can_be_shown():
    manifest = Manifest(pd.DataFrame([], columns=COLUMNS))
    assert str(manifest) == "0 usable pictures of 0 files"
    assert manifest.trouble_lines() == []
    assert "0 usable pictures" in manifest._repr_html_()
    assert "<h1>0 usable pictures of 0 files</h1>" in str(manifest.to_html())


def test_names_are_escaped_for_notebooks():
    shown = Manifest(rows("a <i>.jpg", status="unreadable", reason="<b>"))._repr_html_()
    assert "a &lt;i&gt;.jpg (&lt;b&gt;)" in shown
    assert "<i>" not in shown


def test_clipping_keeps_both_ends():
    assert clip("photos/of/ants/0013035.jpg", 15) == "photos...35.jpg"
    assert clip("short", 15) == "short"


def test_the_table_comes_back_from_csv_with_further_columns_and_old_ones_are_filled_in(tmp_path):
    table = rows(
        {"path": '1/a, "b"\n.jpg', "label": "007", "reason": "line\rbreak", "patient": "x", "width": 12},
        {"path": "1/b.jpg", "label": "NA", "patient": ""},
    )
    table["path"] = pd.Series([table.path[0], "1/\udcff.jpg"], dtype=object)
    Manifest(table).to_csv(tmp_path / "new" / "manifest.csv")
    again = read_manifest(tmp_path / "new" / "manifest.csv")
    pd.testing.assert_frame_equal(again.iloc[:1], table.iloc[:1], check_dtype=False)
    assert again.path[1] == "1/\\udcff.jpg"
    assert again.label[1] == "NA"
    assert again.width.dtype == int
    old = tmp_path / "old.csv"
    table.drop(columns=["reason", "mode", "frames", "orientation", "twin"]).iloc[:1].to_csv(old, index=False)
    assert read_manifest(old).orientation.tolist() == [1]
    assert read_manifest(old).twin.tolist() == [""]


def test_what_is_no_manifest_is_said_in_one_sentence(tmp_path):
    (tmp_path / "a.csv").write_text("path,label\n1.jpg,ants\n")
    with pytest.raises(ValueError, match="no column 'split'"):
        read_manifest(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("path,label,split,width\n1.jpg,ants,train,wide\n")
    with pytest.raises(ValueError, match="cannot be read as a manifest"):
        read_manifest(tmp_path / "b.csv")


def test_a_failed_write_leaves_the_old_files(tmp_path, pictures, monkeypatch):
    for write in (pictures.to_csv, pictures.to_html):
        (tmp_path / "kept").write_text("old")

        def full(*_):
            raise OSError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="no space"):
                write(tmp_path / "kept")
        assert (tmp_path / "kept").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "pictures"}


def test_the_page_shows_the_doubtful_pictures_upright_and_asks_nothing_of_the_network(pictures, tmp_path):
    before = sorted((path, path.stat().st_mtime_ns) for path in pictures.source.root.rglob("*"))
    path = pictures.to_html(tmp_path / "page.html")
    text = path.read_text()
    assert text == pictures.to_html()
    assert [title for title in re.findall("<h2>(.*)</h2>", text)] == [
        "Label conflicts",
        "Near twins",
        "Smallest pictures",
        "Most elongated pictures",
        "Left out",
        "Classes",
        "Sizes",
    ]
    alts = re.findall('<img src="data:image/jpeg;base64,[^"]+" alt="([^"]*)"', text)
    assert alts == [
        "ants/a.jpg, class ants",
        "bees/a &lt;b&gt; &amp; &#39;c&#39;.jpg, class bees",
        "ants/b.jpg, class ants",
        "ants/b again.png, class ants",
        "ants/slim.jpg, class ants",
        "ants/slim.jpg, class ants",
    ]
    assert 'role="img" aria-label="ants/gone.jpg, class ants"' in text  # a placeholder
    assert "<b>" not in text
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)|url\(|@import|http""", text.replace("http-equiv", ""))
    assert before == sorted((path, path.stat().st_mtime_ns) for path in pictures.source.root.rglob("*"))


def test_thumbnails_are_upright_small_and_on_white(pictures):
    import base64
    import io

    from zoo.data.manifest_page import thumbnail

    def opened(data):
        return Image.open(io.BytesIO(base64.b64decode(thumbnail(data).split(",")[1])))

    assert opened((pictures.source.root / "ants/lying.jpg").read_bytes()).size == (120, 160)
    for mode, colour, seen in (("RGBA", (9, 9, 9, 0), 255), ("I;16", 65535 // 2, 127), ("LA", (0, 255), 0)):
        buffer = io.BytesIO()
        Image.new(mode, (300, 20), colour).save(buffer, "PNG")
        small = opened(buffer.getvalue())
        assert max(small.size) == 160
        assert abs(int(np.asarray(small.convert("L")).mean()) - seen) <= 2


def test_the_page_stays_small_whatever_the_folder(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    data = (tmp_path / "noise.png").read_bytes()

    class Noise(Files):
        def encoded(self, path, sha256):
            return data

    name = "p" * 3000
    twins = [
        {"path": f"{status}/{i}/{name}", "label": label, "twin": f"{status}/{i // 2 * 2}/{name}", "status": status}
        for status, label in (("duplicate", "a"), ("near-duplicate", "b"), ("label conflict", "c"))
        for i in range(300)
    ]
    others = [{"path": f"bad/{i}/{name}", "reason": name, "status": kind} for kind in KINDS[:5] for i in range(400)]
    classes = [{"path": f"fine/{i}", "label": f"{i} {name}", "width": 1 + i, "height": 9 * i} for i in range(1000)]
    manifest = Manifest(rows(*twins, *others, *classes), empty=[name] * 900, notes=[name] * 900, source=Noise(tmp_path))
    text = str(manifest.to_html())
    assert len(text) < 3_000_000
    assert text.count("<img") <= 120
    assert "more groups in the table" in text
    assert "more are named in the table" in text


def test_the_command_shows_a_folder_and_writes_page_and_table(photos, command, tmp_path):
    shutil.copy(photos / "one" / "00.jpg", photos / "two" / "same.jpg")
    (photos / "one" / "notes.txt").write_text("these are ones")
    code, out, err = command("scan", photos, "--html", tmp_path / "a b.html", "--csv", tmp_path / "table.csv")
    assert (code, err) == (0, "")
    assert out.startswith("35 usable pictures of 38 files in 3 classes\n")
    assert "one/notes.txt (" in out
    assert f"'{tmp_path}/a b.html': a page" in out
    assert len(re.findall("<img", (tmp_path / "a b.html").read_text())) >= 2
    assert len(read_manifest(tmp_path / "table.csv")) == 38
    code, out, _ = command("scan", tmp_path / "nowhere")
    assert code == 2


def test_twins_that_were_marked_are_summed_up():
    table = rows(*[{"path": f"{i}.jpg", "sha256": str(i // 2)} for i in range(4)], {"path": "b.jpg", "label": "bees"})
    text = str(Manifest(marked(table)))
    assert "2 duplicates" in text
    assert "1.jpg = 0.jpg" in text
