"""`aimlite ls`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import islice, pairwise
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

import click

from aimlite.capture import SYSTEM_METRICS
from aimlite.cli.group import Command
from aimlite.cli.output import Column, is_terminal, json_option, print_json, print_lines, print_table, status, warn
from aimlite.cli.repos import demanding_all_runs, open_repo
from aimlite.cli.text import duration_text, iso, local_time
from aimlite.errors import CorruptionError

if TYPE_CHECKING:
    from aimlite.sdk.run import Run

STATUSES = ("running", "finished", "failed", "interrupted")
STYLES = {"running": "cyan", "failed": "red", "interrupted": "yellow"}
_SHORTEST = 12
_COLUMNS = (
    Column("hash", fixed=True),
    Column("name", 1),
    Column("experiment", 6),
    Column("status", 2, fixed=True),
    Column("created", 4, fixed=True),
    Column("duration", 5, right=True, fixed=True),
    Column("tags", 7),
    Column("metrics", 3, right=True, fixed=True),
)
_TITLES = [column.title for column in _COLUMNS]
_KEYS = {"created": "creation_time", "metrics": "metric_count"}  # where they differ from the titles

Row = dict[str, Any]


@click.command("ls", cls=Command)
@click.option("--sort", type=click.Choice(_TITLES), default="created", help="The column to order by. Default: created, newest first.")
@click.option("--reverse", is_flag=True, help="Turn the order round.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N runs.")
@click.option("--experiment", "experiments", multiple=True, metavar="NAME", help="Only runs of this experiment; repeated: of any of these.")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only runs in this status; repeated: in any of these."
)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only runs with this tag; repeated: with all of these.")
@click.option("--stalled", is_flag=True, help="Only runs that run, but have kept silent for longer than they said.")
@click.option("--archived", is_flag=True, help="Archived runs too.")
@click.option("--query", metavar="AIMQL", help="Only runs that an AimQL expression matches.")
@click.option("--trash", is_flag=True, help="What is in the trash instead, the last put there first.")
@json_option
@demanding_all_runs()
def ls(
    sort: str,
    reverse: bool,
    limit: int | None,
    experiments: Sequence[str],
    statuses: Sequence[str],
    tags: Sequence[str],
    stalled: bool,
    archived: bool,
    query: str | None,
    trash: bool,
    as_json: bool,
) -> None:
    """List the runs, newest first."""
    if trash:
        if query is not None or archived or statuses or tags or experiments or sort != "created":
            raise click.UsageError("--trash goes with --limit, --reverse and --json alone")
        list_trash(limit, reverse, as_json)
        return
    if archived and query is not None:
        raise click.UsageError("--archived and --query exclude each other: say 'run.archived in (True, False)' in the query")
    from aimlite.sdk.report import QueryReportMode

    damaged: dict[str, CorruptionError] = {}

    def wanted(run: Run) -> bool:
        return (
            (archived or query is not None or not run.archived)
            and (not experiments or run.experiment in experiments)
            and (not statuses or run.status in statuses)
            and (not tags or set(tags) <= set(run.tags))
            and (not stalled or run.stalled)
        )

    with open_repo() as repo, status("reading the runs"):
        found = None if query is None else repo.frozen().query_runs(query, report_mode=QueryReportMode.DISABLED)
        runs: Iterable[Run] = repo.frozen().iter_runs() if found is None else (each.run for each in found)
        chosen = rows_of((reversed(list(runs)) if reverse else runs) if sort == "created" else runs, damaged, wanted=wanted)
        if sort == "created":
            rows = list(islice(chosen, limit))
        else:
            rows = sorted(chosen, key=lambda row: _key(row, sort), reverse=reverse)[:limit]
    print_runs(rows, as_json)
    if not rows and not damaged and is_terminal() and not as_json:
        click.echo(f"no runs {'like that ' if experiments or statuses or tags or stalled or query else ''}in {repo.path}", err=True)
    for warning in found.warnings if found is not None else ():
        warn(warning, as_json)
    complain(damaged)


def list_trash(limit: int | None, reverse: bool, as_json: bool) -> None:
    with open_repo() as repo:
        runs = repo.trash()
    rows = [
        {
            "hash": run.hash,
            "name": run.name,
            "experiment": run.experiment,
            "created_at": iso(_seconds(run.created_at)),
            "trashed_at": iso(_seconds(run.trashed_at)),
        }
        for run in (reversed(runs) if reverse else runs)
    ][:limit]
    if as_json:
        print_json(rows)
    elif not is_terminal():
        print_lines([[str(cell) for cell in row.values()] for row in rows])
    elif rows:
        titles = (Column("hash", fixed=True), Column("name", 1), Column("experiment", 3), Column("created", 2, fixed=True))
        texts = [
            [run.hash, run.name, run.experiment, *(local_time(_seconds(at)) for at in (run.created_at, run.trashed_at))]
            for row, run in zip(rows, reversed(runs) if reverse else runs, strict=False)
        ]
        print_table((*titles, Column("in the trash since", fixed=True)), texts)
    else:
        click.echo(f"the trash of {repo.path} is empty", err=True)


def _seconds(at: datetime) -> float:
    return at.replace(tzinfo=timezone.utc).timestamp()


def print_runs(rows: Sequence[Row], as_json: bool) -> None:
    if as_json:
        print_json(rows)
    elif not is_terminal():
        print_lines(map(_cells, rows))
    elif rows:
        short = shortened(row["hash"] for row in rows)
        print_table(_COLUMNS, [_texts(row, short[row["hash"]]) for row in rows], lambda cell: STYLES.get(cell, ""))


def complain(damaged: dict[str, CorruptionError]) -> None:
    """Raises what says which runs were left out, if some were."""
    if damaged:
        run_hash, error = next(iter(damaged.items()))
        left_out = f"{len(damaged)} runs, {run_hash} first, are" if len(damaged) > 1 else f"run {run_hash} is"
        raise CorruptionError(f"{left_out} left out, being damaged: {error.message}", error.path, error.offset)


def rows_of(
    runs: Iterable[Run], damaged: dict[str, CorruptionError], with_params: bool = False, wanted: Callable[[Run], bool] = lambda run: True
) -> Iterator[Row]:
    """The rows of runs as far as they can be read; of others what keeps them from it goes to `damaged`."""
    for run in runs:
        try:
            if wanted(run):
                yield {**describe(run), **({"params": run[...]} if with_params else {})}
        except CorruptionError as error:
            damaged[run.hash] = error


def _key(row: Row, column: str) -> Any:
    value = row[_KEYS.get(column, column)]
    return value.casefold() if isinstance(value, str) else value


def _cells(row: Row) -> list[str]:
    """For a program: whole, times in ISO 8601, durations in seconds."""
    times = [row["created_at"], f"{row['duration']:.6f}"]
    return [row["hash"], row["name"], row["experiment"], row["status"], *times, ",".join(row["tags"]), str(row["metric_count"])]


def _texts(row: Row, short: str) -> list[str]:
    """For people."""
    name = "" if row["name"] == f"Run: {row['hash']}" else row["name"]
    times = [local_time(row["creation_time"]), duration_text(row["duration"])]
    return [short, name, row["experiment"], row["status"], *times, ", ".join(row["tags"]), str(row["metric_count"])]


def describe(run: Run) -> dict[str, Any]:
    """The properties of a run for a JSON document. object_count: sequences of objects."""
    from aimlite.sdk.object_sequences import sequences_of

    created, end = run.creation_time, run.end_time
    return {
        "hash": run.hash,
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status,
        "stalled": run.stalled,
        "archived": run.archived,
        "tags": run.tags,
        "created_at": iso(created),
        "creation_time": created,
        "updated_at": iso(run.updated_at.replace(tzinfo=timezone.utc).timestamp()),
        "finalized_at": iso(end),
        "end_time": end,
        "duration": round(run.duration, 6),
        "metric_count": sum(not is_of_system(metric.name) for metric in run.metrics()),
        "object_count": len(sequences_of(run)),
    }


def is_of_system(name: str) -> bool:
    """Whether this is the name of a metric that the run recorded by itself."""
    return name.startswith(SYSTEM_METRICS)


def shortened(hashes: Iterable[str]) -> dict[str, str]:
    """Of each hash as much as tells it from the others, at least 12 characters."""
    ordered = sorted(hashes)
    common = [len(commonprefix(pair)) for pair in pairwise(ordered)]  # noqa: RUF071 - characters are meant
    return {
        run_hash: run_hash[: max(_SHORTEST, before + 1, after + 1)]
        for run_hash, before, after in zip(ordered, [0, *common], [*common, 0], strict=True)
    }
