"""`init`: opens a run, or what stands in for one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from aimlite.fluent.enabling import is_enabled
from aimlite.fluent.run import FluentRun, set_active
from aimlite.sdk.properties import text
from aimlite.sdk.safe import complain, is_safe_mode
from aimlite.storage.loading import load
from aimlite.storage.runs import check_hash

if TYPE_CHECKING:
    from aimlite.fluent.disabled import NoOpRun
    from aimlite.sdk.repo import Repo

TQDM_MODES = ("smart", "all", "none")
SNAPSHOT_FORMATS = ("zip",)
MAX_PATH = 200
_PATH = re.compile(r"[a-zA-Z0-9_\-/]+")


def init(
    path: str | None = None,
    storage: Repo | str | os.PathLike[str] | None = None,
    run_id: str | None = None,
    alias: str | None = None,
    capture_env: bool = False,
    snapshot_code: bool = False,
    workspace_root: str | os.PathLike[str] | None = None,
    snapshot_format: str = "zip",
    force_snapshot: bool = False,
    capture_console: bool = False,
    tqdm_mode: str = "smart",
) -> FluentRun | NoOpRun:
    """Opens a run; a `NoOpRun` when tracking is off.

    path: its place among the experiments, such as 'cv/resnet50/baseline': letters, digits, `_`, `-` and `/`, at most 200 characters; it is
    the run's experiment. None and '' are 'default' (of a run that goes on: as it was). storage: the repo, as `Repo(storage)` takes it.
    run_id: an id of its own; that of a run that there is goes on with it, from its last step. alias: a name for people.
    capture_env: record system params. snapshot_code: archive the code below workspace_root (None: the git repository around the working
    directory, else the working directory); force_snapshot: however large it is. snapshot_format: 'zip', which changes nothing: files are
    stored one by one. capture_console: record what is printed. tqdm_mode: of progress bars 'smart' keeps the last state, 'all' every one,
    'none' none.

    Raises TypeError and ValueError before anything is made; OSError, RepoFormatError; ValueError for code that is too large, by which the
    run has failed.
    """
    try:
        return _init(
            path,
            storage,
            run_id,
            alias,
            capture_env=capture_env,
            snapshot_code=snapshot_code,
            workspace_root=workspace_root,
            snapshot_format=snapshot_format,
            force_snapshot=force_snapshot,
            capture_console=capture_console,
            tqdm_mode=tqdm_mode,
        )
    except Exception as error:
        if not is_safe_mode():
            raise
        load("aimlite.fluent.disabled")
        from aimlite.fluent.disabled import NoOpRun

        complain("init()", error)
        set_active(None)
        return NoOpRun()


def _init(
    path: str | None,
    storage: Repo | str | os.PathLike[str] | None,
    run_id: str | None,
    alias: str | None,
    *,
    capture_env: bool,
    snapshot_code: bool,
    workspace_root: str | os.PathLike[str] | None,
    snapshot_format: str,
    force_snapshot: bool,
    capture_console: bool,
    tqdm_mode: str,
) -> FluentRun | NoOpRun:
    place = checked_path(path)
    for name, flag in (
        ("capture_env", capture_env),
        ("snapshot_code", snapshot_code),
        ("force_snapshot", force_snapshot),
        ("capture_console", capture_console),
    ):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} is True or False, not {type(flag).__name__} {flag!r:.100}")
    if snapshot_format not in SNAPSHOT_FORMATS:
        raise ValueError(f"snapshot_format is 'zip', not {snapshot_format!r:.100}")
    if tqdm_mode not in TQDM_MODES:
        raise ValueError(f"tqdm_mode is {', '.join(map(repr, TQDM_MODES))}, not {tqdm_mode!r:.100}")
    if run_id:
        check_hash(run_id)
    elif run_id is not None and run_id != "":
        raise TypeError(f"run_id is a string or None, not {run_id!r:.100}")
    if alias is not None:
        text("alias", alias)
    root = _workspace(workspace_root)
    if not is_enabled():
        load("aimlite.fluent.disabled")
        from aimlite.fluent.disabled import NoOpRun

        set_active(None)
        return NoOpRun(place, alias, root)
    run = _opened(place, path, storage, run_id or None, alias, capture_env, tqdm_mode if capture_console else None, root)
    set_active(run)
    if snapshot_code:
        try:
            run.log_code(root, force=force_snapshot)
        except BaseException as error:
            run._end("failed", error, is_raising=True)
            raise
    return run


def _opened(
    place: str,
    path: str | None,
    storage: Repo | str | os.PathLike[str] | None,
    run_id: str | None,
    alias: str | None,
    capture_env: bool,
    console_mode: str | None,
    root: Path,
) -> FluentRun:
    experiment = place if run_id is None or path else None
    run = FluentRun(
        run_id,
        repo=storage,
        experiment=experiment,
        capture_terminal_logs=False,
        log_system_params=capture_env,
        system_tracking_interval=None,
    )
    run._start(root, run_id is not None)
    if alias is not None:
        run.name = alias
    if console_mode is not None and run._recorder is not None:
        run._capture_terminal(console_mode)
    return run


def checked_path(path: str | None) -> str:
    """The path as it is kept: `/` between its parts, none before and behind. Raises TypeError, ValueError."""
    if path is None:
        return "default"
    if not isinstance(path, str):
        raise TypeError(f"path is a string such as 'cv/resnet50', not {type(path).__name__} {path!r:.100}")
    kept = re.sub(r"/+", "/", path.replace("\\", "/")).strip("/")
    if not kept:
        return "default"
    if len(kept) > MAX_PATH:
        raise ValueError(f"path has at most {MAX_PATH} characters, not {len(kept)}: {path!r:.80}")
    if not _PATH.fullmatch(kept):
        raise ValueError(f"path has letters, digits, '_', '-' and '/' only: {path!r:.200}")
    return kept


def _workspace(root: str | os.PathLike[str] | None) -> Path:
    if root is not None:
        if not isinstance(root, str | os.PathLike):
            raise TypeError(f"workspace_root is a path, not {type(root).__name__} {root!r:.100}")
        return Path(os.path.abspath(os.path.expanduser(os.fspath(root))))
    load("aimlite.archive.rules")
    from aimlite.archive.rules import git_root

    return Path(git_root(os.getcwd()) or os.getcwd())
