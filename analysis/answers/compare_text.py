"""A comparison as people read it, in lines for a terminal and in words for the report."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from analysis.answers.compare import Change, Comparison, Effect, Side, compare
from analysis.errors import NotComparableError
from analysis.store.store import Store
from analysis.wording import (
    bytes_text,
    count_text,
    error_text,
    percent_text,
    points_text,
    ratio_text,
    seconds_text,
)

NAMES = {
    "accuracy_test": "test accuracy",
    "accuracy_val": "validation accuracy",
    "bits_per_byte_test": "test bits per byte",
    "bits_per_byte_val": "validation bits per byte",
    "loss_val": "validation loss",
    "memory_peak_bytes": "peak memory",
    "memory_activation_bytes": "activation memory",
    "step_time_s": "step time",
    "reconstruction_rel_error": "reconstruction error",
    "gradient_rel_error": "gradient error",
}


MOST_STUDIES = 4
"""Studies compared in a report: the latest ones, each with the one before it."""


def compare_studies(store: Store) -> list[dict[str, Any]]:
    """Return the comparisons of a store's latest studies, each with the one before, as the report shows them.

    Studies without a trial of their own, and pairs of studies that share nothing to compare, are left out.
    """
    rows = {name: store.trials_of(name) for name in store.studies}
    ends = {name: [r["finished_at"] for r in own if r["finished_at"]] for name, own in rows.items()}
    order = sorted((name for name in rows if ends[name]), key=lambda name: (max(ends[name]), name))
    found = []
    latest = order[-MOST_STUDIES:]
    for before, after in itertools.pairwise(latest):
        try:
            result = compare(rows[before], rows[after], names=(before, after))
        except NotComparableError:
            continue  # another task or data set: the page compares what can be compared
        if result.pairs:
            found.append(
                {
                    "a": side_text(result.a),
                    "b": side_text(result.b),
                    "pairing": pairing_text(result),
                    "settings": [
                        {"path": c.path, "a": values_text(c.a), "b": values_text(c.b), "changed": c.changed}
                        for c in result.settings
                    ],
                    "effects": [effect_cells(effect) for effect in result.effects],
                }
            )
    return found


def comparison_text(comparison: Comparison) -> str:
    """The comparison in lines: the sides, what changed, and what it did."""
    c = comparison
    lines = [f"A  {side_text(c.a)}", f"B  {side_text(c.b)}", "", pairing_text(c)]
    if c.settings:
        lines += ["", "Settings"]
        lines += [_change_line(change) for change in c.settings]
    if c.provenance:
        lines += ["", "Provenance"]
        lines += [_change_line(change) for change in c.provenance]
    if c.effects:
        lines += ["", "B against A"]
        rows = [("", "A", "B", "effect"), *(effect_cells(effect) for effect in c.effects)]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        for row in rows:
            cells = [row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]), row[3]]
            lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def side_text(side: Side) -> str:
    """A side's name, its trials and how they ended."""
    ended = ", ".join(f"{n} {outcome}" for outcome, n in side.outcomes)
    return _line(f"{side.name}: {count_text(side.trials, 'trial')}" + (f" ({ended})" if ended else ""))


def pairing_text(comparison: Comparison) -> str:
    """What was paired, and what was not."""
    c = comparison
    changed = [change.path for change in c.settings if change.changed]
    parts = []
    if c.pairs:
        what = _what(changed)
        parts.append(f"{count_text(c.pairs, 'pair')} of trials {what}")
    else:
        parts.append("No trial of one side has a counterpart on the other: nothing to compare")
    if c.shared:
        parts.append(f"{count_text(c.shared, 'trial')} the very same on both sides, in no pair")
    if c.unpaired_a or c.unpaired_b:
        parts.append(f"without a counterpart: {c.unpaired_a} of A, {c.unpaired_b} of B")
    return _line("; ".join(parts)) + "."


def _what(changed: Sequence[str]) -> str:
    """What sets the two trials of a pair apart. Of several settings no effect is that of one alone."""
    if not changed:
        return "of equal settings"
    if len(changed) == 1:
        return f"that differ in {changed[0]} alone"
    if len({path.partition(".")[0] for path in changed}) == 1:
        return f"that differ in {_listed(changed)}"
    return (
        f"that differ in {len(changed)} settings at once ({_listed(changed)}), so that no effect "
        "can be put down to one of them"
    )


def values_text(values: Sequence[str], *, at_most: int = 6) -> str:
    """The values of a setting in one line."""
    shown = ", ".join(map(_short, values[:at_most]))
    return _line(shown + (f" and {len(values) - at_most} more" if len(values) > at_most else ""))


def _short(value: str) -> str:
    """A value as people read it: numbers to four digits, long texts cut."""
    if len(value) > 8:
        try:
            return f"{float(value):.4g}"
        except ValueError:
            pass
    return value if len(value) <= 40 else value[:39] + "…"


def effect_cells(effect: Effect) -> tuple[str, str, str, str]:
    """Name, mean of A, mean of B, and the effect with interval and n."""
    if effect.kind == "ratio":
        text = ratio_text(effect.effect)
    elif effect.column.startswith("accuracy"):
        text = points_text(effect.effect)
    else:
        e = effect.effect
        interval = "too few for an interval"
        if e.low is not None and e.high is not None:
            interval = f"95 % interval {e.low:+.3f} to {e.high:+.3f}"
        text = f"{e.mean:+.3f} ({interval}, n = {e.n})"
    if effect.left_out:
        text += f"; {count_text(effect.left_out, 'pair')} not comparable"
    return NAMES[effect.column], _value(effect.column, effect.a), _value(effect.column, effect.b), text


def _value(column: str, value: float) -> str:
    if column.startswith("accuracy"):
        return percent_text(value)
    if column.endswith("_bytes"):
        return bytes_text(value)
    if column.endswith("_s"):
        return seconds_text(value)
    return error_text(value) if column.endswith("error") else f"{value:.3f}"


def _change_line(change: Change) -> str:
    mark = "*" if change.changed else " "
    return f"{mark} {_line(change.path)}: {values_text(change.a)}  →  {values_text(change.b)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
