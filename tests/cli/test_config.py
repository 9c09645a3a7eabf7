from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from aimlite.storage.config import config_path
from aimlite.storage.layout import repo_root

Command = Callable[..., Result]


def test_what_is_set_is_where_a_repo_is_looked_for(aimlite: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".aimlite").mkdir()
    assert repo_root() == tmp_path
    assert aimlite("config", "set", "repo", "settled").output == ""
    assert repo_root() == tmp_path / "settled"
    monkeypatch.chdir("/")
    assert repo_root() == tmp_path / "settled"
    monkeypatch.setenv("AIMLITE_REPO", str(tmp_path / "named"))
    assert repo_root() == tmp_path / "named"
    assert repo_root(tmp_path / "given") == tmp_path / "given"


def test_get_set_unset_list_path(aimlite: Command, tmp_path: Path) -> None:
    unset = aimlite("config", "get", "repo")
    assert (unset.exit_code, unset.output) == (1, "")
    assert json.loads(aimlite("config", "get", "repo", "--json").stdout) == {"repo": None}
    aimlite("config", "set", "repo", str(tmp_path))
    assert (aimlite("config", "get", "repo").exit_code, aimlite("config", "get", "repo").stdout) == (0, f"{tmp_path}\n")
    assert aimlite("config", "list").stdout == f"repo\t{tmp_path}\n"
    assert json.loads(aimlite("config", "list", "--json").stdout) == {"repo": str(tmp_path)}
    assert aimlite("config", "path").stdout == f"{config_path()}\n"
    assert json.loads(config_path().read_text()) == {"repo": str(tmp_path)}
    aimlite("config", "unset", "repo")
    assert aimlite("config", "list").stdout == ""
    assert aimlite("config", "unset", "repo").exit_code == 0


@pytest.mark.parametrize("arguments", [["get", "rpo"], ["set", "rpo", "x"], ["unset", "rpo"]], ids=" ".join)
def test_an_unknown_key_is_refused(aimlite: Command, arguments: list[str]) -> None:
    result = aimlite("config", *arguments)
    assert (result.exit_code, result.stderr) == (1, "error: no config key 'rpo': did you mean 'repo'?\n")
    assert not config_path().exists()


def test_an_unknown_key_without_a_neighbour(aimlite: Command) -> None:
    assert aimlite("config", "set", "colour", "red").stderr == "error: no config key 'colour': there is 'repo'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[1]", "which is no JSON object"), ('{"repo": 5}', "has 5 as 'repo'"), (b"\xff", "is not JSON")],
)
def test_a_broken_file_is_named(aimlite: Command, text: str | bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_path().parent.mkdir()
    config_path().write_bytes(text if isinstance(text, bytes) else text.encode())
    result = aimlite("config", "list")
    assert result.exit_code == 1
    assert message in result.stderr
    assert str(config_path()) in result.stderr
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="config"):
        repo_root()
    assert repo_root(tmp_path) == tmp_path  # a repo that is named needs no config


def test_what_a_newer_version_set_stays(aimlite: Command, tmp_path: Path) -> None:
    config_path().parent.mkdir()
    config_path().write_text('{"later": [1]}')
    aimlite("config", "set", "repo", str(tmp_path))
    assert json.loads(config_path().read_text()) == {"later": [1], "repo": str(tmp_path)}


def test_an_empty_path_is_refused(aimlite: Command) -> None:
    assert aimlite("config", "set", "repo", "").exit_code == 1


def test_a_relative_xdg_config_home_counts_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert config_path() == tmp_path / ".config" / "aimlite" / "config.json"
