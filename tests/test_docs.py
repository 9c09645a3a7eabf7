"""The docs say everything that is public, and what they say runs."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import aimlite
from aimlite import errors

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("**/*.md"))
RUNNABLE = ["README.md", "docs/tutorial.md"]
ERRORS = [name for name, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)]
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#]+)")


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
    missing = [target for target in LINK.findall(page.read_text("utf-8")) if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", RUNNABLE)
def test_examples_run(page: str, tmp_path: Path) -> None:
    """All python blocks of a page, in order, as one script in an empty directory. Its line numbers are those of the page."""
    text = (ROOT / page).read_text("utf-8")
    script = ""
    for block in PYTHON_BLOCK.finditer(text):
        script += "\n" * (text.count("\n", 0, block.start(1)) - script.count("\n")) + block[1]
    assert script, f"{page} has no example"
    (tmp_path / "example.py").write_text(script, "utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "AIMLITE_REPO"}
    run = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, f"{page} (lines as in example.py):\n{run.stdout}\n{run.stderr}"
