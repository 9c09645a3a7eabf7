"""Objects on the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aimlite import Audio, Distribution, Figure, Image, Run, Text
from aimlite.cli.object_files import file_name


@pytest.fixture
def shown(repo_path: str) -> str:
    with Run("shown", repo=repo_path) as run:
        run.track(0.5, name="loss")
        run.track([Image(np.full((4, 5), k, "uint8"), caption=f"no. {k}") for k in range(2)], name="../../up", step=3)
        run.track({"text": Text("ünï"), "sound": Audio(np.arange(9, dtype="int16"))}, step=1, context={"a": "/etc"})
        run.track(
            {"bins": Distribution([1, 2]), "chart": Figure({"data": []}), "photo": Image(np.zeros((4, 5), "uint8"), format="jpg")}, step=-1
        )
    return repo_path


def test_show_lists_objects(shown: str, aimlite: Any) -> None:
    lines = aimlite("show", "shown", "--repo", shown).output.split("\n\n")[-1].splitlines()
    assert "images\t../../up\t{}\t1\t3\t3\t2" in lines
    assert 'texts\ttext\t{"a": "/etc"}\t1\t1\t1\t1' in lines
    assert len(lines) == 6
    document = json.loads(aimlite("show", "shown", "--repo", shown, "--json").output)
    assert document["object_count"] == 6
    assert {"kind": "images", "name": "../../up", "context": {}, "dtype": "list(image)", "first_step": 3, "last_step": 3, "count": 1} | {
        "record_length": 2
    } in document["objects"]
    assert aimlite("show", "shown", "text", "--repo", shown).output == 'texts\ttext\t{"a": "/etc"}\t1\t1\t1\t1\n'
    missing = aimlite("show", "shown", "nothing", "--repo", shown)
    assert missing.exit_code != 0
    assert "text" in missing.output
    assert json.loads(aimlite("ls", "--repo", shown, "--json").output)[0]["object_count"] == 6


def test_export_writes_files_within_the_folder(shown: str, aimlite: Any, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "out"
    done = aimlite("export", "shown", "--objects", str(folder), "--repo", shown)
    assert done.exit_code == 0, done.output
    with open(folder / "objects.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    files = {row["file"]: row for row in rows}
    assert set(files) == {
        "images/%2E.%2F..%2Fup/3-0.png",
        "images/%2E.%2F..%2Fup/3-1.png",
        "images/photo/-1.jpg",
        "texts/text/%7B%22a%22%3A %22%2Fetc%22%7D/1.txt",
        "audios/sound/%7B%22a%22%3A %22%2Fetc%22%7D/1.wav",
        "distributions/bins/-1.json",
        "figures/chart/-1.json",
    }
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {*files, "objects.csv"}
    assert Image(folder / "images/%2E.%2F..%2Fup/3-1.png").to_numpy().max() == 1
    assert files["images/%2E.%2F..%2Fup/3-1.png"]["caption"] == "no. 1"
    assert (folder / "texts/text/%7B%22a%22%3A %22%2Fetc%22%7D/1.txt").read_text("utf-8") == "ünï"
    assert json.loads((folder / "distributions/bins/-1.json").read_text())["range"] == [1.0, 2.0]
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("made", "repo")] == []


def test_export_refuses(shown: str, aimlite: Any, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    assert "not empty" in aimlite("export", "shown", "--objects", str(tmp_path / "full"), "--repo", shown).output
    assert "excludes" in aimlite("export", "shown", "--objects", "x", "--csv", "--repo", shown).output
    assert (
        "has no objects 'loss'" in aimlite("export", "shown", "--objects", str(tmp_path / "x"), "--metric", "loss", "--repo", shown).output
    )


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "\0", "x" * 5000, "ü" * 500, "a ", "CON/..", "\\", "%2E"])
def test_names_of_files(text: str) -> None:
    name = file_name(text)
    assert len(name) <= 120
    assert "/" not in name
    assert "\0" not in name
    assert not name.startswith(".")
    assert file_name(text + "!") != name
