"""killed_writer.py REPO RUN SEED: makes one call after another and prints the index of each when it has returned, until it is killed."""

import os
import sys
from itertools import count

from operations import kind_of, perform

from aimlite import Run

repo, run_hash, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
run = Run(run_hash, repo=repo)
os.write(1, b"open\n")
for index in count():
    perform(run, kind_of(seed, index), index)
    os.write(1, b"%d\n" % index)
