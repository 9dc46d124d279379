import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from augment.draws import Draws

ROOT = Path(__file__).parents[2]
KEYS = np.array([[0, 0], [0, 1], [1, 0], [7, 123456], [2**31 - 1, 2**31 - 1]])
# what a plain Python pcg4d gives for KEYS (see `reference`), in units of 2**-24
GOLDEN = {
    (0, "affine", 0): (994899, 3471529, 16215014, 14962866, 2040316),
    (0, "affine", 1): (2492495, 5798598, 7419083, 16025993, 2921636),
    (1, "affine", 0): (16184220, 12876027, 4590363, 11809243, 13503260),
    (2**64 + 1, "colour", 0): (4378829, 12987638, 13700452, 7902890, 127840),
}
# what plain Python gives for the field of KEYS[3] (see `field_reference`), rows, columns, channels, in units of 2**-24
GOLDEN_FIELD = {
    (0, "noise", 0): (
        13246005,
        10164765,
        8141111,
        14650690,
        369075,
        3632932,
        9499888,
        1427268,
        15729444,
        2691036,
        14779077,
        11912964,
    ),
    (1, "noise", 3): (
        4186920,
        5005807,
        2342894,
        11843927,
        638490,
        7591637,
        7697396,
        7452732,
        2769097,
        7728656,
        7969111,
        11353352,
    ),
}
EPOCHS, PICTURES = 32, 4096
GRID = np.stack(np.meshgrid(np.arange(EPOCHS), np.arange(PICTURES), indexing="ij"), -1).reshape(-1, 2)


def values(seed, operation, keys, low=0.0, high=1.0, number=0):
    """Draws for keys, as numpy (n,)."""
    images = np.zeros((len(keys), 1, 1, 3), np.uint8)
    drawn = Draws(seed, operation).uniform(images, keys, low, high, number=number)
    return keras.ops.convert_to_numpy(drawn).ravel()


def grid(seed=0, operation="affine", number=0):
    return values(seed, operation, GRID, number=number).reshape(EPOCHS, PICTURES)


def words(seed, operation, number, epoch, picture):
    """pcg4d in whole numbers of Python, as printed by Jarzynski and Olano; the first two words."""
    digest = hashlib.sha256(f"{seed}/{operation}/{number}".encode()).digest()
    v = [int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little"), epoch, picture]
    v = [(word * 1664525 + 1013904223) % 2**32 for word in v]
    for last in (False, True):
        for target, one, other in ((0, 1, 3), (1, 2, 0), (2, 0, 1), (3, 1, 2)):
            v[target] = (v[target] + v[one] * v[other]) % 2**32
        v = v if last else [word ^ (word >> 16) for word in v]
    return v[:2]


def field(keys=((0, 0),), shape=(64, 64, 3), seed=0, operation="noise", number=0):
    """A field for keys, as numpy (n, h, w, c)."""
    images = np.zeros((len(keys), *shape), np.uint8)
    drawn = Draws(seed, operation).field(images, np.array(keys), number=number)
    assert keras.backend.standardize_dtype(drawn.dtype) == "float32"
    return keras.ops.convert_to_numpy(drawn)


def field_reference(seed, operation, number, epoch, picture, count):
    """Two words of pcg4d, and for each place in turn the two-round hash of its number, in whole numbers of Python."""
    first, second = words(seed, operation, number, epoch, picture)
    drawn = []
    for place in range(count):
        word = (place * 0x9E3779B9 + first) % 2**32
        word = (word ^ (word >> 16)) * 0x21F0AAAD % 2**32
        word = (word ^ (word >> 15) ^ second) * 0x735A2D97 % 2**32
        drawn.append((word ^ (word >> 15)) >> 8)
    return tuple(drawn)


def excess(counts):
    """Chi-square against equal counts, in standard deviations from what chance gives."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


def correlation(one, other):
    """In standard deviations from none."""
    return np.corrcoef(one.ravel(), other.ravel())[0, 1] * np.sqrt(one.size)


@pytest.mark.parametrize(("seed", "operation", "number"), GOLDEN)
def test_values_are_those_written_down_and_those_of_the_paper(seed, operation, number):
    drawn = values(seed, operation, KEYS, number=number) * 2**24
    assert tuple(drawn) == GOLDEN[seed, operation, number]
    assert tuple(drawn) == tuple(words(seed, operation, number, *map(int, key))[0] >> 8 for key in KEYS)


def test_values_fill_the_range_evenly():
    assert abs(excess(np.histogram(grid(), 256, (0, 1))[0])) < 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(grid()[:, :-1], grid()[:, 1:], id="neighbouring pictures"),
        pytest.param(grid()[:, :-256], grid()[:, 256:], id="pictures 256 apart"),
        pytest.param(grid()[:-1], grid()[1:], id="neighbouring epochs"),
        pytest.param(grid()[:-16], grid()[16:], id="epochs 16 apart"),
        pytest.param(grid(), grid(seed=1), id="seeds"),
        pytest.param(grid(), grid(seed=2**32), id="seeds that differ beyond 32 bits"),
        pytest.param(grid(), grid(operation="colour"), id="operations"),
        pytest.param(grid(), grid(number=1), id="numbers"),
    ],
)
def test_what_differs_in_one_word_is_independent(one, other):
    assert abs(correlation(one, other)) < 4
    assert abs(excess(np.histogram2d(one.ravel(), other.ravel(), 16, ((0, 1), (0, 1)))[0])) < 4


def test_means_of_epochs_and_of_pictures_scatter_as_chance_has_it():
    for axis in (0, 1):
        scores = (grid().mean(axis) - 0.5) * np.sqrt(12 * grid().shape[axis])
        assert 0.6 < scores.std() < 1.4


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_split_into_batches_changes_nothing(size):
    keys = GRID[np.random.default_rng(0).permutation(len(GRID))[:200]]
    parts = [values(0, "affine", keys[start : start + size]) for start in range(0, len(keys), size)]
    assert np.array_equal(np.concatenate(parts), values(0, "affine", keys))


def test_values_lie_from_low_to_below_high():
    drawn = values(0, "affine", GRID, -0.25, 0.5)
    assert -0.25 <= drawn.min() < -0.249
    assert 0.499 < drawn.max() < 0.5
    assert values(0, "affine", GRID, 2**20, 2**20 + 1).max() < 2**20 + 1  # a float32 there has steps of 1/8


def test_draws_are_float32_one_an_image():
    drawn = Draws(0, "affine").uniform(np.zeros((5, 4, 4, 3)), KEYS, 0, 1)
    assert tuple(drawn.shape) == (5, 1, 1, 1)
    assert keras.backend.standardize_dtype(drawn.dtype) == "float32"


def test_chance_comes_as_often_as_asked():
    draws, images = Draws(0, "affine"), np.zeros((len(GRID), 1, 1, 3))
    share = {p: keras.ops.convert_to_numpy(draws.chance(images, GRID, p)).mean() for p in (0.0, 0.3, 1.0)}
    assert share[0.0] == 0
    assert share[0.3] == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / len(GRID)))
    assert share[1.0] == 1


def test_without_keys_each_call_and_each_row_draws_anew_and_a_second_run_the_same():
    images = np.zeros((4, 1, 1, 3))
    runs = []
    for draws in (Draws(0, "affine"), Draws(0, "affine")):
        runs.append([keras.ops.convert_to_numpy(draws.uniform(images, None, 0, 1)).ravel() for _ in range(3)])
    assert len(np.unique(runs[0])) == 12
    assert np.array_equal(*runs)


@pytest.mark.parametrize("seed", [-1, 1.5, True, None, "1"])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ValueError, match="`seed` must be a whole number of at least 0. Received: seed="):
        Draws(seed, "affine")


@pytest.mark.parametrize(
    "keys", [KEYS[:3], KEYS[:, 0], KEYS[:, :1], KEYS.astype("float32")], ids=["batch", "flat", "column", "floats"]
)
def test_keys_that_do_not_fit_are_refused(keys):
    with pytest.raises(ValueError, match=r"`keys` must hold integers \(batch, 2\).*for 5 images"):
        Draws(0, "affine").uniform(np.zeros((5, 4, 4, 3)), keys, 0, 1)


@pytest.mark.parametrize("keys", [KEYS, None], ids=["keys", "counter"])
def test_several_draws_at_once_are_those_one_at_a_time(keys):
    images, ranges = np.zeros((5, 4, 4, 3)), [(0.0, 1.0), (-0.25, 0.5), (3.0, 3.0), (100.0, 1000.0)]
    together = Draws(7, "affine").uniforms(images, keys, ranges, first=2)
    assert len(together) == 4
    for number, ((low, high), drawn) in enumerate(zip(ranges, together, strict=True), start=2):
        alone = Draws(7, "affine").uniform(images, keys, low, high, number=number)
        assert tuple(drawn.shape) == (5, 1, 1, 1)
        assert np.array_equal(keras.ops.convert_to_numpy(drawn), keras.ops.convert_to_numpy(alone))


def test_several_draws_at_once_take_one_step_of_the_counter():
    draws = Draws(0, "affine")
    draws.uniforms(np.zeros((2, 4, 4, 3)), None, [(0, 1)] * 5)
    assert keras.ops.convert_to_numpy(draws.state)[1] == 1


@pytest.mark.parametrize(("seed", "operation", "number"), GOLDEN_FIELD)
def test_fields_are_those_written_down_and_those_of_plain_python(seed, operation, number):
    drawn = field(KEYS[3:4], (2, 3, 2), seed, operation, number).ravel() * 2**24
    assert tuple(drawn) == GOLDEN_FIELD[seed, operation, number]
    assert tuple(drawn) == field_reference(seed, operation, number, 7, 123456, 12)


def test_a_field_fills_the_range_evenly_and_repeats_no_value_too_often():
    drawn = field([[0, picture] for picture in range(16)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(excess(np.histogram(drawn, 256, (0, 1))[0])) < 4
    for picture in drawn:
        assert abs(excess(np.histogram(picture, 64, (0, 1))[0])) < 4
        twice = picture.size - len(np.unique(picture))  # 12,288 values of 2**24: 4.5 pairs by chance
        assert twice < 16


BASE = field([[3, picture] for picture in range(8)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(BASE[:, :, :-1], BASE[:, :, 1:], id="neighbouring columns"),
        pytest.param(BASE[:, :-1], BASE[:, 1:], id="neighbouring rows"),
        pytest.param(BASE[:, :32], BASE[:, 32:], id="rows 32 apart"),
        pytest.param(BASE[..., :-1], BASE[..., 1:], id="neighbouring channels"),
        pytest.param(BASE[:-1], BASE[1:], id="neighbouring pictures"),
        pytest.param(BASE, field([[4, picture] for picture in range(8)]), id="epochs"),
        pytest.param(BASE, field([[picture, 3] for picture in range(8)]), id="epoch and picture exchanged"),
        pytest.param(BASE, field([[3, picture] for picture in range(8)], seed=1), id="seeds"),
        pytest.param(BASE, field([[3, picture] for picture in range(8)], operation="erase"), id="operations"),
        pytest.param(BASE, field([[3, picture] for picture in range(8)], number=1), id="numbers"),
    ],
)
def test_what_differs_in_a_field_by_one_step_is_independent(one, other):
    keep = one != other  # where epoch and picture are equal, exchanging them changes nothing
    one, other = one[keep], other[keep]
    assert keep.mean() > 0.8
    assert abs(correlation(one, other)) < 4
    assert abs(excess(np.histogram2d(one, other, 16, ((0, 1), (0, 1)))[0])) < 4
    bits = [
        np.unpackbits((values * 2**24).astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)[:, 8:]
        for values in (one, other)
    ]
    differ = (bits[0] != bits[1]).mean(0)  # each of the 24 bits is another's in half of the cases
    assert np.abs(differ - 0.5).max() < 5 * 0.5 / np.sqrt(len(one))
    across = np.corrcoef(bits[0].T, bits[1].T)[:24, 24:]  # and tells nothing about any other bit
    assert np.abs(across).max() < 6 / np.sqrt(len(one))


def test_no_bit_of_a_pixel_tells_another_bit_of_it():
    bits = np.unpackbits((BASE.ravel() * 2**24).astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)[:, 8:]
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(BASE.size)
    assert np.abs(np.corrcoef(bits.T) - np.eye(24)).max() < 6 / np.sqrt(BASE.size)


def test_a_field_tells_nothing_about_the_picture_s_own_draw():
    keys = np.stack([np.zeros(4096, int), np.arange(4096)], 1)
    one = values(0, "noise", keys)
    for place in np.moveaxis(field(keys, (2, 2, 1)).reshape(4096, 4), 1, 0):
        assert abs(correlation(one, place)) < 4


@pytest.mark.parametrize("size", [1, 3])
def test_a_field_is_the_same_whatever_the_batch(size):
    keys = np.array([[2, 9], [0, 4], [2, 8], [5, 9], [1, 1], [0, 0]])
    parts = [field(keys[start : start + size], (5, 7, 3)) for start in range(0, 6, size)]
    assert np.array_equal(np.concatenate(parts), field(keys, (5, 7, 3)))
    assert len(np.unique(field(keys, (1, 1, 1)))) == 6


def test_without_keys_each_call_and_each_row_has_a_field_of_its_own():
    draws, images = Draws(0, "noise"), np.zeros((3, 4, 5, 3))
    drawn = np.concatenate([keras.ops.convert_to_numpy(draws.field(images, None)) for _ in range(2)])
    assert np.abs(np.corrcoef(drawn.reshape(6, -1)) - np.eye(6)).max() < 0.6


def compiled(function):
    """The function as a graph, and as XLA compiles it."""
    if keras.backend.backend() == "jax":
        import jax

        return [jax.jit(function)]
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, 2), tf.int64)]
    return [tf.function(function, input_signature=signature, jit_compile=jit, autograph=False) for jit in (False, True)]


def test_graphs_and_compiled_code_draw_the_same_bits():
    draws = Draws(0, "affine")
    eager = values(0, "affine", GRID, -0.1, 0.3)
    for function in compiled(lambda images, keys: draws.uniform(images, keys, -0.1, 0.3)):
        drawn = function(np.zeros((len(GRID), 1, 1, 3), np.float32), GRID)
        assert np.array_equal(keras.ops.convert_to_numpy(drawn).ravel(), eager)


def test_graphs_and_compiled_code_draw_the_same_field():
    draws, images = Draws(0, "noise"), np.zeros((5, 6, 7, 3), np.float32)
    eager = field(KEYS, (6, 7, 3), number=2)
    for function in compiled(lambda images, keys: draws.field(images, keys, number=2)):
        assert np.array_equal(keras.ops.convert_to_numpy(function(images, KEYS)), eager)


def test_the_jax_backend_draws_the_same_bits(tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    script = (
        "import jax, sys, numpy as np\n"
        "from augment.draws import Draws\n"
        "keys = np.load(sys.argv[1])\n"
        "draw = jax.jit(lambda images, keys: Draws(0, 'affine').uniform(images, keys, -0.1, 0.3))\n"
        "np.save(sys.argv[2], np.ravel(draw(np.zeros((len(keys), 1, 1, 3)), keys)))\n"
    )
    np.save(tmp_path / "keys.npy", GRID)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    files = [str(tmp_path / "keys.npy"), str(tmp_path / "draws.npy")]
    subprocess.run([sys.executable, "-c", script, *files], env=environment, check=True)
    assert np.array_equal(np.load(files[1]), values(0, "affine", GRID, -0.1, 0.3))
