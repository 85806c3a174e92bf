"""One trial on two workers of Ray Train against the same trial in this process."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from study.record import read_rows
from study.runner import plan_run, run_study
from study.settings import ScalingSettings
from study.train import train_trial


def test_two_workers_train_as_one_does(ray_cluster, make_study, store):
    # Batch statistics are taken over half the batch on each worker, so losses agree closely, not exactly;
    # with a learning rate of almost nothing they are those of the same weights.
    sections = {"train": {"epochs": 1, "batch_size": 128, "learning_rate": 1e-6}}
    study = make_study(**sections, scaling={"workers": 2})
    (planned,) = plan_run(study, store).trials
    summary = run_study(study, store)
    assert summary.outcomes == {"ok": 1}
    row = read_rows(store)[planned.trial_id]
    assert (row["workers"], row["epochs_done"], row["concurrent_trials"]) == (2, 1, 1)
    assert row["ray_version"] is not None
    epochs = pq.read_table(store / "study=small" / "epochs" / f"{planned.trial_id}-a0.parquet").to_pylist()
    alone = train_trial(replace(planned, settings=replace(planned.settings, scaling=ScalingSettings())))
    assert row["steps_done"] == alone.trial["steps_done"]
    assert row["parameters"] == alone.trial["parameters"]
    assert epochs[0]["loss_train"] == pytest.approx(alone.epochs[0]["loss_train"], rel=0.05)
    assert row["memory_activation_bytes"] < 0.6 * alone.trial["memory_activation_bytes"]
    assert len(list(store.glob("study=*/trials/*"))) == 1
