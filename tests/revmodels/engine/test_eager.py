"""The reversible engine against its naive twin: values, every gradient, statistics, random numbers."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from revmodels import Precision, ReversibleBlock, ReversibleSequence, create_model
from revmodels.engine import eager as engine
from revmodels.engine import evaluation
from revmodels.errors import DoubleBackwardError, ReplayError, ResidualError
from tests.revmodels.blocks import KINDS, assert_equal_gradients, gradients, make_input, make_sequence

EXACT = 1e-12
"""Relative error allowed in float64."""

REBUILDING = ("reverse", "checkpoint")


def compare(net, x, strategy, tolerance=EXACT):
    out, exact, buffers, state = gradients(net, "store", x)
    out_, found, buffers_, state_ = gradients(net, strategy, x)
    # Not bit for bit: without a graph, attention in eval mode takes another kernel of PyTorch's.
    torch.testing.assert_close(out_, out, rtol=EXACT, atol=EXACT)
    assert_equal_gradients(exact, found, tolerance)
    for name in buffers:
        assert torch.equal(buffers[name], buffers_[name]), f"buffer {name} moved differently"
    assert torch.equal(state, state_), "the caller's random state is not what stored mode leaves"


@pytest.mark.parametrize("strategy", REBUILDING)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_gradients_equal_stored_mode(kind, depth, strategy):
    torch.manual_seed(0)
    compare(make_sequence(kind, depth), make_input(kind), strategy)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    depth=st.integers(1, 6),
    strategy=st.sampled_from(REBUILDING),
    training=st.booleans(),
    layout=st.sampled_from(["contiguous", "transposed", "channels_last"]),
    input_grad=st.booleans(),
    frozen=st.sampled_from([None, "f", "g", "first", "all"]),
    seed=st.integers(0, 2**16),
)
def test_gradients_equal_stored_mode_in_any_combination(
    kind, depth, strategy, training, layout, input_grad, frozen, seed
):
    torch.manual_seed(seed)
    net = make_sequence(kind, depth).train(training)
    for i, block in enumerate(net.blocks):
        for name, p in block.named_parameters():
            p.requires_grad_(not (frozen in ("all", name[0]) or (frozen == "first" and i == 0)))
    x = make_input(kind, requires_grad=False)
    if layout == "transposed":
        x = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    elif layout == "channels_last" and x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    x.requires_grad_(input_grad)
    if not input_grad and not any(p.requires_grad for p in net.parameters()):
        assert not net(x).requires_grad
        return
    compare(net, x, strategy)


@pytest.mark.parametrize("depth", [64, 65])
def test_deep_smooth_network_in_float32(depth):
    torch.manual_seed(0)
    net = make_sequence("mlp", depth).float()
    x = make_input("mlp").float().detach().requires_grad_(True)
    _, exact, _, _ = gradients(net, "store", x)
    _, found, _, _ = gradients(net, "reverse", x)
    assert_equal_gradients(exact, found, 1e-5)


@pytest.mark.parametrize("name", ["revnet38", "revnet164"])
def test_networks(name):
    torch.manual_seed(0)
    fp64 = Precision(compute="fp64", stream="fp64")
    net = create_model(name, num_classes=10, depth=38, width=0.25, precision=fp64)
    compare(net, torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True), "reverse", 1e-11)


def test_backward_fills_grad_and_accumulates():
    torch.manual_seed(0)
    net, x = make_sequence("conv_basic", 3), make_input("conv_basic")
    twin = copy.deepcopy(net)
    twin.strategy = "store"
    for model in (net, twin):
        for factor in (1.0, 2.0):
            (factor * model(x).square().sum()).backward()
    assert_equal_gradients(
        {n: p.grad for n, p in twin.named_parameters()}, {n: p.grad for n, p in net.named_parameters()}, EXACT
    )


def test_two_forwards_before_backward():
    torch.manual_seed(0)
    net = make_sequence("mlp_dropout", 3)
    xs = [make_input("mlp_dropout") for _ in range(2)]

    def step(strategy):
        net.strategy = strategy
        torch.manual_seed(7)
        a, b = net(xs[0]), net(xs[1])
        return torch.autograd.grad((a * b).sum(), [*xs, *net.parameters()])

    for exact, found in zip(step("store"), step("reverse"), strict=True):
        torch.testing.assert_close(found, exact, rtol=EXACT, atol=EXACT)


def test_module_used_twice_in_a_row_and_shared_between_f_and_g():
    torch.manual_seed(0)
    shared = KINDS["mlp"]()
    block = ReversibleBlock(shared, shared, split_dim=2)
    compare(ReversibleSequence([block, block, block], split_dim=2).double(), make_input("mlp"), "reverse")


def test_retained_graph_can_be_differentiated_again():
    torch.manual_seed(0)
    net, x = make_sequence("conv_basic", 4), make_input("conv_basic")
    loss = net(x).square().sum()
    first = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    middle = torch.autograd.grad(loss, list(net.blocks[2].parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(net.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    per_block = len(first) // 4
    assert all(torch.equal(a, b) for a, b in zip(first[2 * per_block : 3 * per_block], middle, strict=True))


def test_second_backward_without_retained_graph_is_an_error():
    net, x = make_sequence("mlp", 2), make_input("mlp")
    loss = net(x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_double_backward_is_an_error_not_a_wrong_number():
    net, x = make_sequence("mlp", 2), make_input("mlp")
    with pytest.raises(DoubleBackwardError, match="strategy='store'"):
        torch.autograd.grad(net(x).square().sum(), x, create_graph=True)


def test_gradient_penalty_on_the_parameters_in_front_of_a_sequence_is_an_error_too():
    net = create_model("revnet38", num_classes=10, depth=14, width=0.25)
    loss = net(torch.randn(2, 3, 8, 8)).square().sum()
    with pytest.raises(DoubleBackwardError):
        torch.autograd.grad(loss, list(net.stem.parameters()), create_graph=True)


@pytest.mark.parametrize("strategy", REBUILDING)
def test_graph_of_a_network_with_a_stem_can_be_retained(strategy):
    torch.manual_seed(0)
    net = create_model("revnet38", num_classes=10, depth=14, width=0.25, strategy=strategy)
    before = [b.clone() for b in net.buffers()]
    loss = net(torch.randn(2, 3, 8, 8)).square().sum()
    after = [b.clone() for b in net.buffers()]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    first, second, third = (
        torch.autograd.grad(loss, list(net.parameters()), retain_graph=keep) for keep in (True, True, False)
    )
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    assert all(torch.equal(a, b) for a, b in zip(after, net.buffers(), strict=True))


def test_hooks_on_units_run():
    net, x = make_sequence("mlp", 3), make_input("mlp")
    seen = []
    for i, unit in enumerate(net.units()):
        unit.register_forward_pre_hook(lambda *_, i=i: seen.append(("before", i)))
        unit.register_forward_hook(lambda *_, i=i: seen.append(("after", i)))
    net(x).sum().backward()
    assert seen == [(when, i) for i in range(3) for when in ("before", "after")]


@pytest.mark.parametrize("change", [lambda x: x * 2, lambda x: x.mul_(2), lambda x: x.flip(-1)])
def test_hook_that_changes_the_pair_between_units_is_an_error(change):
    net, x = make_sequence("mlp", 3), make_input("mlp")
    net.blocks[1].register_forward_hook(lambda _, __, pair: (change(pair[0]), pair[1]))
    with pytest.raises(ReplayError, match="between units 1 and 2"):
        net(x)


def test_hook_may_change_the_pair_that_leaves_the_sequence():
    net, x = make_sequence("mlp", 3), make_input("mlp")
    net.blocks[2].register_forward_hook(lambda _, __, pair: (pair[0] * 2, pair[1]))
    compare(net, x, "reverse")


def test_one_stream_used_or_detached():
    torch.manual_seed(0)
    net = make_sequence("mlp", 3)
    x1, x2 = make_input("mlp")[..., :8].detach(), make_input("mlp")[..., 8:].detach().requires_grad_(True)

    def step(strategy):
        net.strategy = strategy
        return torch.autograd.grad(net(x1, x2)[1].square().sum(), [x2, *net.parameters()], allow_unused=True)

    for exact, found in zip(step("store"), step("reverse"), strict=True):
        torch.testing.assert_close(found, exact, rtol=EXACT, atol=EXACT)


class Identity(nn.Module):
    """Returns its input itself, so that in-place updates in the engine would be seen by others."""

    def forward(self, x):
        return x


def test_residual_function_that_returns_its_input():
    net = ReversibleSequence(
        [ReversibleBlock(Identity(), Identity(), split_dim=2) for _ in range(3)], split_dim=2
    )
    compare(net, make_input("mlp"), "reverse")


def test_gradients_arrive_block_by_block():
    net, x = make_sequence("conv_basic", 4), make_input("conv_basic")
    order = []
    for i, block in enumerate(net.blocks):
        for p in block.parameters():
            p.register_post_accumulate_grad_hook(lambda _, i=i: order.append(i))
    net(x).sum().backward()
    assert order == sorted(order, reverse=True)
    assert set(order) == {0, 1, 2, 3}


def test_f_and_g_run_twice_in_a_step_and_not_three_times():
    net, x = make_sequence("mlp", 5), make_input("mlp")
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    for block in net.blocks:
        block.f.register_forward_hook(count)
        block.g.register_forward_hook(count)
    net(x).sum().backward()
    assert calls == 2 * 2 * 5


def test_only_stage_entries_and_the_final_pair_are_saved():
    net = create_model("revnet110", num_classes=10)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        y1, y2 = net.body(torch.randn(2, 16, 32, 32, requires_grad=True), torch.randn(2, 16, 32, 32))
    floats_per_image = sum(shape.numel() for shape in saved) // 2
    assert len(saved) == 2 * 4
    assert floats_per_image == 90_112
    (y1.sum() + y2.sum()).backward()


def test_inverse_undoes_forward():
    torch.manual_seed(0)
    for kind in ("conv_basic", "mlp", "attention"):
        net, x = make_sequence(kind, 7), make_input(kind)
        with torch.no_grad():
            running = {n: b.clone() for n, b in net.named_buffers()}
            y = net(x)
            moved = {n: b.clone() for n, b in net.named_buffers()}
            rebuilt = net.inverse(y)
        assert all(torch.equal(b, moved[n]) for n, b in net.named_buffers())
        assert kind != "conv_basic" or any(not torch.equal(running[n], moved[n]) for n in running)
        torch.testing.assert_close(rebuilt, x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_of_the_forward_is_in_force_in_the_replay(dtype):
    torch.manual_seed(0)
    seen = []

    class Probe(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    net = ReversibleSequence([ReversibleBlock(Probe(8, 8), Probe(8, 8)) for _ in range(2)])
    with torch.autocast("cpu", dtype=dtype):
        out = net(torch.randn(4, 16))
    out.float().sum().backward()
    assert seen == [dtype] * 8


def test_in_place_change_of_the_output_is_noticed():
    net, x = make_sequence("mlp", 2), make_input("mlp")
    y1, y2 = net(x[..., :8], x[..., 8:])
    y1.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (y1.sum() + y2.sum()).backward()


def test_parameter_changed_between_forward_and_backward_is_noticed():
    net, x = make_sequence("mlp", 2), make_input("mlp")
    loss = net(x).sum()
    with torch.no_grad():
        next(net.parameters()).add_(1)
    with pytest.raises(ReplayError, match="modified in place between forward and backward"):
        loss.backward()


def test_parameter_frozen_between_forward_and_backward_is_noticed():
    net, x = make_sequence("mlp", 2), make_input("mlp")
    loss = net(x).sum()
    next(net.parameters()).requires_grad_(False)
    with pytest.raises(ReplayError, match="frozen or unfrozen"):
        loss.backward()


def test_shape_changing_residual_function_is_named():
    net = ReversibleSequence([ReversibleBlock(nn.Linear(4, 1), nn.Linear(4, 4))])
    with pytest.raises(ResidualError, match=r"keep the shape.*\(2, 4\).*\(2, 1\)"):
        net(torch.randn(2, 8))


def test_tuple_returning_residual_function_is_named():
    net = ReversibleSequence([ReversibleBlock(nn.LSTM(4, 4), nn.Linear(4, 4))])
    with pytest.raises(ResidualError, match="LSTM returned tuple"):
        net(torch.randn(2, 8))


def test_suite_can_fail_statistics(monkeypatch):
    """An engine that lets batch norm move in the replay is caught."""
    from contextlib import nullcontext

    monkeypatch.setattr(evaluation, "frozen_statistics", lambda layers: nullcontext())
    with pytest.raises(AssertionError, match="buffer"):
        compare(make_sequence("conv_basic", 2), make_input("conv_basic"), "reverse")


def test_suite_can_fail_random_numbers(monkeypatch):
    """An engine that draws new dropout masks in the replay is caught."""
    from contextlib import nullcontext

    monkeypatch.setattr(evaluation.RandomState, "restored", lambda self: nullcontext())
    with pytest.raises(AssertionError):
        compare(make_sequence("mlp_dropout", 2), make_input("mlp_dropout"), "reverse")


def test_suite_can_fail_gradients(monkeypatch):
    """An engine that forgets the direct path of a gradient is caught."""
    monkeypatch.setattr(engine, "_plus", lambda a, b: a if a is not None else b)
    with pytest.raises(AssertionError, match="relative error"):
        compare(make_sequence("mlp", 2), make_input("mlp"), "reverse")
