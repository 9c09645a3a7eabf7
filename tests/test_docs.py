"""The docs say everything that is public, and what they say runs."""

from __future__ import annotations

import datetime as dt
import doctest
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import aimlite
from aimlite import (
    Audio,
    Audios,
    Context,
    Distribution,
    Distributions,
    Experiment,
    Figure,
    Figures,
    FluentRun,
    Image,
    Images,
    Metric,
    Note,
    NoteChange,
    Repo,
    RepoStatus,
    Run,
    Sequence,
    Tag,
    Text,
    Texts,
    errors,
)
from aimlite._ext.recorder import SequenceWriter
from aimlite.cli.__main__ import cli
from aimlite.demo.__main__ import parser as demo_parser
from aimlite.query import names, parse
from aimlite.sdk.arrays import ArrayView
from aimlite.sdk.artifacts import Artifact
from aimlite.sdk.logs import LogLine, LogRecord, LogRecords, TerminalLogs
from aimlite.sdk.metric import MetricCollection
from aimlite.sdk.object_arrays import ObjectView
from aimlite.sdk.object_sequences import ObjectCollection, Record
from aimlite.sdk.queries import MatchedMetrics, Padded, QueryMetricCollection, QueryObjectCollection, QueryRunCollection, Ragged
from aimlite.sdk.trash import TrashedRun
from aimlite.storage.check import Problem

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("**/*.md"))
RUNNABLE = ["README.md", "docs/tutorial.md", "docs/system.md", "docs/logs.md"]
CLI = (ROOT / "docs" / "cli.md").read_text("utf-8")
ERRORS = [name for name, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
CONSOLE_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SESSION_BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)
API = (ROOT / "docs" / "api.md").read_text("utf-8")
CLASSES = {  # which sections of docs/api.md tell of a class
    Run: ["Run"],
    FluentRun: ["Run", "FluentRun"],
    Repo: ["Repo"],
    RepoStatus: ["RepoStatus"],
    Problem: ["Problem"],
    Artifact: ["Artifact"],
    Tag: ["Tag"],
    Experiment: ["Experiment"],
    Note: ["Notes"],
    NoteChange: ["Notes"],
    TrashedRun: ["TrashedRun"],
    Sequence: ["Sequence"],
    Metric: ["Sequence", "Metric"],
    MetricCollection: ["MetricCollection"],
    ArrayView: ["ArrayView"],
    Context: ["Context"],
    TerminalLogs: ["TerminalLogs"],
    LogLine: ["LogLine"],
    LogRecords: ["LogRecords", "TerminalLogs"],
    LogRecord: ["LogRecord"],
    SequenceWriter: ["SequenceWriter"],
    aimlite.QueryReportMode: ["QueryReportMode"],
    QueryRunCollection: ["QueryRunCollection"],
    QueryMetricCollection: ["QueryRunCollection", "QueryMetricCollection"],
    QueryObjectCollection: ["QueryRunCollection", "QueryObjectCollection"],
    MatchedMetrics: ["MetricCollection", "MatchedMetrics"],
    Ragged: ["Ragged"],
    Padded: ["Padded"],
    **{found: ["Sequence", "ObjectSequence"] for found in (Images, Audios, Texts, Distributions, Figures)},
    ObjectCollection: ["ObjectCollection"],
    ObjectView: ["ArrayView", "ObjectView"],
    Record: ["Record"],
    Image: ["Image"],
    Audio: ["Audio"],
    Text: ["Text"],
    Distribution: ["Distribution"],
    Figure: ["Figure"],
}
LINK = re.compile(r"\]\((?![a-z]+:)([^)#]*)(?:#([^)]+))?\)")


def documented(name: str) -> bool:
    """Whether some page has the name in a heading, in bold or in backticks; `Repo(path)` and `aimlite.Repo` count as Repo."""
    word = rf"(?<!\w){re.escape(name)}(?!\w)"
    entry = re.compile(rf"^#+ .*{word}|\*\*[^*\n]*{word}[^*\n]*\*\*|`[^`\n]*{word}[^`\n]*`", re.MULTILINE)
    return any(entry.search(page.read_text("utf-8")) for page in DOCS)


@pytest.mark.parametrize("name", aimlite.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert documented(name), f"no page in docs/ has an entry for {name}"


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_documented(name: str) -> None:
    assert documented(name), f"no page in docs/ has an entry for {name}"


@pytest.mark.parametrize("target", TARGETS)
def test_every_make_target_is_in_the_readme(target: str) -> None:
    assert f"`make {target}`" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text("utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), f"{target}#{anchor}"


def anchors(page: Path) -> list[str]:
    """What links to its headings end with."""
    headings = re.findall(r"^##* (.*)", page.read_text("utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", RUNNABLE)
def test_examples_run(page: str, tmp_path: Path) -> None:
    """All python blocks of a page, in order, as one script in an empty directory. Its line numbers are those of the page. What the page
    says that it prints is what it prints."""
    text = (ROOT / page).read_text("utf-8")
    script = in_place(text, PYTHON_BLOCK)
    assert script, f"{page} has no example"
    (tmp_path / "example.py").write_text(script, "utf-8")
    run = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, f"{page} (lines as in example.py):\n{run.stdout}\n{run.stderr}"
    told = list(printed(script))
    assert not told or run.stdout.splitlines() == told


def in_place(text: str, block: re.Pattern[str]) -> str:
    """The blocks of a page, each where it stands there."""
    found = ""
    for match in block.finditer(text):
        found += "\n" * (text.count("\n", 0, match.start(1)) - found.count("\n")) + match[1]
    return found


def printed(script: str) -> Iterator[str]:
    """The comments beside and below `print`."""
    below = False
    for line in script.splitlines():
        if re.match(r" *print\(", line):
            comment = re.search(r"\)  # (.*)", line)
            below = comment is None
            if comment:
                yield comment[1]
        elif below and line.startswith("# "):
            yield line[2:]
        else:
            below = False


@pytest.mark.parametrize("page", [page for page in DOCS if SESSION_BLOCK.search(page.read_text("utf-8"))], ids=lambda page: page.stem)
def test_sessions_are_what_happens(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pycon blocks of a page, in order, as one session in an empty directory; `...` is anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    session = doctest.DocTestParser().get_doctest(in_place(page.read_text("utf-8"), SESSION_BLOCK), {}, page.name, str(page), 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(session, out=report.append).failed == 0, "".join(report)


def members() -> list[Any]:
    """(class, name) of all that is public."""
    return [
        pytest.param(cls, name, id=f"{cls.__name__}.{name}")
        for cls in CLASSES
        for name in dir(cls)
        if name[0] != "_" and not any(issubclass(cls, base) and name in dir(base) for base in (int, tuple))
    ]


@pytest.mark.parametrize(("cls", "name"), members())
def test_every_member_has_its_place_in_the_api(cls: type, name: str) -> None:
    """In backticks, or in a block, of a section on its class; with its signature if it is a method of ours."""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", API, re.MULTILINE | re.DOTALL))
    text = "".join(sections[section] for section in CLASSES[cls])
    told = re.findall(r"`([^`\n]+)`", text) + signatures(text)
    member = getattr(cls, name)
    word = re.escape(name)
    if callable(member) and getattr(member, "__module__", "").startswith("aimlite"):
        word = re.escape(name + parameters(member))
    assert any(re.search(rf"(?<![\w'\"]){word}(?!\w)", entry) for entry in told), f"{cls.__name__}.{name} as {word}"


@pytest.mark.parametrize("cls", [Run, Repo, Sequence, Metric, Context, Image, Audio, Text, Distribution, Figure])
def test_every_constructor_has_its_place_in_the_api(cls: type) -> None:
    assert f"{cls.__name__}{parameters(cls)}" in signatures(API)


AIMQL = (ROOT / "docs" / "aimql.md").read_text("utf-8")
FUNCTIONS_OF_MODULES = {name: {*module.functions, *module.constants} for name, module in names.MODULES.items()}
SECTIONS_OF_AIMQL = {  # the section of docs/aimql.md, which cells of its tables, and what has its place there
    "Names": (0, {"run", *filter(None, names.KINDS.values())}),
    "Runs": (0, set(names.RUN_PROPERTIES)),
    "Metrics": (0, set(names.SEQUENCE_ATTRIBUTES)),
    "Objects": (0, set(names.OBJECT_ATTRIBUTES)),
    "Functions": (0, set(names.FUNCTIONS)),
    "Methods": (1, set(names.METHODS)),
    "Dates": (1, {part for parts in names.ATTRIBUTES_OF.values() for part in parts}),
    "Modules": (1, set().union(*FUNCTIONS_OF_MODULES.values())),
}


def table(section: str) -> list[list[str]]:
    """The rows of the tables in a section of docs/aimql.md."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", AIMQL, re.MULTILINE | re.DOTALL)
    assert text is not None
    lines = re.findall(r"^\| .*\|$", text[1], re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("section", SECTIONS_OF_AIMQL)
def test_every_name_of_aimql_has_its_place_and_no_other_has(section: str) -> None:
    cell, taken = SECTIONS_OF_AIMQL[section]
    told = {word for row in table(section) for word in re.findall(r"`(\w+)(?=[`(])", row[cell])}
    assert told - {"run"} == taken - {"run"} if section == "Methods" else told == taken


def test_every_module_of_aimql_has_what_is_told() -> None:
    told = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1])) for row in table("Modules") if row[0].startswith("`")}
    assert told == FUNCTIONS_OF_MODULES


def test_every_method_of_aimql_is_told_of_its_type() -> None:
    told = {row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in table("Methods")}
    kinds = {"strings": str, "lists, tuples": list, "sets": set, "floats": float, "datetimes": dt.datetime, "dates": dt.date}
    assert {of: told[of] for of in kinds} == {of: set(names.METHODS_OF[kind]) for of, kind in kinds.items()}
    assert told["dicts"] == {"get", *names.METHODS_OF[dict]}
    assert told["timedeltas"] == set(names.METHODS_OF[dt.timedelta])
    assert told["what `re` finds"] == set(names.MATCH_METHODS)


def test_every_class_of_aimql_is_told_with_isinstance() -> None:
    [row] = [row for row in table("Functions") if row[0].startswith("`isinstance(")]
    assert set(re.findall(r"`(\w+)`", row[1])) == set(names.CLASSES)


def test_every_operator_of_the_grammar_has_its_place_and_no_other_has() -> None:
    grammar = re.sub(r"^//.*|/.*/$", "", (ROOT / "aimlite" / "query" / "aimql.lark").read_text("utf-8"), flags=re.MULTILINE)
    literals = set(re.findall(r'"([^"\s]+)"', grammar))
    told = {word for row in table("Operators") for cell in re.findall(r"`([^`]+)`", row[0]) for word in cell.replace("\\", "").split()}
    assert told == literals - set("()[]{},:.=") - {"for", "None", "True", "False"}


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (parse.MAX_TEXT, "{:,} characters"),
        (parse.MAX_DEPTH, "{} deep"),
        (names.MAX_ITEMS, "{:,} items"),
        (names.MAX_CHARACTERS, "{:,} characters"),
        (names.MAX_BITS, "{:,} bits"),
        (names.MAX_PATTERN, "{:,} characters"),
    ],
)
def test_every_limit_of_aimql_is_told(limit: int, told: str) -> None:
    assert any(row[1] == told.format(limit) for row in table("Limits"))


def signatures(text: str) -> list[str]:
    """The blocks without a language, each as one line."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [" ".join(block.split()) for language, block in blocks if not language]


def parameters(function: Any) -> str:
    """Its signature without types; a default that belongs to an enum as one writes it."""
    signature = inspect.signature(function)
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for name, parameter in signature.parameters.items() if name != "self"]
    shown = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return re.sub(r"<(\w+\.\w+): [^>]*>", r"\1", shown)


def commands(group: click.Group, name: str) -> Iterator[tuple[str, set[str]]]:
    """(words, options) of every command; the options that all have are left out."""
    common = {option for parameter in group.params for option in parameter.opts} | {"--help"}
    for command in group.commands.values():
        words = f"{name} {command.name}"
        options = {option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts} - common
        yield words, options
        if isinstance(command, click.Group):
            yield from commands(command, words)


def sections() -> dict[str, str]:
    """heading → what stands below it, of the headings that are commands."""
    parts = re.split(r"^##+ (.*)\n", CLI, flags=re.MULTILINE)
    return {heading: text for heading, text in zip(parts[1::2], parts[2::2], strict=True) if heading.startswith("aimlite ")}


def documented_options(text: str) -> set[str]:
    """Those in the first cells of its tables."""
    cells = re.findall(r"^\| (`-.*?) \|", text, re.MULTILINE)
    return {option for cell in cells for option in re.findall(r"`(--?[a-z-]+)", cell)}


def test_every_command_and_option_has_its_place_and_no_other_has() -> None:
    taken = dict(commands(cli, "aimlite"))
    taken["aimlite demo"] |= {word for action in demo_parser()._actions for word in action.option_strings} - {"-h", "--help", "--repo"}
    assert {heading: documented_options(text) for heading, text in sections().items()} == taken


def test_the_common_options_have_their_place() -> None:
    common = CLI.split("## Options of every command")[1].split("\n## ")[0]
    assert documented_options(common) == {option for parameter in cli.params for option in parameter.opts} - {"--version"} | {"--help"}


def test_every_exit_code_has_its_place() -> None:
    from aimlite.cli import group

    codes = {group.DONE, group.FAILED, group.USAGE, group.NOT_FOUND, group.DAMAGED, group.INTERRUPTED}
    table = CLI.split("## Exit codes")[1].split("\n## ")[0]
    assert set(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == codes


def test_the_sessions_of_the_command_line_are_what_happens(tmp_path: Path) -> None:
    """Its Python first, then each `$` line, whose output has to be what stands below it; `…` is anything."""
    (tmp_path / "aimlite").write_text(f'#!/bin/sh\nexec {sys.executable} -m aimlite "$@"\n')
    (tmp_path / "aimlite").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    directory = tmp_path / "empty"
    directory.mkdir()

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=directory, env=environment, stdout=-1, stderr=-2, text=True, timeout=120, check=False)
        return done.stdout

    assert run(sys.executable, "-c", "".join(PYTHON_BLOCK.findall(CLI))) == ""
    for block in CONSOLE_BLOCK.findall(CLI):
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            pattern = ".*".join(map(re.escape, expected.split("…")))
            shown = run("bash", "-c", command)
            assert re.fullmatch(pattern, shown), f"$ {command}\n{shown}"
