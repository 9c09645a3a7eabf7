"""Fills an empty repo with many runs, straight into the tree: 20 params, 4 metrics of 10 points, properties and tags each.

python benchmarks/generate.py REPO RUNS

What is generated passes `check()`. It takes a process of its own, as merging does.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from aimlite.storage import generation, keys, params
from aimlite.storage.layout import open_layout
from aimlite.storage.locks import lease
from aimlite.storage.merge import BatchBuilder, encode_run
from aimlite.storage.points import FLOATS, Points, concatenate, resolve
from aimlite.storage.runs import WriterEntry
from aimlite.storage.tree import EmptyTree, TreeWriter

METRICS = (("loss", {"subset": "train"}), ("loss", {"subset": "val"}), ("accuracy", {"subset": "val"}), ("lr", {}))
OPTIMIZERS = ("adam", "adamw", "sgd", "lion", "rmsprop")
POINTS = 10
_BEGUN_US = 1_700_000_000_000_000
_RUNS_PER_COMMIT = 4000
_CURVES = 500


def generate(path: Path, runs: int, seed: int = 7) -> None:
    """Writes the runs. Their hashes are `run_hash(k)`."""
    layout = open_layout(path)
    chance = random.Random(seed)
    curves = [_curve(chance) for _ in range(_CURVES)]
    with lease(layout.lease, wait=True):
        tree = TreeWriter(layout.tree)
        try:
            builder = BatchBuilder(EmptyTree())
            for number in range(runs):
                _add_run(builder, number, chance, curves)
                if number % _RUNS_PER_COMMIT == _RUNS_PER_COMMIT - 1 or number == runs - 1:
                    builder.writes[keys.run_count()] = msgpack.packb(number + 1)
                    builder.writes[keys.generation()] = msgpack.packb(number + 1)
                    tree.commit(builder.writes)
                    builder = BatchBuilder(EmptyTree())
            generation.write_generation(layout, tree)
            with tree.keeping_files():
                tree.compact()
                generation.write_generation(layout, tree)
        finally:
            tree.close()


def run_hash(number: int) -> str:
    return f"{number:024x}"


def params_of(number: int, chance: random.Random) -> dict[str, Any]:
    """20 leaves. `hparams.seed` is unique, `hparams.lr` spread, `optimizer` one of five."""
    return {
        "hparams": {
            "lr": 10 ** chance.uniform(-5, -1),
            "batch_size": 2 ** chance.randint(3, 10),
            "seed": number,
            "optimizer": chance.choice(OPTIMIZERS),
            "dropout": chance.choice((0.0, 0.1, 0.2, 0.5)),
            "layers": [chance.choice((64, 128, 256))] * chance.randint(1, 4),
            "weight_decay": chance.random() / 100,
            "warmup": chance.randint(0, 2000),
            "use_bn": chance.random() < 0.5,
            "schedule": chance.choice(("cosine", "linear", "constant")),
        },
        "data": {"name": chance.choice(("digits", "faces", "reviews")), "fraction": chance.random(), "workers": chance.randint(0, 16)},
        "model": {
            "name": chance.choice(("mlp", "cnn", "transformer")),
            "depth": chance.randint(1, 48),
            "width": 2 ** chance.randint(5, 12),
        },
        "host": f"node-{chance.randint(0, 63):02d}",
        "epochs": chance.randint(1, 300),
        "comment": f"run number {number}",
        "git": f"{chance.getrandbits(160):040x}",
    }


def _curve(chance: random.Random) -> Points:
    steps = np.arange(POINTS, dtype=np.int64)
    values = (chance.uniform(0.05, 2) + np.exp(-steps / chance.uniform(1, 5))).astype(np.float32).astype(np.float64)
    columns = {
        "step": steps,
        "value": values,
        "epoch": np.floor(steps / 5),
        "time": _BEGUN_US + steps * 1_000_000,
        "order": (_BEGUN_US + steps * 1_000_000).astype("<u8"),
        "writer": np.full(POINTS, 1, "<u8"),
        "given": np.ones(POINTS, "u1"),
        "place": np.zeros(POINTS, "<u8"),
    }
    return resolve(concatenate([Points(columns, FLOATS)]))


def _add_run(builder: BatchBuilder, number: int, chance: random.Random, curves: list[Points]) -> None:
    name, created = run_hash(number), _BEGUN_US + number * 1_000_000
    end = created + 500_000
    entry = WriterEntry(created, end, end, chance.choice(("finished", "finished", "failed")), end, False, created, end)
    held = {"name": f"run {number}", "experiment": f"exp-{number % 50}", "archived": chance.random() < 0.01}
    if number % 10 == 0:
        held[f"tag:{('best', 'baseline')[number % 20 // 10]}"] = created
    stamp = [created, 1]
    builder.writes[keys.run(name)] = encode_run(created, end, is_trashed=False)
    builder.writes[keys.writer_of_run(name, 1)] = entry.encode()
    for what, value in held.items():
        builder.writes[keys.property_of_run(name, what)] = params.packb([*stamp, value])
    for path, value in params.flatten(params_of(number, chance)):
        builder.writes[keys.param(name, path)] = params.packb([*stamp, value])
        builder.index_param(path, value, name, is_trashed=False)
    builder.index_properties(name, held, created, end, [entry])
    for metric, context in METRICS:
        builder.add_points(name, metric, context, chance.choice(curves), known=False)


def main(arguments: list[str]) -> None:
    generate(Path(arguments[0]), int(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
