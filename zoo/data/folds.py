"""Cross-validation: every picture in one of k parts."""

from collections import Counter
from collections.abc import Callable

import pandas as pd

from zoo.data.grouping import group_names, place


def folds(table: pd.DataFrame, k: int, *, group: str | Callable | None, seed: int) -> pd.Series:
    """A fold for every row: each class shared out as evenly as its groups allow.

    The largest groups are dealt first, then by their hash, each to the fold that has least of its class. Unlike in
    `assign`, a file that is added may move others: folds are made anew for each study.

    Args:
        table: Columns path, label, sha256, twin, and the one that `group` names; index any.
        k: Number of folds, at least 2.
        group: What must stay together, as for `assign`.
        seed: Another seed, other folds.

    Returns:
        Numbers 0..k-1 on the index of `table`. Classes made of lone pictures differ by at most one between folds.

    Raises:
        ValueError: If `k` is not a whole number from 2, or a class has fewer groups than folds.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 2:
        raise ValueError(f"`k` must be a whole number of folds, at least 2. Received: k={k!r}")
    groups: dict[str, dict[str, int]] = {}  # name -> class -> pictures
    totals: dict[str, int] = {}
    names, labels = group_names(table, group), table["label"].astype(str).tolist()
    for name, label in zip(names, labels, strict=True):
        sizes = groups.setdefault(name, {})
        sizes[label] = sizes.get(label, 0) + 1
        totals[label] = totals.get(label, 0) + 1
    found = Counter(label for sizes in groups.values() for label in sizes)
    for label in sorted(totals):
        if found[label] < k:
            raise ValueError(
                f"Class '{label}' has {found[label]} groups of pictures that stay together, too few for {k} folds. "
                f"Ask for at most {min(found.values())}, add pictures, or leave the class out."
            )
    order = sorted((-sum(sizes.values()), place(seed, name), name) for name, sizes in groups.items())
    have = {label: [0] * k for label in totals}
    whole = [0] * k
    fold_of = {}
    for _, _, name in order:
        sizes = groups[name]
        costs = [
            (sum(have[label][fold] * size / totals[label] for label, size in sizes.items()), whole[fold], fold)
            for fold in range(k)
        ]
        fold = fold_of[name] = min(costs)[-1]
        whole[fold] += sum(sizes.values())
        for label, size in sizes.items():
            have[label][fold] += size
    return pd.Series([fold_of[name] for name in names], index=table.index, dtype=int)
