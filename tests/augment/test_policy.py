import pytest

import augment


def test_the_policy_none_changes_nothing():
    assert augment.policy("none") is None


def test_an_unknown_policy_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="'wild'. There is: none"):
        augment.policy("wild")
