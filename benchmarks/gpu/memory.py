"""Memory of a training step by the allocator of the device, against the prediction on fake tensors.

    python benchmarks/gpu/memory.py --out DIR

From RevNet-38 to a RevNet of 1,010 layers, the paper's six CIFAR networks, and RevNet-104 against
ResNet-101 at 224 pixels. Each is a trial on random images with a few steps, whose row goes to
``DIR/store``; the fidelity probe at initialization is part of it. A trial that is there is not run again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.gpu.common import Deadline, ended, parser, planned, run_trials
from study.settings.data import DataSettings
from study.settings.model import MemorySettings, ModelSettings
from study.settings.run import ProbeSettings
from study.settings.train import TrainSettings
from study.settings.trial import TrialSettings

STUDY = "gpu-memory"
STEPS = 3
DEPTHS = (38, 74, 110, 218, 434, 1010)
DEEPEST_STORED = 434


def point(
    model: str,
    strategy: str,
    *,
    batch: int,
    image: str = "3x32x32x10",
    depth: int | None = None,
    steps: int = STEPS,
    probe: bool = False,
) -> TrialSettings:
    """One trial of a few steps on random images."""
    return TrialSettings(
        data=DataSettings(
            name=f"synthetic:{image}",
            train_examples=batch * steps,
            test_examples=8,
            validation_fraction=0.1 if batch * steps >= 10 else 0.5,
        ),
        model=ModelSettings(name=model, depth=depth),
        memory=MemorySettings(strategy=strategy),
        train=TrainSettings(epochs=1, batch_size=batch, learning_rate=0.01, schedule="constant"),
        probe=ProbeSettings(enabled=probe, examples=8),
    )


def points(tiny: bool) -> Iterator[TrialSettings]:
    """Every trial; the tiny ones have the same shapes of networks at two images of 8 pixels."""
    if tiny:
        for strategy in ("store", "reverse"):
            yield point("revnet110", strategy, batch=2, image="3x8x8x10", depth=38, steps=1, probe=True)
        yield point("revnet110", "reverse", batch=2, image="3x8x8x10", depth=110, steps=1)
        yield point("revnet104", "reverse", batch=2, image="3x96x96x10", steps=1)
        return
    for depth in DEPTHS:
        for strategy in ("store", "reverse", "checkpoint"):
            if strategy == "reverse" or depth <= DEEPEST_STORED:
                yield point("revnet110", strategy, batch=128, depth=depth, probe=strategy == "reverse")
    for resnet, revnet in (("resnet32", "revnet38"), ("resnet110", "revnet110"), ("resnet164", "revnet164")):
        yield point(resnet, "store", batch=100)
        yield point(revnet, "reverse", batch=100, probe=True)
    for model, strategy in (("resnet101", "store"), ("revnet104", "store"), ("revnet104", "reverse")):
        yield point(model, strategy, batch=32, image="3x224x224x1000")
    yield point("revnet110", "reverse", batch=1024, depth=110)


def told(row: dict[str, Any]) -> None:
    """Measured against predicted, as they come."""
    name = f"{row['model']} {row['depth']} {row['strategy']}"
    if row["outcome"] != "ok":
        print(f"{name:32s}{row['outcome']}: {row['error_message']}", flush=True)
        return
    measured, predicted = row["memory_peak_bytes"], row["memory_predicted_bytes"]
    print(
        f"{name:32s}{measured / 1e6:10,.1f} MB measured {predicted / 1e6:10,.1f} MB predicted "
        f"({measured / predicted:.3f}), activations {row['memory_activation_bytes'] / 1e6:,.1f} MB",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; exit code 3 if some is left."""
    chosen = parser(__doc__ or "").parse_args(arguments)
    trials = planned(STUDY, points(chosen.tiny))
    deadline = Deadline(chosen.minutes)
    left = run_trials(trials, chosen.out / "store", device=chosen.device, deadline=deadline, told=told)
    return ended(left, "trials")


if __name__ == "__main__":
    sys.exit(main())
