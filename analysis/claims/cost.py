"""The claims on what reversing saves and costs: memory, time, and what the memory buys."""

from __future__ import annotations

import math
import statistics
from typing import Any

from analysis.claims.claim import Claim, Evidence, Missing, evidence, select
from analysis.stats import Row, estimate, group_by
from analysis.store.store import Store
from analysis.strategies import CHECKPOINT, REVERSE, STORE
from analysis.wording import bytes_text, precision_label, precision_rank, ratio_text

FLAT = 0.01
"""Reversing is flat in depth if it grows by less than this share of what storing grows by."""
FASTEST, SLOWEST = 0.9, 2.0
"""The paper: an update is about 1.5 to 2 times as expensive, depending on the implementation."""
FLAT_POWER, LINEAR_POWER = 0.05, 1.2
"""Powers of depth; that of time has room for the noise of timing."""
SLOWEST_GROWTH = 0.7
"""A step of storing that grows by a smaller power of depth was timed while something else ran."""
_ALIKE_COLUMNS = (
    *("data", "model", "width", "batch_size", "compute_dtype", "stream_dtype", "coupling", "matmul"),
    *("optimizer", "workers", "memory_source", "device"),
)
_MEASURED = f"""
SELECT trial_id, strategy, depth, memory_activation_bytes AS bytes, memory_peak_bytes AS peak,
       step_time_s AS time, concurrent_trials, steps_done, {", ".join(_ALIKE_COLUMNS)}
FROM trials
WHERE outcome = 'ok' AND family = 'revnet' AND anchor_every IS NULL AND coupling_rule IS NULL
  AND memory_activation_bytes > 0"""


def flat_in_depth(store: Store) -> Evidence | Missing:
    """Claim 3."""
    shares, used, told = [], [], []
    for group in _groups(select(store, _MEASURED)):
        by_strategy = _by_strategy(group)
        store_slope, reverse_slope = (
            _slope([(r["depth"], r["bytes"]) for r in by_strategy.get(name, [])]) for name in (STORE, REVERSE)
        )
        if store_slope is None or reverse_slope is None or store_slope <= 0:
            continue
        shares.append(reverse_slope / store_slope)
        used += group
        first = group[0]
        told.append(
            f"{first['model']} design, batch {first['batch_size']}, {first['compute_dtype']}: "
            f"{bytes_text(store_slope)} per layer stored, {_signed_bytes(reverse_slope)} reversed"
        )
    if not shares:
        return Missing(needs="trials of one design at two depths or more that store, and others that reverse")
    return evidence(max(shares) <= FLAT, _few(told), shares, used)


def step_time(store: Store) -> Evidence | Missing:
    """Claim 5."""
    rows = [r for r in select(store, _MEASURED) if r["time"] and r["concurrent_trials"] == 1]
    ratios, used, extra = [], [], []
    for group in _groups(rows):
        for at_depth in group_by(group, lambda r: r["depth"]).values():
            medians = _medians(at_depth)
            if STORE in medians and REVERSE in medians:
                ratios.append(medians[REVERSE] / medians[STORE])
                used += [r for r in at_depth if r["strategy"] in (STORE, REVERSE)]
                if CHECKPOINT in medians:
                    extra.append(medians[CHECKPOINT] / medians[STORE])
    if not ratios:
        return Missing(needs="trials that reverse and store on one machine, timed with no trial beside them")
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    figure = f"a step of reversing takes {mean:.3g} times a step of storing"
    if mean < FASTEST:  # it does all that storing does, and more
        return Missing(needs="steps timed on a machine that does nothing else", figure=figure)
    if cost := estimate(extra):
        figure += f" (checkpointing every block: {ratio_text(cost)})"
    return evidence(mean <= SLOWEST, f"{figure}; {_where(used)}", ratios, used)


def complexity(store: Store) -> Evidence | Missing:
    """Claim 6."""
    rows = [r for r in select(store, _MEASURED) if r["time"] and r["concurrent_trials"] == 1]
    best: tuple[list[Row], dict[str, tuple[float, float]]] | None = None
    for group in _groups(rows):
        powers = {}
        for name, rows_of in _by_strategy(group).items():
            if len({r["depth"] for r in rows_of}) < 3:
                continue
            depths = [r["depth"] - 2 for r in rows_of]
            memory = _power(depths, [r["bytes"] for r in rows_of])
            time = _power(depths, [r["time"] for r in rows_of])
            if memory is not None and time is not None:
                powers[name] = (memory, time)
        if {STORE, REVERSE} <= set(powers) and (best is None or len(group) > len(best[0])):
            best = group, powers
    if best is None:
        return Missing(needs="timed trials of one design that store and reverse, at three depths or more")
    group, powers = best
    memory, time = powers[REVERSE]
    if powers[STORE][1] < SLOWEST_GROWTH:
        told = f"storing's time grows by the power {powers[STORE][1]:.2f} of depth"
        return Missing(needs="steps timed on a machine that does nothing else", figure=told)
    others = [power for name, (power, _) in powers.items() if name != REVERSE]
    holds = memory <= FLAT_POWER and memory < min(others) and time <= LINEAR_POWER
    figure = "powers of depth: " + "; ".join(
        f"{name} memory {m:.2f}, time {t:.2f}" for name, (m, t) in sorted(powers.items())
    )
    return evidence(holds, f"{figure} ({_where(group)})", [memory], group)


def freed_memory(store: Store) -> Evidence | Missing:
    """Claim 17."""
    rows = select(store, _MEASURED)
    best: dict[str, tuple[float, Row, Row]] = {}
    for axis in ("depth", "batch_size"):
        for group in _groups(rows, *(name for name in (*_ALIKE_COLUMNS, "depth") if name != axis)):
            stored, reversing = (_peaks(group, axis, name) for name in (STORE, REVERSE))
            for row in reversing:
                within = [s for s in stored if row["peak"] <= s["peak"]]
                if not within:
                    continue
                twin = min(within, key=lambda s: (s["peak"], s[axis]))
                factor = row[axis] / twin[axis]
                if axis not in best or factor > best[axis][0]:
                    best[axis] = factor, row, twin
    if not best:
        return Missing(needs="trials that store, and deeper or larger ones that reverse within their peak")
    told = []
    for axis, (factor, row, twin) in best.items():
        word = axis.replace("_size", "")
        told.append(
            f"{word} {row[axis]} reversed fits the peak of {word} {twin[axis]} stored "
            f"({bytes_text(row['peak'])} and {bytes_text(twin['peak'])}): {factor:.3g}×"
        )
    used = [side for _, row, twin in best.values() for side in (row, twin)]
    factors = [factor for factor, _, _ in best.values()]
    return evidence(max(factors) > 1, "; ".join(told), [max(factors)], used)


def _groups(rows: list[Row], *columns: str) -> list[list[Row]]:
    """Group the rows by `columns`; by default by everything but depth, strategy and seed.

    Returns:
        The groups. Those of the usual arithmetic, of wide networks and large batches come first, for only a
        few are told.
    """
    names = columns or _ALIKE_COLUMNS
    groups = group_by(rows, lambda r: tuple(map(r.get, names))).items()

    def place(item: tuple[tuple[Any, ...], list[Row]]) -> tuple[Any, ...]:
        key, (first, *_) = item
        arithmetic = precision_rank(precision_label(first))
        return arithmetic, -(first["width"] or 0), -(first["batch_size"] or 0), tuple(map(str, key))

    return [group for _, group in sorted(groups, key=place)]


def _peaks(rows: list[Row], axis: str, strategy: str) -> list[Row]:
    """One row for each depth or batch: seeds do not change a peak, so the first will do."""
    of_strategy = [r for r in _by_strategy(rows).get(strategy, []) if r["peak"]]
    return [group[0] for group in group_by(of_strategy, lambda r: r[axis]).values()]


def _slope(points: list[tuple[float, float]]) -> float | None:
    """Bytes per layer between the smallest and the largest depth, of least squares between them."""
    if len({x for x, _ in points}) < 2:
        return None
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def _power(x: list[float], y: list[float]) -> float | None:
    """The power of x that y grows with, of least squares over the points where both are positive."""
    return _slope([(math.log10(a), math.log10(b)) for a, b in zip(x, y, strict=True) if a > 0 and b > 0])


def _medians(rows: list[Row]) -> dict[str, float]:
    return {name: statistics.median(r["time"] for r in group) for name, group in _by_strategy(rows).items()}


def _by_strategy(rows: list[Row]) -> dict[str, list[Row]]:
    return group_by(rows, lambda r: r["strategy"])


def _where(rows: list[Row]) -> str:
    models = ", ".join(sorted({r["model"] for r in rows}))
    depths = sorted({r["depth"] for r in rows})
    batches = ", ".join(str(b) for b in sorted({r["batch_size"] for r in rows}))
    span = f"depth {depths[0]}" if len(depths) == 1 else f"depths {depths[0]} to {depths[-1]}"
    return f"{models} design, {span}, batch {batches}"


def _signed_bytes(value: float) -> str:
    return f"−{bytes_text(-value)}" if value <= -0.5 else bytes_text(max(0.0, value))


def _few(parts: list[str], most: int = 3) -> str:
    more = f"; and {len(parts) - most} further groups" if len(parts) > most else ""
    return "; ".join(parts[:most]) + more


CLAIMS = (
    Claim(
        number=3,
        name="memory independent of depth",
        statement="The activation memory of a RevNet does not grow with its depth.",
        source="Abstract; section 3.2, table 1",
        metric="growth per layer of reversing over storing",
        expected=f"at most {FLAT:g}; MemCNN has 85.6 MB at 38 and 85.7 MB at 110 layers",
        method="least-squares slope of activation bytes over depth, by strategy, all else equal",
        study="paper-memory",
        rule=flat_in_depth,
    ),
    Claim(
        number=5,
        name="cost in time",
        statement="Reversing costs one more forward pass; an update is 1.5 to 2 times as expensive at most.",
        source="Sections 3.2 and 5.1",
        metric="step time of reversing over storing",
        expected=f"at most {SLOWEST:g}; 1.33 by count of operations",
        method="the same network under both strategies on one machine; medians of steps; geometric mean",
        study="paper-cost",
        rule=step_time,
    ),
    Claim(
        number=6,
        name="constant memory at linear time",
        statement="Of storing, checkpointing, recursive checkpointing and reversing, reversing alone has "
        "memory O(1) at time O(L).",
        source="Table 1 (complexity), as extended by MemCNN",
        metric="power of depth in reversing's memory",
        expected=f"memory at most {FLAT_POWER:g} and below the others', time at most {LINEAR_POWER:g}",
        method="lines through log bytes and log step time over log of the layers",
        study="paper-cost",
        rule=complexity,
    ),
    Claim(
        number=17,
        name="freed memory buys depth or batch",
        statement="The memory that is saved can be spent on more layers or larger batches.",
        source="Introduction and section 6",
        metric="layers or batch that fit over those of storing",
        expected="above 1 at equal peak memory",
        method="deepest and largest reversing trials whose peak is within that of a stored trial",
        study="paper-memory",
        rule=freed_memory,
    ),
)
