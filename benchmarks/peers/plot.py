"""The table of peers as a picture: for each figure how many times what aimlite takes, on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from report import FIGURES, OWN, Column, shown

_PANELS = ("scalar", "dict_10", "long", "runs", "read", "read_all", "bytes", "memory", "import")  # every operation of its kind once
_COLOURS = {"safe": "#4477aa", "unsafe": "#ee9955", "own": "#228833", "floor": "#bbbbbb"}
_FLOORS = ("write(2)", "numpy")


def draw(columns: Sequence[Column], picture: Path) -> None:
    """Writes a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figures = {figure.name: figure for figure in FIGURES}
    drawn, axes = plt.subplots(3, 3, figsize=(12, 9.5), constrained_layout=True)
    for name, panel in zip(_PANELS, axes.flat, strict=True):
        held = [(column, column.ratios[name]) for column in columns if column.ratios.get(name, 0) > 0]
        held = [(column, 1.0) for column in columns if column.name == OWN] + held
        labels = [column.name + ("" if _safe(column) or not figures[name].writes else " †") for column, _ in held]
        bars = panel.barh(labels, [value for _, value in held], color=[_COLOURS[_kind(column, figures[name].writes)] for column, _ in held])
        panel.bar_label(bars, [f"{shown(value, 2)}×" for _, value in held], padding=2, fontsize=8)
        panel.axvline(1, color=_COLOURS["own"], linewidth=1)
        panel.set_xscale("log")
        panel.margins(x=0.3)
        panel.invert_yaxis()
        panel.tick_params(labelsize=8)
        own = next((column.figures[name] for column in columns if column.name == OWN), None)
        its = f" (aimlite: {shown(own, 2)} {figures[name].unit})" if isinstance(own, float | int) else ""
        panel.set_title(f"{figures[name].label}{its}", fontsize=8)
    told = "How many times what aimlite takes for as much; less is better. Orange, †: what was taken may be lost by a kill."
    safest = [column.name for column in columns if column.against_power]
    if safest:
        told += f"\n{', '.join(safest)}: each write is on the disk when it returns, and so it is of aimlite beside it."
    drawn.suptitle(told, fontsize=10)
    drawn.savefig(picture, dpi=90, metadata={"Software": None})
    plt.close(drawn)


def _safe(column: Column) -> bool:
    return column.survival is None or column.survival.kept is None or column.survival.sigkill


def _kind(column: Column, writes: bool) -> str:
    if column.name.startswith(OWN):
        return "own"
    if column.name in _FLOORS:
        return "floor"
    return "safe" if _safe(column) or not writes else "unsafe"
