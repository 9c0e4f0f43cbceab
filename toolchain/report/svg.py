"""A figure of matplotlib as SVG that stands in a page: its colours are the page's, its ids its own, its text text."""

import io
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

INK, SOFT = "#010101", "#020202"
SERIES = tuple(f"#0300{number:02x}" for number in range(8))
COLOURS = {INK: "currentColor", SOFT: "var(--soft)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)
}
"""Colour to draw with -> what stands for it in the page, so that it follows light and dark."""

STYLE = {
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": SOFT,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "font.size": 10,
    "axes.axisbelow": True,
    "text.parse_math": False,
}

NAMESPACES = re.compile(r"\{[^}]*\}")
REFERENCE = re.compile(r"#(\w+)")
SIZE = re.compile(r"([\d.]+)px")


def draw(paint: Callable[[Any], None], *, name: str, size: tuple[float, float], title: str, description: str) -> str:
    """Return what `paint` draws on a figure of `size` inches as an SVG element whose ids begin with `name`.

    Inline styles become attributes, since the page's policy allows none, and what names other places is left out.
    """
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = ElementTree.fromstring(buffer.getvalue())  # noqa: S314  # matplotlib's own, of this moment
    for parent in list(svg.iter()):
        for child in list(parent):
            if NAMESPACES.sub("", child.tag) in ("metadata", "style"):
                parent.remove(child)
    values = [value for element in svg.iter() for value in element.attrib.values()]
    wanted = {found for value in values for found in REFERENCE.findall(value)}
    for element in svg.iter():
        _clean(element, name, wanted)
    for tag, text in (("desc", description), ("title", title)):
        added = ElementTree.Element(tag, id=f"{name}-{tag}")
        added.text = text
        svg.insert(0, added)
    measures = {key: svg.attrib.pop(key).removesuffix("pt") for key in ("width", "height")}
    svg.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-desc", **measures}
    return ElementTree.tostring(svg, encoding="unicode")


def _clean(element: ElementTree.Element, name: str, wanted: set[str]) -> None:
    """Give an element plain names, the page's colours, and an id only if one refers to it."""
    element.tag = NAMESPACES.sub("", element.tag)
    given = {NAMESPACES.sub("", key): value for key, value in element.attrib.items()}
    for declaration in given.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            given |= {"font-size": SIZE.findall(value)[0]}
        elif key and key != "font-family":
            given[key] = COLOURS.get(value, value)
    identity = given.pop("id", None)
    given = {
        key: REFERENCE.sub(rf"#{name}-\1", value) if "href" in key or "url(" in value else value
        for key, value in given.items()
        if key != "version"
    }
    element.attrib.clear()
    element.attrib.update(given | ({"id": f"{name}-{identity}"} if identity in wanted else {}))
