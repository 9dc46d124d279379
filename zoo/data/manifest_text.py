"""A manifest in words: one screen for people, single lines for messages, and what both are made of."""

from collections.abc import Iterable, Sequence

import pandas as pd
from rich.cells import cell_len, set_cell_size

from zoo.data.leaks import leaks
from zoo.data.manifest import CONFLICT, PASSED_OVER, Manifest
from zoo.data.mending import NAMES
from zoo.data.names import natural

WIDTH = 100  # columns of the screen
LINES = 16  # of the screen, for files that cannot be used
NAME = 40  # columns for a path where two stand on a line
NAMED = 200  # files that a complaint names


def screen(manifest: Manifest) -> str:
    """What was found, on at most forty lines of a hundred columns whatever is wrong."""
    found = sections(manifest)
    column = _column(found)
    lines = [headline(manifest)]
    for title, entries in found:
        heads = [f"  {title}", *[""] * (len(entries) - 1)]
        lines += [f"{head:{column}}{clip(entry, WIDTH - column)}" for head, entry in zip(heads, entries, strict=True)]
    if len(manifest.troubles) or manifest.empty:
        lines.append("Named in full by manifest.to_html(FILE), manifest.to_csv(FILE), zoo scan --html FILE --csv FILE")
    return "\n".join(lines)


def headline(manifest: Manifest) -> str:
    """The figures that matter most, in a sentence."""
    usable = manifest.usable
    files = int((~manifest.table.status.isin(PASSED_OVER)).sum())
    classes = usable.label[usable.label != ""].nunique()
    tail = f" in {counted(classes, 'class', 'classes')}" if classes else ", without labels" if len(usable) else ""
    return f"{counted(len(usable), 'usable picture')} of {counted(files, 'file')}{tail}"


def sections(manifest: Manifest) -> list[tuple[str, list[str]]]:
    """What there is to say, as titles with a few lines each."""
    usable, status = manifest.usable, manifest.table.status
    hidden, links = manifest.hidden, int((status == "link").sum())
    found = [
        ("splits", _splits(usable)),
        ("formats", _formats(usable)),
        ("sizes", _sizes(usable)),
        *_twins(usable),
        *_troubles(manifest.troubles),
        (f"{len(manifest.empty):,} empty", [f"class folders without a usable picture: {first(manifest.empty)}"]),
        (f"{hidden:,} hidden", ["files or folders, passed over"]),
        (f"{links:,} linked", ["twice, passed over: each folder is looked at once"]),
        ("notes", _some(manifest.notes, 2)),
    ]
    found = [(title, lines) for title, lines in found if lines and not title.startswith("0 ")]  # none of that kind
    lines = _classes(usable, WIDTH - _column([*found, ("classes", [])]))
    return [("classes", lines), *found] if lines else found


def trouble_lines(manifest: Manifest, most: int) -> list[str]:
    """One line a trouble; where that makes more than `most`, one line a kind, those of most files first."""
    kinds = {str(status): rows for status, rows in manifest.troubles.groupby("status", sort=False)}
    together: set[str] = set()
    for status in sorted(kinds, key=lambda status: -len(kinds[status])):
        if sum(1 if name in together else len(rows) for name, rows in kinds.items()) <= most:
            break
        together.add(status)
    lines = []
    for status, rows in kinds.items():
        named = [f"{plain(path)} ({plain(reason)})" for path, reason in _pairs(rows.head(3))]
        if status in together:
            lines.append(f"{counted(len(rows), 'file')} {status}: {first(named, total=len(rows))}")
        else:
            lines += [f"{plain(path)}: {status} ({plain(reason)})" for path, reason in _pairs(rows)]
    if len(manifest.empty) > 3:
        lines.append(f"{len(manifest.empty):,} class folders without a usable picture: {first(manifest.empty)}")
    else:
        lines += [f"{plain(name)}: class folder without a usable picture" for name in manifest.empty]
    lines += [*map(plain, manifest.notes[:5]), *_more(len(manifest.notes) - 5)]
    if manifest.hidden:
        lines.append(f"{counted(manifest.hidden, 'hidden file or folder', 'hidden files or folders')} passed over")
    return lines


def complaint(manifest: Manifest) -> str:
    """Every file that cannot be used and every empty class folder by name, up to `NAMED` of each."""
    rows, empty = manifest.troubles, manifest.empty
    lines = [f"{counted(len(rows), 'file')} cannot be used:"] if len(rows) else []
    shown = rows.head(NAMED)
    lines += [
        f"  {plain(path)}: {status} ({plain(reason)})"
        for path, status, reason in zip(shown.path, shown.status, shown.reason, strict=True)
    ]
    if len(rows) > NAMED:
        kinds = ", ".join(f"{count:,} {status}" for status, count in rows.status.value_counts().items())
        lines.append(f"  ... and {len(rows) - NAMED:,} more. In all {kinds}; zoo.scan(...).to_csv(FILE) names them.")
    if empty:
        lines.append(f"{counted(len(empty), 'class folder')} without a usable picture:")
        lines += [f"  {plain(name)}" for name in [*empty[:NAMED], *_more(len(empty) - NAMED)]]
    return "\n".join(lines)


def plain(text) -> str:
    """Text on one line that any terminal and file can take: what cannot be printed is escaped."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def clip(text, width: int) -> str:
    """Text of at most `width` columns; the middle of a longer one goes, since names differ at their ends."""
    text = plain(text)
    if cell_len(text) <= width:
        return text
    head = (width - 3) // 2
    return set_cell_size(text, head) + "..." + set_cell_size(text[::-1], width - 3 - head)[::-1]


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def first(names: Sequence[str], total: int = 0) -> str:
    """The first three names, and how many more there are."""
    more = max(total, len(names)) - 3
    return ", ".join(plain(name) for name in names[:3]) + (f" and {more:,} more" if more > 0 else "")


def sides(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Width and height as a person sees them, EXIF orientation applied."""
    lying = table.orientation >= 5
    return table.width.where(~lying, table.height), table.height.where(~lying, table.width)


def other_label(table: pd.DataFrame) -> pd.Series:
    """The label of each row's twin where it is another one, else ""."""
    label_of = table.drop_duplicates("path").set_index("path").label
    others = table.twin.map(label_of).fillna("")
    return others.where(others != table.label, "")


def _column(found: Sequence[tuple[str, list[str]]]) -> int:
    """Where the lines begin, behind the longest title."""
    return 4 + max((len(title) for title, _ in found), default=0)


def _classes(usable: pd.DataFrame, room: int) -> list[str]:
    """How many pictures each class has, or the largest and the smallest where that takes more than five lines."""
    counts = usable.label[usable.label != ""].value_counts()
    lines = _wrapped(_entries(counts.reindex(natural(counts.index.tolist()))), room)
    if len(lines) <= 5:
        return lines
    return [
        f"{counts.min():,} to {counts.max():,} pictures each, median {counts.median():,.0f}",
        _few("largest", counts.head(3), room),
        _few("smallest", counts.tail(3)[::-1], room),
    ]


def _few(title: str, counts: pd.Series, room: int) -> str:
    """As many of them as a line has room for."""
    return f"{title}: {_wrapped(_entries(counts), room - len(title) - 2)[0].removesuffix(',')}"


def _wrapped(entries: list[str], room: int) -> list[str]:
    """Entries one behind the other on lines of at most `room` columns, none of them broken."""
    lines: list[str] = []
    for entry in entries:
        if lines and cell_len(lines[-1]) + cell_len(entry) + 2 < room:  # and a comma behind it
            lines[-1] += f" {entry},"
        else:
            lines.append(f"{entry},")
    return [*lines[:-1], lines[-1].removesuffix(",")] if lines else []


def _splits(usable: pd.DataFrame) -> list[str]:
    counts = usable.split.value_counts()
    given = [name for name in NAMES if name in counts.index]
    if not given:
        return []
    repeated = leaks(usable)
    lines = [_tally(counts[given])]
    if len(repeated):
        example = repeated.iloc[0]
        lines.append(f"{_tally(repeated.split.value_counts())} also in another split, such as")
        lines.append(_pair(example.path, example.split, example.twin_path, example.twin_split, sign="="))
    return lines


def _formats(usable: pd.DataFrame) -> list[str]:
    modes, turned = usable["mode"].value_counts(), int((usable.orientation > 1).sum())
    moving = int((usable.frames > 1).sum())
    said = [
        f"colours {_tally(modes.head(5))}" if len(modes) > 1 else "",
        f"{turned:,} turned upright by EXIF" if turned else "",
        f"{moving:,} with several frames, the first counts" if moving else "",
    ]
    return [line for line in (_tally(usable.format.value_counts().head(6)), "; ".join(filter(None, said))) if line]


def _sizes(usable: pd.DataFrame) -> list[str]:
    if not len(usable):
        return []
    width, height = sides(usable)
    if width.nunique() == height.nunique() == 1:
        return [f"all {width.iloc[0]}x{height.iloc[0]}"]
    order = (width * height).to_numpy().argsort(kind="stable")
    small, middle, large = (order[0], order[len(order) // 2], order[-1])
    size = [f"{w}x{h}" for w, h in zip(width, height, strict=True)]
    spread = [f"{side.quantile(0.1):.0f} to {side.quantile(0.9):.0f}" for side in (width, height)]
    return [
        f"smallest {size[small]} ({clip(usable.path.iloc[small], NAME)}), median {size[middle]}",
        f"largest {size[large]} ({clip(usable.path.iloc[large], NAME)})",
        f"eight in ten: width {spread[0]}, height {spread[1]}",
    ]


def _twins(usable: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Copies and near copies; those under another label first, since one of the two may be wrong."""
    found = []
    for status, sign in (("duplicate", "="), ("near-duplicate", "~")):
        rows = usable.assign(other=other_label(usable)).loc[usable.status == status]
        rows = rows.sort_values("other", key=lambda other: other == "", kind="stable")
        torn, shown = int((rows.other != "").sum()), rows.head(3)
        pairs = zip(shown.path, shown.label.where(shown.other != "", ""), shown.twin, shown.other, strict=True)
        lines = [_pair(*pair, sign=sign) for pair in pairs]
        found.append((counted(len(rows), status), _some(lines, 3, len(rows))))
        found.append(("", [f"{torn:,} of them under another label than the twin"] if torn else []))
    return found


def _troubles(rows: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """The first files of each kind, as many as there is room for; of a conflict, both paths and labels on a line."""
    lines, counts, titles = {}, rows.status.value_counts().to_dict(), {}
    for status, members in ((str(status), members) for status, members in rows.groupby("status", sort=False)):
        titles[status] = f"{counts[status]:,} {status}"
        if status == CONFLICT:
            counts[status] = members.sha256.nunique()
            titles[status] = counted(counts[status], status)
            lines[status] = _conflicts(members)
        else:
            lines[status] = [f"{clip(path, 50)} ({plain(reason)})" for path, reason in _pairs(members.head(LINES))]
    most = next((k for k in (6, 4, 3, 2) if sum(min(len(found), k) for found in lines.values()) <= LINES), 1)
    return [(titles[status], _some(found, most, counts[status])) for status, found in lines.items()]


def _conflicts(rows: pd.DataFrame) -> list[str]:
    """A line for each of the first contents: a file under one label, and one under another."""
    shown = rows.loc[rows.sha256.isin(rows.sha256.unique()[:LINES])].drop_duplicates(["sha256", "label"])
    lines = []
    for _, group in shown.groupby("sha256", sort=False):
        (path, label, reason), *others = zip(group.path, group.label, group.reason, strict=True)
        lines.append(_pair(path, label, *others[0][:2], sign="=") if others else f"{clip(path, 50)} ({plain(reason)})")
    return lines


def _pair(path: str, label: str, twin: str, other: str, *, sign: str) -> str:
    labels = [f" ({clip(name, 12)})" if name else "" for name in (label, other)]
    room = 36 - max(map(len, labels))
    return f"{clip(path, room)}{labels[0]} {sign} {clip(twin, room)}{labels[1]}"


def _tally(counts: pd.Series) -> str:
    return ", ".join(_entries(counts))


def _entries(counts: pd.Series) -> list[str]:
    return [f"{clip(name, 20)}: {count:,}" for name, count in counts.items()]


def _more(count: int) -> list[str]:
    return [f"... and {count:,} more"] if count > 0 else []


def _some(lines: list[str], most: int, total: int = 0) -> list[str]:
    """The first lines; the last of them says how many more there are."""
    more = max(total, len(lines)) - most
    return [*lines[: most - 1], f"{lines[most - 1]} and {more:,} more"] if more > 0 else lines


def _pairs(rows: pd.DataFrame) -> Iterable[tuple[str, str]]:
    return zip(rows.path, rows.reason, strict=True)
