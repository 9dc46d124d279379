"""Plain convolutional networks: convolutions and poolings in a row.

`lenet5` is LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf; `convnet` is the textbook's network.
"""

from keras import layers

from zoo.models import blocks

PADDINGS = ("same", "valid")
POOLINGS = {"max": layers.MaxPooling2D, "average": layers.AveragePooling2D}


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
    return layers.Conv2D(filters, kernel, activation="tanh", kernel_initializer=blocks.INITIALIZER, name=name)(x)


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
):
    """Pooling, convolution, batch normalisation and activation in turn; the stem has no pooling.

    (n, h, w, c) -> (n, h / 4, w / 4, 128)

    Args:
        filters: Channels of the stem and of each stage behind it.
        kernel_size: Side of every convolution's kernel in pixels.
        stride: Step of every convolution.
        padding: "same" keeps the size of what is convolved, "valid" loses its border.
        pooling: "max", "average", or None where strides alone shall shrink the picture.
        batch_norm: Whether batch normalisation stands between each convolution and its activation.
        feature_dropout: Share of values dropped at the end of each stage; `create`'s own `dropout` is that of the head.

    Raises:
        ValueError: If an argument is out of its range, or the picture is too small for the sizes asked for.
    """
    if not filters:
        raise ValueError(f"`filters` must hold at least one number of channels. Received: filters={filters}")
    if padding not in PADDINGS:
        raise ValueError(f"`padding` must be one of {PADDINGS}. Received: padding={padding!r}")
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"`pooling` must be one of {tuple(POOLINGS)} or None. Received: pooling={pooling!r}")
    for k, channels in enumerate(filters):
        name = f"stage{k}" if k else "stem"
        if k and pooling is not None:
            _needs(x, 2, name)
            x = POOLINGS[pooling](2, name=f"{name}_pool")(x)
        if padding == "valid":
            _needs(x, kernel_size, name)
        x = layers.Conv2D(
            channels,
            kernel_size,
            strides=stride,
            padding=padding,
            use_bias=not batch_norm,
            kernel_initializer=blocks.INITIALIZER,
            name=f"{name}_conv",
        )(x)
        x = blocks.batch_norm(x, name=f"{name}_bn") if batch_norm else x
        x = layers.Activation("relu", name=f"{name}_act")(x)
        if feature_dropout:
            x = layers.Dropout(feature_dropout, name=f"{name}_dropout")(x)
    return x


def _needs(x, size, name):
    if any(side is not None and side < size for side in x.shape[1:3]):
        raise ValueError(
            f"The picture has shrunk to {x.shape[1]}x{x.shape[2]} before '{name}', which needs {size} pixels; "
            "use larger pictures, fewer `filters`, or padding='same'."
        )
