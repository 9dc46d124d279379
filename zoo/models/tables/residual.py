"""Residual networks."""

from zoo.models.entries import ModelInfo, stages
from zoo.models.tables.imagenet import imagenet

_RESNET = "He et al. 2015, table 1, https://arxiv.org/abs/1512.03385"
_RESNEXT = "Xie et al. 2016, https://arxiv.org/abs/1611.05431"
_WIDE = "Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146"


def _resnet_cifar(depth, parameters, macs):
    return ModelInfo(
        name=f"resnet{depth}",
        family="residual",
        paper="He et al. 2015, section 4.2, https://arxiv.org/abs/1512.03385",
        builder="zoo.models.residual:resnet_cifar",
        numbers={"depth": depth},
        parameters=parameters,
        classes=10,
        macs=macs,
        image_size=32,
        smallest_size=4,
        stages=stages(3),
    )


def _resnet(name, depths, parameters, macs, *, groups=None, width=64, paper=_RESNET):
    return imagenet(
        name,
        family="residual",
        paper=paper,
        builder="zoo.models.residual:resnet",
        numbers={"depths": depths, "groups": groups, "width": width},
        parameters=parameters,
        macs=macs,
        stages=stages(4),
        layout="zoo.models.layouts.residual:resnet",
    )


ROWS = (
    _resnet_cifar(20, 269_722, 40_551_040),
    _resnet_cifar(32, 464_154, 68_862_592),
    _resnet_cifar(44, 658_586, 97_174_144),
    _resnet_cifar(56, 853_018, 125_485_696),
    _resnet_cifar(110, 1_727_962, 252_887_680),
    _resnet("resnet18", (2, 2, 2, 2), 11_689_512, 1_814_073_344),
    _resnet("resnet34", (3, 4, 6, 3), 21_797_672, 3_663_761_408),
    _resnet("resnet50", (3, 4, 6, 3), 25_557_032, 4_089_184_256, groups=1),
    _resnet("resnet101", (3, 4, 23, 3), 44_549_160, 7_801_405_440, groups=1),
    _resnet("resnet152", (3, 8, 36, 3), 60_192_808, 11_513_626_624, groups=1),
    _resnet("resnext50_32x4d", (3, 4, 6, 3), 25_028_904, 4_230_479_872, groups=32, width=4, paper=_RESNEXT),
    _resnet("resnext101_32x8d", (3, 4, 23, 3), 88_791_336, 16_414_015_488, groups=32, width=8, paper=_RESNEXT),
    _resnet("wide_resnet50_2", (3, 4, 6, 3), 68_883_240, 11_398_021_120, groups=1, width=128, paper=_WIDE),
    _resnet("wide_resnet101_2", (3, 4, 23, 3), 126_886_696, 22_753_050_624, groups=1, width=128, paper=_WIDE),
    imagenet(
        "resnetv2_50",
        family="residual",
        paper="He et al. 2016, https://arxiv.org/abs/1603.05027",
        builder="zoo.models.residual:resnetv2",
        numbers={"depths": (3, 4, 6, 3)},
        parameters=25_549_352,
        macs=4_089_184_256,
        stages=stages(4),
        layout="zoo.models.layouts.residual:resnetv2",
    ),
    ModelInfo(
        name="wrn28_10",
        family="residual",
        paper=_WIDE,
        builder="zoo.models.residual:wide_resnet_cifar",
        numbers={"depth": 28, "width": 10},
        parameters=36_479_194,
        classes=10,
        macs=5_243_328_768,
        image_size=32,
        smallest_size=4,
        stages=stages(3),
    ),
)
