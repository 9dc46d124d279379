"""Stratified, grouped, repeatable train / dev / test."""

import hashlib
from collections.abc import Callable

import pandas as pd

NAMES = ("train", "dev", "test")


def check_fractions(split) -> tuple[float, float, float]:
    """The three shares, as they are or from two (train, dev).

    Raises:
        ValueError: If they are not two or three shares of which train is above 0, adding up to 1.
    """
    shares = tuple(float(share) for share in split) if hasattr(split, "__len__") else (float(split),)
    shares = (*shares, 0.0) if len(shares) == 2 else shares
    if len(shares) != 3 or min(shares) < 0 or shares[0] == 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f"`split` must give the shares of train, dev and test, adding up to 1, with train above 0. "
            f"Received: split={split}"
        )
    return shares


def assign(table: pd.DataFrame, shares, *, group: str | Callable | None, seed: int) -> pd.Series:
    """A split for every row: each class shared out alike, no group torn apart.

    Where a picture goes depends on the hash of its content and the seed, ranked within its class: neither names nor
    the order of files count, and files added to one class move nothing in another.

    Args:
        table: Columns path, label, sha256; index any.
        shares: Shares of train, dev and test.
        group: "duplicates" keeps pictures of equal content together; a function gives the group of a path; None
            lets every picture go alone.
        seed: Another seed, another split; 0 is a seed like any other.

    Returns:
        "train", "dev" or "test" on the index of `table`.

    Raises:
        ValueError: If a class has fewer groups than there are splits to fill.
    """
    if len(table) == 0:
        return pd.Series([], index=table.index, dtype=str)
    rows = pd.DataFrame({"label": table.label, "group": _groups(table, group)}, index=table.index)
    chosen = {}
    for label, members in rows.groupby("label", sort=True):
        sizes = members.group.value_counts()
        ranked = sorted(sizes.index, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())
        # a group of several classes goes where the first of them sends it
        chosen = _share_out(str(label), {name: int(sizes[name]) for name in ranked}, shares) | chosen
    return rows.group.map(chosen)


def _share_out(label: str, members: dict[str, int], shares) -> dict[str, str]:
    """A split for each group (name to size) of one class, in the order given: test, then dev, the rest for training."""
    wanted = [name for name, share in zip(NAMES, shares, strict=True) if share > 0]
    if len(members) < len(wanted):
        raise ValueError(
            f"Class '{label}' has {len(members)} different pictures, too few to be shared out to "
            f"{', '.join(wanted)}. Add pictures, leave the class out, or ask for fewer splits."
        )
    total = sum(members.values())
    chosen, queue = {}, list(members.items())
    for name, later in (("test", 1 + (shares[1] > 0)), ("dev", 1)):
        share = shares[NAMES.index(name)]
        quota = max(1, int(share * total + 0.5)) if share > 0 else 0
        while quota > 0 and len(queue) > later:  # every split after this one keeps at least a group
            member, size = queue.pop(0)
            chosen[member] = name
            quota -= size
    return chosen | {member: "train" for member, _ in queue}


def _groups(table: pd.DataFrame, group: str | Callable | None) -> pd.Series:
    """The name of each row's group; the names of lone pictures are their content, with a number behind twins."""
    if group == "duplicates":
        return table.sha256
    if group is None:
        return table.sha256 + ":" + table.sort_values("path").groupby("sha256").cumcount().astype(str)
    if callable(group):
        return table.path.map(lambda path: str(group(path)))
    raise ValueError(f'`group` must be "duplicates", a function of the path, or None. Received: group={group!r}')
