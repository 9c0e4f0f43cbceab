"""Figures of matplotlib as SVG: an element of the HTML page that uses the page's colours, or a separate file."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_STYLE = Path(__file__).with_name("page.css")

# Colours to draw with. In the page, each is replaced by a colour of the style sheet, so that a plot follows the light
# and the dark theme.
INK, SOFT = "#010101", "#020202"
SERIES = tuple(f"#0300{number:02x}" for number in range(8))
NAMES = {INK: "ink", SOFT: "soft"} | {colour: f"series-{number}" for number, colour in enumerate(SERIES)}
COLOURS = {colour: f"var(--{name})" for colour, name in NAMES.items()} | {INK: "currentColor"}

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


def draw(
    paint: "Callable[[Figure], None]", *, name: str, size: tuple[float, float], title: str, description: str
) -> str:
    """Return a figure as an SVG element for the HTML page.

    Inline styles become attributes, because the page's Content-Security-Policy forbids them. Metadata are removed.

    Args:
        paint: the function that draws on the figure.
        name: prefix of all ids in the element, so that they are unique on the page.
        size: width and height in inches.
        title: the plot's title for screen readers.
        description: what the plot shows, for screen readers.
    """
    text = _drawn(paint, size, salt=name, transparent=True)
    svg = ElementTree.fromstring(text)  # noqa: S314  # written by matplotlib just now
    for parent in list(svg.iter()):
        for child in list(parent):
            if NAMESPACES.sub("", child.tag) in ("metadata", "style"):
                parent.remove(child)
    values = [value for element in svg.iter() for value in element.attrib.values()]
    wanted = {found for value in values for found in REFERENCE.findall(value)}
    for element in svg.iter():
        _clean(element, name, wanted)
    for tag, content in (("desc", description), ("title", title)):
        added = ElementTree.Element(tag, id=f"{name}-{tag}")
        added.text = content
        svg.insert(0, added)
    measures = {key: svg.attrib.pop(key).removesuffix("pt") for key in ("width", "height")}
    svg.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-desc", **measures}
    return ElementTree.tostring(svg, encoding="unicode")


def draw_file(paint: "Callable[[Figure], None]", *, size: tuple[float, float]) -> str:
    """Return a figure as the text of an SVG file, in the page's light colours; `size` is in inches."""
    text = _drawn(paint, size, salt="file", transparent=False)
    colours: dict[str, str] = {}
    for name, colour in re.findall(r"--([\w-]+): (#\w+)", PAGE_STYLE.read_text(encoding="utf-8")):
        colours.setdefault(name, colour)  # the light colours come first
    for drawn, name in NAMES.items():
        text = text.replace(drawn, colours[name])
    return text


def _drawn(paint: "Callable[[Figure], None]", size: tuple[float, float], *, salt: str, transparent: bool) -> str:
    """Return matplotlib's SVG of a figure. Its ids depend on `salt` only, so the same figure gives the same text."""
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        figure.savefig(buffer, format="svg", transparent=transparent, metadata=nothing)
    return buffer.getvalue()


def _clean(element: ElementTree.Element, name: str, wanted: set[str]) -> None:
    """Change one element of an SVG in place for the page.

    Namespaces are removed, inline styles become attributes, colours become those of the page, and ids get the prefix
    `name`. An id is kept only if it is in `wanted`, because another element refers to it.
    """
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
