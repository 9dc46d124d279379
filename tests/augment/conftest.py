import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures(digit_pictures):
    """Handwritten digits in three colours, uint8 (12, 24, 20, 3)."""
    digits = [Image.fromarray(image).resize((20, 24), Image.Resampling.BICUBIC) for image in digit_pictures[0][:12]]
    return np.stack([np.stack([image, np.flip(image), 255 - np.asarray(image)], -1) for image in map(np.array, digits)])
