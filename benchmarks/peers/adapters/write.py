"""A floor: `write(2)` of as many bytes as aimlite writes, without names, checksums or anything that reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from contract import NotOffered

_NO_READING = "the bytes mean nothing"


class Peer:
    IMPORT = "import os"
    DISTRIBUTION = ""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self.path = Path(path)
        self.path.mkdir(exist_ok=True)
        self.number = 0
        self.record_bytes = options["record_bytes"]  # of a call that tracks 1, 10, 1000 values

    def start(self, params=None):
        """A run is its descriptor and its name."""
        self.number += 1
        return os.open(self.path / f"{self.number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), f"{self.number}"

    def scalars(self, run, values, first):
        record = bytes(self.record_bytes["1"])
        fd = run[0]
        for _ in values:
            os.write(fd, record)

    def dicts(self, run, values, steps):
        record = bytes(self.record_bytes[str(len(values))])
        fd = run[0]
        for _ in steps:
            os.write(fd, record)

    def finish(self, run):
        os.close(run[0])
        return run[1]

    def identify(self, run):
        return run[1]

    def resume(self, run_id):
        return os.open(self.path / run_id, os.O_WRONLY | os.O_APPEND), run_id

    def settle(self):
        pass

    def read(self, run_id):
        """The bytes alone."""
        return len((self.path / run_id).read_bytes()) // self.record_bytes["1"]

    def read_all(self):
        raise NotOffered(_NO_READING)

    def query(self, key, value):
        raise NotOffered(_NO_READING)
