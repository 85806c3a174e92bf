"""What does a change of the engine cost? Steps of two checkouts of this repository, in turns.

    git worktree add /tmp/before COMMIT
    python benchmarks/price.py --before /tmp/before [--subjects lm12] [--rounds 9] [--starts 5]

Each checkout runs in a process of its own, with one thread and the same weights and batch. In a round each
takes some steps under strategy ``reverse``, and the order changes from round to round, so that whatever
else the machine does falls on both. Processes are started anew several times: where a process lies in
memory moves its time by a percent or two, however often it is measured. What counts is processor time.
Figures are the median of the ratios within rounds, with a 95 % bootstrap interval, and the bytes of
activations and temporaries at the peak. A row for each subject is added to
``benchmarks/results/price.jsonl``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 1.02
"""What a step may take, as a share of the time that it took before."""


class Attention(nn.Module):
    """Causal attention, written as people write it: a module of their own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) to the same."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).movedim(2, 0).transpose(-2, -3)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


def mlp(width: int, hidden: int) -> nn.Module:
    """Layers that the engine knows."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class LanguageModel(nn.Module):
    """Twelve blocks: F is attention, G a perceptron."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        from revmodels import ReversibleBlock, ReversibleSequence

        self.embed = nn.Embedding(256, 2 * width)
        blocks = [ReversibleBlock(Attention(width, 4), mlp(width, 4 * width)) for _ in range(12)]
        self.body = ReversibleSequence(blocks, split_dim=-1)
        self.head = nn.Linear(2 * width, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T) to (N, 256, T)."""
        return self.head(self.body(self.embed(tokens))).transpose(1, 2)


def revnet110() -> tuple[nn.Module, Tensor, Tensor]:
    """RevNet-110 on 32 images of CIFAR's size, in channels_last."""
    from revmodels import create_model

    model: Any = create_model("revnet110", num_classes=10)
    images = torch.randn(32, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    return model.to(memory_format=torch.channels_last), images, torch.arange(32) % 10


def mlp64() -> tuple[nn.Module, Tensor, Tensor]:
    """64 blocks of perceptrons on 128 examples."""
    from revmodels import ReversibleBlock, ReversibleSequence

    body = ReversibleSequence([ReversibleBlock(mlp(128, 512), mlp(128, 512)) for _ in range(64)])
    return nn.Sequential(body, nn.Linear(256, 10)), torch.randn(128, 256), torch.arange(128) % 10


def lm12() -> tuple[nn.Module, Tensor, Tensor]:
    """A language model of twelve blocks on 8 sequences of 64 bytes."""
    return LanguageModel(), torch.randint(256, (8, 64)), torch.randint(256, (8, 64))


SUBJECTS: dict[str, tuple[Callable[[], tuple[nn.Module, Tensor, Tensor]], int]] = {
    "revnet110": (revnet110, 1),
    "mlp64": (mlp64, 2),
    "lm12": (lm12, 2),
}
"""Each with the number of steps of a turn."""


def work(name: str) -> None:
    """Take a turn for every line of standard input, and answer its processor time, first of all the bytes."""
    from revmodels.measure import peak_memory

    torch.set_num_threads(1)
    torch.manual_seed(0)
    make, steps = SUBJECTS[name]
    model, inputs, targets = make()
    print(peak_memory(model, (inputs, targets)).activation_bytes, flush=True)

    def step() -> None:
        for p in model.parameters():
            p.grad = None
        F.cross_entropy(model(inputs), targets).backward()

    step()
    for _ in sys.stdin:
        gc.collect()
        gc.disable()
        began = time.process_time()
        for _ in range(steps):
            step()
        print((time.process_time() - began) / steps, flush=True)
        gc.enable()


class Worker:
    """A checkout in a process of its own."""

    def __init__(self, checkout: Path, name: str) -> None:
        around = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--work", name],
            env=around,
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.peak_bytes = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker ended with exit code {self._process.wait()}")
        return json.loads(line)

    def turn(self) -> float:
        """Seconds of a step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(name: str, before: Path, rounds: int, starts: int) -> dict[str, Any]:
    """Both checkouts in turns, after two rounds of warm-up, and all that with `starts` pairs of processes."""
    times: list[dict[str, float]] = []
    for start in range(starts):
        workers = {"before": Worker(before, name), "now": Worker(ROOT, name)}
        for index in range(-2, rounds):
            order = list(workers) if (index + start) % 2 else list(reversed(workers))
            turns = {which: workers[which].turn() for which in order}
            if index >= 0:
                times.append(turns)
        for worker in workers.values():
            worker.close()
    ratios = np.array([t["now"] / t["before"] for t in times])
    by_start = np.median(ratios.reshape(starts, rounds), axis=1)
    draws = np.random.default_rng(0).integers(len(ratios), size=(4000, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), (0.025, 0.975))
    return {
        "subject": name,
        "rounds": rounds,
        "starts": starts,
        "ratio_by_start": by_start.tolist(),
        **{f"{which}_s": statistics.median(t[which] for t in times) for which in workers},
        "ratio": float(np.median(ratios)),
        "ratio_of_fastest": min(t["now"] for t in times) / min(t["before"] for t in times),
        "ratio_interval": [float(low), float(high)],
        **{f"{which}_peak_bytes": worker.peak_bytes for which, worker in workers.items()},
    }


def main() -> int:
    """Measure, print and write; 1 if a subject takes longer than the limit allows, or more bytes."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="the other checkout")
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=9, help="in each process")
    parser.add_argument("--starts", type=int, default=5, help="of both processes")
    parser.add_argument("--to", type=Path, default=ROOT / "benchmarks" / "results" / "price.jsonl")
    parser.add_argument("--work", choices=list(SUBJECTS), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        work(chosen.work)
        return 0
    if chosen.before is None or not (chosen.before / "revmodels").is_dir():
        parser.error(f"--before: a checkout of this repository; received {chosen.before}")
    sys.path.insert(0, str(ROOT))
    from benchmarks.results_file import circumstances

    missed = False
    for name in chosen.subjects:
        row = measure(name, chosen.before.resolve(), chosen.rounds, chosen.starts)
        low, high = row["ratio_interval"]
        missed |= row["ratio"] > LIMIT or row["now_peak_bytes"] > row["before_peak_bytes"]
        print(
            f"{name}: {1e3 * row['before_s']:.2f} ms before, {1e3 * row['now_s']:.2f} ms now; ratio "
            f"{row['ratio']:.3f} ({low:.3f} to {high:.3f}), of the fastest {row['ratio_of_fastest']:.3f}; "
            f"{row['before_peak_bytes']} bytes before, "
            f"{row['now_peak_bytes']} now",
            flush=True,
        )
        with chosen.to.open("a") as file:
            file.write(json.dumps(row | circumstances()) + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
