"""Trials that are looked at together, by column, and which of them are comparable.

A figure compares trials that differ in a factor or two, and in nothing else. What must agree are columns of
the trials view and the settings of ``config_json``. They are coded as numbers, a column at a time, so that
the comparable trials of a large store are found by a few additions of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np

from analysis.documents import Setting, settings_of
from analysis.stats import Row, finite
from analysis.store.store import Store

_COLUMNS = (
    *("data", "examples_train", "model", "family", "block", "depth", "width", "strategy"),
    *("compute_dtype", "stream_dtype", "coupling", "matmul", "batch_size", "epochs", "optimizer"),
    *("learning_rate", "weight_decay", "schedule", "workers", "seed"),
)
_FACTORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # factor: (columns it may change, settings of config_json it may change)
    "seed": (("seed",), ("seed",)),
    "strategy": (("strategy",), ("memory",)),
    "precision": (
        ("compute_dtype", "stream_dtype", "coupling", "matmul"),
        ("precision",),
    ),
    "width": (("width",), ("model.width",)),
    "depth": (("depth", "model"), ("model.depth", "model.name")),
    "model": (("model", "family", "depth"), ("model.name", "model.depth")),
    "workers": (("workers", "batch_size"), ("scaling", "train.batch_size")),
}
_NUMBERS = {float, int, type(None)}
_NO_SETTING = "probe"
"""What is under this path measures a trial and does not change it."""


class Cohort(Sequence[Row]):
    """Rows of the trials view in a fixed order. A part of a cohort shares the columns of the whole.

    Args:
        rows: the rows.
    """

    def __init__(self, rows: Iterable[Row]):
        self._whole = _Columns(list(rows))
        self._places = np.arange(len(self._whole.rows))

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Cohort:
        """Rows as a cohort; one that is a cohort already stays as it is."""
        return rows if isinstance(rows, Cohort) else cls(rows)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Row]:
        rows = self._whole.rows
        return iter([rows[place] for place in self._places.tolist()])

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> Cohort: ...
    def __getitem__(self, place: int | slice) -> Row | Cohort:
        return self._part(self._places[place]) if isinstance(place, slice) else self._at(place)

    def numbers(self, column: str) -> np.ndarray:
        """A column as floats, shape (n,); NaN where it holds no finite number."""
        return self._whole.numbers(column)[self._places]

    def finite(self, *columns: str) -> np.ndarray:
        """Which trials have a finite number in each of these columns, as booleans of shape (n,)."""
        found = np.ones(len(self), dtype=bool)
        for column in columns:
            found &= np.isfinite(self.numbers(column))
        return found

    def positive(self, column: str) -> np.ndarray:
        """Which trials have a finite number above 0 in this column, as booleans of shape (n,)."""
        return self.numbers(column) > 0

    def having(self, column: str, rule: Callable[[Any], bool]) -> np.ndarray:
        """Which trials have a value that a rule accepts; it is asked once for every value that occurs."""
        words, codes = self._whole.coded(column)
        accepted = np.array([bool(rule(word)) for word in words], dtype=bool)
        return accepted[codes[self._places]] if len(words) else np.zeros(len(self), dtype=bool)

    def where(self, mask: np.ndarray) -> Cohort:
        """The trials that a mask of shape (n,) marks."""
        return self._part(self._places[mask])

    def ended_ok(self, *columns: str) -> Cohort:
        """The trials that ended ok and have a finite number in each of these columns."""
        return self.where(self.having("outcome", "ok".__eq__) & self.finite(*columns))

    def keys(self, *free: str, same: Sequence[str] = ()) -> np.ndarray:
        """Numbers of shape (n,), equal for trials that agree in everything but the `free` factors.

        Args:
            free: factors that may differ: seed, strategy, precision, width, depth, model or workers.
            same: further columns that must agree, such as ``device`` where times are compared. The two ways
                in which memory is measured on a CPU count as one: they differ by less than strategies do.

        Returns:
            The numbers. They hold within this cohort and its parts alone.
        """
        return self._whole.keys(free, tuple(same))[self._places]

    def alike(self, *free: str, same: Sequence[str] = ()) -> list[Cohort]:
        """The groups of equal `keys`, in the order of their first trials."""
        return [self._part(self._places[group]) for group in _grouped(self.keys(*free, same=same))]

    def by(self, *columns: str) -> dict[tuple[Any, ...], Cohort]:
        """The trials by their values of some columns, in the order of their first trials."""
        codes = _combined([self._whole.coded(column)[1][self._places] for column in columns], len(self))
        parts = [self._part(self._places[group]) for group in _grouped(codes)]
        return {tuple(part[0].get(column) for column in columns): part for part in parts}

    def grouped(self, label: Callable[[Row], Hashable]) -> dict[Any, Cohort]:
        """The trials by what a label makes of each, in the order of their first trials."""
        places: dict[Any, list[int]] = {}
        for place, row in zip(self._places.tolist(), self, strict=True):
            places.setdefault(label(row), []).append(place)
        return {key: self._part(np.array(group)) for key, group in places.items()}

    def settings(self) -> dict[str, Setting]:
        """The settings of all trials of the whole, by dotted path."""
        return self._whole.settings

    def _at(self, place: int) -> Row:
        return self._whole.rows[self._places[place]]

    def _part(self, places: np.ndarray) -> Cohort:
        part = Cohort.__new__(Cohort)
        part._whole, part._places = self._whole, places
        return part


def cohort_of(store: Store) -> Cohort:
    """All trials of a store."""
    return store.remember("cohort", lambda: Cohort(store.rows("trials")))


class _Columns:
    """The columns of some rows. Each is made when it is first asked for, and is what the rows hold."""

    def __init__(self, rows: list[Row]):
        self.rows = rows
        self._numbers: dict[str, np.ndarray] = {}
        self._coded: dict[str, tuple[list[Any], np.ndarray]] = {}

    @cached_property
    def settings(self) -> dict[str, Setting]:
        return settings_of([row.get("config_json") for row in self.rows])

    def numbers(self, column: str) -> np.ndarray:
        if column not in self._numbers:
            values = [row.get(column) for row in self.rows]
            if not set(map(type, values)) <= _NUMBERS:
                values = [value if finite(value) else None for value in values]
            numbers = np.array(values, dtype=float)  # None becomes NaN
            self._numbers[column] = np.where(np.isfinite(numbers), numbers, np.nan)
        return self._numbers[column]

    def coded(self, column: str) -> tuple[list[Any], np.ndarray]:
        """The values that a column takes, and of each row the place of its value."""
        if column not in self._coded:
            places: dict[Any, int] = {}
            codes = [places.setdefault(row.get(column), len(places)) for row in self.rows]
            self._coded[column] = list(places), np.array(codes, dtype=np.int64)
        return self._coded[column]

    def keys(self, free: tuple[str, ...], same: tuple[str, ...]) -> np.ndarray:
        columns, paths = set(), {_NO_SETTING}
        for factor in free:
            columns |= set(_FACTORS[factor][0])
            paths |= set(_FACTORS[factor][1])
        codes = [self._agreeing(name) for name in (*_COLUMNS, *same) if name not in columns]
        codes += [one.codes for path, one in self.settings.items() if paths.isdisjoint(_starts(path))]
        return _combined(codes, len(self.rows))

    def _agreeing(self, column: str) -> np.ndarray:
        words, codes = self.coded(column)
        if column == "memory_source" and {"cpu_allocator", "tracker"} <= set(words):
            return np.where(codes == words.index("cpu_allocator"), words.index("tracker"), codes)
        return codes


def _combined(codes: Iterable[np.ndarray], n: int) -> np.ndarray:
    """One number for each combination of codes, exactly: as the digits of a number with several bases."""
    found, bound = np.zeros(n, dtype=np.int64), 1
    for digits in codes:
        base = int(digits.max(initial=0)) + 1
        if base == 1:
            continue
        if bound > 2**62 // base:
            _, found = np.unique(found, return_inverse=True)
            bound = int(found.max(initial=0)) + 1
        found, bound = found * base + digits, bound * base
    return found


def _grouped(keys: np.ndarray) -> list[np.ndarray]:
    """The places of each key in their order, the keys in the order of their first places."""
    if not len(keys):
        return []
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[group]
    order = np.argsort(rank, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(rank[order])) + 1)


def _starts(path: str) -> set[str]:
    """A dotted path and everything it is under: a.b.c, a.b and a."""
    parts = path.split(".")
    return {".".join(parts[: i + 1]) for i in range(len(parts))}
