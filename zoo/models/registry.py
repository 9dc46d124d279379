"""From a row of the catalog to a model: what every network shares is put around its features here, once."""

import importlib
import inspect
import operator
import os

import keras
from keras import layers

from zoo.models import heads, settings
from zoo.models import weights as weight_files
from zoo.models.catalog import info, near_miss
from zoo.models.entries import ModelInfo

_DEFAULT_NORMALIZATION = (127.5, 127.5**2)  # 0..255 to -1..1


def create(
    name: str,
    *,
    classes: int,
    input_shape: tuple[int | None, int | None, int] | None = None,
    weights: str | os.PathLike | None = None,
    normalization: tuple | None = None,
    head: str = "linear",
    hidden_units: int | None = None,
    dropout: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
    kernel_initializer="he_normal",
    classifier_activation: str | None = "softmax",
    **variant,
) -> keras.Model:
    """A flat functional classifier: raw pictures in, a probability for each class out.

    Input shape: (batch, height, width, channels), pixels 0..255 of any dtype, called `image`.
    Output shape: (batch, classes), float32 whatever the precision.

    The first layer, `stem_normalize`, is the only normalisation there is. Layers are called `stem_*`, `stage<k>_*` and
    `head_*`; networks of keras.applications keep Keras' names in between. What the weights came from is left on the
    model as `zoo_weights`.

    Args:
        name: A model of `list_models()`; also the name of the Keras model.
        classes: Number of classes, at least 2.
        input_shape: (height, width, channels); height and width may be None for pictures of any size, but in `alexnet`
            and `vgg*`, whose hidden layers have to know it. By default what the network was made for.
        weights: None for fresh weights; "imagenet" for the model's best published weights; one of its tags
            ("timm/resnet50.a1_in1k"); or a file: `.weights.h5`, `.keras`, `.safetensors` of timm's or torchvision's
            networks, or an `.h5` file of keras.applications. The classifier is replaced where `classes` differs, the
            whole head where the file's is of another kind or width; the first convolution is adapted to 1 or 4
            channels.
        normalization: (mean, variance) of the pixels in 0..255, numbers or one a channel. By default a tag's own, or
            what a `.keras` file or timm's `config.json` beside a file says, else what takes 0..255 to -1..1.
        head: "linear", a dense layer behind the average of the last map; "hidden", with another dense layer between;
            or "average+max", with the largest value of each channel beside the average, which asks for a last map
            larger than one pixel. Published weights bring a classifier for "linear" only.
        hidden_units: Width of the dense layer between in the head "hidden"; None for as many units as there are
            features, at most 512.
        dropout: Share of what goes into each dense layer of the head that is dropped in training.
        l1: Weight of the absolute kernels of all convolutions and dense layers in the loss; biases and batch
            normalisation are left out.
        l2: Weight of the squares of the same kernels.
        kernel_initializer: For the kernels of all convolutions and dense layers: "he_normal" (He et al. 2015),
            "glorot_uniform" (Glorot and Bengio 2010), or any other initialiser of Keras.
        classifier_activation: "softmax", or None for logits.
        **variant: What the network itself takes, such as `shortcut="projection"` of `resnet20`.

    Raises:
        ValueError: If an argument is out of its range, no model or tag has that name, the picture is smaller than the
            network's smallest, or the weights do not fit.
        FileNotFoundError: If a weight file is neither there nor can be fetched.

    Example:
        >>> create("resnet20", classes=10).output_shape
        (None, 10)
    """
    row = info(name)
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "The zoo's networks have channels last. Call keras.config.set_image_data_format('channels_last')."
        )
    build, numbers = _builder(row, variant)
    classes = _checked_classes(classes)
    shape = _checked_shape(row, input_shape)
    source = weight_files.find(row, weights)
    mean, variance = _normalization(source, normalization, shape[-1])

    image = keras.Input(shape, name="image")
    # In float32 even where the rest computes in less: half precision would round the pixels' mean.
    x = layers.Normalization(mean=mean, variance=variance, dtype="float32", name="stem_normalize")(image)
    x = build(x, **numbers)
    x = heads.head(
        x, head, classes=classes, hidden_units=hidden_units, dropout=dropout, activation=classifier_activation
    )
    model = keras.Model(image, x, name=name)

    settings.initialize(model, kernel_initializer, draw="head_" if source else "")
    settings.regularize(model, l1=l1, l2=l2)
    if source:
        weight_files.load(model, source)
    model.zoo_weights = source.name if source else None
    return model


def _builder(row: ModelInfo, variant):
    """The row's function and all its numbers, the caller's included."""
    module, function = row.builder.split(":")
    build = getattr(importlib.import_module(module), function)
    takes = [word for word in list(inspect.signature(build).parameters)[1:] if word not in row.numbers]
    for word in variant:
        if word not in takes:
            what = f"It takes {', '.join(takes)}." if takes else "It takes none of its own."
            raise ValueError(
                f"Model {row.name!r} has no argument {word!r}. {near_miss(word, takes)} {what}".replace("  ", " ")
            )
    return build, {**row.numbers, **variant}


def _checked_classes(classes):
    try:
        number = operator.index(classes)
    except TypeError:
        raise TypeError(f"`classes` must be an integer of at least 2. Received: classes={classes!r}") from None
    if number < 2:
        raise ValueError(f"`classes` must be at least 2. Received: classes={classes}")
    return number


def _checked_shape(row: ModelInfo, shape):
    if shape is None:
        return (row.image_size, row.image_size, row.channels)
    if not hasattr(shape, "__len__") or len(shape) != 3:
        raise ValueError(f"`input_shape` must be (height, width, channels). Received: input_shape={shape}")
    if shape[-1] not in (1, 3, 4):
        raise ValueError(f"Pictures have 1, 3 or 4 channels. Received: input_shape={shape}")
    if any(side is not None and side < row.smallest_size for side in shape[:2]):
        raise ValueError(
            f"Model {row.name!r} needs pictures of at least {row.smallest_size}x{row.smallest_size} pixels. "
            f"Received: input_shape={shape}"
        )
    return tuple(shape)


def _normalization(source: weight_files.Source | None, given, channels):
    """Mean and variance as numbers or lists, one a channel."""
    if source and source.tag:
        if given is not None:
            raise ValueError(
                f"The weights {source.tag.name!r} bring their own normalisation; leave `normalization` out. "
                f"Received: {given}"
            )
        given = source.tag.mean, [value**2 for value in source.tag.std]
    elif source and source.normalization and given is None:
        given = source.normalization
    elif given is not None:
        return _checked(given, channels, f"Received: normalization={given} for {channels} channels")
    else:
        return _DEFAULT_NORMALIZATION
    fitted = tuple(_for_channels(part, channels) for part in given)
    return _checked(fitted, channels, f"{source.name!r} holds {given}; give `normalization` for {channels} channels")


def _checked(normalization, channels, received):
    try:
        mean, variance = (_numbers(part, channels) for part in normalization)
        if not all(value > 0 for value in (variance if isinstance(variance, list) else [variance])):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            "`normalization` must be (mean, variance), each a number or one number a channel, the variance above 0. "
            f"{received}"
        ) from None
    return mean, variance


def _for_channels(values, channels):
    """A statistic of three colours for other channels: one that is not red, green or blue gets their average."""
    if not hasattr(values, "__len__") or len(values) != 3:
        return values
    average = sum(values) / 3
    return list(values) if channels == 3 else [average] if channels == 1 else [*values, average]


def _numbers(part, channels):
    if not hasattr(part, "__len__"):
        return float(part)
    numbers = [float(value) for value in part]
    if len(numbers) != channels:
        raise ValueError
    return numbers
