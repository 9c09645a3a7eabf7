"""The benchmarks of this working tree on two versions of aimlite: the one checked out here and that of a commit, in turns.

python benchmarks/compare.py REF                          # e.g. main, HEAD~3, v0.1.0
python benchmarks/compare.py REF --only track,merge --rounds 9

REF is checked out into a temporary directory and built there. Each operation is run on both, alternating in order, so that a machine
that drifts slows both alike; shown are the medians, and the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROW = "{:<32} {:>12} {:>12}  {:<9} {:>8}  {}"


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    os.environ["AIMLITE_MERGE"] = "off"
    with (
        tempfile.TemporaryDirectory(prefix="aimlite-compare-", dir=options.dir) as directory,
        checked_out(options.ref, directory) as theirs,
    ):
        commit = git("rev-parse", "--short", options.ref)
        print(f"here       {git('rev-parse', '--short', 'HEAD')}{' with changes' if git('status', '--porcelain', '-uno') else ''}")
        print(f"{options.ref:<10} {commit}; scale {options.scale:g}; {options.rounds} rounds")
        print("\n" + ROW.format("operation", options.ref[:12], "here", "unit", "ratio", "of the rounds"), flush=True)
        sides = {"there": theirs, "here": ROOT}
        lines = []
        for operation in options.only or operations():
            for line in compared(operation, sides, options, Path(directory)):
                lines.append(line)
                print(row(line), flush=True)
    if options.json:
        report = {"ref": options.ref, "commit": commit, "scale": options.scale, "rounds": options.rounds, "results": lines}
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares two commits by the benchmarks of this working tree.")
    parser.add_argument("ref", metavar="REF", help="the commit to compare with")
    parser.add_argument("--only", metavar="NAME,…", type=lambda text: text.split(","), help="these operations of bench.py only")
    parser.add_argument("--scale", type=float, default=0.2, help="multiplies how much is recorded and read (0.2)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each of the two is measured (5)")
    parser.add_argument("--dir", type=Path, help="where the commit is built and repos are made (the temporary directory)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")
    options = parser.parse_args(arguments)
    if options.scale <= 0 or options.rounds < 1:
        parser.error("scale and rounds are greater than 0")
    return options


def git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def checked_out(ref: str, parent: str) -> Iterator[Path]:
    """The commit, built in place by this interpreter."""
    tree = Path(parent, "there")
    git("worktree", "add", "--detach", "--quiet", str(tree), ref)
    try:
        build = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, capture_output=True, text=True)
        if build.returncode:
            raise SystemExit(f"{ref} cannot be built:\n{build.stderr[-2000:]}")
        yield tree
    finally:
        git("worktree", "remove", "--force", str(tree))


def operations() -> list[str]:
    """Those of bench.py that measure aimlite, in its order."""
    return [name for name in names_of_bench() if not name.startswith("peer ")]


def names_of_bench() -> list[str]:
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--help"], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.rpartition("operations: ")[2].split()).split(", ")


def compared(operation: str, sides: dict[str, Path], options: argparse.Namespace, directory: Path) -> list[dict[str, Any]]:
    """One line for each figure of an operation; `failed` where a side could not take it."""
    taken: dict[str, list[dict[str, dict[str, Any]]]] = {side: [] for side in sides}
    for turn in range(options.rounds):
        for side in list(sides)[:: 1 if turn % 2 else -1]:
            try:
                taken[side].append(measured(operation, sides[side], options.scale, directory))
            except subprocess.CalledProcessError as error:
                last = [line for line in error.stderr.splitlines() if line.strip()][-1:]
                return [{"name": operation, "failed": f"{side}: {''.join(last)[:200]}"}]
    return [
        summed_up(name, [found[name] for found in taken["there"]], [found[name] for found in taken["here"]]) for name in taken["here"][0]
    ]


def measured(operation: str, package: Path, scale: float, directory: Path) -> dict[str, dict[str, Any]]:
    """Name → result of bench.py for one repeat, with the aimlite of a directory. bench.py is always this working tree's."""
    figures = directory / "figures.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--only", operation, "--scale", f"{scale:g}", "--repeats", "1"]
    command += ["--json", str(figures), "--dir", str(directory), "--unwatched"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(package)}, capture_output=True, text=True, check=True)
    return {result["name"]: result for result in json.loads(figures.read_text("utf-8"))["results"]}


def summed_up(name: str, there: Sequence[dict[str, Any]], here: Sequence[dict[str, Any]]) -> dict[str, Any]:
    pairs = [(before["median"], after["median"]) for before, after in zip(there, here, strict=True)]
    if any(None in pair for pair in pairs):
        return {"name": name, "failed": "not installed"}
    ratios = sorted(after / before for before, after in pairs if before)
    return {
        "name": name,
        "unit": here[0]["unit"],
        "there": statistics.median(before for before, _ in pairs),
        "here": statistics.median(after for _, after in pairs),
        "ratio": statistics.median(ratios) if ratios else None,
        "ratios": ratios,
    }


def row(line: dict[str, Any]) -> str:
    if "failed" in line:
        return f"{line['name']:<32} {line['failed']}"
    from bench import shown

    ratio = "-" if line["ratio"] is None else f"{line['ratio']:.3f}"
    spread = f"{line['ratios'][0]:.2f} – {line['ratios'][-1]:.2f}" if line["ratios"] else ""
    return ROW.format(line["name"], shown(line["there"]), shown(line["here"]), line["unit"], ratio, spread).rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
