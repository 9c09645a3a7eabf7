"""`aimlite restore-code` and `aimlite artifacts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from aimlite.cli.group import Command, NotFound
from aimlite.cli.output import Column, is_terminal, json_option, print_json, print_lines, print_table, status
from aimlite.cli.repos import find_run, hash_argument, open_repo
from aimlite.cli.text import clean
from aimlite.errors import CorruptionError

if TYPE_CHECKING:
    from aimlite.sdk.artifacts import Artifact

_SHOWN = (Column("artifact"), Column("bytes", right=True, fixed=True), Column("state", 2, fixed=True), Column("uri", 1, claim=24))


@click.command("restore-code", cls=Command)
@hash_argument
@click.argument("destination", metavar="DEST")
@click.option("--overwrite", is_flag=True, help="Replace files that are in the way.")
@json_option
def restore_code(prefix: str, destination: str, overwrite: bool, as_json: bool) -> None:
    """Write the code that a run has archived below the directory DEST.

    HASH is the hash of a run, or as much of its beginning as no other has.
    """
    with open_repo() as repo:
        run = find_run(repo.frozen(), prefix)
        try:
            place = run.restore_code(destination, overwrite=overwrite)
        except KeyError as error:
            raise NotFound(error.args[0]) from None
        except FileExistsError as error:
            raise click.ClickException(str(error)) from None
        files = run["code", "files"]
        if as_json:
            print_json({"run": run.hash, "path": str(place), "files": files})
        else:
            click.echo(f"restored {files} file{'' if files == 1 else 's'} to {clean(str(place))}")


@click.command("artifacts", cls=Command)
@hash_argument
@click.argument("action", metavar="[download NAME DEST]", nargs=-1)
@click.option("--overwrite", is_flag=True, help="Replace a file that is in the way.")
@click.option(
    "--trust-uri",
    metavar="URI",
    help="Download from this URI, which somebody else named; deleting the run for good may remove its files there, too.",
)
@json_option
def artifacts(prefix: str, action: Sequence[str], overwrite: bool, trust_uri: str | None, as_json: bool) -> None:
    """List the artifacts of a run, or download one below the directory DEST.

    HASH is the hash of a run, or as much of its beginning as no other has.
    """
    if action and (action[0] != "download" or len(action) != 3):
        raise click.UsageError(f"after HASH comes nothing, or 'download NAME DEST', not {' '.join(action)!r}")
    with open_repo() as repo:
        run = find_run(repo.frozen(), prefix)
        held = run.artifacts
        if not action:
            _list([held[name] for name in sorted(held)], as_json)
            return
        if action[1] not in held:
            raise NotFound(f"run {run.hash} has no artifact {action[1]!r}; 'aimlite artifacts {run.hash}' lists them")
        try:
            with status(f"downloading {clean(action[1])}"):
                path = held[action[1]].download(action[2], overwrite=overwrite, trust_uri=trust_uri)
        except CorruptionError:
            raise
        except (FileExistsError, ImportError, ValueError) as error:
            raise click.ClickException(str(error)) from None
        if as_json:
            print_json({**_described(held[action[1]]), "path": path})
        else:
            click.echo(clean(path))


def _list(held: Sequence[Artifact], as_json: bool) -> None:
    if as_json:
        print_json([_described(artifact) for artifact in held])
        return
    rows = [[artifact.name, str(artifact.size), "pending" if artifact.pending else "stored", artifact.uri] for artifact in held]
    if not is_terminal():
        print_lines([[*row, artifact.hash] for row, artifact in zip(rows, held, strict=True)])
    elif rows:
        print_table(_SHOWN, rows)


def _described(artifact: Artifact) -> dict[str, Any]:
    return {name: getattr(artifact, name) for name in ("name", "path", "uri", "size", "hash", "pending")}
