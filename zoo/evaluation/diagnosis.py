"""Underfitting, overfitting, both or neither: the textbook's verdict on a run, and what to do next."""

import html
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from zoo.evaluation import gaps, histories
from zoo.evaluation.advice.next_steps import next_steps
from zoo.evaluation.advice.situation import Situation, Step, call
from zoo.evaluation.gaps import LARGE, SURELY, Gap, Seen
from zoo.evaluation.predictions import Evaluation

GUESSING = 0.1  # of the way from guessing to always right; a network that got no further learned next to nothing
WIDTH = 98  # columns
SHOWN = 6  # steps on a screen


@dataclass(frozen=True)
class Diagnosis:
    """Where the errors of a training come from, and what to do. Print it for a screen; made by `diagnose`.

    Attributes:
        human_error: Share of pictures that people get wrong.
        train_error, dev_error: Shares of wrong pictures.
        train_dev_error: The same on pictures like those of training that were not trained on, or None.
        bias: Avoidable bias: train error less human error, at least 0. It is large from 2 points on, where its interval
            lies above 1 point; above 0 would say little, since a single wrong picture takes it there.
        variance: Dev error less train error; train-dev error less train error where that is known.
        mismatch: Dev error less train-dev error, or None.
        verdict: "high bias", "high variance", "high bias and high variance" or "good".
        sentence: The verdict in words.
        steps: What to do next, in order.
        pictures: "train", "dev" and "train-dev" to their numbers of pictures; empty where they are unknown.
        recipe: Every choice of the training; None for a history.
    """

    human_error: float
    train_error: float
    dev_error: float
    train_dev_error: float | None
    bias: Gap
    variance: Gap
    mismatch: Gap | None
    verdict: str
    sentence: str
    steps: list[Step]
    pictures: dict[str, int]
    recipe: Any = None

    def figures(self) -> dict:
        """All of it as plain values, ready for JSON."""
        found = {"bias": self.bias, "variance": self.variance, "mismatch": self.mismatch}
        return {
            "human_error": self.human_error,
            "train_error": self.train_error,
            "dev_error": self.dev_error,
            "train_dev_error": self.train_dev_error,
            "pictures": dict(self.pictures),
            **{name: None if gap is None else gap._asdict() for name, gap in found.items()},
            "verdict": self.verdict,
            "sentence": self.sentence,
            "steps": [
                {
                    "title": step.title,
                    "changes": {
                        name: {"from": _plain(old), "to": _plain(new)} for name, (old, new) in step.changes.items()
                    },
                    "why": step.why,
                }
                for step in self.steps
            ],
        }

    def __str__(self):
        lines = [*textwrap.wrap(f"{_upper(self.verdict)}. {self.sentence}", WIDTH), ""]
        lines += [f"  {name:<18} {value:>7}  {note}".rstrip() for name, value, note in self._overview()]
        lines += ["", "What to do next, in order:"]
        for number, step in enumerate(self.steps[:SHOWN], start=1):
            lines.append(f"{number:>2}. {step.title}")
            lines += [f"      {change}" for change in _changes(step)]
            lines += textwrap.wrap(step.why, WIDTH, initial_indent="    ", subsequent_indent="    ")
        if more := self.steps[SHOWN:]:
            rest = f"Then, in `.steps`: {'; '.join(step.title for step in more)}."
            lines += textwrap.wrap(rest, WIDTH, initial_indent="    ", subsequent_indent="    ")
        changes = next((step.changes for step in self.steps if step.changes), None)
        if changes and self.recipe is not None:
            given = call(self.recipe, {name: new for name, (_, new) in changes.items()})
            fresh = ", with `model` as it was before the training" if given.startswith("zoo.fine_tune(model,") else ""
            lines += ["", *textwrap.wrap(f"Such as {given}{fresh}", WIDTH, subsequent_indent="    ")]
        return "\n".join(lines)

    def _repr_html_(self):
        rows = "".join(
            f"<tr><td>{name}</td><td>{value}</td><td>{note}</td></tr>" for name, value, note in self._overview()
        )
        steps = "".join(
            f"<li><b>{html.escape(step.title)}</b>"
            + "".join(f"<br><code>{html.escape(change)}</code>" for change in _changes(step))
            + f"<br>{html.escape(step.why)}</li>"
            for step in self.steps
        )
        title = f"<h4>{_upper(self.verdict)}</h4><p>{html.escape(self.sentence)}</p>"
        return f"{title}<table>{rows}</table><ol>{steps}</ol>"

    def _overview(self) -> list[tuple[str, str, str]]:
        """Name, value and note of each error and gap."""
        errors = {"train": self.train_error, "train-dev": self.train_dev_error, "dev": self.dev_error}
        rows = [("human error", f"{self.human_error:.1%}", "as given")]
        for name, error in errors.items():
            if error is not None:
                count = self.pictures.get(name)
                seen = Seen(error) if count is None else Seen(error, round(error * count), count)
                rows.append((f"{name} error", f"{error:.1%}", seen.counts))
        found = [("avoidable bias", self.bias), ("variance", self.variance), ("mismatch", self.mismatch)]
        for name, gap in found:
            if gap is not None:
                note = f"points, 95 % interval {gap.range}" if gap.range else "points"
                if gap is self.bias and gap.sizeable and not gaps.much(gap):
                    note += f", not all above {100 * SURELY:g}"
                rows.append((name, f"{100 * gap.value:.1f}", note))
        return rows


def diagnose(run_or_history, *, human_error: float = 0.0, train_dev=None) -> Diagnosis:
    """Avoidable bias and variance of a training, the verdict, and what to do next in the textbook's order.

    Ng 2018, "Machine Learning Yearning", chapters 20 to 27 and, for `train_dev`, 40 to 42. A gap is large where it is
    at least 2 points and its 95 % interval lies above 0 (Newcombe's) or, for the bias, above 1 point (Wilson's, which a
    single wrong picture takes off 0). A run is
    measured on all its training and dev pictures with one network in inference mode. A history has the running training
    accuracy of its best epoch, the one with the lowest val_loss, and no numbers of pictures, so no intervals.

    Args:
        run_or_history: A run of `fine_tune`; or what anybody's `model.fit` returned, its dict, or a DataFrame, with a
            training and a dev accuracy.
        human_error: Share of these pictures that people, or whatever does best, get wrong, in [0, 1).
        train_dev: Pictures like those of training that were not trained on, where dev's are of another kind: a split
            such as `zoo.load_data("more").train`, or its Evaluation. What is worse on dev than on them is mismatch.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If `human_error` is out of range, there is no dev set, or the history lacks an accuracy.

    Example:
        >>> diagnosis = diagnose({"accuracy": [0.9, 0.99], "val_accuracy": [0.8, 0.85], "val_loss": [0.7, 0.5]})
        >>> diagnosis.verdict, round(diagnosis.variance.value, 2)
        ('high variance', 0.14)
    """
    if isinstance(human_error, bool) or not isinstance(human_error, Real) or not 0 <= human_error < 1:
        raise ValueError(
            f"`human_error` must be a share in [0, 1), such as 0.05. Received: human_error={human_error!r}"
        )
    known: dict[str, Any] = {}
    if hasattr(run_or_history, "recipe") and hasattr(run_or_history, "evaluate"):
        run = run_or_history
        if not len(run.data.dev):
            raise ValueError(
                "This run has no dev pictures, so its variance is unknown. Train it with some: "
                "zoo.load_data(..., split=(0.7, 0.15, 0.15))."
            )
        trained, known["dev"] = run.evaluate("train"), run.evaluate("dev")
        train, dev, guessing = Seen.of(trained), Seen.of(known["dev"]), _guesses(trained)
        tested = (run.directory / "evaluation" / "test.json").exists()
        known |= {"recipe": run.recipe, "data": run.data, "tested": tested}
        history, best = run.history, run.best_epoch
    else:
        run, guessing = None, False
        history = histories.metrics(run_or_history)
        *errors, best = histories.best_epoch(history)
        train, dev = map(Seen, errors)
    unseen = None if train_dev is None else _train_dev(train_dev, run)

    bias = gaps.avoidable(train, human_error)
    variance = gaps.between(dev if unseen is None else unseen, train)
    mismatch = None if unseen is None else gaps.between(dev, unseen)
    found = {"avoidable bias": bias, "variance": variance, "mismatch": mismatch}
    large = {
        "avoidable bias": gaps.much(bias),
        "variance": variance.large,
        "mismatch": mismatch is not None and mismatch.large,
    }
    unshown = {name: gap for name, gap in found.items() if gap and gap.sizeable and not large[name]}
    verdicts = [f"high {name.removeprefix('avoidable ')}" for name in ("avoidable bias", "variance") if large[name]]
    situation = Situation(
        bias=large["avoidable bias"],
        variance=large["variance"],
        mismatch=large["mismatch"],
        enough=None if mismatch or "variance" not in unshown else gaps.enough(dev, train),
        guessing=guessing,
        human_error=float(human_error),
        dev_error=dev.error,
        history=history,
        best_epoch=best,
        **known,
    )
    seen = {"train": train, "train-dev": unseen, "dev": dev}
    return Diagnosis(
        human_error=float(human_error),
        train_error=train.error,
        dev_error=dev.error,
        train_dev_error=None if unseen is None else unseen.error,
        bias=bias,
        variance=variance,
        mismatch=mismatch,
        verdict=" and ".join(verdicts) or "good",
        sentence=_sentence(situation, found, unshown, train, dev, unseen),
        steps=next_steps(situation),
        pictures={name: part.pictures for name, part in seen.items() if part and part.pictures is not None},
        recipe=situation.recipe,
    )


def _guesses(evaluation: Evaluation) -> bool:
    """Whether classes, each counting alike, are told apart hardly better than by chance."""
    classes = int((evaluation.per_class.support > 0).sum())
    chance = 1 / len(evaluation.class_names)
    return classes > 1 and evaluation.balanced_accuracy < chance + GUESSING * (1 - chance)


def _train_dev(train_dev, run) -> Seen:
    if isinstance(train_dev, Evaluation):
        found = train_dev
    elif not hasattr(train_dev, "dataset"):
        raise TypeError(
            "`train_dev` must be a split, such as zoo.load_data(...).train, or its Evaluation. "
            f"Received: {type(train_dev).__name__}"
        )
    elif run is None:
        raise ValueError(
            "A history has no model to evaluate `train_dev` with. Give zoo.evaluate(model, split) instead."
        )
    else:
        found = run.evaluate(train_dev)
    if not found.labelled:
        raise ValueError("`train_dev` has no labels, so it has no error. Give pictures whose classes are known.")
    return Seen.of(found)


def _sentence(s: Situation, found, unshown, train: Seen, dev: Seen, unseen: Seen | None) -> str:
    """The verdict in words: what is wrong, with the figures, then what limits it."""
    fresh = dev.named("dev") if unseen is None else unseen.named("train-dev")
    on = {"avoidable bias": train.named("training"), "variance": fresh, "mismatch": dev.named("dev")}
    said = []
    if s.guessing:
        said.append("Even the training pictures are little more than guessed.")
    if s.bias:
        people = f", people {s.human_error:.1%}" if s.human_error else ""
        said.append(f"It gets {train.error:.1%} of {on['avoidable bias']} wrong{people}: it has not fitted them yet.")
    if s.variance:
        points = _points(found["variance"])
        learned = "" if s.guessing else ": some it has learned by heart"
        said.append(f"It does {points} worse on {fresh} than on those it was trained on{learned}.")
    if s.mismatch:
        points = _points(found["mismatch"])
        said.append(
            f"It does {points} worse on {on['mismatch']} than on unseen ones like those of training: they differ."
        )
    if not (s.bias or s.variance or s.mismatch or unshown):
        wrong = f"{train.error:.1%} of {on['avoidable bias']} and {dev.error:.1%} of {dev.named('dev')} are wrong"
        said.append(f"No gap reaches {100 * LARGE:g} points: {wrong}.")
    for name, gap in unshown.items():
        surely = f"is not shown to be above {100 * SURELY:g} point"
        limit = surely if name == "avoidable bias" else "may be chance"
        said.append(
            f"The {name} of {100 * gap.value:.1f} points {limit} on {on[name]}: "
            f"between {gap.range.replace(' to ', ' and ')} points."
        )
    if train.error < s.human_error:
        said.append(
            f"Its training error, {train.error:.1%}, is below that of people, {s.human_error:.1%}: the bias is 0."
        )
    if train.pictures is None:
        said.append(
            f"The figures are epoch {s.best_epoch}'s. Its training accuracy is a running mean over the epoch, with "
            "dropout and augmentation: bias may be smaller and variance larger. Numbers of pictures are unknown, so "
            "there are no intervals."
        )
    return " ".join(said)


def _points(gap: Gap) -> str:
    return f"{100 * gap.value:.1f} points" + (f" (95 %: {gap.range})" if gap.range else "")


def _changes(step: Step) -> list[str]:
    return [f"{name}: {_shown(old)} -> {_shown(new)}" for name, (old, new) in step.changes.items()]


def _shown(value) -> str:
    """As it is written in a call."""
    return f'"{value}"' if isinstance(value, str) else str(value)


def _plain(value):
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return dict(value) if isinstance(value, Mapping) else value


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
