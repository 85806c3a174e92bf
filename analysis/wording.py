"""Numbers and settings as people read them: MB, percent, powers of ten, intervals with n, precisions."""

from __future__ import annotations

import math

from analysis.stats import Estimate, Row, finite

MB = 1e6
"""Bytes in a megabyte, the unit of every memory axis."""


def bytes_text(value: float | None) -> str:
    """Bytes with three significant digits and a decimal unit: 1,234,567 is 1.23 MB."""
    if value is None or not math.isfinite(value):
        return "unknown"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= size:
            return f"{_three(value / size)} {unit}"
    return f"{value:,.0f} bytes"


def percent_text(value: float | None) -> str:
    """A fraction in percent with one decimal."""
    return "unknown" if value is None else f"{100 * value:.1f} %"


def factor_text(value: float) -> str:
    """A ratio with the digits that matter: 0.021×, 1.33×, 12.5×, 130×."""
    if 0 < abs(value) < 0.1:
        return f"{value:.2g}×"
    return f"{_three(value)}×"


def error_text(value: float) -> str:
    """A relative error in scientific notation; exactly zero says so, and so does one that is no number."""
    if not math.isfinite(value):
        return "not a finite number"
    return "exactly 0" if value == 0 else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+")


def seconds_text(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None or not math.isfinite(value):
        return "unknown"
    if value < 1:
        return f"{_three(1000 * value)} ms"
    if value < 120:
        return f"{_three(value)} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h"


def points_text(estimate: Estimate) -> str:
    """A difference of fractions in percentage points, with interval and n."""
    mean = f"{_points(estimate.mean)} points"
    if estimate.low is None or estimate.high is None:
        return f"{mean} (n = {estimate.n}, too few for an interval)"
    return f"{mean} (95 % interval {_points(estimate.low)} to {_points(estimate.high)}, n = {estimate.n})"


def ratio_text(estimate: Estimate) -> str:
    """A ratio with interval and n."""
    if estimate.low is None or estimate.high is None:
        return f"{factor_text(estimate.mean)} (n = {estimate.n}, too few for an interval)"
    low, high = factor_text(estimate.low), factor_text(estimate.high)
    return f"{factor_text(estimate.mean)} (95 % interval {low} to {high}, n = {estimate.n})"


def count_text(n: int, noun: str) -> str:
    """A count with its noun in the right number."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def precision_label(row: Row) -> str:
    """The arithmetic of a trial, and the rule of its coupling unless that is additive.

    Returns:
        For example ``fp32``, ``bf16 on fp32 stream, exact`` or ``fp32, momentum(gamma=0.9)``.
    """
    rule = row.get("coupling_rule")
    return ", ".join(filter(None, (arithmetic_label(row), rule)))


def arithmetic_label(row: Row) -> str:
    """The arithmetic of a trial in a word or two: fp32, or ``bf16 on fp32 stream, exact, tf32``."""
    compute = row["compute_dtype"] or "unknown"
    stream = row["stream_dtype"]
    label = compute if stream in (None, compute) else f"{compute} on {stream} stream"
    if row["coupling"] == "exact":
        label += ", exact"
    if row["matmul"] == "tf32":
        label += ", tf32"
    return label


def precision_rank(label: str) -> tuple[int, str]:
    """A sort key that puts the usual arithmetic first: fp64, fp32, bf16, fp16."""
    order = ("fp64", "fp32", "bf16", "fp16")
    start = label.split()[0].rstrip(",")
    return (order.index(start) if start in order else len(order), label)


def width_text(row: Row) -> str:
    """The width multiplier as people write it: 1, 0.5."""
    return f"{row['width']:g}" if finite(row["width"]) else "unknown"


def shape_text(row: Row, join: str = ", ") -> str:
    """Depth and width of a trial's network, as far as they are known."""
    parts = [f"depth {row['depth']}"] if finite(row["depth"]) else []
    return join.join([*parts, *([f"width {row['width']:g}"] if finite(row["width"]) else [])])


def joined(*words: str | None) -> str:
    """Words with points between them, without those that are missing."""
    return " · ".join(filter(None, words))


def _points(fraction: float) -> str:
    text = f"{100 * fraction:+.2f}"
    return "0.00" if float(text) == 0 else text


def _three(value: float) -> str:
    magnitude = abs(value)
    digits = 0 if magnitude >= 99.95 else 1 if magnitude >= 9.995 else 2
    return f"{value:,.{digits}f}"
