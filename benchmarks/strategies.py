"""Every way to save memory on one chart: total peak, predicted and measured, and the time of a step.

    python benchmarks/strategies.py [--subjects lm12_256 revnet110] [--rounds 9] [--again]

For each subject, every eager contender of `benchmarks.contenders` but the peers. On a little network of the
subject's design gradients are compared with the stored twin's first, in float64; a contender that computes
something else ends the program. Then the peak of a whole step, with the optimizer's, is predicted on fake
tensors and measured; one byte of difference ends it too. Last, contenders take turns: a round times one
forward and backward pass of each, in an order that rotates, on one thread, by the processor's clock.
Weights are shared, so that one copy of them serves all.

A subject's rows are added to ``benchmarks/results/strategies.jsonl`` when all of them are there. Subjects
that have rows are left out unless ``--again`` is given, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import (
    WAYS,
    Entry,
    check,
    enter,
    gradient_errors,
    returned,
    small_of,
    turns,
)
from benchmarks.front import covered, placed, ratio
from benchmarks.results_file import FOLDER, circumstances, table
from benchmarks.subjects import SUBJECTS, Subject
from revmodels.errors import BudgetError
from revmodels.measure import peak_memory, predict_memory

DEFAULT_SUBJECTS = (
    "lm12_256",
    "revnet38",
    "revnet110",
    "lm12_2048",
    "lm24_256",
    "revnet218",
    "lm48_256",
)
ROUNDS, WARMUP = 9, 1
CHECKED = 2
"""Examples in the check of gradients, or 4 where batches are cut in four."""


def names_for(subject: Subject) -> list[str]:
    """The contenders that mean something on a subject."""
    return [
        name
        for name, way in WAYS.items()
        if way.predicts
        and (subject.twin is not None or not way.twin)
        and (way.parts == 1 or (subject.tokens and subject.timed_batch % way.parts == 0))
    ]


def memory_row(subject: Subject, entry: Entry, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
    """Bytes of a whole step, predicted and measured."""
    given = (batch, batch[1])
    predicted = predict_memory(entry.step, given, subject.optimizer, loss=returned)
    measured = peak_memory(entry.step, given, subject.optimizer, loss=returned)
    gc.collect()
    row = {
        "predicted_bytes": predicted.total_bytes,
        "measured_bytes": measured.total_bytes,
        "predicted_activation_bytes": predicted.activation_bytes,
        "measured_activation_bytes": measured.activation_bytes,
        "parameter_bytes": measured.parameter_bytes,
        "optimizer_bytes": measured.optimizer_bytes,
    }
    if not equal(row):
        raise SystemExit(f"{subject.name}, {entry.name}: predicted and measured bytes differ: {row}")
    if entry.budget_bytes is not None and measured.activation_bytes > entry.budget_bytes:
        raise SystemExit(
            f"{subject.name}, {entry.name}: {measured.activation_bytes:,} bytes measured within a budget "
            f"of {entry.budget_bytes:,}"
        )
    return row


def equal(row: dict[str, Any]) -> bool:
    """Whether prediction and measurement agree to the byte, in total and in activations."""
    return (row["predicted_bytes"], row["predicted_activation_bytes"]) == (
        row["measured_bytes"],
        row["measured_activation_bytes"],
    )


def times(entries: Sequence[Entry], batch: Any, rounds: int) -> dict[str, list[float]]:
    """Processor seconds of a forward and backward pass of each contender in each round."""
    by_name = {entry.name: entry for entry in entries}
    found: dict[str, list[float]] = {name: [] for name in by_name}
    for index, order in turns(list(by_name), rounds, WARMUP):
        for name in order:
            entry = by_name[name]
            for p in entry.parameters:
                p.grad = None
            gc.collect()
            gc.disable()
            began = time.process_time()
            entry.step(*batch).backward()
            spent = time.process_time() - began
            gc.enable()
            if index >= 0:
                found[name].append(spent)
    return found


def within_reach(subject: Subject, names: Sequence[str], size: int, dtype: torch.dtype) -> list[str]:
    """The names without those whose budget is below the least that the network needs, which are told."""
    batch, found = subject.data(size, dtype), []
    for name in names:
        if WAYS[name].level is not None:
            (entry,) = enter(subject, [name], dtype, batch=batch)
            try:
                predict_memory(entry.step, (batch, batch[1]), subject.optimizer, loss=returned)
            except BudgetError as error:
                told(f"{subject.name}: {name} is left out: {error}")
                continue
        found.append(name)
    return found


def measure(subject: Subject, names: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Check, predict, measure and time one subject; a row for each contender."""
    parts = max(WAYS[name].parts for name in names)
    checked = parts if parts > 1 else CHECKED
    names = within_reach(subject, names, subject.timed_batch, torch.float32)
    names = within_reach(small_of(subject), names, checked, torch.float64)
    errors = check(subject, names, checked)
    batch = subject.data(subject.timed_batch)
    entries = enter(subject, names, batch=batch)
    bytes_of = {entry.name: memory_row(subject, entry, batch) for entry in entries}
    told(f"{subject.name}: gradients and bytes are right")
    in_float32 = gradient_errors(entries, batch)
    found = times(entries, batch, rounds)
    rows = []
    for entry in entries:
        way = WAYS[entry.name]
        against = ratio(found[entry.name], found["store"])
        rows.append(
            {
                "subject": subject.name,
                "contender": entry.name,
                "batch": subject.timed_batch,
                "shape": list(subject.shape),
                "reverses": way.reverses,
                "twin": way.twin,
                "budget_bytes": entry.budget_bytes,
                **bytes_of[entry.name],
                "rounds": rounds,
                "step_s": statistics.median(found[entry.name]),
                "over_store": against[0],
                "over_store_low": against[1],
                "over_store_high": against[2],
                "times_s": found[entry.name],
                "gradient_rel_error": errors[entry.name],
                "gradient_rel_error_float32": in_float32[entry.name],
            }
        )
    return rows


def lines_of(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Of the printed table, the smallest first."""
    by_name = {row["contender"]: row for row in rows}
    return [
        [
            one.name,
            f"{one.bytes / 1e6:,.1f}",
            f"{by_name[one.name]['measured_activation_bytes'] / 1e6:,.1f}",
            f"{by_name[one.name]['over_store']:.3f} "
            f"({by_name[one.name]['over_store_low']:.3f} to {by_name[one.name]['over_store_high']:.3f})",
            one.beaten_by,
        ]
        for one in placed(rows)
    ]


def told(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows by subject, the last measurement of each."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        kept = found.setdefault(row["subject"], [])
        if kept and kept[0]["measured_at"] != row["measured_at"]:
            kept.clear()
        kept.append(row)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=list(DEFAULT_SUBJECTS))
    parser.add_argument("--contenders", nargs="+", choices=names_for(SUBJECTS["lm12_256"]))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--again", action="store_true", help="also measure what has rows")
    parser.add_argument("--output", type=Path, default=FOLDER / "strategies.jsonl")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1:
        parser.error(f"--rounds must be at least 1; received {chosen.rounds}")
    torch.set_num_threads(1)
    for name in chosen.subjects:
        subject = SUBJECTS[name]
        if not chosen.again and name in read(chosen.output):
            told(f"{name}: has rows")
            continue
        wanted = names_for(subject)
        if chosen.contenders:
            wanted = [w for w in wanted if w in ("store", "twin_store", *chosen.contenders)]
        around = circumstances()
        rows = [row | around for row in measure(subject, wanted, chosen.rounds)]
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        with chosen.output.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
        header = ["contender", "total, MB", "activations, MB", "time / storing's (95 %)", "beaten by"]
        print(f"{name}\n{table(lines_of(rows), header)}", flush=True)
        print(f"Covered: {covered(placed(rows)):.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
