"""`aimlite restore-code`."""

from __future__ import annotations

import click

from aimlite.cli.group import Command, NotFound
from aimlite.cli.output import json_option, print_json
from aimlite.cli.repos import find_run, hash_argument, open_repo
from aimlite.cli.text import clean


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
