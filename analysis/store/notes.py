"""What people have written down about trials: one small file a note, beside the rows and never in them.

A note is ``study=<study>/notes/<trial>-<mark>.json`` with its ``text`` and when it was written, ``at``.
`study.notes` writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from analysis.store.storage import Storage

NAME = re.compile(r"(?P<trial>[^/.][^/]*)-[0-9a-f]{8}\.json")


@dataclass(frozen=True, kw_only=True)
class Note:
    """What was written about a trial, and when, as ISO 8601 with the offset of UTC."""

    trial_id: str
    study: str
    at: str
    text: str


def read_notes(storage: Storage, studies: Iterable[str]) -> tuple[Note, ...]:
    """Return the notes of some studies in the order of their writing; a damaged one says so as its text.

    Raises:
        OSError: The store cannot be read.
    """
    found = [
        _note(storage, study, item.path, name["trial"])
        for study in studies
        for item in storage.items(storage.path(f"study={study}/notes"))
        if item.kind == "file" and (name := NAME.fullmatch(item.name))
    ]
    return tuple(sorted(found, key=lambda note: (note.at, note.trial_id, note.text)))


def _note(storage: Storage, study: str, path: str, trial_id: str) -> Note:
    try:
        values = json.loads(storage.read(path))
        at, text = values["at"], values["text"]
        if not (isinstance(at, str) and isinstance(text, str)):
            raise TypeError("a note is text")
    except (ValueError, TypeError, KeyError, RecursionError):
        at, text = "", f"(a damaged note: {path})"
    return Note(trial_id=trial_id, study=study, at=at, text=text)
