"""The trash and deletions for good: what is gone, what stays, and what writers of deleted runs do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from aimlite import Repo, Run, RunActiveError, RunNotFound, RunTrashed
from aimlite._ext.journal import now_us
from aimlite.storage import keys
from aimlite.storage.blobs import leaving_path, list_blobs, take_away
from aimlite.storage.helper import run_helper
from aimlite.storage.sweep import named_in_journals
from aimlite.storage.tree import TreeReader

LARGE = "x" * (1 << 20)


def record(repo: Repo, run_hash: str, content: str = "") -> None:
    with Run(run_hash, repo=repo, experiment="e") as run:
        run["lr"] = 0.5
        run["large"] = content or LARGE
        run.add_tag("t")
        run.track_columns("loss", np.arange(5000.0))
        run.track(1, name="acc", context={"s": 1})


def contents(repo: Repo) -> dict[str, object]:
    """All that queries, listings and counts tell."""
    return {
        "listed": repo.list_all_runs(),
        "count": repo.total_runs_count(),
        "iterated": [run.hash for run in repo.iter_runs()],
        "matched": repo.match_hashes("a"),
        "found": [found.run.hash for found in repo.query_runs("run.lr > 0").iter_runs()],
        "by name": [found.run.hash for found in repo.query_runs("'t' in run.tags").iter_runs()],
        "metrics": [metric.run.hash for metric in repo.query_metrics("metric.name == 'loss'").iter()],
        "params": sorted(repo.collect_params_info()),
        "sequences": repo.collect_sequence_info("metric"),
        "stats": (repo.stats()["runs"], repo.stats()["sequences"], repo.stats()["points"]),
    }


@pytest.mark.parametrize("merges", ["never", "before", "after", "both"])
def test_a_run_in_the_trash_is_nowhere_and_comes_back_whole(repo: Repo, merges: str) -> None:
    record(repo, "other")
    without = None
    if merges in ("before", "both"):
        repo.merge()
    without = contents(repo)
    with Run("a", repo=repo) as run:
        run["only here"] = 1
        run["lr"] = 0.1
        run.track(2.0, name="loss")
        run.track(3.0, name="its own")
        run.add_tag("t")
    if merges in ("before", "both"):
        repo.merge()
    before = contents(repo)
    assert repo.delete_run("a")
    for _ in range(2):
        assert contents(repo) == without
        assert repo.get_run("a") is None
        assert not repo.run_exists("a")
        assert [run.hash for run in repo.trash()] == ["a"]
        assert repo.stats()["trash"] == 1
        for open_it in (lambda: Run("a", repo=repo), lambda: Run("a", repo=repo, read_only=True), lambda: repo.edit_run("a")):
            with pytest.raises(RunTrashed, match="trash"):
                open_it()
        if merges in ("after", "both"):
            repo.merge()
    with pytest.raises(RunTrashed, match="already"):
        repo.delete_run("a")
    assert repo.restore_runs(["a"]) == ["a"]
    for _ in range(2):
        assert contents(repo) == before
        restored = repo.get_run("a")
        assert restored is not None
        assert restored[...] == {"only here": 1, "lr": 0.1}
        assert [metric.values.values_list() for metric in restored.metrics()] == [[3.0], [2.0]]
        if merges in ("after", "both"):
            repo.merge()
    assert repo.trash() == []


def test_a_run_that_is_written_goes_on_in_the_trash(repo: Repo) -> None:
    run = Run("a", repo=repo)
    run.track(1.0, name="m")
    with pytest.raises(RunActiveError, match="force=True"):
        repo.delete_run("a")
    assert repo.delete_run("a", force=True)
    run.track(2.0, name="m")
    run["p"] = 1
    repo.merge()
    run.track(3.0, name="m")
    run.close()
    repo.merge()
    assert repo.list_all_runs() == []
    repo.restore_runs(["a"])
    restored = repo.get_run("a")
    assert restored is not None
    assert (restored["p"], restored.status) == (1, "finished")
    metric = restored.get_metric("m")
    assert metric is not None
    assert metric.values.values_list() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("merged", [False, True])
def test_a_run_deleted_for_good_leaves_nothing_and_gives_its_space_back(repo: Repo, merged: bool) -> None:
    record(repo, "kept", "y" * (1 << 20))
    rng = np.random.default_rng(0)
    for run_hash in ("a", "a.b"):
        with Run(run_hash, repo=repo) as run:
            run["large"] = LARGE
            run.track_columns("noise", rng.random(200_000))
    if merged:
        repo.merge()
    before = repo.stats()["bytes"]
    assert repo.delete_run("a", permanent=True)
    assert repo.list_all_runs() == ["a.b", "kept"]
    assert repo.check() == []
    repo.delete_run("a.b")
    assert repo.delete_run("a.b", permanent=True)
    after = repo.stats()["bytes"]
    assert before["tree"] + before["journals"] - after["tree"] - after["journals"] > 2 * 200_000 * 6, "noise takes 6 bytes and more a point"
    assert len(list(list_blobs(repo._layout.blobs))) == 1
    assert repo.get_run("kept")["large"] == "y" * (1 << 20)  # type: ignore[index]
    tree = TreeReader(repo._layout.tree)
    assert [key for chunk in tree.scan_keys((b"\x02", None)) for key in chunk if re.search(rb"\x02a(\.b)?\x00", key)] == []
    tree.close()


def test_a_hash_deleted_for_good_is_free_again(repo: Repo) -> None:
    """In the process that deleted it, too, and in one journal."""
    old = Run("a", repo=repo)
    old["p"] = "old"
    old.track(1.0, name="m")
    assert repo.delete_run("a", permanent=True, force=True)
    old.track(2.0, name="m")  # it is not told
    old["q"] = "old"
    old.name = "old"
    assert repo.get_run("a") is None
    new = Run("a", repo=repo)
    new.track(3.0, name="m")
    old.track(4.0, name="m")
    new["p"] = "new"
    old["p"] = "old"
    old.finish("failed")
    for _ in range(3):
        run = repo.get_run("a")
        assert run is not None
        assert (run[...], run.name, run.status) == ({"p": "new"}, "Run: a", "running")
        metric = run.get_metric("m")
        assert metric is not None
        assert metric.values.sparse_list() == ([0], [3.0]), "its steps begin anew"
        repo.merge()
    new.close()
    assert new.status == "finished"


def test_a_deleted_run_stays_deleted_across_forks_and_rotations(repo: Repo) -> None:
    run = Run("a", repo=repo)
    run.track(1.0, name="m")
    assert repo.delete_run("a", permanent=True, force=True)
    repo._writer().end_segment()  # declares the run again
    run.track(2.0, name="m")
    child = os.fork()
    if not child:
        run.track(3.0, name="m")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert repo.list_all_runs() == []
    repo.merge()
    assert repo.list_all_runs() == []
    run.close()
    repo.merge()
    assert repo.list_all_runs() == []
    assert repo.check() == []


def test_an_edit_of_a_run_that_was_deleted_meanwhile_brings_nothing_back(repo: Repo) -> None:
    record(repo, "a")
    order = now_us()
    created = int(Run("a", repo=repo, read_only=True).creation_time * 1e6)
    repo.delete_run("a", permanent=True)
    from aimlite._ext import journal
    from aimlite.storage import params

    repo._writer().edit_run("a", order, created, [(journal.PROPERTY, params.packb(["name", "late"]))])
    assert repo.list_all_runs() == []
    repo.merge()
    assert repo.list_all_runs() == []


@pytest.mark.parametrize("merged", [False, True])
def test_a_metric_is_deleted(repo: Repo, merged: bool) -> None:
    run = Run("a", repo=repo)
    for step in range(3):
        run.track({"m": step, "n": step}, context={"s": step})
    if merged:
        repo.merge()
    with pytest.raises(RunActiveError):
        repo.delete_sequence("a", "m", {"s": 1})
    assert repo.delete_sequence("a", "m", {"s": 1}, force=True)
    for _ in range(2):
        assert [(m.name, m.context.to_dict()) for m in run.metrics()] == [
            ("m", {"s": 0}),
            ("m", {"s": 2}),
            ("n", {"s": 0}),
            ("n", {"s": 1}),
            ("n", {"s": 2}),
        ]
        assert run.get_metric("m", {"s": 1}) is None
        repo.merge()
    run.track(5.0, name="m", context={"s": 1})
    for _ in range(2):
        metric = run.get_metric("m", {"s": 1})
        assert metric is not None
        assert metric.values.values_list() == [5.0]
        run.close()
        repo.merge()
    with pytest.raises(KeyError, match="no metric 'z'"):
        repo.delete_sequence("a", "z")


def test_what_is_not_there_cannot_be_deleted(repo: Repo) -> None:
    record(repo, "a")
    for delete in (repo.delete_run, lambda found: repo.delete_runs(["a", found]), lambda found: repo.restore_runs([found])):
        with pytest.raises(RunNotFound, match="'nobody'"):
            delete("nobody")
    with pytest.raises(RunNotFound, match="experiment 'nobody'"):
        repo.delete_experiment("nobody")
    with pytest.raises(RunNotFound, match="trash"):
        repo.purge(["a"])
    with pytest.raises(TypeError, match="several"):
        repo.delete_runs("a")
    assert repo.list_all_runs() == ["a"]


def test_an_experiment_is_deleted_and_the_trash_purged(repo: Repo) -> None:
    for number in range(3):
        with Run(f"a{number}", repo=repo, experiment="e" if number else "other") as run:
            run["p"] = number
    assert repo.delete_experiment("e")
    assert repo.list_all_runs() == ["a0"]
    assert [(run.hash, run.experiment) for run in repo.trash()] == [("a2", "e"), ("a1", "e")]
    assert repo.purge(older_than=timedelta(days=1)) == []
    assert repo.purge(["a1"]) == ["a1"]
    assert repo.purge() == ["a2"]
    assert repo.purge() == []
    assert repo.trash() == []
    assert repo.delete_runs(["a0"], permanent=True) == (True, [])
    assert repo.total_runs_count() == 0


# -- blobs ----


def test_a_blob_goes_with_the_last_run_that_names_it(repo: Repo) -> None:
    for run_hash in "abc":
        record(repo, run_hash)
    (blob,) = list_blobs(repo._layout.blobs)
    repo.merge()
    repo.delete_run("a", permanent=True)
    with Run("d", repo=repo) as run:
        run["p"] = LARGE
        repo.delete_runs(["b", "c"], permanent=True)
        assert blob.exists(), "a journal names it"
    repo.merge()
    assert repo.get_run("d")["p"] == LARGE  # type: ignore[index]
    repo.delete_run("d", permanent=True)
    assert not blob.exists()


def test_pruning_frees_what_was_replaced_and_what_was_left(repo: Repo) -> None:
    with Run("a", repo=repo) as run:
        run["p"] = LARGE
        repo._writer().end_segment()
        repo.merge()
        run["p"] = 1
    (replaced,) = list_blobs(repo._layout.blobs)
    with Run("b", repo=repo) as run:
        run["p"] = "z" * (1 << 20)
    done = repo.prune()
    assert (done["blobs"], done["references"]) == (1, 1)
    assert done["freed_bytes"] > 1 << 19
    assert not replaced.exists()
    (left,) = list_blobs(repo._layout.blobs)
    assert take_away(left)  # somebody is killed here
    assert repo.get_run("b")["p"] == "z" * (1 << 20)  # type: ignore[index]
    assert repo.check() == []
    repo.prune()
    assert left.exists()
    assert not leaving_path(left).exists()


RACING = """
    import sys
    from aimlite import Repo, Run
    repo, large = Repo(sys.argv[1]), "x" * (1 << 20)
    for number in range(int(sys.argv[2])):
        with Run(f"w{number}", repo=repo) as run:
            run["p"] = large
            run["q"] = number
        print(number, flush=True)
"""


def test_a_writer_that_uses_a_blob_again_never_loses_it_to_who_deletes_it(repo: Repo) -> None:
    """The runs of one process are deleted by another as soon as they are there; those left have their content."""
    count = 40 if os.environ.get("AIMLITE_STRESS") == "1" else 12
    command = [sys.executable, "-c", textwrap.dedent(RACING), repo.path, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) % 3:
                repo.delete_run(f"w{int(line)}", permanent=True)
    assert writer.returncode == 0
    for run in repo.iter_runs():
        assert run["p"] == LARGE
    assert repo.total_runs_count() == -(-count // 3)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import aimlite.storage.deletion as deletion
    from aimlite.storage import generation, sweep, tree
    from aimlite.storage.layout import Layout
    place, name = sys.argv[2].rsplit(".", 1)
    module = {"tree": tree.TreeWriter, "sweep": sweep, "generation": generation}[place]
    original, after = getattr(module, name), sys.argv[3] == "after"
    calls = int(sys.argv[4])
    def dies(*arguments, **named):
        global calls
        calls -= 1
        if calls:
            return original(*arguments, **named)
        if after:
            original(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(module, name, dies)
    deletion.delete(Layout(Path(sys.argv[1])), ["a"], [])
"""
WHERE = [
    ("tree.commit", 1),
    ("generation.write_generation", 3),
    ("sweep.take_away", 1),
    ("sweep.end_leaving", 1),
    ("tree.compact_ranges", 1),
]


@pytest.mark.parametrize(("where", "call"), WHERE, ids=lambda part: str(part))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_deletion_killed_anywhere_is_done_or_not(repo: Repo, where: str, call: int, when: str) -> None:
    record(repo, "a")
    record(repo, "b", "y" * (1 << 20))
    repo.merge()
    command = [sys.executable, "-c", textwrap.dedent(KILLED), repo.path, where, when, str(call)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    deleted = (where, when) != ("tree.commit", "before")
    if (where, when) not in (("tree.commit", "after"), ("generation.write_generation", "before")):  # else readers may not see it yet
        assert repo.list_all_runs() == (["b"] if deleted else ["b", "a"])
    assert repo.check() == []
    repo.merge()
    assert repo.list_all_runs() == (["b"] if deleted else ["b", "a"])
    if deleted:
        repo.prune()
        assert [path for path in Path(repo._layout.blobs).rglob("*") if path.is_file()] == list(list_blobs(repo._layout.blobs))
        assert len(list(list_blobs(repo._layout.blobs))) == 1
    assert repo.get_run("b")["large"] == "y" * (1 << 20)  # type: ignore[index]


def test_references_are_mended(repo: Repo) -> None:
    record(repo, "a")
    repo.merge()
    (digest,) = (bytes.fromhex(path.parent.name + path.name) for path in list_blobs(repo._layout.blobs))
    script = (
        "import sys; from pathlib import Path; from aimlite.storage.tree import TreeWriter; from aimlite.storage import generation\n"
        "from aimlite.storage.layout import Layout\n"
        "layout = Layout(Path(sys.argv[1])); tree = TreeWriter(layout.tree)\n"
        "tree.commit({bytes.fromhex(sys.argv[2]): None}); generation.write_generation(layout, tree); tree.close()"
    )
    subprocess.run([sys.executable, "-c", script, repo.path, keys.reference(digest, "a").hex()], check=True)
    assert any("reference" in problem.message for problem in repo.check())
    repo.repair()
    assert repo.check() == []
    assert named_in_journals(repo._layout) == set()
    run_helper(repo._layout, "merge")
