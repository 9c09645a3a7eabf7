"""TensorBoard's event files, written by tensorboardX and read by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contract import FLAT_LOSS, NotOffered


class Peer:
    IMPORT = "from tensorboardX import SummaryWriter"
    DISTRIBUTION = "tensorboardX"

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self.path = Path(path)
        self.number = 0

    def start(self, params=None):
        """Params have no place to be asked for, so they are not recorded."""
        from tensorboardX import SummaryWriter

        self.number += 1
        return SummaryWriter(str(self.path / f"run_{self.number}"))

    def scalars(self, run, values, first):
        for step, value in enumerate(values, first):
            run.add_scalar("train/loss", value, step)

    def dicts(self, run, values, steps):
        """One call for each: its `add_scalars` of a dict makes an event file and a thread for each name."""
        for step in steps:
            for name, value in values.items():
                run.add_scalar(name, value, step)

    def finish(self, run):
        run.close()
        return self.identify(run)

    def identify(self, run):
        return Path(run.logdir).name

    def resume(self, run_id):
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self.path / run_id))

    def settle(self):
        pass

    def read(self, run_id):
        return self._points(self.path / run_id, FLAT_LOSS)

    def _points(self, directory, name):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
        return len([(event.step, event.value) for event in events.Scalars(name)])

    def read_all(self):
        return sum(self._points(directory, "metric_0") for directory in self.path.iterdir())

    def query(self, key, value):
        raise NotOffered("only its web page compares hyperparameters")
