"""Measures aimlite: the environment first, then one line for each figure. docs/benchmarks.md says what each of them is.

python benchmarks/bench.py                        # everything, some minutes
python benchmarks/bench.py --scale 0.01           # a quick look
python benchmarks/bench.py --only track,merge --json figures.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["AIMLITE_MERGE"] = "off"  # a helper that starts by itself would be measured by whatever runs beside it

import environment
import images
import querying
import reading
import upkeep
import writing
from table import SEED, Bench, Line, Operation, Samples

OPERATIONS = {
    found.name: found
    for module in (writing, reading, querying, upkeep, images)
    for found in vars(module).values()
    if isinstance(found, Operation)
}
ROW = "{:<32} {:>12} {:>12}  {:<9} {:<12} {}"


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    with directory_in(options.dir) as directory:
        let_children_keep_bytecode(directory)
        described = environment.describe(directory)
        warnings = [] if options.unwatched else environment.warnings()
        for label, text in described.items():
            print(f"{label:<10} {text}")
        print(f"{'scale':<10} {options.scale:g}; seed {SEED}; {options.repeats} repeats")
        for warning in warnings:
            print(f"WARNING: {warning}")
        print("\n" + ROW.format("operation", "best", "median", "unit", "target", "").rstrip(), flush=True)
        results = [result for name in options.only for result in measured(name, directory, options.scale, options.repeats)]
    if options.json:
        report = {"environment": described, "warnings": warnings, "scale": options.scale, "repeats": options.repeats, "results": results}
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures aimlite.", epilog="operations: " + ", ".join(OPERATIONS))
    parser.add_argument("--only", metavar="NAME,…", type=names, default=list(OPERATIONS), help="measure only these operations")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies how much is recorded and read (1)")
    parser.add_argument("--repeats", type=int, default=5, help="of which the best and the median are shown (5)")
    parser.add_argument("--dir", type=Path, help="where repos are made and removed again (the temporary directory)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")
    parser.add_argument("--unwatched", action="store_true", help="do not look whether anything makes the figures worthless (half a second)")
    options = parser.parse_args(arguments)
    if options.scale <= 0 or options.repeats < 1:
        parser.error("scale and repeats are greater than 0")
    return options


def names(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in OPERATIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no operation is called {', '.join(unknown)}; there are {', '.join(OPERATIONS)}")
    return chosen


@contextlib.contextmanager
def directory_in(parent: Path | None) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="aimlite-bench-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def let_children_keep_bytecode(directory: Path) -> None:
    """Where Python is told to write none, each interpreter started here would compile everything. Installed packages are compiled."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ["PYTHONPYCACHEPREFIX"] = str(directory / "bytecode")


def measured(name: str, directory: Path, scale: float, repeats: int) -> Iterator[dict[str, Any]]:
    """Measures an operation and prints its lines."""
    operation = OPERATIONS[name]
    own = directory / name
    own.mkdir()
    figures = operation.measure(Bench(own, scale, repeats))
    shutil.rmtree(own)
    for line, samples in zip(operation.lines, figures, strict=True):
        result = {"name": operation.line_name(line), **summed_up(line, samples)}
        print(row(result), flush=True)
        yield result


def summed_up(line: Line, samples: Samples) -> dict[str, Any]:
    """best and median are None where nothing could be measured."""
    best = line.best(samples) if samples else None
    median = sorted(samples)[len(samples) // 2] if samples else None
    missed = None if best is None else line.missed(best)
    bound = None if line.target is None else f"{'≥' if line.more_is_better else '≤'} {line.target:,g}"
    return {"unit": line.unit, "best": best, "median": median, "target": bound, "missed": missed, "samples": len(samples)}


def row(result: dict[str, Any]) -> str:
    best, missed = result["best"], result["missed"]
    if best is None:
        return ROW.format(result["name"], "-", "-", result["unit"], "", "not installed")
    verdict = "" if missed is None else "reached" if missed <= 1 else f"missed, {missed:.2f} times"
    return ROW.format(result["name"], shown(best), shown(result["median"]), result["unit"], result["target"] or "", verdict).rstrip()


def shown(figure: float) -> str:
    """Four significant digits."""
    digits = max(0, 3 - len(str(int(abs(figure))))) if abs(figure) >= 1 else 4
    return f"{figure:,.{digits}f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
