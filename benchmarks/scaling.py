"""How the cost of an operation grows with writers, runs and points: three tables in Markdown and their plots.

python benchmarks/scaling.py                               # everything, some minutes
python benchmarks/scaling.py --only runs --scale 0.01
python benchmarks/scaling.py --write docs/benchmarks.md    # the tables there, the plots beside it

What should not grow is marked by a line of slope 0 in the plots. Nothing is asserted: tests/stress has the counts that must hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "peers")]
os.environ["AIMLITE_MERGE"] = "off"

import environment
from bench import directory_in, let_children_keep_bytecode
from growing import Row, points, runs, writers
from table import Bench

WRITERS = (1, 2, 4, 8, 16, 32, 64)
RUNS = (10, 100, 1000, 10_000, 100_000)
POINTS = (1000, 10_000, 100_000, 1_000_000, 10_000_000)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Measures how costs grow.")
    parser.add_argument("--only", metavar="NAME,…", type=lambda text: text.split(","), default=list(AXES), help=", ".join(AXES))
    parser.add_argument("--scale", type=float, default=1.0, help="leaves out the sizes that are greater than this part of the largest (1)")
    parser.add_argument("--repeats", type=int, default=5, help="of which the median is shown (5)")
    parser.add_argument("--dir", type=Path, help="where repos are made and removed again (the temporary directory)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")
    parser.add_argument("--plots", metavar="DIRECTORY", type=Path, help="draw them there")
    parser.add_argument("--write", metavar="PAGE", type=Path, help="replace the tables of this page, and the plots beside it")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.only if name not in AXES]
    if unknown:
        parser.error(f"nothing is called {', '.join(unknown)}; there are {', '.join(AXES)}")
    results: dict[str, dict[int, Row]] = {}
    with directory_in(options.dir) as directory:
        let_children_keep_bytecode(directory)
        facts = environment.describe(directory)
        for name in options.only:
            axis = AXES[name]
            results[name] = {}
            for size in axis.sizes:
                if size <= options.scale * axis.sizes[-1] or size == axis.sizes[0]:
                    own = directory / f"{name}-{size}"
                    own.mkdir()
                    results[name][size] = axis.measure(Bench(own, 1.0, options.repeats), size)
                    shutil.rmtree(own)
                    print(f"{name} {size:,}: {results[name][size]}", file=sys.stderr, flush=True)
    text = markdown(results, facts)
    print(text)
    if options.json:
        options.json.write_text(json.dumps({"environment": facts, "results": results}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if options.plots or options.write:
        draw(results, options.plots or options.write.parent)
    if options.write:
        from report import replace_between_markers

        replace_between_markers(options.write, "scaling", text)
    return 0


class Axis:
    """What grows, how far, and what measures at one size. flat: the figures that should not grow with it."""

    def __init__(self, label: str, sizes: Sequence[int], measure: Callable[[Bench, int], Row], flat: Sequence[str]) -> None:
        self.label, self.sizes, self.measure, self.flat = label, sizes, measure, flat


AXES = {
    "writers": Axis("writer processes", WRITERS, writers, ("processor time of a track, µs", "first look of a reader, a writer, ms")),
    "runs": Axis(
        "runs in the repo", RUNS, runs,
        ("opening a run, ms", "track, µs", "one metric by hash, ms", "params of a run, ms", "resume, ms", "query that finds 1 run, ms"),
    ),
    "points": Axis(
        "points of the metric", POINTS, points,
        ("columns, ns a point", "merge, ns a point", "all points, ns a point", "last value, ms", "100 steps in the middle, ms",
         "resume and track, ms", "resume and track before a merge, ms"),
    ),
}  # fmt: skip


def markdown(results: Mapping[str, Mapping[int, Row]], facts: Mapping[str, Any]) -> str:
    from report import shown, table

    lines = ["; ".join(str(facts[name]).split("; load")[0] for name in ("date", "CPU", "memory", "system")) + "."]
    for name, rows in results.items():
        figures = list(next(iter(rows.values())))
        lines += [
            "",
            *table(
                [[AXES[name].label, *(f"{size:,}" for size in rows)]]
                + [[each, *(shown(row[each]) for row in rows.values())] for each in figures]
            ),
        ]
    return "\n".join(lines) + "\n"


def draw(results: Mapping[str, Mapping[int, Row]], directory: Path) -> None:
    """A PNG for each: every figure relative to that at the smallest size, so that what does not grow stays at 1."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for name, rows in results.items():
        axis, sizes = AXES[name], list(rows)
        drawn, panel = plt.subplots(figsize=(9, 5), constrained_layout=True)
        for figure in next(iter(rows.values())):
            costs = [row[figure] for row in rows.values()]
            panel.plot(sizes, costs, "-o" if figure in axis.flat else "--s", markersize=4, label=figure)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel(axis.label)
        panel.set_ylabel("cost, in the unit of each line")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        panel.set_title("solid: should not grow", fontsize=9)
        drawn.savefig(directory / f"benchmarks-{name}.png", dpi=90, metadata={"Software": None})
        plt.close(drawn)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
