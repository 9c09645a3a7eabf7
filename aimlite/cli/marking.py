"""`aimlite tag`, `note` and `archive`: what people say of runs afterwards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from aimlite.cli.group import Command, Group, NotFound
from aimlite.cli.output import Column, is_terminal, json_option, print_json, print_lines, print_table
from aimlite.cli.repos import RunHash, find_run, open_repo
from aimlite.cli.text import clean, iso

if TYPE_CHECKING:
    from datetime import datetime

    from aimlite.sdk.catalog import Experiment
    from aimlite.sdk.repo import Repo
    from aimlite.sdk.run import Run

_hashes_argument = click.argument("prefixes", metavar="HASH...", nargs=-1, required=True, type=RunHash())
_run_option = click.option("--run", "prefix", metavar="HASH", type=RunHash(), help="The run that it is about.")
_experiment_option = click.option("--experiment", metavar="NAME", help="The experiment that it is about.")
_TAGS = (Column("tag", fixed=True), Column("color", 2), Column("comment", 3), Column("runs", 1, right=True, fixed=True))
_NOTES = (Column("note", fixed=True), Column("updated", 1, fixed=True), Column("text", 2))


@click.group("tag", cls=Group)
def tag() -> None:
    """Put tags on runs, and say what they mean."""


@tag.command("ls")
@json_option
def tag_ls(as_json: bool) -> None:
    """List the tags of the repo, and how many runs have each."""
    with open_repo() as repo:
        found = repo.tags()
    if as_json:
        print_json([{"name": each.name, "color": each.color, "comment": each.comment, "runs": each.runs} for each in found])
        return
    rows = [[each.name, each.color or "", each.comment or "", str(each.runs)] for each in found]
    if is_terminal() and rows:
        print_table(_TAGS, rows)
    else:
        print_lines(rows)


@tag.command("add")
@click.argument("name", metavar="TAG")
@_hashes_argument
def tag_add(name: str, prefixes: Sequence[str]) -> None:
    """Put a tag on runs."""
    with open_repo(to_change=True) as repo:
        for run in _to_edit(repo, prefixes):
            run.add_tag(name)


@tag.command("remove")
@click.argument("name", metavar="TAG")
@_hashes_argument
def tag_remove(name: str, prefixes: Sequence[str]) -> None:
    """Take a tag from runs."""
    with open_repo(to_change=True) as repo:
        for run in _to_edit(repo, prefixes):
            run.remove_tag(name)


@tag.command("set")
@click.argument("name", metavar="TAG")
@click.option("--color", metavar="COLOR", help="Its color, as CSS has it; '' takes it away.")
@click.option("--comment", metavar="TEXT", help="What it means; '' takes it away.")
def tag_set(name: str, color: str | None, comment: str | None) -> None:
    """Give a tag a color and a comment."""
    if color is None and comment is None:
        raise click.UsageError("say --color, --comment or both")
    with open_repo(to_change=True) as repo, _usage():
        repo.set_tag(name, color=color, comment=comment)


@tag.command("rename")
@click.argument("name", metavar="TAG")
@click.argument("new_name", metavar="NEW")
def tag_rename(name: str, new_name: str) -> None:
    """Rename a tag wherever it is."""
    with open_repo(to_change=True) as repo, _usage():
        _demand_tag(repo, name)
        click.echo(f"renamed on {_runs(repo.rename_tag(name, new_name))}")


@tag.command("delete")
@click.argument("name", metavar="TAG")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def tag_delete(name: str, yes: bool) -> None:
    """Take a tag from every run, and forget its color and comment."""
    with open_repo(to_change=True) as repo, _usage():
        _demand_tag(repo, name)
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("this takes the tag from every run and there is no terminal to ask in: pass --yes")
            click.confirm(f"Take the tag {clean(name)} from every run?", abort=True, err=True)
        click.echo(f"taken from {_runs(repo.delete_tag(name))}")


@click.group("note", cls=Group)
def note() -> None:
    """Read and write notes on runs and experiments."""


@note.command("ls")
@_run_option
@_experiment_option
@click.option("--history", is_flag=True, help="Every change, deleted notes too.")
@json_option
def note_ls(prefix: str | None, experiment: str | None, history: bool, as_json: bool) -> None:
    """List the notes on a run or an experiment."""
    with open_repo() as repo:
        subject = _subject(repo, prefix, experiment)
        if history:
            changes = subject.note_history()
            if as_json:
                print_json([{"time": _iso(each.time), "action": each.action, "id": each.id, "text": each.text} for each in changes])
            else:
                print_lines([[each.id, _iso(each.time), each.action, each.text or ""] for each in changes])
            return
        notes = subject.notes
    if as_json:
        print_json(
            [{"id": each.id, "text": each.text, "created_at": _iso(each.created_at), "updated_at": _iso(each.updated_at)} for each in notes]
        )
        return
    rows = [[each.id, _iso(each.updated_at), each.text] for each in notes]
    if is_terminal() and rows:
        print_table(_NOTES, rows)
    else:
        print_lines(rows)


@note.command("add")
@click.argument("text", metavar="TEXT")
@_run_option
@_experiment_option
def note_add(text: str, prefix: str | None, experiment: str | None) -> None:
    """Add a note, in Markdown, and print its id. `-` reads it from the standard input."""
    with open_repo(to_change=True) as repo, _usage():
        click.echo(_subject(repo, prefix, experiment).add_note(_text(text)).id)


@note.command("edit")
@click.argument("note_id", metavar="NOTE")
@click.argument("text", metavar="TEXT")
@_run_option
@_experiment_option
def note_edit(note_id: str, text: str, prefix: str | None, experiment: str | None) -> None:
    """Give a note another text. `-` reads it from the standard input."""
    with open_repo(to_change=True) as repo, _usage():
        _subject_of(repo, prefix, experiment, note_id).edit_note(note_id, _text(text))


@note.command("delete")
@click.argument("note_id", metavar="NOTE")
@_run_option
@_experiment_option
def note_delete(note_id: str, prefix: str | None, experiment: str | None) -> None:
    """Take a note away; its history stays."""
    with open_repo(to_change=True) as repo:
        _subject_of(repo, prefix, experiment, note_id).delete_note(note_id)


@click.command("archive", cls=Command)
@_hashes_argument
@click.option("--undo", is_flag=True, help="Bring them back.")
def archive(prefixes: Sequence[str], undo: bool) -> None:
    """Hide runs from listings and queries that do not ask for them."""
    with open_repo(to_change=True) as repo:
        for run in _to_edit(repo, prefixes):
            run.archived = not undo


class _usage:
    """Within, a value that the SDK does not take is a wrong argument."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError) and type(error) is ValueError:
            raise click.UsageError(str(error)) from None


def _to_edit(repo: Repo, prefixes: Sequence[str]) -> list[Run]:
    """The runs, all found before the first is changed."""
    return [repo.edit_run(find_run(repo, prefix).hash) for prefix in prefixes]


def _subject(repo: Repo, prefix: str | None, experiment: str | None) -> Run | Experiment:
    if (prefix is None) == (experiment is None):
        raise click.UsageError("say either --run HASH or --experiment NAME")
    if experiment is not None:
        return repo.experiment(experiment)
    run = find_run(repo, prefix or "")
    return run if repo.read_only else repo.edit_run(run.hash)


def _subject_of(repo: Repo, prefix: str | None, experiment: str | None, note_id: str) -> Run | Experiment:
    subject = _subject(repo, prefix, experiment)
    if not any(each.id == note_id for each in subject.notes):
        raise NotFound(f"there is no note {note_id!r} there; 'aimlite note ls' lists them")
    return subject


def _demand_tag(repo: Repo, name: str) -> None:
    if not any(each.name == name for each in repo.tags()):
        raise NotFound(f"there is no tag {name!r}; 'aimlite tag ls' lists them")


def _text(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _runs(number: int) -> str:
    return f"{number:,} run{'' if number == 1 else 's'}"


def _iso(moment: datetime) -> str:
    from datetime import timezone

    return str(iso(moment.replace(tzinfo=timezone.utc).timestamp()))
