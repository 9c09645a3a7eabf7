"""What is found of a directory, and what of it is told."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlite.archive.listing import LimitExceeded, Limits, list_path, stays_inside

parts = st.sampled_from(["..", ".", "", "a", "b", "a b"])


def test_files_links_and_empty_directories(tmp_path: Path) -> None:
    (tmp_path / "sub/deeper").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "b.txt").write_text("1234")
    (tmp_path / "sub/a.txt").write_text("12")
    (tmp_path / "sub/up").symlink_to("../b.txt")
    (tmp_path / "sub/loop").symlink_to("../sub")
    os.utime(tmp_path / "b.txt", (0, 5e9))
    listing = list_path(str(tmp_path), ())
    assert [(path, size) for path, size, _ in listing.files] == [("b.txt", 4), ("sub/a.txt", 2)]
    assert listing.links == [("sub/loop", "../sub"), ("sub/up", "../b.txt")]
    assert listing.directories == ["empty", "sub/deeper"]
    assert (listing.size_bytes, listing.modified, listing.left_out) == (6, 5e9, [])


def test_a_single_file_and_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "best.pth").write_text("1234")
    (tmp_path / "last.pth").symlink_to("best.pth")
    assert [path for path, _, _ in list_path(str(tmp_path / "best.pth"), ()).files] == ["best.pth"]
    assert [path for path, _, _ in list_path(str(tmp_path / "last.pth"), ()).files] == ["best.pth"]
    with pytest.raises(FileNotFoundError):
        list_path(str(tmp_path / "no"), ())


def test_what_leads_out_or_is_no_file_is_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_text("secret")
    for name, target in (("up", "../outside"), ("absolute", "/etc/passwd"), ("same", str(root)), ("twice", "a/../../outside")):
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(root)  # a path of a socket must be short
        server.bind("socket")
        listing = list_path(str(root), ())
    os.chdir(tmp_path)
    assert (listing.files, listing.links) == ([], [])
    assert [path for path, why in listing.left_out if "leads out" in why] == ["absolute", "same", "twice", "up"]
    assert [path for path, why in listing.left_out if "no file" in why] == ["pipe", "socket"]
    with pytest.raises(ValueError, match="neither a file nor a directory"):
        list_path(str(root / "pipe"), ())


@given(st.lists(parts, max_size=6), st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3))
def test_a_link_that_stays_inside_does(target: list[str], place: list[str]) -> None:
    """Also when another link is on its way: those that are let through cannot be put together to one that leads out."""
    text = "/".join(target)
    lexical = os.path.normpath(os.path.join("/root", *place[:-1], text))
    if text and stays_inside("/".join(place), text):
        assert lexical == "/root" or lexical.startswith("/root/")
        named = [part for part in target if part not in ("", ".")]
        assert ".." not in named[named.count("..") :]
    elif text and not text.startswith("/") and ".." not in target:
        pytest.fail(f"{text!r} does not lead out")


def test_limits(tmp_path: Path) -> None:
    for at in range(10):
        (tmp_path / f"{at}.bin").write_bytes(bytes(100))
    assert len(list_path(str(tmp_path), (), limits=Limits(1000, 10)).files) == 10
    with pytest.raises(LimitExceeded, match=r"more than 999 bytes; the largest so far: .*bin \(100 bytes\)"):
        list_path(str(tmp_path), (), limits=Limits(999, 10))
    with pytest.raises(LimitExceeded, match="more than 9 files"):
        list_path(str(tmp_path), (), limits=Limits(1000, 9))
    with pytest.raises(LimitExceeded, match="more than 99 bytes"):
        list_path(str(tmp_path / "0.bin"), (), limits=Limits(99, 10))


UNREADABLE = """
import os, warnings
from aimlite import Run
os.chmod('closed', 0); os.chmod('secret.bin', 0)
with warnings.catch_warnings(record=True) as warned, Run(repo='repo') as run:
    warnings.simplefilter('always')
    run.log_dataset('mine', '.', save=True)
os.chmod('closed', 0o700); os.chmod('secret.bin', 0o600)
print([str(warning.message) for warning in warned])
print(run['datasets', 'mine', 'train', 'left_out'], run['datasets', 'mine', 'train', 'files'])
run.restore_dataset('mine', 'out')
print(sorted(os.listdir('out')))
"""


def test_what_cannot_be_read_is_told_once_and_left_out(tmp_path: Path) -> None:
    """Root can read everything, so a child of it gives that up."""
    for name in ("closed/a", "open/a", "secret.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    command = [sys.executable, "-c", UNREADABLE]
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("without setpriv root cannot give up reading everything")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    warned, recorded, restored = done.stdout.splitlines()
    assert warned.count("was left out: it cannot be read: Permission denied") == 2
    assert recorded == "[['closed', 'cannot be read: Permission denied'], ['secret.bin', 'cannot be read: Permission denied']] 1"
    assert restored == "['open', 'repo']"  # where the repo lies nothing is left
