"""Networks of keras.applications; files, checksums and preprocessing as in keras/src/applications.

Top-1 is that of https://keras.io/api/applications/, for MobileNetV3 that of the docstring in Keras. Licences are those
that Keras' documentation gives for the weights, whose publishers are others: Google (Apache-2.0; not said of
MobileNetV3 and EfficientNetV2, but taken to be the same), the authors of DenseNet and Facebook (BSD-3-Clause), Keras
itself for Xception (MIT). Keras does not say how pictures were cropped and resized: these are the publishers' habits.
"""

from zoo.models.entries import KerasFile, ModelInfo, WeightTag, stages

_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
_KERNELS = "weights_tf_dim_ordering_tf_kernels"

# Mean and standard deviation in 0..255 pixel units, a number a channel.
_TO_ONE = ((127.5,) * 3, (127.5,) * 3)  # preprocess_input's mode "tf", and Rescaling(1 / 127.5, offset=-1)
_RESCALED = ((128.0,) * 3, (128.0,) * 3)  # Rescaling(1 / 128, offset=-1)
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # preprocess_input's mode "torch"


def _row(
    name,
    paper,
    constructor,
    parameters,
    macs,
    boundaries,
    file,
    *,
    top1,
    licence,
    options=None,
    pixels=_TO_ONE,
    image_size=224,
    smallest_size=32,
    crop=0.875,
    interpolation="bilinear",
    classifier="predictions",
):
    """A network with the one file of weights that Keras publishes for it.

    `boundaries` are the first layers of stem, stage1, stage2 and so on; all other numbers are as in `ModelInfo` and
    `WeightTag`. A constructor of None stands for a network that is built here.
    """
    names = stages(len(boundaries) - 1)
    mean, std = pixels
    if constructor is not None:
        builder, numbers = "application", {"constructor": constructor, "options": options or {}}
    else:
        builder, numbers = "mobilenet_v3", options or {}
    tag = WeightTag(
        name=f"keras/{name.removesuffix('_keras')}",
        file=file,
        mean=mean,
        std=std,
        image_size=image_size,
        crop=crop,
        interpolation=interpolation,
        test_size=image_size,
        top1=top1,
        licence=licence,
    )
    return ModelInfo(
        name=name,
        family="applications",
        paper=paper,
        builder=f"zoo.models.applications:{builder}",
        numbers=numbers,
        parameters=parameters,
        classes=1000,
        macs=macs,
        image_size=image_size,
        smallest_size=smallest_size,
        stages=names,
        boundaries=dict(zip(names, boundaries, strict=False)),
        weights=(tag,),
        classifier=classifier,
    )


def _mobilenet_v3(name, parameters, macs, boundaries, blocks, hidden, md5, top1):
    """The convolution behind the pooling is in the file with a classifier only, so that one serves for all numbers of
    classes."""
    return _row(
        name,
        "Howard et al. 2019, https://arxiv.org/abs/1905.02244",
        None,
        parameters,
        macs,
        ("conv", *boundaries),
        KerasFile(
            f"{_URL}/mobilenet_v3",
            f"weights_{name}_224_1.0_float.h5",
            md5,
            None,
        ),
        top1=top1,
        licence="Apache-2.0",
        options={"blocks": blocks, "hidden": hidden},
        classifier="logits",
    )


def _efficientnet_v2(variant, parameters, macs, image_size, md5, md5_classifier, top1):
    small = variant.startswith("b")
    return _row(
        f"efficientnetv2_{variant}",
        "Tan and Le 2021, https://arxiv.org/abs/2104.00298",
        f"EfficientNetV2{variant.upper()}",
        parameters,
        macs,
        ("stem_conv", "block2a_expand_conv", "block3a_expand_conv", "block4a_expand_conv", "block6a_expand_conv"),
        KerasFile(
            f"{_URL}/efficientnet_v2",
            f"efficientnetv2-{variant}_notop.h5",
            md5,
            (f"efficientnetv2-{variant}.h5", md5_classifier),
        ),
        top1=top1,
        licence="Apache-2.0",
        options={"include_preprocessing": False},
        pixels=_IMAGENET if small else _RESCALED,
        image_size=image_size,
        crop=round(image_size / (image_size + 32), 3) if small else 1.0,  # as the publisher evaluates them
        interpolation="bicubic",
    )


def _densenet(depth, parameters, macs, md5, md5_classifier, top1):
    return _row(
        f"densenet{depth}",
        "Huang et al. 2016, https://arxiv.org/abs/1608.06993",
        f"DenseNet{depth}",
        parameters,
        macs,
        ("zero_padding2d", "conv2_block1_0_bn", "pool2_pool", "pool3_pool", "pool4_pool"),
        KerasFile(
            f"{_URL}/densenet",
            f"densenet{depth}_{_KERNELS}_notop.h5",
            md5,
            (f"densenet{depth}_{_KERNELS}.h5", md5_classifier),
        ),
        top1=top1,
        licence="BSD-3-Clause",
        pixels=_IMAGENET,
    )


def _resnet_v2(depth, blocks, parameters, macs, md5, md5_classifier, top1):
    """`blocks` are the depths of the first three groups, whose last block halves the picture."""
    halving = [f"conv{group}_block{block}_preact_bn" for group, block in enumerate(blocks, start=2)]
    return _row(
        f"resnet{depth}_v2",
        "He et al. 2016, https://arxiv.org/abs/1603.05027",
        f"ResNet{depth}V2",
        parameters,
        macs,
        ("conv1_pad", "conv2_block1_preact_bn", *halving),
        KerasFile(
            f"{_URL}/resnet",
            f"resnet{depth}v2_{_KERNELS}_notop.h5",
            md5,
            (f"resnet{depth}v2_{_KERNELS}.h5", md5_classifier),
        ),
        top1=top1,
        licence="BSD-3-Clause",
    )


def _inception(name, paper, constructor, parameters, macs, boundaries, md5, md5_classifier, **others):
    folder = name.removesuffix("_keras")
    return _row(
        name,
        paper,
        constructor,
        parameters,
        macs,
        boundaries,
        KerasFile(
            f"{_URL}/{folder}",
            f"{folder}_{_KERNELS}_notop.h5",
            md5,
            (f"{folder}_{_KERNELS}.h5", md5_classifier),
        ),
        image_size=299,
        **others,
    )


# Tables 1 and 2 of the paper: kernel, expanded channels, channels, squeeze-and-excitation, activation, stride.
_V3_SMALL = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hard_swish", 2),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 120, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 1),
    (5, 288, 96, True, "hard_swish", 2),
    (5, 576, 96, True, "hard_swish", 1),
    (5, 576, 96, True, "hard_swish", 1),
)
_V3_LARGE = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
    (5, 672, 160, True, "hard_swish", 2),
    (5, 960, 160, True, "hard_swish", 1),
    (5, 960, 160, True, "hard_swish", 1),
)

ROWS = (
    _row(
        "mobilenet",
        "Howard et al. 2017, https://arxiv.org/abs/1704.04861",
        "MobileNet",
        4_231_976,
        568_740_352,
        ("conv1", "conv_pad_2", "conv_pad_4", "conv_pad_6", "conv_pad_12"),
        KerasFile(
            f"{_URL}/mobilenet",
            "mobilenet_1_0_224_tf_no_top.h5",
            None,
            ("mobilenet_1_0_224_tf.h5", None),
        ),
        top1=70.4,
        licence="Apache-2.0",
        classifier="conv_preds",
    ),
    _row(
        "mobilenet_v2",
        "Sandler et al. 2018, https://arxiv.org/abs/1801.04381",
        "MobileNetV2",
        3_504_872,
        300_774_272,
        ("Conv1", "block_1_expand", "block_3_expand", "block_6_expand", "block_13_expand"),
        KerasFile(
            f"{_URL}/mobilenet_v2",
            f"mobilenet_v2_{_KERNELS}_1.0_224_no_top.h5",
            None,
            (f"mobilenet_v2_{_KERNELS}_1.0_224.h5", None),
        ),
        top1=71.3,
        licence="Apache-2.0",
    ),
    _mobilenet_v3(
        "mobilenet_v3_small",
        2_542_856,
        56_510_400,
        ("expanded_conv_depthwise", "expanded_conv_1_expand", "expanded_conv_3_expand", "expanded_conv_8_expand"),
        _V3_SMALL,
        1024,
        "8768d4c2e7dee89b9d02b2d03d65d862",
        68.1,
    ),
    _mobilenet_v3(
        "mobilenet_v3_large",
        5_483_032,
        216_589_760,
        ("expanded_conv_1_expand", "expanded_conv_3_expand", "expanded_conv_6_expand", "expanded_conv_12_expand"),
        _V3_LARGE,
        1280,
        "59e551e166be033d707958cf9e29a6a7",
        75.6,
    ),
    _efficientnet_v2(
        "b0",
        7_139_704,
        718_086_176,
        224,
        "893217f2bb855e2983157299931e43ff",
        "21ecbf6da12460d5c40bb2f29ceb2188",
        78.7,
    ),
    _efficientnet_v2(
        "b1",
        8_141_052,
        1_196_819_360,
        240,
        "0e80663031ca32d657f9caa404b6ec37",
        "069f0534ff22adf035c89e2d9547a9dc",
        79.8,
    ),
    _efficientnet_v2(
        "b2",
        10_096_086,
        1_697_542_832,
        260,
        "1dfe2e7a5d45b6632553a8961ea609eb",
        "424e49f28180edbde1e94797771950a7",
        80.5,
    ),
    _efficientnet_v2(
        "b3",
        14_358_406,
        3_011_458_816,
        300,
        "f6abf7b5849ac99a89b50dd3fd532856",
        "1f1fc43bd98a6e4fd8fdfd551e02c7a0",
        82.0,
    ),
    _efficientnet_v2(
        "s",
        21_458_488,
        8_365_617_152,
        384,
        "af0682fb74e8c54910f2d4393339c070",
        "e1d88a8495beba45748fedd0cecbe016",
        83.9,
    ),
    _efficientnet_v2(
        "m",
        54_139_356,
        24_582_460_384,
        480,
        "1b8dc055df72dde80d614482840fe342",
        "a3bf6aa3276309f4fc6a34aa114c95cd",
        85.3,
    ),
    _efficientnet_v2(
        "l",
        118_515_272,
        56_079_699_008,
        480,
        "b0b66b5c863aef5b46e8608fe1711615",
        "27e6d408b53c7ebc868fefa357689935",
        85.7,
    ),
    _densenet(
        121, 7_978_856, 2_834_161_664, "30ee3e1110167f948a6b9946edeeb738", "9d60b8095a5708f2dcce2bca79d332c7", 75.0
    ),
    _densenet(
        169, 14_149_480, 3_359_843_328, "b8c4d4c20dd625c148057b9ff1c1176b", "d699b8f76981ab1b30698df4c175e90b", 76.2
    ),
    _densenet(
        201, 20_013_928, 4_291_365_888, "c13680b51ded0fb44dff2d8f86ac8bb1", "1ceb130c1ea1b78c3bf6114dbdfd8807", 77.3
    ),
    _resnet_v2(
        50,
        (3, 4, 6),
        25_568_360,
        3_482_255_360,
        "fac2f116257151a9d068a22e544a4917",
        "3ef43a0b657b3be2300d5770ece849e0",
        76.0,
    ),
    _resnet_v2(
        101,
        (3, 4, 23),
        44_577_896,
        7_194_476_544,
        "c0ed64b8031c3730f411d2eb4eea35b5",
        "6343647c601c52e1368623803854d971",
        77.2,
    ),
    _resnet_v2(
        152,
        (3, 8, 36),
        60_236_904,
        10_906_697_728,
        "ed17cf2e0169df9d443503ef94b23b33",
        "a49b44d1979771252814e80f8ec446f9",
        78.0,
    ),
    _inception(
        "inception_v3_keras",
        "Szegedy et al. 2015, https://arxiv.org/abs/1512.00567",
        "InceptionV3",
        23_817_352,
        5_713_216_096,
        ("conv2d", "max_pooling2d_1", "conv2d_27", "conv2d_72"),
        "bcbd6486424b2319ff4ef7d526e38f63",
        "9a0d58056eeedaa3f26cb7ebd46da564",
        top1=77.9,
        licence="Apache-2.0",
        smallest_size=75,
    ),
    _inception(
        "inception_resnet_v2_keras",
        "Szegedy et al. 2016, https://arxiv.org/abs/1602.07261",
        "InceptionResNetV2",
        55_813_192,
        13_155_794_016,
        ("conv2d", "max_pooling2d_1", "conv2d_73", "conv2d_160"),
        "d19885ff4a710c122648d3b5c3b684e4",
        "e693bd0210a403b3192acc6073ad2e96",
        top1=80.3,
        licence="Apache-2.0",
        smallest_size=75,
    ),
    _inception(
        "xception",
        "Chollet 2016, https://arxiv.org/abs/1610.02357",
        "Xception",
        22_855_952,
        8_379_312_808,
        ("block1_conv1", "block2_sepconv1", "block3_sepconv1_act", "block4_sepconv1_act", "block13_sepconv1_act"),
        "b0042744bf5b25fce3cb969f33bebb97",
        "0a58e3b7378bc2990ea3b43d5981f1f6",
        top1=79.0,
        licence="MIT",
        smallest_size=71,
    ),
)
