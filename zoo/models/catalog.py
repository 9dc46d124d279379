"""The table of models: a row each, numbers and names only. Importing it costs nothing, so listing is instant."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class WeightTag:
    """Published weights of one model, and how pictures must look for them.

    Attributes:
        name: What `create(weights=...)` takes: source and recipe.
        file: File name of the features in the cache.
        url: Where the file is fetched from.
        md5: Checksum of the published file, where its publisher gives one.
        classifier: The same as (file, md5) for the file that holds the classifier too; it is used where the number of
            classes is that of the row.
        mean, std: Normalisation in 0..255 pixel units, a number a channel.
        image_size, crop, interpolation: The pictures that `top1` was measured on, in pixels a side, as the share of the
            shorter side that the centre crop keeps, and as the resize method.
        top1: ImageNet top-1 accuracy in percent, as published.
        licence: SPDX name of the weights' licence.
    """

    name: str
    file: str
    url: str
    md5: str | None
    classifier: tuple[str, str | None] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    crop: float
    interpolation: str
    top1: float
    licence: str


@dataclass(frozen=True)
class ModelInfo:
    """One row of the catalog.

    Attributes:
        name: What `create` takes; also the name of the Keras model.
        family: "convolutional", "inception", "residual" or "applications".
        paper: Where the network comes from.
        builder: Function from normalised pictures to features, as "module:function".
        numbers: Arguments of the builder that make this variant; the others are what `create` takes for the network.
        parameters: Trainable parameters, as published, with `classes` classes and `channels` channels.
        classes: Number of classes of the published network.
        macs: Multiply-adds of convolutions and dense layers for one picture of `image_size`.
        image_size: Side of the picture that the network was made for, in pixels; the default of `create`.
        smallest_size: Smallest side that works, in pixels.
        channels: Channels that the network was made for; the default of `create`.
        stages: Names of the stages from input to output.
        weights: Published weights, the best first.
        boundaries: First layer of each stage, where layers keep names of their own; empty where names tell.
    """

    name: str
    family: str
    paper: str
    builder: str
    parameters: int
    classes: int
    macs: int
    image_size: int
    smallest_size: int
    stages: tuple[str, ...]
    channels: int = 3
    numbers: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[WeightTag, ...] = ()
    boundaries: Mapping[str, str] = field(default_factory=dict)

    def __str__(self):
        lines = [
            f"{self.name} ({self.family})",
            f"  paper        {self.paper}",
            f"  parameters   {self.parameters:,} with {self.classes} classes",
            f"  macs         {self.macs:,} at {self.image_size} pixels",
            f"  image size   {self.image_size}, at least {self.smallest_size}",
            f"  stages       {', '.join(self.stages)}",
        ]
        tags = [f"{tag.name}: top-1 {tag.top1} % at {tag.image_size} pixels, {tag.licence}" for tag in self.weights]
        return "\n".join(lines + [f"  weights      {tag}" for tag in tags or ["none"]])


def _stages(count):
    return ("stem", *(f"stage{k}" for k in range(1, count + 1)), "head")


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
        stages=_stages(3),
    )


_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"

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
        stages=_stages(2),
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
        stages=_stages(2),
    ),
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
        stages=_stages(3),
    ),
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
        stages=_stages(4),
    ),
    ModelInfo(
        name="mobilenet_v2",
        family="applications",
        paper="Sandler et al. 2018, https://arxiv.org/abs/1801.04381",
        builder="zoo.models.applications:application",
        numbers={"constructor": "MobileNetV2", "options": {}},
        parameters=3_504_872,
        classes=1000,
        macs=300_774_272,
        image_size=224,
        smallest_size=32,
        stages=_stages(4),
        boundaries={
            "stem": "Conv1",
            "stage1": "block_1_expand",
            "stage2": "block_3_expand",
            "stage3": "block_6_expand",
            "stage4": "block_13_expand",
        },
        weights=(
            WeightTag(
                name="keras/mobilenet_v2",
                file="mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
                url=f"{_KERAS_URL}/mobilenet_v2",
                md5=None,
                classifier=("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5", None),
                mean=(127.5, 127.5, 127.5),
                std=(127.5, 127.5, 127.5),
                image_size=224,
                crop=0.875,
                interpolation="bilinear",
                top1=71.3,
                licence="Apache-2.0",
            ),
        ),
    ),
    ModelInfo(
        name="efficientnetv2_b0",
        family="applications",
        paper="Tan and Le 2021, https://arxiv.org/abs/2104.00298",
        builder="zoo.models.applications:application",
        numbers={"constructor": "EfficientNetV2B0", "options": {"include_preprocessing": False}},
        parameters=7_139_704,
        classes=1000,
        macs=718_086_176,
        image_size=224,
        smallest_size=32,
        stages=_stages(4),
        boundaries={
            "stem": "stem_conv",
            "stage1": "block2a_expand_conv",
            "stage2": "block3a_expand_conv",
            "stage3": "block4a_expand_conv",
            "stage4": "block6a_expand_conv",
        },
        weights=(
            WeightTag(
                name="keras/efficientnetv2_b0",
                file="efficientnetv2-b0_notop.h5",
                url=f"{_KERAS_URL}/efficientnet_v2",
                md5="893217f2bb855e2983157299931e43ff",
                classifier=("efficientnetv2-b0.h5", "21ecbf6da12460d5c40bb2f29ceb2188"),
                mean=(123.675, 116.28, 103.53),
                std=(58.395, 57.12, 57.375),
                image_size=224,
                crop=0.875,
                interpolation="bicubic",
                top1=78.7,
                licence="Apache-2.0",
            ),
        ),
    ),
)


def by_name(rows: Iterable[ModelInfo]) -> dict[str, ModelInfo]:
    """The rows under their names.

    Raises:
        ValueError: If two rows bear one name.
    """
    table = {}
    for row in rows:
        if row.name in table:
            raise ValueError(f"Two rows of the catalog are called {row.name!r}; names must differ.")
        table[row.name] = row
    return table


CATALOG = by_name(ROWS)


def list_models(pattern: str | None = None, family: str | None = None, pretrained: bool | None = None) -> list[str]:
    """Names of the models, in the catalog's order.

    Args:
        pattern: Shell pattern that names must match, like "resnet*".
        family: Family that models must belong to.
        pretrained: True for models with published weights only, False for the others, None for all.

    Raises:
        ValueError: If no family has that name.

    Example:
        >>> list_models("mobilenet*")
        ['mobilenet_v2']
    """
    families = sorted({row.family for row in ROWS})
    if family is not None and family not in families:
        raise ValueError(f"No family is called {family!r}. The families are {', '.join(families)}.")
    return [
        row.name
        for row in ROWS
        if (pattern is None or fnmatchcase(row.name, pattern))
        and (family is None or row.family == family)
        and (pretrained is None or bool(row.weights) == pretrained)
    ]


def info(name: str) -> ModelInfo:
    """What the catalog knows of a model; printing it is readable.

    Raises:
        ValueError: If no model has that name.

    Example:
        >>> info("resnet20").parameters
        269722
    """
    if name in CATALOG:
        return CATALOG[name]
    raise ValueError(f"No model is called {name!r}. {near_miss(name, CATALOG) or f'The models are {_list(CATALOG)}.'}")


def find_tag(name: str, weights: str) -> WeightTag:
    """The published weights of model `name` that `weights` means: a tag, or "imagenet" for the best one.

    Raises:
        ValueError: If no model or no tag of the model has that name.

    Example:
        >>> find_tag("mobilenet_v2", "imagenet").crop
        0.875
    """
    row = info(name)
    tags = {tag.name: tag for tag in row.weights}
    if weights == "imagenet" and tags:
        return row.weights[0]
    if weights in tags:
        return tags[weights]
    if not tags:
        others = "it has no published weights here; leave `weights` out, or pass a file"
    else:
        others = f"{near_miss(weights, [*tags, 'imagenet'])} It has {_list(tags)}".strip()
    raise ValueError(f"Model {name!r} has no weights called {weights!r}: {others}.")


def near_miss(word: str, words: Iterable[str]) -> str:
    """ "Did you mean ...?" where one of `words` resembles `word`, else nothing."""
    close = difflib.get_close_matches(str(word), list(words), n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def _list(words):
    return ", ".join(repr(word) for word in words)
