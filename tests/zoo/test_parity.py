"""The same numbers as other implementations of the same networks, from the same weights."""

import json
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from zoo.models.catalog import info
from zoo.models.registry import create

REFERENCE = Path(__file__).parents[1] / "reference"
SHORT = {"resnet18", "resnet50", "resnetv2_50", "googlenet"}


def outputs(model, images):
    """What the model gives, without the seconds that `predict` takes to trace a large graph."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(images, training=False))


def portable(name, count):
    """`count` numbers in [-1, 1) that depend on a name alone, the same on every machine."""
    h = np.arange(count, dtype=np.uint32)  # which wraps around, as the hash wants it
    h *= np.uint32(2654435761)
    h += np.uint32(zlib.crc32(name.encode()))
    h ^= h >> 16
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> 13
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> 16
    return h / 2**31 - 1.0


def filled(name, shape):
    """Values for a tensor of a public checkpoint, by its name, shape and role."""
    u = portable(name, int(np.prod(shape))).reshape(shape)
    if name.endswith("running_var"):
        return 1.0 + 0.3 * u
    if name.endswith(("running_mean", "bias")):
        return 0.1 * u
    if len(shape) <= 1:
        return 1.0 + 0.2 * u
    return u * np.sqrt(6.0 / np.prod(shape[1:])) * 0.7


def checkpoint(golden, path):
    """Writes the filled tensors of a public model as the file that users have; returns its path."""
    save_file({key: filled(key, shape).astype(np.float32) for key, shape in golden["state_dict"].items()}, path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        path.stem if path.stem in SHORT else pytest.param(path.stem, marks=[pytest.mark.slow, pytest.mark.long])
        for path in sorted(REFERENCE.glob("*.json"))
    ],
)
def test_public_file_gives_the_logits_of_its_publisher(name, tmp_path):
    golden = json.loads((REFERENCE / f"{name}.json").read_text())
    size = golden["image_size"]
    path = checkpoint(golden, tmp_path / "model.safetensors")
    model = create(
        name,
        classes=1000,
        input_shape=(size, size, 3),
        weights=path,
        normalization=(0, 1),
        classifier_activation=None,
    )
    path.unlink()  # half a gigabyte for some
    assert info(name).parameters == golden["parameters"]
    image = portable(f"image{size}", size * size * 3).reshape(1, size, size, 3)
    logits = outputs(model, image)[0]
    expected = np.array(golden["logits"])
    assert np.linalg.norm(logits - expected) / np.linalg.norm(expected) < 1e-4
