"""An evaluation as people look at it: on one screen of a terminal, or in a notebook."""

import html

WIDTH = 100  # columns
NAME = 24  # columns for the name of a class
SHOWN = 15  # classes, where all that is known is what was predicted


def text(evaluation) -> str:
    """The figures on one screen."""
    if not evaluation.labelled:
        return "\n".join([_title(evaluation), "", *_predictions(evaluation)])
    lines = [_title(evaluation)]
    lines += [f"  {name:<18} {value:>7}  {note}".rstrip() for name, value, note in _overview(evaluation)]
    if never := evaluation.never_predicted:
        lines.append(short(f"  never predicted: {', '.join(never)}", WIDTH))
    if len(evaluation.class_names) > 1:
        occurring = evaluation.per_class.loc[evaluation.per_class.support > 0]
        lines += ["", f"  {'weakest classes':<26} {'precision':>9} {'recall':>7} {'f1':>6} {'pictures':>8}"]
        lines += [
            f"    {short(row['label'], NAME):<24} {row['precision']:>9.3f} {row['recall']:>7.3f} "
            f"{row['f1']:>6.3f} {row['support']:>8}"
            for row in occurring.sort_values("f1", kind="stable").head(5).reset_index().to_dict("records")
        ]
    confused = evaluation.most_confused(5)
    if len(confused):
        lines += ["", "  most confused"]
        lines += [
            f"    {short(row['label'], NAME)} taken for {short(row['predicted'], NAME)}: "
            f"{row['count']} ({row['share']:.0%})"
            for row in confused.to_dict("records")
        ]
    return "\n".join(lines)


def page(evaluation) -> str:
    """The figures as HTML, names escaped."""
    title = f"<h4>{html.escape(_title(evaluation))}</h4>"
    if not evaluation.labelled:
        return title + _most_predicted(evaluation).round(3).to_html(na_rep="")
    rows = "".join(
        f"<tr><td>{name}</td><td>{value}</td><td>{note}</td></tr>" for name, value, note in _overview(evaluation)
    )
    never = html.escape(", ".join(evaluation.never_predicted))
    tables = [evaluation.per_class.round(3), evaluation.most_confused(5).round(3)]
    return "".join(
        [
            f"{title}<table>{rows}</table>",
            f"<p>never predicted: {never}</p>" if never else "",
            *(table.to_html() for table in tables if len(table)),
        ]
    )


def short(text: str, most: int) -> str:
    """A text of at most so many characters, with dots where something was cut."""
    return text if len(text) <= most else text[: most - 3] + "..."


def _title(evaluation):
    pictures, classes = len(evaluation.paths), len(evaluation.class_names)
    title = f"{evaluation.split}: {pictures} picture{'s' * (pictures != 1)}, {classes} class{'es' * (classes != 1)}"
    return title if evaluation.labelled else f"{title}, no labels: predictions only"


def _overview(evaluation) -> list[tuple[str, str, str]]:
    """Name, value and note of each figure."""
    low, high = evaluation.accuracy_interval
    rows = [
        ("accuracy", f"{evaluation.accuracy:.2%}", f"95 % interval {low:.1%} to {high:.1%}"),
        ("balanced accuracy", f"{evaluation.balanced_accuracy:.2%}", "every class counts alike"),
    ]
    if len(evaluation.class_names) > 5:
        rows.append(("top-5 accuracy", f"{evaluation.top5:.2%}", ""))
    rows.append(("loss", f"{evaluation.loss:.4f}", "cross-entropy"))
    rows.append(("calibration error", f"{evaluation.calibration_error:.2%}", "0 is perfect"))
    return rows


def _predictions(evaluation):
    found = _most_predicted(evaluation)
    yield f"  {'predicted as':<26} {'pictures':>8}  mean probability"
    for row in found.reset_index().to_dict("records"):
        mean = f"{row['probability']:.3f}" if row["pictures"] else ""
        yield f"    {short(row['predicted'], NAME):<24} {row['pictures']:>8}  {mean}".rstrip()
    if left := len(evaluation.class_names) - len(found):
        yield f"    and {left} more classes"


def _most_predicted(evaluation):
    return evaluation.predictions.sort_values("pictures", ascending=False, kind="stable").head(SHOWN)
