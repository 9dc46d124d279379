"""Class names: how they are written, their order, and which cannot be used."""

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

import numpy as np
import pandas as pd

NUMBER = re.compile(r"-?\d+(\.\d+)?")


def class_name(label) -> str:
    """A label as the name of a class: text without spaces around it, whole numbers without a decimal point.

    Two names that look the same are one class: accents are composed (NFC), which file systems and archives do not
    agree on.

    Args:
        label: Text, bytes, or a number.

    Returns:
        The name; "" where the label is missing.
    """
    if isinstance(label, bytes):
        label = label.decode("utf-8", "backslashreplace")
    if isinstance(label, str):
        return unicodedata.normalize("NFC", label.strip())
    if pd.api.types.is_scalar(label) and pd.isna(label):
        return ""
    whole = (
        isinstance(label, (int, float, np.integer, np.floating))
        and not isinstance(label, bool)
        and float(label).is_integer()
    )
    return str(int(label) if whole else label)


def refused_name(name: str) -> bool:
    """Whether a class name cannot stand on a line of its own, as labels must in exports."""
    return not name.strip() or any(unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs") for letter in name)


def natural(names: Iterable[str]) -> list[str]:
    """Names in order: by value where all are numbers (of one value, whole ones first), by letters otherwise."""
    names = sorted(names)
    if all(NUMBER.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (Decimal(name), "." in name))
    return names
