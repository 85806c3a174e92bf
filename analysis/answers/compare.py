"""Two sides compared: what changed in the settings, and paired differences with intervals.

A setting whose values on the two sides have nothing in common is what was changed. All other settings, the
seed included, must agree for two trials to be paired, so that an effect is that of the change alone.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.documents import flat_config
from analysis.errors import NotComparableError, UnknownStudyError
from analysis.pairs import geometric
from analysis.stats import Estimate, Row, estimate, finite
from analysis.store.store import Store, open_store

_TIMED_ALIKE = ("device", "hostname_hash", "cpu_threads")
_METRICS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # column, how two values are compared, columns that must agree before they are
    ("accuracy_test", "difference", ()),
    ("accuracy_val", "difference", ()),
    ("bits_per_byte_test", "difference", ()),
    ("bits_per_byte_val", "difference", ()),
    ("loss_val", "difference", ()),
    ("memory_peak_bytes", "ratio", ("memory_source",)),
    ("memory_activation_bytes", "ratio", ("memory_source",)),
    ("step_time_s", "ratio", _TIMED_ALIKE),
    ("reconstruction_rel_error", "ratio", ()),
    ("gradient_rel_error", "ratio", ()),
)
_PROVENANCE = ("device", "git_commit", "revstudy_version", "torch_version", "ray_version", "python_version")
_OPERATIONAL = ("probe",)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two: its name, how many trials it has, and how they ended."""

    name: str
    trials: int
    outcomes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting (or a fact of provenance) with the values each side has, numbers in their order.

    `changed` is set where the two have no value in common.
    """

    path: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    changed: bool


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The paired effect on one column: B minus A, or B over A (a geometric mean).

    Attributes:
        column: a column of trials.
        kind: ``difference`` or ``ratio``.
        a: mean over the pairs on side A.
        b: mean over the pairs on side B.
        effect: the effect with its 95 % bootstrap interval over pairs.
        left_out: pairs that cannot be compared: a value is missing, not finite, zero where a ratio is asked
            for, or was measured on another machine or by another source.

    """

    column: str
    kind: str
    a: float
    b: float
    effect: Estimate
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        a, b: the sides.
        settings: settings whose sets of values differ.
        provenance: versions and machines that differ.
        pairs: matched groups of trials; a group has one trial on each side unless what changed, or the seed,
            took several values, which are then averaged.
        shared: trials that are one and the same row on both sides; they are in no pair.
        unpaired_a, unpaired_b: trials that ended ok and have no counterpart.
        effects: what the change did, by column.

    """

    a: Side
    b: Side
    settings: tuple[Change, ...]
    provenance: tuple[Change, ...]
    pairs: int
    shared: int
    unpaired_a: int
    unpaired_b: int
    effects: tuple[Effect, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def open_side(text: str, store: str | Path) -> tuple[str, list[Row]]:
    """Return the name and the trials of a side: a study of `store`, a study's folder, or another store's
    folder.

    Raises:
        UnknownStudyError: it is none of these; the message names the nearest study.
        StoreError: the folder cannot be read.

    """
    path = Path(text)
    if path.name.startswith("study=") and path.is_dir():
        name = path.name.removeprefix("study=")
        return text, open_store(path.parent, name).rows("trials")
    own: Store | None = open_store(store) if Path(store).is_dir() or "://" in str(store) else None
    if own is not None and text in own.studies:
        return text, own.trials_of(text)
    if path.is_dir() or "://" in text:
        return text, open_store(text).rows("trials")
    known = own.studies if own is not None else ()
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"it holds {', '.join(known) or 'no study'}"
    raise UnknownStudyError(
        f"a side must be a study of the store {str(store)!r} or the folder of another store, got {text!r}: "
        f"{hint}"
    )


def compare(a: Sequence[Row], b: Sequence[Row], *, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Compares two lists of rows of the trials view.

    Args:
        a: the trials of side A.
        b: the trials of side B.
        names: what to call the sides.

    Returns:
        The settings that differ, the pairs of equal trials, and the paired differences with their intervals.

    Raises:
        NotComparableError: the two sides have no task, or no data set, in common.

    """
    _check_same_subject(a, b, names)
    documents = [_settings(row) for row in a], [_settings(row) for row in b]
    settings = _changes(*documents)
    free = {change.path for change in settings if change.changed}
    same_rows = {_identity(row) for row in a} & {_identity(row) for row in b}
    sides = []
    for rows, flat in zip((a, b), documents, strict=True):
        side: dict[tuple[tuple[str, str], ...], list[Row]] = {}
        for row, found in zip(rows, flat, strict=True):
            if row["outcome"] == "ok" and _identity(row) not in same_rows:
                side.setdefault(_key(found, free), []).append(row)
        sides.append(side)
    keys = [key for key in sides[0] if key in sides[1]]
    matched = [(sides[0][key], sides[1][key]) for key in keys]
    paired = set(keys)
    unpaired = [sum(len(group) for key, group in side.items() if key not in paired) for side in sides]
    effects = []
    for column, kind, alike in _METRICS:
        effect = _effect(matched, column, kind, alike)
        if effect is not None:
            effects.append(effect)
    return Comparison(
        a=_side(names[0], a),
        b=_side(names[1], b),
        settings=settings,
        provenance=tuple(
            change
            for name in _PROVENANCE
            if (change := _change(name, (r.get(name) for r in a), (r.get(name) for r in b)))
        ),
        pairs=len(matched),
        shared=len(same_rows),
        unpaired_a=unpaired[0],
        unpaired_b=unpaired[1],
        effects=tuple(effects),
    )


def _check_same_subject(a: Sequence[Row], b: Sequence[Row], names: tuple[str, str]) -> None:
    """Refuses sides that have nothing in common to learn."""
    for column, word in (("task", "task"), ("data", "data set")):
        first, second = ({_subject(row, column) for row in side} for side in (a, b))
        if first and second and not first & second:
            raise NotComparableError(
                f"two sides must share a {word}, got {', '.join(sorted(first))} in {names[0]} and "
                f"{', '.join(sorted(second))} in {names[1]}: compare studies of one {word}"
            )


def _subject(row: Row, column: str) -> str:
    """The task or the data set of a trial; older rows name no task, and were all of classification."""
    value = row.get(column)
    return str(value or ("classification" if column == "task" else "unknown"))


def _side(name: str, rows: Sequence[Row]) -> Side:
    outcomes = Counter(row["outcome"] or "unknown" for row in rows)
    return Side(name=name, trials=len(rows), outcomes=tuple(sorted(outcomes.items())))


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("trial_id", "attempt", "started_at", "hostname_hash"))


def _settings(row: Row) -> dict[str, str]:
    """The settings of a trial by dotted path; without a settings document, the columns that hold them."""
    config = {p: v for p, v in flat_config(row.get("config_json")) if p.split(".")[0] not in _OPERATIONAL}
    if config:
        return config
    names = ("data", "model", "depth", "width", "strategy", "compute_dtype", "stream_dtype", "coupling")
    more = ("matmul", "batch_size", "epochs", "optimizer", "learning_rate", "weight_decay", "workers", "seed")
    return {name: str(row.get(name)) for name in (*names, *more)}


def _key(settings: dict[str, str], free: set[str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((path, value) for path, value in settings.items() if path not in free))


def _changes(flat_a: Sequence[dict[str, str]], flat_b: Sequence[dict[str, str]]) -> tuple[Change, ...]:
    """The settings whose values differ between the sides."""
    if not flat_a or not flat_b:
        return ()
    paths = sorted({path for flat in (*flat_a, *flat_b) for path in flat})
    found = []
    for path in paths:
        change = _change(path, (f.get(path) for f in flat_a), (f.get(path) for f in flat_b))
        if change is not None:
            found.append(change)
    return tuple(found)


def _change(path: str, a: Iterable[Any], b: Iterable[Any]) -> Change | None:
    """The change of one setting, or None where both sides take the same values."""
    values = [{"–" if v is None else str(v).strip('"') for v in side} for side in (a, b)]
    if values[0] == values[1]:
        return None
    first, second = (tuple(sorted(side, key=_in_order)) for side in values)
    return Change(path=path, a=first, b=second, changed=not values[0] & values[1])


def _in_order(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _effect(
    matched: Sequence[tuple[list[Row], list[Row]]], column: str, kind: str, alike: tuple[str, ...]
) -> Effect | None:
    means: list[tuple[float, float]] = []
    for group_a, group_b in matched:
        if len({tuple(row.get(name) for name in alike) for row in (*group_a, *group_b)}) > 1:
            continue
        pair = _mean(group_a, column, kind), _mean(group_b, column, kind)
        if pair[0] is not None and pair[1] is not None:
            means.append((pair[0], pair[1]))
    ratios = kind == "ratio"
    found = geometric(b / a for a, b in means) if ratios else estimate(b - a for a, b in means)
    if found is None:
        return None
    count = len(means)
    return Effect(
        column=column,
        kind=kind,
        a=sum(a for a, _ in means) / count,
        b=sum(b for _, b in means) / count,
        effect=found,
        left_out=len(matched) - count,
    )


def _mean(rows: Sequence[Mapping[str, Any]], column: str, kind: str) -> float | None:
    values: list[Any] = [row.get(column) for row in rows]
    if not all(finite(v) and (kind != "ratio" or v > 0) for v in values):
        return None
    return sum(values) / len(values)
