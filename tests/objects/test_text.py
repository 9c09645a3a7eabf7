"""Texts: every str comes back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlite import CorruptionError, Text
from objects.again import few, finished, unfinished

ANY_TEXT = st.text(st.characters(categories=None, exclude_categories=()))  # lone surrogates too


@few
@given(ANY_TEXT)
def test_every_text_comes_back(text: str) -> None:
    for read in (Text(text), unfinished(Text(text)), finished(Text(text))):
        assert read.data == str(read) == text
        assert read.json() == {"data": text}
        assert len(read) == len(text)
        assert read == Text(text)
        assert read


@few
@given(ANY_TEXT, ANY_TEXT)
def test_equality(one: str, other: str) -> None:
    assert (Text(one) == Text(other)) == (one == other)
    assert Text(one) != one


@pytest.mark.parametrize("given_text", [5, None, b"bytes", ["a"]])
def test_what_is_no_text(given_text: Any) -> None:
    with pytest.raises(TypeError, match="a text is a str, not"):
        Text(given_text)


def test_of_a_subclass_the_text() -> None:
    class Name(str):
        pass

    assert type(unfinished(Text(Name("a"))).data) is str
    assert repr(Text("a")) == "Text('a')"
    assert repr(Text("a" * 99)) == f"Text('{'a' * 57}'…, 99 characters)"


def test_what_is_no_utf8_is_corrupt() -> None:
    with pytest.raises(CorruptionError):
        _ = Text._from_item({"length": 3}, lambda: ({}, b"\xff\xfe\xfd")).data
