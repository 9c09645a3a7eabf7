"""Queries with the answers that Aim gives, or should: aimql_cases.json. Asked of journals, of the tree, and of both mixed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from query.crafted import CraftedRun, microseconds, write_runs

from aimlite import Repo
from aimlite.errors import QueryLimitError, QuerySyntaxError

FILE = json.loads((Path(__file__).parent / "aimql_cases.json").read_text("utf-8"))


def crafted() -> list[CraftedRun]:
    return [
        CraftedRun(
            hash=run["name"],
            created=microseconds(run["created_at"]),
            end=None if run["end_time"] is None else microseconds(run["end_time"]),
            params=run["params"],
            properties={
                "name": run["name"],
                "description": run["description"],
                "archived": run["archived"],
                **({} if run["experiment"] is None else {"experiment": run["experiment"]}),
            },
            tags=run["tags"],
            metrics=[(name, context, values) for name, context, values in run["metrics"]],
        )
        for run in FILE["setup"]["runs"]
    ]


@pytest.fixture(scope="module", params=["journals", "tree", "mixed"])
def cases_repo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """The running run is never merged; of `mixed` some others are not either."""
    os.environ["AIMLITE_MERGE"] = "off"
    repo = Repo(tmp_path_factory.mktemp("cases"))
    runs = crafted()
    late = runs[:0] if request.param != "mixed" else runs[1:3]
    held = write_runs(repo._layout.base, [run for run in runs if run not in late])
    if request.param != "journals":
        repo.merge()
    held += write_runs(repo._layout.base, late, first=100)
    yield repo
    for descriptor in held:
        os.close(descriptor)
    assert repo.check() == []


def answer(repo: Repo, case: dict[str, Any]) -> list[str]:
    if case["kind"] == "runs":
        return [found.run.name for found in repo.query_runs(case["query"]).iter_runs()]
    metrics = repo.query_metrics(case["query"]).iter()
    return sorted(f"{m.run.name}|{m.name}|{json.dumps(m.context.to_dict(), sort_keys=True)}" for m in metrics)


@pytest.mark.parametrize("case", FILE["cases"], ids=lambda case: case["id"])
def test_case(cases_repo: Repo, case: dict[str, Any]) -> None:
    expected = case.get("aimlite", case)
    if case["advice"] == "reject" or "error" in expected:
        with pytest.raises((QuerySyntaxError, QueryLimitError)):
            answer(cases_repo, case)
        return
    wanted = expected["expected"]
    assert answer(cases_repo, case) == (wanted if case["kind"] == "runs" else sorted(wanted))
