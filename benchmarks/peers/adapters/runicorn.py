"""Runicorn: JSON lines for each run, and SQLite beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contract import NotOffered


class Peer:
    IMPORT = "import runicorn"
    DISTRIBUTION = "runicorn"

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self.path = path

    def start(self, params=None):
        import runicorn

        run = runicorn.init(path="bench", storage=self.path)
        if params:
            run.log_config(extra=params)
        return run

    def scalars(self, run, values, first):
        for step, value in enumerate(values, first):
            run.log({"loss": value}, step=step, stage="train")

    def dicts(self, run, values, steps):
        for step in steps:
            run.log(values, step=step, stage="train")

    def finish(self, run):
        run.finish()
        return run.id

    def identify(self, run):
        return run.id

    def resume(self, run_id):
        raise NotOffered("a run id used again starts counting steps from 0 and loses its place in the database")

    def settle(self):
        pass

    def read(self, run_id):
        return self._points(Path(self.path, "runs", "bench", run_id), "loss")

    def _points(self, directory, name):
        """The SDK reads nothing back; this is what its viewer reads by."""
        from runicorn.viewer.utils.incremental_cache import IncrementalMetricsCache

        _, rows = IncrementalMetricsCache().get_or_update(directory / "events.jsonl")
        return len([(row["global_step"], row[name]) for row in rows if name in row])

    def read_all(self):
        return sum(self._points(directory, "metric_0") for directory in Path(self.path, "runs", "bench").iterdir())

    def query(self, key, value):
        raise NotOffered("runs are listed by path, tag and status; params cannot be asked for")
