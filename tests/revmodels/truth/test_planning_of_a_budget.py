"""A memory budget is planned on a copy without numbers: nobody sees it, and what it cannot do is named."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules import module as every_module
from torch.utils.checkpoint import checkpoint

from revmodels import ReversibleBlock, ReversibleSequence
from revmodels.errors import BudgetError
from revmodels.memory.step import predict_memory
from revmodels.strategies.budget_plan import plan_memory
from revmodels.torch_internals import FakeTensor
from tests.revmodels.truth.judge import WIDTH


def _budgeted(*layers: nn.Module, dtype: torch.dtype = torch.float64) -> ReversibleSequence:
    blocks = [ReversibleBlock(layer, nn.Tanh()) for layer in layers]
    return ReversibleSequence(blocks, "budget").to(dtype)


def _batch(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 2 * WIDTH, dtype=dtype, requires_grad=True)


def test_hooks_of_modules_see_the_training_step_alone():
    net, seen = _budgeted(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)), []
    for module in net.modules():
        module.register_forward_hook(
            lambda m, args, out: seen.extend(out if isinstance(out, tuple) else (out,))
        )
        module.register_forward_pre_hook(lambda m, args: seen.extend(args))
        module.register_full_backward_hook(lambda m, d_in, d_out: seen.extend(d_out))
    net(_batch()).sum().backward()
    assert seen
    assert not any(isinstance(t, FakeTensor) or t.is_meta for t in seen)


def test_hooks_of_every_module_see_the_training_step_alone():
    net, seen = _budgeted(nn.Linear(WIDTH, WIDTH)), []
    handle = every_module.register_module_forward_hook(lambda m, args, out: seen.append(type(args[0])))
    try:
        net(_batch())
        assert torch.nn.modules.module._global_forward_hooks, "the hook is there again"
    finally:
        handle.remove()
    assert seen
    assert set(seen) == {torch.Tensor}


def test_hooks_of_saved_tensors_see_the_training_step_alone():
    net, seen = _budgeted(nn.Linear(WIDTH, WIDTH)), []

    def pack(t: torch.Tensor) -> torch.Tensor:
        seen.append(isinstance(t, FakeTensor) or t.is_meta)
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        net(_batch())
    assert seen
    assert not any(seen)


def test_a_checkpoint_around_the_sequence():
    net, x = _budgeted(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)), _batch()
    checkpoint(net, x, use_reentrant=False).square().sum().backward()
    found = x.grad
    net.strategy, x.grad = "store", None
    net(x).square().sum().backward()
    torch.testing.assert_close(found, x.grad, rtol=1e-12, atol=0)


def test_networks_without_parameters():
    net = _budgeted(nn.Tanh(), nn.Identity())
    net(_batch()).sum().backward()
    assert len(net.modes) == 2
    batch = torch.empty(3, 2 * WIDTH, requires_grad=True), torch.empty(0)
    assert predict_memory(net.float(), batch, loss=lambda out, _: out.sum()).parameter_bytes == 0


@pytest.mark.filterwarnings("ignore:Complex modules")
def test_complex_networks():
    net = _budgeted(nn.Linear(WIDTH, WIDTH), dtype=torch.complex128)
    net(_batch(torch.complex128)).abs().sum().backward()
    assert len(net.modes) == 1


class _Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mask = torch.ones(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


class _Deciding(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.tanh() if x.sum() > 0 else x.sin()


@pytest.mark.parametrize("layer", [_Masked, _Deciding])
def test_what_needs_numbers_is_refused_by_name(layer):
    with pytest.raises(BudgetError, match=r"shapes and no numbers.*strategy='reverse'"):
        _budgeted(layer())(_batch())


class DrawsElsewhere(nn.Linear):
    """Draws from Python's generator."""

    def forward(self, x):
        return super().forward(x) * random.random()


def test_planning_draws_no_number_of_the_caller_s():
    net = _budgeted(DrawsElsewhere(WIDTH, WIDTH))
    random.seed(1)
    plan_memory(net, _batch())
    assert random.random() == random.Random(1).random()
