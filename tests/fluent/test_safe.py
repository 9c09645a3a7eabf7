"""The fluent API in safe mode: nothing of it ends a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aimlite

Warned = Callable[[Callable[[], Any]], list[str]]


@pytest.fixture(autouse=True)
def _safe() -> Iterator[None]:
    aimlite.set_safe_mode(True)
    yield
    aimlite.set_safe_mode(False)


def use(run: Any) -> None:
    run.set_primary_metric("a")
    run.log({"a": 1}, stage="train")
    assert isinstance(run.log_image("x", np.zeros((2, 2), np.uint8)), str)
    run.summary({"b": 2})
    run.log_config(args={"lr": 1}, config_files=[__file__])
    run.log_dataset("d", __file__, save=True)
    (run.run_dir.parent / "x").exists()
    run.name = "n"
    assert run.name == "n"
    assert run.storage_root
    run.finish("success")


def test_a_run_that_cannot_be_opened_takes_everything(tmp_path: Path, warned: Warned) -> None:
    (tmp_path / "file").write_text("in the way")
    found: list[Any] = []
    [message] = warned(lambda: found.append(aimlite.init("cv/x", storage=tmp_path / "file", capture_console=True, capture_env=True)))
    assert "opening a run failed" in message
    assert warned(lambda: use(found[0])) == []
    assert (found[0].get_summary(), found[0].status, aimlite.get_active_run()) == ({"b": 2}, "finished", None)


@pytest.mark.parametrize("settings", [{"path": "a b"}, {"tqdm_mode": "some"}, {"run_id": "../x"}])
def test_wrong_arguments_are_one_warning(warned: Warned, settings: dict[str, Any]) -> None:
    found: list[Any] = []
    [message] = warned(lambda: found.append(aimlite.init(**settings)))
    assert "init() failed" in message
    assert warned(lambda: found[0].log({"a": 1})) == []


def test_what_fails_later_is_one_warning(tmp_path: Path, warned: Warned) -> None:
    run = aimlite.init(storage=tmp_path)
    for call in (
        lambda: run.log("text"),  # type: ignore[arg-type]
        lambda: run.log_image("x", "nowhere.png"),
        lambda: run.summary("text"),  # type: ignore[arg-type]
        lambda: run.finish("perhaps"),
    ):
        assert len(warned(call)) == 1
    run.log({"a": 1})
    run.finish()
    assert (run.status, run.get_metric("a").last) == ("finished", 1)
