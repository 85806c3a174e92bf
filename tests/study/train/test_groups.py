"""Trials of several workers: sharded or not, in groups whose size changes between epochs."""

from __future__ import annotations

import pytest
import torch

from study.train.trial import train_trial
from tests.study.train.groups import train_group

# Batch statistics are those of a worker's share, so losses agree closely with one worker's, not exactly; with
# a learning rate of almost nothing they are those of the same weights.
SLOW = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-6, "clip_norm": 1.0}


def test_a_sharded_trial_trains_as_one_that_is_not(tmp_path, make_trial):
    changes = {
        "train": {**SLOW, "learning_rate": 0.05},
        "probe": {"every": 1},
        "precision": {"compute": "fp64", "stream": "fp64"},
    }
    whole = train_group(tmp_path / "ddp", make_trial(scaling={"workers": 2}, **changes), workers=2)
    sharded = train_group(
        tmp_path / "fsdp2", make_trial(scaling={"workers": 2, "parallel": "fsdp2"}, **changes), workers=2
    )
    assert sharded["trial"]["outcome"] == "ok", sharded["trial"]["error_message"]
    assert (whole["trial"]["parallel"], sharded["trial"]["parallel"]) == ("ddp", "fsdp2")
    for name in ("parameters", "steps_done", "epochs_done", "accuracy_test"):
        assert sharded["trial"][name] == whole["trial"][name]
    for ours, theirs in zip(sharded["epochs"], whole["epochs"], strict=True):
        for name in ("loss_train", "loss_val", "gradient_norm", "learning_rate"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-9), name
    assert len(sharded["blocks"]) == len(whole["blocks"]) > 0
    # A tracker of tensors does not see what FSDP does with storages: no figure rather than a wrong one.
    assert sharded["trial"]["memory_peak_bytes"] is None
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("ddp", "fsdp2")]
    for name, tensor in states[0]["model"].items():
        assert states[1]["model"][name].shape == tensor.shape
        torch.testing.assert_close(states[1]["model"][name], tensor, rtol=1e-9, atol=1e-9)


def test_an_elastic_trial_goes_on_with_another_number_of_workers(tmp_path, make_trial):
    scaling = {"workers": 2, "min_workers": 1, "parallel": "fsdp2"}
    trial = make_trial(scaling=scaling, train={**SLOW, "epochs": 3})
    first = train_group(tmp_path, trial, workers=2, stop_after=2)
    assert (first["trial"]["outcome"], first["trial"]["epochs_done"]) == ("pruned", 2)
    then = train_group(tmp_path, trial, workers=1)
    assert then["trial"]["outcome"] == "ok", then["trial"]["error_message"]
    assert [row["workers"] for row in then["epochs"]] == [2, 2, 1]
    assert (then["trial"]["workers"], then["trial"]["workers_min"]) == (2, 1)
    # The batch is the same whatever the number of workers that share it: as many steps, the same images.
    alone = train_trial(make_trial(train={**SLOW, "epochs": 3}), device="cpu")
    assert then["trial"]["steps_done"] == alone.trial["steps_done"]
    for ours, theirs in zip(then["epochs"], alone.epochs, strict=True):
        assert ours["loss_train"] == pytest.approx(theirs["loss_train"], rel=0.05)
