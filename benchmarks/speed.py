"""Time of a training step: reversing against memcnn, RevTorch, checkpointing and storing.

    python benchmarks/speed.py [--subjects revnet110 revnet164 mlp64] [--rounds 25] [--threads 2]
    python benchmarks/speed.py --subjects mlp64 --contenders reverse compile compile_reverse

All contenders live in one process with the same weights and the same batch. Gradients are compared with the
stored twin's first, in float64; a contender that computes something else ends the benchmark. Then they take
turns: a round times one forward and backward pass of each, in an order that rotates from round to round, so
that whatever else the machine does falls on all. Figures are medians over rounds, and medians of the ratios
within a round with a 95 % bootstrap interval. Every time is a row of the Parquet file.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import front
from benchmarks.contenders import EAGER, NAMES, Entry, backward, check, enter, turns
from benchmarks.results_file import FOLDER, table, write
from benchmarks.subjects import SUBJECTS, Subject

TARGETS = {"memcnn": 0.72, "revtorch": 0.90, "checkpoint": 0.95, "store": None}
"""What the step time of reversing should be at most, as a share of each other contender's."""
DEFAULT_SUBJECTS = ("revnet110", "revnet164", "mlp64")
WARMUP_ROUNDS = 2


def rounds_of(entries: Sequence[Entry], batch: Any, rounds: int) -> list[dict[str, float]]:
    """Seconds of each contender in each round, after warm-up."""
    found = []
    by_name = {entry.name: entry for entry in entries}
    for index, order in turns(list(by_name), rounds, WARMUP_ROUNDS):
        times = {}
        for name in order:
            entry = by_name[name]
            gc.collect()
            gc.disable()
            began = time.perf_counter()
            backward(entry, batch)
            times[entry.name] = time.perf_counter() - began
            gc.enable()
            for p in entry.parameters:
                p.grad = None
        if index >= 0:
            found.append(times)
    return found


def ratio(times: Sequence[dict[str, float]], over: str) -> tuple[float, float, float]:
    """Median over rounds of reversing's time over another's, with a 95 % bootstrap interval."""
    return front.ratio([t["reverse"] for t in times], [t[over] for t in times])


def measure(subject: Subject, names: Sequence[str], rounds: int, batch_size: int | None) -> dict[str, Any]:
    """Check, then time one subject."""
    size = batch_size or subject.timed_batch
    errors = check(subject, names, min(size, 8))
    entries, batch = enter(subject, names), subject.data(size)
    return {"batch": size, "errors": errors, "times": rounds_of(entries, batch, rounds)}


def summary(subject: str, result: dict[str, Any]) -> list[list[str]]:
    """Lines of the printed table."""
    lines = []
    for name in result["errors"]:
        times = [1e3 * t[name] for t in result["times"]]
        low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
        share = target = ""
        if name != "reverse" and "reverse" in result["errors"]:
            median, lower, upper = ratio(result["times"], name)
            share = f"{median:.3f} ({lower:.3f} to {upper:.3f})"
            limit = TARGETS.get(name)
            target = "" if limit is None else f"≤ {limit:.2f}: {'met' if median <= limit else 'missed'}"
        lines.append(
            [
                f"{subject}, batch {result['batch']}",
                name,
                f"{middle:.1f} ({low:.1f} to {high:.1f})",
                share,
                target,
                f"{result['errors'][name]:.1e}",
            ]
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=list(DEFAULT_SUBJECTS))
    parser.add_argument("--contenders", nargs="+", choices=NAMES, default=list(EAGER))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--batch", type=int, help="instead of each subject's own")
    parser.add_argument("--threads", type=int, help="instead of PyTorch's choice")
    parser.add_argument("--output", type=Path, default=FOLDER / "speed.parquet")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1:
        parser.error(f"--rounds must be at least 1; received {chosen.rounds}")
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    names = list(dict.fromkeys(["store", *chosen.contenders]))
    rows, lines = [], []
    for name in chosen.subjects:
        result = measure(SUBJECTS[name], names, chosen.rounds, chosen.batch)
        lines += summary(name, result)
        for index, times in enumerate(result["times"]):
            for contender, seconds in times.items():
                rows.append(
                    {
                        "subject": name,
                        "contender": contender,
                        "batch": result["batch"],
                        "round": index,
                        "time_s": seconds,
                        "gradient_rel_error": result["errors"][contender],
                    }
                )
        print(
            f"{name}: {statistics.median(t['store'] for t in result['times']):.3f} s stored", file=sys.stderr
        )
    header = ["subject", "contender", "ms (quartiles)", "reverse / it (95 %)", "target", "gradient error"]
    print(table(lines, header))
    if chosen.rounds < 15:
        print(f"{chosen.rounds} rounds: a look, not a measurement; 15 or more count.")
    print(f"Times: {write(chosen.output, rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
