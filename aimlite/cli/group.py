"""What every command has: `--repo`, `--debug`, errors as one line, and the exit codes.

A command prints and returns; whatever goes wrong it raises. `Group.main` is the one place that turns that into a line and a code.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from aimlite.cli.text import clean, pointed
from aimlite.errors import CorruptionError, QuerySyntaxError, RunNotFound

DONE, FAILED, USAGE, NOT_FOUND, DAMAGED, INTERRUPTED = 0, 1, 2, 3, 4, 130
COMPLETE_VARIABLE = "_AIMLITE_COMPLETE"
HOW_TO_MEND = "'aimlite check' lists all that is wrong, 'aimlite repair' keeps what is intact"
_REPO = "aimlite.repo"


class NotFound(click.ClickException):
    """A repo or a run that is not there."""

    exit_code = NOT_FOUND


class Command(click.Command):
    """A command with the options that all have."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params += _common_options()


class Group(click.Group):
    """The commands, and what becomes of their errors."""

    command_class = Command
    group_class = type

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params += _common_options()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # as they were added, not by the alphabet

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any) -> NoReturn:
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            code = self._run(arguments, prog_name or "aimlite", extra)
            sys.stdout.flush()
        except BrokenPipeError:  # who reads had enough
            code = DONE
        except BaseException as error:
            if "--debug" in arguments and not isinstance(error, click.ClickException | SystemExit):
                raise
            code = _report(error, as_json="--json" in arguments)
        _end_output()
        sys.exit(code)

    def _run(self, arguments: list[str], name: str, extra: dict[str, Any]) -> int:
        instruction = os.environ.get(COMPLETE_VARIABLE)
        if instruction:
            from click.shell_completion import shell_complete

            return shell_complete(self, extra, name, COMPLETE_VARIABLE, instruction)
        try:
            with self.make_context(name, arguments, **extra) as context:
                self.invoke(context)
        except click.exceptions.Exit as ended:
            return ended.exit_code
        return DONE


def _common_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--repo"],
            metavar="PATH",
            expose_value=False,
            callback=_keep_repo,
            help="The repo; else AIMLITE_REPO, what `config set repo` said, the nearest .aimlite upwards.",
        ),
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Show where in the code an error came from."),
    ]


def _keep_repo(context: click.Context, _: click.Parameter, path: str | None) -> None:
    """`--repo` may stand before the command or after it; the latter counts."""
    if path == "":
        raise click.BadParameter("a path is not empty")
    if path is not None:
        context.meta[_REPO] = path


def given_repo() -> str | None:
    """What `--repo` says."""
    path: str | None = click.get_current_context().meta.get(_REPO)
    return path


def _report(error: BaseException, as_json: bool) -> int:
    """Prints an error to stderr; returns the exit code that it stands for."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return USAGE
    code, kind, message = _code(error), type(error).__name__, " ".join(_message(error).split("\n"))
    if as_json:
        text = json.dumps({"error": {"kind": kind, "message": message, "exit_code": code}})
    else:
        text = "\n".join([f"error: {clean(message)}", *(_place(error) if isinstance(error, QuerySyntaxError) else ())])
    with contextlib.suppress(BrokenPipeError):
        print(text, file=sys.stderr)
    return code


def _place(error: QuerySyntaxError) -> list[str]:
    line, begin = error.text or "", error.offset or 1
    return pointed(line, begin, error.end_offset or begin if error.end_lineno == error.lineno else len(line) + 1)


def _code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt | click.Abort | EOFError):
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, QuerySyntaxError):
        return USAGE
    if isinstance(error, RunNotFound):
        return NOT_FOUND
    return DAMAGED if isinstance(error, CorruptionError) else FAILED


def _message(error: BaseException) -> str:
    from aimlite.errors import AimliteError

    if isinstance(error, KeyboardInterrupt | click.Abort | EOFError):
        return "interrupted"
    if isinstance(error, click.UsageError):
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        return error.format_message() + hint
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, CorruptionError):
        return f"{error}; {HOW_TO_MEND}"
    if isinstance(error, QuerySyntaxError):
        return error.msg
    if isinstance(error, AimliteError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error} (--debug shows where)"


def _end_output() -> None:
    """What cannot be written is given up: when the interpreter ends it would be tried again, and fail with a message of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
