"""Plain convolutional networks: convolutions and poolings in a row.

`lenet5` is LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf; `alexnet` Krizhevsky 2014,
https://arxiv.org/abs/1404.5997, and `vgg` Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556, laid out as the
public weights of torchvision and timm; `convnet` is the textbook's network.
"""

from functools import partial

from keras import layers

from zoo.models import blocks

PADDINGS = ("same", "valid")
POOLINGS = {"max": layers.MaxPooling2D, "average": layers.AveragePooling2D}
_MOST_GROUPS = 4


def lenet5(x):
    """Figure 2 of the paper, layer by layer.

    Departures: C3 sees all six maps instead of a table of subsets; the subsamplings S2 and S4 have no coefficients;
    tanh is not scaled; the output is a softmax instead of distances to drawn characters. F6 is a 1x1 convolution,
    which on the paper's 32 pixels is the same thing and lets larger pictures in.

    (n, 32, 32, 1) -> (n, 1, 1, 84)
    """
    x = _conv_tanh(x, 6, 5, name="stem_c1")  # 28 x 28 x 6
    x = layers.AveragePooling2D(2, name="stage1_s2")(x)
    x = _conv_tanh(x, 16, 5, name="stage1_c3")  # 10 x 10 x 16
    x = layers.AveragePooling2D(2, name="stage2_s4")(x)
    x = _conv_tanh(x, 120, 5, name="stage2_c5")  # 1 x 1 x 120
    return _conv_tanh(x, 84, 1, name="head_f6")


def _conv_tanh(x, filters, kernel, *, name):
    return layers.Conv2D(filters, kernel, activation="tanh", kernel_initializer=blocks.UNDRAWN, name=name)(x)


def alexnet(x):
    """Five convolutions and two hidden layers, as in torchvision, without the dropout before the hidden layers.

    The hidden layers belong to the last stage. Other maps than 6x6 are brought to that by adaptive pooling.

    (n, 224, 224, 3) -> (n, 1, 1, 4096)
    """
    x = blocks.pad(x, 2, "stem_pad")
    x = blocks.conv(x, 64, 11, stride=4, padding="valid", use_bias=True, name="stem_conv1")  # 55 x 55 x 64
    x = layers.Activation("relu", name="stem_act1")(x)
    x = layers.MaxPooling2D(3, strides=2, name="stage1_pool")(x)
    x = _conv_act(x, 192, 5, name="stage1", number=1)  # 27 x 27 x 192
    x = layers.MaxPooling2D(3, strides=2, name="stage2_pool")(x)
    for i, filters in enumerate((384, 256, 256), start=1):
        x = _conv_act(x, filters, 3, name="stage2", number=i)  # 13 x 13 x 256
    x = layers.MaxPooling2D(3, strides=2, name="stage3_pool")(x)  # 6 x 6 x 256
    return _hidden_layers(x, 6, (6, 6), name="stage3")


def vgg(x, *, depths, batch_norm=False):
    """3x3 convolutions, then two hidden layers: table 1 of the paper, an entry of `depths` for each size.

    The hidden layers belong to the last stage. Pictures larger than 224 pixels slide through them (section 3.2); where
    the map before them is smaller than 7x7, it is spread over 7x7 by adaptive pooling, as in timm. The paper's dropout
    behind the hidden layers is left out.

    (n, 224, 224, 3) -> (n, 1, 1, 4096)

    Args:
        depths: Convolutions of the stem and of each stage behind it.
        batch_norm: Whether batch normalisation stands between each convolution and its activation.
    """
    for k, depth in enumerate(depths):
        name = f"stage{k}" if k else "stem"
        if k:
            x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
        for i in range(1, depth + 1):
            x = _conv_act(x, min(512, 64 * 2**k), 3, batch_norm=batch_norm, name=name, number=i)
    name = f"stage{len(depths)}"
    x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)  # 7 x 7 x 512
    height, width = _known_sides(x)
    return _hidden_layers(x, 7, (max(height, 7), max(width, 7)), name=name)


def _conv_act(x, filters, kernel, *, batch_norm=False, name, number):
    x = blocks.conv(x, filters, kernel, use_bias=True, name=f"{name}_conv{number}")
    x = blocks.batch_norm(x, name=f"{name}_bn{number}") if batch_norm else x
    return layers.Activation("relu", name=f"{name}_act{number}")(x)


def _known_sides(x):
    height, width = x.shape[1:3]
    if not (height and width):
        raise ValueError(
            "Fully connected layers need to know the size of the picture: give height and width in `input_shape`. "
            f"Received: a map of {height}x{width} before them"
        )
    return height, width


def _hidden_layers(x, side, sides, *, name):
    """Two fully connected layers of 4096 units, which see `side` x `side` pixels of a map of `sides`.

    They are convolutions where the map is larger than they see; where it is not, the same kernels in a matrix product,
    which is several times as fast on a processor.

    (n, h, w, c) -> (n, sides[0] - side + 1, sides[1] - side + 1, 4096)
    """
    known = _known_sides(x)
    if 1 in known:  # Keras' adaptive pooling fails on a single pixel in a graph; all it does there is repeat it
        repeats = tuple(side if have == 1 else 1 for side, have in zip(sides, known, strict=True))
        x = layers.UpSampling2D(repeats, name=f"{name}_repeat")(x)
    if sides != _known_sides(x):
        x = layers.AdaptiveAveragePooling2D(sides, name=f"{name}_spread")(x)
    flat = sides == (side, side)
    x = layers.Flatten(name=f"{name}_flatten")(x) if flat else x
    for i, kernel in enumerate((side, 1), start=1):
        layer = partial(layers.Dense, 4096) if flat else partial(layers.Conv2D, 4096, kernel)
        x = layer(kernel_initializer=blocks.UNDRAWN, name=f"{name}_fc{i}")(x)
        x = layers.Activation("relu", name=f"{name}_fc{i}_act")(x)
    return layers.Reshape((1, 1, 4096), name=f"{name}_map")(x) if flat else x


def convnet(
    x,
    *,
    filters=(32, 64, 128),
    kernel_size=3,
    stride=1,
    padding="same",
    pooling="max",
    batch_norm=True,
    feature_dropout=0.0,
    depth=1,
    connections="dense",
):
    """Pooling, convolution, batch normalisation and activation in turn; the stem has no pooling.

    (n, h, w, c) -> (n, h / 4, w / 4, 128)

    Args:
        filters: Channels of the stem and of each stage behind it.
        kernel_size: Side of every convolution's kernel in pixels.
        stride: Step of the first convolution of the stem and of each stage.
        padding: "same" keeps the size of what is convolved, "valid" loses its border.
        pooling: "max", "average", or None where strides alone shall shrink the picture.
        batch_norm: Whether batch normalisation stands between each convolution and its activation.
        feature_dropout: Share of values dropped at the end of each stage; `create`'s own `dropout` is that of the head.
        depth: Convolutions of the stem and of each stage, each with its normalisation and activation.
        connections: "dense": each filter sees all channels; "grouped": those of its group, of up to four, as AlexNet
            had two (Krizhevsky et al. 2012); "depthwise": one channel, and a 1x1 convolution mixes them (Howard et al.
            2017, https://arxiv.org/abs/1704.04861, without the normalisation between the two). The first convolution
            is dense always.

    Raises:
        ValueError: If an argument is out of its range, or the picture is too small for the sizes asked for.
    """
    if not filters:
        raise ValueError(f"`filters` must hold at least one number of channels. Received: filters={filters}")
    if padding not in PADDINGS:
        raise ValueError(f"`padding` must be one of {PADDINGS}. Received: padding={padding!r}")
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"`pooling` must be one of {tuple(POOLINGS)} or None. Received: pooling={pooling!r}")
    if connections not in _CONVOLUTIONS:
        raise ValueError(f"`connections` must be one of {tuple(_CONVOLUTIONS)}. Received: connections={connections!r}")
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ValueError(f"`depth` must be a whole number of at least 1. Received: depth={depth!r}")
    for k, channels in enumerate(filters):
        name = f"stage{k}" if k else "stem"
        if k and pooling is not None:
            _needs(x, 2, name)
            x = POOLINGS[pooling](2, name=f"{name}_pool")(x)
        for i in range(depth):
            if padding == "valid":
                _needs(x, kernel_size, name)
            number = i + 1 if i else ""  # the names of one convolution a stage have no number
            convolve = _CONVOLUTIONS[connections if k or i else "dense"]
            x = convolve(
                x,
                channels,
                kernel_size,
                name=f"{name}_conv{number}",
                strides=1 if i else stride,
                padding=padding,
                use_bias=not batch_norm,
            )
            x = blocks.batch_norm(x, name=f"{name}_bn{number}") if batch_norm else x
            x = layers.Activation("relu", name=f"{name}_act{number}")(x)
        if feature_dropout:
            x = layers.Dropout(feature_dropout, name=f"{name}_dropout")(x)
    return x


def _dense(x, channels, kernel_size, *, groups=1, name, **how):
    return layers.Conv2D(channels, kernel_size, groups=groups, kernel_initializer=blocks.UNDRAWN, name=name, **how)(x)


def _grouped(x, channels, kernel_size, **how):
    groups = max(n for n in range(1, _MOST_GROUPS + 1) if x.shape[-1] % n == channels % n == 0)
    return _dense(x, channels, kernel_size, groups=groups, **how)


def _depthwise(x, channels, kernel_size, *, name, strides, padding, use_bias):
    x = layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,  # the convolution behind it has one
        depthwise_initializer=blocks.UNDRAWN,
        name=name.replace("_conv", "_depthwise"),
    )(x)
    return _dense(x, channels, 1, use_bias=use_bias, name=name)


_CONVOLUTIONS = {"dense": _dense, "grouped": _grouped, "depthwise": _depthwise}


def _needs(x, size, name):
    if any(side is not None and side < size for side in x.shape[1:3]):
        raise ValueError(
            f"The picture has shrunk to {x.shape[1]}x{x.shape[2]} before '{name}', which needs {size} pixels; "
            "use larger pictures, fewer `filters`, or padding='same'."
        )
