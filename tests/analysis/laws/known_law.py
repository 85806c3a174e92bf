"""A store whose trainings follow a known law of loss, written as the recorder writes it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from study.store.rows import TrialResult, full_row
from study.store.writer import write_result, write_study

TRUTH = {"E": 1.69, "A": 406.4, "B": 410.7, "a": 0.34, "b": 0.28}
SIZES = tuple(1_000_000 * 4**i for i in range(6))
DATA = tuple(200_000_000 * 4**i for i in range(5))
STEPS = 100
EARLY = 1.05
"""Evaluations at the full rate lie above finished ones by this factor."""


def true_loss(n: Any, d: Any) -> Any:
    """The loss of the law, for arrays too."""
    return TRUTH["E"] + TRUTH["A"] / n ** TRUTH["a"] + TRUTH["B"] / d ** TRUTH["b"]


def write_law(
    store: Path,
    *,
    study: str = "law",
    sizes: Sequence[int] = SIZES,
    data: Sequence[int] = DATA,
    seeds: Sequence[int] = (0, 1),
    noise: float = 0.002,
    schedule: str = "wsd",
    worse: float = 1.0,
    **changes: Any,
) -> Path:
    """Write a training for each size, amount of data and seed, evaluated ten times; `changes` are columns."""
    rng = np.random.default_rng(0)
    ids = []
    for n, d, seed in itertools.product(sizes, data, seeds):
        train = {"schedule": schedule, "steps": STEPS, "warmup_steps": 5}
        config = json.dumps({"train": train, "model": {"n": n}, "data": d, "seed": seed}, sort_keys=True)
        trial_id = hashlib.sha256(config.encode()).hexdigest()[:16]
        ids.append(trial_id)
        key = {"trial_id": trial_id, "study": study, "attempt": 0}
        factor = worse * float(np.exp(rng.normal(0, noise)))
        epochs = []
        for i in range(1, 11):
            seen = d * i // 10
            above = 1.0 if i == 10 or schedule == "constant" else EARLY
            values = {
                "epoch": i,
                "step": STEPS * i // 10,
                "tokens_seen": seen,
                "examples_seen": seen // 256,
                "loss_val": true_loss(n, seen) * above * factor,
            }
            epochs.append(full_row("epochs", {**key, **values}))
        trial = {
            **key,
            "outcome": "ok",
            "data": "stdlib",
            "family": "revgpt",
            "model": "revgpt_124m",
            "schedule": schedule,
            "optimizer": "adamw",
            "strategy": "reverse",
            "compute_dtype": "fp32",
            "stream_dtype": "fp32",
            "learning_rate": 0.001,
            "batch_size": 64,
            "weight_decay": 0.1,
            "parameters": n,
            "parameters_non_embedding": n,
            "tokens_seen": d,
            "examples_seen": d // 256,
            "examples_train": d // 256,
            "steps_done": STEPS,
            "epochs_done": 10,
            "seed": seed,
            "loss_val": true_loss(n, d) * factor,
            "config_json": config,
            **changes,
        }
        write_result(store, TrialResult(trial=full_row("trials", trial), epochs=epochs))
    write_study(store, {"name": study}, ids)
    return store
