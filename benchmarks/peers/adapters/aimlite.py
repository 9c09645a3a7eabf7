"""aimlite itself."""

from __future__ import annotations

from typing import Any

from contract import CONTEXT, LOSS


class Peer:
    IMPORT = "from aimlite import Repo, Run"
    DISTRIBUTION = "aimlite-store"

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self.path = path
        self.durability = options.get("durability", "process")

    def start(self, params=None):
        from aimlite import Run

        run = Run(repo=self.path, system_tracking_interval=None, capture_terminal_logs=False, durability=self.durability)
        if params:
            run["hparams"] = params
        return run

    def scalars(self, run, values, first):
        for step, value in enumerate(values, first):
            run.track(value, name="loss", step=step, context={"subset": "train"})

    def dicts(self, run, values, steps):
        for step in steps:
            run.track(values, step=step, context={"subset": "train"})

    def finish(self, run):
        run.close()
        return run.hash

    def identify(self, run):
        return run.hash

    def resume(self, run_id):
        from aimlite import Run

        return Run(run_id, repo=self.path, system_tracking_interval=None, capture_terminal_logs=False, durability=self.durability)

    def settle(self):
        from aimlite import Repo

        with Repo(self.path) as repo:
            repo.merge()

    def read(self, run_id):
        from aimlite import Repo

        with Repo(self.path) as repo:
            steps, _ = repo.get_run(run_id).get_metric(LOSS, CONTEXT).values.sparse_numpy()
            return len(steps)

    def read_all(self):
        from aimlite import Repo

        with Repo(self.path) as repo:
            return sum(len(run.get_metric("metric_0", CONTEXT).values.sparse_numpy()[0]) for run in repo.iter_runs())

    def query(self, key, value):
        from aimlite import Repo

        with Repo(self.path) as repo:
            return len(repo.query_runs(f"run.hparams.{key} == {value!r}").hashes())
