"""Safe mode: what fails while a run is written is one warning, and never an exception in the training script.

A run in safe mode is of a class made from its own, whose public methods that write catch; a run that could not be opened keeps its params
and properties in memory and forgets all else. So a run that is not in safe mode pays nothing.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aimlite.sdk.params import ParamsView, plain
from aimlite.storage import ending, params
from aimlite.storage.loading import load
from aimlite.storage.runs import RunState
from aimlite.storage.writer import warn

if TYPE_CHECKING:
    from aimlite.sdk.run import Run

Path = tuple[str | int, ...]
Init = TypeVar("Init", bound=Callable[..., None])

_READ = frozenset(  # what they raise is an answer: nothing is there, nothing like that can be asked
    {"get", "keys", "values", "items", "metrics", "dataframe"}
)
_READ_PREFIXES = ("get_", "iter_", "collect_", "restore_")
_SPECIAL = ("__setitem__", "__delitem__", "__exit__")
_IN_MEMORY = frozenset(  # what a run that could not be opened still does
    {"get", "set", "update", "clear", "keys", "values", "items", "pop", "popitem", "setdefault", "add_tag", "remove_tag"}
    | {"add_note", "edit_note", "delete_note", "note_history", "summary", "get_summary", "finish", "close", "finalize"}
)
_safe_mode: bool | None = None  # None: AIMLITE_SAFE_MODE decides


def set_safe_mode(on: bool) -> None:
    """Whether runs made from now on are in safe mode, unless `Run(safe_mode=…)` says so itself: what fails while they are made or written
    is one RuntimeWarning, and the script goes on. It is off, unless AIMLITE_SAFE_MODE is 1. Raises TypeError."""
    global _safe_mode
    if not isinstance(on, bool):
        raise TypeError(f"safe mode is True or False, not {type(on).__name__} {on!r:.100}")
    _safe_mode = on


def is_safe_mode() -> bool:
    """Whether runs made now are in safe mode."""
    return os.environ.get("AIMLITE_SAFE_MODE", "").strip().lower() in ("1", "true", "yes", "on") if _safe_mode is None else _safe_mode


def complain(what: str, error: BaseException, stacklevel: int = 2) -> None:
    """The one warning that a failure is."""
    warn(f"{what} failed, and the script goes on without it: {type(error).__name__}: {error}", stacklevel + 1)


@functools.cache
def safe_class(cls: Any) -> Any:
    """A class whose public methods and setters that write warn where those of `cls` raise."""
    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__, **_caught(cls)})


@functools.cache
def silent_class(cls: Any) -> Any:
    """A class for a run that could not be opened."""
    kept = {name: member for name, member in vars(_InMemory).items() if not name.startswith("__")}
    forgotten = {
        name: _forget(name, getattr(cls, name))
        for name in dir(cls)
        if name[0] != "_" and name not in _IN_MEMORY and callable(getattr(cls, name)) and name not in kept
    }
    special = {name: getattr(_InMemory, name) for name in ("__eq__", "__hash__", "__repr__")}
    return safe_class(type(cls.__name__, (cls,), {"__module__": cls.__module__, **kept, **forgotten, **special}))


def _caught(cls: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in dir(cls):
        member = getattr(cls, name)
        if name in _SPECIAL or (name[0] != "_" and callable(member) and name not in _READ and not name.startswith(_READ_PREFIXES)):
            found[name] = _catch(name, member)
        elif isinstance(member, property) and member.fset is not None:
            found[name] = member.setter(_catch(name, member.fset))
    if hasattr(cls, "params"):
        found["params"] = property(lambda self: safe_class(ParamsView)(self), doc=cls.params.__doc__)
    if "sequence" in found:
        found["sequence"] = _catch("sequence", lambda self, *args, **kwargs: SafeSequence(cls.sequence(self, *args, **kwargs)), _Nothing)
    return found


def _catch(name: str, function: Callable[..., Any], instead: Callable[[], Any] = lambda: None) -> Callable[..., Any]:
    @functools.wraps(function)
    def caught(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(self, *args, **kwargs)
        except Exception as error:
            complain(f"run.{name}", error, 3)
            return instead()

    return caught


def _forget(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def forgotten(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _EMPTY.get(name, lambda: None)()

    return forgotten


class _Nothing:
    """A handle on a sequence that nothing is written to."""

    def track(self, value: Any, step: Any = None, epoch: Any = None) -> None: ...


def _null_handler() -> Any:
    load("logging")
    import logging

    return logging.NullHandler()


_EMPTY: dict[str, Callable[[], Any]] = {
    "metrics": list,
    "iter_metrics_info": lambda: iter(()),
    "iter_sequence_info_by_type": lambda: iter(()),
    "collect_sequence_info": dict,
    "sequence": _Nothing,
    "log_image": str,
    "get_logging_handler": _null_handler,
    "get_terminal_logs": list,
    "get_log_records": list,
}


class SafeSequence:
    """A handle on a sequence whose `track` warns where the other raises."""

    def __init__(self, sequence: Any) -> None:
        self._sequence = sequence

    def track(self, value: Any, step: Any = None, epoch: Any = None) -> None:
        try:
            self._sequence.track(value, step, epoch)
        except Exception as error:
            complain("run.sequence(…).track", error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sequence, name)


class _InMemory:
    """What a run that could not be opened has in the place of its journal."""

    repo = None
    read_only = False

    def _hold(self, run_hash: str) -> None:
        now = time.time_ns() // 1000
        self.hash = run_hash
        self._params: dict[Path, Any] = {}
        self._held: dict[str, Any] = {}
        self._status = RunState(now, now, "running", None)
        self._closed = False

    def _state(self) -> RunState:
        return self._status

    def _properties(self) -> dict[str, Any]:
        return dict(self._held)

    def _set_properties(self, properties: dict[str, Any]) -> None:
        self._held.update(properties)

    def _get_param(self, path: Path) -> Any:
        found = {at[len(path) :]: value for at, value in self._params.items() if at[: len(path)] == path}
        if not found and path:
            raise KeyError(f"run {self.hash} has no param {'.'.join(map(str, path))!r}")
        return params.nest(list(found.items())) if found else {}

    def _set_params(self, items: list[tuple[Path, Any]], strict: bool = True) -> None:
        for path, value in [(path, plain(value, path, strict)) for path, value in items]:
            for at in [at for at in self._params if at[: len(path)] == path or path[: len(at)] == at]:
                del self._params[at]
            self._params.update(_leaves(path, value))

    def _delete_param(self, path: Path) -> None:
        self._get_param(path)
        self._set_params([(path, {})])

    def _end(self, status: str, error: BaseException | None = None, is_raising: bool = False) -> None:
        self._closed = True
        if self._status.status == "running":
            end = time.time_ns() // 1000
            self._status = RunState(self._status.created, end, status, end)
            if error is not None:
                self._held["error"] = [end, *ending.describe_error(error)]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<Run {self.hash}, which could not be opened>"


def _leaves(path: Path, value: Any) -> dict[Path, Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {at: leaf for key, held in value.items() for at, leaf in _leaves((*path, key), held).items()}


def openable_safely(init: Init) -> Init:
    """The `__init__` of Run in safe mode: what it raises makes the run one that keeps nothing."""

    @functools.wraps(init)
    def __init__(self: Run, run_hash: Any = None, **settings: Any) -> None:
        safe = settings.get("safe_mode")
        if safe is True or (safe is None and is_safe_mode()):
            _begin(self, run_hash, lambda: init(self, run_hash, **settings))
        else:
            init(self, run_hash, **settings)

    return cast(Init, __init__)


def _begin(run: Run, run_hash: object, begin: Callable[[], None]) -> None:
    load("aimlite.sdk.run", "aimlite.storage.runs")
    from aimlite.sdk.run import new_hash
    from aimlite.storage.runs import check_hash

    cls = type(run)
    try:
        begin()
    except Exception as error:
        complain("opening a run", error, 4)
        if run._recorder is None:
            try:
                check_hash(run_hash)
            except (TypeError, ValueError):
                run_hash = new_hash()
            run.__class__ = silent_class(cls)
            run._hold(run_hash)  # type: ignore[attr-defined]
            return
    run.__class__ = safe_class(cls)
