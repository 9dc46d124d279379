"""Inception networks."""

from zoo.models.entries import ModelInfo, stages
from zoo.models.tables.hub import TAGS


def _imagenet(name, parameters, macs, *, paper, image_size=299, smallest_size=75, unpublished=""):
    return ModelInfo(
        name=name,
        family="inception",
        paper=paper,
        builder=f"zoo.models.inception:{name}",
        parameters=parameters,
        classes=1000,
        macs=macs,
        image_size=image_size,
        smallest_size=smallest_size,
        stages=stages(3),
        weights=TAGS.get(name, ()),
        unpublished=unpublished,
        layout=f"zoo.models.layouts.inception:{name}",
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
    _imagenet(
        "googlenet",
        6_624_904,
        1_498_376_192,
        paper="Szegedy et al. 2014, https://arxiv.org/abs/1409.4842",
        image_size=224,
        smallest_size=15,
        unpublished="torchvision publishes its weights as a pickle only",
    ),
    _imagenet("inception_v3", 23_834_568, 5_713_216_096, paper="Szegedy et al. 2015, https://arxiv.org/abs/1512.00567"),
    _imagenet(
        "inception_v4", 42_679_816, 12_253_974_624, paper="Szegedy et al. 2016, https://arxiv.org/abs/1602.07261"
    ),
    _imagenet(
        "inception_resnet_v2", 55_843_464, 13_155_794_016, paper="Szegedy et al. 2016, https://arxiv.org/abs/1602.07261"
    ),
)
