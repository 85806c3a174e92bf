"""A trial that is killed between two evaluations goes on from the last one, with the same bits at the end."""

import json
import subprocess
import sys

import pytest
import torch

from study.identity import resolve, trial_id
from study.settings.data import DataSettings
from study.settings.model import ModelSettings
from study.settings.run import ProbeSettings
from study.settings.train import EvaluateSettings, TrainSettings
from study.settings.trial import Trial, TrialSettings
from study.store import checkpoints
from study.train.trial import train_trial

CODE = """
import json, sys, torch
torch.set_num_threads(1)
from study.store import checkpoints
from study.train import loop
from study.train.trial import train_trial
from tests.study.trials import trial_from_dict
job = json.load(open(sys.argv[1]))
whole = loop._backward
def told(session, batch):
    print("step", len(session.clock.step_times_s), flush=True)
    return whole(session, batch)
loop._backward = told
train_trial(
    trial_from_dict(job["trial"]), device="cpu", save=lambda state, _: checkpoints.save(job["store"], state)
)
"""

CASES = {
    "classification": TrialSettings(
        data=DataSettings(train_examples=256, test_examples=64, augment=True),
        model=ModelSettings(name="revnet38", width=0.25, depth=26),
        train=TrainSettings(epochs=2, batch_size=32, schedule="wsd"),  # 8 steps an epoch
        evaluate=EvaluateSettings(every=3, unit="steps"),
        probe=ProbeSettings(every=2),
    ),
    "language": TrialSettings(
        data=DataSettings(name="markov:2", context_length=32, test_examples=32),
        model=ModelSettings(name="revgpt_100k"),
        train=TrainSettings(
            steps=12, batch_size=8, optimizer="adamw", learning_rate=3e-3, accumulate=2, warmup_steps=2
        ),
        evaluate=EvaluateSettings(every=5, examples=32),
        probe=ProbeSettings(examples=4),
    ),
    "muon": TrialSettings(
        data=DataSettings(name="markov:1", context_length=16, test_examples=32),
        model=ModelSettings(name="gpt_100k"),
        train=TrainSettings(steps=12, batch_size=8, optimizer="muon", learning_rate=3e-3),
        evaluate=EvaluateSettings(every=5, examples=32),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_trial_killed_in_the_middle_of_an_epoch_ends_with_the_same_bits(case, tmp_path):
    settings = resolve(CASES[case])
    trial = Trial(trial_id=trial_id(settings), study="test", settings=settings)
    job = {"trial": trial.to_dict(), "store": str(tmp_path)}
    (tmp_path / "job.json").write_text(json.dumps(job))
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path / "job.json")], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.strip() == "step 7":  # two steps after the first or the second evaluation
            process.kill()
            break
    assert process.wait(60) == -9
    state = checkpoints.load(tmp_path, trial.trial_id)
    assert state is not None and state["epoch"] == len(state["epochs"]) in (1, 2)
    assert len(state["step_times_s"]) in (5, 6)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed = train_trial(trial, device="cpu", attempt=1, resume=state)
        whole = train_trial(trial, device="cpu")
    finally:
        torch.set_num_threads(threads)
    assert (resumed.trial["outcome"], whole.trial["outcome"]) == ("ok", "ok"), resumed.trial["error_message"]
    times = ("epoch_s", "examples_per_s", "tokens_per_s", "attempt")
    for a, b in zip(resumed.epochs, whole.epochs, strict=True):
        assert {k: v for k, v in a.items() if k not in times} == {
            k: v for k, v in b.items() if k not in times
        }
    for name in (
        "loss_test",
        "loss_val",
        "bits_per_byte_test",
        "accuracy_test",
        "steps_done",
        "examples_seen",
    ):
        assert resumed.trial[name] == whole.trial[name]
    assert len(resumed.blocks) == len(whole.blocks)
