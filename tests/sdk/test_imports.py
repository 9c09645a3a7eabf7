"""What a training script pays for before its first point."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["numpy", "rocksdict", "pandas", "pyarrow", "lark", "psutil", "pynvml", "click", "rich", "subprocess", "asyncio", "argparse"]


@pytest.mark.parametrize(
    "code",
    [
        "import aimlite",
        "from aimlite import Repo, Run, RepoStatus, QueryReportMode",
        "from aimlite import Run; run = Run(repo='here'); run.track(1.5, name='loss', context={'subset': 'train'}); run.close()",
        "from aimlite import Run\nwith Run(repo='here') as run:\n    run['hparams'] = {'lr': (1, 2)}; run.track({'a': 1, 'b': 0.5})",
    ],
)
def test_nothing_heavy_is_imported(code: str, tmp_path: object) -> None:
    script = f"{code}\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=str(tmp_path), check=True, timeout=300, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
