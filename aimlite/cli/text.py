"""Data of users as text for people: nothing in it reaches the terminal as a command."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from datetime import datetime, timezone
from typing import Any

# C0 and C1 controls, line and paragraph separators, lone surrogates, and what turns the direction of text round
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ESCAPES = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}


def clean(text: str) -> str:
    r"""The text with control characters written as \n, \x1b, \u202e."""
    return _UNSAFE.sub(lambda match: _ESCAPES.get(match[0]) or _escape(ord(match[0])), text)


def pointed(line: str, begin: int, end: int) -> list[str]:
    """A line and one of carets below the characters from begin to before end, counted from 1. No wider than the terminal: of a long line a
    part."""
    from rich.cells import cell_len, chop_cells

    shown = [clean(part) for part in (line[: begin - 1], line[begin - 1 : end - 1], line[end - 1 :])]
    room = shutil.get_terminal_size().columns - 4 if sys.stderr.isatty() else 1 << 16
    before, meant, behind = shown
    if cell_len("".join(shown)) > room:
        meant = chop_cells(meant, room // 2)[0] if meant else ""
        before = chop_cells(before[::-1], room // 4)[0][::-1] if before else ""
        behind = chop_cells(behind, max(room - cell_len(before + meant), 1))[0] if behind else ""
    return [f"  {before}{meant}{behind}", f"  {' ' * cell_len(before)}{'^' * max(cell_len(meant), 1)}"]


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def json_text(value: Any) -> str:
    """A param or a context as JSON on one line."""
    from aimlite.sdk.params import as_json

    text = json.dumps(as_json(value), ensure_ascii=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)  # which JSON reads as the same character


def path_text(path: tuple[Any, ...]) -> str:
    """`hparams.layers.0`; a key that could be taken for something else is quoted."""
    return ".".join(str(key) if isinstance(key, int) or _PLAIN_KEY.fullmatch(key) else json_text(key) for key in path)


def iso(seconds: float | None) -> str | None:
    """ISO 8601 in UTC, to the microsecond."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")


def local_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def duration_text(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size_text(size: float) -> str:
    """1.5 MiB."""
    if size < 1024:
        return f"{size:.0f} B"
    power = min(int(math.log(size, 1024)), 4)
    return f"{size / 1024**power:.1f} {'KMGT'[power - 1]}iB"
