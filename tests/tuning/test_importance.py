"""Importance of hyperparameters: what was planted is found, and what is not known is not claimed."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from keras_tuner import HyperParameters

from tuning.importance import configurations, importance
from tuning.space import Space


def space(hp):
    fields = {"learning_rate": hp.Float("learning_rate", 1e-5, 1e-1, sampling="log", default=1e-3)}
    fields["optimizer"] = hp.Choice("optimizer", ["momentum", "adam", "rmsprop"])
    with hp.conditional_scope("optimizer", ["momentum"]):
        if fields["optimizer"] == "momentum":
            fields["momentum"] = 1 - hp.Float("one_minus_momentum", 1e-3, 1e-1, sampling="log", default=1e-1)
    return {**fields, "dropout": hp.Float("dropout", 0.2, 0.5), "seed": hp.Fixed("seed", 7)}


SPACE = Space(space, "resnet20")


def searched(score, trials=60, seed=0, direction="max"):
    """A search whose scores are a function of the values; they are drawn at random."""
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(trials):
        hp = HyperParameters()
        for item in SPACE.hyperparameters.space:
            if hp.is_active(item):
                hp.values[item.name] = item.prob_to_value(chance.uniform())
        about = {"trial": f"{number:04d}", "status": "completed", "continues": "", "epochs": 3}
        rows.append({**about, "score": float(score(hp.values, chance)), **hp.values})
    names = [item.name for item in SPACE.hyperparameters.space]
    table = pd.DataFrame(rows, columns=[*about, "score", *names])
    table.attrs["hyperparameters"] = names
    return SimpleNamespace(trials=table, space=SPACE.describe(), objective="val_accuracy", direction=direction)


def by_rate(values, chance):
    return 0.9 - 0.05 * (math.log10(values["learning_rate"]) + 3) ** 2 + 0.005 * chance.normal()


def shares(found):
    return found.table.set_index("hyperparameter").importance


@pytest.fixture(scope="module")
def found():
    return importance(searched(by_rate))


def test_the_hyperparameter_that_decides_the_score_comes_first(found):
    assert found.table.hyperparameter[0] == "learning_rate"
    assert found.table.importance[0] > 0.9
    assert found.table.importance.sum() == pytest.approx(1)
    assert (found.table.spread >= 0).all() and found.table.spread.max() < 0.1
    assert found.explained > 0.5
    assert "60 configurations" in found.note and "of the variance of val_accuracy" in found.note


def test_shares_follow_the_variance_that_each_one_makes():
    def score(values, chance):
        rate = (math.log10(values["learning_rate"]) + 3) / 4 * math.sqrt(12)  # of variance 1, as is the next
        drop = (values["dropout"] - 0.35) / 0.3 * math.sqrt(12)
        return rate + 0.5 * drop

    found = shares(importance(searched(score, trials=300)))

    assert found["learning_rate"] == pytest.approx(0.8, abs=0.06)  # 1 of 1 + 0.25
    assert found["dropout"] == pytest.approx(0.2, abs=0.06)


def test_a_conditional_hyperparameter_is_not_credited_with_the_choice_it_hangs_on():
    def score(values, chance):
        return (0.9 if values["optimizer"] == "momentum" else 0.7) + 0.01 * chance.normal()

    found = shares(importance(searched(score)))

    assert found["optimizer"] > 0.9
    assert found["one_minus_momentum"] < 0.05


def test_the_columns_of_a_choice_are_shuffled_together():
    def score(values, chance):
        return {"momentum": 0.2, "adam": 0.5, "rmsprop": 0.9}[values["optimizer"]] + values["dropout"]

    found = shares(importance(searched(score, trials=200)))

    assert found["optimizer"] == pytest.approx(0.082 / (0.082 + 0.0075), abs=0.04)  # variances of the two


def test_a_conditional_hyperparameter_counts_where_it_applies():
    def score(values, chance):
        return 0.1 * math.log10(values.get("one_minus_momentum", 1e-2))

    found = shares(importance(searched(score, trials=100)))

    assert found["one_minus_momentum"] > 0.8


def test_interactions_count_for_both():
    def score(values, chance):
        return (math.log10(values["learning_rate"]) + 3) * (values["dropout"] - 0.35)

    found = shares(importance(searched(score, trials=200)))

    assert found["learning_rate"] > 0.25 and found["dropout"] > 0.25


def test_a_row_stands_for_each_hyperparameter_that_varied(found):
    assert sorted(found.table.hyperparameter) == ["dropout", "learning_rate", "one_minus_momentum", "optimizer"]


def test_low_is_good_where_the_direction_says_so(found):
    down = importance(searched(lambda values, chance: -by_rate(values, chance), direction="min"))

    assert shares(down)["learning_rate"] == pytest.approx(shares(found)["learning_rate"], abs=0.02)


def test_a_diverged_trial_does_not_decide_everything():
    result = searched(lambda values, chance: 1 - by_rate(values, chance), direction="min")
    worst = int(np.argmin(np.abs(result.trials.dropout - 0.35)))
    result.trials.loc[worst, "score"] = 1e6

    found = importance(result)

    assert shares(found)["learning_rate"] > 0.8 and found.explained > 0.3


def test_fewer_than_ten_configurations_show_no_figures():
    found = importance(searched(by_rate, trials=9))

    assert not len(found.table) and math.isnan(found.explained)
    assert "9 configurations have a score; 10 are needed" in str(found)
    assert len(importance(searched(by_rate, trials=10)).table)


def test_noise_is_called_so():
    found = importance(searched(lambda values, chance: chance.normal(), trials=30))

    assert found.explained <= 0
    assert "mean next to nothing" in found.note


def test_equal_scores_hang_on_nothing():
    found = importance(searched(lambda values, chance: 0.5))

    assert not len(found.table) and "the same score" in found.note


def test_a_search_without_a_score_has_no_figures():
    result = searched(by_rate)
    result.trials["status"], result.trials["score"] = "failed", math.nan

    assert "No hyperparameter varied" in importance(result).note


def test_failed_and_running_trials_do_not_count_and_pruned_ones_do():
    result = searched(by_rate)
    result.trials.loc[:4, ["status", "score"]] = ["failed", math.nan]
    result.trials.loc[5:9, ["status", "score"]] = ["unfinished", math.nan]
    result.trials.loc[10:14, "status"] = "pruned"

    found = importance(result)

    assert found.configurations == 50
    assert "those that were pruned with the score they had reached" in found.note


def test_of_a_hyperband_chain_the_furthest_rung_counts():
    result = searched(by_rate)
    names = [item.name for item in SPACE.hyperparameters.space]
    result.trials.loc[20:39, names] = result.trials.loc[:19, names].to_numpy()
    result.trials.loc[20:39, "score"] = result.trials.score[:20].to_numpy()
    result.trials.loc[20:39, "continues"] = result.trials.trial[:20].to_numpy()
    result.trials.loc[:19, "score"] = 0.1  # the earlier rung, which says something else

    found = importance(result)

    assert found.configurations == 40 and "each at its furthest rung" in found.note
    assert found.explained > 0.5


def test_the_same_training_again_counts_once():
    result = searched(by_rate)
    names = result.trials.attrs["hyperparameters"]
    result.trials.loc[40:, names] = result.trials.loc[:19, names].to_numpy()  # with values that do not apply, too

    found = importance(result)

    assert found.configurations == 40 and "40 configurations" in found.note
    assert configurations(result.trials).trial.tolist() == [f"{number:04d}" for number in range(40)]


def test_of_the_same_training_again_the_best_counts_else_a_completed_one_that_was_trained_longest():
    result = searched(by_rate, trials=5)
    names = result.trials.attrs["hyperparameters"]
    for again in (1, 2, 3):
        result.trials.loc[again, names] = result.trials.loc[0, names].to_numpy()
    result.trials.loc[:3, "status"] = ["pruned", "completed", "completed", "completed"]
    result.trials.loc[:3, "epochs"] = [5, 3, 4, 3]

    assert configurations(result.trials).trial.tolist() == ["0002", "0004"]
    assert configurations(result.trials, "0003").trial.tolist() == ["0003", "0004"]


def test_figures_are_the_same_each_time(found):
    again = importance(searched(by_rate))

    pd.testing.assert_frame_equal(found.table, again.table)
    assert found.note == again.note


def test_printing_shows_aligned_rows_and_the_note(found):
    *rows, blank, note = str(found).splitlines()[: len(found.table) + 2]

    assert {row.index("±") for row in rows} == {rows[0].index("±")}
    assert rows[0].startswith("learning_rate ") and rows[0].endswith("#")
    assert blank == "" and found.note.startswith(note)
    assert "<table" in found._repr_html_()
