"""What many tests share: real pictures made small, and the places of data that does not come with the project."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def pytest_configure():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="module", autouse=True)
def rubbish():
    """Cleared away file by file: networks are rings of references, and TensorFlow keeps much of what it was told.

    What is left then stays to the end, and need not be looked through again; that took a seventh of the time.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """Caches of the tests' own, which begin empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def zoo_data():
    """The folder that real data sets were unpacked into."""
    if "ZOO_DATA" not in os.environ:
        pytest.skip("ZOO_DATA is not set: real pictures are not at hand")
    return Path(os.environ["ZOO_DATA"])


@pytest.fixture(scope="session")
def digit_pictures():
    """A few of scikit-learn's handwritten digits as uint8 (n, 8, 8), with their labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(n_class=3, return_X_y=True)
    return np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), labels


@pytest.fixture
def photos(tmp_path, digit_pictures):
    """A folder of photos: three classes of twelve PNG and JPEG files of several sizes."""
    root = tmp_path / "photos"
    images, labels = digit_pictures
    for label, name in enumerate(("nought", "one", "two")):
        (root / name).mkdir(parents=True)
        for i, pixels in enumerate(images[labels == label][:12]):
            picture = Image.fromarray(pixels).convert("RGB").resize((24 + i, 20), Image.Resampling.NEAREST)
            picture.save(root / name / f"{i:02d}.{'png' if i % 2 else 'jpg'}")
    return root


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """A Keras cache that holds the real weights."""
    if "ZOO_WEIGHTS" not in os.environ:
        pytest.skip("ZOO_WEIGHTS is not set: real ImageNet weights are not at hand")
    home = tmp_path / "keras"
    home.mkdir()
    (home / "models").symlink_to(os.environ["ZOO_WEIGHTS"])
    monkeypatch.setenv("KERAS_HOME", str(home))
