"""Searches of a few trials on small pictures; each trial is a real training."""

import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import keras
import numpy as np
import pytest

import tuning
import zoo
from callbacks import locking
from callbacks.locking import InUse
from tuning.journal import NAME
from tuning.loop import SearchStopped
from tuning.pruning import medians

SMALL = {"epochs": 2, "batch_size": 16, "variant": {"filters": (2, 4)}}


def rates(hp):
    return {"learning_rate": hp.Float("learning_rate", 1e-3, 1e-1, sampling="log", default=1e-2)}


def search(data, directory, executor, **changes):
    given = {"space": rates, "algorithm": "random", "trials": 3, "workers": 1, "executor": executor, **SMALL, **changes}
    return tuning.search("convnet", data, directory=directory, **given)


class Idle:
    """An executor that must not be needed."""

    def submit(self, *_):
        raise AssertionError("a trial was begun")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_digits, another_in_process):
    """The folder of a search of three trials."""
    folder = tmp_path_factory.mktemp("search") / "done"
    search(few_digits, folder, another_in_process)
    return folder


@pytest.fixture
def done(finished, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(finished, tmp_path / "done")


def test_the_first_trial_is_the_known_good_recipe_and_all_are_in_the_table(finished):
    result = tuning.load_search(finished)
    table = result.trials

    assert table.trial.tolist() == ["0000", "0001", "0002"]
    assert set(table.status) == {"completed"}
    assert table.learning_rate.iloc[0] == 1e-2
    assert table.learning_rate.nunique() == 3
    assert table.attrs["hyperparameters"] == ["learning_rate"]
    assert result.best == {"learning_rate": table.learning_rate[table.trial == result.best_trial].item()}
    assert f"best val_accuracy {result.best_score:.4f}" in str(result)


def test_the_best_run_is_the_trials_own_and_shows_its_figure_again(finished):
    result = tuning.load_search(finished)
    evaluation = result.best_run.evaluate("dev", save=False)

    assert evaluation.accuracy == pytest.approx(result.best_score)
    assert result.best_run.directory == finished / "trials" / result.best_trial / "attempt-1"
    assert result.best_run.recipe.learning_rate == result.best["learning_rate"]


def test_a_finished_search_returns_at_once(done, few_digits):
    before = (done / NAME).read_bytes()
    result = search(few_digits, done, Idle())

    assert len(result.trials) == 3
    assert (done / NAME).read_bytes() == before


def test_more_trials_go_on_where_a_longer_search_would_have_been(done, few_digits, in_process):
    from tuning.proposals import Proposals
    from tuning.space import Space

    result = search(few_digits, done, in_process, trials=4)
    space = Space(rates, "convnet")
    alone = Proposals(
        space.hyperparameters, space.defaults, algorithm="random", objective="val_accuracy", direction="max"
    )

    assert len(in_process.ran) == 1
    assert result.trials.learning_rate.tolist() == [alone.propose().values["learning_rate"] for _ in range(4)]


@pytest.mark.parametrize("cut", [pytest.param(2, marks=[pytest.mark.slow, pytest.mark.long]), 5])
def test_what_was_running_when_it_was_killed_is_run_again(done, few_digits, in_process, cut):
    whole = tuning.load_search(done).trials
    lines = (done / NAME).read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["event"] != "begin"][: 1 + cut]
    (done / NAME).write_bytes(b"".join(kept) + lines[-1][:20])
    ended = sum(json.loads(line)["event"] == "ended" for line in kept)
    result = search(few_digits, done, in_process)

    assert len(in_process.ran) == 3 - ended
    for column in ("trial", "status", "score", "learning_rate", "best_epoch"):
        assert result.trials[column].tolist() == whole[column].tolist()


def other_rates(hp):
    return {"learning_rate": hp.Float("learning_rate", 1e-4, 1e-1, sampling="log", default=1e-2)}


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"space": other_rates}, "learning_rate is 0.001 to 0.1 .* there and 0.0001 to 0.1 .* here"),
        ({"objective": "val_loss", "direction": "min"}, "objective is 'val_accuracy' there and 'val_loss' here"),
        ({"algorithm": "grid"}, "algorithm is 'random' there and 'grid' here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"epochs": 3}, "epochs is 2 there and 3 here"),
    ],
)
def test_a_folder_with_a_search_for_something_else_is_refused(finished, few_digits, changes, difference):
    with pytest.raises(ValueError, match=f"holds a search for something else: .*{difference}"):
        search(few_digits, finished, Idle(), **changes)


def test_a_space_that_makes_something_else_of_its_hyperparameters_is_refused(finished, few_digits):
    def rates(hp):
        return {"learning_rate": hp.Float("learning_rate", 1e-3, 1e-1, sampling="log", default=1e-2) / 2}

    with pytest.raises(ValueError, match="the space makes `learning_rate` 0.005 of trial 0000, where it was 0.01"):
        search(few_digits, finished, Idle(), space=rates, trials=4)


def test_the_journal_of_something_else_is_refused(few_digits, tmp_path):
    (tmp_path / NAME).write_text('{"event": "comparison"}\n')
    with pytest.raises(ValueError, match="holds a comparison, no search"):
        search(few_digits, tmp_path, Idle())
    with pytest.raises(ValueError, match="holds a comparison, no search"):
        tuning.load_search(tmp_path)


def test_points_of_which_the_space_makes_no_recipe_are_failed_trials(few_digits, in_process, tmp_path):
    def brittle(hp):
        rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log", default=1e-2)
        if brittle.taken_apart and rate != 1e-2:
            raise LookupError(f"no recipe for {rate}")
        return {"learning_rate": rate}

    class Executor(type(in_process)):
        def submit(self, *args):
            brittle.taken_apart = True
            return super().submit(*args)

    brittle.taken_apart = False
    with pytest.raises(SearchStopped, match="5 trials in a row failed.*the space makes no recipe: no recipe for"):
        search(few_digits, tmp_path / "new", Executor(), space=brittle, trials=9)
    result = tuning.load_search(tmp_path / "new")

    assert result.trials.status.tolist() == ["completed"] + ["failed"] * 5
    assert result.trials.reason.str.contains("no recipe for").tolist() == [False] + [True] * 5
    assert result.trials.attempts.tolist() == [1] + [0] * 5
    assert "in brittle" in (result.directory / result.trials.traceback.iloc[-1]).read_text()

    text = (tmp_path / "new" / NAME).read_text().splitlines(keepends=True)
    (tmp_path / "new" / NAME).write_text("".join(text[:-2]))  # killed before the last refusal was written down
    brittle.taken_apart = False
    result = search(few_digits, tmp_path / "new", Executor(), space=brittle, trials=8)
    assert "".join(result.trials.status.str[0]) == "cffffcff"


def test_what_keeps_trials_from_running_at_all_costs_none(done, few_digits, in_process):
    class Elsewhere(type(in_process)):
        def submit(self, *args):
            shutil.rmtree(done / "reference")
            return super().submit(*args)

    with pytest.raises(SearchStopped, match="Trial 0003 could not be run: There is no .*reference"):
        search(few_digits, done, Elsewhere(), trials=5)
    assert tuning.load_search(done).trials.status.tolist() == ["completed"] * 3 + ["unfinished"]


def test_other_data_is_refused(finished, digit_pictures):
    images, labels = digit_pictures
    other = zoo.load_data((images[:59], labels[:59]), image_size=8, split=(0.6, 0.2, 0.2), group=None)
    with pytest.raises(ValueError, match="the pictures, their labels or splits are others"):
        search(other, finished, Idle())


def test_a_folder_with_anything_else_or_without_leave_to_resume_is_refused(finished, few_digits, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="exists and holds no search"):
        search(few_digits, tmp_path, Idle())
    with pytest.raises(ValueError, match="holds a search already, and resume=False"):
        search(few_digits, finished, Idle(), resume=False)


def test_a_finished_search_returns_though_the_folder_is_in_use(done, few_digits):
    with locking.hold(done):
        assert len(search(few_digits, done, Idle()).trials) == 3


def test_pictures_that_were_moved_are_found_where_the_call_has_them(photos, in_process, tmp_path):
    given = {"split": (0.6, 0.2, 0.2), "image_size": 8}
    search(zoo.load_data(photos, **given), tmp_path / "s", in_process, trials=1, epochs=1)
    photos.rename(tmp_path / "moved")
    result = search(zoo.load_data(tmp_path / "moved", **given), tmp_path / "s", in_process, trials=2, epochs=1)
    assert result.trials.status.tolist() == ["completed"] * 2

    shutil.rmtree(tmp_path / "s" / "reference")
    result = search(zoo.load_data(tmp_path / "moved", **given), tmp_path / "s", in_process, trials=3, epochs=1)
    assert result.trials.status.tolist() == ["completed"] * 3

    (tmp_path / "moved").rename(photos)
    again = tuning.load_search(tmp_path / "s", photos)
    assert again.best_run.evaluate("dev").accuracy == pytest.approx(again.best_score)
    assert len(again.retrain().data.dev) == 0


def test_a_loss_with_the_smoothing_of_each_trial_is_said_to_compare_nothing(few_digits, in_process, tmp_path, capsys):
    def smooth(hp):
        return {"label_smoothing": hp.Float("label_smoothing", 0.0, 0.1)}

    words = {"space": smooth, "trials": 1, "epochs": 1}
    search(few_digits, tmp_path / "a", in_process, objective="val_loss", direction="min", **words)
    assert "does not compare trials of this space" in capsys.readouterr().out
    search(few_digits, tmp_path / "b", in_process, **words)
    assert "does not compare" not in capsys.readouterr().out


def test_numbers_of_numpy_are_whole_numbers(few_digits, in_process, tmp_path):
    result = search(few_digits, tmp_path / "s", in_process, trials=np.int64(1), seed=np.int64(0), epochs=1)
    assert len(result.trials) == 1


def test_a_model_that_no_trial_could_train_is_refused_at_once(few_digits, tmp_path):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Dense(7, activation="softmax")(keras.layers.Flatten()(image)))
    with pytest.raises(ValueError, match="7 outputs for 3 classes"):
        tuning.search(model, few_digits, space=rates, executor=Idle(), directory=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_second_search_in_a_folder_is_refused(done, few_digits):
    lock = locking.hold(done)
    try:
        with pytest.raises(InUse, match="in use by another call in this process"):
            search(few_digits, done, Idle(), trials=4)
    finally:
        lock.release()


def diverging(hp):
    return {"learning_rate": hp.Float("learning_rate", 1e30, 1e35, sampling="log", default=1e31)}


@pytest.mark.slow
@pytest.mark.long
def test_a_search_whose_trials_all_fail_stops_and_pads_nothing(few_digits, in_process, tmp_path):
    with pytest.raises(SearchStopped, match="5 trials in a row failed .*not finite"):
        search(few_digits, tmp_path / "bad", in_process, space=diverging, trials=20, optimizer="sgd", epochs=1)
    result = tuning.load_search(tmp_path / "bad")

    assert len(in_process.ran) == 5
    assert result.trials.status.tolist() == ["failed"] * 5
    assert result.trials.score.isna().all()
    assert not result.hopeful
    assert all((tmp_path / "bad" / place).is_file() for place in result.trials.traceback)
    with pytest.raises(ValueError, match="No trial of .* has been completed; 5 failed, the last one: .*not finite"):
        _ = result.best
    assert result.report().is_file()


@pytest.mark.slow
def test_hyperband_goes_on_with_the_training_of_an_earlier_trial(few_digits, in_process, tmp_path):
    fields = {"epochs": 3, "batch_size": 16, "variant": {"filters": (2, 4)}}
    result = tuning.search(
        "convnet",
        few_digits,
        space=rates,
        algorithm="hyperband",
        trials=5,
        directory=tmp_path / "band",
        executor=in_process,
        workers=1,
        **fields,
    )
    later = result.trials[result.trials.continues != ""]

    assert len(later)
    for row in later.itertuples():
        earlier = result.trials.set_index("trial").loc[row.continues]
        assert row.epochs > earlier.epochs
        assert row.learning_rate == earlier.learning_rate
        assert result.curves[row.trial][: earlier.epochs] == result.curves[row.continues]


def wide_or_not(hp):
    if hp.Boolean("wide"):
        return {"learning_rate": hp.Float("wide_rate", 1e-3, 1e-2)}
    return {"learning_rate": hp.Float("rate", 1e-3, 1e-2)}


def test_what_makes_no_difference_to_a_trial_is_not_among_its_hyperparameters(few_digits, tmp_path, in_process):
    result = search(few_digits, tmp_path / "s", in_process, space=wide_or_not, trials=5, epochs=1)
    table = result.trials
    assert set(table.wide) == {True, False}
    assert table.wide_rate.notna().tolist() == table.wide.tolist()
    assert table.rate.isna().tolist() == table.wide.tolist()
    assert set(result.values("0000")) == {"wide", "rate"}


def test_retraining_takes_dev_in_and_stops_at_the_best_epoch(done, few_digits):
    result = tuning.load_search(done)
    run = result.retrain()

    assert len(run.data.train) == len(few_digits.train) + len(few_digits.dev)
    assert len(run.data.dev) == 0
    assert len(run.history["loss"]) == result.best_run.best_epoch
    with pytest.raises(ValueError, match='`on` must be "train\\+dev" or "train"'):
        result.retrain(on="test")


def bad_key(hp):
    return {"learning_rat": hp.Float("rate", 1e-3, 1e-1)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"space": bad_key}, ValueError, "'learning_rat', which is no field of a recipe.*learning_rate"),
        ({"space": "heads"}, ValueError, "head"),
        ({"space": lambda hp: {"epochs": hp.Int("epochs", 1, 3)}}, ValueError, "cannot be called 'epochs'"),
        ({"space": lambda hp: {"dropout": 0.3}}, ValueError, "nothing to tune"),
        ({"objective": "val_f1"}, ValueError, "must be one of accuracy, loss, val_accuracy, val_loss"),
        ({"trials": 0}, ValueError, "`trials` must be a whole number of at least 1"),
        ({"seed": -1}, ValueError, "`seed` must be a whole number of at least 0"),
        ({"objective": "val_loss"}, ValueError, "The best val_loss is the lowest: say direction='min'"),
        ({"executor": ProcessPoolExecutor(1, get_context("fork"))}, ValueError, "TensorFlow hangs in a copy of it"),
        ({"direction": "up"}, ValueError, '`direction` must be "max" or "min"'),
        ({"algorithm": "annealing"}, ValueError, "`algorithm` must be one of bayesian, random, grid, hyperband"),
        ({"pruning": "mean"}, ValueError, '`pruning` must be "median" or None'),
        ({"time_limit": 0}, ValueError, "`time_limit` must be a number of seconds above 0"),
        ({"executor": object()}, TypeError, "`executor` must be a concurrent.futures.Executor, .* Received: object"),
        ({"executor": None, "workers": 0}, ValueError, "`workers`"),
        ({"learning_rate": 0.1}, ValueError, "`learning_rate` is set for all trials, and space 'rates' sets it, too"),
        ({"epoch": 3}, TypeError, "no field `epoch`. Did you mean `epochs`"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(few_digits, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        search(few_digits, tmp_path / "new", **{"executor": Idle(), **changes})
    assert not list(tmp_path.glob("new/*.jsonl"))


def test_without_dev_pictures_there_is_nothing_to_judge_by(few_digits, tmp_path):
    with pytest.raises(ValueError, match="There are no dev pictures to judge by"):
        search(few_digits.without_dev(), tmp_path / "new", Idle())


def test_data_of_an_unknown_source_cannot_reach_another_process(few_digits, tmp_path):
    class Camera:
        kind = "camera"

        def describe(self):
            return {"kind": "camera"}

    data = few_digits.configured(image_size=8)
    data.source = Camera()
    with pytest.raises((ValueError, TypeError), match="Camera|camera"):
        search(data, tmp_path / "new", Idle())


def curve(*values):
    return {"status": "completed", "curve": list(values)}


def test_the_median_of_the_best_so_far_is_what_a_trial_must_reach():
    results = [curve(0.1, 0.5, 0.3, 0.6), curve(0.2, 0.2, 0.7, 0.7), curve(0.9, 0.1), curve(0, 0, 0, 0)]
    results += [curve(0.3, 0.4, 0.4, 0.4), {"status": "failed", "curve": [1.0]}]

    # of epoch 3: 0.5, 0.7, 0.9, 0, 0.4; of epoch 4: 0.6, 0.7, 0.9, 0, 0.4
    assert medians(results, "max") == [None, None, 0.5, 0.6]
    assert medians(results, "min") == [None, None, 0.1, 0.1]
    assert medians(results[:4], "max") is None
