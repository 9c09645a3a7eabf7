"""Several writers, segments, merges and resumed runs against a plain model: whatever is done, reading gives what was written."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from aimlite import Repo, Run, RunTrashed
from aimlite._ext.journal import close
from aimlite.storage.check import check
from aimlite.storage.params import flatten, nest
from aimlite.storage.runs import WriterEntry, derive_state
from aimlite.storage.view import METRIC, Reader, View
from aimlite.storage.writer import Writer
from reference.keys import pack

STRESS = os.environ.get("AIMLITE_STRESS") == "1"
WRITERS = 3


class MergeServer:
    """A process that merges whenever it is told to: RocksDB is opened for writing in no process that forks."""

    def __init__(self) -> None:
        script = (
            "import dataclasses, json, sys; from pathlib import Path\n"
            "from aimlite.storage.deletion import delete\n"
            "from aimlite.storage.layout import Layout; from aimlite.storage.merge import merge\n"
            "for line in sys.stdin:\n"
            "    base, *deleted = json.loads(line)\n"
            "    report = delete(Layout(Path(base)), *deleted, merging=False) if deleted else merge(Layout(Path(base)), True)\n"
            "    print(json.dumps(dataclasses.asdict(report)), flush=True)"
        )
        self.process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def merge(self, base: Path) -> dict[str, Any]:
        return self._ask(str(base))

    def delete(self, base: Path, runs: list[str], sequences: list[Any]) -> None:
        self._ask(str(base), runs, sequences)

    def _ask(self, *request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        report: dict[str, Any] = json.loads(self.process.stdout.readline())
        return report

    def close(self) -> None:
        self.process.communicate(timeout=300)


server: MergeServer


@pytest.fixture(scope="module", autouse=True)
def _merge_server() -> Iterator[None]:
    global server
    server = MergeServer()
    yield
    server.close()


class WriterRepo(Repo):
    """A repo with a writer of its own, as another process would have it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.own = Writer(self._layout)

    def _writer(self) -> Writer:
        return self.own


# ---- the model ----

Key = tuple[str, bytes]  # name, packed context
Row = tuple[int, float, float, int, bool]  # step, value, epoch, writer, whether the step was given


@dataclass
class ModelRun:
    leaves: dict[tuple[str | int, ...], Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    rows: dict[Key, list[Row]] = field(default_factory=lambda: defaultdict(list))
    contexts: dict[Key, dict[str, Any]] = field(default_factory=dict)
    objects: dict[tuple[Key, int], Any] = field(default_factory=dict)  # by sequence and step: (header, content) of each
    counters: dict[tuple[int, Key], int] = field(default_factory=dict)  # by writer: the next step
    open: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # by writer: how many objects
    wrote: dict[int, int] = field(default_factory=dict)  # by writer: when last
    vanished: list[int] = field(default_factory=list)  # when writers that did not end it last wrote
    opened: int = 0
    trashed: bool = False
    ended: tuple[int, str] = (0, "interrupted")

    def set(self, path: tuple[str | int, ...], value: Any) -> None:
        self.delete(path)
        self.leaves = {at: leaf for at, leaf in self.leaves.items() if path[: len(at)] != at}
        self.leaves.update({path + at: leaf for at, leaf in flatten(value)})

    def delete(self, path: tuple[str | int, ...]) -> None:
        self.leaves = {at: leaf for at, leaf in self.leaves.items() if at[: len(path)] != path}

    def last_step(self, key: Key) -> int | None:
        return max((row[0] for row in self.rows[key]), default=None)

    def add(self, writer: int, key: Key, step: int | None, value: float, epoch: float | None) -> None:
        at = self.counters[writer, key] if step is None else step
        held = self.rows[key]
        if step is None:
            held = [row for row in held if row[0] != at or row[3] != writer or row[4]]
        else:
            held = [row for row in held if row[0] != at]
        self.rows[key] = [*held, (at, value, math.nan if epoch is None else float(epoch), writer, step is not None)]
        self.counters[writer, key] = max(self.counters[writer, key], at + 1)

    def status(self) -> str:
        if any(self.open.values()):
            return "running"
        if any(last >= self.opened for last in self.vanished):
            return "interrupted"
        return self.ended[1]


@dataclass(eq=False)
class OpenRun:
    run: Run
    hash: str
    writer: int  # an index of repos
    was_known: bool
    seen: dict[Key, int] | None = None  # what a resumed run saw when it first counted
    used: set[Key] = field(default_factory=set)


names = st.sampled_from(["a", "b", "a\0b"])
contexts: st.SearchStrategy[dict[str, Any] | None] = st.sampled_from([None, {"s": 1}, {"s": True}, {"s": 1.0}, {"s": "1", "t": [1]}])
steps = st.none() | st.none() | st.integers(-5, 30)
values = st.floats(-10, 10, width=32) | st.integers(-10, 10) | st.just(math.nan)
epochs = st.none() | st.integers(0, 3)
keys = st.sampled_from(["a", "b", "", 1, "a\0"])
trees = st.recursive(
    st.integers(0, 9) | st.sampled_from([None, "x", 2**70, (1, "t"), {1, "s"}, [(), {"k": {2}}], datetime(2026, 1, 2)]),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=5,
)
paths = st.lists(keys, min_size=1, max_size=3).map(tuple)
any_open = st.integers(0, 100)
sizes = st.sampled_from([0, 5, 400, 1 << 20])  # within the header, in the tree, a blob
items = st.lists(st.tuples(st.dictionaries(keys, st.integers(0, 3), max_size=2), sizes.map(bytes)), min_size=1, max_size=3)


def plain_key(name: str, context: dict[str, Any] | None) -> Key:
    return name, pack((context or {},))


class Engine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="aimlite-model-")
        self.path = Path(self.directory.name)
        self.repos = [WriterRepo(self.path) for _ in range(WRITERS)]
        self.ids = list(range(WRITERS))  # of the writers: another one follows one that vanished
        self.runs: dict[str, ModelRun] = {}
        self.open: list[OpenRun] = []
        self.dead: list[OpenRun] = []  # of runs that were deleted since
        self.clock = 0

    def visible(self) -> list[str]:
        return [run_hash for run_hash, model in self.runs.items() if not model.trashed]

    def pick(self, number: int) -> OpenRun:
        return self.open[number % len(self.open)]

    def wrote(self, held: OpenRun) -> ModelRun:
        self.clock += 1
        model = self.runs[held.hash]
        model.wrote[self.ids[held.writer]] = self.clock
        return model

    def opened(self, run: Run, writer: int, was_known: bool) -> None:
        held = OpenRun(run, run.hash, writer, was_known)
        model = self.wrote(held)
        model.opened = self.clock
        model.open[self.ids[writer]] += 1
        self.open.append(held)

    def count(self, held: OpenRun, *wanted: Key) -> None:
        """What a recorder does when it meets a sequence for the first time."""
        model, writer = self.runs[held.hash], self.ids[held.writer]
        for key in wanted:
            if key not in held.used:
                held.used.add(key)
                model.counters.setdefault((writer, key), 0)
                if held.was_known:
                    if held.seen is None:
                        held.seen = {key: step for key in list(model.rows) if (step := model.last_step(key)) is not None}
                    model.counters[writer, key] = max(model.counters[writer, key], held.seen.get(key, -1) + 1)

    # -- rules ----

    @initialize()
    def begin(self) -> None:
        self.new_run(0, None)

    @rule(writer=st.integers(0, WRITERS - 1), run_hash=st.none() | st.sampled_from(["x", "y", "x.1"]))
    def new_run(self, writer: int, run_hash: str | None) -> None:
        known = run_hash in self.runs
        if known and self.runs[str(run_hash)].trashed:
            with pytest.raises(RunTrashed):
                Run(run_hash, repo=self.repos[writer])
            return
        run = Run(run_hash, repo=self.repos[writer], experiment="e" if run_hash == "x" else None)
        model = self.runs.setdefault(run.hash, ModelRun())
        if run_hash == "x":
            model.properties["experiment"] = "e"
        self.opened(run, writer, known)

    @precondition(lambda self: self.visible())
    @rule(writer=st.integers(0, WRITERS - 1), which=any_open)
    def resume(self, writer: int, which: int) -> None:
        run_hash = self.visible()[which % len(self.visible())]
        self.opened(Run(run_hash, repo=self.repos[writer]), writer, True)

    @precondition(lambda self: self.open)
    @rule(which=any_open, name=names, context=contexts, step=steps, value=values, epoch=epochs, by_handle=st.booleans())
    def track(self, which: int, name: str, context: Any, step: int | None, value: float, epoch: int | None, by_handle: bool) -> None:
        held = self.pick(which)
        key = plain_key(name, context)
        self.count(held, key)
        if by_handle:
            held.run.sequence(name, context).track(value, step, epoch)
        else:
            held.run.track(value, name=name, step=step, epoch=epoch, context=context)
        model = self.wrote(held)
        model.contexts[key] = context or {}
        model.add(self.ids[held.writer], key, step, float(value), epoch)

    @precondition(lambda self: self.open)
    @rule(which=any_open, found=st.dictionaries(names, values, min_size=1), context=contexts, step=steps, epoch=epochs)
    def track_dict(self, which: int, found: dict[str, float], context: Any, step: int | None, epoch: int | None) -> None:
        held = self.pick(which)
        wanted = {name: plain_key(name, context) for name in found}
        self.count(held, *wanted.values())
        held.run.track(found, step=step, epoch=epoch, context=context)
        model = self.wrote(held)
        for name, value in found.items():
            model.contexts[wanted[name]] = context or {}
            model.add(self.ids[held.writer], wanted[name], step, float(value), epoch)

    @precondition(lambda self: self.open)
    @rule(which=any_open, name=names, column=st.lists(values, max_size=12), first=steps, context=contexts, epoch=epochs)
    def track_columns(self, which: int, name: str, column: list[float], first: int | None, context: Any, epoch: int | None) -> None:
        held = self.pick(which)
        key = plain_key(name, context)
        self.count(held, key)
        given = None if first is None else [first + 3 * k % 7 for k in range(len(column))]
        held.run.track_columns(name, column, steps=given, epochs=epoch, context=context)
        if column:
            model = self.wrote(held)
            model.contexts[key] = context or {}
            for k, value in enumerate(column):
                model.add(self.ids[held.writer], key, None if given is None else given[k], float(value), epoch)

    @precondition(lambda self: self.open)
    @rule(which=any_open, found=items, kind=st.sampled_from(["texts", "images"]), step=st.integers(0, 6), context=contexts, epoch=epochs)
    def track_objects(self, which: int, found: list[Any], kind: str, step: int, context: Any, epoch: int | None) -> None:
        held = self.pick(which)
        held.run._track_items(kind, kind, found, True, step, epoch, context)
        model = self.wrote(held)
        model.objects[(kind, pack((context or {},))), step] = found

    @precondition(lambda self: self.open)
    @rule(which=any_open, path=paths, value=trees)
    def set_param(self, which: int, path: tuple[str | int, ...], value: Any) -> None:
        held = self.pick(which)
        held.run[path] = value
        self.wrote(held).set(path, value)

    @precondition(lambda self: self.open)
    @rule(which=any_open, value=st.dictionaries(keys, trees, max_size=3))
    def set_all_params(self, which: int, value: dict[Any, Any]) -> None:
        held = self.pick(which)
        held.run[...] = value
        self.wrote(held).set((), value)

    @precondition(lambda self: any(self.runs[held.hash].leaves for held in self.open))
    @rule(which=any_open, leaf=any_open, depth=st.integers(1, 3))
    def delete_param(self, which: int, leaf: int, depth: int) -> None:
        held = self.pick(which)
        leaves = sorted(self.runs[held.hash].leaves, key=repr)
        path = leaves[leaf % len(leaves)][:depth] if leaves else ()
        if path:
            del held.run[path]
            self.wrote(held).delete(path)

    @precondition(lambda self: self.open)
    @rule(which=any_open, name=st.sampled_from(["name", "description", "experiment"]), value=st.text("äb", max_size=3))
    def set_property(self, which: int, name: str, value: str) -> None:
        held = self.pick(which)
        setattr(held.run, name, value)
        self.wrote(held).properties[name] = value

    @precondition(lambda self: self.open)
    @rule(which=any_open, value=st.dictionaries(keys, trees, max_size=3))
    def update_params(self, which: int, value: dict[Any, Any]) -> None:
        held = self.pick(which)
        held.run.update(value)
        model = self.wrote(held) if value else self.runs[held.hash]  # an empty update writes nothing
        for key, item in value.items():
            model.set((key,), item)

    @precondition(lambda self: self.visible())
    @rule(writer=st.integers(0, WRITERS - 1), which=any_open, tag=st.sampled_from("pq"), adds=st.booleans(), name=st.text("äb", max_size=2))
    def edit(self, writer: int, which: int, tag: str, adds: bool, name: str) -> None:
        """Whether the run lives or has ended: how it stands is not changed by it."""
        run_hash = self.visible()[which % len(self.visible())]
        model, run = self.runs[run_hash], self.repos[writer].edit_run(run_hash)
        self.edited(model, writer)
        run.name = model.properties["name"] = name
        if adds:
            run.add_tag(tag)
            model.tags = model.tags if tag in model.tags else [*model.tags, tag]
        else:
            assert run.remove_tag(tag) == (tag in model.tags)
            model.tags = [held for held in model.tags if held != tag]

    def edited(self, model: ModelRun, writer: int) -> None:
        self.clock += 1
        if model.open.get(self.ids[writer]):
            model.wrote[self.ids[writer]] = self.clock

    @precondition(lambda self: self.runs)
    @rule(writer=st.integers(0, WRITERS - 1), which=any_open)
    def move_trash(self, writer: int, which: int) -> None:
        run_hash = list(self.runs)[which % len(self.runs)]
        model, repo = self.runs[run_hash], self.repos[writer]
        if model.trashed:
            assert repo.restore_runs([run_hash]) == [run_hash]
        else:
            assert repo.delete_run(run_hash, force=True)
        model.trashed = not model.trashed
        self.edited(model, writer)

    @precondition(lambda self: self.runs)
    @rule(which=any_open)
    def delete_run(self, which: int) -> None:
        """Whether it lives, lies in the trash or has ended."""
        run_hash = list(self.runs)[which % len(self.runs)]
        server.delete(self.path / ".aimlite", [run_hash], [])
        del self.runs[run_hash]
        self.dead += [held for held in self.open if held.hash == run_hash]
        self.open = [held for held in self.open if held.hash != run_hash]

    @precondition(lambda self: any(rows for model in self.runs.values() for rows in model.rows.values()))
    @rule(which=any_open)
    def delete_sequence(self, which: int) -> None:
        found = [(run_hash, key) for run_hash, model in self.runs.items() for key, rows in model.rows.items() if rows]
        run_hash, key = found[which % len(found)]
        server.delete(self.path / ".aimlite", [], [[run_hash, key[0], self.runs[run_hash].contexts[key]]])
        self.runs[run_hash].rows[key] = []

    @precondition(lambda self: self.dead)
    @rule(which=any_open, ends=st.booleans(), step=steps)
    def write_to_deleted(self, which: int, ends: bool, step: int | None) -> None:
        """Nobody is told, and nothing of it counts."""
        held = self.dead[which % len(self.dead)]
        held.run.track(1.0, name="a", step=step)
        held.run["a"] = "lost"
        held.run.name = "lost"
        if ends:
            held.run.finish("failed")
            self.dead.remove(held)

    @precondition(lambda self: self.open)
    @rule(which=any_open, status=st.sampled_from(["finished", "failed", "interrupted"]))
    def finish(self, which: int, status: str) -> None:
        held = self.pick(which)
        self.open.remove(held)
        held.run.finish(status)
        model, writer = self.wrote(held), self.ids[held.writer]
        model.ended = (self.clock, status)
        model.open[writer] -= 1
        if not model.open[writer]:  # the counters go with the last object
            model.counters = {at: step for at, step in model.counters.items() if at[0] != writer}

    @rule(writer=st.integers(0, WRITERS - 1))
    def rotate(self, writer: int) -> None:
        journal = self.repos[writer].own.journal
        before = journal.epoch
        segment = self.repos[writer].own.journal.segment
        self.repos[writer].own.end_segment()
        if self.repos[writer].own.journal.segment != segment:  # the next one declares the runs that are open
            for held in self.open:
                if held.writer == writer:
                    self.wrote(held)
        if not journal.closed and journal.epoch != before:  # the next segment declares the open runs: their writer was still there then
            self.clock += 1
            for model in self.runs.values():
                if model.open.get(self.ids[writer]):
                    model.wrote[self.ids[writer]] = self.clock

    @rule(writer=st.integers(0, WRITERS - 1))
    def vanish(self, writer: int) -> None:
        """What SIGKILL does to a process: its descriptor is closed, nothing else happens."""
        close(self.repos[writer].own.journal.detach()) if not self.repos[writer].own.journal.closed else None
        self.open = [held for held in self.open if held.writer != writer]
        self.dead = [held for held in self.dead if held.writer != writer]
        for model in self.runs.values():
            if model.open.pop(self.ids[writer], 0):
                model.vanished.append(model.wrote[self.ids[writer]])
            model.counters = {at: step for at, step in model.counters.items() if at[0] != self.ids[writer]}
        self.repos[writer] = WriterRepo(self.path)
        self.ids[writer] = max(self.ids) + 1

    @rule()
    def merge(self) -> None:
        report = server.merge(self.path / ".aimlite")
        assert not report["busy"]
        assert report["damaged"] == []

    @precondition(lambda self: self.runs)
    @rule(which=any_open)
    def look(self, which: int) -> None:
        self.compare(list(self.runs)[which % len(self.runs)], self.repos[0])

    @rule()
    def look_afresh(self) -> None:
        """By a reader that saw nothing of what came before."""
        repo = Repo(self.path)
        repo._reader_ = Reader(repo._layout)
        for run_hash in self.runs:
            self.compare(run_hash, repo)

    @invariant()
    def all_runs_are_listed(self) -> None:
        repo = self.repos[1]
        assert sorted(repo.list_all_runs()) == sorted(self.visible())
        assert repo.total_runs_count() == len(self.visible())
        assert sorted(run.hash for run in repo.trash()) == sorted(self.runs.keys() - set(self.visible()))

    # -- comparing ----

    def compare(self, run_hash: str, repo: Repo) -> None:
        run, model = repo.get_run(run_hash), self.runs[run_hash]
        if model.trashed:
            assert run is None
            run = Run._existing(run_hash, repo)  # it is whole nevertheless
        assert run is not None
        assert run.status == model.status()
        self.compare_objects(run_hash, repo)
        expected = nest(model.leaves.items()) if model.leaves else {}
        assert run[...] == expected
        for key, value in expected.items():
            assert run[key] == value
        assert (run.name, run.description, run.experiment, run.tags) == (
            model.properties.get("name", f"Run: {run_hash}"),
            model.properties.get("description"),
            model.properties.get("experiment", "default"),
            model.tags,
        )
        metrics = {(metric.name, pack((metric.context.to_dict(),))): metric for metric in run.metrics()}
        assert metrics.keys() == {key for key, rows in model.rows.items() if rows}
        for key, metric in metrics.items():
            rows = sorted(model.rows[key], key=lambda row: row[0])
            found = run.get_metric(key[0], model.contexts[key])
            assert found is not None
            assert repo._reader.read(lambda view, found=found: view.last_step(found._id)) == rows[-1][0]
            assert repr(found.values.sparse_list()) == repr(([row[0] for row in rows], [row[1] for row in rows]))
            assert repr(metric.epochs.values_list()) == repr([row[2] for row in rows])
            numbers = [row[1] for row in rows if row[1] == row[1]]
            ends = (metric.count, metric.first_step, metric.last_step, metric.min, metric.max)
            assert repr(ends) == repr((len(rows), rows[0][0], rows[-1][0], min(numbers, default=math.nan), max(numbers, default=math.nan)))
            assert len(metric.timestamps) == len(rows)
            for begin, end in ((None, 3), (3, None), (2, 9)):
                inside = [row for row in rows if (begin is None or row[0] >= begin) and (end is None or row[0] < end)]
                for view, at in ((found.values, 1), (found.epochs, 2)):
                    part_steps, part = view[begin:end]
                    assert repr((part_steps.tolist(), part.tolist())) == repr(([row[0] for row in inside], [row[at] for row in inside]))

    def compare_objects(self, run_hash: str, repo: Repo) -> None:
        def task(view: View) -> dict[tuple[Key, int], Any]:
            found: dict[tuple[Key, int], Any] = {}
            for sequence in view.sequences(run_hash, None):
                if sequence.kind != METRIC:
                    points = view.points(sequence)
                    for k, held in enumerate(view.objects(sequence, points)):
                        stamp = int(points["order"][k]), int(points["writer"][k])
                        assert points["value"][k] == len(held)
                        at = ((sequence.kind, pack((sequence.context,))), int(points["step"][k]))
                        found[at] = [view.object(sequence, *stamp, index) for index in range(len(held))]
            return found

        assert repo._reader.read(task) == self.runs[run_hash].objects

    def teardown(self) -> None:
        try:
            self.look_afresh()
            assert check(self.repos[0]._layout) == []
            for repo in self.repos:
                repo.own.close("finished")
            server.merge(self.path / ".aimlite")
            assert not self.repos[0]._layout.list_journals()
            for model in self.runs.values():
                if any(model.open.values()):
                    model.open.clear()
                    model.ended = (self.clock, "finished")
            self.look_afresh()
            assert check(self.repos[0]._layout) == []
        finally:
            for repo in self.repos:
                repo.own.close("finished")
                repo.close()
            self.directory.cleanup()


def test_engine() -> None:
    run_state_machine_as_test(
        Engine,
        settings=settings(
            max_examples=400 if STRESS else 25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_the_last_opening_decides_what_a_vanished_writer_means() -> None:
    """A writer that opens the run again after another one vanished resumes it, also when it had opened it before that one."""
    vanished = WriterEntry(opened=20, last=30, last_time=30, resumed=20)
    before = WriterEntry(opened=10, last=15, last_time=15, status="finished", end_time=15, resumed=10)
    again = WriterEntry(opened=40, last=50, last_time=50, status="finished", end_time=50, resumed=40)
    continued = WriterEntry(opened=40, last=50, last_time=50, status="finished", end_time=50)
    assert derive_state(10, 50, [before, vanished]).status == "interrupted"
    assert derive_state(10, 50, [before.followed_by(again), vanished]).status == "finished"
    assert derive_state(10, 50, [before.followed_by(continued), vanished]).status == "interrupted", "a rotation resumes nothing"
    assert before.followed_by(again) == again.followed_by(before), "segments may be merged in any order"
