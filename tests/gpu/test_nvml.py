"""Real GPUs. Where there is none every test here is skipped and says so."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pynvml
import pytest

from aimlite import Repo, Run
from aimlite.capture import gpus
from aimlite.capture.gpus import Gpus

HANG_S = 120
OF_GPU = {"gpu", "gpu_memory_percent", "gpu_memory_bytes", "gpu_temp", "gpu_power_watts"}


def complain(kind: str, error: object) -> None:
    pytest.fail(f"{kind}: {error}")


@pytest.fixture
def cards() -> Iterator[Gpus]:
    found = gpus.open_gpus(complain)
    if found is None:
        pytest.skip("NO NVIDIA GPU HERE: metrics of GPUs are NOT tested against a real driver")
    yield found
    found.close()


@pytest.fixture
def allocated() -> Iterator[int]:
    """512 MiB on the first GPU, through the driver itself."""
    cuda = ctypes.CDLL("libcuda.so.1")
    context, pointer, size = ctypes.c_void_p(), ctypes.c_void_p(), 512 << 20

    def call(name: str, *arguments: object) -> None:
        assert getattr(cuda, name)(*arguments) == 0, name

    call("cuInit", 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    call("cuCtxSetCurrent", context)
    call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
    yield size
    call("cuMemFree_v2", pointer)
    call("cuDevicePrimaryCtxRelease_v2", 0)


def test_every_card_tells_everything_plausible(cards: Gpus) -> None:
    found = cards.read()
    pynvml.nvmlInit()
    assert sorted(found) == list(range(pynvml.nvmlDeviceGetCount()))
    pynvml.nvmlShutdown()
    for values in found.values():
        assert values.keys() >= OF_GPU
        assert 0 <= values["gpu"] <= 100
        assert 0 <= values["gpu_memory_percent"] <= 100
        assert 0 < values["gpu_temp"] < 120
        assert 0 < values["gpu_power_watts"] < 3000


def test_cards_as_params(cards: Gpus) -> None:
    for card in cards.describe():
        assert card["name"]
        assert card["uuid"].startswith("GPU-")
        assert card["memory_bytes"] > 1 << 30
        assert card["driver"][0].isdigit()
        assert card["cuda"].replace(".", "").isdigit()


def test_memory_in_use_shows(cards: Gpus, allocated: int) -> None:
    assert any(values["gpu_memory_bytes"] >= allocated for values in cards.read().values())


def test_memory_of_this_process(cards: Gpus, allocated: int) -> None:
    mine = [values["gpu_p_memory_bytes"] for values in cards.read().values() if "gpu_p_memory_bytes" in values]
    if not mine:
        pytest.skip("THE DRIVER DOES NOT LIST THIS PROCESS (a container?): its memory on GPUs is NOT tested")
    assert sum(mine) >= allocated


def test_a_run_records_them(cards: Gpus, repo: Repo) -> None:
    with Run(repo=repo, system_tracking_interval=0.1) as run:
        end = time.monotonic() + HANG_S
        while run.get_metric("__system__gpu_power_watts", {"gpu": 0}) is None:
            assert time.monotonic() < end
            time.sleep(0.05)
    for index in cards.read():
        names = {metric.name for metric in run.metrics() if metric.context == {"gpu": index}}
        assert names >= {f"__system__{name}" for name in OF_GPU}


def test_a_forked_child_asks_the_driver_for_itself(cards: Gpus, repo: Repo, repo_path: str) -> None:
    code = """
import os, sys, time
from aimlite import Run

def wait(run):
    while run.get_metric("__system__gpu", {"gpu": 0}) is None:
        time.sleep(0.02)

parent = Run("parent", repo=sys.argv[1], system_tracking_interval=0.1)
wait(parent)
pid = os.fork()
if not pid:
    own = Run("child", repo=sys.argv[1], system_tracking_interval=0.1)
    wait(own)
    own.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
parent.close()
"""
    done = subprocess.run([sys.executable, "-c", code, repo_path], capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    assert repo.get_run("child").status == "finished"


def test_system_params_name_them(cards: Gpus, repo: Repo) -> None:
    with Run(repo=repo, log_system_params=True, system_tracking_interval=None) as run:
        pass
    assert run["__system_params", "gpus", 0, "name"] == cards.describe()[0]["name"]
    assert len(run["__system_params", "gpus"]) == len(cards.read())
    assert repo.query_runs("run.__system_params.gpus[0].memory_bytes > 0").hashes() == [run.hash]
    assert os.getpid() == run["__system_params", "host", "pid"]
