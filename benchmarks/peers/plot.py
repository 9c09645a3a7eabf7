"""The table of peers as a picture: a panel for each figure, on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from report import FIGURES, OWN, Column, shown

_PANELS = ("scalar", "dict_10", "long", "runs", "read", "read_all", "bytes", "memory", "import")
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
        held = [(column, column.figures[name]) for column in columns if isinstance(column.figures.get(name), float | int)]
        held = [(column, value) for column, value in held if value > 0]
        labels = [column.name + ("" if _safe(column) or not figures[name].writes else " †") for column, _ in held]
        bars = panel.barh(labels, [value for _, value in held], color=[_COLOURS[_kind(column, figures[name].writes)] for column, _ in held])
        panel.bar_label(bars, [shown(value, 2) for _, value in held], padding=2, fontsize=8)
        panel.set_xscale("log")
        panel.margins(x=0.3)
        panel.invert_yaxis()
        panel.tick_params(labelsize=8)
        panel.set_title(f"{figures[name].label}, {figures[name].unit}", fontsize=9)
    drawn.suptitle("less is better; logarithmic; orange and †: what was taken may be gone when the process is killed", fontsize=10)
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
