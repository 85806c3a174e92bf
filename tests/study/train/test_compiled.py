"""Compiled networks as a strategy of studies: a stored network's numbers, in less memory within a budget."""

from dataclasses import replace

import pytest
import torch

from revmodels.strategies.registry import find_strategy
from study.errors import StudyError
from study.identity import canonical_json, resolve, trial_id
from study.plan.concurrency import check_scaling
from study.settings.model import MemorySettings, ModelSettings
from study.settings.run import ScalingSettings
from study.settings.trial import TrialSettings
from study.train.trial import train_trial

BASE = TrialSettings(model=ModelSettings(name="revnet38", depth=14, width=0.25))


def settings(strategy, budget=None, **others):
    return replace(BASE, memory=MemorySettings(strategy=strategy, activation_budget=budget), **others)


def test_a_compiled_trial_learns_what_a_stored_one_learns_and_holds_less_within_its_budget(make_trial):
    stored, half = (
        train_trial(make_trial(model={"name": "revnet38", "depth": 14, "width": 0.25}, memory=memory))
        for memory in ({"strategy": "store"}, {"strategy": "compile", "activation_budget": 0.5})
    )
    assert half.trial["outcome"] == "ok", half.trial["error_message"]
    assert (half.trial["strategy"], half.trial["activation_budget"]) == ("compile", 0.5)
    assert half.trial["memory_source"] == "cpu_allocator"
    assert half.trial["memory_saved_bytes"] < 0.6 * stored.trial["memory_saved_bytes"]
    assert half.trial["memory_peak_bytes"] < stored.trial["memory_peak_bytes"]
    assert half.trial["loss_train"] == pytest.approx(stored.trial["loss_train"], rel=1e-3)
    assert half.trial["reconstruction_rel_error"] is None
    assert stored.trial["activation_budget"] is None


def test_the_budget_holds_for_the_trial_alone():
    from torch._functorch import config

    before = config.activation_memory_budget
    with find_strategy("compile").session(activation_budget=0.25):
        assert config.activation_memory_budget == 0.25
    with find_strategy("reverse").session(activation_budget=0.25):
        assert config.activation_memory_budget == before
    assert config.activation_memory_budget == before


def test_a_network_that_cannot_be_one_graph_is_refused():
    class Breaks(torch.nn.Module):
        def forward(self, x):
            print("here")
            return x

    with pytest.raises(torch._dynamo.exc.Unsupported), find_strategy("compile").session():
        find_strategy("compile").prepare(Breaks())(torch.ones(1))


def test_a_budget_counts_only_where_something_is_compiled():
    assert trial_id(settings("compile")) == trial_id(settings("compile", 1.0)) != trial_id(settings("store"))
    assert trial_id(settings("compile", 0.5)) != trial_id(settings("compile"))
    assert trial_id(settings("store", 0.5)) == trial_id(settings("store"))
    assert "activation_budget" not in canonical_json(settings("reverse"))
    assert resolve(settings("compile")).memory.activation_budget == 1.0


def test_it_is_not_offered_for_several_workers():
    with pytest.raises(StudyError, match="offered for trials of one worker, not 2"):
        check_scaling(settings("compile", scaling=ScalingSettings(workers=2)))
