"""A store that grows while it is read: which files the rows at hand came from, and which are new."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import pyarrow as pa

from analysis.store.listing import Listing, is_merged, may_hold


@dataclass(frozen=True, kw_only=True)
class Held:
    """Rows of one table that were read before, and the files that they came from."""

    rows: pa.Table
    files: frozenset[str]


def files_held(listing: Listing, table: str, trials: pa.Table) -> frozenset[str]:
    """Return the files of a table whose rows a store of this listing holds.

    Curves of an attempt are written before its row. A store leaves them out until the row is there, so files
    of curves without a row count as not read. The row may be in a merged file while the curves are not.

    Args:
        listing: The files of the store.
        table: The table.
        trials: The rows of trials that the store holds.
    """
    paths = listing.files[table]
    if table == "trials":
        return frozenset(paths)
    keys = (trials[name].to_pylist() for name in ("trial_id", "attempt", "study"))
    rows = {f"{trial}-a{attempt}\nstudy={study}" for trial, attempt, study in zip(*keys, strict=True)}
    return frozenset(path for path in paths if is_merged(path) or _attempt(path) in rows)


def without(listing: Listing, table: str, files: Collection[str]) -> Listing:
    """Return the listing without these files of a table."""
    left = tuple(path for path in listing.files[table] if path not in files)
    return replace(listing, files={**listing.files, table: left})


def same_members(before: Listing, now: Listing, old: frozenset[str], new: frozenset[str]) -> bool:
    """Whether no trial that a study lists since then, or lists no more, has a row in files listed before."""
    changed = old ^ new
    if not changed:
        return True
    held = set(before.files["trials"]) & set(now.files["trials"])
    return not any(may_hold(path, changed) for path in held)


def new_trials(before: Listing, now: Listing) -> set[str] | None:
    """Return the trials whose files came since; None where that cannot be told from the names."""
    old, new = (set(one.files["trials"]) for one in (before, now))
    came = new - old
    if old - new or any(is_merged(path) for path in came):
        return None
    return {_attempt(path).rpartition("-a")[0] for path in came}


def _attempt(path: str) -> str:
    """The name of an attempt, with its study's folder."""
    folder, _, name = path.rpartition("/")
    return name.removesuffix(".parquet") + "\n" + folder.rpartition("/")[0].rpartition("/")[2]
