"""Distributions of a model: a stand-in for torch's classes, and torch itself where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from aimlite import Distribution, Repo, Run, track_distributions
from aimlite.objects import distribution
from objects.tensors import TorchTensor


class Parameter(TorchTensor):
    def __init__(self, array: Any, grad: Any = None) -> None:
        super().__init__(array)
        self.grad = grad


class Sparse(TorchTensor):
    is_sparse = True

    def detach(self) -> Sparse:
        return self

    def coalesce(self) -> Sparse:
        return self

    def values(self) -> TorchTensor:
        return TorchTensor(self.array[self.array != 0])


class Model:
    def __init__(self) -> None:
        noise = np.random.default_rng(0)
        weight = noise.normal(size=(30, 20)).astype("f4")
        self.parameters = {
            "layer.weight": Parameter(weight, TorchTensor(weight * 2)),
            "layer.bias": Parameter(np.zeros(30, "f4"), Sparse(np.array([0, 0, 5.0, 7.0]))),
            "frozen": Parameter(np.array([1.0, np.nan, np.inf])),
        }

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return iter(self.parameters.items())


def test_every_parameter_and_gradient(repo: Repo) -> None:
    model, run = Model(), Run("r", repo=repo)
    for step in (0, 5):
        track_distributions(model, run, step, step / 5, context={"k": 1}, bin_count=16)
    expected = {
        "parameters": {name: Distribution(parameter.array, 16) for name, parameter in model.parameters.items()},
        "gradients": {
            "layer.weight": Distribution(model.parameters["layer.weight"].array * 2, 16),
            "layer.bias": Distribution([5.0, 7.0], 16),
        },
    }
    for kind, distributions in expected.items():
        found = {each.name: each for each in repo.query_distributions(f"distributions.context.type == '{kind}'")}
        assert found.keys() == distributions.keys()
        for name, sequence in found.items():
            assert sequence.context == {"k": 1, "type": kind}
            assert sequence.indices.tolist() == [0, 5]
            assert sequence.values[5] == distributions[name]
            assert sequence.epochs.tolist() == [0.0, 1.0]
    assert found["layer.bias"].values[0].to_np_histogram()[0].sum() == 2


def test_what_is_left_out(repo: Repo) -> None:
    run = Run("r", repo=repo)
    track_distributions(Model(), run, gradients=False)
    assert {name for name, _, _ in run.iter_sequence_info_by_type("distributions")} == {"layer.weight", "layer.bias", "frozen"}
    track_distributions(Model(), run, parameters=False, context={"x": 1})
    assert {each.name for each in repo.query_distributions("distributions.context.x == 1")} == {"layer.weight", "layer.bias"}


def test_a_model_is_never_copied(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only pieces come to this process, however large a parameter is."""
    monkeypatch.setattr(distribution, "_PIECE", 64)
    sizes: list[int] = []
    cpu = TorchTensor.cpu
    monkeypatch.setattr(TorchTensor, "cpu", lambda tensor: (sizes.append(tensor.array.size), cpu(tensor))[1])
    with Run(repo=repo) as run:
        track_distributions(Model(), run)
    assert max(sizes) <= 64
    assert sum(sizes) >= 2 * 1200


def test_what_is_no_model(repo: Repo) -> None:
    with Run(repo=repo) as run, pytest.raises(TypeError, match="named_parameters"):
        track_distributions({"weight": 1}, run)


def test_with_torch(repo: Repo) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: track_distributions is tested with stand-ins alone")
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    model(torch.ones(2, 4)).sum().backward()
    run = Run("r", repo=repo)
    track_distributions(model, run)
    weights = run.get_distribution_sequence("0.weight", {"type": "parameters"})
    assert weights is not None
    assert weights.values[0] == Distribution(model[0].weight.detach().numpy())
    assert len(repo.query_distributions("distributions.context.type == 'gradients'")) == 4
