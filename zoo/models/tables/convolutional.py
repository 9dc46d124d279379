"""Plain convolutional networks."""

from zoo.models.entries import ModelInfo, stages

ROWS = (
    ModelInfo(
        name="lenet5",
        family="convolutional",
        paper="LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf",
        builder="zoo.models.conv:lenet5",
        parameters=61_706,  # the paper's 60,000 thin C3 out by a table
        classes=10,
        macs=416_520,
        image_size=32,
        smallest_size=32,
        channels=1,
        stages=stages(2),
    ),
    ModelInfo(
        name="convnet",
        family="convolutional",
        paper="the textbook's convolutions and poolings; batch normalisation: Ioffe and Szegedy 2015, "
        "https://arxiv.org/abs/1502.03167",
        builder="zoo.models.conv:convnet",
        parameters=94_762,
        classes=10,
        macs=10_323_200,
        image_size=32,
        smallest_size=4,
        stages=stages(2),
    ),
)
