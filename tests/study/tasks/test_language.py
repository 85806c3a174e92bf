import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from study.errors import StudyError
from study.identity import trial_id
from study.plan.cost import trial_cost
from study.plan.points import check
from study.settings.data import DataSettings
from study.settings.model import MemorySettings, ModelSettings
from study.settings.run import ProbeSettings, ScalingSettings
from study.settings.train import EvaluateSettings, TrainSettings
from study.settings.trial import Trial, TrialSettings
from study.tasks.language import Answering
from study.tasks.registry import task_of
from study.train.trial import train_trial


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def language(model="gpt_100k", strategy=None, *, data=None, train=None, evaluate=None):
    settings = TrialSettings(
        data=DataSettings(**{"name": "markov:1", "context_length": 16, "test_examples": 32, **(data or {})}),
        model=ModelSettings(name=model),
        memory=MemorySettings(strategy=strategy),
        train=TrainSettings(
            **{"steps": 6, "batch_size": 8, "optimizer": "adamw", "learning_rate": 3e-3, **(train or {})}
        ),
        evaluate=EvaluateSettings(**{"every": 3, "examples": 32, **(evaluate or {})}),
        probe=ProbeSettings(examples=4),
    )
    settings = check(settings)
    return Trial(trial_id=trial_id(settings), study="test", settings=settings)


def trained(trial, **how):
    result = train_trial(trial, device="cpu", **how)
    assert result.trial["outcome"] == "ok", result.trial["error_message"]
    return result


def test_a_row_has_bits_per_byte_tokens_and_what_they_are_to_be_compared_with():
    trial = language()
    row, epochs = trained(trial).trial, trained(trial).epochs
    assert (row["task"], row["family"], row["context_length"], row["epochs"]) == ("language", "gpt", 16, None)
    assert row["bits_per_byte_val"] == pytest.approx(row["loss_val"] / math.log(2))  # a token is a byte
    assert 2 < row["bigram_bits_per_byte"] < 4 and row["entropy_bits_per_byte"] < 4
    assert (row["examples_seen"], row["tokens_seen"], row["steps_done"]) == (48, 768, 6)
    assert [(e["epoch"], e["step"], e["tokens_seen"]) for e in epochs] == [(1, 3, 384), (2, 6, 768)]
    assert row["accuracy_val"] is None


def test_a_model_of_known_entropy_is_approached_from_above():
    trial = language(train={"steps": 60, "batch_size": 32, "learning_rate": 1e-2}, evaluate={"every": 30})
    row = trained(trial).trial
    assert row["entropy_bits_per_byte"] < row["bits_per_byte_test"] < 4 - 0.2


@pytest.mark.parametrize(
    ("model", "strategy"), [("gpt_100k", "checkpoint"), ("revgpt_100k", "store"), ("revgpt_100k", "reverse")]
)
def test_predicted_memory_is_measured_memory_to_the_byte(model, strategy):
    trial = language(model, strategy)
    row, cost = trained(trial).trial, trial_cost(trial.settings)
    assert (cost.memory_bytes, cost.activation_bytes, cost.parameters) == (
        row["memory_peak_bytes"],
        row["memory_activation_bytes"],
        row["parameters"],
    )


def test_tokens_say_how_long_a_training_is():
    row = trained(language(train={"steps": None, "tokens": 500}, evaluate={"every": None})).trial
    assert (row["steps_done"], row["tokens_seen"]) == (4, 512)


def test_parts_of_a_batch_make_the_step_of_the_whole():
    whole = trained(language(train={"batch_size": 9}))
    parts = trained(language(train={"batch_size": 9, "accumulate": 4}))
    assert parts.trial["trial_id"] != whole.trial["trial_id"]
    for a, b in zip(whole.epochs, parts.epochs, strict=True):
        assert b["loss_train"] == pytest.approx(a["loss_train"], rel=1e-5)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-4)


def test_a_network_that_knows_no_targets_has_its_loss_behind_its_logits():
    task, settings = task_of(language().settings), language().settings
    examples = task.open(settings, torch.device("cpu"))
    batch = examples.train.batch(torch.arange(4))
    logits = torch.nn.Embedding(examples.shape.vocabulary_size, examples.shape.vocabulary_size)
    model = task.adapted(logits)
    assert isinstance(model, Answering)
    outputs = model(*batch.inputs)
    whole = torch.nn.functional.cross_entropy(logits(batch.inputs[0]).transpose(1, 2), batch.targets)
    assert task.loss(outputs, batch, settings.train).item() == pytest.approx(whole.item(), rel=1e-6)
    assert task.values(task.sums(outputs, batch))["loss"] == pytest.approx(whole.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"train": {"label_smoothing": 0.1}}, "train.label_smoothing"),
        ({"data": {"image_size": 32}}, "data.image_size"),
        ({"data": {"label_noise": 0.1}}, "data.label_noise"),
        ({"model": "revnet38"}, "model.name"),
        ({"model": "revnet38", "data": {"name": "digits"}}, "data.context_length"),
        (
            {
                "model": "revnet38",
                "data": {"name": "digits", "context_length": None},
                "train": {"tokens": 100, "steps": None},
            },
            "train.tokens",
        ),
        ({"train": {"tokens": 100}}, "train.tokens"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, path):
    with pytest.raises(StudyError) as caught:
        language(**changes)
    assert caught.value.path == path
    assert caught.value.remedy


WORKER = """
import json, sys, torch, torch.distributed as dist
torch.set_num_threads(1)
from tests.study.trials import trial_from_dict
from study.train.session import Distributed
from study.train.trial import train_trial
job, rank = json.load(open(sys.argv[1])), int(sys.argv[2])
dist.init_process_group("gloo", init_method="file://" + job["meet"], rank=rank, world_size=2)
for trial in job["trials"]:
    place = Distributed(rank=rank, world_size=2)
    result = train_trial(trial_from_dict(trial), distributed=place, device="cpu")
    row = result.trial
    print(json.dumps([row["outcome"], row["error_message"], row["loss_test"],
                      [e["loss_train"] for e in result.epochs], [e["gradient_norm"] for e in result.epochs]]))
dist.destroy_process_group()
"""


def test_workers_share_sequences_whatever_targets_each_share_has(tmp_path):
    """In markov:3 two targets of a sequence count for nothing; and the batch goes through in parts."""
    alone = language("revgpt_100k", data={"name": "markov:3"}, train={"accumulate": 2})
    shared = [
        replace(
            alone, settings=replace(alone.settings, scaling=ScalingSettings(workers=2, parallel=parallel))
        )
        for parallel in ("ddp", "fsdp2")
    ]
    job = {"meet": str(tmp_path / "meet"), "trials": [trial.to_dict() for trial in shared]}
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-c", WORKER, str(tmp_path / "job.json")]
    ranks = [subprocess.Popen([*command, str(r)], stdout=subprocess.PIPE, text=True) for r in (0, 1)]
    texts = [rank.communicate(timeout=300)[0] for rank in ranks]
    expected = trained(alone)
    for text in texts:
        for outcome, message, loss, losses, norms in map(json.loads, text.splitlines()):
            assert outcome == "ok", message
            assert loss == pytest.approx(expected.trial["loss_test"], rel=1e-5)
            assert losses == pytest.approx([e["loss_train"] for e in expected.epochs], rel=1e-5)
            assert norms == pytest.approx([e["gradient_norm"] for e in expected.epochs], rel=1e-3)
    assert [len(text.splitlines()) for text in texts] == [2, 2]


def test_an_image_task_refuses_language_models():
    with pytest.raises(StudyError, match="gpt_100k"):
        check(TrialSettings(model=ModelSettings(name="gpt_100k")))
