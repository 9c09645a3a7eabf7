from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from aimlite import Repo, Run

Command = Callable[..., Result]
HOSTILE = "\x1b[31m[bold red]evil[/]\x9b2J\n\u202ereversed\t\x07"
HARMLESS = r"\x1b[31m[bold red]evil[/]\x9b2J\n\u202ereversed\t\x07"


@pytest.fixture
def run(repo: Repo) -> Run:
    run = Run("shown", repo=repo, experiment="e")
    run.description = "two\nlines"
    run["hparams"] = {"lr": 0.1, "layers": [64, {"kind": "conv"}], "a.b": None, 3: b"\x00\xff", "nan": math.nan, "empty": {}}
    for step in range(10):
        run.track({"loss": 1 / (step + 1)}, step=step, context={"subset": "train"})
    run.track(math.inf, name="loss", step=5, context={"subset": "val"})
    run.track(2, name="acc")
    run.close()
    return run


def test_lines(aimlite: Command, run: Run) -> None:
    properties, params, metrics = aimlite("show", "shown").stdout.split("\n\n")
    said = dict(line.split("\t") for line in properties.splitlines())
    assert (said["hash"], said["experiment"], said["status"], said["metric_count"]) == ("shown", "e", "finished", "3")
    assert said["description"] == r"two\nlines"
    assert params.splitlines() == [
        'hparams.3 = "AP8="',
        'hparams."a.b" = null',
        "hparams.empty = {}",
        'hparams.layers = [64, {"kind": "conv"}]',
        "hparams.lr = 0.1",
        'hparams.nan = "NaN"',
    ]
    assert metrics.splitlines() == [
        "acc\t{}\t1\t0\t0\t2.0\t2.0\t2.0",
        'loss\t{"subset": "train"}\t10\t0\t9\t0.1\t0.1\t1.0',
        'loss\t{"subset": "val"}\t1\t5\t5\tinf\tinf\tinf',
    ]


def test_names_choose_metrics(aimlite: Command, run: Run) -> None:
    assert aimlite("show", "shown", "acc").stdout == "acc\t{}\t1\t0\t0\t2.0\t2.0\t2.0\n"
    missing = aimlite("show", "shown", "acc", "nope")
    assert (missing.exit_code, missing.stderr) == (3, "error: run shown has no metric 'nope'; it has acc, loss\n")


def test_document(aimlite: Command, run: Run) -> None:
    shown = json.loads(aimlite("show", "shown", "--json").stdout, parse_constant=pytest.fail)
    assert shown["params"]["hparams"] == {
        "3": "AP8=",
        "a.b": None,
        "empty": {},
        "layers": [64, {"kind": "conv"}],
        "lr": 0.1,
        "nan": "NaN",
    }
    assert shown["description"] == "two\nlines"
    assert [(metric["name"], metric["context"], metric["count"], metric["max"]) for metric in shown["metrics"]] == [
        ("acc", {}, 1, 2.0),
        ("loss", {"subset": "train"}, 10, 1.0),
        ("loss", {"subset": "val"}, 1, "Infinity"),
    ]
    assert shown["metrics"][0].keys() == {"name", "context", "dtype", "count", "first_step", "last_step", "first", "last", "min", "max"}


def test_params_that_json_lacks(aimlite: Command, repo: Repo) -> None:
    with Run("r", repo=repo) as run:
        run["k"] = {"tuple": (1, 2), "set": {3, 1}, "when": datetime(2026, 1, 2, 3, 4, 5), "array": np.arange(3), "inf": -math.inf}
    expected = {"tuple": [1, 2], "set": [1, 3], "when": "2026-01-02T03:04:05", "array": [0, 1, 2], "inf": "-Infinity"}
    assert json.loads(aimlite("show", "r", "--json").stdout)["params"]["k"] == expected
    lines = dict(line.split(" = ") for line in aimlite("show", "r").stdout.splitlines() if " = " in line)
    assert {path.removeprefix("k."): json.loads(text) for path, text in lines.items()} == expected


def test_the_beginning_of_a_hash_is_enough(aimlite: Command, run: Run, repo: Repo) -> None:
    Run("show", repo=repo).close()
    Run("sh-other", repo=repo).close()
    assert aimlite("show", "shown").stdout.startswith("hash\tshown\n")
    assert aimlite("show", "show").stdout.startswith("hash\tshow\n")  # a whole one, though another begins with it
    assert aimlite("show", "sh-").stdout.startswith("hash\tsh-other\n")
    several, none = aimlite("show", "sho"), aimlite("show", "x")
    assert (several.exit_code, several.stderr) == (
        2,
        "error: several runs have a hash that begins with 'sho': show, shown; give more of it\n",
    )
    assert (none.exit_code, none.stdout) == (3, "")
    assert "no run has a hash that begins with 'x'" in none.stderr


def test_many_candidates_are_cut_short(aimlite: Command, repo: Repo) -> None:
    for number in range(20):
        Run(f"run{number:02}", repo=repo).close()
    assert "run00, run01, run02, run03, run04, run05, run06, run07, …;" in aimlite("show", "run").stderr


def test_plot_draws_each_name_with_a_curve_for_each_context(aimlite: Command, run: Run) -> None:
    drawn = aimlite("show", "shown", "loss", "acc", "--plot").stdout.split("\n\n")[1:]
    assert ["acc" in drawn[0].splitlines()[0], "loss" in drawn[1].splitlines()[0]] == [True, True]
    assert 'a {"subset": "train"}' in drawn[1].splitlines()[-1]
    assert 'b {"subset": "val"}' in drawn[1].splitlines()[-1]
    assert max(map(len, "\n".join(drawn).splitlines())) <= 80


def test_plot_of_what_cannot_be_drawn(aimlite: Command, repo: Repo) -> None:
    with Run("r", repo=repo) as run:
        run.track(math.nan, name="broken")
    assert aimlite("show", "r", "--plot").stdout.endswith("\nbroken: no value that can be drawn\n")


def test_plot_of_many_contexts_is_several_charts(aimlite: Command, repo: Repo) -> None:
    with Run("r", repo=repo) as run:
        for fold in range(20):
            run.track({"m": fold}, step=1, context={"fold": fold})
    shown = aimlite("show", "r", "m", "--plot").stdout
    assert [shown.count(f"{letter} {{") for letter in "abcdh"] == [3, 3, 3, 3, 2]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_shows_a_tree_and_a_table(terminal: Callable[..., str], run: Run, repo_path: str, columns: int) -> None:
    lines = terminal(columns, "show", "shown", "--plot", "--repo", repo_path).splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[lines.index("params") + 1 :][:2] == ["└── hparams", '    ├── 3 = "AP8="']
    [head] = [line.split() for line in lines if line.startswith("metric ")]
    assert {"metric", "last"} <= set(head)
    assert ("step" in head) == (columns >= 80)
    assert any("⠀" < character <= "⣿" for character in "".join(lines))


@pytest.fixture
def system(repo: Repo) -> Run:
    """A run with something of its own and something of the system's, as those who record it write it."""
    with Run("watched", repo=repo) as run:
        run["hparams"] = {"lr": 0.1}
        run["__system_params"] = {
            "arguments": ["train.py"],
            "env_variables": {"HOME": "/root", "LANG": "C"},
            "packages": {"torch": "2.3", "zope.interface": "7"},
            "git_info": {"branch": "main", "diff": "-a\n+b\n", "commit": {}},
            "gpus": {},
        }
        run.track({"loss": 0.5, "Zeta": 1})
        run.track({"__system__cpu": 50.0, "__system__p_threads": 2})
        run.track(61, name="__system__gpu_temp", context={"gpu": 0})
    return run


def test_a_terminal_folds_what_the_system_told(terminal: Callable[..., str], system: Run, repo_path: str) -> None:
    shown = [line.rstrip() for line in terminal(120, "show", "watched", "--repo", repo_path).splitlines()]
    at = shown.index("params")
    assert shown[at : at + 12] == [
        "params",
        "└── hparams",
        "    └── lr = 0.1",
        "",
        "system params",
        '├── arguments = ["train.py"]',
        "├── env_variables: 2 of them, --system shows them",
        "├── git_info",
        '│   ├── branch = "main"',
        "│   ├── commit = {}",
        "│   └── diff: 2 lines, --system shows them",
        "├── gpus = {}",
    ]
    assert [line.split()[0] for line in shown[-4:-2]] == ["Zeta", "loss"]
    assert shown[-1] == "and 3 system metrics: --system shows them"
    whole = terminal(120, "show", "watched", "--system", "--repo", repo_path)
    assert all(text in whole for text in ('LANG = "C"', 'torch = "2.3"', 'diff = "-a', "__system__gpu_temp", "__system__cpu"))
    assert "shows them" not in whole
    named = terminal(120, "show", "watched", "__system__cpu", "--repo", repo_path)
    assert "__system__cpu" in named
    assert "shows them" not in named


@pytest.mark.parametrize("packages", [5, 0.5, True, None, b"x", (1, 2)])
def test_what_the_system_did_not_tell_is_shown_as_it_is(terminal: Callable[..., str], repo: Repo, repo_path: str, packages: Any) -> None:
    with Run("odd", repo=repo) as run:
        run["__system_params"] = {"packages": packages, "git_info": 5}
    lines = [line.rstrip() for line in terminal(120, "show", "odd", "--repo", repo_path).splitlines()]
    assert lines[lines.index("system params") + 1] == "├── git_info = 5"
    assert lines[lines.index("system params") + 2].startswith("└── packages = ")


def test_programs_get_all_of_it_and_charts_only_what_is_asked_for(aimlite: Command, system: Run) -> None:
    lines = aimlite("show", "watched").stdout
    assert '__system_params.packages."zope.interface" = "7"\n' in lines
    assert [line.split("\t")[0] for line in lines.split("\n\n")[-1].splitlines()] == [
        *("Zeta", "loss"),
        *("__system__cpu", "__system__gpu_temp", "__system__p_threads"),
    ]
    document = json.loads(aimlite("show", "watched", "--json").stdout)
    assert (document["params"]["__system_params"]["env_variables"]["LANG"], len(document["metrics"])) == ("C", 5)
    assert document["metric_count"] == 2
    for options, drawn in (((), False), (("--system",), True), (("__system__cpu",), True)):
        lines = aimlite("show", "watched", "--plot", *options).stdout.splitlines()
        assert any(line.strip() == "__system__cpu" for line in lines) == drawn


def test_what_the_system_told_is_listed_last_and_not_counted(aimlite: Command, system: Run) -> None:
    assert aimlite("ls").stdout.rstrip("\n").split("\t")[-1] == "2"
    assert [line.split("\t")[0] for line in aimlite("metrics").stdout.splitlines()] == [
        *("Zeta", "loss"),
        *("__system__cpu", "__system__gpu_temp", "__system__p_threads"),
    ]
    params = [line.split("\t")[0] for line in aimlite("params").stdout.splitlines()]
    assert params[0] == "hparams.lr"
    assert all(path.startswith("__system_params.") for path in params[1:])
    assert len(params) == 10


@pytest.mark.parametrize("columns", [60, 200])
def test_hostile_data_reaches_no_terminal(terminal: Callable[..., str], repo: Repo, repo_path: str, columns: int) -> None:
    run = Run("hostile", repo=repo, experiment=HOSTILE)
    run.name = run.description = HOSTILE
    run[HOSTILE] = {HOSTILE: HOSTILE, "list": [HOSTILE]}
    run.track(1, name=HOSTILE, context={HOSTILE: HOSTILE})
    run.close()
    commands = [["ls"], ["show", "hostile", "--plot"], ["show", "hostile", HOSTILE, "nope\x1b["], ["export", "hostile"]]
    for command in commands:
        text = terminal(columns, *command, "--repo", repo_path)
        assert not set(HOSTILE) & set(text) - set("\n") - set(HARMLESS)
        assert "[bold" in text


def test_hostile_data_is_harmless_in_lines(aimlite: Command, repo: Repo) -> None:
    with Run("hostile", repo=repo, experiment=HOSTILE) as run:
        run["k"] = HOSTILE
    assert aimlite("ls").stdout.split("\t")[2] == HARMLESS
    assert json.loads(aimlite("ls", "--json").stdout)[0]["experiment"] == HOSTILE
    [line] = [line for line in aimlite("show", "hostile").stdout.splitlines() if line.startswith("k = ")]
    assert json.loads(line.removeprefix("k = ")) == HOSTILE
    assert set(HOSTILE) & set(line) <= set(HARMLESS)
