"""`aimlite cp`, `mv`, `import`, `backup`, `restore-backup` and `close`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from aimlite.cli.deleting import confirm, hashes_argument, named, unique, yes_option
from aimlite.cli.group import Command, given_repo
from aimlite.cli.output import json_option, print_json, status
from aimlite.cli.repos import find_run, hash_argument, open_repo
from aimlite.cli.text import clean

to_option = click.option("--to", "dest", required=True, metavar="PATH", help="The repo that gets them; made if need be.")


@click.command("cp", cls=Command)
@hashes_argument
@to_option
@json_option
def cp(prefixes: Sequence[str], dest: str, as_json: bool) -> None:
    """Copy runs into another repo.

    They are the same there in all they hold.
    """
    with open_repo() as repo:
        hashes = unique(find_run(repo, prefix).hash for prefix in prefixes)
        with status("copying"):
            repo.copy_runs(hashes, dest)
    if as_json:
        print_json({"copied": hashes})
    else:
        click.echo(f"copied {named(hashes)} to {clean(dest)}")


@click.command("mv", cls=Command)
@hashes_argument
@to_option
@click.option("--force", is_flag=True, help="Also runs that a process is writing.")
@yes_option
@json_option
def mv(prefixes: Sequence[str], dest: str, force: bool, yes: bool, as_json: bool) -> None:
    """Move runs into another repo.

    They are deleted here for good, once what is there was compared with them.
    """
    with open_repo(to_change=True) as repo:
        hashes = unique(find_run(repo, prefix).hash for prefix in prefixes)
        confirm(f"Move {named(hashes)} to {dest}, and delete here?", yes)
        with status("moving"):
            repo.move_runs(hashes, dest, force=force)
    if as_json:
        print_json({"moved": hashes})
    else:
        click.echo(f"moved {named(hashes)} to {clean(dest)}")


@click.command("import", cls=Command)
@click.argument("archive", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@click.option("--skip-existing", is_flag=True, help="Pass over runs that are here already.")
@json_option
def import_runs(archive: str, skip_existing: bool, as_json: bool) -> None:
    """Take the runs of an archive, as 'export --archive' writes it."""
    with open_repo(to_change=True) as repo, status("importing"):
        hashes = repo.import_runs(archive, skip_existing=skip_existing)
    if as_json:
        print_json({"imported": hashes})
    else:
        click.echo(f"imported {named(hashes)}" if hashes else "there was nothing to import")


@click.command("backup", cls=Command)
@click.argument("path", metavar="PATH")
@json_option
def backup(path: str, as_json: bool) -> None:
    """Copy the whole repo into a directory.

    Others may write meanwhile. The copy is a repo, too.
    """
    with open_repo() as repo, status("copying the repo"):
        made = repo.backup(path)
    if as_json:
        print_json({"path": made})
    else:
        click.echo(f"made {clean(made)}")


@click.command("restore-backup", cls=Command)
@click.argument("path", metavar="BACKUP")
@json_option
def restore_backup(path: str, as_json: bool) -> None:
    """Make a repo of a backup, where --repo says, or here.

    The backup is checked first. Nothing is written over.
    """
    from aimlite.sdk.repo import Repo

    with status("checking and copying"):
        repo = Repo.restore_backup(path, given_repo() or ".")
    if as_json:
        print_json({"path": repo.path})
    else:
        click.echo(f"made {clean(repo.path)}")


@click.command("close", cls=Command)
@hash_argument
@click.option(
    "--status",
    "word",
    type=click.Choice(["finished", "failed", "interrupted"]),
    default="finished",
    help="How it ended.",
)
@json_option
def close(prefix: str, word: str, as_json: bool) -> None:
    """Say how a run ended whose process did not.

    A run whose process vanished is interrupted; nothing needs to be closed. HASH is the hash of a run, or as much of its beginning as no
    other has.
    """
    from aimlite.sdk.run import Run

    with open_repo(to_change=True) as repo:
        run_hash = find_run(repo, prefix).hash
        if find_run(repo, run_hash).active:
            raise click.ClickException(f"a process is writing run {run_hash}: it says itself how it ends")
        Run(run_hash, repo=repo, system_tracking_interval=None, capture_terminal_logs=False).finish(word)
    if as_json:
        print_json({"hash": run_hash, "status": word})
    else:
        click.echo(f"run {run_hash} is {word}")
