"""Inception networks: convolutions of several sizes side by side, in the layout of torchvision's and timm's weights.

GoogLeNet: Szegedy et al. 2014, https://arxiv.org/abs/1409.4842; Inception-v3: Szegedy et al. 2015,
https://arxiv.org/abs/1512.00567; Inception-v4 and Inception-ResNet-v2: Szegedy et al. 2016,
https://arxiv.org/abs/1602.07261. A reduction halves the picture; layers bear the names of the published checkpoints
where those tell modules apart.

Departures from the papers: batch normalisation behind every convolution of GoogLeNet too (Ioffe and Szegedy 2015,
https://arxiv.org/abs/1502.03167), and no local response normalisation; no auxiliary classifiers; what else a network
does otherwise is said where it is built.
"""

from functools import partial

from keras import layers

from zoo.models.blocks import batch_norm, conv, conv_bn, pad

EPSILON = 1e-3  # of every batch normalisation in the published networks
_conv_bn = partial(conv_bn, epsilon=EPSILON)


def _branch(x, *convolutions, stride=1, padding="even", first=0, name):
    """Convolutions in a row, each (channels, kernel); stride and padding are those of the last.

    They are numbered from `first`, as in the checkpoints.
    """
    for number, (channels, kernel) in enumerate(convolutions[:-1], start=first):
        x = _conv_bn(x, channels, kernel, name=f"{name}_{number}")
    channels, kernel = convolutions[-1]
    last = first + len(convolutions) - 1
    return _conv_bn(x, channels, kernel, stride=stride, padding=padding, name=f"{name}_{last}")


def _max_pool(x, name):
    """3x3 windows that lie in the picture: (n, h, w, c) -> (n, (h - 1) // 2, (w - 1) // 2, c)"""
    return layers.MaxPooling2D(3, strides=2, name=name)(x)


def _averaged(x, channels, *, border, name):
    """Average of each 3x3 window and a 1x1 convolution, with batch normalisation and ReLU.

    Both are linear and there is no bias, so the convolution goes first: fewer channels are left to average. With a
    border of 1, pixels outside of the picture count as zeros, as PyTorch has it by default; with 0 they do not count.

    (n, h, w, c) -> (n, h, w, channels)
    """
    x = conv(x, channels, 1, name=f"{name}_conv")
    x = pad(x, border, name=f"{name}_pad")
    x = layers.AveragePooling2D(3, strides=1, padding="valid" if border else "same", name=f"{name}_average")(x)
    x = batch_norm(x, name=f"{name}_bn", epsilon=EPSILON)
    return layers.Activation("relu", name=f"{name}_act")(x)


def _concat(branches, name):
    return layers.Concatenate(name=f"{name}_concat")(branches)


# GoogLeNet


def module(x, ones, threes, fives, pooled, *, five=5, epsilon=1e-5, name):
    """Figure 2(b): 1x1, 3x3 and 5x5 convolutions and a pooling, side by side.

    `threes` and `fives` are pairs: channels of the 1x1 convolution in front, channels of the convolution itself.

    (n, h, w, c) -> (n, h, w, ones + threes[1] + fives[1] + pooled)
    """
    a = conv_bn(x, ones, 1, epsilon=epsilon, name=f"{name}_1x1")
    b = conv_bn(x, threes[0], 1, epsilon=epsilon, name=f"{name}_3x3_reduce")
    b = conv_bn(b, threes[1], 3, epsilon=epsilon, name=f"{name}_3x3")
    c = conv_bn(x, fives[0], 1, epsilon=epsilon, name=f"{name}_5x5_reduce")
    c = conv_bn(c, fives[1], five, epsilon=epsilon, name=f"{name}_5x5")
    d = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    d = conv_bn(d, pooled, 1, epsilon=epsilon, name=f"{name}_pool_proj")
    return _concat([a, b, c, d], name)


def inception_small(x):
    """Six modules for pictures of 32 pixels; their channels are GoogLeNet's 3a divided by 4, doubled with each stage.

    (n, 32, 32, 3) -> (n, 8, 8, 256)
    """
    x = conv_bn(x, 32, 3, name="stem")  # 32 x 32 x 32
    x = module(x, 16, (24, 32), (4, 8), 8, name="stage1_module1")  # 32 x 32 x 64
    x = module(x, 16, (24, 32), (4, 8), 8, name="stage1_module2")
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="stage2_pool")(x)
    x = module(x, 32, (48, 64), (8, 16), 16, name="stage2_module1")  # 16 x 16 x 128
    x = module(x, 32, (48, 64), (8, 16), 16, name="stage2_module2")
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="stage3_pool")(x)
    x = module(x, 64, (96, 128), (16, 32), 32, name="stage3_module1")  # 8 x 8 x 256
    return module(x, 64, (96, 128), (16, 32), 32, name="stage3_module2")


def googlenet(x):
    """Table 1 of the paper, as torchvision has it: the layers called 5x5 have 3x3 kernels.

    (n, 224, 224, 3) -> (n, 7, 7, 1024)
    """
    mixed = partial(module, five=3, epsilon=EPSILON)
    x = _conv_bn(x, 64, 7, stride=2, name="stem_conv1")  # 112 x 112 x 64
    x = _half_pool(x, "stem_pool1")  # 56 x 56 x 64
    x = _conv_bn(x, 64, 1, name="stem_conv2")
    x = _conv_bn(x, 192, 3, name="stem_conv3")  # 56 x 56 x 192

    x = _half_pool(x, "stage1_pool")
    x = mixed(x, 64, (96, 128), (16, 32), 32, name="stage1_3a")  # 28 x 28 x 256
    x = mixed(x, 128, (128, 192), (32, 96), 64, name="stage1_3b")  # 28 x 28 x 480

    x = _half_pool(x, "stage2_pool")
    x = mixed(x, 192, (96, 208), (16, 48), 64, name="stage2_4a")  # 14 x 14 x 512
    x = mixed(x, 160, (112, 224), (24, 64), 64, name="stage2_4b")
    x = mixed(x, 128, (128, 256), (24, 64), 64, name="stage2_4c")
    x = mixed(x, 112, (144, 288), (32, 64), 64, name="stage2_4d")  # 14 x 14 x 528
    x = mixed(x, 256, (160, 320), (32, 128), 128, name="stage2_4e")  # 14 x 14 x 832

    x = layers.MaxPooling2D(2, padding="same", name="stage3_pool")(x)
    x = mixed(x, 256, (160, 320), (32, 128), 128, name="stage3_5a")  # 7 x 7 x 832
    return mixed(x, 384, (192, 384), (48, 128), 128, name="stage3_5b")  # 7 x 7 x 1024


def _half_pool(x, name):
    """3x3 windows that may reach one pixel over the bottom and the right edge, PyTorch's `ceil_mode`.

    What is pooled comes from a ReLU, so the zeros there win against nothing. An odd side never needs them.

    (n, h, w, c) -> (n, h // 2, w // 2, c)
    """
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    return _max_pool(x, name)


# Inception-v3

_v3_branch = partial(_branch, first=1)


def _v3_pooled(x, channels, *, name):
    return _averaged(x, channels, border=1, name=f"{name}_branch_pool")


def v3_module_a(x, pooled, *, name):
    """Figure 5 with a 5x5 convolution where that has a single 3x3: (n, h, w, c) -> (n, h, w, 224 + pooled)"""
    a = _conv_bn(x, 64, 1, name=f"{name}_branch1x1")
    b = _v3_branch(x, (48, 1), (64, 5), name=f"{name}_branch5x5")
    c = _v3_branch(x, (64, 1), (96, 3), (96, 3), name=f"{name}_branch3x3dbl")
    d = _v3_pooled(x, pooled, name=name)
    return _concat([a, b, c, d], name)


def v3_reduction_a(x, *, name):
    """Figure 10: (n, h, w, c) -> (n, (h - 1) // 2, (w - 1) // 2, 480 + c)"""
    a = _conv_bn(x, 384, 3, stride=2, padding="valid", name=f"{name}_branch3x3")
    b = _v3_branch(x, (64, 1), (96, 3), (96, 3), stride=2, padding="valid", name=f"{name}_branch3x3dbl")
    c = _max_pool(x, f"{name}_pool")
    return _concat([a, b, c], name)


def v3_module_b(x, sevens, *, name):
    """Figure 6 with n = 7, `sevens` channels in between: (n, h, w, c) -> (n, h, w, 768)"""
    a = _conv_bn(x, 192, 1, name=f"{name}_branch1x1")
    b = _v3_branch(x, (sevens, 1), (sevens, (1, 7)), (192, (7, 1)), name=f"{name}_branch7x7")
    twice = [(sevens, 1), (sevens, (7, 1)), (sevens, (1, 7)), (sevens, (7, 1)), (192, (1, 7))]
    c = _v3_branch(x, *twice, name=f"{name}_branch7x7dbl")
    d = _v3_pooled(x, 192, name=name)
    return _concat([a, b, c, d], name)


def v3_reduction_b(x, *, name):
    """As figure 10, with 7x7 convolutions: (n, h, w, c) -> (n, (h - 1) // 2, (w - 1) // 2, 512 + c)"""
    a = _v3_branch(x, (192, 1), (320, 3), stride=2, padding="valid", name=f"{name}_branch3x3")
    sevens = [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)]
    b = _v3_branch(x, *sevens, stride=2, padding="valid", name=f"{name}_branch7x7x3")
    c = _max_pool(x, f"{name}_pool")
    return _concat([a, b, c], name)


def v3_module_c(x, *, name):
    """Figure 7: (n, h, w, c) -> (n, h, w, 2048)"""
    a = _conv_bn(x, 320, 1, name=f"{name}_branch1x1")
    b = _conv_bn(x, 384, 1, name=f"{name}_branch3x3_1")
    b = _fork(b, 384, name=f"{name}_branch3x3_2")
    c = _v3_branch(x, (448, 1), (384, 3), name=f"{name}_branch3x3dbl")
    c = _fork(c, 384, name=f"{name}_branch3x3dbl_3")
    d = _v3_pooled(x, 192, name=name)
    return _concat([a, *b, *c, d], name)


def _fork(x, channels, *, name):
    """A 1x3 and a 3x1 convolution side by side."""
    return _conv_bn(x, channels, (1, 3), name=f"{name}a"), _conv_bn(x, channels, (3, 1), name=f"{name}b")


def inception_v3(x):
    """Table 1 of the paper, as released: the stem ends in a 1x1 and a 3x3 convolution, stage 1 begins with a pooling.

    (n, 299, 299, 3) -> (n, 8, 8, 2048)
    """
    x = _conv_bn(x, 32, 3, stride=2, padding="valid", name="stem_1a_3x3")  # 149 x 149 x 32
    x = _conv_bn(x, 32, 3, padding="valid", name="stem_2a_3x3")
    x = _conv_bn(x, 64, 3, name="stem_2b_3x3")  # 147 x 147 x 64
    x = _max_pool(x, "stem_pool")
    x = _conv_bn(x, 80, 1, name="stem_3b_1x1")  # 73 x 73 x 80
    x = _conv_bn(x, 192, 3, padding="valid", name="stem_4a_3x3")  # 71 x 71 x 192

    x = _max_pool(x, "stage1_pool")
    x = v3_module_a(x, 32, name="stage1_5b")  # 35 x 35 x 256
    x = v3_module_a(x, 64, name="stage1_5c")  # 35 x 35 x 288
    x = v3_module_a(x, 64, name="stage1_5d")

    x = v3_reduction_a(x, name="stage2_6a")  # 17 x 17 x 768
    for letter, sevens in zip("bcde", (128, 160, 160, 192), strict=True):
        x = v3_module_b(x, sevens, name=f"stage2_6{letter}")

    x = v3_reduction_b(x, name="stage3_7a")  # 8 x 8 x 1280
    x = v3_module_c(x, name="stage3_7b")  # 8 x 8 x 2048
    return v3_module_c(x, name="stage3_7c")


# Inception-v4 and Inception-ResNet-v2; figures and tables are those of their paper


def _pooled(x, channels, *, name):
    return _averaged(x, channels, border=0, name=f"{name}_branch3_1")


def v4_stem(x):
    """Figure 3 up to its last reduction: (n, 299, 299, 3) -> (n, 71, 71, 192)"""
    x = _conv_bn(x, 32, 3, stride=2, padding="valid", name="stem_0")  # 149 x 149 x 32
    x = _conv_bn(x, 32, 3, padding="valid", name="stem_1")
    x = _conv_bn(x, 64, 3, name="stem_2")  # 147 x 147 x 64
    a = _max_pool(x, "stem_3_pool")
    b = _conv_bn(x, 96, 3, stride=2, padding="valid", name="stem_3_conv")
    x = _concat([a, b], "stem_3")  # 73 x 73 x 160
    a = _branch(x, (64, 1), (96, 3), padding="valid", name="stem_4_branch0")
    b = _branch(x, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3), padding="valid", name="stem_4_branch1")
    return _concat([a, b], "stem_4")  # 71 x 71 x 192


def v4_stem_reduction(x, *, name):
    """The end of figure 3: (n, h, w, c) -> (n, (h - 1) // 2, (w - 1) // 2, 192 + c)"""
    a = _conv_bn(x, 192, 3, stride=2, padding="valid", name=f"{name}_conv")
    b = _max_pool(x, f"{name}_pool")
    return _concat([a, b], name)


def v4_module_a(x, *, name):
    """Figure 4: (n, h, w, c) -> (n, h, w, 384)"""
    a = _conv_bn(x, 96, 1, name=f"{name}_branch0")
    b = _branch(x, (64, 1), (96, 3), name=f"{name}_branch1")
    c = _branch(x, (64, 1), (96, 3), (96, 3), name=f"{name}_branch2")
    d = _pooled(x, 96, name=name)
    return _concat([a, b, c, d], name)


def reduction_a(x, single, double, *, name):
    """Figure 7; `single` is table 1's n, `double` its k, l and m, the channels of the two branches.

    (n, h, w, c) -> (n, (h - 1) // 2, (w - 1) // 2, single + double[2] + c)
    """
    a = _conv_bn(x, single, 3, stride=2, padding="valid", name=f"{name}_branch0")
    b = _branch(x, *zip(double, (1, 3, 3), strict=True), stride=2, padding="valid", name=f"{name}_branch1")
    c = _max_pool(x, f"{name}_pool")
    return _concat([a, b, c], name)


def v4_module_b(x, *, name):
    """Figure 5: (n, h, w, c) -> (n, h, w, 1024)"""
    a = _conv_bn(x, 384, 1, name=f"{name}_branch0")
    b = _branch(x, (192, 1), (224, (1, 7)), (256, (7, 1)), name=f"{name}_branch1")
    twice = [(192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))]
    c = _branch(x, *twice, name=f"{name}_branch2")
    d = _pooled(x, 128, name=name)
    return _concat([a, b, c, d], name)


def v4_reduction_b(x, *, name):
    """Figure 8: (n, h, w, c) -> (n, (h - 1) // 2, (w - 1) // 2, 512 + c)"""
    a = _branch(x, (192, 1), (192, 3), stride=2, padding="valid", name=f"{name}_branch0")
    sevens = [(256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3)]
    b = _branch(x, *sevens, stride=2, padding="valid", name=f"{name}_branch1")
    c = _max_pool(x, f"{name}_pool")
    return _concat([a, b, c], name)


def v4_module_c(x, *, name):
    """Figure 6; a branch that ends in two convolutions side by side is called a fork.

    (n, h, w, c) -> (n, h, w, 1536)
    """
    a = _conv_bn(x, 256, 1, name=f"{name}_branch0")
    b = _conv_bn(x, 384, 1, name=f"{name}_fork1_0")
    b = _fork(b, 256, name=f"{name}_fork1_1")
    c = _branch(x, (384, 1), (448, (3, 1)), (512, (1, 3)), name=f"{name}_fork2")
    c = _fork(c, 256, name=f"{name}_fork2_3")
    d = _pooled(x, 256, name=name)
    return _concat([a, *b, *c, d], name)


def inception_v4(x):
    """Figure 9: (n, 299, 299, 3) -> (n, 8, 8, 1536)"""
    x = v4_stem(x)
    x = v4_stem_reduction(x, name="stage1_reduction")  # 35 x 35 x 384
    for i in range(1, 5):
        x = v4_module_a(x, name=f"stage1_module{i}")
    x = reduction_a(x, 384, (192, 224, 256), name="stage2_reduction")  # 17 x 17 x 1024
    for i in range(1, 8):
        x = v4_module_b(x, name=f"stage2_module{i}")
    x = v4_reduction_b(x, name="stage3_reduction")  # 8 x 8 x 1536
    for i in range(1, 4):
        x = v4_module_c(x, name=f"stage3_module{i}")
    return x


def resnet_module(x, *, name):
    """What Inception-ResNet-v2 has for the end of its stem: (n, h, w, c) -> (n, h, w, 320)"""
    a = _conv_bn(x, 96, 1, name=f"{name}_branch0")
    b = _branch(x, (48, 1), (64, 5), name=f"{name}_branch1")
    c = _branch(x, (64, 1), (96, 3), (96, 3), name=f"{name}_branch2")
    d = _pooled(x, 64, name=name)
    return _concat([a, b, c, d], name)


def resnet_block_a(x, *, name):
    """Figure 16: (n, h, w, c) -> (n, h, w, c)"""
    a = _conv_bn(x, 32, 1, name=f"{name}_branch0")
    b = _branch(x, (32, 1), (32, 3), name=f"{name}_branch1")
    c = _branch(x, (32, 1), (48, 3), (64, 3), name=f"{name}_branch2")
    return _residual(x, [a, b, c], scale=0.17, name=name)


def resnet_block_b(x, *, name):
    """Figure 17: (n, h, w, c) -> (n, h, w, c)"""
    a = _conv_bn(x, 192, 1, name=f"{name}_branch0")
    b = _branch(x, (128, 1), (160, (1, 7)), (192, (7, 1)), name=f"{name}_branch1")
    return _residual(x, [a, b], scale=0.1, name=name)


def resnet_reduction_b(x, *, name):
    """Figure 18: (n, h, w, c) -> (n, (h - 1) // 2, (w - 1) // 2, 992 + c)"""
    a = _branch(x, (256, 1), (384, 3), stride=2, padding="valid", name=f"{name}_branch0")
    b = _branch(x, (256, 1), (288, 3), stride=2, padding="valid", name=f"{name}_branch1")
    c = _branch(x, (256, 1), (288, 3), (320, 3), stride=2, padding="valid", name=f"{name}_branch2")
    d = _max_pool(x, f"{name}_pool")
    return _concat([a, b, c, d], name)


def resnet_block_c(x, *, scale=0.2, activation: str | None = "relu", name):
    """Figure 19: (n, h, w, c) -> (n, h, w, c)"""
    a = _conv_bn(x, 192, 1, name=f"{name}_branch0")
    b = _branch(x, (192, 1), (224, (1, 3)), (256, (3, 1)), name=f"{name}_branch1")
    return _residual(x, [a, b], scale=scale, activation=activation, name=name)


def _residual(x, branches, *, scale, activation: str | None = "relu", name):
    """Figure 20: the branches, brought to the shortcut's channels and scaled down, are added to it."""
    y = _concat(branches, name)
    y = conv(y, x.shape[-1], 1, use_bias=True, name=f"{name}_conv2d")
    if scale != 1:
        y = layers.Rescaling(scale, name=f"{name}_scale")(y)
    x = layers.Add(name=f"{name}_add")([x, y])
    return layers.Activation(activation, name=f"{name}_out")(x) if activation else x


def inception_resnet_v2(x):
    """Figure 15, as released: a plainer stem, twice as many blocks, and a 1x1 convolution behind the last of them.

    (n, 299, 299, 3) -> (n, 8, 8, 1536)
    """
    x = _conv_bn(x, 32, 3, stride=2, padding="valid", name="stem_1a")  # 149 x 149 x 32
    x = _conv_bn(x, 32, 3, padding="valid", name="stem_2a")
    x = _conv_bn(x, 64, 3, name="stem_2b")  # 147 x 147 x 64
    x = _max_pool(x, "stem_pool")
    x = _conv_bn(x, 80, 1, name="stem_3b")  # 73 x 73 x 80
    x = _conv_bn(x, 192, 3, padding="valid", name="stem_4a")  # 71 x 71 x 192

    x = _max_pool(x, "stage1_pool")
    x = resnet_module(x, name="stage1_5b")  # 35 x 35 x 320
    for i in range(1, 11):
        x = resnet_block_a(x, name=f"stage1_block{i}")
    x = reduction_a(x, 384, (256, 256, 384), name="stage2_6a")  # 17 x 17 x 1088
    for i in range(1, 21):
        x = resnet_block_b(x, name=f"stage2_block{i}")
    x = resnet_reduction_b(x, name="stage3_7a")  # 8 x 8 x 2080
    for i in range(1, 10):
        x = resnet_block_c(x, name=f"stage3_block{i}")
    x = resnet_block_c(x, scale=1, activation=None, name="stage3_block10")
    return _conv_bn(x, 1536, 1, name="stage3_7b")  # 8 x 8 x 1536
