"""Inception networks: parallel convolutions of several sizes, Szegedy et al. 2014, https://arxiv.org/abs/1409.4842.

Departures from the paper: batch normalisation behind every convolution (Ioffe and Szegedy 2015,
https://arxiv.org/abs/1502.03167); no auxiliary classifiers.
"""

from keras import layers

from zoo.models.blocks import conv_bn


def module(x, ones, threes, fives, pooled, *, name):
    """Figure 2(b): 1x1, 3x3 and 5x5 convolutions and a pooling, side by side.

    `threes` and `fives` are pairs: channels of the 1x1 convolution in front, channels of the convolution itself.

    (n, h, w, c) -> (n, h, w, ones + threes[1] + fives[1] + pooled)
    """
    a = conv_bn(x, ones, 1, name=f"{name}_1x1")
    b = conv_bn(x, threes[0], 1, name=f"{name}_3x3_reduce")
    b = conv_bn(b, threes[1], 3, name=f"{name}_3x3")
    c = conv_bn(x, fives[0], 1, name=f"{name}_5x5_reduce")
    c = conv_bn(c, fives[1], 5, name=f"{name}_5x5")
    d = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    d = conv_bn(d, pooled, 1, name=f"{name}_pool_proj")
    return layers.Concatenate(name=f"{name}_concat")([a, b, c, d])


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
