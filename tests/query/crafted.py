"""Repos as a list of runs describes them, with the times it gives: journals are made byte by byte."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from aimlite.storage.params import flatten, packb
from reference.journal import (
    END,
    OPEN,
    PARAMS,
    POINTS,
    PROPERTY,
    SEQUENCE,
    encode_end,
    encode_journal,
    encode_open,
    encode_points,
    encode_sequence,
)


@dataclass
class CraftedRun:
    """What a run is to hold. Times in µs; end None: a process still writes it."""

    hash: str
    created: int
    end: int | None
    params: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    metrics: Sequence[tuple[str, dict[str, Any], Sequence[float]]] = ()  # name, context, values at steps 0, 1, …
    status: int = 1


def microseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp() * 1e6)


def write_runs(base: Path, runs: Sequence[CraftedRun], first: int = 1) -> list[int]:
    """Writes a journal for each run into the repo at `base`, by writers from `first` on; the descriptors that hold running ones."""
    held = []
    for writer, run in enumerate(runs, first):
        path = base / "journals" / f"{writer:016x}-00000000.journal"
        made = base / "crafted"
        made.write_bytes(encode_run(writer, run))
        made.rename(path)  # whole at once, as readers may be about
        if run.end is None:
            held.append(os.open(path, os.O_RDWR))
            fcntl.flock(held[-1], fcntl.LOCK_EX)
    return held


def encode_run(writer: int, run: CraftedRun) -> bytes:
    order = run.created
    numbered = (0).to_bytes(4, "little")
    groups: list[tuple[int, list[tuple[int, bytes]]]] = [(order, [(OPEN, encode_open(0, run.hash))])]
    properties = {**run.properties, **{f"tag:{tag}": order + place for place, tag in enumerate(run.tags)}}
    groups += [(order, [(PROPERTY, numbered + packb([name, value]))]) for name, value in properties.items()]
    if run.params:
        leaves = [[list(path), leaf] for path, leaf in flatten(run.params)]
        groups.append((order, [(PARAMS, numbered + b"\0" + packb([[], leaves]))]))
    for sequence, (name, context, values) in enumerate(run.metrics):
        groups.append((order, [(SEQUENCE, encode_sequence(sequence, 0, name, context))]))
        for step, value in enumerate(values):
            is_int = isinstance(value, int)
            groups.append((order, [(POINTS, encode_points([(sequence, step, float(value), is_int)], given=True))]))
    if run.end is not None:
        groups.append((max(order, run.end), [(END, encode_end(0, run.status, run.end))]))
    return encode_journal(writer, 0, order, groups)
