"""What chance shared out badly is put right: as few groups as can be move to the splits that lack a class."""

from collections.abc import Iterator, Sequence

import numpy as np

LEAST = np.array([0.8, 0.5, 0.5])  # of their shares: what train, dev and test get of each class where that can be
NAMES = ("train", "dev", "test")


def mend(chosen: np.ndarray, groups, labels, *, away, free, shares, classes: Sequence[str], unit: str) -> None:
    """Moves groups until each split has a group of each class, and `LEAST` of its share where that can be.

    Groups of one class go before groups of several, then the one nearest to the threshold. Nothing is taken from a
    class that it needs itself, so what was put right for one stays right.

    Args:
        chosen: The split of each group, 0 for train, 1 for dev, 2 for test; changed in place.
        groups, labels: The group and the class of each picture, numbers from 0.
        away: (groups, 3): how far each group is from being in each split.
        free: Which groups may move.
        shares: Shares of train, dev and test.
        classes: Their names.
        unit: What groups are called in errors.

    Raises:
        ValueError: If a class has fewer groups than there are splits to fill.
    """
    tally = _Tally(chosen, np.asarray(groups), np.asarray(labels), len(classes), shares)
    wanted = [split for split in (2, 1, 0) if shares[split] > 0]
    names = ", ".join(NAMES[split] for split in reversed(wanted))
    held = tally.of_class(~free) > 0  # a class of an earlier split may be as poor as it was
    for label in np.flatnonzero((tally.of_class() < len(wanted)) & ~held).tolist():
        raise ValueError(
            f"Class '{classes[label]}' has {tally.of_class()[label]:.0f} {unit}, too few to be shared out to {names}. "
            "Add pictures, leave the class out, or ask for fewer splits."
        )

    def candidates(label, split):
        others = tally.others(label, split)
        others = others[free[others]]
        return others[np.lexsort((away[others, split], tally.spans[others] > 1))]

    for label, split in _pairs(tally.count == 0, wanted):
        if tally.count[label, split] == 0:  # still: another class may have brought it one
            others = candidates(label, split)
            able = (group for part in (1.0, 0.0) for group in others if tally.can_spare(group, part))
            group = next(able, None)
            if group is not None:
                tally.move(group, split)
            elif not held[label]:
                raise ValueError(
                    f"Class '{classes[label]}' cannot have pictures in each of {names}, for its groups reach into "
                    "other classes that need them where they are. Group otherwise, or ask for fewer splits."
                )
    for label, split in _pairs(tally.short(), wanted):
        for group in candidates(label, split):
            if not tally.short()[label, split]:
                break
            if tally.can_spare(group):
                tally.move(group, split)


def _pairs(poor: np.ndarray, wanted: list[int]) -> Iterator[tuple[int, int]]:
    """Every (class, split) that is poor."""
    return ((int(label), split) for label in np.flatnonzero(poor.any(1)) for split in wanted if poor[label, split])


class _Tally:
    """How many groups and pictures of each class are in each split, kept up to date while groups move.

    Attributes:
        count, pictures: (classes, 3).
        spans: How many classes each group reaches into.
    """

    def __init__(self, chosen, groups, labels, classes: int, shares):
        pairs, self._sizes = np.unique(groups.astype(np.int64) * classes + labels, return_counts=True)
        self._groups, self._labels = np.divmod(pairs, classes)  # a row a group and class, by groups
        self._starts = np.searchsorted(self._groups, np.arange(len(chosen) + 1))
        self._by_label = np.argsort(self._labels, kind="stable")
        self._label_starts = np.searchsorted(self._labels[self._by_label], np.arange(classes + 1))
        self._chosen = chosen
        self.spans = np.diff(self._starts)
        self.count, self.pictures = np.zeros((2, classes, 3))
        np.add.at(self.count, (self._labels, chosen[self._groups]), 1)
        np.add.at(self.pictures, (self._labels, chosen[self._groups]), self._sizes)
        self._shares = np.outer(self.pictures.sum(1), shares) - 1e-9  # 0.1 * 20 is not quite 2

    def of_class(self, which=None) -> np.ndarray:
        """How many groups of each class there are, or those of them that a mask over groups names."""
        return np.bincount(self._labels, None if which is None else which[self._groups], len(self.count))

    def others(self, label: int, split: int) -> np.ndarray:
        """The groups of a class that are in other splits."""
        rows = self._by_label[self._label_starts[label] : self._label_starts[label + 1]]
        members = self._groups[rows]
        return members[self._chosen[members] != split]

    def short(self) -> np.ndarray:
        """Where less than the least share is, (classes, 3)."""
        return self.pictures < LEAST * self._shares

    def can_spare(self, group: int, part: float = 1.0) -> bool:
        """Whether each class keeps another group where this one is, and that part of its least share."""
        labels, sizes = self._of_group(group)
        split = self._chosen[group]
        left = self.pictures[labels, split] - sizes
        enough = left >= part * LEAST[split] * self._shares[labels, split]
        return bool(enough.all() and (self.count[labels, split] > 1).all())

    def move(self, group: int, split: int) -> None:
        """Puts a group into another split."""
        labels, sizes = self._of_group(group)
        for place, sign in ((self._chosen[group], -1), (split, 1)):
            self.count[labels, place] += sign
            self.pictures[labels, place] += sign * sizes
        self._chosen[group] = split

    def _of_group(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(self._starts[group], self._starts[group + 1])
        return self._labels[rows], self._sizes[rows]
