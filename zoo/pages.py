"""Pages that need no network: one frame with its look and its sorting script, pictures as part of the text."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import jinja2
from PIL import Image


def render(template: Path, **content) -> str:
    """The text of a page: a template that extends "page.html", with everything in `content` escaped.

    Functions in `content` serve as filters.

    Args:
        template: The file.
        **content: What it names; a name that is missing is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {name: value for name, value in content.items() if isinstance(value, Callable)}
    environment.filters |= {"number": "{:,}".format, **filters}
    return environment.get_template(template.name).render(content)


def data_uri(image: Image.Image) -> str:
    """A picture as JPEG of quality 70, for the `src` of an image."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
