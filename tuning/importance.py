"""Which hyperparameters a search's scores hang on: a forest learns the scores, then each one is shuffled in turn."""

import html
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuning.scale import Scale, scales

FEWEST = 10  # configurations; below that a forest has next to nothing to learn from
FORESTS, TREES = 5, 100
WEAK = 0.3  # share of the scores' variance that a forest explains, below which its figures are a hint at most
OUTER = 3  # interquartile ranges, beyond which Tukey (Exploratory Data Analysis, 1977) calls a value far out
BAR = 24  # columns
WIDTH = 100  # columns of a screen


@dataclass(frozen=True, eq=False)
class Importance:
    """How much of a search's scores hangs on each hyperparameter; printing it shows a bar each. Made by `importance`.

    Attributes:
        table: A row a hyperparameter, the weightiest first: hyperparameter, importance (share, all of them sum to 1)
            and spread (standard deviation of that share over several forests). Empty where nothing can be said.
        configurations: How many the forests learned from.
        explained: Share of the variance of scores that forests explain for configurations which they have not seen
            (out-of-bag R²); it is 0 or below where they explain nothing, and NaN where there is none.
        note: What the figures rest on, and what they are worth.
    """

    table: pd.DataFrame
    configurations: int
    explained: float
    note: str

    def __str__(self):
        width = max((len(str(name)) for name in self.table.hyperparameter), default=0)
        lines = [
            f"{row['hyperparameter']!s:<{width}}  {row['importance']:>6.1%} ±{row['spread']:>5.1%}  "
            f"{'#' * math.ceil(BAR * row['importance'] - 0.5)}".rstrip()
            for row in self.table.to_dict("records")
        ]
        return "\n".join([*lines, *[""] * bool(lines), textwrap.fill(self.note, WIDTH)])

    def _repr_html_(self):
        table = self.table.round(3).to_html(index=False) if len(self.table) else ""
        return f"{table}<p>{html.escape(self.note)}</p>"


def importance(result) -> Importance:
    """How much of the scores hangs on each hyperparameter that varied, its part in combinations included.

    A random forest learns the score from the values, each on the scale on which it was searched. Then the values of one
    hyperparameter are shuffled among the configurations that a tree has not seen, and what the tree loses by that is
    its importance (permutation importance, Breiman 2001, https://doi.org/10.1023/A:1010933404324). Reading importance
    from a forest that was fitted to the trials is the idea of Hutter et al. 2014 (functional ANOVA,
    https://proceedings.mlr.press/v32/hutter14.html), which integrates over the whole space instead; permutation stays
    where the trials are, so it says what counted in this search.

    Configurations are those of the completed trials, and those of pruned ones with the score they had reached, without
    which the poor part of the space would be missing. Where Hyperband went on with a trial, its furthest rung counts. A
    score that is far out on the poor side counts as one at the fence, lest a single diverged trial decide everything.
    A value that does not apply, such as the momentum of Adam, lies in the middle of the scale: at a place of its own,
    it took over a third of the importance of the choice that it hangs on (planted scores, 20 and 60 trials).

    Args:
        result: A SearchResult, finished or not.
    """
    trials = configurations(result.trials)
    count = len(trials)
    varying = scales(result.space, trials)
    if not varying:
        return _nothing(count, "No hyperparameter varied among the trials that have a score, so none can be compared.")
    if count < FEWEST:
        have = "configuration has" if count == 1 else "configurations have"
        return _nothing(count, f"{count} {have} a score; {FEWEST} are needed to say what the score hangs on.")
    scores = _fenced(trials.score.to_numpy(float), result.direction)
    if np.ptp(scores) == 0:
        return _nothing(count, f"All {count} configurations have the same score, so none of it hangs on anything.")
    features = [_columns(scale.places(trials[scale.name]), scale) for scale in varying]
    losses, explained = zip(*(_shuffled(features, scores, seed) for seed in range(FORESTS)), strict=True)
    explained = float(np.mean(explained))
    shares = [loss / loss.sum() for loss in losses if loss.sum() > 0]
    if not shares:
        return _nothing(count, f"Forests learned nothing of the score from {count} configurations.", explained)
    mean = np.mean(shares, axis=0)
    table = pd.DataFrame(
        {"hyperparameter": [scale.name for scale in varying], "importance": mean, "spread": np.std(shares, axis=0)}
    )
    table = table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    return Importance(table, count, explained, _note(result, count, explained))


def configurations(trials: pd.DataFrame, best: str | None = None) -> pd.DataFrame:
    """The completed and pruned trials that have a score, save those that a later rung went on with; the best stays.

    Of those that are equal in all hyperparameters one counts: the best, else a completed one, the one trained longest.
    """
    trials = trials.loc[trials.status.isin(["completed", "pruned"]) & np.isfinite(trials.score.astype(float))]
    trials = trials.loc[~trials.trial.isin(set(trials.continues) - {"", best})]
    order = np.lexsort((-trials.epochs.to_numpy(int), trials.status == "pruned", trials.trial != best))
    again = trials.iloc[order].duplicated(trials.attrs["hyperparameters"])
    return trials.loc[~again[trials.index]]


def _columns(places: np.ndarray, scale: Scale) -> np.ndarray:
    """A hyperparameter as a forest takes it, float32 (trials, columns): one for each category, else one alone."""
    missing = np.isnan(places)[:, np.newaxis]
    places = places[:, np.newaxis]
    if scale.kind != "categories":
        return np.where(missing, 0.5, places).astype(np.float32)
    hot = np.rint(places * (len(scale.choices) - 1)) == np.arange(len(scale.choices))
    return np.where(missing, 1 / len(scale.choices), hot).astype(np.float32)


def _fenced(scores: np.ndarray, direction: str) -> np.ndarray:
    """Scores, those far out on the poor side brought to the outer fence."""
    low, high = np.quantile(scores, [0.25, 0.75])
    reach = OUTER * (high - low)
    if reach == 0:
        return scores
    return np.maximum(scores, low - reach) if direction == "max" else np.minimum(scores, high + reach)


def _shuffled(features: Sequence[np.ndarray], scores: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """What the trees of one forest lose with each hyperparameter shuffled, 0 at least, and R² out of bag."""
    from sklearn.ensemble import RandomForestRegressor

    columns = np.hstack(features)
    ends = np.cumsum([part.shape[1] for part in features])
    chance = np.random.default_rng(seed)
    forest = RandomForestRegressor(TREES, random_state=seed).fit(columns, scores)
    losses = np.zeros(len(features))
    summed, votes = np.zeros(len(scores)), np.zeros(len(scores))
    # `tree_.predict` leaves out checks that take two thirds of the time
    for tree, seen in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.setdiff1d(np.arange(len(scores)), seen)
        if not len(unseen):  # happens once in some thousand draws from ten
            continue
        predicted = tree.tree_.predict(columns[unseen])[:, 0]
        summed[unseen] += predicted
        votes[unseen] += 1
        error = np.square(scores[unseen] - predicted)
        for i, part in enumerate(features):
            shuffled = columns[unseen]
            shuffled[:, ends[i] - part.shape[1] : ends[i]] = part[chance.permutation(unseen)]
            losses[i] += np.sum(np.square(scores[unseen] - tree.tree_.predict(shuffled)[:, 0]) - error)
    known = votes > 0
    error = np.square(scores[known] - summed[known] / votes[known]).sum()
    return losses.clip(0), float(1 - error / np.square(scores[known] - scores[known].mean()).sum())


def _note(result, count: int, explained: float) -> str:
    """What the figures rest on, and what they are worth."""
    rest = "The figures rest" if explained > 0 else "These figures mean next to nothing: they rest"
    rest += f" on {count} configurations"
    if (result.trials.status == "pruned").any():
        rest += ", those that were pruned with the score they had reached"
    if (result.trials.continues != "").any():
        rest += ", each at its furthest rung"
    if explained <= 0:
        return f"{rest}, and what forests learned from some of these says nothing of the others (R² {explained:.2f})."
    worth = f"forests explain {explained:.0%} of the variance of {result.objective} among those they have not seen"
    caution = "; that is little, so take the order as a hint" if explained < WEAK else ""
    return f"{rest}; {worth}{caution}."


def _nothing(count: int, note: str, explained: float = math.nan) -> Importance:
    return Importance(pd.DataFrame(columns=["hyperparameter", "importance", "spread"]), count, explained, note)
