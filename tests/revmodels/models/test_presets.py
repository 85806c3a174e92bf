"""Networks by name: parameter counts of the paper, legal depths, errors that help."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from revmodels import Precision, create_model, list_models
from revmodels.coupling.linear import Coupling, find_coupling, momentum
from revmodels.coupling.stage_entry import StageEntry
from revmodels.errors import CouplingError, DepthError, StrategyError, UnknownModelError, WidthError
from revmodels.models.catalog import PRESETS

CIFAR_COUNTS = {
    "resnet32": (464_154, 470_004),
    "revnet38": (464_890, 475_060),
    "resnet110": (1_727_962, 1_733_812),
    "revnet110": (1_729_194, 1_740_804),
    "resnet164": (1_703_258, 1_726_388),
    "revnet164": (1_748_778, 1_794_948),
}
IMAGENET_COUNTS = {
    "resnet50": 25_549_352,
    "resnet101": 44_541_480,
    "resnet152": 60_185_128,
    "revnet56": 27_553_128,
    "revnet104": 45_428_072,
}
"""The paper gives millions; the digits follow from its layer rules."""

RESIDUAL = {name: a for name, a in PRESETS.items() if a.family in ("revnet", "resnet")}
LANGUAGE = {name for name, a in PRESETS.items() if a.family in ("gpt", "revgpt")}
"""Counted in `test_decoder`."""
OTHERS = {"irevnet", "irevnet302", "revvit_small", "revvit_base"} | LANGUAGE
"""Counted in `test_irevnet` and `test_revvit`."""


def count(name, num_classes):
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, num_classes=num_classes).parameters())


@pytest.mark.parametrize("name", CIFAR_COUNTS)
def test_cifar_parameter_counts(name):
    assert (count(name, 10), count(name, 100)) == CIFAR_COUNTS[name]


@pytest.mark.parametrize("name", IMAGENET_COUNTS)
def test_imagenet_parameter_counts(name):
    assert count(name, 1000) == IMAGENET_COUNTS[name]


def test_every_preset_is_counted_and_named_after_its_depth():
    assert set(RESIDUAL) == set(CIFAR_COUNTS) | set(IMAGENET_COUNTS)
    assert set(list_models()) == set(RESIDUAL) | OTHERS
    assert all(name == f"{a.family}{a.depth}" for name, a in RESIDUAL.items())


def test_weighted_layers_are_the_depth():
    for name, architecture in RESIDUAL.items():
        with torch.device("meta"):
            model = create_model(name, num_classes=10)
        residual = [
            m
            for n, m in model.named_modules()
            if isinstance(m, torch.nn.Conv2d) and n[-2:] not in ("p1", "p2", ".p")
        ]
        assert len(residual) + 1 == architecture.depth, name


@pytest.mark.parametrize("name", [name for name in list_models() if name not in LANGUAGE])
def test_forward_shapes(name):
    with FakeTensorMode():
        model = create_model(name, num_classes=7, width=1.0 if name == "irevnet302" else 0.25)
        size = 224 if PRESETS[name].stem == "imagenet" else 32
        assert model(torch.empty(2, 3, size, size)).shape == (2, 7)


def test_derived_depth():
    model = create_model("revnet38", num_classes=10, depth=26, in_channels=1, width=0.5)
    assert (model.name, model.depth, model.architecture.units) == ("revnet26", 26, (2, 2, 2))
    assert create_model("revnet104", num_classes=10, depth=56, width=0.1).architecture.units == (2, 2, 3, 2)
    assert create_model("revnet38", num_classes=10, depth=50, stem="imagenet", width=0.2).depth == 50


@given(name=st.sampled_from(sorted(PRESETS)), depth=st.integers(-5, 400))
def test_depth_is_met_exactly_or_refused_with_legal_neighbours(name, depth):
    try:
        assert PRESETS[name].with_depth(depth).depth == depth
    except DepthError as error:
        neighbours = [
            int(w) for w in str(error).rsplit("nearest legal:", 1)[1].replace(".", "").split(" and ")
        ]
        assert all(PRESETS[name].with_depth(n).depth == n for n in neighbours)
        assert len(neighbours) == 1 or neighbours[0] < depth < neighbours[1]


@given(width=st.floats(0.01, 8))
def test_channels_split_into_equal_halves_at_any_width(width):
    for architecture in RESIDUAL.values():
        divisor = 8 if architecture.block == "bottleneck" else 2
        assert all(c % divisor == 0 and c > 0 for c in architecture.channels(width)[1:])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": "revnet111"}, UnknownModelError, ["'revnet111'", "Did you mean 'revnet110'?"]),
        ({"depth": 27}, DepthError, ["received 27", "nearest legal: 26 and 38"]),
        ({"depth": 3}, DepthError, ["received 3", "nearest legal: 14"]),
        ({"depth": 26.5}, DepthError, ["received 26.5"]),
        ({"width": 0}, WidthError, ["positive", "received 0"]),
        ({"width": float("nan")}, WidthError, ["nan"]),
        ({"strategy": "revers"}, StrategyError, ["'revers'", "Did you mean 'reverse'?"]),
        (
            {"name": "resnet32", "strategy": "reverse"},
            StrategyError,
            ["not reversible", "store, checkpoint, segments, recursive, selective, offload"],
        ),
        ({"stem": "cifar10"}, UnknownModelError, ["Did you mean 'cifar'?"]),
        ({"num_classes": 0}, ValueError, ["num_classes", "received 0"]),
    ],
)
def test_bad_arguments_say_rule_value_and_remedy(arguments, error, words):
    with pytest.raises(error) as caught:
        create_model(**{"name": "revnet38", "num_classes": 10, **arguments})
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_strategies_share_weights_and_state_dict():
    model = create_model("revnet38", num_classes=10, depth=14)
    keys = list(model.state_dict())
    for strategy in model.strategies:
        model.strategy = strategy
        assert list(model.state_dict()) == keys


@pytest.mark.parametrize("strategy", ["store", "checkpoint"])
def test_resnet_strategies_agree(strategy):
    torch.manual_seed(0)
    model = create_model(
        "resnet32", num_classes=10, precision=Precision(compute="fp64", stream="fp64"), width=0.5
    )
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    exact = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    once = {n: b.clone() for n, b in model.named_buffers()}
    for n, b in model.named_buffers():
        b.copy_(buffers[n])
    model.strategy = strategy
    found = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(exact, found, strict=True))
    assert all(torch.equal(b, once[n]) for n, b in model.named_buffers())


@pytest.mark.parametrize(
    ("name", "options", "left"),
    [("revgpt_100k", {}, 1), ("revnet38", {"num_classes": 2, "width": 0.25}, 0)],
)
def test_couplings_of_presets_are_those_of_their_blocks_but_for_stage_entries(name, options, left):
    model = create_model(name, coupling=momentum(0.5), **options)
    for unit in model.body.units():
        assert unit.rule == (find_coupling("additive") if isinstance(unit, StageEntry) else momentum(0.5))
    assert model.coupling == momentum(0.5)
    # Two blocks in a row are rebuilt: all of the language model's, and those behind each stage entry.
    assert model.body.inverse_error_growth == pytest.approx(momentum(0.5).inverse_error_growth(2))
    model.anchor_every = 1
    assert model.body.inverse_error_growth == pytest.approx(momentum(0.5).inverse_error_growth(left))
    model.coupling = "additive"
    assert model.body.inverse_error_growth == pytest.approx(1)


def test_bdia_in_evaluation_is_the_conventional_twin_bit_for_bit():
    models = []
    for name, coupling in (("gpt_100k", None), ("revgpt_100k", "bdia")):
        torch.manual_seed(0)
        models.append(create_model(name, coupling=coupling).eval())
    tokens = torch.randint(256, (2, 16))
    with torch.no_grad():
        assert torch.equal(models[0](tokens), models[1](tokens))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "gpt_100k", "coupling": "midpoint"}, "gpt_100k has no two streams to couple"),
        ({"coupling": "exact"}, r"Use precision=Precision\(coupling='exact'\)"),
        ({"coupling": "momentm"}, "Did you mean 'momentum'"),
        (
            {"coupling": Coupling(0.7**0.5), "precision": Precision(coupling="exact")},
            "is no ratio of whole numbers",
        ),
    ],
)
def test_couplings_that_a_preset_cannot_have_are_refused(changes, message):
    with pytest.raises(CouplingError, match=message):
        create_model(**{"name": "revgpt_100k", **changes})
