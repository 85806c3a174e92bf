"""gpt and revgpt: against a naive transformer, every strategy against storing, memory flat to the byte."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from revmodels import Precision, create_model, measure
from revmodels.errors import LanguageError, StrategyError
from revmodels.models.cross_entropy import mean_loss
from revmodels.models.decoder_layers import Attention, rotated
from revmodels.strategies.registry import find_strategy
from revmodels.testing.check import check_reversible

FP64 = Precision(compute="fp64", stream="fp64")
VARIANTS = {
    "plain": {},
    "gelu": {"activation": "gelu", "tied": True},
    "normalized": {"qk_norm": True},
}


def small(name="revgpt_100k", **options):
    torch.manual_seed(0)
    return create_model(name, **{"depth": 3, "precision": FP64, **options})


def tokens(batch=2, length=24, vocabulary=256, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(vocabulary, (batch, length + 1), generator=generator)
    return rows[:, :-1], rows[:, 1:]


def gradients(model, strategy, batch):
    model.strategy = strategy
    return torch.autograd.grad(model(*batch).mean, list(model.parameters()))


def close(found, exact, tolerance=1e-12):
    for a, b in zip(found, exact, strict=True):
        assert (a - b).norm() <= tolerance * b.norm()


def naive_norm(x, gain):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain


def naive_rotation(x):
    """Each pair of features as a complex number, turned."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half], x[..., half:])
    angles = torch.tensor(
        [[t * 10_000.0 ** (-i / half) for i in range(half)] for t in range(x.shape[-2])], dtype=x.dtype
    )
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), -1)


def naive_attention(layer, x):
    """One head after the other, one query after the other."""
    h = layer.features
    queries = layer.heads * h
    q, k, v = layer.qkv(naive_norm(x, layer.norm.weight)).split((queries, *[layer.kv_heads * h] * 2), -1)
    heads = []
    for i in range(layer.heads):
        shared = i * layer.kv_heads // layer.heads
        own, key, value = (part[..., j * h : (j + 1) * h] for part, j in ((q, i), (k, shared), (v, shared)))
        if layer.q_norm is not None:
            own, key = naive_norm(own, layer.q_norm.weight), naive_norm(key, layer.k_norm.weight)
        own, key = naive_rotation(own), naive_rotation(key)
        rows = []
        for t in range(x.shape[1]):
            scores = (key[:, : t + 1] @ own[:, t, :, None]).squeeze(-1) / math.sqrt(h)
            rows.append((scores.softmax(-1)[..., None] * value[:, : t + 1]).sum(1))
        heads.append(torch.stack(rows, 1))
    return torch.cat(heads, -1) @ layer.out.weight.T


def naive_mlp(layer, x):
    x = naive_norm(x, layer.norm.weight)
    if layer.gate is None:
        u = x @ layer.up.weight.T
        hidden = u / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
    else:
        gate = x @ layer.gate.weight.T
        hidden = gate * gate.sigmoid() * (x @ layer.up.weight.T)
    return hidden @ layer.down.weight.T


def naive(model, rows):
    """The whole network, block by block."""
    first = second = model.stem.weight[rows]
    for unit in getattr(model.body, "blocks", model.body):
        if model.family == "gpt":
            first = first + naive_attention(unit.f, first)
            first = second = first + naive_mlp(unit.g, first)
        else:
            first = first + naive_attention(unit.f, second)
            second = second + naive_mlp(unit.g, first)
    return naive_norm((first + second) / 2, model.head.norm.weight) @ model.head.output.weight.T


@pytest.mark.parametrize("name", ["gpt_100k", "revgpt_100k"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_a_naive_transformer(name, variant):
    model, (rows, targets) = small(name, **VARIANTS[variant]), tokens()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))  # Gains that are not one, weights that are not small.
    exact = F.cross_entropy(naive(model, rows).flatten(0, 1), targets.flatten())
    found = model(rows, targets)
    assert found.tokens == rows.numel()
    torch.testing.assert_close(found.mean, exact, rtol=1e-12, atol=0)
    torch.testing.assert_close(model(rows), naive(model, rows), rtol=1e-11, atol=1e-11)
    own = list(model.parameters())
    close(torch.autograd.grad(found.mean, own), torch.autograd.grad(exact, own), 1e-10)


def test_grouped_queries_equal_their_twin():
    torch.manual_seed(0)
    shape = create_model("gpt_1b", width=0.125, vocab_size=8).architecture.at_width(0.125)
    layer = Attention(shape).double()
    assert (layer.heads, layer.kv_heads) == (4, 1)
    x = torch.randn(2, 9, 256, dtype=torch.float64)
    torch.testing.assert_close(layer(x), naive_attention(layer, x), rtol=1e-12, atol=1e-12)


def test_rotation_makes_products_depend_on_the_distance_alone():
    q, k = (torch.randn(32, dtype=torch.float64).expand(1, 1, 20, 32) for _ in range(2))
    products = rotated(q) @ rotated(k).transpose(-1, -2)
    for distance in (-7, 0, 3):
        along = products[0, 0].diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gpt_100k", "revgpt_100k"])
def test_nothing_is_seen_of_what_comes_later(name):
    model, (rows, _) = small(name), tokens()
    changed = rows.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 256
    before, after = model(rows), model(changed)
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.equal(before[:, 12:], after[:, 12:])


def test_twins_start_from_the_same_numbers():
    gpt, revgpt = small("gpt_1m"), small("revgpt_1m")
    assert all(torch.equal(p, q) for p, q in zip(gpt.parameters(), revgpt.parameters(), strict=True))


def test_outputs_of_blocks_start_smaller_the_deeper_the_network():
    for depth in (2, 8):
        model = small("gpt_1m", depth=depth)
        for unit in model.body:
            for layer in (unit.f.out, unit.g.down):
                assert layer.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * depth), rel=0.05)
            assert unit.f.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["gpt_100k", "revgpt_100k"])
def test_every_strategy_equals_storing(name, variant):
    model, batch = small(name, **VARIANTS[variant]), tokens()
    exact = gradients(model, "store", batch)
    whole = torch.cat([gradient.flatten() for gradient in exact])
    for strategy in model.strategies:
        found = gradients(model, strategy, batch)
        promised = find_strategy(strategy).tolerance
        if promised == 1e-12:
            close(found, exact)
        else:  # it promises an error of the gradient of all parameters together
            off = torch.cat([gradient.flatten() for gradient in found]) - whole
            assert 0 < off.norm() <= promised * whole.norm()


def test_every_guarantee():
    report = check_reversible(small(precision=None), tokens()[0])
    assert not report.broken, str(report)
    outcomes = {f.guarantee: f.outcome for f in report.findings}
    others = {name for name, outcome in outcomes.items() if outcome != "holds"}
    assert others == {"double_backward", "statistics_once"}, "attention's backward has no derivative on a CPU"


@pytest.mark.parametrize(("name", "strategy"), [("gpt_100k", "store"), ("revgpt_100k", "reverse")])
def test_compiles_as_one_graph(name, strategy):
    model, batch = small(name, strategy=strategy), tokens()
    exact = gradients(model, strategy, batch)
    compiled = torch.compile(model, fullgraph=True)
    close(torch.autograd.grad(compiled(*batch).mean, list(model.parameters())), exact)


def use_of(name, strategy, depth, predicted=False, length=64, **options):
    model = small(name, strategy=strategy, depth=depth, precision=None, context_length=4_096, **options)
    rows, targets = tokens(4, length)
    measuring = measure.predict_memory if predicted else measure.peak_memory
    return measuring(model, ((rows, targets), targets), torch.optim.AdamW, loss=mean_loss)


def test_activation_memory_is_flat_in_depth_to_the_byte_when_reversing():
    found = [use_of("revgpt_100k", "reverse", depth) for depth in (4, 8, 96)]
    assert len({use.activation_bytes for use in found}) == 1
    assert len({use.saved_bytes for use in found}) == 1
    stored = use_of("revgpt_100k", "store", 8)
    assert stored.activation_bytes > 5 * found[1].activation_bytes


@pytest.mark.covering
@pytest.mark.parametrize("length", [64, 512])
@pytest.mark.parametrize("strategy", create_model("revgpt_100k").strategies)
def test_prediction_equals_measurement_to_the_byte(strategy, length):
    """At 512 the loss is cut into chunks."""
    assert use_of("revgpt_100k", strategy, 4, True, length) == use_of(
        "revgpt_100k", strategy, 4, False, length
    )


@pytest.mark.parametrize("variant", ["gelu", "normalized"])
def test_prediction_equals_measurement_for_every_kind_of_layer(variant):
    options = VARIANTS[variant]
    measured = use_of("gpt_100k", "store", 2, **options)
    assert use_of("gpt_100k", "store", 2, predicted=True, **options) == measured


def test_one_tensor_given_twice_is_counted_once():
    model, (rows, _) = small(precision=None), tokens()
    batch = (rows, rows), rows
    measured = measure.peak_memory(model, batch, loss=mean_loss)
    assert measured.input_bytes == 2 * 25 * 8, "24 of 25 tokens of each row, in memory that holds all of them"
    assert measure.predict_memory(model, batch, loss=mean_loss) == measured


@pytest.mark.parametrize("convert", ["double", "bfloat16"])
@pytest.mark.parametrize("name", ["gpt_100k", "revgpt_100k"])
def test_is_trained_in_the_dtype_that_it_was_converted_to(name, convert):
    model = getattr(small(name, precision=None), convert)()
    rows, targets = tokens()
    dtype = {"double": torch.float64, "bfloat16": torch.bfloat16}[convert]
    assert model(rows).dtype == dtype
    model(rows, targets).mean.backward()
    assert all(p.dtype == p.grad.dtype == dtype for p in model.parameters())


@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_half_precision_arithmetic_gives_nearly_the_same_loss(compute):
    exact = small()(*tokens()).mean
    model = small(precision=Precision(compute=compute, stream="fp32"))
    assert model(*tokens()).mean.item() == pytest.approx(exact.item(), rel=1e-2)
    stored = gradients(copy.deepcopy(model), "store", tokens())
    close(gradients(model, "reverse", tokens()), stored, 0.02)


def test_it_learns():
    """A row that repeats is known after some steps: every part works together."""
    model = small("revgpt_100k", precision=None)
    rows = torch.arange(33).remainder(7).expand(2, 33)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = model(rows[:, :-1], rows[:, 1:]).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(256), rel=0.05)
    assert losses[-1] < 0.5


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            torch.zeros(2, 8),
            "tokens: whole numbers of shape .batch, length.; received torch.float32",
        ),
        (torch.zeros(8, dtype=torch.long), "received torch.int64 of shape .8,."),
        (torch.zeros(1, 300, dtype=torch.long), "at most 256 tokens; received 300. Cut them"),
    ],
)
def test_bad_tokens_say_rule_value_and_remedy(rows, words):
    for name in ("gpt_100k", "revgpt_100k"):
        with pytest.raises(LanguageError, match=words):
            small(name)(rows)


def test_targets_of_another_shape_are_refused():
    with pytest.raises(LanguageError, match=r"one for each token.*received shape \(2, 23\)"):
        small()(tokens()[0], tokens()[1][:, 1:])


def test_what_cannot_be_reversed_says_what_can():
    with pytest.raises(StrategyError, match=r"gpt_100k.* is not reversible.*Use one of store, .*or a revgpt"):
        small("gpt_100k", strategy="reverse")
