"""What is too large, or has no end, is refused before it is copied: in bounded memory, and nothing is recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from aimlite import Distribution, Image, Repo, Run
from aimlite.objects import given

SCRIPT = """
    import itertools, json, os, resource, sys, tracemalloc
    import numpy as np
    from aimlite import Audio, Distribution, Image, Repo, Run, Text, convert_to_image_list
    import aimlite
    run = Run("r", repo=sys.argv[1], system_tracking_interval=None, capture_terminal_logs=False)
    wide = np.broadcast_to(np.uint8(0), (60_000, 60_000))
    long = np.broadcast_to(np.float32(0), (2**40,))
    small = Image(np.zeros((2, 2), np.uint8))
    endless = itertools.count()
    limit = 2_000_000_000  # of address space: what is copied out is a MemoryError
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        made = eval(sys.argv[2])
    except (TypeError, ValueError) as error:
        print(json.dumps([type(error).__name__, str(error)]))
    run.close()
"""
CASES = {
    "Image(wide)": ("ValueError", "60000"),
    "Image(np.broadcast_to(np.float64(0), (30_000, 30_000, 3)))": ("ValueError", "30000"),
    "Image(np.broadcast_to(np.uint16(0), (9_500, 9_500)))": ("ValueError", "89,478,485"),
    "Image('/dev/zero')": ("ValueError", "regular file"),
    "Image(open('/dev/zero', 'rb'))": ("ValueError", "device"),
    "Image('fifo')": ("ValueError", "regular file"),
    "Image('sparse')": ("ValueError", "1,073,741,824 bytes"),
    "Image(open('sparse', 'rb'))": ("ValueError", "1,073,741,824 bytes"),
    "Audio(long)": ("ValueError", "1,099,511,627,776"),
    "Audio('/dev/zero')": ("ValueError", "regular file"),
    "Audio(endless)": ("TypeError", "count"),
    "Text(endless)": ("TypeError", "count"),
    "Distribution(long)": ("ValueError", "1,099,511,627,776"),
    "Distribution(wide)": ("ValueError", "3,600,000,000"),
    "Distribution(endless)": ("ValueError", "10,000,000"),
    "Distribution(hist=long, bin_range=(0, 1))": ("ValueError", "512"),
    "Distribution(hist=endless, bin_range=(0, 1))": ("ValueError", "512"),
    "convert_to_image_list(itertools.repeat(np.zeros((2, 2), np.uint8)))": ("ValueError", "100,000"),
    "run.track([small] * 1_000_000, name='pictures')": ("ValueError", "100,000"),
    "run.track({'pictures': [small] * 1_000_000})": ("ValueError", "100,000"),
    "run.track_columns('loss', endless)": ("ValueError", "10,000,000"),
    "run.track_columns('loss', long)": ("ValueError", "1,099,511,627,776"),
    "run.track_columns('loss', [1.0], steps=endless)": ("ValueError", "10,000,000"),
    "run.track_columns('loss', [1.0], epochs=endless)": ("TypeError", "epochs are numbers"),
    "run.track_columns('loss', [1.0], times=endless)": ("ValueError", "10,000,000"),
    "run.track_columns('loss', [1.0], steps=long)": ("ValueError", "1,099,511,627,776"),
    "run.set('a', np.broadcast_to(np.float64(0), (10**6, 10**6)))": ("ValueError", "1,000"),
    "run.set('a', endless)": ("TypeError", "count"),
    "run.log_artifact('/dev/zero')": ("ValueError", "no file"),
    "run.log_artifact('fifo')": ("ValueError", "no file"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS bounds nothing elsewhere")
@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_and_takes_no_memory(case: str, repo: Repo, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), repo.path, case],
        cwd=tmp_path,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kind, message = json.loads(done.stdout)
    assert (kind, CASES[case][1] in message) == (CASES[case][0], True), message
    run = repo.get_run("r")
    assert (list(run.metrics()), run[...], run.artifacts) == ([], {}, {})
    assert run.get_image_sequence("pictures") is None


def test_log_image_of_a_fluent_run_too(tmp_path: Path) -> None:
    import aimlite

    with aimlite.init(storage=str(tmp_path / "repo")) as run:
        with pytest.raises(ValueError, match="60000"):
            run.log_image("picture", np.broadcast_to(np.uint8(0), (60_000, 60_000)))
        with pytest.raises(ValueError, match="regular file"):
            run.log_image("picture", "/dev/zero")
        assert run.get_image_sequence("picture") is None


def test_what_is_within_the_limits_is_as_it_was(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = np.arange(12.0).reshape(3, 4).T
    assert Distribution(turned) == Distribution(turned.copy()) == Distribution(iter(turned.ravel().tolist()))
    assert Distribution(np.broadcast_to(np.float32(2), (3, 4))).weights.sum() == 12
    (tmp_path / "a.png").write_bytes(Image(np.zeros((2, 2), np.uint8)).data)
    monkeypatch.setattr(given, "_PIECE", 7)
    with open(tmp_path / "a.png", "rb") as file:
        assert Image(file) == Image(tmp_path / "a.png")
    with open(tmp_path / "a.png", encoding="latin-1") as file, pytest.raises(TypeError, match="binary mode"):
        Image(file)
    with Run(repo=repo, system_tracking_interval=None, capture_terminal_logs=False) as run:
        run.track_columns("loss", iter([1.0, 2.0]), steps=(step for step in (3, 4)))
    assert run.get_metric("loss").values.sparse_list() == ([3, 4], [1.0, 2.0])
