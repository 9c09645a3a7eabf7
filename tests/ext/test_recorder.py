"""What the recorder remembers to find sequences without looking them up: the contexts met of late, and the keys of the last dict."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlite._ext import journal as ext
from aimlite._ext.recorder import Recorder, canonical_context
from reference import journal as reference

WRITER, SEGMENT = 5, 0


class OneFile:
    """A journal that never rotates, and a recorder of its run 0."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.path = path
        os.write(self.fd, ext.encode_file_header(WRITER, SEGMENT, 1, 1))
        self.journal = ext.JournalWriter(lambda: None, lambda: None)
        self.journal.attach(self.fd, WRITER, SEGMENT, 1)
        self.recorder = Recorder(self.journal, 0, "r")

    def points(self) -> list[list[tuple[int, float, bool]]]:
        """(sequence, value, int) of each call."""
        journal = reference.decode_journal(self.path.read_bytes(), WRITER, SEGMENT)
        assert (journal.damage, journal.torn) == ([], 0)
        return [
            [(point.sequence, point.value, point.is_int) for point in reference.decode_points(record)]
            for record in journal.records
            if record.kind == reference.POINTS
        ]

    def close(self) -> None:
        ext.close(self.journal.detach())


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OneFile]:
    file = OneFile(tmp_path / "journal")
    yield file
    file.close()


def typed(value: Any) -> Any:
    """Something that is equal only for equal values of equal types, whatever the order of keys."""
    if isinstance(value, dict):
        return dict, frozenset((key, typed(item)) for key, item in value.items())
    if isinstance(value, tuple):
        return tuple, tuple(typed(item) for item in value)
    return type(value), repr(value)


# Few keys and values, and twins that are equal without being the same: of such objects the memory could take one for another.
keys = st.sampled_from(["a", "b", "".join(["ke", "y"])]) | st.just(None).map(lambda _: "".join(["k", "ey"]))
plain = st.sampled_from([1, True, 1.0, "1", 0, False, 0.0, -0.0, None, 2**70]) | st.just(None).map(lambda _: float("1"))
values = plain | st.lists(plain, max_size=2) | st.dictionaries(keys, plain, max_size=2)
changes = st.lists(st.tuples(st.integers(0, 3), keys, st.none() | values.map(lambda value: [value]), st.booleans()), max_size=40)


@given(changes)
def test_a_context_is_found_by_what_it_holds_now(sequence: list[tuple[int, str, list[Any] | None, bool]]) -> None:
    """Four dicts that change between calls, sometimes copied in another order. The handle is that of the context as it stands."""
    recorder = Recorder(ext.JournalWriter(lambda: None, lambda: None), 0, "r")
    contexts: list[dict[str, Any]] = [{}, {}, {}, {}]
    handles: dict[Any, Any] = {}
    for which, key, value, turned in sequence:
        context = contexts[which]
        if value is None:
            context.pop(key, None)
        else:
            context[key] = value[0]
        asked = dict(reversed(context.items())) if turned else context
        for _ in range(2):
            handle = recorder.sequence("m", asked)
            assert typed(handle.context) == typed(canonical_context(asked))
            assert handles.setdefault(typed(handle.context), handle) is handle
    assert len({id(handle) for handle in handles.values()}) == len(handles)


def test_more_contexts_than_are_remembered_stay_apart(file: OneFile) -> None:
    contexts = [{"subset": subset, "gpu": gpu} for subset in ("train", "val") for gpu in range(20)]
    for _ in range(3):
        for context in contexts:
            file.recorder.track(1.0, "m", context=context)
    assert [points[0][0] for points in file.points()] == 3 * list(range(40))


numbers = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53) | st.booleans()


@given(st.lists(st.tuples(st.lists(st.tuples(keys, numbers), max_size=4), st.booleans()), max_size=20))
def test_a_dict_is_recorded_by_its_own_keys(tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[list[Any], bool]]) -> None:
    """Dicts with the keys of the one before, with others, with fewer, in another order, of another type."""
    file = OneFile(tmp_path_factory.getbasetemp() / "recorded")
    sequences: dict[str, int] = {}
    expected = []
    try:
        for pairs, ordered in calls:
            given_dict = OrderedDict(pairs) if ordered else dict(pairs)
            file.recorder.track(given_dict)
            for key in given_dict:
                sequences.setdefault(key, len(sequences))
            if given_dict:
                expected.append([(sequences[key], float(value), isinstance(value, int)) for key, value in given_dict.items()])
        assert file.points() == expected
    finally:
        file.close()


def test_a_dict_that_is_refused_leaves_nothing_behind(file: OneFile) -> None:
    file.recorder.track({"a": 1.0, "b": 2.0})
    for wrong in (2**53 + 1, 2**80, "x", None):
        with pytest.raises((TypeError, ValueError), match="'b'"):
            file.recorder.track({"a": 5.0, "b": wrong})
    file.recorder.track({"a": 3.0, "b": 4})
    assert file.points() == [[(0, 1.0, False), (1, 2.0, False)], [(0, 3.0, False), (1, 4.0, True)]]


def test_a_value_that_changes_its_dict_while_it_is_converted(file: OneFile) -> None:
    class Clears:
        def __float__(self) -> float:
            tracked.clear()
            return 2.0

    tracked = {"a": 1.0, "b": Clears(), "c": 3.0}
    file.recorder.track({"a": 0.0, "b": 0.0, "c": 0.0})
    file.recorder.track(tracked)
    assert file.points()[1] == [(0, 1.0, False), (1, 2.0, False), (2, 3.0, False)]
