"""Residual networks in the layout of torchvision's and timm's files."""

from collections.abc import Sequence


def resnet(names: Sequence[str]) -> dict[str, str]:
    """`stage2_block1_b_bn` is `layer2.0.bn2`; a shortcut is `downsample`, convolution first.

    Example:
        >>> resnet(["stem_conv", "stage2_block1_b_bn", "stage2_block1_shortcut_bn", "head_dense"])
        ... # doctest: +NORMALIZE_WHITESPACE
        {'stem_conv': 'conv1', 'stage2_block1_b_bn': 'layer2.0.bn2',
         'stage2_block1_shortcut_bn': 'layer2.0.downsample.1', 'head_dense': 'fc'}
    """
    fixed = {"stem_conv": "conv1", "stem_bn": "bn1", "head_dense": "fc"}
    return {name: fixed.get(name) or _in_block(name) for name in names}


def _in_block(name):
    stage, block, part, kind = name.split("_")
    prefix = f"layer{stage.removeprefix('stage')}.{_before(block)}"
    return f"{prefix}.downsample.{('conv', 'bn').index(kind)}" if part == "shortcut" else f"{prefix}.{kind}{_nth(part)}"


def resnetv2(names: Sequence[str]) -> dict[str, str]:
    """timm's only: `stage2_block1_b_bn` is `stages.1.blocks.0.norm2`; the classifier is a 1x1 convolution.

    Example:
        >>> resnetv2(["stage2_block1_b_bn", "stage4_bn"])
        {'stage2_block1_b_bn': 'stages.1.blocks.0.norm2', 'stage4_bn': 'norm'}
    """
    fixed = {"stem_conv": "stem.conv", "head_dense": "head.fc"}
    return {name: fixed.get(name) or _in_preactivated_block(name) for name in names}


def _in_preactivated_block(name):
    stage, *rest = name.split("_")
    if rest == ["bn"]:
        return "norm"
    block, part, kind = rest
    prefix = f"stages.{_before(stage)}.blocks.{_before(block)}"
    word = {"conv": "conv", "bn": "norm"}[kind]
    return f"{prefix}.downsample.conv" if part == "shortcut" else f"{prefix}.{word}{_nth(part)}"


def _before(word):
    """ "stage2" or "block2" -> 1: we count from one, the files from zero."""
    return int(word.removeprefix("stage").removeprefix("block")) - 1


def _nth(part):
    return "abc".index(part) + 1
