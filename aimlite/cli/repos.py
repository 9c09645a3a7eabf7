"""Finding the repo and the run that a command is about, and completing hashes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aimlite.cli.group import DAMAGED, HOW_TO_MEND, USAGE, NotFound, given_repo
from aimlite.errors import RepoNotFound

if TYPE_CHECKING:
    from aimlite.sdk.repo import Repo
    from aimlite.sdk.run import Run

_LISTED = 8


def open_repo(to_change: bool = False) -> Repo:
    """The repo, which has to be there: only `init` makes one."""
    from aimlite.sdk.repo import Repo
    from aimlite.storage.layout import named_repo, repo_root

    given = given_repo()
    root = repo_root(given)
    try:
        return Repo.from_path(root, read_only=not to_change)
    except RepoNotFound:
        named = given or named_repo()
        looked = f"no repo at {root}" if named else f"no repo here: neither {Path.cwd()} nor a directory above has .aimlite"
        raise NotFound(f"{looked}; --repo PATH names another, 'aimlite init' makes one") from None


def find_run(repo: Repo, prefix: str) -> Run:
    """The one run whose hash is the prefix, or begins with it."""
    matches = repo.match_hashes(prefix, _LISTED + 1)
    if not matches:
        raise NotFound(f"no run has a hash that begins with {prefix!r} in {repo.path}; 'aimlite ls' lists them")
    if len(matches) > 1:
        shown = ", ".join(matches[:_LISTED]) + (", …" if len(matches) > _LISTED else "")
        raise Ambiguous(f"several runs have a hash that begins with {prefix!r}: {shown}; give more of it")
    run = repo.get_run(matches[0])
    assert run is not None
    return run


class Incomplete(click.ClickException):
    """What was printed may lack runs: the beginning of one may have been where a journal is damaged."""

    exit_code = DAMAGED


@contextlib.contextmanager
def demanding_all_runs() -> Iterator[None]:
    """Within, what the SDK warns of is an error once all else is done: a script has to see by the exit code that runs may be missing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        yield
    if caught:
        raise Incomplete(f"{caught[0].message}; {HOW_TO_MEND}")


class Ambiguous(click.ClickException):
    """The beginning of a hash that several runs have."""

    exit_code = USAGE


class RunHash(click.ParamType[str]):
    """A hash, or the beginning of one."""

    name = "hash"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        try:
            with ctx.scope(), open_repo() as repo:
                return [CompletionItem(run_hash) for run_hash in repo.match_hashes(incomplete, 100)]
        except Exception:  # there is no place for a message in the middle of a line that somebody types
            return []


hash_argument = click.argument("prefix", metavar="HASH", type=RunHash())
