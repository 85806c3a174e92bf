"""What an exact inverse rests on: each assumption that docs/precision.md states, kept and broken."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from revmodels import Precision, ReversibleBlock, ReversibleSequence
from revmodels.measure import fidelity
from tests.revmodels.coupling.test_grid import WIDTH, conv, network, off

EXACT = Precision(coupling="exact")


def differing(net, x, around_backward):
    """How many rebuilt numbers differ from the stored ones if the backward pass runs in a context."""
    stored, found = {}, []
    units = list(net.units())
    hooks = [
        unit.register_forward_pre_hook(lambda _, pair, i=i: stored.__setitem__(i, [t.detach() for t in pair]))
        for i, unit in enumerate(units)
    ]
    net.strategy = "store"
    net(x)
    for hook in hooks:
        hook.remove()
    net.strategy = "reverse"

    def observe(i, *pair):
        found.append(sum(int((a != b).sum()) for a, b in zip(pair, stored[i], strict=True)))

    net.observer = observe
    out = net(x)
    with around_backward:
        out.sum().backward()
    net.observer = None
    assert len(found) == len(units)
    return sum(found)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="there is no second kernel")
def test_forward_and_replay_must_use_the_same_kernels():
    """As cuDNN's autotuning might choose others, so do oneDNN's kernels here, switched off in between."""
    net, x = network(conv, 12, EXACT), torch.randn(4, 2 * WIDTH, 6, 6)
    assert differing(net, x, nullcontext()) == 0
    assert differing(net, x, torch.backends.mkldnn.flags(enabled=False)) > 100


class Unsteady(nn.Module):
    """Adds up in another order each time, as atomic sums on a GPU may."""

    def __init__(self):
        super().__init__()
        self.hidden = SimpleNamespace(calls=0)

    def forward(self, x):
        self.hidden.calls += 1
        order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(self.hidden.calls))
        total = torch.zeros_like(x[:, :1])
        for i in order:
            total = total + x[:, i : i + 1] / 3
        return total.expand_as(x)


def test_a_function_that_is_not_deterministic_is_measured_and_not_hidden():
    torch.manual_seed(0)
    batch = torch.randn(64, 2 * WIDTH), torch.randint(2 * WIDTH, (64,))
    for f, is_exact in ((Unsteady(), False), (nn.Tanh(), True)):
        net = ReversibleSequence([ReversibleBlock(f, nn.Linear(WIDTH, WIDTH))])
        net.set_precision(Precision(coupling="exact", grid_bits=20))
        assert (fidelity(net, batch).reconstruction_rel_error == 0) == is_exact


@pytest.mark.parametrize("precision", [EXACT, Precision(compute="bf16", coupling="exact"), None])
@pytest.mark.parametrize("place", ["forward", "backward"])
def test_autocast_around_one_pass_alone_changes_nothing(precision, place):
    """A policy overrules it; without one, the replay restores what was in force in the forward pass."""
    net = network(conv, 9, EXACT)
    net.set_precision(precision)
    for unit in net.units():
        unit.coupling = "exact"
    x = torch.randn(4, 2 * WIDTH, 6, 6)
    inside = torch.autocast("cpu", dtype=torch.bfloat16)
    if place == "backward":
        assert differing(net, x, inside) == 0
        return
    with inside:
        assert differing(net, x, torch.autocast("cpu", enabled=False)) == 0


class Scaled(nn.Module):
    """A linear map with results of a chosen size."""

    def __init__(self, scale):
        super().__init__()
        self.map, self.scale = nn.Linear(WIDTH, WIDTH), scale

    def forward(self, x):
        return self.scale * self.map(x)


@pytest.mark.parametrize(
    ("scale", "compute", "dtype", "is_exact"),
    [
        (1, "bf16", torch.float32, True),
        (2.0**-20, "bf16", torch.float32, True),
        (2.0**-40, "bf16", torch.float32, False),  # last bits near 2^-53, and the streams above 1
        (1, "bf16", torch.float64, False),  # the input alone takes all 53 bits
        (2.0**-30, "fp32", torch.float32, False),
    ],
)
def test_a_float64_stream_is_exact_while_all_bits_fit(scale, compute, dtype, is_exact):
    torch.manual_seed(0)
    net = ReversibleSequence([ReversibleBlock(Scaled(scale), Scaled(scale)) for _ in range(16)])
    net.set_precision(Precision(compute=compute, stream="fp64"))
    x = torch.randn(64, 2 * WIDTH, dtype=dtype).double()
    differ, compared = off(net, x)
    assert compared == 16
    assert (differ == 0) == is_exact
