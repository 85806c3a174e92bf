"""What exact coupling costs against additive coupling: step time and activation memory, side by side.

Both networks live in one process and take turns, step by step, so that whatever else the machine does falls
on both; the figure is the median of the ratios of neighboring steps, with a bootstrap interval. On a CPU with
one thread the clock is that of the process, which stands still while others have the processor. The memory is
that of one training step, from `revmodels.measure`; and, for the streams alone, the bytes that the forward
pass of the reversible units leaves behind. Every step is in the Parquet file.

    python benchmarks/precision_cost.py --depths 38 --compute bf16
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results_file import FOLDER, table, write
from revmodels import Precision, create_model
from revmodels.measure import peak_memory

WARMUP_STEPS = 2


def build(arguments: argparse.Namespace, depth: int, precision: Precision) -> nn.Module:
    """A network of equal weights for either coupling."""
    torch.manual_seed(0)
    model = create_model(
        arguments.model, num_classes=10, depth=depth, width=arguments.width, precision=precision
    )
    return model.to(arguments.device, memory_format=torch.channels_last)


def step_time_s(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[torch.Tensor, torch.Tensor]
) -> float:
    """Seconds of one training step, to the end of the device's work."""
    clock = time.process_time if _alone(batch[0]) else time.perf_counter
    began = clock()
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()
    if batch[0].is_cuda:
        torch.cuda.synchronize()
    return clock() - began


def _alone(images: torch.Tensor) -> bool:
    """Whether all work of a step is done by this process' one thread."""
    return not images.is_cuda and torch.get_num_threads() == 1


def kept_bytes(model: nn.Module, images: torch.Tensor) -> int:
    """Bytes that the units save for the backward pass, each storage once."""
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage()._cdata] = t.untyped_storage().nbytes()
        return t

    stream = model.start(images).detach().requires_grad_(True)  # type: ignore[operator]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = model.transform(stream)  # type: ignore[operator]
    size = sum(kept.values())
    out.sum().backward()
    return size


def compared(arguments: argparse.Namespace, depth: int, compute: str, stream: str) -> list[dict[str, Any]]:
    """A row for each coupling: bytes, and the time of every step; steps of equal place are neighbors."""
    shape = (arguments.batch, 3, arguments.size, arguments.size)
    dtype = torch.float64 if compute == "fp64" else torch.float32
    images = torch.randn(shape, dtype=dtype, device=arguments.device).to(memory_format=torch.channels_last)
    batch = images, torch.randint(10, (arguments.batch,), device=arguments.device)
    models = {
        coupling: build(arguments, depth, Precision(compute=compute, stream=stream, coupling=coupling))
        for coupling in ("additive", "exact")
    }
    optimizers = {name: torch.optim.SGD(m.parameters(), 0.01, momentum=0.9) for name, m in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for i in range(-WARMUP_STEPS, arguments.steps):
        for name in list(models) if i % 2 else list(reversed(models)):
            seconds = step_time_s(models[name], optimizers[name], batch)
            if i >= 0:
                times[name].append(seconds)
    return [
        {
            "model": arguments.model,
            "depth": depth,
            "width": arguments.width,
            "batch": arguments.batch,
            "size": arguments.size,
            "compute": compute,
            "stream": stream,
            "coupling": name,
            "step_times_s": times[name],
            "clock": "process" if _alone(batch[0]) else "wall",
            "memory_activation_bytes": peak_memory(model, batch, optimizers[name]).activation_bytes,
            "kept_bytes": kept_bytes(model, images),
        }
        for name, model in models.items()
    ]


def shown(pair: list[dict[str, Any]]) -> list[str]:
    """A line of the table: exact over additive."""
    additive, exact = pair
    ratios = np.array(exact["step_times_s"]) / np.array(additive["step_times_s"])
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return [
        f"{additive['model']}, depth {additive['depth']}",
        f"{additive['compute']} on {additive['stream']}",
        *(f"{1000 * statistics.median(row['step_times_s']):.1f}" for row in pair),
        f"{np.median(ratios):.3f} ({low:.3f} to {high:.3f}, n = {len(ratios)})",
        f"{exact['kept_bytes'] / additive['kept_bytes']:.3f}",
        f"{exact['memory_activation_bytes'] / additive['memory_activation_bytes']:.3f}",
    ]


def main() -> None:
    """Measure, print, and write one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="revnet38")
    parser.add_argument("--depths", nargs="+", type=int, default=[38, 110])
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--compute", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--stream", default="fp32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=FOLDER / "precision_cost.parquet")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    rows, lines = [], []
    for depth in arguments.depths:
        for compute in arguments.compute:
            pair = compared(arguments, depth, compute, arguments.stream)
            rows += pair
            lines.append(shown(pair))
    header = [
        "network",
        "arithmetic",
        "additive, ms",
        "exact, ms",
        "time, exact / additive",
        "streams",
        "peak",
    ]
    print(table(lines, header))
    print(f"written: {write(arguments.out, rows, device=arguments.device)}")


if __name__ == "__main__":
    main()
