"""threads.py REPO N: eight threads write one run while another sets params, segments rotate and views are read. Nothing may be lost."""

import sys
import threading
import traceback

import numpy as np

from aimlite import Repo, Run
from aimlite.storage import writer
from aimlite.storage.view import Reader

writer.SEGMENT_BYTES = 1 << 16
sys.setswitchinterval(1e-5)
repo = Repo(sys.argv[1])
run = Run("threads", repo=repo)
n = int(sys.argv[2])
failures: list[str] = []
written = threading.Event()


def guarded(task, *arguments) -> threading.Thread:
    def work() -> None:
        try:
            task(*arguments)
        except BaseException:
            failures.append(traceback.format_exc())

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def write(who: int) -> None:
    for k in range(n):
        run.track(who * n + k, name="scalar")
        run.track({f"dict{j}": who * n + k for j in range(10)}, context={"all": True})
        if k % 10 == 0:
            run.track_columns("columns", np.arange(200.0) + 200 * (who * n + k))
        if k % 100 == 0:
            run.track_columns("long", np.arange(20_000) / 3 + who)  # long enough to be written without the GIL
        run.track(who * n + k, name="own", context={"who": who}, step=k)


def set_params() -> None:
    for k in range(n // 4):
        run["p", str(k)] = {"a": k, "b": {"c": k}}
        run.description = str(k)


def read() -> None:
    before = 0
    while not written.is_set():
        repo._reader_ = Reader(repo._layout)
        for _ in range(3):
            metric = run.get_metric("scalar")
            now = 0 if metric is None else metric.count
            assert now >= before, f"{before} points, then {now}"
            before = now
            assert run.status == "running"
            for number, value in run.get("p", {}).items():
                assert value == {"a": int(number), "b": {"c": int(number)}}


def make_runs() -> None:
    for k in range(n // 4):
        with Run(f"{k}", repo=repo) as other:
            other["k"] = k
        if k % 10 == 0:
            assert repo.total_runs_count() == k + 2
            assert len(repo.list_all_runs()) == k + 2


writing = [*(guarded(write, who) for who in range(8)), guarded(set_params), guarded(make_runs)]
reading = [guarded(read) for _ in range(2)]
for thread in writing:
    thread.join()
written.set()
for thread in reading:
    thread.join()
assert not failures, "\n".join(failures)
assert run._recorder.journal.segment > 10


def demand_all() -> None:
    everything = list(range(8 * n))
    assert sorted(run.get_metric("scalar").values.values_list()) == everything
    assert run.get_metric("scalar").values.indices_list() == everything
    dicts = [run.get_metric(f"dict{j}", {"all": True}).values.sparse_list() for j in range(10)]
    assert all(found == dicts[0] for found in dicts)
    assert sorted(dicts[0][1]) == everything
    rows = run.get_metric("columns").values.values_numpy().reshape(-1, 200)
    assert (np.diff(rows, axis=1) == 1).all()  # each call's points lie together
    assert sorted(rows[:, 0]) == [200 * (who * n + k) for who in range(8) for k in range(0, n, 10)]
    assert run.get_metric("long").count == 8 * len(range(0, n, 100)) * 20_000
    for who in range(8):
        assert run.get_metric("own", {"who": who}).values.sparse_list() == (list(range(n)), list(range(who * n, who * n + n)))
    assert run["p"] == {str(k): {"a": k, "b": {"c": k}} for k in range(n // 4)}
    assert run.description == str(n // 4 - 1)
    assert repo.total_runs_count() == n // 4 + 1
    assert all(repo.get_run(f"{k}")["k"] == k for k in range(n // 4))


demand_all()
run.close()
repo.merge()
demand_all()
