"""A trial that is trained again: with its own threads, and with what differs said."""

from __future__ import annotations

from dataclasses import replace

import torch

from study.rerun import find_trial, rerun
from study.store.writer import write_result
from study.train.trial import train_trial


def test_a_rerun_has_the_threads_of_its_row_and_says_what_else_differs(make_trial, tmp_path):
    torch.set_num_threads(2)
    result = train_trial(make_trial(train={"epochs": 1}, probe={"enabled": False}), device="cpu")
    row = {**result.trial, "torch_version": "0.4.1", "loss_val": -1.0}
    write_result(tmp_path, replace(result, trial=row))
    torch.set_num_threads(1)
    again = rerun(tmp_path, find_trial(tmp_path, row["trial_id"]))
    assert torch.get_num_threads() == 1
    assert again.now["loss_train"] == row["loss_train"]
    assert not again.same
    (told,) = again.circumstances
    assert told == f"version of PyTorch was 0.4.1, is {result.trial['torch_version']}"
    assert told in again.why
