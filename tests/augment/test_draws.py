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
EPOCHS, PICTURES = 32, 4096
GRID = np.stack(np.meshgrid(np.arange(EPOCHS), np.arange(PICTURES), indexing="ij"), -1).reshape(-1, 2)


def values(seed, operation, keys, low=0.0, high=1.0, number=0):
    """Draws for keys, as numpy (n,)."""
    images = np.zeros((len(keys), 1, 1, 3), np.uint8)
    drawn = Draws(seed, operation).uniform(images, keys, low, high, number=number)
    return keras.ops.convert_to_numpy(drawn).ravel()


def grid(seed=0, operation="affine", number=0):
    return values(seed, operation, GRID, number=number).reshape(EPOCHS, PICTURES)


def reference(seed, operation, number, epoch, picture):
    """pcg4d in whole numbers of Python, as printed by Jarzynski and Olano."""
    digest = hashlib.sha256(f"{seed}/{operation}/{number}".encode()).digest()
    v = [int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little"), epoch, picture]
    v = [(word * 1664525 + 1013904223) % 2**32 for word in v]
    for last in (False, True):
        for target, one, other in ((0, 1, 3), (1, 2, 0), (2, 0, 1), (3, 1, 2)):
            v[target] = (v[target] + v[one] * v[other]) % 2**32
        v = v if last else [word ^ (word >> 16) for word in v]
    return v[0] >> 8


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
    assert tuple(drawn) == tuple(reference(seed, operation, number, *map(int, key)) for key in KEYS)


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
