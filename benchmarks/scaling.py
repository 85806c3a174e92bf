"""Data parallelism: the same global batch on one worker and on two; equal gradients, and throughput.

    python benchmarks/scaling.py [--workers 1 2] [--batch 64] [--steps 12]

Workers are processes of `DistributedDataParallel` over gloo, one thread each. Gradients of the first step are
compared in float64 with those that one process computes from the same shares of the batch, averaged: with
batch norm every worker has the statistics of its own share, so that is what several workers should give.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import SUBJECTS, Subject, contend
from benchmarks.results_file import FOLDER, table, write

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
        times = []
        for _ in range(steps):
            dist.barrier()
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            times.append(time.perf_counter() - began)
        if rank == 0:
            torch.save({"gradient": _flat(exact), "times": times}, out)
    finally:
        dist.destroy_process_group()


def measure(name: str, workers: int, size: int, steps: int) -> dict[str, Any]:
    """One row: error of the gradient and seconds of a step, on so many workers."""
    with tempfile.TemporaryDirectory() as folder:
        meet, out = f"{folder}/meet", f"{folder}/out.pt"
        arguments = workers, name, size, steps, meet, out
        torch.multiprocessing.spawn(work, args=arguments, nprocs=workers)
        found = torch.load(out)
    right = right_gradient(SUBJECTS[name], size, workers)
    kept = found["times"][len(found["times"]) // 4 :]
    return {
        "subject": name,
        "workers": workers,
        "batch": size,
        "gradient_rel_error": float((found["gradient"] - right).norm() / right.norm()),
        "step_time_s": statistics.median(kept),
        "examples_per_s": size / statistics.median(kept),
        "steps": len(kept),
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
            f"{row['gradient_rel_error']:.1e}",
        ]
        for row in rows
    ]
    print(table(lines, ["subject", "workers", "ms a step", "examples/s", "against one", "gradient error"]))
    print(f"Figures: {write(chosen.output, rows)}")
    return int(any(not row["gradient_rel_error"] <= LIMIT for row in rows))


if __name__ == "__main__":
    sys.exit(main())
