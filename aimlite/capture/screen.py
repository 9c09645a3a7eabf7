"""What a terminal shows of a stream of text, as lines for a log.

A Screen folds as a terminal would: a carriage return begins its line anew, cursor moves lead back to lines further up, erased is erased.
pyte parses the escape sequences; the page here has no right margin (a long line stays one line) and no bottom (lines that leave its
window at the top are settled). Text without any of that never reaches pyte, which takes a microsecond a character.
Colours and every other control are left out: a line of the log does nothing to the terminal that shows it.

Filter → Screen (modes 'smart' and 'none') or Pieces ('all').
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

WINDOW = 256  # rows that can still change
LONGEST = 1 << 16  # characters of a line; what is longer becomes several
PARTIAL_S = 0.5  # how old a line without an end is before it counts as one
AGAIN_S = 1.0  # how often a line that keeps changing is told at most
_HELD = 4096  # of an escape sequence without an end

MODES = ("smart", "all", "none")

_ids = itertools.count()


class Line(NamedTuple):
    """id: of the line, the same when it is told again because it changed. time: seconds since 1970 when it began. source: 'stdout',
    'stderr', or 'terminal' where both are one. text: None when there is no such line any more."""

    id: int
    time: float
    source: str
    text: str | None


# OSC, DCS and their like, whole; colours; modes of the terminal. All without effect on the page, but for the alternate screen.
_WITHOUT_EFFECT = re.compile(
    r"\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-9;:]*m|\x1b\[[?<=>][0-9;:]*[ -/]*[@-~]|\x1b[()*+][ -~]|\x1b[=>]"
)
_ALTERNATE = re.compile(r"\x1b\[\?(?:1049|1047|47)([hl])")
# What may go on in the next piece: a CR that an LF follows, an escape sequence.
_UNFINISHED = re.compile(r"(?:\r+|\x1b(?:[()*+#%]|\[[0-?]*[ -/]*|[]PX^_][^\x07\x1b]*\x1b?)?)\Z")
_C1 = re.compile(r"[\x80-\x9f]")  # each stands for ESC and a letter
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -~]?")
_SIMPLE = re.compile(r"[\n\v\f\r\b\t]|[^\n\v\f\r\b\t]+")
_SIMPLE_METHODS = {"\n": "linefeed", "\v": "linefeed", "\f": "linefeed", "\r": "carriage_return", "\b": "backspace", "\t": "tab"}
_LINE_ENDS = re.compile(r"\r+\n")
# A bar of tqdm up to its end, and what somebody printed behind it. Bars of rich.
_TQDM = re.compile(r"(?:\d+%\|.*?\| *\S+|\d\S*) ?\[\d+:\d\d(?::\d\d)?(?:<[^],]*)?(?:, [^]]*)?\]")
_BAR = re.compile(_TQDM.pattern + r"|\d+%\|[^|]*\||[━╸╺]{3}|[█▉▊▋▌▍▎▏]{5}")


def clean(text: str) -> str:
    """Without control characters (tabs stay) and without blanks at the end."""
    return _CONTROL.sub("", text).rstrip(" \t")


def plain_lines(text: str) -> list[str]:
    """The lines of a text that is no stream: a carriage return ends one too; nothing in them acts on a terminal."""
    lines = re.split(r"\r\n|\r|\n", Filter()(text + "\n"))[:-1]
    if text[-1:] in ("\n", "\r") and len(lines) > 1:
        lines.pop()
    return [clean(_ESCAPE.sub("", part)) for line in lines for part in _parts(line)]


def _parts(line: str) -> list[str]:
    return [line[begin : begin + LONGEST] for begin in range(0, len(line), LONGEST)] or [""]


class Filter:
    """Takes away of a stream what has no effect on a page; holds back what is not whole."""

    def __init__(self) -> None:
        self._held = ""
        self._alternate = False  # a full-screen program has the terminal: what it draws is no log

    def __call__(self, text: str) -> str:
        text = self._held + text
        self._held = ""
        if not text.isascii():
            text = _C1.sub(lambda control: "\x1b" + chr(ord(control[0]) - 64), text)
        if "\x1b" not in text and "\r" not in text:
            return "" if self._alternate else text
        unfinished = _UNFINISHED.search(text)
        if unfinished:
            text, self._held = text[: unfinished.start()], text[unfinished.start() :]
            if len(self._held) > _HELD:
                text, self._held = text + self._held.lstrip("\x1b"), ""
        if self._alternate or "\x1b[?" in text:
            text = "".join(self._on_main_screen(text))
        return _LINE_ENDS.sub("\n", _WITHOUT_EFFECT.sub("", text))

    def _on_main_screen(self, text: str) -> Iterator[str]:
        at = 0
        for switch in _ALTERNATE.finditer(text):
            if not self._alternate:
                yield text[at : switch.start()]
            self._alternate, at = switch[1] == "h", switch.end()
        if not self._alternate:
            yield text[at:]


class _Row:
    """A line of the page."""

    __slots__ = ("bar", "cells", "changed", "drawn", "id", "shown", "shown_at", "text", "time")

    def __init__(self, time: float, text: str = "") -> None:
        self.id = next(_ids)
        self.time = time
        self.text: str | None = text  # None: the cells say
        self.cells: list[str] = []
        self.bar = False  # drawn over itself
        self.drawn = False  # with more than plain text
        self.changed = True
        self.shown: str | None = None  # what was told last
        self.shown_at = 0.0

    def open(self) -> list[str]:
        """Its cells, to be changed: one for each column, "" behind a wide character."""
        if self.text is not None:
            self.cells = _cells(self.text)
            self.text = None
            self.drawn = True
        return self.cells

    def read(self) -> str:
        return "".join(self.cells) if self.text is None else self.text


def _cells(text: str) -> list[str]:
    if text.isascii():
        return list(text)
    from wcwidth import wcwidth

    cells: list[str] = []
    for character in text:
        width = wcwidth(character)
        if width == 0 and cells:  # it stands on the one before
            cells[-1 if cells[-1] or len(cells) < 2 else -2] += character
        else:
            cells += [character, ""][: max(width, 1)]
    return cells


class Screen:
    """A page that a stream of filtered text is drawn on, and the lines that it shows."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._page = _Page()
        self._stream: Any = None  # pyte's, once it is needed

    def feed(self, time: float, text: str) -> None:
        """time: seconds since 1970, of all of it."""
        page = self._page
        page.time = time
        if _CONTROL.search(text) is not None or not page.add_plain(text):
            self._draw(text)
        page.scroll()

    def _draw(self, text: str) -> None:
        page = self._page
        if "\x1b" not in text:
            for part in _SIMPLE.finditer(text):
                method = _SIMPLE_METHODS.get(part[0])
                getattr(page, method)() if method else page.draw(part[0])
            return
        if self._stream is None:
            import pyte  # some 20 ms

            self._stream = pyte.Stream(page)  # type: ignore[arg-type] # it asks for these methods only
        self._stream.feed(text)

    def take(self, now: float, final: bool) -> list[tuple[Line, bool]]:
        """(line, whether it is a bar) of what changed since the last time. final: also what is likely to change at once again."""
        page = self._page
        taken: list[tuple[Line, bool]] = []
        for row in page.past:
            self._tell(row, True, now, taken)
        page.past = []
        for at, row in enumerate(page.rows):
            settled = at < page.y
            if (row.changed and (final or self._is_due(row, settled, now))) or (at >= page.y and row.shown == ""):
                self._tell(row, settled, now, taken)
        return taken

    def _is_due(self, row: _Row, settled: bool, now: float) -> bool:
        if row.shown is None:
            return settled or now - row.time >= PARTIAL_S
        return now - row.shown_at >= AGAIN_S

    def _tell(self, row: _Row, settled: bool, now: float, taken: list[tuple[Line, bool]]) -> None:
        text: str | None = clean(row.read()) if row.drawn else row.read().rstrip(" \t")
        assert text is not None
        bar = row.bar or (row.drawn and _BAR.search(text) is not None)
        if bar and settled and (end := _TQDM.search(text)) and text[end.end() :].strip():
            text, bar = text[end.end() :].strip(), False  # printed behind the bar, which goes on below
        row.changed = False
        if not text and not settled:
            text = None
        if text == row.shown:
            return
        taken.append((Line(row.id, row.time, self._source, text), bar))
        row.shown, row.shown_at = text, now
        if text is None:
            row.id = next(_ids)  # what is drawn there next is another line


def _ignored(*_: Any, **__: Any) -> None:
    """What has no effect on the page."""


class _Page:
    """What pyte's parser dispatches to: the names are its. Columns and rows count from 0 here, from 1 in the sequences."""

    bell = shift_in = shift_out = set_tab_stop = clear_tab_stop = alignment_display = staticmethod(_ignored)
    report_device_attributes = report_device_status = set_mode = reset_mode = select_graphic_rendition = staticmethod(_ignored)
    set_margins = define_charset = set_icon_name = set_title = debug = staticmethod(_ignored)

    def __init__(self) -> None:
        self.time = 0.0
        self.rows = [_Row(0.0)]
        self.rows[0].changed = False
        self.past: list[_Row] = []  # left the window, not told yet
        self.y = 0
        self.x = 0
        self._top = 0  # the row that the uppermost of the terminal is taken for
        self._saved = (0, 0)
        self._at_end = True  # the cursor is behind all there is, whatever x says

    def add_plain(self, text: str) -> bool:
        """Adds text without control characters but \\n and \\t; only if the cursor is behind all there is. Returns whether it did."""
        row = self.rows[-1]
        if not self._at_end:
            if self.y != len(self.rows) - 1 or self.x != len(row.open()):
                return False
            row.text, self._at_end = row.read(), True
        first, *others = text.split("\n")
        assert row.text is not None
        if first:
            if not row.text:
                row.time = self.time
            row.text += first
            row.changed = True
        self.rows += [_Row(self.time, line) for line in others]
        if others:
            row.changed = True
            self.rows[-1].changed = bool(others[-1])
        self.y = len(self.rows) - 1
        if len(self.rows[-1].text or "") > LONGEST:
            self._add_row()
        return True

    def scroll(self) -> None:
        """Lets rows leave the window."""
        above = min(len(self.rows) - WINDOW, self.y)
        if above > 0:
            self.past += [row for row in self.rows[:above] if row.changed]
            del self.rows[:above]
            self.y -= above
            self._top = max(self._top - above, 0)

    def _add_row(self) -> None:
        row = _Row(self.time)
        row.changed = False
        self.rows.append(row)
        self.y = len(self.rows) - 1

    def _open(self) -> list[str]:
        """The cells of the row of the cursor, which has a column now."""
        row = self.rows[self.y]
        cells = row.open()
        if self._at_end:
            self.x, self._at_end = len(cells), False
        return cells

    def _touched(self) -> None:
        row = self.rows[self.y]
        row.changed = True
        if all(cell in (" ", "") for cell in row.cells):
            row.cells.clear()
            row.bar = False

    def draw(self, text: str) -> None:
        cells, row = self._open(), self.rows[self.y]
        if not cells:
            row.time = self.time if row.shown is None else row.time
        new = _cells(_CONTROL.sub("", text))
        if not new:
            return
        if self.x > len(cells):
            cells += " " * (self.x - len(cells))
        over = cells[self.x : self.x + len(new)]
        row.bar = row.bar or (self.x == 0 and any(cell.strip() for cell in over))
        if self.x < len(cells) and cells[self.x] == "":  # half of a wide character is none
            cells[self.x - 1] = " "
        cells[self.x : self.x + len(new)] = new
        self.x += len(new)
        if self.x < len(cells) and cells[self.x] == "":
            cells[self.x] = " "
        self._touched()
        if self.x > LONGEST:
            self.linefeed()

    def tab(self) -> None:
        cells = self._open()
        if self.x >= len(cells):
            self.draw("\t")
        else:
            self.x = min(self.x // 8 * 8 + 8, len(cells))

    def carriage_return(self) -> None:
        self._open()
        self.x = 0

    def backspace(self) -> None:
        self._open()
        self.x = max(self.x - 1, 0)

    def linefeed(self) -> None:
        self._open()
        row = self.rows[self.y]
        row.changed = row.changed or row.shown is None
        self._down(1)
        self.x = 0

    def index(self) -> None:
        self._open()
        self._down(1)

    def reverse_index(self) -> None:
        self.cursor_up(1)

    def _down(self, count: int) -> None:
        self._open()
        for _ in range(min(count, WINDOW)):
            self.y += 1
            if self.y == len(self.rows):
                self._add_row()

    def cursor_up(self, count: int = 1, *_: Any, **__: Any) -> None:
        self._open()
        self.y = max(self.y - (count or 1), 0)

    def cursor_down(self, count: int = 1, *_: Any, **__: Any) -> None:
        self._down(count or 1)

    def cursor_up1(self, count: int = 1, *_: Any, **__: Any) -> None:
        self.cursor_up(count)
        self.x = 0

    def cursor_down1(self, count: int = 1, *_: Any, **__: Any) -> None:
        self.cursor_down(count)
        self.x = 0

    def cursor_forward(self, count: int = 1, *_: Any, **__: Any) -> None:
        self._open()
        self.x = min(self.x + (count or 1), LONGEST)

    def cursor_back(self, count: int = 1, *_: Any, **__: Any) -> None:
        self._open()
        self.x = max(self.x - (count or 1), 0)

    def cursor_to_column(self, column: int = 1, *_: Any, **__: Any) -> None:
        self._open()
        self.x = max((column or 1) - 1, 0)

    def cursor_to_line(self, line: int = 1, *_: Any, **__: Any) -> None:
        self._open()
        self.y = min(self._top, len(self.rows) - 1)
        self._down((line or 1) - 1)

    def cursor_position(self, line: int = 1, column: int = 1, *_: Any, **__: Any) -> None:
        self.cursor_to_line(line)
        self.cursor_to_column(column)

    def save_cursor(self) -> None:
        self._open()
        self._saved = (self.y, self.x)

    def restore_cursor(self) -> None:
        self._open()
        self.y, self.x = min(self._saved[0], len(self.rows) - 1), self._saved[1]

    def reset(self) -> None:
        self.erase_in_display(2)

    def erase_in_line(self, how: int = 0, *_: Any, **__: Any) -> None:
        cells = self._open()
        if how == 0:
            del cells[self.x :]
        elif how == 1:
            cells[: self.x + 1] = " " * min(self.x + 1, len(cells))
        else:
            cells.clear()
        self._touched()

    def erase_in_display(self, how: int = 0, *_: Any, **__: Any) -> None:
        """Of the rest of the page; or of all of it: what was there stays in the log, and a new page begins below."""
        self._open()
        if how == 0:
            self.erase_in_line(0)
            self._empty(range(self.y + 1, len(self.rows)))
        elif how in (2, 3) and any(row.read().strip() for row in self.rows[self._top :]):
            x = self.x
            self.y = len(self.rows) - 1
            self._down(1 if self.rows[-1].read().strip() else 0)
            self._top, self.x = self.y, x

    def erase_characters(self, count: int = 1, *_: Any, **__: Any) -> None:
        cells = self._open()
        end = min(self.x + (count or 1), len(cells))
        cells[self.x : end] = " " * max(end - self.x, 0)
        self._touched()

    def delete_characters(self, count: int = 1, *_: Any, **__: Any) -> None:
        cells = self._open()
        del cells[self.x : self.x + (count or 1)]
        self._touched()

    def insert_characters(self, count: int = 1, *_: Any, **__: Any) -> None:
        cells = self._open()
        cells[self.x : self.x] = " " * min(count or 1, LONGEST)
        self._touched()

    def insert_lines(self, count: int = 1, *_: Any, **__: Any) -> None:
        self._open()
        self.rows[self.y : self.y] = [_Row(self.time) for _ in range(min(count or 1, WINDOW))]

    def delete_lines(self, count: int = 1, *_: Any, **__: Any) -> None:
        """The rows are emptied, not taken away: they may have been told."""
        self._open()
        self._empty(range(self.y, min(self.y + (count or 1), len(self.rows))))

    def _empty(self, places: range) -> None:
        for y in places:
            row = self.rows[y]
            row.open().clear()
            row.bar = False
            row.changed = True


class Pieces:
    """Every state that a line had: the stream cut at line ends, carriage returns and moves to other lines."""

    _CUT = re.compile(r"[\n\v\f\r]|\x1b\[[0-9;]*[ABEFHfd]|\x1b[DEM]")

    def __init__(self, source: str) -> None:
        self._source = source
        self._rows: list[_Row] = []
        self._last = _Row(0.0)
        self._ended_line = True

    def feed(self, time: float, text: str) -> None:
        at = 0
        for cut in self._CUT.finditer(text):
            self._add(time, text[at : cut.start()])
            self._end(cut[0] == "\n")
            at = cut.end()
        self._add(time, text[at:])

    def _add(self, time: float, text: str) -> None:
        if text:
            row = self._last
            row.time = row.time or time
            row.text = (row.text or "") + _ESCAPE.sub("", text)
            row.changed = True
            if len(row.text) > LONGEST:
                self._end(True)

    def _end(self, ends_line: bool) -> None:
        row = self._last
        if row.read().strip() or (ends_line and self._ended_line):
            self._rows.append(row)
            self._last = _Row(0.0)
        else:
            row.text = ""
        self._ended_line = ends_line

    def take(self, now: float, final: bool) -> list[Line]:
        """What changed since the last time."""
        rows, self._rows, last = self._rows, [], self._last
        if last.changed and last.read().strip() and (final or now - (last.shown_at or last.time) >= PARTIAL_S):
            rows.append(last)
            last.changed, last.shown_at = False, now
        return [Line(row.id, row.time or now, self._source, clean(row.read())) for row in rows]
