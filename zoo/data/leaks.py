"""The leak check: pictures of one split that another split shows, too."""

from typing import cast

import pandas as pd

from zoo.data.mending import NAMES

KINDS = {"same content": "sha256", "near twin": "twin"}
COLUMNS = ["path", "split", "twin_path", "twin_split", "kind"]


def leaks(table: pd.DataFrame) -> pd.DataFrame:
    """The pictures of dev and test that repeat one of training, and those of test that repeat one of dev.

    Args:
        table: Columns path, split, sha256, twin; rows without a split do not count.

    Returns:
        A row a leaking picture: path and split, twin_path and twin_split of the first picture that it repeats, kind
        "same content" or "near twin". A picture that is repeated twice is told of once: training first, equal
        content first.
    """
    found = []
    for split in ("dev", "test"):
        here = table.loc[table["split"] == split]
        for other in NAMES[: NAMES.index(split)]:
            there = table.loc[table["split"] == other]
            for kind, column in KINDS.items():
                first = there.loc[there[column] != ""].drop_duplicates(column).set_index(column)["path"]
                twin = here[column].map(first).astype(object)
                known = twin.notna()
                rows = {
                    "path": here["path"],
                    "split": split,
                    "twin_path": twin,
                    "twin_split": other,
                    "kind": kind,
                }
                found.append(pd.DataFrame(rows, columns=COLUMNS).loc[known])
                here = here.loc[~known]
    return pd.concat(found, ignore_index=True)


def leak_lines(table: pd.DataFrame, most: int = 5) -> list[str]:
    """A sentence for each pair of splits that share pictures, with up to `most` of them by name."""
    lines = []
    for key, rows in leaks(table).groupby(["split", "twin_split", "kind"], sort=False):
        split, other, kind = cast(tuple, key)
        one = len(rows) == 1
        if kind == "same content":
            what, sign = ("is also in" if one else "are also in"), "="
        else:
            what, sign = ("looks like one of" if one else "look like ones of"), "~"
        names = [f"{path} {sign} {twin}" for path, twin in zip(rows["path"], rows["twin_path"], strict=True)]
        names[most:] = [f"... and {len(names) - most} more"] if len(names) > most else []
        lines.append(f"{len(rows)} picture{'' if one else 's'} of {split} {what} {other}: {', '.join(names)}")
    return lines
