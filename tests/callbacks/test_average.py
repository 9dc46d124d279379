import json

import numpy as np
import pytest

from callbacks.average import ExponentialAverage

VALUES = (40.0, 49.0, 45.0, 44.0, 56.0, 61.0)
# by hand: v = 0.9 v + 0.1 x, and v / (1 - 0.9 ** t)
PLAIN = (4.0, 8.5, 12.15, 15.335, 19.4015, 23.56135)
CORRECTED = (40.0, 44.7368421, 44.8339483, 44.5914510, 47.3773534, 50.2847027)


@pytest.mark.parametrize(("correct", "wanted"), [(False, PLAIN), (True, CORRECTED)])
def test_the_average_follows_the_textbook_table(correct, wanted):
    average = ExponentialAverage(0.9, correct=correct)
    assert average.value is None
    found = [average.update(value) for value in VALUES]
    assert found == pytest.approx(wanted, rel=1e-8)
    assert average.value == found[-1] and isinstance(average.value, float)


def test_without_memory_the_average_is_the_last_value():
    average = ExponentialAverage(0)
    assert [average.update(value) for value in VALUES] == list(VALUES)


def test_a_constant_stays_what_it_is_from_the_first_value_on():
    average = ExponentialAverage(0.999)
    assert [average.update(0.3) for _ in range(50)] == pytest.approx([0.3] * 50, rel=1e-12)


def test_arrays_are_averaged_number_by_number():
    average = ExponentialAverage(0.9)
    for value in VALUES:
        pair = average.update(np.array([value, 2 * value], "float32"))
    assert pair == pytest.approx([CORRECTED[-1], 2 * CORRECTED[-1]], rel=1e-8)
    given = np.ones(2)
    average = ExponentialAverage(0.5)
    average.update(given)
    given[:] = 9
    assert average.value.tolist() == [1, 1]  # the caller's array is not kept


def test_a_value_that_is_not_finite_stays_in_the_average():
    average = ExponentialAverage()
    average.update(1.0)
    assert np.isnan(average.update(np.nan)) and np.isnan(average.update(1.0))


@pytest.mark.parametrize("kind", [float, lambda value: np.array([value, -value])])
def test_an_average_goes_on_from_its_state(kind):
    whole, half = ExponentialAverage(0.9), ExponentialAverage(0.9)
    for value in VALUES[:3]:
        whole.update(kind(value)), half.update(kind(value))
    other = ExponentialAverage(0.9)
    other.set_state(half.get_state())
    for value in VALUES[3:]:
        assert np.array_equal(whole.update(kind(value)), other.update(kind(value)))


def test_the_state_of_numbers_is_plain():
    average = ExponentialAverage()
    assert json.loads(json.dumps(average.get_state())) == {"average": None, "count": 0}
    average.set_state(average.get_state())
    assert average.value is None
    average.update(2)
    assert json.loads(json.dumps(average.get_state())) == {"average": pytest.approx(0.2), "count": 1}


@pytest.mark.parametrize("beta", [-0.1, 1, 1.5, float("nan")])
def test_a_beta_outside_its_range_is_refused(beta):
    with pytest.raises(ValueError, match=r"`beta` must lie in \[0, 1\)"):
        ExponentialAverage(beta)


def test_values_that_cannot_be_averaged_are_refused():
    average = ExponentialAverage()
    with pytest.raises(TypeError, match="number or an array of numbers. Received: str"):
        average.update("a lot")
    average.update(np.ones(3))
    with pytest.raises(ValueError, match=r"shape of those before it, \(3,\).*Received shape: \(2,\)"):
        average.update(np.ones(2))
