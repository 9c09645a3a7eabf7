"""One training is one run: its settings are params, its scores are tracked at every step and, on the validation part, after every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np

from aimlite import Run
from aimlite.demo.digits import Digits, load, split
from aimlite.demo.network import Network


@dataclass(frozen=True)
class Settings:
    learning_rate: float
    hidden: int
    batch: int
    momentum: float = 0.9
    seed: int = 0

    def __str__(self) -> str:
        return f"lr {self.learning_rate:g}, hidden {self.hidden}, batch {self.batch}"


def grid() -> list[Settings]:
    """The eight trainings of the demo."""
    return [
        Settings(learning_rate, hidden, batch, seed=seed)
        for seed, (learning_rate, hidden, batch) in enumerate(product((0.05, 0.005), (16, 64), (16, 128)))
    ]


def train(settings: Settings, repo: str, epochs: int) -> str:
    """Train in a run of its own; returns the hash of that run."""
    rng = np.random.default_rng(settings.seed)
    digits, validation = split(load())
    network = Network(settings.hidden, rng)
    with Run(repo=repo, experiment="digits") as run:
        run.name = str(settings)
        run["hparams"] = {**asdict(settings), "epochs": epochs}
        step = 0
        for epoch in range(1, epochs + 1):
            for batch in _batches(digits, settings.batch, rng):
                score = network.learn(batch, settings.learning_rate, settings.momentum)
                step += 1
                run.track(asdict(score), step=step, epoch=epoch, context={"subset": "train"})
            run.track(asdict(network.score(validation)), step=step, epoch=epoch, context={"subset": "val"})
        return run.hash


def _batches(digits: Digits, size: int, rng: np.random.Generator) -> Iterator[Digits]:
    order = rng.permutation(len(digits))
    return (digits[order[start : start + size]] for start in range(0, len(digits), size))
