"""What a user has settled for every repo: a JSON object in $XDG_CONFIG_HOME/aimlite/config.json, else in ~/.config/aimlite/config.json."""

from __future__ import annotations

import json
import os
from pathlib import Path

from aimlite.errors import ConfigError
from aimlite.storage.files import write_file
from aimlite.storage.loading import load

KEYS = ("repo",)


def config_path() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME", "")
    base = home if os.path.isabs(home) else os.path.expanduser("~/.config")  # a relative one is to be ignored, says the XDG specification
    return Path(base, "aimlite", "config.json")


def read_config() -> dict[str, str]:
    """What is set; {} without a file, or where it may not be read (as git does: HOME may be somebody else's). Raises ConfigError."""
    path = config_path()
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    try:
        held = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"the config {path} is not JSON ({error}): mend or remove it") from None
    if not isinstance(held, dict):
        raise ConfigError(f"the config {path} holds {text[:80]!r}, which is no JSON object: mend or remove it")
    for key in KEYS:
        if key in held and not (isinstance(held[key], str) and held[key]):
            raise ConfigError(f"the config {path} has {held[key]!r} as {key!r}, which is no text: set it anew or remove it")
    return held


def write_config(key: str, value: str | None) -> None:
    """Sets a key, or with None takes it out; what else the file holds stays. A repo is kept as an absolute path.
    Raises ConfigError, OSError."""
    demand_key(key)
    held = read_config()
    if value is None:
        held.pop(key, None)
    elif not value:
        raise ConfigError(f"the config key {key!r} cannot be empty: unset it to go without")
    else:
        held[key] = os.path.abspath(os.path.expanduser(value)) if key == "repo" else value
    path = config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(held, indent=2).encode() + b"\n")


def demand_key(key: str) -> None:
    """Raises ConfigError for a key that means nothing."""
    if key not in KEYS:
        load("difflib")
        from difflib import get_close_matches

        near = get_close_matches(key, KEYS, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(repr, KEYS))}"
        raise ConfigError(f"no config key {key!r}: {hint}")
