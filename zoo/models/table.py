"""The catalog as a table to read: the page `docs/models.md` and the command `zoo models`."""

from collections.abc import Iterable

from zoo.models.catalog import ROWS
from zoo.models.entries import ModelInfo, WeightTag

HEADINGS = ("model", "family", "paper", "parameters", "multiply-adds", "pixels", "weights (ImageNet top-1)")


def cells(row: ModelInfo) -> list[str]:
    """What is known of a model, but its weights: a text a heading.

    Example:
        >>> from zoo.models.catalog import info
        >>> cells(info("resnet20"))
        ['resnet20', 'residual', 'He et al. 2015', '0.27 M', '40.6 M', '32 (from 4)']
    """
    authors = row.paper.split(",")[0].split(";")[0]
    pixels = f"{row.image_size} (from {row.smallest_size})"
    return [row.name, row.family, authors, _short(row.parameters), _short(row.macs), pixels]


def tag_line(tag: WeightTag) -> str:
    """Name of published weights and how good they are, with the size where that is not the training pictures'."""
    at = f" at {tag.test_size}" if tag.test_size != tag.image_size else ""
    return f"{tag.name} ({tag.top1:.1f} %{at})"


def text_rows(rows: Iterable[ModelInfo], *, every_tag: bool) -> list[tuple[str, ...]]:
    """Headings, then a line a model with its best weights; its other tags are counted, or stand on lines below."""
    lines: list[tuple[str, ...]] = [HEADINGS]
    for row in rows:
        first, *more = [tag_line(tag) for tag in row.weights] or ["-"]
        if more and not every_tag:
            first, more = f"{first} and {len(more)} more", []
        lines.append((*cells(row), first))
        lines += [("",) * (len(HEADINGS) - 1) + (tag,) for tag in more]
    return lines


def page() -> str:
    """The whole catalog in Markdown."""
    families = dict.fromkeys(row.family for row in ROWS)
    parts = [_OPENING]
    for family in families:
        rows = [row for row in ROWS if row.family == family]
        parts.append(f"## {family.capitalize()}\n\n{_models(rows)}")
    parts.append(f"## Weights\n\n{_WEIGHTS}\n\n{_tags(ROWS)}")
    unpublished = "\n".join(f"- `{row.name}`: {row.unpublished}." for row in ROWS if row.unpublished)
    parts.append(f"## Without weights\n\n{unpublished}")
    return "\n\n".join(parts) + "\n"


_OPENING = """# Models

Written by `make docs` from the table in `zoo/models/tables`; `zoo models` prints it, `zoo.info(name)` holds a row.
Parameters are trainable ones with the published number of classes; multiply-adds are those of convolutions and dense
layers for one picture of the given size. Pictures may be larger, and as small as the number in brackets."""

_WEIGHTS = """`weights="imagenet"` takes the first tag of a model. Pixels is the size of the training pictures and,
where it differs, that of the top-1 accuracy on ImageNet, as published. The licence is that of the weights."""


def _models(rows):
    headings = ("model", "paper", "parameters", "multiply-adds", "pixels", "stages")
    lines = [_line(headings), _line(["---"] * len(headings))]
    for row in rows:
        name, _, _, parameters, macs, pixels = cells(row)
        stages = f"{len(row.stages) - 2}"
        lines.append(_line([f"`{name}`", row.paper, parameters, macs, pixels, stages]))
    return "\n".join(lines)


def _tags(rows):
    headings = ("model", "tag", "top-1", "pixels", "crop", "interpolation", "licence")
    lines = [_line(headings), _line(["---"] * len(headings))]
    for row in rows:
        for tag in row.weights:
            sizes = f"{tag.image_size}" if tag.test_size == tag.image_size else f"{tag.image_size}, {tag.test_size}"
            values = (f"`{row.name}`", f"`{tag.name}`", f"{tag.top1:.2f} %", sizes, f"{tag.crop}", tag.interpolation)
            lines.append(_line([*values, tag.licence]))
    return "\n".join(lines)


def _line(values):
    return f"| {' | '.join(values)} |"


def _short(number):
    """In billions (G) or millions (M): 4.1 G, 25.6 M, 0.27 M, 0.062 M."""
    value, letter = (number / 1e9, "G") if number >= 1e9 else (number / 1e6, "M")
    digits = 3 if value < 0.1 else 2 if value < 1 else 1
    return f"{value:.{digits}f} {letter}"


if __name__ == "__main__":
    print(page(), end="")
