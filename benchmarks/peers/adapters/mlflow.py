"""MLflow on its SQLite store, each call waited for, as it is by default."""

from __future__ import annotations

import logging
import os
from typing import Any

from contract import FLAT_LOSS


class Peer:
    IMPORT = "import mlflow"
    DISTRIBUTION = "mlflow"
    _active = ""  # the experiment of this process: MLflow has one

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        """A place is an experiment: making a database takes seconds, so those of one measurement share it."""
        self.stored, self.experiment = os.path.split(os.path.abspath(path))
        self._ready = None

    def _mlflow(self):
        if self._ready is None:
            import mlflow

            logging.getLogger("mlflow").setLevel(logging.ERROR)
            mlflow.set_tracking_uri(f"sqlite:///{self.stored}/mlflow.db")
            self._ready = mlflow
        if Peer._active != self.experiment:
            self._ready.set_experiment(self.experiment)
            Peer._active = self.experiment
        return self._ready

    def start(self, params=None):
        mlflow = self._mlflow()
        run = mlflow.start_run(log_system_metrics=False)
        if params:
            mlflow.log_params(params)
        return run

    def scalars(self, run, values, first):
        import mlflow

        for step, value in enumerate(values, first):
            mlflow.log_metric("train/loss", value, step=step)

    def dicts(self, run, values, steps):
        import mlflow

        for step in steps:
            mlflow.log_metrics(values, step=step)

    def finish(self, run):
        import mlflow

        mlflow.end_run()
        return run.info.run_id

    def identify(self, run):
        return run.info.run_id

    def resume(self, run_id):
        return self._mlflow().start_run(run_id=run_id, log_system_metrics=False)

    def settle(self):
        pass

    def read(self, run_id):
        return self._points(self._mlflow().MlflowClient(), run_id, FLAT_LOSS)

    def _points(self, client, run_id, name):
        return len([(point.step, point.value) for point in client.get_metric_history(run_id, name)])

    def read_all(self):
        mlflow = self._mlflow()
        client = mlflow.MlflowClient()
        runs = mlflow.search_runs(experiment_names=[self.experiment], output_format="list", max_results=100_000)
        return sum(self._points(client, run.info.run_id, "metric_0") for run in runs if "metric_0" in run.data.metrics)

    def query(self, key, value):
        where = {"experiment_names": [self.experiment], "filter_string": f"params.{key} = '{value}'"}
        return len(self._mlflow().search_runs(**where, output_format="list", max_results=100_000))
