"""A figure as part of a page: SVG that has the page's fonts and colours."""

import hashlib
import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

PIXELS = 110  # an inch, of pictures inside the drawing
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_BLACK = re.compile(r"#000000\b|\bblack\b")
_FONT = re.compile(r"font:\s*(?:\S+\s+)*?(\d[\d.]*)px\s+[^;]*")
_FAMILY = re.compile(r"font-family:[^;]*;?\s*")
_ROUND_JOINS = {"stroke-linejoin": "round", "stroke-linecap": "butt"}


def svg(figure: Figure, alt: str) -> str:
    """A figure as an `<svg>` element to be put into a page.

    Text stays text, in the font of the page around it; black becomes the page's own colour of text, so that one drawing
    serves light and dark; the ground is clear. It is as wide as its place and no wider than the figure. Nothing in it
    refers to anything outside. The same figure gives the same text, and ids of different figures differ.

    Args:
        figure: Any figure of matplotlib.
        alt: What is to be seen, for those who do not see it; it becomes the title.

    Returns:
        The element, well-formed XML.

    Example:
        page.write(plots.svg(plots.confusion(evaluation), "Confusion matrix of the dev set"))
    """
    root = ElementTree.fromstring(_drawn(figure))
    for parent in list(root.iter()):
        parent.tag = parent.tag.split("}")[-1]
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):  # the style would hold for the whole page
                parent.remove(child)
    for element in root.iter():
        _clean(element)
    _rename(root, alt)
    _thin(root)
    title = ElementTree.Element("title")
    title.text = "".join(letter if letter.isprintable() else " " for letter in alt)
    root.insert(0, title)
    width = float(root.attrib["viewBox"].split()[2])
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "fill": "currentColor",  # matplotlib leaves out what is black
        "style": f"display: block; width: 100%; height: auto; max-width: {width:g}pt",
        **_ROUND_JOINS,
    }
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))


def _drawn(figure):
    """What matplotlib writes, as bytes."""
    buffer = io.BytesIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "", "svg.image_inline": True}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        for axes in figure.axes:  # the layout goes on from where it was, so it begins anew here
            if (place := axes.get_subplotspec()) is not None:
                axes.set_subplotspec(place)
        figure.savefig(buffer, format="svg", transparent=True, dpi=PIXELS, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _clean(element):
    """Plain names, the page's colour and font, numbers to a hundredth of a point."""
    attributes = {name.split("}")[-1]: value for name, value in element.attrib.items() if not name.endswith("}space")}
    style = _FAMILY.sub("", _FONT.sub(r"font-size: \1px", attributes.get("style", "")))
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    attributes["style"] = _BLACK.sub("currentColor", style).strip("; ")
    for name, value in attributes.items():
        if name not in ("id", "href", "clip-path"):
            value = _NUMBER.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value)
        attributes[name] = " ".join(value.split()) if name != "href" else "".join(value.split())
    element.attrib = {name: value for name, value in attributes.items() if value}


def _thin(element):
    """Leaves out clear grounds and groups that hold nothing; what a group without attributes holds takes its place."""
    for child in list(element):
        _thin(child)
        style = child.attrib.get("style", "")
        clear = child.tag == "path" and "fill: none" in style and "stroke:" not in style
        if clear or (child.tag in ("g", "defs") and not len(child)):
            element.remove(child)
        elif child.tag == "g" and not child.attrib:
            place = list(element).index(child)
            element[place : place + 1] = list(child)


def _rename(root, alt):
    """Short ids that no other figure has, for what is referred to; none for the rest."""
    body = ElementTree.tostring(root, encoding="unicode")
    mark = hashlib.sha256(f"{alt}\n{body}".encode()).hexdigest()[:10]
    used = dict.fromkeys(re.findall(r'(?:href="|url\()#([^")]+)', body))
    names = {old: f"p{mark}-{number}" for number, old in enumerate(used)}
    for element in root.iter():
        if (old := element.attrib.pop("id", None)) in names:
            element.set("id", names[old])
        for name in ("href", "clip-path"):
            value = element.attrib.get(name, "")
            if found := re.fullmatch(r"(?:#|url\(#)([^)]+)\)?", value):
                element.set(name, value.replace(found[1], names[found[1]]))
