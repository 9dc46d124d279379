"""The doctor: any source to a checked manifest. Nothing in the source is changed."""

from zoo.data.inspecting import MOST_BYTES, MOST_PIXELS
from zoo.data.manifest import Manifest
from zoo.data.sources import open_source


def scan(
    source,
    *,
    depth: int = 1,
    labels: bool = True,
    follow_links: bool = False,
    most_pixels: int = MOST_PIXELS,
    most_bytes: int = MOST_BYTES,
) -> Manifest:
    """Looks at every picture of a source and says which can be used.

    What a file holds decides, not its name. Hidden files and folders, `__MACOSX`, `Thumbs.db` and `desktop.ini` are
    passed over; links are followed once, and only to what lies in the source. Names that are no UTF-8 are written with
    \\xNN for each byte that cannot be read. Class names are stripped of spaces around them and composed (NFC), so that
    folders whose names look alike are one class.

    Args:
        source: What holds the pictures:
            a folder with one folder a class, or `train/`, `val/` (or `valid/`, `validation/`, `dev/`) and perhaps
            `test/`, each with one folder a class;
            a list of such folders, joined by the names of their classes;
            a CSV file or DataFrame with columns path (relative to the CSV file, or to the working folder) and label,
            perhaps split, and any others, which are kept;
            a pair (images, labels) of arrays, pixels 0..255; "tfds:NAME" or "tfds:NAME:CONFIG"; "digits";
            or a manifest that was made before, which is returned.
        depth: How deep the class folders lie: 3 means `a/b/class/picture.jpg`. What lies above them has no class.
        labels: False takes pictures of which nobody knows what they show, all for testing: every file below a folder,
            a table with paths alone, or an array alone.
        follow_links: Also follow links that lead out of the folder.
        most_pixels: Pictures of more are "too large"; they are never decoded.
        most_bytes: Files of more are "too large"; they are never read.

    Returns:
        A manifest; print it for a summary.

    Raises:
        FileNotFoundError: If the source does not exist.
        TypeError: If it is none of the above.
        ValueError: If it holds no pictures as described, or an argument is out of range.

    Example:
        print(zoo.scan("photos"))
    """
    return open_source(
        source, depth=depth, labels=labels, follow_links=follow_links, most_pixels=most_pixels, most_bytes=most_bytes
    )
