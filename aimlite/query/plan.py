"""What of a query the index can answer: ranges of keys, and how they combine.

A bound is a superset of the runs that match; it is *exact* when it is them. `and` intersects, `or` unites; what has no bound is left to the
evaluation of each candidate.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from aimlite._ext.recorder import canonical_context
from aimlite.errors import AimliteError
from aimlite.query.evaluate import FAILURES, Budget, Row, compiled, run_path
from aimlite.query.names import ATTRIBUTES_OF, KINDS, SEQUENCE_NUMBERS, as_moment
from aimlite.query.nodes import And, Attribute, Call, Compare, Comprehension, Const, Item, Name, Node, Not, Or
from aimlite.storage import keys
from aimlite.storage.params import UNORDERED

_EXACT_INT = 2**53
_STRING_BYTES = 250
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_PARTS = frozenset(name for names in ATTRIBUTES_OF.values() for name in names)
_EACH_TIME = ("now", "utcnow", "match", "search", "fullmatch")  # not once for all: another moment, or longer than planning may take
_EPOCH = dt.datetime(1970, 1, 1)


@dataclass(frozen=True)
class Scan:
    """The runs of ranges of the tree. Every key of them ends with a run. doubtful: ranges that belong to it, of runs of which only their
    evaluation can tell; where they are empty `exact` holds, else not."""

    text: str
    ranges: tuple[keys.Range, ...]
    exact: bool
    doubtful: tuple[keys.Range, ...] = ()


@dataclass(frozen=True)
class MetricScan:
    """The runs whose metric of one name and context compares so: `last > 0.5` say."""

    text: str
    range: keys.Range
    attribute: str
    operator: str
    value: float
    exact: bool = True


@dataclass(frozen=True)
class Without:
    """The runs that `part` has not. part: exact."""

    part: Bound

    @property
    def exact(self) -> bool:
        return True


@dataclass(frozen=True)
class Every:
    """The runs that all of `parts` have."""

    parts: tuple[Bound, ...]

    @property
    def exact(self) -> bool:
        return all(part.exact for part in self.parts)


@dataclass(frozen=True)
class Some:
    """The runs that one of `parts` has."""

    parts: tuple[Bound, ...]

    @property
    def exact(self) -> bool:
        return all(part.exact for part in self.parts)


Bound = Scan | MetricScan | Without | Every | Some


@dataclass(frozen=True)
class Plan:
    """bound: None is all runs. exact: whether nothing is left to evaluate. skips_archived: the query does not speak of it."""

    node: Node | None
    bound: Bound | None
    exact: bool
    skips_archived: bool


def plan_runs(node: Node | None) -> Plan:
    """How the runs of a query are found."""
    skips = node is None or not mentions_archived(node)
    if node is None:
        return Plan(None, None, True, skips)
    bound, exact = _bound(node)
    return Plan(node, bound, exact, skips)


def unbound(node: Node) -> list[Node]:
    """The conjuncts that no range of the index can answer."""
    items = node.items if isinstance(node, And) else (node,)
    return [item for item in items if _bound(item)[0] is None]


def mentions_archived(node: Node) -> bool:
    for each in node.walk():
        if isinstance(each, Attribute) and each.name == "archived":
            found = run_path(each)
            if found is not None and found.property == "archived" and not found.rest:
                return True
    return False


def is_about_runs(node: Node) -> bool:
    """Whether only `run` decides, and not the sequence."""
    return not any(isinstance(each, Name) and each.id in KINDS.values() for each in node.walk())


def constant(node: Node) -> tuple[Any] | None:
    """(value,) of a node that is the same for every row; None for any other."""
    if isinstance(node, Const):
        return (node.value,)
    for each in node.walk():
        if isinstance(each, Comprehension) or (isinstance(each, Name) and each.id in ("run", *KINDS.values())):
            return None
        if isinstance(each, Call) and isinstance(each.function, Attribute) and each.function.name in _EACH_TIME:
            return None
    try:
        return (compiled(node)(Row(Budget(1.0), None)),)
    except (AimliteError, *FAILURES):
        return None  # said when it is evaluated


def _bound(node: Node) -> tuple[Bound | None, bool]:
    """(superset, whether it is exact)"""
    if isinstance(node, And):
        found = [_bound(item) for item in node.items]
        parts = tuple(bound for bound, _ in found if bound is not None)
        return (Every(parts) if parts else None), all(exact for _, exact in found) and bool(parts)
    if isinstance(node, Or):
        found = [_bound(item) for item in node.items]
        if any(bound is None for bound, _ in found):
            return None, False
        return Some(tuple(bound for bound, _ in found if bound is not None)), all(exact for _, exact in found)
    bound = _simple(node)
    return bound, bound is not None and bound.exact


def _without(bound: Bound | None) -> Bound | None:
    """What an exact bound leaves."""
    if bound is None or not bound.exact:
        return None
    return bound.part if isinstance(bound, Without) else Without(bound)


def _simple(node: Node) -> Bound | None:
    if isinstance(node, Compare):
        operands = (node.first, *node.operands)
        pairs = [_comparison(operands[k], operator, operands[k + 1]) for k, operator in enumerate(node.operators)]
        parts = tuple(pair for pair in pairs if pair is not None)
        if not parts:
            return None
        if len(parts) == len(pairs) == 1:
            return parts[0]
        return Every(parts if len(parts) == len(pairs) else (*parts, _inexact(parts[0])))
    if isinstance(node, Not):
        return _without(_bound(node.operand)[0]) if _bound(node.operand)[1] else None
    if isinstance(node, Call):
        return _starts_with(node)
    if isinstance(node, Attribute | Item):
        return _truth(node)
    return None


def _inexact(bound: Bound) -> Bound:
    if isinstance(bound, Scan | MetricScan):
        return replace(bound, exact=False)
    return Every((bound, _ALL))


_ALL = Scan("anything", (keys.property_index_of("created"),), False)


def _comparison(left: Node, operator: str, right: Node) -> Bound | None:
    """What two operands of one comparison bound."""
    if operator == "in":
        return _membership(left, right)
    if operator == "is":  # is equal, and more
        equal = _comparison(left, "==", right)
        return None if equal is None else _inexact(equal)
    for side, other, op in ((left, right, operator if operator in _FLIPPED else ""), (right, left, _FLIPPED.get(operator, ""))):
        value = constant(other)
        if value is None or not op:
            continue
        return _without(_against(side, "==", value[0])) if op == "!=" else _against(side, op, value[0])
    return None


def _against(side: Node, operator: str, value: Any) -> Bound | None:
    """The runs for which `side operator value` may hold."""
    found = run_path(side)
    if found is None:
        return None
    if value is None:
        return None  # what is missing is in no index
    if found.property == "metrics":
        return _metric_bound(found.rest, operator, value)
    if found.rest:
        return None
    if found.property is None:
        return _param_bound(found.path, operator, value)
    return _property_bound(found.property, operator, value)


def _param_bound(path: keys.Path, operator: str, value: Any) -> Scan | None:
    text = f"run.{'.'.join(map(str, path))} {operator} {value!r:.60}"
    if not path or any(type(key) is int for key in path):
        return None  # it may lead into a list
    others = _unordered(path)
    if isinstance(value, bool | int | float):
        if value != value:
            return None
        number = _as_float(value)
        exact = abs(value) < _EXACT_INT  # beyond, several ints of a param are one float of the index
        low, high = {"==": (number, number), "<": (-math.inf, number), "<=": (-math.inf, number)}.get(operator, (number, math.inf))
        with_low, with_high = not (operator == ">" and exact), not (operator == "<" and exact)
        return Scan(text, (keys.param_index_values(path, low, high, with_low, with_high),), exact, others)
    if isinstance(value, str):
        exact = len(value.encode("utf-8", "surrogatepass")) < _STRING_BYTES
        return Scan(text, (_string_range(path, operator, value, exact),), exact, others)
    if hasattr(value, "isoformat"):  # dates compare with the strings that stand for them
        return Scan(text, (keys.param_index_strings(path, ""),), False, others)
    if operator == "==" and isinstance(value, dict | list | tuple | set | frozenset):
        return Scan(text, (keys.param_index_below(path),) if isinstance(value, dict) else (), False, others)
    return None


def _unordered(path: keys.Path) -> tuple[keys.Range, ...]:
    """Where values lie that have no place in the index, dates among them: they compare with strings, and have parts of their own."""
    whole = keys.param_index_values(path, UNORDERED, UNORDERED)
    return (whole, keys.param_index_values(path[:-1], UNORDERED, UNORDERED)) if path[1:] and path[-1] in _PARTS else (whole,)


def _string_range(path: keys.Path, operator: str, value: str, exact: bool) -> keys.Range:
    cut = keys.index_value(value)
    assert isinstance(cut, str)
    first, last = keys.param_index_strings(path, "")
    if operator == "==":
        return keys.param_index_values(path, cut, cut)
    begin, end = keys.param_index_values(
        path, cut, cut, with_low=not (exact and operator == ">"), with_high=not (exact and operator == "<")
    )
    return (first, end) if operator in ("<", "<=") else (begin, last or b"")


def _as_float(value: float) -> float:
    number = keys.index_value(value)
    assert isinstance(number, float)
    return number


def _property_values(name: str, low: Any, high: Any, with_low: bool = True, with_high: bool = True) -> keys.Range:
    return keys.property_index_values(name, low, high, with_low, with_high)


def _property_bound(name: str, operator: str, value: Any) -> Bound | None:
    text = f"run.{name} {operator} {value!r:.60}"
    if name == "archived" and operator == "==" and isinstance(value, bool | int | float):
        return Scan(text, (_property_values("archived", _as_float(value), _as_float(value)),), True)
    if name == "active" and operator == "==" and isinstance(value, bool | int | float):
        return _RUNNING if value == 1 else _without(_RUNNING) if value == 0 else None
    if name == "hash" and operator == "==" and isinstance(value, str):
        begin = keys.run(value)
        return Scan(text, ((begin, begin + b"\xff"),), True)
    if name in ("experiment", "status", "name", "path") and operator == "==" and isinstance(value, str):
        stored = "experiment" if name == "path" else name
        if (name == "name" and value.startswith("Run: ")) or len(value.encode("utf-8", "surrogatepass")) >= _STRING_BYTES:
            return None
        return Scan(text, (_property_values(stored, value, value),), True)
    if name in ("created_at", "creation_time"):
        return _creation_bound(text, name, operator, value)
    return None


_RUNNING = Scan("run.active", (keys.property_index_values("status", "running", "running"),), True)


def _creation_bound(text: str, name: str, operator: str, value: Any) -> Scan | None:
    if name == "created_at":
        moment = as_moment(value)
        if moment is None:
            return None
        time_us = (moment - _EPOCH) // dt.timedelta(microseconds=1)
    elif isinstance(value, int | float) and abs(value) < 1e12:
        time_us = int(value * 1e6)
    else:
        return None
    low = high = time_us
    if name == "creation_time":  # a rounded number of seconds: several microseconds may be equal to it
        near = [us for us in range(time_us - 300, time_us + 300) if us / 1e6 == value]
        below = [us for us in range(time_us - 300, time_us + 300) if us / 1e6 < value]
        low, high = (near[0], near[-1]) if near else (below[-1] + 1, below[-1])
    first, last = keys.property_index_of("created")
    begin, behind = keys.property_index_values("created", low, high)
    after, before = keys.property_index_values("created", high, low, with_low=False, with_high=False)
    if low > high:  # no time is equal to it
        after = keys.property_index_values("created", low, low)[0]
        before = behind = after
        begin = after
    ranges = {"<": (first, before), "<=": (first, behind), "==": (begin, behind), ">": (after, last or b""), ">=": (begin, last or b"")}
    return Scan(text, (ranges[operator],), True)


def _membership(left: Node, right: Node) -> Bound | None:
    """`left in right`"""
    container, found = constant(right), run_path(right)
    if container is not None and isinstance(container[0], list | tuple | set | frozenset):
        items: Iterable[Any] = container[0]
        parts = [_against(left, "==", item) for item in items]
        kept = tuple(part for part in parts if part is not None)
        return Some(kept) if len(kept) == len(parts) else None
    sought = constant(left)
    if found is not None and sought is not None and found.property == "tags" and not found.rest and isinstance(sought[0], str):
        return Scan(f"{sought[0]!r:.60} in run.tags", (_property_values("tag", sought[0], sought[0]),), len(sought[0]) <= 50)
    if found is not None and found.property is None and not found.rest:
        return _existence(found.path)
    return None


def _starts_with(node: Call) -> Bound | None:
    function = node.function
    if not (isinstance(function, Attribute) and function.name == "startswith" and len(node.arguments) == 1 and not node.keywords):
        return None
    found, prefix = run_path(function.of), constant(node.arguments[0])
    if found is None or found.rest or prefix is None or not isinstance(prefix[0], str):
        return None
    text, exact = f"{_shown(found)}.startswith({prefix[0]!r:.60})", len(prefix[0].encode("utf-8", "surrogatepass")) < _STRING_BYTES
    if found.property is None:
        if not found.path or any(type(key) is int for key in found.path):
            return None
        return Scan(text, (keys.param_index_strings(found.path, prefix[0]),), exact)
    if found.property == "hash":
        return Scan(text, (keys.runs_with_prefix(prefix[0]),), True)
    stored = {"name": "name", "experiment": "experiment", "path": "experiment", "status": "status"}.get(found.property)
    if stored is None or (stored == "name" and ("Run: ".startswith(prefix[0]) or prefix[0].startswith("Run: "))):
        return None
    return Scan(text, (keys.property_index_strings(stored, prefix[0]),), exact)


def _shown(found: Any) -> str:
    return f"run.{found.property}" if found.property else f"run.{'.'.join(map(str, found.path))}"


def _truth(node: Node) -> Bound | None:
    """Runs for which `run.a.b`, alone, may be true: those that have something there."""
    found = run_path(node)
    if found is None:
        return None
    if found.property == "archived" and not found.rest:
        return Scan("run.archived", (_property_values("archived", 1.0, 1.0),), True)
    if found.property == "active" and not found.rest:
        return _RUNNING
    if found.property == "metrics":
        return _has_metric(found.rest)
    return _true_params(found.path) if found.property is None and not found.rest else None


def _true_params(path: keys.Path) -> Scan | None:
    """Runs in which a param is neither missing nor 0, False or empty."""
    if not path or any(type(key) is int for key in path):
        return _existence(path)
    begin, last = keys.param_index_strings(path, "")
    after_empty = keys.param_index_values(path, "", "", with_low=False)[0]
    return Scan(
        f"run.{'.'.join(map(str, path))} is true",
        (
            keys.param_index_values(path, -math.inf, 0.0, with_high=False),
            keys.param_index_values(path, 0.0, math.inf, with_low=False),
            (max(begin, after_empty), last or b""),
            keys.param_index_below(path),
        ),
        True,
        _unordered(path),
    )


def _metric_bound(rest: tuple[Node, ...], operator: str, value: Any) -> Bound | None:
    """`run.metrics[…].last > 0.5` and the like."""
    there = _has_metric(rest[:1])
    if there is None or len(rest) != 2 or not isinstance(rest[1], Attribute) or rest[1].name not in SEQUENCE_NUMBERS:
        return there
    if not isinstance(value, bool | int | float) or abs(value) >= _EXACT_INT:
        return there
    return MetricScan(f"{there.text[:-9]}.{rest[1].name} {operator} {value!r}", there.ranges[0], rest[1].name, operator, value)


def _existence(path: keys.Path) -> Scan | None:
    known: list[str | int] = []
    for key in path:
        if type(key) is int and known:
            break  # from here on it may lead into a list
        known.append(key)
    if not known:
        return None
    place = tuple(known)
    ranges = (keys.param_index_of(place), keys.param_index_below(place))
    return Scan(f"run.{'.'.join(map(str, place))} is there", ranges, False, _unordered(place))


def _has_metric(rest: tuple[Node, ...]) -> Scan | None:
    """Runs that have the metric of `run.metrics[…]`."""
    if not rest:
        return None
    link = rest[0]
    if isinstance(link, Attribute):
        wanted: Any = link.name
    else:
        assert isinstance(link, Item)
        index = constant(link.index)
        if index is None:
            return None
        wanted = index[0]
    name, context = wanted if isinstance(wanted, tuple) and len(wanted) == 2 else (wanted, None)
    try:
        plain = canonical_context(context)
    except (TypeError, ValueError):
        return None
    if not isinstance(name, str):
        return None
    return Scan(f"run.metrics[{name!r}, {plain!r}] is there", (keys.sequences_of(name, plain),), False)
