"""Plain convolutional networks."""

from zoo.models.entries import ModelInfo, stages
from zoo.models.tables.imagenet import imagenet

_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def _vgg(depth, parameters, macs, *, batch_norm=False):
    name = f"vgg{depth}{'_bn' if batch_norm else ''}"
    return imagenet(
        name,
        family="convolutional",
        paper="Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556"
        + ("; batch normalisation: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167" if batch_norm else ""),
        builder="zoo.models.conv:vgg",
        numbers={"depths": _VGG[depth], "batch_norm": batch_norm},
        parameters=parameters,
        macs=macs,
        stages=stages(5),
        layout="zoo.models.layouts.convolutional:vgg",
    )


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
    imagenet(
        "alexnet",
        family="convolutional",
        paper="Krizhevsky 2014, https://arxiv.org/abs/1404.5997",
        builder="zoo.models.conv:alexnet",
        parameters=61_100_840,
        macs=714_188_480,
        smallest_size=63,
        stages=stages(3),
        layout="zoo.models.layouts.convolutional:alexnet",
        unpublished="torchvision publishes its weights as a pickle only",
    ),
    _vgg(11, 132_863_336, 7_609_090_048),
    _vgg(13, 133_047_848, 11_308_466_176),
    _vgg(16, 138_357_544, 15_470_264_320),
    _vgg(19, 143_667_240, 19_632_062_464),
    _vgg(11, 132_868_840, 7_609_090_048, batch_norm=True),
    _vgg(13, 133_053_736, 11_308_466_176, batch_norm=True),
    _vgg(16, 138_365_992, 15_470_264_320, batch_norm=True),
    _vgg(19, 143_678_248, 19_632_062_464, batch_norm=True),
)
