"""Specs 000 (SDK basics), 001 (concepts) and 002 (configuring runs): each example as a test, each sentence on behaviour an assertion.

The examples are the documents' own; `aim` is `aimlite` and `.aim` is `.aimlite`. Paths, the home directory and the working directory are
temporary. Left out, because what they need is not there yet:

- the search box;
- sequences of other things than numbers, integrations, and the UI.
"""

from __future__ import annotations

import inspect
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import omegaconf
import pytest

from aimlite import Metric, ReadOnlyError, Repo, Run, Sequence

Script = Callable[[str], None]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, beside an empty home."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def home(here: Path) -> Path:
    return here.parent / "home"


@pytest.fixture
def script(here: Path) -> Script:
    """Runs code as a script of its own in the working directory."""

    def run(code: str) -> None:
        done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr

    return run


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


# -- 000: SDK basics ----

CREATE = """
from aimlite import Run

my_run = Run(
    repo='/repo/path/to/store/runs', # Repo path to store my_run data
    experiment='experiment_name',    # Experiment name to group related runs together
)
"""
PARAMS = """
# Log training hyper-parameters
my_run['hparams'] = {
    'learning_rate': 0.0001,
    'batch_size': 32,
}
"""
METRICS = """
# Track metrics
for step in range(1000):
    value = step * 10
    my_run.track(
        value,       # Current value to track
        name='loss', # The metric name
        step=step,   # Step index (optional)
        epoch=0,     # Epoch (optional)
        context={    # Metric context (optional)
            'subset': 'train',
        },
    )
"""


@pytest.fixture
def stored(script: Script, tmp_path: Path) -> Path:
    """Where the three examples of spec 000, run as one script, stored their run."""
    path = tmp_path / "repo" / "path" / "to" / "store" / "runs"
    script((CREATE + PARAMS + METRICS).replace("/repo/path/to/store/runs", str(path)))
    return path


def test_a_run_creates_the_repo_at_the_path(stored: Path, here: Path) -> None:
    """When initializing a `Run` object, the `.aimlite` repository is created at the specified path."""
    assert names(stored) == [".aimlite"]
    assert names(here) == []
    [run] = Repo(stored).iter_runs()
    assert run.experiment == "experiment_name"


def test_tracked_data_is_in_the_repo(stored: Path, tmp_path: Path) -> None:
    """Tracked data is stored in the `.aimlite` repo: that directory alone is enough to read it."""
    shutil.copytree(stored / ".aimlite", tmp_path / "copy" / ".aimlite")
    shutil.rmtree(tmp_path / "repo")
    [run] = Repo(tmp_path / "copy").iter_runs()
    assert run["hparams", "batch_size"] == 32
    assert run.get_metric("loss", {"subset": "train"}).count == 1000


def test_without_a_path_it_is_the_working_directory(script: Script, here: Path) -> None:
    """If the path is not specified, the data is stored in the current working directory."""
    script("from aimlite import Run; my_run = Run(); my_run.track(1, name='loss')")
    assert names(here) == [".aimlite"]
    [run] = Repo(here).iter_runs()
    assert run.get_metric("loss").last == 1


def test_experiments_group_runs(here: Path) -> None:
    """Define experiment name to group related runs together."""
    for experiment in ("a", "b", "a"):
        Run(experiment=experiment).close()
    assert [run.experiment for run in Repo().iter_runs()] == ["a", "b", "a"]


@pytest.mark.parametrize("interval", [10, 0.1, 86400, None])
def test_resource_tracking_can_be_asked_for(here: Path, interval: float | None) -> None:
    """Enable system resource usage tracking. `system_tracking_interval`: in seconds; `None` disables."""
    run = Run(system_tracking_interval=interval)
    run.close()
    assert run.status == "finished"


def test_system_usage_is_tracked_at_the_interval(here: Path) -> None:
    """`system_tracking_interval`: sets the tracking interval in seconds for system usage metrics (CPU, Memory, etc.)."""
    assert inspect.signature(Run).parameters["system_tracking_interval"].default == 10
    run, quiet = Run(system_tracking_interval=0.1), Run(system_tracking_interval=None)
    for _ in range(6000):
        if (metric := run.get_metric("__system__cpu")) is not None and metric.count >= 3:
            break
        time.sleep(0.01)
    run.close()
    aims = {"__system__cpu", "__system__memory_percent", "__system__p_memory_percent", "__system__disk_percent"}
    assert {metric.name for metric in run.metrics() if metric.context == {}} >= aims
    assert len(quiet.metrics()) == 0


@pytest.mark.parametrize("interval", [0, -1, 86401, "10", True, math.nan])
def test_an_interval_that_is_none_is_refused(here: Path, interval: Any) -> None:
    with pytest.raises(ValueError, match="system_tracking_interval"):
        Run(system_tracking_interval=interval)
    assert names(here) == []


def test_a_finished_run_is_reopened(script: Script, here: Path) -> None:
    """Reopen and continue finished `Run`s."""
    script("from aimlite import Run; my_run = Run('one'); my_run['a'] = 1; my_run.track(1, name='loss')")
    assert Repo().get_run("one").status == "finished"
    run = Run("one")
    run["b"] = 2
    run.track(2, name="loss")
    assert (run.status, run[...], run.get_metric("loss").values.sparse_list()) == ("running", {"a": 1, "b": 2}, ([0, 1], [1, 2]))
    run.close()
    assert run.status == "finished"


def test_several_runs_in_one_script(script: Script, here: Path) -> None:
    """Use multiple `Run`s in one training script to store multiple runs at once."""
    script("""
from aimlite import Run
runs = [Run(experiment=f'e{k}') for k in range(3)]
for step in range(10):
    for k, run in enumerate(runs):
        run.track(k * step, name='loss', step=step)
""")
    found = {run.experiment: run.get_metric("loss").values.tolist() for run in Repo().iter_runs()}
    assert found == {f"e{k}": [k * step for step in range(10)] for k in range(3)}


def test_params_are_logged(stored: Path) -> None:
    [run] = Repo(stored).iter_runs()
    assert run[...] == {"hparams": {"learning_rate": 0.0001, "batch_size": 32}}
    assert run["hparams"]["learning_rate"] == 0.0001


def test_nearly_any_dictionary_is_tracked(here: Path) -> None:
    """Track nearly any python dictionary. docs/types.md has the rest."""
    given = {"s": "x", "n": None, "l": [1, {"a": (2.5, True)}], "d": {"e": {}, 1: b"x"}, "a": {1, 2}}
    run = Run()
    run["hparams"] = given
    assert run["hparams"] == given


def test_metrics_are_logged(stored: Path) -> None:
    [run] = Repo(stored).iter_runs()
    [metric] = run.metrics()
    assert (metric.name, metric.context, metric.count) == ("loss", {"subset": "train"}, 1000)
    assert metric.values.sparse_list() == (list(range(1000)), [step * 10 for step in range(1000)])
    assert set(metric.epochs.tolist()) == {0}


def test_step_epoch_and_context_are_optional(here: Path) -> None:
    run = Run()
    for value in (0.5, 0.25):
        run.track(value, name="accuracy")
    run.track(28.5, "bleu")
    metric = run.get_metric("accuracy")
    assert (metric.values.sparse_list(), metric.context) == (([0, 1], [0.5, 0.25]), {})
    assert np.isnan(metric.epochs.values_numpy()).all()
    assert run.get_metric("bleu").last == 28.5


def test_a_repo_gives_what_was_logged(stored: Path) -> None:
    """Use `Repo` object to query and access logged `Run`s."""
    my_repo = Repo(str(stored))
    query = "metric.name == 'loss'"  # Example query

    # Get collection of metrics
    seen = 0
    for run_metrics_collection in my_repo.query_metrics(query).iter_runs():
        for metric in run_metrics_collection:
            # Get run params
            params = metric.run[...]
            # Get metric values
            steps, metric_values = metric.values.sparse_numpy()
            assert params == {"hparams": {"learning_rate": 0.0001, "batch_size": 32}}
            assert (steps.dtype, metric_values.dtype) == (np.int64, np.float64)
            assert (metric_values == steps * 10).all()
            assert (np.diff(steps) > 0).all()
            seen += len(steps)
    assert seen == 1000


def test_params_and_experiments_are_queried(stored: Path) -> None:
    """Params and experiment names are used in queries."""
    my_repo = Repo(stored)
    [found] = my_repo.query_runs("run.experiment == 'experiment_name' and run.hparams.batch_size == 32")
    assert found.run["hparams", "learning_rate"] == 0.0001
    assert len(my_repo.query_runs("run.hparams.learning_rate > 0.0001")) == 0


# -- 001: concepts ----


def test_a_run_holds_metrics_params_and_other_data(here: Path) -> None:
    """A run is the tracked data for a single experiment: metrics and objects, hyperparams and other data."""
    run = Run()
    run["hparams"] = {"lr": 0.1}
    run.track(1, name="loss")
    run.name, run.description = "the first", "of many"
    run.add_tag("baseline")
    read = Repo().get_run(run.hash)
    assert (read["hparams"], read.get_metric("loss").last) == ({"lr": 0.1}, 1)
    assert (read.name, read.description, read.tags) == ("the first", "of many", ["baseline"])


def test_a_repo_is_one_directory_of_runs(script: Script, here: Path) -> None:
    """Multiple runs data is stored in a single directory. The repo iterates over the stored data."""
    for k in range(3):
        script(f"from aimlite import Run; run = Run('run{k}'); run['k'] = {k}")
    assert names(here) == [".aimlite"]
    assert [(run.hash, run["k"]) for run in Repo().iter_runs()] == [("run2", 2), ("run1", 1), ("run0", 0)]


@pytest.mark.parametrize(
    "conf", [{"lr": 0.1, "layers": [1, 2]}, omegaconf.OmegaConf.create({"lr": 0.1, "layers": [1, 2]})], ids=["dict", "omegaconf"]
)
def test_a_whole_configuration_is_set_at_once(here: Path, conf: Any) -> None:
    """A dictionary-like interface to set and access run params. Python dictionaries and `OmegaConf` configs."""
    run = Run()
    run['hparams'] = conf  # fmt: skip
    assert run["hparams"] == {"lr": 0.1, "layers": [1, 2]}
    assert (list(run), len(run), "hparams" in run, run.get("none")) == (["hparams"], 1, True, None)
    del run["hparams"]
    assert run[...] == {}


def test_a_sequence_is_of_one_kind_in_order_and_bound_to_a_run(here: Path) -> None:
    """The sequence is a set of homogeneous ordered objects. It must be bound to the Run object."""
    run = Run()
    for step in (5, 1, 3):
        run.track(step / 2, name="loss", step=step)
    metric = run.get_metric("loss")
    assert (metric.run, metric.indices.tolist(), metric.values.tolist()) == (run, [1, 3, 5], [0.5, 1.5, 2.5])
    with pytest.raises(TypeError, match="a number, not str"):
        run.track("text", name="loss")
    with pytest.raises(TypeError, match="run"):
        Metric("loss", None)  # type: ignore[call-arg]


def test_a_tracked_value_is_appended_to_an_existing_or_a_new_sequence(here: Path) -> None:
    run = Run()
    run.track(1, name="a")
    assert [metric.name for metric in run.metrics()] == ["a"]
    run.track(2, name="a")
    run.track(3, name="b")
    assert {metric.name: metric.values.tolist() for metric in run.metrics()} == {"a": [1, 2], "b": [3]}


def test_a_sequence_is_sliced(here: Path) -> None:
    """Each sequence can be sliced further down."""
    run = Run()
    run.track_columns("loss", np.arange(100.0))
    steps, values = run.get_metric("loss").values[10:20]
    assert (steps.tolist(), values.tolist()) == (list(range(10, 20)), list(map(float, range(10, 20))))


def test_a_metric_is_a_sequence_that_converts_to_numpy(here: Path) -> None:
    """Metric is a sequence of scalars; SDK provides methods to convert it to `numpy.ndarray`."""
    run = Run()
    run.track(0.5, name="loss")
    metric = run.get_metric("loss")
    assert isinstance(metric, Sequence)
    assert all(isinstance(array, np.ndarray) for array in (*metric.values.sparse_numpy(), metric.values.values_numpy()))


def test_contexts_tell_sequences_of_one_name_apart(here: Path) -> None:
    """Sequences with the same name but with different context can perfectly coexist. The resulting Run will have 3 metrics."""
    run = Run()
    for k, subset in enumerate(("train", "val", "test")):
        run.track(k, name="loss", context={"subset": subset})
    assert sorted((metric.name, metric.context["subset"], metric.last) for metric in run.metrics()) == [
        ("loss", "test", 2),
        ("loss", "train", 0),
        ("loss", "val", 1),
    ]
    other = Run()
    other.track(9, name="loss", context={"subset": "train"})
    assert run.get_metric("loss", {"subset": "train"}).values.tolist() == [0]
    assert run.get_metric("loss", {"subset": "train"}) != other.get_metric("loss", {"subset": "train"})


def test_odd_and_even_numbers(script: Script, here: Path) -> None:
    script("""
from aimlite import Run

aim_run = Run()
for i in range(100):
    if i % 2 == 0:
        aim_run.track(i, name=r'numbers', context={'odds': True})
    else:
        aim_run.track(i, name=r'numbers', context={'odds': False})
""")
    [run] = Repo().iter_runs()
    assert len(run.metrics()) == 2
    for odds, numbers in ((True, range(0, 100, 2)), (False, range(1, 100, 2))):
        assert run.get_metric("numbers", {"odds": odds}).values.sparse_list() == (list(range(50)), list(numbers))


# -- 002: configuring runs ----

REUSE = """
from aimlite import Run

# You can also use ID shown in Aim Web after
# creating a run without supplying run_hash parameter
uid = '508c5b29-02c7-4875-a157-f099ea193bfa'
run = Run(run_hash=uid)
for i in range(100):
    run.track(i, step=i, name='test')
"""


def test_only_one_run_is_created_or_updated(script: Script, here: Path) -> None:
    """No matter how often this piece of code will be executed, only a single run entry will be created or updated."""
    for _ in range(3):
        script(REUSE)
        [run] = Repo().iter_runs()
        assert run.hash == "508c5b29-02c7-4875-a157-f099ea193bfa"
        assert len(run.metrics()) == 1
        assert run.get_metric("test").values.sparse_list() == (list(range(100)), list(range(100)))


def test_a_hash_restores_a_run(script: Script, here: Path) -> None:
    """Handy if you want to update something or add new metrics in your already existing run."""
    script(REUSE + "run['a'] = {'b': 1, 'c': 2}")
    run = Run(run_hash="508c5b29-02c7-4875-a157-f099ea193bfa")
    run["a", "b"] = 3
    run.track(1, name="new")
    assert run["a"] == {"b": 3, "c": 2}
    assert [(metric.name, metric.count) for metric in run.metrics()] == [("new", 1), ("test", 100)]


def test_a_hash_is_generated_only_if_none_is_supplied(here: Path) -> None:
    """If skipped, the hash will be generated automatically: a unique id."""
    hashes = {Run().hash for _ in range(20)}
    assert len(hashes) == 20
    assert all(len(run_hash) == 24 and int(run_hash, 16) for run_hash in hashes)
    assert Run(run_hash="mine").hash == "mine"


def test_a_repo_is_a_path_or_an_object(here: Path, tmp_path: Path) -> None:
    """Aim repository path or Repo object to which Run object is bound. If skipped, default Repo is used."""
    for repo in (str(tmp_path / "a"), tmp_path / "b", Repo(tmp_path / "c")):
        run = Run(repo=repo)
        assert run.repo == (repo if isinstance(repo, Repo) else Repo(repo))
        assert run.repo.list_all_runs() == [run.hash]
    assert Run().repo == Repo() == Repo(here)


def test_a_run_writes_unless_it_is_read_only(here: Path) -> None:
    """Default is False, meaning Run object can be used to track metrics."""
    assert inspect.signature(Run).parameters["read_only"].default is False
    run = Run("r")
    run.track(1, name="loss")
    read = Run("r", read_only=True)
    assert (run.read_only, read.read_only) == (False, True)
    for write in (lambda: read.track(2, name="loss"), lambda: read.set("a", 1), lambda: setattr(read, "name", "n")):
        with pytest.raises(ReadOnlyError):
            write()
    assert read.get_metric("loss").values.tolist() == [1]


def test_the_experiment_is_default_if_not_specified(here: Path) -> None:
    assert (Run().experiment, Run(experiment="mine").experiment) == ("default", "mine")
    Run("r", experiment="first").close()
    assert Run("r").experiment == "first"


def test_the_working_directory_gets_a_repo(script: Script, here: Path) -> None:
    """The library automatically creates an `.aimlite` directory in your current directory."""
    script("from aimlite import Run; Run()")
    assert names(here) == [".aimlite"]


HOME = """
from aimlite import Run

run = Run(repo="~/repo")
...
"""


def test_a_repo_below_the_home_directory(script: Script, here: Path, home: Path) -> None:
    """The code above will create a new dir entry `~/repo/.aimlite`. A new directory will be created or just reused."""
    for count in (1, 2):
        script(HOME)
        assert (names(home), names(home / "repo"), names(here)) == (["repo"], [".aimlite"], [])
        assert len(Repo("~/repo").list_all_runs()) == count


def test_system_params_can_be_asked_for(here: Path) -> None:
    """`log_system_params=True` enables logging; by default it is disabled."""
    assert inspect.signature(Run).parameters["log_system_params"].default is False
    run = Run(log_system_params=True)
    run["a"] = 1
    run.close()
    assert run["a"] == 1
    assert sorted(run) == ["__system_params", "a"]
    assert Run()[...] == {}
    for wrong in (1, None, "yes"):
        with pytest.raises(TypeError, match="log_system_params"):
            Run(log_system_params=wrong)  # type: ignore[arg-type]


def test_the_environment_is_logged(script: Script, here: Path) -> None:
    """Environment variables, executables, CLI arguments, installed packages and their versions, git information."""
    repository = """
git init -q -b feature/testing . && git remote add origin https://me:hunter2@example.com/a/b.git &&
git -c user.name=Ann -c user.email=ann@example.com -c commit.gpgsign=false commit -q --allow-empty -m first
"""
    subprocess.run(["sh", "-c", repository], cwd=here, check=True)
    script("""
import os
os.environ["CUDA_VISIBLE_DEVICES"] = "0"
from aimlite import Run
run = Run(log_system_params=True)
""")
    [run] = Repo().iter_runs()
    logged = run["__system_params"]
    assert logged["env_variables"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert logged["executable"] == sys.executable
    assert isinstance(logged["arguments"], list)
    assert logged["packages"]["numpy"] == np.__version__
    git = logged["git_info"]
    assert (git["branch"], git["remote_origin_url"], git["commit"]["author"]) == ("feature/testing", "https://example.com/a/b.git", "Ann")
    assert len(git["commit"]["hash"]) == 40
    assert abs(git["commit"]["timestamp"] - run.creation_time) < 3600


def test_runs_are_filtered_by_what_was_logged(here: Path) -> None:
    """These logged parameters can be used in the search box to filter runs. Everything is searchable."""
    subprocess.run(["git", "init", "-q", "-b", "feature/testing", "."], cwd=here, check=True)
    run = Run(log_system_params=True)
    run.close()
    Run().close()
    repo = Repo()
    for merged in (False, True):
        if merged:
            repo.merge()
        assert repo.query_runs("run.__system_params.git_info.branch == 'feature/testing'").hashes() == [run.hash]
        assert repo.query_runs("run.__system_params.git_info.branch == 'main'").hashes() == []
