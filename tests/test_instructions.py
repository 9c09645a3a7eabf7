"""`run.track` takes no more instructions than when they were last recorded. Times swing on a busy machine; instruction counts do not."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def instructions() -> ModuleType:
    """benchmarks/instructions.py, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("instructions", ROOT / "benchmarks" / "instructions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_track_has_not_become_slower(instructions: ModuleType) -> None:
    if why_not := instructions.unavailable():
        pytest.skip(f"instructions are not counted: {why_not}")
    before = instructions.recorded()
    if before is None:
        name, built = instructions.interpreter()
        pytest.skip(f"no counts are recorded for {name} ({built}): {sys.executable} benchmarks/instructions.py --record")
    assert before.keys() == instructions.WORKLOADS.keys()
    late = instructions.regressions(instructions.measure(), before)
    assert late == [], "if that is meant: python benchmarks/instructions.py --record"


def test_more_than_a_tenth_is_a_regression(instructions: ModuleType) -> None:
    assert instructions.regressions({"track": 1099.0, "other": 10.0}, {"track": 1000.0, "other": 10.0}) == []
    [line] = instructions.regressions({"track": 1101.0, "other": 5.0}, {"track": 1000.0, "other": 10.0})
    assert line.startswith("track takes 1,101 instructions a call, 1.10 times")


def test_counts_of_another_build_do_not_compare(instructions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "RECORDED", tmp_path / "instructions.json")
    (tmp_path / "instructions.json").write_text("{}", "utf-8")
    instructions.record({"track": 1000.4})
    assert instructions.recorded() == {"track": 1000}
    name, _ = instructions.interpreter()
    kept = json.loads((tmp_path / "instructions.json").read_text("utf-8"))
    kept[name]["built"] = "of another compiler"
    (tmp_path / "instructions.json").write_text(json.dumps(kept), "utf-8")
    assert instructions.recorded() is None
