"""Moving pictures about, against SciPy in float64 and against what is plain to see."""

import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from augment import RandomAffine
from augment.affine import matrix, resampled
from augment.draws import Draws

HEIGHT, WIDTH = 40, 64
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
CENTRE = np.array([WIDTH - 1, HEIGHT - 1]) / 2  # x, y
PICTURES = {
    "smooth": 128 + 60 * np.sin(COLUMNS / 9 + ROWS / 14) + 50 * np.cos(ROWS / 7 - COLUMNS / 23),
    "noise": np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH)).astype(np.float64),
}
CHANGES = [
    {"rotation": 0.6},
    {"rotation": -2.5},
    {"zoom": 1.7},
    {"zoom": 0.6},
    {"shear_x": 0.4},
    {"shear_y": -0.3},
    {"flip_x": -1},
    {"flip_y": -1},
    {"shift_x": 5.3, "shift_y": -7.6},
    {"flip_x": -1, "shear_x": 0.3, "shear_y": 0.2, "zoom": 0.8, "rotation": 0.7, "shift_x": -6.2, "shift_y": 3.4},
]


def moved(picture, fill="reflect", interpolation="bilinear", **changes):
    """Our resampling of (h, w), as numpy."""
    given = {name: np.full((1, 1, 1, 1), value, np.float32) for name, value in {"rotation": 0, **changes}.items()}
    places = matrix(tuple(np.float32(side) for side in picture.shape), **given)
    images = ops.convert_to_tensor(picture[np.newaxis, :, :, np.newaxis].astype(np.float32))
    return ops.convert_to_numpy(resampled(images, places, fill=fill, interpolation=interpolation))[0, :, :, 0]


def change(linear=((1, 0), (0, 1)), shift=(0, 0)):
    """A change of places (x, y, 1) about the centre, as a matrix."""
    about = np.array(linear)
    return np.block([[about, (CENTRE - about @ CENTRE + shift)[:, np.newaxis]], [np.array([[0, 0, 1]])]])


def composed(rotation=0.0, flip_x=1, flip_y=1, zoom=1.0, shear_x=0.0, shear_y=0.0, shift_x=0.0, shift_y=0.0):
    """Mirror, slant, zoom, turn, shift, one after another: where a place of the input goes."""
    cos, sin = np.cos(rotation), np.sin(rotation)
    return (
        change(shift=(shift_x, shift_y))
        @ change([[cos, sin], [-sin, cos]])  # rows count downwards
        @ change([[zoom, 0], [0, zoom]])
        @ change([[1, shear_x], [shear_y, 1]])
        @ change([[flip_x, 0], [0, flip_y]])
    )


def by_scipy(picture, change, mode, fill=0.0):
    """The picture after a change of places, read bilinearly."""
    back = np.linalg.inv(change)
    places = np.stack([COLUMNS, ROWS, np.ones_like(ROWS)], -1) @ back[:2].T
    return ndimage.map_coordinates(picture, places.T[::-1].swapaxes(1, 2), order=1, mode=mode, cval=fill)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize(
    ("fill", "mode"),
    [("reflect", "reflect"), ("nearest", "nearest"), (77.0, "grid-constant")],
)
@pytest.mark.parametrize("name", PICTURES)
def test_every_change_is_that_of_scipy(name, fill, mode, changes):
    ours = moved(PICTURES[name], fill, **changes)
    theirs = by_scipy(PICTURES[name], composed(**changes), mode, 77.0)
    apart = np.abs(ours - theirs)
    assert apart.mean() < 5e-4  # of 255; 2e-4 is reached
    assert apart.max() < 5e-3
    assert np.abs(theirs - PICTURES[name]).mean() > 5


@pytest.mark.parametrize("seed", [0, 3])
def test_the_layer_mirrors_slants_zooms_turns_and_shifts_in_this_order(seed):
    layer = RandomAffine("both", rotation=30, zoom=(0.7, 1.6), shear=0.3, shift=0.2, fill="reflect", seed=seed)
    images = np.repeat(PICTURES["smooth"][np.newaxis, :, :, np.newaxis], 12, axis=0).astype(np.float32)
    keys = np.stack([np.full(12, 5), np.arange(12)], 1)
    out = ops.convert_to_numpy(layer(images, training=True, keys=keys))[..., 0]
    angle, low, high = np.radians(30), np.log(0.7), np.log(1.6)
    bounds = [(0, 1), (0, 1), (-0.2, 0.2), (-0.2, 0.2), (-angle, angle), (low, high), (-0.3, 0.3)]
    drawn = Draws(seed, "affine").uniforms(images, keys, bounds, first=1)
    for picture, row in zip(out, np.stack([ops.convert_to_numpy(values).ravel() for values in drawn], 1), strict=True):
        top, left, shift_x, shift_y, rotation, zoom, shear = row.astype(np.float64)
        forward = composed(
            rotation,
            flip_x=-1 if left < 0.5 else 1,
            flip_y=-1 if top < 0.5 else 1,
            zoom=np.exp(zoom),
            shear_x=shear,
            shift_x=shift_x * WIDTH,
            shift_y=shift_y * HEIGHT,
        )
        assert np.abs(picture - by_scipy(PICTURES["smooth"], forward, "reflect")).max() < 5e-3


def test_a_turn_is_counter_clockwise_as_seen():
    square = PICTURES["noise"][:, 12:52]
    assert np.abs(moved(square, rotation=np.pi / 2) - np.rot90(square)).max() < 0.02
    oblong = moved(PICTURES["noise"], rotation=np.pi / 2)  # its middle turns as a square does
    assert np.abs(oblong[:, 12:52] - np.rot90(square)).max() < 0.02


def disc(radius, x=CENTRE[0], y=CENTRE[1]):
    return 255.0 * (np.hypot(COLUMNS - x, ROWS - y) < radius)


def measured(picture):
    """Centre and half widths of a bright spot: x, y, along x, along y. A disc's half width is twice the deviation."""
    weights = picture / picture.sum()
    x, y = (weights * COLUMNS).sum(), (weights * ROWS).sum()
    return x, y, 2 * np.sqrt((weights * (COLUMNS - x) ** 2).sum()), 2 * np.sqrt((weights * (ROWS - y) ** 2).sum())


def test_a_zoom_of_two_doubles_a_disc():
    x, y, along_x, along_y = measured(moved(disc(7), zoom=2))
    assert (x, y) == pytest.approx(CENTRE, abs=0.01)
    assert (along_x, along_y) == pytest.approx((14, 14), abs=0.3)


@pytest.mark.parametrize("rotation", [0.4, np.pi / 2, -2.0])
def test_a_disc_in_an_oblong_picture_stays_a_disc_when_turned(rotation):
    x, y, along_x, along_y = measured(moved(disc(6, CENTRE[0] + 11, CENTRE[1]), rotation=rotation))
    assert (along_x, along_y) == pytest.approx((6, 6), abs=0.2)
    assert x == pytest.approx(CENTRE[0] + 11 * np.cos(rotation), abs=0.05)
    assert y == pytest.approx(CENTRE[1] - 11 * np.sin(rotation), abs=0.05)


def test_a_shear_moves_rows_to_the_right_below_the_middle_and_to_the_left_above():
    for row, by in ((30, 0.25 * 10.5), (9, -0.25 * 10.5)):
        spot = disc(2, y=row)
        assert measured(moved(spot, shear_x=0.25))[:2] == pytest.approx((CENTRE[0] + by, row), abs=0.06)


def test_a_shear_along_y_moves_columns_down_on_the_right():
    spot = disc(2, x=CENTRE[0] + 12)
    assert measured(moved(spot, shear_y=0.25))[:2] == pytest.approx((CENTRE[0] + 12, CENTRE[1] + 3), abs=0.06)


def test_shifts_are_to_the_right_and_downwards():
    out = moved(PICTURES["noise"], shift_x=5, shift_y=3)
    assert np.abs(out[3:, 5:] - PICTURES["noise"][:-3, :-5]).max() < 0.02


def changes_of(**given):
    """Of 3000 draws of the layer: where (1, 0) and (0, 1) go, as matrices (3000, 2, 2), read off at the centre."""
    ramp = np.zeros((3000, 9, 15, 2), np.float32)  # each pixel holds its place: x, y
    ramp[..., 1], ramp[..., 0] = np.mgrid[:9, :15]
    out = ops.convert_to_numpy(RandomAffine(None, fill="nearest", **given)(ramp, training=True))
    back = np.stack([(out[:, 4, 8] - out[:, 4, 6]) / 2, (out[:, 5, 7] - out[:, 3, 7]) / 2], -1)
    return np.linalg.inv(back.astype(np.float64))


def spread(values, low, high):
    """Whether values fill a range evenly."""
    assert low - 1e-3 <= values.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < values.max() <= high + 1e-3
    counts = np.histogram(values, 10, (low, high))[0]
    expected = len(values) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 9 + 4 * np.sqrt(18)


@pytest.mark.parametrize("most", [20, 180])
def test_angles_are_drawn_evenly_to_both_sides(most):
    turns = changes_of(rotation=most)
    spread(np.degrees(np.arctan2(turns[:, 0, 1], turns[:, 0, 0])), -most, most)
    assert np.allclose(np.linalg.det(turns), 1, atol=1e-3)


@pytest.mark.parametrize(("zoom", "low", "high"), [(0.4, 0.6, 1.4), ((0.8, 3), 0.8, 3.0), ([1, 1.5], 1.0, 1.5)])
def test_factors_of_zoom_are_drawn_evenly_on_a_logarithmic_scale(zoom, low, high):
    zooms = changes_of(zoom=zoom)
    spread(np.log(zooms[:, 0, 0]), np.log(low), np.log(high))
    assert np.allclose(zooms, zooms[:, :1, :1] * np.eye(2), atol=2e-3)


def test_shears_are_drawn_evenly_to_both_sides():
    shears = changes_of(shear=0.5)
    spread(shears[:, 0, 1], -0.5, 0.5)
    assert np.allclose(shears[:, [0, 1, 1], [0, 0, 1]], [1, 0, 1], atol=1e-3)


def test_turn_zoom_and_shear_are_drawn_apart():
    drawn = changes_of(rotation=20, zoom=0.3, shear=0.3)
    turn = np.arctan2(-drawn[:, 1, 0], drawn[:, 0, 0])  # a shear leaves (1, 0) where it is
    zoom = np.hypot(drawn[:, 0, 0], drawn[:, 1, 0])
    shear = (drawn[:, 0, 0] * drawn[:, 0, 1] + drawn[:, 1, 0] * drawn[:, 1, 1]) / zoom**2
    assert np.abs(np.corrcoef([turn, np.log(zoom), shear]) - np.eye(3)).max() < 4 / np.sqrt(3000)
    spread(shear, -0.3, 0.3)


@pytest.mark.parametrize("fill", [0, 77.5])
def test_a_grey_level_fills_what_comes_in(fill):
    images = np.full((4, HEIGHT, WIDTH, 3), 100, np.float32)
    out = ops.convert_to_numpy(RandomAffine(None, zoom=(0.4, 0.5), fill=fill)(images, training=True))
    for part, level in ((out[:, :8], fill), (out[:, -8:], fill), (out[:, 14:26, 22:42], 100)):
        assert np.abs(part - level).max() < 1e-3


@pytest.mark.parametrize("fill", ["reflect", 9])
def test_the_nearest_pixel_mixes_no_pixels(fill):
    values = np.array([3, 50, 101, 180, 252], np.float32)
    images = np.random.default_rng(0).choice(values, (6, HEIGHT, WIDTH, 3))
    given = {"rotation": 90, "zoom": 0.5, "shear": 0.3, "shift": 0.3, "fill": fill}
    out = {
        kind: set(np.unique(RandomAffine(interpolation=kind, **given)(images, training=True)))
        for kind in ("nearest", "bilinear")
    }
    assert out["nearest"] == {*values, *([9] if fill == 9 else [])}
    assert len(out["bilinear"]) > 1000


@pytest.mark.parametrize("fill", ["reflect", "nearest"])
def test_fill_reaches_the_resampling(fill):
    images = PICTURES["noise"][np.newaxis, :, :, np.newaxis].astype(np.float32)
    keys = [[0, 4]]
    out = ops.convert_to_numpy(RandomAffine(None, zoom=(0.6, 0.6), fill=fill)(images, training=True, keys=keys))
    assert np.abs(out[0, :, :, 0] - moved(PICTURES["noise"], fill, zoom=0.6)).max() < 5e-3
