import pytest
import torch

from analysis.schema import OUTCOMES
from study import outcomes


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (outcomes.DivergedError("x"), "diverged"),
        (outcomes.TimeUpError("x"), "timeout"),
        (outcomes.StopError("x"), "pruned"),
        (MemoryError(), "oom"),
        (outcomes.UnfitError("x"), "unfit"),
        (torch.OutOfMemoryError("CUDA out of memory."), "oom"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "oom"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "failed"),
        (ValueError("out of memory"), "failed"),
    ],
)
def test_outcomes_of_exceptions(error, outcome):
    assert outcomes.outcome_of(error) == outcome
    assert outcome in OUTCOMES


def test_an_allocation_that_no_machine_can_make_is_oom():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert outcomes.outcome_of(caught.value) == "oom"


def test_final_outcomes_are_those_that_time_and_repair_do_not_change():
    assert set(OUTCOMES) - set(outcomes.FINAL) == {"unfit", "timeout", "failed"}


def test_lost_processes_are_worth_another_try_and_mistakes_are_not():
    actor_died = type("ActorDiedError", (Exception,), {})
    assert outcomes.worth_retrying(actor_died())
    assert outcomes.worth_retrying(type("ActorDiedBecause", (actor_died,), {})())
    assert not outcomes.worth_retrying(ValueError())


def test_long_messages_are_cut():
    assert len(outcomes.describe(ValueError("x" * 5000))["error_message"]) == 2000
