"""The learning curve: parts of the training pictures, the law behind their errors, and what is said of it."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import zoo
from zoo.training import power_law
from zoo.training.learning_curve import LearningCurve, learning_curve
from zoo.training.power_law import PowerLaw
from zoo.training.recipe import Recipe

SIZES = [100, 178, 316, 562, 1000]


@pytest.fixture(scope="module")
def digits():
    """Few handwritten digits to train on, and a dev set of their usual size."""
    return zoo.load_data("digits", image_size=16, channels=1).fewer(200)


def curve_of(errors, *, pictures=1000, classes=2, counted=10_000, model="mobilenet_v2", sizes=SIZES):
    """A learning curve of known errors, a row a size, a column a seed."""
    rows = [
        {"pictures": size, "per_class": size / classes, "error": error, "low": 0.0, "high": 1.0, "seed": seed}
        for size, found in zip(sizes, errors, strict=True)
        for seed, error in enumerate(np.atleast_1d(found))
    ]
    return LearningCurve(pd.DataFrame(rows), Recipe(model=model), pictures, classes, counted)


def on(law, sizes=SIZES):
    return [law.error(size) for size in sizes]


def rows_of(split):
    return set(split.relative_paths)


def test_fewer_pictures_are_nested_stratified_and_leave_dev_and_test(digits):
    whole = zoo.load_data("digits", image_size=16)
    parts = [whole.fewer(number, seed=3) for number in (10, 25, 100, 101, len(whole.train))]

    for fewer, more in zip(parts, parts[1:], strict=False):
        assert rows_of(fewer.train) < rows_of(more.train)
    assert [len(part.train) for part in parts] == [10, 25, 100, 101, len(whole.train)]
    assert rows_of(parts[-1].train) == rows_of(whole.train)
    assert set(parts[0].train.counts.values()) == {1}
    for part in parts[1:]:
        shares = np.array(list(whole.train.counts.values())) * len(part.train) / len(whole.train)
        assert np.abs(np.array(list(part.train.counts.values())) - shares).max() < 1.5
    assert rows_of(parts[0].dev) == rows_of(whole.dev) and rows_of(parts[0].test) == rows_of(whole.test)
    assert rows_of(whole.fewer(100, seed=4).train) != rows_of(parts[2].train)
    assert rows_of(whole.fewer(100, seed=3).train) == rows_of(parts[2].train)
    np.testing.assert_array_equal(digits.fewer(50).train.labels, digits.fewer(50).train.labels)


def test_a_rare_class_keeps_a_picture_and_twins_stay_together():
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    pictures = np.concatenate([pictures, pictures[:25]])  # the first class: 25 pairs
    labels = np.array(["pair"] * 25 + ["alone"] * 33 + ["rare"] * 2 + ["pair"] * 25)
    data = zoo.load_data((pictures, labels), split=(1.0, 0.0, 0.0))

    for number in (3, 10, 31, 52):
        part = data.fewer(number)
        held = part.manifest.table.loc[part.manifest.table.label == "pair"].sha256.value_counts()
        assert part.train.counts["rare"] >= 1
        assert (held == 1).sum() <= 1  # of one pair at most, one half is left out


def test_prepared_pictures_are_shared_with_fewer(photos):
    data = zoo.load_data(photos, image_size=16)
    pixels = data.train.pixels()
    for file in photos.rglob("*.*"):
        Image.new("RGB", (4, 4)).save(file)  # nobody may read them again

    part = data.fewer(9)

    places = [data.train.relative_paths.index(path) for path in part.train.relative_paths]
    np.testing.assert_array_equal(part.train.pixels(), pixels[places])


@pytest.mark.parametrize("law", [PowerLaw(0.03, 3.0, 0.6), PowerLaw(0.1, 1.0, 0.3), PowerLaw(0.0, 0.5, 0.25)])
def test_a_law_without_noise_is_found_again(law):
    found = power_law.fit(SIZES, on(law), 10_000)

    assert found is not None
    assert tuple(found) == pytest.approx(tuple(law), rel=0.02, abs=2e-3)
    assert found.error(5000) == pytest.approx(law.error(5000), abs=1e-3)


def test_the_intervals_of_noisy_laws_hold_the_truth():
    generator = np.random.default_rng(0)
    held = []
    for law in [PowerLaw(0.03, 3.0, 0.6), PowerLaw(0.1, 1.0, 0.3), PowerLaw(0.05, 0.8, 0.4)] * 3:
        wrong = generator.binomial(500, [[share] * 3 for share in on(law)]) / 500
        found = power_law.fit(SIZES, wrong.mean(axis=1).tolist(), 500)
        assert found is not None
        drawn = [one for one in power_law.draws(SIZES, wrong, 500, found, number=50) if one]
        low, high = np.percentile([(*one, one.error(1000) - one.error(2000)) for one in drawn], [2.5, 97.5], axis=0)
        truth = np.array([*law, law.error(1000) - law.error(2000)])
        held.append((low <= truth + 1e-9) & (truth <= high + 1e-9))

    assert np.mean(held) > 0.85  # of a, b, c and the gain
    assert np.mean(held, axis=0)[-1] > 0.85  # of the gain alone


def test_no_law_is_fitted_to_two_sizes_or_to_errors_that_do_not_fall():
    two, rising = curve_of([0.2, 0.1], sizes=SIZES[:2]), curve_of([0.1, 0.2, 0.1, 0.15, 0.1])

    assert two.law is None and "takes 3 sizes to say; here are 2" in two.sentence
    assert rising.law is None and "does not fall from 100 (10.0%) to 1000 (10.0%)" in rising.sentence
    with pytest.raises(ValueError, match="does not fall"):
        rising.predict(500)
    with pytest.raises(ValueError, match="takes 3 sizes"):
        two.gain(10)


def test_the_gain_of_more_pictures_is_that_of_the_law():
    law = PowerLaw(0.05, 3.0, 0.6)
    curve = curve_of(on(law))
    value, low, high = curve.gain(500)

    assert value == pytest.approx(law.error(1000) - law.error(2000), abs=1e-3)
    assert low < value < high
    assert curve.gain(500) == (value, low, high)
    assert curve.predict(2000) == pytest.approx(law.error(2000), abs=1e-3)
    assert curve.sentence == f"500 more pictures a class would bring about {value:.1%}".replace("%", " points") + (
        f" ({100 * low:.1f} to {100 * high:.1f})."
    )
    for pictures in (99, 10_001, float("nan")):
        with pytest.raises(ValueError, match="from 100, the smallest size measured, to 10000"):
            curve.predict(pictures)
    for per_class in (0, 4501):
        with pytest.raises(ValueError, match="at most 4500"):
            curve.gain(per_class)


def test_a_gain_too_small_to_matter_is_said_to_be_small():
    flat = curve_of(on(PowerLaw(0.05, 400.0, 2.0)), counted=1_000_000)
    unclear = curve_of(on(PowerLaw(0.05, 400.0, 2.0)), counted=200)

    assert flat.sentence == "More pictures of this kind would bring less than 0.2 points."
    assert unclear.sentence.startswith("500 more pictures a class would bring less than ")
    assert float(unclear.sentence.split()[-2]) / 100 >= unclear.gain(500)[2] > 0.002


def test_a_curve_is_shown_on_one_screen_and_written(tmp_path):
    errors = np.array(on(PowerLaw(0.05, 3.0, 0.6)))[:, np.newaxis] + [[0.004, -0.004]]
    curve = curve_of(errors, model="<b>mine</b>")

    assert len(curve.means) == 5 and curve.means.error.tolist() == pytest.approx(errors.mean(axis=1).tolist())
    lines = str(curve).splitlines()
    assert len(lines) == 9 and max(map(len, lines)) <= 100
    assert lines[0] == "<b>mine</b>: error on 10000 dev pictures, mean of 2 seeds" and lines[-1] == curve.sentence
    page = curve._repr_html_()
    assert "<b>mine" not in page and "&lt;b&gt;mine" in page and curve.sentence in page
    curve.save(tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "learning_curve.csv"), curve.table)
    record = json.loads((tmp_path / "learning_curve.json").read_text())
    assert record["law"] == pytest.approx(curve.law._asdict())
    assert record["sizes"] == SIZES and record["seeds"] == [0, 1] and record["recipe"]["model"] == "<b>mine</b>"


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ({"sizes": [9]}, ValueError, "from 10, one for each class, to 200, all training pictures.*Received: 9"),
        ({"sizes": [201]}, ValueError, "Received: 201"),
        ({"sizes": [0.01]}, ValueError, "Received: 0.01"),
        ({"sizes": [50.0]}, ValueError, "or a share of them in .0, 1.. Received: 50.0"),
        ({"sizes": [True]}, ValueError, "Received: True"),
        ({"sizes": []}, ValueError, "such as .0.25, 0.5, 1.0.. Received: ()"),
        ({"sizes": 0.5}, ValueError, "Received: 0.5"),
        ({"seeds": 0}, ValueError, "`seeds` must be a whole number of at least 1"),
        ({"recipe": {}}, TypeError, "must be a zoo.Recipe"),
        ({"epoch": 3}, TypeError, "Did you mean `epochs`?"),
        ({"data": None}, TypeError, "`data` must come from zoo.load_data. Received: NoneType"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(digits, asked, error, text):
    with pytest.raises(error, match=text):
        learning_curve("convnet", **({"data": digits} | asked))


def test_pictures_without_labels_or_without_dev_are_refused(digits):
    pixels = digits.train.pixels()
    with pytest.raises(ValueError, match="have no labels"):
        learning_curve("convnet", zoo.load_data(pixels, labels=False))
    with pytest.raises(ValueError, match="no labels"):
        zoo.load_data(pixels, labels=False).fewer(10)
    with pytest.raises(ValueError, match="measured on a dev set, and this data has none"):
        learning_curve("convnet", zoo.load_data((pixels, digits.train.labels), split=(1.0, 0.0)))


@pytest.mark.slow
def test_a_model_handed_over_is_fitted_as_by_fine_tune_and_stays_as_it_is(digits, tmp_path, monkeypatch):
    keras.utils.set_random_seed(5)
    model = zoo.create("convnet", classes=10, input_shape=(16, 16, 1), dropout=0.2)
    zoo.freeze(model, "medium")
    model.compile("sgd", "categorical_crossentropy")
    before = [np.array(variable) for variable in model.variables]
    trains, optimizer = [layer.trainable for layer in model.layers], model.optimizer
    fields = {"freeze": "large", "epochs": 3, "learning_rate": 0.01}

    curve = learning_curve(model, digits, [60, 140], seeds=2, seed=1, **fields, directory=tmp_path / "curve")

    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert [layer.trainable for layer in model.layers] == trains and model.optimizer is optimizer
    assert pd.read_csv(tmp_path / "curve" / "learning_curve.csv").pictures.tolist() == [60, 140, 60, 140]
    assert curve.table.seed.tolist() == [1, 1, 2, 2]

    monkeypatch.setenv("MENAGERIE_CACHE_GB", "0")  # the pictures go through the whole network in every step
    again = learning_curve(model, digits, [60, 140], seeds=1, seed=1, **fields)
    np.testing.assert_allclose(again.table.error, curve.table.error[:2], atol=1.5 / len(digits.dev))

    run = zoo.fine_tune(model, digits.fewer(140, seed=1), **fields, seed=1, directory=tmp_path / "run")
    error = 1 - run.evaluate("dev").accuracy
    assert curve.table.error[1] == pytest.approx(error, abs=1.5 / len(digits.dev))
    with pytest.raises(ValueError, match="Hand over the model: learning_curve"):
        learning_curve(run)


@pytest.mark.slow
@pytest.mark.long
def test_more_digits_make_fewer_errors(tmp_path):
    data = zoo.load_data("digits", image_size=16, channels=1).fewer(400)
    run = zoo.fine_tune("convnet", data, epochs=6, directory=tmp_path / "run")

    curve = learning_curve(run, sizes=[20, 80, 320], seeds=1)

    assert curve.recipe.epochs == 6 and curve.pictures == 400 and curve.recipe.model == "convnet"
    assert curve.table.error.is_monotonic_decreasing and curve.table.error.iloc[0] > 2 * curve.table.error.iloc[-1]
    assert curve.table.per_class.tolist() == [2, 8, 32]
    assert (curve.table.low < curve.table.error).all() and (curve.table.error < curve.table.high).all()
    assert curve.law is not None and curve.gain(32)[0] > 0
