"""Which network of the catalog stands next to another: larger, smaller, or built otherwise."""

import re

from zoo.models.catalog import CATALOG, ROWS
from zoo.models.entries import ModelInfo

SMALL = 64  # pixels; networks made for pictures up to this size stay among themselves
STEP = 1.1  # times the multiply-adds a pixel, so that a network counts as larger
LEAST, MOST = 0.5, 10  # times the parameters, or multiply-adds: what another architecture of the same order has


def larger(name: str, side: int, pretrained: bool) -> ModelInfo | None:
    """The next larger network: of the same series if there is one, else of its family, else of any.

    Where both have published weights, its are better on ImageNet.

    Args:
        name: Of the catalog.
        side: The pictures' shorter side in pixels, which the network must accept.
        pretrained: Only networks with published weights.

    Example:
        >>> larger("resnet20", 32, pretrained=False).name
        'resnet32'
    """
    row = CATALOG[name]
    found = [
        other
        for other in _others(row, side, pretrained)
        if other.parameters > row.parameters and _cost(other) > STEP * _cost(row) and _better(other, row)
    ]
    return min(found, key=lambda other: (*_distance(row, other), other.parameters), default=None)


def smaller(name: str, side: int, pretrained: bool) -> ModelInfo | None:
    """The next smaller network of the same family, of the same series if there is one; arguments as in `larger`.

    Example:
        >>> smaller("resnet32", 32, pretrained=False).name
        'resnet20'
    """
    row = CATALOG[name]
    found = [
        other
        for other in _others(row, side, pretrained)
        if other.family == row.family and other.parameters < row.parameters and STEP * _cost(other) < _cost(row)
    ]
    return min(found, key=lambda other: (*_distance(row, other), -other.parameters), default=None)


def other(name: str, side: int, pretrained: bool) -> ModelInfo | None:
    """A network of another kind than `name` and the next larger one, of a like size; arguments as in `larger`.

    Another family is preferred. Where all have published weights, its are the best on ImageNet.

    Example:
        >>> other("resnet20", 32, pretrained=False).name
        'inception_small'
    """
    row = CATALOG[name]
    known = [row, *filter(None, [larger(name, side, pretrained)])]
    found = [
        other
        for other in _others(row, side, pretrained)
        if _kind(other) not in map(_kind, known)
        and LEAST * row.parameters <= other.parameters <= MOST * row.parameters
        and all(_better(other, less) for less in known)
    ]
    return min(found, key=lambda other: (other.family == row.family, other.parameters), default=None)


def _others(row: ModelInfo, side: int, pretrained: bool) -> list[ModelInfo]:
    """Networks for such pictures."""
    return [
        other
        for other in ROWS
        if (other.image_size <= SMALL) == (row.image_size <= SMALL)
        and other.smallest_size <= side
        and (other.weights or not pretrained)
    ]


def _better(other: ModelInfo, row: ModelInfo) -> bool:
    """Whether it is the better one on ImageNet; where there is no telling, whether it is not much simpler."""
    if other.weights and row.weights:
        return other.weights[0].top1 > row.weights[0].top1
    return _cost(other) > LEAST * _cost(row)


def _cost(row: ModelInfo) -> float:
    """Multiply-adds a pixel of the picture."""
    return row.macs / row.image_size**2


def _series(row: ModelInfo) -> str:
    """What a name has beside its numbers: "resnet" of resnet50."""
    return re.sub(r"\d+", "", row.name)


def _kind(row: ModelInfo) -> str:
    """The first word of a name: "vgg" of vgg16_bn."""
    return re.split(r"[^a-z]", row.name)[0]


def _distance(row: ModelInfo, other: ModelInfo) -> tuple[bool, bool]:
    return _series(other) != _series(row), other.family != row.family
