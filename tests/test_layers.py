"""Imports go one way: errors → _ext → storage → query → archive, artifacts, capture, objects → sdk → fluent → terminal → web, integrations,
importers, demo → cli."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "aimlite"
LAYERS = {
    "errors": 0,
    "_ext": 1,
    "storage": 2,
    "query": 3,
    "archive": 4,
    "artifacts": 4,
    "capture": 4,
    "objects": 4,
    "sdk": 5,
    "fluent": 6,
    "": 7,  # aimlite/__init__.py itself: the public names
    "terminal": 8,
    "web": 9,
    "integrations": 9,
    "importers": 9,
    "demo": 9,
    "cli": 10,  # it starts the others
    "__main__": 11,
}
FILES = sorted(file for pattern in ("*.py", "*.pyi", "*.pyx", "*.pxd") for file in PACKAGE.rglob(pattern))
PYTHON_FILES = [file for file in FILES if file.suffix in (".py", ".pyi")]


def name_of(file: Path) -> str:
    """The dotted name of the module in this file; a package's is that of its folder."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part of aimlite a module belongs to: `aimlite.storage.tree` → `storage`, `aimlite` → ``."""
    names = module.split(".")
    return names[1] if len(names) > 1 else ""


MODULES = {name_of(file) for file in FILES}


def absolute(node: ast.ImportFrom, file: Path) -> str:
    """The module that `from … import` names, dots resolved."""
    if node.level == 0:
        return node.module or ""
    package = name_of(file).split(".")
    up = node.level - (file.stem == "__init__")
    return ".".join(package[: len(package) - up] + ([node.module] if node.module else []))


def imports(tree: ast.AST, file: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in the file, those inside functions too; `from package import module` names the module.

    `from aimlite import __version__` is left out: any import of ours runs aimlite/__init__.py first, so the version is there for all.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, file)
            for alias in node.names:
                full = f"{source}.{alias.name}"
                if full != "aimlite.__version__":
                    yield node.lineno, full if full in MODULES else source


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def relative(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("file", PYTHON_FILES, ids=relative)
def test_imports_go_one_way(file: Path) -> None:
    own = part_of(name_of(file))
    assert own in LAYERS, f"{own} is no layer: give it a place in LAYERS"
    upward = [
        f"{relative(file)}:{line} imports {module}"
        for line, module in imports(parse(file), file)
        if module.split(".")[0] == "aimlite" and part_of(module) != own and LAYERS[part_of(module)] >= LAYERS[own]
    ]
    assert not upward


def test_only_the_tree_imports_rocksdict() -> None:
    found = {relative(file) for file in PYTHON_FILES for _, module in imports(parse(file), file) if module.split(".")[0] == "rocksdict"}
    assert found <= {"storage/tree.py"}


def test_keys_are_built_in_storage_only() -> None:
    users = {file for file in PYTHON_FILES for _, module in imports(parse(file), file) if module == "aimlite._ext.keys"}
    assert {part_of(name_of(file)) for file in users} <= {"_ext", "storage"}


@pytest.mark.parametrize("file", PYTHON_FILES, ids=relative)
def test_no_import_of_ours_is_optional(file: Path) -> None:
    """`try: import aimlite.x … except ImportError` hides a broken build behind a slow or an old path."""
    guarded = [
        f"{relative(file)}:{line} {module}"
        for node in ast.walk(parse(file))
        if isinstance(node, ast.Try) and any(catches_import_error(handler) for handler in node.handlers)
        for statement in node.body
        for line, module in imports(statement, file)
        if module.split(".")[0] == "aimlite"
    ]
    assert not guarded


def catches_import_error(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(caught & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
