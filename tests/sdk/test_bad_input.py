"""What cannot be recorded: one clear error each, nothing lost, nothing half-written."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aimlite import Repo, RepoFormatError, Run

GOOD = {"kept": ([0, 1], [1.0, 2.0])}


@pytest.fixture
def run(repo: Repo) -> Run:
    """A run with two points and a param, which every bad call has to leave as they are."""
    run = Run("r", repo=repo)
    run.track(1, name="kept")
    run.track(2, name="kept")
    run["p"] = {"q": 1}
    return run


def recorded(run: Run) -> dict[str, Any]:
    return {metric.name: metric.values.sparse_list() for metric in run.metrics()}


def assert_unchanged(run: Run) -> None:
    assert recorded(run) == GOOD
    assert run[...] == {"p": {"q": 1}}
    assert run.repo.check() == []
    run.track(3, name="kept")
    assert run.get_metric("kept").values.keys() == [0, 1, 2]


class Unfriendly:
    def __repr__(self) -> str:
        return "<unfriendly>"


NAMES = [
    (None, ValueError),
    ("", ValueError),
    (5, TypeError),
    (b"a", TypeError),
    (("a",), TypeError),
    ("\ud800", ValueError),
    ("x" * 5000, ValueError),
]


@pytest.mark.parametrize(("name", "error"), NAMES)
def test_names(run: Run, name: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        run.track(1.0, name=name)
    if name is not None:
        with pytest.raises(error):
            run.track({"fine": 1.0, name: 1.0})
        with pytest.raises(error):
            run.sequence(name)
        with pytest.raises(error):
            run.track_columns(name, [1.0])
    assert_unchanged(run)


STEPS = [
    (True, TypeError),
    (np.bool_(True), TypeError),
    ("1", TypeError),
    (b"1", TypeError),
    (math.nan, ValueError),
    (math.inf, ValueError),
    (1.5, ValueError),
    (np.float32(0.5), ValueError),
    (2**63, ValueError),
    (-(2**63) - 1, ValueError),
    (1e30, ValueError),
    ([1], TypeError),
    (np.array([1, 2]), TypeError),
    (1j, TypeError),
    (Unfriendly(), TypeError),
]


@pytest.mark.parametrize(("step", "error"), STEPS)
def test_steps(run: Run, step: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        run.track(1.0, name="kept", step=step)
    with pytest.raises(error):
        run.track({"kept": 1.0, "other": 2.0}, step=step)
    with pytest.raises(error):
        run.sequence("kept").track(1.0, step)
    assert_unchanged(run)


@pytest.mark.parametrize("step", [3, np.int8(3), np.uint64(3), 3.0, np.float32(3.0), Decimal(3), np.array(3)])
def test_integral_steps_of_any_kind(run: Run, step: Any) -> None:
    run.track(1.0, name="s", step=step)
    assert run.get_metric("s").values.keys() == [3]


@pytest.mark.parametrize("step", [2**63 - 1, -(2**63)])
def test_the_ends_of_the_steps(run: Run, step: int) -> None:
    run.track(1.0, name="s", step=step)
    assert run.get_metric("s").values.keys() == [step]


def test_no_step_follows_the_greatest(run: Run) -> None:
    run.track(1.0, name="s", step=2**63 - 1)
    with pytest.raises(ValueError, match="greatest step"):
        run.track(1.0, name="s")
    with pytest.raises(ValueError, match="greatest step"):
        run.track({"t": 1.0, "s": 1.0})
    with pytest.raises(ValueError, match="greatest step"):
        run.track_columns("s", [1.0])
    run.track(2.0, name="s", step=5)
    assert run.get_metric("s").values.sparse_list() == ([5, 2**63 - 1], [2.0, 1.0])
    assert run.get_metric("t") is None


VALUES = [
    ("1", TypeError),
    (None, TypeError),
    (b"1", TypeError),
    (1j, TypeError),
    ([1.0], TypeError),
    (np.array([1.0, 2.0]), TypeError),
    (np.zeros((2, 2)), TypeError),
    (np.zeros(0), TypeError),
    (np.array("x"), TypeError),
    (Unfriendly(), TypeError),
    (2**53 + 1, ValueError),
    (-(2**60), ValueError),
    (np.int64(2**62), ValueError),
]


@pytest.mark.parametrize(("value", "error"), VALUES)
def test_values(run: Run, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        run.track(value, name="kept")
    with pytest.raises(error, match="kept"):
        run.track({"other": 1.0, "kept": value})
    with pytest.raises(error):
        run.sequence("kept").track(value)
    assert_unchanged(run)


class Tensor:
    """One element behind the interface that tensors of other libraries share."""

    def __init__(self, value: float, shape: tuple[int, ...] = ()) -> None:
        self.value, self.shape = value, shape

    def item(self) -> float:
        return self.value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(7), 7.0),
        (np.array(2.5), 2.5),
        (np.array([[2.5]]), 2.5),
        (Decimal("0.25"), 0.25),
        (True, 1.0),
        (np.bool_(True), 1.0),
        (2**53, 2.0**53),
        (Tensor(1.5), 1.5),
        (Tensor(1.5, (1, 1)), 1.5),
        (math.inf, math.inf),
        (-0.0, -0.0),
        (5e-324, 5e-324),
    ],
)
def test_numbers_of_any_kind(run: Run, value: Any, expected: float) -> None:
    run.track(value, name="v")
    found = run.get_metric("v").values.tolist()
    assert found == [expected]
    assert math.copysign(1, found[0]) == math.copysign(1, expected)


def test_nan_is_kept(run: Run) -> None:
    run.track(math.nan, name="v")
    run.track(1.0, name="v")
    metric = run.get_metric("v")
    assert math.isnan(metric.values[0])
    assert (metric.min, metric.max, metric.count) == (1.0, 1.0, 2)


@pytest.mark.parametrize("epoch", ["1", [1], Unfriendly(), b"", 1j, np.zeros(2)])
def test_epochs(run: Run, epoch: Any) -> None:
    with pytest.raises(TypeError, match="epoch"):
        run.track(1.0, name="kept", epoch=epoch)
    with pytest.raises(TypeError, match="epoch"):
        run.track({"kept": 1.0}, epoch=epoch)
    assert_unchanged(run)


CONTEXTS = [
    ("train", TypeError),
    ([("a", 1)], TypeError),
    ({1: 2}, TypeError),
    ({None: 2}, TypeError),
    ({"a": Unfriendly()}, TypeError),
    ({"a": {1, 2}}, TypeError),
    ({"a": b"x"}, TypeError),
    ({"a": math.nan}, ValueError),
    ({"a": {"b": [math.nan]}}, ValueError),
    ({"a": "x" * 5000}, ValueError),
    ({"a": "\ud800"}, ValueError),
]


@pytest.mark.parametrize(("context", "error"), CONTEXTS)
def test_contexts(run: Run, context: Any, error: type[Exception]) -> None:
    for call in (
        lambda: run.track(1.0, name="kept", context=context),
        lambda: run.track({"kept": 1.0}, context=context),
        lambda: run.sequence("kept", context),
        lambda: run.track_columns("kept", [1.0], context=context),
        lambda: run.get_metric("kept", context),
    ):
        with pytest.raises(error):
            call()
    assert_unchanged(run)


def test_a_context_that_holds_itself(run: Run) -> None:
    context: dict[str, Any] = {}
    context["again"] = context
    with pytest.raises(ValueError, match="deeper"):
        run.track(1.0, name="kept", context=context)
    assert_unchanged(run)


def test_contexts_tell_types_apart_and_not_order(run: Run) -> None:
    alike = [{"g": 1}, {"g": True}, {"g": 1.0}, {"g": "1"}, {"g": None}, {"g": [1]}, {"g": {"h": 1}}, {"g": {"h": True}}, {}]
    for _ in range(2):
        for value, context in enumerate(alike):
            run.track(value, name="c", context=context)
    for value, context in enumerate(alike):
        assert run.get_metric("c", context).values.tolist() == [value, value], context
    run.track(1, name="o", context={"a": 1, "b": {"x": 1, "y": 2}})
    run.track(2, name="o", context={"b": {"y": 2, "x": 1}, "a": 1})
    assert run.get_metric("o", {"a": 1, "b": {"x": 1, "y": 2}}).values.tolist() == [1.0, 2.0]
    run.track(1, name="z", context={"a": 0.0})
    run.track(2, name="z", context={"a": -0.0})
    assert run.get_metric("z", {"a": 0.0}).count == 2
    run.track(1, name="n", context=None)
    assert run.get_metric("n", {}).count == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.track({"a": 1.0}, name="a"),
        lambda run: run.track({"a": {"b": 1.0}}),
        lambda run: run.track_columns("a", [1.0, "x"]),
        lambda run: run.track_columns("a", [[1.0], [2.0]]),
        lambda run: run.track_columns("a", "abc"),
        lambda run: run.track_columns("a", None),
        lambda run: run.track_columns("a", [1.0, 2.0], steps=[1]),
        lambda run: run.track_columns("a", [1.0, 2.0], steps=[1, 1.5]),
        lambda run: run.track_columns("a", [1.0, 2.0], steps=[True, False]),
        lambda run: run.track_columns("a", [1.0, 2.0], steps=[1, 2**63]),
        lambda run: run.track_columns("a", [1.0, 2.0], epochs=[1.0]),
        lambda run: run.track_columns("a", [1.0, 2.0], epochs="x"),
        lambda run: run.track_columns("a", [1.0, 2.0], times=[1.0, math.nan]),
        lambda run: run.track_columns("a", [2**53 + 1, 0]),
    ],
)
def test_columns(run: Run, call: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        call(run)
    assert_unchanged(run)


def test_a_value_that_changes_the_dict_it_is_in(run: Run) -> None:
    values: dict[str, Any] = {}

    class Meddler:
        def __float__(self) -> float:
            values["extra"] = 1.0
            return 2.0

    values["m"] = Meddler()
    run.track(values)
    assert run.get_metric("m").values.tolist() == [2.0]
    assert run.get_metric("extra") is None


def test_a_value_that_tracks_while_it_is_tracked(run: Run) -> None:
    class Nested:
        def __float__(self) -> float:
            run.track(1.0, name="inner")
            return 2.0

    run.track(Nested(), name="outer")
    run.track({"outer": Nested(), "more": 3.0})
    assert run.get_metric("inner").values.tolist() == [1.0, 1.0]
    assert run.get_metric("outer").values.tolist() == [2.0, 2.0]


def test_a_repo_of_a_newer_format(repo_path: str) -> None:
    Repo(repo_path).close()
    version = Path(repo_path, ".aimlite", "VERSION")
    text = version.read_text()
    version.write_text(json.dumps({"format": 2}))
    for call in (lambda: Repo(repo_path), lambda: Run(repo=repo_path)):
        with pytest.raises(RepoFormatError, match="format 2"):
            call()
    version.write_text(text)
    assert Repo(repo_path).list_all_runs() == []


def test_a_file_where_the_repo_should_be(tmp_path: Path) -> None:
    (tmp_path / ".aimlite").write_text("I am a file")
    with pytest.raises(RepoFormatError, match="not a directory"):
        Repo(tmp_path)
    with pytest.raises(TypeError, match="path"):
        Repo(5)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """Under a uid without rights where we are root, which no mode bits keep out."""
    closed = tmp_path / "closed"
    with Run("r", repo=closed) as run:
        run.track(1, name="m")
    Repo(closed).merge()
    for folder, _, files in os.walk(closed):
        os.chmod(folder, 0o555)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o444)
    script = """
        import os, pickle, subprocess, sys
        import msgpack, numpy, rocksdict
        import aimlite.sdk.run, aimlite.sdk.metric, aimlite.storage.check, aimlite.storage.writer
        from aimlite import Repo, Run
        if os.getuid() == 0:
            os.setgid(65534); os.setuid(65534)
        for path in sys.argv[1:]:
            try:
                Run(repo=path)
            except PermissionError as error:
                print("refused", path in str(error))
        repo = Repo(sys.argv[1])
        print(repo.get_run("r").get_metric("m").values.tolist(), repo.get_run("r").status, repo.check())
    """
    for folder in tmp_path.parents:
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            os.chmod(folder, folder.stat().st_mode | 0o055)
    os.chmod(tmp_path, 0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(closed), str(tmp_path / "new")],
            env={**os.environ, "TMPDIR": "/tmp"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.chmod(tmp_path, 0o755)
        for folder, _, _ in os.walk(closed):
            os.chmod(folder, 0o755)
    assert done.stdout.splitlines() == ["refused True", "refused True", "[1.0] finished []"], done.stderr
