"""Where file locks may not reach other hosts, a heartbeat tells that a writer lives: the time of its journal's last change.

On a file system of this host nothing of this is done. On a shared one a writer touches its journal every 15 seconds; who finds the lock
free takes the journal for held until 60 seconds have passed without a beat, and does not merge it before 10 minutes have. A writer that
lets go of a journal sets its time to zero, so nobody waits for it.
"""

from __future__ import annotations

import os
import time

INTERVAL_S = 15.0
PATIENCE_S = 60.0
MERGE_PATIENCE_S = 600.0
_MOUNTS = "/proc/self/mountinfo"  # Linux; elsewhere every file system counts as this host's
_SHARED = frozenset(
    [
        *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "virtiofs", "gfs2", "ocfs2"),
        *("glusterfs", "orangefs", "pvfs2", "wekafs", "panfs", "vboxsf", "prl_fs"),
    ]
)
_known: dict[int, bool] = {}  # by device


def is_shared(device: int) -> bool:
    """Whether other hosts may write to the file system of a device. AIMLITE_HEARTBEAT (1 or 0) says it for all."""
    said = os.environ.get("AIMLITE_HEARTBEAT")
    if said in ("0", "1"):
        return said == "1"
    found = _known.get(device)
    if found is None:
        found = _known[device] = _kind(device) in _SHARED or _kind(device).startswith("fuse.")
    return found


def _kind(device: int) -> str:
    """The type of the file system, '' where that cannot be found out."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(_MOUNTS, encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                fields, _, rest = line.partition(" - ")
                if fields.split()[2] == wanted:
                    return rest.split()[0]
    except (OSError, IndexError):
        pass
    return ""


def beats(fd: int, patience_s: float = PATIENCE_S) -> bool:
    """Whether the journal at fd lies on a shared file system and was written to or touched of late."""
    found = os.fstat(fd)
    return is_shared(found.st_dev) and abs(time.time() - found.st_mtime) < patience_s


def let_go(fd: int) -> None:
    """Says that nobody writes to the journal at fd any more."""
    if is_shared(os.fstat(fd).st_dev):
        os.utime(fd, (0, 0))
