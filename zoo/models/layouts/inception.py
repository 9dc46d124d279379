"""Inception networks: GoogLeNet in the layout of torchvision's files, the others in that of timm's."""

import re
from collections.abc import Sequence

# What files hold besides, by its beginning: auxiliary classifiers, which serve in training alone.
IGNORED = {
    "googlenet": ("aux1.", "aux2."),
    "inception_v3": ("AuxLogits.",),
}

# Branches of GoogLeNet's modules as the paper names them -> as torchvision does.
_BRANCHES = {
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}


def googlenet(names: Sequence[str]) -> dict[str, str]:
    """Branches are numbered, and so are the convolutions in those that have several.

    Example:
        >>> googlenet(["stem_conv1_bn", "stage1_3a_5x5_reduce_conv"])
        {'stem_conv1_bn': 'conv1.bn', 'stage1_3a_5x5_reduce_conv': 'inception3a.branch3.0.conv'}
    """

    def place(stage, module, branch):
        return module if stage == "stem" else f"inception{module}.{_BRANCHES[branch]}"

    return _prefixes(names, place, classifier="fc")


def inception_v3(names: Sequence[str]) -> dict[str, str]:
    """Modules and branches bear our names.

    Example:
        >>> inception_v3(["stem_1a_3x3_bn", "stage1_5b_branch5x5_1_conv"])
        {'stem_1a_3x3_bn': 'Conv2d_1a_3x3.bn', 'stage1_5b_branch5x5_1_conv': 'Mixed_5b.branch5x5_1.conv'}
    """

    def place(stage, module, branch):
        return f"Conv2d_{module}_{branch}" if stage == "stem" else f"Mixed_{module}.{branch}"

    return _prefixes(names, place, classifier="fc")


def inception_v4(names: Sequence[str]) -> dict[str, str]:
    """Modules are numbered through the network, a reduction before those of its stage.

    Example:
        >>> inception_v4(["stem_2_bn", "stage2_reduction_branch0_conv", "stage3_module1_fork2_3a_bn"])
        ... # doctest: +NORMALIZE_WHITESPACE
        {'stem_2_bn': 'features.2.bn', 'stage2_reduction_branch0_conv': 'features.10.branch0.conv',
         'stage3_module1_fork2_3a_bn': 'features.19.branch2_3a.bn'}
    """
    first = {"stem": 0, "stage1": 5, "stage2": 10, "stage3": 18}

    def place(stage, module, branch):
        number = 0 if module == "reduction" else int(module.removeprefix("module"))
        prefix = f"features.{first[stage] + number}"
        return f"{prefix}.{_numbered(branch)}" if branch else prefix

    return _prefixes(names, place, classifier="last_linear")


def inception_resnet_v2(names: Sequence[str]) -> dict[str, str]:
    """The blocks of a stage are a `repeat`, but for the very last, which stands on its own.

    Example:
        >>> inception_resnet_v2(["stage1_5b_branch1_0_bn", "stage2_block3_conv2d", "stage3_block10_branch0_bn"])
        ... # doctest: +NORMALIZE_WHITESPACE
        {'stage1_5b_branch1_0_bn': 'mixed_5b.branch1.0.bn', 'stage2_block3_conv2d': 'repeat_1.2.conv2d',
         'stage3_block10_branch0_bn': 'block8.branch0.bn'}
    """
    repeats = {"stage1": "repeat", "stage2": "repeat_1", "stage3": "repeat_2"}

    def place(stage, module, branch):
        if (stage, module) == ("stage3", "block10"):
            prefix = "block8"
        elif module.startswith("block"):
            prefix = f"{repeats[stage]}.{int(module.removeprefix('block')) - 1}"
        else:
            prefix = f"mixed_{module}" if branch else f"conv2d_{module}"
        return f"{prefix}.{_numbered(branch)}" if branch else prefix

    return _prefixes(names, place, classifier="classif")


def _prefixes(names, place, *, classifier):
    """Our names are `<stage>_<module>[_<branch>]_<kind>`; `place` says where a branch of a module is in the file."""
    prefixes = {}
    for name in names:
        if name == "head_dense":
            prefixes[name] = classifier
            continue
        stage, rest = name.split("_", 1)
        rest, kind = rest.rsplit("_", 1)
        module, _, branch = rest.partition("_")
        prefixes[name] = f"{place(stage, module, branch)}.{kind}"
    return prefixes


def _numbered(branch):
    """timm numbers the convolutions of a branch behind a point, unless the branch forks at its end."""
    return re.sub(r"^branch(\d)_", r"branch\1.", branch).replace("fork", "branch")
