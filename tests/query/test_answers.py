"""Every way to find what matches gives what the second evaluator gives: from journals, from the tree, mixed; with the index and without;
row by row and by columns."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from query import generated
from query.crafted import CraftedRun, write_runs

from aimlite import Repo
from aimlite.query import execute
from reference import aimql

Found = list[tuple[str, list[str]]]
SMALL = {"_FEW": 0, "_PROBE": 1, "_MOST_GROUPS": 1}
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]  # shrinking takes minutes; the message names the query
SETTINGS: dict[
    str, Any
] = {  # the same examples each time, unless more are asked for: a change that breaks nothing breaks no run of the tests
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": PHASES,
    "derandomize": "AIMLITE_EXAMPLES" not in os.environ,
    **({} if "AIMLITE_EXAMPLES" in os.environ else {"database": None}),
}
STATES = ("journals", "tree", "mixed")
WAYS = [(indexed, small) for indexed in (True, False) for small in (True, False)]


@contextmanager
def way(is_indexed: bool, is_small: bool) -> Iterator[None]:
    """How a query is executed: with the index or without, and with thresholds so low that few runs are as many."""
    with pytest.MonkeyPatch.context() as patch:
        if not is_indexed:
            planned = execute.plan_runs
            patch.setattr(execute, "plan_runs", lambda node: replace(planned(node), bound=None, exact=node is None))
        for name, value in SMALL.items() if is_small else ():
            patch.setattr(execute, name, value)
        yield


@contextmanager
def states(runs: list[CraftedRun], wanted: Sequence[str] = STATES) -> Iterator[list[tuple[str, Repo]]]:
    """The same runs in journals, in the tree, and in both."""
    os.environ["AIMLITE_MERGE"] = "off"
    with tempfile.TemporaryDirectory() as folder:
        repos = []
        for state in wanted:
            repo = Repo(Path(folder, state))
            cut = len(runs) // 2 if state == "mixed" else len(runs)
            write_runs(repo._layout.base, runs[:cut])
            if state != "journals":
                repo.merge()
            write_runs(repo._layout.base, runs[cut:], first=100)
            repos.append((state, repo))
        yield repos
        for _, repo in repos:
            repo.close()


def runs_found(repo: Repo, query: str, **options: Any) -> Found:
    return [(run_hash, []) for run_hash in repo.query_runs(query, timeout=100, **options).hashes()]


def metrics_found(repo: Repo, query: str, **options: Any) -> Found:
    """By run, the metrics of each in an order of their own."""
    found = [
        (metric.run.hash, shown(metric.name, metric.context.to_dict())) for metric in repo.query_metrics(query, timeout=100, **options)
    ]
    return [(run_hash, sorted(name for _, name in group)) for run_hash, group in itertools.groupby(found, lambda pair: pair[0])]


def shown(name: str, context: dict[str, Any]) -> str:
    return f"{name} {sorted(context.items())!r}"


def runs_expected(query: str, models: list[aimql.RunModel]) -> Found:
    return [(run.properties["hash"], []) for run in aimql.answer(query, models)]


def metrics_expected(query: str, models: list[aimql.RunModel]) -> Found:
    found = aimql.metrics_answer(query, models)
    return [(run.properties["hash"], sorted(shown(metric.name, metric.context) for metric in metrics)) for run, metrics in found]


def check(
    runs: list[CraftedRun],
    queries: list[str],
    metric_queries: list[str],
    wanted: Sequence[str] = STATES,
    ways: Sequence[tuple[bool, bool]] = WAYS,
) -> None:
    models = [generated.model(run) for run in runs]
    with states(runs, wanted) as repos:
        for kind, texts, find, expect in (
            ("runs", queries, runs_found, runs_expected),
            ("metrics", metric_queries, metrics_found, metrics_expected),
        ):
            for query in texts:
                expected = expect(query, models)
                for (state, repo), (is_indexed, is_small) in itertools.product(repos, ways):
                    with way(is_indexed, is_small):
                        found = find(repo, query)
                    assert found == expected, f"{kind} {query!r} in {state}, {'index' if is_indexed else 'no index'}, small={is_small}"


def simple_queries() -> list[str]:
    """Every constant under every operator that the index answers, in and out of `not`."""
    values = [*generated.NUMBERS, *generated.TEXTS, *(value for value in generated.DATES if isinstance(value, dt.datetime | dt.timedelta))]
    written = [*map(generated.written, values), "None", "[]", "()", "{}", "[1, 2]", "{1, 2}", "{'b': 1}"]
    found = []
    for value in written:
        for operator in ("==", "!=", "<", "<=", ">", ">=", "is", "is not"):
            found += [f"run.a {operator} {value}", f"not run.a {operator} {value}", f"{value} {operator} run.a"]
        found += [f"run.a in ({value}, 'ab')", f"run.a not in [{value}]", f"1 if run.a == {value} else 0"]
    texts = [generated.written(text) for text in generated.TEXTS]
    found += [f"{sign}run.a.startswith({text})" for text in texts for sign in ("", "not ")]
    found += [f"{text} in run.a" for text in texts]
    found += [
        "run.a",
        "not run.a",
        "run.a.b",
        "not run.a.b",
        "run.a.year",
        "not run.a.year == 2024",
        "run.a.year != 2024",
        "run.a.days < 2",
    ]
    found += [
        "not (run.a > 1 and run.a < 3)",
        "not (run.a > 1 or run.a == 'a')",
        "not (not run.a)",
        "not (run.a and run.a != 1)",
        "1 < run.a <= 3",
    ]
    return found


def test_every_value_under_every_comparison() -> None:
    """What random queries seldom meet: one run for each value, one query for each bound of a range."""
    values = [*generated.NUMBERS, *generated.TEXTS, *generated.DATES, *generated.OTHERS, {"b": 1}, {"year": 2024}]
    runs = [
        CraftedRun(f"r{place:03}", 1_700_000_000_000_000 + place // 3, 1_800_000_000_000_000, {"a": value})
        for place, value in enumerate(values)
    ]
    runs += [CraftedRun("empty", 5, 6), CraftedRun("other", 5, 6, {"b": 1})]
    check(runs, simple_queries(), [], ["tree"], [(True, False), (True, True)])


@settings(**SETTINGS, max_examples=int(os.environ.get("AIMLITE_EXAMPLES", "8")))
@given(
    generated.runs(),
    st.lists(generated.run_queries, min_size=1, max_size=30),
    st.lists(generated.metric_queries, min_size=1, max_size=15),
)
def test_every_way_gives_the_same(runs: list[CraftedRun], queries: list[str], metric_queries: list[str]) -> None:
    check(runs, queries, metric_queries)


ORDERS = ["run.a", "run.name", "run.metrics['loss'].last", "run.a.b", "run.created_at < '2024-01-01'", "1 / run.a", "run.hash"]


@settings(**SETTINGS, max_examples=10)
@given(generated.runs(), generated.run_queries, st.sampled_from(ORDERS), st.booleans(), st.none() | st.integers(0, 4))
def test_order_limit_and_offset(runs: list[CraftedRun], query: str, order_by: str, descending: bool, limit: int | None) -> None:
    for run in runs:  # numbers and texts have an order; that of other values is theirs alone
        run.params = {key: value for key, value in run.params.items() if isinstance(value, int | float | str)}
    models = [generated.model(run) for run in runs]
    matched = aimql.answer(query, models)
    in_order = [run.properties["hash"] for run in aimql.ordered(order_by, [(run, {"run": run}) for run in matched], descending)]
    plain = [run.properties["hash"] for run in matched]
    with states(runs) as repos:
        for (_, repo), (is_indexed, is_small) in itertools.product(repos, WAYS):
            with way(is_indexed, is_small):
                found = repo.query_runs(query, order_by=order_by, descending=descending, limit=limit, timeout=100)
                assert found.hashes() == in_order[:limit], order_by
                assert repo.query_runs(query, limit=limit, timeout=100).hashes() == plain[:limit]
                for place, run_hash in enumerate(plain):
                    assert repo.query_runs(query, offset=run_hash, limit=limit, timeout=100).hashes() == plain[place + 1 :][:limit]
