"""Networks of keras.applications."""

from zoo.models.entries import KerasFile, ModelInfo, WeightTag, stages

_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"

ROWS = (
    ModelInfo(
        name="mobilenet_v2",
        family="applications",
        paper="Sandler et al. 2018, https://arxiv.org/abs/1801.04381",
        builder="zoo.models.applications:application",
        numbers={"constructor": "MobileNetV2", "options": {}},
        parameters=3_504_872,
        classes=1000,
        macs=300_774_272,
        image_size=224,
        smallest_size=32,
        stages=stages(4),
        boundaries={
            "stem": "Conv1",
            "stage1": "block_1_expand",
            "stage2": "block_3_expand",
            "stage3": "block_6_expand",
            "stage4": "block_13_expand",
        },
        weights=(
            WeightTag(
                name="keras/mobilenet_v2",
                file=KerasFile(
                    f"{_KERAS_URL}/mobilenet_v2",
                    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
                    None,
                    ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5", None),
                ),
                mean=(127.5, 127.5, 127.5),
                std=(127.5, 127.5, 127.5),
                image_size=224,
                crop=0.875,
                interpolation="bilinear",
                test_size=224,
                top1=71.3,
                licence="Apache-2.0",
            ),
        ),
    ),
    ModelInfo(
        name="efficientnetv2_b0",
        family="applications",
        paper="Tan and Le 2021, https://arxiv.org/abs/2104.00298",
        builder="zoo.models.applications:application",
        numbers={"constructor": "EfficientNetV2B0", "options": {"include_preprocessing": False}},
        parameters=7_139_704,
        classes=1000,
        macs=718_086_176,
        image_size=224,
        smallest_size=32,
        stages=stages(4),
        boundaries={
            "stem": "stem_conv",
            "stage1": "block2a_expand_conv",
            "stage2": "block3a_expand_conv",
            "stage3": "block4a_expand_conv",
            "stage4": "block6a_expand_conv",
        },
        weights=(
            WeightTag(
                name="keras/efficientnetv2_b0",
                file=KerasFile(
                    f"{_KERAS_URL}/efficientnet_v2",
                    "efficientnetv2-b0_notop.h5",
                    "893217f2bb855e2983157299931e43ff",
                    ("efficientnetv2-b0.h5", "21ecbf6da12460d5c40bb2f29ceb2188"),
                ),
                mean=(123.675, 116.28, 103.53),
                std=(58.395, 57.12, 57.375),
                image_size=224,
                crop=0.875,
                interpolation="bicubic",
                test_size=224,
                top1=78.7,
                licence="Apache-2.0",
            ),
        ),
    ),
)
