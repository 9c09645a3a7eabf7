"""Regular expressions that no query may have: a timeout stops their search, but not the memory that they take before.

Two things were measured to take memory without bound: a pattern that is called from within (a frame for each level), and counted repeats,
which are written out when the pattern is compiled (275 bytes for each character). Fuzzy matching, nested stars, possessive and atomic
groups, set operations and look-behinds take time, which the timeout bounds, and little memory.
"""

from __future__ import annotations

import re

MAX_WRITTEN_OUT = 10_000
_CALL = re.compile(r"\\.|(\(\?(?:R|[+-]?\d|&|P>))", re.DOTALL)
_VERBOSE = re.compile(r"\(\?[A-Za-z0-9]*x")
_TOKEN = re.compile(r"\\.|\(\?#[^)]*\)?|\[\^?\]?(?:\\.|[^\]\\])*\]|[()]|\{(\d+)|.", re.DOTALL)


def refusal(pattern: str) -> str | None:
    """Why a pattern is refused; None when it is not."""
    for found in _CALL.finditer(pattern):
        if found[1]:
            return f"a pattern of `re` does not call itself or a group of it, as {pattern[found.start() :][:6]!r} does"
    if _VERBOSE.search(pattern):
        return "a pattern of `re` with the flag x has no counted repeats" if re.search(r"\{[\s\d#]", pattern) else None
    if _written_out(pattern) > MAX_WRITTEN_OUT:
        return f"a pattern of `re` has at most {MAX_WRITTEN_OUT:,} characters when each {{n}} is written out n times"
    return None


def _written_out(pattern: str) -> int:
    """How many characters and groups a pattern has with its counted repeats written out, or a few more."""
    sizes, last = [0], 0  # of the groups that are open; of what a repeat would repeat
    for found in _TOKEN.finditer(pattern):
        if found[0] == "(":
            sizes.append(0)
        elif found[0] == ")" and len(sizes) > 1:
            last = sizes.pop() + 1
            sizes[-1] += last
        elif found[1]:
            times = max(int(found[1][:9]), 1)
            sizes[-1] += last * (times - 1)
            last *= times
        else:
            last = 1
            sizes[-1] += 1
    return sum(sizes)
