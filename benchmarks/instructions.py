"""Counts the machine instructions that a call of `track` takes, by callgrind: unlike times, they are the same on a busy machine.

python benchmarks/instructions.py                 # counts, and compares with what is recorded
python benchmarks/instructions.py --record        # keeps the counts in instructions.json

Counts depend on how the interpreter was built, so each is recorded with the interpreter it was taken by. Needs valgrind.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from aimlite import Run

Body: TypeAlias = Callable[[int, int], None]

RECORDED = Path(__file__).with_name("instructions.json")
CALLS = 500
TOLERANCE = 1.10
_WARM_UP = 300
_BUILD_OPTIONS = ("--enable-optimizations", "--with-lto", "--with-pydebug", "--disable-gil")
_MARK = "getsid"  # a function of libc that nothing else calls: callgrind writes its counts and begins anew when it is entered


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Counts the instructions of track.")
    parser.add_argument("--record", action="store_true", help=f"keep the counts in {RECORDED.name}")
    parser.add_argument("--child", metavar="REPO", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        run_workloads(options.child)
        return 0
    why_not = unavailable()
    if why_not:
        print(f"not counted: {why_not}", file=sys.stderr)
        return 2
    counts, before = measure(), recorded()
    print(f"{'instructions a call':<28} {'now':>8} {'recorded':>10}")
    for name, count in counts.items():
        known = f"{before[name]:>10,.0f}  {count / before[name]:.3f} times" if before and name in before else f"{'-':>10}"
        print(f"{name:<28} {count:>8,.0f} {known}")
    if options.record:
        record(counts)
        print(f"recorded for {interpreter()[0]}")
        return 0
    late = regressions(counts, before or {})
    print("\n".join(late), end="\n" if late else "")
    return 1 if late else 0


def unavailable() -> str:
    """Why nothing can be counted here; empty when it can."""
    if sys.gettrace() is not None or "coverage" in sys.modules:
        return "a tracer or coverage is active"
    return "" if shutil.which("valgrind") else "valgrind is not installed"


def interpreter() -> tuple[str, str]:
    """(what a count is recorded for, how that interpreter was built): counts of two builds do not compare."""
    given = sysconfig.get_config_var("CONFIG_ARGS") or ""
    built = [option for option in _BUILD_OPTIONS if option in given] or ["plain"]
    minor = ".".join(platform.python_version_tuple()[:2])
    name = f"{platform.python_implementation()} {minor} {platform.system()} {platform.machine()}"
    return name, f"{platform.python_version()}, {platform.python_compiler()}, {' '.join(built)}"


def recorded() -> dict[str, float] | None:
    """The counts recorded for this interpreter, or None."""
    name, built = interpreter()
    entry = json.loads(RECORDED.read_text("utf-8")).get(name)
    return entry["counts"] if entry and entry["built"] == built else None


def record(counts: Mapping[str, float]) -> None:
    name, built = interpreter()
    everything = json.loads(RECORDED.read_text("utf-8"))
    everything[name] = {"built": built, "counts": {name: round(count) for name, count in counts.items()}}
    RECORDED.write_text(json.dumps(dict(sorted(everything.items())), indent=1) + "\n", "utf-8")


def regressions(counts: Mapping[str, float], before: Mapping[str, float]) -> list[str]:
    """One line for each workload that takes more than 10 % above what is recorded."""
    return [
        f"{name} takes {counts[name]:,.0f} instructions a call, {counts[name] / known:.2f} times the {known:,.0f} recorded"
        for name, known in before.items()
        if counts[name] > TOLERANCE * known
    ]


def measure() -> dict[str, float]:
    """Instructions of one call, by workload."""
    with tempfile.TemporaryDirectory(prefix="aimlite-instructions-") as directory:
        command = [
            *("valgrind", "--tool=callgrind", f"--dump-before={_MARK}", f"--callgrind-out-file={directory}/counts"),
            *(sys.executable, __file__, "--child", f"{directory}/repo"),
        ]
        environment = {**_environment(), "PYTHONHASHSEED": "0", "AIMLITE_MERGE": "off"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        # Dump k has what ran between the marks k - 1 and k; the first has all before.
        counted = [_total(Path(directory, f"counts.{2 * number + 2}")) for number in range(len(WORKLOADS))]
    return {name: count / CALLS for name, count in zip(WORKLOADS, counted, strict=True)}


def _environment() -> dict[str, str]:
    """That of this process, in which an interpreter finds the same aimlite."""
    import aimlite

    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(aimlite.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}


def _total(dump: Path) -> int:
    found = re.search(r"^summary: (\d+)$", dump.read_text("utf-8", "replace"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"callgrind's {dump.name} has no sum")
    return int(found[1])


# -- what is counted, in an interpreter of its own -----------------------------------------------------------------------------------


def run_workloads(path: Path) -> None:
    from aimlite import Run

    with Run(repo=path, system_tracking_interval=None, capture_terminal_logs=False) as run:
        for workload in WORKLOADS.values():
            body = workload(run)
            body(0, _WARM_UP)
            os.getsid(0)
            body(_WARM_UP, _WARM_UP + CALLS)
            os.getsid(0)


def _track(run: Run) -> Body:
    def body(start: int, stop: int) -> None:
        for step in range(start, stop):
            run.track(0.5, name="loss", step=step, context={"subset": "train"})

    return body


def _track_epoch(run: Run) -> Body:
    def body(start: int, stop: int) -> None:
        for step in range(start, stop):
            run.track(0.5, name="loss with epoch", step=step, epoch=1, context={"subset": "train"})

    return body


def _track_dict(run: Run) -> Body:
    values = {f"metric_{number}": 0.5 for number in range(10)}

    def body(start: int, stop: int) -> None:
        for step in range(start, stop):
            run.track(values, step=step, context={"subset": "train"})

    return body


def _sequence_track(run: Run) -> Body:
    sequence = run.sequence("handle", {"subset": "train"})

    def body(start: int, stop: int) -> None:
        for step in range(start, stop):
            sequence.track(0.5, step)

    return body


WORKLOADS = {"track": _track, "track_epoch": _track_epoch, "track_dict of 10": _track_dict, "sequence_track": _sequence_track}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
