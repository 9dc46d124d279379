"""The command `zoo`: one function a command, each a few lines around the Python calls of the same name."""

import tempfile
import traceback
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from zoo.command import check, load_keras, preview_of, signals_end_the_program, stop
from zoo.wording import aligned, figures, moved, proof, word

app = typer.Typer(
    name="zoo",
    help="Fit an image classifier to a folder of pictures, look at how good it is, and export it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SOURCE = 'Folder with one folder a class, a CSV file, "tfds:NAME" or "digits".'
DEPTH = "How many folders down the classes lie."
Directory = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)]
Moved = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Where the pictures are, if they were moved."),
]


@app.command()
def models(
    pattern: Annotated[Optional[str], typer.Argument(help='A name, or names such as "resnet*".')] = None,  # noqa: UP045
) -> None:
    """List the models that can be built, or say all about one."""
    from zoo.models.catalog import info, list_models
    from zoo.models.table import text_rows

    if pattern is not None and not set(pattern) & set("*?["):
        typer.echo(str(info(pattern)))
        return
    names = list_models(pattern)
    if not names:
        raise ValueError(f"No model is called like {pattern!r}. `zoo models` shows them all.")
    typer.echo(aligned(text_rows(map(info, names), every_tag=pattern is not None)))
    if pattern is None:
        typer.echo("\nzoo models NAME says all about one.")


@app.command()
def train(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE, show_default=False)],
    model: Annotated[str, typer.Option(help="A name from `zoo models`.")] = "auto",
    weights: Annotated[str, typer.Option(help='A tag, "imagenet", a file, or "none" for none.')] = "auto",
    freeze: Annotated[
        str, typer.Option(help='Amount held still: none, small, medium, large, or phases such as "large,medium".')
    ] = "auto",
    augment: Annotated[str, typer.Option(help="Augmentation: none, light, medium, heavy or trivial.")] = "auto",
    mixing: Annotated[str, typer.Option(help="Mix pictures and labels: none, mixup or cutmix.")] = "auto",
    preview: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Show augmented pictures in this PNG file before training.", show_default="none"),
    ] = None,
    sampling: Annotated[str, typer.Option(help='"balanced" draws rare classes as often as common ones.')] = "auto",
    class_weights: Annotated[str, typer.Option(help="Weight of classes in the loss: none or balanced.")] = "auto",
    views: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Augmented versions kept of each picture.", show_default="auto"),
    ] = None,
    head: Annotated[str, typer.Option(help="linear, hidden or average+max.")] = "auto",
    cache: Annotated[bool, typer.Option(help="Keep what the frozen part gives, where that saves time.")] = True,
    epochs: Annotated[Optional[int], typer.Option(help="Epochs in all.", show_default="auto")] = None,  # noqa: UP045
    batch_size: Annotated[Optional[int], typer.Option(show_default="auto")] = None,  # noqa: UP045
    learning_rate: Annotated[Optional[float], typer.Option(show_default="auto")] = None,  # noqa: UP045
    image_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Side of the pictures in pixels.", show_default="the model's own"),
    ] = None,
    depth: Annotated[int, typer.Option(help=DEPTH)] = 1,
    seed: Annotated[int, typer.Option(help="Decides splits, initial weights and order.")] = 0,
    time_limit: Annotated[Optional[float], typer.Option(help="Seconds to train at most.")] = None,  # noqa: UP045
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of the run.", show_default="a new runs/NAME-N"),
    ] = None,
) -> None:
    """Fit a network to pictures; everything about it goes into a folder."""
    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "views": views}
    fields = {
        "weights": weights,
        "freeze": tuple(word.strip() for word in freeze.split(",")) if "," in freeze else freeze,
        "augment": augment,
        "mixing": mixing,
        "sampling": sampling,
        "class_weights": class_weights,
        "head": head,
        "seed": seed,
        **{name: value for name, value in given.items() if value is not None},
    }
    check(model, fields, preview)
    load_keras()
    import zoo

    data = zoo.load_data(source, image_size=image_size, depth=depth, seed=seed)
    typer.echo(f"{data.summary()}\n")
    if preview is not None:
        typer.echo(f"{preview_of(model, data, fields, preview)}\n")
    wish = "auto" if cache else False
    with signals_end_the_program():
        run = zoo.fine_tune(model, data, cache_features=wish, directory=out, time_limit=time_limit, **fields)
    typer.echo(figures(run))
    folder = word(run.directory)
    typer.echo(f"\nNext: zoo evaluate {folder} --split {'test' if len(run.data.test) else 'dev'}")
    typer.echo(f"      zoo export {folder}")


@app.command("search")
def search_command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE, show_default=False)],
    model: Annotated[str, typer.Option(help='A name from `zoo models`; "auto" lets the space choose.')] = "auto",
    space: Annotated[str, typer.Option(help="What is tried: head, transfer or scratch.")] = "head",
    algorithm: Annotated[str, typer.Option(help="bayesian, random, grid or hyperband.")] = "bayesian",
    trials: Annotated[int, typer.Option(help="How many in all, those of an earlier call included.")] = 20,
    objective: Annotated[str, typer.Option(help="A metric of the history.")] = "val_accuracy",
    direction: Annotated[str, typer.Option(help="max or min.")] = "max",
    prune: Annotated[bool, typer.Option("--prune", help="End trials that are worse than the median.")] = False,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Trials at once.", show_default="as the machine allows"),
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(help="Of each trial.", show_default="auto")] = None,  # noqa: UP045
    image_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Side of the pictures in pixels.", show_default="the model's own"),
    ] = None,
    depth: Annotated[int, typer.Option(help=DEPTH)] = 1,
    seed: Annotated[int, typer.Option(help="Decides splits, proposals and trainings.")] = 0,
    time_limit: Annotated[Optional[float], typer.Option(help="Seconds for this call.")] = None,  # noqa: UP045
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of the search; an existing one goes on.", show_default="a new runs/search-N"),
    ] = None,
) -> None:
    """Train with one set of hyperparameters after another, and write a page about what came of it."""
    fields: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    check(model, fields, None)
    load_keras()
    import tuning
    import zoo
    from tuning.loop import SearchStopped

    data = zoo.load_data(source, image_size=image_size, depth=depth, seed=seed)
    typer.echo(f"{data.summary()}\n")
    try:
        with signals_end_the_program():
            result = tuning.search(
                model,
                data,
                space=space,
                algorithm=algorithm,
                trials=trials,
                objective=objective,
                direction=direction,
                pruning="median" if prune else None,
                workers="auto" if workers is None else workers,
                directory=out,
                seed=seed,
                time_limit=time_limit,
                **fields,
            )
    except SearchStopped as stopped:
        stop(str(stopped), 2)
    typer.echo(f"\n{result}")
    typer.echo(f"\n{word(result.report())}: a page for a browser")
    if result.hopeful:
        split = "test" if len(data.test) else "dev"
        typer.echo(f"Next: zoo evaluate {word(result.folder(result.best_trial))} --split {split}")
    elif reasons := result.trials.reason[result.trials.status == "failed"].mode().tolist():
        stop(f"no trial has been completed, most of them since {reasons[0]}", 2)


@app.command("preview")
def preview_command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE, show_default=False)],
    model: Annotated[str, typer.Option(help="A name from `zoo models`, for the size of the pictures.")] = "auto",
    augment: Annotated[str, typer.Option(help="Augmentation: none, light, medium, heavy or trivial.")] = "medium",
    image_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Side of the pictures in pixels.", show_default="the model's own"),
    ] = None,
    depth: Annotated[int, typer.Option(help=DEPTH)] = 1,
    seed: Annotated[int, typer.Option(help="Decides splits and changes, as in training.")] = 0,
    out: Annotated[Path, typer.Option(help="PNG file.")] = Path("preview.png"),
) -> None:
    """Show training pictures and what an augmentation makes of them in the first epochs."""
    fields = {"augment": augment, "seed": seed}
    check(model, fields, out)
    load_keras()
    import zoo

    typer.echo(preview_of(model, zoo.load_data(source, image_size=image_size, depth=depth, seed=seed), fields, out))


@app.command()
def scan(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE, show_default=False)],
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write a page with the doubtful pictures to this file.", show_default="none"),
    ] = None,
    csv: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write a table, a row a file, to this file.", show_default="none"),
    ] = None,
    depth: Annotated[int, typer.Option(help=DEPTH)] = 1,
    follow_links: Annotated[bool, typer.Option("--follow-links", help="Also look at what links outside hold.")] = False,
    labels: Annotated[bool, typer.Option(help="Whether folders are classes; without, all pictures count.")] = True,
) -> None:
    """Look at every file: which cannot be used and why, copies, one picture under two labels, sizes."""
    from zoo.data.scan import scan

    manifest = scan(source, depth=depth, labels=labels, follow_links=follow_links)
    typer.echo(str(manifest))
    if html is not None:
        manifest.to_html(html)
        typer.echo(f"{word(html)}: a page with the doubtful pictures, for a browser")
    if csv is not None:
        manifest.to_csv(csv)
        typer.echo(f"{word(csv)}: {len(manifest.table)} rows")


@app.command()
def evaluate(
    directory: Directory,
    split: Annotated[str, typer.Option(help="test, dev or train.")] = "test",
    augment: Annotated[str, typer.Option(help="Policy of test-time augmentation, such as light.")] = "none",
    views: Annotated[int, typer.Option(help="Augmented versions of each picture.")] = 4,
    data: Moved = None,
) -> None:
    """Figures of a run on one of its splits, and a row a picture in the run's folder."""
    load_keras()
    import zoo

    evaluation = zoo.load_run(directory, data).evaluate(split, augment=augment, views=views)
    typer.echo(str(evaluation))
    name = split if augment == "none" else f"{split}-{augment}-{views}"
    typer.echo(f"\nA row a picture: {word(directory / 'evaluation' / f'{name}.csv')}")
    typer.echo(f"Next: zoo report {word(directory)}{moved(data)}")


@app.command()
def calibrate(directory: Directory, data: Moved = None) -> None:
    """Make a run's probabilities mean what they say, by a temperature fitted on its dev set."""
    load_keras()
    import zoo

    typer.echo(str(zoo.load_run(directory, data).calibrate()))
    typer.echo(f"\nNext: zoo report {word(directory)}{moved(data)}")


@app.command()
def report(
    directory: Directory,
    compare: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="RUN", help="Another run, to compare with picture by picture.", show_default=False),
    ] = None,
    importance: Annotated[
        bool, typer.Option("--importance", help="See what each block is worth; takes a minute or more.")
    ] = False,
    data: Moved = None,
) -> None:
    """Write a page about a run: figures, verdict, what to do next, curves, worst pictures, what was done."""
    load_keras()
    import zoo

    path = zoo.load_run(directory, data).report(compare=compare, importance=importance)
    typer.echo(f"{word(path)}: a page for a browser; its figures are in {word(path.parent / 'evaluation')}")


@app.command()
def export(
    directory: Directory,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Where to.", show_default="the folder `export` of the run"),
    ] = None,
    format: Annotated[str, typer.Option(help="What to write.")] = "saved_model",
    data: Moved = None,
) -> None:
    """Write a SavedModel that takes picture files, proven to answer as the model does."""
    import json

    load_keras()
    import zoo

    target = zoo.load_run(directory, data).export(out, formats=(format,))
    found = json.loads((target / "verification.json").read_text(encoding="utf-8"))
    typer.echo(f"{word(target)}: verified in a fresh process, {proof(found)}")
    typer.echo(f"\nNext: zoo predict {word(target)} IMAGE...")


@app.command()
def predict(
    export: Annotated[Path, typer.Argument(metavar="EXPORT", help="Folder of an export.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures or folders.", show_default=False)],
    csv: Annotated[Optional[Path], typer.Option(help="Write the table to this file instead.")] = None,  # noqa: UP045
) -> None:
    """Label and probability of each picture, from the SavedModel alone."""
    load_keras()
    from zoo.export.saved_model import load_export

    table = load_export(export).predict(images)
    if converted := table.attrs["converted"]:
        count = sum(converted.values())
        many = "picture was" if count == 1 else "pictures were"
        typer.echo(f"{count} {many} converted before the model saw them ({', '.join(sorted(converted))}).", err=True)
    if csv is None:
        shown = table.astype({"probability": object})
        shown["probability"] = [f"{value:.4f}" for value in table.probability]
        typer.echo(aligned([tuple(shown.columns), *shown.itertuples(index=False, name=None)]))
        return
    from zoo.files import write_text

    write_text(csv, table.to_csv(index=False))
    typer.echo(f"{csv}: {len(table)} pictures")


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all of it.")] = False,
) -> None:
    """Show what frozen networks gave for pictures, kept so that it need not be computed again."""
    from zoo.transfer.store import Store
    from zoo.transfer.writer import size

    store = Store()
    if clear:
        typer.echo(f"{size(store.clear())} freed in {store.directory}")
        return
    entries = store.entries()
    if entries:
        rows = [
            (
                *(str(entry.about.get(name) or "-") for name in ("model", "split", "policy")),
                ", ".join(entry.about.get("behind", ())) or "-",
                "x".join(map(str, entry.about.get("size", ()))) or "-",
                entry.rows,
                len(entry.views),
                size(entry.bytes),
                entry.used.strftime("%Y-%m-%d %H:%M"),
            )
            for entry in entries
        ]
        titles = ("model", "split", "policy", "up to", "picture", "pictures", "views", "size", "used")
        typer.echo(aligned([titles, *rows]) + "\n")
    total = sum(entry.bytes for entry in entries)
    typer.echo(f"{size(total)} of {size(store.limit)} in {store.directory}")


def main() -> None:
    """Runs the command; what the user can mend ends in one line and exit code 2, never in a traceback."""
    try:
        app()
    except (ValueError, OSError, ImportError) as error:  # the last: a package that is missing
        stop(" ".join(str(error).split()), 2)
    except KeyboardInterrupt:
        stop("stopped.", 130)
    except Exception as error:
        with tempfile.NamedTemporaryFile("w", prefix="zoo-", suffix=".log", delete=False) as log:
            traceback.print_exc(file=log)
        stop(f"This is a fault of the program: {type(error).__name__}. What is known of it is in {log.name}.", 1)
