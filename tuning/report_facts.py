"""The sections of a search's page: one function each."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from tuning import plots
from tuning.importance import configurations
from tuning.plots.of_trials import elapsed
from tuning.plots.view import best_of, said_score
from tuning.scale import said, scales, varied
from tuning.words import KNOWN_GOOD, first_of
from zoo.data.manifest_text import clip, counted
from zoo.evaluation.plots import svg
from zoo.evaluation.report.blocks import Beside, Block, Cell, Drawing, Section, Table, Words, number, text
from zoo.evaluation.report.facts import duration, shown

STATUSES = ("completed", "pruned", "failed", "unfinished")
TONES = {"failed": "bad", "pruned": "quiet", "unfinished": "quiet"}
ROWS = 500  # of the table of trials
MACHINE = ("backend", "python", "platform", "cores", "versions")


class Link(str):
    """A file within the search's folder, relative to it."""


def best(result) -> Section:
    """The best trial's hyperparameters beside those of the first one, and all of them as lines."""
    alt = "Each trial's hyperparameters and its score as a line; the best one thick"
    lines = [_drawing(plots.parallel(result), alt)] if _varying(result) else []
    name = best_of(result)
    if name is None:
        return Section("best", "Hyperparameters together", lines)
    table = result.trials.set_index("trial")
    rows = []
    for entry in result.space:
        here, there = table.loc[name, entry["name"]], table[entry["name"]].iloc[0]
        same = here == there or (_missing(here) and _missing(there))
        rows.append(
            [
                text(entry["name"]),
                text(_value(here)),
                text(_value(there), "quiet" if same else ""),
                text(ranged(entry), "quiet"),
            ]
        )
    heads = ["hyperparameter", f"best, {name}", "first trial", "searched"]
    code = ["result.best_run", "result.retrain()"]
    about = f"{code[0]} is this trial's own model"
    about += f"; {code[1]} trains once more with its recipe, on train and dev." if has_dev(result) else "."
    short = "" if result.known_good or result.algorithm != "hyperband" else ", not trained to its end"
    is_first = f"is {KNOWN_GOOD}" if first_of(result) == KNOWN_GOOD else "has the defaults of the space"
    note = f"The first trial {is_first}{short}. –: does not apply."
    found = Table(heads, rows, note=note, sortable=False)
    return Section("best", "Best hyperparameters", [Words(about, quiet=True, code=code), Beside([found, *lines])])


def progress(result) -> Section:
    """Scores as time went by, and the learning curves."""
    drawings: list[Block] = [
        _drawing(plots.progress(result), "Each trial's score by the time it ended, and the best so far")
    ]
    if result.curves:
        drawings.append(_drawing(plots.curves(result), f"{result.objective} of every trial from epoch to epoch"))
    about = "Each trial when it ended, with the best so far as steps; and the objective from epoch to epoch."
    return Section("progress", "Progress", [Words(about, quiet=True), Beside(drawings)])


def importance(result) -> Section:
    """What the score hangs on."""
    found = result.importance
    title = "Importance"
    if not len(found.table):
        return Section("importance", title, [Words(found.note)])
    rows = [
        [text(row["hyperparameter"]), number(100 * row["importance"], ".1f"), number(100 * row["spread"], ".1f")]
        for row in found.table.to_dict("records")
    ]
    about = (
        "How much worse forests predict the score of configurations they have not seen, with the values of one "
        "hyperparameter shuffled (Breiman 2001). What counts is counted within the ranges that were searched. ± is the "
        "spread over several forests, not over other searches."
    )
    table = Table(["hyperparameter", "share, %", "±"], rows)
    drawing = _drawing(plots.importance(found), f"Importance of each hyperparameter. {found.note}")
    return Section("importance", title, [Words(found.note), Words(about, quiet=True), Beside([drawing, table])])


def each(result) -> Section:
    """The score against each hyperparameter."""
    names, title = _varying(result), "Each hyperparameter"
    if not names:
        return Section("each", title, [Words("No hyperparameter varied among the trials that have a score.")])
    half = len(names) if len(names) <= 2 else 2 * math.ceil(len(names) / 4)
    parts = [names[:half], *([names[half:]] if names[half:] else [])]
    drawings = [
        _drawing(plots.hyperparameters(result, part), f"{result.objective} against {', '.join(part)}") for part in parts
    ]
    off = "" if len(configurations(result.trials)) < 2 else " An arrow at the edge: off the axis."
    about = f"A dot a trial, orange the best, hollow: pruned. Choices have a line at the median.{off}"
    return Section("each", title, [Words(about, quiet=True), Beside(drawings)])


def trials(result) -> Section:
    """Every trial, and why the failed ones failed."""
    table = result.trials
    if not len(table):
        return Section("trials", "Trials", [Words("There are none.")])
    names = [entry["name"] for entry in result.space if varied(table[entry["name"]])]
    numeric = {name for name in names if _numeric(table[name])}
    sign = -1 if result.direction == "max" else 1
    order = (sign * table.score.astype(float)).sort_values(kind="stable", na_position="last").index
    top = best_of(result)
    rows = [
        [
            text(row["trial"]),
            _status(row, top),
            Cell(said_score(result.objective, row["score"], 2), float(row["score"])),
            *(_figure(row[name]) if name in numeric else text(_value(row[name])) for name in names),
            number(row["epochs"] or None),
            number(row["best_epoch"] or None),
            number(row["seconds"], ",.1f"),
        ]
        for row in table.loc[order[:ROWS]].to_dict("records")
    ]
    note = f"The {ROWS} best of {len(table):,}; all of them are in result.trials." if len(table) > ROWS else ""
    heads = ["trial", "status", result.objective, *names, "epochs", "kept", "seconds"]
    blocks: list[Block] = [Table(heads, rows, note=note)]
    if (table.continues != "").any():
        blocks.insert(
            0, Words("Hyperband: a trial of a later rung goes on with the training of an earlier one.", quiet=True)
        )
    return Section("trials", "Trials", [*blocks, *_failed(table)])


def _varying(result) -> list[str]:
    """The hyperparameters that varied among what has a score."""
    return [scale.name for scale in scales(result.space, configurations(result.trials))]


def _failed(table: pd.DataFrame) -> list[Block]:
    failed = table.loc[table.status == "failed"]
    if not len(failed):
        return []
    rows = [
        [
            text(row["trial"]),
            Cell(Link(row["traceback"])) if row["traceback"] else text("none"),
            text(row["reason"]),
        ]
        for row in failed.head(ROWS).to_dict("records")
    ]
    note = f"The first {ROWS} of {len(failed):,}." if len(failed) > ROWS else ""
    return [Table(["trial", "traceback", "reason"], rows, "Failed", note, sortable=False, stacked=True)]


def cost(result) -> Section:
    """What the search took, and what for."""
    table = result.trials
    ended = table.loc[table.status != "unfinished"]
    if not len(ended):
        return Section("cost", "Cost", [Words("No trial has ended yet.")])
    seconds = ended.seconds.astype(float).fillna(0)
    total, workers = float(seconds.sum()), len(set(ended.worker) - {""})
    slowest = ended.loc[seconds.idxmax()]
    again = int((table.attempts > 1).sum())
    lines = [
        f"Trials ran for {duration(running_time(table))} on {counted(workers, 'worker process', 'worker processes')}, "
        f"and took {duration(total)} together, {duration(float(seconds.mean()))} each on average.",
    ]
    if len(ended) > 1:
        lines.append(f"Trial {slowest.trial} took longest: {duration(float(seconds.max()))}.")
    if again:
        lines.append(f"{counted(again, 'trial')} had to be begun more than once; what was lost by that is not counted.")
    rows = []
    for status in STATUSES:
        some = seconds[ended.status == status]
        if len(some):
            mean, share = float(some.mean()), float(some.sum()) / total if total else 0.0
            rows.append(
                [
                    text(status),
                    number(len(some)),
                    number(float(some.sum()), ",.1f"),
                    number(mean, ",.1f"),
                    Cell("", share=share),
                ]
            )
    heads = ["status", "trials", "seconds", "mean", ""]
    return Section("cost", "Cost", [Words(" ".join(lines)), Table(heads, rows, sortable=False)])


def test_set(result) -> Section:
    """How often the test set was looked at."""
    count, title = pictures(result).get("test", 0), "Test set"
    if not count:
        return Section(
            "test", title, [Words("There is no test set, so nothing says how good the best trial is on new pictures.")]
        )
    looks = result.test_looks
    of = counted(count, "picture")
    if not looks:
        code = 'result.best_run.evaluate("test")'
        about = f"The test set ({of}) has not been looked at over the runs of this search; only {code} does it."
        return Section("test", title, [Words(about, code=[code])])
    about = f"The test set ({of}) has been looked at {counted(looks, 'time')} over the runs of this search."
    warning = " Whoever chooses among trials by it turns it into another dev set." if looks > 1 else ""
    return Section("test", title, [Words(about + warning)])


def what_ran(result) -> Section:
    """Space, algorithm, data and machine: what another search needs to be the same."""
    space = [
        [
            text(entry["name"]),
            text(ranged(entry)),
            text(_value(entry["default"])),
            text(_conditions(entry, result.trials), "quiet"),
        ]
        for entry in result.space
    ]
    header = result.header
    reference = header.get("reference") or {}
    settings = {
        "model": result.model,
        "space": result.space_name,
        "algorithm": result.algorithm,
        "objective": f"{result.objective}, the {'higher' if result.direction == 'max' else 'lower'} the better",
        "seed": result.seed,
        "pruning": header.get("pruning"),
        "for all trials": header.get("fields") or "nothing",
        "pictures": pictures(result),
        "classes": reference.get("classes", ""),
        "data fingerprint": reference.get("data") or header.get("data", ""),
        "begun": header.get("time", ""),
        **{name: header[name] for name in MACHINE if name in header},
    }
    rows = [[text(name), text(shown(value))] for name, value in settings.items() if value != ""]
    tables = [
        Table(["hyperparameter", "searched", "default", "where"], space, "Space", sortable=False),
        Table(["", ""], rows, "Settings and machine", sortable=False),
    ]
    return Section("what", "What ran", [Beside(tables)])


def has_scores(result) -> bool:
    """Whether there is anything to draw."""
    return len(configurations(result.trials)) > 0


def score_of(result, trial: str) -> float:
    return float(result.trials.set_index("trial").score[trial])


def first_score(result) -> float:
    """That of the first trial; NaN where it was not trained to its end."""
    return score_of(result, result.known_good) if result.known_good else math.nan


def pictures(result) -> dict[str, int]:
    """Split to the number of its pictures, as far as that was noted."""
    return (result.header.get("reference") or {}).get("pictures") or {}


def has_dev(result) -> bool:
    """Whether some pictures were kept from training to judge by."""
    return result.objective.startswith("val_") or bool(pictures(result).get("dev"))


def smoothings(result) -> set[float | str]:
    """The label smoothing of the trials that have a score, "auto" where the space gives none."""
    scored = configurations(result.trials).trial
    return {result.fields(trial).get("label_smoothing", "auto") for trial in scored}


def metric(objective: str) -> str:
    """An objective in words."""
    where = "dev" if objective.startswith("val_") else "training"
    return f"{where} {objective.removeprefix('val_').replace('_', ' ')}"


def running_time(trials: pd.DataFrame) -> float:
    """Seconds in which any trial ran."""
    return float(np.nan_to_num(elapsed(trials).max()))


def commonest_reason(trials: pd.DataFrame) -> str:
    """Why most failed, in a sentence; nothing where none did."""
    reasons = trials.loc[trials.status == "failed", "reason"]
    if not len(reasons):
        return ""
    reason, count = reasons.value_counts().index[0], int(reasons.value_counts().iloc[0])
    return f"{counted(count, 'trial')} of {len(trials):,} failed for this reason: {clip(reason, 300)}"


def when(result) -> str:
    return f"{datetime.now():%Y-%m-%d %H:%M}"


def ranged(entry: dict[str, Any]) -> str:
    """The values that a hyperparameter was searched over."""
    if entry["kind"] == "fixed":
        return "fixed"
    if entry["kind"] in ("choice", "boolean"):
        return ", ".join(_value(value) for value in entry["values"])
    sampling = entry.get("sampling") or "linear"
    step = (
        "" if entry.get("step") in (None, 1) else f", {'factor' if sampling == 'log' else 'step'} {said(entry['step'])}"
    )
    return f"{said(entry['low'])} to {said(entry['high'])}, {sampling.replace('_', ' ')}{step}"


def _conditions(entry: dict[str, Any], trials: pd.DataFrame) -> str:
    """Where a hyperparameter applies: what its space says, and whether a plain `if` was in the way all the same."""
    parents = entry["conditions"]
    there = pd.Series(True, trials.index)
    for parent in parents:
        there &= trials[parent["name"]].isin(parent["values"])
    idle = trials.loc[there, entry["name"]].isna().any()
    where = " and ".join(f"{parent['name']} is {' or '.join(map(_value, parent['values']))}" for parent in parents)
    return ", ".join([*[where] * bool(where), *["not in every trial"] * bool(idle)]) or "always"


def _status(row, top) -> Cell:
    marks = ["batch halved"] * bool(row["halved"])
    if row["trial"] == top:
        return text(", ".join(["best", *marks]), "good")
    return text(", ".join([row["status"], *marks]), TONES.get(row["status"], ""))


def _drawing(figure, alt: str) -> Drawing:
    return Drawing(svg(figure, alt), alt)


def _value(value) -> str:
    return "–" if _missing(value) else said(value)


def _figure(value) -> Cell:
    """A number as a cell that sorts as one."""
    return Cell("–", math.nan) if _missing(value) else Cell(said(value), float(value))


def _missing(value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _numeric(values: Sequence) -> bool:
    known = [value for value in values if not _missing(value)]
    return all(
        isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_)) for value in known
    )
