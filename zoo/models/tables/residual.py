"""Residual networks."""

from zoo.models.entries import ModelInfo, stages


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


ROWS = (
    _resnet_cifar(20, 269_722, 40_551_040),
    _resnet_cifar(32, 464_154, 68_862_592),
    _resnet_cifar(44, 658_586, 97_174_144),
    _resnet_cifar(56, 853_018, 125_485_696),
    _resnet_cifar(110, 1_727_962, 252_887_680),
    ModelInfo(
        name="resnet18",
        family="residual",
        paper="He et al. 2015, table 1, https://arxiv.org/abs/1512.03385",
        builder="zoo.models.residual:resnet",
        numbers={"depths": (2, 2, 2, 2)},
        parameters=11_689_512,
        classes=1000,
        macs=1_814_073_344,
        image_size=224,
        smallest_size=32,
        stages=stages(4),
    ),
)
