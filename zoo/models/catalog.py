"""The table of models: a row each, numbers and names only. Importing it costs nothing, so listing is instant."""

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from zoo.models.entries import ModelInfo, WeightTag
from zoo.models.tables import applications, convolutional, inception, residual

ROWS = (*convolutional.ROWS, *inception.ROWS, *residual.ROWS, *applications.ROWS)


def by_name(rows: Iterable[ModelInfo]) -> dict[str, ModelInfo]:
    """The rows under their names.

    Raises:
        ValueError: If two rows bear one name.
    """
    table = {}
    for row in rows:
        if row.name in table:
            raise ValueError(f"Two rows of the catalog are called {row.name!r}; names must differ.")
        table[row.name] = row
    return table


CATALOG = by_name(ROWS)


def list_models(pattern: str | None = None, family: str | None = None, pretrained: bool | None = None) -> list[str]:
    """Names of the models, in the catalog's order.

    Args:
        pattern: Shell pattern that names must match, like "resnet*".
        family: Family that models must belong to.
        pretrained: True for models with published weights only, False for the others, None for all.

    Raises:
        ValueError: If no family has that name.

    Example:
        >>> list_models("wide_*")
        ['wide_resnet50_2', 'wide_resnet101_2']
    """
    families = sorted({row.family for row in ROWS})
    if family is not None and family not in families:
        raise ValueError(f"No family is called {family!r}. The families are {', '.join(families)}.")
    return [
        row.name
        for row in ROWS
        if (pattern is None or fnmatchcase(row.name, pattern))
        and (family is None or row.family == family)
        and (pretrained is None or bool(row.weights) == pretrained)
    ]


def info(name: str) -> ModelInfo:
    """What the catalog knows of a model; printing it is readable.

    Raises:
        ValueError: If no model has that name.

    Example:
        >>> info("resnet20").parameters
        269722
    """
    if name in CATALOG:
        return CATALOG[name]
    raise ValueError(f"No model is called {name!r}. {near_miss(name, CATALOG) or f'The models are {_list(CATALOG)}.'}")


def find_tag(name: str, weights: str) -> WeightTag:
    """The published weights of model `name` that `weights` means: a tag, or "imagenet" for the best one.

    Raises:
        ValueError: If no model or no tag of the model has that name.

    Example:
        >>> find_tag("mobilenet_v2", "imagenet").crop
        0.875
    """
    row = info(name)
    tags = {tag.name: tag for tag in row.weights}
    if weights == "imagenet" and tags:
        return row.weights[0]
    if weights in tags:
        return tags[weights]
    if not tags:
        why = row.unpublished or "it has no published weights here"
        others = f"{why}; leave `weights` out, or pass a file"
    else:
        others = f"{near_miss(weights, [*tags, 'imagenet'])} It has {_list(tags)}".strip()
    raise ValueError(f"Model {name!r} has no weights called {weights!r}: {others}.")


def near_miss(word: str, words: Iterable[str]) -> str:
    """ "Did you mean ...?" where one of `words` resembles `word`, else nothing."""
    close = difflib.get_close_matches(str(word), list(words), n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def _list(words):
    return ", ".join(repr(word) for word in words)
