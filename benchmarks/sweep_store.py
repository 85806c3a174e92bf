"""Writes a store of the size of a large sweep, for benchmarks of reading. Its numbers are made up.

The rows have the shape of real ones (every column filled, a settings document per trial, one file per trial
and table as the recorder writes them), so that reading and drawing them costs what a real store's would.
Accuracies and times follow simple laws with seeded noise and stand for nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.schema import TABLES

Row = dict[str, Any]
EPSILON = {"fp32": 6e-8, "bf16": 4e-3, "fp16": 5e-4}
START = datetime(2026, 1, 1, tzinfo=UTC)
FAILED = 50  # one trial in so many did not end ok


def points() -> Iterator[tuple[int, float, str, str, float, int]]:
    """Depth, width, strategy, compute, learning rate and seed, seeds innermost, without end."""
    for round in itertools.count():
        for depth, width, rate, strategy, compute, seed in itertools.product(
            range(14, 111, 12), (0.5, 1.0, 2.0), (0.03, 0.1, 0.3), ("store", "reverse"), EPSILON, range(5)
        ):
            yield depth, width, strategy, compute, rate / (1 + round), seed


def trial(number: int, point: tuple[int, float, str, str, float, int], epochs: int) -> Row:
    """One row of trials with every column filled that such a trial fills."""
    depth, width, strategy, compute, rate, seed = point
    settings = {
        "data": {"name": "digits", "train_examples": None, "validation_fraction": 0.1, "augment": False},
        "model": {"name": "revnet38", "width": width, "depth": depth},
        "precision": {"compute": compute, "stream": compute, "coupling": "additive", "matmul": "ieee"},
        "memory": {"strategy": strategy},
        "train": {
            "epochs": epochs,
            "batch_size": 128,
            "optimizer": "sgd",
            "learning_rate": rate,
            "momentum": 0.9,
            "weight_decay": 2e-4,
            "schedule": "cosine",
            "warmup_epochs": 0,
        },
        "scaling": {"workers": 1},
        "seed": seed,
    }
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    noise = random.Random(text)
    failed = number % FAILED == FAILED - 1
    parameters = int(12_000 * depth * width**2)
    held = int(2e6 * width) + (int(250_000 * width) * depth if strategy == "store" else 0)
    reverses = strategy == "reverse" and not failed
    error = EPSILON[compute] * depth * noise.uniform(0.7, 1.4)
    accuracy = min(0.999, 0.9 + 0.0005 * depth + 0.02 * width - 0.1 * abs(rate - 0.1) + noise.gauss(0, 0.004))
    step = 0.002 * depth * width * (1.33 if strategy == "reverse" else 1.0) * noise.uniform(0.98, 1.02)
    started = START + timedelta(seconds=7 * number)
    return {
        "trial_id": hashlib.sha256(text.encode()).hexdigest()[:16],
        "study": "sweep",
        "attempt": 0,
        "outcome": "diverged" if failed else "ok",
        "error_class": "DivergedError" if failed else None,
        "error_message": "the training loss became nan" if failed else None,
        "data": "digits",
        "examples_train": 1_200,
        "num_classes": 10,
        "model": "revnet38",
        "family": "revnet",
        "block": "basic",
        "depth": depth,
        "width": width,
        "parameters": parameters,
        "strategy": strategy,
        "compute_dtype": compute,
        "stream_dtype": compute,
        "coupling": "additive",
        "matmul": "not_applicable",
        "batch_size": 128,
        "epochs": epochs,
        "optimizer": "sgd",
        "learning_rate": rate,
        "weight_decay": 2e-4,
        "schedule": "cosine",
        "workers": 1,
        "seed": seed,
        "origin": "grid",
        "config_json": text,
        "loss_train": 0.1,
        "loss_val": 0.2,
        "loss_test": None if failed else 0.2,
        "accuracy_train": min(1.0, accuracy + 0.01),
        "accuracy_val": accuracy - 0.002,
        "accuracy_test": None if failed else accuracy,
        "epochs_done": epochs,
        "steps_done": 10 * epochs,
        "memory_peak_bytes": held + 16 * parameters,
        "memory_activation_bytes": held,
        "memory_parameter_bytes": 4 * parameters,
        "memory_gradient_bytes": 4 * parameters,
        "memory_optimizer_bytes": 4 * parameters,
        "memory_buffer_bytes": 10_000,
        "memory_predicted_bytes": held + 16 * parameters,
        "memory_source": "tracker",
        "step_time_s": step,
        "examples_per_s": 128 / step,
        "train_s": 10 * epochs * step,
        "wall_s": 12 * epochs * step,
        "concurrent_trials": 2,
        "reconstruction_rel_error": error if reverses else None,
        "gradient_rel_error": 3 * error if reverses else None,
        "gradient_angle_deg": 100 * error if reverses else None,
        "device": "benchmark processor",
        "hostname_hash": "0" * 16,
        "cpu_threads": 1,
        "git_commit": "0" * 40,
        "git_dirty": False,
        "revstudy_version": "0.1.0",
        "torch_version": "2.11",
        "ray_version": "2.52",
        "python_version": "3.11",
        "platform": "Linux x86_64",
        "started_at": started,
        "finished_at": started + timedelta(seconds=60),
    }


def epoch_rows(row: Row) -> list[Row]:
    """A learning curve, probed in every tenth epoch where the trial reverses."""
    key = {name: row[name] for name in ("trial_id", "study", "attempt")}
    error, count = row["reconstruction_rel_error"], row["epochs_done"]
    rows = []
    for epoch in range(1, count + 1):
        left = 0.95**epoch
        probed = error is not None and epoch % 10 == 0
        rows.append(
            {
                **key,
                "epoch": epoch,
                "step": 10 * epoch,
                "loss_train": 2.3 * left,
                "loss_val": 2.4 * left,
                "accuracy_train": 1 - 0.9 * left,
                "accuracy_val": row["accuracy_val"] * (1 - 0.9 * left),
                "learning_rate": row["learning_rate"],
                "gradient_norm": 1 + left,
                "epoch_s": 1.0,
                "examples_per_s": row["examples_per_s"],
                "reconstruction_rel_error": error * epoch / count if probed else None,
                "gradient_rel_error": 3 * error * epoch / count if probed else None,
                "gradient_angle_deg": 100 * error * epoch / count if probed else None,
            }
        )
    return rows


def block_rows(row: Row) -> list[Row]:
    """A probe of every block at the end of training."""
    if row["reconstruction_rel_error"] is None:
        return []
    key = {name: row[name] for name in ("trial_id", "study", "attempt")}
    count = (row["depth"] - 2) // 4
    return [
        {
            **key,
            "epoch": row["epochs_done"],
            "block": block,
            "name": f"blocks.{block}",
            "reconstruction_rel_error": row["reconstruction_rel_error"] * (count - block) / count,
            "gradient_rel_error": row["gradient_rel_error"],
            "gradient_cosine": 1.0,
            "gradient_angle_deg": row["gradient_angle_deg"],
        }
        for block in range(count)
    ]


def write_store(store: Path, *, trials: int, epochs: int) -> None:
    """Writes the store: three files for a trial that reverses, two for one that stores."""
    folders = {name: store / "study=sweep" / name for name in TABLES}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for number, point in zip(range(trials), points(), strict=False):
        row = trial(number, point, epochs)
        for name, rows in (("epochs", epoch_rows(row)), ("blocks", block_rows(row)), ("trials", [row])):
            if rows:
                table = pa.Table.from_pylist(rows, schema=TABLES[name].arrow)
                file = folders[name] / f"{row['trial_id']}-a0.parquet"
                pq.write_table(table, file, compression="snappy", use_dictionary=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=100)
    arguments = parser.parse_args()
    write_store(arguments.store, trials=arguments.trials, epochs=arguments.epochs)
