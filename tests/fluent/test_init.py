"""Opening, ending, and what a run has."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aimlite
from aimlite import FluentRun, NoOpRun, Repo

Init = Callable[..., FluentRun]
Warned = Callable[[Callable[[], Any]], list[str]]


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        (None, "default"),
        ("", "default"),
        ("/", "default"),
        ("cv/resnet50/baseline", "cv/resnet50/baseline"),
        ("/cv/yolo/", "cv/yolo"),
        ("cv\\yolo", "cv/yolo"),
        ("a//b", "a/b"),
        ("A-b_9", "A-b_9"),
        ("x" * 200, "x" * 200),
    ],
)
def test_paths_are_normalised(init: Init, repo: Repo, path: str | None, kept: str) -> None:
    with init(path) as run:
        assert (run.path, run.experiment) == (kept, kept)
    assert repo.query_runs(f"run.path == {kept!r} and run.experiment == {kept!r}").hashes() == [run.hash]


BAD: list[tuple[dict[str, Any], type[Exception]]] = [
    *(({"path": path}, ValueError) for path in ("a b", "ü", "a.b", "..", "a:b", "cv/x\n", "x" * 201)),
    ({"path": 5}, TypeError),
    ({"run_id": "../evil"}, ValueError),
    ({"run_id": "/etc/passwd"}, ValueError),
    ({"run_id": ".hidden"}, ValueError),
    ({"run_id": "x" * 129}, ValueError),
    ({"run_id": 5}, TypeError),
    ({"alias": 5}, TypeError),
    ({"tqdm_mode": "some"}, ValueError),
    ({"snapshot_format": "tar"}, ValueError),
    ({"capture_env": 1}, TypeError),
    ({"snapshot_code": "yes"}, TypeError),
    ({"workspace_root": 5}, TypeError),
]


@pytest.mark.parametrize(("settings", "error"), BAD)
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        aimlite.init(storage=tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()
    assert aimlite.get_active_run() is None


def test_what_a_run_has(init: Init, repo: Repo, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    with init("cv/x", alias="best") as run:
        assert (run.id, run.alias, run.name, run.workspace_root, run.storage_root) == (
            run.hash,
            "best",
            "best",
            tmp_path,
            tmp_path / "repo",
        )
        assert not run.is_finished
        (run.run_dir / "notes.txt").write_text("scratch")
        assert run.run_dir.is_relative_to(tmp_path / "repo")
    assert run.is_finished
    with init(workspace_root=tmp_path / "repo") as other:
        assert other.workspace_root == tmp_path / "repo"
        assert (other.alias, len(other.id)) == (None, 24)
    with init(run_id="") as generated:
        assert len(generated.id) == 24
    directory = run.run_dir
    repo.delete_run(run.hash, permanent=True)
    assert not directory.exists()


def test_nothing_is_recorded_by_itself(init: Init) -> None:
    with init() as run:
        run.log({"a": 1})
    assert (dict(run), [metric.name for metric in run.metrics()]) == ({}, ["a"])


def test_the_environment_is_recorded_when_asked_for(init: Init) -> None:
    with init(capture_env=True) as run:
        pass
    assert run["__system_params", "executable"] == sys.executable


@pytest.mark.parametrize(
    ("given", "status"),
    [
        *((word, "finished") for word in ("finished", "completed", "success", " Finished ")),
        *((word, "failed") for word in ("failed", "error", "crashed", "FAILED")),
        *((word, "interrupted") for word in ("interrupted", "killed", "cancelled", "aborted")),
    ],
)
def test_the_first_end_stands(init: Init, warned: Warned, given: str, status: str) -> None:
    with init() as run:
        run.finish(given)
        assert warned(lambda: run.finish("failed")) == []
    assert run.status == status


@pytest.mark.parametrize("word", ["", "running", "done", None, 5])
def test_an_unknown_end_is_refused(init: Init, word: Any) -> None:
    with init() as run:
        with pytest.raises(ValueError, match="finished, completed"):
            run.finish(word)
        assert run.status == "running"


def test_the_active_run(init: Init) -> None:
    assert aimlite.get_active_run() is None
    first = init()
    assert aimlite.get_active_run() is first
    second = init()
    first.finish()
    assert aimlite.get_active_run() is second
    second.finish()
    assert aimlite.get_active_run() is None
    third = init()
    aimlite.set_enabled(False)
    init()
    assert aimlite.get_active_run() is None
    third.finish()


@pytest.mark.parametrize(
    ("mode", "kept"), [("smart", ["plain", "100%", "end"]), ("all", ["plain", "50%", "100%", "end"]), ("none", ["plain", "end"])]
)
def test_what_is_printed_is_recorded(tmp_path: Path, repo: Repo, mode: str, kept: list[str]) -> None:
    script = "import aimlite, sys; run = aimlite.init(storage=sys.argv[1], run_id='r', capture_console=True, tqdm_mode=sys.argv[2])\n"
    script += "print('plain'); sys.stderr.write('50%\\r'); sys.stderr.flush(); sys.stderr.write('100%\\n'); print('end'); run.finish()"
    done = subprocess.run([sys.executable, "-u", "-c", script, repo.path, mode], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"plain\nend\n", b"50%\r100%\n")
    run = repo.get_run("r")
    assert run is not None
    assert sorted(line.text for line in run.get_terminal_logs().data) == sorted(kept)


def test_a_snapshot_that_is_too_large_fails_the_run(init: Init, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimlite.sdk.archives.MAX_CODE_BYTES", 10)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").write_text("print('a large script')")
    with pytest.raises(ValueError, match="force"):
        init(snapshot_code=True, workspace_root=tmp_path / "project")
    [run] = repo.iter_runs()
    assert (run.status, run.error["type"], aimlite.get_active_run()) == ("failed", "ValueError", None)
    with init(snapshot_code=True, workspace_root=tmp_path / "project", force_snapshot=True) as forced:
        assert forced["code", "saved"] is True


# -- config and summary ----


@dataclasses.dataclass
class Settings:
    lr: float = 0.1


class Plain:
    def __init__(self) -> None:
        self.lr = 0.2


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        (argparse.Namespace(lr=0.1, out=Path("x"), sizes=(1, 2)), {"lr": 0.1, "out": "x", "sizes": (1, 2)}),
        ({"lr": 1, "deep": {"er": None}}, {"lr": 1, "deep": {"er": None}}),
        (Settings(), {"lr": 0.1}),
        (Plain(), {"lr": 0.2}),
        (["--lr", "1"], ["--lr", "1"]),
    ],
)
def test_arguments_of_any_kind(init: Init, args: Any, kept: Any) -> None:
    with init() as run:
        run.log_config(args=args)
        run.log_config(extra={"odd": object, "n": np.float32(0.5)})
        run.log_config(extra={"n": 1})
    assert (run["config", "args"], run["config", "extra"]) == (kept, {"n": 1})


@pytest.mark.parametrize("args", ["text", 5, object.__new__(object)])
def test_arguments_that_are_none(init: Init, args: Any) -> None:
    with init() as run, pytest.raises(TypeError, match="log_config"):
        run.log_config(args=args)


def test_a_config_file_that_is_not_there_is_one_warning(init: Init, warned: Warned) -> None:
    with init() as run:
        assert len(warned(lambda: run.log_config(config_files=["nowhere.yaml"]))) == 1
    assert run["config", "files", "nowhere.yaml", "saved"] is False


def test_the_summary_is_merged_at_its_top(init: Init) -> None:
    with init() as run:
        assert run.get_summary() == {}
        run.summary({"a": {"x": 1, "y": 2}, "b": np.float64(0.5), "n": None})
        run.summary({"a": {"z": 3}})
        run.summary(None)
        run.summary({})
        run.summary([("c", {1, 2}), (7, Path("p"))])
        with pytest.raises(TypeError, match="takes a dict"):
            run.summary("text")  # type: ignore[arg-type]
    assert run.get_summary() == {"a": {"z": 3}, "b": 0.5, "n": None, "c": {1, 2}, 7: "p"}


def test_a_summary_is_kept_whole_or_not_at_all(init: Init) -> None:
    with init() as run:
        with pytest.raises((TypeError, ValueError)):
            run.summary({"good": 1, "\ud800": 2})
        assert run.get_summary() == {}


# -- the primary metric ----


@pytest.mark.parametrize(
    ("mode", "values", "value", "step"),
    [
        ("max", [1, 3, 3, 2], 3, 2),
        ("min", [3, 1, 1, 2], 1, 2),
        ("max", [float("nan"), 0.5, float("nan")], 0.5, 2),
        ("max", [-1, float("inf"), 5], float("inf"), 2),
        ("min", [True, 0], 0, 2),
        ("max", [np.float32(0.5), np.int64(1)], 1, 2),
    ],
)
def test_the_best_value(init: Init, mode: str, values: list[Any], value: float, step: int) -> None:
    with init() as run:
        run.set_primary_metric("a", mode)
        for number, each in enumerate(values):
            run.log({"a": each, "b": 9}, stage=("train", "eval")[number % 2])
            assert "b" not in str(run.get_summary().get("best_metric_name"))
        held = run.get_summary()
    assert (held["best_metric_value"], held["best_metric_step"], held["best_metric_mode"]) == (value, step, mode)


def test_another_primary_metric_begins_anew(init: Init) -> None:
    with init() as run:
        run.set_primary_metric("a")
        run.log(a=1)
        run.set_primary_metric("b", mode="min")
        assert run.get_summary() == {}
        run.log(a=5)
        assert run.get_summary() == {}
        for mode in ("best", None, "MAX"):
            with pytest.raises(ValueError, match="mode"):
                run.set_primary_metric("a", mode=mode)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            run.set_primary_metric(5)  # type: ignore[arg-type]


# -- images ----


def test_images_of_one_step_are_a_list(init: Init, repo: Repo) -> None:
    def sizes(run: Any, step: int) -> list[int]:
        return [image.width for image in run.get_image_sequence("x").values[step]]

    def picture(width: int) -> Any:
        return np.zeros((2, width, 3), np.uint8)

    with init(run_id="r") as run:
        run.log({"a": 1}, step=5)
        places = [run.log_image("x", picture(1)), run.log_image("x", picture(2)), run.log_image("x", picture(3), step=6)]
        assert places == ["images/x/5/0", "images/x/5/1", "images/x/6/0"]
        run.log_image("x", picture(4), step=5, caption="back")
        run.log({"a": 2})
        assert (sizes(run, 5), sizes(run, 6), run.get_image_sequence("x").values[5][2].caption) == ([1, 2, 4], [3], "back")
        assert run.get_metric("a").indices.tolist() == [5, 6]
    with init(run_id="r") as again:
        again.log_image("x", picture(5), step=6)
        assert sizes(again, 6) == [3, 5]


@pytest.mark.parametrize("quality", [0, 101, -1])
def test_quality_is_checked_before_anything_is_recorded(init: Init, quality: int) -> None:
    with init() as run:
        with pytest.raises(ValueError, match="quality"):
            run.log_image("x", np.zeros((2, 2), np.uint8), quality=quality)
        with pytest.raises(ValueError):
            run.log_image("x", np.zeros((2, 2), np.uint8), format="tga")
        with pytest.raises(OSError):
            run.log_image("x", "nowhere.png")
        assert run.get_image_sequence("x") is None
        assert run.log_image("a/key with / and\nmore", np.zeros((2, 2)), format="jpg")


# -- on and off ----


@pytest.mark.parametrize(
    ("value", "on"),
    [("1", True), ("true", True), ("", True), ("maybe", True), ("0", False), ("No", False), ("off", False), ("FALSE", False), ("n", False)],
)
def test_the_environment_turns_tracking_off(monkeypatch: pytest.MonkeyPatch, value: str, on: bool) -> None:
    monkeypatch.setenv("AIMLITE_ENABLED", value)
    assert aimlite.is_enabled() is on
    aimlite.set_enabled(not on)
    assert aimlite.is_enabled() is not on


def test_enabled_is_a_block_and_a_decorator(init: Init) -> None:
    @aimlite.enabled(False)
    def quiet(depth: int = 0) -> bool:
        return aimlite.is_enabled() or (depth < 2 and quiet(depth + 1))

    @aimlite.enabled()
    def loud() -> bool:
        return aimlite.is_enabled()

    assert (quiet(), loud(), aimlite.is_enabled()) == (False, True, True)
    with aimlite.enabled(False):
        assert isinstance(init(), NoOpRun)
        with aimlite.enabled(True):
            assert aimlite.is_enabled()
        assert not aimlite.is_enabled()
    with pytest.raises(ZeroDivisionError), aimlite.enabled(False):
        raise ZeroDivisionError
    assert aimlite.is_enabled()
    for wrong in (1, "no", None):
        with pytest.raises(TypeError):
            aimlite.set_enabled(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            aimlite.enabled(wrong)  # type: ignore[arg-type]


def test_a_run_that_is_open_goes_on(init: Init) -> None:
    with init() as run:
        aimlite.set_enabled(False)
        run.log({"a": 1})
    assert run.get_metric("a").last == 1


def test_a_disabled_run_has_every_attribute_and_writes_nothing(tmp_path: Path) -> None:
    aimlite.set_enabled(False)
    run = aimlite.init("cv/x", storage=tmp_path / "none", alias="a", snapshot_code=True, capture_console=True, capture_env=True)
    assert isinstance(run, NoOpRun)
    missing = [name for name in dir(FluentRun) if not name.startswith("_") and not hasattr(run, name)]
    assert missing == []
    assert (run.id, run.path, run.alias, run.is_finished, run.status) == ("disabled", "cv/x", "a", False, "running")
    with run as same:
        assert same is run
        run.log({"loss": object()}, step="x", stage=[])  # type: ignore[arg-type]
        run.log(loss=1)
        assert run.log_image("x", None, quality=1000) == ""
        run.summary({"a": 1})
        run.log_config(args=5)
        run.log_dataset("d", "nowhere", save=True)
        run.log_pretrained("d", save=True)
        run.set_primary_metric("a", "best")
        run.track("anything")
        run.sequence("a").track(1)
        handler = run.get_logging_handler(level=logging.DEBUG, fmt="%(message)s")
        handler.handle(logging.makeLogRecord({"msg": "x"}))
        run["hparams"] = {"lr": 1}
        run.add_tag("t")
        run.finish("whatever")
    assert (run.is_finished, run["hparams", "lr"], run.tags, run.get_summary()) == (True, 1, ["t"], {})
    assert not (run.run_dir / "x").exists()
    assert not run.run_dir.exists()
    assert os.listdir(tmp_path) == []


def test_a_disabled_script_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = ["numpy", "rocksdict", "pandas", "PIL", "lark", "psutil", "click", "rich"]
    script = (
        f"import sys, aimlite; run = aimlite.init(); run.log({{'a': 1}}); run.finish(); print([n for n in {heavy} if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "AIMLITE_ENABLED": "0"}, capture_output=True, text=True, check=True
    )
    enabled = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, enabled.stdout) == ("[]\n", "[]\n")
