"""What a repo holds and what it takes on disk: one view, counted."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from aimlite._ext.keys import unpack
from aimlite.storage import keys
from aimlite.storage.blobs import list_blobs
from aimlite.storage.points import decode_summary
from aimlite.storage.runs import STATUS_CODES
from aimlite.storage.tree import tree_generation
from aimlite.storage.view import View


def stats(view: View) -> dict[str, Any]:
    """As `Repo.stats` returns them. Takes time in runs and sequences, not in points. Raises CorruptionError."""
    layout, mentioned = view.layout, view.mentioned_runs()
    status = _status_of_merged(view, mentioned)
    sequences, points = _merged_sequences(view, mentioned)
    for _, (word, counts) in view.of_each_live_run(lambda run_hash: _of_live_run(view, run_hash)):
        status[word] += 1
        sequences += len(counts)
        points += sum(counts)
    held = sum(segment.held for segment in view.segments)
    journals = sum(_size(layout.journal(*name)) for name in layout.list_journals())
    levels = view.tree.levels()
    tree, blobs = _directory_size(layout.tree), sum(map(_size, list_blobs(layout.blobs)))
    return {
        "runs": sum(status.values()),
        "status": {word: status[word] for word in ("running", *STATUS_CODES)},
        "trash": len(view.trashed_runs()),
        "sequences": sequences,
        "points": points,
        "bytes": {"journals": journals, "tree": tree, "blobs": blobs, "total": journals + tree + blobs},
        "bytes_per_point": (journals + sum(size for _, size in levels.values())) / points if points else None,
        "journals": {"held": held, "waiting": len(view.segments) - held},
        "levels": [{"level": level, "files": files, "bytes": size} for level, (files, size) in levels.items()],
        "generation": tree_generation(view.tree),
    }


def _of_live_run(view: View, run_hash: str) -> tuple[str, list[int]]:
    """(status, how many points each sequence has)."""
    summaries = [view.summary(sequence) for sequence in view.sequences(run_hash, None)]
    return view.run_state(run_hash).status, [0 if summary is None else summary.count for summary in summaries]


def _status_of_merged(view: View, fresh: dict[str, int]) -> Counter[str]:
    """How many runs have each status, those left out that the journals may have changed since."""
    found: Counter[str] = Counter()
    for key, _ in view.tree.scan(keys.property_index_of("status")):
        _, status, run_hash = unpack(key, 1)
        found[status] += run_hash not in fresh
    return found


def _merged_sequences(view: View, fresh: dict[str, int]) -> tuple[int, int]:
    """(sequences, points), likewise."""
    sequences = points = 0
    for key, value in view.tree.scan(keys.prefix_range(keys.SEQUENCE)):
        if unpack(key, 1)[2] not in fresh:
            sequences += 1
            points += decode_summary(value).count
    return sequences, points


def _directory_size(path: Path) -> int:
    try:
        return sum(_size(Path(entry.path)) for entry in os.scandir(path) if entry.is_file())
    except FileNotFoundError:
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # merged meanwhile
        return 0
