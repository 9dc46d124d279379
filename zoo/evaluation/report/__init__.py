"""The report: one page about a run, for people; everything that it says also lies beside it as CSV and JSON."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pandas as pd

from zoo.data.manifest_text import clip, counted
from zoo.evaluation.comparison import Comparison
from zoo.evaluation.diagnosis import Diagnosis, diagnose
from zoo.evaluation.importance import LayerImportance, layer_importance
from zoo.evaluation.predictions import Evaluation
from zoo.evaluation.report import facts, pictures
from zoo.evaluation.report import sections as drawn
from zoo.evaluation.report.blocks import Section, Table, Words, pieces, text
from zoo.evaluation.report.facts import FOLDER, how_to_test
from zoo.evaluation.report.pictures import Judged
from zoo.files import make_folder, shown, write_json, write_text, writing
from zoo.pages import render
from zoo.progress import track

PAGE = "report.html"
NAMES = ("train", "dev", "test")
COMPARISON = "comparison.json"
HOLDS = {  # file to what is in it, in the order of the page
    **{f"{split}.csv": f"a row a picture of {split}: label, prediction, loss, probabilities" for split in NAMES},
    **{f"{split}.json": f"all figures of {split}" for split in NAMES},
    "diagnosis.json": "errors, verdict and next steps",
    COMPARISON: "a run against this one",
    "calibration.json": "the temperature, and figures before and after",
    "confusion.csv": "pictures by class and prediction",
    "per_class.csv": "precision, recall, F1 and pictures of each class",
    "reliability.csv": "probability and accuracy, range by range",
    "label_errors.csv": "pictures whose label is likely wrong",
    "importance.csv": "accuracy lost without each block",
}


class Once:
    """A run that evaluates each split once, however often it is asked."""

    def __init__(self, run):
        self._run = run
        self.evaluations: dict[str, Evaluation] = {}

    def __getattr__(self, name):
        return getattr(self._run, name)

    def evaluate(self, split: str) -> Evaluation:
        if split not in self.evaluations:
            self.evaluations[split] = self._run.evaluate(split)
        return self.evaluations[split]


def report(run, *, compare=None, importance: bool = False) -> Path:
    """Writes one page about a run: how good it is, what to do next, what fails and why, and how it came to be.

    The page is one file that needs no network, stays below 3 MB, and can be read on a phone, in print and in the dark.
    Its headline is the test set where that was evaluated before, which the page never does by itself; else the dev set;
    else the training set, which it says.

    Args:
        run: A finished run, as from `zoo.fine_tune` or `zoo.load_run`.
        compare: Another run on the same pictures, in whose folder nothing is written. Both are compared on the
            headline's split; on the test set only where the other run was evaluated on it, too, and else on dev.
        importance: Takes out one block of the network after the other, which takes a minute or more. Where that was
            done before, the page shows it anyway.

    Returns:
        The page, `report.html` in the run's folder; every figure of it lies in the folder `evaluation` beside it.

    Raises:
        ValueError: If `compare` has other pictures, or other labels.
        OSError: If the folder cannot be written; a page that stood there stays.

    Example:
        run = zoo.fine_tune("mobilenet_v2", zoo.load_data("photos"))
        zoo.evaluation.report.report(run)
    """
    run = Once(run)
    split = headline_split(run)
    judged = _judged(run, split)
    evaluation = judged.evaluation
    compared, why = (None, "") if compare is None else _compared(run, compare, split)
    diagnosis, trouble = _diagnosed(run)
    unseen = [_judged(run, name) for name in ("test", "dev") if _counts(run, name, split)]
    blocks = _importance(run, [judged, *unseen], importance)
    record, unreadable = facts.environment(run.directory)
    parts = [
        lambda: drawn.next_steps(diagnosis, trouble, run.recipe),
        lambda: drawn.comparison(compared, compare, why),
        lambda: drawn.learning(run),
        lambda: drawn.gradients(run),
        *_failures(run, judged, unseen),
        lambda: drawn.importance(*blocks),
        lambda: facts.data_section(run.data),
        lambda: facts.recipe_section(run.recipe),
        lambda: facts.environment_section(record, unreadable),
        lambda: facts.time_section(record),
    ]
    sections = [make() for make in track(parts, "Writing the report", len(parts))]
    folder = make_folder(run.directory / FOLDER)
    names = _save(folder, evaluation, unseen, diagnosis)
    names |= {f"{name}.{form}" for name in run.evaluations for form in ("csv", "json")}
    names |= {"importance.csv"} if blocks[0] is not None else set()
    names |= {"calibration.json"} if facts.calibration(run.directory) is not None else set()
    if compared is not None:
        write_json(folder / COMPARISON, {**compared.figures(), "other": str(compare.directory)})
        names.add(COMPARISON)
    sections.append(_files(names))
    page = render(
        Path(__file__).with_name("report.html"),
        title=_title(run, evaluation),
        place=f"{run.recipe.model}, {shown(run.directory)}, {datetime.now():%Y-%m-%d %H:%M}",
        tiles=drawn.tiles(evaluation),
        verdict=f"{diagnosis.verdict.capitalize()}. {diagnosis.sentence}" if diagnosis else "",
        about=_about(run, split),
        sections=sections,
        clip=clip,
        pieces=pieces,
    )
    write_text(run.directory / PAGE, page)
    if compared is None:  # one of an earlier page is not of this one
        (folder / COMPARISON).unlink(missing_ok=True)
    return run.directory / PAGE


def headline_split(run) -> str:
    """The split that the page is about: test only where it has been evaluated on purpose."""
    if len(run.data.test) and (run.directory / FOLDER / "test.json").exists():
        return "test"
    return "dev" if len(run.data.dev) else "train"


def _compared(run, other, headline: str) -> tuple[Comparison, str]:
    """The run against another, and why on another split than the headline's, where it is.

    Nothing is written of the other run, and its test set is not looked at unless it has been on purpose.
    """
    split, why = headline, ""
    if headline == "test" and not (other.directory / FOLDER / "test.json").exists():
        split = "dev" if len(run.data.dev) else "train"
        why = (
            f"The two are compared on {split}, since the test set of the other run has not been looked at; once all is "
            f"decided, {how_to_test(other)} does it."
        )
    theirs = other.evaluate(getattr(other.data, split))  # pictures, not a name: nothing is written there, nor counted
    return run.evaluate(split).compare(theirs), why


def _judged(run, name: str) -> Judged:
    return Judged(run.evaluate(name), getattr(run.data, name))


def _counts(run, name: str, headline: str) -> bool:
    """Whether a split was not learned from, and may be looked at: dev, and test where the page is about it."""
    return len(getattr(run.data, name)) > 0 and (name == "dev" or name == headline)


def _diagnosed(run) -> tuple[Diagnosis | None, str]:
    """The diagnosis; or none, and why."""
    try:
        return diagnose(run), ""
    except ValueError as error:  # without dev, or without labels
        return None, str(error)


def _importance(run, known: list[Judged], wanted: bool) -> tuple[LayerImportance | None, str]:
    """What each block is worth, computed now or before; or nothing, and why.

    What was computed before lies there as a table alone, so it has to fit one of the evaluations at hand.
    """
    folder = run.directory / FOLDER
    if wanted:
        try:
            found = layer_importance(run.model, known[0].split)
        except ValueError as error:
            return None, str(error)
        found.save(folder)
        return found, ""
    path = folder / "importance.csv"
    if not path.exists():
        return None, "What each block is worth was not looked at."
    try:
        table = pd.read_csv(path, keep_default_na=False)
        accuracy = float((table["accuracy"] + table["drop"]).iloc[0])
    except (OSError, ValueError, LookupError, TypeError):
        return None, f"{FOLDER}/{path.name} is damaged."
    for evaluation in (judged.evaluation for judged in known if judged.evaluation.labelled):
        pictures = len(evaluation.paths)
        if abs(accuracy - evaluation.accuracy) * pictures < 1.5:  # another way of computing may tip one
            return LayerImportance(
                model=run.model.name,
                split=evaluation.split,
                pictures=pictures,
                accuracy=accuracy,
                commonest=float(evaluation.per_class.support.max() / pictures),
                parameters=run.model.count_params(),
                table=table,
            ), ""
    return None, f"{FOLDER}/{path.name} is of other pictures, or of the network in another state."


def _failures(run, judged: Judged, unseen: list[Judged]) -> list[Callable[[], Section]]:
    """What makes the sections of what the network gets wrong, and how sure it is of it."""
    evaluation = judged.evaluation
    if not evaluation.labelled:
        about = Words(f"The {evaluation.split} split has no labels, so it cannot be said what is right.")
        return [lambda: Section("confusion", "Confusion", [about]), lambda: pictures.doubtful(judged)]
    return [
        lambda: drawn.confusion(evaluation),
        lambda: drawn.classes(evaluation),
        lambda: drawn.calibration(run, evaluation),
        lambda: pictures.worst(run.model, judged),
        lambda: pictures.doubtful(judged),
        lambda: pictures.label_errors(unseen),
    ]


def _title(run, evaluation: Evaluation) -> str:
    count = counted(len(evaluation.paths), f"{evaluation.split} picture")
    if not evaluation.labelled:
        return f"{run.recipe.model}: {count} without labels"
    return f"{evaluation.accuracy:.1%} of {count} recognised"


def _about(run, split: str) -> Words:
    """What the headline is worth."""
    if split == "test":
        return Words("The test set had no say in the training and was evaluated on purpose.", quiet=True)
    command = how_to_test(run)
    untouched = f"The test set has not been looked at; once all is decided, {command} does it."
    test = untouched if len(run.data.test) else "There is no test set."
    worth = (
        "The dev set also chose the epoch, so its figures flatter a little."
        if split == "dev"
        else "These are the pictures that it learned from; how it does on others, they do not say."
    )
    return Words(f"{worth} {test}", quiet=True, code=[command])


def _save(folder: Path, evaluation: Evaluation, unseen: list[Judged], diagnosis: Diagnosis | None) -> set[str]:
    """Writes every figure of the page that the evaluations have not written themselves; names of the files."""
    tables: dict[str, pd.DataFrame] = {}
    if evaluation.labelled:
        split = evaluation.split
        tables["per_class.csv"] = evaluation.per_class.reset_index().assign(split=split)
        tables["confusion.csv"] = evaluation.confusion.reset_index(names=f"label, {split}")
        tables["reliability.csv"] = evaluation.reliability.assign(split=split)
        suspects = [judged.evaluation.label_errors().assign(split=judged.evaluation.split) for judged in unseen]
        if suspects:
            tables["label_errors.csv"] = pd.concat(suspects)
    for name, table in tables.items():
        with writing(folder / name) as temporary:
            table.to_csv(temporary, index=False, encoding="utf-8", errors="backslashreplace")
    if diagnosis is None:
        return set(tables)
    write_json(folder / "diagnosis.json", diagnosis.figures())
    return {*tables, "diagnosis.json"}


def _files(names: set[str]) -> Section:
    """What lies beside the page and belongs to it; of an earlier page or another evaluation there may be more."""
    rows = [[text(f"{FOLDER}/{name}"), text(about)] for name, about in HOLDS.items() if name in names]
    words = "All figures of this page as CSV and JSON, in the folder of the run."
    return Section("files", "Figures as files", [Words(words, quiet=True), Table(["", ""], rows, sortable=False)])
