"""The command `aimlite`. Modules of commands import little; what is heavy they import when they run."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

import click

from aimlite import __version__
from aimlite.cli import about, archives, deleting, exporting, listing, logs, marking, moving, querying, settings, showing, upkeep
from aimlite.cli.group import Group


@click.group("aimlite", cls=Group)
@click.version_option(__version__, message="aimlite %(version)s")
def cli() -> None:
    """Look at what experiments have recorded, and keep the repo in order."""


for _command in (
    upkeep.init,
    listing.ls,
    showing.show,
    logs.logs,
    querying.query,
    querying.params,
    querying.metrics,
    exporting.export,
    moving.import_runs,
    moving.cp,
    moving.mv,
    moving.backup,
    moving.restore_backup,
    moving.close,
    archives.restore_code,
    archives.artifacts,
    marking.tag,
    marking.note,
    marking.archive,
    deleting.rm,
    deleting.restore,
    deleting.purge,
    deleting.prune,
    upkeep.check,
    upkeep.repair,
    upkeep.merge,
    upkeep.stats,
    settings.config,
    about.demo,
    about.completion,
    about.version,
):
    cli.add_command(_command)


def main() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # started with it closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale without the character must not end a listing
    cli.main()


if __name__ == "__main__":
    main()
