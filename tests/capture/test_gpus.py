"""GPUs behind a driver that is made up: NVML's functions are replaced, its errors are its own. tests/gpu is for real ones."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from aimlite.capture import gpus

CARDS: list[dict[str, Any]] = [
    {"gpu": 73, "used": 6 << 30, "total": 24 << 30, "temp": 61, "milliwatts": 215_500, "name": b"Card A"},
    {"gpu": 0, "used": 0, "total": 80 << 30, "temp": 30, "milliwatts": 45_000, "name": "Card B"},
]


class Complaints(list[tuple[str, str]]):
    def __call__(self, kind: str, error: object) -> None:
        self.append((kind, type(error).__name__))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two cards; the calls that open and close the driver are listed."""
    calls: list[str] = []
    replies: dict[str, Any] = {
        "nvmlInit": lambda: calls.append("init"),
        "nvmlShutdown": lambda: calls.append("shutdown"),
        "nvmlDeviceGetCount": lambda: len(CARDS),
        "nvmlDeviceGetHandleByIndex": lambda index: CARDS[index],
        "nvmlDeviceGetUtilizationRates": lambda card: SimpleNamespace(gpu=card["gpu"], memory=1),
        "nvmlDeviceGetMemoryInfo": lambda card: SimpleNamespace(used=card["used"], total=card["total"]),
        "nvmlDeviceGetTemperature": lambda card, sensor: card["temp"] if sensor == pynvml.NVML_TEMPERATURE_GPU else 0,
        "nvmlDeviceGetPowerUsage": lambda card: card["milliwatts"],
        "nvmlDeviceGetComputeRunningProcesses": lambda card: [],
        "nvmlDeviceGetName": lambda card: card["name"],
        "nvmlDeviceGetUUID": lambda card: "GPU-1234",
        "nvmlSystemGetDriverVersion": lambda: "550.54.15",
        "nvmlSystemGetCudaDriverVersion": lambda: 12040,
    }
    for name, reply in replies.items():
        monkeypatch.setattr(pynvml, name, reply)
    return calls


def test_what_cards_tell(driver: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=5 << 30),
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=1 << 30),  # one entry for each instance of a divided card
        SimpleNamespace(pid=1, usedGpuMemory=9 << 30),
    ]
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda card: processes if card is CARDS[0] else [])
    complaints = Complaints()
    found = gpus.open_gpus(complaints)
    assert found is not None
    assert found.read() == {
        0: {
            "gpu": 73.0,
            "gpu_memory_percent": 25.0,
            "gpu_memory_bytes": float(6 << 30),
            "gpu_temp": 61.0,
            "gpu_power_watts": 215.5,
            "gpu_p_memory_bytes": float(6 << 30),
        },
        1: {"gpu": 0.0, "gpu_memory_percent": 0.0, "gpu_memory_bytes": 0.0, "gpu_temp": 30.0, "gpu_power_watts": 45.0},
    }
    assert found.describe()[0] == {
        "name": "Card A",
        "uuid": "GPU-1234",
        "memory_bytes": 24 << 30,
        "driver": "550.54.15",
        "cuda": "12.4",
    }
    found.close()
    assert (driver, complaints) == (["init", "shutdown"], [])


def test_a_process_whose_memory_the_driver_does_not_know(driver: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda card: [SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)])
    found = gpus.open_gpus(Complaints())
    assert found is not None
    assert "gpu_p_memory_bytes" not in found.read()[0]


def test_a_card_without_a_sensor_and_one_that_fails(driver: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def power(card: Any) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def temperature(card: Any, sensor: int) -> int:
        if card is CARDS[1]:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return 61

    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", power)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", temperature)
    complaints = Complaints()
    found = gpus.open_gpus(complaints)
    assert found is not None
    assert {index: "gpu_temp" in values for index, values in found.read().items()} == {0: True, 1: False}
    assert all("gpu_power_watts" not in values for values in found.read().values())
    assert set(complaints) == {("GPU 1: temperature cannot be read", "NVMLError_GpuIsLost")}


@pytest.mark.parametrize(
    ("error", "level", "said"),
    [
        (pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND), "INFO", "no NVIDIA driver is installed"),
        (pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED), "WARNING", "does not answer"),
        (pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH), "WARNING", "does not answer"),
        (OSError("a library of another machine"), "WARNING", "does not answer"),
    ],
)
def test_a_driver_that_is_missing_or_broken_is_one_line(
    driver: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, level: str, said: str
) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr(pynvml, "nvmlInit", broken)
    with caplog.at_level(logging.INFO, "aimlite"):
        assert gpus.open_gpus(Complaints()) is None
    [record] = caplog.records
    assert (record.levelname, said in record.getMessage(), driver) == (level, True, [])


def test_a_driver_without_cards_is_closed_again(driver: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 0)
    assert gpus.open_gpus(Complaints()) is None
    assert driver == ["init", "shutdown"]


def test_a_driver_that_cannot_list_its_cards(driver: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", broken)
    with caplog.at_level(logging.INFO, "aimlite"):
        assert gpus.open_gpus(Complaints()) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert driver == ["init", "shutdown"]
