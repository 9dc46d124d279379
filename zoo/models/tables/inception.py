"""Inception networks."""

from zoo.models.entries import ModelInfo, stages

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
)
