"""What an adapter offers, for all peers alike. Each of `adapters/` has a class `Peer` of this shape; its name is the module's.

The loops are the adapters' own, so that nothing but the peer's calls is timed. Values are floats born as float32; the metric `loss` has the
context {"subset": "train"}, or, where a peer knows no contexts, the name `train/loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

LOSS = "loss"
CONTEXT = {"subset": "train"}
FLAT_LOSS = "train/loss"  # where there are no contexts


class NotOffered(Exception):
    """The peer has no such operation; its text says why."""


class Peer(Protocol):
    IMPORT: ClassVar[str]  # what a script imports
    DISTRIBUTION: ClassVar[str]  # whose version is shown
    # stored: str           where it keeps what it records, if not at its path

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        """A place at a path where nothing is yet, or where this peer has recorded."""

    def start(self, params: dict[str, Any] | None = None) -> Any:
        """A new run."""

    def scalars(self, run: Any, values: Sequence[float], first: int) -> None:
        """Each value of `loss` by a call of its own, with its step: first, first + 1, …"""

    def dicts(self, run: Any, values: dict[str, float], steps: range) -> None:
        """All values at each step, by one call where the peer has one."""

    def finish(self, run: Any) -> str:
        """Ends a run; returns what it is found by. Everything is stored then."""

    def identify(self, run: Any) -> str:
        """What a run is found by that has not ended."""

    def resume(self, run_id: str) -> Any:
        """The run again, to write more."""

    def settle(self) -> None:
        """What the peer's upkeep does before its size counts and it is read; not timed."""

    def read(self, run_id: str) -> int:
        """Reads steps and values of `loss` of one run; returns how many."""

    def read_all(self) -> int:
        """Reads steps and values of `metric_0` of all runs; returns how many."""

    def query(self, key: str, value: Any) -> int:
        """How many runs have this param. They are found, not listed and compared by the adapter, wherever the peer can."""
