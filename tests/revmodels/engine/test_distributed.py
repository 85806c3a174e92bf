"""Reversible networks on two processes (gloo): gradients as of one with the joined batch, and overlap."""

import pytest
import torch
import torch.multiprocessing as mp

from tests.revmodels import distributed_cases
from tests.revmodels.distributed_cases import BLOCKS, CASES, RANKS

EXACT = 1e-12
OWN_TEST = ("ddp batch norm", "sync batch norm", "overlap", "fsdp inside a block")


@pytest.fixture(scope="module", params=range(RANKS), ids=lambda rank: f"rank{rank}")
def figures(request, results):
    return results[request.param]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(distributed_cases.main, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("case", [case for case in CASES if case not in OWN_TEST])
def test_gradients_equal_one_process_with_the_joined_batch(figures, case):
    assert figures[case] <= EXACT


def test_batch_norm_has_statistics_per_process_and_moves_them_once(figures):
    assert figures["ddp batch norm"]["gradients"] <= EXACT
    assert figures["ddp batch norm"]["statistics"] == 0
    assert figures["ddp batch norm"]["counted"] == 1


def test_synchronized_batch_norm_needs_an_accelerator(figures):
    """PyTorch has no CPU kernel for it, with or without reversal."""
    assert "SyncBatchNorm expected input tensor to be on" in figures["sync batch norm"]


def test_buckets_are_communicated_while_blocks_are_still_to_be_rebuilt(figures):
    events = figures["overlap"]
    assert [i for kind, i in events if kind == "rebuild"] == list(reversed(range(BLOCKS)))
    buckets_before = [
        sum(kind == "bucket" for kind, _ in events[: events.index(("rebuild", i))]) for i in range(BLOCKS)
    ]
    # The heads' before the last block is rebuilt, then at least one more from every block.
    assert all(later < earlier for later, earlier in zip(buckets_before[1:], buckets_before, strict=False))
    assert buckets_before[BLOCKS - 1] >= 1


def test_sharding_inside_a_unit_is_refused(figures):
    assert "fully_shard was applied to f inside" in figures["fsdp inside a block"]


def test_wrong_gradients_would_be_seen():
    exact, found = distributed_cases.network(), distributed_cases.network()
    for net in (exact, found):
        distributed_cases.loss(net(distributed_cases.joined_batch())).backward()
    next(found.body.parameters()).grad.mul_(1 + 1e-9)
    assert distributed_cases.worst_error(found, exact) > EXACT
    next(found.body.parameters()).grad = None
    assert distributed_cases.worst_error(found, exact) == float("inf")
