"""stopped_compaction.py REPO: vanishes as a merge helper does that is killed while it lets RocksDB compact."""

import os
import sys
from pathlib import Path

from aimlite.storage.layout import Layout
from aimlite.storage.tree import TreeWriter

tree = TreeWriter(Layout(Path(sys.argv[1])).tree)
tree._db.set_options({"disable_auto_compactions": "false"})
os._exit(0)
