"""What is left out, held against git itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aimlite.archive.listing import list_path
from aimlite.archive.rules import ALL_IGNORE_FILES, OWN_IGNORE_FILES, is_secret

NAMES = ["a", "b", "ab", "a.py", "b.txt", "data", "x y"]
PATTERNS = [
    "a",
    "b",
    "*.py",
    "/a",
    "a/",
    "data/",
    "/data/*",
    "!a",
    "!a.py",
    "!data/b",
    "a/**/b",
    "**/b",
    "data/**",
    "*",
    "!*/",
    "!*.py",
    "?",
    "[ab]",
    "# a",
    "\\#",
    "x\\ y",
    "a*",
    "b/a",
    "/*",
    "!/data",
    " a",
    "a ",
    "[",
    "\\",
]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
ignore_files = st.dictionaries(
    st.sampled_from(["", "a/", "data/", "a/b/"]), st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=4), max_size=3
)


def make(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        place = root / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            pass  # a path below a file, or a file where a directory is


def listed(root: Path, ignore: tuple[str, ...] = ALL_IGNORE_FILES) -> set[str]:
    return {path for path, _, _ in list_path(str(root), ignore).files}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is what it is compared with")
@settings(max_examples=500 if os.environ.get("AIMLITE_STRESS") == "1" else 15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(paths, min_size=1, max_size=12), ignore_files)
def test_git_takes_in_the_same(tmp_path: Path, files: set[str], ignored: dict[str, list[str]]) -> None:
    root = tmp_path / os.urandom(8).hex()
    root.mkdir()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    make(root, {**{path: path for path in sorted(files)}, **{f"{at}.gitignore": "\n".join(lines) for at, lines in ignored.items()}})
    command = ["git", "-C", str(root), "-c", "core.excludesFile=", "ls-files", "-z", "--others", "--exclude-standard"]
    expected = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")) - {""}
    assert listed(root) == expected
    shutil.rmtree(root)


def test_our_own_ignore_file_has_the_last_word(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            ".gitignore": "*.csv\nout/",
            ".rnignore": "notes",
            ".aimliteignore": "!small.csv",
            "small.csv": "",
            "large.csv": "",
            "notes": "",
            "out/a": "",
            "main.py": "",
        },
    )
    make(tmp_path, {"sub/.aimliteignore": "main.py", "sub/main.py": "", "sub/large.csv": ""})
    assert listed(tmp_path) == {".gitignore", ".rnignore", ".aimliteignore", "small.csv", "main.py", "sub/.aimliteignore"}
    assert listed(tmp_path, OWN_IGNORE_FILES) == listed(tmp_path) | {"large.csv", "out/a", "sub/large.csv"}


def test_a_directory_of_a_git_repository_heeds_what_is_above_it(tmp_path: Path) -> None:
    make(tmp_path, {".git/info/exclude": "excluded", ".gitignore": "/sub/anchored\n*.log", "sub/.gitignore": "!kept.log"})
    make(tmp_path, {f"sub/{name}": "" for name in ("anchored", "a.log", "kept.log", "excluded", "main.py", "deeper/anchored")})
    assert listed(tmp_path / "sub") == {".gitignore", "kept.log", "main.py", "deeper/anchored"}


def test_some_things_are_left_out_whatever_the_patterns_say(tmp_path: Path) -> None:
    kept = {
        ".aimliteignore": "!*\n!.env\n!.git/",
        "main.py": "",
        ".env.example": "",
        "id_rsa.pub": "",
        "env/agent.py": "",
        "environment.py": "",
    }
    left = [
        ".git/config",
        ".venv/bin/python",
        "venv/x",
        "node_modules/x.js",
        "__pycache__/main.pyc",
        ".aimlite/VERSION",
        ".aim/x",
        "conda/conda-meta/history",
        "conda/bin/python",
    ]
    left += [
        "mine/pyvenv.cfg",
        "mine/lib/x.py",
        ".env",
        ".env.local",
        "sub/.ENV",
        "server.key",
        "id_ed25519",
        "cert.PEM",
        ".netrc",
        ".pypirc",
    ]
    make(tmp_path, kept | dict.fromkeys(left, ""))
    listing = list_path(str(tmp_path), ALL_IGNORE_FILES)
    assert {path for path, _, _ in listing.files} == set(kept)
    assert {path for path, _ in listing.left_out} == {path for path in left if is_secret(path.rpartition("/")[2])}


def test_the_repo_is_left_out_wherever_it_lies(tmp_path: Path) -> None:
    make(tmp_path, {"main.py": "", "store/VERSION": "", "deep/store/VERSION": ""})
    assert {path for path, _, _ in list_path(str(tmp_path), (), str(tmp_path / "deep" / "store")).files} == {"main.py", "store/VERSION"}
    with pytest.raises(ValueError, match="lies in the repo"):
        list_path(str(tmp_path / "store"), (), str(tmp_path / "store"))


@pytest.mark.parametrize("text", [b"\xff\xfe*.csv", b"[\n*.csv", b"\xef\xbb\xbf*.csv", b"*.csv\r\n", b"\\\n*.csv"])
def test_an_odd_ignore_file(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.csv").touch()
    (tmp_path / "a.py").touch()
    (tmp_path / ".gitignore").write_bytes(text)
    assert "a.py" in listed(tmp_path)
    assert ("a.csv" in listed(tmp_path)) == text.startswith(b"\xff\xfe")
