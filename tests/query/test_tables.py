"""The parser from the kept tables is the one that Lark builds, and tables of anything else are not used."""

from __future__ import annotations

import json
from pathlib import Path

import lark
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lark import Lark, Tree, UnexpectedInput

from aimlite.query import tables

WORDS = ["run", "a", "'x'", "f'y'", "1", "2.5", "lambda", "and", "or", "not", "in", "is", "if", "else", "for", "None", "True"]
PARTS = [*WORDS, *".[](){},:=!<>-+*/|&~#\né@'"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables for the present grammar and Lark."""
    path: Path = tmp_path_factory.mktemp("tables") / "tables.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "TABLES", path)
        tables.keep()
    return path


@pytest.fixture(scope="module")
def parsers(kept: Path) -> tuple[Lark, Lark]:
    """(loaded, built)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "TABLES", kept)
        patch.setattr(tables, "build", None)
        loaded = tables.load()
    return loaded, tables.build(tables.GRAMMAR.read_bytes())


def outcome(parser: Lark, text: str) -> tuple[object, ...]:
    """The tree with the place of each part, or the error with its own."""
    try:
        tree = parser.parse(text)
    except UnexpectedInput as error:
        return type(error), error.pos_in_stream, getattr(error, "expected", None) or getattr(error, "allowed", None)
    assert isinstance(tree, Tree)
    return tree, [(part.meta.start_pos, part.meta.end_pos) for part in tree.iter_subtrees() if not part.meta.empty]


@given(st.lists(st.sampled_from(PARTS), max_size=12).map(" ".join))
def test_loaded_and_built_parse_alike(parsers: tuple[Lark, Lark], text: str) -> None:
    loaded, built = parsers
    assert outcome(loaded, text) == outcome(built, text)


@pytest.mark.parametrize(
    "text", ["run.a[0] == -1 and 'x' not in [y for y in run.b]", "len({'a': 1, **2})", "1 if run.a else f'{run.b}' 'c'"]
)
def test_loaded_and_built_parse_alike_what_is_long(parsers: tuple[Lark, Lark], text: str) -> None:
    loaded, built = parsers
    for end in range(len(text) + 1):
        assert outcome(loaded, text[:end]) == outcome(built, text[:end])


@pytest.mark.parametrize("other", ["grammar", "lark", "nothing"])
def test_tables_of_another_grammar_or_lark_are_not_used(kept: Path, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if other == "grammar":
        changed = tmp_path / "aimql.lark"
        changed.write_text(tables.GRAMMAR.read_text("utf-8").replace('"["', '"«"'), "utf-8")
        monkeypatch.setattr(tables, "GRAMMAR", changed)
    elif other == "lark":
        monkeypatch.setattr(lark, "__version__", "0.0.1")
    monkeypatch.setattr(tables, "TABLES", tmp_path / "none" if other == "nothing" else kept)
    built: list[bytes] = []
    build = tables.build
    monkeypatch.setattr(tables, "build", lambda grammar: built.append(grammar) or build(grammar))
    parser = tables.load()
    assert len(built) == 1
    assert parser.parse("run.a « 1 ]" if other == "grammar" else "run.a[1]")


def test_the_package_has_tables_that_fit() -> None:
    """Else each process would build them at its first query, without a word."""
    if not tables.TABLES.exists():
        pytest.skip("the package is not built: python setup.py build_ext --inplace")
    assert json.loads(tables.TABLES.read_bytes())["of"] == tables._dependencies(tables.GRAMMAR.read_bytes()), (
        "build again: setup.py build_ext"
    )
