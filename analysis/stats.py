"""Means with bootstrap intervals, and the settings that make two trials comparable.

The mean of seeds or of paired differences is reported with a 95 % percentile bootstrap interval (Efron,
1979) and its n. Below three values there is no interval: a resample of two says nothing of the spread.
"""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import numpy as np

from analysis.strategies import is_stored, preference

T = TypeVar("T")
Row = dict[str, Any]
"""One row of the trials view."""

MIN_FOR_INTERVAL = 3

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


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval (None below three values) and the number of values behind it."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two trials that differ in one factor alone."""

    treatment: Row
    control: Row

    @property
    def ids(self) -> tuple[str, str]:
        """Trial ids, treatment first."""
        return self.treatment["trial_id"], self.control["trial_id"]


def finite(value: Any) -> TypeGuard[float]:
    """Whether a cell holds a number that can be plotted: not null, NaN or infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def estimate(
    values: Iterable[float],
    *,
    statistic: Callable[..., Any] = np.mean,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate | None:
    """The mean (or another `statistic` with an ``axis``) of the finite values with a bootstrap interval.

    The resampling is seeded: equal values give equal intervals.

    Returns:
        None if no value is finite.

    """
    kept = tuple(float(v) for v in values if finite(v))
    return _estimate(kept, statistic, resamples, level) if kept else None


@functools.lru_cache(maxsize=16_384)
def _estimate(
    values: tuple[float, ...], statistic: Callable[..., Any], resamples: int, level: float
) -> Estimate:
    """As `estimate`, of finite values; the figures of a report ask for the same configurations."""
    kept = np.array(values)
    n = len(kept)
    mean = float(statistic(kept, axis=0))
    if n < MIN_FOR_INTERVAL:
        return Estimate(mean=mean, low=None, high=None, n=n)
    if (kept == kept[0]).all():
        return Estimate(mean=mean, low=mean, high=mean, n=n)
    if statistic is np.mean and n <= _FEW:
        found = _weights(n, resamples) @ kept
    else:
        found = statistic(kept[_draws(n, resamples)], axis=1)
    found.sort()
    tail = (1 - level) / 2
    low, high = (_quantile(found, share) for share in (tail, 1 - tail))
    return Estimate(mean=mean, low=low, high=high, n=n)


_FEW = 64  # values up to which the weights of all resamples are kept


@functools.lru_cache(maxsize=64)
def _draws(n: int, resamples: int) -> np.ndarray:
    """Seeded resamples of n places, shape (resamples, n); a report asks for the same n thousands of times."""
    return np.random.default_rng(0).integers(n, size=(resamples, n))


@functools.lru_cache(maxsize=_FEW)
def _weights(n: int, resamples: int) -> np.ndarray:
    """The weight of each value in the mean of each resample, shape (resamples, n)."""
    draws = _draws(n, resamples)
    return np.stack([(draws == place).mean(axis=1) for place in range(n)], axis=1)


def _quantile(ordered: np.ndarray, share: float) -> float:
    """The quantile of sorted values by linear interpolation, as `numpy.quantile` has it."""
    place = share * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 2)
    return float(ordered[below] + (place - below) * (ordered[below + 1] - ordered[below]))


def sign_flip_p(differences: Iterable[float]) -> float:
    """How often paired differences would be as far from 0 on average if only chance gave them their signs.

    The exact two-sided test over all 2^n signs (Fisher, 1935) of up to 16 finite values; of more, over 20,000
    seeded draws. With fewer than 6 values it cannot fall below 0.05, so it cannot tell anything from chance.

    Returns:
        A share, 0 to 1; 1 for no values.

    """
    kept = np.array([float(d) for d in differences if finite(d)])
    n = len(kept)
    if n <= 16:
        found = _signs((np.arange(2**n)[:, None] >> np.arange(n)) & 1) @ kept
    else:
        random = np.random.default_rng(0)
        found = np.concatenate(
            [_signs(random.integers(2, size=(1_000, n), dtype=np.int8)) @ kept for _ in range(20)]
        )
    return float(np.mean(np.abs(found) >= abs(kept.sum()) * (1 - 1e-12)))


def _signs(bits: np.ndarray) -> np.ndarray:
    """1.0 where a bit is 0 and -1.0 where it is 1."""
    return 1.0 - 2.0 * bits


def settings_key(row: Row, *free: str, same: Sequence[str] = ()) -> Hashable:
    """Return everything that must agree for two trials to be comparable, apart from the `free` factors.

    Args:
        row: a row of the trials view.
        free: factors that may differ: seed, strategy, precision, width, depth, model or workers.
        same: further columns that must agree, such as ``device`` where times are compared. The two ways in
            which memory is measured on a CPU count as one: they differ by less than strategies do.

    """
    columns, take, source, paths = _bound(free, tuple(same))
    try:
        values = take(row)
    except KeyError:
        values = tuple(map(row.get, columns))
    if source is not None and values[source] == "cpu_allocator":
        values = (*values[:source], "tracker", *values[source + 1 :])
    return values, _config_without(row.get("config_json"), paths)


_Bound = tuple[tuple[str, ...], Callable[[Row], tuple[Any, ...]], int | None, frozenset[str]]


@functools.lru_cache(maxsize=256)
def _bound(free: tuple[str, ...], same: tuple[str, ...]) -> _Bound:
    """Return the columns that must agree, what takes them from a row, and the settings that need not agree.

    Between the last two stands the place of ``memory_source`` among the columns, or None.
    """
    columns, paths = set(), {"probe"}
    for factor in free:
        columns |= set(_FACTORS[factor][0])
        paths |= set(_FACTORS[factor][1])
    names = tuple(name for name in (*_COLUMNS, *same) if name not in columns)
    source = names.index("memory_source") if "memory_source" in names else None
    return names, operator.itemgetter(*names), source, frozenset(paths)


def group_by(items: Iterable[T], key: Callable[[T], Hashable]) -> dict[Any, list[T]]:
    """Groups items by a key, keeping their order."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def sample(items: Sequence[T], at_most: int) -> list[T]:
    """At most so many items, spread evenly over the list, always the same ones."""
    if len(items) <= at_most:
        return list(items)
    step = len(items) / at_most
    return [items[int(i * step)] for i in range(at_most)]


def pairs(
    rows: Iterable[Row],
    factor: str,
    *,
    treatment: Callable[[Row], bool],
    control: Callable[[Row], bool],
    same: Sequence[str] = (),
) -> list[Pair]:
    """Pairs every treatment trial with the control trial of equal settings and equal seed.

    Args:
        rows: rows of the trials view.
        factor: the one factor the two may differ in.
        treatment: picks the treated trials.
        control: picks the controls.
        same: further columns that must agree.

    Returns:
        The pairs; a trial that has no partner is in none.

    """
    rows = list(rows)
    controls = {settings_key(row, factor, same=same): row for row in reversed(rows) if control(row)}
    found = []
    for row in rows:
        if treatment(row) and (twin := controls.get(settings_key(row, factor, same=same))):
            found.append(Pair(treatment=row, control=twin))
    return found


def family_twins(rows: Iterable[Row], *, tolerance: float = 0.25) -> list[Pair]:
    """Pairs every RevNet with the ResNet nearest in parameters, if within `tolerance`, all else equal.

    Width is multiplied onto the twins alike, so it must agree; the RevNet may use any strategy, and of a
    RevNet run under several the reversing one is taken. Each RevNet enters once per seed.

    Returns:
        The pairs, the RevNet as treatment and the ResNet as control.
    """
    free = ("model", "strategy")
    revnets = [r for r in rows if r["family"] == "revnet" and finite(r["parameters"])]
    resnets = [r for r in rows if r["family"] == "resnet" and finite(r["parameters"])]
    controls = group_by(resnets, lambda r: settings_key(r, *free, same=()))
    found = []
    for (key, _), group in group_by(revnets, lambda r: (settings_key(r, *free), r["depth"])).items():
        revnet = min(group, key=lambda r: preference(r["strategy"]))
        candidates = controls.get(key, [])
        if not candidates:
            continue
        gap, twin = min(
            ((abs(math.log(c["parameters"] / revnet["parameters"])), c) for c in candidates),
            key=lambda item: (item[0], not is_stored(item[1]["strategy"])),
        )
        if gap <= math.log1p(tolerance):
            found.append(Pair(treatment=revnet, control=twin))
    return found


def difference(paired: Iterable[Pair], column: str) -> Estimate | None:
    """Mean of treatment minus control over the pairs where both are finite."""
    both = [(p.treatment[column], p.control[column]) for p in paired]
    return estimate(a - b for a, b in both if finite(a) and finite(b))


def ratio(paired: Iterable[Pair], column: str) -> Estimate | None:
    """Geometric mean of treatment over control over the pairs where both are positive."""
    both = [(p.treatment[column], p.control[column]) for p in paired]
    logs = estimate(math.log(a / b) for a, b in both if finite(a) and finite(b) and a > 0 and b > 0)
    if logs is None:
        return None
    low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
    return Estimate(mean=math.exp(logs.mean), low=low, high=high, n=logs.n)


@functools.lru_cache(maxsize=131_072)
def _config_without(text: str | None, roots: frozenset[str]) -> str:
    """Return the settings of config_json that are none of `roots` and under none of them, as one text.

    A text remembers its hash, and a large store asks for it a hundred thousand times.
    """
    paths, values = _columns_of(text)
    return "\n".join(_picker(paths, roots)(values))


@functools.lru_cache(maxsize=65_536)
def _columns_of(text: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The paths of `flat_config`, and with each path its value."""
    flat = flat_config(text)
    return tuple(path for path, _ in flat), tuple(f"{path} {value}" for path, value in flat)


@functools.lru_cache(maxsize=4_096)
def _picker(paths: tuple[str, ...], roots: frozenset[str]) -> Callable[[tuple[str, ...]], Iterable[str]]:
    """Takes the values whose paths are none of `roots` and under none of them."""
    kept = [i for i, path in enumerate(paths) if _starts(path).isdisjoint(roots)]
    if len(kept) < 2:
        return lambda values: [values[i] for i in kept]
    return operator.itemgetter(*kept)


@functools.lru_cache(maxsize=4_096)
def _starts(path: str) -> frozenset[str]:
    """A dotted path and everything it is under: a.b.c, a.b and a."""
    parts = path.split(".")
    return frozenset(".".join(parts[: i + 1]) for i in range(len(parts)))


def _leaf(value: Any) -> str:
    """JSON of a value; the usual ones are written here, five times as fast as by `json.dumps`."""
    if value is None or value is True or value is False:
        return "null" if value is None else "true" if value else "false"
    if type(value) is int:
        return str(value)
    if type(value) is str and value.isascii() and value.isalnum():
        return f'"{value}"'
    return json.dumps(value, sort_keys=True)


@functools.lru_cache(maxsize=65_536)
def flat_config(text: str | None) -> tuple[tuple[str, str], ...]:
    """The settings of config_json as sorted (dotted path, JSON) pairs; nothing if it is not an object."""
    found: list[tuple[str, str]] = []
    try:
        config = json.loads(text) if text else {}
        if isinstance(config, dict):
            _flatten(config, "", found)
    except (ValueError, RecursionError):
        return ()
    found.sort()
    return tuple(found)


def _flatten(node: dict[str, Any], above: str, found: list[tuple[str, str]]) -> None:
    """Adds the (dotted path, JSON) pairs of a settings document below `above` to those found."""
    for name, value in node.items():
        if type(value) is dict and value:
            _flatten(value, f"{above}{name}.", found)
        else:
            found.append((f"{above}{name}", _leaf(value)))
