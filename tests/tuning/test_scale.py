"""Scales: where values lie, and what is written there."""

import math

import numpy as np
import pandas as pd
import pytest
from keras_tuner import HyperParameters

from tuning.scale import Scale, said, scales


def described(item):
    """A hyperparameter as `Space.describe` tells of it."""
    names = {"low": "min_value", "high": "max_value", "step": "step", "sampling": "sampling", "values": "values"}
    entry = {name: getattr(item, attribute, None) for name, attribute in names.items()}
    return {"name": item.name, "kind": type(item).__name__.lower(), "default": item.default, **entry}


@pytest.mark.parametrize("sampling", ["linear", "log", "reverse_log"])
def test_places_are_those_that_keras_tuner_samples_by(sampling):
    hp = HyperParameters()
    hp.Float("rate", 1e-4, 1e-1, sampling=sampling)
    item = hp.space[0]
    values = [item.prob_to_value(share) for share in (0.0, 0.2, 0.9, 1.0)]

    (scale,) = scales([described(item)], pd.DataFrame({"rate": values}))

    assert scale.places(values) == pytest.approx([0, 0.2, 0.9, 1], abs=1e-6)
    places, texts = zip(*scale.ticks(), strict=True)
    assert list(places) == sorted(places) and places[0] == 0 and places[-1] == pytest.approx(1)
    assert texts[0] == "0.0001" and texts[-1] == "0.1"


def test_a_log_scale_has_its_powers_of_ten():
    assert [text for _, text in Scale("rate", "log", 2e-5, 1e-1).ticks()] == [
        "2e-05",
        "0.0001",
        "0.001",
        "0.01",
        "0.1",
    ]


def test_numbers_to_choose_from_stand_in_order_and_names_as_they_were_given():
    hp = HyperParameters()
    hp.Choice("batch", [64, 16, 32])
    hp.Choice("kind", ["sgd", "adam"])
    hp.Boolean("flip")
    trials = pd.DataFrame({"batch": [16, 64], "kind": ["adam", "sgd"], "flip": [True, False]})

    batch, kind, flip = scales([described(item) for item in hp.space], trials)

    assert (batch.kind, kind.kind) == ("ordered", "categories")
    assert [text for _, text in batch.ticks()] == ["16", "32", "64"]
    assert [text for _, text in kind.ticks()] == ["sgd", "adam"]
    assert [text for _, text in flip.ticks()] == ["no", "yes"]
    assert batch.places([32, 64]).tolist() == [0.5, 1]


def test_a_column_with_gaps_keeps_its_choices_and_has_no_place_in_them():
    entry = {"name": "units", "kind": "choice", "values": [64, 128]}
    trials = pd.DataFrame({"units": [64, None, 128]})  # which pandas holds as 64.0, NaN, 128.0

    (scale,) = scales([entry], trials)

    assert [text for _, text in scale.ticks()] == ["64", "128"]
    np.testing.assert_array_equal(scale.places(trials.units), [0, math.nan, 1])


def test_what_never_varied_has_no_scale():
    space = [{"name": name, "kind": "float", "low": 0, "high": 1, "sampling": "linear"} for name in ("a", "b", "c")]
    trials = pd.DataFrame({"a": [0.5, 0.5], "b": [0.1, 0.2], "c": [0.3, None]})

    assert [scale.name for scale in scales(space, trials)] == ["b"]


def test_a_scale_is_widened_to_what_was_tried():
    space = [{"name": "rate", "kind": "float", "low": 0.1, "high": 0.2, "sampling": "linear"}]

    (scale,) = scales(space, pd.DataFrame({"rate": [0.05, 0.2]}))

    assert scale.places([0.05, 0.2]).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (1e-5, "1e-05"),
        (0.017832, "0.0178"),
        (1024, "1024"),
        (224.0, "224"),
        ("adam", "adam"),
        (None, ""),
    ],
)
def test_values_are_said_in_few_characters(value, text):
    assert said(value) == text
