"""Around every command: what is refused at once, Keras loaded without its greetings, and an end in one line."""

import contextlib
import os
import sys
from pathlib import Path

import typer

from zoo.wording import word


def check(model: str, fields: dict, picture: Path | None) -> None:
    """Says what cannot be meant before anything is loaded."""
    from zoo.models.catalog import info
    from zoo.training.recipe import Recipe

    Recipe().with_fields(fields)
    if model != "auto":
        info(model)
    if picture is not None and fields["augment"] in ("auto", "none"):
        raise ValueError("A preview shows what an augmentation does; choose one, such as --augment medium.")
    if picture is not None and picture.suffix.lower() != ".png":
        raise ValueError(f"A preview is written as PNG; name it so. Received: {word(picture)}")


def preview_of(model: str, data, fields: dict, path: Path) -> str:
    """Writes training pictures as the first epochs get them; returns what to say of it."""
    from zoo.files import writing
    from zoo.training import augmenting, preparing
    from zoo.training.recipe import Recipe

    recipe = preparing.resolved(model, data, Recipe().with_fields(fields))
    figure = augmenting.preview(preparing.configured(data, recipe), recipe)
    with writing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    height, width = recipe.image_size  # pyright: ignore[reportGeneralTypeIssues]
    return f"{augmenting.described(recipe)}\n{word(path)}: training pictures of {height}x{width}, eight epochs of each"


def load_keras() -> None:
    """Imports Keras without TensorFlow's greetings, which it writes to the process' error output past Python."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    with open(os.devnull, "w") as nowhere:
        errors = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            import keras  # noqa: F401
        finally:
            os.dup2(errors, 2)
            os.close(errors)


@contextlib.contextmanager
def signals_end_the_program():
    """Typer would make its own end of what a signal led to, and drop the status."""
    try:
        yield
    except SystemExit as stopped:
        raise SystemExit(stopped.code) from None


def stop(message: str, code: int) -> None:
    typer.echo(f"zoo: {message}", err=True)
    sys.exit(code)
