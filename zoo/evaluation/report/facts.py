"""The facts of a report: the data and its doubtful files, the recipe, the machine, and where the time went."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from zoo.data.leaks import leak_lines
from zoo.data.manifest_text import headline, sections, trouble_lines
from zoo.evaluation.report.blocks import Beside, Block, Cell, Listing, Section, Table, Words, number, text
from zoo.files import shown as place

FOLDER = "evaluation"  # in that of a run: figures as files

CLASSES, LINES, ROWS = 60, 30, 80  # shown at most: classes, doubtful files, lines of the environment
ELSEWHERE = {"seconds", "time", "model_at_start"}  # of the environment: what has a section, or says nothing to people


def environment(folder: Path) -> tuple[dict, str]:
    """What was noted of the machine; or nothing, and why."""
    path = folder / "environment.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}, f"There is no {path.name} in the run's folder."
    except ValueError:
        return {}, f"{path.name} is damaged and cannot be read."
    return (found, "") if isinstance(found, dict) else ({}, f"{path.name} holds something else.")


def calibration(folder: Path) -> dict | None:
    """What a calibration of the run has noted, empty where that cannot be read; None where there was none."""
    path = folder / FOLDER / "calibration.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def how_to_test(run) -> str:
    """What to type to evaluate a run on its test set, with the folder of its pictures where that has moved."""
    source = run.data.source.describe()
    if source["kind"] == "arrays":  # which the command cannot find again
        return 'run.evaluate("test")'
    command = f"zoo evaluate {shlex.quote(place(run.directory))} --split test"
    try:
        record = json.loads((run.directory / "data.json").read_text(encoding="utf-8"))
        trained = record["source"]["path"]
    except (OSError, ValueError, LookupError, TypeError):  # not every source has a path
        return command
    now = source.get("path")
    if now is None or Path(now).resolve() == Path(trained).resolve():
        return command
    return f"{command} --data {shlex.quote(place(now))}"


def data_section(data) -> Section:
    """Pictures by class and split, what was left out, and what stands in two splits."""
    manifest = data.manifest
    splits = [split for split in (data.train, data.dev, data.test) if len(split)]
    counts = [split.counts for split in splits]
    names = data.class_names
    order = sorted(names, key=lambda name: -sum(count[name] for count in counts)) if len(names) > CLASSES else names
    shown = names if len(names) <= CLASSES else [*order[: CLASSES // 2], *order[-CLASSES // 2 :]]
    rows = [[text(name), *(number(count[name]) for count in counts)] for name in shown]
    rows.append([text("all"), *(number(len(split)) for split in splits)])
    left_out = "" if len(shown) == len(names) else f"The largest and the smallest {CLASSES // 2} of {len(names):,}."
    table = Table(["class", *(split.name for split in splits)], rows, "Pictures a class", left_out, sortable=False)
    about = [[text(title), text("; ".join(lines))] for title, lines in sections(manifest) if title not in SAID]
    place = manifest.source.describe().get("path", "") if manifest.source is not None else ""
    blocks: list[Block] = [Words(f"{headline(manifest)}{f': {place}' if place else ''}.")]
    if leaks := leak_lines(manifest.usable):
        blocks += [Words("Some pictures stand in more than one split, which flatters the figures:"), Listing(leaks)]
    blocks.append(Beside([table, Table(["", ""], about, "What was found", sortable=False)] if about else [table]))
    troubles = trouble_lines(manifest, LINES)
    if len(manifest.troubles) and troubles:
        blocks += [Words("Doubtful files:"), Listing(troubles[:LINES])]
    else:
        blocks.append(Words("No file had to be left out."))
    return Section("data", "Data", blocks)


SAID = {"classes", "splits"}  # of a manifest's summary: what the table above says


def recipe_section(recipe) -> Section:
    """Every choice with its reason; those made by hand first to the eye."""
    values = recipe.to_dict()
    reasons = values.pop("reasons", {})
    rows = [[text(name), text(shown(value)), text(reasons.get(name, ""), "quiet")] for name, value in values.items()]
    return Section("recipe", "Recipe", [Table(["argument", "value", "why"], rows, sortable=False, stacked=True)])


def environment_section(record: Mapping, trouble: str) -> Section:
    """Machine, versions, and what was decided when the training began."""
    rows = [[text(name.replace("_", " ")), text(value)] for name, value in _lines(record)]
    blocks: list[Block] = [Table(["", ""], rows[:ROWS], sortable=False)] if rows else []
    return Section("environment", "Environment", [*blocks, *([Words(trouble)] if trouble else [])])


def time_section(record: Mapping) -> Section:
    """How long the training took, and what for."""
    parts = {str(name): seconds for name, seconds in _numbers(record.get("time")).items() if seconds > 0}
    total = _numbers(record).get("seconds")
    if total is None and not parts:
        return Section("time", "Time", [Words("How long the training took was not noted.")])
    whole = max(total or 0.0, sum(parts.values()))
    if parts and whole - sum(parts.values()) >= 0.01 * whole:
        parts["the rest"] = whole - sum(parts.values())
    rows = [
        [text(name), number(seconds, ",.1f"), number(100 * seconds / whole, ".0f"), Cell("", share=seconds / whole)]
        for name, seconds in sorted(parts.items(), key=lambda part: (part[0] == "the rest", -part[1]))
    ]
    blocks: list[Block] = [Words(f"The training took {duration(whole)}.")]
    blocks += [Table(["what", "seconds", "%", ""], rows, sortable=False)] if rows else []
    return Section("time", "Time", blocks)


def shown(value) -> str:
    """A value of a recipe or a record for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {shown(part)}" for name, part in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        size = len(value) == 2 and all(isinstance(part, int) for part in value)
        return ("x" if size else ", ").join(map(shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _lines(record: Mapping) -> Iterator[tuple[str, str]]:
    """Name and value of what a record holds for people; of several alike, a line each."""
    for name, value in record.items():
        if name in ELSEWHERE:
            continue
        if isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
            numbered = len(value) > 1
            yield from ((f"{name} {k}" if numbered else name, shown(part)) for k, part in enumerate(value, start=1))
        else:
            yield name, shown(value)


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _numbers(record) -> dict:
    """The entries of a record that are numbers; empty where it is none."""
    items = record.items() if isinstance(record, Mapping) else ()
    return {name: value for name, value in items if isinstance(value, (int, float)) and not isinstance(value, bool)}
