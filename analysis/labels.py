"""Settings of a trial in the words that figures, filters and findings share."""

from __future__ import annotations

from analysis.stats import Row, finite


def precision_label(row: Row) -> str:
    """The arithmetic of a trial in a word or two: fp32, or ``bf16 on an fp32 stream, exact, tf32``."""
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
