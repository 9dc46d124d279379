"""What rows for ImageNet share."""

from zoo.models.entries import ModelInfo
from zoo.models.tables.hub import TAGS


def imagenet(name: str, *, image_size=224, smallest_size=32, **fields) -> ModelInfo:
    """A network for the 1000 classes of ImageNet, with the weights that timm publishes for it."""
    return ModelInfo(
        name=name,
        classes=1000,
        image_size=image_size,
        smallest_size=smallest_size,
        weights=TAGS.get(name, ()),
        **fields,
    )
