"""Plain convolutional networks in the layout of torchvision's and timm's files.

The features are numbered through, from the convolutions and batch normalisations to the activations and poolings, which
have no tensors.
"""

from collections.abc import Sequence

# Channels, height and width of the map that the first hidden layer of torchvision's files takes as one long row.
FLATTENED = {"vgg": (512, 7, 7), "alexnet": (256, 6, 6)}


def vgg(names: Sequence[str]) -> dict[str, str | tuple[str, ...]]:
    """timm calls the hidden layers `pre_logits.fc1` and `fc2`; torchvision numbers them with their dropouts.

    Example:
        >>> vgg(["stem_conv1", "stage1_conv1", "stage1_conv2", "stage2_fc1"])
        ... # doctest: +NORMALIZE_WHITESPACE
        {'stem_conv1': 'features.0', 'stage1_conv1': 'features.3', 'stage1_conv2': 'features.5',
         'stage2_fc1': ('pre_logits.fc1', 'classifier.0')}
    """
    hidden = {"fc1": ("pre_logits.fc1", "classifier.0"), "fc2": ("pre_logits.fc2", "classifier.3")}
    return _numbered(names, {**hidden, "dense": ("head.fc", "classifier.6")})


def alexnet(names: Sequence[str]) -> dict[str, str | tuple[str, ...]]:
    """torchvision's: each dropout stands before its hidden layer and is numbered with it."""
    return _numbered(names, {"fc1": "classifier.1", "fc2": "classifier.4", "dense": "classifier.6"})


def _numbered(names, classifier):
    prefixes, number, here = {}, 0, "stem"
    for name in names:
        stage, part = name.split("_", 1)
        if part in classifier:
            prefixes[name] = classifier[part]
            continue
        if stage != here:  # the pooling
            number, here = number + 1, stage
        if part.startswith("conv"):
            prefixes[name] = f"features.{number}"
            number += 2  # the convolution and its activation
        else:  # the batch normalisation moves the activation on
            prefixes[name] = f"features.{number - 1}"
            number += 1
    return prefixes
