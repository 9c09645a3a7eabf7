"""Operations on images: tracked as pixels, listed, read back, and what they take on disk beside the same files in a folder."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as pillow
from table import SEED, Bench, Line, Run, Samples, operation, stopwatch

from aimlite import Image, Repo

SIDE = 64
_AIM_IMAGES = 500


def pictures(n: int) -> NDArray[np.uint8]:
    """uint8[n, 64, 64, 3]: a coloured blob on a gradient with some noise, each another."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    found = np.empty((n, SIDE, SIDE, 3), np.uint8)
    for k in range(n):
        centre, colour = rng.uniform(10, 54, 2), rng.uniform(50, 200, 3)
        blob = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 150)
        found[k] = np.clip(blob[:, :, None] * colour + x[:, :, None] / 2 + rng.normal(0, 2, (SIDE, SIDE, 1)), 0, 255)
    return found


@operation(
    "images",
    *(Line("µs", of="track"), Line("ms", of="list journals"), Line("µs", of="read journals"), Line("s", of="merge")),
    *(Line("ms", of="list"), Line("µs", of="read"), Line("B", of="journals"), Line("B", of="disk"), Line("B", of="folder")),
)
def images(bench: Bench) -> list[Samples]:
    """10,000 images of 64 × 64 pixels given as arrays; per image but for listing and merging."""
    given = pictures(bench.scaled(10_000))
    n, path, folder = len(given), bench.path(), bench.path()

    def track() -> None:
        with Run(repo=path) as run:
            for step in range(n):
                run.track(Image(given[step], caption="of a benchmark"), name="seen", step=step)

    tracked = stopwatch(track) / n * 1e6
    before = size_of(path) / n
    listed, read = listing(path), reading(path, given)
    with Repo(path) as repo:
        merged = stopwatch(repo.merge)
    folder.mkdir()
    for step in range(n):
        pillow.fromarray(given[step]).save(folder / f"{step}.png")
    after = [listing(path), reading(path, given)]
    return [[figure] for figure in (tracked, listed, read, merged, *after, before, size_of(path) / n, size_of(folder) / n)]


def listing(path: Path) -> float:
    """ms to list captions and sizes of all."""
    with Repo(path) as repo:

        def told() -> None:
            for sequence in repo.query_images("images.name == 'seen'"):
                assert sum(image.width == SIDE and image.caption != "" for image in sequence.values) == sequence.count

        return stopwatch(told) * 1e3


def reading(path: Path, given: NDArray[np.uint8]) -> float:
    """µs to read one of them as an array, of at most 1,000."""
    with Repo(path) as repo:
        [sequence] = repo.query_images("images.name == 'seen'")
        chosen = sequence.values.tolist()[:: max(1, len(given) // 1000)]

        def read() -> None:
            for image in chosen:
                image.to_numpy()

        spent = stopwatch(read) / len(chosen) * 1e6
        assert (chosen[-1].to_numpy() == given[:: max(1, len(given) // 1000)][-1]).all()
        return spent


def size_of(path: Path) -> int:
    """Bytes that the files below a directory take."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


@operation("peer images", Line("µs", of="track"), Line("ms", of="list"), Line("B", of="disk"))
def peer_images(bench: Bench) -> list[Samples]:
    """Aim on 500 of them. Only with AIMLITE_AIM_PYTHON."""
    python = os.environ.get("AIMLITE_AIM_PYTHON")
    if not python:
        return [[], [], []]
    path, files = bench.path(), bench.path()
    path.mkdir()
    np.save(files, pictures(bench.scaled(_AIM_IMAGES)))
    script = Path(__file__).with_name("aim_peer.py")
    done = subprocess.run([python, script, "images", path], input=json.dumps(f"{files}.npy"), stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return [[told["track_us"]], [told["list_ms"]], [size_of(path) / told["count"]]]
