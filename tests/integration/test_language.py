"""The study `language` at its scale `tiny`: twins that reverse learn what stored ones do, in flat memory."""

import pytest
import torch

from study.plan.cost import trial_cost
from study.plan.expand import make_plan
from study.spec.load import load_study
from study.train.trial import train_trial


@pytest.fixture(scope="module")
def rows():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = []
        for trial in make_plan(load_study("language", "tiny")).trials:
            row, cost = train_trial(trial, device="cpu").trial, trial_cost(trial.settings)
            assert row["outcome"] == "ok", row["error_message"]
            predicted = (cost.parameters, cost.memory_bytes, cost.activation_bytes)
            measured = tuple(
                row[name] for name in ("parameters", "memory_peak_bytes", "memory_activation_bytes")
            )
            assert predicted == measured
            found.append(row)
        return found
    finally:
        torch.set_num_threads(threads)


def of(rows, model, strategy):
    return {row["depth"]: row for row in rows if (row["model"], row["strategy"]) == (model, strategy)}


def test_twins_learn_alike(rows):
    assert len(rows) == 8
    stored, reversed_ = (of(rows, "revgpt_100k", s) for s in ("store", "reverse"))
    checkpointed = of(rows, "gpt_100k", "checkpoint")
    for depth, row in of(rows, "gpt_100k", "store").items():
        assert checkpointed[depth]["bits_per_byte_val"] == row["bits_per_byte_val"]
        twin = stored[depth]
        assert twin["parameters"] == row["parameters"]
        assert reversed_[depth]["bits_per_byte_val"] == pytest.approx(twin["bits_per_byte_val"], abs=0.01)
        assert row["bits_per_byte_val"] < 6 < row["bits_per_byte_val"] + row["bigram_bits_per_byte"]


def test_activations_of_the_reversed_twin_are_flat_in_depth(rows):
    reversed_, stored = (of(rows, "revgpt_100k", s) for s in ("reverse", "store"))
    assert reversed_[2]["memory_activation_bytes"] == reversed_[4]["memory_activation_bytes"]
    assert stored[4]["memory_activation_bytes"] > 1.5 * stored[2]["memory_activation_bytes"]


def test_operations_are_those_of_the_strategy(rows):
    for row in rows:
        again = row["strategy"] != "store"
        # Attention's own backward pass does a little again, with every strategy.
        assert (row["flops_hardware"] > 1.15 * row["flops_model"]) == again
        assert row["mfu"] is None, "what this processor can do at most is not known"
        assert row["tokens_per_s"] == pytest.approx(128 * row["examples_per_s"])
