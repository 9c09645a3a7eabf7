"""MLflow on its SQLite store, each call waited for, as it is by default."""

from __future__ import annotations

import logging
import os
from typing import Any

from contract import FLAT_LOSS


class Peer:
    IMPORT = "import mlflow"
    DISTRIBUTION = "mlflow"

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        os.makedirs(path, exist_ok=True)
        self.uri = f"sqlite:///{os.path.abspath(path)}/mlflow.db"

    def _mlflow(self):
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        mlflow.set_tracking_uri(self.uri)
        return mlflow

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
        runs = mlflow.search_runs(output_format="list", max_results=100_000)
        return sum(self._points(client, run.info.run_id, "metric_0") for run in runs if "metric_0" in run.data.metrics)

    def query(self, key, value):
        found = self._mlflow().search_runs(filter_string=f"params.{key} = '{value}'", output_format="list", max_results=100_000)
        return len(found)
