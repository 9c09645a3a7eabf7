"""How a long read tells how far it is."""

from __future__ import annotations

import enum


class QueryReportMode(enum.IntEnum):
    """DISABLED: not at all. PROGRESS_BAR: a bar on stderr, where a terminal is attached. PROGRESS_TUPLE: (item, (done, total)) in place of
    each item."""

    DISABLED = 0
    PROGRESS_BAR = 1
    PROGRESS_TUPLE = 2
