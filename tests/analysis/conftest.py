"""Writes stores through the schema, so that readers are tested on files as the recorder writes them.

The rows follow simple laws chosen for the tests (storing grows with depth, reversing does not, errors grow
with depth and with coarser arithmetic), so that a test knows the answer before it asks.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.schema import TABLES
from analysis.store.store import Store, open_store

Row = dict[str, Any]
_EPSILON = {"fp64": 1e-16, "fp32": 6e-8, "bf16": 4e-3, "fp16": 5e-4}
_START = datetime(2026, 3, 1, 9, tzinfo=UTC)


def trial_row(
    *,
    study: str = "demo",
    family: str = "revnet",
    depth: int = 38,
    width: float = 1.0,
    strategy: str = "reverse",
    compute: str = "fp32",
    seed: int = 0,
    epochs: int = 4,
    number: int = 0,
    **changes: Any,
) -> Row:
    """One finished trial; `changes` replace or add columns."""
    config = {
        "data": {"name": "digits"},
        "model": {"name": f"{family}38", "width": width, "depth": depth},
        "precision": {"compute": compute, "stream": compute},
        "memory": {"strategy": strategy},
        "train": {"epochs": epochs, "batch_size": 128},
        "seed": seed,
    }
    text = json.dumps(config, sort_keys=True)
    noise = random.Random(text)
    parameters = int(12_000 * depth * width**2)
    floor = int(2_000_000 * width)
    activations = floor + (int(250_000 * width) * depth if strategy == "store" else 0)
    activations = activations // 2 if compute in ("bf16", "fp16") else activations
    reverses = family == "revnet" and strategy == "reverse"
    accuracy = min(0.999, 0.9 + 0.0008 * depth + 0.03 * width + noise.uniform(-0.004, 0.004))
    error = _EPSILON[compute] * depth
    step = 0.002 * depth * width * (1.33 if reverses else 1.0) * noise.uniform(0.98, 1.02)
    started = _START + timedelta(seconds=30 * number)
    row: Row = {
        "trial_id": hashlib.sha256(text.encode()).hexdigest()[:16],
        "study": study,
        "attempt": 0,
        "outcome": "ok",
        "data": "digits",
        "examples_train": 1_200,
        "num_classes": 10,
        "model": f"{family}38",
        "family": family,
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
        "learning_rate": 0.1,
        "weight_decay": 2e-4,
        "schedule": "cosine",
        "workers": 1,
        "seed": seed,
        "origin": "grid",
        "config_json": text,
        "accuracy_train": min(1.0, accuracy + 0.01),
        "accuracy_val": accuracy - 0.002,
        "accuracy_test": accuracy,
        "loss_train": 0.1,
        "loss_val": 0.2,
        "loss_test": 0.2,
        "epochs_done": epochs,
        "steps_done": 10 * epochs,
        "memory_peak_bytes": activations + 16 * parameters,
        "memory_activation_bytes": activations,
        "memory_parameter_bytes": 4 * parameters,
        "memory_gradient_bytes": 4 * parameters,
        "memory_optimizer_bytes": 4 * parameters,
        "memory_buffer_bytes": 10_000,
        "memory_predicted_bytes": activations + 16 * parameters,
        "memory_source": "tracker",
        "step_time_s": step,
        "examples_per_s": 128 / step,
        "train_s": 10 * epochs * step,
        "wall_s": 12 * epochs * step,
        "concurrent_trials": 1,
        "reconstruction_rel_error": error if reverses else None,
        "gradient_rel_error": 3 * error if reverses else None,
        "gradient_angle_deg": 100 * error if reverses else None,
        "device": "test processor",
        "hostname_hash": "abcd",
        "cpu_threads": 1,
        "git_commit": "0" * 40,
        "git_dirty": False,
        "revstudy_version": "0.1.0",
        "torch_version": "2.0",
        "ray_version": "2.0",
        "python_version": "3.11",
        "platform": "Linux x86_64",
        "started_at": started,
        "finished_at": started + timedelta(seconds=25),
    }
    row.update(changes)
    return row


def epoch_rows(trial: Row) -> list[Row]:
    """The learning curve of a trial: the loss halves every epoch, the accuracy approaches the trial's."""
    rows = []
    for epoch in range(1, (trial["epochs_done"] or 0) + 1):
        left = 0.5**epoch
        error = trial["reconstruction_rel_error"]
        rows.append(
            {
                "trial_id": trial["trial_id"],
                "study": trial["study"],
                "attempt": trial["attempt"],
                "epoch": epoch,
                "step": 10 * epoch,
                "loss_train": 2.3 * left,
                "accuracy_train": (trial["accuracy_train"] or 0) * (1 - left),
                "loss_val": 2.4 * left,
                "accuracy_val": (trial["accuracy_val"] or 0) * (1 - left),
                "learning_rate": 0.1,
                "gradient_norm": 1.0,
                "epoch_s": 1.0,
                "examples_per_s": trial["examples_per_s"],
                "reconstruction_rel_error": error * epoch / trial["epochs_done"] if error else error,
                "gradient_rel_error": trial["gradient_rel_error"],
                "gradient_angle_deg": trial["gradient_angle_deg"],
            }
        )
    return rows


def block_rows(trial: Row) -> list[Row]:
    """A probe at the end of training: the error grows from the last block to the first."""
    if trial["reconstruction_rel_error"] is None:
        return []
    blocks = ((trial["depth"] or 38) - 2) // 4
    return [
        {
            "trial_id": trial["trial_id"],
            "study": trial["study"],
            "attempt": trial["attempt"],
            "epoch": trial["epochs_done"],
            "block": block,
            "name": f"blocks.{block}",
            "reconstruction_rel_error": trial["reconstruction_rel_error"] * (blocks - block) / blocks,
            "gradient_rel_error": trial["gradient_rel_error"],
            "gradient_cosine": 1.0,
            "gradient_angle_deg": trial["gradient_angle_deg"],
        }
        for block in range(blocks)
    ]


def write_rows(
    store: Path, table: str, rows: list[Row], *, folder: str | None = None, stem: str | None = None
) -> Path:
    """Writes one file of one table where the recorder would."""
    first = rows[0]
    path = store / f"study={folder or first['study']}" / table
    path.mkdir(parents=True, exist_ok=True)
    file = path / f"{stem or first['trial_id'] + '-a' + str(first['attempt'])}.parquet"
    whole = file.with_name(f".{file.name}")  # as the recorder does, so that no reader meets half a file
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLES[table].arrow), whole)
    return whole.replace(file)


def write_trials(store: Path, trials: Iterable[Row], *, folder: str | None = None) -> Path:
    """Writes trials with their epochs and blocks."""
    for trial in trials:
        write_rows(store, "trials", [trial], folder=folder)
        if epochs := epoch_rows(trial):
            write_rows(store, "epochs", epochs, folder=folder)
        if blocks := block_rows(trial):
            write_rows(store, "blocks", blocks, folder=folder)
    return store


def demo_trials(*, study: str = "demo", seeds: int = 3) -> list[Row]:
    """A grid of twins over depth, width, precision, strategy and seed, and a few failures."""
    numbers = itertools.count()
    rows = [
        trial_row(study=study, depth=d, width=w, strategy=s, compute=c, seed=i, number=next(numbers))
        for d, w, c, s, i in itertools.product(
            (14, 26, 38), (0.5, 1.0), ("fp32", "bf16"), ("store", "reverse"), range(seeds)
        )
    ]
    rows += [
        trial_row(
            study=study, family="resnet", depth=d, width=w, strategy="store", seed=i, number=next(numbers)
        )
        for d, w, i in itertools.product((14, 26, 38), (0.5, 1.0), range(seeds))
    ]
    nothing = dict.fromkeys(
        ("accuracy_test", "loss_test", "reconstruction_rel_error", "gradient_rel_error", "gradient_angle_deg")
    )
    rows.append(
        trial_row(
            study=study,
            compute="fp16",
            seed=90,
            number=next(numbers),
            **{**nothing, "outcome": "diverged", "error_class": "DivergedError", "epochs_done": 2},
            error_message="the training loss became nan in epoch 3",
            accuracy_val=float("nan"),
            loss_train=float("nan"),
            loss_val=float("inf"),
        )
    )
    rows.append(
        trial_row(
            study=study,
            depth=110,
            strategy="store",
            seed=91,
            number=next(numbers),
            **{**nothing, "outcome": "oom", "error_class": "OutOfMemoryError", "epochs_done": 0},
            error_message="<script>window.attacked = true</script> tried to allocate 9 GB",
            accuracy_val=None,
            accuracy_train=None,
        )
    )
    return rows


@pytest.fixture
def new_trial() -> Callable[..., Row]:
    """Builds one row: see `trial_row`."""
    return trial_row


@pytest.fixture
def write() -> Callable[..., Path]:
    """Writes rows into a store: see `write_trials`."""
    return write_trials


@pytest.fixture
def write_file() -> Callable[..., Path]:
    """Writes one file of one table: see `write_rows`."""
    return write_rows


@pytest.fixture(scope="session")
def stores() -> Any:
    """The functions that build and write rows, for fixtures that outlive one test."""
    return SimpleNamespace(trial_row=trial_row, write_trials=write_trials, write_rows=write_rows)


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a full grid of twins and two failures; shared, so treat it as read-only."""
    return write_trials(tmp_path_factory.mktemp("store"), demo_trials())


@pytest.fixture(scope="session")
def demo(demo_store: Path) -> Store:
    """That store, opened once and read: opening it again for every test would take most of their time."""
    store = open_store(demo_store)
    assert store.skipped == ()
    return store
