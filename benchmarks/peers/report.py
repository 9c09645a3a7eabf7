"""The table of peers: columns of figures → Markdown and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from durability import Survival

OWN = "aimlite"


@dataclass(frozen=True)
class Figure:
    """A row. task: the one of child.py that measures it. size: what of the sizes says how much was done for it."""

    name: str
    label: str
    unit: str
    task: str
    writes: bool = False
    size: str = ""


FIGURES = (
    Figure("import", "import", "ms", "import"),
    Figure("open_first", "first run, where nothing is yet", "ms", "write", writes=True),
    Figure("open_later", "later run", "ms", "write", writes=True),
    Figure("scalar", "a value with name, step and context", "µs", "write", writes=True, size="scalar"),
    Figure("dict_10", "dict of 10", "µs/value", "write", writes=True, size="dict_10"),
    Figure("dict_1000", "dict of 1,000", "µs/value", "write", writes=True, size="dict_1000"),
    Figure("long", "100,000 steps of a metric, until closed", "µs/point", "fill", writes=True, size="long"),
    Figure("runs", "400 runs × 10 metrics × 100 steps", "µs/point", "fill", writes=True, size="runs"),
    Figure("small_runs", "a run of a param and ten values, whole", "ms", "fill", writes=True, size="small_runs"),
    Figure("close", "closing a run of 10 metrics", "ms", "write", writes=True),
    Figure("resume", "resuming a run, its first value", "ms", "write", writes=True),
    Figure("read", "reading one metric", "µs/point", "fill", size="long"),
    Figure("read_all", "reading one metric of all runs", "ms/run", "fill", size="runs"),
    Figure("query", "finding a tenth of the small runs by the param", "ms", "fill", size="small_runs"),
    Figure("bytes", "bytes a point on disk", "B", "fill", size="long"),
    Figure("memory", "memory while 100,000 steps are written", "MiB", "fill", size="long"),
)
SIZES = {
    "scalar": "single values",
    "dict_10": "dicts of 10",
    "dict_1000": "dicts of 1,000",
    "long": "steps of one metric",
    "runs": "runs of 1,000 points",
    "small_runs": "runs of 10 points",
}


@dataclass(frozen=True)
class Column:
    """One peer. figures: a number, or {"not offered"|"failed": why}. ratios: to aimlite at the same sizes. missing: why there are none."""

    name: str
    version: str
    survival: Survival | None
    figures: dict[str, Any] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    against_power: bool = False
    missing: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def markdown(columns: Sequence[Column], facts: dict[str, Any]) -> str:
    """The environment, the table, how much each did, and why cells are empty."""
    notes = Notes()
    shown = [column for column in columns if not column.missing]
    lines = [_environment(facts), ""]
    rows = [
        ["", *(column.name for column in shown)],
        ["version", *(column.version or "–" for column in shown)],
        ["**survives SIGKILL**", *(promised(column, notes, Survival.sigkill_text) for column in shown)],
        ["**survives power loss**", *(promised(column, notes, Survival.power_text) for column in shown)],
    ]
    rows += [[f"{figure.label}, {figure.unit}", *(cell(figure, column, notes) for column in shown)] for figure in FIGURES]
    lines += table(rows)
    lines += ["", *_marks(shown), ""]
    lines += ["How much each did in the time it had (aimlite beside it did as much):", ""]
    lines += table([["", *(column.name for column in shown)], *_sizes(shown)])
    lines += [f"- {column.name} is not in the table: {column.missing}." for column in columns if column.missing]
    return "\n".join([*lines, "", *notes.lines()]).rstrip() + "\n"


class Notes:
    """Why a cell is empty, numbered."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers) + 1)

    def lines(self) -> list[str]:
        return [f"{number}. {text}" for text, number in self._numbers.items()]


def promised(column: Column, notes: Notes, text: Callable[[Survival], str]) -> str:
    if column.survival is None:
        return "–"
    note = f" [{notes.number(f'{column.name}: {column.survival.why}')}]" if column.survival.why else ""
    return text(column.survival) + note


def cell(figure: Figure, column: Column, notes: Notes) -> str:
    """The figure, the ratio to aimlite, and the marks of what its write has promised."""
    found = column.figures.get(figure.name)
    if found is None:
        return "–"
    if isinstance(found, dict):
        [(kind, why)] = found.items()
        return f"{kind} [{notes.number(f'{column.name}: {why}')}]"
    text = shown(found)
    if figure.name in column.ratios:
        text += f" ({shown(column.ratios[figure.name], 2)}×)"
    if figure.writes and column.survival is not None and column.survival.kept is not None:
        text += "‡" if column.against_power else "" if column.survival.sigkill else "†"
    return text


def shown(figure: float, digits: int = 3) -> str:
    """So many significant digits."""
    if figure == 0:
        return "0"
    whole = len(str(int(abs(figure)))) if abs(figure) >= 1 else 0
    if whole:
        return f"{figure:,.{max(0, digits - whole)}f}"
    return f"{figure:.{digits}g}"


def _marks(columns: Sequence[Column]) -> list[str]:
    lines = ["(…×): how many times what aimlite takes for just as much, measured right after it."]
    unsafe = [
        column.name
        for column in columns
        if column.survival is not None and column.survival.kept is not None and not column.survival.sigkill
    ]
    if unsafe:
        lines.append(f"† An unsafe write beside a safe one: what {', '.join(unsafe)} took may be gone when the process is killed.")
    if any(column.against_power for column in columns):
        lines.append('‡ A write that is on the disk when it returns, compared with aimlite\'s own such write (`durability="power"`).')
    return [line + "  " for line in lines]


def _sizes(columns: Sequence[Column]) -> list[list[str]]:
    return [[label, *(f"{column.sizes[name]:,}" if name in column.sizes else "–" for column in columns)] for name, label in SIZES.items()]


def _environment(facts: dict[str, Any]) -> str:
    """What it ran on; no names of hosts or directories."""
    fields = ("Python", "CPU", "memory", "system")
    where = "; ".join(str(facts[name]).split("; load")[0] for name in fields if name in facts)
    busy = "".join(f" **{warning}.**" for warning in facts.get("warnings", ()))
    date = facts.get("date", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
    return f"{date}; {where}; medians of {facts['rounds']}.{busy}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return [head, "|---|" + "---:|" * (len(rows[0]) - 1), *body]


def replace_between_markers(page: Path, name: str, text: str) -> None:
    """Puts the text between the comments `<!-- name -->` and `<!-- end of name -->` of a page. Raises ValueError where they are missing."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before = page.read_text("utf-8")
    if begin not in before or end not in before[before.index(begin) :]:
        raise ValueError(f"{page} has no {begin} … {end} to write between")
    head, rest = before.split(begin, 1)
    page.write_text(f"{head}{begin}\n\n{text.strip()}\n\n{end}{rest.split(end, 1)[1]}", "utf-8")
