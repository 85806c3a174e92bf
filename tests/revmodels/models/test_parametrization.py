"""Parametrizations: one network at the base, the rules of the papers beside it, and rates in groups."""

import math

import pytest
import torch

from revmodels import Precision, create_model
from revmodels.errors import LanguageError
from revmodels.measure.coordinate_check import coordinate_check
from revmodels.models.parameter_groups import parameter_groups
from revmodels.models.parametrization import PARAMETRIZATIONS

FP64 = Precision(compute="fp64", stream="fp64")
TOKENS = torch.randint(256, (2, 33), generator=torch.Generator().manual_seed(0))


def network(parametrization, family="revgpt", **options):
    torch.manual_seed(0)
    # Heads of 64 features; a width of 1 is the base of 256.
    shape = {"width": 0.25, "depth": 2, "vocab_size": 256, "tied": False, "context_length": 256}
    return create_model(f"{family}_410m", parametrization=parametrization, **{**shape, **options})


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_all_are_one_network_at_the_base(parametrization):
    standard, other = network("standard", precision=FP64), network(parametrization, precision=FP64)
    assert standard.architecture.at_width(0.25).filters == (256,)
    if parametrization != "standard":  # the output layer starts at zero there
        assert not other.head.output.weight.any()
        other.head.output.weight.data.copy_(standard.head.output.weight)
    assert torch.equal(standard(TOKENS), other(TOKENS))
    groups = [parameter_groups(model, 0.1, weight_decay=0.2) for model in (standard, other)]
    numbers = [[(g["lr"], g["weight_decay"], g["eps"]) for g in found] for found in groups]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("family", ["gpt", "revgpt"])
def test_starts_and_factors_are_those_of_the_table(family):
    m, n = 2, 3
    model = network("completep", family, width=0.5, depth=2 * n)
    for unit in getattr(model.body, "blocks", model.body):
        for layer in (unit.f.qkv, unit.g.up):
            assert layer.weight.std().item() == pytest.approx(0.02 / math.sqrt(m), rel=0.02)
        for layer in (unit.f.out, unit.g.down):
            assert layer.weight.std().item() == pytest.approx(0.02 / math.sqrt(4 * m), rel=0.02)
        assert unit.f.added_factor == unit.g.added_factor == 1 / n
        assert unit.f.factor == 8 / 64
    assert model.head.logits_factor == 1 / m
    assert not model.head.output.weight.any()
    tied = network("completep", family, width=0.125, depth=1, tied=True)
    assert tied.head.output.weight.std().item() == pytest.approx(0.02, rel=0.02)
    hidden, output, rest = parameter_groups(model, 0.1, weight_decay=0.2, eps=1e-8)
    assert (hidden["lr"], hidden["weight_decay"], hidden["eps"]) == (0.1 / m, 0.2 * m, 1e-8 / (m * n))
    assert (output["lr"], output["weight_decay"]) == (0.1, 0.2)
    assert (rest["lr"], rest["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_every_parameter_is_in_one_group(tied, qk_norm):
    model = network("mup", tied=tied, qk_norm=qk_norm)
    grouped = [id(p) for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    torch.optim.AdamW(parameter_groups(model, 0.1))


def test_every_strategy_has_the_factors():
    model = network("completep", width=0.125, depth=6, precision=FP64)
    found = {}
    for strategy in ("store", "reverse", "checkpoint"):
        model.strategy = strategy
        loss = model(TOKENS[:, :-1], TOKENS[:, 1:]).mean
        found[strategy] = torch.autograd.grad(loss, list(model.parameters()))
    for strategy in ("reverse", "checkpoint"):
        for a, b in zip(found[strategy], found["store"], strict=True):
            assert (a - b).norm() <= 1e-12 * b.norm()


def test_a_loss_in_chunks_has_the_factor_of_the_logits():
    model = network("mup", width=1.0, precision=FP64)
    whole = model(TOKENS[:, :-1], TOKENS[:, 1:]).mean
    model.head.chunk = 7
    torch.testing.assert_close(model(TOKENS[:, :-1], TOKENS[:, 1:]).mean, whole, rtol=1e-12, atol=0)


def test_bad_names_and_models_say_what_is_meant():
    with pytest.raises(LanguageError, match=r"parametrization: 'mupp' is not one of.*Did you mean 'mup'"):
        network("mupp")
    with pytest.raises(LanguageError, match="only language models have parametrizations; received Linear"):
        parameter_groups(torch.nn.Linear(2, 2), 0.1)
    with pytest.raises(ValueError, match=r"at least two positive sizes and one seed; received sizes \[1\]"):
        coordinate_check(lambda _: network("mup"), [1], TOKENS, lr=0.1)
