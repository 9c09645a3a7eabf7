"""The parser: precedence and literals as Python has them, places in the text, errors, and nothing but QuerySyntaxError for any text."""

from __future__ import annotations

import ast
import math
import random
import time
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lark import Lark

from aimlite.errors import QuerySyntaxError
from aimlite.query import nodes, parse, tables
from aimlite.query.nodes import Attribute, Binary, Call, Collection, Compare, Const, Dict, FString, Item, Name, Node, Not, Slice, Unary
from aimlite.query.parse import MAX_TEXT

OPERATORS: dict[type, str] = {
    **{ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.BitAnd: "&"},
    **{ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>", ast.USub: "-", ast.UAdd: "+", ast.Invert: "~"},
    **{ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.In: "in", ast.NotIn: "not in"},
    **{ast.Is: "is", ast.IsNot: "is not"},
}


def of_python(node: Any) -> Any:
    """The tree of `ast` in a form that both share."""
    match node:
        case ast.Constant(value):
            return "const", repr(value)
        case ast.Name(name):
            return "name", name
        case ast.Attribute(of, name):
            return "attribute", of_python(of), name
        case ast.Subscript(of, index):
            return "item", of_python(of), of_python(index)
        case ast.Slice(lower, upper, step):
            return "slice", *(part and of_python(part) for part in (lower, upper, step))
        case ast.UnaryOp(ast.Not(), operand):
            return "not", of_python(operand)
        case ast.UnaryOp(operator, operand):
            inner = of_python(operand)
            if isinstance(operator, ast.USub) and inner[0] == "const" and type(ast.literal_eval(inner[1])) in (int, float):
                return "const", repr(-ast.literal_eval(inner[1]))
            return "unary", OPERATORS[type(operator)], inner
        case ast.BinOp(left, operator, right):
            return "binary", OPERATORS[type(operator)], of_python(left), of_python(right)
        case ast.BoolOp(operator, values):
            return "and" if isinstance(operator, ast.And) else "or", *map(of_python, values)
        case ast.Compare(left, operators, operands):
            return "compare", of_python(left), tuple(OPERATORS[type(operator)] for operator in operators), *map(of_python, operands)
        case ast.IfExp(condition, then, otherwise):
            return "if", *map(of_python, (condition, then, otherwise))
        case ast.List(items) | ast.Tuple(items) | ast.Set(items):
            return type(node).__name__.lower(), *map(of_python, items)
        case ast.Dict(keys, values):
            return "dict", *map(of_python, keys), *map(of_python, values)
        case ast.Call(function, arguments, keywords):
            return "call", of_python(function), *map(of_python, arguments), *((key.arg, of_python(key.value)) for key in keywords)
        case ast.ListComp(element, clauses) | ast.SetComp(element, clauses) | ast.GeneratorExp(element, clauses):
            kind = {ast.ListComp: "list", ast.SetComp: "set", ast.GeneratorExp: "tuple"}[type(node)]
            return "comprehension", kind, of_python(element), *map(of_python, clauses)
        case ast.comprehension(target, source, conditions):
            targets = target.elts if isinstance(target, ast.Tuple) else [target]
            return tuple(ast.unparse(each) for each in targets), of_python(source), *map(of_python, conditions)
    raise AssertionError(ast.dump(node))


def of_aimql(node: Any) -> Any:
    match node:
        case Const(value=value):
            return "const", repr(value)
        case Name(id=name):
            return "name", name
        case Attribute(of=of, name=name):
            return "attribute", of_aimql(of), name
        case Item(of=of, index=index):
            return "item", of_aimql(of), of_aimql(index)
        case Slice(start=start, stop=stop, step=step):
            return "slice", *(part and of_aimql(part) for part in (start, stop, step))
        case Not(operand=operand):
            return "not", of_aimql(operand)
        case Unary(operator=operator, operand=operand):
            return "unary", operator, of_aimql(operand)
        case Binary(operator=operator, left=left, right=right):
            return "binary", operator, of_aimql(left), of_aimql(right)
        case nodes.And(items=items) | nodes.Or(items=items):
            return type(node).__name__.lower(), *map(of_aimql, items)
        case Compare(first=first, operators=operators, operands=operands):
            return "compare", of_aimql(first), operators, *map(of_aimql, operands)
        case nodes.Conditional(condition=condition, then=then, otherwise=otherwise):
            return "if", *map(of_aimql, (condition, then, otherwise))
        case Collection(kind=kind, items=items):
            return kind.__name__, *map(of_aimql, items)
        case Dict(pairs=pairs):
            return "dict", *(of_aimql(key) for key, _ in pairs), *(of_aimql(value) for _, value in pairs)
        case Call(function=function, arguments=arguments, keywords=keywords):
            return "call", of_aimql(function), *map(of_aimql, arguments), *((key, of_aimql(value)) for key, value in keywords)
        case nodes.Comprehension(kind=kind, element=element, clauses=clauses):
            return "comprehension", kind.__name__, of_aimql(element), *map(of_aimql, clauses)
        case nodes.Clause(targets=targets, source=source, conditions=conditions):
            return targets, of_aimql(source), *map(of_aimql, conditions)
    raise AssertionError(node)


def assert_as_python(text: str) -> None:
    assert of_aimql(parse.parse(text)) == of_python(ast.parse(f"(\n{text}\n)", mode="eval").body)


def test_the_grammar_is_strict() -> None:
    """No ambiguity between rules (LALR refuses it) nor between terminals (strict=True does)."""
    Lark(tables.GRAMMAR.read_text("utf-8"), parser="lalr", strict=True, propagate_positions=True, maybe_placeholders=True)


@pytest.mark.parametrize(
    "text",
    [
        *("run.a", "run.__private.b", "run['a', 'b'].c", "run.a[0]", "run.a[1:2]", "run.a[:]", "run.a[::2]", "run.a[1:, 2]", "run.a['b',]"),
        *("-run.a ** -2", "2 ** 3 ** 2", "not not run.a", "~run.a", "+1", "--1", "- 1.5", "1 < run.a <= 3 != 4", "run.a not in [1]"),
        *(
            "run.a is not None",
            "1 if run.a else 2 if run.b else 3",
            "[1, 2,]",
            "(1,) == ()",
            "{1, 2}",
            "{}",
            "{'a': 1, 2: [],}",
            "[] == ()",
        ),
        *("len([])", "len([x for x in run.a])", "any(x == y for x in run.a for y in x if y if x)", "{x for x, y in run.a}", "str(1,)"),
        *("datetime(2024, 1, 1, hour=3)", "datetime.strptime('a', 'b')", "run.a.startswith('b')", "math.log10(run.a)", "math.pi"),
        *("run.a or run.b and not run.c == 1", "run.a | run.b ^ run.c & run.d << 1 + 2 * 3", "a" and "run.a - (run.b - run.c)"),
        *("run.é.ünï_1.変数", "run.a\n  and # that\n\trun.b", "run.a \\\n == 1", "run.a\r\n== 1 # x\r\n"),
    ],
)
def test_a_tree_is_as_python_has_it(text: str) -> None:
    assert_as_python(text)


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(
        [
            "+",
            "-",
            "*",
            "/",
            "//",
            "%",
            "**",
            "|",
            "^",
            "&",
            "<<",
            ">>",
            "==",
            "!=",
            "<",
            "<=",
            ">",
            ">=",
            "in",
            "is",
            "and",
            "or",
            "not in",
            "is not",
        ]
    )
    return st.one_of(
        st.builds("{} {} {}".format, inner, binary, inner),
        st.builds("{} {} {} {} {}".format, inner, binary, inner, binary, inner),
        st.builds("{}{}".format, st.sampled_from(["-", "+", "~"]), inner),
        st.builds("(not {})".format, inner),
        st.builds("({})".format, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("len([x for x in {} if {}])".format, st.just("run.l"), inner),
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.recursive(st.sampled_from(["run.a", "run.b", "1", "2.5", "True", "len(run.a)", "run.a[0]"]), combined, max_leaves=12))
def test_precedence_is_pythons(text: str) -> None:
    assert_as_python(text)


# -- literals ----


def value_of(text: str) -> Any:
    node = parse.parse(f"run.a == {text}")
    assert isinstance(node, Compare)
    assert isinstance(node.operands[0], Const), node
    return node.operands[0].value


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "00",
        "1_000",
        "0x1F",
        "0X_ff",
        "0o17",
        "0b1_0",
        "1.",
        ".5",
        "1e5",
        "1E-5",
        "1_0.0_1e1",
        "1e400",
        "9" * 4300,
        "-1",
        "-0.0",
        "1e5_0",
    ],
)
def test_numbers(text: str) -> None:
    assert repr(value_of(text)) == repr(ast.literal_eval(text))


@pytest.mark.parametrize("text", ["007", "1__0", "1_", "0x", "0b12", "9" * 5000, "1a", "1_.5", "1e5_", "1j", "0xg", "1e", "1.5.2"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(QuerySyntaxError):
        value_of(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "''",
            '""',
            "'a' \"b\" '''c'''",
            '"""a\nb"c"""',
            "'''it's'''",
            r"'\n\t\\\'\"\a\b\f\r\v'",
            r"'\x41\u00e9\U0001f600\101\7\08'",
            r"'\N{BULLET}'",
        ),
        *("'a\\\nb'", r"r'\d+\n'", r"R'\''", "'é😀'", "'#'", "'''\r\n'''", r"'\\n'"),
    ],
)
def test_strings(text: str) -> None:
    assert value_of(text) == ast.literal_eval(text)


def test_an_unknown_escape_stays_without_a_warning() -> None:
    """Python warns of it: in a query `'\\d+'` is what is meant."""
    assert value_of(r"'\d+\.'") == "\\d+\\."


@settings(deadline=None)
@given(
    st.text(
        st.sampled_from("\\xuUN{}01239abcdefnrtv'\"\n é") | st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
    )
)
def test_any_string_is_read_as_python_reads_it(content: str) -> None:
    text = '"""' + content.replace('"', "'") + ' """'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = ast.literal_eval(text)
            expected.encode()
    except (SyntaxError, ValueError):
        with pytest.raises(QuerySyntaxError):
            value_of(text)
        return
    assert value_of(text) == expected


@pytest.mark.parametrize(
    "text", [r"'\x4'", r"'\u12'", r"'\N{no such name}'", r"'\ud800'", "'\ud800'", "rr'a'", "b'a'", "ff'a'", "'a", "'a\n'", '"""a']
)
def test_what_is_no_string(text: str) -> None:
    with pytest.raises(QuerySyntaxError):
        value_of(text)


def test_f_strings() -> None:
    node = parse.parse("""run.a == f"x{run.b!r:>10}{{}}\\n{run['c'] + 1}" 'y'""")
    assert isinstance(node, Compare)
    string = node.operands[0]
    assert isinstance(string, FString)
    first, value, plain, added, last = string.parts
    assert (isinstance(first, Const) and first.value, isinstance(plain, Const) and plain.value) == ("x", "{}\n")
    assert isinstance(value, nodes.Formatted)
    assert (of_aimql(value.value), value.conversion, value.spec) == (("attribute", ("name", "run"), "b"), "r", ">10")
    assert isinstance(added, nodes.Formatted)
    assert of_aimql(added.value)[0] == "binary"
    assert isinstance(last, Const)
    assert last.value == "y"
    assert value_of("f''") == ""
    assert value_of("rf'\\n'") == "\\n"
    assert value_of("f'{{}}'") == "{}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            ("f'{'", "not closed"),
            ("f'}'", "single `}`"),
            ("f'{}'", "nothing stands"),
            ("f'{run.a!x}'", "!r or !s"),
            ("f'{run.a:5000}'", "1,000"),
        ),
        *(("f'{run.a:{run.b}}'", "not closed"), ("f'{1 +}'", "ends where"), ("f'{nope}'", "no 'nope'"), ("f'{run.a=}'", "one `=` sets")),
    ],
)
def test_malformed_f_strings(text: str, message: str) -> None:
    with pytest.raises(QuerySyntaxError, match=message):
        parse.parse(f"run.a == {text}")


def test_places_are_those_in_the_text() -> None:
    text = "  SELECT runs IF run.a.b[0] == -1\n and f'{run.c}' in ['é', run.d]"
    root = parse.parse(text)
    assert root is not None
    placed = {text[node.begin : node.end] for node in root.walk()}
    assert placed >= {
        "run.a.b[0] == -1\n and f'{run.c}' in ['é', run.d]",
        "run.a.b[0]",
        "0",
        "-1",
        "run.c",
        "{run.c}",
        "'é'",
        "run.d",
        "['é', run.d]",
    }


# -- errors ----

ERRORS = [  # query, what the message says, lineno, offset, end_offset
    ("run.a = 1", "`==` compares", 1, 7, 8),
    ("run.a && run.b", "`and`, not `&&`", 1, 7, 9),
    ("run.a || run.b", "`or`, not `||`", 1, 7, 9),
    ("!run.a", "`not`, not `!`", 1, 1, 2),
    ("run.a <> 1", "`!=`, not `<>`", 1, 7, 9),
    ("run.a ==", "ends where something", 1, 9, 10),
    ("(run.a", "ends where something", 1, 7, 8),
    ("run.a)", "')' is not expected", 1, 6, 7),
    ("run.a;", "one expression", 1, 6, 7),
    ("(x := 1)", "`:=` is not part", 1, 4, 5),
    ("lambda x: x", "lambda is not part", 1, 8, 9),
    ("[*run.a]", "starred", 1, 2, 3),
    ("run.a == 'x", "string does not end", 1, 10, 11),
    ("run.a == 1\n and nope", "there is no 'nope'", 2, 6, 10),
    ("run.a == 1\n\n  or rnu.b", "did you mean 'run'?", 3, 6, 9),
    ("metric.last > 1", "bound in queries of metrics only", 1, 1, 7),
    ("lenn(run.a)", "did you mean 'len'?", 1, 1, 5),
    ("run.a.startwith('b')", "did you mean 'startswith'?", 1, 1, 16),
    ("math.sqr(2)", "did you mean 'sqrt'?", 1, 1, 9),
    ("math.sqrt", "is a function: call it", 1, 1, 10),
    ("len", "is a function: call it", 1, 1, 4),
    ("math", "is a module", 1, 1, 5),
    ("eval('1')", "eval is not part of AimQL", 1, 1, 5),
    ("run.__class__", "end with two underscores", 1, 1, 14),
    ("run.a.__init__()", "end with two underscores", 1, 1, 15),
    ("any(__x__ for __x__ in run.a)", "end with two underscores", 1, 11, 29),
    ("any(run for run in run.a)", "has a meaning already", 1, 9, 25),
    ("any(metric for metric in run.a)", "has a meaning already", 1, 12, 31),
    ("(x for x in run.a)", "argument of a function", 1, 1, 19),
    ("run", "match everything", 1, 1, 4),
    ("'abc'", "just a string", 1, 1, 6),
    ("(1, 2)", "match everything", 1, 1, 7),
    ("'%s' % run.a", "write an f-string", 1, 1, 13),
    ("datetime(hour=1, 2)", "positional arguments come before", 1, 1, 20),
    ("isinstance(run.a, bytes)", "there is no 'bytes'", 1, 19, 24),
    ("(lambda: 1)()", "lambda is not part", 1, 8, 9),
    ("run.a[0]()", "by their names", 1, 1, 9),
    ("run.a $ 1", "'$' is not expected", 1, 7, 8),
]


@pytest.mark.parametrize(("query", "message", "lineno", "offset", "end_offset"), ERRORS)
def test_errors(query: str, message: str, lineno: int, offset: int, end_offset: int) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        parse.parse(query)
    error = caught.value
    assert message in str(error)
    assert (error.lineno, error.offset, error.end_offset) == (lineno, offset, end_offset)
    shown = str(error).split("\n")
    assert shown[-1] == " " * (2 + offset - 1) + "^" * (end_offset - offset)
    assert shown[-2] == "  " + query.split("\n")[lineno - 1]


@pytest.mark.parametrize("value", [None, 1, b"run.a", ["run.a"]])
def test_only_text_is_a_query(value: Any) -> None:
    with pytest.raises(TypeError):
        parse.parse(value)


@pytest.mark.parametrize("text", ["", "  ", "\n\t", "# all", " \n# a\n # b\n", "SELECT runs IF", "select run if # x"])
def test_an_empty_query(text: str) -> None:
    assert parse.parse(text) is None


# -- any text ----

PIECES = "run . a [ ] ( ) { } , : 'a' \" 1 2.5 == < in not and or if else for len any metric re f'{ }' ** - + ~ % # \\ \n None lambda = !"


def refused_or_parsed(text: str) -> bool:
    """Whether it is a query; anything but QuerySyntaxError passes through."""
    for kind in ("runs", "metrics"):
        try:
            parse.parse.__wrapped__(text, kind)
        except QuerySyntaxError as error:
            assert error.lineno is not None
            assert str(error)
            return False
    return True


@settings(deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES.split(" ")), max_size=30).map(" ".join))
def test_any_text(text: str) -> None:
    refused_or_parsed(text)


N = MAX_TEXT
DEEP = {
    **{"parens": "(" * (N // 2) + "1" + ")" * (N // 2), "open": "(" * N, "lists": "[" * (N // 2) + "]" * (N // 2), "braces": "{" * N},
    **{
        "dicts": "{1:" * (N // 3),
        "items": "run" + "[1]" * (N // 3 - 1),
        "attributes": "run" + ".a" * (N // 2 - 2),
        "calls": "len" + "()" * (N // 2 - 2),
    },
    **{"arguments": "len(" * (N // 4), "indexes": "run[" * (N // 4), "not": "not " * (N // 4 - 1) + "1", "minus": "-" * (N - 1) + "1"},
    **{
        "tilde": "~" * (N - 1) + "1",
        "strings": "''" * (N // 2),
        "f-string": "f'" + "{1}" * (N // 3 - 2) + "'",
        "f-braces": "f'" + "{" * (N - 3) + "'",
    },
    **{
        operator.strip(): f"1{operator}" * (N // (len(operator) + 1) - 1) + "1"
        for operator in ["+", "-", "*", "**", "<<", "|", "&", "<", "=="]
    },
    **{
        operator.strip(): f"1{operator}" * (N // (len(operator) + 1) - 1) + "1"
        for operator in [" and ", " or ", " in ", " is ", " if 1 else "]
    },
    **{
        "lambda": "[" + "lambda," * (N // 7 - 1) + "+)",
        "for": "any(1 " + "for x in run.a " * (N // 15 - 1) + ")",
        "tuple": "(" + "1," * (N // 2 - 2) + ")",
    },
    **{"if": "any(1 for x in run.a " + "if 1 " * (N // 5 - 6) + ")", "name": "a" * N, "digits": "1" * N, "hex": "0x" + "f" * (N - 2)},
    **{
        "comment": "#" * N,
        "blank": " " * N,
        "continued": "\\\n" * (N // 2),
        "quotes": "'" * N,
        "triple": '"""' * (N // 3),
        "backslashes": "'" + "\\" * (N - 1),
    },
    **{"exponent": "1e" + "9" * (N - 2), "colons": "run[" + ":" * (N - 5) + "]", "keywords": "len(" + "a=1," * (N // 4 - 3) + ")"},
    **{
        "short " + name: text
        for name, text in {"pow": "2**" * 3000 + "1", "if": "1 if 1 else " * 1500 + "1", "not": "not " * 5000 + "1"}.items()
    },
    **{"long": "1" + " " * N},
}


@pytest.mark.parametrize("name", DEEP)
def test_however_deep(name: str) -> None:
    """A clear error, or a tree, in a moment; the bound leaves room for a machine under load."""
    start = time.process_time()
    refused_or_parsed(DEEP[name])
    assert time.process_time() - start < 2.5


def test_what_was_parsed_is_evaluated_at_any_depth_allowed() -> None:
    """No recursion limit lies between what the parser lets through and what the evaluator takes."""
    from aimlite.query.evaluate import Budget, Row, compiled

    for text in (
        "(" * 90 + "1" + ")" * 90,
        "-(" * 45 + "1" + ")" * 45,
        "1" + "+1" * 90,
        "not " * 90 + "1",
        "2" + "**1" * 90,
        "[" * 90 + "]" * 90,
    ):
        node = parse.parse(text)
        assert node is not None
        compiled(node)(Row(Budget(10.0), None))


def mutated(rng: random.Random, text: str) -> str:
    pieces = [*PIECES.split(" "), "\0", "é", "\ud800", "0x", "1e9", '"""', "\r\n", "😀"]
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(text))
        kind = rng.randrange(3)
        if kind == 0:
            text = text[:at] + rng.choice(pieces) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + rng.randint(1, 4) :]
        else:
            text = text[:at] + rng.choice(pieces) + text[at + 1 :]
    return text


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([query for query, *_ in ERRORS]))
def test_mutated_queries(seed: int, query: str) -> None:
    refused_or_parsed(mutated(random.Random(seed), query))


def test_keywords_are_keys_behind_a_dot() -> None:
    node = parse.parse("run.in.if.not.None.True.for.lambda")
    names = []
    while isinstance(node, Attribute):
        names.append(node.name)
        node = node.of
    assert names[::-1] == ["in", "if", "not", "None", "True", "for", "lambda"]


def test_infinite_is_a_number() -> None:
    assert math.isinf(value_of("1e400"))


def node_kinds(node: Node) -> set[str]:
    return {type(each).__name__ for each in node.walk()}


def test_every_kind_of_node_is_reached() -> None:
    text = """any(x[1:] == -x or not x and x + 1 in {1: [2]} for x in run.a if len(f'{x}') if x) if ~run.a else {1}"""
    node = parse.parse(text)
    assert node is not None
    assert node_kinds(node) == {each.__name__ for each in nodes.Node.__subclasses__()}
