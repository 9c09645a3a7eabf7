"""Whatever a task of the merge helper had done when it was killed, or met a full disk: nothing of the other runs is lost, check() is clean,
and who next has the lease leaves nothing behind. Every operation of each task is interrupted, one after the other."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stress.conftest import FULL

from aimlite import Repo, Run, Text
from aimlite.storage.writer import end_segment

LARGE = "x" * (1 << 20)
SHARED = "y" * (1 << 20)


def record(repo: Repo, run_hash: str, large: str) -> None:
    chance = random.Random(run_hash)
    with Run(run_hash, repo=repo) as run:
        run["large"] = large
        run["shared"] = SHARED
        run["p"] = {"lr": 0.5, "list": [1, 2]}
        run.track_columns("m", [chance.random() for _ in range(5000)])
        run.track(1, name="m", context={"other": True})
        run.track([Text(run_hash * 200), Text("both" * 200)], name="t")
        run.track(Text(large), name="t", context={"large": True})
        run.track(Text(f"single {run_hash} " * 100), name="s")
        run.add_tag("tagged")


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """Three runs that share contents, merged, and a journal with more of each."""
    root = tmp_path / "template"
    repo = Repo(root)
    for run_hash, large in (("a", LARGE), ("b", LARGE[1:] + "b"), ("c", LARGE[1:] + "c")):
        record(repo, run_hash, large)
    with Run("a", repo=repo) as run:
        (tmp_path / "model.bin").write_bytes(b"m" * 5000)
        run.log_artifact(tmp_path / "model.bin")
        run.log_code(tmp_path)
    repo.merge()
    for place in ("files", "uploads"):
        for run_hash in "ab":
            (root / ".aimlite" / place / run_hash).mkdir(parents=True)
            (root / ".aimlite" / place / run_hash / "kept").write_text(run_hash)
    for run_hash in ("a", "b"):
        with Run(run_hash, repo=repo) as run:
            run.track(Text(f"late {run_hash} " * 100), name="late")
            run["late"] = "l" * (1 << 20)
    end_segment(repo._layout)
    return root


CHILD = Path(__file__).parent / "children" / "interrupting.py"
HOW = pytest.mark.parametrize("how", ["kill", "full"])


def interrupted(template: Path, task: str, request: Any, follow: str, how: str, every: bool = False) -> list[dict[str, Any]]:
    """What was found after each interruption; the last one is of the task that came to its end. every: also in a small run."""
    work = template.with_name("work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    command = [sys.executable, str(CHILD), str(template), str(work), task, json.dumps(request), follow, how, "1" if FULL or every else "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    for turn in turns:
        assert "error" not in turn, turn["error"]
        assert "error" not in turn["stopped"], turn["stopped"]["error"]
    assert turns[-1]["stopped"] == {"finished": True}
    assert len(turns) > 3
    return turns


DELETED: tuple[list[str], list[Any]] = (["a"], [["b", "m", {}], ["b", ["texts", "t"], {}], ["b", ["texts", "t"], {"large": True}]])


@HOW
@pytest.mark.parametrize("follow", ["merge", "again", "prune"])
def test_a_deletion(template: Path, follow: str, how: str) -> None:
    *turns, whole = interrupted(template, "delete", DELETED, follow, how, every=follow == "merge")
    before = {key: whole["runs"][key] for key in "c"}
    for turn in turns:
        at = turn["number"], turn["stopped"]
        assert turn["at_once"] == turn["problems"] == turn["marks"] == [], at
        assert turn["runs"].items() >= before.items(), at
        if "a" in turn["runs"]:  # it was stopped before its first commit
            assert follow != "again", at
            assert {"files/a/kept", "uploads/a/kept"} <= set(turn["others"]), at
        else:
            assert turn == {**whole, "number": turn["number"], "stopped": turn["stopped"]}, at
    assert [turn for turn in turns if "a" not in turn["runs"]]
    assert "files/a/kept" not in whole["others"]
    assert "files/b/kept" in whole["others"]


@HOW
def test_a_prune(template: Path, how: str) -> None:
    repo = Repo(template)
    with Run("b", repo=repo) as run:
        run["large"] = "small"
        run["other"] = LARGE[2:] + "bb"
        del run["other"]
    end_segment(repo._layout)
    turns = interrupted(template, "prune", None, "prune", how)
    for turn in turns:
        assert turn["at_once"] == turn["problems"] == [], turn
        assert turn == {**turns[-1], "number": turn["number"], "stopped": turn["stopped"]}


@HOW
def test_a_merge(template: Path, how: str) -> None:
    turns = interrupted(template, "merge", None, "merge", how)
    for turn in turns:
        assert turn["at_once"] == turn["problems"] == [], turn
        assert turn == {**turns[-1], "number": turn["number"], "stopped": turn["stopped"]}
    assert list(turns[-1]["runs"]) == ["c", "b", "a"]


@HOW
@pytest.mark.parametrize("follow", ["merge", "again", "again+prune"])
def test_an_import(template: Path, tmp_path: Path, follow: str, how: str) -> None:
    """Runs are taken wholly or not at all, and what was put of the others goes, blobs too."""
    archive = tmp_path / "runs.zip"
    other = Repo(tmp_path / "other")
    for run_hash in ("d", "e"):
        record(other, run_hash, f"z{run_hash}" * (1 << 19))
    other.export_runs(archive, ["d", "e"])
    *turns, whole = interrupted(template, "import", str(archive), follow, how)
    assert set(whole["runs"]) == {"a", "b", "c", "d", "e"}
    for turn in turns:
        at = turn["number"], turn["stopped"]
        assert turn["at_once"] == turn["problems"] == turn["marks"] == [], at
        assert turn["runs"].items() <= whole["runs"].items(), at
        assert {"a", "b", "c"} <= set(turn["runs"]), at
        if follow != "merge":
            assert turn == {**whole, "number": turn["number"], "stopped": turn["stopped"]}, at
        elif "d" not in turn["runs"]:
            assert set(turn["blobs"]) < set(whole["blobs"]), at
        assert turn["others"] == whole["others"], at
    assert follow != "merge" or {len(turn["runs"]) for turn in turns} >= {3, 4}


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


@pytest.fixture
def damaged(template: Path) -> Path:
    """The same with a flipped byte in the tree, in a journal, in a blob and in VERSION."""
    base = template / ".aimlite"
    (tree,) = base.glob("tree/*.sst")
    flip(tree, tree.stat().st_size // 2)
    journal = max(base.glob("journals/*"), key=lambda path: path.stat().st_size)
    flip(journal, journal.stat().st_size // 2)
    blob = next(path for path in base.glob("blobs/??/*") if path.read_bytes()[-1:] == b"b")
    flip(blob, 1000)
    return template


@HOW
@pytest.mark.parametrize("follow", ["again+merge", "merge+again+merge"])
def test_a_repair(damaged: Path, follow: str, how: str) -> None:
    """Interrupted anywhere and begun again it ends as one that was not interrupted."""
    *turns, whole = interrupted(damaged, "repair", None, follow, how, every=(follow, how) == ("again+merge", "kill"))
    assert whole["problems"] == []
    assert set(whole["runs"]) == {"a", "b", "c"}
    for turn in turns:
        expected = {**whole, "number": turn["number"], "stopped": turn["stopped"], "at_once": turn["at_once"]}
        if follow.startswith("merge") and any("checksum is" in problem for problem in turn["at_once"]):
            assert turn["runs"].keys() == whole["runs"].keys()  # the merge put more into the damaged tree, of which more may be lost
            expected |= {"runs": turn["runs"], "contents": turn["contents"], "blobs": turn["blobs"]}
        assert turn == expected, turn
