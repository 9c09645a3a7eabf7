"""Params as users write them, as leaves the journal takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from aimlite.storage import params
from aimlite.storage.blobs import BLOB_BYTES, put_blob

if TYPE_CHECKING:
    from aimlite.sdk.run import Run
    from aimlite.storage.keys import Path

_RECORD_BYTES = 4 << 20
_MAX_DEPTH = 60


def plain(value: Any, path: Path) -> Any:
    """The value in the types that are stored: None, bool, int, float, str, bytes, lists and dicts of them. Raises TypeError and ValueError
    naming the path."""
    kind = type(value)
    if value is None or kind in (bool, int, float, bytes):
        return value
    if len(path) > _MAX_DEPTH:
        raise ValueError(f"{_shown(path[:5])}…: params are nested at most {_MAX_DEPTH} deep (does the value contain itself?)")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{_shown(path)}: the string has no UTF-8 form: {error}") from None
        return str.__str__(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {_plain_key(key, path): plain(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, (*path, index)) for index, item in enumerate(value)]
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return plain(value.item(), (*path, "item"))
    raise TypeError(f"{_shown(path)}: a {kind.__name__} cannot be stored as a param: {value!r:.80}")


def plain_path(key: Any) -> Path:
    """The path that run[key] means: a tuple is a path, `...` the root."""
    if key is Ellipsis:
        return ()
    return tuple(_plain_key(part, ()) for part in key) if isinstance(key, tuple) else (_plain_key(key, ()),)


def _plain_key(key: Any, path: Path) -> str | int:
    if isinstance(key, str):
        return str(plain(str.__str__(key), path))
    if isinstance(key, int) and not isinstance(key, bool):
        return int(key)
    raise TypeError(f"{_shown(path)}: keys of params are strings or integers, not {type(key).__name__} {key!r:.80}")


def _shown(path: Path) -> str:
    return "run" + "".join(f"[{part!r}]" for part in path) if path else "run[...]"


def set_payloads(path: Path, value: Any, blobs: FilePath) -> list[bytes]:
    """The payloads (operation and msgpack) of the records that set a value at a path. Large leaves become blobs, durable before this
    returns."""
    groups: list[list[Any]] = [[]]
    size = 0
    for leaf_path, leaf in params.flatten(value):
        packed = params.packb(leaf)
        if len(packed) >= BLOB_BYTES:
            leaf = params.Blob(put_blob(blobs, packed), len(packed))
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


class ParamsView(MutableMapping[Any, Any]):
    """The params of a run under a path, as a mapping that reads and writes through. `view[...]` gives plain nested dicts."""

    def __init__(self, run: Run, path: Path = ()) -> None:
        self._run = run
        self._path = path

    def __getitem__(self, key: Any) -> Any:
        return self._run._get_param(self._path + plain_path(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._run._set_param(self._path + plain_path(key), value)

    def __delitem__(self, key: Any) -> None:
        self._run._delete_param(self._path + plain_path(key))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._top())

    def __len__(self) -> int:
        return len(self._top())

    def __repr__(self) -> str:
        return f"<params of run {self._run.hash}: {self._top()!r:.200}>"

    def _top(self) -> dict[Any, Any]:
        try:
            value = self._run._get_param(self._path)
        except KeyError:
            return {}
        return value if isinstance(value, dict) else {}
