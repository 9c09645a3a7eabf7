"""What explain says, what a reduced date means, and what looks like a mistake."""

from __future__ import annotations

import pytest

from aimlite import Repo, Run


@pytest.fixture
def filled(repo: Repo) -> Repo:
    for number in range(5):
        with Run(f"r{number}", repo=repo) as run:
            run["hparams"] = {"lr": number / 10, "optimizer": "adam"}
            run.track(number, name="loss", context={"subset": "train"})
    repo.merge()
    run = Run("live", repo=repo)
    run["hparams", "lr"] = 0.4
    return repo


def test_explain_tells_ranges_rows_and_what_is_left(filled: Repo) -> None:
    text = filled.explain("run.hparams.lr >= 0.3 and run.hparams.lr * 2 < 0.9")
    assert "run.hparams.lr >= 0.3" in text
    assert "not from the index: run.hparams.lr * 2 < 0.9" in text
    assert "runs of unmerged journals: 1" in text
    assert "evaluated: 3 rows" in text
    assert "matched: 3" in text
    assert "no range of the index" in filled.explain("run.hparams.lr * 2 > 0")
    metrics = filled.explain("metric.name == 'loss' and run.hparams.lr == 0.1", "metrics")
    assert "run.hparams.lr == 0.1" in metrics
    assert "matched: 1" in metrics
    with pytest.raises(ValueError, match="'runs' or 'metrics'"):
        filled.explain("", "run")


def test_a_path_that_no_run_has_is_a_warning(filled: Repo) -> None:
    found = filled.query_runs("run.hparms.lr > 0 or run.hparams.lr == 0.1")
    assert found.hashes() == ["r1"]
    assert found.warnings == ["no run has a param 'hparms.lr'; did you mean 'hparams.lr'?"]
    failing = filled.query_runs("1 / (run.hparams.lr - run.hparams.lr) > 0")
    assert failing.hashes() == []
    assert failing.warnings == ["6 rows could not be evaluated and did not match"]


def test_years_and_months_are_dates(filled: Repo) -> None:
    year = filled.get_run("r0").created_at.year
    for query, count in (
        (f"run.created_at >= '{year}'", 6),
        (f"run.created_at >= '{year + 1}-01'", 0),
        (f"'{year}-01' <= run.created_at < '{year + 1}'", 6),
        ("run.created_at > 'yesterday'", 0),
    ):
        assert len(filled.query_runs(query)) == count
        assert len(filled.query_runs(f"({query}) and run.hparams.lr * 1 >= 0")) == count


def test_what_a_repo_holds(filled: Repo) -> None:
    Run("live", repo=filled)["other"] = {1: (1, 2)}
    assert filled.collect_params_info() == {
        "hparams": {"lr": {"__example_type__": "<class 'float'>"}, "optimizer": {"__example_type__": "<class 'str'>"}},
        "other": {1: {"__example_type__": "<class 'tuple'>"}},
    }
    assert filled.collect_sequence_info(["metric", "texts"]) == {"metric": {"loss": [{"subset": "train"}]}, "texts": {}}


def test_order_limit_and_pages(filled: Repo) -> None:
    by_rate = {"order_by": "run.hparams.lr", "descending": True}
    assert filled.query_runs("run.hash.startswith('r')", **by_rate).hashes() == ["r4", "r3", "r2", "r1", "r0"]
    assert filled.query_runs(**by_rate, limit=2).hashes() == ["live", "r4"]
    assert filled.query_runs(order_by="run.hparams.optimizer").hashes()[-1] == "live", "what is missing comes last"
    everything = filled.query_runs().hashes()
    assert everything == ["live", "r4", "r3", "r2", "r1", "r0"]
    assert filled.query_runs("", True, "r3").hashes() == ["r2", "r1", "r0"]
    assert filled.query_runs("", offset="none").hashes() == []


def test_arrays_of_many_metrics(filled: Repo) -> None:
    Run("r1", repo=filled).track(10, name="loss", context={"subset": "train"})
    found = filled.query_metrics("metric.name == 'loss'", order_by="run.hash")
    ragged = found.numpy()
    assert [metric.run.hash for metric in ragged.metrics] == ["r0", "r1", "r2", "r3", "r4"]
    assert ragged.offsets.tolist() == [0, 1, 3, 4, 5, 6]
    assert ragged.steps.tolist() == [0, 0, 1, 0, 0, 0]
    assert ragged.values.tolist() == [0, 1, 10, 2, 3, 4]
    padded = found.numpy(padded=True)
    assert padded.counts.tolist() == [1, 2, 1, 1, 1]
    assert padded.values[1].tolist() == [1, 10]
    assert repr(padded.values[0].tolist()) == "[0.0, nan]"
    assert filled.query_metrics("metric.name == 'none'").numpy().steps.tolist() == []
    assert found.dataframe(only_last=True)["value"].tolist() == [0, 10, 2, 3, 4]
    assert len(found.arrow()) == 6
