"""The page of a search and its pictures: what they say of searches of every kind."""

import itertools
import math
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from keras_tuner import HyperParameters

from tuning import plots
from tuning.plots.of_trials import elapsed
from tuning.plots.view import fitting, reach, said_score, view
from tuning.result import SearchResult
from tuning.space import Space
from zoo.evaluation.figures import wilson
from zoo.evaluation.plots import svg
from zoo.evaluation.plots.style import BLUE, ORANGE
from zoo.files import write_json

NINE = datetime(2026, 11, 22, 9, tzinfo=UTC)
DEV = 150  # pictures
AWKWARD = "<b>rate</b> & \"quoted\" 'name'"


def several(hp):
    fields = {"learning_rate": hp.Float("learning_rate", 1e-5, 1e-1, sampling="log", default=1e-4)}
    optimizer = hp.Choice("optimizer", ["adam", "momentum"])
    with hp.conditional_scope("optimizer", ["momentum"]):
        if optimizer == "momentum":
            fields["momentum"] = 1 - hp.Float("one_minus_momentum", 1e-3, 1e-1, sampling="log", default=1e-1)
    return {**fields, "optimizer": optimizer, "batch_size": hp.Choice("batch_size", [16, 32, 64], default=32)}


def plain_if(hp):
    fields = several(hp)
    decay = hp.Float("decay", 1e-5, 1e-2, sampling="log")
    with hp.conditional_scope("optimizer", ["adam"]):
        beta2 = hp.Float("one_minus_beta2", 1e-4, 1e-1, sampling="log") if fields["optimizer"] == "adam" else None
    if fields["batch_size"] == 16:
        fields["weight_decay"] = decay
        fields |= {} if beta2 is None else {"beta2": 1 - beta2}
    return fields


def one(hp):
    return {"learning_rate": hp.Float(AWKWARD, 1e-5, 1e-1, sampling="log", default=1e-4)}


def accuracy(rate):
    """Whole pictures, the most of them at a rate of 1e-2."""
    return round(DEV * (0.95 - 0.03 * (math.log10(rate) + 2) ** 2)) / DEV


class Search:
    """The events of a search, as its journal has them."""

    def __init__(self, space=several, objective="val_accuracy", direction="max", test=30, **header):
        self.space = Space(space, "resnet20")
        self.chance = np.random.default_rng(0)
        about = {"space_name": "head", "space": self.space.describe(), "model": "resnet20", "seed": 0}
        about |= {"algorithm": "random", "objective": objective, "direction": direction, "pruning": None}
        about |= {"time": NINE.isoformat(), "python": "3.11.9", "versions": {"keras": "3.15.1"}, "own_model": False}
        about["reference"] = {"pictures": {"train": 300, "dev": DEV, "test": test}, "data": "a81f0c55", "classes": 3}
        self.events = [{"event": "search", **about, **header}]
        self.count = 0

    def trial(self, status="completed", seconds=10.0, continues=None, values=None, starts=1, proposed=None, **result):
        """Adds one, behind the others; the first has the defaults."""
        name, ended = f"{self.count:04d}", NINE + timedelta(seconds=10 * (self.count + 1))
        values = values or (self._drawn() if self.count else self.space.defaults)
        score = accuracy(next(iter(values.values())))
        score = score if self.events[0]["direction"] == "max" else 1.5 - score
        about = {"event": "proposed", "trial": name, "values": values, "epochs": None, "continues": continues}
        self.events.append({**about, **(proposed or {})})
        self.events += [{"event": "started", "trial": name}] * starts
        self.count += 1
        if status == "unfinished":
            return name
        ended_well = {"score": score, "epochs": 3, "best_epoch": 2, "curve": [score - 0.1, score, score - 0.01]}
        failed = {"score": None, "epochs": 0, "best_epoch": 0, "curve": [], "reason": "no memory", "kind": "OOM"}
        failed["traceback"] = f"trials/{name}/attempt-1/traceback.txt"
        about = {"trial": name, "status": status, "metrics": {}, "attempt": "attempt-1", "seconds": seconds}
        about |= {"worker": f"host:{self.count % 2}", "halved": False, "reason": "", "traceback": "", "started": ""}
        about |= {**(failed if status == "failed" else ended_well), **result}
        self.events.append({"event": "ended", "time": ended.isoformat(timespec="milliseconds"), "result": about})
        return name

    def trials(self, count, **about):
        for _ in range(count):
            self.trial(**about)
        return self

    def result(self, folder=Path(".")):
        return SearchResult(folder, self.events)

    def _drawn(self):
        hp = HyperParameters()
        for item in self.space.hyperparameters.space:
            if hp.is_active(item):
                hp.values[item.name] = item.prob_to_value(self.chance.uniform())
        return hp.values


class Page(HTMLParser):
    """A page's text, attributes of elements, cells of tables by section."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements, self.words, self.tables, self.section, self.cell = [], [], {}, "", None
        self.feed(self.source)

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
            self.tables[self.section][-1][-1].append("".join(self.cell or ()))
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


@pytest.fixture
def paged(tmp_path):
    """Writes and reads the page of a search."""

    def read(search):
        path = search.result(tmp_path).report()
        assert path == tmp_path / "report.html"
        return Page(path)

    return read


def mixed():
    """Twelve completed trials, two that were pruned and two that failed, the first the known-good recipe."""
    search = Search().trials(12)
    search.trials(2, status="pruned", epochs=1, best_epoch=1, curve=[0.5])
    return search.trials(2, status="failed")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search of every kind of trial, and its page."""
    folder = tmp_path_factory.mktemp("search")
    result = mixed().result(folder)
    return result, Page(result.report())


def test_the_page_needs_nothing_from_elsewhere(whole):
    _, page = whole
    links = [attrs["href"] for attrs in page.all("a")]

    assert {link for link in links if not link.startswith("#")} == {
        f"trials/{name}/attempt-1/traceback.txt" for name in ("0014", "0015")
    }
    assert not re.search(r'(src|href)="(https?:)?//', page.source)
    assert {link[1:] for link in links if link.startswith("#")} == {attrs["id"] for attrs in page.all("section")}


def test_the_page_opens_with_the_best_and_how_much_better_than_the_first_it_is(whole):
    result, page = whole
    first, best = result.trials.score[0], result.best_score
    low, high = wilson(round(best * DEV), DEV)

    assert page.text.count(f"Dev accuracy {best:.1%}: trial {result.best_trial}, the best of 12 completed trials") == 2
    assert f"by {100 * (best - first):.1f} points." in page.text
    assert f"95 % interval {low:.1%} to {high:.1%}" in page.text
    assert first < low and "the known-good recipe lies outside the interval" in page.text
    assert "The best of 12 scores on one dev set is also the luckiest of them" in page.text


def test_best_hyperparameters_stand_beside_those_of_the_first_trial(whole):
    result, page = whole
    heads, *rows = page.tables["best"][0]
    table = {row[0]: row[1:] for row in rows}

    assert heads == ["hyperparameter", f"best, {result.best_trial}", "first trial", "searched"]
    assert table["learning_rate"] == [f"{result.best['learning_rate']:.3g}", "0.0001", "1e-05 to 0.1, log"]
    assert table["one_minus_momentum"][1] == "–"
    assert table["batch_size"][1:] == ["32", "16, 32, 64"]


def test_every_trial_has_a_row_and_the_best_comes_first(whole):
    result, page = whole
    heads, *rows = page.tables["trials"][0]
    scores = [row[heads.index("val_accuracy")] for row in rows]

    assert sorted(row[0] for row in rows) == result.trials.trial.tolist()
    assert rows[0][:2] == [result.best_trial, "best"]
    assert scores[:14] == [f"{score:.2%}" for score in sorted(result.trials.score.dropna(), reverse=True)]
    assert scores[14:] == ["", ""] and {row[1] for row in rows[14:]} == {"failed"}


def test_failed_trials_have_their_reason_and_the_file_of_their_traceback(whole):
    _, page = whole

    assert page.tables["trials"][1][1:] == [
        [name, f"trials/{name}/attempt-1/traceback.txt", "no memory"] for name in ("0014", "0015")
    ]


def test_cost_is_told_by_status(whole):
    _, page = whole

    assert [row[:4] for row in page.tables["cost"][0][1:]] == [
        ["completed", "12", "120.0", "10.0"],
        ["pruned", "2", "20.0", "10.0"],
        ["failed", "2", "20.0", "10.0"],
    ]
    assert "on 2 worker processes, and took 3 min together, 10.0 s each on average" in page.text


def test_what_ran_is_written_down(whole):
    _, page = whole
    settings = dict(page.tables["what"][1])

    assert settings["objective"] == "val_accuracy, the higher the better"
    assert settings["pictures"] == "train 300, dev 150, test 30"
    assert settings["data fingerprint"] == "a81f0c55" and settings["versions"] == "keras 3.15.1"
    assert page.tables["what"][0][4] == ["one_minus_momentum", "0.001 to 0.1, log", "0.1", "optimizer is momentum"]


def test_a_gain_within_the_interval_may_be_chance(paged):
    search = Search()
    search.trial(score=0.9)
    search.trial(score=0.91)

    assert (
        "the known-good recipe lies within the 95 % interval of the best, so the gain may be chance"
        in paged(search).text
    )


def test_a_first_trial_that_is_the_best_says_so(paged):
    search = Search()
    search.trial(score=0.9)
    search.trial(score=0.8)

    page = paged(search)
    assert "No trial is better than the known-good recipe." in page.text
    assert "points against the known-good recipe" not in page.text


def test_a_best_trial_that_is_as_good_as_the_first_is_not_called_better(paged):
    search = Search()
    search.trial(score=0.9, metrics={"val_loss": 0.3})
    best = search.trial(score=0.9, metrics={"val_loss": 0.2})

    page = paged(search)
    assert search.result().best_trial == best
    assert "No trial is better than the known-good recipe." in page.text
    assert "points against" not in page.text


def test_a_first_trial_that_failed_leaves_nothing_to_compare_with(paged):
    search = Search()
    search.trial("failed")
    search.trial()

    assert "there is nothing to compare the best with" in paged(search).text


@pytest.mark.parametrize("own", [{"space_name": "several"}, {"space_name": "head", "ready": False}])
def test_the_first_trial_of_a_space_of_ones_own_is_no_known_good_recipe(paged, own):
    search = Search(**own)
    search.trial(score=0.9)
    search.trial(score=0.91)
    page = paged(search)
    (axes,) = plots.progress(search.result()).axes

    assert "known-good" not in page.source
    assert "points against the first trial" in page.text
    assert "Trial 0001 is better than the first trial by 1.0 points." in page.text
    assert "the first trial lies within the 95 % interval" in page.text
    assert "The first trial has the defaults of the space. –: does not apply." in page.text
    assert "first 90.0%" in {text.get_text() for text in axes.texts}


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        (["completed"], "Only the first trial was completed."),
        (["completed", "failed", "failed"], "Only the first trial was completed."),
        (["failed", "completed"], "The first trial was not trained to its end, so there is nothing to compare"),
    ],
)
def test_what_is_said_of_the_first_trial_of_a_space_of_ones_own(paged, statuses, said):
    search = Search(space_name="several", ready=False)
    for status in statuses:
        search.trial(status)

    assert said in paged(search).text


def test_a_journal_of_before_a_ready_space_was_noted_as_such_has_its_known_good_recipe(whole):
    result, page = whole
    (axes,) = plots.progress(result).axes

    assert "ready" not in result.header
    assert "The first trial is the known-good recipe. –: does not apply." in page.text
    assert any(text.get_text().startswith("known-good") for text in axes.texts)


def test_a_hyperparameter_that_a_plain_if_left_out_is_not_said_to_apply_always(paged):
    values = {"learning_rate": 1e-3, "optimizer": "adam", "batch_size": 32, "decay": 1e-3, "one_minus_beta2": 1e-2}
    search = Search(plain_if)
    search.trial(values={**values, "batch_size": 16})
    where = {row[0]: row[3] for row in paged(search).tables["what"][0][1:]}
    assert where["decay"] == "always" and where["one_minus_beta2"] == "optimizer is adam"

    search.trial(values=values, proposed={"idle": ["decay", "one_minus_beta2"]})
    momentum = {"learning_rate": 1e-3, "optimizer": "momentum", "batch_size": 16, "decay": 1e-3}
    search.trial(values={**momentum, "one_minus_momentum": 1e-2})
    where = {row[0]: row[3] for row in paged(search).tables["what"][0][1:]}
    assert where["decay"] == "not in every trial"
    assert where["one_minus_beta2"] == "optimizer is adam, not in every trial"
    assert where["one_minus_momentum"] == "optimizer is momentum" and where["batch_size"] == "always"


NO_DEV = {"objective": "accuracy", "reference": {"pictures": {"train": 300, "dev": 0, "test": 30}}}


def test_without_a_dev_set_nothing_is_said_of_it_but_that_it_is_wanted(paged):
    page = paged(Search(**NO_DEV).trials(2))

    assert "Training accuracy" in page.text and "retrain" not in page.text and "train and dev" not in page.text
    assert "is this trial's own model." in page.text
    assert 'favours trials that learn these by heart; objective="val_accuracy" , which needs a dev set,' in page.text
    assert 'Once all is decided, result.best_run.evaluate("test") says how good it is on new pictures.' in page.text


def test_a_training_score_is_warned_of_where_there_is_a_dev_set_and_a_dev_score_is_not(paged, whole):
    page = paged(Search(objective="accuracy").trials(2))

    assert 'learn these by heart; objective="val_accuracy" judges by others.' in page.text
    assert "result.retrain() trains once more with its recipe, on train and dev." in page.text
    assert "by heart" not in whole[1].text and "says how much." in whole[1].text


@pytest.mark.parametrize(
    ("objective", "pictures", "smoothings", "way_out"),
    [
        ("val_loss", {"dev": 150}, (0.0, 0.1), 'objective="val_accuracy"'),
        ("loss", {"dev": 150}, (0.0, 0.1), 'objective="val_accuracy"'),
        ("loss", {"dev": 0}, (0.0, 0.1), 'objective="accuracy"'),
        ("val_loss", {"dev": 150}, (None, 0.1), 'objective="val_accuracy"'),
        ("val_loss", {"dev": 150}, (0.1, 0.1), None),
        ("val_loss", {"dev": 150}, (None, None), None),
        ("val_accuracy", {"dev": 150}, (0.0, 0.1), None),
    ],
)
def test_losses_with_another_label_smoothing_are_not_comparable(paged, objective, pictures, smoothings, way_out):
    direction = "min" if objective.endswith("loss") else "max"
    search = Search(objective=objective, direction=direction, reference={"pictures": {"train": 300, **pictures}})
    for smoothing in smoothings:
        fields = {} if smoothing is None else {"label_smoothing": smoothing}
        search.trial(proposed={"made": {"model": None, "fields": fields}})
    search.trial("failed", proposed={"made": None})
    text = paged(search).text
    assert ("Trials differ in label smoothing" in text) == bool(way_out)
    assert not way_out or f"compared; those of {way_out} can" in text


def test_one_trial_makes_a_page(paged):
    page = paged(Search().trials(1))

    assert "trial 0000, the only completed trial" in page.text
    assert "Only the known-good recipe was completed." in page.text
    assert "No hyperparameter varied among the trials that have a score." in page.text


def test_failures_alone_make_a_page_that_says_why(paged):
    page = paged(Search().trials(5, status="failed").trials(1, status="failed", reason="another"))

    assert "No trial of 6 was completed" in page.text
    assert "There is no best trial. 5 trials of 6 failed for this reason: no memory" in page.text
    assert [attrs["id"] for attrs in page.all("section")] == ["trials", "cost", "test", "what"]
    assert not page.all("svg")


def test_pruned_trials_alone_are_drawn_and_none_is_the_best(paged):
    page = paged(Search().trials(1, status="failed").trials(3, status="pruned"))

    assert "No trial of 4 was completed" in page.text and "Hyperparameters together" in page.text
    assert page.all("svg")


def test_a_search_that_goes_on_says_how_many_trials_are_out(paged):
    page = paged(Search().trials(3).trials(2, status="unfinished"))

    assert "2 trials had not ended when this page was written." in page.text
    assert [row[1] for row in page.tables["trials"][0][1:]].count("unfinished") == 2


@pytest.mark.parametrize("running", [0, 2])
def test_a_search_that_has_only_begun_makes_a_page(paged, running):
    page = paged(Search().trials(running, status="unfinished"))

    assert "No trial has ended yet." in page.text


def test_one_hyperparameter_with_an_awkward_name_is_escaped(paged):
    page = paged(Search(one).trials(11))

    assert "<b>" not in page.source
    assert page.tables["importance"][0][1][:2] == [AWKWARD, "100.0"]


def test_a_loss_is_the_better_the_lower(paged):
    search = Search(objective="val_loss", direction="min")
    search.trial(score=0.8)
    search.trial(score=0.5)

    page = paged(search)
    assert "Dev loss 0.5: trial 0001" in page.text and "by 0.3." in page.text
    assert "-0.3" in page.text and "interval" not in page.text
    assert next(attrs for attrs in page.all("div") if attrs.get("class") == "tile good")


def test_a_rung_that_was_better_than_the_next_one_stays_the_best(paged):
    search = Search(algorithm="hyperband")
    search.trials(3, score=0.5)
    values = {"learning_rate": 1e-3, "optimizer": "adam", "batch_size": 16}
    search.trial(score=0.9, values=values)
    search.trial(score=0.8, values=values, continues="0003")

    page = paged(search)
    assert "trial 0003, the best of 5" in page.text
    (axes,) = plots.parallel(search.result()).axes
    assert [line.get_linewidth() for line in axes.lines].count(2.4) == 1
    assert "goes on with the training of an earlier one" in page.text


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "(30 pictures) has not been looked at over the runs of this search"),
        (1, "has been looked at 1 time over the runs of this search."),
        (3, "has been looked at 3 times over the runs of this search. Whoever chooses"),
    ],
)
def test_looks_at_the_test_set_are_told(paged, tmp_path, count, said):
    if count:
        write_json(tmp_path / "trials" / "0000" / "attempt-1" / "evaluation" / "test_looks.json", {"times": count})

    assert said in paged(Search().trials(1)).text


def test_without_a_test_set_the_page_says_so(paged):
    page = paged(Search(test=0).trials(1))

    assert "There is no test set" in page.text and 'evaluate("test")' not in page.text


def test_a_page_that_cannot_be_written_leaves_the_earlier_one(paged, tmp_path, monkeypatch):
    paged(Search().trials(1))
    before = (tmp_path / "report.html").read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))

    with pytest.raises(OSError, match="full"):
        Search().trials(2).result(tmp_path).report()

    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_bytes() == before


def test_time_counts_what_ran_at_once_once_and_leaves_pauses_out():
    ended = [NINE + timedelta(seconds=second) for second in (10, 12, 3600, 5)]
    table = pd.DataFrame(
        {"ended": [*(moment.isoformat() for moment in ended), ""], "seconds": [10, 5, 20, 1, math.nan]}
    )

    np.testing.assert_allclose(elapsed(table), [10, 12, 32, 5, math.nan])


def test_progress_shows_the_best_so_far(whole):
    result, _ = whole
    (axes,) = plots.progress(result).axes
    steps = next(line for line in axes.lines if line.get_drawstyle() == "steps-post").get_ydata()

    assert list(steps) == [*result.trials.score[:12].cummax(), result.best_score]
    assert len(axes.lines[[line.get_marker() for line in axes.lines].index("x")].get_xdata()) == 2
    assert axes.get_title("left") == "square: pruned; x: failed"


def test_progress_of_a_loss_goes_down():
    result = Search(objective="val_loss", direction="min").trials(8).result()
    (axes,) = plots.progress(result).axes
    steps = next(line for line in axes.lines if line.get_drawstyle() == "steps-post").get_ydata()

    assert list(steps) == [*result.trials.score.cummin(), result.best_score]


def test_a_score_far_out_stands_at_the_edge_and_leaves_the_others_apart():
    result = Search().result()
    shown = view(result, [0.1, *np.linspace(0.9, 0.95, 20)])
    held, outside = shown.held([0.1, 0.92])

    assert 0.85 < shown.low < 0.9 and 0.95 < shown.high
    assert outside.tolist() == [True, False]
    assert shown.low < held[0] < 0.9 and held[1] == 0.92


def test_an_axis_of_shares_begins_at_none_and_is_written_on_up_to_all():
    search = Search(one)
    for score in (0.02, 0.5, 1.0):
        search.trial(score=score)
    shown = view(search.result(), [0.02, 0.5, 1.0])
    (axes,) = plots.parallel(search.result()).axes
    ticks = {text.get_text() for text in axes.texts if text.get_text().endswith("%")}

    assert shown.low == 0 and not shown.held([0.02, 1.0])[1].any()
    assert {"0.0%", "100.0%"} <= ticks and len(ticks) == 3
    assert view(Search(objective="val_loss", direction="min").result(), [0.0, 0.5]).low < 0


def test_losses_of_many_magnitudes_have_a_log_axis():
    result = Search(objective="val_loss", direction="min").result()

    assert view(result, [0.01, 0.1, 1.0, 0.3]).log
    assert not view(result, [0.2, 0.3, 0.4, 0.5]).log


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5], [0.0], [1.0, 1.0], [math.nextafter(0.5, 1), 0.5]])
@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_an_axis_of_equal_scores_has_some_width(objective, scores):
    shown = view(Search(objective=objective).result(), scores)

    assert shown.high - shown.low > 1e-4
    assert not shown.held(scores)[1].any()


def test_curves_put_the_best_and_the_first_on_top(whole):
    result, _ = whole
    (axes,) = plots.curves(result).axes
    thick = {line.get_color(): line for line in axes.lines if line.get_linewidth() > 2}

    assert list(thick[ORANGE].get_ydata()) == result.curves[result.best_trial]
    assert len(axes.lines) >= len(result.curves)
    assert {text.get_text() for text in axes.texts} == {"best", "first"}


def test_parallel_lines_go_through_the_values_of_each_trial(whole):
    result, _ = whole
    (axes,) = plots.parallel(result).axes
    best = next(line for line in axes.lines if line.get_linewidth() == 2.4).get_xdata()
    names = [label.get_text() for label in axes.get_yticklabels()]
    kept = result.best["learning_rate"]

    assert names == ["learning_rate", "optimizer", "batch_size", "one_minus_momentum", "val_accuracy"]
    assert best[0] == pytest.approx((math.log10(kept) + 5) / 4)
    assert {f"{kept:.3g}", f"{result.best_score:.1%}"} <= {text.get_text() for text in axes.texts}
    assert len([line for line in axes.lines if len(line.get_xdata()) == 12]) == 14  # four gaps of three places


def test_choices_have_their_median_and_the_best_is_orange(whole):
    result, _ = whole
    axes = plots.hyperparameters(result, ["optimizer"]).axes[0]
    top = next(line for line in axes.lines if line.get_color() == ORANGE)

    assert top.get_ydata().tolist() == [result.best_score]
    scored = result.trials.dropna(subset="score")
    medians = {line.get_ydata()[0] for line in axes.lines if line.get_marker() == "None"}
    assert medians == {float(group.median()) for _, group in scored.groupby("optimizer").score if len(group) > 2}
    dots = [line for line in axes.lines if line.get_color() == BLUE]
    assert sum(len(line.get_ydata()) for line in dots) == 12


def test_a_picture_of_a_hyperparameter_that_never_varied_is_refused(whole):
    result, _ = whole

    with pytest.raises(ValueError, match="hyperparameters that varied.*learning_rate.*Received: names=\\['seed'\\]"):
        plots.hyperparameters(result, ["seed"])


@pytest.mark.parametrize("draw", [plots.progress, plots.parallel, plots.hyperparameters, plots.curves])
def test_nothing_to_draw_is_said(draw):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(Search().trials(2, status="failed").result())


def test_importance_without_figures_is_not_drawn():
    with pytest.raises(ValueError, match="10 are needed"):
        plots.importance(Search().trials(3).result().importance)


def test_many_trials_are_pixels_within_the_drawing():
    result = Search(one).trials(320).result()

    for figure in (plots.progress(result), plots.parallel(result), plots.hyperparameters(result)):
        page = svg(figure, "many")
        assert "<image" in page and len(page) < 400_000


def test_labels_that_would_touch_are_left_out_but_for_the_ends():
    ticks = [(place, "0.0001") for place in (0, 0.1, 0.5, 0.95, 1)]

    assert [place for place, _ in fitting(ticks, 2.0)] == [0, 0.5, 1]
    assert fitting(ticks[:1], 2.0) == ticks[:1]
    spans = [reach(place, text, 2.0) for place, text in fitting(ticks, 2.0)]
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.parametrize(
    ("objective", "score", "text"),
    [("val_accuracy", 0.954, "95.4%"), ("val_loss", 0.12345, "0.1235"), ("loss", math.nan, "")],
)
def test_scores_are_said_as_what_they_are(objective, score, text):
    assert said_score(objective, score) == text
