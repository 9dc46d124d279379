"""What to try next: KerasTuner's search algorithms, driven without its tuners and files."""

import hashlib
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from keras_tuner import HyperParameters, Objective
from keras_tuner.engine import hyperparameters as kinds

from tuning.oracles import ALGORITHMS, Idle, oracle, quiet
from tuning.space import RESERVED

WAIT: Final = "wait"  # nothing can be proposed before a running trial has ended
DONE: Final = "done"  # nothing is left to propose


@dataclass(frozen=True)
class Proposal:
    """A trial to run.

    Attributes:
        trial: "0000", "0001", ... in order of proposal.
        values: Name to value of the active hyperparameters.
        epochs: Where to stop, counted from the beginning of the training; None: where the values say.
        continues: The trial whose training goes on, or None for one that begins.
    """

    trial: str
    values: dict[str, Any]
    epochs: int | None = None
    continues: str | None = None


class Proposals:
    """The proposals of one search: the same ones for the same seed and results, also after a restart.

    The first proposal is always the defaults, and no values are proposed twice except to continue a trial, nor others
    that differ from earlier ones in idle values alone. Chance is a function of the seed and the number of the trial,
    never of a global state, so nothing needs to be kept of it.

    - "random" and "grid" depend on no result: they come in the same order however many trials run at once. Grid takes
      ten values of a range without steps, and the default.
    - "bayesian": Gaussian process and upper confidence bound, Srinivas et al. 2010, https://arxiv.org/abs/0912.3995.
      It starts with as many random points as there are hyperparameters, 4 to 10: KerasTuner's three times as many
      would leave nothing of a search of 20 trials. Failed trials are passed over; those that run count with the score
      that the process fears, KerasTuner's way, from a process fitted to what is known at that moment.
    - "hyperband": Li et al. 2018, https://jmlr.org/papers/v18/16-558.html, over and over until as many trials are made
      as are wanted. A failed trial ranks last and is never continued; where it would be, its place stays empty.

    Args:
        hyperparameters: The whole space.
        defaults: Name to value of the hyperparameters that are active in the first trial.
        algorithm: "bayesian", "random", "grid" or "hyperband".
        objective: Name of what is scored.
        direction: "max" or "min".
        seed: Whole number of at least 0; 0 is a seed like any other.
        epochs: Of a whole training; Hyperband's longest.
        idle: From values to the names of those that make no difference beside the others, such as `tuning.space.Space`
            has it; where it raises, all do. It must give the same again. None: there are none.

    Attributes:
        size: Number of combinations of all values, idle ones too; None where there are infinitely many.

    Raises:
        ValueError: If an argument is outside these bounds, or the first round of Hyperband has more trials than there
            are combinations, not counting what differs in idle values alone.

    Example:
        >>> hp = HyperParameters()
        >>> rate = hp.Float("learning_rate", 1e-5, 1e-1, sampling="log", default=1e-3)
        >>> search = Proposals(hp, {"learning_rate": 1e-3}, algorithm="random", objective="val_loss", direction="min")
        >>> search.propose()
        Proposal(trial='0000', values={'learning_rate': 0.001}, epochs=None, continues=None)
        >>> search.tell("0000", 0.25)
    """

    def __init__(
        self,
        hyperparameters: HyperParameters,
        defaults: Mapping[str, Any],
        *,
        algorithm: str = "bayesian",
        objective: str,
        direction: str,
        seed: int = 0,
        epochs: int = 20,
        idle: Idle | None = None,
    ):
        _check(hyperparameters, defaults, algorithm, direction, seed, epochs)
        self.algorithm, self.objective, self.seed = algorithm, objective, seed
        self._space = _prepared(hyperparameters, defaults, grid=algorithm == "grid")
        self._running: set[str] = set()
        self._failed_score = -math.inf if direction == "max" else math.inf
        self.size = _combinations(self._space)
        make: Any = partial(
            oracle,
            space=self._space,
            defaults=dict(defaults),
            objective=Objective(objective, direction),  # KerasTuner's guess of the direction is wrong at times
            seed=_chance(seed, "search"),
            epochs=epochs,
            idle=idle,
        )
        self._oracle = make(algorithm)
        if algorithm == "hyperband" and self.size is not None:
            _check_rounds(self._oracle, self.size, make("random"))

    def propose(self) -> Proposal | str:
        """The next trial; or `WAIT`, only while trials run; or `DONE`."""
        number = len(self._oracle.trials)
        chance = _chance(self.seed, number)
        self._oracle._seed_state, self._oracle._random_state = chance, np.random.RandomState(chance)
        with quiet():
            trial = self._oracle.create_trial(str(number))
            if trial.status != "RUNNING":
                return WAIT if trial.status == "IDLE" else DONE
            if self.algorithm in ("random", "grid"):  # the grid holds its next point back until this one has ended
                trial.status = "FAILED"  # the one way to end without a score
                self._oracle.end_trial(trial)
        self._running.add(trial.trial_id)
        found = trial.hyperparameters.values
        values = {name: value for name, value in found.items() if not name.startswith(RESERVED)}
        return Proposal(trial.trial_id, values, found.get("tuner/epochs"), found.get("tuner/trial_id"))

    def tell(self, trial: str, score: float | None) -> None:
        """What came of a trial.

        Args:
            trial: One that was proposed and of which nothing was told.
            score: The objective, finite; None if the trial failed.

        Raises:
            ValueError: If it is not so.
        """
        if trial not in self._running:
            raise ValueError(
                f"`trial` must be one that runs: {', '.join(sorted(self._running)) or 'none does'}. "
                f"Received: trial={trial!r}"
            )
        if score is not None and not (isinstance(score, numbers.Real) and math.isfinite(score)):
            raise ValueError(f"`score` must be a finite number, or None for a failed trial. Received: score={score!r}")
        self._running.remove(trial)
        if self.algorithm in ("random", "grid"):
            return
        if score is None and self.algorithm == "hyperband":
            score = self._failed_score  # a rank, so that its round gets full
        ended = self._oracle.trials[trial]
        with quiet():
            if score is not None:
                self._oracle.update_trial(trial, {self.objective: float(score)})
            ended.status = "FAILED" if score is None else "COMPLETED"
            self._oracle.end_trial(ended)

    def rebuild(self, events: Iterable[Proposal | tuple[str, float | None]]) -> None:
        """Brings a fresh object to the state that another one was in.

        What is random, of a grid or Hyperband's is proposed again and compared. A Bayesian step is taken as it is
        written if the space holds it: it leaves no trace but its values, and another scikit-learn, or another
        processor, may differ in the last digit.

        Args:
            events: Proposals, and pairs of trial and score, in the order in which they came.

        Raises:
            ValueError: If something was proposed already; or at the first proposal that comes out differently.
        """
        if self._oracle.trials:
            raise ValueError(f"Only fresh proposals can be rebuilt. Received: {len(self._oracle.trials)} trials made")
        for event in events:
            if not isinstance(event, Proposal):
                self.tell(*event)
                continue
            if self.algorithm == "bayesian":
                self._oracle.written = event.values if _holds(self._space, event.values) else None
            proposal = self.propose()
            if proposal != event:
                raise ValueError(
                    f"Trial {event.trial} comes out differently from how it was written down: as {proposal}, not as "
                    f"{event}. Was it another space or seed, or another version of KerasTuner or scikit-learn?"
                )
        if self.algorithm == "bayesian":
            self._oracle.written = None


def _chance(seed: int, number: int | str) -> int:
    """1 to 2**32 - 1. Neighbouring seeds have nothing in common, where KerasTuner's share all draws but the first."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return 1 + int.from_bytes(digest[:8], "big") % (2**32 - 1)


def _prepared(hyperparameters: HyperParameters, defaults: Mapping[str, Any], *, grid: bool) -> HyperParameters:
    """A copy with the defaults of the first trial; numbers in steps, and in a grid all, become choices."""
    prepared = HyperParameters()
    items: list[Any] = hyperparameters.space
    for item in items:
        default = defaults.get(item.name, item.default)
        if isinstance(item, kinds.Float) and (grid or item.step):
            values = sorted({*_samples(item)} - {_rounded(default)} | {float(default)})
            item = kinds.Choice(item.name, values, default=default, conditions=item.conditions)
        elif isinstance(item, kinds.Int) and grid:
            values = sorted({round(value) for value in _samples(item)} | {default})
            item = kinds.Choice(item.name, values, default=default, conditions=item.conditions)
        elif not isinstance(item, kinds.Fixed):
            item = type(item).from_config({**item.get_config(), "default": default})
        prepared.merge([item])
    return prepared


def _samples(item: Any) -> list[float]:
    """KerasTuner's, without its rounding errors: 0.2 to 0.5 by 0.1 holds 0.30000000000000004 there, and no 0.5."""
    found = [_rounded(value) for value in item.values]
    if item.step and item.sampling == "linear" and _rounded(found[-1] + item.step) == _rounded(item.max_value):
        found.append(item.max_value)
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.12g}")


def _combinations(space: HyperParameters) -> int | None:
    """How many there are, None for infinitely many."""
    parents = {condition.name for item in space.space for condition in item.conditions}

    def count(number: int, chosen: dict[str, Any]) -> float:
        if number == len(space.space):
            return 1
        item = space.space[number]
        if not all(condition.is_active(chosen) for condition in item.conditions):
            return count(number + 1, chosen)
        if isinstance(item, kinds.Float):  # in steps it would be a choice
            return math.inf
        whole = isinstance(item, kinds.Int) and item.step is None
        values = range(item.min_value, item.max_value + 1) if whole else list(item.values)
        if item.name in parents:
            return sum(count(number + 1, {**chosen, item.name: value}) for value in values)
        return len(values) * count(number + 1, chosen)

    found = count(0, {})
    return None if math.isinf(found) else int(found)


def _holds(space: HyperParameters, values: Mapping[str, Any]) -> bool:
    """Whether these are values of the active hyperparameters, all of them and no others."""
    active = [item for item in space.space if all(condition.is_active(values) for condition in item.conditions)]
    return {item.name for item in active} == set(values) and all(_fits(item, values[item.name]) for item in active)


def _fits(item: Any, value: Any) -> bool:
    if isinstance(item, (kinds.Float, kinds.Int)):
        return isinstance(value, numbers.Real) and item.min_value <= value <= item.max_value
    return value in item.values


def _check(hyperparameters, defaults, algorithm, direction, seed, epochs) -> None:
    if algorithm not in ALGORITHMS:
        raise ValueError(f"`algorithm` must be one of {', '.join(ALGORITHMS)}. Received: algorithm={algorithm!r}")
    if direction not in ("max", "min"):
        raise ValueError(f"`direction` must be max or min. Received: direction={direction!r}")
    for name, value, least in (("seed", seed, 0), ("epochs", epochs, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"`{name}` must be a whole number of at least {least}. Received: {name}={value!r}")
    if not _holds(hyperparameters, defaults):
        raise ValueError(
            "`defaults` must have a value in its range for each hyperparameter that is active with them, and no "
            f"others. Received: defaults={dict(defaults)}"
        )


def _check_rounds(hyperband: Any, size: int, draws: Any) -> None:
    """A first round that cannot be filled would keep every trial from being continued."""
    first = hyperband._get_size(hyperband._current_bracket, 0)
    if size >= first:  # some may differ from others in idle values alone
        with quiet():
            size = next((made for made in range(first) if draws.create_trial(str(made)).status != "RUNNING"), first)
    if size < first:
        raise ValueError(
            f"Hyperband's first round has {first} trials, and the space has {size} combinations. Take "
            "algorithm='grid', which tries them all."
        )
