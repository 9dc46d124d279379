"""Residual networks, He et al. 2015, https://arxiv.org/abs/1512.03385, laid out as the weights of torchvision and timm.

With more channels inside the blocks they are wide residual networks (Zagoruyko and Komodakis 2016,
https://arxiv.org/abs/1605.07146), with grouped convolutions ResNeXt (Xie et al. 2016, https://arxiv.org/abs/1611.05431).

Departures from the paper: shortcuts of `resnet` that change shape are projections (option B), as in all public weights;
the stride of a bottleneck is on its 3x3 convolution (torchvision's "v1.5"); batch normalisation has torchvision's
epsilon and momentum.
"""

from keras import layers

from zoo.models.blocks import batch_norm, conv, conv_bn, pad

SHORTCUTS = ("identity", "projection")
STEMS = ("imagenet", "small")


def basic_block(x, filters, *, stride=1, shortcut="projection", name):
    """Two 3x3 convolutions beside a shortcut.

    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), filters)
    """
    y = conv_bn(x, filters, 3, stride=stride, name=f"{name}_a")
    y = conv_bn(y, filters, 3, activation=None, name=f"{name}_b")
    return _join(x, y, stride, shortcut, name)


def bottleneck(x, filters, *, stride=1, groups=1, width=64, name):
    """1x1, 3x3, 1x1 convolutions beside a shortcut; the 3x3 has `groups` groups of filters * width / 64 channels.

    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), 4 * filters)
    """
    inner = groups * filters * width // 64
    y = conv_bn(x, inner, 1, name=f"{name}_a")
    y = conv_bn(y, inner, 3, stride=stride, groups=groups, name=f"{name}_b")
    y = conv_bn(y, 4 * filters, 1, activation=None, name=f"{name}_c")
    return _join(x, y, stride, "projection", name)


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


def resnet(x, *, depths, groups=None, width=64, stem="imagenet"):
    """Section 4.1: normalised pictures to the last feature map: stem, then one stage per entry of `depths`.

    (n, 224, 224, 3) -> (n, 7, 7, 512), or 2048 channels with bottlenecks

    Args:
        depths: Blocks in each stage.
        groups: Groups of the 3x3 convolution in a bottleneck; None for basic blocks.
        width: Channels of a group in the first stage.
        stem: "imagenet" quarters the picture (7x7 convolution and pooling); "small" keeps it, for 32 pixels or so.

    Raises:
        ValueError: If `stem` is neither.
    """
    if _is_small(stem):
        x = conv_bn(x, 64, 3, name="stem")
    else:
        x = conv_bn(x, 64, 7, stride=2, name="stem")  # 112 x 112 x 64
        x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(pad(x, 1, "stem_pool_pad"))  # 56 x 56 x 64
    for filters, stride, name in _blocks(depths):
        if groups is None:
            x = basic_block(x, filters, stride=stride, name=name)
        else:
            x = bottleneck(x, filters, stride=stride, groups=groups, width=width, name=name)
    return x


def _is_small(stem):
    if stem not in STEMS:
        raise ValueError(f"`stem` must be one of {STEMS}. Received: stem={stem!r}")
    return stem == "small"


def _blocks(depths, first=64):
    """Channels, stride and name of each block: a stage doubles the channels of the one before and halves its sides."""
    for k, depth in enumerate(depths, start=1):
        for i in range(1, depth + 1):
            yield first * 2 ** (k - 1), 2 if k > 1 and i == 1 else 1, f"stage{k}_block{i}"


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
    for filters, stride, name in _blocks([(depth - 2) // 6] * 3, first=16):
        x = basic_block(x, filters, stride=stride, shortcut=shortcut, name=name)
    return x


def resnetv2(x, *, depths, stem="imagenet"):
    """Batch normalisation and activation before the convolutions: He et al. 2016, https://arxiv.org/abs/1603.05027.

    In timm's layout: bottlenecks; no normalisation in the stem; shortcuts that change shape see the activated input.

    (n, 224, 224, 3) -> (n, 7, 7, 2048)

    Args:
        depths: Blocks in each stage.
        stem: As in `resnet`.

    Raises:
        ValueError: If `stem` is neither "imagenet" nor "small".
    """
    if _is_small(stem):
        x = conv(x, 64, 3, name="stem_conv")
    else:
        x = conv(x, 64, 7, stride=2, name="stem_conv")  # 112 x 112 x 64
        # Values may be negative here, so zeros must not win: pooled everywhere, then every second one is kept.
        x = layers.MaxPooling2D(3, strides=1, padding="same", name="stem_pool")(x)
        x = layers.MaxPooling2D(1, strides=2, name="stem_pool_thin")(x)  # 56 x 56 x 64
    for filters, stride, name in _blocks(depths):
        x, y = _preactivated(x, 4 * filters, stride, name)
        y = conv(y, filters, 1, name=f"{name}_a_conv")
        y = conv(_bn_act(y, f"{name}_b"), filters, 3, stride=stride, name=f"{name}_b_conv")
        y = conv(_bn_act(y, f"{name}_c"), 4 * filters, 1, name=f"{name}_c_conv")
        x = layers.Add(name=f"{name}_add")([x, y])
    return _bn_act(x, f"stage{len(depths)}")


def wide_resnet_cifar(x, *, depth, width):
    """For pictures of 32 pixels: Zagoruyko and Komodakis 2016, table 1: 6n + 4 layers, `width` times as wide.

    Without the dropout of section 3.4, which the paper needs on few data sets only.

    (n, 32, 32, 3) -> (n, 8, 8, 64 * width)

    Args:
        depth: Layers with weights, 6n + 4.
        width: Channels in multiples of 16, 32 and 64 (the paper's k).
    """
    x = conv(x, 16, 3, name="stem_conv")
    for filters, stride, name in _blocks([(depth - 4) // 6] * 3, first=16 * width):
        x, y = _preactivated(x, filters, stride, name)
        y = conv(y, filters, 3, stride=stride, name=f"{name}_a_conv")
        y = conv(_bn_act(y, f"{name}_b"), filters, 3, name=f"{name}_b_conv")
        x = layers.Add(name=f"{name}_add")([x, y])
    return _bn_act(x, "stage3")


def _preactivated(x, filters, stride, name):
    """What a pre-activation block adds up: its shortcut, and the activated input that its convolutions see."""
    y = _bn_act(x, f"{name}_a")
    if stride != 1 or x.shape[-1] != filters:
        x = conv(y, filters, 1, stride=stride, name=f"{name}_shortcut_conv")
    return x, y


def _bn_act(x, name):
    return layers.Activation("relu", name=f"{name}_act")(batch_norm(x, name=f"{name}_bn"))
