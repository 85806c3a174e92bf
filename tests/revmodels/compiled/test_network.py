"""`torch.compile` against the eager network: values, gradients, statistics, memory, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.utils import counters

from revmodels import Precision, ReversibleBlock, ReversibleSequence, create_model
from revmodels.compiled import random_numbers as seeded
from tests.revmodels.blocks import (
    CHANNELS,
    KINDS,
    assert_equal_gradients,
    gradients,
    make_input,
    make_sequence,
)

EXACT = 1e-10
"""Relative error allowed in float64."""


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compile_fully(net, backend="aot_eager"):
    return torch.compile(net, fullgraph=True, backend=backend)


def compare(net, compiled, x, strategy, tolerance=EXACT):
    """One step of `compiled` with `strategy` against a stored step of the network it was made of."""
    out, exact, buffers, _ = gradients(net, "store", x)
    net.strategy = strategy
    out_, found, buffers_, _ = gradients(compiled, strategy, x)
    torch.testing.assert_close(out_, out, rtol=tolerance, atol=tolerance)
    assert_equal_gradients(exact, {n.removeprefix("_orig_mod."): g for n, g in found.items()}, tolerance)
    for name, b in buffers_.items():
        expected = buffers[name.removeprefix("_orig_mod.")]
        torch.testing.assert_close(b, expected, rtol=tolerance, atol=tolerance, msg=f"buffer {name}")


def make_network(name, depth):
    torch.manual_seed(0)
    precision = Precision(compute="fp64", stream="fp64")
    net = create_model(name, num_classes=10, depth=depth, width=0.25, precision=precision)
    return net, torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)


def saved_bytes(net, x):
    """Bytes kept for the backward pass beyond the parameters, each storage once."""
    own = {p.untyped_storage()._cdata for p in net.parameters()}
    saved = {}

    def pack(t):
        if t.untyped_storage()._cdata not in own:
            saved[t.untyped_storage()._cdata] = t.untyped_storage().nbytes()
        return t

    net(x)  # What tracing saves is no part of a step.
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        net(x)
    return sum(saved.values())


class Regions:
    """A backend that runs a graph as it is, and counts the units' regions in it and their graphs."""

    def __init__(self):
        self.compilations = self.calls = self.graphs = 0

    def __call__(self, graph, inputs):
        targets = [n.args[1] for n in graph.graph.nodes if n.target is torch.ops.higher_order.invoke_subgraph]
        self.compilations += 1
        self.calls, self.graphs = len(targets), len(set(targets))
        return graph


def test_network_switched_between_strategies():
    net, x = make_network("revnet38", 26)
    compiled = compile_fully(net)
    for strategy in ("reverse", "store", "reverse"):
        compare(net, compiled, x, strategy)
    assert counters["stats"]["unique_graphs"] == 2


def test_bottleneck_network():
    net, x = make_network("revnet164", 20)
    compare(net, compile_fully(net), x, "reverse")


@pytest.mark.parametrize("strategy", ["reverse", "checkpoint"])
def test_inductor(strategy):
    torch.manual_seed(0)
    net = make_sequence("conv_basic", 2)
    compare(net, compile_fully(net, "inductor"), make_input("conv_basic"), strategy)


def test_no_graph_is_taken_from_another_process():
    """A cached graph would be found by the names of templates, which say nothing about F and G."""
    net, x = make_sequence("mlp", 1), make_input("mlp")
    compile_fully(net, "inductor")(x).sum().backward()
    assert counters["aot_autograd"]["autograd_cache_bypass"] == 1
    assert counters["aot_autograd"]["autograd_cache_saved"] == 0


def test_attention_and_mlp_of_a_user():
    torch.manual_seed(0)
    blocks = [ReversibleBlock(KINDS["attention"](), KINDS["mlp"](), split_dim=2) for _ in range(3)]
    net = ReversibleSequence(blocks, split_dim=2).double()
    compare(net, compile_fully(net), make_input("mlp"), "reverse")


def test_batch_norm_in_eval_mode():
    torch.manual_seed(0)
    net, x = make_sequence("conv_bottleneck", 2), make_input("conv_bottleneck")
    net(x)
    compare(net.eval(), compile_fully(net), x, "reverse")


def test_checkpoint_moves_batch_norm_once():
    torch.manual_seed(0)
    net = make_sequence("conv_basic", 2)
    compare(net, compile_fully(net), make_input("conv_basic"), "checkpoint")


def test_graph_breaks_around_the_units():
    torch.manual_seed(0)

    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.sequences = nn.ModuleList(make_sequence("mlp", 1) for _ in range(2))

        def forward(self, x):
            x = self.sequences[0](x)
            torch._dynamo.graph_break()
            return self.sequences[1](x)

        strategy = property(lambda self: None)

        @strategy.setter
        def strategy(self, value):
            for sequence in self.sequences:
                sequence.strategy = value

    net = Broken()
    compare(net, torch.compile(net, backend="aot_eager"), make_input("mlp"), "reverse")
    assert sum(counters["graph_break"].values()) == 1


def test_frozen_unused_and_shared_parameters():
    torch.manual_seed(0)
    shared = KINDS["mlp"]()
    shared.unused = nn.Parameter(torch.randn(3))
    block = ReversibleBlock(shared, shared, split_dim=2)
    other = ReversibleBlock(KINDS["mlp"](), KINDS["mlp"](), split_dim=2)
    other.f.requires_grad_(False)
    net = ReversibleSequence([other, block, block], split_dim=2).double()
    compare(net, compile_fully(net), make_input("mlp", requires_grad=False), "reverse")


def test_batch_norm_used_twice():
    torch.manual_seed(0)
    block = ReversibleBlock(KINDS["conv_basic"](), KINDS["conv_basic"]())
    net = ReversibleSequence([block, block]).double()
    compare(net, compile_fully(net), make_input("conv_basic"), "reverse")


def test_other_batch_sizes():
    torch.manual_seed(0)
    net = make_sequence("mlp", 2)
    compiled = compile_fully(net)
    for batch in (4, 3, 7):
        compare(net, compiled, make_input("mlp", batch), "reverse")
    assert counters["stats"]["unique_graphs"] == 2, "one for the first batch, one for all others"


def directional_error(compiled, x, parameter):
    """Gradients of x and `parameter` along a random direction against central differences."""

    def loss(x):
        torch.manual_seed(5)
        return compiled(x).square().sum()

    dx, dp = torch.autograd.grad(loss(x), (x, parameter))
    along_x, along_p, step = torch.randn_like(x), torch.randn_like(parameter), 1e-6
    found = (dx * along_x).sum() + (dp * along_p).sum()
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.add_(sign * step * along_p)
        losses.append(loss((x + sign * step * along_x).detach().requires_grad_()).detach())
        with torch.no_grad():
            parameter.sub_(sign * step * along_p)
    expected = (losses[0] - losses[1]) / (2 * step)
    return ((found - expected) / expected).abs().item()


def test_dropout_replays_the_mask_of_the_forward_pass():
    torch.manual_seed(0)
    net, x = make_sequence("mlp_dropout", 3), make_input("mlp_dropout")
    compiled = compile_fully(net)
    assert directional_error(compiled, x, net.blocks[1].f[0].weight) < 1e-6
    assert not torch.equal(compiled(x), compiled(x)), "every call draws anew"
    dropped_rows = saved_bytes(compiled, x) - 2 * x.numel() * 8 // 2
    assert dropped_rows == 2 * 3 * 8, "one seed for each draw"


def test_suite_can_fail_masks(monkeypatch):
    """A replay that draws new masks is caught."""
    start = seeded.Seeded.__init__
    monkeypatch.setattr(
        seeded.Seeded, "__init__", lambda self, seeds=None, after=None: start(self, None, after)
    )
    torch.manual_seed(0)
    net, x = make_sequence("mlp_dropout", 3), make_input("mlp_dropout")
    assert directional_error(compile_fully(net), x, net.blocks[1].f[0].weight) > 1e-2


@pytest.mark.parametrize("ambient", [True, False])
def test_bfloat16_of_the_forward_is_in_force_in_the_replay(ambient):
    torch.manual_seed(0)
    net, x = make_sequence("mlp", 2).float(), make_input("mlp").detach().float().requires_grad_()

    def step(call, strategy):
        net.strategy = strategy
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=ambient):
            out = call(x)
        return torch.autograd.grad(out.square().sum(), [x, *net.parameters()])

    full = step(net, "store") if not ambient else None
    if not ambient:
        net.set_precision(Precision(compute="bf16"))
    exact = step(net, "store")
    found = step(compile_fully(net), "reverse")
    for a, b in zip(exact, found, strict=True):
        # Rebuilt inputs differ in the last bit of float32, which bfloat16 rounds away or, now and then, up.
        assert (a - b).norm() / a.norm() < 1e-3
    if full is not None:
        assert max((a - b).norm() / a.norm() for a, b in zip(exact, full, strict=True)) > 2e-3


def test_saved_bytes_are_the_output_pair_at_any_depth():
    x = make_input("conv_basic")
    found = [saved_bytes(compile_fully(make_sequence("conv_basic", depth)), x) for depth in (1, 3)]
    assert found == [x.numel() * 8] * 2


def test_stage_entries_save_their_input_and_nothing_else():
    net, _ = make_network("revnet38", 14)
    x = torch.randn(2, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    streams = [(4, 8), (4, 8), (8, 4), (14, 2)]
    unread = 2 * 4 * 8 * 8 * 8  # The first entry's shortcuts are identities: nothing needs its x1 again.

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = net.body

        def forward(self, x):
            return self.body(*x.chunk(2, 1))

    found = saved_bytes(compile_fully(Body()), x)
    assert found == sum(2 * 2 * channels * side * side * 8 for channels, side in streams) - unread


def test_equal_units_share_a_graph():
    regions = Regions()
    compile_fully(make_sequence("conv_basic", 3), regions)(make_input("conv_basic"))
    assert (regions.calls, regions.graphs) == (3, 1)


class Activated(nn.Module):
    """A layer whose function is an attribute."""

    def __init__(self, function):
        super().__init__()
        self.layer = nn.Linear(CHANNELS, CHANNELS)
        self.function = function
        self.scale = 1.0

    def forward(self, x):
        return self.scale * self.function(self.layer(x))


def test_units_that_differ_do_not_share_a_graph():
    torch.manual_seed(0)
    units = [ReversibleBlock(Activated(fn), Activated(fn), split_dim=2) for fn in (F.gelu, F.silu, F.gelu)]
    net = ReversibleSequence(units, split_dim=2).double()
    compare(net, compile_fully(net), make_input("mlp"), "reverse")


def test_changed_settings_are_noticed():
    torch.manual_seed(0)
    net = ReversibleSequence([ReversibleBlock(Activated(F.gelu), nn.Dropout(0.0), split_dim=2)], split_dim=2)
    net, x = net.double(), make_input("mlp")
    compiled = compile_fully(net)
    compare(net, compiled, x, "reverse")
    net.blocks[0].f.scale = 2.0
    compare(net, compiled, x, "reverse")
    net.blocks[0].f.function = torch.tanh
    compare(net, compiled, x, "reverse")
    net.blocks[0].g = nn.Tanh()
    compare(net, compiled, x, "reverse")


def test_more_structures_than_a_region_may_have_by_default():
    units = [
        ReversibleBlock(nn.Linear(2, 2), nn.Sequential(*[nn.Tanh()] * n)) for n in range(9) for _ in range(2)
    ]
    regions = Regions()
    compile_fully(ReversibleSequence(units), regions)(torch.randn(2, 4, requires_grad=True))
    assert (regions.calls, regions.graphs) == (18, 9)


class Undecided(nn.Module):
    """A function whose course depends on a value."""

    def forward(self, x):
        return x.relu() if x.sum().item() > 0 else x.tanh()


def test_function_that_cannot_be_traced_is_named():
    net = ReversibleSequence([ReversibleBlock(nn.Linear(4, 4), g) for g in (nn.Linear(4, 4), Undecided())])
    with pytest.raises(Exception, match=r"cannot trace blocks\.1\.g \(Undecided\)"):
        compile_fully(net)(torch.randn(2, 8))


def test_observed_network_runs_outside_the_graph():
    torch.manual_seed(0)
    net, x = make_sequence("mlp", 3), make_input("mlp")
    compiled = torch.compile(net, backend="aot_eager")
    seen = []
    net.observer = lambda index, x1, x2: seen.append(index)
    compare(net, compiled, x, "reverse")
    assert seen == [2, 1, 0]


def test_exact_coupling_is_refused_in_a_full_graph_and_runs_uncompiled_otherwise():
    net, x = make_sequence("mlp", 2), make_input("mlp")
    net.set_precision(Precision(compute="fp64", stream="fp64", coupling="exact"))
    with pytest.raises(Exception, match="exact coupling needs one kernel"):
        compile_fully(net)(x)
    torch._dynamo.reset()
    compare(net, torch.compile(net, backend="aot_eager"), x, "reverse", tolerance=0)
    assert net.range.block >= -1
