"""Comparison of two evaluations: against SciPy, a bootstrap of the pictures themselves, and constructed cases."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from zoo.evaluation.comparison import Comparison
from zoo.evaluation.predictions import Evaluation


def evaluation(right, names=("ant", "bee"), paths=None, labels=None):
    """Two classes by turns; where `right` does not hold, the other one is predicted."""
    labels = np.arange(len(right)) % 2 if labels is None else np.asarray(labels)
    predicted = np.where(right, labels, 1 - labels)
    paths = [f"{k}.jpg" for k in range(len(right))] if paths is None else paths
    return Evaluation("test", list(names), paths, labels, np.eye(2, dtype=np.float32)[predicted] * 0.8 + 0.1)


def drawn(count, first, second, seed=0):
    """Two random answers, right as often as said."""
    return [
        evaluation(np.random.default_rng([seed, k]).random(count) < share) for k, share in enumerate((first, second))
    ]


def test_counts_and_figures():
    first, second = evaluation([1, 1, 1, 0, 0, 1]), evaluation([1, 0, 0, 1, 0, 1])
    found = first.compare(second)
    assert found == Comparison("test", pictures=6, both=2, only_first=2, only_second=1)
    assert found.difference == pytest.approx(first.accuracy - second.accuracy)
    figures = json.loads(json.dumps(found.figures()))
    assert figures["accuracy"] == [first.accuracy, second.accuracy] and figures["verdict"] == "no difference shown"
    assert (figures["both"], figures["only_first"], figures["only_second"]) == (2, 2, 1)
    assert figures["interval"] == list(found.interval) and figures["p_value"] == found.p_value


@pytest.mark.parametrize(("one", "other"), [(0, 1), (5, 0), (7, 7), (3, 12), (23, 1)])
def test_mcnemar_of_few_is_a_binomial_test(one, other):
    found = Comparison("test", 100, 40, one, other)
    assert found.p_value == pytest.approx(binomtest(one, one + other, 0.5).pvalue)


@pytest.mark.parametrize(("one", "other"), [(25, 0), (13, 12), (30, 30), (120, 80), (59, 6)])
def test_mcnemar_of_many_is_a_test_of_chi_squared(one, other):
    """Against the sum over two cells, each corrected by a half."""
    expected = (one + other) / 2
    cells = [max(0, abs(seen - expected) - 0.5) ** 2 / expected for seen in (one, other)]
    assert Comparison("test", 500, 40, one, other).p_value == pytest.approx(chi2.sf(sum(cells), df=1))


def test_published_example_of_mcnemar():
    """Agresti 2013, Categorical Data Analysis, section 11.1: 150 and 86 who changed their mind, z**2 = 17.36."""
    assert Comparison("test", 1600, 794, 150, 86).p_value == pytest.approx(chi2.sf(63**2 / 236, 1))
    assert Comparison("test", 1600, 794, 86, 150).verdict == "worse"


def test_interval_is_that_of_a_bootstrap_of_pictures():
    first, second = drawn(300, 0.85, 0.75)
    found = first.compare(second)
    gains = (first.table.label == first.table.predicted).astype(int) - (second.table.label == second.table.predicted)
    rows = np.random.default_rng(5).integers(0, 300, (10_000, 300))
    expected = np.quantile(gains.to_numpy()[rows].mean(axis=1), [0.025, 0.975])
    np.testing.assert_allclose(found.interval, expected, atol=0.004)
    assert found.interval == first.compare(second).interval
    low, high = second.compare(first).interval
    assert (-high, -low) == pytest.approx(found.interval, abs=0.004)


def test_verdicts():
    first, second = drawn(600, 0.9, 0.8)
    assert first.compare(second).verdict == "better"
    assert second.compare(first).verdict == "worse"
    assert Comparison("test", 600, 480, 12, 9).verdict == "no difference shown"


def test_both_methods_must_see_a_difference():
    """Of five that differ, all for one: no resample says otherwise, but chance does so in one case of sixteen."""
    found = Comparison("test", 5, 0, 5, 0)
    assert found.interval == (1, 1) and found.p_value == pytest.approx(2 / 32)
    assert found.verdict == "no difference shown"


def test_no_difference_is_found_where_there_is_none():
    """Equally good models differ in at most one of twenty comparisons, give or take chance."""
    found = [drawn(200, 0.8, 0.8, seed) for seed in range(60)]
    assert sum(one.compare(other).verdict != "no difference shown" for one, other in found) <= 6


def test_equal_predictions_show_no_difference():
    one = evaluation([1, 0, 1, 1])
    found = one.compare(one)
    assert (found.verdict, found.p_value, found.difference, found.interval) == ("no difference shown", 1, 0, (0, 0))


def test_order_of_pictures_and_of_classes_does_not_matter():
    first, second = drawn(50, 0.9, 0.7)
    order = np.random.default_rng(1).permutation(50)
    turned = Evaluation(
        "test",
        ["bee", "ant"],
        [second.paths[row] for row in order],
        1 - second.labels[order],
        second.probabilities[order][:, ::-1],
    )
    assert first.compare(turned) == first.compare(second)
    assert turned.compare(first) == second.compare(first)


def test_other_pictures_or_labels_are_an_error_that_names_the_first():
    three = evaluation([1, 1, 1])
    with pytest.raises(ValueError, match="same pictures; 2.jpg is missing in the second"):
        three.compare(evaluation([1, 1]))
    with pytest.raises(ValueError, match="same pictures; 2.jpg is missing in the first"):
        evaluation([1, 1]).compare(three)
    with pytest.raises(ValueError, match="same pictures; 1.jpg is missing in the second"):
        three.compare(evaluation([1, 1, 1], paths=["2.jpg", "0.jpg", "x.jpg"], labels=[0, 0, 1]))
    with pytest.raises(ValueError, match="same labels; 1.jpg is 'bee' in the first and 'ant' in the second"):
        three.compare(evaluation([1, 1, 1], labels=[0, 0, 1]))
    with pytest.raises(ValueError, match="matched by path, and 0.jpg stands there twice"):
        three.compare(evaluation([1, 1, 1], paths=["0.jpg", "0.jpg", "1.jpg"]))
    with pytest.raises(ValueError, match="The test split has no labels, so it cannot be said which model is better"):
        three.compare(Evaluation("test", ["ant", "bee"], three.paths, np.full(3, -1), three.probabilities))
    with pytest.raises(TypeError, match="`other` must be an Evaluation.* Received: str"):
        three.compare("test")


def test_it_is_shown_with_its_sign_turned_to_the_verdict():
    better, worse = Comparison("<b>", 200, 150, 30, 10), Comparison("<b>", 200, 150, 10, 30)
    assert str(better).startswith("<b>: better, by 10.0 points (95 % interval 4.0 to 16.0) on 200 pictures\n")
    assert str(worse).splitlines()[0].startswith("<b>: worse, by 10.0 points (95 % interval ")
    assert "80.00% against 90.00%" in str(worse)
    level = str(Comparison("dev", 200, 150, 12, 10))
    assert level.startswith("dev: no difference shown: 1.0 points (95 % interval -") and "p = 0.83" in level
    assert all(len(line) <= 100 for line in (*str(better).splitlines(), *level.splitlines()))
    assert "<h4>&lt;b&gt;: better, by" in better._repr_html_() and "p = 0.0027" in better._repr_html_()
