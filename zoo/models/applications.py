"""Networks of keras.applications under the zoo's contract: flat graphs on our own input, without their preprocessing.

Layers with weights keep the names that Keras gave them; the catalog's boundaries say where a stage begins.
"""

import re
from collections import defaultdict
from contextlib import contextmanager

import keras
from keras import layers

from zoo.models import blocks as parts

try:  # Keras has no public door to its counters of automatic names
    from keras.src.backend.common import global_state
except ImportError:
    global_state = None


def application(x, *, constructor, options):
    """Normalised pictures to the last feature map of `keras.applications.<constructor>(**options)`.

    (n, 224, 224, 3) -> (n, 7, 7, 1280) in MobileNetV2 and EfficientNetV2B0
    """
    build = getattr(keras.applications, constructor)
    undrawn = dict.fromkeys(("glorot_uniform", "VarianceScaling"), _Undrawn)  # what Keras' networks ask for
    with _names_of_a_new_process(), keras.saving.custom_object_scope(undrawn):
        model = build(input_tensor=x, include_top=False, weights=None, **options)
    return renumbered(model).output


class _Undrawn:
    """Stands for another initialiser while Keras looks it up by name: `create` draws or loads what is zero here."""

    @classmethod
    def from_config(cls, config):
        return keras.initializers.get(parts.UNDRAWN)


@contextmanager
def _names_of_a_new_process():
    """Layers without a name of their own are called `conv2d`, `conv2d_1` and so on as if nothing was built before.

    The numbers go on through a whole process, but weight files, boundaries and saved models hang on the names.
    """
    if global_state is None:
        yield
        return
    numbers = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", numbers)


def renumbered(model: keras.Model) -> keras.Model:
    """A flat model whose automatic names count from zero: itself where they do, else built again on the same input.

    The second build costs as much as the first, so names are better right from the start.
    """
    names = _counted_from_zero([(layer.name, type(layer).__name__) for layer in model.layers])
    if all(name == new for name, new in names.items()):
        return model

    def renamed(layer):
        return type(layer).from_config({**layer.get_config(), "name": names.get(layer.name, layer.name)})

    return keras.models.clone_model(model, input_tensors=model.input, clone_function=renamed)


def _counted_from_zero(layers_of_model):
    """Automatic name -> the name it would have in a new process, from pairs of a layer's name and its class."""
    numbers = defaultdict(list)
    for name, kind in layers_of_model:
        prefix, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()
        if prefix.replace("_", "") == kind.lower():
            numbers[prefix].append((int(number or 0), name))
    return {
        name: f"{prefix}_{k}" if k else prefix
        for prefix, found in numbers.items()
        for k, (_, name) in enumerate(sorted(found))
    }


def mobilenet_v3(x, *, blocks, hidden):
    """Tables 1 and 2 of Howard et al. 2019, https://arxiv.org/abs/1905.02244, with the names of Keras' layers.

    Keras' own graph holds additions and multiplications that are no layers, so it is built here; what is padded and
    what is rounded to a multiple of eight follows Keras. The last convolution stands behind the pooling.

    (n, 224, 224, 3) -> (n, 1, 1, hidden)

    Args:
        blocks: A row of the paper's table a block: kernel, expanded channels, channels, whether it has a
            squeeze-and-excitation, activation, stride.
        hidden: Channels of the convolution behind the pooling.
    """
    x = _convolution(x, 16, 3, stride=2, activation="hard_swish", name="conv")  # 112 x 112 x 16
    for i, block in enumerate(blocks):
        x = inverted_residual(x, *block, name=f"expanded_conv_{i}" if i else "expanded_conv")
    x = _convolution(x, 6 * x.shape[-1], 1, activation="hard_swish", name="conv_1")  # 7 x 7 x 576 or 960
    x = layers.GlobalAveragePooling2D(keepdims=True, name="avg_pool")(x)
    x = parts.conv(x, hidden, 1, use_bias=True, name="conv_2")
    return layers.Activation("hard_swish", name="conv_2_act")(x)


def inverted_residual(x, kernel, expanded, channels, squeezed, activation, stride, *, name):
    """Figure 4: 1x1 convolution to more channels, depthwise convolution, squeeze-and-excitation, 1x1 to fewer.

    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), channels)
    """
    y = x
    if expanded != x.shape[-1]:
        y = _convolution(y, expanded, 1, activation=activation, name=f"{name}_expand")
    y = layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise")(y)
    y = _batch_norm(y, f"{name}_depthwise_bn")
    y = layers.Activation(activation, name=f"{name}_depthwise_act")(y)
    if squeezed:
        y = _squeeze_excite(y, name=f"{name}_squeeze_excite")
    y = _convolution(y, channels, 1, name=f"{name}_project")
    if stride == 1 and x.shape[-1] == channels:
        y = layers.Add(name=f"{name}_add")([x, y])
    return y


def _squeeze_excite(x, *, name):
    """Scales each channel by what the averages of all channels say."""
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_avg_pool")(x)
    y = parts.conv(y, _multiple_of_eight(x.shape[-1] / 4), 1, use_bias=True, name=f"{name}_conv")
    y = layers.Activation("relu", name=f"{name}_relu")(y)
    y = parts.conv(y, x.shape[-1], 1, use_bias=True, name=f"{name}_conv_1")
    y = layers.Activation("hard_sigmoid", name=f"{name}_gate")(y)
    return layers.Multiply(name=f"{name}_mul")([x, y])


def _convolution(x, channels, kernel, *, stride=1, activation=None, name):
    x = parts.conv(x, channels, kernel, stride=stride, padding="same", name=name)
    x = _batch_norm(x, f"{name}_bn")
    return layers.Activation(activation, name=f"{name}_act")(x) if activation else x


def _batch_norm(x, name):
    return layers.BatchNormalization(epsilon=1e-3, momentum=0.999, name=name)(x)


def _multiple_of_eight(channels):
    """The nearest one, or the next where that would lose more than a tenth."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near
