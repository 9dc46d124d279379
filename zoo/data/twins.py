"""Pictures that are there twice: the same bytes, or the same photo saved, scaled or converted anew.

Twins can be trained on, but must not stand on both sides of a split; the same bytes under two labels teach nothing.
"""

import numpy as np
import pandas as pd

from zoo.data.likeness import COLOUR_BYTES, SIGN_BYTES
from zoo.data.manifest import CONFLICT, TRAINABLE

NEAR = 9  # differing signs, of 120, at most, of two pictures that show the same; others begin to occur at about 20
NEAR_COLOUR = 12  # grey levels, at most, between their mean chromas: the same photo in other colours is another
FARTHEST = 2 * NEAR  # between the first of a group and any other
PARTS = NEAR + 1  # of a hash; where at most NEAR signs differ, one part at least is the same
REACH = 500  # followers in a part's order that a picture is compared with; thousands alike meet in other parts as well
BITS = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)  # numpy 1 has no bitwise_count


def marked(table: pd.DataFrame) -> pd.DataFrame:
    """The same table with status, reason and twin of the trainable rows said anew.

    The first row of a group stays "usable". Others are a "duplicate" (the bytes of an earlier row) or a
    "near-duplicate"; `twin` is the path of the first, on all of them. Equal bytes under two labels are a
    "label conflict" on every row that holds them.

    Args:
        table: Columns path, label, status, reason, sha256, phash and twin; a hash that is not known is "".
    """
    rows = np.flatnonzero(table.status.isin((*TRAINABLE, CONFLICT)))
    found = table.iloc[rows]
    path, label = found.path.to_numpy(object), found.label.to_numpy(object)
    status = np.full(len(rows), "usable", object)
    reason, twin = np.full(len(rows), "", object), np.full(len(rows), "", object)

    same = _first_of_equal(found.sha256.to_numpy(object))
    rival = _rivals(same, label)
    conflict = np.isin(same, list(rival))
    for i in np.flatnonzero(conflict).tolist():
        first = int(same[i])
        other = rival[first] if label[i] == label[first] else first
        status[i], twin[i] = CONFLICT, path[first]
        reason[i] = f"the same as {path[other]}, which is labelled {label[other]}"

    lone = np.flatnonzero((same == np.arange(len(rows))) & ~conflict)  # a row for each content
    first_of = same.copy()
    first_of[lone] = lone[_near_groups(found.phash.to_numpy(object)[lone])]
    first_of = first_of[same]  # copies follow the first with their bytes
    grouped = np.isin(first_of, first_of[first_of != np.arange(len(rows))]) & ~conflict
    for i in np.flatnonzero(grouped).tolist():
        first = int(first_of[i])
        twin[i] = path[first]
        if same[i] != i:
            status[i], reason[i] = "duplicate", f"the same as {path[same[i]]}"
        elif first != i:
            status[i], reason[i] = "near-duplicate", f"shows the same as {path[first]}"
            if label[i] != label[first]:
                reason[i] += f", which is labelled {label[first]}"

    table = table.copy()
    for name, values in (("status", status), ("reason", reason), ("twin", twin)):
        column = table[name].to_numpy(object, copy=True)
        column[rows] = values
        table[name] = column
    return table


def _first_of_equal(hashes: np.ndarray) -> np.ndarray:
    """For each row the first row of the same hash; itself where that is not known."""
    here = np.arange(len(hashes))
    codes = pd.factorize(hashes)[0]
    first = np.full(len(hashes), len(hashes))
    np.minimum.at(first, codes, here)
    return np.where(hashes == "", here, first[codes])


def _rivals(same: np.ndarray, label: np.ndarray) -> dict[int, int]:
    """Of rows with equal bytes and several labels: first row -> first row of another label."""
    codes = pd.factorize(label)[0]
    others = np.flatnonzero(codes != codes[same])
    return dict(zip(same[others][::-1].tolist(), others[::-1].tolist(), strict=True))


def _near_groups(hashes: np.ndarray) -> np.ndarray:
    """For each perceptual hash the position of the first of its group; itself where it is alone or "".

    Groups grow by near pairs, but nobody gets farther than `FARTHEST` from the first: the frames of a film, each like
    the next, do not all become one group. Near pairs are found by multi-index hashing, Norouzi et al. 2012,
    https://arxiv.org/abs/1307.2982.
    """
    group = np.arange(len(hashes))
    known = np.flatnonzero(hashes != "")
    if not len(known):
        return group
    codes, distinct = pd.factorize(hashes[known])  # equal hashes need no comparing
    table = np.frombuffer(bytes.fromhex("".join(distinct)), np.uint8).reshape(-1, SIGN_BYTES + COLOUR_BYTES)
    groups = _Groups(table[:, :SIGN_BYTES])
    words = np.pad(table[:, :SIGN_BYTES], ((0, 0), (0, 1))).view(np.uint64)  # (n, 2)
    head, tail = np.ascontiguousarray(words.T)
    colour = table[:, SIGN_BYTES:].astype(np.int16)
    signs = np.unpackbits(table[:, :SIGN_BYTES], axis=1).reshape(len(table), -1, PARTS)
    for part in np.moveaxis(signs, -1, 0):  # every tenth sign: low and high frequencies in each
        key = (part @ (1 << np.arange(part.shape[1]))).astype(np.uint16)  # 12 signs
        order = np.argsort(key, kind="stable")
        key, head_here = key[order], head[order]
        at = np.arange(len(order) - 1)
        for step in range(1, REACH + 1):
            at = at[at + step < len(order)]
            at = at[key[at] == key[at + step]]
            if not len(at):
                break
            likely = at[_differing(head_here[at], head_here[at + step]) <= NEAR]
            a, b = order[likely], order[likely + step]
            near = _differing(head[a], head[b]) + _differing(tail[a], tail[b]) <= NEAR
            near &= np.abs(colour[a] - colour[b]).max(1) <= NEAR_COLOUR
            near &= groups.first[a] != groups.first[b]
            groups.join(a[near].tolist(), b[near].tolist())
    first = np.full(len(distinct), len(hashes))
    np.minimum.at(first, groups.first[codes], known)
    group[known] = first[groups.first[codes]]
    return group


def _differing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many bits differ between numbers of 64."""
    return BITS[(a ^ b).view(np.uint16)].reshape(-1, 4).sum(1, dtype=np.uint8)


class _Groups:
    """Disjoint groups, each with its first member and the distance that nobody in it exceeds from that one."""

    def __init__(self, signs: np.ndarray):
        self.signs = [int.from_bytes(row.tobytes(), "big") for row in signs]
        self.first = np.arange(len(signs))
        self.members: dict[int, list[int]] = {}
        self.radius: dict[int, int] = {}

    def join(self, left: list[int], right: list[int]) -> None:
        """Unites the groups of near pairs where nobody gets too far from the first."""
        for a, b in zip(left, right, strict=True):
            keep, give = sorted((int(self.first[a]), int(self.first[b])))
            radius = (self.signs[keep] ^ self.signs[give]).bit_count() + self.radius.get(give, 0)
            if keep == give or radius > FARTHEST:
                continue
            self.radius[keep] = max(self.radius.get(keep, 0), radius)
            moved = self.members.pop(give, [give])
            self.members.setdefault(keep, [keep]).extend(moved)
            self.first[moved] = keep
