"""Steps, stages and values of `log`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aimlite import FluentRun, Image, Repo, Run

Init = Callable[..., FluentRun]
Warned = Callable[[Callable[[], Any]], list[str]]


def points(run: Run, name: str, stage: Any = None) -> dict[int, float]:
    metric = run.get_metric(name, None if stage is None else {"stage": stage})
    return {} if metric is None else dict(zip(metric.indices.tolist(), metric.values.tolist(), strict=True))


def test_one_counter_counts_all_calls(init: Init) -> None:
    with init() as run:
        for step in (None, None, 10, None, 3, None, 0, None, -5, None):
            run.log({"a": 1}, step=step)
        run.log({"b": 1})
        run.log()
        run.log({})
        run.log(b=2)
    assert points(run, "a").keys() == {1, 2, 10, 11, 3, 4, 0, -5, -4}
    assert points(run, "b") == {-3: 1, 0: 2}


STEPS = st.one_of(st.none(), st.integers(-(2**63) + 1, 2**63 - 3), st.integers(-5, 5))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(STEPS, st.sampled_from([None, "train", "eval"]), st.sampled_from(["a", "b"])), max_size=12))
def test_points_are_where_a_dict_would_have_them(init: Init, calls: list[tuple[int | None, str | None, str]]) -> None:
    model: dict[tuple[str, str | None], dict[int, float]] = {}
    counter = 0
    with init() as run:
        for value, (step, stage, name) in enumerate(calls):
            counter = counter + 1 if step is None else step
            run.log({name: value}, step=step, stage=stage)
            model.setdefault((name, stage), {})[counter] = float(value)
        for (name, stage), expected in model.items():
            assert points(run, name, stage) == expected


@pytest.mark.parametrize(
    ("step", "kept"),
    [(7, 7), (np.int64(8), 8), (7.0, 7), (np.float32(3), 3), (np.array(5), 5), (-(2**62), -(2**62))],
)
def test_what_is_a_step(init: Init, warned: Warned, step: Any, kept: int) -> None:
    with init() as run:
        assert warned(lambda: run.log({"a": 1}, step=step)) == []
        run.log({"a": 2})
    assert points(run, "a") == {kept: 1, kept + 1: 2}


@pytest.mark.parametrize("step", ["7", "abc", 7.9, True, float("nan"), float("inf"), [], 2**63, 10**30, np.array([1, 2]), np.bool_(True)])
def test_what_is_no_step_is_counted_with_one_warning(init: Init, warned: Warned, step: Any) -> None:
    with init() as run:
        run.log({"a": 0})
        [message] = warned(lambda: [run.log({"a": 1}, step=step), run.log({"a": 2}, step=step)])
        assert "a step is an integer" in message
        run.log({"a": 3})
    assert points(run, "a") == {1: 0, 2: 1, 3: 2, 4: 3}


def test_what_stands_for_what(init: Init) -> None:
    given = {"a": 1, "b": 1, "stage": "train", "step": 99, "global_step": 98}
    with init() as run:
        run.log(given, b=2, c=3)
        run.log(given, stage="eval")
        run.log([("a", 5)], global_step=7)  # type: ignore[arg-type]
    assert given == {"a": 1, "b": 1, "stage": "train", "step": 99, "global_step": 98}
    assert (points(run, "a", "train"), points(run, "b", "train"), points(run, "c", "train")) == ({1: 1}, {1: 2}, {1: 3})
    assert (points(run, "a", "eval"), points(run, "a"), points(run, "step")) == ({2: 1}, {3: 5}, {})


def test_stages_do_not_replace_each_other(init: Init) -> None:
    with init() as run:
        for stage in ("train", "eval", None, "train"):
            run.log({"a": len(str(stage))}, step=5, stage=stage)
    assert (points(run, "a", "train"), points(run, "a", "eval"), points(run, "a")) == ({5: 5}, {5: 4}, {5: 4})


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.bool_(True), 1.0),
        (np.array(2.5), 2.5),
        (np.array([1.5]), 1.5),
        (Decimal("0.25"), 0.25),
        (Fraction(1, 4), 0.25),
        (float("inf"), float("inf")),
        (2**53, 2.0**53),
    ],
)
def test_what_is_a_value(init: Init, warned: Warned, value: Any, kept: float) -> None:
    with init() as run:
        assert warned(lambda: run.log({"a": value, "b": 1})) == []
    assert (points(run, "a"), points(run, "b")) == ({1: kept}, {1: 1})


@pytest.mark.parametrize("value", ["0.5", None, [1], {"b": 1}, 1j, np.array([1, 2]), 2**60, 10**400, object(), b"1"])
def test_what_is_no_value_is_left_out_with_one_warning(init: Init, warned: Warned, value: Any) -> None:
    with init() as run:
        [message] = warned(lambda: [run.log({"good": 1, "bad": value}), run.log({"bad": value, "good": 2})])
        assert "'bad' is left out" in message
        run.log({"good": 3, "nan": float("nan")})
    assert (points(run, "good"), points(run, "bad")) == ({1: 1, 2: 2, 3: 3}, {})
    assert list(points(run, "nan")) == [3]


def test_names_are_strings(init: Init, warned: Warned) -> None:
    with init() as run:
        assert warned(lambda: run.log({1: 0.5, "a/b": 1, "line\nbreak": 2})) == []  # type: ignore[dict-item]
        assert len(warned(lambda: run.log({"": 1, "ok": 1, "x" * 5000: 1}))) == 2
    assert (points(run, "1"), points(run, "a/b"), points(run, "line\nbreak"), points(run, "ok")) == ({1: 0.5}, {1: 1}, {1: 2}, {2: 1})


@pytest.mark.parametrize("data", ["text", 5, b"x", [1, 2]])
def test_data_is_a_mapping(init: Init, data: Any) -> None:
    with init() as run:
        with pytest.raises(TypeError, match="takes a dict"):
            run.log(data)
        with pytest.raises(TypeError):
            run.log({"a": 1}, 3)  # type: ignore[misc]
        run.log({"a": 1})
    assert points(run, "a") == {1: 1}


def test_a_name_keeps_its_kind(init: Init, warned: Warned) -> None:
    with init() as run:
        run.log_image("x", np.zeros((2, 2), np.uint8))
        [message] = warned(lambda: run.log({"x": 1, "y": 2}))
        assert "'x' is left out" in message
        run.log({"shown": Image(np.zeros((2, 2), np.uint8)), "z": 1, "text": "t"})
    assert (points(run, "y"), points(run, "z")) == ({1: 2}, {2: 1})


def test_threads_share_the_counter(init: Init) -> None:
    with init() as run:
        threads = [threading.Thread(target=lambda: [run.log({"a": 1}) for _ in range(200)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(points(run, "a")) == list(range(1, 1601))


def test_a_child_goes_on_counting(init: Init) -> None:
    run = init()
    run.log({"a": 1})
    child = os.fork()
    if not child:
        run.log({"b": 2})
        os._exit(0)
    os.waitpid(child, 0)
    run.log({"a": 3})
    run.finish()
    assert (points(run, "a"), points(run, "b")) == ({1: 1, 2: 3}, {2: 2})


def test_a_run_goes_on(init: Init) -> None:
    with init("first", run_id="mine", alias="one") as run:
        run.log({"a": 1}, step=7)
        run.log({"b": 1}, stage="eval")
        run.summary({"kept": True})
        run.set_primary_metric("a")
        run.log({"a": 2})
    with init(run_id="mine") as again:
        assert (again.id, again.path, again.alias, again.status, again.get_summary()["kept"]) == ("mine", "first", "one", "running", True)
        again.set_primary_metric("a")
        again.log({"a": 1.5})
        assert again.get_summary()["best_metric_value"] == 2
    assert points(again, "a") == {7: 1, 9: 2, 10: 1.5}
    with init("second", run_id="mine") as moved:
        assert moved.path == "second"


def test_after_the_end_each_method_warns_once_and_does_nothing(init: Init, repo: Repo, warned: Warned) -> None:
    run = init()
    run.log({"a": 1})
    run.finish()
    calls: list[Callable[[], Any]] = [
        lambda: run.log({"a": 2}),
        lambda: run.log_image("x", "nowhere"),
        lambda: run.summary({"a": 1}),
        lambda: run.log_config(extra={"a": 1}),
        lambda: run.set_primary_metric("a"),
        lambda: run.log_text("late"),
        lambda: run.get_logging_handler().handle(logging.makeLogRecord({"msg": "late"})),
        lambda: run.log_dataset("d", "p"),
        lambda: run.log_pretrained("d", path_or_uri="p"),
    ]
    for call in calls:
        [message] = warned(lambda call=call: [call(), call()])  # type: ignore[misc]
        assert "is ignored" in message
    assert run.log_image("x", "nowhere") == ""
    assert (dict(run), points(run, "a")) == ({}, {1: 1})


KILLED = """
import os, signal, sys, aimlite
run = aimlite.init("killed", storage=sys.argv[1], run_id="r")
run.set_primary_metric("a", mode="min")
for step, value in enumerate([3, 1, float("nan"), 1, 2]):
    run.log({"a": value}, step=step)
run.summary({"deep": {"er": [1, 2]}})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_all_of_it_survives_a_kill(repo: Repo) -> None:
    subprocess.run([sys.executable, "-c", KILLED, repo.path], timeout=300, check=False)
    run = repo.get_run("r")
    assert run is not None
    assert (run.status, run.path, list(points(run, "a"))) == ("interrupted", "killed", [0, 1, 2, 3, 4])
    assert run["summary"] == {
        "best_metric_value": 1,
        "best_metric_name": "a",
        "best_metric_step": 1,
        "best_metric_mode": "min",
        "deep": {"er": [1, 2]},
    }
