"""From the text of a query to its nodes. Nothing of the text is ever executed.

The grammar is aimql.lark; what a grammar cannot say is checked here: names, sizes, depth. docs/aimql.md is the definition.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any, cast

from lark import Lark, Token, Transformer, UnexpectedInput, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken, VisitError
from lark.tree import Meta

from aimlite.errors import QuerySyntaxError
from aimlite.query import tables
from aimlite.query.names import (
    CLASSES,
    FUNCTIONS,
    KINDS,
    METHODS,
    MODULES,
    OBJECT_ATTRIBUTES,
    REFUSED_NAMES,
    SEQUENCE_ATTRIBUTES,
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

MAX_TEXT = 1 << 16
MAX_TOKENS = 10_000
MAX_DEPTH = 100
MAX_REPLACEMENTS = 200  # in f-strings: each is parsed by itself
_LEGACY = re.compile(r"\s*SELECT\s+runs?\s+IF\b", re.IGNORECASE)
_KEYWORDS = frozenset(("and", "or", "not", "in", "is", "if", "else", "for", "lambda"))
_STRING = r"""\"{3}(?:\\[\s\S]|[^\\])*?\"{3}|'{3}(?:\\[\s\S]|[^\\])*?'{3}|"(?:\\[\s\S]|[^\\"\n])*"|'(?:\\[\s\S]|[^\\'\n])*'"""
_TOKEN = re.compile(rf"{_STRING}|#[^\n]*|\w+|[^\w\s]")
_ESCAPE = re.compile(r"\\(\n|[\\'\"abfnrtv]|[0-7]{1,3}|x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|N\{[^}]*\}|[xuUN])")
_ESCAPED = {"\n": "", "\\": "\\", "'": "'", '"': '"', "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_SPEC = re.compile(r"[^{}]{0,40}")


@lru_cache(256)
def parse(text: str, kind: str = "runs") -> Node | None:
    """The nodes of a query, None for an empty one. kind: 'runs', or what sequences it is about, a key of `names.KINDS`.

    Raises TypeError (no string), QuerySyntaxError.
    """
    if not isinstance(text, str):
        raise TypeError(f"a query is a string, not {type(text).__name__} {text!r:.100}")
    if len(text) > MAX_TEXT:
        raise QuerySyntaxError(f"a query has at most {MAX_TEXT:,} characters, not {len(text):,}", text, MAX_TEXT, MAX_TEXT)
    legacy = _LEGACY.match(text) if kind == "runs" else None
    shift = legacy.end() if legacy else 0
    if not _without_comments(text[shift:]).strip():
        return None
    _check_size(text, shift)
    node = _parsed(text, shift, len(text))
    _Checker(text, kind).check(node)
    return node


def _without_comments(text: str) -> str:
    return "\n".join(line.partition("#")[0] for line in text.split("\n"))


def _check_size(text: str, begin: int) -> None:
    """Whether a query is short and flat enough to be parsed in a moment."""
    depth = 0
    for number, token in enumerate(_TOKEN.finditer(text, begin)):
        depth += 1 if token[0] in "([{" else -1 if token[0] in ")]}" else 0
        if depth > MAX_DEPTH:
            raise QuerySyntaxError(f"a query is nested at most {MAX_DEPTH} deep", text, *token.span())
        if number >= MAX_TOKENS:
            raise QuerySyntaxError(f"a query has at most {MAX_TOKENS:,} names, numbers, strings and signs", text, *token.span())


def _parsed(text: str, begin: int, end: int) -> Node:
    """The nodes of text[begin:end], placed as in the whole."""
    try:
        tree = _parser().parse(text[begin:end])
        node: Node = _Builder(text, begin).transform(tree)
        return node
    except UnexpectedInput as error:
        raise _syntax_error(error, text, begin, end) from None
    except VisitError as error:
        if isinstance(error.orig_exc, RecursionError):
            raise _too_deep(text, begin, end) from None
        raise error.orig_exc from None
    except RecursionError:
        raise _too_deep(text, begin, end) from None


def _too_deep(text: str, begin: int, end: int) -> QuerySyntaxError:
    return QuerySyntaxError(f"a query is nested at most {MAX_DEPTH} deep", text, begin, end)


@cache
def _parser() -> Lark:
    return tables.load()


def _syntax_error(error: UnexpectedInput, text: str, shift: int, end: int) -> QuerySyntaxError:
    if isinstance(error, UnexpectedToken) and error.token.type != "$END":
        token = error.token
        begin = shift + (token.start_pos or 0)
        is_second = text[begin - 1 : begin + 1] in ("<>", "&&", "||")
        return QuerySyntaxError(_complaint(token.value, text, begin), text, begin - is_second, begin + len(token.value))
    if isinstance(error, UnexpectedCharacters):
        begin = shift + (error.pos_in_stream or 0)
        return QuerySyntaxError(_complaint(text[begin], text, begin), text, begin, begin + 1)
    assert isinstance(error, UnexpectedToken | UnexpectedEOF)
    return QuerySyntaxError("the query ends where something is still expected", text, end, end + 1)


_COMPLAINTS = {
    "=": "one `=` sets something; `==` compares",
    "&&": "it is `and`, not `&&`",
    "||": "it is `or`, not `||`",
    "!": "it is `not`, not `!`",
    "<>": "it is `!=`, not `<>`",
    ":=": "`:=` is not part of AimQL",
    ";": "a query is one expression, without `;`",
    "lambda": "lambda is not part of AimQL",
    "{": "`{` is not expected here",
    "*": "`*` is not expected here; starred expressions are not part of AimQL",
    "'": "a string does not end",
    '"': "a string does not end",
}


def _complaint(found: str, text: str, begin: int) -> str:
    if re.search(r"\blambda\b[\w\s,]*$", text[max(0, begin - 100) : begin]):
        return _COMPLAINTS["lambda"]
    if text[begin - 1 : begin + 1] in ("<>", "&&", "||"):
        return _COMPLAINTS[text[begin - 1 : begin + 1]]
    if found[0] in "'\"" and len(found) > 1:
        is_bytes = re.search(r"\b[bB][rR]?$|\b[rR][bB]$", text[max(0, begin - 9) : begin])
        return "bytes are not part of AimQL" if is_bytes else "a string is not expected here"
    for length in (2, 1):
        if text[begin : begin + length] in _COMPLAINTS:
            return _COMPLAINTS[text[begin : begin + length]]
    return _COMPLAINTS.get(found, f"{found!r} is not expected here")


@v_args(meta=True)
class _Builder(Transformer[Token, Node]):
    """Nodes from Lark's trees, bottom up."""

    def __init__(self, text: str, shift: int) -> None:
        super().__init__()
        self._text = text
        self._shift = shift
        self._replacements = 0

    def _at(self, meta: Meta) -> tuple[int, int]:
        if meta.empty:
            return self._shift, self._shift
        return self._shift + meta.start_pos, self._shift + meta.end_pos

    def _error(self, message: str, meta: Meta) -> QuerySyntaxError:
        return QuerySyntaxError(message, self._text, *self._at(meta))

    def start(self, meta: Meta, children: list[Node]) -> Node:
        return children[0]

    def grouped(self, meta: Meta, children: list[Node]) -> Node:
        return children[0]

    def conditional(self, meta: Meta, children: list[Any]) -> Node:
        then, condition, otherwise = children
        return Conditional(*self._at(meta), condition, then, otherwise)

    def disjunction(self, meta: Meta, children: list[Any]) -> Node:
        return Or(*self._at(meta), tuple(children))

    def conjunction(self, meta: Meta, children: list[Any]) -> Node:
        return And(*self._at(meta), tuple(children))

    def inverted(self, meta: Meta, children: list[Any]) -> Node:
        return Not(*self._at(meta), children[0])

    def comparison(self, meta: Meta, children: list[Any]) -> Node:
        return Compare(*self._at(meta), children[0], tuple(str(operator) for operator in children[1::2]), tuple(children[2::2]))

    def is_in(self, meta: Meta, children: list[Any]) -> str:
        return "in"

    def is_not_in(self, meta: Meta, children: list[Any]) -> str:
        return "not in"

    def is_same(self, meta: Meta, children: list[Any]) -> str:
        return "is"

    def is_not_same(self, meta: Meta, children: list[Any]) -> str:
        return "is not"

    def binary(self, meta: Meta, children: list[Any]) -> Node:
        node = children[0]
        for operator, right in zip(children[1::2], children[2::2], strict=True):
            node = Binary(node.begin, right.end, str(operator), node, right)
        return cast("Node", node)

    bitwise_or = bitwise_xor = bitwise_and = shift = sum = product = binary

    def unary(self, meta: Meta, children: list[Any]) -> Node:
        operator, operand = children
        if operator == "-" and isinstance(operand, Const) and type(operand.value) in (int, float):
            return Const(*self._at(meta), -operand.value)
        return Unary(*self._at(meta), str(operator), operand)

    def attribute(self, meta: Meta, children: list[Any]) -> Node:
        return Attribute(*self._at(meta), children[0], str(children[1]))

    def call(self, meta: Meta, children: list[Any]) -> Node:
        function, arguments = children
        arguments = arguments or []
        positional = tuple(argument for argument in arguments if isinstance(argument, Node))
        keywords = tuple(argument for argument in arguments if not isinstance(argument, Node))
        if any(not isinstance(argument, Node) for argument in arguments[: len(positional)]):
            raise self._error("positional arguments come before named ones", meta)
        return Call(*self._at(meta), function, positional, keywords)

    def arguments(self, meta: Meta, children: list[Any]) -> list[Any]:
        return [child for child in children if child is not None]

    def generator_argument(self, meta: Meta, children: list[Any]) -> list[Any]:
        return [self.generator(meta, children)]

    def keyword(self, meta: Meta, children: list[Any]) -> tuple[str, Node]:
        return str(children[0]), children[1]

    def item(self, meta: Meta, children: list[Any]) -> Node:
        return Item(*self._at(meta), children[0], children[1])

    def slice(self, meta: Meta, children: list[Any]) -> Node:
        return Slice(*self._at(meta), *[*children, None][:3])

    def name(self, meta: Meta, children: list[Any]) -> Node:
        return Name(*self._at(meta), str(children[0]))

    def number(self, meta: Meta, children: list[Any]) -> Node:
        text = str(children[0])
        is_float = text[:2].lower() != "0x" and any(character in ".eE" for character in text)
        try:
            return Const(*self._at(meta), float(text) if is_float else int(text, 0))
        except ValueError:
            raise self._error(f"{text:.60} is not a number", meta) from None

    def none(self, meta: Meta, children: list[Any]) -> Node:
        return Const(*self._at(meta), None)

    def true(self, meta: Meta, children: list[Any]) -> Node:
        return Const(*self._at(meta), True)

    def false(self, meta: Meta, children: list[Any]) -> Node:
        return Const(*self._at(meta), False)

    def tuple_display(self, meta: Meta, children: list[Any]) -> Node:
        return Collection(*self._at(meta), tuple, tuple(child for child in children if child is not None))

    def items(self, meta: Meta, children: list[Any]) -> list[Any]:
        return [child for child in children if child is not None]

    pairs = items

    def pair(self, meta: Meta, children: list[Any]) -> list[Any]:
        return children

    def list_display(self, meta: Meta, children: list[Any]) -> Node:
        return Collection(*self._at(meta), list, tuple(children[0] or ()))

    def set_display(self, meta: Meta, children: list[Any]) -> Node:
        return Collection(*self._at(meta), set, tuple(children[0]))

    def dict_display(self, meta: Meta, children: list[Any]) -> Node:
        return Dict(*self._at(meta), tuple((key, value) for key, value in children[0] or ()))

    def clauses(self, meta: Meta, children: list[Any]) -> tuple[Clause, ...]:
        return tuple(children)

    def clause(self, meta: Meta, children: list[Any]) -> Clause:
        targets, source, *conditions = children
        return Clause(*self._at(meta), targets, source, tuple(conditions))

    def targets(self, meta: Meta, children: list[Any]) -> tuple[str, ...]:
        return tuple(str(child) for child in children)

    def condition(self, meta: Meta, children: list[Node]) -> Node:
        return children[0]

    def generator(self, meta: Meta, children: list[Any]) -> Node:
        return Comprehension(*self._at(meta), tuple, children[0], children[1])

    def list_comprehension(self, meta: Meta, children: list[Any]) -> Node:
        return Comprehension(*self._at(meta), list, children[0], children[1])

    def set_comprehension(self, meta: Meta, children: list[Any]) -> Node:
        return Comprehension(*self._at(meta), set, children[0], children[1])

    # -- strings ----

    def strings(self, meta: Meta, children: list[Any]) -> Node:
        parts: list[Node] = []
        for token in children:
            parts += self._string(token, meta)
        texts = [part.value for part in parts if isinstance(part, Const)]
        if len(texts) == len(parts):
            return Const(*self._at(meta), "".join(texts))
        return FString(*self._at(meta), tuple(parts))

    def _string(self, token: Token, meta: Meta) -> list[Node]:
        text = str(token)
        quote = min(at for at in (text.find("'"), text.find('"')) if at >= 0)
        prefix = text[:quote].lower()
        if len(prefix) != len(set(prefix)):
            raise self._error(f"a string has no prefix {text[:quote]!r}", meta)
        begin = self._shift + (token.start_pos or 0)
        if "f" in prefix:
            width = 3 if text[quote : quote + 3] in ("'''", '"""') else 1
            return self._formatted(begin + quote + width, begin + len(text) - width, "r" in prefix, meta)
        width = 3 if text[quote : quote + 3] in ("'''", '"""') else 1
        return [self._plain_part(text[quote + width : -width], "r" in prefix, begin, begin + len(text), meta)]

    def _plain_part(self, plain: str, is_raw: bool, begin: int, end: int, meta: Meta) -> Const:
        """The text between quotes, newlines and escapes as Python reads them."""
        try:
            plain = plain.replace("\r\n", "\n").replace("\r", "\n")
            value = plain if is_raw else _ESCAPE.sub(_unescaped, plain)
            value.encode()
        except (LookupError, ValueError) as error:
            raise self._error(f"not a string: {error}", meta) from None
        return Const(begin, end, value)

    def _formatted(self, begin: int, end: int, is_raw: bool, meta: Meta) -> list[Node]:
        """The parts of an f-string whose content is text[begin:end]."""
        parts: list[Node] = []
        text, plain = self._text, ""
        at = start = begin
        while at < end:
            if text[at : at + 2] in ("{{", "}}"):
                plain, at = plain + text[at], at + 2
            elif text[at] == "}":
                raise QuerySyntaxError("a single `}` in an f-string", text, at, at + 1)
            elif text[at] == "{":
                if plain:
                    parts.append(self._plain_part(plain, is_raw, start, at, meta))
                part, at = self._replacement(at + 1, end)
                parts.append(part)
                plain, start = "", at
            elif text[at] == "\\" and not is_raw:
                plain, at = plain + text[at : at + 2], at + 2
            else:
                plain, at = plain + text[at], at + 1
        if plain:
            parts.append(self._plain_part(plain, is_raw, start, end, meta))
        return parts or [Const(begin, end, "")]

    def _replacement(self, begin: int, end: int) -> tuple[Node, int]:
        """`value!r:spec}` from `begin` on, and where the text goes on behind it."""
        text, at, depth, quote = self._text, begin, 0, ""
        while at < end:
            character = text[at]
            if quote:
                quote = "" if character == quote else quote
            elif character in "'\"":
                quote = character
            elif character in "([{":
                depth += 1
            elif depth and character in ")]}":
                depth -= 1
            elif not depth and (character in "}:" or (character == "!" and text[at + 1 : at + 2] != "=")):
                break
            at += 1
        else:
            raise QuerySyntaxError("a `{` of an f-string is not closed", text, begin - 1, begin)
        if not text[begin:at].strip():
            raise QuerySyntaxError("nothing stands between the braces of an f-string", text, begin - 1, at + 1)
        self._replacements += 1
        if self._replacements > MAX_REPLACEMENTS:
            raise QuerySyntaxError(f"a query has at most {MAX_REPLACEMENTS} braces in f-strings", text, begin - 1, at + 1)
        value, conversion, spec = _parsed(text, begin, at), "", ""
        if text[at] == "!":
            conversion = text[at + 1 : at + 2]
            if conversion not in ("r", "s"):
                raise QuerySyntaxError("a conversion in an f-string is !r or !s", text, at, at + 2)
            at += 2
        if text[at : at + 1] == ":":
            found = _SPEC.match(text, at + 1, end)
            assert found is not None
            spec, at = found[0], found.end()
            if any(int(number) > 1000 for number in re.findall(r"\d+", spec)):
                raise QuerySyntaxError("a width in an f-string is at most 1,000", text, found.start(), at)
        if text[at : at + 1] != "}" or at >= end:
            raise QuerySyntaxError("a `{` of an f-string is not closed", text, begin - 1, begin)
        return Formatted(begin - 1, at + 1, value, conversion, spec), at + 1


def _unescaped(found: re.Match[str]) -> str:
    escape = found[1]
    if escape in _ESCAPED:
        return _ESCAPED[escape]
    if escape[0] in "01234567":
        return chr(int(escape, 8))
    if escape[0] == "N" and escape[1:]:
        return unicodedata.lookup(escape[2:-1])
    if len(escape) == 1:
        raise ValueError(f"`\\{escape}` goes on with digits or a name")
    return chr(int(escape[1:], 16))


class _Checker:
    """What the grammar lets through: names that there are not, and queries that could not mean anything."""

    def __init__(self, text: str, kind: str) -> None:
        self._text = text
        self._kind = kind
        self._bound = KINDS[kind]

    def check(self, node: Node) -> None:
        if isinstance(node, Const) and isinstance(node.value, str):
            raise self._error("a query that is just a string would match everything; compare it with something", node)
        if (isinstance(node, Collection) and node.kind is tuple) or (isinstance(node, Name) and node.id in ("run", self._bound)):
            raise self._error("a query says what a run must be like; this would match everything", node)
        self._check(node, frozenset(), 0)

    def _error(self, message: str, node: Node) -> QuerySyntaxError:
        return QuerySyntaxError(message, self._text, node.begin, node.end)

    def _check(self, node: Node, names: frozenset[str], depth: int, is_argument: bool = False) -> None:
        if depth > MAX_DEPTH:
            raise self._error(f"a query is nested at most {MAX_DEPTH} deep", node)
        if isinstance(node, Name):
            self._check_name(node, names)
        elif isinstance(node, Attribute):
            if isinstance(node.of, Name) and self._is_module(node.of, names):
                self._check_module_attribute(node, node.of.id)
                return
            self._check_attribute(node)
        elif isinstance(node, Call):
            self._check_call(node, names, depth)
            return
        elif isinstance(node, Binary) and node.operator == "%" and _is_text(node.left):
            raise self._error("`%` on strings is not part of AimQL; write an f-string", node)
        elif isinstance(node, Comprehension):
            if node.kind is tuple and not is_argument:
                raise self._error("a generator stands only as the argument of a function; write a list", node)
            for clause in node.clauses:
                self._check(clause.source, names, depth + 1)
                for target in clause.targets:
                    self._refuse_dunder(target, clause)
                    if target == "run" or target in KINDS.values() or target in FUNCTIONS or target in MODULES:
                        raise self._error(f"{target!r} has a meaning already; name the variable otherwise", clause)
                names |= set(clause.targets)
                for condition in clause.conditions:
                    self._check(condition, names, depth + 1)
            self._check(node.element, names, depth + 1)
            return
        for child in node.children():
            self._check(child, names, depth + 1)

    def _check_name(self, node: Name, names: frozenset[str]) -> None:
        name = node.id
        if name in ("run", self._bound) or name in names:
            return
        if name in FUNCTIONS:
            raise self._error(f"{name} is a function: call it", node)
        if name in MODULES:
            raise self._error(f"{name} is a module: name something of it", node)
        if name in KINDS.values():
            kind = next(kind for kind, bound in KINDS.items() if bound == name)
            raise self._error(f"{name} is bound in queries of {kind} only; this is a query of {self._kind}", node)
        if name in _KEYWORDS:
            raise self._error(f"{name!r} is not expected here", node)
        known = ["run", *([self._bound] if self._bound else []), *names, *FUNCTIONS, *MODULES, "None", "True", "False"]
        raise self._error(REFUSED_NAMES.get(name) or f"there is no {name!r}{_suggestion(name, known)}; a param is run.{name}", node)

    def _refuse_dunder(self, name: str, node: Node) -> None:
        if name.endswith("__"):
            raise self._error(f"{name}: names that end with two underscores are refused", node)

    def _is_module(self, node: Node, names: frozenset[str]) -> bool:
        return isinstance(node, Name) and node.id in MODULES and node.id not in names

    def _check_attribute(self, node: Attribute) -> None:
        self._refuse_dunder(node.name, node)
        known = SEQUENCE_ATTRIBUTES if self._kind == "metrics" else OBJECT_ATTRIBUTES
        if isinstance(node.of, Name) and node.of.id == self._bound and node.name not in known:
            what = "a metric has" if self._kind == "metrics" else f"{self._bound} have"
            raise self._error(f"{what} no {node.name!r}{_suggestion(node.name, known)}", node)

    def _check_module_attribute(self, node: Attribute, module: str) -> None:
        if node.name not in MODULES[module].constants:
            known = [*MODULES[module].constants, *MODULES[module].functions]
            missing = f"{module}.{node.name} is a function: call it" if node.name in MODULES[module].functions else ""
            raise self._error(missing or f"{module} has no {node.name!r}{_suggestion(node.name, known)}", node)

    def _check_pattern(self, node: Node) -> None:
        if isinstance(node, Const) and isinstance(node.value, str) and (refused := refusal(node.value)) is not None:
            raise self._error(refused, node)

    def _check_call(self, node: Call, names: frozenset[str], depth: int) -> None:
        function = node.function
        if isinstance(function, Name):
            if function.id in names or function.id not in FUNCTIONS:
                known = [*FUNCTIONS, *MODULES]
                message = REFUSED_NAMES.get(function.id) or f"there is no function {function.id!r}{_suggestion(function.id, known)}"
                raise self._error(message, function)
        elif isinstance(function, Attribute):
            self._refuse_dunder(function.name, function)
            if isinstance(function.of, Name) and self._is_module(function.of, names):
                functions = MODULES[function.of.id].functions
                if function.name not in functions:
                    raise self._error(f"{function.of.id} has no {function.name!r}{_suggestion(function.name, functions)}", function)
                if function.of.id == "re" and node.arguments:
                    self._check_pattern(node.arguments[0])
            else:
                self._check(function.of, names, depth + 1)
                if function.name not in METHODS:
                    raise self._error(f"there is no method {function.name!r}{_suggestion(function.name, METHODS)}", function)
        else:
            raise self._error("only functions and methods by their names can be called", function)
        for argument in (*node.arguments, *(value for _, value in node.keywords)):
            if isinstance(argument, Name) and argument.id in CLASSES and isinstance(function, Name) and function.id == "isinstance":
                continue
            if isinstance(function, Name) and function.id == "isinstance" and isinstance(argument, Collection):
                for item in argument.items:
                    if not (isinstance(item, Name) and item.id in CLASSES):
                        raise self._error(f"isinstance() takes {', '.join(sorted(CLASSES))}", item)
                continue
            self._check(argument, names, depth + 1, is_argument=True)


def _is_text(node: Node) -> bool:
    return isinstance(node, FString) or (isinstance(node, Const) and isinstance(node.value, str))


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [*known], 1, 0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
