"""The file `generation`: what readers compare to learn that the tree moved on, and the checksums of the tree's files: of
the SSTs, and of the MANIFEST as far as it went.

Replaced by rename after each commit of a merge. docs/format.md, "Files".
"""

from __future__ import annotations

import re
from pathlib import Path

from aimlite._ext.blocks import crc32c
from aimlite.errors import CorruptionError
from aimlite.storage.files import open_regular, read_regular, write_file
from aimlite.storage.layout import Layout
from aimlite.storage.manifest import Listed, read_manifest
from aimlite.storage.tree import TreeReader, TreeWriter, tree_generation

_PIECE = 1 << 20
_MANIFEST = re.compile(rb"^(MANIFEST-[0-9]+) ([0-9]+) ([0-9a-f]{8})$", re.MULTILINE)
Files = dict[str, tuple[int, int]]


def write_generation(layout: Layout, tree: TreeReader | TreeWriter) -> None:
    """Brings the file up to what the tree holds, if it is not. Only files that are new in the tree are read.

    It is called before files of the tree are removed: a merger that is killed, at whatever time, leaves all the files there that are
    listed.
    """
    reached, names = tree_generation(tree), tree.files()
    try:
        old, known = read_generation(layout)
    except (FileNotFoundError, CorruptionError):
        known = {}
    else:
        manifest, _, _ = read_manifest(layout.tree, listed_in(known)).listed()
        if old == reached and sorted(known) == [*names, manifest]:
            return
        if old > reached:  # a damaged tree may open as it once was
            raise CorruptionError(f"the tree is at generation {reached}, the file `generation` says {old}", layout.tree)
    write_file(layout.generation, encode_generation(reached, list_files(layout.tree, names, known)))


def list_files(tree: Path, names: list[str], known: Files | None = None) -> Files:
    """What the file says of the tree with these SSTs. known: what is known of some of them. Raises CorruptionError, OSError."""
    files = {name: (known or {}).get(name) or file_checksum(tree / name) for name in names}
    manifest, size, check = read_manifest(tree).listed()
    return {**files, manifest: (size, check)}


def encode_generation(generation: int, files: Files) -> bytes:
    lines = [str(generation), *(f"{name} {size} {check:08x}" for name, (size, check) in sorted(files.items()))]
    text = "".join(f"{line}\n" for line in lines).encode()
    return text + b"crc " + _check_of(text)


def _check_of(text: bytes) -> bytes:
    return f"{crc32c(text):08x}\n".encode()


def wanted_generation(layout: Layout) -> tuple[int, Listed | None]:
    """(generation, what is listed of the MANIFEST) for a reader, who does not need the rest; (0, None) when there is no such file. Of a
    file that fails its check the number alone counts, which a tree cannot fall short of unnoticed. Raises CorruptionError."""
    try:
        data = read_regular(layout.generation)
    except FileNotFoundError:
        return 0, None
    try:
        number = int(data.split(b"\n", 1)[0])
    except ValueError:
        raise CorruptionError(f"the generation is no number: {data[:40]!r}", layout.generation, 0) from None
    text, _, check = data.rpartition(b"crc ")
    found = _MANIFEST.search(text) if check == _check_of(text) else None
    return number, None if found is None else (found[1].decode(), int(found[2]), int(found[3], 16))


def listed_manifest(layout: Layout) -> Listed | None:
    """What the file says of the MANIFEST: None when it says nothing, fails its check or is not there."""
    try:
        return listed_in(read_generation(layout)[1])
    except (FileNotFoundError, CorruptionError):
        return None


def listed_in(files: Files) -> Listed | None:
    return next(((name, size, check) for name, (size, check) in files.items() if is_manifest(name)), None)


def is_manifest(name: str) -> bool:
    return name.startswith("MANIFEST-")


def read_generation(layout: Layout) -> tuple[int, Files]:
    """(generation, name → (size, CRC)). Of the MANIFEST, which may have grown since, they are those of its beginning; older versions of
    aimlite did not list it. Raises CorruptionError, FileNotFoundError."""
    data = read_regular(layout.generation)
    text, _, check = data.rpartition(b"crc ")
    try:
        if check != _check_of(text):
            raise ValueError
        first, *rest = text.decode().splitlines()
        files = {name: (int(size), int(crc, 16)) for name, size, crc in (line.split(" ") for line in rest)}
        return int(first), files
    except ValueError:
        raise CorruptionError("the file `generation` fails its check", layout.generation, 0) from None


def file_checksum(path: Path) -> tuple[int, int]:
    """(size, CRC) of a file."""
    size = check = 0
    with open_regular(path) as file:
        while piece := file.read(_PIECE):
            check = crc32c(piece, check)
            size += len(piece)
    return size, check
