"""Inception networks: GoogLeNet as torchvision's checkpoints name it, the others as timm's do.

A rule takes the name of a layer that has weights to the beginning of its tensors' names, so that
"stage1_5b_branch5x5_1_conv" of Inception-v3 reads "Mixed_5b.branch5x5_1.conv.weight".
"""

import re

# What checkpoints hold besides, by beginning: the auxiliary classifiers, which only training used.
IGNORED = {
    "googlenet": ("aux1.", "aux2."),
    "inception_v3": ("AuxLogits.",),
}

# The paper's names of GoogLeNet's convolutions, and torchvision's.
_GOOGLENET = {
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}


def googlenet(layer_name: str) -> str:
    """
    >>> googlenet("stage1_3a_5x5_reduce_bn")
    'inception3a.branch3.0.bn'
    """
    if layer_name == "head_dense":
        return "fc"
    stage, place, kind = _split(layer_name)
    if stage == "stem":
        return f"{place}.{kind}"
    module, branch = place.split("_", 1)
    return f"inception{module}.{_GOOGLENET[branch]}.{kind}"


def inception_v3(layer_name: str) -> str:
    """
    >>> inception_v3("stem_1a_3x3_conv")
    'Conv2d_1a_3x3.conv'
    """
    if layer_name == "head_dense":
        return "fc"
    stage, place, kind = _split(layer_name)
    if stage == "stem":
        return f"Conv2d_{place}.{kind}"
    module, branch = place.split("_", 1)
    return f"Mixed_{module}.{branch}.{kind}"


def inception_v4(layer_name: str) -> str:
    """Modules are counted through the whole network; a branch that forks at its end is no sequence.

    >>> inception_v4("stage2_module1_branch2_3_bn"), inception_v4("stage3_module1_fork2_3_bn")
    ('features.11.branch2.3.bn', 'features.19.branch2_3.bn')
    """
    if layer_name == "head_dense":
        return "last_linear"
    stage, place, kind = _split(layer_name)
    module, _, branch = place.partition("_")
    first = {"stem": 0, "stage1": 5, "stage2": 10, "stage3": 18}[stage]
    number = first + int(module.removeprefix("module").replace("reduction", "0"))
    return ".".join(part for part in ("features", str(number), _branch(branch), kind) if part)


def inception_resnet_v2(layer_name: str) -> str:
    """The last block of stage 3 stands on its own; the convolution in front of an addition has no normalisation.

    >>> inception_resnet_v2("stage2_block3_branch1_2_bn"), inception_resnet_v2("stage1_block1_up_conv")
    ('repeat_1.2.branch1.2.bn', 'repeat.0.conv2d')
    """
    if layer_name == "head_dense":
        return "classif"
    stage, place, kind = _split(layer_name)
    module, _, branch = place.partition("_")
    if not branch:
        return f"conv2d_{module}.{kind}"
    if module.startswith("block"):
        number = int(module.removeprefix("block"))
        repeat = {"stage1": "repeat", "stage2": "repeat_1", "stage3": "repeat_2"}[stage]
        module = "block8" if (stage, number) == ("stage3", 10) else f"{repeat}.{number - 1}"
    else:
        module = f"mixed_{module}"
    return f"{module}.conv2d" if branch == "up" else f"{module}.{_branch(branch)}.{kind}"


def _split(layer_name):
    """Stage, place in it, and what the layer is: "conv" or "bn"."""
    stage, rest = layer_name.split("_", 1)
    return stage, *rest.rsplit("_", 1)


def _branch(name):
    """Where a branch is a sequence, its convolutions have numbers behind a point."""
    return re.sub(r"^branch(\d)_", r"branch\1.", name).replace("fork", "branch")
