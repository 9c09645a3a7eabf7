"""Strategies of runs and queries that are likely to meet, and the runs as the second evaluator has them."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from query.crafted import CraftedRun

from reference.aimql import MetricModel, RunModel

STEM = "x" * 252
NUMBERS: list[Any] = [0, 1, 2, -1, 3, True, False, 0.5, 1.0, -0.0, math.nan, math.inf, -math.inf, 1e-5]
NUMBERS += [2**53 - 1, 2**53, 2**53 + 1, float(2**53), -(2**53) - 1, 2**63, 2**64, 10**30, 10**400, -(10**400)]
TEXTS = ["", "a", "ab", "abc", "b", "é", "é" * 126, "é" * 127, STEM, STEM + "a", STEM + "b", STEM + "aa", STEM + "éa", STEM + "éb"]
TEXTS += ["x" * 300 + "q", "a\0b", "a\0", "a\x01", "\uffff", "😀", "2024-01-01", "2024-06-01T12:00:00", "not a date", "run.archived"]
DATES: list[Any] = [dt.datetime(2024, 1, 1), dt.datetime(2024, 6, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2))), dt.date(2024, 1, 1)]
DATES += [dt.datetime(1960, 2, 3, 4, 5, 6, 7), dt.timedelta(days=1), dt.time(3, 4)]
OTHERS: list[Any] = [None, {}, [], (), [1, 2], (1, 2), [1, 2, 3], {1, 2}, ["a", "b"], [{"a": 1, "run": {"b": 2}}, {"b": [1]}], [[1], [2]]]
OTHERS += [b"a", complex(1, 0), np.array([1, 2]), [None, 1], frozenset({1}), ["y" * 300], "z" * 5000]
CONTEXTS: list[dict[str, Any]] = [{}, {"k": 1}, {"k": True}, {"k": 1.0}, {"k": "1"}, {"subset": "val", "n": {"a": [1]}}, {"k": None}]

keys = st.sampled_from(["a", "b", "c", "year", "name", 0])
leaves = st.sampled_from(NUMBERS) | st.sampled_from(TEXTS) | st.sampled_from(DATES) | st.sampled_from(OTHERS)
params = st.dictionaries(keys, leaves | st.dictionaries(keys, leaves | st.dictionaries(keys, leaves, max_size=2), max_size=3), max_size=4)
values = st.lists(st.sampled_from([0, 1, 2, 3, 0.5, -1.0, math.nan, math.inf, -math.inf, 2**53]), min_size=1, max_size=3)
metrics = st.lists(st.tuples(st.sampled_from(["loss", "acc"]), st.sampled_from(CONTEXTS), values), max_size=4)
HASHES = ["a", "ab", "abc", "b", "r-1", "r-2", "zz", "Z"]
TIMES = [0, 1_704_067_200_000_000, 1_704_067_200_000_001, 1_717_243_200_000_000]  # 1970, 2024-01-01, 1 µs later, 2024-06-01T12


@st.composite
def runs(draw: st.DrawFn) -> list[CraftedRun]:
    found = []
    for run_hash in draw(st.lists(st.sampled_from(HASHES), min_size=1, unique=True)):
        properties: dict[str, Any] = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "name": st.sampled_from(["a", "ab", "Run: a", "Run: zz", STEM + "a", STEM + "b", ""]),
                    "experiment": st.sampled_from(["default", "e", STEM + "a", STEM + "b"]),
                    "archived": st.booleans(),
                    "description": st.sampled_from(["a", "", None]),
                },
            )
        )
        held = {}
        for name, context, points in draw(metrics):
            held[name, repr(context)] = (name, context, points)
        created = draw(st.sampled_from(TIMES))
        tags = draw(st.lists(st.sampled_from(["t", "u", "tt"]), unique=True, max_size=2))
        found.append(
            CraftedRun(run_hash, created, created + 5, draw(params), properties, tags, list(held.values()), draw(st.integers(1, 3)))
        )
    return found


def model(run: CraftedRun) -> RunModel:
    created = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=run.created)
    experiment, alias = run.properties.get("experiment", "default"), run.properties.get("name")
    properties = {
        **{"hash": run.hash, "name": f"Run: {run.hash}" if alias is None else alias, "alias": alias},
        **{"description": run.properties.get("description"), "experiment": experiment, "path": experiment, "tags": list(run.tags)},
        **{"archived": run.properties.get("archived", False), "created_at": created, "creation_time": run.created / 1e6},
        "status": {1: "finished", 2: "failed", 3: "interrupted"}[run.status],
    }
    found = RunModel(properties, run.params, run.created)
    found.metrics = [MetricModel(found, name, context, list(points)) for name, context, points in run.metrics]
    return found


# -- queries, as text ----


def written(value: Any) -> str:
    """A value as a query says it."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "math.nan" if value != value else "1e400" if value > 0 else "-math.inf"
    if isinstance(value, dt.datetime):
        return f"datetime({value.year}, {value.month}, {value.day}, {value.hour})"
    return f"timedelta({value.days})" if isinstance(value, dt.timedelta) else repr(value)


PATHS = ["run.a", "run.b", "run.c", "run['a']", "run['name']", "run.year", "run.a.b", "run['a', 'b']", "run['a']['b']", "run['b'].a"]
PATHS += [
    "run.a.b.c",
    "run['c', 'a', 'b']",
    "run.a['b', 'a']",
    "run[0]",
    "run.a[0]",
    "run['a', 0]",
    "run.a[-1]",
    "run.b[0].a",
    "run.c['b'][1]",
]
PATHS += ["run.a.year", "run.b.year", "run.c.day", "run.a.b.month", "run.a.days", "run.a.seconds", "run.a.real", "run.nope", "run.a.nope.b"]
PATHS += ["run.b[0].run.b", "run.a['year']", "run.a.b[0]", "run.a['b', 0]"]
PROPERTIES = [
    "run.name",
    "run.hash",
    "run.experiment",
    "run.path",
    "run.alias",
    "run.description",
    "run.status",
    "run.tags",
    "run.archived",
]
SEQUENCES = ["run.metrics['loss']", "run.metrics.acc", "run.metrics['acc', {}]", "run.metrics['loss', {'k': 1}]"]
SEQUENCES += ["run.metrics['loss', {'k': True}]", "run.metrics['nope']", "run.metrics['loss', None]", "run.metrics['acc', {'k': 1.0}]"]
SEQUENCES += ["run.metrics['loss', {'n': {'a': [1]}, 'subset': 'val'}]"]
FIELDS = ["last", "first", "min", "max", "last_step", "first_step", "count", "dtype"]
CONTEXT_PATHS = ["metric.context.k", "metric.context['k']", "metric.context.n.a", "metric.context.subset", "metric.context['n', 'a', 0]"]

numbers = st.sampled_from(NUMBERS).map(written)
texts = st.sampled_from([*TEXTS, "t", "e", "r-", "loss", "finished", "default", "Run: a"]).map(written)
dates = st.sampled_from([date for date in DATES if isinstance(date, dt.datetime | dt.timedelta)]).map(written)
others = st.sampled_from(
    ["None", "[1, 2]", "(1, 2)", "{}", "[]", "{1, 2}", "{'b': 1}", "[1] + [2]", "1 + 2", "'a' + 'b'", "f'a{1}'", "(not 1)"]
)
constants = numbers | texts | dates | others
paths = st.sampled_from(PATHS)
sequence_numbers = st.builds("{}.{}".format, st.sampled_from(SEQUENCES), st.sampled_from(FIELDS))
run_operands = paths | paths | st.sampled_from(PROPERTIES) | sequence_numbers
metric_operands = st.sampled_from(FIELDS).map("metric.{}".format) | st.sampled_from(["metric.name", "metric.context", *CONTEXT_PATHS])
metric_operands |= st.sampled_from(["metric.run.a", "metric.run.name", "metric.run.metrics['loss'].last"])
operators = st.sampled_from(["==", "==", "!=", "<", "<=", ">", ">=", "is", "is not"])
constant_lists = st.lists(constants, max_size=4).map(lambda items: f"[{', '.join(items)}]")
constant_lists |= st.lists(numbers | texts, min_size=1, max_size=3).map(lambda items: f"{{{', '.join(items)}}}")
times = st.sampled_from(["'2024-01-01'", "'2024-06-01T14:00:00+02:00'", "datetime(2024, 1, 1)", "'x'", "'1970-01-01'", "None"])
time_numbers = st.sampled_from(["0", "1704067200", "1704067200.000001", "1e400", "-1", "math.nan", "'0'"])


def predicates(operands: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    computed = operands | st.builds(
        lambda form, one, other: form.format(one, other),
        st.sampled_from(
            [
                "({} + {})",
                "({} * 2 - {})",
                "({} / {})",
                "(-{})",
                "len({})",
                "str({})",
                "abs({})",
                "{}[0:1]",
                "{}[1:]",
                "{}.lower()",
                "sorted({})",
                "({} if {} else 1)",
                "({} or {})",
                "({} and {})",
                "{}.get('b', 1)",
                "{}.get('b')",
                "round({}, 1)",
                "min({}, {})",
                "float({})",
                'f"{{{}}}-"',  # the other quotes: those inside are part of an f-string only from Python 3.12 on
                "{}.date()",
                "{}.strftime('%Y')",
                "{}.total_seconds()",
                "int({})",
                "sum({})",
                "{}.keys()",
                "bool({})",
                "({} % 2)",
                "[x for x in {}]",
                "[x for x in {} if x == {}]",
                "{}.count(1)",
                "max({})",
                "({} ** 2)",
                "math.floor({})",
                "{}.split('b')",
            ]
        ),
        operands,
        operands | constants,
    )
    one = st.builds("{} {} {}".format, operands, operators, constants)
    return st.one_of(
        one,
        one,
        st.builds("{} {} {}".format, constants, operators, operands),
        st.builds("{} {} {}".format, operands, operators, computed),
        st.builds("{} {} {}".format, computed, operators, constants),
        st.builds("{} {} {} {} {}".format, constants, operators, operands, operators, constants | operands),
        st.builds("{} {} {}".format, operands | constants, st.sampled_from(["in", "not in"]), constant_lists | operands | texts),
        st.builds("{}.startswith({})".format, operands, texts),
        st.builds("{}.endswith({})".format, operands, texts),
        st.builds("isinstance({}, {})".format, operands, st.sampled_from(["int", "str", "(float, list)", "bool", "datetime", "dict"])),
        st.builds("{}({} {} x for x in {})".format, st.sampled_from(["any", "all"]), constants, operators, operands),
        st.builds("any(x {} {} for x in {} if {} {} x)".format, operators, constants, operands, constants, operators),
        st.builds("any(x.run.b == {} for x in {})".format, constants, operands),
        st.builds("run.created_at {} {}".format, operators, times),
        st.builds("{} {} run.created_at".format, times, operators),
        st.builds("run.creation_time {} {}".format, operators, time_numbers),
        st.builds("{} <= run.created_at < {}".format, times, times),
        st.builds("{} in run.tags".format, st.sampled_from(["'t'", "'tt'", "'nope'", "1", "None"])),
        st.builds("{} in run.metrics".format, st.sampled_from(["'loss'", "'nope'", "1", "run.a"])),
        st.builds("{} in run".format, st.sampled_from(["'a'", "'nope'", "run.a", "'year'"])),
        st.builds("run[{}] == {}".format, operands, constants),
        st.builds("{} == None".format, st.sampled_from(SEQUENCES)),
        st.sampled_from(SEQUENCES),
        computed,
        operands,
        st.sampled_from(["run.archived", "not run.archived", "run.archived == False", "run.archived in (True, False)", "1 / 0", "True"]),
    )


def queries(operands: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    simple = predicates(operands)
    return st.recursive(
        simple,
        lambda inner: st.one_of(
            st.builds("({}) and ({})".format, inner, inner),
            st.builds("({}) and ({})".format, inner, simple),
            st.builds("({}) or ({})".format, inner, inner),
            st.builds("not ({})".format, inner),
            st.builds("({}) if ({}) else ({})".format, inner, simple, simple),
            st.builds("(({}) == ({}))".format, inner, simple),
        ),
        max_leaves=5,
    )


run_queries = queries(run_operands)
metric_queries = queries(metric_operands | metric_operands | run_operands)
