"""`aimlite version`, `completion` and `demo`: what needs no repo."""

from __future__ import annotations

import sys

import click

from aimlite import __version__
from aimlite.cli.group import COMPLETE_VARIABLE, Command, given_repo
from aimlite.cli.output import json_option, print_json


@click.command("version", cls=Command)
@json_option
def version(as_json: bool) -> None:
    """Print the version.

    With --json also those of what it stands on.
    """
    if not as_json:
        click.echo(f"aimlite {__version__}")
        return
    import platform
    from importlib.metadata import version as version_of

    python = platform.python_version()
    print_json({"aimlite": __version__, "python": python, "rocksdict": version_of("rocksdict"), "platform": platform.platform()})


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL.

    It completes commands, options and the hashes of runs.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "aimlite", COMPLETE_VARIABLE).source())


@click.command(
    "demo",
    cls=Command,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
    options_metavar="[OPTIONS OF THE DEMO]",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> None:
    """Train eight small networks into a repo."""
    from aimlite.demo.__main__ import main

    repo = given_repo()
    sys.stdout.flush()
    main([*(["--repo", repo] if repo else []), *arguments], "aimlite demo")
