"""What a query that looks like a mistake is told."""

from __future__ import annotations

import pytest

from aimlite import QuerySyntaxError, Repo, Run


@pytest.fixture(params=["journals", "tree"])
def filled(request: pytest.FixtureRequest, repo: Repo) -> Repo:
    with Run("one", repo=repo) as run:
        run.update({"hparams": {"lr": 0.5, "layers": 5, "name": "adam"}, "a.b": 1})
        run.track(1, name="loss")
    if request.param == "tree":
        repo.merge()
    return repo


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("run.x && run.y", "it is `and`, not `&&`"),
        ("run.x || run.y", "it is `or`, not `||`"),
        ("run.x < and", "'and' is not expected here"),
        ("run.name 'x'", "a string is not expected here"),
        ("run.name == b'x'", "bytes are not part of AimQL"),
        ("run.name == 'x", "a string does not end"),
        ("'%s' % run.name == 'x'", "`%` on strings is not part of AimQL; write an f-string"),
        ("f'{run.name}%s' % 1", "`%` on strings is not part of AimQL; write an f-string"),
    ],
)
def test_what_is_malformed_is_named(repo: Repo, query: str, message: str) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        repo.query_runs(query)
    assert caught.value.msg == message


@pytest.mark.parametrize(("query", "found"), [("run.x && 1", "&&"), ("run.x || 1", "||"), ("run.x <> 1", "<>"), ("1 < and", "and")])
def test_the_caret_stands_below_what_is_meant(repo: Repo, query: str, found: str) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        repo.query_runs(query)
    error = caught.value
    assert error.offset is not None
    assert error.end_offset is not None
    assert query[error.offset - 1 : error.end_offset - 1] == found


@pytest.mark.parametrize(
    ("query", "warnings"),
    [
        ("run.hparams.rl > 0", ["no run has a param 'hparams.rl'; did you mean 'hparams.lr'?"]),
        ("run.a.b", ["no run has a param 'a.b'; did you mean run['a.b']?"]),
        ("run['a.c']", ["no run has a param run['a.c']; did you mean run['a.b']?"]),
        ("run.arkived", ["no run has a param 'arkived'; did you mean 'archived'?"]),
        ("run.zzz.startswith('a')", ["no run has a param 'zzz'"]),
        ("run.hparams.name.startswith('a') and run.get('zzz', 1)", []),
        ("'lr' in run.hparams.keys()", []),
        ("run.hparams.layers.nothing", []),
    ],
)
def test_a_param_that_no_run_has_is_warned_of(filled: Repo, query: str, warnings: list[str]) -> None:
    found = filled.query_runs(query)
    assert len(found) >= 0
    assert found.warnings == warnings


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ("run.hparams.layers is 5", True),
        ("run.hparams.layers is 3", False),
        ("run.hparams.layers is 5.0", False),
        ("run.hparams.layers is not 7", True),
        ("run.hparams.name is 'aaa'", False),
        ("run.hparams.name not in 'madman'", True),
        ("run.hparams.name not in 'madam adam'", False),
        ("run.metrics.loss.last is 1.0", True),
        ("run.metrics.loss.last is not 0.5", True),
        ("run.created_at not in '2024-01-01'", True),
    ],
)
def test_the_index_is_not_asked_what_it_cannot_answer(filled: Repo, query: str, matches: bool) -> None:
    assert len(filled.query_runs(query)) == matches


@pytest.mark.parametrize(
    "left",
    [
        "run.hparams.layers != 7",
        "not run.hparams.layers == 7",
        "run.metrics.loss.last > 0",
        "not run.metrics.loss.last > 3",
        "run.hparams.layers in (5, 6)",
        "not (run.hparams.layers == 7 and run.hparams.lr == 7)",
        "run.active == False",
    ],
)
def test_whatever_is_left_to_the_evaluation_is_explained(filled: Repo, left: str) -> None:
    for number in range(3):
        with Run(f"other{number}", repo=filled) as run:
            run["hparams"] = {"layers": 5}
            run.track(1, name="loss")
    filled.merge()
    query = f"run.hash == 'one' and {left}"
    assert filled.query_runs(query).hashes() == ["one"]
    assert ": left to the evaluation" in filled.explain(query)


def test_run_is_the_run_alone_or_that_of_the_metric(filled: Repo) -> None:
    with Run("nested", repo=filled) as run:
        run["run"] = {"hash": "inner"}
        run["list"] = [{"run": {"hash": "deep"}}]
    assert filled.query_runs("run.run.hash == 'inner'").hashes() == ["nested"]
    assert filled.query_runs("any(x.run.hash == 'deep' for x in run.list)").hashes() == ["nested"]
    assert filled.query_runs("run.run.hash == 'nested' or any(x.run.hash == 'one' for x in [1])").hashes() == []
    assert [metric.run.hash for metric in filled.query_metrics("metric.run.hash == 'one'")] == ["one"]
    with pytest.raises(QuerySyntaxError, match="'metric' has a meaning already"):
        filled.query_runs("any(metric.run.hash for metric in run.list)")


def test_what_is_about_metrics_is_told_apart(filled: Repo) -> None:
    told = filled.explain("metric.name == 'loss' and metric.last < 2 and run.hparams.layers * 2 == 10", "metrics")
    assert "├─ of the metrics: metric.name == 'loss'\n├─ of the metrics: metric.last < 2\n" in told
    assert "├─ not from the index: run.hparams.layers * 2 == 10\n" in told


def test_a_remainder_of_text_fails_in_its_row_alone(filled: Repo) -> None:
    found = filled.query_runs("run.hparams.name % 2 == 0 ")
    assert (len(found), found.warnings) == (0, ["1 row could not be evaluated and did not match"])
    assert len(filled.query_runs("run.hparams.layers % 2 == 1")) == 1


@pytest.mark.parametrize(
    "query",
    [
        "2 ** 3 ** 2 == 512",
        "-2 ** 2 == -4",
        "2 ** -1 == 0.5",
        "7 // 2 * 2 == 6",
        "-7 % 3 == 2",
        "1 << 3 == 8",
        "8 >> 1 + 1 == 2",
        "6 & 3 == 2",
        "6 ^ 3 == 5",
        "6 | 1 == 7",
        "1 | 2 ^ 3 & 4 << 1 == 3",
        "~0 == -1",
        "1 < 2 > 1 <= 1 != 2",
        "not 1 == 2 and True or False",
        "(1 if False else 2 if False else 3) == 3",
        "{1, 2} - {1} == {2} and {1} < {1, 2} and {1} | {2} == {1, 2}",
    ],
)
def test_operators_bind_as_in_python(filled: Repo, query: str) -> None:
    assert eval(query)
    assert filled.query_runs(query).hashes() == ["one"]
