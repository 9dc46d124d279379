"""The page of a search: what it found, what that hangs on, every trial, and what it cost."""

import math
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from markupsafe import Markup

from tuning import report_facts as facts
from tuning.plots.view import is_share, said_score
from tuning.words import first_of
from zoo.data import manifest_text
from zoo.data.manifest_text import counted
from zoo.evaluation.figures import wilson
from zoo.evaluation.report.blocks import Section, Tile, Tiles, Words, pieces
from zoo.evaluation.report.facts import duration
from zoo.files import shown, write_text
from zoo.pages import render

PAGE = "report.html"
BETTER_DIGITS = ".3g"  # of a difference of losses


class Headline(NamedTuple):
    """What the page says first."""

    title: str
    verdict: str
    about: Words
    tiles: Tiles


def report(result) -> Path:
    """Writes one page about a search: the best trial, progress, importance, each hyperparameter, all trials, cost.

    The page is one file that needs nothing beside it; the tracebacks of failed trials are linked, not in it. A search
    that still runs, or of which every trial failed, has a page as well. The test set is not touched.

    Args:
        result: A SearchResult.

    Returns:
        The page, `report.html` in the search's folder.

    Raises:
        OSError: If it cannot be written; a page that stood there stays.

    Example:
        tuning.load_search("runs/search-1").report()
    """
    headline = _headline(result)
    sections: list[Section] = []
    if facts.has_scores(result):
        sections = [facts.best(result), facts.progress(result), facts.importance(result), facts.each(result)]
    sections += [facts.trials(result), facts.cost(result), facts.test_set(result), facts.what_ran(result)]
    algorithm = f"{result.algorithm} search of {result.model}, space {result.space_name}"
    page = render(
        Path(__file__).with_name("report.html"),
        title=headline.title,
        place=f"{algorithm}, {shown(result.directory)}, {facts.when(result)}",
        tiles=headline.tiles,
        verdict=headline.verdict,
        about=headline.about,
        sections=[section for section in sections if section.blocks],
        clip=_clip,
        pieces=pieces,
    )
    write_text(result.directory / PAGE, page)
    return result.directory / PAGE


def _clip(words, width: int) -> str:
    """A text of at most `width` columns; one that names a file is a link to it."""
    if isinstance(words, facts.Link):
        return Markup('<a href="{}">{}</a>').format(quote(words), manifest_text.clip(words, width))
    return manifest_text.clip(words, width)


def _headline(result) -> Headline:
    trials = result.trials
    counts = trials.status.value_counts()
    said = ", ".join(f"{counts[status]:,} {status}" for status in facts.STATUSES if status in counts)
    took = facts.running_time(trials)
    numbers = [
        Tile("trials", f"{len(trials):,}", said),
        Tile("time", duration(took), "in which trials ran"),
    ]
    if not result.hopeful:
        yet = " yet" if "unfinished" in counts else ""
        title = f"No trial of {len(trials):,} was completed{yet}" if len(trials) else "No trials"
        why = facts.commonest_reason(trials)
        verdict = f"There is no best trial. {why}".strip()
        return Headline(title, verdict, Words(_unfinished(result), quiet=True), Tiles(numbers))
    best, score = result.best_trial, facts.score_of(result, result.best_trial)
    metric = facts.metric(result.objective)
    figure = said_score(result.objective, score)
    interval = _interval(result, score)
    note = f"95 % interval {interval[0]:.1%} to {interval[1]:.1%}" if interval else f"trial {best}"
    tiles = [Tile(metric, figure, note), *_gain(result, score), *numbers]
    among = (
        "the only completed trial"
        if counts["completed"] == 1
        else f"the best of {counts['completed']:,} completed trials"
    )
    title = f"{metric[0].upper()}{metric[1:]} {figure}: trial {best}, {among}"
    return Headline(title, _against_first(result, score), _worth(result, score, interval), Tiles(tiles))


def _gain(result, score: float) -> list[Tile]:
    """How much better the best is than the first, where that has a score."""
    first = facts.first_score(result)
    if math.isnan(first) or score == first:
        return []
    better = (score - first) * (1 if result.direction == "max" else -1)
    share = is_share(result.objective)
    figure = f"{100 * (score - first):+.1f}" if share else f"{score - first:+{BETTER_DIGITS}}"
    note = f"that has {said_score(result.objective, first)}"
    name = f"{'points ' if share else ''}against {first_of(result)}"
    return [Tile(name, figure, note, "good" if better > 0 else "")]


def _against_first(result, score: float) -> str:
    """The best against the first, in a sentence."""
    first, known = facts.first_score(result), first_of(result)
    if math.isnan(first):
        return (
            f"{known[0].upper()}{known[1:]} was not trained to its end, so there is nothing to compare the best with."
        )
    if score == first:
        if (result.trials.status == "completed").sum() == 1:
            return f"Only {known} was completed."
        return f"No trial is better than {known}."
    by = abs(score - first)
    much = f"{100 * by:.1f} points" if is_share(result.objective) else f"{by:{BETTER_DIGITS}}"
    return f"Trial {result.best_trial} is better than {known} by {much}."


def _interval(result, score: float) -> tuple[float, float] | None:
    """Within which a share of the dev pictures is uncertain; None where the score is none."""
    count = facts.pictures(result).get("dev", 0)
    if not (is_share(result.objective) and result.objective.startswith("val_") and count and 0 <= score <= 1):
        return None
    return wilson(round(score * count), count)


def _worth(result, score: float, interval: tuple[float, float] | None) -> Words:
    """What the best score is worth."""
    test, by_dev = 'result.best_run.evaluate("test")', 'objective="val_accuracy"'
    by_all = 'objective="accuracy"'
    on_dev, count = result.objective.startswith("val_"), int((result.trials.status == "completed").sum())
    has_dev = facts.has_dev(result)
    lines = [unfinished] if (unfinished := _unfinished(result)) else []
    if result.objective.endswith("loss") and len(facts.smoothings(result)) > 1:
        lines.append(
            "Trials differ in label smoothing, and the loss of each holds its own, so that these scores cannot be "
            f"compared; those of {by_dev if has_dev else by_all} can, and so can those of a space that leaves "
            "label_smoothing out."
        )
    if not on_dev:
        needs = "" if has_dev else ", which needs a dev set,"
        lines.append(
            "The score is that of the pictures that were trained on, which favours trials that learn these by heart; "
            f"{by_dev}{needs} judges by others."
        )
    first = facts.first_score(result)
    if interval:
        rests = f"The best score rests on {counted(facts.pictures(result)['dev'], 'dev picture')}"
        if not math.isnan(first) and first != score:
            within = interval[0] <= first <= interval[1]
            shown = (
                "within the 95 % interval of the best, so the gain may be chance" if within else "outside the interval"
            )
            rests += f"; {first_of(result)} lies {shown}"
        lines.append(f"{rests}.")
    lucky = on_dev and count > 1
    if lucky:
        lines.append(
            f"The best of {count:,} scores on one dev set is also the luckiest of them, so new pictures will show less."
        )
    if facts.pictures(result).get("test"):
        lines.append(f"Once all is decided, {test} says how {'much' if lucky else 'good it is on new pictures'}.")
    return Words(" ".join(lines), quiet=True, code=[test, by_dev, by_all])


def _unfinished(result) -> str:
    """Whether trials are still out."""
    count = int((result.trials.status == "unfinished").sum())
    return f"{counted(count, 'trial')} had not ended when this page was written." if count else ""
