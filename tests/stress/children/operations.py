"""What the writer that is killed does, call by call: its parent knows from this what each acknowledged call has to have left."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

DICT_NAMES = [f"d{k}" for k in range(10)]
COLUMN_SIZES = {"columns": 700, "large": 150_000}  # large: 1.2 MB, two records of one group
_WEIGHTS = {"scalar": 12, "dict": 12, "columns": 6, "large": 1, "params": 3, "state": 3}
_HEAVY = {"scalar": 1, "large": 3}


def is_heavy(seed: int) -> bool:
    return seed % 4 == 0


def kind_of(seed: int, index: int) -> str:
    weights = _HEAVY if is_heavy(seed) else _WEIGHTS
    return random.Random(f"{seed} {index}").choices(list(weights), list(weights.values()))[0]


def column(kind: str, index: int) -> NDArray[np.float64]:
    return index + np.arange(COLUMN_SIZES[kind]) / 7


def dict_values(index: int) -> dict[str, float]:
    return {name: index + k / 16 for k, name in enumerate(DICT_NAMES)}


def nested(index: int) -> dict[str, Any]:
    schedule = {"warmup": index, "decay": {"by": -index}}
    return {"index": index, "optimizer": {"name": "adam", "betas": [0.9, index], "schedule": schedule}, "tags": {}}


def perform(run: Any, kind: str, index: int) -> None:
    if kind == "scalar":
        run.track(float(index), name="loss")
    elif kind == "dict":
        run.track(dict_values(index), context={"subset": "train"})
    elif kind in COLUMN_SIZES:
        run.track_columns("column", column(kind, index))
    elif kind == "params":
        run["params", str(index)] = nested(index)
    elif kind == "state":
        run["state"] = nested(index)
