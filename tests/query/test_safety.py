"""What a query cannot do: reach Python's objects, fill the memory, go on beyond its time, or hide damage."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from query.crafted import CraftedRun, write_runs
from query.test_parse import DEEP, ERRORS, mutated

from aimlite import Repo
from aimlite.errors import CorruptionError, QueryLimitError, QuerySyntaxError, QueryTimeoutError
from aimlite.query import execute, rows
from aimlite.query.evaluate import FAILURES, Budget, Row, attribute, compiled
from aimlite.query.names import METHODS
from aimlite.query.parse import parse

VALUES: dict[str, Any] = {
    **{"int": 5, "big": 10**4000, "float": 0.5, "bool": True, "text": "a" * 1000, "none": None, "bytes": b"a", "complex": 1j},
    **{"list": [1, [2]], "tuple": (1, 2), "set": {1}, "frozenset": frozenset({1}), "map": {"a": 1}, "array": np.array([1.5])},
    **{"datetime": dt.datetime(2024, 1, 1), "date": dt.date(2024, 1, 1), "time": dt.time(1), "timedelta": dt.timedelta(1)},
    **{"zone": dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc), "hostile": "a" * 40 + "b"},
}


@pytest.fixture(params=["journals", "tree"])
def hostile_repo(request: pytest.FixtureRequest, repo: Repo) -> Repo:
    """Three runs of every type of value, so that a query that fails does so on each."""
    write_runs(repo._layout.base, [CraftedRun(f"r{k}", k, k + 9, VALUES, metrics=[("loss", {"k": [1]}, [1.0])]) for k in range(3)])
    if request.param == "tree":
        repo.merge()
    return repo


def evaluated(text: str, timeout_s: float = 600.0) -> Any:
    node = parse(text)
    assert node is not None
    return compiled(node)(Row(Budget(timeout_s), None))


# -- no way to Python's objects ----


@pytest.mark.parametrize(
    "query",
    [
        *("run.run", "run.db", "run.meta_run_tree", "run.hparams.keys", "run.hash.__class__", "run.a._proxy__x", "run.hparams.update"),
        *("run.name.upper", "run.tags.append", "run.created_at.tzinfo", "run.created_at.replace", "run.metrics.run", "run.metrics._run"),
        *("run['__class__']", "run.hash['__class__']", "run.metrics['__class__']", "datetime.now().max", "run._source", "run._held"),
    ],
)
def test_python_attributes_are_missing(hostile_repo: Repo, query: str) -> None:
    """Those of Aim's holes among them: what it lets through as an attribute is a key here, and no run has it."""
    if query.endswith("__"):
        with pytest.raises(QuerySyntaxError):
            parse(query)
    else:
        assert hostile_repo.query_runs(f"({query}) == None").hashes() == ["r2", "r1", "r0"]


@pytest.mark.parametrize(
    "query",
    [
        *("eval('1')", "exec('1')", "open('/etc/passwd')", "getattr(run, 'a')", "type(run)", "vars(run)", "__import__('os')", "print(1)"),
        *(
            "run.a.format(1)",
            "'{0.__class__}'.format(run)",
            "run.hparams.collect()",
            "str.format",
            "datetime.__subclasses__()",
            "math.__dict__",
        ),
        *(
            "run.hash.encode()",
            "run.metrics.__init__",
            "(lambda: 1)()",
            "[].append(1)",
            "run.tags.sort()",
            "run.__class__.__mro__",
            "re.compile('a')",
        ),
    ],
)
def test_what_reaches_further_is_refused(query: str) -> None:
    with pytest.raises(QuerySyntaxError):
        parse(query)


def reachable() -> Iterator[Any]:
    """One value of every type that an evaluation can come upon."""
    yield from VALUES.values()
    for text in ("range(3)", "1 / 3", "[x for x in 'a']", "{1: 2}", "re.search('(a)', 'a')", "f'{1}'", "datetime.now()", "timedelta(1)"):
        yield evaluated(text)


def test_no_attribute_of_any_value_leads_anywhere(hostile_repo: Repo) -> None:
    """Every name that Python's `dir` knows is missing, or a number: parts of dates."""

    def look(view: Any) -> None:
        run = rows.Source(view).run("r0")
        sequence = run.metric("loss", {"k": [1]})
        assert sequence is not None
        for value in [*reachable(), run, sequence, run.property("created_at"), sequence.attribute("context")]:
            for name in {*dir(value), "__class__", "__dict__", "_source", "_held"}:
                if isinstance(value, rows.RunRow) and name == "hash":
                    continue
                found = attribute(value, name)
                assert found is None or isinstance(found, int | float | str | dict | list | rows.RunRow) or repr(found) == "metrics", name
                assert not callable(found)
                assert not (name.startswith("_") and found is not None), name

    hostile_repo._reader.read(look)


def test_methods_give_values_only() -> None:
    """Each method that there is, on each value: a plain value, missing, or a failure."""
    plain = (str, bytes, int, float, list, tuple, set, frozenset, dict, dt.date, dt.timedelta, type(None))
    for value in reachable():
        for name in METHODS:
            for arguments in ("", "'a'", "1, 'b'"):
                node = parse(f"run.x.{name}({arguments})")
                assert node is not None
                try:
                    found = compiled(node)(Row(Budget(1.0), _Holder(value)))
                except (QueryLimitError, *FAILURES):
                    continue
                assert isinstance(found, plain), (type(value), name, found)


class _Holder:
    """A run with one param."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def param(self, path: tuple[str | int, ...]) -> Any:
        return self.value if path == ("x",) else None


# -- no more than so much ----


@pytest.mark.parametrize(
    "query",
    [
        *(
            "'a' * 10**9",
            "10**9 * 'a'",
            "[0] * 10**9",
            "(0,) * 10**6",
            "range(10**9)",
            "2**10**9",
            "1 << 10**9",
            "9**9**9",
            "len('a' * 10**9)",
        ),
        *("[x for x in range(10000) for y in range(10000)]", "sorted(x for x in range(10000) for y in range(10000))"),
        *("[[0] * 10000 for x in range(10000)]", "['a' * 100000 + str(x) for x in range(10000)]", "set('a' * x for x in range(10000))"),
        *("sorted('a' * 90000 for x in range(10000))", "[[[x for z in range(9000)] for y in range(9000)] for x in range(9000)]"),
        *("[c == [[0]] for a in [[0] * 9999] for b in [[a for i in range(9999)]] for c in [[b for i in range(9999)]]]",),
        *("[('a' * 10000).replace('a', 'b' * 10000)]", "('a' * 10000).join(['b'] * 10000)", "'a'.zfill(10**9)", "'a'.center(10**9)"),
        *("[x for x in ['a' * 50000] for y in [x + x] for z in [y + y]]", "any(str([x] * 9000) == 'a' for x in [[1] * 9000])"),
        *('f\'{"a" * 90000}{"a" * 90000}\'', "round(10, 10**9)", "round(10**4000, -(10**9))", "int('9' * 99999)", "math.factorial(10**6)"),
        *(
            "math.comb(10**6, 500)",
            "math.perm(10**6)",
            "[x for a in [2 ** 4000] for b in [a * a] for x in [b * b]]",
            "re.search('a' * 5000, 'a')",
        ),
        *("datetime.strptime('1' * 5000, '%Y')", "datetime.now().strftime('%Y' * 5000)", "re.search('(', 'a')", "str('a' * 10**6)"),
    ],
)
def test_what_is_too_large(query: str) -> None:
    """A clear error, before the memory is taken."""
    tracemalloc.start()
    try:
        with pytest.raises(QueryLimitError):
            evaluated(query)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "query",
    ["any(x for x in range(9000) if not any(y < 0 for y in range(90)))", "any(a < b for a in [run.big] for b in [a] for i in range(9999))"],
)
def test_what_is_only_long_ends(query: str) -> None:
    node = parse(query)
    assert node is not None
    evaluate, budget = compiled(node), Budget(0.2)

    def again_and_again() -> None:
        for _ in range(10_000):
            evaluate(Row(budget, _Holder(None)))

    with pytest.raises((QueryTimeoutError, QueryLimitError)):
        again_and_again()


def test_a_width_is_bounded_when_it_is_parsed() -> None:
    with pytest.raises(QuerySyntaxError):
        parse("f'{run.a:>1000000000}' == 'a'")


@pytest.mark.parametrize("pattern", ["'(a+)+$'", "'(a+' + ')+' + run.nope.get('x', '$')"])
def test_a_hostile_pattern_ends_with_its_deadline(repo: Repo, pattern: str) -> None:
    write_runs(repo._layout.base, [CraftedRun(f"r{k}", k, k + 9, {"text": "a" * 40 + "b"}) for k in range(1000)])
    repo.merge()
    with contextlib.suppress(QueryTimeoutError):
        repo.query_runs(f"re.search({pattern}, run.text)", timeout=0.5).hashes()  # without a deadline it would take years


@pytest.mark.parametrize("text", ["re.search('(a|b|ab)*c', 'ab' * 40) == 1", "re.search('(a|b|ab)*(a|b|ab)*c', 'ab' * 200)"])
def test_planning_takes_no_time_that_is_not_counted(hostile_repo: Repo, text: str) -> None:
    with contextlib.suppress(QueryTimeoutError):
        hostile_repo.query_runs(" or ".join([text] * 200), timeout=0.5).hashes()  # without a deadline it would take years


# -- rows that fail, and damage ----


@pytest.mark.parametrize(
    "query", ["1 / 0", "run.int / 0 > 1", "len(run.int)", "run.text.index('z')", "run.text % 2", "sum(run.text)", "min([])"]
)
def test_rows_that_fail_are_counted(hostile_repo: Repo, query: str) -> None:
    found = hostile_repo.query_runs(query)
    assert found.hashes() == []
    assert found.warnings == ["3 rows could not be evaluated and did not match"]
    assert hostile_repo.query_runs(f"{query} or True").hashes() == []


@pytest.mark.parametrize("order_by", [None, "run.a"])
@pytest.mark.parametrize("query", ["run.a == 5", "run.a + 1 > 0", "not run.a", "run.metrics['loss'].last > 0", ""])
def test_damage_is_never_a_row_that_failed(hostile_repo: Repo, monkeypatch: pytest.MonkeyPatch, query: str, order_by: str | None) -> None:
    def damaged(*_: Any) -> Any:
        raise CorruptionError("a param is not what was written")

    monkeypatch.setattr(rows.RunRow, "param", damaged)
    monkeypatch.setattr(rows.LiveRun, "param", damaged)
    monkeypatch.setattr(rows.RunRow, "metric", damaged)
    monkeypatch.setattr(execute, "plan_runs", lambda node: execute.Plan(node, None, node is None, True))
    if query or order_by:
        with pytest.raises(CorruptionError):
            hostile_repo.query_runs(query, order_by=order_by).hashes()
    else:
        assert len(hostile_repo.query_runs(query).hashes()) == 3


def test_limits_of_an_order_are_told(hostile_repo: Repo) -> None:
    """They are not a value that is missing."""
    with pytest.raises(QueryLimitError):
        hostile_repo.query_runs(order_by="run.text * 10**9").hashes()


@pytest.mark.parametrize("query", ["run.created_at > '9999-12-31T23:59:59-14:00'", "run.created_at < '0001-01-01T00:00:00+14:00'"])
def test_dates_beyond_the_years_that_there_are(hostile_repo: Repo, query: str) -> None:
    assert hostile_repo.query_runs(query).hashes() == []


def test_what_is_no_value_has_no_text(hostile_repo: Repo) -> None:
    assert hostile_repo.query_runs("str(run.metrics) == None and str(x for x in [1]) == None and str(run) == run.hash").hashes()
    assert len(list(hostile_repo.query_metrics("f'{metric}' == None"))) == 3


@pytest.mark.parametrize(
    "query", ["run[None] == None", "run[1.5] == None", "run[True] == None", "run[()] == None", "run['a', 1.5] == None"]
)
def test_what_cannot_be_a_key_is_missing(hostile_repo: Repo, query: str) -> None:
    assert len(hostile_repo.query_runs(query).hashes()) == 3


@pytest.mark.parametrize("pattern", ["[[a]", r"\d+", "(?i)a"])
def test_a_pattern_warns_of_nothing(hostile_repo: Repo, pattern: str) -> None:
    """Warnings are errors in these tests."""
    hostile_repo.query_runs(f"re.search({pattern!r}, run.text) or True").hashes()


# -- fuzz ----

FRAGMENTS = [
    "run.a",
    "run.x",
    "run.x.y",
    "metric",
    "len(",
    "any(",
    "sorted(",
    "str(",
    "x",
    "for",
    "in",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "'a'*9999",
    "[0]*9999",
    "range(9999)",
    "**",
    "99",
    "+",
    "*",
    "==",
    "<",
    ".",
    "join(",
    "replace(",
    "f'{",
]


def fuzzed(rng: random.Random, seeds: list[str]) -> str:
    text = rng.choice(seeds) if rng.random() < 0.8 else " ".join(rng.choices(FRAGMENTS, k=rng.randint(1, 20)))
    return mutated(rng, text)[:2000]


@pytest.mark.fuzz
def test_fuzz() -> None:
    """Any text is refused with QuerySyntaxError or is a query; any query ends soon, with a value or one of the failures that are told."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    rng = random.Random(seed)
    from query.test_answers import simple_queries

    seeds = [*simple_queries(), *(query for query, *_ in ERRORS), *(text[:500] for text in DEEP.values())]
    end = time.monotonic() + float(os.environ.get("AIMLITE_FUZZ_SECONDS", "60"))
    tried = kept = 0
    holders: list[Callable[[], Any]] = [lambda value=value: _Holder(value) for value in VALUES.values()]  # type: ignore[misc]
    while time.monotonic() < end:
        text = fuzzed(rng, seeds)
        tried += 1
        try:
            node = parse.__wrapped__(text)
        except QuerySyntaxError:
            continue
        if node is None:
            continue
        kept += 1
        seeds[rng.randrange(len(seeds))] = text
        start = time.process_time()
        try:
            compiled(node)(Row(Budget(1.0), rng.choice(holders)()))
        except (QueryLimitError, QueryTimeoutError, *FAILURES):
            pass
        assert time.process_time() - start < 20, text
    assert tried > 500
    assert kept > 10
