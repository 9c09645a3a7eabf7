"""Regular expressions that would take memory without bound are refused, when the query is made or when it is read."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aimlite import QueryLimitError, QuerySyntaxError, QueryTimeoutError, Repo, Run
from aimlite.query.patterns import MAX_WRITTEN_OUT, refusal

CALLS = ["(?R)", "a(?R)?b", "(?0)", "(a(?1)?)", "((?1))", "(?P<x>a(?&x)?)", "(?P<x>a(?P>x)?)", r"\\(?R)", "[(?R)]", "(?#x)(?R)", "(?+1)(a)"]
REPEATS = [
    "(?:a{1000}){1000}",
    "(?:a{1000,}){1000,}",
    "((a{100}){100}){100}",
    "a{100000000}",
    "(?:[ab]c){100000}",
    "[)](?:a{1000}){1000}",
    r"[\\](?:a{1000}){1000}",
    "[[](?:a{1000}){1000}",
    "[]](?:a{1000}){1000}",
    "(?#[)(?:a{1000}){1000}",
    r"\((?:a{1000}){1000}",
    ")(?:a{1000}){1000}",
    "(?x)(?:a{1000}){1000}",
    "(?x)a{ 100000}",
    "(?ix:a{2})",
]
FINE = [
    r"\d{4}-\d{2}-\d{2}",
    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    r"(?:\d{1,3}\.){3}\d{1,3}",
    r"\(?R\)",
    r"\(\?R\)",
    "(?i)loss",
    "(?-i:a)",
    "(?P<x>a)(?P=x)",
    "(a)?(?(1)b|c)",
    "(?>a+)b",
    "a++b",
    "(?V1)[[a-z]--[aeiou]]+",
    "(?:abc){e<=1}",
    "(?<=a)b",
    "(?x) a b  # words",
    "a{1,1000000000}",
    "(?:a{0,100}){0,100}",
]


@pytest.mark.parametrize("pattern", CALLS + REPEATS)
def test_refused(pattern: str, repo: Repo) -> None:
    with Run("r", repo=repo, system_tracking_interval=None, capture_terminal_logs=False) as run:
        run["pattern"], run["text"] = pattern, "a" * 1000
    query = f"re.search({pattern!r}, run.text)"
    with pytest.raises(QuerySyntaxError, match="a pattern of `re`") as refused:
        repo.query_runs(query)
    assert refused.value.args
    assert "^" in str(refused.value)
    for computed in ("re.search(run.pattern, run.text)", f"re.fullmatch({pattern[:1]!r} + {pattern[1:]!r}, run.text)"):
        with pytest.raises(QueryLimitError, match="a pattern of `re`"):
            repo.query_runs(computed).hashes()


@pytest.mark.parametrize("pattern", FINE)
def test_not_refused(pattern: str, repo: Repo) -> None:
    import regex

    regex.compile(pattern)
    assert refusal(pattern) is None
    assert repo.query_runs(f"re.search({pattern!r}, run.name)").hashes() == []


def test_just_within() -> None:
    assert refusal(f"a{{{MAX_WRITTEN_OUT - 20}}}") is None
    assert refusal(f"a{{{MAX_WRITTEN_OUT + 1}}}") is not None


MEMORY = """
import resource, sys
from aimlite import QueryTimeoutError, Repo
repo = Repo(sys.argv[1])
repo.query_runs("re.search('a', run.text)").hashes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for pattern in sys.argv[2:]:
    try:
        repo.query_runs(f"re.search({pattern!r}, run.text)", timeout=0.3).hashes()
    except QueryTimeoutError:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // (1 << 20 if sys.platform == "darwin" else 1 << 10))
"""
SLOW = [
    r"(?:aaaaaaaaaaaaaaaaaaaaaaaab){e}\d",
    r"(?b)(?:aaaaaaaaaaaab){e}\d",
    r"(?e)(?:(?:a|aa)+b){e<=50}\d",
    r"(?p)(a|aa)+\d",
    r"((((a*)*)*)*)*\d",
    r"(?:(?:a?b?){1,1000}){1,1000}\d",
    r"(?:(a+)|b)*\d",
    r"(.*)(.*)(.*)(.*)\d",
    f"a{{{MAX_WRITTEN_OUT - 20}}}\\d",
]


def test_what_is_not_refused_takes_little_memory(repo: Repo) -> None:
    with Run("r", repo=repo, system_tracking_interval=None, capture_terminal_logs=False) as run:
        run["text"] = "a" * 50_000
    done = subprocess.run([sys.executable, "-c", MEMORY, repo.path, *SLOW], check=True, capture_output=True, text=True, timeout=120)
    assert int(done.stdout) < 100


def test_a_timeout_is_told_as_before(repo: Repo) -> None:
    with Run("r", repo=repo, system_tracking_interval=None, capture_terminal_logs=False) as run:
        run["text"] = "a" * 50_000
    with pytest.raises(QueryTimeoutError):
        repo.query_runs(r"re.search(r'(?:(a+)|b)*\d', run.text)", timeout=0.05).hashes()
