import keras
import numpy as np
import pytest
from PIL import Image

import augment
from augment.previewing import DRAWS


def shown(figure):
    """The pictures of a figure, row by row."""
    columns = DRAWS + 1
    found = [axis.get_images()[0].get_array().data for axis in figure.axes]
    return [found[start : start + columns] for start in range(0, len(found), columns)]


def test_a_row_holds_the_original_and_what_eight_epochs_see(pictures, tmp_path):
    medium = augment.policy("medium", 24, seed=2)
    figure = augment.preview(medium, pictures[:3], numbers=[7, 0, 5])
    rows = shown(figure)
    assert len(rows) == 3
    for row, picture, number in zip(rows, pictures, [7, 0, 5], strict=False):
        assert np.array_equal(row[0], picture)
        for epoch in (0, 7):
            seen = medium(picture[np.newaxis], training=True, keys=[[epoch, number]])
            assert np.abs(row[1 + epoch].astype(int) - keras.ops.convert_to_numpy(seen)[0]).max() <= 1
    assert [axis.get_title() for axis in figure.axes[:3]] == ["original", "epoch 1", "epoch 2"]
    figure.savefig(tmp_path / "preview.png")
    with Image.open(tmp_path / "preview.png") as image:
        assert image.width > image.height


def test_pictures_may_have_sizes_of_their_own_and_be_grey_or_floats(pictures):
    images = [pictures[0, :12].astype("float32"), pictures[1, :, :8, :1]]
    rows = shown(augment.preview(augment.policy("heavy", 24), images))
    assert [row[1].shape for row in rows] == [(12, 20, 3), (24, 8)]
    assert all(picture.dtype == np.uint8 for row in rows for picture in row)


@pytest.mark.parametrize("images", [[], np.zeros((8, 8, 3))])
def test_what_is_no_pictures_is_refused(images):
    with pytest.raises(ValueError, match="`images` must hold at least one picture"):
        augment.preview(augment.policy("light"), images)


def test_each_picture_needs_a_number(pictures):
    with pytest.raises(ValueError, match="one a picture. Received: 1 numbers for 2 pictures"):
        augment.preview(augment.policy("light"), pictures[:2], numbers=[0])
