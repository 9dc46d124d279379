"""Whether gradients are right: automatic differentiation held against differences of the loss, layer by layer.

Ng, Katanforoosh and Mourri, "Improving Deep Neural Networks", 2017, week 1, "Gradient checking": the two-sided
difference (J(w + e) - J(w - e)) / 2e beside the gradient, compared by ||a - n|| / (||a|| + ||n||). Departures:
everything is in float64; the step follows the size of weight and gradient; parameters drawn from one weight are moved
together, some up and some down, so that three differences a weight check them all.
"""

import html
import math
import operator
import textwrap
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd

from callbacks import autodiff
from zoo.evaluation.differences import ACCEPTABLE, Slopes, as_array, differences
from zoo.evaluation.float64 import check_precision, in_float64, loss_of, twin_of, walk
from zoo.evaluation.printing import WIDTH, short
from zoo.progress import track

ops: Any = keras.ops  # to pyright its functions may return None

GREAT, SUSPECT = 1e-7, 1e-3  # upper ends, with ACCEPTABLE between; those of the course. Beyond the last it is a bug
VERDICTS = ("look for a bug", "suspect", "acceptable", "great", "only kinks", "no gradient", "frozen")  # worst first
SHOWN = 24  # layers


@dataclass(frozen=True, eq=False)
class GradientCheck:
    """What came out, layer by layer; `print` it for the table and the verdict in words. Made by `check_gradients`.

    Args:
        model: Name of the model.
        pictures: How many pictures the loss was taken of.
        error: Relative distance of gradients and differences over all layers, 0 to 1.
        layers: A row a layer that holds something to train, from the input to the output: layer (of one in another,
            "outer/inner"), parameters, sampled (how many were moved), error (of its worst weight), kinks (sampled
            parameters left out), verdict, and weight, the worst one.
    """

    model: str
    pictures: int
    error: float
    layers: pd.DataFrame

    @property
    def verdict(self) -> str:
        """That of the worst layer: "great", "acceptable", "suspect" or "look for a bug".

        Where nothing could be compared, it is "only kinks" or "no gradient".
        """
        return min(self.layers.verdict, key=VERDICTS.index)

    @property
    def suspect(self) -> str | None:
        """The layer to look at: of those with a bad gradient the one nearest to the output.

        What is wrong with the gradient by a layer's input spoils all layers before it, and none behind.
        """
        bad = self.layers.layer[self.layers.verdict == VERDICTS[0]]
        return None if bad.empty else str(bad.iloc[-1])

    @property
    def sentences(self) -> list[str]:
        """The verdict in words."""
        found = [self._judgement()]
        silent = self.layers.layer[self.layers.verdict == "no gradient"].tolist()
        if silent:
            found.append(
                f"No gradient reaches {_listed(silent)}, and none is missing: the loss of these pictures does not "
                "depend on it. Its units are dead, or a normalisation behind takes out what it adds."
            )
        if kinks := int(self.layers.kinks.sum()):
            found.append(
                f"{kinks} of {int(self.layers.sampled.sum())} sampled parameters lie on a kink, as of ReLU or "
                "max-pooling, where the slopes to both sides differ and the gradient is one of them or between; they "
                "are left out."
            )
        return found

    def _judgement(self):
        verdict, error = self.verdict, f"{self.error:.1e}"
        if verdict in ("great", "acceptable"):
            looked = f"of {int(self.layers.sampled.sum()):,} of {int(self.layers.parameters.sum()):,} parameters"
            return f"{verdict.capitalize()}: gradients and differences {looked} agree to {error}; `sample` takes more."
        if verdict == "suspect":
            worst = self.layers.loc[self.layers.error.idxmax()]
            return (
                f"Suspect: gradients and differences disagree by {worst.error:.1e} at {worst.layer!r}, too much for "
                "rounding and little for a bug. Check other pictures and a larger `sample`: a kink goes away, a bug "
                "stays."
            )
        if verdict != VERDICTS[0]:
            return "Nothing could be compared: " + (
                "every difference met a kink." if verdict == "only kinks" else "no gradient reaches any layer."
            )
        names = self.layers.layer.tolist()
        behind = names[names.index(self.suspect) + 1 :]
        way = f"everything on the way from it to {behind[0]!r}" if behind else "the loss"
        bad = int((self.layers.verdict == verdict).sum())
        others = f" A wrong gradient spoils all layers before it, here {bad - 1}; so begin there." if bad > 1 else ""
        weight = self.layers.weight.iloc[names.index(self.suspect)]
        return f"Look for a bug in {self.suspect!r} (its {weight}), then in {way}.{others}"

    def __str__(self):
        rows, rest = self._shown()
        wide = min(WIDTH - 56, max(len("layer"), *(len(name) for name in rows.layer)))
        lines = [self._headline(), "", f"  {'layer':<{wide}}  parameters  sampled    error  kinks  verdict"]
        lines += [
            f"  {short(row['layer'], wide):<{wide}}  {row['parameters']:>10,}  {row['sampled']:>7,}  "
            f"{_number(row['error']):>7}  {row['kinks']:>5}  {row['verdict']}"
            for row in rows.to_dict("records")
        ]
        lines += [f"  {rest}"] if rest else []
        return "\n".join([*lines, "", *(line for text in self.sentences for line in textwrap.wrap(text, WIDTH))])

    def _repr_html_(self):
        table = self.layers.to_html(index=False, formatters={"error": _number})
        words = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in self.sentences)
        return f"<h4>{html.escape(self._headline())}</h4>{words}{table}"

    def _headline(self):
        sampled, parameters = int(self.layers.sampled.sum()), int(self.layers.parameters.sum())
        return (
            f"gradients of {self.model}: {self.verdict}, relative error {self.error:.1e} "
            f"({sampled:,} of {parameters:,} parameters, {self.pictures} picture{'s' * (self.pictures != 1)})"
        )

    def _shown(self):
        """The rows to print, the worst first where they are many, and a line about the others."""
        rows = self.layers.loc[self.layers.verdict != "frozen"]
        frozen = len(self.layers) - len(rows)
        said = [f"{frozen} frozen, not checked"] if frozen else []
        if len(rows) > SHOWN:
            rank = rows.verdict.map(VERDICTS.index)
            rows = rows.iloc[np.lexsort((-rows.error.fillna(0), rank))]
            kinds = rows.verdict.iloc[SHOWN:].unique().tolist()
            said.insert(0, f"{len(rows) - SHOWN} more, {f'all {kinds[0]}' if len(kinds) == 1 else ', '.join(kinds)}")
        return rows.iloc[:SHOWN], f"and {'; '.join(said)}" if said else ""


def check_gradients(model: keras.Model, x, y, loss=None, *, sample: int = 20, seed: int = 0) -> GradientCheck:
    """Holds the gradient of the loss against differences of it, for parameters of every layer that trains.

    For layers and losses of your own, above all with a gradient written by hand. The model is rebuilt in float64 and
    checked as it trains: batch normalisation by the batch's statistics, dropout and augmentation with one draw that
    stays for all evaluations, penalties included. The model itself is not touched. Frozen layers are named and not
    checked.

    A few pictures are enough, 8 for instance: more of them make it slower and no sharper, and bring more kinks. Where
    gradient and difference disagree, other steps are tried, and the one that agrees best counts: a wrong gradient
    agrees at none. What still disagrees is a kink if the gradient lies between the slopes to both sides. A disagreement
    no larger than what rounding does to the difference counts as acceptable.

    Args:
        model: Classifier with one output. Layers of its own must be made from their configuration, as for saving.
        x: Pictures as the model takes them, pixels 0..255, (n, height, width, channels).
        y: Class indices (n,), or a row a picture, (n, classes).
        loss: Name of a loss, a Keras loss, or a function (y, outputs) that gives a number or one a picture. By default
            the one that the model was compiled with; where it was not, cross-entropy.
        sample: Parameters to draw from each layer, spread over its weights; all where it has fewer.
        seed: Which are drawn; whole number of at least 0.

    Returns:
        The errors by layer, and the verdict of the course: at most 1e-7 "great", at most 1e-5 "acceptable", at most
        1e-3 "suspect", above it "look for a bug".

    Raises:
        ValueError: If `x` and `y` do not fit the model or each other, nothing trains, the loss is not finite or differs
            from one evaluation to the next, or a layer cannot be rebuilt or does not compute in float64 (it is named).

    Example:
        check = zoo.check_gradients(model, x[:8], y[:8])
        print(check.verdict, check.suspect)
    """
    sample, seed = _whole(sample, "sample", 1), _whole(seed, "seed", 0)
    x, y, classes = _checked(model, x, y)
    if not model.trainable_variables:
        raise ValueError(f"Model {model.name!r} has no weights that train; unfreeze some, zoo.unfreeze(model).")
    with in_float64():
        twin = twin_of(model, x)
        measure = loss_of(model, loss, y, classes)
        trained = twin.trainable_variables
        training = {"training": True} if twin._call_has_training_arg else {}

        known = {id(variable) for variable in trained}
        # held still: what is frozen, statistics, seeds
        fixed = [(v, ops.convert_to_tensor(as_array(v))) for v in twin.variables if id(v) not in known]

        def run(values, pictures=x):
            state = [*zip(trained, values, strict=True), *fixed]
            with keras.StatelessScope(state_mapping=state, collect_losses=True):
                (outputs,) = keras.tree.flatten(twin(pictures, **training))
                return sum((ops.sum(penalty) for penalty in twin.losses), measure(outputs))

        # by way of arrays: on TensorFlow `convert_to_tensor` hands variables on, and each other mix of them and tensors
        # would be traced again
        values = [ops.convert_to_tensor(as_array(variable)) for variable in trained]
        check_precision(twin, run, values, x)
        # compiled like the loss, or pictures that are changed in float32 would come out a little different here
        value, gradients = autodiff.compiled(lambda values: autodiff.value_and_grad(run, values))(values)
        slopes = Slopes(autodiff.compiled(run), values, float(as_array(value)), [as_array(each) for each in gradients])
        place = {id(variable): i for i, variable in enumerate(trained)}
        layers = {id(layer): (path, layer._trainable_variables) for path, layer in walk(twin)}  # some are met twice
        layers = [(path, weights) for path, weights in layers.values() if weights]
        draws = np.random.default_rng(seed)
        rows = [
            _compared(name, weights, place, slopes, sample, draws)
            for name, weights in track(layers, "gradients", len(layers))
        ]
    both = np.concatenate([pairs for _, pairs in rows], axis=1)
    table = pd.DataFrame([row for row, _ in rows])
    return GradientCheck(model.name, len(x), _distance(*both), table)


def _compared(name, weights, place, slopes, sample, draws):
    """The row of a layer, and its gradients and differences, (2, differences)."""
    row = {"layer": name, "parameters": sum(math.prod(weight.shape) for weight in weights)}
    trained = [weight for weight in weights if id(weight) in place]
    counts = _spread(sample, [math.prod(weight.shape) for weight in trained])
    judged, both = [], [np.zeros((2, 0))]
    for weight, count in zip(trained, counts, strict=True):
        i = place[id(weight)]
        if not np.isfinite(slopes.gradients[i]).all():
            judged.append((0, -1.0, weight.name, 0))
            both.append(np.array([[math.inf], [0.0]]))
            continue
        moved, found = zip(*differences(slopes, i, count, draws), strict=True)
        kinks = sum(number for number, one in zip(moved, found, strict=True) if one.kink)
        kept = [one for one in found if not one.kink]
        error, verdict = _judged(kept)
        judged.append((VERDICTS.index(verdict), -error, weight.name, kinks))
        both.append(np.array([[one.gradient, one.difference] for one in kept]).reshape(-1, 2).T / slopes.size(i))
    rank, error, weight, _ = min(judged, default=(VERDICTS.index("frozen"), math.nan, "", 0))
    row |= {"sampled": sum(counts), "error": abs(error), "kinks": sum(kinks for *_, kinks in judged)}
    return {**row, "verdict": VERDICTS[rank], "weight": weight}, np.concatenate(both, axis=1)


def _judged(found):
    """Error and verdict of a weight by its differences, less those at kinks."""
    if not found:
        return math.nan, "only kinks"
    if all(one.nothing for one in found):
        return 0.0, "no gradient"
    error = _distance([one.gradient for one in found], [one.difference for one in found])
    if error > ACCEPTABLE and all(one.gap <= one.noise for one in found):
        return error, "acceptable"
    ends = ((GREAT, "great"), (ACCEPTABLE, "acceptable"), (SUSPECT, "suspect"))
    return error, next((word for end, word in ends if error <= end), VERDICTS[0])


def _distance(gradients, differences) -> float:
    """||a - n|| / (||a|| + ||n||); 0 where both are nothing, 1 where a gradient is no number."""
    total = np.linalg.norm(gradients) + np.linalg.norm(differences)
    if not math.isfinite(total):
        return 1.0
    return float(np.linalg.norm(np.subtract(gradients, differences)) / total) if total else 0.0


def _spread(sample, sizes):
    """How many parameters to draw from weights of these sizes: as many from each; what one lacks, from larger ones."""
    counts = [0] * len(sizes)
    for done, i in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        counts[i] = min(sizes[i], max(1, (sample - sum(counts)) // (len(sizes) - done)))
    return counts


def _checked(model, x, y):
    """Pictures and labels as arrays, and the number of output columns."""
    inputs, outputs = (keras.tree.flatten(getattr(model, name, None) or []) for name in ("inputs", "outputs"))
    if len(inputs) > 1 or len(outputs) > 1:
        raise ValueError(
            f"`model` must have one input and one output. Received: {len(inputs)} inputs and {len(outputs)} outputs"
        )
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype.kind not in "uif" or not np.isfinite(x).all():
        raise ValueError(f"`x` must hold finite numbers. Received: {x.dtype} of shape {x.shape}")
    wanted = tuple(inputs[0].shape) if inputs else (None,) * max(x.ndim, 1)
    if len(wanted) != x.ndim or any(side not in (None, have) for side, have in zip(wanted, x.shape, strict=True)):
        raise ValueError(f"`x` must have the shape of the model's input, {wanted}. Received: shape {x.shape}")
    if not len(x) or not y.ndim or len(x) != len(y):
        raise ValueError(
            f"`x` and `y` must have a row a picture each. Received: {len(x)} pictures, and y of shape {y.shape}"
        )
    if not model.built:
        raise ValueError(f"Model {model.name!r} has no weights yet; call it once on pictures.")
    if not outputs:
        with keras.StatelessScope():  # seeds and statistics stay as they are
            outputs = [model(x[:1])]
    classes = int(outputs[0].shape[-1])
    return x.astype(np.float64) if x.dtype.kind == "f" else x, _labels(y, classes), classes


def _labels(y, classes):
    """Indices (n,) as integers, or rows (n, classes) in float64."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind not in "uifb" or not np.isfinite(y).all():
        raise ValueError(f"`y` must hold class indices or a row a picture. Received: {y.dtype} of shape {y.shape}")
    if classes == 1 and y.ndim == 1:
        return y.astype(np.float64)
    if y.ndim == 2 and y.shape[1] == classes:
        return y.astype(np.float64)
    if y.ndim != 1 or (y != np.round(y)).any() or y.min() < 0 or y.max() >= classes:
        ends = f" from {y.min():g} to {y.max():g}" if y.ndim == 1 else ""
        raise ValueError(
            f"`y` must hold class indices from 0 to {classes - 1}, or rows of {classes} numbers. "
            f"Received: shape {y.shape}{ends}"
        )
    return y.astype(np.int64)


def _whole(value, name, least):
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}. Received: {name}={value!r}")
    return number


def _number(error):
    return "-" if math.isnan(error) else f"{error:.1e}"


def _listed(names):
    first = ", ".join(repr(name) for name in names[:4])
    return first if len(names) <= 4 else f"{first} and {len(names) - 4} more layers"
