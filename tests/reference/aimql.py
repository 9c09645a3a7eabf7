"""AimQL a second time, over plain dicts: what a query says of one run or metric, straight from the rules of the language.

It parses with Python's own `ast`, knows of no index, and shares no code with aimlite.query. Sentences are followed as docs say them:
None is what is missing.
"""

from __future__ import annotations

import ast
import datetime as dt
import math
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

PROPERTIES = {"name", "description", "hash", "experiment", "path", "alias", "tags", "archived", "created_at", "creation_time", "status"}
NUMBERS = ("last", "first", "min", "max", "last_step", "first_step", "count", "dtype")
PARTS = ("year", "month", "day", "hour", "minute", "second", "microsecond", "days", "seconds", "microseconds", "real", "imag")
METHODS = {
    str: "startswith endswith lower upper strip split replace find count title isdigit join zfill",
    list: "count index",
    tuple: "count index",
    dict: "keys values items",
    float: "is_integer",
    dt.datetime: "date strftime isoformat weekday",
    dt.date: "strftime isoformat weekday",
    dt.timedelta: "total_seconds",
}


@dataclass
class MetricModel:
    """values: of steps 0, 1, …"""

    run: RunModel
    name: str
    context: dict[str, Any]
    values: list[float]

    def number(self, name: str) -> Any:
        numbers = [float(value) for value in self.values]
        real = [number for number in numbers if not math.isnan(number)]
        kinds = {"int" if isinstance(value, int) else "float" for value in self.values}
        return {
            "last": numbers[-1],
            "first": numbers[0],
            "min": min(real, default=math.nan),
            "max": max(real, default=math.nan),
            "last_step": len(numbers) - 1,
            "first_step": 0,
            "count": len(numbers),
            "dtype": kinds.pop() if len(kinds) == 1 else "number",
        }[name]


@dataclass
class RunModel:
    properties: dict[str, Any]
    params: dict[Any, Any]
    created: int  # µs
    metrics: list[MetricModel] = field(default_factory=list)


class Metrics:
    def __init__(self, run: RunModel) -> None:
        self.run = run

    def find(self, name: Any, context: Any) -> MetricModel | None:
        wanted = typed(context or {})
        return next((metric for metric in self.run.metrics if metric.name == name and typed(metric.context) == wanted), None)


def typed(value: Any) -> Any:
    """What is equal where contexts are: with their types, in any order of keys."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [typed(item) for item in value]
    return type(value), value


def plain(value: Any) -> Any:
    """Arrays are lists in a query."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return type(value)(map(plain, value)) if isinstance(value, list | tuple) else value


def answer(query: str, runs: list[RunModel]) -> list[RunModel]:
    """The runs that match, newest first."""
    newest = sorted(runs, key=lambda run: (run.created, run.properties["hash"]), reverse=True)
    return [run for run in newest if is_shown(query, run) and matches(query, {"run": run})]


def metrics_answer(query: str, runs: list[RunModel]) -> list[tuple[RunModel, list[MetricModel]]]:
    """The metrics that match, by run, newest first."""
    found = []
    for run in answer("", runs) if not mentions_archived(query) else answer("run.archived in (True, False)", runs):
        matched = [metric for metric in run.metrics if metric.values and matches(query, {"run": run, "metric": metric})]
        if matched:
            found.append((run, matched))
    return found


def ordered(order_by: str, rows: list[tuple[Any, dict[str, Any]]], descending: bool) -> list[Any]:
    """Rows, each with the names it binds: those for which the order is missing, NaN or fails come last."""
    keyed, missing = [], []
    for row, names in rows:
        value = value_of(order_by, names)
        if value is None or value != value:
            missing.append(row)
        else:
            rank = 0 if isinstance(value, bool | int | float) else 1
            keyed.append(((rank, value), row))
    keyed.sort(key=lambda pair: pair[0], reverse=descending)
    return [*(row for _, row in keyed), *missing]


def is_shown(query: str, run: RunModel) -> bool:
    return mentions_archived(query) or not run.properties["archived"]


@lru_cache
def mentions_archived(query: str) -> bool:
    nodes = ast.walk(parsed(query or "0"))
    return any(isinstance(node, ast.Attribute) and ast.unparse(node) in ("run.archived", "metric.run.archived") for node in nodes)


def matches(query: str, names: dict[str, Any]) -> bool:
    return not query or bool(value_of(query, names))


def value_of(query: str, names: dict[str, Any]) -> Any:
    """The value of a query for what its names are; None where it fails."""
    try:
        return evaluated(parsed(query), names)
    except (ArithmeticError, TypeError, ValueError, LookupError, AttributeError):
        return None


@lru_cache
def parsed(query: str) -> ast.expr:
    return ast.parse(f"({query}\n)", mode="eval").body


def evaluated(node: ast.expr, names: dict[str, Any]) -> Any:
    def value(inner: ast.expr | None) -> Any:
        return None if inner is None else evaluated(inner, names)

    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return names[node.id]
        case ast.Attribute(ast.Name("math"), name):
            return getattr(math, name)
        case ast.Attribute(of, name):
            return attribute(value(of), name)
        case ast.Subscript(of, ast.Slice(lower, upper, step)):
            held = value(of)
            return held[value(lower) : value(upper) : value(step)] if isinstance(held, str | list | tuple) else None
        case ast.Subscript(of, index):
            return item(value(of), value(index))
        case ast.BoolOp(ast.And(), operands):
            for operand in operands:
                if not (found := value(operand)):
                    break
            return found
        case ast.BoolOp(ast.Or(), operands):
            for operand in operands:
                if found := value(operand):
                    break
            return found
        case ast.UnaryOp(ast.Not(), operand):
            return not value(operand)
        case ast.UnaryOp(operation, operand):
            held = value(operand)
            return (
                None
                if held is None
                else {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert}[type(operation)](held)
            )
        case ast.BinOp(left, operation, right):
            one, other = value(left), value(right)
            return None if one is None or other is None else ARITHMETIC[type(operation)](one, other)
        case ast.Compare(left, operations, operands):
            one = value(left)
            for operation, operand in zip(operations, operands, strict=True):
                other = value(operand)
                if not compared(operation, one, other):
                    return False
                one = other
            return True
        case ast.IfExp(condition, then, otherwise):
            return value(then) if value(condition) else value(otherwise)
        case ast.List(items):
            return [value(each) for each in items]
        case ast.Tuple(items):
            return tuple(value(each) for each in items)
        case ast.Set(items):
            return {value(each) for each in items}
        case ast.Dict(keys, values):
            return {value(key): value(each) for key, each in zip(keys, values, strict=True)}
        case ast.ListComp(element, clauses) | ast.GeneratorExp(element, clauses):
            made = (evaluated(element, bound) for bound in bindings(clauses, names))
            return list(made) if isinstance(node, ast.ListComp) else made
        case ast.JoinedStr(parts):
            texts = [value(part) for part in parts]
            return None if None in texts else "".join(texts)
        case ast.FormattedValue(inner):
            held = value(inner)
            return None if held is None else str(held)
        case ast.Call():
            return called(node, names)
    raise AssertionError(ast.dump(node))


ARITHMETIC: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}


def bindings(clauses: list[ast.comprehension], names: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not clauses:
        yield names
        return
    source = evaluated(clauses[0].iter, names)
    if source is not None and not isinstance(source, str | list | tuple | set | frozenset | dict):
        raise TypeError(source)
    for each in () if source is None else source:
        bound = {**names, ast.unparse(clauses[0].target): each}
        if all(evaluated(condition, bound) for condition in clauses[0].ifs):
            yield from bindings(clauses[1:], bound)


def attribute(value: Any, name: str) -> Any:
    if isinstance(value, RunModel):
        if name == "metrics":
            return Metrics(value)
        return value.properties[name] if name in PROPERTIES else plain(value.params.get(name))
    if isinstance(value, MetricModel):
        return getattr(value, name) if name in ("name", "context", "run") else value.number(name) if name in NUMBERS else None
    if isinstance(value, Metrics):
        return value.find(name, None)
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, dt.date | dt.time | dt.timedelta | complex) and name in PARTS:
        return getattr(value, name, None)
    return None


def item(value: Any, index: Any) -> Any:
    if isinstance(value, Metrics):
        return value.find(*index) if isinstance(index, tuple) else value.find(index, None)
    if isinstance(value, RunModel) and not (
        index != () and all(type(key) in (str, int) for key in (index if isinstance(index, tuple) else [index]))
    ):
        return None  # no param has such a key
    if isinstance(index, tuple) and isinstance(value, RunModel | dict):
        for each in index:
            value = item(value, each)
        return value
    if isinstance(value, RunModel):
        return plain(value.params.get(index))
    if isinstance(value, dict):
        return value.get(index)
    if isinstance(value, str | list | tuple) and isinstance(index, int):
        return value[index] if -len(value) <= index < len(value) else None
    return None


def as_date(value: Any) -> dt.datetime | None:
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, dt.datetime):
        return value if value.tzinfo is None else value.astimezone(dt.timezone.utc).replace(tzinfo=None)
    return dt.datetime(value.year, value.month, value.day) if isinstance(value, dt.date) else None


def equal(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if (isinstance(one, dt.date) and isinstance(other, dt.date | str)) or (isinstance(one, str) and isinstance(other, dt.date)):
        return as_date(one) is not None and as_date(one) == as_date(other)
    return bool(one == other)


def compared(operation: ast.cmpop, one: Any, other: Any) -> bool:
    match operation:
        case ast.Eq():
            return equal(one, other)
        case ast.NotEq():
            return not equal(one, other)
        case ast.Is():
            return type(one) is type(other) and equal(one, other)
        case ast.IsNot():
            return not (type(one) is type(other) and equal(one, other))
        case ast.In():
            return contained(one, other)
        case ast.NotIn():
            return not contained(one, other)
    if one is None or other is None:
        return False
    if isinstance(one, dt.date) or isinstance(other, dt.date):
        one, other = as_date(one), as_date(other)
        if one is None or other is None:
            return False
    try:
        return bool({ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}[type(operation)](one, other))
    except TypeError:
        return False


def contained(one: Any, container: Any) -> bool:
    if isinstance(container, str):
        return isinstance(one, str) and one in container
    if isinstance(container, list | tuple):
        return any(equal(one, each) for each in container)
    if isinstance(container, set | frozenset | dict):
        return type(one) not in (list, dict, set) and one in container
    if isinstance(container, RunModel):
        return item(container, one) is not None
    if isinstance(container, Metrics):
        return any(metric.name == one for metric in container.run.metrics)
    return False


CLASSES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict, "tuple": tuple, "datetime": dt.datetime}
FUNCTIONS: dict[str, Any] = {
    **{function.__name__: function for function in (len, any, all, sum, min, max, sorted, abs, round, float, int, str, bool)},
    "datetime": dt.datetime,
    "timedelta": dt.timedelta,
}


def called(node: ast.Call, names: dict[str, Any]) -> Any:
    if isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        kinds = node.args[1].elts if isinstance(node.args[1], ast.Tuple) else [node.args[1]]
        return isinstance(evaluated(node.args[0], names), tuple(CLASSES[kind.id] for kind in kinds if isinstance(kind, ast.Name)))
    arguments = [evaluated(argument, names) for argument in node.args]
    if isinstance(node.func, ast.Name):
        return None if None in arguments and node.func.id != "bool" else FUNCTIONS[node.func.id](*arguments)
    assert isinstance(node.func, ast.Attribute)
    if isinstance(node.func.value, ast.Name) and node.func.value.id in ("math", "re"):
        module = {"math": math, "re": re}[node.func.value.id]
        return None if None in arguments else getattr(module, node.func.attr)(*arguments)
    value, name = evaluated(node.func.value, names), node.func.attr
    if name == "get":
        found = item(value, arguments[0])
        return arguments[1] if found is None and arguments[1:] else found
    if value is None or None in arguments or name not in METHODS.get(type(value), "").split():
        return None
    found = getattr(value, name)(*arguments)
    return list(found) if name in ("keys", "values", "items") else found
