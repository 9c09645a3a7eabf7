"""SVG made inert: drawing alone is kept."""

from __future__ import annotations

import re
from typing import Any

from aimlite.storage.loading import load

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_DRAWING = frozenset(
    {"svg", "g", "defs", "symbol", "use", "style", "title", "desc", "metadata"}
    | {"path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text", "tspan", "textPath", "image"}
    | {"clipPath", "mask", "pattern", "linearGradient", "radialGradient", "stop", "marker", "filter"}
    | {"feGaussianBlur", "feOffset", "feMerge", "feMergeNode", "feColorMatrix", "feFlood", "feComposite", "feBlend"}
)
_INLINE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*", re.ASCII)
_OUTSIDE = re.compile(r"url\(\s*['\"]?(?!#)|@import|expression\(|javascript:|\\", re.IGNORECASE)


def inert(svg: bytes) -> bytes:
    """The SVG without scripts, event handlers, links, animations, foreign elements, and without references to anything but its own parts
    and pictures inside of it. Raises ValueError for what is no SVG."""
    load("xml.etree.ElementTree")
    from xml.etree import ElementTree

    if b"<!ENTITY" in svg:
        raise ValueError("an SVG that declares entities is not taken")
    try:
        root = ElementTree.fromstring(svg)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"no SVG: {error}") from None
    if root.tag != f"{{{_SVG}}}svg":
        raise ValueError(f"no SVG: its root is {root.tag!r:.100}")
    _clean(root)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    cleaned: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return cleaned


def _clean(root: Any) -> None:
    pending = [root]
    while pending:
        element = pending.pop()
        for name, value in list(element.attrib.items()):
            if not _is_harmless(name, value):
                del element.attrib[name]
        for child in list(element):
            if child.tag == f"{{{_SVG}}}a":  # a link: what it shows stays
                child.tag = f"{{{_SVG}}}g"
            if _is_drawing(child):
                pending.append(child)
            else:
                element.remove(child)
        if element.tag == f"{{{_SVG}}}metadata":
            for child in list(element):
                element.remove(child)


def _is_drawing(element: Any) -> bool:
    """Comments and processing instructions have functions for tags."""
    tag = element.tag
    if not isinstance(tag, str) or not tag.startswith(f"{{{_SVG}}}") or tag.partition("}")[2] not in _DRAWING:
        return False
    return not (tag.endswith("}style") and _OUTSIDE.search("".join(element.itertext())))


def _is_harmless(name: str, value: str) -> bool:
    plain = name.partition("}")[2] or name
    if plain.lower().startswith("on") or plain.lower() == "base":
        return False
    if plain == "href":
        return value.startswith("#") or _INLINE.fullmatch(value) is not None
    return not _OUTSIDE.search(value)
