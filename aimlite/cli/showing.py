"""`aimlite show`."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from aimlite.capture import SYSTEM_PARAMS
from aimlite.cli.group import Command, NotFound
from aimlite.cli.listing import describe, is_of_system
from aimlite.cli.output import Column, console, is_terminal, json_option, print_json, print_lines, print_table, width
from aimlite.cli.repos import find_run, hash_argument, open_repo
from aimlite.cli.text import clean, duration_text, json_text, local_time, path_text

if TYPE_CHECKING:
    from rich.tree import Tree

    from aimlite.sdk.metric import Metric
    from aimlite.sdk.object_sequences import ObjectSequence

Path = tuple[Any, ...]

SHOWN_METRICS = (
    Column("metric"),
    Column("context", 1, claim=24),
    Column("count", 4, right=True, fixed=True),
    Column("first step", 6, right=True, fixed=True),
    Column("last step", 5, right=True, fixed=True),
    Column("last", right=True, fixed=True),
    Column("min", 2, right=True, fixed=True),
    Column("max", 3, right=True, fixed=True),
)
SHOWN_OBJECTS = (
    Column("objects"),
    Column("name"),
    Column("context", 1, claim=24),
    Column("count", 4, right=True, fixed=True),
    Column("first step", 6, right=True, fixed=True),
    Column("last step", 5, right=True, fixed=True),
    Column("a step", 2, right=True, fixed=True),
)
_LONGEST_PARAM = 200
_FOLDED = frozenset({("env_variables",), ("packages",), ("git_info", "diff")})  # of the system params
_CURVES = 8  # in one chart: it has as many colours
_NARROWEST = 32


@click.command("show", cls=Command)
@hash_argument
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--plot", is_flag=True, help="Draw the metrics, as wide as the terminal.")
@click.option("--system", is_flag=True, help="In a terminal and in charts: system metrics and long system params too.")
@json_option
def show(prefix: str, names: Sequence[str], plot: bool, system: bool, as_json: bool) -> None:
    """Show a run: properties, params, metrics, objects.

    With NAMEs only the metrics and objects of these names. In a terminal the system metrics and the long ones of the system params are left
    out.

    HASH is the hash of a run, or as much of its beginning as no other has.
    """
    from aimlite.sdk.object_sequences import sequences_of

    with open_repo() as repo:
        run = find_run(repo.frozen(), prefix)
        metrics = sorted(
            (metric for metric in run.metrics() if not names or metric.name in names), key=lambda each: is_of_system(each.name)
        )
        asked_for = [metric for metric in metrics if system or names or not is_of_system(metric.name)]
        objects = [sequence for sequence in sequences_of(run) if not names or sequence.name in names]
        missing = set(names) - {sequence.name for sequence in (*metrics, *objects)}
        if missing:
            has = ", ".join(sorted({sequence.name for sequence in (*run.metrics(), *sequences_of(run))})) or "none"
            raise NotFound(f"run {run.hash} has no metric {', '.join(map(repr, sorted(missing)))}; it has {has}")
        properties = {**describe(run), "description": run.description, "notes": [note.text for note in run.notes], "error": run.error}
        if as_json:
            print_json(
                {
                    **properties,
                    "params": run[...],
                    "metrics": [metric_summary(metric) for metric in metrics],
                    "objects": [object_summary(sequence) for sequence in objects],
                }
            )
        elif is_terminal():
            if not names:
                _show_properties(properties)
                _show_params(run[...], system)
            _show_metrics(asked_for)
            if len(asked_for) < len(metrics):
                click.echo(f"\nand {len(metrics) - len(asked_for)} system metrics: --system shows them")
            if objects:
                click.echo()
                print_table(SHOWN_OBJECTS, [object_cells(sequence) for sequence in objects])
        else:
            if not names:
                print_lines([(name, _plain(value)) for name, value in properties.items() if value not in (None, [])])
                _print_params(run[...])
                click.echo("\n" if metrics else "", nl=False)
            print_lines(metric_cells(metric) for metric in metrics)
            click.echo("\n" if objects and (metrics or not names) else "", nl=False)
            print_lines(object_cells(sequence) for sequence in objects)
        if plot and not as_json:
            for chart in charts(asked_for, lambda metric: json_text(metric.context.to_dict())):
                click.echo(f"\n{chart}")


def _plain(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else value if isinstance(value, str) else json_text(value)


def _show_properties(properties: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    shown = {
        "hash": properties["hash"],
        "name": "" if properties["name"] == f"Run: {properties['hash']}" else properties["name"],
        "experiment": properties["experiment"],
        "status": properties["status"] + (", archived" if properties["archived"] else ""),
        "created": local_time(properties["creation_time"]),
        "ended": "" if properties["end_time"] is None else local_time(properties["end_time"]),
        "duration": duration_text(properties["duration"]),
        "tags": ", ".join(properties["tags"]),
        "description": properties["description"] or "",
        "error": "" if properties["error"] is None else f"{properties['error']['type']}: {properties['error']['message']}",
        "notes": "\n\n".join(properties["notes"]),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in shown.items():
        if value:
            table.add_row(name, Text("\n".join(map(clean, value.split("\n") if name in ("description", "error", "notes") else [value]))))
    console().print(table)


def _show_params(params: dict[Any, Any], system: bool) -> None:
    of_system = params.get(SYSTEM_PARAMS)
    if isinstance(of_system, dict):
        params = {key: value for key, value in params.items() if key != SYSTEM_PARAMS}
    _show_tree("params", params)
    if isinstance(of_system, dict):
        _show_tree("system params", of_system, frozenset() if system else _FOLDED)


def _show_tree(title: str, params: dict[Any, Any], folded: Container[Path] = ()) -> None:
    if params:
        from rich.tree import Tree

        tree = Tree(title, style="none", guide_style="dim")
        _grow(tree, params, folded)
        console().print()
        console().print(tree)


def _grow(tree: Tree, params: dict[Any, Any], folded: Container[Path], path: Path = ()) -> None:
    """folded: the paths of what is shown by its size."""
    from rich.text import Text

    for key, value in sorted(params.items(), key=_by_key):
        label = Text(path_text((key,)))
        if (*path, key) in folded and isinstance(value, str | dict | list) and value:
            size = f"{value.count(chr(10))} lines" if isinstance(value, str) else f"{len(value)} of them"
            tree.add(label.append(f": {size}, --system shows them", "dim"))
        elif isinstance(value, dict) and value:
            _grow(tree.add(label), value, folded, (*path, key))
        else:
            text = json_text(value)
            label.append(" = ", "dim").append(text if len(text) <= _LONGEST_PARAM else text[:_LONGEST_PARAM] + "…")
            tree.add(label)


def _print_params(params: dict[Any, Any]) -> None:
    click.echo("\n" if params else "", nl=False)
    for path, value in leaves(params, ()):
        click.echo(f"{path_text(path)} = {json_text(value)}")


def leaves(params: dict[Any, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    for key, value in sorted(params.items(), key=_by_key):
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _by_key(item: tuple[Any, Any]) -> tuple[bool, Any]:
    return isinstance(item[0], str), item[0]


def _show_metrics(metrics: Sequence[Metric]) -> None:
    if metrics:
        click.echo()
        print_table(SHOWN_METRICS, [metric_texts(metric) for metric in metrics])


def metric_texts(metric: Metric) -> list[str]:
    """For people."""
    return [*metric_cells(metric)[:5], *(f"{value:.6g}" for value in (metric.last, metric.min, metric.max))]


def metric_cells(metric: Metric) -> list[str]:
    """For a program: in the order of `SHOWN_METRICS`, whole."""
    steps = [str(number) for number in (metric.count, metric.first_step, metric.last_step)]
    return [metric.name, json_text(metric.context.to_dict()), *steps, *(repr(value) for value in (metric.last, metric.min, metric.max))]


def metric_summary(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "context": metric.context.to_dict(),
        **{name: getattr(metric, name) for name in ("dtype", "count", "first_step", "last_step", "first", "last", "min", "max")},
    }


def object_cells(sequence: ObjectSequence) -> list[str]:
    """In the order of `SHOWN_OBJECTS`."""
    numbers = (sequence.count, sequence.first_step, sequence.last_step, sequence.record_length())
    return [sequence._kind, sequence.name, json_text(sequence.context.to_dict()), *map(str, numbers)]


def object_summary(sequence: ObjectSequence) -> dict[str, Any]:
    from aimlite.sdk.object_sequences import info

    told = info(sequence, False)
    return {"kind": sequence._kind, "name": told["name"], "context": told["context"], **told["values"]}


def charts(metrics: Sequence[Metric], label: Callable[[Metric], str]) -> Iterator[str]:
    """A chart for each name, with a curve for each metric; another one for more than there are colours."""
    from aimlite.terminal.chart import Curve, chart

    columns = max(width(), _NARROWEST)
    for name in dict.fromkeys(metric.name for metric in metrics):
        curves = []
        for metric in metrics:
            if metric.name == name:
                steps, values = metric.values.sample(8 * columns)
                curves.append(Curve(label(metric), steps.tolist(), values.tolist()))
        for first in range(0, len(curves), _CURVES):
            try:
                yield chart(curves[first : first + _CURVES], title=clean(name), x_label="step", width=columns, colour=is_terminal())
            except ValueError:
                yield f"{clean(name)}: no value that can be drawn"
