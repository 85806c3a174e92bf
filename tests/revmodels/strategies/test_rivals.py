"""Strategies that need no inverse: the stored network's numbers as promised, in bytes as predicted."""

import gc
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from revmodels import Precision, ReversibleBlock, ReversibleSequence, create_model
from revmodels.errors import ReplayError, StrategyError
from revmodels.measure import flops, peak_memory, predict_memory
from revmodels.memory.tracker import Tracker
from revmodels.models.cross_entropy import mean_loss
from revmodels.strategies.quantized import GROUP, LARGEST, _In8Bits
from revmodels.strategies.registry import find_strategy
from revmodels.strategies.segments import segments_of
from tests.covering import wide
from tests.revmodels.blocks import KINDS, gradients, make_input, make_sequence

RIVALS = ("checkpoint", "segments", "recursive", "selective", "offload", "quantized")
FP64 = Precision(compute="fp64", stream="fp64")
NETWORKS = {
    "gpt": ("gpt_100k", {"depth": 5}),
    "revgpt": ("revgpt_100k", {"depth": 5}),
    "resnet": ("resnet32", {"depth": 20, "width": 0.5, "num_classes": 10}),
    "revnet": ("revnet38", {"depth": 26, "width": 0.25, "num_classes": 10}),
}


def network(kind, strategy="store", precision=None):
    torch.manual_seed(0)
    name, options = NETWORKS[kind]
    return create_model(name, strategy=strategy, precision=precision, **options)


def batch_of(kind, dtype=torch.float32, length=64):
    generator = torch.Generator().manual_seed(0)
    if "gpt" in kind:
        rows = torch.randint(256, (4, length), generator=generator)
        return (rows, rows.roll(-1, 1)), rows
    return torch.randn(8, 3, 16, 16, generator=generator, dtype=dtype), torch.arange(8)


def loss_of(kind):
    return mean_loss if "gpt" in kind else F.cross_entropy


def error(found, exact):
    """Of all gradients together."""
    off = sum((a - b).square().sum() for a, b in zip(found, exact, strict=True))
    return (off / sum(b.square().sum() for b in exact)).sqrt().item()


def step(model, kind):
    inputs, targets = batch_of(kind, torch.float64)
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    return torch.autograd.grad(loss_of(kind)(model(*inputs), targets), list(model.parameters()))


@pytest.mark.parametrize("strategy", RIVALS)
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_give_the_stored_numbers_within_what_is_promised(kind, strategy):
    """Output, statistics and random numbers are those of storing; gradients as near as the strategy says."""
    net, x = make_sequence(kind, depth=5), make_input(kind)
    exact, own, statistics, state = gradients(net, "store", x)
    output, found, moved, after = gradients(net, strategy, x)
    assert torch.equal(output, exact)
    assert torch.equal(after, state)
    assert all(torch.equal(moved[name], b) for name, b in statistics.items())
    names = [name for name, g in own.items() if g is not None]
    assert names == [name for name, g in found.items() if g is not None]
    off = error([found[n] for n in names], [own[n] for n in names])
    assert off <= find_strategy(strategy).tolerance
    assert (off > 1e-6) == (strategy == "quantized"), "what is not exact is seen not to be"


@pytest.mark.parametrize("strategy", RIVALS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_give_the_stored_gradients_within_what_is_promised(kind, strategy):
    exact, found = (step(network(kind, s, FP64), kind) for s in ("store", strategy))
    assert error(found, exact) <= find_strategy(strategy).tolerance


@pytest.mark.parametrize("strategy", RIVALS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_prediction_equals_measurement_to_the_byte(kind, strategy):
    model, batch, loss = network(kind, strategy), batch_of(kind), loss_of(kind)
    measured = peak_memory(model, batch, torch.optim.AdamW, loss=loss)
    assert predict_memory(model, batch, torch.optim.AdamW, loss=loss) == measured
    stored = peak_memory(network(kind), batch, torch.optim.AdamW, loss=loss)
    assert measured.saved_bytes < stored.saved_bytes
    assert (measured.offloaded_bytes > 0) == (strategy == "offload")


def test_what_is_kept_is_in_the_order_that_the_strategies_promise():
    saved = {
        s: predict_memory(network("gpt", s), batch_of("gpt"), loss=mean_loss) for s in (*RIVALS, "store")
    }
    kept = {s: use.saved_bytes for s, use in saved.items()}
    assert kept["checkpoint"] < kept["quantized"] < kept["selective"] < kept["store"]
    assert kept["segments"] < kept["checkpoint"]
    of_units = kept["store"] - kept["offload"]
    moved = saved["offload"].offloaded_bytes
    assert 0.9 * of_units < moved <= of_units, "of a slice that is saved, what lies beside it is not moved"
    assert kept["quantized"] - kept["offload"] < of_units / 3, "8 bits of 32, a scale, and what is small"


def test_segments_are_the_square_root_of_the_units_and_of_equal_length():
    for units in range(60):
        found = segments_of(units)
        assert [i for segment in found for i in segment] == list(range(units))
        assert len(found) == min(units, max(1, round(units**0.5)))
        assert not found or max(map(len, found)) - min(map(len, found)) <= 1


def test_operations_that_are_done_again():
    tokens, ratio = batch_of("gpt")[1], {}
    for strategy in (*RIVALS, "store"):
        ratio[strategy] = flops(network("gpt", strategy), tokens).ratio
    assert ratio["store"] == ratio["offload"] == ratio["quantized"] < ratio["selective"] < ratio["checkpoint"]
    assert ratio["checkpoint"] <= ratio["segments"] < ratio["store"] + 1 / 3 + 0.02


def test_selective_keeps_attention_and_the_first_of_two_products():
    model = network("gpt", "selective")
    tokens = batch_of("gpt")[1]
    shape, n = model.architecture, tokens.numel()
    d, h = shape.filters[0], shape.hidden
    # Of a block's products qkv, out, gate, up and down, the second and the fourth are done again.
    again = shape.depth * 2 * n * (d * d + d * h)
    model.strategy = "store"
    stored = flops(model, tokens).hardware
    model.strategy = "selective"
    assert flops(model, tokens).hardware - stored == again


@pytest.mark.parametrize("strategy", RIVALS)
def test_exact_coupling_is_exact_under_every_strategy(strategy):
    exact = Precision(compute="fp64", stream="fp64", coupling="exact")
    found, stored = (step(network("revgpt", s, exact), "revgpt") for s in (strategy, "store"))
    assert error(found, stored) <= find_strategy(strategy).tolerance


COMPILED = [s for s in RIVALS if find_strategy(s).compiles]


@pytest.mark.parametrize("strategy", ["selective", *wide(*(s for s in COMPILED if s != "selective"))])
def test_is_traced_as_one_graph(strategy):
    model = network("gpt", strategy, FP64)
    exact = step(model, "gpt")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert error(step(compiled, "gpt"), exact) <= 1e-12


@pytest.mark.parametrize("strategy", ["offload", "quantized"])
def test_packing_is_refused_by_name_where_a_compiler_decides_what_is_saved(strategy):
    assert not find_strategy(strategy).compiles
    model = torch.compile(network("gpt", strategy), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="CompileError") as caught:
        model(batch_of("gpt")[1])
    assert f"strategy='{strategy}' packs what autograd saves" in str(caught.value)


@pytest.mark.parametrize("strategy", ["offload", "quantized"])
def test_what_is_kept_as_it_is_is_watched(strategy):
    """Parameters are not copied, and autograd no longer sees that one was changed."""
    model = network("gpt", strategy, FP64)
    loss = model(*batch_of("gpt")[0]).mean
    with torch.no_grad():
        model.body[2].g.up.weight.mul_(2)
    with pytest.raises(ReplayError, match="was modified by an inplace operation since the forward pass"):
        loss.backward()


@pytest.mark.parametrize("strategy", ["offload", "quantized"])
def test_an_activation_may_be_overwritten_once_it_is_packed(strategy):
    torch.manual_seed(0)
    blocks = [ReversibleBlock(nn.Linear(64, 64), nn.Linear(64, 64)) for _ in range(2)]
    body = ReversibleSequence(blocks, strategy).double()
    x = torch.randn(8, 128, dtype=torch.float64)
    exact = torch.autograd.grad(body(x).square().sum(), list(body.parameters()))
    given = x.clone()
    out = body(given)
    given.zero_()
    assert error(torch.autograd.grad(out.square().sum(), list(body.parameters())), exact) < 1e-15


@pytest.mark.parametrize("strategy", RIVALS)
def test_everything_is_released_without_the_garbage_collector(strategy):
    model, (inputs, targets) = network("gpt", strategy), batch_of("gpt")
    gc.collect()
    gc.disable()
    try:
        with Tracker() as tracker:
            for p in model.parameters():
                tracker.follow(p, "parameter")
            for x in inputs:
                tracker.follow(x, "input")
            loss = mean_loss(model(*inputs), targets)
            loss.backward()
            del loss
            model.zero_grad()
            held = tracker.held
            assert held.get("activation", 0) + held.get("offloaded", 0) == 0
            model(*inputs)  # A graph that is dropped is released too.
            assert held.get("activation", 0) + held.get("offloaded", 0) == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("strategy", RIVALS)
def test_a_graph_is_differentiated_once_more_or_refused(strategy):
    model = network("gpt", strategy, FP64)
    loss = model(*batch_of("gpt")[0]).mean
    own = list(model.parameters())
    first = torch.autograd.grad(loss, own, retain_graph=True)
    if strategy == "selective":
        with pytest.raises(ReplayError, match=r"unit \d is differentiated a second time"):
            torch.autograd.grad(loss, own)
        return
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(loss, own), strict=True))


def test_the_format_of_quantized_activations_is_a_setting():
    quantized = find_strategy("quantized")
    exact = step(network("gpt", "store", FP64), "gpt")
    found = {}
    for name in (None, "int8", "float8_e4m3fn"):
        with quantized.session(saved_format=name, activation_budget=None):
            found[name] = error(step(network("gpt", "quantized", FP64), "gpt"), exact)
    assert found[None] == found["int8"] < found["float8_e4m3fn"] <= quantized.tolerance
    with pytest.raises(StrategyError, match="saved_format: 'int7' is not one of: int8, float8_e4m3fn"):
        quantized.session(saved_format="int7").__enter__()


@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    permuted=st.booleans(),
    sliced=st.booleans(),
    scale=st.sampled_from([0.0, 1e-30, 1.0, 1e20]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    name=st.sampled_from(sorted(LARGEST)),
)
def test_eight_bits_give_every_number_back_within_a_step(shape, permuted, sliced, scale, dtype, name):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)
    x = x.permute(*reversed(range(x.dim()))) if permuted else x
    x = x[..., ::2] if sliced else x
    back = _In8Bits(x, name).unpacked()
    assert (back.shape, back.dtype) == (x.shape, x.dtype)
    assert sliced or back.stride() == x.stride()
    largest = x.abs().max().item()
    step = largest / 127 if name == "int8" else largest / 16
    if name == "int8":
        assert torch.equal(back.sign(), x.sign())
    rounding = torch.finfo(dtype).eps * largest
    assert (back.double() - x.double()).abs().max().item() <= 1.01 * step + rounding


def test_numbers_that_are_none_stay_none():
    x = torch.ones(3 * GROUP)
    x[0], x[GROUP] = float("nan"), float("inf")
    back = _In8Bits(x, "int8").unpacked()
    assert not back[: 2 * GROUP].isfinite().any()
    assert torch.equal(back[2 * GROUP :], x[2 * GROUP :])


@pytest.mark.parametrize("strategy", ["offload", "quantized"])
def test_what_is_packed_is_released_as_the_backward_pass_goes(strategy):
    model, (inputs, targets) = network("resnet", strategy), batch_of("resnet")
    held = []
    for unit in model.body:
        unit.register_full_backward_hook(
            lambda *_: held.append(tracker.held["activation"] + tracker.held.get("offloaded", 0))
        )
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: tracker.follow(p.grad, "gradient"))
    with Tracker() as tracker:
        F.cross_entropy(model(inputs), targets).backward()
    assert len(held) == len(model.body)
    between = [later - earlier for earlier, later in pairwise(held)]
    assert max(between) < 0
