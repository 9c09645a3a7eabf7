"""What a call of a peer has promised when it returns, found by killing a process and by watching what it asks of the kernel.

SIGKILL: a process records points and kills itself right after the last call has returned; another one counts what is there.
Power loss: the same under strace. What was forced to the disk before each call returned survives; what was not, may not.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import ChildFailed, child_json, first_json, run_child

SYNCS = ("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync")
_MARK = "getsid"  # child.acknowledge calls it before its first point and after its last


@dataclass(frozen=True)
class Survival:
    """kept of points were there after SIGKILL; synced of watched calls had been forced to the disk. None: could not be tried, see why."""

    points: int
    kept: int | None
    watched: int
    synced: int | None
    why: str = ""
    when: str = ""  # they could be read

    @property
    def sigkill(self) -> bool:
        return self.kept == self.points

    @property
    def power(self) -> bool:
        return self.synced is not None and self.synced >= self.watched

    def sigkill_text(self) -> str:
        if self.kept is None:
            return "not tried"
        when = f" {self.when}" if self.when else ""
        return f"yes{when} ({self.kept:,} of {self.points:,})" if self.sigkill else f"**no** ({self.kept:,} of {self.points:,} kept{when})"

    def power_text(self) -> str:
        if self.synced is None:
            return "not tried" if self.kept is None else "not tried: strace is not installed"
        if self.power:
            return f"yes ({self.synced} syncs in {self.watched} calls)"
        return f"no ({self.synced} syncs in {self.watched} calls)"


def survival(python: str, peer: str, directory: Path, given: dict[str, Any], points: int, watched: int) -> Survival:
    """Records twice, in directories of its own below `directory`."""
    try:
        kept, when = _killed(python, peer, {**given, "path": str(directory / "killed"), "points": points})
    except ChildFailed as error:
        return Survival(points, None, watched, None, str(error))
    return Survival(points, kept, watched, _synced(python, peer, directory, {**given, "points": watched}), when=when)


def _killed(python: str, peer: str, given: dict[str, Any]) -> tuple[int, str]:
    """(points that are there, when: at once, after what)."""
    done = run_child(python, peer, "acknowledge", given, may_die=True)
    begun = first_json(done, "acknowledge")
    if "not offered" in begun:
        raise ChildFailed(begun["not offered"])
    found = child_json(python, peer, "count", {**given, "run_id": begun["run_id"]})["figures"]
    for when, points in found.items():
        if isinstance(points, int):
            return points, when
    raise ChildFailed(f"what is left cannot be read: {next(iter(found[''].values()))}")


def _synced(python: str, peer: str, directory: Path, given: dict[str, Any]) -> int | None:
    """How often anything was forced to the disk between the marks, by any of the peer's processes. None without strace."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    trace = directory / "trace"
    wrapper = [strace, "-f", "-o", str(trace), "-e", f"trace={','.join((_MARK, *SYNCS))}"]
    run_child(python, peer, "acknowledge", {**given, "path": str(directory / "watched")}, may_die=True, wrapper=wrapper)
    return count_syncs(trace.read_text("utf-8", "replace"))


def count_syncs(trace: str) -> int:
    """System calls of SYNCS between the first and the last mark of a trace. A call cut in two by another thread counts once."""
    lines = trace.splitlines()
    marks = [number for number, line in enumerate(lines) if re.search(rf"\b{_MARK}\(", line)]
    if len(marks) < 2:
        raise ChildFailed(f"{len(marks)} marks in its trace in place of 2")
    call = re.compile(rf"^\d+ +(?:{'|'.join(SYNCS)})\(")
    return sum(bool(call.match(line)) for line in lines[marks[0] : marks[-1]])
