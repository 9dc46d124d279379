"""What a row of the catalog and a set of published weights are. Importing this costs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class KerasFile:
    """A file of keras.applications, kept in Keras' own cache.

    Attributes:
        url: Folder that files are fetched from.
        name: File of the features, without a classifier; of the whole network where `classifier` is None.
        md5: Checksum of that file, where its publisher gives one.
        classifier: The same as (name, md5) for the file that holds the classifier too; it is used where the number of
            classes is that of the row.
    """

    url: str
    name: str
    md5: str | None
    classifier: tuple[str, str | None] | None


@dataclass(frozen=True)
class HubFile:
    """A safetensors file in a repository of the Hugging Face hub, kept in the hub's own cache.

    Attributes:
        repository: Owner and name.
        revision: Commit that is meant; "main" where none is pinned.
        sha256: Checksum of the file, where it is known beforehand; the hub's own is always checked.
        name: File in the repository.
    """

    repository: str
    revision: str = "main"
    sha256: str | None = None
    name: str = "model.safetensors"


@dataclass(frozen=True)
class WeightTag:
    """Published weights of one model, and how pictures must look for them.

    Attributes:
        name: What `create(weights=...)` takes: source and recipe.
        file: Where the weights are.
        mean, std: Normalisation in 0..255 pixel units, a number a channel.
        image_size: Side of the training pictures in pixels.
        crop: Share of the shorter side that the centre crop keeps.
        interpolation: How pictures were resized: "bilinear" or "bicubic".
        test_size: Side of the pictures that `top1` was measured on, in pixels.
        top1: ImageNet top-1 accuracy in percent, as published.
        licence: SPDX name of the weights' licence.
    """

    name: str
    file: KerasFile | HubFile
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    crop: float
    interpolation: str
    test_size: int
    top1: float
    licence: str


@dataclass(frozen=True)
class ModelInfo:
    """One row of the catalog.

    Attributes:
        name: What `create` takes; also the name of the Keras model.
        family: "convolutional", "inception", "residual" or "applications".
        paper: Where the network comes from.
        builder: Function from normalised pictures to features, as "module:function".
        numbers: Arguments of the builder that make this variant; the others are what `create` takes for the network.
        parameters: Trainable parameters, as published, with `classes` classes and `channels` channels.
        classes: Number of classes of the published network.
        macs: Multiply-adds of convolutions and dense layers for one picture of `image_size`.
        image_size: Side of the picture that the network was made for, in pixels; the default of `create`.
        smallest_size: Smallest side that is accepted, in pixels.
        channels: Channels that the network was made for; the default of `create`.
        stages: Names of the stages from input to output.
        weights: Published weights, the best first.
        unpublished: Why there are none, where a reader would expect some.
        layout: Rule from layer names to the names in public safetensors files, as "module:function"; None where there
            are no such files.
        boundaries: First layer of each stage, where layers keep names of their own; empty where names tell.
        classifier: Layer of a Keras weight file that goes into `head_dense`.
    """

    name: str
    family: str
    paper: str
    builder: str
    parameters: int
    classes: int
    macs: int
    image_size: int
    smallest_size: int
    stages: tuple[str, ...]
    channels: int = 3
    numbers: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[WeightTag, ...] = ()
    unpublished: str = ""
    layout: str | None = None
    boundaries: Mapping[str, str] = field(default_factory=dict)
    classifier: str = "predictions"

    def __str__(self):
        lines = [
            f"{self.name} ({self.family})",
            f"  paper        {self.paper}",
            f"  parameters   {self.parameters:,} with {self.classes} classes",
            f"  macs         {self.macs:,} at {self.image_size} pixels",
            f"  image size   {self.image_size}, at least {self.smallest_size}",
            f"  stages       {', '.join(self.stages)}",
        ]
        tags = [f"{tag.name}: top-1 {tag.top1:.1f} % at {tag.test_size} pixels, {tag.licence}" for tag in self.weights]
        return "\n".join(lines + [f"  weights      {tag}" for tag in tags or [self.unpublished or "none"]])


def stages(count: int) -> tuple[str, ...]:
    """Names of the stages of a network with `count` of them between stem and head."""
    return ("stem", *(f"stage{k}" for k in range(1, count + 1)), "head")
