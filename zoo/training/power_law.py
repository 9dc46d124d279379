"""Error against the number of training pictures as a power law, and what chance leaves open of it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

FEWEST = 3  # sizes; a law has three numbers
STEEPEST = 2.0  # Hestness et al. 2017 found exponents from 0.07 to 0.35 for errors without an asymptote
_FLATTEST = 0.01
_STARTS = (0.25, 0.5, 1.0)  # exponents from which the best fit is looked for


class PowerLaw(NamedTuple):
    """error = a + b * pictures ** -c.

    Attributes:
        a: The error that is left with any number of pictures, from 0.
        b: Above 0; the size of what pictures can bring.
        c: How fast they do, above 0 and up to 2.
    """

    a: float
    b: float
    c: float

    def error(self, pictures: float) -> float:
        """The error at a number of training pictures."""
        return self.a + self.b * float(pictures) ** -self.c


def fit(pictures: Sequence[float], errors: Sequence[float], counted: int) -> PowerLaw | None:
    """The law that comes nearest to some errors, each weighed by how exactly it was measured.

    Least squares, each error weighed by the inverse of its binomial variance; the asymptote lies between 0 and the
    lowest error. Hestness et al. 2017, https://arxiv.org/abs/1712.00409; of the forms that Viering and Loog 2021,
    https://arxiv.org/abs/2103.10948, compare, the one with three numbers.

    Args:
        pictures: Numbers of training pictures, rising (sizes,).
        errors: The share of wrong answers at each, (sizes,).
        counted: Pictures that the errors were measured on.

    Returns:
        A law, or None where there are fewer than three sizes, or the last error is not below the first.

    Example:
        >>> law = fit([100, 200, 400, 800], [0.25, 0.175, 0.1375, 0.11875], 10_000)
        >>> print(f"{law.a:.3f} + {law.b:.1f} * pictures ** -{law.c:.2f}")
        0.100 + 15.0 * pictures ** -1.00
    """
    points = _Points(pictures, errors, counted)
    if not points.falling:
        return None
    best = min(errors) / 2
    return min((points.nearest((best, best, c)) for c in _STARTS), key=lambda found: found[1])[0]


def draws(
    pictures: Sequence[float], errors: np.ndarray, counted: int, law: PowerLaw, number: int = 200, seed: int = 0
) -> list[PowerLaw | None]:
    """Laws that other seeds and other pictures to measure on might have given: a bootstrap.

    At each size the seeds are drawn with replacement, then an error from what the pictures counted leave open of their
    mean (Jeffreys' posterior; Brown, Cai and DasGupta 2001, https://doi.org/10.1214/ss/1009213286). Sizes are drawn
    independently, though they are measured on the same pictures, which makes intervals wide rather than narrow. Few
    sizes seldom tell an asymptote from none, and a free one is found too high, so that the law without is drawn, too,
    as often as its Akaike weight says (Burnham and Anderson 2002).

    Args:
        pictures: As in `fit`.
        errors: An error for each size and seed, (sizes, seeds).
        counted: As in `fit`.
        law: That of the errors themselves.
        number: How many.
        seed: Decides the draws.

    Returns:
        A law each, None where the errors drawn do not fall.
    """
    generator = np.random.default_rng(seed)
    sizes, seeds = errors.shape
    found = []
    for _ in range(number):
        wrong = np.take_along_axis(errors, generator.integers(seeds, size=(sizes, seeds)), axis=1).mean(axis=1)
        wrong = wrong * counted
        points = _Points(pictures, generator.beta(wrong + 0.5, counted - wrong + 0.5), counted)
        chance = generator.random()
        if not points.falling:
            found.append(None)
            continue
        (free, misfit), (without, worse) = points.nearest(law), points.nearest(law, asymptote=False)
        weight = 1 / (1 + math.exp(min(worse - misfit, 50.0) - 1))  # one number fewer counts as 1
        found.append(without if chance < weight else free)
    return found


class _Points:
    """Errors at rising numbers of pictures, scaled so that the three numbers of a law are of one size."""

    def __init__(self, pictures: Sequence[float], errors: Sequence[float] | np.ndarray, counted: int):
        numbers, self.errors = np.asarray(pictures, float), np.asarray(errors, float)
        self.most = float(numbers[-1])
        self.x = numbers / self.most
        smoothed = (self.errors * counted + 1) / (counted + 2)  # no error among few pictures is no proof of none
        self.spread = np.sqrt(smoothed * (1 - smoothed) / counted)

    @property
    def falling(self) -> bool:
        return len(self.x) >= FEWEST and bool(self.errors[-1] < self.errors[0])

    def nearest(self, start: tuple[float, float, float] | PowerLaw, asymptote: bool = True) -> tuple[PowerLaw, float]:
        """The law with the least misfit, found from one near it, and half its sum of squares.

        Args:
            start: A law, or three numbers of which the second is the fall at the last point.
            asymptote: Whether `a` is free; else it is 0.
        """
        a, b, c = start
        if isinstance(start, PowerLaw):
            b *= self.most**-c
        lower, upper = [0.0, 0.0, _FLATTEST], [max(float(self.errors.min()), 1e-9), 1.0, STEEPEST]
        used = slice(0 if asymptote else 1, None)

        def misses(parameters):
            a, b, c = (0.0, *parameters)[-3:]
            return (a + b * self.x**-c - self.errors) / self.spread

        def slopes(parameters):
            _, b, c = (0.0, *parameters)[-3:]
            power = self.x**-c
            of_c = -b * np.log(self.x) * power
            return (np.stack([np.ones_like(power), power, of_c]) / self.spread)[used].T

        bounds = (lower[used], upper[used])
        found = least_squares(misses, np.clip([a, b, c][used], *bounds), jac=slopes, bounds=bounds)  # pyright: ignore
        a, b, c = map(float, (0.0, *found.x)[-3:])
        return PowerLaw(a, b * self.most**c, c), float(found.cost)
