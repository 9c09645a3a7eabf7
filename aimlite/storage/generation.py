"""The file `generation`: what readers compare to learn that the tree moved on, and the checksums of the tree's files.

Replaced by rename after each commit of a merge. docs/format.md, "Files".
"""

from __future__ import annotations

from pathlib import Path

from aimlite._ext.blocks import crc32c
from aimlite.errors import CorruptionError
from aimlite.storage.files import write_file
from aimlite.storage.layout import Layout
from aimlite.storage.tree import TreeReader, TreeWriter, tree_generation

_PIECE = 1 << 20
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
        if old == reached and sorted(known) == names:
            return
        if old > reached:  # a damaged tree may open as it once was
            raise CorruptionError(f"the tree is at generation {reached}, the file `generation` says {old}", layout.tree)
    files = {name: known.get(name) or file_checksum(layout.tree / name) for name in names}
    write_file(layout.generation, encode_generation(reached, files))


def encode_generation(generation: int, files: Files) -> bytes:
    lines = [str(generation), *(f"{name} {size} {check:08x}" for name, (size, check) in sorted(files.items()))]
    text = "".join(f"{line}\n" for line in lines).encode()
    return text + b"crc " + _check_of(text)


def _check_of(text: bytes) -> bytes:
    return f"{crc32c(text):08x}\n".encode()


def read_generation(layout: Layout) -> tuple[int, Files]:
    """(generation, name → (size, CRC)). Raises CorruptionError, FileNotFoundError."""
    data = layout.generation.read_bytes()
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
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            check = crc32c(piece, check)
            size += len(piece)
    return size, check
