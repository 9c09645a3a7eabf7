"""AimQL's parser: Lark's tables for the grammar aimql.lark, built with the package and not by each process at its first query.

setup.py runs this file by itself, so it imports nothing of aimlite. The tables are JSON beside the grammar, with what they depend on: the
grammar and the version of Lark. Where they are missing, or of another grammar or Lark, the process builds them for itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import lark
from lark import Lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

GRAMMAR = Path(__file__).with_name("aimql.lark")
TABLES = Path(__file__).with_name("aimql_tables.json")


def load() -> Lark:
    """The parser, from the kept tables where they fit."""
    grammar = GRAMMAR.read_bytes()
    try:
        kept = json.loads(TABLES.read_bytes(), object_pairs_hook=_with_numbers)
    except FileNotFoundError:
        return build(grammar)
    return Lark.load(kept["tables"]) if kept["of"] == _dependencies(grammar) else build(grammar)


def build(grammar: bytes) -> Lark:
    return Lark(grammar.decode(), parser="lalr", propagate_positions=True, maybe_placeholders=True)


def keep() -> None:
    """Builds the tables and writes them beside the grammar."""
    grammar = GRAMMAR.read_bytes()
    data, memo = build(grammar).memo_serialize([TerminalDef, Rule])
    kept = {"of": _dependencies(grammar), "tables": {"data": data, "memo": memo}}
    new = TABLES.with_suffix(".new")
    new.write_text(json.dumps(kept, separators=(",", ":")) + "\n", "utf-8")
    os.replace(new, TABLES)


def _dependencies(grammar: bytes) -> list[str]:
    return [lark.__version__, hashlib.sha256(grammar).hexdigest()]


def _with_numbers(pairs: list[tuple[str, Any]]) -> dict[str | int, Any]:
    """An object whose keys are numbers as the dict that it was."""
    return {int(key): value for key, value in pairs} if pairs and pairs[0][0].isdecimal() else dict(pairs)


if __name__ == "__main__":
    keep()
