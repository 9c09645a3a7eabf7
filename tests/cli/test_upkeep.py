from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from aimlite import Repo, Run

Command = Callable[..., Result]


@pytest.fixture
def damaged(repo_path: str) -> Path:
    """A journal of an ended process with a flipped bit, in a repo that also holds a sound run in the tree."""
    script = (
        "import sys\nfrom aimlite import Run\nwith Run(sys.argv[1], repo=sys.argv[2]) as run:\n    run.track_columns('loss', range(1000))"
    )
    for run_hash in ("sound", "victim"):
        subprocess.run([sys.executable, "-c", script, run_hash, repo_path], check=True)
        if run_hash == "sound":
            with Repo(repo_path) as repo:
                repo.merge()
    [journal] = Path(repo_path, ".aimlite", "journals").glob("*.journal")
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    return journal


def test_init_makes_a_repo_once(aimlite: Command, repo_path: str) -> None:
    base = Path(repo_path, ".aimlite")
    assert json.loads(aimlite("init", "--json").stdout) == {"path": str(base), "made": True}
    assert (base / "VERSION").exists()
    assert aimlite("init").stdout == f"there was a repo already: {base}\n"


def test_init_makes_it_where_commands_look_and_never_above(
    process: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "outer" / "below"
    below.mkdir(parents=True)
    assert process("init", cwd=below.parent).stdout == f"made {below.parent}/.aimlite\n"
    assert process("init", cwd=below).stdout == f"made {below}/.aimlite\n"
    monkeypatch.setenv("AIMLITE_REPO", str(tmp_path / "named"))
    assert process("init", cwd=below).stdout == f"made {tmp_path}/named/.aimlite\n"


def test_a_sound_repo(aimlite: Command, repo: Repo) -> None:
    Run(repo=repo).close()
    assert (aimlite("check").exit_code, aimlite("check").stdout) == (0, f"nothing is wrong in {repo.path}\n")
    assert json.loads(aimlite("check", "--json").stdout) == {"problems": []}
    assert aimlite("repair", "--yes").stdout == "there was nothing to mend\n"
    assert json.loads(aimlite("repair", "--yes", "--json").stdout) == {"done": []}


@pytest.mark.parametrize("quick", [[], ["--quick"]], ids=["full", "quick"])
def test_check_tells_each_problem(aimlite: Command, damaged: Path, quick: list[str]) -> None:
    told, document = aimlite("check", *quick), aimlite("check", "--json", *quick)
    assert (told.exit_code, document.exit_code, told.stderr) == (1, 1, "")
    [problem] = json.loads(document.stdout)["problems"]
    assert told.stdout == f"journal: {problem['message']} ({damaged} at offset {problem['offset']})\n"
    assert (problem["kind"], problem["path"]) == ("journal", str(damaged))


def test_quick_does_not_look_at_every_byte(aimlite: Command, repo_path: str) -> None:
    with Repo(repo_path) as repo:
        Run("r", repo=repo).close()
        repo.merge()
    [table] = Path(repo_path, ".aimlite", "tree").glob("*.sst")
    data = bytearray(table.read_bytes())
    data[-1] ^= 1
    data[10] ^= 1
    table.write_bytes(data)
    assert "checksum" in aimlite("check").stdout
    assert "checksum" not in aimlite("check", "--quick").stdout


def test_a_damaged_run_does_not_hide_the_others(aimlite: Command, damaged: Path) -> None:
    listed = aimlite("ls")
    assert (listed.exit_code, [line.split("\t")[0] for line in listed.stdout.splitlines()]) == (4, ["sound"])
    assert listed.stderr.startswith("error: run victim is left out, being damaged: a record fails its check; ")
    assert str(damaged) in listed.stderr
    told = aimlite("stats")
    assert (told.exit_code, told.stdout.startswith("runs\t1\n")) == (4, True)
    assert told.stderr.startswith("error: runs may be missing here: a journal is damaged; ")
    for command in (["show", "victim"], ["export", "victim"]):
        result = aimlite(*command)
        assert (result.exit_code, result.stdout.count("\n") < 2) == (4, True)
        assert result.stderr.endswith("; 'aimlite check' lists all that is wrong, 'aimlite repair' keeps what is intact\n")
    assert aimlite("show", "sound").exit_code == 0
    error = json.loads(aimlite("show", "victim", "--json").stderr)["error"]
    assert (error["kind"], error["exit_code"]) == ("CorruptionError", 4)


def test_runs_that_may_be_missing_are_an_error_at_the_end(aimlite: Command, damaged: Path) -> None:
    data = bytearray(damaged.read_bytes())
    data[64:90] = bytes(26)  # the record that opens the run: nothing names it any more
    damaged.write_bytes(data)
    listed, document = aimlite("ls"), aimlite("ls", "--json")
    assert (listed.exit_code, document.exit_code) == (4, 4)
    assert listed.stdout.startswith("sound\t")
    assert [run["hash"] for run in json.loads(document.stdout)] == ["sound"]
    assert listed.stderr.startswith("error: runs may be missing here: a journal is damaged; ")
    assert (listed.stderr.count("\n"), json.loads(document.stderr)["error"]["exit_code"]) == (1, 4)
    assert aimlite("stats").stdout.startswith("runs\t1\n")
    for arguments in (["query", "run.hash != 'x'"], ["query", "--metrics"], ["ls", "--query", "True"], ["query", "--explain"]):
        asked = aimlite(*arguments)
        assert (asked.exit_code, asked.stderr) == (4, listed.stderr)


def test_merge_leaves_damage_alone_and_repair_mends_it(aimlite: Command, damaged: Path) -> None:
    left = aimlite("merge")
    assert (left.exit_code, left.stdout) == (4, "no ended journal waits\n")
    assert left.stderr.startswith(f"error: 1 journal left alone, being damaged ({damaged})")
    mended = aimlite("repair", "--yes")
    assert (mended.exit_code, mended.stdout.count("\n")) == (0, 1)
    assert aimlite("check").exit_code == 0


def test_merge_says_what_it_did(aimlite: Command, repo: Repo) -> None:
    with Run(repo=repo) as run:
        run.track_columns("loss", range(1000))
    told = aimlite("merge").stdout
    assert told.startswith("merged 1 journal, 1,000 points, ")
    assert aimlite("merge").stdout == "no ended journal waits\n"
    assert json.loads(aimlite("merge", "--json").stdout)["segments"] == 0


def test_repair_asks_first(terminal: Callable[..., str], aimlite: Command, damaged: Path) -> None:
    repo_path = str(damaged.parents[1])
    unasked = aimlite("repair")
    assert (unasked.exit_code, unasked.stdout) == (2, "")
    assert "pass --yes" in unasked.stderr
    assert "error: interrupted" in terminal(80, "repair", "--repo", repo_path, keys="n\n")
    assert aimlite("check").exit_code == 1
    terminal(80, "repair", "--repo", repo_path, keys="y\n")
    assert aimlite("check").exit_code == 0


def test_stats(aimlite: Command, terminal: Callable[..., str], repo: Repo, repo_path: str) -> None:
    with Run(repo=repo) as run:
        run.track_columns("loss", range(1000))
    repo.merge()
    document = json.loads(aimlite("stats", "--json").stdout)
    assert document == repo.stats()
    lines = dict(line.split("\t") for line in aimlite("stats").stdout.splitlines())
    assert (lines["runs"], lines["status.finished"], lines["points"]) == ("1", "1", "1000")
    assert lines["levels.0.bytes"] == str(document["levels"][0]["bytes"])
    assert float(lines["bytes_per_point"]) == document["bytes_per_point"]
    shown = dict(line.rsplit("  ", 1) for line in terminal(80, "stats", "--repo", repo_path).splitlines())
    assert {name.strip(): value for name, value in shown.items()}["points"] == "1,000"
