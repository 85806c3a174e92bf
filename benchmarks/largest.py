"""The deepest network and the largest batch that fit in a memory budget, for each strategy.

    python benchmarks/largest.py                        # budget: what a stored resnet110 needs at batch 128
    python benchmarks/largest.py --budget-mb 500 --step # and run one training step of the deepest for real

Depths are found on fake tensors (`revmodels.measure.predict_memory`): memory is affine in units and in
examples, so two predictions give a guess, and further ones settle which is the last that fits. With
``--step`` the deepest reversible network runs one real training step, and the measured peak stands beside the
prediction.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results_file import FOLDER, table, write
from revmodels import create_model
from revmodels.measure import peak_memory, predict_memory

RESNET, REVNET = "resnet110", "revnet110"
STRATEGIES = ((RESNET, "store"), (REVNET, "store"), (REVNET, "checkpoint"), (REVNET, "reverse"))


def needed_bytes(model: str, depth: int, strategy: str, batch: int, width: float, size: int) -> int:
    """Predicted peak of a training step with SGD and momentum."""
    images = torch.empty(batch, 3, size, size, device="meta")
    targets = torch.empty(batch, dtype=torch.long, device="meta")
    use = predict_memory(
        lambda: create_model(model, num_classes=10, depth=depth, strategy=strategy, width=width),
        (images, targets),
    )
    return use.total_bytes


def last_that_fits(needs: Callable[[int], int], budget: int, first: int, step: int) -> int | None:
    """The largest of first, first + step, ... whose need is within the budget; None if not even the first.

    `needs` is taken to grow, and nearly by the same amount each step.

    Returns:
        The number that fits, or None.
    """
    known = {0: needs(first)}
    if known[0] > budget:
        return None

    def need(index: int) -> int:
        if index not in known:
            known[index] = needs(first + index * step)
        return known[index]

    low, high = 0, 0  # low fits; high, once above low, does not
    guess = 4
    while high <= low or high - low > 1:
        if need(guess) <= budget:
            low = guess
        else:
            high = guess
        slope = max(1.0, (need(guess) - known[0]) / guess)
        aim = int((budget - known[0]) / slope)
        guess = min(max(aim, low + 1), high - 1) if high > low else max(aim + 1, low + 1)
    return first + low * step


def deepest(model: str, strategy: str, budget: int, batch: int, width: float, size: int) -> int | None:
    """Of the depths that the design can have."""
    first = 2 + 6 * (2 if model == REVNET else 1)
    step = 12 if model == REVNET else 6

    def needs(depth: int) -> int:
        return needed_bytes(model, depth, strategy, batch, width, size)

    return last_that_fits(needs, budget, first, step)


def largest_batch(model: str, strategy: str, budget: int, width: float, size: int) -> int | None:
    """At depth 110."""

    def needs(batch: int) -> int:
        return needed_bytes(model, 110, strategy, batch, width, size)

    return last_that_fits(needs, budget, 2, 1)


def real_step(depth: int, batch: int, width: float, size: int) -> dict[str, Any]:
    """Run one training step of a reversible network, and measure it.

    Returns:
        The bytes measured at the peak, the norm of the gradient, and the seconds of the step.

    Raises:
        ValueError: the loss or a gradient is not finite.

    """
    torch.manual_seed(0)
    model = create_model(REVNET, num_classes=10, depth=depth, width=width)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    targets = torch.arange(batch) % 10
    norms = []

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        made = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
        made.register_step_pre_hook(lambda *_: norms.append(_gradient_norm(model)))
        return made

    began = time.perf_counter()
    use = peak_memory(model, (images, targets), optimizer)
    if not (norms and torch.isfinite(torch.tensor(norms[0])) and norms[0] > 0):
        raise ValueError(f"the gradients of a step at depth {depth} are not finite: norm {norms}")
    return {
        "measured_bytes": use.total_bytes,
        "gradient_norm": norms[0],
        "step_s": time.perf_counter() - began,
    }


def _gradient_norm(model: torch.nn.Module) -> float:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, print and write; exit code 1 if the real step took more than the budget."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget-mb", type=float, help=f"default: a stored {RESNET} at --batch")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=32, help="pixels along a side")
    parser.add_argument("--step", action="store_true", help="run a training step of the deepest for real")
    parser.add_argument("--output", type=Path, default=FOLDER / "largest.parquet")
    chosen = parser.parse_args(arguments)
    around = chosen.batch, chosen.width, chosen.size
    if chosen.budget_mb:
        budget = int(chosen.budget_mb * 1e6)
    else:
        budget = needed_bytes(RESNET, 110, "store", *around)
    rows, lines = [], []
    for model, strategy in STRATEGIES:
        depth = deepest(model, strategy, budget, *around)
        batch = largest_batch(model, strategy, budget, chosen.width, chosen.size)
        print(f"{model} {strategy}: depth {depth}, batch {batch}", file=sys.stderr)
        row = {
            "model": model,
            "strategy": strategy,
            "budget_bytes": budget,
            "batch": chosen.batch,
            "width": chosen.width,
            "deepest": depth,
            "largest_batch_at_110": batch,
            "predicted_bytes": None if depth is None else needed_bytes(model, depth, strategy, *around),
            "measured_bytes": None,
            "gradient_norm": None,
            "step_s": None,
        }
        if chosen.step and depth is not None and (model, strategy) == (REVNET, "reverse"):
            row |= real_step(depth, *around)
        rows.append(row)
    for row in rows:
        fits = [row["deepest"], row["largest_batch_at_110"]]
        factor = (
            f"{row['deepest'] / rows[0]['deepest']:.1f}×" if row["deepest"] and rows[0]["deepest"] else ""
        )
        measured = "" if row["measured_bytes"] is None else f"{row['measured_bytes'] / 1e6:,.1f} MB"
        measured += "" if row["step_s"] is None else f", {row['step_s']:.0f} s"
        cells = ["none" if value is None else f"{value:,}" for value in fits]
        lines.append([row["model"], row["strategy"], cells[0], factor, cells[1], measured])
    print(f"Budget {budget / 1e6:,.1f} MB, batch {chosen.batch} for the depth, depth 110 for the batch.")
    header = [
        "network",
        "strategy",
        "deepest",
        "against the first",
        "largest batch",
        "real step of the deepest",
    ]
    print(table(lines, header))
    print(f"Figures: {write(chosen.output, rows)}")
    return int(any((row["measured_bytes"] or 0) > budget for row in rows))


if __name__ == "__main__":
    sys.exit(main())
