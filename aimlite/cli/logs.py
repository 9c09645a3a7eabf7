"""`aimlite logs`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from aimlite.cli.group import Command
from aimlite.cli.output import is_terminal, json_option, print_json
from aimlite.cli.repos import find_run, hash_argument, open_repo
from aimlite.cli.text import clean

if TYPE_CHECKING:
    from aimlite.sdk.logs import LogLine, LogRecord


class Level(click.ParamType[int]):
    """A number or a name."""

    name = "level"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from aimlite.sdk.logs import level_number

        text = str(value)
        try:
            return level_number(int(text) if text.lstrip("-").isdigit() else text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("logs", cls=Command)
@hash_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the run ends.")
@click.option(
    "--level", type=Level(), metavar="LEVEL", help="Only what has this level or a higher one: DEBUG, INFO, WARNING, ERROR, CRITICAL."
)
@click.option("--messages", is_flag=True, help="The messages of log_info() and its siblings instead.")
@json_option
def logs(prefix: str, follow: bool, level: int | None, messages: bool, as_json: bool) -> None:
    """Show the log of a run: what was printed and logged.

    HASH is the hash of a run, or as much of its beginning as no other has.
    """
    if follow and messages:
        raise click.UsageError("--follow goes with the log, not with --messages")
    with open_repo() as repo:
        run = find_run(repo, prefix)
        if follow:
            _follow(run.get_terminal_logs().follow(), level, as_json)
            return
        found: Iterable[LogLine | LogRecord] = run.get_log_records() if messages else run.get_terminal_logs()
        chosen = [entry for entry in found if _has_level(entry, level)]
        if as_json:
            print_json({"hash": run.hash, "messages" if messages else "lines": [entry.json() for entry in chosen]})
        else:
            for entry in chosen:
                click.echo(_shown(entry))


def _has_level(entry: LogLine | LogRecord, level: int | None) -> bool:
    return level is None or (entry.level is not None and entry.level >= level)


def _shown(entry: LogLine | LogRecord) -> str:
    return "\t".join(map(clean, str(entry).split("\t")))  # a tab is a tab


def _follow(lines: Iterator[LogLine], level: int | None, as_json: bool) -> None:
    """A line that has changed: on a terminal in its place, elsewhere once more; as JSON with its number."""
    last = None
    in_place = is_terminal() and not as_json
    for line in lines:
        if not _has_level(line, level):
            continue
        if as_json:
            sys.stdout.write(json.dumps(line.json()) + "\n")
        elif in_place and line.number == last:
            sys.stdout.write(f"\x1b[A\x1b[2K{_shown(line)}\n")
        else:
            sys.stdout.write(f"{_shown(line)}\n")
        sys.stdout.flush()
        last = line.number
