"""What a query did, as a tree of lines; and what looks like a mistake in it."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from typing import Any

from aimlite.query.evaluate import run_path
from aimlite.query.execute import Query, Step
from aimlite.query.names import RUN_PROPERTIES
from aimlite.query.nodes import Attribute, Call, Item, Node
from aimlite.query.plan import is_about_runs, unbound
from aimlite.storage import keys, params
from aimlite.storage.params import Blobs
from aimlite.storage.view import METRIC, View

_MOST_PATHS = 1000


def lines(query: Query, matched: int, text: str, kind: str) -> list[str]:
    """The tree of an execution that has ended."""
    trace = query.trace
    found = [f"{kind}: {text.strip() or '(all)'}"]
    if not trace.steps:
        found.append("├─ no range of the index: every run is a candidate")
    for step in trace.steps:
        found += _step_lines(step, "")
    for node in unbound(query.node) if query.node is not None else ():
        whose = "not from the index" if is_about_runs(node) else "of the metrics"
        found.append(f"├─ {whose}: {' '.join(text[node.begin : node.end].split())}")
    found.append(f"├─ runs of unmerged journals: {len(query.source.live)}, always evaluated")
    found.append(f"├─ evaluated: {trace.evaluated} rows" + (f", of which {trace.failures} failed" if trace.failures else ""))
    found.append(f"└─ matched: {matched}")
    return found


def _step_lines(step: Step, indent: str) -> Iterator[str]:
    notes = []
    if step.estimate is not None:
        notes.append(f"estimated {'≥ ' if step.is_over else ''}{step.estimate}")
    if step.rows is not None:
        notes.append(f"{step.rows} rows, {step.seconds * 1000:.1f} ms")
    yield f"{indent}├─ {step.text}" + (f"  [{'; '.join(notes)}]" if notes else "")
    for below in step.steps:
        yield from _step_lines(below, indent + "│  ")


def unknown_params(view: View, node: Node | None) -> list[str]:
    """A sentence for each param path of a query that no run has."""
    found: list[str] = []
    for path in sorted(set(_param_paths(node)), key=str) if node is not None else ():
        if _is_known(view, path):
            continue
        known = {".".join(map(str, other)): _shown(other) for other in param_paths(view, _MOST_PATHS)}
        known |= {name: repr(name) for name in RUN_PROPERTIES}
        near = difflib.get_close_matches(".".join(map(str, path)), known, 1, 0.6)
        found.append(f"no run has a param {_shown(path)}" + (f"; did you mean {known[near[0]]}?" if near else ""))
    return found


def _shown(path: keys.Path) -> str:
    """`'a.b'`, or `run['a.b', 'c']` where a key is not a word."""
    if all(isinstance(key, int) or key.isidentifier() for key in path):
        return repr(".".join(map(str, path)))
    return f"run[{', '.join(map(repr, path))}]"


def _param_paths(node: Node) -> Iterator[keys.Path]:
    """The longest paths that a query names. What is called is a method and not a part of one."""
    inner: set[int] = set()
    called: set[int] = set()
    for each in node.walk():
        if isinstance(each, Call):
            called.add(id(each.function))
        elif isinstance(each, Attribute | Item) and id(each) not in called:
            if id(each) not in inner:
                found = run_path(each)
                if found is not None and found.property is None and found.path:
                    yield found.path
            inner.add(id(each.of))


def _is_known(view: View, path: keys.Path) -> bool:
    """Whether a run has it, or a part of it that may be looked into."""
    for cut in range(len(path), 0, -1):
        ranges = [keys.param_index_of(path[:cut])] + ([keys.param_index_below(path)] if cut == len(path) else [])
        if any(_first(view, bounds) is not None for bounds in ranges):
            return True
    for _, leaves in view.of_each_live_run(lambda run_hash: _seen_leaves(view, run_hash)):
        if any(leaf[: len(path)] == path or path[: len(leaf)] == leaf for leaf, _ in leaves):
            return True
    return False


def param_paths(view: View, limit: int | None = None) -> Iterator[keys.Path]:
    """The paths of all params, each once. One seek for each path, however many runs have it; then the runs of unmerged journals."""
    seen: set[keys.Path] = set()
    begin, end = keys.prefix_range(keys.PARAM_INDEX)
    while True:
        entry = _first(view, (begin, end))
        if entry is None:
            break
        path = keys.rest(entry[0], 1)[0]
        seen.add(path)
        yield path
        if limit is not None and len(seen) >= limit:
            return
        begin = keys.behind(keys.param_index_of(path))
    for _, leaves in view.of_each_live_run(lambda run_hash: _seen_leaves(view, run_hash)):
        for path, _ in leaves:
            if path not in seen:
                seen.add(path)
                yield path


def _seen_leaves(view: View, run_hash: str) -> Iterator[tuple[keys.Path, object]]:
    """Without those that only name blobs, which the index does not have either."""
    return ((path, value) for path, value in view.param_leaves(run_hash) if not isinstance(value, Blobs))


def _first(view: View, bounds: keys.Range) -> tuple[bytes, bytes] | None:
    """The first entry of an index that is of a run outside of the trash."""
    hidden = view.hidden_runs()
    return next((entry for entry in view.tree.scan(bounds) if not hidden or keys.index_run(entry[0]) not in hidden), None)


def params_info(view: View) -> dict[str, object]:
    """What `Repo.collect_params_info` gives: in the tree's order, merged or not. A param that is lost with its blob in every run that had
    it is left out."""
    info: dict[str, Any] = {}
    for path in sorted(filter(None, param_paths(view)), key=keys.param_index_of):  # an empty map may lie in the place of all params
        found = next(_types(view, path), None)
        if found is None:
            continue
        node: dict[Any, Any] = info
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node.setdefault(path[-1], {})["__example_type__"] = str(found)
    return info


def _types(view: View, path: keys.Path) -> Iterator[type]:
    """The types of the values that runs have at a path."""
    hidden, unmerged = view.hidden_runs(), view.mentioned_runs()
    bounds = keys.param_index_of(path)
    for key, content in view.tree.scan(bounds):
        run_hash = keys.index_run(key)
        if run_hash in hidden or run_hash in unmerged:
            continue
        try:
            yield type(params.index_content(keys.rest(key, len(bounds[0]))[0], content))
        except LookupError:  # the param itself tells it
            with contextlib.suppress(KeyError):  # unless it was lost with its blob
                yield type(view.params(run_hash, path))
    for _, leaves in view.of_each_live_run(lambda run_hash: list(view.contents(view.param_leaves(run_hash, path)))):
        yield from (type(value) for leaf, value in leaves if not leaf)


def sequence_names(view: View, kind: str = METRIC) -> list[tuple[str, dict[str, object]]]:
    """(name, context) of all metrics, or of all sequences of a kind of objects, each once, in the tree's order; as `param_paths`
    otherwise."""
    found: dict[bytes, tuple[str, dict[str, object]]] = {}
    begin, end = keys.metrics() if kind == METRIC else keys.objects_of_kind(kind)
    while True:
        entry = _first(view, (begin, end))
        if entry is None:
            break
        name, context, _ = keys.rest(entry[0], 1)
        found[keys.packed_sequence(name, context)] = name if kind == METRIC else name[1], context
        begin = keys.behind(keys.sequences_of(name, context))
    for _, sequences in view.of_each_live_run(lambda run_hash: view.sequences(run_hash, kind)):
        for sequence in sequences:
            found.setdefault(sequence.packed, (sequence.name, sequence.context))
    return [found[packed] for packed in sorted(found)]
