"""Distributions of all that a model has learned, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aimlite.objects.distribution import Distribution

if TYPE_CHECKING:
    from aimlite.sdk.run import Run

PARAMETERS, GRADIENTS = "parameters", "gradients"


def track_distributions(
    model: Any,
    run: Run,
    step: int | None = None,
    epoch: float | None = None,
    *,
    context: Mapping[str, Any] | None = None,
    parameters: bool = True,
    gradients: bool = True,
    bin_count: int = 64,
) -> None:
    """Records a `Distribution` of each parameter of a torch model and of each gradient that there is.

    model: what has `named_parameters()`. A distribution has the name of its parameter; its context is `context` and
    {'type': 'parameters'} or {'type': 'gradients'}. Tensors stay where they are: a piece of 262,144 numbers at a time is copied to this
    process. Parameters are recorded as one `run.track`, gradients as another. Raises TypeError, ValueError, and as `Run.track`.
    """
    if not callable(getattr(model, "named_parameters", None)):
        raise TypeError(
            f"a model has named_parameters(), as torch's modules have; {type(model).__module__}.{type(model).__qualname__} has not"
        )
    found: dict[str, dict[str, Distribution]] = {PARAMETERS: {}, GRADIENTS: {}}
    for name, parameter in model.named_parameters():
        if parameters:
            found[PARAMETERS][name] = Distribution(_dense(parameter), bin_count)
        gradient = getattr(parameter, "grad", None)
        if gradients and gradient is not None:
            found[GRADIENTS][name] = Distribution(_dense(gradient), bin_count)
    for kind, distributions in found.items():
        if distributions:
            run.track(distributions, step=step, epoch=epoch, context={**(context or {}), "type": kind})


def _dense(tensor: Any) -> Any:
    """Of a sparse tensor the values that it holds."""
    return tensor.detach().coalesce().values() if getattr(tensor, "is_sparse", False) else tensor
