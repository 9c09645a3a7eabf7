"""Finding what matches: scans of the index narrow the runs down, the evaluation decides on what is left.

Runs that unmerged journals mention are always evaluated: the index does not know of what was written last. Runs come newest first.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aimlite.errors import CorruptionError
from aimlite.query.evaluate import Budget, Evaluate, Row, compiled, matches
from aimlite.query.names import SEQUENCE_NUMBERS
from aimlite.query.nodes import And, Attribute, Binary, Call, Compare, Const, Name, Node, Not, Or
from aimlite.query.plan import Bound, Every, MetricScan, Plan, Scan, Some, Without, constant, is_about_runs, plan_runs
from aimlite.query.rows import LiveRun, RunRow, SequenceRow, Source
from aimlite.storage import keys
from aimlite.storage.points import SUMMARY_DTYPE
from aimlite.storage.runs import decode_run
from aimlite.storage.view import METRIC, View

_PROBE = 256  # entries of a range that are counted to find the most selective
_FEW = 1000  # runs that are rather looked at one by one
_MOST_GROUPS = 32
_GET_KEYS = 10  # looking up a run takes as long as so many keys of a scan

Progress = Callable[[int, int | None], None]


@dataclass
class Step:
    """One line of what a query did. rows: what came out; estimate: what was known before; over: it was at least so many."""

    text: str
    rows: int | None = None
    estimate: int | None = None
    is_over: bool = False
    seconds: float = 0.0
    steps: list[Step] = field(default_factory=list)


@dataclass
class Trace:
    """What a query did, and what it could not decide. failures: rows whose evaluation failed, which are no match."""

    steps: list[Step] = field(default_factory=list)
    evaluated: int = 0
    failures: int = 0
    seconds: float = 0.0
    candidates: int = 0


class Query:
    """One execution of a query on a view."""

    def __init__(
        self, view: View, node: Node | None, timeout_s: float | None, progress: Progress | None = None, kind: str = METRIC
    ) -> None:
        """kind: of the sequences that `sequences` is to find: metrics, or a kind of objects."""
        self.view = view
        self.kind = kind
        self.node = node
        self.trace = Trace()
        self.source = Source(view)
        self.budget = Budget(timeout_s)
        self.damaged: dict[str, CorruptionError] = {}  # the runs left out, of which a damaged journal holds a part
        self._progress = progress

    # -- runs ----

    def runs(self) -> Iterator[RunRow]:
        """The runs that match, newest first."""
        yield from self._runs(plan_runs(self.node))

    def _runs(self, plan: Plan) -> Iterator[RunRow]:
        """As `runs`, of a plan."""
        start = time.perf_counter()
        found = None if plan.bound is None else self._merged(plan.bound, self.trace.steps)
        few = found is not None and len(found) <= _FEW  # then it is looked up for those that match, whether they are archived
        archived = self._archived() if plan.skips_archived and not few else frozenset()
        evaluate = None if plan.node is None else compiled(plan.node)
        is_decided = plan.exact and (found is None or not self._doubt)
        total = None if found is None else len(found)
        self.trace.candidates = total if total is not None else self.view.run_count()
        self.source.many = not is_decided and self.trace.candidates > _FEW
        self.trace.seconds = time.perf_counter() - start
        for done, row in enumerate(self._newest_first(found, archived)):
            self.budget.spend()
            if self._progress is not None:
                self._progress(done, total)
            if isinstance(row, LiveRun):
                if not self._is_live_match(row, plan.skips_archived, evaluate):
                    continue
            elif not is_decided and evaluate is not None and not self._matches(evaluate, Row(self.budget, row)):
                continue
            if not (few and plan.skips_archived and self._is_archived(row)):
                yield row

    def _is_live_match(self, row: LiveRun, skips_archived: bool, evaluate: Evaluate | None) -> bool:
        with self.leaving_out_damaged(row):
            if skips_archived and row.property("archived"):
                return False
            return evaluate is None or self._matches(evaluate, Row(self.budget, row))
        return False

    @contextlib.contextmanager
    def leaving_out_damaged(self, row: RunRow) -> Iterator[None]:
        """Within, damage of a journal that holds a part of a run costs the answer that run alone. Damage of the tree is raised."""
        try:
            yield
        except CorruptionError as error:
            if not isinstance(row, LiveRun) or not self.view.is_of_journal(error):
                raise
            self.damaged[row.hash] = error

    def _matches(self, evaluate: Evaluate, row: Row) -> bool:
        self.trace.evaluated += 1
        found = matches(evaluate, row)
        if found is None:
            self.trace.failures += 1
        return bool(found)

    def _is_archived(self, row: RunRow) -> bool:
        return not isinstance(row, LiveRun) and self.view.tree.get(keys.property_index("archived", 1.0, row.hash)) is not None

    def _archived(self) -> frozenset[str]:
        return frozenset(self._hashes(keys.property_index_values("archived", 1.0, 1.0)))

    def _hashes(self, bounds: keys.Range) -> list[str]:
        """The runs of a range."""
        found: list[str] = []
        for chunk in self.view.tree.scan_keys(bounds):
            found += [key[key.rindex(b"\x02") + 1 : -1].decode() for key in chunk]  # keys.index_run, without the call
            self.budget.spend(len(chunk))
        return found

    def _newest_first(self, found: set[str] | None, archived: frozenset[str]) -> Iterator[RunRow]:
        """The rows of the merged runs found (None: all) and of every live one, without the archived merged ones, by creation."""
        live = sorted(((self._created(run_hash), run_hash) for run_hash in self.source.live), reverse=True)
        position = 0
        for created, run_hash in self._by_creation(found):
            while position < len(live) and live[position] > (created, run_hash):
                yield self.source.run(live[position][1])
                position += 1
            if run_hash not in self.source.mentioned and run_hash not in archived:
                yield RunRow(self.source, run_hash)
        for _, run_hash in live[position:]:
            yield self.source.run(run_hash)

    def _created(self, run_hash: str) -> int:
        """When a live run was created: µs."""
        data, opened = self.view.tree.get(keys.run(run_hash)), self.source.live[run_hash]
        return opened if data is None else min(opened, decode_run(data)["created"])

    def _by_creation(self, found: set[str] | None) -> Iterable[tuple[int, str]]:
        if found is not None and len(found) * _GET_KEYS <= self.view.run_count():
            held = []
            for run_hash in found:
                data = self.view.tree.get(keys.run(run_hash))
                if data is not None:
                    held.append((decode_run(data)["created"], run_hash))
            return sorted(held, reverse=True)
        return self._scan_by_creation(found)

    def _scan_by_creation(self, found: set[str] | None) -> Iterator[tuple[int, str]]:
        begin = len(keys.property_index_of("created")[0])
        compares = bool(self.source.live)  # only then is it asked when a run was created
        for chunk in self.view.tree.scan_keys(keys.property_index_of("created"), reverse=True):
            for key in chunk:
                run_hash = key[key.rindex(b"\x02") + 1 : -1].decode()
                if found is None or run_hash in found:
                    yield keys.rest(key, begin)[0] if compares else 0, run_hash

    # -- bounds ----

    _doubt = False  # whether a range was not empty of which only the evaluation can tell

    def _merged(self, bound: Bound, steps: list[Step]) -> set[str]:
        """A superset of the merged runs that match."""
        start = time.perf_counter()
        if isinstance(bound, Scan):
            step = Step(bound.text)
            steps.append(step)
            found = self._scanned(bound)
        elif isinstance(bound, MetricScan):
            step = Step(bound.text)
            steps.append(step)
            found = self._compared(bound)
        elif isinstance(bound, Without):
            step = Step("all but")
            steps.append(step)
            found = self._rest(bound, step)
        elif isinstance(bound, Some):
            step = Step("any of")
            steps.append(step)
            found = set().union(*(self._merged(part, step.steps) for part in bound.parts))
        else:
            step = Step("all of")
            steps.append(step)
            found = self._intersection(bound, step)
        step.rows, step.seconds = len(found), time.perf_counter() - start
        return found

    def _intersection(self, bound: Every, step: Step) -> set[str]:
        """The most selective part first; once few runs are left, the others are left to the evaluation."""
        estimates = [(self._estimate(part), number) for number, part in enumerate(bound.parts)]
        estimates.sort()
        found: set[str] | None = None
        for number, (estimate, place) in enumerate(estimates):
            part = bound.parts[place]
            if found is not None and len(found) <= _FEW and len(found) < estimate:
                self._doubt = True
                step.steps += [Step(f"{_text(bound.parts[at])}: left to the evaluation") for _, at in estimates[number:]]
                break
            these = self._merged(part, step.steps)
            step.steps[-1].estimate, step.steps[-1].is_over = estimate, estimate >= _PROBE
            found = these if found is None else found & these
            if not found:
                break
        return found or set()

    def _estimate(self, bound: Bound) -> int:
        """How many runs, counted to `_PROBE`."""
        if isinstance(bound, Some):
            return sum(self._estimate(part) for part in bound.parts)
        if isinstance(bound, Every):
            return min(self._estimate(part) for part in bound.parts)
        if isinstance(bound, Without):
            return 2 * _PROBE  # mostly many
        count = 0
        for bounds in (bound.range,) if isinstance(bound, MetricScan) else (*bound.ranges, *bound.doubtful):
            count += len(next(self.view.tree.scan_keys(bounds, limit=_PROBE), ()))
            if count >= _PROBE:
                break
        return count

    def _scanned(self, scan: Scan) -> set[str]:
        found: set[str] = set()
        for bounds in scan.ranges:
            found.update(self._hashes(bounds))
        if not scan.exact:
            self._doubt = True
        for bounds in scan.doubtful:
            doubtful = self._hashes(bounds)
            self._doubt = self._doubt or bool(doubtful)
            found.update(doubtful)
        return found

    def _rest(self, bound: Without, step: Step) -> set[str]:
        """All merged runs but those of an exact bound; where that is in doubt, all."""
        before, self._doubt = self._doubt, False
        without = self._merged(bound.part, step.steps)
        found = set(self._hashes(keys.property_index_of("created")))
        if not self._doubt:
            found -= without
        self._doubt = self._doubt or before
        return found

    def _compared(self, bound: MetricScan) -> set[str]:
        found: set[str] = set()
        operate = _OPERATORS[bound.operator]
        for chunk, data in self.view.tree.scan_chunks(bound.range):
            self.budget.spend(len(chunk))
            columns = np.frombuffer(b"".join(data), SUMMARY_DTYPE)
            found.update(keys.index_run(chunk[place]) for place in np.flatnonzero(operate(columns[bound.attribute], bound.value)))
        return found

    # -- sequences ----

    def sequences(self) -> Iterator[SequenceRow]:
        """The sequences that match, by run, newest first, then by name and context."""
        conjuncts = self.node.items if isinstance(self.node, And) else (self.node,) if self.node is not None else ()
        of_runs = [node for node in conjuncts if is_about_runs(node)]
        others = [node for node in conjuncts if not is_about_runs(node)]
        plan = plan_runs(And(0, 0, tuple(of_runs)) if of_runs else None)
        if plan.skips_archived and self.node is not None:
            plan = Plan(plan.node, plan.bound, plan.exact, plan_runs(self.node).skips_archived)
        filters = _SequenceFilters(others)
        if plan.bound is None and plan.node is None:
            yield from self._scan_sequences(plan, filters, None)
            return
        rows = list(self._runs(plan))
        if len(rows) <= _FEW:
            groups = self._few_groups(filters) if len(rows) > 1 else None
            for row in rows:
                yield from self._of_run(row, filters) if groups is None else self._of_groups(row, filters, groups)
        else:
            yield from self._scan_sequences(plan, filters, rows)

    def _of_run(self, row: RunRow, filters: _SequenceFilters) -> list[SequenceRow]:
        found: list[SequenceRow] = []
        with self.leaving_out_damaged(row):
            for sequence in self._sequences_of(row, filters):
                if filters.evaluate is None or self._matches(filters.evaluate, Row(self.budget, row, sequence)):
                    found.append(sequence)
            return found
        return []

    def _of_groups(self, row: RunRow, filters: _SequenceFilters, groups: list[tuple[keys.Name, dict[str, Any]]]) -> Iterator[SequenceRow]:
        """As `_of_run`, where it is known which names and contexts may match."""
        if isinstance(row, LiveRun):
            yield from self._of_run(row, filters)
            return
        for name, context in groups:
            data = self.view.tree.get(keys.sequence(name, context, row.hash))
            if data is not None:
                sequence = SequenceRow(row, name, context, data)
                if filters.is_by_group or (filters.evaluate and self._matches(filters.evaluate, Row(self.budget, row, sequence))):
                    yield sequence

    def _ranges(self, filters: _SequenceFilters) -> list[keys.Range]:
        """Where the sequences of the names asked for lie."""
        if filters.names is None:
            return [keys.metrics() if self.kind == METRIC else keys.objects_of_kind(self.kind)]
        return [keys.sequences_named(name if self.kind == METRIC else (self.kind, name)) for name in sorted(filters.names)]

    def _few_groups(self, filters: _SequenceFilters) -> list[tuple[keys.Name, dict[str, Any]]] | None:
        """The names and contexts in the tree that may match, in order; None when there are many."""
        groups, count = [], 0
        for begin, end in self._ranges(filters):
            while chunk := next(self.view.tree.scan_keys((begin, end), limit=1), None):
                name, context, _ = keys.rest(chunk[0], 1)
                count += 1
                if count > _MOST_GROUPS:
                    return None
                if filters.takes(self, name, context):
                    groups.append((name, context))
                begin = keys.behind(keys.sequences_of(name, context))
        return groups

    def _sequences_of(self, row: RunRow, filters: _SequenceFilters) -> Iterator[SequenceRow]:
        if isinstance(row, LiveRun) or filters.names is None:
            yield from row.sequences(self.kind)
            return
        of_run = keys.metrics_of_run(row.hash) if self.kind == METRIC else keys.objects_of_run(row.hash, self.kind)
        for key, _ in self.view.tree.scan(of_run):
            _, name, context = keys.rest(key, 1)
            if (name if self.kind == METRIC else name[1]) in filters.names:
                data = self.view.tree.get(keys.sequence(name, context, row.hash))
                if data is not None:
                    yield SequenceRow(row, name, context, data)

    def _scan_sequences(self, plan: Plan, filters: _SequenceFilters, rows: list[RunRow] | None) -> Iterator[SequenceRow]:
        """All sequences of the names asked for, in one scan; then those of live runs; by run."""
        archived = self._archived() if plan.skips_archived and rows is None else frozenset()
        wanted = None if rows is None else {row.hash: row for row in rows}
        live, mentioned = self.source.live, self.source.mentioned
        self.source.many = True
        found: dict[str, list[SequenceRow]] = {}
        step = Step("sequences" if filters.names is None else f"sequences named {', '.join(map(repr, sorted(filters.names)))}")
        self.trace.steps.append(step)
        start, count = time.perf_counter(), 0
        for name, context, group, data in self._groups(filters):
            count += len(group)
            if self._progress is not None:
                self._progress(count, None)
            keep = filters.keep(data)
            for place in np.flatnonzero(keep).tolist() if keep is not None else range(len(group)):
                run_hash = keys.index_run(group[place])
                if run_hash in mentioned or run_hash in archived or (wanted is not None and run_hash not in wanted):
                    continue
                row = RunRow(self.source, run_hash) if wanted is None else wanted[run_hash]
                sequence = SequenceRow(row, name, context, data[place])
                if filters.is_decided or filters.evaluate is None or self._matches(filters.evaluate, Row(self.budget, row, sequence)):
                    found.setdefault(run_hash, []).append(sequence)
        step.rows, step.seconds = count, time.perf_counter() - start
        for run_hash in self.source.live if wanted is None else [run_hash for run_hash in wanted if run_hash in live]:
            row = self.source.run(run_hash)
            if plan.skips_archived and isinstance(row, LiveRun) and not self._is_live_match(row, True, None):
                continue
            matched = self._of_run(row, filters)
            if matched:
                found[run_hash] = matched
        for run_hash in self._ordered(found, wanted):
            yield from found[run_hash]

    def _ordered(self, found: dict[str, list[SequenceRow]], wanted: dict[str, RunRow] | None) -> Iterator[str]:
        if wanted is not None:
            yield from (run_hash for run_hash in wanted if run_hash in found)
            return
        live = [(self._created(run_hash), run_hash) for run_hash in found if run_hash in self.source.live]
        merged = {run_hash for run_hash in found if run_hash not in self.source.live}
        yield from (run_hash for _, run_hash in _merged_orders(self._by_creation(merged), sorted(live, reverse=True)))

    def _groups(self, filters: _SequenceFilters) -> Iterator[tuple[keys.Name, dict[str, Any], list[bytes], list[bytes]]]:
        """(name, context, keys, summaries) in pieces of one name and context. Groups that no sequence of can match are leapt over."""
        for begin, end in self._ranges(filters):
            prefix, chosen = b"", False
            name: keys.Name = ""
            context: dict[str, Any] = {}
            scan = self.view.tree.scan_chunks((begin, end))
            while found := next(scan, None):
                chunk, data = found
                self.budget.spend(len(chunk))
                at = 0
                while at < len(chunk):
                    if not prefix or not chunk[at].startswith(prefix):
                        prefix = chunk[at][: chunk[at].rindex(b"\x02") + 1]
                        name, context, _ = keys.rest(chunk[at], 1)
                        chosen = filters.takes(self, name, context)
                    until = bisect_left(chunk, prefix + b"\xff", at)
                    if chosen:
                        yield name, context, chunk[at:until], data[at:until]
                    elif until == len(chunk):
                        scan = self.view.tree.scan_chunks((prefix + b"\xff", end))
                    at = until


def _merged_orders(merged: Iterable[tuple[int, str]], live: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    position = 0
    for entry in merged:
        while position < len(live) and live[position] > entry:
            yield live[position]
            position += 1
        yield entry
    yield from live[position:]


def _text(bound: Bound) -> str:
    if isinstance(bound, Scan | MetricScan):
        return bound.text
    if isinstance(bound, Without):
        return f"not {_text(bound.part)}"
    return (" and " if isinstance(bound, Every) else " or ").join(_text(part) for part in bound.parts)


class _SequenceFilters:
    """The conjuncts of a query that are about sequences, sorted by what they need: name and context alone, the numbers of the summary
    (taken as columns), or the whole row."""

    def __init__(self, nodes: list[Node]) -> None:
        self.names: frozenset[str] | None = None
        self._of_groups: list[Evaluate] = []
        self._columns: list[Callable[[NDArray[Any]], NDArray[np.bool_]]] = []
        rest: list[Node] = []
        for node in nodes:
            names = _names(node)
            if names is not None:
                self.names = names if self.names is None else self.names & names
            attributes = _sequence_attributes(node)
            column = _as_column(node)
            if attributes is not None and attributes <= {"name", "context"}:
                self._of_groups.append(compiled(node))
            elif column is not None:
                self._columns.append(column)
            else:
                rest.append(node)
        self.is_decided = not rest
        self.is_by_group = not rest and not self._columns
        self.evaluate = compiled(And(0, 0, tuple(nodes))) if nodes else None

    def takes(self, query: Query, name: keys.Name, context: dict[str, Any]) -> bool:
        """Whether sequences of this name and context may match."""
        if not self._of_groups:
            return True
        sequence = _Group(name, context)
        return all(query._matches(evaluate, Row(query.budget, None, sequence)) for evaluate in self._of_groups)

    def keep(self, data: list[bytes]) -> NDArray[np.bool_] | None:
        """Which of the summaries may match; None is all."""
        if not self._columns:
            return None
        columns = np.frombuffer(b"".join(data), SUMMARY_DTYPE)
        keep = self._columns[0](columns)
        for column in self._columns[1:]:
            keep = keep & column(columns)
        return keep


class _Group(SequenceRow):
    """All sequences of one name and context."""

    __slots__ = ()

    def __init__(self, name: keys.Name, context: dict[str, Any]) -> None:
        self._name = name
        self._context = context


def _names(node: Node) -> frozenset[str] | None:
    """The names that a sequence may have for a node to hold; None is any."""
    if isinstance(node, Or):
        found = [_names(item) for item in node.items]
        known = [names for names in found if names is not None]
        return frozenset().union(*known) if len(known) == len(found) else None
    if isinstance(node, And):
        known = [names for item in node.items if (names := _names(item)) is not None]
        return frozenset.intersection(*known) if known else None
    if not (isinstance(node, Compare) and len(node.operators) == 1):
        return None
    for side, other in ((node.first, node.operands[0]), (node.operands[0], node.first)):
        value = constant(other)
        if value is None or not _is_attribute(side, "name"):
            continue
        if node.operators[0] == "==" and isinstance(value[0], str):
            return frozenset({value[0]})
        if node.operators[0] == "in" and side is node.first and isinstance(value[0], list | tuple | set):
            return frozenset(item for item in value[0] if isinstance(item, str))
    return None


def _is_attribute(node: Node, *names: str) -> bool:
    return isinstance(node, Attribute) and isinstance(node.of, Name) and node.of.id != "run" and node.name in names


def _sequence_attributes(node: Node) -> set[str] | None:
    """The attributes of the sequence that a node is about; None where it is about more: the run, or the sequence as such."""
    found: set[str] = set()
    within = 0
    for each in node.walk():
        if isinstance(each, Name) and each.id == "run":
            return None
        if (
            isinstance(each, Attribute)
            and isinstance(each.of, Name)
            and each.of.id in ("metric", "images", "audios", "texts", "figures", "distributions")
        ):
            if each.name == "run":
                return None
            found.add(each.name)
            within += 1
    names = sum(
        isinstance(each, Name) and each.id in ("metric", "images", "audios", "texts", "figures", "distributions") for each in node.walk()
    )
    return found if names == within else None


_OPERATORS: dict[str, Any] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def _as_column(node: Node) -> Callable[[NDArray[Any]], NDArray[np.bool_]] | None:
    """A node over numbers of the summary as one operation on their columns; None where it is more than that."""
    if isinstance(node, And | Or):
        parts = [_as_column(item) for item in node.items]
        known = [part for part in parts if part is not None]
        if len(known) != len(parts):
            return None
        combine = np.logical_and if isinstance(node, And) else np.logical_or
        return lambda columns: combine.reduce([part(columns) for part in known])
    if isinstance(node, Not):
        inner = _as_column(node.operand)
        return None if inner is None else lambda columns: ~inner(columns)
    if not isinstance(node, Compare) or any(name not in _OPERATORS for name in node.operators):
        return None
    operands = [_as_operand(operand) for operand in (node.first, *node.operands)]
    sides = [operand for operand in operands if operand is not None]
    if len(sides) != len(operands):
        return None
    compares = [_OPERATORS[name] for name in node.operators]

    def compare(columns: NDArray[Any]) -> NDArray[np.bool_]:
        with np.errstate(all="ignore"):  # infinities and NaN are what Python makes of them, too
            values = [side(columns) for side in sides]
        keep = np.ones(len(columns), bool)
        for number, operate in enumerate(compares):
            keep &= operate(values[number], values[number + 1])
        return keep

    return compare


_ARITHMETIC: dict[str, Any] = {"+": np.add, "-": np.subtract, "*": np.multiply}  # what never fails on floats


def _as_float_operand(node: Node) -> Callable[[NDArray[Any]], Any] | None:
    """As `_as_operand`, where all numbers are floats: Python's ints do not overflow."""
    if _is_attribute(node, "last_step", "first_step", "count"):
        return None
    operand = _as_operand(node)
    if operand is None:
        return None
    return lambda columns: np.asarray(operand(columns), np.float64)


def _as_operand(node: Node) -> Callable[[NDArray[Any]], Any] | None:
    if _is_attribute(node, *SEQUENCE_NUMBERS):
        assert isinstance(node, Attribute)
        name = node.name
        return lambda columns: columns[name]
    if isinstance(node, Binary) and node.operator in _ARITHMETIC:
        left, right = _as_float_operand(node.left), _as_float_operand(node.right)
        if left is not None and right is not None:
            operate = _ARITHMETIC[node.operator]
            return lambda columns: operate(left(columns), right(columns))
        return None
    if isinstance(node, Const | Call):
        value = constant(node)
        if value is not None and isinstance(value[0], bool | int | float) and abs(value[0]) < 2**53:
            number = value[0]
            return lambda columns: number
    return None
