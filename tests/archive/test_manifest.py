"""Manifests come back as they were, and hostile ones do not come at all."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlite.archive.manifest import File, Manifest, decode_manifest, is_safe_path
from aimlite.errors import CorruptionError

DIGEST = bytes(range(32))
PLAIN = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
ODD = st.binary(min_size=1, max_size=6).map(lambda name: name.translate(bytes.maketrans(b"/\0", b"__")).decode("utf-8", "surrogateescape"))
names = st.one_of(PLAIN, ODD).filter(lambda name: name not in (".", ".."))
trees = st.dictionaries(
    names,
    st.one_of(
        st.tuples(st.integers(0, 2**62), st.integers(0, 0o777), st.binary(min_size=32, max_size=32)),
        st.just("link"),
        st.just("directory"),
    ),
    max_size=8,
)


@given(trees, names)
def test_round_trip(tree: dict[str, object], above: str) -> None:
    manifest = Manifest()
    for name, what in tree.items():
        path = f"{above}/{name}"
        if isinstance(what, tuple):
            manifest.files.append(File(path, *what))
        elif what == "link":
            manifest.links.append((path, "../x"))
        else:
            manifest.directories.append(path)
    encoded = manifest.encode()
    decoded = decode_manifest(encoded)
    assert sorted(decoded.files, key=lambda file: file.path) == sorted(manifest.files, key=lambda file: file.path)
    assert sorted(decoded.links) == sorted(manifest.links)
    assert sorted(decoded.directories) == sorted(manifest.directories)
    assert decoded.encode() == encoded


def packed(*rows: object, head: object = ("aimlite manifest", 1)) -> bytes:
    return b"".join(msgpack.packb(row) for row in (head, *rows))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 20,
        packed(head=["aimlite manifest", 2]),
        packed(["../up", 1, 0o644, DIGEST]),
        packed(["/etc/passwd", 1, 0o644, DIGEST]),
        packed(["a/../../b", 1, 0o644, DIGEST]),
        packed(["a//b", 1, 0o644, DIGEST]),
        packed(["a\0b", 1, 0o644, DIGEST]),
        packed(["", 1, 0o644, DIGEST]),
        packed([".", 1, 0o644, DIGEST]),
        packed(["a", -1, 0o644, DIGEST]),
        packed(["a", 1, 0o644, DIGEST[:31]]),
        packed(["a", "1", 0o644, DIGEST]),
        packed(["a", 1, 0o644, DIGEST, 5]),
        packed([5]),
        packed([]),
        packed("a"),
        packed(["link", "/etc"]),
        packed(["link", "../x"]),
        packed(["sub/link", "../../x"]),
        packed(["link", "a/../../x"]),
        packed(["link", ""]),
        packed([".."]),
        packed(["a", 1, 0o644, DIGEST], ["a", 1, 0o644, DIGEST]),
        packed(["a", "b"], ["a/b", 1, 0o644, DIGEST]),
        packed(["a", 1, 0o644, DIGEST], ["a/b/c"]),
        packed(["a", 1, 0o644, DIGEST])[:-1],
        packed(["a", 1, 0o644, DIGEST]) + b"\xc1",
    ],
)
def test_what_is_hostile_or_broken_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        decode_manifest(data)


def test_modes_are_permissions_only() -> None:
    assert decode_manifest(packed(["a", 1, 0o106755, DIGEST])).files == [File("a", 1, 0o755, DIGEST)]


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        manifest = decode_manifest(data)
    except CorruptionError:
        return
    assert all(is_safe_path(file.path) for file in manifest.files)


@pytest.mark.parametrize("path", ["a/" * 60_000 + "a", "a/" * 200 + "a", "a" * 256, "\u00e9" * 128])
def test_a_path_that_no_file_system_has_is_refused(path: str) -> None:
    """Each directory above a file is remembered: this one would take gigabytes."""
    with pytest.raises(CorruptionError, match="cannot be restored"):
        decode_manifest(msgpack.packb(["aimlite manifest", 1]) + msgpack.packb([path]))
