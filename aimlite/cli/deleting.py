"""`aimlite rm`, `restore`, `purge` and `prune`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from aimlite.cli.group import Command, NotFound
from aimlite.cli.output import json_option, print_json, status
from aimlite.cli.repos import Ambiguous, RunHash, find_run, open_repo
from aimlite.cli.text import clean, size_text

if TYPE_CHECKING:
    from aimlite.sdk.repo import Repo

_SHOWN = 10
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
hashes_argument = click.argument("prefixes", metavar="HASH...", nargs=-1, required=True, type=RunHash())


class TrashHash(click.ParamType[str]):
    """A hash of a run in the trash, or the beginning of one."""

    name = "hash"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        try:
            with ctx.scope(), open_repo() as repo:
                return [CompletionItem(run.hash) for run in repo.trash() if run.hash.startswith(incomplete)]
        except Exception:  # there is no place for a message in the middle of a line that somebody types
            return []


@click.command("rm", cls=Command)
@hashes_argument
@click.option("--permanent", is_flag=True, help="Delete for good, from the trash too.")
@click.option("--force", is_flag=True, help="Also runs that a process is writing.")
@yes_option
@json_option
def rm(prefixes: Sequence[str], permanent: bool, force: bool, yes: bool, as_json: bool) -> None:
    """Put runs into the trash, or delete them for good.

    HASH is the hash of a run, or as much of its beginning as no other has.
    """
    with open_repo(to_change=True) as repo:
        hashes = unique(_of_any(repo, prefix) if permanent else find_run(repo, prefix).hash for prefix in prefixes)
        what = f"Delete {named(hashes)} for good? It cannot be undone." if permanent else f"Put {named(hashes)} into the trash?"
        confirm(what, yes)
        with status("deleting"):
            repo.delete_runs(hashes, permanent=permanent, force=force)
    if as_json:
        print_json({"deleted" if permanent else "trashed": hashes})
    else:
        click.echo(f"deleted {named(hashes)}" if permanent else f"put {named(hashes)} into the trash; 'aimlite restore' takes runs out")


@click.command("restore", cls=Command)
@click.argument("prefixes", metavar="HASH...", nargs=-1, required=True, type=TrashHash())
@json_option
def restore(prefixes: Sequence[str], as_json: bool) -> None:
    """Take runs out of the trash.

    They are as they would be had they never been there. HASH is the hash of a run in the trash, or as much of its beginning as no other
    there has.
    """
    with open_repo(to_change=True) as repo:
        hashes = repo.restore_runs(unique(_in_trash(repo, prefix) for prefix in prefixes))
    if as_json:
        print_json({"restored": hashes})
    else:
        click.echo(f"took {named(hashes)} out of the trash")


@click.command("purge", cls=Command)
@click.argument("prefixes", metavar="[HASH]...", nargs=-1, type=TrashHash())
@click.option("--older-than", type=click.FloatRange(0, 36500), metavar="DAYS", help="Only what has been in the trash for longer.")
@click.option("--force", is_flag=True, help="Also runs that a process is writing.")
@yes_option
@json_option
def purge(prefixes: Sequence[str], older_than: float | None, force: bool, yes: bool, as_json: bool) -> None:
    """Delete for good what is in the trash.

    All of it, or the runs named. Their space is given back.
    """
    if prefixes and older_than is not None:
        raise click.UsageError("HASH and --older-than exclude each other")
    with open_repo(to_change=True) as repo:
        hashes = unique(_in_trash(repo, prefix) for prefix in prefixes) if prefixes else None
        age = None if older_than is None else timedelta(days=older_than)
        what = named(hashes) if hashes else "all runs in the trash" + ("" if age is None else f" for more than {older_than:g} days")
        if hashes or repo.trash():
            confirm(f"Delete {what} for good? It cannot be undone.", yes)
        with status("deleting"):
            deleted = repo.purge(hashes, older_than=age, force=force)
    if as_json:
        print_json({"deleted": deleted})
    else:
        click.echo(f"deleted {named(deleted)}" if deleted else "there was nothing to delete")


@click.command("prune", cls=Command)
@json_option
def prune(as_json: bool) -> None:
    """Remove what nothing needs any more.

    The content of large params that were replaced, and what killed processes have left.
    """
    with open_repo(to_change=True) as repo, status("looking for what nothing needs"):
        done = repo.prune()
    if as_json:
        print_json(done)
    else:
        files = f"{done['blobs']:,} file{'' if done['blobs'] == 1 else 's'}"
        click.echo(f"removed {files}; the repo is {size_text(max(done['freed_bytes'], 0))} smaller")


def confirm(question: str, yes: bool) -> None:
    """Asks once, where there is somebody to ask."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("this deletes and there is no terminal to ask in: pass --yes")
    click.confirm(clean(question), abort=True, err=True)


def unique(hashes: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(hashes))


def named(hashes: Sequence[str]) -> str:
    if len(hashes) == 1:
        return f"run {hashes[0]}"
    return f"{len(hashes):,} runs ({', '.join(hashes[:_SHOWN])}{', …' if len(hashes) > _SHOWN else ''})"


def _in_trash(repo: Repo, prefix: str) -> str:
    hashes = [run.hash for run in repo.trash()]
    matches = [prefix] if prefix in hashes else sorted(run_hash for run_hash in hashes if run_hash.startswith(prefix))
    if not matches:
        raise NotFound(f"no run in the trash has a hash that begins with {prefix!r} in {repo.path}; 'aimlite ls --trash' lists them")
    if len(matches) > 1:
        raise Ambiguous(
            f"several runs in the trash have a hash that begins with {prefix!r}: {', '.join(matches[:_SHOWN])}; give more of it"
        )
    return matches[0]


def _of_any(repo: Repo, prefix: str) -> str:
    """A run by the beginning of its hash, be it in the trash."""
    if repo.match_hashes(prefix, 1):
        return find_run(repo, prefix).hash
    return _in_trash(repo, prefix) if any(run.hash.startswith(prefix) for run in repo.trash()) else find_run(repo, prefix).hash
