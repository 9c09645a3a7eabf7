"""Params as users write them, as leaves the journal takes."""

from __future__ import annotations

import binascii
import datetime
import enum
import math
import os
import sys
from abc import abstractmethod
from collections.abc import ItemsView, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from aimlite.storage import params
from aimlite.storage.blobs import BLOB_BYTES, put_blob
from aimlite.storage.loading import load

if TYPE_CHECKING:
    from aimlite.sdk.run import Run
    from aimlite.storage.keys import Path

_RECORD_BYTES = 4 << 20
_MAX_DEPTH = 60
MAX_ARRAY_ITEMS = 1000
_STORED = frozenset({bool, int, float, bytes, complex, datetime.datetime, datetime.date, datetime.time, datetime.timedelta, params.Blobs})
_SUBCLASSED = (bool, int, float, str, bytes, complex, datetime.datetime, datetime.date, datetime.timedelta, list, tuple)


def plain(value: Any, path: Path, strict: bool = True) -> Any:
    """The value in the types that are stored: those of `_STORED`, and str, list, tuple, set, frozenset, dict and numpy array of them.

    strict: False turns what cannot be stored into its repr. Raises TypeError and ValueError naming the path.
    """
    kind = type(value)
    if value is None or kind in _STORED:
        return value
    if kind is str:
        return _text(value, path)
    if len(path) > _MAX_DEPTH:
        raise _too_deep(path)
    if kind is dict:
        return {_plain_key(key, path): plain(item, (*path, key), strict) for key, item in value.items()}
    if kind is list or kind is tuple:
        return kind(plain(item, (*path, index), strict) for index, item in enumerate(value))
    converted = _converted(value, path)
    if converted is not value:
        return plain(converted, path, strict)
    if isinstance(value, set | frozenset):
        return _plain_set(value, path, strict)
    if _is_array(value):
        return _plain_array(value, path)
    if not strict:
        return _text(repr(value), path, replace=True)
    raise TypeError(f"{shown(path)}: a {kind.__name__} cannot be stored as a param: {value!r:.80}; convert it first")


def _too_deep(path: Path) -> ValueError:
    return ValueError(f"{shown(path[:5])}…: params are nested at most {_MAX_DEPTH} deep (does the value contain itself?)")


def _converted(value: Any, path: Path) -> Any:
    """One step towards what is stored; the value itself where there is none."""
    if isinstance(value, enum.Enum):
        return value.value
    for kind in _SUBCLASSED:
        if isinstance(value, kind):  # numpy.float64, pandas.Timestamp, a named tuple, …
            if kind is datetime.datetime and value != value:  # pandas.NaT
                return None
            return _as_exactly(kind, value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if _is_instance(value, "decimal", "Decimal"):
        return float(value)
    if _is_instance(value, "uuid", "UUID"):
        return str(value)
    if type(value).__module__.partition(".")[0] == "omegaconf" and hasattr(value, "_get_node"):
        return sys.modules["omegaconf"].OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(type(value), "__dataclass_fields__"):
        load("dataclasses")
        import dataclasses

        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if _is_instance(value, "argparse", "Namespace") or _is_instance(value, "types", "SimpleNamespace"):
        return dict(vars(value))
    for fields, dump in (("model_fields", "model_dump"), ("__fields__", "dict")):  # pydantic 2 and 1
        if hasattr(type(value), fields) and hasattr(value, dump):
            return getattr(value, dump)()
    return _from_array_library(value, path)


def _is_instance(value: Any, module: str, name: str) -> bool:
    """Whether it is of a class of a module that is imported: if the module is not, it cannot be."""
    found = sys.modules.get(module)
    return found is not None and isinstance(value, getattr(found, name))


def _as_exactly(kind: type, value: Any) -> Any:
    if kind is str or kind is bytes:
        return kind.__str__(value) if kind is str else bytes(value)
    if kind is datetime.datetime:
        return datetime.datetime.combine(value.date(), value.timetz())
    if kind is datetime.date:
        return datetime.date(value.year, value.month, value.day)
    if kind is datetime.timedelta:
        return datetime.timedelta(value.days, value.seconds, value.microseconds)
    return kind(value)


def _from_array_library(value: Any, path: Path) -> Any:
    """Tensors as numpy arrays, arrays without dimensions as what they hold."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype") or isinstance(value, type):
        return value
    shape = value.shape
    if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
        _demand_few(math.prod(shape), shape, path)  # before anything is copied
    if _is_instance(value, "numpy.ma", "MaskedArray"):  # what is masked would come back as if it were not
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
    elif not _is_array(value) and not hasattr(value, "index"):  # a pandas Series would lose its index
        value = value.numpy() if hasattr(value, "numpy") else value.__array__() if hasattr(value, "__array__") else value
    if getattr(value, "shape", None) != () or not hasattr(value, "item"):
        return value
    if value.dtype.kind in "mM":  # nanoseconds would come out as an int
        value = value.astype(f"{value.dtype.kind}8[us]")
    item = value.item()
    if value.dtype.kind in "mM" and isinstance(item, int):
        raise ValueError(f"{shown(path)}: {value!r} lies outside of what datetime can tell")
    return float(item) if hasattr(item, "dtype") else item  # numpy's longdouble gives itself


def _is_array(value: Any) -> bool:
    return _is_instance(value, "numpy", "ndarray")


def _plain_array(value: Any, path: Path) -> Any:
    load("numpy")
    import numpy as np

    if type(value) is not np.ndarray or value.dtype.kind not in "biufcUSmM":
        raise TypeError(f"{shown(path)}: a {type(value).__qualname__} of dtype {value.dtype} cannot be stored as a param; convert it first")
    _demand_few(value.size, value.shape, path)
    return np.array(value, order="C")


def _demand_few(size: int, shape: tuple[int, ...], path: Path) -> None:
    if size > MAX_ARRAY_ITEMS:
        raise ValueError(
            f"{shown(path)}: an array of {size} items, shape {tuple(shape)}, is too large for a param: at most {MAX_ARRAY_ITEMS:,};"
            " whole columns go through track_columns()"
        )


def _plain_set(value: Any, path: Path, strict: bool) -> Any:
    items = [plain(item, (*path, "item"), strict) for item in value]
    try:
        return set(items) if isinstance(value, set) else frozenset(items)
    except TypeError as error:
        raise TypeError(f"{shown(path)}: items of a set stay hashable when they are stored: {error}") from None


def _text(text: str, path: Path, replace: bool = False) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if replace:
            return text.encode("utf-8", "backslashreplace").decode()
        raise ValueError(f"{shown(path)}: the string has no UTF-8 form: {error}") from None
    return text


def plain_path(key: Any) -> Path:
    """The path that run[key] means: a tuple is a path, `...` the root."""
    if key is Ellipsis:
        return ()
    path = tuple(_plain_key(part, ()) for part in key) if isinstance(key, tuple) else (_plain_key(key, ()),)
    if len(path) > _MAX_DEPTH:
        raise _too_deep(path)
    return path


def _plain_key(key: Any, path: Path) -> str | int:
    if isinstance(key, str):
        return _text(str.__str__(key), path)
    if isinstance(key, int) and not isinstance(key, bool):
        return int(key)
    if hasattr(key, "dtype") and hasattr(key, "__index__") and key.dtype.kind in "iu":  # numpy.int64
        return int(key)
    raise TypeError(f"{shown(path)}: keys of params are strings or integers, not {type(key).__name__} {key!r:.80}")


def shown(path: Path) -> str:
    """A path as a user would write it."""
    return "run" + "".join(f"[{part!r}]" for part in path) if path else "run[...]"


def as_json(value: Any) -> Any:
    """A param as JSON has it: tuples, sets and arrays as lists, times in ISO 8601, durations in seconds, bytes in base64, complex numbers
    as text, NaN and the infinities as "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, float) and (value != value or value in (math.inf, -math.inf)):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((as_json(item) for item in value), key=repr)
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return binascii.b2a_base64(value, newline=False).decode()
    if _is_array(value):
        return as_json((value.astype(str) if value.dtype.kind in "mM" else value).tolist())
    return str(value)


def set_payloads(path: Path, value: Any, blobs: FilePath, stored: dict[bytes, bytes]) -> list[bytes]:
    """The payloads (operation and msgpack) of the records that set a value at a path. Large leaves become blobs, durable before this
    returns; stored: takes their contents by SHA-256."""
    groups: list[list[Any]] = [[]]
    size = 0
    for leaf_path, leaf in params.flatten(value):
        packed = params.packb(leaf)
        if len(packed) >= BLOB_BYTES:
            leaf = params.Blob(put_blob(blobs, packed), len(packed))
            stored[leaf.digest] = packed
            packed = b""
        size += len(packed) + sum(len(str(part)) + 5 for part in leaf_path)
        if size > _RECORD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append([list(leaf_path), leaf])
    kinds = [params.SET, *[params.MORE] * (len(groups) - 1)]
    return [bytes([kind]) + params.packb([list(path), group]) for kind, group in zip(kinds, groups, strict=True)]


def delete_payload(path: Path) -> bytes:
    return bytes([params.DELETE]) + params.packb([list(path)])


class ParamsMapping(MutableMapping[Any, Any]):
    """The params of a run at a path, as a mapping that reads and writes through. `mapping[...]` gives plain nested dicts."""

    @abstractmethod
    def _place(self) -> tuple[Run, Path]: ...

    def __getitem__(self, key: Any) -> Any:
        run, path = self._place()
        return run._get_param(path + plain_path(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: Any) -> None:
        run, path = self._place()
        run._delete_param(path + plain_path(key))

    def __contains__(self, key: object) -> bool:
        try:
            self[key]
        except (KeyError, TypeError):  # what cannot be a key is none
            return False
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self._top())

    def __len__(self) -> int:
        return len(self._top())

    def get(self, key: Any, default: Any = None, strict: bool = True, resolve_objects: bool = False) -> Any:
        """The value at a key or path, or the default. strict and resolve_objects are Aim's; values come back whole anyhow."""
        try:
            return self[key]
        except KeyError:
            return default

    def set(self, key: Any, value: Any, strict: bool = True) -> None:
        """What `run[key] = value` does. strict: False stores the repr of what cannot be stored, in place of a TypeError."""
        run, path = self._place()
        run._set_params([(path + plain_path(key), value)], strict)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Sets several keys, all or none."""
        run, path = self._place()
        run._set_params([(path + plain_path(key), value) for key, value in dict(*args, **kwargs).items()])

    def clear(self) -> None:
        run, path = self._place()
        run._delete_param(path)

    def keys(self) -> KeysView[Any]:
        """The keys at the moment of the call."""
        return self._top().keys()

    def values(self) -> ValuesView[Any]:
        """The values at the moment of the call."""
        return self._top().values()

    def items(self) -> ItemsView[Any, Any]:
        """The items at the moment of the call."""
        return self._top().items()

    def _top(self) -> dict[Any, Any]:
        run, path = self._place()
        try:
            value = run._get_param(path)
        except KeyError:
            return {}
        return value if isinstance(value, dict) else {}


class ParamsView(ParamsMapping):
    """The params of a run, as `run.params` gives them."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def _place(self) -> tuple[Run, Path]:
        return self._run, ()

    def __repr__(self) -> str:
        return f"<params of run {self._run.hash}: {self._top()!r:.200}>"
