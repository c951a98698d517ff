"""A drawing of matplotlib's, made fit for a page: the page's colours, no style, no name twice.

A strict content-security policy ignores `style` attributes, so each declaration becomes an
attribute of its own, and a colour the page's variable of that name, which follows its scheme.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

# What plots are drawn with; no two are alike, so each can be told in the drawing.
COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "grid": "#030303",
    "paper": "#040404",
    "target": "#050505",
    "exact": "#060606",
    "method": "#070707",
    "control": "#080808",
    "better": "#090909",
    "worse": "#0a0a0a",
}
_VARIABLES = {code: f"var(--{name})" for name, code in COLOURS.items()}
_DRAWN = ("fill", "stroke")
# The letters' family is the page's.
_KEPT = (
    *(
        "font-size",
        "font-weight",
        "fill",
        "fill-opacity",
        "opacity",
        "stroke",
        "stroke-dasharray",
        "stroke-dashoffset",
    ),
    *("stroke-linecap", "stroke-linejoin", "stroke-opacity", "stroke-width", "text-anchor"),
)


def fit_for_page(drawing: str, name: str, title: str) -> str:
    """The drawing as one `svg` element to stand in HTML. name: of the drawing on its page; title:
    what it shows, for those who do not see it.
    """
    root = ElementTree.fromstring(drawing)  # noqa: S314 - matplotlib wrote it
    _drop(root, ("metadata", "style", "title"))
    used = set(re.findall(r"#([\w-]+)", drawing))
    for element in root.iter():
        element.tag = _local(element.tag)
        _restyle(element)
        _rename(element, name, used)
    width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
    root.attrib |= {"width": f"{width:g}", "height": f"{height:g}", "role": "img"}
    root.attrib.pop("version", None)
    label = ElementTree.Element("title")
    label.text = title
    root.insert(0, label)
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _drop(root: ElementTree.Element, names: tuple[str, ...]) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in names:
                parent.remove(child)


def _restyle(element: ElementTree.Element) -> None:
    """Its style as attributes, colours as variables, numbers no longer than a screen shows."""
    style = element.attrib.pop("style", "")
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name in _KEPT:
            element.set(name, value)
    for name in _DRAWN:
        colour = element.attrib.get(name, "")
        element.attrib |= {name: _VARIABLES[colour]} if colour in _VARIABLES else {}
    if "d" in element.attrib:
        element.set("d", _shorter(element.attrib["d"]))


def _shorter(path: str) -> str:
    return re.sub(
        r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", " ".join(path.split())
    )


def _rename(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Ids that nothing refers to go, the others get the drawing's name before them."""
    for attribute, value in list(element.attrib.items()):
        plain = _local(attribute)
        if plain != attribute:
            element.attrib[plain] = element.attrib.pop(attribute)
        if plain == "id":
            if value in used:
                element.attrib["id"] = f"{name}-{value}"
            else:
                del element.attrib["id"]
        elif plain == "href":
            element.attrib["href"] = f"#{name}-{value.removeprefix('#')}"
        elif "url(#" in value:
            element.attrib[plain] = value.replace("url(#", f"url(#{name}-")
