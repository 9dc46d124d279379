"""Weight tags."""

from zoo.models.entries import WeightTag

TAGS: dict[str, tuple[WeightTag, ...]] = {}
