"""A line chart for the terminal: each character cell is a braille pattern, two dots wide and four dots high."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from unicodedata import east_asian_width

BRAILLE = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # Unicode's bit for the dot in (row, column) of a cell
COLOURS = (31, 32, 33, 34, 35, 36, 91, 94)  # SGR codes, used in turn
GUTTER = 8
Dot = tuple[int, int]


@dataclass(frozen=True)
class Curve:
    """x and y have one length; points that are not finite leave a gap."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Axis:
    """Maps values from low to high onto 0 … 1, evenly or by their logarithms."""

    low: float
    high: float
    log: bool = False

    def fraction(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return 0.5 if high == low else (at / 2 - low / 2) / (high / 2 - low / 2)  # halves: the difference may not fit

    def value(self, fraction: float) -> float:
        if self.log:
            return math.exp(math.log(self.low) + math.log(self.high / self.low) * fraction)
        return self.low * (1 - fraction) + self.high * fraction

    def shows(self, value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not self.log)


class Canvas:
    """Cells of braille dots; a cell has the colour of the curve that drew in it last. Dot (0, 0) is at the top left."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.rows = rows
        self._bits = [[0] * columns for _ in range(rows)]
        self._curve = [[0] * columns for _ in range(rows)]

    def dot(self, x: int, y: int, curve: int) -> None:
        row, column = y // 4, x // 2
        self._bits[row][column] |= DOTS[y % 4][x % 2]
        self._curve[row][column] = curve

    def line(self, start: Dot, end: Dot, curve: int) -> None:
        (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
        count = max(abs(dx), abs(dy), 1)
        for i in range(count + 1):
            self.dot(x + round(dx * i / count), y + round(dy * i / count), curve)

    def text(self, row: int, colour: bool) -> str:
        cells = zip(self._bits[row], self._curve[row], strict=True)
        return "".join(_paint(chr(BRAILLE + bits), curve, colour) if bits else " " for bits, curve in cells)


def chart(
    curves: Sequence[Curve], *, title: str, x_label: str, width: int = 80, height: int = 16, log: bool = False, colour: bool = False
) -> str:
    """The curves on common axes, `height` rows high without title and labels, with a letter where each curve ends and a legend below.

    log: the y axis is logarithmic; points at or below 0 are left out. Raises ValueError when no point can be shown.
    """
    x_axis, y_axis = _axes(curves, log)
    letters = _letters(curves, y_axis, height)
    ticks = _ticks(y_axis, height)
    gutter = max(GUTTER, max(map(len, ticks.values())) - 1)
    canvas = Canvas(width - gutter - 3 - max(len(at_row) for at_row in letters), height)
    for number, curve in enumerate(curves):
        _draw(canvas, curve, number, x_axis, y_axis)
    lines = [" " * (gutter + 1) + title]
    for row in range(height):
        tick = ticks.get(row, "│")
        marks = "".join(_paint(chr(ord("a") + number), number, colour) for number in letters[row])
        lines.append(f"{tick:>{gutter + 1}}{canvas.text(row, colour)} {marks}".rstrip())
    lines += _x_lines(x_axis, x_label, gutter, canvas.columns)
    return "\n".join([*lines, *_legend(curves, width, colour)])


def _axes(curves: Sequence[Curve], log: bool) -> tuple[Axis, Axis]:
    unbounded = Axis(0, 0, log)
    shown = [(x, y) for curve in curves for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(x) and unbounded.shows(y)]
    if not shown:
        raise ValueError("no point of these curves can be shown")
    xs, ys = zip(*shown, strict=True)
    return Axis(min(xs), max(xs)), Axis(min(ys), max(ys), log)


def _ticks(axis: Axis, height: int) -> dict[int, str]:
    """row → its value; where all values are one, in the middle alone."""
    if axis.low == axis.high:
        return {(height - 1) // 2: f"{axis.low:.3g} ┤"}
    rows = {*range(0, height, 4), height - 1}
    return {row: f"{axis.value(1 - row / max(height - 1, 1)):.3g} ┤" for row in rows}


def _draw(canvas: Canvas, curve: Curve, number: int, x_axis: Axis, y_axis: Axis) -> None:
    right, bottom = canvas.columns * 2 - 1, canvas.rows * 4 - 1
    dots: list[Dot | None] = [
        (round(x_axis.fraction(x) * right), round((1 - y_axis.fraction(y)) * bottom)) if math.isfinite(x) and y_axis.shows(y) else None
        for x, y in zip(curve.x, curve.y, strict=True)
    ]
    for start, end in pairwise([*dots[:1], *dots]):  # the first dot twice: a curve of one point is a dot
        if end:
            canvas.line(start or end, end, number)


def _letters(curves: Sequence[Curve], y_axis: Axis, height: int) -> list[list[int]]:
    """For each row, the curves whose last point lies there."""
    rows: list[list[int]] = [[] for _ in range(height)]
    for number, curve in enumerate(curves):
        shown = [y for y in curve.y if y_axis.shows(y)]
        if shown:
            rows[round((1 - y_axis.fraction(shown[-1])) * (height * 4 - 1)) // 4].append(number)
    return rows


def _x_lines(axis: Axis, label: str, gutter: int, columns: int) -> Iterator[str]:
    low, high = f"{axis.low:g}", f"{axis.high:g}"
    yield " " * gutter + "└" + "─" * columns
    yield " " * (gutter + 1) + low + label.center(columns - len(low) - len(high)) + high


def _legend(curves: Sequence[Curve], width: int, colour: bool) -> Iterator[str]:
    column = width // 2
    entries = [(number, _fit(f"{chr(ord('a') + number)} {curve.label}", column)) for number, curve in enumerate(curves)]
    half = (len(entries) + 1) // 2
    for pair in zip_longest(entries[:half], entries[half:]):
        yield "".join(_paint(text, number, colour) for number, text in filter(None, pair)).rstrip()


def _fit(text: str, columns: int) -> str:
    """The text cut and padded so that it takes so many columns, the last of them blank; characters of East Asia take two."""
    taken = 0
    for at, character in enumerate(text):
        wide = 2 if east_asian_width(character) in "WF" else 1
        if taken + wide >= columns:
            text = text[:at]
            break
        taken += wide
    return text + " " * (columns - taken)


def _paint(text: str, curve: int, colour: bool) -> str:
    return f"\x1b[{COLOURS[curve % len(COLOURS)]}m{text}\x1b[0m" if colour else text
