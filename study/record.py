"""A study as its store remembers it: ``study=<name>/study.json``, and whether a study file still says the
same.

The file holds the validated study, the ids of its trials, how many there are to be, and who wrote it. Where a
study was extended, what it said before stands under ``earlier``, with who had written that.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from study.errors import Problem, StudyError
from study.provenance import provenance
from study.spec.load import parse_study
from study.spec.study import Study
from study.store.files import read_file

BESIDE = frozenset({"trial_ids", "planned", "written", "earlier"})
"""Keys of the file that are no part of the study."""
FREE = frozenset({"budget", "code", "description", "scales", "tags"})
"""Sections that may change from run to run: they change no trial and no search."""
_SHOWN = 20

Record = dict[str, Any]


def read_record(store: str | Path, name: str) -> Record | None:
    """Return what the store remembers of a study; None where there is nothing, or a file that is damaged.

    Raises:
        StoreError: The store cannot be read.
    """
    content = read_file(store, f"study={name}/study.json")
    try:
        record = json.loads(content or b"null")
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def differences(record: Record, study: Study) -> list[tuple[str, Any, Any]]:
    """Return where a study says something else than what is remembered: dotted path, then and now.

    A setting that did not exist when the record was written counts as its default.
    """
    then = {key: value for key, value in record.items() if key not in BESIDE}
    with contextlib.suppress(StudyError):  # an older version's, whose rules were others: it stays as it is
        then = parse_study(then).to_dict()
    before, after = (dict(_leaves(values)) for values in (then, study.to_dict()))
    paths = [path for path in {**before, **after} if path.partition(".")[0] not in FREE]
    return [(p, before.get(p), after.get(p)) for p in paths if before.get(p) != after.get(p)]


def extended(record: Record | None, study: Study, store: str | Path, *, extend: bool) -> dict[str, Any]:
    """Return what is to stand in the file beside the study: who writes it, and what it said before.

    Args:
        record: What the store remembers.
        study: The study as it is now.
        store: The store, for the message.
        extend: Whether a study of other content may be added to the one that is there.

    Raises:
        StudyError: The store has a study of this name and of other content, and `extend` is false.
    """
    written = {name: provenance()[name] for name in ("revstudy_version", "git_commit", "git_dirty")}
    written["at"] = datetime.now(UTC).isoformat(timespec="seconds")
    if record is None:
        return {"written": written}
    earlier = list(record.get("earlier") or [])
    if not (changed := differences(record, study)):
        return {"written": record.get("written", written), **({"earlier": earlier} if earlier else {})}
    if not extend:
        problems = [
            Problem(path=path, value=now, rule=f"the study in the store has {then!r}")
            for path, then, now in changed[:_SHOWN]
        ]
        if len(changed) > _SHOWN:
            problems.append(Problem(path="", value=len(changed), rule="and other differences"))
        raise StudyError(
            problems=problems,
            source=f"the store {str(store)!r} has a study {study.name!r} of other content: give this one "
            "another name, or add to that one with --extend",
        )
    earlier.append({key: value for key, value in record.items() if key not in ("trial_ids", "earlier")})
    return {"written": written, "earlier": earlier}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping, with its dotted path; an empty mapping says nothing."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif value is not None:
        yield path, value
