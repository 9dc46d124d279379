"""The report: what it says, that it stands alone, and what it makes of runs that lack something."""

import ast
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import zoo
from zoo.data import memory
from zoo.data.manifest_text import clip
from zoo.data.sources import Files
from zoo.evaluation.advice.situation import call
from zoo.evaluation.importance import LayerImportance
from zoo.evaluation.predictions import Evaluation
from zoo.evaluation.report import _compared, _failures, _importance, facts, headline_split, pictures, report, sections
from zoo.evaluation.report.blocks import Cell, Drawing, Table, Words, number, pieces
from zoo.evaluation.report.pictures import DOUBTFUL, NARROW, SUSPECTS, WORST, Judged, overlay, thumbnail, where
from zoo.models.temperature import with_temperature
from zoo.pages import data_uri, render

LONG = "long " + "name" * 80
NAMES = ["<b>bold</b> & \"quoted\" 'name'", "wasps \N{SMILING FACE WITH SUNGLASSES}", LONG]
LARGEST = 3_000_000
TEMPLATE = Path(sections.__file__).with_name("report.html")


class Page(HTMLParser):
    """What a page holds: text, attributes of elements, cells of tables by section."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.tables, self.section, self.cell = [], [], {}, "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"]
        if tag == "table":
            self.tables.setdefault(self.section, []).append([])
        if tag == "tr":
            self.tables[self.section][-1].append([])
        if tag in ("th", "td"):
            self.cell = []

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.tables[self.section][-1][-1].append("".join(self.cell))
            self.cell = None

    def handle_data(self, data):
        self.words.append(data)
        if self.cell is not None:
            self.cell.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs on 120 digits, whose classes have awkward names."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(n_class=3, return_X_y=True)
    pixels = np.round(images.reshape(-1, 8, 8)[:120] * (255 / 16)).astype(np.uint8)
    data = zoo.load_data((pixels, np.array(NAMES)[labels[:120]]), split=(0.5, 0.3, 0.2))
    folder = tmp_path_factory.mktemp("runs") / "run"
    return zoo.fine_tune("convnet", data, image_size=16, epochs=2, directory=folder)


@pytest.fixture(scope="module")
def page(run):
    """Its page, written where an earlier one has left a comparison, and blocks that fit no longer."""
    folder = run.directory / "evaluation"
    folder.mkdir(exist_ok=True)
    for name in ("comparison.json", "importance.csv"):
        (folder / name).write_text("{}")
    written = Page(report(run).read_text(encoding="utf-8"))
    (folder / "importance.csv").unlink()
    return written


class Pictures:
    """A split of black ones."""

    def read(self, rows):
        return np.zeros((len(rows), 8, 8, 1), np.uint8)


def made(labels, probabilities, names=("ants", "bees")):
    probabilities = np.asarray(probabilities, np.float32)
    return Evaluation("dev", list(names), [f"{i}.jpg" for i in range(len(labels))], np.asarray(labels), probabilities)


def words(section):
    return " ".join(block.text for block in section.blocks if hasattr(block, "text"))


def test_the_page_says_what_evaluation_and_diagnosis_say(run, page):
    evaluation, diagnosis = run.evaluate("dev"), run.diagnose()
    low, high = evaluation.accuracy_interval
    assert f"{evaluation.accuracy:.1%} of {len(run.data.dev)} dev pictures recognised" in page.text
    assert f"95 % interval {low:.1%} to {high:.1%}" in page.text
    assert diagnosis.sentence in page.text
    assert all(step.title in page.text and step.why in page.text for step in diagnosis.steps)
    assert "The dev set also chose the epoch" in page.text and 'run.evaluate("test") does it' in page.text
    assert f"Epoch {run.best_epoch} of 2 is the best, by the loss on dev: dev accuracy" in page.text
    assert "The run was not calibrated" in page.text
    head, *rows = page.tables["classes"][0]
    assert head == ["class", "precision", "recall", "F1", "pictures"]
    for row, expected in zip(rows, evaluation.per_class.itertuples(index=False), strict=True):
        assert row[1:] == [*(f"{value:.3f}" for value in expected[:3]), f"{expected[3]}"]
    pairs = evaluation.most_confused(10)
    assert [row[2] for row in page.tables["confusion"][0][1:]] == [f"{count}" for count in pairs["count"]]
    recipe = {row[0]: row[1:] for row in page.tables["recipe"][0][1:]}
    assert recipe["image_size"] == ["16x16", "given"]
    assert set(recipe) == {*run.recipe.to_dict()} - {"reasons"}


def test_the_page_stands_alone_and_tells_what_its_pictures_show(run, page):
    text = (run.directory / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert "default-src 'none'" in text
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|\#)|url\((?!#)|@import""", text)
    shown, evaluation = page.all("img"), run.evaluate("dev")
    doubtful = min(DOUBTFUL, int((evaluation.doubtful(99).margin < NARROW).sum()))
    assert len(shown) == 2 * WORST + doubtful + min(SUSPECTS, len(evaluation.label_errors()))
    assert all(picture["alt"] and picture["src"].startswith("data:image/jpeg") for picture in shown)
    assert '<code>zoo report RUN <span class="option">--importance</span></code>' in text
    assert text.count("<svg") == text.count("<title>") - 1 == 5  # the page's own title is one more
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    anchors = [link["href"].removeprefix("#") for link in page.all("a")]
    assert anchors == [section["id"] for section in page.all("section")]
    assert len(anchors) == 16


def test_names_are_escaped_and_cut(run, page):
    text = (run.directory / "report.html").read_text(encoding="utf-8")
    assert "<b>bold" not in text
    assert NAMES[0] in page.text
    assert NAMES[1] in page.text
    assert LONG not in text
    assert all(len(cell) <= 80 for row in page.tables["classes"][0] for cell in row)


def test_every_figure_lies_beside_the_page(run, page):
    folder = run.directory / "evaluation"
    evaluation = run.evaluate("dev")
    per_class = pd.read_csv(folder / "per_class.csv")
    assert per_class.label.tolist() == evaluation.class_names
    np.testing.assert_allclose(per_class.f1, evaluation.per_class.f1)
    assert set(per_class.split) == {"dev"}
    counts = pd.read_csv(folder / "confusion.csv", index_col=0)
    np.testing.assert_array_equal(counts, evaluation.confusion)
    np.testing.assert_allclose(pd.read_csv(folder / "reliability.csv").accuracy, evaluation.reliability.accuracy)
    assert len(pd.read_csv(folder / "label_errors.csv")) == len(evaluation.label_errors())
    assert json.loads((folder / "diagnosis.json").read_text())["sentence"] == run.diagnose().sentence
    named = {row[0] for row in page.tables["files"][0]}
    assert named == {f"evaluation/{path.name}" for path in folder.iterdir()}
    assert "evaluation/importance.csv is damaged" in page.text
    assert not (folder / "comparison.json").exists()


@pytest.mark.slow
def test_a_comparison_is_shown_and_a_failed_write_leaves_the_page_that_was_there(run, page, monkeypatch):
    old = (run.directory / "report.html").read_text(encoding="utf-8")
    swapped = SimpleNamespace(directory=run.directory / "other", data=run.data, evaluate=lambda split: other)
    evaluation = run.evaluate("dev")
    other = Evaluation(
        "dev", run.class_names, evaluation.paths, evaluation.labels, np.eye(3)[(evaluation.labels + 1) % 3]
    )
    with monkeypatch.context() as patch:

        def full(source, target, put=os.replace):
            if Path(target).name == "report.html":
                raise OSError("no space left")
            put(source, target)

        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space"):
            report(run)
    assert (run.directory / "report.html").read_text(encoding="utf-8") == old
    text = Page(report(run, compare=swapped).read_text(encoding="utf-8")).text
    assert "This run is better than the other." in text
    assert str(swapped.directory) in text
    assert "evaluation/comparison.json" in text
    found = json.loads((run.directory / "evaluation" / "comparison.json").read_text())
    assert found["only_first"] == round(evaluation.accuracy * len(evaluation.paths))
    assert found["other"] == str(swapped.directory)


def test_the_test_set_is_the_headline_only_where_it_was_evaluated(tmp_path):
    def of(**sizes):
        data = SimpleNamespace(**{name: range(sizes.get(name, 0)) for name in ("train", "dev", "test")})
        return headline_split(SimpleNamespace(data=data, directory=tmp_path))

    assert of(train=5, dev=3, test=2) == "dev"
    assert of(train=5, test=2) == "train"
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "test.json").write_text("{}")
    assert of(train=5, dev=3, test=2) == "test"
    assert of(train=5, dev=3) == "dev"


def test_steps_come_with_a_call_that_python_reads(run):
    changes = {"model": "resnet18", "weights": "a 'tag'", "image_size": (64, 64), "freeze": ("large", "none")}
    parsed = ast.parse(call(run.recipe, changes), mode="eval").body
    assert ast.unparse(parsed.func) == "zoo.fine_tune"
    assert parsed.args[0].value == "resnet18"
    given = {word.arg: word.value for word in parsed.keywords}
    assert ast.unparse(given.pop("recipe")) == "run.recipe"
    assert {name: ast.literal_eval(value) for name, value in given.items()} == {
        name: changes[name] for name in ("weights", "image_size", "freeze")
    }
    own = SimpleNamespace(head="as given", model="functional_3")
    assert call(own, {"epochs": 4}).startswith("zoo.fine_tune(model, run.data, ")
    assert call(run.recipe, {}) == ""


def test_gradients_are_told_in_words_and_missing_or_damaged_ones_are_said(run, tmp_path):
    section = sections.gradients(run)
    assert [type(block).__name__ for block in section.blocks[-1].blocks] == ["Drawing", "Table"]
    assert {row[0].text for row in section.blocks[-1].blocks[1].rows} == {"stem", "stage1", "stage2", "head"}
    broken = SimpleNamespace(directory=tmp_path)
    assert "there is no gradients.csv" in words(sections.gradients(broken))
    for text in ("epoch,step\n1,2\n", "\x00\x01", ""):
        (tmp_path / "gradients.csv").write_text(text)
        assert "Nothing can be said of the gradients" in words(sections.gradients(broken))
    header, *rows = (run.directory / "gradients.csv").read_text().splitlines()
    cells = rows[0].split(",")
    cells[header.split(",").index("gradient_norm")] = "nan"
    (tmp_path / "gradients.csv").write_text("\n".join([header, ",".join(cells), *rows[1:4]]) + "\n")
    assert "Stem exploding; " in words(sections.gradients(broken))


def test_an_unreadable_environment_is_left_out_and_said(tmp_path):
    for text, why in ((None, "no environment.json"), ("{", "damaged"), ("[1]", "something else")):
        if text:
            (tmp_path / "environment.json").write_text(text)
        record, trouble = facts.environment(tmp_path)
        assert record == {} and why in trouble
        assert trouble in words(facts.environment_section(record, trouble))
    assert "not noted" in words(facts.time_section({}))


def test_time_adds_up_with_a_rest():
    section = facts.time_section({"seconds": 10, "time": {"reading": 2.5, "fitting": 6, "odd": "x"}})
    assert words(section) == "The training took 10.0 s."
    assert [(row[0].text, row[1].value) for row in section.blocks[1].rows] == [
        ("fitting", 6),
        ("reading", 2.5),
        ("the rest", 1.5),
    ]


def test_blocks_that_were_taken_out_before_are_shown_where_they_fit(run):
    evaluation = run.evaluate("dev")
    known = [Judged(evaluation, run.data.dev)]
    path = run.directory / "evaluation" / "importance.csv"
    assert "was not looked at" in _importance(run, known, False)[1]
    row = {"block": "b<1>", "stage": "", "how": "identity", "parameters": 7, "drop": 0.25, "low": 0.1, "high": 0.4}
    try:
        pd.DataFrame([{**row, "accuracy": evaluation.accuracy - 0.25}]).to_csv(path, index=False)
        found, trouble = _importance(run, known, False)
        assert isinstance(found, LayerImportance)
        assert (found.pictures, found.split, trouble) == (len(run.data.dev), "dev", "")
        *_, beside = sections.importance(found, trouble).blocks
        assert [cell.text for cell in beside.blocks[1].rows[0]] == ["b<1>", "25.0", "10.0 to 40.0", "identity", "7"]
        pd.DataFrame([{**row, "accuracy": evaluation.accuracy - 0.6}]).to_csv(path, index=False)
        assert "of other pictures" in _importance(run, known, False)[1]
        path.write_text("block,drop\n")
        assert "damaged" in _importance(run, known, False)[1]
    finally:
        path.unlink()


def test_the_calibration_of_a_run_is_told_as_it_was(run, tmp_path):
    def told(temperature, record=None, pictures=1):
        (tmp_path / "evaluation").mkdir(exist_ok=True)
        path = tmp_path / "evaluation" / "calibration.json"
        path.unlink() if path.exists() else None
        path.write_text(record if isinstance(record, str) else json.dumps(record)) if record is not None else None
        model = run.model if temperature is None else with_temperature(run.model, temperature)
        data = SimpleNamespace(dev=range(pictures))
        return sections._temperature(SimpleNamespace(model=model, directory=tmp_path, data=data))

    better, note = {"before": {"loss": 2.0}, "after": {"loss": 1.0}}, "Every dev picture is right."
    assert "not calibrated; run.calibrate() fits a temperature" in told(None)
    assert told(None, pictures=0).endswith("The run was not calibrated.")
    carried = "The model carries a temperature of 0.756 from before this training"
    assert told(0.756).endswith(f"{carried}; run.calibrate() fits it anew.")
    assert told(0.756, pictures=0).endswith(f"{carried}.")
    assert told(0.756, {**better, "note": ""}).endswith("The run was calibrated: its temperature is 0.756.")
    assert told(0.756, {**better, "note": "Few."}).endswith("its temperature is 0.756. Few.")
    kept = {"before": {"loss": 2.0}, "after": {"loss": 2.0}, "note": note}
    assert told(1.0, kept).endswith(f"The run was calibrated, which left its temperature at 1. {note}")
    assert told(0.756, "{").endswith("The run was calibrated: its temperature is 0.756.")


def test_pictures_are_called_doubtful_only_where_two_classes_are_close():
    sure = made([0, 1, 0], [[0.974, 0.026], [0.3, 0.7], [0.2, 0.8]])
    section = pictures.doubtful(Judged(sure, Pictures()))
    assert [group[0].name for group in section.blocks[-1].groups] == ["1.jpg"]
    section = pictures.doubtful(Judged(made([0], [[0.974, 0.026]]), Pictures()))
    assert words(section) == "One class is 50 points or more ahead of all others on every picture. There are none."


def test_a_label_may_be_suspect_though_the_network_is_less_sure_than_usual():
    ants = np.array([0.1, 0.1, 0.4, *[0.99] * 6, *[0.6] * 3])
    bees = np.array([0.9, 0.9, 0.9, 0.8])
    probabilities = np.stack([np.r_[ants, 1 - bees], np.r_[1 - ants, bees]], axis=1)
    evaluation = made([0] * 12 + [1] * 4, probabilities)
    found = evaluation.label_errors()
    assert found.suggested_probability.min() < 0.7 < bees.mean()
    said = words(pictures.label_errors([Judged(evaluation, Pictures())]))
    assert "each has a class that is more probable than its label, but a single one need not be sure" in said
    assert (found.suggested_probability > found.probability).all()


def test_a_comparison_writes_nothing_of_the_other_run_and_leaves_its_test_set_alone(run, tmp_path):
    one = SimpleNamespace(data=run.data, evaluate=lambda split: run.evaluate(split, save=False))
    shutil.copytree(run.directory, tmp_path / "other", ignore=shutil.ignore_patterns("evaluation"))
    other = zoo.load_run(tmp_path / "other", run.data)
    found, why = _compared(one, other, "test")
    assert (found.split, found.pictures) == ("dev", len(run.data.dev))
    assert "compared on dev, since the test set of the other run has not been looked at" in why
    assert 'run.evaluate("test") does it' in why
    section = sections.comparison(found, other, why)
    assert why in words(section) and section.blocks[2].tiles[1].note == f"of {len(run.data.dev)} dev pictures"
    assert not (other.directory / "evaluation").exists()
    other.evaluate("test")
    before = {path.name: path.stat().st_mtime_ns for path in (other.directory / "evaluation").iterdir()}
    found, why = _compared(one, other, "test")
    assert (found.split, why) == ("test", "")
    assert {path.name: path.stat().st_mtime_ns for path in (other.directory / "evaluation").iterdir()} == before


def test_the_command_for_the_test_set_names_pictures_that_have_moved(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new place"
    run = SimpleNamespace(directory=tmp_path, data=SimpleNamespace(source=Files(old)))
    command = f"zoo evaluate {tmp_path} --split test"
    assert facts.how_to_test(run) == command
    (tmp_path / "data.json").write_text(json.dumps({"source": Files(old).describe()}))
    assert facts.how_to_test(run) == command
    run.data.source = Files(new)
    assert facts.how_to_test(run) == f"{command} --data '{new}'"
    run.data.source = memory.arrays(np.zeros((1, 8, 8, 3), np.uint8)).source
    assert facts.how_to_test(run) == 'run.evaluate("test")'  # the command cannot find them again


def test_one_class_a_class_that_is_never_predicted_and_no_label_are_no_trouble(tmp_path):
    model, data = SimpleNamespace(_flatten_layers=list, name="m"), SimpleNamespace(dev=[1])
    run = SimpleNamespace(model=model, directory=tmp_path, data=data)
    one = made([0, 0], [[1], [1]], ["ants"])
    assert "Every picture was recognised" in words(sections.confusion(one))
    assert "Never predicted" not in words(sections.classes(one))
    assert "not calibrated" in words(sections.calibration(run, one))
    ignored = made([0, 1], [[0.9, 0.1], [0.8, 0.2]])
    assert "Never predicted: bees." in words(sections.classes(ignored))
    unlabelled = made([-1, -1], [[0.7, 0.3], [0.4, 0.6]])
    assert [tile.name for tile in sections.tiles(unlabelled).tiles] == ["pictures"]
    told, doubtful = (make() for make in _failures(run, Judged(unlabelled, Pictures()), []))
    assert "has no labels" in words(told)
    assert [group[0].name for group in doubtful.blocks[-1].groups] == ["1.jpg", "0.jpg"]


def test_pictures_keep_their_colours_and_small_ones_their_pixels():
    pixels = np.zeros((16, 8, 4), np.uint8)
    pixels[:8] = (255, 0, 0, 9)
    small = thumbnail(pixels)
    assert small.size == (112, 224)
    assert small.getpixel((0, 0)) == (255, 0, 0)
    assert thumbnail(np.zeros((300, 600, 1), np.uint8)).size == (224, 112)
    heat = np.zeros((9, 9), np.float32)
    heat[7, 1] = 1
    seen = overlay(np.full((9, 9, 3), 100, np.uint8), heat)
    assert (seen[0, 0] == 100).all() and (seen[7, 1] > 120).any()
    assert where(heat) == "mostly at the lower left"
    assert where(heat * 0) == "nowhere in particular"


def test_the_page_stays_small_with_a_thousand_classes_and_pictures_of_noise():
    chance = np.random.default_rng(0)
    names = [f"{i} {'<&' * 200}" for i in range(1000)]
    evaluation = made(chance.integers(0, 1000, 2000), chance.dirichlet(np.ones(1000), 2000), names)
    history = {name: chance.random(2000).tolist() for name in ("loss", "val_loss", "accuracy", "val_accuracy")}
    made_of = [
        sections.confusion(evaluation),
        sections.classes(evaluation),
        sections.learning(SimpleNamespace(history=history, best_epoch=7)),
    ]
    drawings = [one for section in made_of for block in section.blocks for one in getattr(block, "blocks", [block])]
    drawings = [len(block.svg or block.source) for block in drawings if isinstance(block, Drawing)]
    assert max(drawings) <= sections.LARGEST
    noise = data_uri(thumbnail(chance.integers(0, 256, (224, 224, 3), np.uint8)))
    photos = (2 * WORST + DOUBTFUL + 2 * SUSPECTS) * len(noise)
    table = next(block for block in made_of[1].blocks if isinstance(block, Table))
    assert len(table.rows) == sections.ROWS and "of 1,000" in table.note
    text = render(
        TEMPLATE,
        **{name: "" for name in ("title", "place", "verdict")},
        about=Words(""),
        clip=clip,
        pieces=pieces,
        tiles=sections.tiles(evaluation),
        sections=made_of,
    )
    others = 6 * sections.LARGEST - sum(drawings) + 200_000  # drawings that are not there, and lists that end
    assert len(text.encode()) + photos + others < LARGEST


def test_numbers_sort_as_numbers_and_gaps_last():
    assert [number(value, ".1f").key for value in (0.25, 10, float("nan"), None)] == ["0.25", "10.0", "", ""]
    assert number(None).text == "" and Cell("x").value is None
