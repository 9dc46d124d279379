"""Which pictures go together, and the name by which a group's place is found."""

import hashlib
from collections.abc import Callable, Hashable, Iterable

import pandas as pd

from zoo.data.manifest import FACTS


def group_names(table: pd.DataFrame, group: str | Callable | None) -> list[str]:
    """The name of each row's group.

    Pictures of equal content (column sha256) and near twins (column twin, where it says something) are one group,
    named by the smallest content hash in it. A function of the path or a column joins them further; such a group is
    named by the smallest of its names. A picture for which column or function has nothing to say (None, NaN, "") joins
    nobody but its twins.

    Args:
        table: Columns path, sha256, twin, and the one that is named.
        group: "duplicates", a column, a function of the path, or None: every file alone, twins numbered by path.

    Raises:
        ValueError: If there is no such column.
    """
    contents = table["sha256"].tolist()
    if group is None:
        order = sorted(range(len(table)), key=table["path"].tolist().__getitem__)
        seen: dict[str, int] = {}
        alone = [""] * len(table)
        for row in order:
            number = seen.get(contents[row], 0)
            alone[row] = f"{contents[row]}:{number}" if number else contents[row]
            seen[contents[row]] = number + 1
        return alone
    given = _given(table, group)
    joined = _joined(len(table), contents, table["twin"].tolist(), given)
    smallest: dict[int, tuple[bool, str]] = {}
    for root, name, content in zip(joined, given, contents, strict=True):
        candidate = (not name, name or content)  # any name goes before any content
        smallest[root] = min(smallest.get(root, candidate), candidate)
    return [smallest[root][1] for root in joined]


def place(seed: int, name: str) -> float:
    """A number in [0, 1) that seed and name alone decide."""
    digest = hashlib.sha256(f"{seed}:{name}".encode(errors="backslashreplace")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # as many bits as a float holds: never rounded up to 1


def _given(table: pd.DataFrame, group: str | Callable) -> list[str]:
    """What column or function says of each row; "" where that is nothing."""
    if isinstance(group, str) and group == "duplicates":
        return [""] * len(table)
    if callable(group):
        values = pd.Series([group(path) for path in table["path"]], dtype=object)
    elif isinstance(group, str) and group in table.columns:
        values = table[group].astype(object)
    else:
        columns = ", ".join(str(name) for name in table.columns if name not in FACTS)
        raise ValueError(
            f'`group` must be "duplicates", the name of a column ({columns}), a function of the path, or None. '
            f"Received: group={group!r}"
        )
    return ["" if missing else _text(value) for value, missing in zip(values, values.isna(), strict=True)]


def _text(value) -> str:
    """A name as text; numbers alike whether or not a missing one made floats of the whole column."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _joined(count: int, *names: Iterable[Hashable]) -> list[int]:
    """The number of each row's group, where rows that share a name in any of the lists are one group (union-find)."""
    parent = list(range(count))

    def root(row):
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for column in names:
        first: dict[Hashable, int] = {}
        for row, name in enumerate(column):
            if name != "" and (other := first.setdefault(name, row)) != row:
                parent[root(row)] = root(other)
    return [root(row) for row in range(count)]
