"""What a query is once it is parsed: nodes, each with the place in the text that it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Node:
    """begin and end: offsets into the text of the query."""

    begin: int = field(compare=False)
    end: int = field(compare=False)

    def children(self) -> Iterator[Node]:
        for each in fields(self):
            yield from _nodes_in(getattr(self, each.name))

    def walk(self) -> Iterator[Node]:
        """Itself and all below it."""
        pending: list[Node] = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.children())


def _nodes_in(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _nodes_in(item)


@dataclass(frozen=True)
class Const(Node):
    value: Any


@dataclass(frozen=True)
class Name(Node):
    id: str


@dataclass(frozen=True)
class Attribute(Node):
    of: Node
    name: str


@dataclass(frozen=True)
class Item(Node):
    of: Node
    index: Node


@dataclass(frozen=True)
class Slice(Node):
    start: Node | None
    stop: Node | None
    step: Node | None


@dataclass(frozen=True)
class Call(Node):
    """function: a Name, an Attribute of `math`, `re` or `datetime`, or any Attribute for a method."""

    function: Node
    arguments: tuple[Node, ...]
    keywords: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Unary(Node):
    operator: str
    operand: Node


@dataclass(frozen=True)
class Binary(Node):
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Compare(Node):
    """first operators[0] operands[0] operators[1] operands[1] …"""

    first: Node
    operators: tuple[str, ...]
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Not(Node):
    operand: Node


@dataclass(frozen=True)
class And(Node):
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Or(Node):
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Conditional(Node):
    condition: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True)
class Collection(Node):
    """kind: list, tuple or set."""

    kind: type
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Dict(Node):
    pairs: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True)
class Clause(Node):
    targets: tuple[str, ...]
    source: Node
    conditions: tuple[Node, ...]


@dataclass(frozen=True)
class Comprehension(Node):
    """kind: list, set or tuple (for a generator)."""

    kind: type
    element: Node
    clauses: tuple[Clause, ...]


@dataclass(frozen=True)
class Formatted(Node):
    """One `{…}` of an f-string. conversion: '', 's' or 'r'."""

    value: Node
    conversion: str
    spec: str


@dataclass(frozen=True)
class FString(Node):
    """Const and Formatted parts."""

    parts: tuple[Node, ...]
