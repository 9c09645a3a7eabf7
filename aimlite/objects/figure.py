"""A chart: of Plotly as its JSON, of matplotlib as PNG and SVG, and as Plotly's JSON too where Plotly can convert it."""

from __future__ import annotations

import io
import json
import sys
import warnings
from typing import Any, ClassVar

from aimlite.errors import CorruptionError
from aimlite.objects.given import is_matplotlib
from aimlite.objects.svg import inert
from aimlite.objects.tracked import TrackedObject
from aimlite.storage.loading import load


class Figure(TrackedObject):
    """One chart.

    obj: a Plotly figure, or a dict as Plotly's `to_plotly_json()` gives it, kept as Plotly's JSON; a matplotlib figure, kept as PNG and
    SVG, and as Plotly's JSON too where that library is installed and can convert it. Nothing in it runs: the SVG has no scripts.
    Raises TypeError, ValueError.
    """

    kind = "figures"
    _fields: ClassVar[dict[str, type]] = {"format": str, "parts": list}

    def __init__(self, obj: Any) -> None:
        if is_matplotlib(obj):
            self._take_matplotlib(obj)
        elif isinstance(obj, dict) or callable(getattr(obj, "to_plotly_json", None)) or callable(getattr(obj, "to_json", None)):
            self._set_parts("plotly", {"plotly": _plotly_json(obj)})
        else:
            raise TypeError(f"a figure is one of Plotly or of matplotlib, not {type(obj).__module__}.{type(obj).__qualname__}")

    def _take_matplotlib(self, figure: Any) -> None:
        parts: dict[str, bytes] = {}
        for form in ("png", "svg"):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=form)
            parts[form] = buffer.getvalue()
        parts["svg"] = inert(parts["svg"])
        reason = ""
        try:
            parts["plotly"] = _converted(figure)
        except ValueError as error:
            reason = str(error)
        self._set_parts("matplotlib", parts, reason)

    def _set_parts(self, form: str, parts: dict[str, bytes], reason: str = "") -> None:
        header: dict[str, Any] = {"format": form, "parts": [[name, len(part)] for name, part in parts.items()]}
        if reason:
            header["unconverted"] = reason
        self._set(header, b"".join(parts.values()))

    @property
    def format(self) -> str:
        """'plotly' or 'matplotlib': what it was given as."""
        form: str = self._header["format"]
        return form

    @property
    def data(self) -> str | bytes:
        """Plotly's JSON, a str; of a matplotlib figure that is not converted its PNG, bytes."""
        part = self._part("plotly")
        return self.png if part is None else part.decode()

    @property
    def png(self) -> bytes:
        """Of a matplotlib figure. Raises ValueError for one of Plotly."""
        return self._picture("png")

    @property
    def svg(self) -> bytes:
        """Of a matplotlib figure: without scripts, and without references to anything outside. Raises ValueError for one of Plotly."""
        return inert(self._picture("svg"))

    def to_plotly_figure(self) -> Any:
        """A plotly.graph_objects.Figure. Raises ValueError for a matplotlib figure that Plotly could not convert when it was tracked,
        ImportError without Plotly."""
        part = self._part("plotly")
        if part is None:
            raise ValueError(f"this matplotlib figure is kept as png and svg only: {self._header.get('unconverted', 'not converted')}")
        try:
            load("plotly.graph_objects")
            from plotly import graph_objects
        except ImportError as error:
            raise ImportError("to_plotly_figure() needs plotly: pip install plotly") from error
        return graph_objects.Figure(_loaded(part))

    def json(self) -> dict[str, Any]:
        """{'format', 'data'}; data: the dict of Plotly's JSON, None for a matplotlib figure that is not converted."""
        part = self._part("plotly")
        return {"format": self.format, "data": None if part is None else _loaded(part)}

    def __repr__(self) -> str:
        names = [str(part[0]) for part in self._parts()]
        return f"<Figure of {self.format}, as {', '.join(names)}>"

    def _picture(self, name: str) -> bytes:
        part = self._part(name)
        if part is None:
            raise ValueError(f"a figure of {self.format} has no {name}; to_plotly_figure() gives what Plotly can draw")
        return part

    def _parts(self) -> list[tuple[str, int]]:
        found = []
        for part in self._header["parts"]:
            if not (
                isinstance(part, list | tuple) and len(part) == 2 and isinstance(part[0], str) and isinstance(part[1], int) and part[1] >= 0
            ):
                raise CorruptionError(f"a figure has the part {part!r:.100}")
            found.append((part[0], part[1]))
        return found

    def _part(self, wanted: str) -> bytes | None:
        parts = self._parts()
        if wanted not in [name for name, _ in parts]:
            return None
        payload, at = self._bytes(), 0
        if len(payload) != sum(length for _, length in parts):
            raise CorruptionError(f"a figure has {len(payload)} bytes, its parts {sum(length for _, length in parts)}")
        for name, length in parts:
            if name == wanted:
                return payload[at : at + length]
            at += length
        return None


def _plotly_json(figure: Any) -> bytes:
    """Plotly's JSON as bytes. Raises TypeError for what is no figure."""
    if isinstance(figure, dict):
        figure_json = _dumped(figure)
    elif callable(getattr(figure, "to_json", None)):
        figure_json = figure.to_json()
    else:
        figure_json = _dumped(figure.to_plotly_json())
    text = figure_json.encode() if isinstance(figure_json, str) else bytes(figure_json)
    try:
        _loaded(text)
    except CorruptionError as error:
        raise TypeError(
            f"a figure of Plotly is JSON with `data`; {type(figure).__module__}.{type(figure).__qualname__} gives: {error.message}"
        ) from None
    return text


def _dumped(figure: Any) -> str:
    plotly = sys.modules.get("plotly.utils")
    try:
        return json.dumps(figure, cls=None if plotly is None else plotly.PlotlyJSONEncoder)
    except (TypeError, ValueError) as error:
        raise TypeError(f"a figure as a dict holds what JSON can say: {error}") from None


def _loaded(text: bytes) -> dict[str, Any]:
    try:
        figure = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptionError(f"no JSON: {error}") from None
    if not isinstance(figure, dict) or not isinstance(figure.get("data"), list):
        raise CorruptionError("JSON without a list `data`")
    return {name: figure[name] for name in ("data", "layout", "frames") if name in figure}


def _converted(figure: Any) -> bytes:
    """A matplotlib figure as Plotly's JSON. Raises ValueError where Plotly is not installed, or cannot."""
    try:
        load("plotly.tools")
        from plotly import tools
    except ImportError:
        raise ValueError("Plotly was not installed where it was tracked") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _plotly_json(tools.mpl_to_plotly(figure))
    except Exception as error:  # whatever it trips over in another version of matplotlib
        raise ValueError(f"Plotly cannot convert it: {type(error).__name__}: {error}") from error
