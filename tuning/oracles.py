"""KerasTuner's search algorithms as proposals need them: without files, and with some of their faults mended."""

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from keras_tuner import HyperParameters, Objective
from keras_tuner.engine import hyperparameters as kinds
from keras_tuner.oracles import BayesianOptimizationOracle, GridSearchOracle, HyperbandOracle, RandomSearchOracle
from scipy.linalg import cho_solve
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from tuning.space import RESERVED

ALGORITHMS = ("bayesian", "random", "grid", "hyperband")
FACTOR = 3  # of Hyperband: a round has a third of the trials of the one before it, and three times their epochs
COLLISIONS = 1000  # draws that were all tried before: the space is exhausted; KerasTuner's 20 leave much of a small one
STARTS = 10  # random points before the first Bayesian step, at most; as in Optuna and scikit-optimize
RESTARTS = 50  # points from which the most promising one is looked for, as in KerasTuner
TINY = 1e-10  # least variance, since the slope divides by its root

Idle = Callable[[Mapping[str, Any]], Iterable[str]]  # name to value -> names of those that make no difference


def oracle(
    algorithm: str,
    space: HyperParameters,
    defaults: dict[str, Any],
    objective: Objective,
    *,
    seed: int,
    epochs: int,
    idle: Idle | None = None,
) -> Any:
    """One of KerasTuner's, whose first trial is the defaults; it writes no files and prints nothing.

    Args:
        algorithm: One of `ALGORITHMS`.
        space: All hyperparameters.
        defaults: Name to value of those that are active in the first trial.
        objective: Name and direction.
        seed: 1 to 2**32 - 1; KerasTuner takes 0 for none.
        epochs: Of Hyperband's longest trainings.
        idle: Tells the values that make no difference: what differs in these alone counts as the same.
    """
    common: Any = {
        "objective": objective,
        "hyperparameters": space,
        "seed": seed,
        "max_consecutive_failed_trials": math.inf,  # when to give up is for the caller to say
    }
    endless: Any = None
    if algorithm == "bayesian":
        dimensions = sum(not isinstance(item, kinds.Fixed) for item in space.space)
        starts = max(4, min(dimensions, STARTS))
        made: Any = Bayesian(max_trials=endless, num_initial_points=starts, **common)
    elif algorithm == "hyperband":
        made = Hyperband(max_epochs=epochs, factor=FACTOR, hyperband_iterations=endless, **common)
    else:
        made = {"random": RandomSearchOracle, "grid": Grid}[algorithm](max_trials=endless, **common)
    if idle is not None:
        made._asked = Asked(idle)
        of_all = made._compute_values_hash
        made._compute_values_hash = lambda values: of_all(made._asked(values))
    draw = made._random_values
    made._random_values = lambda: draw() if made.trials else dict(defaults)
    made._max_collisions = COLLISIONS
    made._save_trial = lambda trial: None
    made.save = lambda: None
    made.verbose = 0
    return made


class Asked:
    """Values -> those that make a difference; the same object answers again without asking.

    A function that has asked for some values, and is given the same ones again, takes the same way.

    Args:
        idle: The others. It may take a while; where it raises, there are none.
    """

    def __init__(self, idle: Idle):
        self._idle = idle
        self._known: dict[tuple[str, ...], set[tuple]] = {}  # names that were asked for, and their values

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in values.items() if not name.startswith(RESERVED)}
        return {name: own[name] for name in self._names(own)}

    def _names(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        for names, seen in self._known.items():
            if values.keys() >= set(names) and tuple(values[name] for name in names) in seen:
                return names
        try:
            idle = set(self._idle(dict(values)))
        except Exception:  # whatever a user's function raises; the trial will say it
            idle = set()
        names = tuple(name for name in values if name not in idle)
        self._known.setdefault(names, set()).add(tuple(values[name] for name in names))
        return names


class Grid(GridSearchOracle):
    """KerasTuner's, without points that differ from an earlier one in idle values alone."""

    _asked: Asked | None = None

    def _get_next_combination(self, values):
        while (values := super()._get_next_combination(values)) is not None and self._duplicate(values):
            values = self._last_of_the_same(values)
        return values

    def _last_of_the_same(self, values: dict[str, Any]) -> dict[str, Any]:
        """The point before the next one that can be another: values that are idle and vary fastest are at their end."""
        asked = values if self._asked is None else self._asked(values)
        parents = {condition.name for item in self.hyperparameters.space for condition in item.conditions}
        values = dict(values)
        for item in reversed(self.hyperparameters.space):
            if item.name in asked or item.name in parents:
                break
            if item.name in values:
                values[item.name] = [item.default, *(value for value in item.values if value != item.default)][-1]
        return values


class Bayesian(BayesianOptimizationOracle):
    """Each proposal a function of the trials alone, and none made twice."""

    num_initial_points: int
    beta: float
    written: dict[str, Any] | None = None  # of a Bayesian step that was made before

    def populate_space(self, trial_id):
        if sum(trial.status == "COMPLETED" for trial in self.trials.values()) < self.num_initial_points:
            return self._random_populate_space()
        values = self._step() if self.written is None else dict(self.written)
        if self.written is None and self._duplicate(values):
            return self._random_populate_space()
        return {"status": "RUNNING", "values": values}

    def _step(self) -> dict[str, Any]:
        """Where the process promises most: KerasTuner's search with the slope that it estimates, 20 times as fast."""
        with threadpool_limits(1, user_api="blas"):  # matrices so small that sharing them out costs ten times the work
            self.gpr.fit(*self._vectorize_trials())
            bounds = self._get_hp_bounds()
            starts = self._random_state.uniform(size=(RESTARTS, len(bounds)))
            promise = promises(self.gpr, self.beta)
            ends = [minimize(promise, start, jac=True, bounds=bounds, method="L-BFGS-B") for start in starts]
        return self._vector_to_values(min(ends, key=lambda end: end.fun).x)

    def _vectorize_trials(self):
        """KerasTuner asks the process of the last step, at first one that has seen nothing, how running trials go."""
        trials, running = self.trials, self.ongoing_trials
        if running:
            self.trials = {name: trial for name, trial in trials.items() if trial.status == "COMPLETED"}
            self.ongoing_trials = {}
            try:
                self.gpr.fit(*super()._vectorize_trials())
            finally:
                self.trials, self.ongoing_trials = trials, running
        return super()._vectorize_trials()

    def _vector_to_values(self, vector):
        values = super()._vector_to_values(vector)
        for item in self.hyperparameters.space:
            if item.name in values and isinstance(item, (kinds.Float, kinds.Int)):
                # at the upper end KerasTuner's whole numbers are one beyond, and powers beyond by a rounding error
                value = min(max(values[item.name], item.min_value), item.max_value)
                values[item.name] = value.item() if isinstance(value, np.generic) else value
        return values


def promises(process: Any, beta: float) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Point (dimensions,) -> mean - beta * deviation of a fitted process, Matern kernel with nu 2.5; and its slope."""
    points, scale = process.X_train_, process._y_train_std
    rate = math.sqrt(5) / process.kernel_.length_scale
    factor = (process.L_, True)

    def promise(x):
        apart = x - points  # (n, dimensions)
        distance = rate * np.sqrt(np.einsum("ij,ij->i", apart, apart))
        decay = np.exp(-distance)
        alike = (1 + distance + distance**2 / 3) * decay
        explaining = cho_solve(factor, alike, check_finite=False)
        deviation = math.sqrt(max(1 - alike @ explaining, TINY))
        slopes = -(rate**2) / 3 * ((1 + distance) * decay)[:, None] * apart  # of `alike`
        mean = alike @ process.alpha_
        slope = (process.alpha_ + beta / deviation * explaining) @ slopes
        return process._y_train_mean + scale * (mean - beta * deviation), scale * slope

    return promise


class Hyperband(HyperbandOracle):
    """Brackets that failed trials do not hold up: these have a score, the worst, but are not continued."""

    def populate_space(self, trial_id):
        response: Any = super().populate_space(trial_id)
        earlier = (response.get("values") or {}).get("tuner/trial_id")
        if earlier is None or math.isfinite(self.trials[earlier].score):
            return response
        for bracket in self._brackets:  # the failed one takes its place in the next round itself, there to rank last
            for place in itertools.chain(*bracket["rounds"]):
                if place["id"] == trial_id:
                    place["id"] = earlier
        return self.populate_space(trial_id)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings that no user can do anything about."""
    with warnings.catch_warnings():
        # KerasTuner names threads in a way that Python has given up
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"keras_tuner\.")
        # the process is fitted from twenty starts; some of them end at a bound
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
