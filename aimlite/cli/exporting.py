"""`aimlite export`: the points of a run as a table, in pieces, so that memory does not grow with their number."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from aimlite.cli.deleting import unique
from aimlite.cli.group import Command, NotFound
from aimlite.cli.output import progress, status
from aimlite.cli.repos import RunHash, find_run, open_repo
from aimlite.cli.text import clean, json_text
from aimlite.storage.files import remove_stale_parts

if TYPE_CHECKING:
    from aimlite.sdk.metric import Metric

COLUMNS = ("name", "context", "step", "value", "epoch", "time")
_GROUP_ROWS = 1 << 17  # rows of Parquet that are written at once


@click.command("export", cls=Command)
@click.argument("prefixes", metavar="HASH...", nargs=-1, type=RunHash())
@click.option("--csv", "as_csv", is_flag=True, help="As CSV (the default).")
@click.option("--parquet", "as_parquet", is_flag=True, help="As Parquet; needs -o, and pyarrow.")
@click.option("--archive", "as_archive", is_flag=True, help="Whole runs, for 'aimlite import'; needs -o.")
@click.option("--all", "takes_all", is_flag=True, help="With --archive: all runs.")
@click.option("-o", "--output", metavar="FILE", help="Where to; CSV goes to standard output without it, or with '-'.")
@click.option("--metric", "names", multiple=True, metavar="NAME", help="Only the metrics of this name; repeated: of any of these.")
@click.option("--objects", "folder", metavar="DIR", help="Write images, audio, texts, distributions, figures as files into a folder.")
def export(
    prefixes: Sequence[str],
    as_csv: bool,
    as_parquet: bool,
    as_archive: bool,
    takes_all: bool,
    output: str | None,
    names: Sequence[str],
    folder: str | None,
) -> None:
    """Write the points of a run as a table, or whole runs as an archive.

    The columns of the table are name, context, step, value, epoch and time. With --objects, its objects instead, each as a file.

    HASH is the hash of a run, or as much of its beginning as no other has.
    """
    if as_csv and as_parquet:
        raise click.UsageError("--csv and --parquet exclude each other")
    if as_archive:
        if as_csv or as_parquet or names or folder is not None:
            raise click.UsageError("--archive goes with --all and -o alone")
        _export_archive(prefixes, takes_all, output)
        return
    if takes_all or len(prefixes) != 1:
        raise click.UsageError("one HASH is exported as a table; --archive takes several, or --all")
    (prefix,) = prefixes
    if folder is not None:
        if as_csv or as_parquet or output is not None:
            raise click.UsageError("--objects writes files; it excludes --csv, --parquet and -o")
        _export_objects(prefix, names, Path(folder))
        return
    if as_parquet:
        if output in (None, "-"):
            raise click.UsageError("Parquet is not text: name a file with -o FILE")
        _demand_pyarrow()
    with open_repo() as repo:
        run = find_run(repo.frozen(), prefix)
        metrics = [metric for metric in run.metrics() if not names or metric.name in names]
        missing = set(names) - {metric.name for metric in metrics}
        if missing:
            raise NotFound(f"run {run.hash} has no metric {', '.join(map(repr, sorted(missing)))}; 'aimlite show {run.hash}' lists them")
        write = write_parquet if as_parquet else write_csv
        if output in (None, "-"):
            write_csv(sys.stdout, metrics, lambda done: None)
            return
        with _replaced(Path(output)) as file, progress("exporting", sum(metric.count for metric in metrics)) as advance:
            write(file, metrics, advance)


def _export_archive(prefixes: Sequence[str], takes_all: bool, output: str | None) -> None:
    if output in (None, "-"):
        raise click.UsageError("an archive is not text: name a file with -o FILE")
    if takes_all == bool(prefixes):
        raise click.UsageError("--archive takes the HASHes of runs, or --all")
    if not Path(str(output)).parent.is_dir():
        raise click.UsageError(f"there is no directory {str(Path(str(output)).parent)!r} for -o {output!r}")
    with open_repo() as repo, status("exporting"):
        repo.export_runs(str(output), None if takes_all else unique(find_run(repo, prefix).hash for prefix in prefixes))


def _export_objects(prefix: str, names: Sequence[str], folder: Path) -> None:
    from aimlite.cli.object_files import write_objects
    from aimlite.sdk.object_sequences import sequences_of

    with open_repo() as repo:
        run = find_run(repo.frozen(), prefix)
        sequences = [sequence for sequence in sequences_of(run) if not names or sequence.name in names]
        missing = set(names) - {sequence.name for sequence in sequences}
        if missing:
            raise NotFound(f"run {run.hash} has no objects {', '.join(map(repr, sorted(missing)))}; 'aimlite show {run.hash}' lists them")
        count = write_objects(folder, sequences)
    click.echo(f"{count} objects in {clean(str(folder))}", err=True)


def write_csv(file: TextIO, metrics: Sequence[Metric], advance: Callable[[int], None]) -> None:
    import numpy as np

    from aimlite.sdk.pieces import pieces

    shown = clean if file.isatty() else str
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    for metric in metrics:
        name, context = shown(metric.name), json_text(metric.context.to_dict())
        for points in pieces(metric):
            epochs = ["" if epoch != epoch else epoch for epoch in points["epoch"].tolist()]
            times = [f"{time}+00:00" for time in np.datetime_as_string(points["time"].astype("<M8[us]")).tolist()]
            rows.writerows(
                zip(repeat(name), repeat(context), points["step"].tolist(), points["value"].tolist(), epochs, times, strict=False)
            )
            advance(len(points))


def write_parquet(file: TextIO, metrics: Sequence[Metric], advance: Callable[[int], None]) -> None:
    """epoch is null where none was given."""
    import pyarrow as pa
    from pyarrow import parquet

    from aimlite.sdk.pieces import pieces

    types = (pa.string(), pa.string(), pa.int64(), pa.float64(), pa.float64(), pa.timestamp("us", "UTC"))
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    with parquet.ParquetWriter(file.buffer, schema) as writer:
        batches: list[Any] = []
        for metric in metrics:
            texts = metric.name, json_text(metric.context.to_dict())
            for points in pieces(metric):
                columns = [*([text] * len(points) for text in texts), points["step"], points["value"], points["epoch"], points["time"]]
                arrays = [pa.array(column, kind, from_pandas=at == 4) for at, (column, kind) in enumerate(zip(columns, types, strict=True))]
                batches.append(pa.table(arrays, schema=schema))
                if sum(map(len, batches)) >= _GROUP_ROWS:
                    writer.write_table(pa.concat_tables(batches))
                    batches.clear()
                advance(len(points))
        if batches:
            writer.write_table(pa.concat_tables(batches))


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[TextIO]:
    """A file that takes its name when it is whole; what cannot be replaced, /dev/stdout say, is written to as it is."""
    if path.exists() and not path.is_file():
        with open(path, "w", encoding="utf-8", newline="") as file:
            yield file
        return
    if not path.parent.is_dir():
        raise click.UsageError(f"there is no directory {str(path.parent)!r} for -o {str(path)!r}")
    remove_stale_parts(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "x", encoding="utf-8", newline="") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _demand_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise click.ClickException("Parquet needs pyarrow, which is not installed: pip install pyarrow") from None
