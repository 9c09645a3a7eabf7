"""The objects of a run as files in a folder."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from aimlite.cli.text import json_text

if TYPE_CHECKING:
    from aimlite.sdk.object_sequences import ObjectSequence

COLUMNS = ("kind", "name", "context", "step", "index", "epoch", "time", "caption", "file")
LIST = "objects.csv"
_LONGEST = 120  # characters of a file's name


def write_objects(folder: Path, sequences: Sequence[ObjectSequence]) -> int:
    """Writes each object to a file below a folder, and what they are to `objects.csv` in it; returns how many objects. No name of a
    sequence leads out of the folder. Raises click.ClickException where the folder holds something, or Pillow or soundfile is needed."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise click.ClickException(f"{str(folder)!r} is not empty: name a folder that is, or none that there is")
    count = 0
    with open(folder / LIST, "x", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for sequence in sequences:
            kind, context = sequence._kind, json_text(sequence.context.to_dict())
            place = folder / kind / file_name(sequence.name) / (file_name(context) if sequence.context else "")
            place.mkdir(parents=True, exist_ok=True)
            for record in sequence.records():
                for index, found in zip(record.indices, record.objects, strict=True):
                    stem = f"{record.step}-{index}" if sequence._in_lists() else str(record.step)
                    files = list(_files(found))
                    for ending, content in files:
                        (place / f"{stem}.{ending}").write_bytes(content)
                    epoch = "" if record.epoch != record.epoch else record.epoch
                    caption = getattr(found, "caption", "")
                    told = (kind, sequence.name, context, record.step, index, epoch, record.time, caption)
                    rows.writerow([*told, (place / f"{stem}.{files[0][0]}").relative_to(folder).as_posix()])
                    count += 1
    return count


def file_name(text: str) -> str:
    """A name that every file system takes, and that is no path: what is not plain is %-encoded, what is long is cut and gets a hash."""
    plain = re.sub(r"^\.", "%2E", quote(text, safe=" "))
    plain = re.sub(r"[ ]$", "%20", plain)
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST - 17]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _files(found: Any) -> Iterator[tuple[str, bytes]]:
    """(ending, content) of the files that hold an object, the best to look at first."""
    from aimlite.objects.audio import Audio
    from aimlite.objects.figure import Figure
    from aimlite.objects.image import Image
    from aimlite.objects.text import Text

    try:
        if isinstance(found, Image | Audio):
            yield {"jpeg": "jpg"}.get(found.format, file_name(found.format)), found.data
        elif isinstance(found, Text):
            yield "txt", found.data.encode("utf-8", "surrogatepass")
        elif isinstance(found, Figure) and found.format != "plotly":
            yield "png", found.png
            with suppress(ValueError):
                yield "svg", found.svg
        else:
            yield "json", json.dumps(found.json()["data"] if isinstance(found, Figure) else found.json()).encode()
    except ImportError as error:
        raise click.ClickException(str(error)) from None
