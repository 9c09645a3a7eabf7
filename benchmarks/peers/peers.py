"""Measures aimlite beside its peers, on the same work: one table, in Markdown and JSON. docs/benchmarks.md says what each row is.

python benchmarks/peers/peers.py                                     # makes the peers' environments where they are missing
python benchmarks/peers/peers.py --write docs/benchmarks.md          # puts table and plot there
python benchmarks/peers/peers.py --only aimlite,write --rounds 1 --scale 0.01
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import environment
from durability import Survival, survival
from processes import ChildFailed, child_json
from report import FIGURES, Column, markdown, replace_between_markers
from venvs import VENVS, Unavailable, interpreter

OWN, POWER = "aimlite", "aimlite power"
PEERS = {  # shown as; an adapter; what pip installs, None for this interpreter
    OWN: ("aimlite", None),
    POWER: ("aimlite", None),
    "Aim": ("aim", ("aim",)),
    "Runicorn": ("runicorn", ("runicorn",)),
    "TensorBoard": ("tensorboard", ("tensorboardX", "tensorboard")),
    "MLflow": ("mlflow", ("mlflow",)),
    "W&B offline": ("wandb", ("wandb",)),
    "Trackio": ("trackio", ("trackio",)),
    "write(2)": ("write", None),
    "numpy": ("numpy", None),
}
FLOORS = ("write(2)", "numpy")
MOST = {"scalar": 20_000, "dict_10": 5_000, "dict_1000": 100, "long": 100_000, "runs": 400, "small_runs": 400}
WRITES = ("open_first", "open_later", "scalar", "dict_10", "dict_1000", "close", "resume", "long", "runs", "small_runs")


@dataclass
class Peer:
    name: str
    adapter: str
    python: str
    version: str = ""
    survival: Survival | None = None
    samples: dict[str, list[Any]] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def column(self) -> Column:
        figures = {name: summary(samples) for name, samples in self.samples.items()}
        ratios = {name: statistics.median(found) for name, found in self.ratios.items()}
        power = self.survival is not None and self.survival.power and self.name != POWER
        return Column(self.name, self.version, self.survival, figures, ratios, self.sizes, power)


def summary(samples: list[Any]) -> Any:
    """The median of what was measured; else why nothing was."""
    numbers = [sample for sample in samples if not isinstance(sample, dict)]
    return statistics.median(numbers) if numbers else samples[-1]


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    begun = time.perf_counter()
    directory = Path(tempfile.mkdtemp(prefix="aimlite-peers-", dir=options.dir))
    os.environ["TMPDIR"] = str(directory)
    try:
        described, warnings = environment.describe(directory), environment.warnings()
        for label, text in described.items():
            say(f"{label:<10} {text}")
        for warning in warnings:
            say(f"WARNING: {warning}")
        peers, missing = ready(options.only)
        say(f"environments are ready after {time.perf_counter() - begun:.0f} s")
        Measuring(peers, directory, options).everything()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    columns = [peer.column() for peer in peers] + [Column(name, "", None, {}, {}, {}, False, missing=why) for name, why in missing.items()]
    columns.sort(key=lambda column: list(PEERS).index(column.name))
    seconds = time.perf_counter() - begun
    facts = {**described, "rounds": options.rounds, "scale": options.scale, "seconds": round(seconds), "warnings": warnings}
    text = markdown(columns, facts)
    print(text)
    say(f"took {seconds:.0f} s")
    if options.json:
        report = {"environment": facts, "peers": {column.name: column.as_json() for column in columns}}
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if options.plot or options.write:
        from plot import draw

        picture = options.plot or options.write.with_name("benchmarks-peers.png")
        draw(columns, picture)
    if options.write:
        replace_between_markers(options.write, "peers", text)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures aimlite beside its peers.", epilog="peers: " + ", ".join(PEERS))
    parser.add_argument("--only", metavar="NAME,…", type=names, default=list(PEERS), help="only these; aimlite is always among them")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything that writes little is measured (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the most that is recorded (1)")
    parser.add_argument("--budget", type=float, default=0.5, help="seconds after which a peer has done enough of one operation (0.5)")
    parser.add_argument("--dir", type=Path, help="where everything is recorded and removed again (the temporary directory)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")
    parser.add_argument("--plot", metavar="PNG", type=Path, help="draw them there")
    parser.add_argument("--write", metavar="PAGE", type=Path, help="replace the table of this page, and the picture beside it")
    options = parser.parse_args(arguments)
    if options.scale <= 0 or options.rounds < 1 or options.budget <= 0:
        parser.error("scale, rounds and budget are greater than 0")
    return options


def names(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer is called {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return [name for name in PEERS if name in (OWN, *chosen)]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def ready(chosen: Iterable[str]) -> tuple[list[Peer], dict[str, str]]:
    """Those that can be measured here, and why the others cannot. Environments that are missing are made, at once."""

    def one(name: str) -> Peer | str:
        adapter, packages = PEERS[name]
        try:
            python = sys.executable if packages is None else interpreter(VENVS, adapter, packages)
            version = "" if name in FLOORS[:1] else child_json(python, adapter, "version", {})["version"]
        except (Unavailable, ChildFailed) as error:
            return str(error)
        return Peer(name, adapter, python, version)

    with ThreadPoolExecutor(len(PEERS)) as pool:
        found = dict(zip(chosen, pool.map(one, chosen), strict=True))
    return [each for each in found.values() if isinstance(each, Peer)], {
        name: each for name, each in found.items() if isinstance(each, str)
    }


class Measuring:
    """Takes each peer's figures, and aimlite's at the same sizes right after each, so that a machine that drifts slows both alike."""

    def __init__(self, peers: list[Peer], directory: Path, options: argparse.Namespace) -> None:
        self.peers, self.directory, self.options = peers, directory, options
        self.own = next(peer for peer in peers if peer.name == OWN)
        self.power = Peer(POWER, "aimlite", self.own.python)
        self.most = {name: max(3, round(most * options.scale)) for name, most in MOST.items()}
        self.number = 0

    def everything(self) -> None:
        self.record_bytes = self.sizes_of_records()
        with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:  # nothing is timed here
            tried = pool.map(self.survival_of, self.peers, [self.given(peer) for peer in self.peers])
            for peer, peer.survival in zip(self.peers, tried, strict=True):
                say(f"{peer.name:<14} SIGKILL: {peer.survival.sigkill_text()}; power loss: {peer.survival.power_text()}")
        for turn in range(self.options.rounds):
            for peer in self.peers[turn % len(self.peers) :] + self.peers[: turn % len(self.peers)]:
                begun = time.perf_counter()
                self.round(peer, first=turn == 0)
                say(f"{peer.name:<14} round {turn + 1} of {self.options.rounds}: {time.perf_counter() - begun:.0f} s")

    def given(self, peer: Peer, **more: Any) -> dict[str, Any]:
        self.number += 1
        path = self.directory / f"{self.number}"
        path.mkdir()
        durability = "power" if peer.name == POWER else "process"
        return {"path": str(path / "repo"), "durability": durability, "record_bytes": self.record_bytes, **more}

    def sizes_of_records(self) -> dict[str, int]:
        """What aimlite writes for a call of 1, 10 and 1000 values: what the floor writes, too."""
        self.record_bytes = {}
        return child_json(self.own.python, "aimlite", "record_bytes", self.given(self.own))["record_bytes"]

    def survival_of(self, peer: Peer, given: dict[str, Any]) -> Survival:
        Path(given["path"]).mkdir()
        points = max(20, round(1000 * self.options.scale))
        return survival(peer.python, peer.adapter, Path(given["path"]), given, points, watched=20)

    def round(self, peer: Peer, first: bool) -> None:
        if peer.name != "numpy":
            self.task(peer, "write")
        if first and peer.name != POWER:
            self.task(peer, "fill")
        if peer.name not in FLOORS[:1]:
            self.task(peer, "import")

    def task(self, peer: Peer, task: str) -> None:
        most, budget = self.most, self.options.budget
        try:
            figures, sizes = self.measure(peer, task, most, None if peer.name in (OWN, *FLOORS) else budget)
        except ChildFailed as error:
            figures, sizes = {name: {"failed": str(error)} for name in _figures_of(task)}, {}
        for name, figure in figures.items():
            peer.samples.setdefault(name, []).append(figure)
        peer.sizes.update(sizes)
        if peer.name in (OWN, POWER):
            return
        # A write that is on the disk when it returns is compared with aimlite's own such write.
        safe = peer.survival is not None and peer.survival.power
        for beside in [self.power, self.own] if safe else [self.own]:
            try:
                ours, _ = self.measure(beside, task, {**most, **sizes}, None)
            except ChildFailed as error:
                say(f"no ratios for {peer.name}: {beside.name}: {error}")
                continue
            for name, figure in figures.items():
                if (beside is self.power and name not in WRITES) or (beside is self.own and safe and name in WRITES):
                    continue
                # Bytes do not swing, and a few points are mostly the size of an empty tree: those of aimlite's own column.
                own = self.own.samples[name][0] if name == "bytes" else ours.get(name, {})
                if not isinstance(figure, dict) and not isinstance(own, dict) and own > 0:
                    peer.ratios.setdefault(name, []).append(figure / own)

    def measure(self, peer: Peer, task: str, most: dict[str, int], budget: float | None) -> tuple[dict[str, Any], dict[str, int]]:
        given = self.given(peer, most=most, budget_s=budget)
        if task == "fill":
            Path(given["path"]).mkdir()
        found = child_json(peer.python, peer.adapter, task, given)
        figures, sizes = found["figures"], found.get("sizes", {})
        if task == "fill":
            figures["memory"] = found["memory"]
            more = {"sizes": sizes, "long_hash": found["long_hash"]}
            try:
                figures.update(child_json(peer.python, peer.adapter, "read", {**given, **more})["figures"])
            except ChildFailed as error:
                figures.update({name: {"failed": str(error)} for name in ("read", "read_all", "query")})
        shutil.rmtree(Path(given["path"]).parent, ignore_errors=True)
        return figures, sizes


def _figures_of(task: str) -> list[str]:
    return [figure.name for figure in FIGURES if figure.task == task]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
