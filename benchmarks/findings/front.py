"""Which ways of saving memory are worth using: the front of total peak and time, and what beats the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.findings.rows import Rows, megabytes
from benchmarks.front import Placed, covered, placed
from benchmarks.results_file import table
from benchmarks.strategies import read

FILE = "strategies.jsonl"


def front(rows: Rows) -> list[str]:
    """The front of every network, and what it covers without reversing and without budgets."""
    subjects = read(rows.folder / FILE)
    if not subjects:
        return ["Not measured yet: `python benchmarks/strategies.py`."]
    found = [r for of_one in subjects.values() for r in of_one]
    equal = sum(r["predicted_bytes"] == r["measured_bytes"] for r in found)
    lines = [
        "Each network was trained for a step by each strategy and combination, on one thread. Predicted "
        f"and measured bytes are equal in {equal} of {len(found)} cases. Below is what nothing else beats "
        "in both total peak and time, the smallest first.",
        "",
        "The total is everything of a step: weights, gradients, optimizer state and activations. Times "
        "are processor time over that of storing the same network, medians within rounds with a 95 % "
        "bootstrap interval. `twin_*` is the conventional network of equal parameters, `checkpoint_torch` "
        "PyTorch's own checkpoint as users write it, `*_parts4` the batch in four parts, `budget_*` this "
        "package within the bytes of the strategy named.",
    ]
    for name, of_one in subjects.items():
        lines += ["", f"### {_title(name, of_one)}", "", *_subject(of_one)]
    return [*lines, "", *_coverage(subjects), "", *_circumstances(found)]


def _title(name: str, rows: Sequence[dict[str, Any]]) -> str:
    first = rows[0]
    if not name.startswith("lm"):
        return f"`{name}`, {first['batch']} images of {first['shape'][-1]} x {first['shape'][-1]}"
    blocks = name.removeprefix("lm").split("_")[0]
    return f"`revgpt` of {blocks} blocks, {first['batch']} rows of {first['shape'][0]:,} tokens"


def _subject(rows: Sequence[dict[str, Any]]) -> list[str]:
    by_name = {r["contender"]: r for r in rows}
    ways = placed(rows)
    best = [
        [
            one.name,
            megabytes(one.bytes),
            megabytes(by_name[one.name]["measured_activation_bytes"]),
            _interval(by_name[one.name]),
        ]
        for one in ways
        if not one.beaten_by
    ]
    beaten: dict[str, list[str]] = {}
    for one in ways:
        if one.beaten_by:
            r = by_name[one.name]
            told = f"{one.name} ({megabytes(one.bytes)}, {r['over_store']:.2f})"
            beaten.setdefault(one.beaten_by, []).append(told)
    return [
        table(best, ["strategy", "total peak", "activations", "time / storing's"]),
        "",
        *(f"- `{by}` beats {', '.join(names)}." for by, names in beaten.items()),
    ]


def _interval(row: dict[str, Any]) -> str:
    return f"{row['over_store']:.2f} ({row['over_store_low']:.2f} to {row['over_store_high']:.2f})"


def _coverage(subjects: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Hypervolumes of the network itself: another network, the twin, is another question."""
    kept: dict[str, Callable[[dict[str, Any]], bool]] = {
        "all": lambda r: True,
        "without `budget`": lambda r: r["budget_bytes"] is None,
        "without `budget` and reversing": lambda r: not r["reverses"],
    }
    lines = []
    for name, rows in subjects.items():
        own = [r for r in rows if not r["twin"]]
        lines.append([name, *(f"{covered(_ways(own, keep)):.3f}" for keep in kept.values())])
    return [
        "How much of the rectangle between nothing and storing's bytes, and between no time and twice "
        "storing's, each front covers (hypervolume; more is better), twins left out:",
        "",
        table(lines, ["network", *kept]),
    ]


def _ways(rows: Sequence[dict[str, Any]], keep: Callable[[dict[str, Any]], bool]) -> list[Placed]:
    return placed([r for r in rows if keep(r)])


def _circumstances(rows: Sequence[dict[str, Any]]) -> list[str]:
    places = dict.fromkeys(
        f"{r['device']}, one thread, PyTorch {r['torch_version']}, {r['rounds']} rounds, "
        f"{r['measured_at'][:10]}"
        for r in rows
    )
    return [f"*{'; '.join(places)}.*"]
