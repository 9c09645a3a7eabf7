"""The process that looks at the environment of a run: it prints one line of JSON, [path, value], for each part, and at last `null`.

A process of its own, so that nothing of it holds up training: reading the metadata of some hundred packages takes a tenth of a second of
Python, a driver may take seconds to answer. It ends after `LIMIT_S` seconds whatever hangs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

from aimlite.capture import LIMIT_S
from aimlite.capture.redaction import Redactor

Part = tuple[list[str | int], Any]


def main(request: dict[str, Any]) -> None:
    """request: 'environment', 'arguments', 'executable', 'directory', 'pid', 'parts' (names of those wanted), 'git_diff'."""
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    redactor = Redactor(request["environment"], request["arguments"])
    for name in request["parts"]:
        try:
            for path, value in PARTS[name](request, redactor):
                _print([path, value])
        except Exception as error:
            _print([None, redactor.text(f"{name}: {type(error).__name__}: {error}")])
    _print(None)


def _print(line: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # who asked has gone
        sys.stdout.write(json.dumps(_storable(line)) + "\n")
        sys.stdout.flush()


def _storable(value: Any) -> Any:
    """Bytes that are no UTF-8, which Python shows as surrogates, as `\\udcff`."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list) else value


def _arguments(request: dict[str, Any], redactor: Redactor) -> Iterator[Part]:
    yield ["arguments"], redactor.arguments()


def _executable(request: dict[str, Any], redactor: Redactor) -> Iterator[Part]:
    yield ["executable"], redactor.text(request["executable"])


def _env_variables(request: dict[str, Any], redactor: Redactor) -> Iterator[Part]:
    yield ["env_variables"], redactor.environment()


def _python(request: dict[str, Any], redactor: Redactor) -> Iterator[Part]:
    yield ["python"], {"version": platform.python_version(), "implementation": platform.python_implementation()}


def _os(request: dict[str, Any], redactor: Redactor) -> Iterator[Part]:
    name = f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else f"{platform.system()} {platform.release()}"
    with contextlib.suppress(OSError):
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    yield ["os"], {"name": name, "system": platform.system(), "release": platform.release(), "version": platform.version()}


def _host(request: dict[str, Any], redactor: Redactor) -> Iterator[Part]:
    yield ["host"], {"name": platform.node(), "pid": request["pid"], "directory": redactor.text(request["directory"])}


def _cpu(request: dict[str, Any], redactor: Redactor) -> Iterator[Part]:
    import psutil

    cores = {"cores": psutil.cpu_count(logical=False), "threads": psutil.cpu_count()}
    with contextlib.suppress(AttributeError):  # macOS
        cores["usable"] = len(os.sched_getaffinity(request["pid"]))
    yield ["cpu"], {"model": _cpu_model(), "architecture": platform.machine(), **cores}


def _cpu_model() -> str:
    if sys.platform == "darwin":
        import subprocess

        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(
                ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, timeout=5, check=True
            ).stdout.strip()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _memory(request: dict[str, Any], redactor: Redactor) -> Iterator[Part]:
    import psutil

    yield ["memory"], {"total_bytes": psutil.virtual_memory().total, "swap_bytes": psutil.swap_memory().total}


def _git_info(request: dict[str, Any], redactor: Redactor) -> Iterator[Part]:
    from aimlite.capture import git

    script = os.path.dirname(os.path.join(request["directory"], request["arguments"][0])) if request["arguments"] else ""
    yield ["git_info"], git.describe([request["directory"], script], request["git_diff"], redactor.text)


def _packages(request: dict[str, Any], redactor: Redactor) -> Iterator[Part]:
    from importlib import metadata

    packages: dict[str, str] = {}
    for distribution in metadata.distributions():
        described = distribution.metadata  # which may be missing, or broken
        if described is not None and described["Name"] and described["Version"]:
            packages.setdefault(described["Name"].lower(), described["Version"])  # the first on the path is the one imported
    yield ["packages"], dict(sorted(packages.items()))


def _gpus(request: dict[str, Any], redactor: Redactor) -> Iterator[Part]:
    from aimlite.capture import gpus

    yield ["gpus"], {}
    found = gpus.open_gpus(lambda kind, error: None)
    if found is not None:
        for index, described in enumerate(found.describe()):
            yield ["gpus", index], described


PARTS: dict[str, Callable[[dict[str, Any], Redactor], Iterator[Part]]] = {
    "arguments": _arguments,
    "executable": _executable,
    "env_variables": _env_variables,
    "python": _python,
    "os": _os,
    "host": _host,
    "cpu": _cpu,
    "memory": _memory,
    "git_info": _git_info,
    "packages": _packages,
    "gpus": _gpus,  # the last: a driver may take its time
}
