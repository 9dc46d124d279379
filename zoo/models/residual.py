"""Residual networks, He et al. 2015, https://arxiv.org/abs/1512.03385, laid out as the weights of torchvision and timm.

Departures from the paper: shortcuts of `resnet` that change shape are projections (option B), as in all public weights;
batch normalisation has torchvision's epsilon and momentum.
"""

from keras import layers

from zoo.models.blocks import conv_bn, pad

SHORTCUTS = ("identity", "projection")
STEMS = ("imagenet", "small")


def basic_block(x, filters, *, stride=1, shortcut="projection", name):
    """Two 3x3 convolutions beside a shortcut.

    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), filters)
    """
    y = conv_bn(x, filters, 3, stride=stride, name=f"{name}_a")
    y = conv_bn(y, filters, 3, activation=None, name=f"{name}_b")
    return _join(x, y, stride, shortcut, name)


def _join(x, y, stride, shortcut, name):
    """Adds the shortcut, which needs work only where the shapes disagree."""
    if stride != 1 or x.shape[-1] != y.shape[-1]:
        if shortcut == "projection":
            x = conv_bn(x, y.shape[-1], 1, stride=stride, activation=None, name=f"{name}_shortcut")
        else:
            x = _thin_and_widen(x, y.shape[-1], stride, f"{name}_shortcut")
    x = layers.Add(name=f"{name}_add")([x, y])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _thin_and_widen(x, filters, stride, name):
    """Every `stride`-th pixel, and zeros for the channels that are missing (option A): no parameter.

    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), filters)
    """
    x = layers.MaxPooling2D(1, strides=stride, name=f"{name}_thin")(x)
    # Told that channels come first, the layer pads axes 2 and 3: the width by nothing, the channels by what is missing.
    missing = ((0, 0), (0, filters - x.shape[-1]))
    return layers.ZeroPadding2D(missing, data_format="channels_first", name=f"{name}_widen")(x)


def resnet(x, *, depths, stem="imagenet"):
    """Section 4.1: normalised pictures to the last feature map: stem, then one stage per entry of `depths`.

    (n, 224, 224, 3) -> (n, 7, 7, 512)

    Args:
        depths: Blocks in each stage.
        stem: "imagenet" quarters the picture (7x7 convolution and pooling); "small" keeps it, for 32 pixels or so.

    Raises:
        ValueError: If `stem` is neither.
    """
    if stem not in STEMS:
        raise ValueError(f"`stem` must be one of {STEMS}. Received: stem={stem!r}")
    if stem == "small":
        x = conv_bn(x, 64, 3, name="stem")
    else:
        x = conv_bn(x, 64, 7, stride=2, name="stem")  # 112 x 112 x 64
        x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(pad(x, 1, "stem_pool_pad"))  # 56 x 56 x 64
    for k, depth in enumerate(depths, start=1):
        for i in range(1, depth + 1):
            stride = 2 if k > 1 and i == 1 else 1
            x = basic_block(x, 64 * 2 ** (k - 1), stride=stride, name=f"stage{k}_block{i}")
    return x


def resnet_cifar(x, *, depth, shortcut="identity"):
    """Section 4.2, for pictures of 32 pixels: 6n + 2 layers in three stages of n blocks.

    (n, 32, 32, 3) -> (n, 8, 8, 64)

    Args:
        depth: Layers with weights, 6n + 2.
        shortcut: Where a block changes the shape: "identity" (zeros for the new channels, as in the paper's table 6)
            or "projection" (a 1x1 convolution).

    Raises:
        ValueError: If `shortcut` is neither.
    """
    if shortcut not in SHORTCUTS:
        raise ValueError(f"`shortcut` must be one of {SHORTCUTS}. Received: shortcut={shortcut!r}")
    x = conv_bn(x, 16, 3, name="stem")  # 32 x 32 x 16
    for k, filters in enumerate((16, 32, 64), start=1):
        for i in range(1, (depth - 2) // 6 + 1):
            stride = 2 if k > 1 and i == 1 else 1
            x = basic_block(x, filters, stride=stride, shortcut=shortcut, name=f"stage{k}_block{i}")
    return x
