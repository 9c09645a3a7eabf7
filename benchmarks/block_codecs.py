"""The codec of blocks beside public ones, on curves as training scripts record them: bytes and time for a point.

python benchmarks/block_codecs.py                               # one table, in Markdown
python benchmarks/block_codecs.py --write docs/benchmarks.md    # puts it there

Runs in an environment of its own, which has pcodec, Blosc2 and zstandard. Every codec gets the same: steps and values of 4,096 points, as
a block of the tree has them, and gives them back bit by bit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "peers")]

PACKAGES = ("pcodec", "blosc2", "zstandard", "numpy", "msgpack", "rocksdict", "psutil")
BLOCK = 4096
OWN = "aimlite"
ZSTD_LEVEL = 3  # RocksDB's, which compresses what the codec of blocks leaves


@dataclass(frozen=True)
class Codec:
    """encode: steps, values → bytes. decode: bytes → steps, values."""

    encode: Callable[[Any, Any], Any]
    decode: Callable[[Any], tuple[Any, Any]]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Compares the codec of blocks with public ones.")
    parser.add_argument("--points", type=int, default=65_536, help="of each curve (65,536)")
    parser.add_argument("--repeats", type=int, default=7, help="of which the median is shown (7)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")
    parser.add_argument("--write", metavar="PAGE", type=Path, help="replace the table of this page")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(codecs(), options.points, options.repeats)))
        return 0
    results = measured_apart(options.points, options.repeats)
    text = markdown(results)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if options.write:
        from report import replace_between_markers

        replace_between_markers(options.write, "codecs", text)
    return 0


def measured_apart(points: int, repeats: int) -> dict[str, Any]:
    from venvs import VENVS, interpreter

    import aimlite

    python = interpreter(VENVS, "codecs", PACKAGES)
    command = [python, __file__, "--measure", "--points", str(points), "--repeats", str(repeats)]
    environment = {**os.environ, "PYTHONPATH": str(Path(aimlite.__file__).parents[1]), "BLOSC_NTHREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def codecs() -> dict[str, Codec]:
    """Name with version → codec. Each takes the two columns apart where that serves it better."""
    from importlib.metadata import version

    import blosc2
    import numpy as np
    import zstandard
    from pcodec import ChunkConfig, standalone

    from aimlite._ext import blocks

    pack, unpack = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress, zstandard.ZstdDecompressor().decompress

    def own_decode(data: bytes) -> tuple[Any, Any]:
        _, steps, values = blocks.decode_values(unpack(data))
        return np.frombuffer(steps, np.int64), np.frombuffer(values, np.float64)

    def of_columns(encode: Callable[[Any], bytes], decode: Callable[[bytes, Any], Any]) -> Codec:
        return Codec(
            lambda steps, values: (encode(steps), encode(values)),
            lambda both: (decode(both[0], np.int64), decode(both[1], np.float64)),
        )

    filters = {"codec": blosc2.Codec.ZSTD, "clevel": 5, "typesize": 8, "nthreads": 1}
    bits = blosc2.CParams(**filters, filters=[blosc2.Filter.BITSHUFFLE])
    shuffled = blosc2.CParams(**filters, filters=[blosc2.Filter.DELTA, blosc2.Filter.SHUFFLE])
    one_thread = blosc2.DParams(nthreads=1)

    def blosc(params: Any) -> Codec:
        return of_columns(
            lambda column: blosc2.compress2(column, cparams=params),
            lambda data, kind: np.frombuffer(blosc2.decompress2(data, dparams=one_thread), kind),
        )

    return {
        OWN: Codec(lambda steps, values: pack(blocks.encode_values(steps, values)), own_decode),
        f"pcodec {version('pcodec')}": of_columns(
            lambda column: standalone.simple_compress(column, ChunkConfig()), lambda data, kind: standalone.simple_decompress(data)
        ),
        f"Blosc2 {version('blosc2')}, bit shuffle": blosc(bits),
        "Blosc2, delta and shuffle": blosc(shuffled),
        f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}": of_columns(
            lambda column: pack(column.tobytes()), lambda data, kind: np.frombuffer(unpack(data), kind)
        ),
    }


def measure(known: Mapping[str, Codec], points: int, repeats: int) -> dict[str, Any]:
    """Curve → codec → bytes, encode_ns and decode_ns of a point. Codecs take turns, so that a machine that drifts slows all alike."""
    import numpy as np
    from curves import curves

    results: dict[str, Any] = {}
    for curve, values in curves(points).items():
        steps = np.arange(points, dtype=np.int64)
        pieces = [(steps[start : start + BLOCK], values[start : start + BLOCK]) for start in range(0, points, BLOCK)]
        sizes, times = {}, {name: ([], []) for name in known}
        for name, codec in known.items():
            coded = [codec.encode(*piece) for piece in pieces]
            for data, (first, second) in zip(coded, pieces, strict=True):
                back = codec.decode(data)
                assert np.array_equal(back[0], first), f"{name} changed steps"
                assert np.array_equal(back[1].view(np.int64), second.view(np.int64)), f"{name} changed values of {curve}"
            sizes[name] = sum(len(part) for data in coded for part in (data if isinstance(data, tuple) else (data,)))
        for _ in range(repeats):
            for name, codec in known.items():
                start = time.perf_counter()
                coded = [codec.encode(*piece) for piece in pieces]
                middle = time.perf_counter()
                for data in coded:
                    codec.decode(data)
                end = time.perf_counter()
                times[name][0].append(middle - start)
                times[name][1].append(end - middle)
        results[curve] = {
            name: {"bytes": sizes[name] / points, **{key: 1e9 * statistics.median(spent) / points for key, spent in named(times[name])}}
            for name in known
        }
    return results


def named(spent: tuple[list[float], list[float]]) -> list[tuple[str, list[float]]]:
    return list(zip(("encode_ns", "decode_ns"), spent, strict=True))


def markdown(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """A cell: bytes a point; ns to encode and to decode a point. The last row: the medians of the ratios to aimlite."""
    from report import table

    names = list(next(iter(results.values())))
    rows = [["bytes; ns to encode / decode, of a point", *names]]
    for curve, found in results.items():
        rows.append([curve, *("{bytes:.2f}; {encode_ns:.1f} / {decode_ns:.1f}".format(**found[name]) for name in names)])
    ratios = []
    for name in names:
        parts = [
            statistics.median(found[name][key] / found[OWN][key] for found in results.values())
            for key in ("bytes", "encode_ns", "decode_ns")
        ]
        ratios.append("**{:.2f}×; {:.1f}× / {:.1f}×**".format(*parts))
    return "\n".join(table([*rows, ["**median ratio to aimlite**", *ratios]])) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
