"""Which labels are likely wrong, by confident learning."""

import numpy as np

SLACK = 1e-6  # equal numbers differ by rounding, and their mean may lie above each of them


def label_errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The pictures whose label is likely wrong, the most suspect first.

    Confident learning, Northcutt, Jiang and Chuang 2021, https://arxiv.org/abs/1911.00068. A picture counts as one of a
    class where its probability reaches the mean that pictures labelled so have. Counts of such classes against labels,
    the confident joint, tell how many pictures of each label belong to each other class; so many are taken, those that
    the other class is furthest ahead in (section 3.3, prune by noise rate). Departure: where no class is more probable
    than the label, the label stands.

    The probabilities must be out of sample, from a model that was not trained on these pictures: one that was has
    learned the wrong labels, too, and finds little.

    Args:
        labels: Class index of each picture, (n,).
        probabilities: (n, classes).

    Returns:
        Row numbers, (m,), by how far the most probable class is ahead of the label (normalized margin). The right class
        is likely the most probable one.
    """
    joint = _confident_joint(labels, probabilities)
    rows_of = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
    counted = joint.sum(axis=1)
    found = np.zeros(len(labels), bool)
    for label, other in zip(*np.nonzero(joint * ~np.eye(len(joint), dtype=bool)), strict=True):
        rows = rows_of[label]
        count = round(joint[label, other] * len(rows) / counted[label])  # calibrated to all that are labelled so
        ahead = probabilities[rows, other] - probabilities[rows, label]
        found[rows[np.argsort(-ahead, kind="stable")[:count]]] = True
    ahead = probabilities.max(axis=1) - probabilities[np.arange(len(labels)), labels]
    rows = np.flatnonzero(found & (ahead > SLACK))
    return rows[np.argsort(-ahead[rows], kind="stable")]


def _confident_joint(labels, probabilities):
    """Counts (classes, classes): pictures by label, and by the class that they are confidently of (equation 1)."""
    count, classes = probabilities.shape
    own = probabilities[np.arange(count), labels]
    pictures = np.bincount(labels, minlength=classes)
    means = np.bincount(labels, weights=own, minlength=classes) / np.maximum(pictures, 1)
    thresholds = np.where(pictures, means, np.inf) - SLACK  # of a class without pictures nothing is known
    confident = np.where(probabilities >= thresholds, probabilities, 0)
    level = confident[np.arange(count), labels] >= confident.max(axis=1) - SLACK
    best = np.where(level, labels, confident.argmax(axis=1))
    sure = confident.any(axis=1)
    return np.bincount(labels[sure] * classes + best[sure], minlength=classes**2).reshape(classes, classes)
