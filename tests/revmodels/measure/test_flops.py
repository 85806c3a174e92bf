"""Operations of a step: against the closed form, and against what each strategy does by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from revmodels import ReversibleBlock, ReversibleSequence, create_model
from revmodels.measure import flops
from tests.covering import wide

ROWS, LENGTH = 2, 256
TOKENS = torch.empty(ROWS, LENGTH, dtype=torch.long, device="meta")
SHAPES = {
    "gpt_100k": {},
    "gpt_124m": {"depth": 3},
    "gpt_1b": {"depth": 2},
    "gpt_70m": {"depth": 2, "width": 0.5, "qk_norm": True},
}


def built(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def by_hand(model):
    """f, a, h of docs/operations.md."""
    shape = model.architecture.at_width(model.width)
    (d,), n = shape.filters, ROWS * LENGTH
    gains = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    f = 2 * n * (shape.parameters().non_embedding - gains)
    return f, 4 * n * LENGTH * d * shape.depth, 2 * n * d * shape.vocabulary


@pytest.mark.covering
@pytest.mark.parametrize("family", ["gpt", "revgpt"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_model_s_operations_are_those_of_the_closed_form(shape, family):
    model = built(shape.replace("gpt", family), **SHAPES[shape])
    f, a, h = by_hand(model)
    for strategy in ("checkpoint", model.strategies[1]):
        model.strategy = strategy
        assert flops(model, TOKENS).model == flops(model, (TOKENS, TOKENS)).model == 3 * (f + a + h)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_hardware_s_operations_are_those_of_each_strategy(shape):
    model = built(shape.replace("gpt", "revgpt"), **SHAPES[shape])
    f, a, h = by_hand(model)
    expected = {
        "store": 3 * f + 7 * a // 2 + 3 * h,
        "reverse": 4 * f + 9 * a // 2 + 3 * h,
        "checkpoint": 4 * f + 9 * a // 2 + 3 * h,
    }
    for strategy, operations in expected.items():
        model.strategy = strategy
        assert flops(model, TOKENS).hardware == operations
    twin = built(shape, **SHAPES[shape])
    for strategy in ("store", "checkpoint"):
        twin.strategy = strategy
        assert flops(twin, TOKENS).hardware == expected[strategy]


def test_a_loss_in_chunks_computes_its_logits_again():
    rows = torch.empty(8, LENGTH, dtype=torch.long, device="meta")
    model = built("revgpt_100k")
    assert rows.numel() > model.head.chunk
    whole, chunks = flops(model, rows), flops(model, (rows, rows))
    assert chunks.model == whole.model
    assert chunks.hardware - whole.hardware == 2 * rows.numel() * 64 * 256


def test_a_budget_counts_the_units_that_are_rebuilt():
    model = create_model("revgpt_100k", depth=6, strategy="budget")
    f, a, h = by_hand(model)
    tokens = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    found = set()
    for budget in (None, 30_000_000, 2**40):
        model.memory_budget_bytes = budget
        model(tokens)
        rebuilt = model.body.modes.count("reverse")
        assert set(model.body.modes) <= {"reverse", "store"}
        found.add(rebuilt)
        expected = (18 + rebuilt) * f // 6 + (21 + rebuilt) * a // 6 + 3 * h
        assert flops(model, tokens).hardware == expected
    assert max(found) > min(found) == 0


def test_recursive_checkpointing_repeats_a_block_for_every_half_that_it_is_in():
    model = built("revgpt_100k", depth=8, strategy="recursive")
    f, a, h = by_hand(model)
    # Of 8 blocks: one is never repeated, three once, three twice, one three times.
    repeats = 0 + 3 * 1 + 3 * 2 + 3
    assert flops(model, TOKENS).hardware <= 3 * f + 7 * a // 2 + 3 * h + repeats * (f + a) // 8
    assert flops(model, TOKENS).hardware > 4 * f + 9 * a // 2 + 3 * h


def test_the_compiler_s_choice_is_not_known():
    operations = flops(built("gpt_100k", strategy="compile"), TOKENS)
    assert operations.model > 0
    assert operations.hardware is None
    assert operations.ratio is None


@pytest.mark.parametrize("name", ["revnet38", "revvit_small", *wide("resnet32", "irevnet")])
def test_networks_for_images_count_as_pytorch_does(name):
    options = {"num_classes": 10, "strategy": "store", "stem": "cifar"}
    options |= {"revvit_small": {"depth": 2}, "irevnet": {"depth": 20}}.get(name, {})
    model, images = create_model(name, **options), torch.randn(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    counted = flops(model, images)
    assert counted.model <= counted.hardware
    if name == "revvit_small":  # PyTorch has no formula for attention on a CPU.
        assert counted.model > counter.get_total_flops()
    else:
        assert counted.model == counter.get_total_flops() == counted.hardware
    for strategy in model.strategies:
        model.strategy = strategy
        again = flops(model, images)
        assert again.model == counted.model
        if strategy != "compile":
            assert 1 <= again.ratio < 1.8


def test_stage_entries_do_less_than_a_whole_forward_pass_again():
    model, images = built("revnet38", num_classes=10), torch.empty(2, 3, 32, 32, device="meta")
    assert 1.3 < flops(model, images).ratio < 4 / 3 + 0.02


def test_any_module_and_a_loss_of_its_own():
    model = nn.Linear(8, 4)
    counted = flops(model, torch.empty(3, 8), loss=lambda out: out.square().mean())
    assert counted.model == counted.hardware == 2 * 2 * 3 * 8 * 4, "the input needs no gradient"
    blocks = [ReversibleBlock(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(3)]
    body = ReversibleSequence(blocks, "reverse", anchor_every=1)
    counted = flops(body, torch.empty(5, 8, requires_grad=True))
    assert counted.model == 3 * 6 * 2 * 5 * 4 * 4
    assert counted.model < counted.hardware <= counted.model * 4 / 3
    assert body.anchor_every == 1, "the model is left as it is"


def test_a_network_too_large_for_this_machine():
    build = lambda: create_model("revgpt_7b", context_length=8_192)  # noqa: E731
    assert flops(build, torch.empty(8, 8_192, dtype=torch.long, device="meta")).model > 2e15
