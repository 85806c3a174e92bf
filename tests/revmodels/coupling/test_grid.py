"""Exact coupling: rebuilt streams and gradients equal the stored ones bit for bit, or an error says so."""

import copy
import math

import pytest
import torch
from torch import nn

from revmodels import Precision, ReversibleBlock, ReversibleSequence, create_model
from revmodels.coupling.grid import to_grid
from revmodels.errors import PrecisionError, RangeError
from revmodels.grid_bits import DEFAULT_BITS, grid_limit
from revmodels.measure import peak_memory, predict_memory
from revmodels.models.layers import UnitOptions, residual_function
from tests.covering import wide
from tests.revmodels.blocks import gradients

WIDTH = 8


def conv(channels=WIDTH):
    return residual_function(channels, channels, 1, UnitOptions(bottleneck=False))


def mlp():
    return nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))


def network(make, depth, precision, strategy="reverse"):
    torch.manual_seed(0)
    net = ReversibleSequence([ReversibleBlock(make(), make()) for _ in range(depth)], strategy)
    net.set_precision(precision)
    return net.to(precision.parameter_dtype)


def off(net, x):
    """How many numbers of all rebuilt pairs differ from the stored ones, and the pairs compared."""
    stored, differ, compared = {}, 0, 0
    hooks = [
        unit.register_forward_pre_hook(lambda _, pair, i=i: stored.__setitem__(i, [t.detach() for t in pair]))
        for i, unit in enumerate(net.units())
    ]
    before = copy.deepcopy(dict(net.named_buffers()))
    net.strategy = "store"
    net(x)
    for hook in hooks:
        hook.remove()
    for name, b in net.named_buffers():
        b.copy_(before[name])

    def observe(i, *pair):
        nonlocal differ, compared
        compared += 1
        differ += sum(int((a != b).sum()) for a, b in zip(pair, stored[i], strict=True))

    net.strategy, net.observer = "reverse", observe
    net(x).sum().backward()
    net.observer = None
    return differ, compared


def train(net, x, target, *, steps, lr):
    """Minimize the mean square; the parameters before, and the loss before each step."""
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = (net(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return before, losses


COMPUTE = [("fp64", "fp64"), ("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "fp64")]


@pytest.mark.parametrize(("compute", "stream"), COMPUTE)
@pytest.mark.parametrize("depth", [1, 2, 33])
def test_convolutions_are_rebuilt_bit_for_bit(compute, stream, depth):
    precision = Precision(compute=compute, stream=stream, coupling="exact")
    net = network(conv, depth, precision)
    x = 3 * torch.randn(4, 2 * WIDTH, 6, 6, dtype=precision.stream_dtype)
    assert off(net, x) == (0, depth)
    assert 1 < net.range.value < net.range.limit


@pytest.mark.parametrize(("compute", "stream"), [COMPUTE[1], *wide(COMPUTE[0], COMPUTE[2])])
def test_1024_blocks_are_rebuilt_bit_for_bit_before_and_after_training(compute, stream):
    precision = Precision(compute=compute, stream=stream, coupling="exact")
    net = network(mlp, 1024, precision)
    x = torch.randn(4, 2 * WIDTH, dtype=precision.stream_dtype)
    assert off(net, x) == (0, 1024)
    before, losses = train(net, x, torch.randn_like(x), steps=3, lr=1e-3)
    assert losses[-1] < losses[0]
    assert all((p != q).any() for p, q in zip(net.parameters(), before, strict=True))
    assert off(net, x) == (0, 1024)


def test_fp16_arithmetic_is_rebuilt_bit_for_bit():
    net = network(mlp, 9, Precision(compute="fp16", coupling="exact"))
    assert off(net, torch.randn(4, 2 * WIDTH)) == (0, 9)


def test_additive_coupling_is_not_exact():
    """The comparison above can fail."""
    differ, compared = off(network(conv, 9, Precision()), torch.randn(4, 2 * WIDTH, 6, 6))
    assert compared == 9
    assert differ > 100


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_rebuilding_stays_exact_through_training(compute):
    net = network(conv, 12, Precision(compute=compute, coupling="exact"))
    x, target = torch.randn(8, 2 * WIDTH, 6, 6), torch.randn(8, 2 * WIDTH, 6, 6)
    _, losses = train(net, x, target, steps=12, lr=0.05)
    assert losses[-1] < 0.7 * losses[0], "the network learns through the rounding"
    assert off(net, x) == (0, 12)


@pytest.mark.parametrize("compute", ["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("depth", [1, 2, 7, 8])
@pytest.mark.parametrize("make", [conv, mlp])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_equal_stored_mode_bit_for_bit(make, depth, compute, layout):
    precision = Precision(compute=compute, stream="fp64" if compute == "fp64" else "fp32", coupling="exact")
    net = network(make, depth, precision)
    x = torch.randn(4, 2 * WIDTH, 6, 6) if make is conv else torch.randn(4, 2 * WIDTH)
    if make is conv:
        x = x.contiguous(memory_format=layout)
        net = net.to(memory_format=layout)
    x = x.to(precision.stream_dtype).requires_grad_(True)
    assert_bitwise_twins(net, x)


def assert_bitwise_twins(net, x, strategies=("reverse", "checkpoint")):
    out, exact, buffers, _ = gradients(net, "store", x)
    for strategy in strategies:
        out_, found, buffers_, _ = gradients(net, strategy, x)
        assert torch.equal(out, out_)
        assert found.keys() == exact.keys()
        assert all(torch.equal(found[n], exact[n]) for n in exact), strategy
        assert all(torch.equal(buffers[n], buffers_[n]) for n in buffers)
        assert any(g.abs().max() > 0 for g in exact.values())


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "depth"), [("revnet38", 38), ("revnet164", 38)])
def test_gradients_of_networks_equal_stored_mode_bit_for_bit(name, depth, compute):
    """With stage entries that pool (basic units) and that project (bottlenecks)."""
    torch.manual_seed(0)
    precision = Precision(compute=compute, coupling="exact")
    net = create_model(name, num_classes=10, depth=depth, width=0.25, precision=precision)
    assert_bitwise_twins(net, torch.randn(4, 3, 16, 16, requires_grad=True), ("reverse",))


def test_gradients_of_additive_coupling_differ():
    """The comparison above can fail."""
    with pytest.raises(AssertionError, match="reverse"):
        assert_bitwise_twins(network(conv, 7, Precision()), torch.randn(4, 2 * WIDTH, 6, 6), ("reverse",))


def test_streams_of_a_network_lie_on_the_grid():
    torch.manual_seed(0)
    precision = Precision(coupling="exact", grid_bits=10)
    net = create_model("revnet38", num_classes=10, width=0.25, precision=precision)
    pairs = []
    for unit in list(net.body.units())[1:]:
        unit.register_forward_pre_hook(lambda _, pair: pairs.extend(pair))
    with torch.no_grad():
        net(torch.randn(4, 3, 16, 16))
    assert len(pairs) == 16
    assert all(torch.equal(t * 1024, (t * 1024).round()) for t in pairs)
    assert max(t.abs().max() for t in pairs) == net.body.range.value


def test_rounding_is_to_the_nearest_multiple_and_its_gradient_the_identity():
    x = torch.tensor([0.0, 0.124, 0.126, -0.126, 0.125, 0.375, 1e30], requires_grad=True)
    y = to_grid(x, 2)
    assert y.tolist() == [0.0, 0.0, 0.25, -0.25, 0.0, 0.5, torch.tensor(1e30).item()]
    (dx,) = torch.autograd.grad((y * torch.arange(7.0)).sum(), x)
    assert dx.tolist() == list(range(7))
    assert all(torch.isnan(to_grid(torch.tensor([math.nan]), 14)))


class Growing(nn.Module):
    """Returns the double of its input, so that a stream of ones leaves any range."""

    def forward(self, x):
        return 2 * x


def growing(depth, **policy):
    return network(Growing, depth, Precision(coupling="exact", **policy))


@pytest.mark.parametrize("strategy", ["reverse", "store", "checkpoint"])
@pytest.mark.parametrize("grad", [True, False])
def test_overflow_names_the_block_the_value_and_the_grid_that_would_fit(strategy, grad):
    # Streams (1, 1), (3, 7), (17, 41), (99, 239), (577, 1393).
    net = growing(4, grid_bits=16)
    net.strategy = strategy
    with torch.set_grad_enabled(grad), pytest.raises(RangeError) as caught:
        net(torch.ones(2, 4, requires_grad=True))
    text = str(caught.value)
    assert "grid_bits=16 holds values below 256; the output of block 3 left that range" in text
    assert "largest value is 1393" in text
    assert "grid_bits=13 would fit" in text
    net.set_precision(Precision(coupling="exact", grid_bits=13))
    net(torch.ones(2, 4, requires_grad=True))
    assert net.range.value == 1393
    net.set_precision(Precision(coupling="exact", grid_bits=14))
    with pytest.raises(RangeError, match="holds values below 1024"):
        net(torch.ones(2, 4, requires_grad=True))


def test_overflow_can_be_recorded_instead():
    net = growing(6, grid_bits=16, on_overflow="record")
    assert net.range is None
    x = torch.rand(2, 4).requires_grad_(True)
    net(x).sum().backward()
    seen = net.range
    assert seen.overflowed
    assert seen.limit == 256
    assert seen.block in (3, 4)
    assert grid_limit(seen.fitting_bits, torch.float32) > seen.value
    assert grid_limit(seen.fitting_bits + 1, torch.float32) <= seen.value
    net(x * 1e-3)
    assert not net.range.overflowed
    net.set_precision(Precision())
    net(x)
    assert net.range is None


def test_values_that_are_not_finite_are_named_with_their_first_block():
    net = growing(5)
    net.blocks[2].f = nn.Threshold(math.inf, math.nan)
    with pytest.raises(RangeError, match=r"output of block 2 .* is nan\. No grid holds that"):
        net(torch.ones(2, 4))


def test_input_beyond_the_range_is_named():
    with pytest.raises(RangeError, match="the input of the first block left"):
        growing(1)(torch.full((2, 4), 2000.0))


def test_range_is_read_once_in_a_forward_pass(monkeypatch):
    """However deep the network is, the host waits for the device once."""
    reads = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: reads.append(t.shape) or tolist(t))
    net = network(conv, 9, Precision(coupling="exact"))
    net(torch.randn(2, 2 * WIDTH, 6, 6)).sum().backward()
    assert len(reads) == 1
    net.set_precision(Precision(coupling="exact", on_overflow="record"))
    net(torch.randn(2, 2 * WIDTH, 6, 6)).sum().backward()
    assert len(reads) == 1


def test_a_block_by_itself_is_exact_and_watched():
    torch.manual_seed(0)
    block = ReversibleBlock(conv(), conv(), coupling="exact")
    x = to_grid(torch.randn(4, 2 * WIDTH, 6, 6), DEFAULT_BITS[torch.float32])
    assert torch.equal(block.inverse(block(x)), x)
    with pytest.raises(RangeError, match="input of the first block"):
        block(5000 + x)


def test_sequence_of_exact_blocks_without_a_policy():
    torch.manual_seed(0)
    net = ReversibleSequence([ReversibleBlock(conv(), conv(), coupling="exact") for _ in range(5)])
    x = to_grid(torch.randn(4, 2 * WIDTH, 6, 6), DEFAULT_BITS[torch.float32])
    with torch.no_grad():
        assert torch.equal(net.inverse(net(x)), x)
    assert off(net, x) == (0, 5)
    with pytest.raises(PrecisionError, match="received a bfloat16 stream"):
        net(x.bfloat16())


def test_a_sequence_has_one_coupling():
    net = ReversibleSequence([ReversibleBlock(mlp(), mlp()), ReversibleBlock(mlp(), mlp(), coupling="exact")])
    with pytest.raises(PrecisionError, match="additive and exact with grid_bits=14"):
        net(torch.randn(2, 2 * WIDTH))


def test_suite_can_fail_an_inverse_that_forgets_the_grid(monkeypatch):
    """An engine that subtracts unrounded results is caught."""
    separated = ReversibleBlock.separated
    monkeypatch.setattr(
        ReversibleBlock,
        "separated",
        lambda self, numbers, y, z, r, side: separated(self, numbers, y, z, r * (1 + 1e-6), side),
    )
    differ, _ = off(network(conv, 3, Precision(coupling="exact")), torch.randn(4, 2 * WIDTH, 6, 6))
    assert differ > 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"stream": "bf16"}, ["bfloat16 stream", "stream='fp32' or 'fp64'", "still compute in bf16"]),
        ({"stream": "fp16", "compute": "fp16"}, ["float16 stream", "8 or 11 bits"]),
        ({"grid_bits": 24}, ["from 0 to 23", "received 24"]),
        ({"grid_bits": -1}, ["received -1"]),
        ({"grid_bits": True}, ["received True"]),
        ({"stream": "fp64", "grid_bits": 53}, ["from 0 to 52"]),
        ({"coupling": "additive", "grid_bits": 14}, ["only coupling='exact' has a grid", "Leave it out"]),
        ({"on_overflow": "ignore"}, ["'ignore' is not one of: raise, record"]),
    ],
)
def test_pairs_that_contradict_each_other_are_refused(arguments, words):
    with pytest.raises(PrecisionError) as caught:
        Precision(**{"coupling": "exact", **arguments})
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_resnet_has_no_coupling():
    with pytest.raises(PrecisionError, match="resnet32 has no coupled streams"):
        create_model("resnet32", num_classes=10, precision=Precision(coupling="exact"))


@pytest.mark.parametrize("on_overflow", ["raise", "record"])
def test_memory_of_an_exact_network_is_flat_to_the_byte_and_predictable_after_a_step(on_overflow):
    found = []
    for depth in (26, 50, 98):
        precision = Precision(coupling="exact", on_overflow=on_overflow)
        model = create_model("revnet38", num_classes=10, depth=depth, width=0.25, precision=precision)
        batch = torch.randn(8, 3, 16, 16), torch.randint(10, (8,))
        found.append(peak_memory(model, batch).activation_bytes)
        assert model.body.range.value > 0
        assert predict_memory(model, batch).activation_bytes == found[-1]
    assert len(set(found)) == 1
