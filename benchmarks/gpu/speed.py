"""Time of a training step of each strategy on the device, eager and compiled.

    python benchmarks/gpu/speed.py --out DIR

Eager strategies of a network take turns, step by step, and so do the compiled ones; gradients are compared
with the stored twin's before anything is timed. Lines go to ``speed.jsonl``, one for each network, strategy
and way of running it, with the median and the quartiles of the rounds. Eager steps are also trials of
``DIR/store``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.gpu.common import Deadline, Lines, device_name, ended, parser, planned, run_trials
from benchmarks.gpu.conformance import error, gradients
from benchmarks.gpu.memory import point
from benchmarks.gpu.memory import told as told_memory
from revmodels import Precision, create_model
from study.train.build import matmul_precision

STRATEGIES = ("store", "reverse", "checkpoint")
ROUNDS, WARMUP = 30, 5
TOLERANCE = 5e-2
"""Of all gradients together in float32: rounding alone moves those of deep networks by 1e-2."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network and its batch."""

    model: str
    batch: int
    size: int
    classes: int = 10
    depth: int | None = None


SUBJECTS = (
    Subject(model="revnet110", batch=128, size=32),
    Subject(model="revnet164", batch=128, size=32),
    Subject(model="revnet104", batch=64, size=224, classes=1000),
)
TINY = (Subject(model="revnet38", batch=2, size=8, depth=26),)


def build(subject: Subject, strategy: str, device: str) -> nn.Module:
    """The network with equal weights for every strategy."""
    torch.manual_seed(0)
    model = create_model(
        subject.model,
        num_classes=subject.classes,
        depth=subject.depth,
        strategy=strategy,
        precision=Precision(matmul="tf32"),
    )
    return model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def examples(subject: Subject, device: str) -> tuple[Tensor, Tensor]:
    """A batch of noise."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(subject.batch, 3, subject.size, subject.size, generator=generator).to(device)
    targets = (torch.arange(subject.batch) % subject.classes).to(device)
    return images.contiguous(memory_format=torch.channels_last), targets


def seconds(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """One forward and backward pass, to the end of the device's work."""
    began = time.perf_counter()
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    if batch[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(subject: Subject, way: str, device: str, rounds: int, note: Callable[[dict], None]) -> None:
    """Time every strategy of a network, eager or compiled, and note a line for each."""
    batch = examples(subject, device)
    models, errors = {}, {}
    with matmul_precision("ieee"):
        right = gradients(build(subject, "store", device), batch)
        for strategy in STRATEGIES:
            errors[strategy] = error(gradients(build(subject, strategy, device), batch), right)
    lines = {
        s: {"subject": subject.model, "strategy": s, "way": way, "batch": subject.batch} for s in STRATEGIES
    }
    with matmul_precision("tf32"):
        for strategy in STRATEGIES:
            model = build(subject, strategy, device)
            try:
                if way == "compiled":
                    torch._dynamo.reset()
                    model = torch.compile(model, fullgraph=True)  # type: ignore[assignment]
                for _ in range(2):
                    seconds(model, batch)
            except Exception as problem:
                note(
                    lines[strategy]
                    | {"outcome": "failed", "detail": f"{type(problem).__name__}: {problem}"[:500]}
                )
                continue
            models[strategy] = model
        times: dict[str, list[float]] = {strategy: [] for strategy in models}
        names = list(models)
        for index in range(-WARMUP, rounds):
            for place in range(len(names)):
                name = names[(place + index) % len(names)]
                spent = seconds(models[name], batch)
                if index >= 0:
                    times[name].append(spent)
    for name, found in times.items():
        quartiles = statistics.quantiles(found, n=4) if len(found) > 1 else [found[0]] * 3
        against = statistics.median(a / b for a, b in zip(found, times.get("store", found), strict=True))
        peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
        line = lines[name] | {"outcome": "ok" if errors[name] <= TOLERANCE else "wrong gradients"}
        note(
            line
            | {
                "step_time_s": quartiles[1],
                "low_s": quartiles[0],
                "high_s": quartiles[2],
                "rounds": len(found),
            }
            | {"against_store": against, "gradient_rel_error": errors[name], "process_peak_bytes": peak}
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; exit code 1 if gradients were wrong or a way failed, 3 if some is left."""
    made = parser(__doc__ or "")
    made.add_argument("--ways", nargs="+", choices=("eager", "compiled"), default=["eager", "compiled"])
    chosen = made.parse_args(arguments)
    deadline, lines = Deadline(chosen.minutes), Lines(chosen.out / "speed.jsonl")
    subjects, rounds = (TINY, 2) if chosen.tiny else (SUBJECTS, ROUNDS)
    around = {"device": device_name(chosen.device), "torch_version": str(torch.__version__)}

    def note(line: dict[str, Any]) -> None:
        lines.add(line | around)
        shown = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in line.items())
        print(shown, flush=True)

    left = 0
    for way in chosen.ways:
        for subject in subjects:
            done = {(r["subject"], r["strategy"]) for r in lines.read() if r["way"] == way}
            if {(subject.model, s) for s in STRATEGIES} <= done:
                continue
            if deadline.passed:
                left += 1
                continue
            measure(subject, way, chosen.device, rounds, note)
    settings = [
        point(
            s.model,
            strategy,
            batch=s.batch,
            image=f"3x{s.size}x{s.size}x{s.classes}",
            depth=s.depth,
            steps=2 if chosen.tiny else 20,
        )
        for s in subjects
        for strategy in STRATEGIES
    ]
    trials = planned("gpu-speed", settings)
    store = chosen.out / "store"
    left += run_trials(trials, store, device=chosen.device, deadline=deadline, told=told_memory)
    code = ended(left, "measurements")
    return code or int(any(line["outcome"] != "ok" for line in lines.read()))


if __name__ == "__main__":
    sys.exit(main())
