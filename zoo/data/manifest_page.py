"""A manifest as one page: figures, what was left out and why, and thumbnails of the pictures that need a look.

The page needs no network and stays below about 3 MB whatever the folder: thumbnails, rows and names are limited, and it
says how many more there are.
"""

import io
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image, ImageOps

from zoo.data import plain
from zoo.data.leaks import leak_lines
from zoo.data.looking import without_warnings
from zoo.data.manifest import CONFLICT, TRAINABLE, Manifest
from zoo.data.manifest_text import NAMED, clip, counted, headline, other_label, sections, sides
from zoo.data.mending import NAMES
from zoo.data.names import natural
from zoo.pages import data_uri, render
from zoo.progress import track

SIDE = 160  # pixels of a thumbnail; pure noise of that size makes 14 kB of JPEG at quality 70
MEMBERS = 6  # thumbnails of one group of twins
EXTREMES = 8  # thumbnails of the smallest pictures, and of the most elongated
ROWS = 1000  # files that were left out
CLASSES = 100
TWINS = [  # title, why it matters, thumbnails; 120 of them at most in all, with the extremes
    (
        "Label conflicts",
        "The same file under two labels. All of them are left out until the wrong ones are removed.",
        40,
    ),
    (
        "Near twins under two labels",
        "They show the same, or nearly, and one of the labels may be wrong. They are kept, and stay in one split.",
        24,
    ),
    ("Near twins", "The same photo saved, scaled or converted anew. They are kept, and stay in one split.", 28),
    ("Copies", "The same file again. They are kept, and stay in one split.", 12),
]


class Picture(NamedTuple):
    """One thumbnail with what stands below it."""

    path: str
    label: str
    about: str
    source: str  # data URI, "" where the picture cannot be shown
    alt: str


class Gallery(NamedTuple):
    """Pictures that belong under one heading; those of one group are shown side by side."""

    title: str
    why: str
    groups: list[list[Picture]]
    more: str


def page(manifest: Manifest) -> str:
    """The text of the page."""
    usable, troubles = manifest.usable, manifest.troubles
    chosen = [*_twins(manifest.table), *_extremes(usable)]
    images = _thumbnails(manifest, pd.concat([rows for *_, rows in chosen]))
    kinds = troubles.status.value_counts()
    listed = troubles.groupby("status", sort=False).head(max(ROWS // max(len(kinds), 1), 1))
    return render(
        Path(__file__).with_name("manifest_page.html"),
        clip=clip,
        headline=headline(manifest),
        place=manifest.source.describe().get("path", "") if manifest.source is not None else "",
        tiles=_tiles(manifest),
        galleries=[_gallery(title, why, more, rows, images) for title, why, more, rows in chosen if len(rows)],
        kinds=[f"{count:,} {status}" for status, count in kinds.items()],
        left_out=_left_out(listed),
        more_left_out=len(troubles) - len(listed),
        empty=manifest.empty[:NAMED],
        more_empty=len(manifest.empty) - NAMED,
        splits=_splits(usable),
        classes=_classes(usable, troubles),
        class_count=usable.label.nunique(),
        leaks=leak_lines(usable),
        sizes=_sizes(usable),
        formats=dict(sections(manifest)).get("formats", []),
        notes=manifest.notes[:NAMED],
    )


def thumbnail(data: bytes) -> str:
    """A picture of at most 160 pixels a side, upright and on white, as a data URI."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format in ("JPEG", "MPO") and image.mode != "CMYK":
            image.thumbnail((SIDE, SIDE))  # reads a large JPEG at a fraction of its size
            small = ImageOps.exif_transpose(image).convert("RGB")
        else:
            small = Image.fromarray(plain.decode(data))
            small.thumbnail((SIDE, SIDE))
    return data_uri(small)


def _thumbnails(manifest: Manifest, rows: pd.DataFrame) -> dict[str, str]:
    """Path to data URI, for all of `rows` that can be read."""
    found = {}
    rows = rows.drop_duplicates("path")
    with without_warnings():  # the scan has judged the pictures
        for path, content in track(zip(rows.path, rows.sha256, strict=True), "Making thumbnails", len(rows)):
            try:
                found[path] = thumbnail(manifest.source.encoded(path, content))
            except Exception:  # gone or changed since the scan; Pillow's readers raise nearly anything
                found[path] = ""
    return found


def _twins(table: pd.DataFrame) -> list[tuple[str, str, str, pd.DataFrame]]:
    """Title, reason, how many more there are, and rows (group by group) of each kind of twins."""
    table = table.assign(other=other_label(table), key=table.twin.where(table.twin != "", table.sha256))
    table = table.loc[(table.status == CONFLICT) | ((table.twin != "") & table.status.isin(TRAINABLE))]
    signs = [table.status == CONFLICT, table.other != "", table.status == "near-duplicate"]
    kind = pd.Series(3, table.index)
    for number in (2, 1, 0):
        kind[signs[number]] = number
    kind = kind.groupby(table.key).transform("min")
    found = []
    for number, (title, why, most) in enumerate(TWINS):
        rows = table.loc[kind == number]
        rows = rows.iloc[pd.factorize(rows.key)[0].argsort(kind="stable")]
        shown = rows.loc[rows.groupby("key").cumcount() < MEMBERS].head(most)
        shown = shown.loc[shown.groupby("key").path.transform("size") > 1]  # the last group may have been cut to one
        more = rows.key.nunique() - shown.key.nunique()
        found.append((title, why, f"{counted(more, 'more group')} in the table" if more else "", shown))
    return found


def _extremes(usable: pd.DataFrame) -> list[tuple[str, str, str, pd.DataFrame]]:
    """The smallest and the most elongated pictures, of those that are so more than most."""
    if not len(usable):
        return []
    width, height = sides(usable)
    area, ratio = width * height, width / height.clip(lower=1)
    ratio = ratio.where(width > height, height / width.clip(lower=1))
    rows = usable.assign(key="", area=area, ratio=ratio)
    small = rows.loc[area < area.median() / 2].sort_values("area", kind="stable").head(EXTREMES)
    long = rows.loc[ratio > 1.5 * ratio.median()].sort_values("ratio", kind="stable").tail(EXTREMES)[::-1]
    return [
        ("Smallest pictures", "By area. They are blown up to the size that a network takes.", "", small),
        (
            "Most elongated pictures",
            "By the ratio of their sides. Their ends are cut off, or they are squashed.",
            "",
            long,
        ),
    ]


def _gallery(title: str, why: str, more: str, rows: pd.DataFrame, images: dict[str, str]) -> Gallery:
    width, height = sides(rows)
    groups: dict[str, list[Picture]] = {}
    columns = (rows[name] for name in ("key", "path", "label", "split", "format", "bytes"))
    for key, path, label, split, kind, size, w, h in zip(*columns, width, height, strict=True):
        about = f"{w}x{h} {kind}, {_bytes(size)}" + (f", {split}" if split else "")
        alt = clip(path, 120) + (f", class {clip(label, 60)}" if label else "")
        groups.setdefault(key, []).append(Picture(path, label, about, images[path], alt))
    return Gallery(title, why, list(groups.values()), more)


def _left_out(rows: pd.DataFrame) -> list[tuple]:
    """What the template's table shows; the size both for sorting and for reading."""
    rows = rows.sort_values("status", kind="stable")
    columns = (rows[name] for name in ("path", "label", "status", "reason", "bytes"))
    return [(*values, _bytes(values[-1])) for values in zip(*columns, strict=True)]


def _tiles(manifest: Manifest) -> list[tuple[str, int, str]]:
    """Name, figure and tone of what is said in large figures."""
    usable, status = manifest.usable, manifest.table.status
    found = [
        ("usable pictures", len(usable), "good"),
        ("classes", int(usable.label[usable.label != ""].nunique()), ""),
        ("left out", len(manifest.troubles), "bad"),
        ("empty class folders", len(manifest.empty), "bad"),
        ("near twins", int((status == "near-duplicate").sum()), "warn"),
        ("copies", int((status == "duplicate").sum()), "warn"),
        ("hidden, passed over", manifest.hidden, ""),
    ]
    return [tile for tile in found if tile[1] or tile[0] == "usable pictures"]


def _classes(usable: pd.DataFrame, troubles: pd.DataFrame) -> list[dict]:
    """A row a class, in order; of very many the largest and the smallest."""
    counts = usable.label[usable.label != ""].value_counts()
    left_out, most = troubles.label.value_counts().to_dict(), counts.max()
    if len(counts) > CLASSES:
        counts = pd.concat([counts.head(CLASSES // 2), counts.tail(CLASSES // 2)])
    pictures = counts.to_dict()
    by_split = usable.groupby(["label", "split"]).size().to_dict()
    return [
        {
            "name": name,
            "pictures": count,
            "share": f"{100 * count / most:.1f}",
            "splits": [by_split.get((name, split), 0) for split in _splits(usable)],
            "left_out": left_out.get(name, 0),
        }
        for name, count in ((name, pictures[name]) for name in natural(list(pictures)))
    ]


def _splits(usable: pd.DataFrame) -> list[str]:
    """The splits that are given, training first."""
    return [name for name in NAMES if (usable.split == name).any()]


def _sizes(usable: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Quantiles of the sides and of the files."""
    if not len(usable):
        return []
    width, height = sides(usable)
    rows = [("width", width, "{:,.0f}".format), ("height", height, "{:,.0f}".format), ("file", usable.bytes, _bytes)]
    return [(name, [text(value) for value in side.quantile([0, 0.1, 0.5, 0.9, 1])]) for name, side, text in rows]


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
