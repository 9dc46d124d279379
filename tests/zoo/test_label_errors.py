"""Confident learning: planted errors in real labels are found, and the counts are those of the paper's definitions."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from zoo.evaluation.label_errors import label_errors
from zoo.evaluation.predictions import Evaluation


@pytest.fixture(scope="module")
def planted():
    """Digits of which a tenth bears a wrong label, with probabilities of a model that has not seen them."""
    pixels, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    wrong = rng.random(len(truth)) < 0.1
    labels = np.where(wrong, (truth + rng.integers(1, 10, len(truth))) % 10, truth)
    probabilities = cross_val_predict(KNeighborsClassifier(10), pixels, labels, cv=4, method="predict_proba")
    names = [f"digit {k}" for k in range(10)]
    paths = [str(row) for row in range(len(labels))]
    return Evaluation("dev", names, paths, labels, probabilities.astype(np.float32)), truth


def test_planted_label_errors_are_found(planted):
    found, truth = planted
    suspects = found.label_errors()
    rows, wrong = suspects.path.astype(int).to_numpy(), found.labels != truth
    assert wrong.mean() == pytest.approx(0.1, abs=0.02)  # what chance would hit
    assert wrong[rows].mean() > 0.8
    assert wrong[rows].sum() / wrong.sum() > 0.85
    assert wrong[rows[:50]].mean() > 0.95  # the most suspect come first
    suggested = suspects.suggested.str.removeprefix("digit ").astype(int).to_numpy()
    disagrees = found.table.label != found.table.predicted
    assert wrong[rows].mean() > wrong[disagrees].mean() + 0.1  # better than to suspect all that are predicted otherwise
    assert (suggested == truth[rows])[wrong[rows]].mean() > 0.9


def test_a_suspect_is_told_with_both_probabilities(planted):
    found, _ = planted
    suspects = found.label_errors()
    assert suspects.columns.tolist() == ["path", "label", "suggested", "probability", "suggested_probability"]
    row = suspects.iloc[3]
    at = int(row.path)
    assert row.label == found.class_names[found.labels[at]]
    assert row.probability == found.probabilities[at, found.labels[at]]
    assert row.suggested_probability == found.probabilities[at, found.class_names.index(row.suggested)]
    ahead = suspects.suggested_probability - suspects.probability
    assert np.diff(ahead).max() < 1e-6 and ahead.min() > 0


def test_counts_by_hand():
    """Two classes. Thresholds: (0.9 + 0.8 + 0.7 + 0.1) / 4 = 0.625 and (0.9 + 0.8 + 0.4) / 3 = 0.7.

    Row 3 is labelled 0 and confidently 1; row 6, labelled 1, is confidently neither. Of label 0 all are counted, so one
    is taken: the one that class 1 is furthest ahead in.
    """
    first = np.array([0.9, 0.8, 0.7, 0.1, 0.1, 0.2, 0.6])
    probabilities = np.stack([first, 1 - first], 1)
    assert label_errors(np.array([0, 0, 0, 0, 1, 1, 1]), probabilities).tolist() == [3]


def test_counts_are_calibrated_to_all_pictures_of_a_label():
    """Label 0: two confidently 0, one confidently 1, three neither; so a third of six are 1, and two are taken."""
    first = np.array([0.99, 0.99, 0.01, 0.45, 0.48, 0.52, *[0.2] * 6])
    labels = np.repeat([0, 1], 6)
    assert first[:6].mean() > 0.52 and 1 - first[6:].mean() > 0.55
    assert label_errors(labels, np.stack([first, 1 - first], 1)).tolist() == [2, 3]


def test_a_label_that_is_most_probable_stands():
    """As above, but of the two that are counted, one is more probably what its label says."""
    first = np.array([0.99, 0.99, 0.01, 0.6, 0.55, 0.58, *[0.2] * 6])
    assert label_errors(np.repeat([0, 1], 6), np.stack([first, 1 - first], 1)).tolist() == [2]


@pytest.mark.parametrize("value", [1, 0.7, 1 / 3])
def test_labels_that_the_model_agrees_with_are_no_errors(value):
    labels = np.arange(12) % 3
    probabilities = np.full((12, 3), (1 - value) / 2)
    probabilities[np.arange(12), labels] = value
    assert label_errors(labels, probabilities).tolist() == []


def test_class_without_pictures_makes_no_suspects():
    """Class 2 is the most probable one everywhere, but no picture bears it, so nobody knows when it is likely."""
    probabilities = np.array([[0.2, 0.1, 0.7], [0.3, 0.1, 0.6], [0.1, 0.2, 0.7], [0.1, 0.3, 0.6]])
    assert label_errors(np.array([0, 0, 1, 1]), probabilities).tolist() == []


def test_unconfident_class_is_no_error():
    """Nothing labelled 1 is confidently anything; what is confidently 1 bears label 0."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.05, 0.95], [0.5, 0.5]])
    assert label_errors(np.array([0, 0, 0, 1]), probabilities).tolist() == [2]
