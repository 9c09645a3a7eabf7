"""Every name that a query may use, and what stands behind it. There is nothing else that a query can reach.

None stands for what is missing. A function or method of something missing is missing, but for those in `TAKES_MISSING`.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from aimlite.errors import QueryLimitError

MAX_ITEMS = 10_000  # of what a query makes: ranges, lists, repeated strings
MAX_CHARACTERS = 100_000
MAX_MADE = 2_000_000  # for one row
MAX_BITS = 4096
MAX_PATTERN = 1000

KINDS = {  # what a query is about, and the name of one of them
    "runs": "",
    "metrics": "metric",
    "images": "images",
    "audios": "audios",
    "texts": "texts",
    "figures": "figures",
    "distributions": "distributions",
}
RUN_PROPERTIES = (
    *("name", "description", "hash", "experiment", "tags", "notes", "archived", "active", "status", "stalled", "path", "alias"),
    *("creation_time", "created_at", "updated_at", "end_time", "finalized_at", "duration", "error"),
)
SEQUENCE_ATTRIBUTES = ("name", "context", "run", "last", "first", "min", "max", "last_step", "first_step", "count", "dtype")
OBJECT_ATTRIBUTES = ("name", "context", "run", "last_step", "first_step", "count")
SEQUENCE_NUMBERS = ("last", "first", "min", "max", "last_step", "first_step", "count")
REFUSED_NAMES = {
    name: f"{name} is not part of AimQL: a query reaches only the values it names"
    for name in (
        *(
            "eval",
            "exec",
            "compile",
            "open",
            "print",
            "input",
            "type",
            "getattr",
            "setattr",
            "delattr",
            "hasattr",
            "vars",
            "dir",
            "globals",
        ),
        *("locals", "id", "hash", "iter", "next", "map", "filter", "zip", "enumerate", "object", "super", "import", "__import__"),
    )
}


def bounded(size: int, what: str = "items", most: int = MAX_ITEMS) -> None:
    if size > most:
        raise QueryLimitError(f"a query makes at most {most:,} {what} at once, not {size:,}")


# -- functions ----


def _range(*arguments: int) -> list[int]:
    numbers = range(*arguments)
    bounded(len(numbers))
    return list(numbers)


def _round(number: float, ndigits: int | None = None) -> Any:
    if ndigits is not None and abs(ndigits) > 400:
        raise QueryLimitError("round() takes at most 400 digits")
    return round(number, ndigits)


def _int(value: Any = 0, base: int | None = None) -> int:
    if isinstance(value, str):
        bounded(len(value), "digits", 1000)
    return int(value) if base is None else int(value, base)


_PLAIN = (str, bytes, bool, int, float, complex, list, tuple, set, frozenset, dict, dt.date, dt.time, dt.timedelta)


def is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN)


def text_of(value: Any) -> str | None:
    """`str(value)`; missing for what is no value, but the hash for a run."""
    return str(value) if isinstance(value, _PLAIN) or hasattr(value, "param") else None


def _collected(kind: type) -> Callable[..., Any]:
    def collect(items: Iterable[Any] = ()) -> Any:
        found = kind(items)
        bounded(len(found), most=MAX_CHARACTERS)
        return found

    return collect


def _sorted(items: Iterable[Any], *, reverse: bool = False) -> list[Any]:
    return sorted(items, reverse=reverse)


def _sum(items: Iterable[Any], start: Any = 0) -> Any:
    if isinstance(start, str | list | tuple):
        raise TypeError("sum() adds numbers")
    items = list(items)
    if any(isinstance(item, str | list | tuple) for item in items):
        raise TypeError("sum() adds numbers")
    return sum(items, start)


def _isinstance(value: Any, classes: Any) -> bool:
    return value is not None and isinstance(value, classes)


CLASSES: dict[str, type] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "list": list,
    "tuple": tuple,
    "set": set,
    "dict": dict,
    "datetime": dt.datetime,
    "timedelta": dt.timedelta,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "len": len,
    "any": any,
    "all": all,
    "sum": _sum,
    "min": min,
    "max": max,
    "sorted": _sorted,
    "abs": abs,
    "round": _round,
    "float": float,
    "int": _int,
    "str": text_of,
    "bool": bool,
    "isinstance": _isinstance,
    "range": _range,
    "list": _collected(list),
    "tuple": _collected(tuple),
    "set": _collected(set),
    "datetime": dt.datetime,
    "timedelta": dt.timedelta,
}


class Module(NamedTuple):
    functions: Mapping[str, Callable[..., Any]]
    constants: Mapping[str, Any]


def _bounded_factorial(number: int) -> int:
    if number > 500:
        raise QueryLimitError("math.factorial() takes numbers up to 500")
    return math.factorial(number)


def _bounded_math(function: Callable[..., Any], most: int) -> Callable[..., Any]:
    def call(*numbers: int) -> Any:
        if any(abs(number) > most for number in numbers):
            raise QueryLimitError(f"math.{function.__name__}() takes numbers up to {most:,}")
        return function(*numbers)

    return call


_MATH = (
    *(
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "ceil",
        "copysign",
        "cos",
        "cosh",
        "degrees",
        "erf",
        "erfc",
        "exp",
        "expm1",
    ),
    *("fabs", "floor", "fmod", "fsum", "gamma", "gcd", "hypot", "isclose", "isfinite", "isinf", "isnan", "lgamma", "log", "log10", "log1p"),
    *("log2", "modf", "pow", "radians", "remainder", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
)


def _parse_iso(text: str) -> dt.datetime:
    if len(text) in (4, 7) and text.replace("-", "", 1).isdigit():  # a year, or a year and a month
        text += "-01-01"[len(text) - 10 :]
    return naive_utc(dt.datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text))


def _strptime(text: str, form: str) -> dt.datetime:
    bounded(len(text) + len(form), "characters", MAX_PATTERN)
    return naive_utc(dt.datetime.strptime(text, form))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)


def naive_utc(moment: dt.datetime) -> dt.datetime:
    """A datetime without zone, which counts as UTC."""
    return moment if moment.tzinfo is None else moment.astimezone(dt.timezone.utc).replace(tzinfo=None)


def as_moment(value: Any) -> dt.datetime | None:
    """The datetime that a date or an ISO 8601 string stands for; None for anything else."""
    if isinstance(value, dt.datetime):
        return naive_utc(value)
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day)
    if isinstance(value, str):
        try:
            return _parse_iso(value)
        except (ValueError, OverflowError):  # the offset may lead out of the years that there are
            return None
    return None


MODULES: dict[str, Module] = {
    "math": Module(
        {
            **{name: getattr(math, name) for name in _MATH},
            "factorial": _bounded_factorial,
            "comb": _bounded_math(math.comb, 500),
            "perm": _bounded_math(math.perm, 500),
        },
        {"pi": math.pi, "e": math.e, "tau": math.tau, "inf": math.inf, "nan": math.nan},
    ),
    "re": Module(dict.fromkeys(("match", "search", "fullmatch")), {}),  # type: ignore[arg-type]  # evaluate.py runs them with the time left
    "datetime": Module({"now": _now, "utcnow": _now, "strptime": _strptime, "fromisoformat": _parse_iso}, {}),
}


# -- methods ----


def _text_methods(*names: str) -> dict[str, Callable[..., Any]]:
    return {name: getattr(str, name) for name in names}


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    found = text.count(old) if count < 0 else min(count, text.count(old))
    bounded(len(text) + found * (len(new) - len(old)), "characters", MAX_CHARACTERS)
    return text.replace(old, new, count)


def _padded(method: Callable[..., str]) -> Callable[..., str]:
    def call(text: str, width: int, *fill: str) -> str:
        bounded(width, "characters", 1000)
        return method(text, width, *fill)

    return call


def _join(separator: str, items: Iterable[str]) -> str:
    items = list(items)
    bounded(sum(map(len, items)) + len(separator) * len(items), "characters", MAX_CHARACTERS)
    return separator.join(items)


def _strftime(moment: dt.date, form: str) -> str:
    bounded(len(form), "characters", 200)
    return moment.strftime(form)


_STR: dict[str, Callable[..., Any]] = {
    **_text_methods(
        "startswith", "endswith", "lower", "upper", "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "find", "rfind"
    ),
    **_text_methods(
        "count", "index", "title", "capitalize", "casefold", "swapcase", "removeprefix", "removesuffix", "partition", "rpartition"
    ),
    **_text_methods("isdigit", "isalpha", "isnumeric", "isdecimal", "isalnum", "islower", "isupper", "isspace"),
    "replace": _replace,
    "join": _join,
    **{name: _padded(getattr(str, name)) for name in ("zfill", "center", "ljust", "rjust")},
}
_MOMENT: dict[str, Callable[..., Any]] = {
    "date": dt.datetime.date,
    "strftime": _strftime,
    "isoformat": dt.datetime.isoformat,
    "timestamp": lambda moment: moment.replace(tzinfo=dt.timezone.utc).timestamp(),
    "weekday": dt.datetime.weekday,
}
_SETS = {name: getattr(set, name) for name in ("union", "intersection", "difference", "issubset", "issuperset", "isdisjoint")}
METHODS_OF: dict[type, dict[str, Callable[..., Any]]] = {
    str: _STR,
    list: {"count": list.count, "index": list.index},
    tuple: {"count": tuple.count, "index": tuple.index},
    dict: {"keys": lambda d: list(d), "values": lambda d: list(d.values()), "items": lambda d: list(d.items())},
    set: _SETS,
    frozenset: {name: getattr(frozenset, name) for name in _SETS},
    float: {"is_integer": float.is_integer},
    dt.datetime: _MOMENT,
    dt.date: {"strftime": _strftime, "isoformat": dt.date.isoformat, "weekday": dt.date.weekday},
    dt.timedelta: {"total_seconds": dt.timedelta.total_seconds},
}
MATCH_METHODS = ("group", "groups", "start", "end")
METHODS = frozenset({"get", *MATCH_METHODS, *(name for methods in METHODS_OF.values() for name in methods)})
ATTRIBUTES_OF: dict[type, tuple[str, ...]] = {
    dt.datetime: ("year", "month", "day", "hour", "minute", "second", "microsecond"),
    dt.date: ("year", "month", "day"),
    dt.time: ("hour", "minute", "second", "microsecond"),
    dt.timedelta: ("days", "seconds", "microseconds"),
    complex: ("real", "imag"),
}
TAKES_MISSING = frozenset({"bool", "isinstance"})
