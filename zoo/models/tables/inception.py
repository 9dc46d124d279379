"""Inception networks."""

from zoo.models.entries import ModelInfo, stages
from zoo.models.tables.imagenet import imagenet


def _published(name, parameters, macs, *, image_size=299, smallest_size=75, **fields):
    return imagenet(
        name,
        family="inception",
        builder=f"zoo.models.inception:{name}",
        parameters=parameters,
        macs=macs,
        image_size=image_size,
        smallest_size=smallest_size,
        stages=stages(3),
        layout=f"zoo.models.layouts.inception:{name}",
        **fields,
    )


ROWS = (
    ModelInfo(
        name="inception_small",
        family="inception",
        paper="modules of Szegedy et al. 2014, https://arxiv.org/abs/1409.4842, in a network for 32 pixels",
        builder="zoo.models.inception:inception_small",
        parameters=434_810,
        classes=10,
        macs=63_605_248,
        image_size=32,
        smallest_size=4,
        stages=stages(3),
    ),
    _published(
        "googlenet",
        6_624_904,
        1_498_376_192,
        paper="Szegedy et al. 2014, https://arxiv.org/abs/1409.4842",
        image_size=224,
        smallest_size=15,
        unpublished="torchvision publishes its weights as a pickle only",
    ),
    _published(
        "inception_v3", 23_834_568, 5_713_216_096, paper="Szegedy et al. 2015, https://arxiv.org/abs/1512.00567"
    ),
    _published(
        "inception_v4", 42_679_816, 12_253_974_624, paper="Szegedy et al. 2016, https://arxiv.org/abs/1602.07261"
    ),
    _published(
        "inception_resnet_v2", 55_843_464, 13_155_794_016, paper="Szegedy et al. 2016, https://arxiv.org/abs/1602.07261"
    ),
)
