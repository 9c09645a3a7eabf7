"""What a run records by itself: the environment it ran in (`environment`), how busy the machine was (`sampling`), what was printed
(`terminal`).

Nothing here knows a Run: it is given functions to write with.
"""

from __future__ import annotations

import sys

SYSTEM_METRICS = "__system__"  # what the names of these metrics begin with
SYSTEM_PARAMS = "__system_params"

LIMIT_S = 20  # how long collecting the environment may take, and so how long the end of a run may wait for it


def log(level: str, message: str, *values: object) -> None:
    """To the logger `aimlite`, level 'info' or 'warning'. Where the program has not imported `logging` nobody can listen to that, and a
    warning goes to stderr, as logging itself would have it: imported while a fork waits, it would release a lock that it never took."""
    if "logging" in sys.modules:
        import logging

        getattr(logging.getLogger("aimlite"), level)(message, *values)
    elif level == "warning" and sys.stderr is not None:
        sys.stderr.write(message % values + "\n")
