"""What a figure was measured on, and what would make it worthless."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

import psutil

_UNOPTIMISED = re.compile(rb"GNU C[^\0]* -O0[ \0]")  # what gcc notes of its options in a build with -g
_PACKAGES = ("numpy", "rocksdict", "msgpack", "Cython", "tensorboardX")


def describe(directory: Path) -> dict[str, str]:
    """Label → text. directory: where the repos are made."""
    import aimlite

    packages = [f"{name} {version}" for name in _PACKAGES if (version := _version(name))]
    load = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    return {
        "aimlite": f"{aimlite.__version__} in {Path(aimlite.__file__).parent}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}; {', '.join(packages)}",
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores; load {load}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "system": " ".join((platform.system(), *platform.release().split("-")[:1])),
        "directory": f"{directory} on {_file_system(directory)}",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def warnings() -> list[str]:
    """Why the figures would be slower than users see, or would swing."""
    found = _slow_extensions()
    if sys.gettrace() is not None or sys.getprofile() is not None or "coverage" in sys.modules:
        found.append("a tracer, profiler or coverage is active")
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12
    if monitoring is not None and any(monitoring.get_tool(tool) for tool in range(6)):
        found.append("a tool of sys.monitoring is active")
    if hasattr(sys, "gettotalrefcount"):
        found.append("this is a debug build of Python")
    if sys.flags.dev_mode or os.environ.get("PYTHONMALLOC", "default") not in ("default", "pymalloc"):
        found.append("Python's development mode or a debugging allocator is on")
    busy = psutil.cpu_percent(interval=0.5)
    if busy > 10:
        found.append(f"others use {busy:.0f} % of this machine's processors: figures will swing")
    return found


def _slow_extensions() -> list[str]:
    from aimlite import _ext

    found = []
    for path in sorted(Path(_ext.__path__[0]).glob("*.so")):
        binary = path.read_bytes()
        if b"__asan_" in binary or b"__ubsan_" in binary:
            found.append(f"{path.name} is built with sanitizers")
        elif _UNOPTIMISED.search(binary):
            found.append(f"{path.name} is built without optimisation")
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _file_system(directory: Path) -> str:
    """Type and device of the file system that holds a directory."""
    holding = [part for part in psutil.disk_partitions(all=True) if directory.resolve().is_relative_to(part.mountpoint)]
    if not holding:
        return "an unknown file system"
    mount = max(holding, key=lambda part: len(part.mountpoint))
    return f"{mount.fstype} ({mount.device})"
