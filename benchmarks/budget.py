"""What a memory budget costs: steps within two budgets against storing and checkpointing, in turns.

    python benchmarks/budget.py [--subjects revnet110 lm12] [--rounds 9]

Every contender has the same weights and batch, and all live in one process with one thread. In a round each
takes one step, and the order rotates, so that whatever else the machine does falls on all. What counts is
processor time; figures are medians of the ratios within rounds, and the measured bytes of activations and
temporaries at the peak. A budget is a number of bytes: for ``revnet110`` those of checkpointing and half of
storing's, for a language model of twelve equal blocks those of checkpointing and 60 % of them. Rows are added
to ``benchmarks/results/budget.jsonl``.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.price import LanguageModel, revnet110
from benchmarks.results_file import FOLDER, circumstances
from revmodels import ReversibleSequence
from revmodels.measure import peak_memory, predict_memory
from revmodels.strategies.budget_plan import plan_memory


def lm12() -> tuple[nn.Module, Tensor, Tensor]:
    """Twelve blocks of 256 features on 8 sequences of 256 bytes."""
    return LanguageModel(256), torch.randint(256, (8, 256)), torch.randint(256, (8, 256))


SUBJECTS = {"revnet110": revnet110, "lm12": lm12}
SHARES = {
    "revnet110": (("checkpoint", 1.0), ("store", 0.5)),
    "lm12": (("checkpoint", 1.0), ("checkpoint", 0.6)),
}
"""The budgets of each subject, as shares of what a strategy takes."""


def body_of(model: nn.Module) -> ReversibleSequence:
    """Its only reversible sequence."""
    return next(m for m in model.modules() if isinstance(m, ReversibleSequence))


def contenders(name: str) -> tuple[dict[str, tuple[nn.Module, int]], tuple[Tensor, Tensor]]:
    """Networks with the peak of a step each, measured, and their batch."""

    def made(strategy: str, budget: int | None = None) -> nn.Module:
        torch.manual_seed(0)
        model, *_ = SUBJECTS[name]()
        body_of(model).strategy, body_of(model).memory_budget_bytes = strategy, budget
        return model

    torch.manual_seed(0)
    _, inputs, targets = SUBJECTS[name]()
    batch = inputs, targets
    models = {strategy: made(strategy) for strategy in ("store", "checkpoint", "reverse")}
    for strategy, share in SHARES[name]:
        budget = int(share * predict_memory(models[strategy], batch).activation_bytes)
        model = made("budget", budget)
        began = time.process_time()
        plan = plan_memory(model, inputs)
        print(f"{name}, planned in {time.process_time() - began:.1f} s of processor time: {plan}", flush=True)
        models[f"budget {share:.0%} of {strategy}"] = model
    found = {}
    for key, model in models.items():
        peak, limit = peak_memory(model, batch).activation_bytes, body_of(model).memory_budget_bytes
        if limit is not None and peak > limit:
            raise SystemExit(f"{name}, {key}: {peak:,} bytes measured within a budget of {limit:,}")
        found[key] = model, peak
    return found, batch


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each contender."""
    found, (inputs, targets) = contenders(name)
    times: list[dict[str, float]] = []
    for index in range(-1, rounds):
        turn = {}
        names = list(found)
        for place in range(len(names)):
            key = names[(place + index) % len(names)]
            model = found[key][0]
            for p in model.parameters():
                p.grad = None
            gc.collect()
            gc.disable()
            began = time.process_time()
            F.cross_entropy(model(inputs), targets).backward()
            turn[key] = time.process_time() - began
            gc.enable()
        if index >= 0:
            times.append(turn)
    return [
        {
            "subject": name,
            "contender": key,
            "peak_bytes": peak,
            "rounds": rounds,
            "step_s": statistics.median(t[key] for t in times),
            "fastest_s": min(t[key] for t in times),
            **{
                f"over_{base}": statistics.median(t[key] / t[base] for t in times)
                for base in ("store", "checkpoint")
            },
            "times_s": [t[key] for t in times],
        }
        for key, (_, peak) in found.items()
    ]


def main() -> int:
    """Measure, print and write."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--to", type=Path, default=FOLDER / "budget.jsonl")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.subjects:
        for row in measure(name, chosen.rounds):
            print(
                f"{name}, {row['contender']}: {row['over_store']:.3f} of storing's time, "
                f"{row['over_checkpoint']:.3f} of checkpointing's, {row['peak_bytes']:,} bytes",
                flush=True,
            )
            with chosen.to.open("a") as file:
                file.write(json.dumps(row | circumstances()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
