"""Curves as a PNG, drawn by matplotlib (the extra `plot`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aimlite.terminal.chart import Curve


@dataclass(frozen=True)
class Panel:
    title: str
    x_label: str
    curves: Sequence[Curve]
    log: bool = False


def save(path: Path, panels: Sequence[Panel]) -> None:
    """Write the panels side by side; the folder is made. Raises ModuleNotFoundError where matplotlib is not installed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(panels), 4.5), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for curve in panel.curves:
            axes.plot(curve.x, curve.y, label=curve.label, linewidth=0.8)
        axes.set(title=panel.title, xlabel=panel.x_label, yscale="log" if panel.log else "linear")
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
