"""A perceptual hash: pictures that show the same have nearly the same, however they were saved or scaled.

After the DCT hash of Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions". Departures: 120
signs instead of 64, the mean colour beside them, and no hash at all where the signs would be those of noise.
"""

import numpy as np
from PIL import Image

SIDE = 32  # of the square that is transformed
SMALLEST = 16  # pixels of the shorter side; below that, too little is left to tell pictures apart
FREQUENCIES = 11  # along each side; 11 * 11 without the mean leave 120 signs
WEAKEST = 5.0  # an amplitude that JPEG's own noise reaches; where half are below, saving again flips signs at will
SIGN_BYTES = 15
COLOUR_BYTES = 2


def perceptual_hash(
    image: Image.Image,
    box: tuple[float, float, float, float] | None = None,
    turn: Image.Transpose | None = None,
) -> str:
    """34 hexadecimal digits: the signs of 120 low frequencies, then the mean of both chromas.

    Args:
        image: A picture of mode RGB, of whatever size.
        box: The part of `image` that counts; all of it by default.
        turn: What brings the picture upright; nothing by default.

    Returns:
        "" for pictures without enough structure, such as plain colours and fades, and for tiny ones.
    """
    if min(image.size if box is None else box[2:]) < SMALLEST:
        return ""
    small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box, reducing_gap=3.0)  # others shift small pictures
    if turn is not None:
        small = small.transpose(turn)
    pixels = np.asarray(small.convert("YCbCr"), np.float32)  # (SIDE, SIDE, 3)
    waves = (COSINES @ pixels[..., 0] @ COSINES.T).ravel()[1:]
    if 2 * np.count_nonzero(np.abs(waves) >= WEAKEST) < waves.size:
        return ""
    colour = MEAN @ pixels.reshape(-1, 3)
    return np.packbits(waves > 0).tobytes().hex() + np.rint(colour[1:]).astype(np.uint8).tobytes().hex()


def _cosines() -> np.ndarray:
    """The first rows of the orthonormal DCT-II: (FREQUENCIES, SIDE)."""
    k, x = np.arange(FREQUENCIES)[:, np.newaxis], np.arange(SIDE)
    rows = np.cos(np.pi * k * (2 * x + 1) / (2 * SIDE)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


COSINES = _cosines()
MEAN = np.full(SIDE * SIDE, 1 / SIDE**2, np.float32)  # many times quicker than `mean` on a picture so small
