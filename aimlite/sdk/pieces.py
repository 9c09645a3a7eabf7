"""The points of a metric a few thousand at a time, for what must not hold all of them: exports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimlite.sdk.metric import Metric
    from aimlite.storage.points import Points


def pieces(metric: Metric) -> Iterator[Points]:
    """All points in ascending steps, of one view; a step lies in one piece."""
    return metric.run.repo._run_reader.view().pieces(metric._id)
