from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, final

from typing_extensions import Self, disjoint_base

from aimlite._ext.journal import JournalWriter

# What has the buffer protocol. numpy declares it to type checkers only for Python 3.12 and later.
_Buffer: TypeAlias = Any

MAX_NAME_BYTES: int

def plain_number(value: Any) -> int | float: ...
def plain_step(step: Any) -> int: ...
def canonical_context(context: Mapping[str, Any] | None) -> dict[str, Any]: ...
def sequence_key(name: str, context: Mapping[str, Any] | None, kind: str | None = ...) -> tuple[str, dict[str, Any], bytes]: ...
def kind_label(kind: tuple[str, bool] | None) -> str: ...

@final
class SequenceWriter:
    name: str
    context: dict[str, Any]
    def track(self, value: Any, step: Any = None, epoch: Any = None) -> None: ...

@final
class Recorder:
    journal: JournalWriter
    number: int
    run_hash: str
    last_steps: Callable[[str, bytes], int | None] | None
    counters: dict[bytes, Any]
    kinds: dict[bytes, tuple[tuple[str, bool] | None, SequenceWriter | None]]
    closed: bool
    power: bool
    since: int
    def __new__(cls, journal: JournalWriter, number: int, run_hash: str, power: bool = ..., edits_since: int = ...) -> Self: ...
    def opened(self) -> None: ...
    def was_inherited(self) -> None: ...
    @property
    def is_open_here(self) -> bool: ...
    @property
    def is_inherited(self) -> bool: ...
    def append(self, records: Iterable[tuple[int, bytes]]) -> int: ...
    def open_payload(self, continued: bool) -> bytes: ...
    def sequence(self, name: str, context: Mapping[str, Any] | None = None) -> SequenceWriter: ...
    def track(
        self, value: Any, name: str | None = None, step: Any = None, epoch: Any = None, context: Mapping[str, Any] | None = None
    ) -> None: ...
    def track_objects(
        self,
        kind: str,
        name: str | None,
        records: Iterable[bytes],
        count: int,
        in_list: bool,
        step: Any = None,
        epoch: Any = None,
        context: Mapping[str, Any] | None = None,
    ) -> None: ...
    def track_together(
        self,
        entries: Iterable[tuple[str, tuple[str, bool] | None, float, Iterable[bytes] | None]],
        step: Any = None,
        epoch: Any = None,
        context: Mapping[str, Any] | None = None,
    ) -> None: ...
    def track_columns(
        self, s: SequenceWriter, values: _Buffer, are_ints: bool, steps: _Buffer, epochs: _Buffer, times: _Buffer
    ) -> None: ...

@disjoint_base
class Tracking:
    _recorder: Recorder | None
    def track(
        self,
        value: Any,
        name: str | None = None,
        step: int | None = None,
        epoch: float | None = None,
        *,
        context: Mapping[str, Any] | None = None,
    ) -> None: ...
