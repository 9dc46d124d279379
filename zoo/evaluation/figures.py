"""The figures of an evaluation, as functions of arrays: labels (n,), probabilities (n, classes), counts."""

import math

import numpy as np
import pandas as pd

SMALLEST = 1e-7  # Keras clips probabilities there too, so losses agree with those of `fit`
BINS = 15  # Guo et al. 2017
Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def wilson(right: float, count: float) -> tuple[float, float]:
    """95 % confidence interval of a share, as other pictures of the same kind would give.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953, without continuity correction.

    Args:
        right: How many of them, 0 to `count`.
        count: Of how many, above 0.

    Returns:
        (low, high), within 0 and 1.

    Raises:
        ValueError: If `count` is not above 0, or `right` does not lie in 0 to `count`.

    Example:
        >>> low, high = wilson(94, 100)
        >>> print(f"{low:.3f} to {high:.3f}")
        0.875 to 0.972
    """
    if not (count > 0 and 0 <= right <= count):
        raise ValueError(f"`right` must lie in 0 to `count`, which is above 0. Received: right={right}, count={count}")
    p = right / count
    centre = (p + Z**2 / (2 * count)) / (1 + Z**2 / count)
    reach = Z / (1 + Z**2 / count) * math.sqrt(p * (1 - p) / count + Z**2 / (4 * count**2))
    low = max(0.0, centre - reach) if right else 0.0  # at the ends rounding would leave a trace
    high = min(1.0, centre + reach) if right < count else 1.0
    return float(low), float(high)


def difference(right_a: float, n_a: float, right_b: float, n_b: float) -> tuple[float, float]:
    """95 % confidence interval of the difference of two shares, a's less b's, of pictures that have nothing in common.

    Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10: the limits of
    Wilson's intervals put together, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I.
    Two models on the same pictures are compared by `Evaluation.compare`, which finds smaller differences.

    Args:
        right_a, n_a: How many of how many, as in `wilson`.
        right_b, n_b: The same of the other.

    Returns:
        (low, high), within -1 and 1.

    Raises:
        ValueError: If a count is not above 0, or a number right does not lie in 0 to its count.

    Example:
        >>> low, high = difference(56, 70, 48, 80)
        >>> print(f"{low:.4f} to {high:.4f}")
        0.0524 to 0.3339
    """
    (low_a, high_a), (low_b, high_b) = wilson(right_a, n_a), wilson(right_b, n_b)
    a, b = right_a / n_a, right_b / n_b
    low = a - b - math.hypot(a - low_a, high_b - b)
    high = a - b + math.hypot(high_a - a, b - low_b)
    return float(low), float(high)


def losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Cross-entropy -ln(p) of the true class of each picture, in nats, with p held above 1e-7, float64 (n,)."""
    return -np.log(np.clip(_of(probabilities, labels).astype(np.float64), SMALLEST, 1))


def top(labels: np.ndarray, probabilities: np.ndarray, k: int) -> float:
    """Share of pictures whose true class is among the `k` most probable.

    Of equally probable classes the one that comes first counts as the more probable, as in `argmax`.
    """
    before = np.arange(probabilities.shape[1]) < labels[:, np.newaxis]
    truth = _of(probabilities, labels)[:, np.newaxis]
    ahead = (probabilities > truth) | ((probabilities == truth) & before)
    return float(np.mean(ahead.sum(axis=1) < k))


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts of pictures (classes, classes): rows true classes, columns predicted ones."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def per_class(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, f1 and support of each class, (classes,), from the counts that `confusion` gives.

    0 stands where nothing was predicted, or nothing is there.
    """
    right, support, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return {
        "precision": _share(right, predicted),
        "recall": _share(right, support),
        "f1": _share(2 * right, support + predicted),
        "support": support,
    }


def confused(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The errors in the counts that `confusion` gives, commonest first.

    Returns:
        True class, predicted class, number of pictures, and their share of those of the true class, each (errors,).
    """
    true, predicted = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
    order = np.argsort(-counts[true, predicted], kind="stable")
    true, predicted = true[order], predicted[order]
    return true, predicted, counts[true, predicted], counts[true, predicted] / counts.sum(axis=1)[true]


def reliability(right: np.ndarray, confidence: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """How often predictions of each probability are right: a row for each of `bins` ranges of equal width.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 2.

    Args:
        right: Whether each prediction is right, (n,).
        confidence: Probability of each predicted class, (n,).
        bins: Number of ranges; each holds its upper end.

    Returns:
        Columns low, high, pictures, confidence (mean probability) and accuracy; NaN in the last two where a range has
        no pictures.
    """
    confidence = confidence.astype(np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    pictures = np.bincount(place, minlength=bins)
    some = np.where(pictures, pictures, np.nan)
    edges = np.arange(bins + 1) / bins
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "pictures": pictures,
            "confidence": np.bincount(place, weights=confidence, minlength=bins) / some,
            "accuracy": np.bincount(place, weights=right, minlength=bins) / some,
        }
    )


def calibration_error(table: pd.DataFrame) -> float:
    """Mean gap between confidence and accuracy over the rows that `reliability` gives, weighted by their pictures."""
    gaps = (table.accuracy - table.confidence).abs().fillna(0)
    return float((gaps * table.pictures).sum() / table.pictures.sum())


def second_best(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The second most probable class of each picture, and by how much the first is ahead of it, both (n,).

    Probabilities need two columns at least.
    """
    rows = np.arange(len(probabilities))
    best = probabilities.argmax(axis=1)
    others = probabilities.copy()
    others[rows, best] = -np.inf
    second = others.argmax(axis=1)
    return second, _of(probabilities, best).astype(np.float64) - _of(probabilities, second)


def _of(probabilities, classes):
    """The probability of one class for each picture."""
    return probabilities[np.arange(len(classes)), classes]


def _share(part, whole):
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
