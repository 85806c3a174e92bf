"""Notes about trials: written beside the rows of a store, which they never touch."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

from analysis.store.notes import Note
from analysis.store.trials import TrialTable
from study.errors import StudyError, nearest
from study.store.files import write_file

LONGEST = 10_000
"""Characters of a note."""


def add_note(store: str | Path, trial: str, text: str) -> Note:
    """Write a note about a trial that has a row. Notes are added to one another and never changed.

    Args:
        store: The store.
        trial: The trial's id, or the start of it.
        text: What to remember.

    Returns:
        The note.

    Raises:
        StudyError: The store has no such trial, or more than one; or the text is empty or too long.
        StoreError: The store cannot be read or written.
    """
    said = text.strip()
    if not 0 < len(said) <= LONGEST:
        raise StudyError(
            value=f"{len(said)} characters",
            rule=f"a note has 1 to {LONGEST:,} characters",
            remedy="write what is to be remembered in quotes",
        )
    trial_id, study = _trial(store, trial)
    note = Note(
        trial_id=trial_id, study=study, at=datetime.now(UTC).isoformat(timespec="milliseconds"), text=said
    )
    content = json.dumps({"at": note.at, "text": note.text}, ensure_ascii=False).encode() + b"\n"
    write_file(store, f"study={study}/notes/{trial_id}-{uuid.uuid4().hex[:8]}.json", content)
    return note


def _trial(store: str | Path, wanted: str) -> tuple[str, str]:
    """The id of a trial, given by its start, and the study that trained it."""
    rows = TrialTable(store).rows(("trial_id", "study")).to_pylist()
    studies = {row["trial_id"]: row["study"] for row in rows}
    found = [wanted] if wanted in studies else [i for i in studies if wanted and i.startswith(wanted)]
    if len(found) != 1:
        remedy = f"{len(found)} trials begin so; give more digits" if found else nearest(wanted, studies)
        raise StudyError(
            value=wanted, rule=f"must be the id of a trial in {str(store)!r}", remedy=remedy[:200]
        )
    return found[0], studies[found[0]]
