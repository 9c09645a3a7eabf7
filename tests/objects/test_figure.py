"""Figures: Plotly's JSON comes back, matplotlib's pictures do, and nothing in them runs."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure as MatplotlibFigure
from plotly import graph_objects

from aimlite import CorruptionError, Figure, Image
from aimlite.objects.svg import inert
from objects.again import finished, unfinished


def chart() -> Any:
    return graph_objects.Figure(graph_objects.Scatter(y=np.array([1.5, 2.5]), name="<script>alert(1)</script>"), {"title": "ünï"})


def drawing() -> MatplotlibFigure:
    figure = MatplotlibFigure((3, 2), dpi=50)
    axes = figure.subplots()
    [line] = axes.plot([1, 2, 3])
    line.set_url("javascript:alert(1)")
    axes.set_title("<script>alert(1)</script>")
    return figure


def test_plotly_figures_come_back() -> None:
    figure = Figure(chart())
    for read in (figure, unfinished(figure), finished(figure)):
        assert read.to_plotly_figure() == chart()
        assert read.json()["data"]["layout"]["title"]["text"] == "ünï"
        assert isinstance(read.data, str)
        assert json.loads(read.data)["data"]
        assert read == figure
    assert repr(figure) == "<Figure of plotly, as plotly>"
    assert figure != Figure({"data": []})
    for pictures in ("png", "svg"):
        with pytest.raises(ValueError, match="has no"):
            getattr(figure, pictures)


def test_dicts_and_other_classes_with_plotly_json() -> None:
    class Chart:
        def to_plotly_json(self) -> dict[str, Any]:
            return {"data": [{"type": "bar", "y": [1, 2]}], "layout": {}}

    for given in (Chart(), Chart().to_plotly_json()):
        assert unfinished(Figure(given)).to_plotly_figure().data[0].type == "bar"


@pytest.mark.parametrize("given", [5, None, "figure", {"data": 5}, {"layout": {}}, {"data": [{1, 2}]}, {"data": [object()]}])
def test_what_is_no_figure(given: Any) -> None:
    with pytest.raises(TypeError, match="figure"):
        Figure(given)


def test_matplotlib_figures_are_png_and_svg() -> None:
    figure = unfinished(Figure(drawing()))
    assert figure.format == "matplotlib"
    assert Image(figure.png).size == (150, 100)
    assert b"<svg" in figure.svg
    assert b"javascript" not in figure.svg
    assert b"<script" not in figure.svg
    assert b"<path" in figure.svg


def test_matplotlib_figures_become_plotly_figures_where_they_can() -> None:
    figure = MatplotlibFigure()
    figure.subplots().plot([1, 2, 3])
    found = unfinished(Figure(figure))
    assert list(found.to_plotly_figure().data[0].y) == [1, 2, 3]
    assert found.json()["data"]["data"]


def test_where_they_cannot_it_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from plotly import tools

    def refuse(_: object) -> None:
        raise AttributeError("no such spine")

    monkeypatch.setattr(tools, "mpl_to_plotly", refuse)
    found = unfinished(Figure(drawing()))
    with pytest.raises(ValueError, match="png and svg only: Plotly cannot convert it: AttributeError: no such spine"):
        found.to_plotly_figure()
    assert found.json() == {"format": "matplotlib", "data": None}
    assert found.data == found.png
    assert repr(found) == "<Figure of matplotlib, as png, svg>"


def test_without_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = Figure(chart())
    for name in [name for name in sys.modules if name == "plotly" or name.startswith("plotly.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(ImportError, match="pip install plotly"):
        figure.to_plotly_figure()
    with pytest.raises(ValueError, match="not installed where it was tracked"):
        Figure(drawing()).to_plotly_figure()


@pytest.mark.parametrize(
    "part",
    [
        "<script>alert(1)</script>",
        "<g onload='alert(1)'/>",
        "<a xlink:href='javascript:alert(1)'><path d='M0 0'/></a>",
        "<foreignObject><body xmlns='http://www.w3.org/1999/xhtml'><script>alert(1)</script></body></foreignObject>",
        "<image href='http://example.org/alert(1).png'/>",
        "<image href='data:image/svg+xml;base64,alert(1)'/>",
        "<use href='http://example.org/x.svg#alert(1)'/>",
        "<set attributeName='onload' to='alert(1)'/>",
        "<animate attributeName='href' values='javascript:alert(1)'/>",
        "<style>@import url(http://example.org/alert(1));</style>",
        "<rect style='fill: url(http://example.org/alert(1))'/>",
        "<x:script xmlns:x='http://www.w3.org/1999/xhtml'>alert(1)</x:script>",
        "<?xml-stylesheet href='alert(1)'?>",
        "<!-- alert(1) -->",
        "<metadata><x xmlns='urn:x'>alert(1)</x></metadata>",
    ],
)
def test_what_runs_or_reaches_out_is_taken_out_of_an_svg(part: str) -> None:
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink'>{part}<circle r='5'/></svg>"
    cleaned = inert(svg.encode())
    assert b"alert" not in cleaned
    assert b"<circle" in cleaned
    assert inert(cleaned) == cleaned
    read = Figure._from_item(
        {"format": "matplotlib", "parts": [["svg", len(svg)]]}, lambda: ({}, svg.encode())
    )  # somebody wrote it into a repo
    assert b"alert" not in read.svg


def test_what_draws_stays() -> None:
    svg = b"""<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"><style>*{stroke-linejoin: round}</style>
    <defs><clipPath id="c"><rect width="5"/></clipPath></defs><a><path d="M0 0" clip-path="url(#c)"/></a>
    <use xlink:href="#c"/><image xlink:href="data:image/png;base64,AAAA"/></svg>"""
    cleaned = inert(svg)
    for part in (b"stroke-linejoin", b"url(#c)", b'xlink:href="#c"', b"data:image/png;base64,AAAA", b"<path"):
        assert part in cleaned


@pytest.mark.parametrize(
    "given",
    [b"", b"<svg", b"<html/>", b"<svg/>", b"\xff\xfe", b"<!DOCTYPE s [<!ENTITY a 'b'>]><svg xmlns='http://www.w3.org/2000/svg'>&a;</svg>"],
)
def test_what_is_no_svg(given: bytes) -> None:
    with pytest.raises(ValueError, match="SVG"):
        inert(given)


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        ({"format": "plotly", "parts": [["plotly", 5]]}, b"short"),
        ({"format": "plotly", "parts": [["plotly", 50]]}, b"short"),
        ({"format": "plotly", "parts": [["plotly", -1]]}, b"short"),
        ({"format": "plotly", "parts": [5]}, b"short"),
        ({"format": "plotly", "parts": [["plotly", 2]]}, b"[]"),
        ({"format": "plotly", "parts": [["plotly", 100_000]]}, b"[" * 100_000),
    ],
)
def test_items_that_do_not_fit_are_corrupt(header: dict[str, Any], payload: bytes) -> None:
    figure = Figure._from_item(header, lambda: (header, payload))
    with pytest.raises(CorruptionError):
        figure.to_plotly_figure()
