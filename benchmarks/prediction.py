"""Predicted against measured peak memory of a training step, for every preset and strategy.

    python benchmarks/prediction.py [--models 'revnet*'] [--batch 4]

The prediction runs on fake tensors; the measurement follows a real step with SGD, momentum and weight decay,
storage by storage at PyTorch's dispatcher. On a CPU the two must be equal to the byte (the GPU suite asks
the allocator). Networks with the ``imagenet`` stem get 2 images of 64 x 64 pixels, the others 4 of 32 x 32.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results_file import FOLDER, table, write
from revmodels import create_model, list_models
from revmodels.measure import peak_memory, predict_memory

STRATEGIES = ("store", "reverse", "checkpoint")


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    """As the paper trains."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=2e-4)


def compare(name: str, strategy: str, batch: int | None) -> dict[str, Any]:
    """One row: bytes of a step of one preset."""
    with torch.device("meta"):
        stem = create_model(name, num_classes=10).architecture.stem
    count, size = (batch or 2, 64) if stem == "imagenet" else (batch or 4, 32)
    images, targets = torch.randn(count, 3, size, size), torch.arange(count) % 10

    def build() -> torch.nn.Module:
        return create_model(name, num_classes=10, strategy=strategy)

    predicted = predict_memory(build, (images.to("meta"), targets.to("meta")), optimizer)
    torch.manual_seed(0)
    measured = peak_memory(build(), (images, targets), optimizer)
    gc.collect()
    return {
        "model": name,
        "strategy": strategy,
        "batch": count,
        "pixels": size,
        "predicted_bytes": predicted.total_bytes,
        "measured_bytes": measured.total_bytes,
        "predicted_activation_bytes": predicted.activation_bytes,
        "measured_activation_bytes": measured.activation_bytes,
    }


def equal(row: dict[str, Any]) -> bool:
    """Whether prediction and measurement agree to the byte, in total and in activations."""
    return (row["predicted_bytes"], row["predicted_activation_bytes"]) == (
        row["measured_bytes"],
        row["measured_activation_bytes"],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print and write; exit code 1 if a prediction is off by a byte."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="*", metavar="PATTERN", help="a shell pattern of presets")
    parser.add_argument("--batch", type=int, help="images, instead of 4 or 2")
    parser.add_argument("--output", type=Path, default=FOLDER / "prediction.parquet")
    chosen = parser.parse_args(arguments)
    if not list_models(chosen.models):
        parser.error(f"--models must match a preset; received {chosen.models!r}")
    rows = []
    for name in list_models(chosen.models):
        with torch.device("meta"):
            allowed = create_model(name, num_classes=10).strategies
        for strategy in STRATEGIES:
            if strategy in allowed:
                rows.append(compare(name, strategy, chosen.batch))
                print(f"{name} {strategy}: {'equal' if equal(rows[-1]) else 'OFF'}", file=sys.stderr)
    lines = [
        [
            row["model"],
            row["strategy"],
            f"{row['batch']} x {row['pixels']}",
            f"{row['measured_bytes']:,}",
            f"{row['predicted_bytes'] - row['measured_bytes']:+,}",
        ]
        for row in rows
    ]
    print(table(lines, ["network", "strategy", "images", "peak measured, bytes", "predicted minus measured"]))
    print(f"Figures: {write(chosen.output, rows)}")
    return int(not all(map(equal, rows)))


if __name__ == "__main__":
    sys.exit(main())
