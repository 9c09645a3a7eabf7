"""How busy the machine and this process are: readings of counters and gauges, and what two of them tell.

Names that Aim has are Aim's: `__system__cpu`, `__system__memory_percent`, …; docs/system.md lists all with their units. Imported in the
sampler's thread only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil

from aimlite.capture import SYSTEM_METRICS, gpus

RATES = {  # counter → the metric that its change in a second is, and what of a second counts as 1
    "process_s": ("cpu", 0.01),
    "read_bytes": ("disk_read_bytes_per_s", 1),
    "write_bytes": ("disk_write_bytes_per_s", 1),
    "bytes_sent": ("network_sent_bytes_per_s", 1),
    "bytes_recv": ("network_received_bytes_per_s", 1),
}

Complain = Callable[[str, object], None]


@dataclass
class Reading:
    """counters only grow; gauges are metrics as they are, without the prefix. Of what could not be read there is nothing."""

    time_s: float
    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    gpus: dict[int, dict[str, float]] = field(default_factory=dict)

    def since(self, before: Reading) -> list[tuple[dict[str, float], dict[str, Any]]]:
        """[(values by name, context)]: gauges as they are, of counters what they grew by in a second since an earlier reading."""
        seconds = self.time_s - before.time_s
        values = dict(self.gauges)
        for counter, (name, unit) in RATES.items():
            grown = self._grown(before, counter)
            if grown is not None and seconds > 0:
                values[name] = grown / unit / seconds
        busy, total = self._grown(before, "busy_s"), self._grown(before, "total_s")
        if busy is not None and total:
            values["host_cpu"] = min(100 * busy / total, 100.0)
        samples: list[tuple[dict[str, float], dict[str, Any]]] = [(values, {})] if values else []
        samples += [(of_gpu, {"gpu": index}) for index, of_gpu in self.gpus.items() if of_gpu]
        return [({SYSTEM_METRICS + name: value for name, value in sample.items()}, context) for sample, context in samples]

    def _grown(self, before: Reading, counter: str) -> float | None:
        """None where it was not read, or began anew, as that of a disk that was taken out."""
        if counter not in self.counters or counter not in before.counters:
            return None
        grown = self.counters[counter] - before.counters[counter]
        return grown if grown >= 0 else None


class Machine:
    """complain(kind, error) is told what cannot be read; the rest is."""

    def __init__(self, complain: Complain) -> None:
        self._complain = complain
        self._process = psutil.Process()
        self._gpus = gpus.open_gpus(complain)

    def read(self) -> Reading:
        reading = Reading(time.monotonic())
        for part in (_read_process, _read_cpu, _read_memory, _read_disk, _read_disk_rates, _read_network):
            try:
                for to, name, value in part(self._process):
                    getattr(reading, to)[name] = float(value)
            except Exception as error:  # psutil's own, OSError, and what it makes of a /proc that it does not know
                self._complain(f"{part.__name__.removeprefix('_read_').replace('_', ' ')} cannot be read", error)
        if self._gpus is not None:
            reading.gpus = self._gpus.read()
        return reading

    def close(self) -> None:
        if self._gpus is not None:
            self._gpus.close()


Entries = Iterator[tuple[str, str, float]]


def _read_process(process: psutil.Process) -> Entries:
    with process.oneshot():
        used = process.cpu_times()
        yield "counters", "process_s", used.user + used.system
        yield "gauges", "p_memory_bytes", process.memory_info().rss
        yield "gauges", "p_memory_percent", process.memory_percent()
        yield "gauges", "p_threads", process.num_threads()


def _read_cpu(process: psutil.Process) -> Entries:
    times = psutil.cpu_times()
    total = sum(times) - getattr(times, "guest", 0) - getattr(times, "guest_nice", 0)  # which user and nice have in them
    yield "counters", "total_s", total
    yield "counters", "busy_s", total - times.idle - getattr(times, "iowait", 0)


def _read_memory(process: psutil.Process) -> Entries:
    memory = psutil.virtual_memory()
    yield "gauges", "memory_percent", memory.percent
    yield "gauges", "memory_bytes", memory.total - memory.available


def _read_disk(process: psutil.Process) -> Entries:
    yield "gauges", "disk_percent", psutil.disk_usage(os.getcwd()).percent


def _read_disk_rates(process: psutil.Process) -> Entries:
    counters = psutil.disk_io_counters(nowrap=False)  # None where the system counts none, in some containers say
    if counters is not None:
        yield "counters", "read_bytes", counters.read_bytes
        yield "counters", "write_bytes", counters.write_bytes


def _read_network(process: psutil.Process) -> Entries:
    counters = psutil.net_io_counters(nowrap=False)
    if counters is not None:
        yield "counters", "bytes_sent", counters.bytes_sent
        yield "counters", "bytes_recv", counters.bytes_recv
