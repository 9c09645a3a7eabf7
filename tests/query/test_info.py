"""What there is to ask for: the params and metrics of a whole repo, in one order however much of it is merged."""

from __future__ import annotations

from aimlite import Repo, Run
from aimlite.storage.blobs import list_blobs


def test_params_and_sequences_are_in_one_order_before_and_after_a_merge(repo: Repo) -> None:
    for name in ("z", "a"):
        with Run(name, repo=repo) as run:
            run[name] = {"x": 1, 3: "text"}
            run.track(1, name="loss", context={"of": name})
            run.track(1, name="loss")
    unmerged = repr(repo.collect_params_info()), repr(repo.collect_sequence_info("metric"))
    repo.merge()
    assert (repr(repo.collect_params_info()), repr(repo.collect_sequence_info("metric"))) == unmerged
    leaves = {"x": {"__example_type__": "<class 'int'>"}, 3: {"__example_type__": "<class 'str'>"}}
    assert list(repo.collect_params_info().items()) == [("a", leaves), ("z", leaves)]
    assert repo.collect_sequence_info("metric") == {"metric": {"loss": [{}, {"of": "a"}, {"of": "z"}]}}


def test_a_param_that_is_lost_with_its_blob_is_none(repo: Repo) -> None:
    """Merged or not; where another run has it still, that tells its type."""
    large = "x" * 2_000_000
    for merges in (False, True):
        with Run("lost", repo=repo) as run:
            run["p"] = {"text": large, "kept": 1}
            run["q"] = large
        assert repo.collect_params_info()["q"] == {"__example_type__": "<class 'str'>"}
        if merges:
            repo.merge()
        (blob,) = list_blobs(repo._layout.blobs)
        blob.unlink()
        repo.repair()
        assert repo.collect_params_info() == {"p": {"kept": {"__example_type__": "<class 'int'>"}}}
        with Run("other", repo=repo) as run:
            run["q"] = 5
        assert repo.collect_params_info()["q"] == {"__example_type__": "<class 'int'>"}
        repo.delete_runs(["lost", "other"], permanent=True)
    assert repo.collect_params_info() == {}
