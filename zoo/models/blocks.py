"""Pieces that families share: tensor first, name last; the default sizes are those of the papers that use them."""

from keras import layers

UNDRAWN = "zeros"  # kernels of every builder start so; `create` draws them once, or loads them


def pad(x, amount, name):
    """Zeros on all four sides; nothing, not even a layer, where `amount` is 0.

    (n, h, w, c) -> (n, h + 2 * amount, w + 2 * amount, c)
    """
    return layers.ZeroPadding2D(amount, name=name)(x) if amount else x


def conv(x, filters, kernel, *, stride=1, groups=1, padding="even", use_bias=False, name):
    """Convolution with an odd kernel, a side or (height, width), padded evenly on both sides as PyTorch does.

    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), filters); padding="valid" loses the border
    """
    if padding == "even" and stride == 1:
        padding = "same"  # even on both sides as long as nothing is skipped
    elif padding == "even":
        padding = "valid"  # "same" would pad a strided convolution at the bottom and right only
        x = pad(x, kernel // 2, name=f"{name.removesuffix('_conv')}_pad")
    return layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        groups=groups,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=UNDRAWN,
        name=name,
    )(x)


def batch_norm(x, name, epsilon=1e-5):
    """Batch normalisation with torchvision's epsilon and momentum (0.1 there is 0.9 in Keras)."""
    return layers.BatchNormalization(epsilon=epsilon, momentum=0.9, name=name)(x)


def conv_bn(
    x,
    filters,
    kernel,
    *,
    stride=1,
    groups=1,
    padding="even",
    epsilon=1e-5,
    activation: str | None = "relu",
    name,
):
    """Convolution without bias, batch normalisation, activation.

    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), filters); padding="valid" loses the border
    """
    x = conv(x, filters, kernel, stride=stride, groups=groups, padding=padding, name=f"{name}_conv")
    x = batch_norm(x, name=f"{name}_bn", epsilon=epsilon)
    return layers.Activation(activation, name=f"{name}_act")(x) if activation else x
