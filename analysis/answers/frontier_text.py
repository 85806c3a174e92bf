"""The answer of a frontier in words and small tables, as `revstudy frontier` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.answers.law_text import number, table
from analysis.laws.frontier import Frontier, Pick
from analysis.wording import bytes_text

_UNITS = {"memory_bytes": "of memory", "operations": "operations"}


def frontier_text(found: Frontier) -> str:
    """Return the answer, what comes next, and where the answer changes."""
    lines = [
        f"Within {bytes_text(found.memory)} and {number(found.operations)} operations:",
        "",
        f"  {_words(found.best, found.unit)}",
        "",
        f"Loss to expect {found.best.loss:.4f} (90 % interval of one training {found.best.low:.4f} to "
        f"{found.best.high:.4f}).",
    ]
    if found.best.beyond > 1:
        lines.append(f"That is {found.best.beyond:.3g} times beyond the rows of the law.")
    if found.runner_up is None:
        lines.append("No other strategy fits.")
    else:
        more = found.runner_up.loss - found.best.loss
        lines.append(
            f"Next: {_words(found.runner_up, found.unit)}, loss {found.runner_up.loss:.4f} (+{more:.4f})."
        )
    rows = [
        [
            pick.candidate.strategy, str(pick.candidate.depth), f"{pick.candidate.width:g}",
            f"{pick.candidate.accumulate}", number(pick.candidate.parameters),
            bytes_text(pick.candidate.memory_bytes), number(pick.candidate.operations), number(pick.data),
            f"{pick.loss:.4f}", f"{pick.low:.4f} to {pick.high:.4f}",
        ]
        for pick in found.by_strategy
    ]  # fmt: skip
    head = ["strategy", "depth", "width", "parts", "parameters", "memory", f"operations/{found.unit[:-1]}"]
    lines += [
        "",
        "The best of each strategy:",
        "",
        *table([*head, found.unit, "loss", "90 % interval"], rows),
    ]
    changes = found.changes()
    lines += [
        "",
        "Where the strategy changes:" if changes else "No other budget nearby changes the strategy.",
    ]
    lines += [f"  {_change(change)}" for change in changes]
    return "\n".join(lines)


def _change(change: Mapping[str, Any]) -> str:
    at = change["at"]
    where = bytes_text(at) if change["along"] == "memory_bytes" else number(at)
    before = change["from"] or "nothing fits"
    after = change["to"] or "nothing fits"
    return f"at {where} {_UNITS[change['along']]}: {before} below, {after} above"


def _words(pick: Pick, unit: str) -> str:
    one = pick.candidate
    context = "" if one.context is None else f", context {one.context:,}"
    parts = "" if one.accumulate == 1 else f" in {one.accumulate} parts"
    stream = "" if one.stream_dtype == one.compute_dtype else f" on {one.stream_dtype} streams"
    return (
        f"{one.strategy}: {one.model} of depth {one.depth} and width {one.width:g} "
        f"({number(one.parameters)} parameters){context}, batch {one.batch:,}{parts}, "
        f"{one.compute_dtype}{stream}, {one.optimizer} with {one.optimizer_state} state, "
        f"on {number(pick.data)} {unit}, in {bytes_text(one.memory_bytes)}"
    )
