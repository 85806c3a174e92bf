"""Data parallelism: the same global batch on one worker and on two; equal gradients, throughput, and overlap.

    python benchmarks/scaling.py [--workers 1 2] [--batch 64] [--steps 12]

Workers are processes of `DistributedDataParallel` over gloo, one thread each. Gradients of the first step are
compared in float64 with those that one process computes from the same shares of the batch, averaged: with
batch norm every worker has the statistics of its own share, so that is what several workers should give.
Overlap is the share of the gradients' all-reduce that backpropagation hides: each step is timed with and
without communication in turn, and the all-reduce by itself.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import contend
from benchmarks.results_file import FOLDER, table, write
from benchmarks.subjects import SUBJECTS, Subject

LIMIT = 1e-10


def network(subject: Subject, dtype: torch.dtype) -> nn.Module:
    """The subject's reversing network on the same weights in every process."""
    torch.manual_seed(0)
    return contend("reverse", subject.build(dtype)).train()


def share(batch: tuple[Tensor, Tensor], rank: int, workers: int) -> tuple[Tensor, Tensor]:
    """One worker's part of the global batch."""
    size = len(batch[1]) // workers
    part = slice(rank * size, (rank + 1) * size)
    return batch[0][part], batch[1][part]


def right_gradient(subject: Subject, size: int, workers: int) -> Tensor:
    """What workers should agree on: the mean of the gradients of their shares, computed in one process."""
    model = network(subject, torch.float64)
    batch = subject.data(size, torch.float64)
    for rank in range(workers):
        inputs, targets = share(batch, rank, workers)
        (F.cross_entropy(model(inputs), targets) / workers).backward()
    return _flat(model)


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def work(rank: int, workers: int, name: str, size: int, steps: int, meet: str, out: str) -> None:
    """One worker: the gradient of the first step in float64, then times of steps in float32."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=workers)
    try:
        subject = SUBJECTS[name]
        exact = network(subject, torch.float64)
        parallel = nn.parallel.DistributedDataParallel(exact)
        inputs, targets = share(subject.data(size, torch.float64), rank, workers)
        F.cross_entropy(parallel(inputs), targets).backward()
        model = nn.parallel.DistributedDataParallel(network(subject, torch.float32))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        inputs, targets = share(subject.data(size), rank, workers)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

        times: dict[str, list[float]] = {"step": [], "alone": [], "reduce": []}
        for _ in range(steps):
            times["step"].append(_seconds(step))
            if workers > 1:
                flat = _flat(model)
                times["reduce"].append(_seconds(lambda flat=flat: dist.all_reduce(flat)))
                with model.no_sync():
                    times["alone"].append(_seconds(step))
                _equalize(model)
        if rank == 0:
            torch.save({"gradient": _flat(exact), "times": times}, out)
    finally:
        dist.destroy_process_group()


def _seconds(call: Callable[[], object]) -> float:
    """Of one call, which all workers begin together."""
    dist.barrier()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _equalize(model: nn.Module) -> None:
    """Give every worker rank 0's weights again: steps without communication part them."""
    for p in model.parameters():
        dist.broadcast(p.detach(), src=0)


def overlap(step: float, alone: float, reduce: float) -> float:
    """The share of the all-reduce that backpropagation hides, 0 to 1.

    Args:
        step: seconds of a step that averages its gradients.
        alone: of the same step without communication.
        reduce: of averaging all gradients with nothing beside it.

    Returns:
        The share; 0 where the step takes as long as both one after the other.

    """
    return min(1.0, max(0.0, 1 - (step - alone) / reduce))


def measure(name: str, workers: int, size: int, steps: int) -> dict[str, Any]:
    """One row: error of the gradient and seconds of a step, on so many workers."""
    with tempfile.TemporaryDirectory() as folder:
        meet, out = f"{folder}/meet", f"{folder}/out.pt"
        arguments = workers, name, size, steps, meet, out
        torch.multiprocessing.spawn(work, args=arguments, nprocs=workers)
        found = torch.load(out)
    right = right_gradient(SUBJECTS[name], size, workers)
    kept = {what: times[len(times) // 4 :] for what, times in found["times"].items()}
    median = {what: statistics.median(times) for what, times in kept.items() if times}
    return {
        "subject": name,
        "workers": workers,
        "batch": size,
        "gradient_rel_error": float((found["gradient"] - right).norm() / right.norm()),
        "step_time_s": median["step"],
        "examples_per_s": size / median["step"],
        "alone_time_s": median.get("alone"),
        "reduce_time_s": median.get("reduce"),
        "overlap": overlap(**median) if workers > 1 else None,
        "steps": len(kept["step"]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; exit code 1 if a gradient is off."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=["mlp64", "revnet110"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=32, help="over all workers")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--output", type=Path, default=FOLDER / "scaling.parquet")
    chosen = parser.parse_args(arguments)
    if any(chosen.batch % workers for workers in chosen.workers):
        parser.error(f"--batch must be a multiple of every number of workers; received {chosen.batch}")
    rows = [measure(s, w, chosen.batch, chosen.steps) for s in chosen.subjects for w in chosen.workers]
    one = {row["subject"]: row["examples_per_s"] for row in rows if row["workers"] == 1}
    lines = [
        [
            f"{row['subject']}, batch {row['batch']}",
            str(row["workers"]),
            f"{1e3 * row['step_time_s']:.1f}",
            f"{row['examples_per_s']:.1f}",
            f"{row['examples_per_s'] / one[row['subject']]:.2f}×" if row["subject"] in one else "",
            "" if row["overlap"] is None else f"{1e3 * row['reduce_time_s']:.1f}",
            "" if row["overlap"] is None else f"{100 * row['overlap']:.0f} %",
            f"{row['gradient_rel_error']:.1e}",
        ]
        for row in rows
    ]
    header = ["subject", "workers", "ms a step", "examples/s", "against one", "ms of all-reduce", "hidden"]
    print(table(lines, [*header, "gradient error"]))
    print(f"Figures: {write(chosen.output, rows)}")
    return int(any(not row["gradient_rel_error"] <= LIMIT for row in rows))


if __name__ == "__main__":
    sys.exit(main())
