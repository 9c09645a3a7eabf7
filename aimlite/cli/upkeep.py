"""`aimlite init`, `check`, `repair`, `merge` and `stats`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from aimlite.cli.group import FAILED, Command, given_repo
from aimlite.cli.output import Column, is_terminal, json_option, print_json, print_lines, print_table, status
from aimlite.cli.repos import demanding_all_runs, open_repo
from aimlite.cli.text import clean, size_text
from aimlite.errors import CorruptionError


@click.command("init", cls=Command)
@json_option
def init(as_json: bool) -> None:
    """Make a repo, where there is none yet.

    At --repo, else where AIMLITE_REPO or the config says, else in the working directory.
    """
    from aimlite.storage.layout import Layout, is_repo, named_repo, open_layout, repo_root

    root = repo_root(given_repo() or named_repo() or Path.cwd())
    made = not is_repo(Layout(root / ".aimlite"))
    layout = open_layout(root)
    if as_json:
        print_json({"path": str(layout.base), "made": made})
    else:
        click.echo(f"made {clean(str(layout.base))}" if made else f"there was a repo already: {clean(str(layout.base))}")


@click.command("check", cls=Command)
@click.option("--quick", is_flag=True, help="Look at the version, the opening of the tree and the journals, and not at every byte.")
@json_option
@click.pass_context
def check(context: click.Context, quick: bool, as_json: bool) -> None:
    """Report everything that is wrong.

    A line each; the exit code is 1 when there is something.
    """
    with open_repo() as repo, status("checking"):
        problems = repo.check(full=not quick)
    if as_json:
        print_json({"problems": [{"kind": p.kind, "path": p.path, "offset": p.offset, "message": p.message} for p in problems]})
    for problem in () if as_json else problems:
        click.echo(clean(str(problem)))
    if not problems and not as_json:
        click.echo(f"nothing is wrong in {clean(repo.path)}")
    if problems:
        context.exit(FAILED)


@click.command("repair", cls=Command)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def repair(yes: bool, as_json: bool) -> None:
    """Mend what check reports.

    Every intact record is kept, damaged files are set aside under .aimlite/damaged/.
    """
    with open_repo(to_change=True) as repo:
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("repair changes the repo and there is no terminal to ask in: pass --yes")
            question = f"Mend {clean(repo.path)}? Damaged files are set aside in it."
            click.confirm(question, abort=True, err=True)
        with status("mending"):
            done = repo.repair()
    if as_json:
        print_json({"done": done})
    else:
        click.echo("\n".join(map(clean, done)) or "there was nothing to mend")


@click.command("merge", cls=Command)
@json_option
def merge(as_json: bool) -> None:
    """Move all ended journals into the tree.

    Reading never needs it; the repo gets smaller by it, and the first read of a process faster.
    """
    with open_repo(to_change=True) as repo, status("merging"):
        report = repo.merge()
    if as_json:
        print_json(report)
    elif report["segments"]:
        what = f"{_count(report['segments'], 'journal')}, {_count(report['points'], 'point')}, {size_text(report['bytes'])}"
        click.echo(f"merged {what}" + ("; the tree was compacted" if report["compacted"] else ""))
    else:
        click.echo("no ended journal waits; the tree was compacted" if report["compacted"] else "no ended journal waits")
    if report["damaged"]:
        raise CorruptionError(f"{_count(len(report['damaged']), 'journal')} left alone, being damaged", report["damaged"][0])


@click.command("stats", cls=Command)
@json_option
@demanding_all_runs()
def stats(as_json: bool) -> None:
    """Count what the repo holds.

    Runs, sequences and points, and what they take on disk.
    """
    with open_repo() as repo, status("counting"):
        found = repo.stats()
    if as_json:
        print_json(found)
    elif is_terminal():
        print_table((Column("", fixed=True), Column("", right=True, fixed=True)), _for_people(found))
    else:
        print_lines(_flat(found))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _for_people(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("runs", f"{found['runs']:,}")]
    rows += [(f"  {word}", f"{count:,}") for word, count in found["status"].items() if count]
    rows += [("sequences", f"{found['sequences']:,}"), ("points", f"{found['points']:,}")]
    rows += [("on disk", size_text(found["bytes"]["total"]))]
    rows += [(f"  {part}", size_text(size)) for part, size in found["bytes"].items() if part != "total"]
    if found["bytes_per_point"] is not None:
        rows += [("  for each point", f"{found['bytes_per_point']:.1f} B")]
    rows += [(f"journals {word}", f"{count:,}") for word, count in found["journals"].items()]
    rows += [
        (f"tree level {level['level']}", f"{_count(level['files'], 'file')}, {size_text(level['bytes'])}") for level in found["levels"]
    ]
    return [*rows, ("generation", f"{found['generation']:,}")]


def _flat(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in found.items():
        if name == "levels":
            rows += [(f"levels.{level['level']}.{key}", str(level[key])) for level in value for key in ("files", "bytes")]
        elif isinstance(value, dict):
            rows += [(f"{name}.{key}", str(item)) for key, item in value.items()]
        else:
            rows.append((name, "" if value is None else str(value)))
    return rows
