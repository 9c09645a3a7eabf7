"""`aimlite config`."""

from __future__ import annotations

import click

from aimlite.cli.group import FAILED, Group
from aimlite.cli.output import json_option, print_json, print_lines
from aimlite.cli.text import clean
from aimlite.storage.config import config_path, demand_key, read_config, write_config


@click.group("config", cls=Group)
def config() -> None:
    """Settle things for this user.

    There is one KEY: repo, the repo where neither the call nor AIMLITE_REPO names one.
    """


@config.command("get")
@click.argument("key")
@json_option
@click.pass_context
def get(context: click.Context, key: str, as_json: bool) -> None:
    """Print the value of a KEY. The exit code is 1 when it is not set."""
    demand_key(key)
    value = read_config().get(key)
    if as_json:
        print_json({key: value})
    elif value is not None:
        click.echo(clean(value))
    if value is None:
        context.exit(FAILED)


@config.command("set")
@click.argument("key")
@click.argument("value")
def set_(key: str, value: str) -> None:
    """Set a KEY to a VALUE. A path is kept absolute."""
    write_config(key, value)


@config.command("unset")
@click.argument("key")
def unset(key: str) -> None:
    """Take a KEY out."""
    write_config(key, None)


@config.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Print all that is set."""
    held = read_config()
    if as_json:
        print_json(held)
    else:
        print_lines((key, str(value)) for key, value in held.items())


@config.command("path")
@json_option
def path(as_json: bool) -> None:
    """Print where the file is, or would be."""
    if as_json:
        print_json({"path": str(config_path())})
    else:
        click.echo(clean(str(config_path())))
