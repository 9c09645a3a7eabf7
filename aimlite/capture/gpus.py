"""NVIDIA GPUs through NVML. The one place that talks to `pynvml`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pynvml

from aimlite.capture import log

Complain = Callable[[str, object], None]


def open_gpus(complain: Complain) -> Gpus | None:
    """None, and a line in the log, where there is no driver, or none that answers, or no GPU."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        log("info", "no NVIDIA driver is installed: no metrics of GPUs")
        return None
    except Exception as error:  # NVMLError, and AttributeError or OSError of a library that is not what it should be
        log("warning", "the NVIDIA driver does not answer: no metrics of GPUs: %s", error)
        return None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception as error:
        log("warning", "the GPUs cannot be listed: no metrics of GPUs: %s", error)
        handles = []
    if not handles:
        _shut_down()
        return None
    return Gpus(handles, complain)


class Gpus:
    """The GPUs of this machine, in NVML's order, which is that of `nvidia-smi`."""

    def __init__(self, handles: list[Any], complain: Complain) -> None:
        self._handles = handles
        self._complain = complain

    def read(self) -> dict[int, dict[str, float]]:
        """{index: {metric: value}}. What a GPU does not tell is not there."""
        return {index: dict(self._of_all(index, handle, _METRICS)) for index, handle in enumerate(self._handles)}

    def describe(self) -> list[dict[str, Any]]:
        """[{'name', 'uuid', 'memory_bytes', 'driver', 'cuda'}] as far as it is told."""
        return [dict(self._of_all(index, handle, _PARAMS)) for index, handle in enumerate(self._handles)]

    def _of_all(self, index: int, handle: Any, parts: tuple[Callable[[Any], Any], ...]) -> Iterator[tuple[str, Any]]:
        for part in parts:
            try:
                yield from part(handle).items()
            except pynvml.NVMLError_NotSupported:
                continue  # a card without a sensor, or divided into instances
            except Exception as error:
                self._complain(f"GPU {index}: {part.__name__.strip('_').replace('_', ' ')} cannot be read", error)

    def close(self) -> None:
        _shut_down()


def _shut_down() -> None:
    with contextlib.suppress(pynvml.NVMLError):  # the driver went first
        pynvml.nvmlShutdown()


def _utilisation(handle: Any) -> dict[str, float]:
    return {"gpu": float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)}


def _memory(handle: Any) -> dict[str, float]:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return {"gpu_memory_percent": 100 * memory.used / memory.total, "gpu_memory_bytes": float(memory.used)}


def _temperature(handle: Any) -> dict[str, float]:
    return {"gpu_temp": float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))}


def _power(handle: Any) -> dict[str, float]:
    return {"gpu_power_watts": pynvml.nvmlDeviceGetPowerUsage(handle) / 1000}


def _memory_of_this_process(handle: Any) -> dict[str, float]:
    """Nothing where the driver does not list this process, as from within many containers."""
    used = [process.usedGpuMemory for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if process.pid == os.getpid()]
    known = [size for size in used if size is not None]
    return {"gpu_p_memory_bytes": float(sum(known))} if known else {}


def _name(handle: Any) -> dict[str, Any]:
    return {"name": _text(pynvml.nvmlDeviceGetName(handle)), "uuid": _text(pynvml.nvmlDeviceGetUUID(handle))}


def _size(handle: Any) -> dict[str, Any]:
    return {"memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)}


def _driver(handle: Any) -> dict[str, Any]:
    cuda = pynvml.nvmlSystemGetCudaDriverVersion()
    return {"driver": _text(pynvml.nvmlSystemGetDriverVersion()), "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}"}


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


_METRICS = (_utilisation, _memory, _temperature, _power, _memory_of_this_process)
_PARAMS = (_name, _size, _driver)
