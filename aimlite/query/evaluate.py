"""What a query says of one row: nodes become Python closures, which reach the row and the tables of names.py and nothing else.

None stands for what is missing: one rule everywhere. It is falsy and equal to itself alone; ordering it and looking into it gives False;
its attributes, items, calls and arithmetic are missing too.
"""

from __future__ import annotations

import operator
import time
import warnings
from collections.abc import Callable, Iterator
from copy import copy
from functools import lru_cache
from typing import Any, Protocol

from aimlite.errors import AimliteError, QueryLimitError, QueryTimeoutError
from aimlite.query.names import (
    ATTRIBUTES_OF,
    CLASSES,
    FUNCTIONS,
    KINDS,
    MATCH_METHODS,
    MAX_BITS,
    MAX_CHARACTERS,
    MAX_ITEMS,
    MAX_MADE,
    MAX_PATTERN,
    METHODS_OF,
    MODULES,
    RUN_PROPERTIES,
    TAKES_MISSING,
    as_moment,
    bounded,
    is_plain,
    text_of,
)
from aimlite.query.nodes import (
    And,
    Attribute,
    Binary,
    Call,
    Clause,
    Collection,
    Compare,
    Comprehension,
    Conditional,
    Const,
    Dict,
    Formatted,
    FString,
    Item,
    Name,
    Node,
    Not,
    Or,
    Slice,
    Unary,
)
from aimlite.query.patterns import refusal
from aimlite.storage.loading import load

Path = tuple[str | int, ...]
FAILURES = (ArithmeticError, TypeError, ValueError, LookupError, AttributeError, RecursionError)


class RunRow(Protocol):
    """A run as a query sees it."""

    def property(self, name: str) -> Any: ...

    def param(self, path: Path) -> Any:
        """The leaf or the nested dicts at a path, None where there is nothing."""

    def metric(self, name: str, context: Any) -> SequenceRow | None: ...


class SequenceRow(Protocol):
    """A sequence as a query sees it."""

    @property
    def run(self) -> RunRow: ...

    def attribute(self, name: str) -> Any: ...


class Budget:
    """The time that a query has. timeout_s: None is no limit."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._end = None if timeout_s is None else time.monotonic() + timeout_s
        self._spent = 0
        self._made = 0

    def spend(self, steps: int = 1) -> None:
        """Raises QueryTimeoutError when the time is over; looks at the clock now and then."""
        self._spent += steps
        if self._spent >= 64:
            self._spent = 0
            self.left_s()

    def next_row(self) -> None:
        self._made = 0

    def make(self, value: Any) -> Any:
        """`value`, which an evaluation made. Raises QueryLimitError when all that it made for one row is too large: one limit for all
        keeps comparing, sorting, hashing and showing nested values short, which nothing can interrupt."""
        self._made += 1
        if isinstance(value, _SIZED):
            self._made += _weight(value, MAX_MADE)
        if self._made > MAX_MADE:
            raise QueryLimitError(f"a query makes at most {MAX_MADE:,} items, or {8 * MAX_MADE:,} characters, for one row")
        return value

    def left_s(self) -> float | None:
        """Seconds left. Raises QueryTimeoutError when there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> QueryTimeoutError:
        return QueryTimeoutError(f"the query did not end within {self._timeout_s:g} s; give it more with timeout=, or narrow it")


class Row:
    """What a query is evaluated on: a run, or a sequence and its run."""

    __slots__ = ("budget", "run", "scope", "sequence")

    def __init__(self, budget: Budget, run: Any, sequence: Any = None) -> None:
        budget.next_row()
        self.budget = budget
        self.run = run
        self.sequence = sequence
        self.scope: dict[str, Any] = {}

    def within(self) -> Row:
        """The same row for a comprehension, whose variables are its own."""
        inner = copy(self)
        inner.scope = dict(self.scope)
        return inner


_SIZED = (str, bytes, list, tuple, set, frozenset, dict)


def _weight(value: Any, most: int) -> int:
    """How many items a value holds, all levels counted, 8 characters as one; it may stop counting beyond `most`."""
    pending, weight = [value], 0
    while pending and weight <= most:
        each = pending.pop()
        if isinstance(each, str | bytes):
            weight += len(each) // 8
        elif isinstance(each, _SIZED):
            weight += len(each)
            pending.extend(item for item in each if isinstance(item, _SIZED))
            if isinstance(each, dict):
                pending.extend(item for item in each.values() if isinstance(item, _SIZED))
    return weight


Evaluate = Callable[[Row], Any]


def matches(evaluate: Evaluate, row: Row) -> bool | None:
    """Whether a row matches; None when its evaluation fails. Raises QueryTimeoutError, QueryLimitError, CorruptionError."""
    try:
        return bool(evaluate(row))
    except AimliteError:
        raise
    except FAILURES:
        return None


def compiled(node: Node) -> Evaluate:
    """A function that evaluates a node on a row."""
    return _COMPILERS[type(node)](node)


# -- names and paths ----


class RunPath:
    """What a chain of attributes and constant items on `run` names: a property, `metrics`, or a path of params; and what follows."""

    def __init__(self, property: str | None, path: Path, rest: tuple[Node, ...]) -> None:
        self.property = property
        self.path = path
        self.rest = rest  # the Attribute and Item nodes that come after, innermost first


def run_path(node: Node) -> RunPath | None:
    """The chain that a node is; None where it does not begin at a run."""
    chain: list[Node] = []
    while isinstance(node, Attribute | Item) and not _is_run(node):
        chain.append(node)
        node = node.of
    if not _is_run(node) or not chain:
        return None
    chain.reverse()
    first = chain[0]
    if isinstance(first, Attribute) and (first.name in RUN_PROPERTIES or first.name == "metrics"):
        return RunPath(first.name, (), tuple(chain[1:]))
    path: list[str | int] = []
    for number, link in enumerate(chain):
        keys = _constant_keys(link)
        if keys is None:
            return RunPath(None, tuple(path), tuple(chain[number:]))
        path += keys
    return RunPath(None, tuple(path), ())


def _is_run(node: Node) -> bool:
    return (isinstance(node, Name) and node.id == "run") or (
        isinstance(node, Attribute) and node.name == "run" and isinstance(node.of, Name) and node.of.id in KINDS.values()
    )


def _constant_keys(link: Node) -> list[str | int] | None:
    if isinstance(link, Attribute):
        return [link.name]
    assert isinstance(link, Item)
    index = link.index
    items = index.items if isinstance(index, Collection) and index.kind is tuple else (index,)
    keys = [item.value for item in items if isinstance(item, Const) and type(item.value) in (str, int)]
    return keys if len(keys) == len(items) and keys else None


def _name(node: Name) -> Evaluate:
    name = node.id
    if name == "run":
        return lambda row: row.run
    if name in KINDS.values():
        return lambda row: row.scope.get(name, row.sequence)
    return lambda row: row.scope[name]


def _attribute_or_item(node: Attribute | Item) -> Evaluate:
    if isinstance(node, Attribute) and isinstance(node.of, Name) and node.of.id in MODULES:
        constant = MODULES[node.of.id].constants.get(node.name)
        if constant is not None:
            return lambda row: constant
    found = run_path(node)
    if found is not None:
        return _on_run(found)
    if isinstance(node, Attribute):
        of, name = compiled(node.of), node.name
        return lambda row: attribute(of(row), name)
    return _followed(compiled(node.of), node)


def _on_run(found: RunPath) -> Evaluate:
    rest = found.rest
    if found.property == "metrics":
        if not rest:
            return lambda row: Metrics(row.run)
        base: Evaluate = _on_metrics(rest[0])
        rest = rest[1:]
    elif found.property is not None:
        name = found.property
        base = lambda row: row.run.property(name)  # noqa: E731
    elif not found.path:
        base = lambda row: row.run  # noqa: E731
    else:
        path = found.path
        base = lambda row: param(row.run, path)  # noqa: E731
    for link in rest:
        base = _followed(base, link)
    return base


def _followed(base: Evaluate, link: Node) -> Evaluate:
    if isinstance(link, Attribute):
        name = link.name
        return lambda row: attribute(base(row), name)
    assert isinstance(link, Item)
    index = compiled(link.index)
    if isinstance(link.index, Slice):
        return lambda row: row.budget.make(item(base(row), index(row)))
    return lambda row: item(base(row), index(row))


def _on_metrics(link: Node) -> Evaluate:
    if isinstance(link, Attribute):
        name = link.name
        return lambda row: row.run.metric(name, None)
    assert isinstance(link, Item)
    index = compiled(link.index)
    return lambda row: item(Metrics(row.run), index(row))


class Metrics:
    """`run.metrics` of one run."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def __repr__(self) -> str:
        return "metrics"


def param(run: RunRow, path: Path) -> Any:
    """What lies at a path, inside of lists and dates too."""
    found = run.param(path)
    if found is None and len(path) > 1:
        for cut in range(len(path) - 1, 0, -1):
            found = run.param(path[:cut])
            if isinstance(found, dict):
                return None
            if found is not None:
                for key in path[cut:]:
                    found = attribute(found, key) if isinstance(key, str) else item(found, key)
                return found
    return found


def attribute(value: Any, name: str) -> Any:
    """`value.name`: a key of a map, a part of a date, what a run or sequence is asked for; missing in anything else."""
    if isinstance(value, dict):
        return value.get(name)
    if hasattr(value, "param"):
        return value.property(name) if name in RUN_PROPERTIES else Metrics(value) if name == "metrics" else value.param((name,))
    if hasattr(value, "attribute"):
        return value.attribute(name)
    if isinstance(value, Metrics):
        return value.run.metric(name, None)
    for kind, names in ATTRIBUTES_OF.items():
        if isinstance(value, kind):
            return getattr(value, name) if name in names else None
    return None


def item(value: Any, index: Any) -> Any:
    """`value[index]`; missing where there is no such item."""
    if value is None:
        return None
    if isinstance(value, dict):
        if isinstance(index, tuple) and index not in value:
            for key in index:
                value = item(value, key)
            return value
        return value.get(index)
    if isinstance(value, str | list | tuple):
        if isinstance(index, slice):
            return value[index]
        if isinstance(index, int) and -len(value) <= index < len(value):
            return value[index]
        return None
    if isinstance(value, Metrics):
        name, context = index if isinstance(index, tuple) and len(index) == 2 else (index, None)
        return value.run.metric(name, context) if isinstance(name, str) else None
    if hasattr(value, "param"):
        path = index if isinstance(index, tuple) else (index,)
        return param(value, path) if path and all(type(key) in (str, int) for key in path) else None
    return None


# -- operators ----


def equal(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, str) != isinstance(other, str) and (_is_moment(one) or _is_moment(other)):
        return as_moment(one) == as_moment(other) is not None
    if _is_moment(one) and _is_moment(other):
        return as_moment(one) == as_moment(other)
    return bool(one == other)


def _is_moment(value: Any) -> bool:
    return hasattr(value, "isoformat") and hasattr(value, "year")


def _ordering(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    def ordered(one: Any, other: Any) -> bool:
        if one is None or other is None:
            return False
        if _is_moment(one) or _is_moment(other):
            one, other = as_moment(one), as_moment(other)
            return one is not None and other is not None and bool(compare(one, other))
        try:
            return bool(compare(one, other))
        except TypeError:
            return False

    return ordered


def contains(one: Any, container: Any) -> bool:
    """`one in container`"""
    if container is None:
        return False
    if isinstance(container, str):
        return isinstance(one, str) and one in container
    if isinstance(container, list | tuple):
        return any(equal(one, each) for each in container)
    if isinstance(container, dict | set | frozenset):
        return _is_hashable(one) and one in container
    if isinstance(container, Metrics):
        return isinstance(one, str) and container.run.metric(one, ...) is not None
    if hasattr(container, "param"):
        return item(container, one) is not None
    return False


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and equal(one, other))


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": equal,
    "!=": lambda one, other: not equal(one, other),
    "<": _ordering(operator.lt),
    "<=": _ordering(operator.le),
    ">": _ordering(operator.gt),
    ">=": _ordering(operator.ge),
    "in": contains,
    "not in": lambda one, container: not contains(one, container),
    "is": _is,
    "is not": lambda one, other: not _is(one, other),
}


def _multiply(one: Any, other: Any) -> Any:
    for sized, times in ((one, other), (other, one)):
        if isinstance(sized, str | bytes | list | tuple) and isinstance(times, int):
            bounded(len(sized) * max(times, 0), "items or characters", MAX_CHARACTERS if isinstance(sized, str) else MAX_ITEMS)
    return _bounded_number(one * other)


def _add(one: Any, other: Any) -> Any:
    if isinstance(one, str | bytes | list | tuple) and isinstance(other, str | bytes | list | tuple):
        bounded(len(one) + len(other), "items or characters", MAX_CHARACTERS)
    return _bounded_number(one + other)


def _power(one: Any, other: Any) -> Any:
    if isinstance(one, int) and isinstance(other, int) and other > 0 and one.bit_length() * other > MAX_BITS:
        raise QueryLimitError(f"a number in a query has at most {MAX_BITS:,} bits")
    return one**other


def _shift_left(one: Any, other: Any) -> Any:
    if isinstance(one, int) and isinstance(other, int) and one.bit_length() + other > MAX_BITS:
        raise QueryLimitError(f"a number in a query has at most {MAX_BITS:,} bits")
    return one << other


def _remainder(one: Any, other: Any) -> Any:
    if isinstance(one, str | bytes):
        raise TypeError("`%` takes numbers")
    return one % other


def _bounded_number(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise QueryLimitError(f"a number in a query has at most {MAX_BITS:,} bits")
    return value


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": _add,
    "-": operator.sub,
    "*": _multiply,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": _remainder,
    "**": _power,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<<": _shift_left,
    ">>": operator.rshift,
}
_UNARY: dict[str, Callable[[Any], Any]] = {"-": operator.neg, "+": operator.pos, "~": operator.invert}


def _const(node: Const) -> Evaluate:
    value = node.value
    return lambda row: value


def _unary(node: Unary) -> Evaluate:
    operate, operand = _UNARY[node.operator], compiled(node.operand)

    def evaluate(row: Row) -> Any:
        value = operand(row)
        return None if value is None else operate(value)

    return evaluate


def _binary(node: Binary) -> Evaluate:
    operate, left, right = _BINARY[node.operator], compiled(node.left), compiled(node.right)

    def evaluate(row: Row) -> Any:
        one, other = left(row), right(row)
        return None if one is None or other is None else row.budget.make(operate(one, other))

    return evaluate


def _compare(node: Compare) -> Evaluate:
    first = compiled(node.first)
    if len(node.operators) == 1:
        compare, second = COMPARISONS[node.operators[0]], compiled(node.operands[0])
        if node.operators[0] not in ("in", "not in") and any(isinstance(side, Const) for side in (node.first, *node.operands)):
            return lambda row: compare(first(row), second(row))
    others = [(COMPARISONS[name], compiled(operand)) for name, operand in zip(node.operators, node.operands, strict=True)]

    def evaluate(row: Row) -> bool:
        left = first(row)
        for compare, operand in others:
            right = operand(row)
            row.budget.spend()
            if not compare(left, right):
                return False
            left = right
        return True

    return evaluate


def _not(node: Not) -> Evaluate:
    operand = compiled(node.operand)
    return lambda row: not operand(row)


def _and(node: And) -> Evaluate:
    items = [compiled(each) for each in node.items]

    def evaluate(row: Row) -> Any:
        value = None
        for each in items:
            value = each(row)
            if not value:
                return value
        return value

    return evaluate


def _or(node: Or) -> Evaluate:
    items = [compiled(each) for each in node.items]

    def evaluate(row: Row) -> Any:
        value = None
        for each in items:
            value = each(row)
            if value:
                return value
        return value

    return evaluate


def _conditional(node: Conditional) -> Evaluate:
    condition, then, otherwise = compiled(node.condition), compiled(node.then), compiled(node.otherwise)
    return lambda row: then(row) if condition(row) else otherwise(row)


# -- what a query makes ----


def _collection(node: Collection) -> Evaluate:
    kind, items = node.kind, [compiled(each) for each in node.items]
    return lambda row: row.budget.make(kind([each(row) for each in items]))


def _dict(node: Dict) -> Evaluate:
    pairs = [(compiled(key), compiled(value)) for key, value in node.pairs]
    return lambda row: row.budget.make({key(row): value(row) for key, value in pairs})


def _slice(node: Slice) -> Evaluate:
    parts = [compiled(Const(node.begin, node.end, None) if part is None else part) for part in (node.start, node.stop, node.step)]
    return lambda row: slice(*(part(row) for part in parts))


def _comprehension(node: Comprehension) -> Evaluate:
    element, kind = compiled(node.element), node.kind
    clauses = [(clause, compiled(clause.source), [compiled(each) for each in clause.conditions]) for clause in node.clauses]

    def produce(row: Row, depth: int) -> Iterator[Any]:
        if depth == len(clauses):
            yield row.budget.make(element(row))
            return
        clause, source, conditions = clauses[depth]
        for value in _iterated(source(row)):
            row.budget.spend()
            _bind(row.scope, clause, value)
            if all(condition(row) for condition in conditions):
                yield from produce(row, depth + 1)

    def evaluate(row: Row) -> Any:
        produced = produce(row.within(), 0)
        if kind is tuple:
            return produced
        found = []
        for value in produced:
            found.append(value)
            bounded(len(found))
        return kind(found)

    return evaluate


def _iterated(value: Any) -> Any:
    if value is None:
        return ()
    if isinstance(value, str | list | tuple | set | frozenset | dict):
        return value
    raise TypeError(f"a {type(value).__name__} has no items")


def _bind(scope: dict[str, Any], clause: Clause, value: Any) -> None:
    if len(clause.targets) == 1:
        scope[clause.targets[0]] = value
        return
    values = list(value)
    if len(values) != len(clause.targets):
        raise ValueError(f"{len(values)} values for {len(clause.targets)} names")
    scope.update(zip(clause.targets, values, strict=True))


def _formatted(node: Formatted) -> Evaluate:
    value, conversion, spec = compiled(node.value), node.conversion, node.spec

    def evaluate(row: Row) -> Any:
        found = value(row)
        if found is None:
            return None
        if conversion or not isinstance(found, str | int | float | CLASSES["datetime"]):
            found = repr(found) if conversion == "r" and is_plain(found) else text_of(found)
        return None if found is None else row.budget.make(format(found, spec))

    return evaluate


def _fstring(node: FString) -> Evaluate:
    parts = [compiled(part) for part in node.parts]

    def evaluate(row: Row) -> Any:
        texts = [part(row) for part in parts]
        if any(text is None for text in texts):
            return None
        bounded(sum(map(len, texts)), "characters", MAX_CHARACTERS)
        return row.budget.make("".join(texts))

    return evaluate


# -- calls ----


def _call(node: Call) -> Evaluate:
    function = node.function
    if isinstance(function, Name) and function.id == "isinstance":
        return _isinstance(node)
    arguments = [compiled(argument) for argument in node.arguments]
    keywords = {name: compiled(value) for name, value in node.keywords}
    if isinstance(function, Name):
        return _calling(FUNCTIONS[function.id], arguments, keywords, function.id in TAKES_MISSING)
    assert isinstance(function, Attribute)
    if isinstance(function.of, Name) and function.of.id == "re":
        return _searching(function.name, arguments)
    if isinstance(function.of, Name) and function.of.id in MODULES:
        return _calling(MODULES[function.of.id].functions[function.name], arguments, keywords, False)
    return _method(function, arguments, keywords)


def _calling(function: Callable[..., Any], arguments: list[Evaluate], keywords: dict[str, Evaluate], takes_missing: bool) -> Evaluate:
    def evaluate(row: Row) -> Any:
        values = [argument(row) for argument in arguments]
        named = {name: value(row) for name, value in keywords.items()}
        if not takes_missing and (any(value is None for value in values) or any(value is None for value in named.values())):
            return None
        row.budget.spend()
        return row.budget.make(_bounded_number(function(*values, **named)))

    return evaluate


def _isinstance(node: Call) -> Evaluate:
    if len(node.arguments) != 2 or node.keywords:
        raise QueryLimitError("isinstance() takes a value and a class")
    value, named = compiled(node.arguments[0]), node.arguments[1]
    names = named.items if isinstance(named, Collection) else (named,)
    classes = tuple(CLASSES[name.id] for name in names if isinstance(name, Name) and name.id in CLASSES)
    return lambda row: isinstance(value(row), classes)


def _method(function: Attribute, arguments: list[Evaluate], keywords: dict[str, Evaluate]) -> Evaluate:
    of, name = compiled(function.of), function.name

    def evaluate(row: Row) -> Any:
        value = of(row)
        if name == "get":
            return _get(value, [argument(row) for argument in arguments])
        if value is None:
            return None
        methods = METHODS_OF.get(type(value))
        method = methods.get(name) if methods is not None else getattr(value, name, None) if _is_match(value, name) else None
        if method is None:
            return None
        values = [argument(row) for argument in arguments]
        if any(each is None for each in values):
            return None
        named = {key: each(row) for key, each in keywords.items()}
        row.budget.spend()
        return row.budget.make(method(*values, **named) if methods is None else method(value, *values, **named))

    return evaluate


def _is_match(value: Any, name: str) -> bool:
    return name in MATCH_METHODS and type(value).__module__ == "_regex"


def _get(value: Any, arguments: list[Any]) -> Any:
    if not 1 <= len(arguments) <= 2:
        raise TypeError(f"get() takes a key and a default, not {len(arguments)} arguments")
    found = item(value, arguments[0]) if isinstance(value, dict | Metrics) or hasattr(value, "param") else None
    return arguments[1] if found is None and len(arguments) == 2 else found


def _searching(name: str, arguments: list[Evaluate]) -> Evaluate:
    if len(arguments) != 2:
        raise QueryLimitError(f"re.{name}() takes a pattern and a text")
    pattern, text = arguments

    def evaluate(row: Row) -> Any:
        sought, within = pattern(row), text(row)
        if sought is None or within is None:
            return None
        if not isinstance(within, str):
            return None
        try:
            return getattr(_pattern(sought), name)(within, timeout=row.budget.left_s())
        except TimeoutError:
            raise row.budget.over() from None

    return evaluate


@lru_cache(256)
def _pattern(text: str) -> Any:
    load("regex")
    import regex  # its searches take a timeout; those of `re` may run for years

    bounded(len(text), "characters of a pattern", MAX_PATTERN)
    if (refused := refusal(text)) is not None:
        raise QueryLimitError(f"{refused}: {text!r:.100}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that another version may read otherwise
            return regex.compile(text)
    except regex.error as error:
        raise QueryLimitError(f"the pattern {text!r:.100} is malformed: {error}") from None


_COMPILERS: dict[type[Node], Callable[[Any], Evaluate]] = {
    Const: _const,
    Name: _name,
    Attribute: _attribute_or_item,
    Item: _attribute_or_item,
    Slice: _slice,
    Call: _call,
    Unary: _unary,
    Binary: _binary,
    Compare: _compare,
    Not: _not,
    And: _and,
    Or: _or,
    Conditional: _conditional,
    Collection: _collection,
    Dict: _dict,
    Comprehension: _comprehension,
    Formatted: _formatted,
    FString: _fstring,
}
