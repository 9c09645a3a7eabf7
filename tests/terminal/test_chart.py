from __future__ import annotations

import math

import pytest

from aimlite.terminal.chart import Canvas, Curve, chart


def test_dots_are_the_bits_of_braille() -> None:
    canvas = Canvas(2, 1)
    canvas.dot(0, 0, 0)
    assert canvas.text(0, colour=False) == "⠁ "
    canvas.dot(3, 3, 0)
    assert canvas.text(0, colour=False) == "⠁⢀"


def test_known_points() -> None:
    drawn = chart([Curve("one", [0, 1], [0, 1]), Curve("two", [0, 1], [1, 1])], title="loss", x_label="x", width=20, height=2)
    assert drawn.split("\n") == [
        "         loss",
        "      1 ┤⠉⠉⠉⢉⡩⠝⠋ ab",
        "      0 ┤⡠⠔⠊⠁",
        "        └───────",
        "         0  x  1",
        "a one     b two",
    ]


def test_a_gap_where_the_value_is_not_finite() -> None:
    drawn = chart([Curve("", range(5), [1, 1, math.nan, 1, 1])], title="", x_label="", width=32, height=1)
    row = drawn.split("\n")[1]
    assert "  " in row.strip(" a1┤")


def test_a_logarithmic_axis_puts_the_geometric_mean_in_the_middle_and_leaves_out_zero() -> None:
    drawn = chart([Curve("", [0, 1, 2, 3], [100, 10, 1, 0])], title="", x_label="", width=32, height=5, log=True)
    ticks = [line.split("┤")[0].strip() for line in drawn.split("\n") if "┤" in line]
    assert ticks == ["100", "1"]
    assert (
        chart([Curve("", [0, 1, 2, 3], [100, 10, 1, 0])], title="", x_label="", height=9, log=True).split("\n")[5].startswith("     10 ┤")
    )


def test_one_point_is_a_dot() -> None:
    drawn = chart([Curve("", [3], [7])], title="", x_label="", height=1)
    assert sum("⠀" < character <= "⣿" for character in drawn) == 1


def test_colour_is_asked_for() -> None:
    curve = Curve("", [0, 1], [0, 1])
    assert "\x1b[" not in chart([curve], title="", x_label="")
    assert "\x1b[31m" in chart([curve], title="", x_label="", colour=True)


def test_no_line_is_wider_than_asked() -> None:
    curves = [Curve(f"a rather long label of the curve number {i}", range(50), [i / (k + 1) for k in range(50)]) for i in range(8)]
    assert max(map(len, chart(curves, title="", x_label="epoch", width=80).split("\n"))) <= 80


def test_nothing_to_show() -> None:
    with pytest.raises(ValueError, match="no point"):
        chart([Curve("", [0.0], [math.nan])], title="", x_label="")


def test_the_whole_range_of_floats() -> None:
    rows = chart([Curve("", [0, 1], [-1.7e308, 1.7e308])], title="", x_label="", width=40, height=5).split("\n")
    assert max(map(len, rows)) <= 40
    assert (rows[1].lstrip()[:10], rows[5].lstrip()[:10]) == ("1.7e+308 ┤", "-1.7e+308 ")


def test_one_value_has_one_tick() -> None:
    drawn = chart([Curve("", [0, 1], [5, 5])], title="", x_label="", width=40, height=5)
    assert [line.split("┤")[0].strip() for line in drawn.split("\n") if "┤" in line] == ["5"]


def test_characters_of_two_columns_are_counted_as_two() -> None:
    legend = chart([Curve("損失関数の値", [0], [1]), Curve("two", [0], [2])], title="", x_label="", width=20).split("\n")[-1]
    assert legend == "a 損失関  b two"
