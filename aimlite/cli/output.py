"""What commands print: tables of rich in a terminal, lines of tab-separated cells in a pipe or a file, or one JSON document."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from aimlite.cli.text import clean

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 2

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@dataclass(frozen=True)
class Column:
    """rank: which columns are left out where a terminal is narrow, the greatest first; 0: never. fixed: not cut short. claim: how
    wide one that may be cut short has to be, where it is so wide, before others are left out for it."""

    title: str
    rank: int = 0
    right: bool = False
    fixed: bool = False
    claim: int = 12


def is_terminal() -> bool:
    return sys.stdout.isatty()


def width() -> int:
    """Of the terminal, or 80."""
    return console().width if is_terminal() else 80


def console(errors: bool = False) -> Console:
    """Data of users is given to it as Text: markup in it means nothing."""
    from rich.console import Console

    return Console(stderr=errors, highlight=False, emoji=False, markup=False)


def print_json(document: Any) -> None:
    """In ASCII, whatever the locale."""
    from aimlite.sdk.params import as_json

    click.echo(json.dumps(as_json(document), indent=2, allow_nan=False))


def warn(message: str, as_json: bool) -> None:
    """A line on stderr, as errors are."""
    click.echo(json.dumps({"warning": message}) if as_json else f"warning: {clean(message)}", err=True)


def print_lines(rows: Iterable[Sequence[str]]) -> None:
    for row in rows:
        click.echo("\t".join(map(clean, row)))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], styles: Callable[[str], str] = lambda cell: "") -> None:
    """A table no wider than the terminal: columns are left out by their rank, then what is not fixed is cut short. Without titles it has no
    head."""
    from rich.cells import cell_len
    from rich.text import Text

    screen = console()
    rows = [[clean(cell) for cell in row] for row in rows]
    needed = [max(map(cell_len, [column.title, *(row[at] for row in rows)])) for at, column in enumerate(columns)]
    kept = list(range(len(columns)))

    def room() -> int:
        """What is left for the columns that are not fixed."""
        return screen.width - _GAP * (len(kept) - 1) - sum(needed[at] for at in kept if columns[at].fixed)

    while room() < sum(min(needed[at], columns[at].claim) for at in kept if not columns[at].fixed) and any(columns[at].rank for at in kept):
        kept.remove(max(kept, key=lambda at: columns[at].rank))
    widths, left, flexible = dict(enumerate(needed)), room(), [at for at in kept if not columns[at].fixed]
    for place, at in enumerate(sorted(flexible, key=lambda at: needed[at])):  # what one does not need the others get
        widths[at] = max(min(needed[at], left // (len(flexible) - place)), 1)
        left -= widths[at]
    shown = Text()
    if any(column.title for column in columns):
        shown.append((" " * _GAP).join(_fitted(columns[at].title, widths[at], columns[at]) for at in kept).rstrip(), "bold")
        shown.append("\n" + "─" * min(sum(widths[at] + _GAP for at in kept) - _GAP, screen.width) + "\n")
    for row in rows:
        for at in kept[:-1]:
            shown.append(_fitted(row[at], widths[at], columns[at]), styles(row[at])).append(" " * _GAP)
        shown.append(_fitted(row[kept[-1]], widths[kept[-1]], columns[kept[-1]]).rstrip(), styles(row[kept[-1]])).append("\n")
    screen.print(shown, end="", soft_wrap=True)


def _fitted(cell: str, width: int, column: Column) -> str:
    """The cell cut or filled to so many columns. rich's own tables take some 0.7 ms for a row, which thousands of runs make seconds."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(cell) > width and not column.fixed:
        return set_cell_size(cell, width - 1) + "…"
    blank = " " * (width - cell_len(cell))
    return blank + cell if column.right else cell + blank


@contextlib.contextmanager
def status(message: str) -> Iterator[None]:
    """A spinner on stderr, where that is a terminal, while something takes its time."""
    if not sys.stderr.isatty():
        yield
        return
    with console(errors=True).status(message):
        yield


@contextlib.contextmanager
def progress(message: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal; what it yields takes it forward."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.progress import Progress

    with Progress(console=console(errors=True), transient=True) as bar:
        task = bar.add_task(message, total=total)
        yield lambda done: bar.advance(task, done)
