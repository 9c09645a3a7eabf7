"""`aimlite query`, `params`, `metrics`: what AimQL finds, and what there is to ask for."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import click

from aimlite.capture import SYSTEM_PARAMS
from aimlite.cli.group import Command
from aimlite.cli.listing import complain, is_of_system, print_runs, rows_of, shortened
from aimlite.cli.output import Column, is_terminal, json_option, print_json, print_lines, print_table, status, warn
from aimlite.cli.repos import demanding_all_runs, open_repo
from aimlite.cli.showing import SHOWN_METRICS, charts, leaves, metric_cells, metric_summary, metric_texts
from aimlite.cli.text import clean, json_text, path_text

if TYPE_CHECKING:
    from aimlite.errors import CorruptionError
    from aimlite.sdk.metric import Metric

_WORD = re.compile(r"(.*?)((?:\b(?:run|metric)\.[\w.]*)?)", re.DOTALL)


class Expression(click.ParamType[str]):
    """Some AimQL. Its last word is completed: properties, params, attributes of metrics."""

    name = "expression"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        from aimlite.query.names import RUN_PROPERTIES, SEQUENCE_ATTRIBUTES

        found = _WORD.fullmatch(incomplete)
        if found is None or not (found[2] or "run.".startswith(incomplete) or "metric.".startswith(incomplete)):
            return []
        before, word = (found[1], found[2]) if found[2] else ("", incomplete)
        known = [f"run.{name}" for name in (*RUN_PROPERTIES, "metrics")] + [f"metric.{name}" for name in SEQUENCE_ATTRIBUTES]
        try:
            with ctx.scope(), open_repo() as repo:
                paths = (path for path, _ in _types(repo.collect_params_info()))
                known += [f"run.{'.'.join(path)}" for path in paths if all(isinstance(key, str) and key.isidentifier() for key in path)]
        except Exception:  # there is no place for a message in the middle of a line that somebody types
            return []
        return [CompletionItem(before + name) for name in known if name.startswith(word)]


@click.command("query", cls=Command)
@click.argument("query", type=Expression(), default="")
@click.option("--metrics", "of_metrics", is_flag=True, help="Find metrics, and not runs.")
@click.option("--order-by", type=Expression(), metavar="EXPR", help="Order by an AimQL expression, upwards. Default: newest run first.")
@click.option("--descending", is_flag=True, help="With --order-by: downwards.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N runs or metrics.")
@click.option("--timeout", type=click.FloatRange(0, 1e6, min_open=True), default=10.0, metavar="SECONDS", help="Give up then; 10.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a head; of runs, also their params.")
@click.option("--plot", is_flag=True, help="Draw the metrics that match; takes --metrics for granted.")
@click.option("--explain", is_flag=True, help="Tell how the query was run, and not what it found.")
@json_option
@demanding_all_runs()
def query(
    query: str,
    of_metrics: bool,
    order_by: str | None,
    descending: bool,
    limit: int | None,
    timeout: float,
    as_csv: bool,
    plot: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Find runs, or metrics, by an AimQL expression.

    QUERY is true for what is wanted: "run.hparams.lr < 0.1 and run.metrics.loss.last < 1". Without it everything is.
    """
    if as_csv + plot + explain + as_json > 1:
        raise click.UsageError("--csv, --plot, --explain and --json exclude each other")
    if descending and order_by is None:
        raise click.UsageError("--descending goes with --order-by")
    if timeout != timeout:
        raise click.BadParameter("nan is no number of seconds", param_hint="'--timeout'")
    from aimlite.sdk.report import QueryReportMode

    damaged: dict[str, CorruptionError] = {}
    with open_repo() as repo:
        repo = repo.frozen()
        asked = repo.query_metrics if of_metrics or plot else repo.query_runs
        found = asked(query, report_mode=QueryReportMode.DISABLED, order_by=order_by, descending=descending, limit=limit, timeout=timeout)
        if explain:
            with status("querying"):
                told = found.explain().split("\n")
            click.echo("\n".join(map(clean, told[: len(told) - len(found.warnings)])))
        elif of_metrics or plot:
            with status("querying"):
                matched = cast("list[Metric]", list(found))
            _print_metrics(matched, as_csv, plot, as_json)
        else:
            with status("querying"):
                rows = list(rows_of((each.run for each in found), damaged, with_params=as_csv or as_json))
            _print_runs(rows, as_csv, as_json)
    for warning in found.warnings:
        warn(warning, as_json)
    complain({**found.damaged, **damaged})


def _print_runs(rows: Sequence[dict[str, Any]], as_csv: bool, as_json: bool) -> None:
    if as_csv:
        _print_csv([{**_csv_cells(row), **_param_cells(row["params"])} for row in rows], ("hash",))
    elif rows or as_json or not is_terminal():
        print_runs(rows, as_json)
    else:
        click.echo("no run matches", err=True)


def _csv_cells(row: dict[str, Any]) -> dict[str, Any]:
    return {key: ",".join(value) if key == "tags" else value for key, value in row.items() if key != "params"}


def _param_cells(params: dict[Any, Any]) -> dict[str, Any]:
    """A column for each param, as the command line writes its path after `run.`; what is not plain as JSON."""
    return {
        f"run.{path_text(path)}": value if isinstance(value, str | int | float) or value is None else json_text(value)
        for path, value in leaves(params, ())
    }


def _print_csv(rows: Sequence[dict[str, Any]], without_rows: Sequence[str]) -> None:
    columns = dict.fromkeys(name for row in rows for name in row) or dict.fromkeys(without_rows)
    shown = clean if is_terminal() else str
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(map(shown, columns))
    for row in rows:
        cells = (row.get(name) for name in columns)
        lines.writerow([shown(cell) if isinstance(cell, str) else "" if cell is None else cell for cell in cells])


def _print_metrics(metrics: Sequence[Metric], as_csv: bool, plot: bool, as_json: bool) -> None:
    short = shortened({metric.run.hash for metric in metrics}) if metrics else {}
    if as_json:
        print_json([{"run": metric.run.hash, **metric_summary(metric)} for metric in metrics])
    elif as_csv:
        summaries = ({"run": metric.run.hash, **metric_summary(metric)} for metric in metrics)
        _print_csv([{**row, "context": json_text(row["context"])} for row in summaries], ("run", "name", "context"))
    elif plot:
        for chart in charts(metrics, lambda metric: f"{short[metric.run.hash]} {json_text(metric.context.to_dict())}"):
            click.echo(chart)
    elif is_terminal() and metrics:
        print_table((Column("run", fixed=True), *SHOWN_METRICS), [[short[metric.run.hash], *metric_texts(metric)] for metric in metrics])
    else:
        print_lines([metric.run.hash, *metric_cells(metric)] for metric in metrics)
    if not metrics and is_terminal() and not (as_json or as_csv):
        click.echo("no metric matches", err=True)


@click.command("params", cls=Command)
@json_option
@demanding_all_runs()
def params(as_json: bool) -> None:
    """List the params that runs have, each with the type of one value; system params last."""
    with open_repo() as repo, status("reading the params"):
        found = sorted(_types(repo.collect_params_info()), key=lambda pair: pair[0][0] == SYSTEM_PARAMS)
    if as_json:
        print_json([{"path": list(path), "type": kind} for path, kind in found])
    else:
        _print_pairs(("param", "type"), ((path_text(path), kind) for path, kind in found), repo.path)


@click.command("metrics", cls=Command)
@json_option
@demanding_all_runs()
def metrics(as_json: bool) -> None:
    """List the metrics that runs have: names and contexts; system metrics last."""
    with open_repo() as repo, status("reading the metrics"):
        found = repo.collect_sequence_info("metric")["metric"]
    names = sorted(found, key=is_of_system)
    pairs = [(name, context) for name in names for context in found[name]]
    if as_json:
        print_json([{"name": name, "context": context} for name, context in pairs])
    else:
        _print_pairs(("metric", "context"), ((name, json_text(context)) for name, context in pairs), repo.path)


def _print_pairs(titles: tuple[str, str], pairs: Iterable[tuple[str, str]], path: str) -> None:
    rows = list(pairs)
    if not is_terminal():
        print_lines(rows)
    elif rows:
        print_table([Column(titles[0]), Column(titles[1])], rows)
    else:
        click.echo(f"no {titles[0]}s in {path}", err=True)


def _types(info: dict[Any, Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """(path, name of the type) of what `collect_params_info` gives."""
    for key, value in info.items():
        kind = value.get("__example_type__")
        if isinstance(kind, str):
            yield (*path, key), kind.removeprefix("<class '").removesuffix("'>")
            value = {inner: below for inner, below in value.items() if inner != "__example_type__"}
        yield from _types(value, (*path, key))
