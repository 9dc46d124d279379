"""What the constructors of the callbacks ask of their arguments."""

import math
import numbers
from collections.abc import Callable


def number(name: str, value, accepted: str, holds: Callable[..., bool]) -> None:
    """Refuses what is no number, and numbers out of range.

    Args:
        name: Of the argument.
        value: What was given for it.
        accepted: The range in words that follow "must".
        holds: Whether a number is in it; of NaN it should not be.

    Raises:
        TypeError: If the value is no real number; True and False are none.
        ValueError: If it is out of range.

    Example:
        >>> number("rise", 1.5, "lie in [0, 1]", lambda rise: 0 <= rise <= 1)
        Traceback (most recent call last):
        ValueError: `rise` must lie in [0, 1]. Received: rise=1.5
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number. Received: {name}={value!r}")
    if not holds(value):
        raise ValueError(f"`{name}` must {accepted}. Received: {name}={value}")


def positive(name, value):
    """Refuses what is not a number above 0."""
    number(name, value, "be positive", lambda value: 0 < value < math.inf)


def not_negative(name, value):
    """Refuses what is not a number from 0 on."""
    number(name, value, "not be negative or infinite", lambda value: 0 <= value < math.inf)


def inside(name, value):
    """Refuses what is not a number between 0 and 1."""
    number(name, value, "lie between 0 and 1, both excluded", lambda value: 0 < value < 1)


def beta(name, value):
    """Refuses what cannot be the weight of what was before in an exponential average."""
    number(name, value, "lie in [0, 1)", lambda value: 0 <= value < 1)


def whole(name, value, least=0):
    """Refuses what is not a whole number of at least `least`; 3.0 is one."""
    number(name, value, f"be at least {least}", lambda value: value >= least)
    number(name, value, f"be at least {least}, a whole number", lambda value: value % 1 == 0)


def metric(name, value):
    """Refuses what cannot be the name of a metric."""
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be the name of a metric in the logs. Received: {name}={value!r}")
