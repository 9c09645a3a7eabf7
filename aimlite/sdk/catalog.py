"""What a repo knows besides its runs: the colours and comments of tags, the descriptions and notes of experiments.

They are properties of a run that is only edited, never opened, and hidden: so they go through the journals like everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aimlite._ext import journal
from aimlite.sdk.notes import Notes
from aimlite.sdk.properties import checked_tag, text
from aimlite.storage import params
from aimlite.storage.loading import load
from aimlite.storage.runs import CATALOG, NOTE, TAG

if TYPE_CHECKING:
    from aimlite.sdk.repo import Repo
    from aimlite.storage.view import View

MAX_COLOR = 50
MAX_COMMENT = 200
_COLOR, _COMMENT, _DESCRIPTION, _NOTE = "tag.color:", "tag.comment:", "experiment.description:", "experiment." + NOTE


@dataclass(frozen=True)
class Tag:
    """A tag of a repo. runs: how many have it, archived ones too."""

    name: str
    color: str | None
    comment: str | None
    runs: int


class Experiment(Notes):
    """An experiment of a repo: its description and notes. It need not have runs yet."""

    def __init__(self, repo: Repo, name: str) -> None:
        self.repo = repo
        self.name = text("an experiment", name)

    @property
    def description(self) -> str | None:
        held: str | None = self._properties().get(_DESCRIPTION + self.name)
        return held

    @description.setter
    def description(self, description: str | None) -> None:
        self._set_properties({_DESCRIPTION + self.name: None if description is None else text("description", description)})

    @property
    def runs(self) -> int:
        """How many runs it has, archived ones too."""
        return len(_held_by(self.repo, "experiment").get(self.name, ()))

    def _properties(self) -> dict[str, Any]:
        return catalog(self.repo)

    def _set_properties(self, properties: dict[str, Any]) -> None:
        edit_catalog(self.repo, properties)

    def _note_kind(self) -> tuple[str, str]:
        return _NOTE, ":" + self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and (self.name, self.repo) == (other.name, other.repo)

    def __hash__(self) -> int:
        return hash((self.name, self.repo))

    def __repr__(self) -> str:
        return f"<Experiment {self.name!r} in {self.repo.path}>"


def catalog(repo: Repo) -> dict[str, Any]:
    found: dict[str, Any] = repo._reader.read(lambda view: view.properties(CATALOG))
    return found


def edit_catalog(repo: Repo, properties: dict[str, Any]) -> None:
    def newest(view: View) -> int:
        try:
            return view.run_state(CATALOG).order
        except KeyError:
            return 0

    payloads = [(journal.PROPERTY, params.packb([name, value])) for name, value in properties.items()]
    repo._writer().edit_run(CATALOG, repo._reader.read(newest), 1, payloads)


def tags(repo: Repo) -> list[Tag]:
    held, known = _held_by(repo, "tag"), catalog(repo)
    named = {name[len(kind) :] for kind in (_COLOR, _COMMENT) for name, value in known.items() if name.startswith(kind) and value}
    return [Tag(name, known.get(_COLOR + name), known.get(_COMMENT + name), len(held.get(name, ()))) for name in sorted({*held, *named})]


def set_tag(repo: Repo, name: str, color: str | None, comment: str | None) -> None:
    changes: dict[str, str | None] = {}
    for kind, what, value, most in ((_COLOR, "a tag's color", color, MAX_COLOR), (_COMMENT, "a tag's comment", comment, MAX_COMMENT)):
        if value is not None:
            if len(text(what, value)) > most:
                raise ValueError(f"{what} has at most {most} characters, not {len(value)}: {value!r:.80}")
            changes[kind + checked_tag(name)] = value or None
    if not changes:
        checked_tag(name)
        return
    edit_catalog(repo, changes)


def rename_tag(repo: Repo, name: str, new_name: str) -> int:
    checked_tag(name)
    if checked_tag(new_name) == name:
        return 0
    changed = _change_runs(repo, name, new_name)
    known = catalog(repo)
    moved = {kind: known[kind + name] for kind in (_COLOR, _COMMENT) if known.get(kind + name) is not None}
    if moved:
        kept = {kind + new_name: value for kind, value in moved.items() if known.get(kind + new_name) is None}
        edit_catalog(repo, {**kept, **{kind + name: None for kind in moved}})
    return changed


def delete_tag(repo: Repo, name: str) -> int:
    checked_tag(name)
    changed = _change_runs(repo, name, None)
    known = catalog(repo)
    told = {kind + name: None for kind in (_COLOR, _COMMENT) if known.get(kind + name) is not None}
    if told:
        edit_catalog(repo, told)
    return changed


def _change_runs(repo: Repo, name: str, new_name: str | None) -> int:
    """Takes a tag from all runs that have it; another takes its place among their tags."""
    hashes = _held_by(repo, "tag").get(name, ())
    for run_hash in hashes:
        run = repo.edit_run(run_hash)
        held = run._properties()
        changes = {TAG + name: None}
        if new_name is not None and held.get(TAG + new_name) is None:
            changes[TAG + new_name] = held.get(TAG + name)
        run._set_properties(changes)
    return len(hashes)


def experiments(repo: Repo) -> list[Experiment]:
    named = set(_held_by(repo, "experiment"))
    for name, value in catalog(repo).items():
        if value is not None and name.startswith(_DESCRIPTION):
            named.add(name[len(_DESCRIPTION) :])
        elif name.startswith(_NOTE):
            named.add(name[len(_NOTE) :].split(":", 2)[2])
    return [Experiment(repo, name) for name in sorted(named)]


def _held_by(repo: Repo, name: str) -> dict[str, list[str]]:
    """value of an indexed property → the runs that have it. Warns as `Repo.list_all_runs`."""
    load("aimlite.sdk.repo")
    from aimlite.sdk.repo import warn_of_damage

    found, damaged = repo._reader.read(lambda view: (view.runs_by_property(name), view.damaged_journals()))
    warn_of_damage(damaged)
    return found
