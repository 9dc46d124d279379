"""The figures of a report in words, tables and drawings: one function a section."""

import base64
import io

from callbacks import gradient_verdicts
from zoo.data.manifest_text import clip, counted
from zoo.evaluation import plots
from zoo.evaluation.advice.situation import call
from zoo.evaluation.importance import LayerImportance
from zoo.evaluation.plots.of_gradients import gradient_records
from zoo.evaluation.predictions import Evaluation
from zoo.evaluation.report import facts
from zoo.evaluation.report.blocks import (
    Advice,
    Beside,
    Block,
    Drawing,
    Section,
    Steps,
    Table,
    Tile,
    Tiles,
    Words,
    number,
    text,
)
from zoo.evaluation.report.facts import how_to_test, shown
from zoo.models.temperature import temperature_of

ROWS = 200  # of a table
LARGEST = 120_000  # characters of a drawing
TONES = {"exploding": "bad", "dead": "warn", "vanishing": "warn", "healthy": "good"}
MEANINGS = {
    "exploding": "Exploding: gradients or steps are too large for the weights. Lower the learning rate.",
    "dead": "Dead: many ReLUs are 0 for every picture and learn nothing. Lower the learning rate, or start anew.",
    "vanishing": "Vanishing: next to no gradient arrives there. Batch normalisation or shortcuts bring it through.",
}


def _drawing(figure, alt: str) -> Drawing:
    """A figure as part of the page; one of very many lines as pixels, whose size has a bound."""
    svg = plots.svg(figure, alt)
    if len(svg) <= LARGEST:
        return Drawing(svg, alt)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return Drawing("", alt, f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")


def tiles(evaluation: Evaluation) -> Tiles:
    """The headline figures."""
    pictures = Tile("pictures", f"{len(evaluation.paths):,}", f"of {evaluation.split}")
    if not evaluation.labelled:
        return Tiles([pictures])
    low, high = evaluation.accuracy_interval
    found = [
        Tile("accuracy", f"{evaluation.accuracy:.1%}", f"95 % interval {low:.1%} to {high:.1%}"),
        Tile("balanced accuracy", f"{evaluation.balanced_accuracy:.1%}", "every class counts alike"),
        Tile("top-5 accuracy", f"{evaluation.top5:.1%}", "the class is among the five best"),
        Tile("loss", f"{evaluation.loss:.3f}", "cross-entropy"),
        Tile("calibration error", f"{evaluation.calibration_error:.1%}", "0 is perfect"),
        pictures,
    ]
    return Tiles([tile for tile in found if tile.name != "top-5 accuracy" or len(evaluation.class_names) > 5])


def next_steps(diagnosis, trouble: str, recipe) -> Section:
    """What the diagnosis advises, in order, with the call for each."""
    if diagnosis is None:
        return Section("next", "What to do next", [Words(trouble)])
    words = f"Errors and the gaps between them. {diagnosis.sentence}"
    errors = Beside([_drawing(plots.diagnosis(diagnosis), words), _gaps(diagnosis)])
    steps = [
        Advice(
            step.title,
            [(name, shown(old), shown(new)) for name, (old, new) in step.changes.items()],
            step.why,
            call(recipe, {name: new for name, (_, new) in step.changes.items()}),
        )
        for step in diagnosis.steps
    ]
    if not steps:
        return Section("next", "What to do next", [errors, Words("Nothing is advised.")])
    about = "In this order, one at a time: each is to be seen in the figures before the next is tried."
    return Section("next", "What to do next", [errors, Words(about, quiet=True), Steps(steps)])


def _gaps(diagnosis) -> Table:
    """What the errors are made of."""
    gaps = {
        "avoidable bias: train less human error": diagnosis.bias,
        "variance: dev less train error": diagnosis.variance,
    }
    rows = [
        [text(name), number(100 * gap.value, ".1f"), text(f"{100 * gap.low:.1f} to {100 * gap.high:.1f}")]
        for name, gap in gaps.items()
    ]
    note = f"Human error is taken as {diagnosis.human_error:.1%}; run.diagnose(human_error=...) takes another one."
    return Table(["gap", "points", "95 % interval"], rows, note=note, sortable=False)


def comparison(found, other, why: str) -> Section:
    """This run against another on the same pictures; `why` they are not those of the headline, where they are not."""
    if found is None:
        command = "zoo report RUN --compare OTHER"
        about = f"No other run was named; {command} says which of two is better."
        return Section("comparison", "Comparison", [Words(about, quiet=True, code=[command])])
    low, high = found.interval
    said = {
        "better": "This run is better than the other.",
        "worse": "This run is worse than the other.",
    }.get(found.verdict, "No difference between this run and the other is shown.")
    tone = {"better": "good", "worse": "bad"}.get(found.verdict, "")
    p = "p < 0.0001" if found.p_value < 1e-4 else f"p = {found.p_value:.2g}"
    interval = f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    of_all = f"of {counted(found.pictures, f'{found.split} picture')}"
    cells = [
        Tile("points of accuracy", f"{100 * found.difference:+.1f}", interval, tone),
        Tile("only this one is right", f"{found.only_first:,}", of_all),
        Tile("only the other is right", f"{found.only_second:,}", of_all),
    ]
    place = clip(str(other.directory), 200)
    about = f"The other run: {place}. The interval is by the paired bootstrap; McNemar's test gives {p}."
    reason = [Words(why, code=[how_to_test(other)])] if why else []
    return Section("comparison", "Comparison", [Words(said), *reason, Tiles(cells), Words(about, quiet=True)])


def learning(run) -> Section:
    """Loss and accuracy over the epochs, with the best one."""
    best, history = run.best_epoch, run.history
    names = {
        "val_accuracy": "dev accuracy {:.1%}",
        "val_loss": "dev loss {:.3f}",
        "accuracy": "training accuracy {:.1%}",
        "loss": "training loss {:.3f}",
    }
    parts = [form.format(history[name][best - 1]) for name, form in names.items() if name in history]
    epochs = max((len(values) for values in history.values()), default=0)
    why = "is the best, by the loss on dev" if "val_loss" in history else "was kept, since there was no dev set"
    words = f"Epoch {best} of {epochs} {why}: {', '.join(parts)}."
    about = "Training figures are means while weights still moved, with dropout and augmentation where there are some."
    drawing = _drawing(plots.history(run), f"Learning curves. {words}")
    rows = [
        [text(name.replace("val_", "dev ").replace("_", " ")), *(number(values[k], ".4g") for k in (0, best - 1, -1))]
        for name, values in history.items()
    ]
    table = Table(["", "first epoch", f"best, {best}", f"last, {epochs}"], rows[:ROWS], note=about, sortable=False)
    return Section("learning", "Learning curves", [Words(words), Beside([drawing, table])])


def gradients(run) -> Section:
    """Whether gradients reached what was trained."""
    title = "Gradient health"
    try:
        records = gradient_records(run)
    except OSError:
        return Section("gradients", title, [Words("No gradients were recorded: there is no gradients.csv.")])
    except ValueError as error:  # damaged, or empty since the fit was too short
        return Section("gradients", title, [Words(f"Nothing can be said of the gradients. {error}.")])
    found = gradient_verdicts.verdicts(records)
    kinds = {kind: [group for group, verdict in found.items() if verdict == kind] for kind in TONES}
    said = "; ".join(f"{_some(groups, len(found))} {kind}" for kind, groups in kinds.items() if groups)
    last = records[-1]
    rows = [
        [
            text(group),
            text(verdict, TONES[verdict]),
            number(last["groups"][group]["gradient_norm"], ".3g"),
            number(last["groups"][group]["update_ratio"], ".2g"),
            number(last["groups"][group]["dead"], ".0%"),
        ]
        for group, verdict in found.items()
    ]
    heads = ["layers", "verdict", "gradient norm", "update ratio", "dead ReLUs"]
    where = f"Epoch {last['epoch']}, step {last['step']}"
    table = Table(heads, rows[:ROWS], note=f"{where}; verdicts are by the last {gradient_verdicts.RECENT} records.")
    drawing = _drawing(plots.gradients(run), f"Gradients over the training: {said}")
    blocks: list[Block] = [Words(f"{said[0].upper()}{said[1:]}.")]
    blocks += [Words(meaning) for kind, meaning in MEANINGS.items() if kinds[kind]]
    return Section("gradients", title, [*blocks, Beside([drawing, table])])


def _some(names: list[str], total: int) -> str:
    """The first eight names of `total`; "all" where that is what they are."""
    if len(names) == total:
        return "all"
    return ", ".join(clip(name, 60) for name in names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")


def confusion(evaluation: Evaluation) -> Section:
    """What is taken for what."""
    pairs = evaluation.most_confused(10)
    rows = [
        [text(row["label"]), text(row["predicted"]), number(row["count"]), number(row["share"], ".0%")]
        for row in pairs.to_dict("records")
    ]
    said = f"{rows[0][0].text} taken for {rows[0][1].text} most often" if rows else "every picture is recognised"
    drawing = _drawing(plots.confusion(evaluation), f"Confusion matrix of {evaluation.split}: {clip(said, 200)}")
    if not rows:
        return Section("confusion", "Confusion", [Words("Every picture was recognised."), drawing])
    table = Table(["class", "taken for", "pictures", "of the class"], rows, "Most confused")
    return Section("confusion", "Confusion", [Beside([drawing, table])])


def classes(evaluation: Evaluation) -> Section:
    """Precision, recall and F1 of each class, the weakest first where there are many."""
    table = evaluation.per_class.reset_index()
    note = ""
    if len(table) > ROWS:
        note = f"The {ROWS} with the lowest F1 of {len(table):,}; all of them are in evaluation/per_class.csv."
        table = table.sort_values("f1", kind="stable").head(ROWS)
    rows = [
        [
            text(row["label"]),
            *(number(row[name], ".3f") for name in ("precision", "recall", "f1")),
            number(row["support"]),
        ]
        for row in table.to_dict("records")
    ]
    blocks: list[Block] = []
    if never := evaluation.never_predicted:
        blocks.append(Words(f"Never predicted: {_some(never, 0)}."))
    about = "Precision: share of what was taken for the class that is of it. Recall: share of the class that was found."
    heads = ["class", "precision", "recall", "F1", "pictures"]
    return Section("classes", "Classes", [*blocks, Words(about, quiet=True), Table(heads, rows, note=note)])


def calibration(run, evaluation: Evaluation) -> Section:
    """Whether probabilities mean what they say."""
    words = (
        f"The probability is off by {evaluation.calibration_error:.1%} on average (0 is perfect). {_temperature(run)}"
    )
    drawing = _drawing(plots.reliability(evaluation), f"Reliability diagram of {evaluation.split}. {words}")
    table = evaluation.reliability
    rows = [
        [
            text(f"{row['low']:.2f} to {row['high']:.2f}"),
            number(row["pictures"]),
            number(row["confidence"], ".3f"),
            number(row["accuracy"], ".3f"),
        ]
        for row in table.loc[table.pictures > 0].to_dict("records")
    ]
    bins = Table(["probability", "pictures", "mean", "accuracy"], rows, sortable=False)
    return Section("calibration", "Reliability", [Words(words, code=["run.calibrate()"]), Beside([drawing, bins])])


def _temperature(run) -> str:
    """Whether the run was calibrated, and what came of it; advice only where there is a dev set to fit on."""
    temperature, record = temperature_of(run.model), facts.calibration(run.directory)
    if temperature is None:
        how = "; run.calibrate() fits a temperature on dev (Guo et al. 2017)" if len(run.data.dev) else ""
        return f"The run was not calibrated{how}."
    if record is None:
        how = "; run.calibrate() fits it anew" if len(run.data.dev) else ""
        return f"The model carries a temperature of {temperature:.3g} from before this training{how}."
    kept = record and record.get("before") == record.get("after")
    said = ", which left its temperature at" if kept else ": its temperature is"
    return f"The run was calibrated{said} {temperature:.3g}. {record.get('note', '')}".rstrip()


def importance(found: LayerImportance | None, trouble: str) -> Section:
    """What each block of the network is worth; or why that is not known."""
    title = "Layer importance"
    if found is None:
        code = "run.report(importance=True)", "zoo report RUN --importance"
        how = f"{' or '.join(code)} takes out one block after the other, which takes a minute or more."
        return Section("importance", title, [Words(f"{trouble} {how}".strip(), quiet=True, code=code)])
    rows = [
        [
            text(row["block"]),
            number(100 * row["drop"], ".1f"),
            text(f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"),
            text(row["how"], "quiet"),
            number(row["parameters"]),
        ]
        for row in found.table.to_dict("records")
    ]
    heads = ["block", "points lost", "95 % interval", "replaced by", "parameters"]
    note = f"The first {ROWS} of {len(rows):,} blocks." if len(rows) > ROWS else ""
    drawing = _drawing(plots.importance(found), f"Accuracy lost without each block. {' '.join(found.advice)}")
    table = Table(heads, rows[:ROWS], note=note)
    return Section("importance", title, [*(Words(line) for line in found.advice), Beside([drawing, table])])
