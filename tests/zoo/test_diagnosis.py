"""Diagnosis: verdicts at their thresholds, advice that can be followed, and four runs trained for real."""

import itertools
import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from zoo.data.load import load_data
from zoo.evaluation.advice import neighbours
from zoo.evaluation.advice.situation import Step, call
from zoo.evaluation.diagnosis import diagnose
from zoo.evaluation.figures import difference, wilson
from zoo.evaluation.predictions import Evaluation
from zoo.models.catalog import CATALOG, ROWS, find_tag
from zoo.training import preparing
from zoo.training.fine_tune import fine_tune
from zoo.training.recipe import Recipe

SETTLED = {"loss": [1.0, 0.4, 0.3, 0.29, 0.29, 0.29], "val_loss": [1.0, 0.5, 0.4, 0.4, 0.39, 0.4]}
CHOSEN = Recipe(
    model="resnet20",
    weights=None,
    image_size=(32, 32),
    freeze="none",
    augment="none",
    mixing="none",
    views=0,
    optimizer="adamw",
    learning_rate=1e-3,
    layer_decay=1.0,
    schedule="cosine",
    epochs=6,
    batch_size=32,
    label_smoothing=0.0,
    sampling="as is",
    class_weights="none",
    head="linear",
    dropout=0.2,
    l2=0.0,
    l2_sp=0.0,
    precision="float32",
    seed=0,
)
PHOTOS = {"model": "mobilenet_v2", "weights": "keras/mobilenet_v2", "image_size": (224, 224), "freeze": "large"}
OWN = {"model": "mine", "head": "as given", "precision": "as given", "dropout": 0.0}


@dataclass
class Told:
    """A run as a diagnosis sees it, with counts of pictures that are made up."""

    train: Evaluation
    dev: Evaluation
    data: Any
    recipe: Recipe = CHOSEN
    history: dict = field(default_factory=lambda: SETTLED)
    best_epoch: int = 5
    directory: Path = Path("nowhere")

    def evaluate(self, split):
        return getattr(self, split)


def seen(wrong, pictures, split="dev", classes=2, doubtful=True):
    """An evaluation with so many of its pictures wrong, spread over the classes; of these it is in doubt, or sure."""
    labels, missed = np.arange(pictures) % classes, np.arange(pictures) < wrong
    sure = np.where(missed & doubtful, 1.02 / classes, 0.99)[:, np.newaxis]
    values = np.repeat((1 - sure) / (classes - 1), classes, axis=1)
    np.put_along_axis(values, ((labels + missed) % classes)[:, np.newaxis], sure, axis=1)
    names = [f"class {k}" for k in range(classes)]
    return Evaluation(split, names, [f"{k}.png" for k in range(pictures)], labels, values)


def made(*counts, side=8):
    """Noise pictures of so many a class, most of them for training."""
    labels = np.repeat([f"class {k}" for k in range(len(counts))], counts)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), side, side, 3), np.uint8)
    return load_data((pixels, labels), split=(0.6, 0.2, 0.2))


@pytest.fixture(scope="module")
def data():
    return made(40, 40)


@pytest.fixture
def told(data):
    """Makes a run out of (wrong, pictures) of train and dev."""

    def tell(train, dev, **facts):
        recipe = replace(CHOSEN, **facts.pop("fields", {}))
        train, dev = (part if isinstance(part, Evaluation) else seen(*part) for part in (train, dev))
        pictures = data if len(dev.class_names) == 2 else made(*[8] * len(dev.class_names))
        return Told(**{"train": train, "dev": dev, "data": pictures, "recipe": recipe, **facts})

    return tell


def titles(diagnosis):
    return [step.title for step in diagnosis.steps]


def changes(diagnosis):
    """All arguments that change, the first proposal of each."""
    found = {}
    for step in diagnosis.steps:
        for name, (_, to) in step.changes.items():
            found.setdefault(name, to)
    return found


# trained for real


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), labels


@pytest.mark.slow
def test_a_bottleneck_on_digits_is_high_bias(digits, tmp_path):
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.Dense(2)(x)  # two numbers a picture for ten classes; ReLUs might be dead from the start
    narrow = keras.Model(pixels, keras.layers.Dense(10, activation="softmax")(x), name="narrow")
    run = fine_tune(narrow, load_data(digits, image_size=8), epochs=8, learning_rate=3e-3, directory=tmp_path / "run")
    found = diagnose(run)
    assert found.verdict == "high bias"
    assert {"A bigger network", "Train longer"} <= set(titles(found)[:2])
    assert not {"More training pictures", "More dropout"} & set(titles(found))
    assert "Look at the labels" not in titles(found)[:-1]  # they are right


@pytest.mark.slow
def test_few_digits_are_high_variance(digits, tmp_path):
    few = load_data(digits, image_size=8, split=(0.05, 0.45, 0.5))
    run = fine_tune("convnet", few, epochs=20, batch_size=16, dropout=0.0, directory=tmp_path / "run")
    found = diagnose(run)
    assert found.verdict == "high variance" and found.train_error == 0
    assert titles(found)[:2] == ["More training pictures", "More augmentation"]
    assert "Only 5% of the pictures are trained on" in found.steps[0].why
    assert changes(found)["dropout"] == 0.2
    alike = diagnose(run, train_dev=few.test)  # more of the same kind, so nothing is left for a mismatch
    assert alike.verdict == "high variance" and alike.pictures["train-dev"] == len(few.test)
    assert (
        not alike.mismatch.large
        and alike.train_dev_error == run.evaluate("test").table.eval("label != predicted").mean()
    )


@pytest.mark.slow
def test_wrong_labels_on_digits_are_high_bias_and_high_variance_and_named(digits, tmp_path):
    images, labels = digits
    rng = np.random.default_rng(0)
    wrong = rng.random(len(labels)) < 0.25
    labels = np.where(wrong, (labels + rng.integers(1, 10, len(labels))) % 10, labels)
    noisy = load_data((images, labels), image_size=8, split=(0.12, 0.5, 0.38))
    run = fine_tune("convnet", noisy, epochs=10, batch_size=16, dropout=0.0, directory=tmp_path / "run")
    found = diagnose(run)
    assert found.verdict == "high bias and high variance"
    at = titles(found).index("Look at the labels")
    assert titles(found)[0] == "A bigger network" and titles(found)[at - 1] == "More training pictures"
    suspects = len(run.evaluate("dev").label_errors())
    assert f"suspects {suspects} of {len(noisy.dev)}. Their labels may be wrong" in found.steps[at].why


@pytest.mark.slow
def test_enough_digits_are_good(digits, tmp_path):
    images, labels = digits
    plenty = load_data((images[labels < 3], labels[labels < 3]), image_size=8, split=(0.7, 0.3))
    found = diagnose(fine_tune("convnet", plenty, epochs=8, directory=tmp_path / "run"))
    assert found.verdict == "good"
    assert titles(found)[:2] == ["Set test pictures apart", "Export it"]


# verdicts


@pytest.mark.parametrize(
    "train, dev, verdict",
    [
        ((0, 1000), (19, 1000), "good"),
        ((0, 1000), (20, 1000), "high variance"),
        ((19, 1000), (30, 1000), "good"),
        ((20, 1000), (30, 1000), "high bias"),
        ((100, 1000), (200, 1000), "high bias and high variance"),
        ((200, 1000), (100, 1000), "high bias"),
        ((0, 1000), (0, 1000), "good"),
        ((1, 1), (1, 1), "high bias"),
    ],
)
def test_a_gap_of_two_points_is_large(told, train, dev, verdict):
    assert diagnose(told(train, dev)).verdict == verdict


def test_a_gap_that_may_be_chance_is_not_large_and_says_so(told):
    found = diagnose(told((5, 245), (8, 153)), human_error=0.02)
    assert found.verdict == "good"
    assert "variance of 3.2 points may be chance on 153 dev pictures: between -0.5 and 8.1 points" in found.sentence
    assert diagnose(told((50, 2450), (80, 1530)), human_error=0.02).verdict == "high variance"
    assert titles(found)[0] == "More dev pictures"
    enough = int(found.steps[0].why.split()[1])
    shown, missed = (
        diagnose(told((5, 245), (round(n * 8 / 153), n)), human_error=0.02) for n in (round(1.2 * enough), 153)
    )
    assert shown.verdict == "high variance" and missed.verdict == "good"


def test_intervals_are_wilsons_and_newcombes(told):
    found = diagnose(told((12, 200), (30, 150)), human_error=0.01)
    low, high = wilson(12, 200)
    assert found.bias == pytest.approx((0.05, low - 0.01, high - 0.01))
    assert found.variance == pytest.approx((0.14, *difference(188, 200, 120, 150)))
    assert (found.train_error, found.dev_error, found.mismatch) == (0.06, 0.2, None)
    assert found.pictures == {"train": 200, "dev": 150}


def test_what_people_get_wrong_is_no_avoidable_bias(told):
    run = told((100, 1000), (110, 1000))
    assert diagnose(run).verdict == "high bias"
    assert diagnose(run, human_error=0.09).verdict == "good"
    better = diagnose(run, human_error=0.2)
    assert better.bias == (0, 0, 0)
    assert "below that of people, 20.0%: the bias is 0" in better.sentence
    for share in (1, -0.1, 5, "low", True, float("nan")):
        with pytest.raises(ValueError, match="human_error"):
            diagnose(run, human_error=share)


def test_a_train_dev_set_parts_variance_from_mismatch(told, data):
    run = told((10, 1000), (200, 1000))
    alike = diagnose(run, train_dev=seen(15, 1000, "train"))
    assert alike.verdict == "good" and alike.mismatch.value == pytest.approx(0.185)
    assert alike.variance == pytest.approx((0.005, *difference(990, 1000, 985, 1000)))
    assert titles(alike)[0] == "Look at what sets dev apart"
    assert "Evaluate on the test set, once" not in titles(alike)
    unlike = diagnose(run, train_dev=seen(195, 1000, "train"))
    assert unlike.verdict == "high variance" and not any("dev apart" in title for title in titles(unlike))
    assert diagnose({"acc": [0.99], "val_acc": [0.8]}, train_dev=seen(15, 1000)).mismatch.value == pytest.approx(0.185)
    with pytest.raises(ValueError, match="no model"):
        diagnose({"acc": [0.99], "val_acc": [0.8]}, train_dev=data.train)
    with pytest.raises(TypeError, match="train_dev"):
        diagnose(run, train_dev="photos")
    unlabelled = replace(seen(0, 4), labels=np.full(4, -1))
    with pytest.raises(ValueError, match="no labels"):
        diagnose(run, train_dev=unlabelled)


def test_a_network_that_guesses_has_high_bias_and_is_looked_at_first(told):
    found = diagnose(told((885, 1000, "train", 10), (900, 1000, "dev", 10)))
    assert found.verdict == "high bias"
    assert "little more than guessed" in found.sentence
    assert titles(found)[0] == "See whether it can learn at all"
    assert "guessed" not in diagnose(told((700, 1000, "train", 10), (700, 1000, "dev", 10))).sentence
    assert "guessed" in diagnose(told((480, 1000), (480, 1000))).sentence


def test_what_is_guessed_is_not_learned_by_heart(told):
    found = diagnose(told((820, 1000, "train", 10), (900, 1000, "dev", 10)))
    assert found.verdict == "high bias and high variance" and "It does 8.0 points" in found.sentence
    assert "by heart" not in found.sentence + str(found)
    assert titles(found)[0] == "See whether it can learn at all"
    more = {"More training pictures", "More augmentation", "More dropout", "Stronger L2 regularisation", "Mix pictures"}
    assert not more & set(titles(found))
    fitted = diagnose(told((200, 1000, "train", 10), (280, 1000, "dev", 10)))
    assert "by heart" in fitted.sentence and more <= set(titles(fitted))
    hard = diagnose(told((820, 1000, "train", 10), (820, 1000, "dev", 10)), human_error=0.81)  # as people guess, too
    assert hard.verdict == "good" and titles(hard)[0] == "See whether it can learn at all"
    assert "Export it" not in titles(hard)


def test_a_run_without_dev_says_how_to_get_one(told, data):
    empty = SimpleNamespace(dev=[], train=data.train, test=data.test)
    with pytest.raises(ValueError, match="no dev pictures.*split="):
        diagnose(told((0, 10), (0, 10), data=empty))


# histories


def test_any_history_is_read_at_its_epoch_of_lowest_loss():
    values = {"accuracy": [0.6, 0.9, 0.97], "val_accuracy": [0.5, 0.8, 0.82], "val_loss": [2.0, 0.9, 1.1]}
    kept = keras.callbacks.History()
    kept.history = values
    for given in (values, kept, pd.DataFrame({"epoch": [1, 2, 3], **values})):
        found = diagnose(given)
        assert (found.train_error, found.dev_error) == pytest.approx((0.1, 0.2))
        assert found.verdict == "high bias and high variance"
        assert found.bias == pytest.approx((0.1, None, None))
        assert "epoch 2's" in found.sentence and "running mean" in found.sentence
    late = {"val_loss": [np.nan, 1.0, np.inf]}
    assert diagnose({**values, **late}).dev_error == pytest.approx(0.2)
    assert diagnose({name: values[name] for name in ("accuracy", "val_accuracy")}).dev_error == pytest.approx(0.18)
    for name in ("acc", "categorical_accuracy", "sparse_categorical_accuracy"):
        assert diagnose({name: [0.99], f"val_{name}": [0.98]}).verdict == "good"


@pytest.mark.parametrize(
    "given, kind, words",
    [
        ({"loss": [1.0]}, ValueError, "It has: loss"),
        ({}, ValueError, "It has: nothing"),
        ({"accuracy": [0.9], "loss": [1.0]}, ValueError, "`val_accuracy` is missing.*validation_data"),
        ({"accuracy": [90.0], "val_accuracy": [80.0]}, ValueError, "per cent"),
        ({"accuracy": [0.8, 0.9], "val_accuracy": [0.7]}, ValueError, "validation_freq"),
        ({"accuracy": [np.nan], "val_accuracy": [0.5]}, ValueError, "no epoch"),
        ({"accuracy": [], "val_accuracy": []}, ValueError, "no epoch"),
        ({"accuracy": 0.9, "val_accuracy": 0.8}, TypeError, "list of values"),
        (0.9, TypeError, "run_or_history"),
    ],
)
def test_a_history_that_tells_nothing_is_refused(given, kind, words):
    with pytest.raises(kind, match=words):
        diagnose(given)


def test_a_history_gets_advice_in_words():
    values = {"loss": [1.0, 0.6, 0.3, 0.2, 0.1], "val_loss": [1.0, 0.6, 0.8, 1.0, 1.2]}
    found = diagnose({"accuracy": [0.8, 0.9, 1, 1, 1], "val_accuracy": [0.7] * 5, **values})
    assert titles(found)[:2] == ["Train longer", "A bigger network"]
    assert titles(found).index("Stop early") > titles(found).index("More training pictures")
    assert changes(found) == {"epochs": 10}


# steps


def test_bias_asks_for_a_bigger_network_first_then_the_rest_in_the_textbooks_order(told, data):
    found = diagnose(told((200, 1000), (205, 1000), fields={"label_smoothing": 0.1, "augment": "heavy"}))
    assert titles(found) == ["A bigger network", "Train longer", "Less regularisation", "Another architecture"]
    assert [step.changes for step in found.steps] == [
        {"model": ("resnet20", "resnet32")},
        {"epochs": (6, 12)},
        {"label_smoothing": (0.1, 0.0), "dropout": (0.2, 0.0), "augment": ("heavy", "medium")},
        {"model": ("resnet20", "inception_small")},
    ]


def test_pretrained_networks_stay_pretrained_and_thaw(told):
    found = diagnose(told((200, 1000), (205, 1000), fields=PHOTOS))
    assert found.steps[0].changes == {
        "model": ("mobilenet_v2", "efficientnetv2_b0"),
        "weights": ("keras/mobilenet_v2", "keras/efficientnetv2_b0"),
    }
    assert {step.title: step.changes for step in found.steps}["Freeze less"] == {"freeze": ("large", "medium")}
    fields = {
        **PHOTOS,
        "model": "efficientnetv2_b0",
        "weights": "keras/efficientnetv2_b0",
        "freeze": ("large", "small"),
    }
    grown = diagnose(told((200, 1000), (205, 1000), fields=fields))
    assert changes(grown)["image_size"] == (240, 240)
    assert changes(grown)["freeze"] == "none"


def test_variance_asks_for_more_pictures_first_then_for_regularisation(told, data):
    found = diagnose(told((0, 1000), (100, 1000)))
    assert titles(found)[0] == "More training pictures"
    assert f"There are {len(data.train) / 2:.0f} a class" in found.steps[0].why
    assert 'learning_curve("resnet20", data)' in found.steps[0].why
    assert changes(found) == {"augment": "light", "dropout": 0.5, "l2": 1e-4, "mixing": "mixup"}
    stronger = {"augment": "light", "dropout": 0.5, "l2": 1e-3, "mixing": "cutmix", "model": "resnet56"}
    assert changes(diagnose(told((0, 1000), (100, 1000), fields=stronger))) == {
        "augment": "medium",
        "l2": 1e-2,
        "model": "resnet44",
    }
    done = {"augment": "medium", "dropout": 0.5, "l2": 1e-2, "mixing": "mixup"}
    assert titles(diagnose(told((0, 1000), (100, 1000), fields=done))) == ["More training pictures"]


def test_heavy_augmentation_is_for_long_trainings_from_scratch(told):
    def next_policy(**fields):
        return changes(diagnose(told((0, 1000), (100, 1000), fields=fields))).get("augment")

    assert [next_policy(epochs=60, augment=now) for now in ("none", "medium", "heavy")] == ["medium", "heavy", None]
    assert next_policy(epochs=6, augment="medium") is None
    assert next_policy(**PHOTOS) is None
    assert next_policy(**{**PHOTOS, "freeze": "medium"}) == "light"


def test_pretrained_weights_are_held_by_freezing_and_by_a_pull_to_them(told):
    found = changes(diagnose(told((0, 1000), (100, 1000), fields={**PHOTOS, "freeze": "small"})))
    assert (found["freeze"], found["l2_sp"], found["model"]) == ("medium", 0.01, "mobilenet_v3_small")
    assert "l2" not in found
    frozen = changes(diagnose(told((0, 1000), (100, 1000), fields=PHOTOS)))
    assert frozen == {"dropout": 0.5, "l2": 1e-4}


def test_both_fights_bias_first_and_takes_back_nothing(told):
    found = diagnose(told((200, 1000), (400, 1000), fields={**PHOTOS, "freeze": "medium"}))
    names = titles(found)
    assert names.index("A bigger network") < names.index("More training pictures") < names.index("More dropout")
    assert not {"Less regularisation", "Freeze more", "A smaller network"} & set(names)


def test_a_training_that_was_cut_short_goes_on_before_anything_is_built(told):
    falling = {"loss": [2.0, 1.5, 1.2, 1.0, 0.8, 0.6], "val_loss": [2.0, 1.5, 1.2, 1.0, 0.8, 0.7]}
    found = diagnose(told((200, 1000), (205, 1000), history=falling, best_epoch=6))
    assert titles(found)[:2] == ["Train longer", "A bigger network"]
    stopped = {"loss": [2.0, 1.5, 1.2, 1.0, 0.8, 0.6], "val_loss": [2.0, 1.0, 1.2, 1.3, 1.4, 1.5]}
    fields = {"epochs": 20}
    again = diagnose(told((200, 1000), (405, 1000), history=stopped, best_epoch=2, fields=fields))
    assert "Train longer" not in titles(again)
    assert any("ended the training at epoch 6 of 20" in step.why for step in again.steps)
    level = {"loss": [0.5] * 14, "val_loss": [0.5] * 14}
    late = told((200, 1000), (205, 1000), history=level, best_epoch=11, fields=fields)
    assert "Train longer" not in titles(diagnose(late))
    assert "Train longer" in titles(diagnose(replace(late, best_epoch=13)))
    once = diagnose(told((200, 1000), (205, 1000), history={"loss": [2.0], "val_loss": [2.0]}, best_epoch=1))
    assert titles(once)[0] == "Train longer"


@pytest.mark.parametrize(
    "loss, fields, to",
    [
        ([2.3, 2.0, 9.0], {}, 1e-4),
        ([2.3, 2.0, float("nan")], {"learning_rate": 0.03}, 0.003),
        ([float("nan")] * 3, {}, None),
        ([2.30, 2.30, 2.29], {"learning_rate": 1e-5}, 1e-4),
        ([2.30, 2.30, 2.29], {"learning_rate": 1e-3, "optimizer": "sgd"}, 1e-2),
        ([2.30, 2.30, 2.29], {"learning_rate": 0.1}, 0.01),
        ([2.30, 2.0, 1.5], {}, None),
    ],
)
def test_the_rate_changes_where_the_loss_diverged_or_never_moved(told, loss, fields, to):
    history = {"loss": loss, "val_loss": loss}
    found = diagnose(told((200, 1000), (205, 1000), history=history, best_epoch=3, fields=fields))
    assert changes(found).get("learning_rate") == to
    if to:
        assert "learning_rate" in found.steps[0].changes


def test_labels_that_look_wrong_may_be_right_where_the_training_pictures_are_not_fitted(told):
    bias = diagnose(told((430, 1000, "train", 4), (440, 1000, "dev", 4, False)))
    assert bias.verdict == "high bias" and titles(bias)[0] == "A bigger network"
    assert titles(bias)[-1] == "Look at the labels" and "may be wrong" in bias.steps[-1].why
    both = diagnose(told((200, 1000, "train", 4), (300, 1000, "dev", 4, False)))
    assert both.verdict == "high bias and high variance" and titles(both)[0] == "A bigger network"
    at = titles(both).index("Look at the labels")
    assert titles(both)[at - 1] == "More training pictures" and "suspects 300 of 1000" in both.steps[at].why
    assert not any("no other network" in step.why for found in (bias, both) for step in found.steps)
    tiny = diagnose(told((0, 1000, "train", 4), (300, 1000, "dev", 4, False)))
    assert titles(tiny)[:2] == ["More training pictures", "Look at the labels"]
    assert "no other network helps" in tiny.steps[1].why
    lost = diagnose(told((200, 1000, "train", 4), (700, 1000, "dev", 4, False)))
    assert "Look at the labels" not in titles(lost)  # one that is mostly wrong suspects what is right


def test_a_rare_class_that_is_left_behind_is_named(told):
    uneven, labels = made(300, 30), np.repeat([0, 1], [300, 30])
    values = np.where(np.arange(330)[:, np.newaxis] < 315, [0.9, 0.1], [0.1, 0.9])  # half of the rare are missed
    dev = Evaluation("dev", uneven.class_names, list(map(str, range(330))), labels, values)

    def helped(data=uneven, **fields):
        steps = diagnose(told((0, 1000), dev, data=data, fields=fields)).steps
        return next((step for step in steps if step.title == "Help the rare class class 1"), None)

    assert helped().changes == {"class_weights": ("none", "balanced")}
    assert "50% of its 30 dev pictures are right, of all 95%" in helped().why
    assert helped(class_weights="balanced").changes == {
        "sampling": ("as is", "balanced"),
        "class_weights": ("balanced", "none"),
    }
    assert helped(sampling="balanced").changes == {}
    assert helped(data=made(40, 40)) is None


def test_a_good_run_is_tested_once_exported_and_compared_with_people(told, data):
    assert titles(diagnose(told((0, 1000), (5, 1000)))) == [
        "Evaluate on the test set, once",
        "Export it",
        "Compare with people",
    ]
    untested = SimpleNamespace(dev=data.dev, train=data.train, test=[], manifest=data.manifest)
    assert (
        titles(diagnose(told((0, 1000), (5, 1000), data=untested), human_error=0.001))[0] == "Set test pictures apart"
    )


def test_a_good_run_that_was_tested_is_not_tested_again(told, tmp_path):
    run = told((0, 1000), (5, 1000), directory=tmp_path)
    evaluations = tmp_path / "evaluation"
    evaluations.mkdir()
    (evaluations / "dev.json").write_text("{}")
    assert titles(diagnose(run))[0] == "Evaluate on the test set, once"
    (evaluations / "test.json").write_text("{}")
    assert titles(diagnose(run)) == ["Export it", "Compare with people"]


def test_a_model_of_ones_own_is_changed_in_words(told):
    found = diagnose(told((200, 1000), (400, 1000), fields=OWN))
    assert not {"model", "weights", "image_size", "head", "dropout", "l2", "precision"} & set(changes(found))
    assert {"A bigger network", "Another architecture", "More dropout"} <= set(titles(found))


def test_photos_from_scratch_are_pointed_to_learned_weights(told):
    photos = made(20, 20, side=96)
    found = diagnose(told((0, 1000), (100, 1000), data=photos))
    step = next(step for step in found.steps if step.title == "Start from learned weights")
    assert step.changes == {
        "model": ("resnet20", "mobilenet_v2"),
        "weights": (None, "keras/mobilenet_v2"),
        "image_size": ((32, 32), (224, 224)),
        "freeze": ("none", "auto"),
    }
    sharper = diagnose(told((100, 1000), (100, 1000), data=photos))
    assert {step.title: step.changes for step in sharper.steps}["Larger pictures"] == {
        "image_size": ((32, 32), (64, 64))
    }


def test_every_change_is_one_that_fine_tune_takes(told):
    photos = made(20, 20, side=96)
    networks = [
        {"model": name, "weights": row.weights[0].name if row.weights else None, "image_size": (row.image_size,) * 2}
        for name, row in CATALOG.items()
    ]
    freezes = ("none", "small", "medium", "large", ("large", "medium"), ("medium", "none"))
    counts = [((200, 1000), (205, 1000)), ((0, 1000), (100, 1000)), ((200, 1000), (400, 1000)), ((0, 9), (0, 9))]
    drawn = random.Random(0)
    titled = set()
    for network, (train, dev) in zip(networks, itertools.cycle(counts), strict=False):
        fields = {
            "freeze": drawn.choice(freezes) if network["weights"] else "none",
            "augment": drawn.choice(("none", "light", "heavy", "trivial")),
            "dropout": drawn.choice((0.0, 0.5, 0.6)),
            "l2": drawn.choice((0.0, 1e-3, 1.0)),
            "epochs": drawn.choice((4, 60)),
        }
        fields |= network
        run = told(train, dev, data=photos, fields=fields)
        found = diagnose(run)
        titled |= set(titles(found))
        for step in found.steps:
            assert all(old == getattr(run.recipe, name) != new for name, (old, new) in step.changes.items())
            recipe = run.recipe.with_fields({name: new for name, (_, new) in step.changes.items()})
            assert recipe.weights is None or find_tag(recipe.model, recipe.weights)
            assert min(recipe.image_size) >= CATALOG[recipe.model].smallest_size
        to = {name: new for name, (_, new) in found.steps[0].changes.items()}
        recipe = preparing.resolved(to.pop("model", run.recipe.model), photos, run.recipe.with_fields(to))
        preparing.configured(photos, recipe)
    assert {"A bigger network", "A smaller network", "Freeze less", "Freeze more", "Train longer"} <= titled


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_neighbours_are_larger_smaller_and_other(row):
    for pretrained in {False, bool(row.weights)}:
        more, less, other = (
            find(row.name, row.image_size, pretrained)
            for find in (neighbours.larger, neighbours.smaller, neighbours.other)
        )
        for found in filter(None, (more, less, other)):
            assert found.name != row.name and found.smallest_size <= row.image_size
            assert found.weights or not pretrained
        assert more is None or more.parameters > row.parameters
        assert less is None or less.parameters < row.parameters
        assert other is None or other != more


# looks


def test_it_fits_a_screen_and_says_how_to_go_on(told):
    found = diagnose(told((200, 1000), (400, 1000), fields={**PHOTOS, "freeze": "medium"}), train_dev=seen(300, 1000))
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 100 and len(lines) <= 50
    assert lines[0].startswith("High bias and high variance. It gets 20.0% of 1000 training pictures wrong")
    assert "200 of 1000 pictures, 95 % interval 17.6% to 22.6%" in str(found)
    assert 'model: "mobilenet_v2" -> "efficientnetv2_b0"' in str(found)
    call = "run.data, recipe=run.recipe, weights='keras/efficientnetv2_b0')"
    assert " ".join(str(found).split()).endswith(f"Such as zoo.fine_tune('efficientnetv2_b0', {call}")
    assert all(step.title in " ".join(str(found).split()) for step in found.steps)
    plain = found.figures()
    assert plain["steps"][0]["changes"]["model"] == {"from": "mobilenet_v2", "to": "efficientnetv2_b0"}
    assert plain["variance"] == found.variance._asdict() and json.loads(json.dumps(plain)) == plain


def test_the_call_names_the_network_unless_it_was_handed_over(told):
    def last(found):
        return " ".join(str(found).split()).partition("Such as ")[2]

    augmented = "run.data, recipe=run.recipe, augment='light')"
    assert last(diagnose(told((0, 1000), (100, 1000)))) == f"zoo.fine_tune('resnet20', {augmented}"
    own = last(diagnose(told((0, 1000), (100, 1000), fields=OWN)))
    assert own == f"zoo.fine_tune(model, {augmented}, with `model` as it was before the training"
    history = {"accuracy": [0.5, 0.8], "val_accuracy": [0.5, 0.8], "val_loss": [0.9, 0.5], "loss": [0.9, 0.5]}
    found = diagnose(history, train_dev=seen(200, 1000))
    assert changes(found) == {"epochs": 4} and last(found) == ""
    assert call(CHOSEN, {}) == ""


def test_names_are_escaped_in_notebooks(told):
    found = diagnose(told((0, 1000), (0, 1000)))
    page = replace(found, steps=[Step("Help <b>", {"model": ("<i>", "b")}, "<u>")])._repr_html_()
    assert "Help &lt;b&gt;" in page and "&lt;i&gt;" in page and "&lt;u&gt;" in page


def test_a_few_wrong_training_pictures_are_no_high_bias(told):
    few = diagnose(told((5, 245), (8, 153)))
    assert few.verdict == "good" and few.bias.value > 0.02
    shown = (
        "avoidable bias of 2.0 points is not shown to be above 1 point on 245 training pictures: between 0.9 and 4.7"
    )
    assert shown in few.sentence and "avoidable bias of 2.0 points may be chance" not in few.sentence
    assert "95 % interval 0.9 to 4.7, not all above 1" in str(few)
    assert "not all above" not in str(diagnose(told((50, 2450), (60, 1530)))) + str(diagnose(told((2, 245), (2, 153))))
    assert diagnose(told((50, 2450), (60, 1530))).verdict == "high bias"
