"""Trials on two workers of Ray Train: as one process trains them, and stopped early without a hang."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from study.plan.searches import trials_at
from study.run import plan_run, run_study
from study.settings.run import ScalingSettings
from study.store.reader import read_rows
from study.train.trial import train_trial


@pytest.mark.timeout(600)
def test_two_workers_train_as_one_does_and_stop_early_together(ray_cluster, make_study, store):
    good, bad = 0.05, 1e-9
    study = make_study(
        train={"epochs": 5, "batch_size": 32},
        scaling={"workers": 2},
        search={
            "method": "optuna",
            "sampler": "random",
            "sampler_seed": 2,  # proposes the good one first
            "trials": 2,
            "space": {"train.learning_rate": {"choice": [good, bad]}},
            "pruning": {"method": "asha", "warmup_epochs": 3},
        },
    )
    summary = run_study(study, store)
    assert (summary.outcomes, summary.exit_code) == ({"ok": 1, "pruned": 1}, 0)
    rows = {row["learning_rate"]: row for row in read_rows(store).values()}
    assert (rows[bad]["outcome"], rows[bad]["epochs_done"]) == ("pruned", 3)
    assert not list(store.glob("checkpoints/*")) + list(store.glob("claims/*"))
    row = rows[good]
    assert (row["outcome"], row["workers"], row["epochs_done"], row["concurrent_trials"]) == ("ok", 2, 5, 1)
    assert row["ray_version"] is not None
    epochs = pq.read_table(store / "study=small" / "epochs" / f"{row['trial_id']}-a0.parquet").to_pylist()
    assert [(epoch["epoch"], epoch["workers"]) for epoch in epochs] == [(number, 2) for number in range(1, 6)]
    (search,) = plan_run(study, "no-store-here").searches
    (planned,) = trials_at(study, search, {"train.learning_rate": good})
    alone = train_trial(replace(planned, settings=replace(planned.settings, scaling=ScalingSettings())))
    assert row["steps_done"] == alone.trial["steps_done"]
    assert row["parameters"] == alone.trial["parameters"]
    assert row["memory_activation_bytes"] < 0.6 * alone.trial["memory_activation_bytes"]
