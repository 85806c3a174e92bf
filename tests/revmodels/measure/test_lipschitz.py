"""Lipschitz estimates: right where the answer is known, for every kind of block, and without a trace."""

import pytest
import torch
from torch import nn

from revmodels import Precision, ReversibleBlock, ReversibleSequence, create_model
from revmodels.errors import NotReversibleError
from revmodels.measure import lipschitz
from revmodels.measure.lipschitz import spectral_norm
from tests.revmodels.blocks import KINDS, make_input, make_sequence


def linear(matrix):
    layer = nn.Linear(*reversed(matrix.shape), bias=False).double()
    layer.weight.data.copy_(matrix)
    return layer


def test_linear_functions_have_their_largest_singular_value():
    torch.manual_seed(0)
    f, g = (torch.randn(6, 6, dtype=torch.float64) for _ in range(2))
    net = ReversibleSequence([ReversibleBlock(linear(f), linear(g))])
    (block,) = lipschitz(net, torch.randn(5, 12, dtype=torch.float64), iterations=200)
    assert block.name == "blocks.0"
    assert block.f == pytest.approx(torch.linalg.matrix_norm(f, 2).item(), rel=1e-6)
    assert block.g == pytest.approx(torch.linalg.matrix_norm(g, 2).item(), rel=1e-6)


def test_nonlinear_function_has_that_of_its_jacobian_where_it_is_evaluated():
    torch.manual_seed(0)
    fn, x = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)).double(), torch.randn(6).double()
    jacobian = torch.autograd.functional.jacobian(fn, x)
    exact = torch.linalg.matrix_norm(jacobian, 2).item()
    assert spectral_norm(fn, x, 200) == pytest.approx(exact, rel=1e-6)
    assert spectral_norm(fn, x, 1) <= exact


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_block_and_no_trace(kind):
    torch.manual_seed(0)
    net, x = make_sequence(kind, 2), make_input(kind)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (lipschitz(net, x.detach()) for _ in range(2))
    assert first == second
    assert all(block.f > 0 and block.g > 0 for block in first)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_network_with_stage_entries_and_half_precision():
    torch.manual_seed(0)
    model = create_model(
        "revnet38", num_classes=10, depth=14, width=0.25, precision=Precision(compute="bf16")
    )
    blocks = lipschitz(model, torch.randn(2, 3, 8, 8))
    assert [b.name for b in blocks] == [f"body.blocks.{i}" for i in range(3)]
    assert all(0 < b.f < 1e3 for b in blocks)


def test_constant_and_identity():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones_like(x)

    (block,) = lipschitz(ReversibleSequence([ReversibleBlock(Constant(), nn.Identity())]), torch.randn(2, 4))
    assert block.f == 0
    assert block.g == pytest.approx(1)


def test_a_network_without_reversible_units_is_refused():
    with pytest.raises(NotReversibleError, match="ReversibleSequence"):
        lipschitz(nn.Linear(2, 2), torch.randn(1, 2))
