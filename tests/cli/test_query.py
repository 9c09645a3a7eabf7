from __future__ import annotations

import csv
import json
from collections.abc import Callable
from io import StringIO

import pytest
from click.testing import Result

from aimlite import Repo, Run

Command = Callable[..., Result]
HOSTILE = "\x1b[31m[bold red]evil[/]\x9b2J\n\u202ereversed\t\x07"


@pytest.fixture
def runs(repo: Repo) -> Repo:
    """r0 to r2 of lr 0.1, 0.2, 0.3, and an archived one."""
    for number in range(3):
        with Run(f"r{number}", repo=repo) as run:
            run["hparams"] = {"lr": (number + 1) / 10, "layers": [number], HOSTILE: HOSTILE}
            run["r,1"] = None
            run.track(3 - number, name="loss", context={"subset": "val"})
            run.track(number, name=HOSTILE)
    with Run("old", repo=repo) as run:
        run.archived = True
        run["hparams"] = {"lr": 0.2}
    return repo


def hashes(result: Result) -> list[str]:
    assert (result.exit_code, result.stderr) == (0, "")
    return [line.split("\t")[0] for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "r2 r1 r0"),
        (["run.hparams.lr > 0.15"], "r2 r1"),
        (["run.hparams.lr > 0.15 and run.archived in (True, False)"], "old r2 r1"),
        (["--order-by", "run.hparams.lr"], "r0 r1 r2"),
        (["--order-by", "run.metrics['loss', {'subset': 'val'}].last", "--descending", "--limit", "2"], "r0 r1"),
        (["--limit", "1"], "r2"),
        (["metric.last == 2", "--metrics"], "r2 r1"),
        (["metric.name == 'loss'", "--metrics", "--order-by", "metric.last"], "r2 r1 r0"),
        (["False"], ""),
    ],
    ids=str,
)
def test_what_is_found_in_which_order(aimlite: Command, runs: Repo, arguments: list[str], expected: str) -> None:
    assert hashes(aimlite("query", *arguments)) == expected.split()
    key = "run" if "--metrics" in arguments else "hash"
    assert [document[key] for document in json.loads(aimlite("query", *arguments, "--json").stdout)] == expected.split()
    table = list(csv.DictReader(StringIO(aimlite("query", *arguments, "--csv").stdout)))
    assert [row[key] for row in table] == expected.split()


def test_runs_are_those_of_ls(aimlite: Command, runs: Repo) -> None:
    assert aimlite("query").stdout == aimlite("ls").stdout
    found = aimlite("ls", "--query", "run.hparams.lr > 0.15", "--sort", "hash", "--reverse")
    assert hashes(found) == ["r2", "r1"]
    assert hashes(aimlite("ls", "--query", "run.archived")) == ["old"]
    assert aimlite("ls", "--query", "run.archived", "--archived").exit_code == 2


def test_csv_has_the_params(aimlite: Command, runs: Repo) -> None:
    [row] = csv.DictReader(StringIO(aimlite("query", "run.hash == 'r1'", "--csv").stdout))
    assert (row["hash"], row["status"], row["run.hparams.lr"], row["run.hparams.layers"], row['run."r,1"']) == (
        *("r1", "finished", "0.2"),
        *("[1]", ""),
    )
    assert aimlite("query", "False", "--csv").stdout == "hash\n"
    assert aimlite("query", "False", "--csv", "--metrics").stdout == "run,name,context\n"


def test_documents(aimlite: Command, runs: Repo) -> None:
    [run] = json.loads(aimlite("query", "run.hash == 'r1'", "--json").stdout)
    assert run["params"] == {"hparams": {"lr": 0.2, "layers": [1], HOSTILE: HOSTILE}, "r,1": None}
    [metric] = json.loads(aimlite("query", "metric.name == 'loss' and run.hash == 'r1'", "--metrics", "--json").stdout)
    assert (metric["run"], metric["name"], metric["context"], metric["last"]) == ("r1", "loss", {"subset": "val"}, 2)


def test_a_malformed_query_is_wrong_usage(aimlite: Command, runs: Repo) -> None:
    for command in (["query"], ["ls", "--query"]):
        failed = aimlite(*command, "run.hparams.lr = 日本")
        assert (failed.exit_code, failed.stdout) == (2, "")
        assert failed.stderr == "error: one `=` sets something; `==` compares\n  run.hparams.lr = 日本\n                 ^\n"
    assert aimlite("query", "1 < 2 \x1b[31m").stderr.splitlines()[1:] == [r"  1 < 2 \x1b[31m", "        ^^^^"]
    assert aimlite("query", "run.x", "--order-by", "日本").stderr.splitlines()[1:] == ["  日本", "  ^^^^"]
    error = json.loads(aimlite("query", "nope == 1", "--json").stderr)["error"]
    assert error == {"kind": "QuerySyntaxError", "message": "there is no 'nope'; a param is run.nope", "exit_code": 2}
    for arguments in (["--csv", "--json"], ["--descending"], ["--timeout", "nan"], ["--timeout", "0"], ["--limit", "0"], ["-1 < run.x"]):
        assert aimlite("query", *arguments).exit_code == 2
    assert hashes(aimlite("query", "--", "-1 < run.hparams.lr < 0.15")) == ["r0"]


def test_a_query_that_takes_too_long_or_makes_too_much_fails(aimlite: Command, runs: Repo) -> None:
    endless = "any(x < 0 for x in range(9999) for y in range(9999))"
    failed = aimlite("query", endless, "--timeout", "0.05")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: the query did not end within 0.05 s")
    assert aimlite("query", "len('a' * 10**9)").exit_code == 1


def test_warnings_go_to_stderr(aimlite: Command, runs: Repo) -> None:
    for command in (["query"], ["ls", "--query"], ["query", "--explain"]):
        found = aimlite(*command, "run.hparams.rl > 1 / 0")
        assert found.exit_code == 0
        assert found.stderr.splitlines() == [
            "warning: no run has a param 'hparams.rl'; did you mean 'hparams.lr'?",
            f"warning: {len(runs.list_all_runs()) - 1} rows could not be evaluated and did not match",
        ]
    assert json.loads(aimlite("query", "run.nothing_like_it", "--json").stderr) == {"warning": "no run has a param 'nothing_like_it'"}


def test_explain(aimlite: Command, runs: Repo) -> None:
    runs.merge()
    told = aimlite("query", "run.hparams.lr < 0.25 and run.hparams.lr * 2 > 0.3", "--explain")
    assert told.exit_code == 0
    assert "run.hparams.lr < 0.25" in told.stdout
    assert "not from the index: run.hparams.lr * 2 > 0.3" in told.stdout
    assert "└─ matched: 1\n" in told.stdout
    assert "\x1b" not in aimlite("query", f"run.name == {HOSTILE[:9]!r}", "--explain").stdout


def test_plots(aimlite: Command, runs: Repo) -> None:
    drawn = aimlite("query", "metric.name == 'loss' and run.hparams.lr > 0.15", "--plot")
    assert drawn.exit_code == 0
    assert 'r2 {"subset": "val"}' in drawn.stdout
    assert "r0" not in drawn.stdout


def test_params_and_metrics(aimlite: Command, runs: Repo) -> None:
    assert aimlite("params").stdout.splitlines() == [
        r'hparams."\u001b[31m[bold red]evil[/]\u009b2J\n\u202ereversed\t\u0007"' + "\tstr",
        "hparams.layers\tlist",
        "hparams.lr\tfloat",
        '"r,1"\tNoneType',
    ]
    assert json.loads(aimlite("params", "--json").stdout)[1] == {"path": ["hparams", "layers"], "type": "list"}
    assert aimlite("metrics").stdout.splitlines() == [
        r"\x1b[31m[bold red]evil[/]\x9b2J\n\u202ereversed\t\x07" + "\t{}",
        'loss\t{"subset": "val"}',
    ]
    assert json.loads(aimlite("metrics", "--json").stdout)[1] == {"name": "loss", "context": {"subset": "val"}}


def test_a_param_that_some_runs_have_as_a_map_is_listed_as_both(aimlite: Command, repo: Repo) -> None:
    for run_hash, value in (("one", 1), ("two", {"x": "y"})):
        with Run(run_hash, repo=repo) as run:
            run["p"] = value
    assert aimlite("params").stdout == "p\tint\np.x\tstr\n"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_tables_fit_the_terminal(terminal: Callable[..., str], runs: Repo, repo_path: str, columns: int) -> None:
    from rich.cells import cell_len

    shown = [
        terminal(columns, "--repo", repo_path, *arguments)
        for arguments in (["query"], ["query", "--metrics"], ["query", "metric.name == 'loss'", "--plot"], ["params"], ["metrics"])
    ]
    for text in shown:
        assert max(map(cell_len, text.splitlines())) <= columns
        assert not set(text) & set("\x07\x9b\u202e\t")
    assert [line.split()[0] for line in shown[0].splitlines()[2:]] == ["r2", "r1", "r0"]
    assert shown[1].splitlines()[0].split()[:2] == ["run", "metric"]


def test_a_terminal_sees_the_part_of_a_long_query_that_is_meant(terminal: Callable[..., str], runs: Repo, repo_path: str) -> None:
    query = " and ".join(["run.hparams.lr > 0"] * 10) + " and run.name.startwith('日本') and run.x"
    head, line, carets = terminal(40, "--repo", repo_path, "query", query).splitlines()[-3:]
    assert head.endswith("did you mean 'startswith'?")
    assert max(len(line), len(carets)) <= 40
    assert line[carets.index("^") :].startswith("run.name.startwith")
    assert terminal(200, "--repo", repo_path, "query", "False") == "no run matches\n"
