import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import zoo
from tuning import optimizers
from tuning.journal import Journal
from tuning.loop import SearchStopped
from tuning.optimizer_comparison import OptimizerComparison
from tuning.optimizers import USUAL, compare_optimizers
from tuning.trial import NOT_FINITE
from zoo.training.recipe import OPTIMIZERS

SMALL = {"epochs": 2, "batch_size": 16, "variant": {"filters": (4, 8)}}


@pytest.fixture
def data(digit_pictures):
    images, labels = digit_pictures
    return zoo.load_data((images[:150], labels[:150]), image_size=8)


def landscape(best, *, width=1.0, diverges_above=math.inf, kind=NOT_FINITE):
    """Trainings whose accuracy falls with the distance of the rate from the best one, in powers of ten."""
    asked = []

    def train(wishes):
        asked.append([(name, rate) for name, rate, _ in wishes])
        results = []
        for _, rate, _ in wishes:
            accuracy = 1 - width * abs(math.log10(rate / best))
            failed = rate > diverges_above
            results.append(
                {"status": "failed", "score": None, "metrics": {}, "kind": kind, "reason": f"{kind} at {rate}"}
                if failed
                else {"status": "completed", "score": accuracy, "metrics": {"val_loss": 1 - accuracy}, "kind": ""}
            )
        return results

    train.asked = asked
    return train


def rates(found, name="adam"):
    return [optimizers._rate(name, step) for step in sorted(found[name])]


def comparison(accuracies, *, rate=0.01, tried=(0.001, 0.01, 0.1), pictures=200, failed=()):
    """A comparison of trainings with these accuracies: a list, one a seed, for each optimizer."""
    rows, curves = [], []
    for name, values in accuracies.items():
        for one in tried:
            diverged = (name, one) in failed
            rows.append((name, "search", one, 1_000_000, "failed" if diverged else "completed", 0.5, 1.0))
        for seed, value in enumerate(values):
            rows.append((name, "compared", rate, seed, "completed", value, 1 - value))
            for epoch in (1, 2, 3):
                part = value * epoch / 3
                curves.append((name, rate, seed, epoch, part, 1 - part))
    trainings = pd.DataFrame(rows, columns=["optimizer", "part", "rate", "seed", "status", "accuracy", "loss"])
    trainings = trainings.assign(epochs=3, best_epoch=3, seconds=2.0, trial="trial", reason="")
    columns = ["optimizer", "rate", "seed", "epoch", "val_accuracy", "val_loss"]
    return OptimizerComparison(trainings, pd.DataFrame(curves, columns=columns), pictures, {"model": "convnet"})


def test_there_is_a_usual_rate_for_every_optimizer_of_a_recipe():
    assert set(USUAL) == set(OPTIMIZERS)


def test_rates_are_half_decades_around_the_usual_one():
    found = optimizers._search(["adam"], 5, 0, landscape(1e-3))
    assert rates(found) == [1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2]


def test_the_grid_goes_on_beyond_an_edge_until_the_best_rate_lies_inside():
    train = landscape(1e-2)
    found = optimizers._search(["adam", "rmsprop"], 3, 0, train)

    assert rates(found)[-1] == 3.16e-2 and rates(found)[0] == 3.16e-4
    assert optimizers._rate("adam", optimizers._best(found["adam"])) == 1e-2
    assert train.asked[2:] == [[("adam", 1e-2), ("rmsprop", 1e-2)], [("adam", 3.16e-2), ("rmsprop", 3.16e-2)]]


def test_the_grid_grows_by_two_at_most_and_downwards_too():
    found = optimizers._search(["adam"], 3, 0, landscape(1e-9, width=0.1))
    assert rates(found) == [3.16e-5, 1e-4, 3.16e-4, 1e-3, 3.16e-3]
    assert optimizers._beyond(found["adam"]) is not None


def test_a_rate_that_diverges_is_the_end_of_the_grid():
    found = optimizers._search(["adam"], 3, 0, landscape(1.0, width=0.1, diverges_above=1e-3))
    assert rates(found) == [3.16e-4, 1e-3, 3.16e-3]
    assert optimizers._rate("adam", optimizers._best(found["adam"])) == 1e-3


def test_the_usual_rates_of_all_are_tried_first():
    train = landscape(1e-3)
    optimizers._search(["adam", "sgd"], 5, 0, train)
    assert train.asked[0] == [("adam", 1e-3), ("sgd", 0.1)]
    assert train.asked[1][:4] == [("adam", 3.16e-4), ("sgd", 0.0316), ("adam", 3.16e-3), ("sgd", 0.316)]
    assert len(train.asked[1]) == 8


def test_no_other_rate_is_tried_where_none_of_the_usual_ones_succeeds():
    train = landscape(1e-3, diverges_above=0, kind="ValueError")
    with pytest.raises(SearchStopped, match="No training succeeded, so there is nothing to compare: ValueError at 0.1"):
        optimizers._search(["adam", "sgd"], 5, 0, train)
    assert train.asked == [[("adam", 1e-3), ("sgd", 0.1)]]


def test_lower_rates_are_tried_where_all_of_the_usual_ones_diverge():
    found = optimizers._search(["adam", "rmsprop"], 5, 0, landscape(1.0, width=0.1, diverges_above=5e-4))
    assert [optimizers._rate(name, optimizers._best(found[name])) for name in found] == [3.16e-4, 3.16e-4]


def test_a_network_that_fits_no_data_ends_a_comparison_early(data, tmp_path):
    own = zoo.create("convnet", classes=7, input_shape=(8, 8, 3), filters=(4, 8))
    with ThreadPoolExecutor(1) as pool, pytest.raises(SearchStopped, match="No training succeeded.*7"):
        compare_optimizers(own, data, ("adam", "sgd"), executor=pool, directory=tmp_path / "compared", epochs=1)
    assert len([event for event in Journal(tmp_path / "compared").events() if event["event"] == "ended"]) == 2


def test_equal_accuracies_are_decided_by_the_loss():
    tried = {
        step: {"status": "completed", "score": 0.9, "metrics": {"val_loss": loss}}
        for step, loss in ((-1, 0.3), (0, 0.2), (1, 0.4))
    }
    assert optimizers._best(tried) == 0
    tried[1]["metrics"]["val_cross_entropy"] = 0.1  # without penalties it is the best
    assert optimizers._best(tried) == 1


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"optimizers": ("adam", "adamm")}, ValueError, "No optimizer is called 'adamm'. Did you mean 'adam'?"),
        ({"optimizers": ("adam", "lion")}, ValueError, "No optimizer is called 'lion'. There are: sgd, "),
        ({"optimizers": ("adam", "sgd", "adam")}, ValueError, "two or more, each once. Received: adam, sgd, adam"),
        ({"optimizers": "adam"}, ValueError, "two or more"),
        ({"optimizers": ()}, ValueError, "Received: none"),
        ({"seeds": 0}, ValueError, "`seeds` must be a whole number of at least 1. Received: seeds=0"),
        ({"seeds": 2.0}, ValueError, "`seeds` must be a whole number"),
        ({"rates": 1}, ValueError, "`rates` must be a whole number of at least 2"),
        ({"seed": -1}, ValueError, "`seed` must be a whole number of at least 0"),
        ({"optimizer": "adam"}, ValueError, "`optimizer` is what a comparison of optimizers sets itself"),
        ({"learning_rate": 0.1}, ValueError, "`learning_rate` is what .* `rates` says how many are tried"),
        ({"momentum": 0.5}, ValueError, "momentum"),
        ({"epoch": 3}, TypeError, "Did you mean `epochs`?"),
        ({"model": "convnett"}, ValueError, "Did you mean 'convnet'?"),
        ({"executor": print}, TypeError, "`executor` must be"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(data, tmp_path, given, error, message):
    arguments = {"model": "convnet", "directory": tmp_path / "compared", **given}
    with pytest.raises(error, match=message):
        compare_optimizers(arguments.pop("model"), data, **arguments)
    assert not (tmp_path / "compared").exists()


def test_data_without_a_dev_set_is_refused(digit_pictures, tmp_path):
    with pytest.raises(ValueError, match="compared on a dev set"):
        compare_optimizers("convnet", zoo.load_data(digit_pictures, split=(1.0, 0.0, 0.0)), directory=tmp_path)
    with pytest.raises(TypeError, match="must come from zoo.load_data"):
        compare_optimizers("convnet", digit_pictures)


def test_a_folder_with_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds no comparison"):
        compare_optimizers("convnet", data, directory=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_the_table_has_the_best_first_with_its_spread():
    table = comparison({"sgd": [0.5, 0.6], "adam": [0.9, 0.8], "adamw": [0.7, 0.7]}).table
    first = table.iloc[0]

    assert list(table.optimizer) == ["adam", "adamw", "sgd"]
    assert (first.rate, first.seeds, first.low, first.high) == (0.01, 2, 0.8, 0.9)
    assert first.accuracy == pytest.approx(0.85) and first.loss == pytest.approx(0.15)
    assert first.deviation == pytest.approx(np.std([0.8, 0.9], ddof=1))
    assert not first.at_edge and first.failures == 0


def test_an_optimizer_of_which_nothing_was_completed_comes_last():
    found = comparison({"sgd": [], "adam": [0.9, 0.8]}, failed=[("sgd", rate) for rate in (0.001, 0.01, 0.1)])
    last = found.table.iloc[-1]

    assert last.optimizer == "sgd" and last.seeds == 0 and last.failures == 3 and math.isnan(last.accuracy)
    assert "Only adam was trained to the end" in str(found)
    assert len(found.plot().axes[0].lines) == 1


def test_a_best_rate_at_the_edge_is_said():
    found = comparison({"sgd": [0.5, 0.6], "adam": [0.9, 0.8]}, rate=0.1)
    assert found.table.at_edge.all()
    assert "sgd did best at the highest rate that was tried, 0.1; a higher one may be better still." in str(found)
    assert "lowest rate that was tried, 0.01; a lower one" in str(
        comparison({"sgd": [0.5, 0.6], "adam": [0.9, 0.8]}, tried=(0.01, 0.1))
    )


@pytest.mark.parametrize(
    "accuracies, sentence",
    [
        ({"adam": [0.90, 0.92], "sgd": [0.80, 0.81]}, "adam is ahead of sgd by more than the spread over the seeds."),
        (
            {"adam": [0.90, 0.92], "adamw": [0.89, 0.92], "sgd": [0.80, 0.81], "rmsprop": [0.5, 0.5]},
            "adam has the highest mean, but adamw lies within the spread over the seeds: between these no difference "
            "is shown. sgd and rmsprop lie behind by more than that.",
        ),
        ({"adam": [0.90], "sgd": [0.10]}, "With one training of an optimizer its spread is not known"),
        ({"adam": [0.905, 0.905], "sgd": [0.90, 0.90]}, "sgd lies within the spread"),  # by one picture of 200
        ({"adam": [0.91, 0.91], "sgd": [0.90, 0.90]}, "adam is ahead of sgd"),
        ({"adam": [0.90, 0.90], "sgd": [0.70, 0.89]}, "sgd lies within the spread"),
        ({"adam": [0.60, 0.99], "sgd": [0.50, 0.59]}, "sgd lies within the spread"),  # apart, but by chance
    ],
)
def test_a_difference_within_the_spread_is_none(accuracies, sentence):
    assert sentence in comparison(accuracies).sentence


def test_text_is_aligned_and_names_the_pictures():
    head, titles, *rows = str(comparison({"adam": [0.9, 0.92], "momentum": [0.8, 0.8]})).splitlines()
    assert head == "convnet: accuracy on 200 dev pictures, each optimizer at its best rate"
    for row in rows[:2]:
        assert row.index("%") == titles.index("accuracy") + len("accuracy") - 1
        assert len(row) == len(titles)


def test_the_plot_has_a_line_and_a_band_for_each_in_the_order_of_the_result():
    figure = comparison({"sgd": [0.5, 0.6], "adam": [0.9, 0.8], "adamw": [0.7, 0.7]}).plot()
    left, right = figure.axes
    (legend,) = figure.legends

    assert [text.get_text().split()[0] for text in legend.get_texts()] == ["adam", "adamw", "sgd"]
    assert len(left.lines) == len(left.collections) == len(right.lines) == len(right.collections) == 3
    np.testing.assert_allclose(right.lines[0].get_ydata(), np.array([0.85, 1.7, 2.55]) / 3)
    band = right.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(0.9) and band[:, 1].min() == pytest.approx(0.8 / 3)


def test_an_optimizer_has_the_same_look_in_every_comparison():
    one, other = comparison({"sgd": [0.5], "adam": [0.9]}), comparison({"adam": [0.2], "rmsprop": [0.4]})
    (first,) = (line for line in one.plot().axes[0].lines if line.get_label().startswith("adam "))
    (second,) = (line for line in other.plot().axes[0].lines if line.get_label().startswith("adam "))
    assert (first.get_color(), first.get_linestyle()) == (second.get_color(), second.get_linestyle())
    looks = {(line.get_color(), line.get_linestyle()) for line in one.plot().axes[0].lines}
    assert len(looks) == 2


def test_saved_figures_are_those_that_are_shown(tmp_path):
    found = comparison({"sgd": [], "adam": [0.9, 0.8], "adamw": [0.7]})
    found.save(tmp_path)
    figures = json.loads((tmp_path / "comparison.json").read_text())

    assert {path.name for path in tmp_path.iterdir()} == {
        "table.csv",
        "trainings.csv",
        "curves.csv",
        "plot.png",
        "comparison.json",
    }
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), found.table)
    assert figures["sentence"] == found.sentence and figures["dev_pictures"] == 200
    assert figures["table"][2] == {**figures["table"][2], "optimizer": "sgd", "accuracy": None}


@pytest.mark.slow
@pytest.mark.long
def test_a_comparison_of_real_trainings_resumes_grows_and_is_held_to_what_it_was_begun_for(data, tmp_path, capsys):
    def compare(names=("adam", "sgd"), **changed):
        settings = {"rates": 2, "seeds": 2, "directory": tmp_path / "compared", "executor": pool, **SMALL, **changed}
        return compare_optimizers("convnet", data, names, **settings)

    def ended():
        return [event["result"]["trial"] for event in Journal(tmp_path / "compared").events() if "result" in event]

    with ThreadPoolExecutor(1) as pool:
        first = compare()
        trained = ended()

        best = first.table.set_index("optimizer").loc["adam"]
        run = zoo.load_run(tmp_path / "compared" / "trials" / f"adam-{best.rate:g}-1" / "attempt-1", data)
        assert (run.recipe.optimizer, run.recipe.learning_rate, run.recipe.seed) == ("adam", best.rate, 1)
        curve = first.curves[(first.curves.optimizer == "adam") & (first.curves.seed == 1)]
        np.testing.assert_array_equal(curve.val_accuracy, run.history["val_accuracy"])
        compared = first.trainings[first.trainings.part == "compared"]
        assert sorted(compared.seed) == [0, 0, 1, 1]
        assert not set(compared.trial) & set(first.trainings.trial[first.trainings.part == "search"])
        row = compared[(compared.optimizer == "adam") & (compared.seed == 1)].iloc[0]
        assert row.accuracy == run.history["val_accuracy"][run.best_epoch - 1]
        assert best.accuracy == pytest.approx(compared[compared.optimizer == "adam"].accuracy.mean())

        again = compare()
        assert ended() == trained
        pd.testing.assert_frame_equal(again.table, first.table)

        compare(seeds=3)
        assert sorted(ended()[len(trained) :]) == sorted(
            f"{n}-{r:g}-2" for n, r in zip(first.table.optimizer, first.table.rate, strict=True)
        )
        with pytest.raises(ValueError, match="something else: epochs is 2 there and 3 here. Choose another directory"):
            compare(epochs=3)
        with pytest.raises(ValueError, match="pictures, their size, their labels or their splits are others"):
            compare_optimizers("convnet", data.fewer(60), executor=pool, directory=tmp_path / "compared", **SMALL)
        with pytest.raises(ValueError, match="resume=False"):
            compare(resume=False)


@pytest.mark.slow
@pytest.mark.long
def test_rates_that_diverge_are_failures_and_not_the_end(data, tmp_path, monkeypatch):
    monkeypatch.setitem(USUAL, "sgd", 1e30)
    monkeypatch.setitem(USUAL, "momentum", 1e30)
    with ThreadPoolExecutor(1) as pool:
        settings = {"rates": 3, "seeds": 1, "executor": pool, **SMALL, "epochs": 1}
        found = compare_optimizers("convnet", data, ("momentum", "sgd", "adam"), directory=tmp_path / "one", **settings)
        table = found.table.set_index("optimizer")

        assert list(table.failures) == [0, 3, 3] and table.seeds["adam"] == 1
        assert list(table.index[:1]) == ["adam"] and found.trainings.reason.str.contains("finite").sum() == 6
        with pytest.raises(SearchStopped, match="No training succeeded, so there is nothing to compare"):
            compare_optimizers("convnet", data, ("momentum", "sgd"), directory=tmp_path / "two", **settings)
        assert not (tmp_path / "two" / "comparison.json").exists()


@pytest.mark.slow
@pytest.mark.long
def test_a_model_that_is_handed_over_stays_as_it_is(data, tmp_path):
    own = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), filters=(4, 8))
    before = own.get_weights()
    settings = {"rates": 2, "seeds": 1, "directory": tmp_path / "own", "epochs": 1, "freeze": "large"}
    with ThreadPoolExecutor(1) as pool:
        found = compare_optimizers(own, data, ("adam", "sgd"), executor=pool, **settings)
        assert len(found.table) == 2
        for one, other in zip(before, own.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        own.set_weights([weight + 1 for weight in before])
        with pytest.raises(ValueError, match="something else: model is 'a model handed over "):
            compare_optimizers(own, data, ("adam", "sgd"), executor=pool, **settings)
