"""Text as a terminal shows it."""

from __future__ import annotations

from itertools import pairwise

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlite.capture.screen import Filter, Pieces, Screen


def shown(*parts: str, mode: str = "smart", often: bool = False) -> list[str]:
    """The lines of what comes in these parts. often: taken after each of them, too."""
    filtered, screen, pieces = Filter(), Screen("stdout"), Pieces("stdout")
    lines: dict[int, str | None] = {}

    def take(now: float, final: bool) -> None:
        if mode == "all":
            lines.update({line.id: line.text for line in pieces.take(now, final)})
        else:
            lines.update({line.id: None if bar and mode == "none" else line.text for line, bar in screen.take(now, final)})

    for number, part in enumerate(parts):
        text = filtered(part)
        (pieces if mode == "all" else screen).feed(number + 1.0, text)
        if often:
            take(number + 1.7, False)
    take(len(parts) + 9.0, True)
    return [text for _, text in sorted(lines.items()) if text is not None]


BAR = "\r 50%|#####     | 1/2 [00:00<00:00, 10.00it/s]"
DONE = "\r100%|##########| 2/2 [00:00<00:00, 10.00it/s]"
CLEARED = "\r" + " " * 48 + "\r"


@pytest.mark.parametrize(
    ("text", "smart", "every", "none"),
    [
        ("one\ntwo\n", ["one", "two"], ["one", "two"], ["one", "two"]),
        ("50%\r100%\n", ["100%"], ["50%", "100%"], []),
        ("A\r\n", ["A"], ["A"], ["A"]),
        ("A\r\r\nB", ["A", "B"], ["A", "B"], ["A", "B"]),
        ("a b 3\n", ["a b 3"], ["a b 3"], ["a b 3"]),
        ("a\n\nb\n", ["a", "", "b"], ["a", "", "b"], ["a", "", "b"]),
        ("12345\rab\n", ["ab345"], ["12345", "ab"], []),
        ("\x1b[31mred\x1b[0m and \x1b[1;38;5;4mblue\x1b[m\n", ["red and blue"], ["red and blue"], ["red and blue"]),
        ("\x1b]0;a title\x07text\n", ["text"], ["text"], ["text"]),
        ("abc\b\bX\n", ["aXc"], ["abcX"], ["aXc"]),
        ("a\tb\n", ["a\tb"], ["a\tb"], ["a\tb"]),
        ("日本\rx\n", ["x 本"], ["日本", "x"], []),
        ("e\u0301a\n", ["e\u0301a"], ["e\u0301a"], ["e\u0301a"]),
        ("one\ntwo\x1b[1A\rONE\x1b[1B\n", ["ONE", "two"], ["one", "two", "ONE"], ["two"]),
        ("gone\x1b[2K\rhere\n", ["here"], ["gone", "here"], ["here"]),
        ("\x1b[?1049hvim\r\nscreen\x1b[?1049lback\n", ["back"], ["back"], ["back"]),
        ("\x1b[?25lhidden cursor\x1b[?25h\n", ["hidden cursor"], ["hidden cursor"], ["hidden cursor"]),
        ("first\n\x1b[2J\x1b[Hsecond\n", ["first", "second"], ["first", "second"], ["first", "second"]),
        (BAR + DONE + "\n", [DONE[1:]], [BAR[1:].rstrip(), DONE[1:]], []),
        (BAR, [BAR[1:]], [BAR[1:]], []),  # unfinished
        (BAR + CLEARED, [], [BAR[1:]], []),  # leave=False
        (BAR + CLEARED + "message\n" + DONE + "\n", ["message", DONE[1:]], [BAR[1:], "message", DONE[1:]], ["message"]),  # tqdm.write
        (BAR + "hey\n" + DONE + "\n", ["hey", DONE[1:]], [BAR[1:] + "hey", DONE[1:]], ["hey"]),
        ("\x07\x00bell\x7f\n", ["bell"], ["bell"], ["bell"]),
    ],
)
def test_the_modes(text: str, smart: list[str], every: list[str], none: list[str]) -> None:
    assert shown(text) == smart
    assert shown(text, mode="all") == every
    assert shown(text, mode="none") == none


@pytest.mark.parametrize("mode", ["smart", "all", "none"])
@given(st.text(alphabet="ab\n\r\t\b\x1b[2KAJm1;?h日█", max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_where_the_stream_is_cut_means_nothing(mode: str, text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[begin:end] for begin, end in pairwise(edges)]
    assert shown(*parts, mode=mode) == shown(text, mode=mode)


@given(
    st.lists(
        st.sampled_from(["a", "bc", "\n", "\r", "\b", "\x1b[A", "\x1b[B", "\x1b[2K", "\x1b[K", "\x1b[3C", "\x1b[D", "\x1b[2P"]),
        max_size=30,
    )
)
def test_it_shows_what_a_terminal_shows(parts: list[str]) -> None:
    """pyte's own screen is the terminal, wide and high enough that nothing leaves it."""
    terminal = pyte.Screen(200, 60)
    pyte.Stream(terminal).feed("".join(parts).replace("\n", "\r\n"))
    expected = [line.rstrip() for line in terminal.display]
    assert [line for line in shown(*parts) if line] == [line for line in expected if line]


@given(st.lists(st.text(alphabet="ab \n\r\x1b[AKm2", max_size=8), max_size=10))
def test_taking_lines_meanwhile_changes_nothing(parts: list[str]) -> None:
    assert [line for line in shown(*parts, often=True) if line] == [line for line in shown(*parts) if line]


@given(st.text(max_size=60))
def test_no_line_acts_on_a_terminal(text: str) -> None:
    for mode in ("smart", "all", "none"):
        for line in shown(text, mode=mode):
            assert not any((ord(character) < 32 and character != "\t") or 127 <= ord(character) < 160 for character in line)


def test_many_lines_go_past_the_window() -> None:
    text = "".join(f"line {number}\n" for number in range(5000))
    assert shown(text) == text.splitlines()
    assert shown(*text.splitlines(keepends=True), often=True) == text.splitlines()


def test_a_line_without_an_end_is_cut() -> None:
    lines = shown(*["x" * 10_000] * 20)
    assert sum(map(len, lines)) == 200_000
    assert max(map(len, lines)) < 100_000
