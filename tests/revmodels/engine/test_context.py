"""What F and G are given beside their stream: gradients as the stored twin's, bytes, and what is refused."""

import copy
import gc
import weakref
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from revmodels import Precision, ReversibleBlock, ReversibleSequence, StageEntry
from revmodels.coupling.context import StreamAlone
from revmodels.engine import given
from revmodels.errors import (
    CompileError,
    DoubleBackwardError,
    ReplayError,
    ResidualError,
    SplitError,
    StrategyError,
)
from revmodels.measure import fidelity, lipschitz, peak_memory, predict_memory
from revmodels.testing import check_reversible
from revmodels.testing.instruments import memory as bytes_of_a_step
from tests.covering import wide
from tests.revmodels.truth.judge import put

WIDTH, KEYS, TOKENS = 8, 6, 5
EXACT = 1e-12
STRATEGIES = ("reverse", "anchors", "checkpoint", "recursive", "budget", "compile")


class CrossAttention(nn.Module):
    """Reads an encoder's memory through a mask, as in a decoder of Vaswani et al. 2017."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True, kdim=KEYS, vdim=KEYS)

    def forward(self, x, memory, *, padding=None, scale=1.0):
        q = self.norm(x)
        return scale * self.attention(q, memory, memory, key_padding_mask=padding, need_weights=False)[0]


class Conditioned(nn.Module):
    """An MLP between a shift and a gate that follow from an embedding, as in a diffusion transformer."""

    def __init__(self, drop=0.0):
        super().__init__()
        self.project = nn.Linear(KEYS, 2 * WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.Dropout(drop), nn.GELU(), nn.Linear(16, WIDTH))

    def forward(self, x, memory, *, padding=None, scale=1.0):
        shift, gate = self.project(memory.mean(1, keepdim=True)).chunk(2, -1)
        return self.mlp(x + scale * shift) * gate


def decoder(depth=4, strategy="reverse", drop=0.0):
    torch.manual_seed(0)
    blocks = [ReversibleBlock(CrossAttention(), Conditioned(drop), split_dim=-1) for _ in range(depth)]
    return ReversibleSequence(blocks, strategy, split_dim=-1).double()


def numbers(*shape, seed=0, grad=True):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def batch():
    return numbers(2, TOKENS, 2 * WIDTH), numbers(2, 7, KEYS, seed=1)


def padding():
    mask = torch.zeros(2, 7, dtype=torch.bool)
    mask[1, 4:] = True
    return mask


def loss_of(out):
    return (
        out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    ).sum() + out.square().mean()


def step(net, x, *context, leaves=(), **options):
    """Output and gradients of the stream, of `leaves` and of the parameters; the next random number."""
    torch.manual_seed(3)
    out = net(x, *context, **options)
    found = torch.autograd.grad(loss_of(out), [x, *leaves, *net.parameters()], allow_unused=True)
    return [out.detach(), *found, torch.rand(())]


def agree(found, exact, tolerance=EXACT):
    assert len(found) == len(exact)
    for a, b in zip(found, exact, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a - b).norm() <= tolerance * b.norm().clamp_min(1e-3)


def compiled(net):
    torch._dynamo.reset()
    return torch.compile(net, fullgraph=True, backend="aot_eager")


# Values and gradients


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("depth", [1, 4, 5])
def test_a_decoder_gives_its_encoder_the_stored_gradient(strategy, depth):
    x, memory = batch()
    options = {"padding": padding(), "scale": 0.5}
    exact = step(decoder(depth, "store"), x, memory, leaves=[memory], **options)
    assert exact[2].norm() > 0.1
    agree(step(put(decoder(depth), strategy), x, memory, leaves=[memory], **options), exact)


@pytest.mark.parametrize(
    "strategy", ["reverse", "checkpoint", *wide("store", "anchors", "recursive", "budget")]
)
def test_compiled_in_one_graph(strategy):
    x, memory = batch()
    options = {"padding": padding(), "scale": 0.5}
    exact = step(decoder(4, "store"), x, memory, leaves=[memory], **options)
    net = put(decoder(4), strategy)
    agree(step(compiled(net), x, memory, leaves=[memory], **options), exact)


@pytest.mark.covering
@pytest.mark.parametrize("is_compiled", [True, False], ids=["compiled", "eager"])
@pytest.mark.parametrize("strategy", ["reverse", "checkpoint", "recursive"])
def test_dropout_beside_a_context(strategy, is_compiled):
    x, memory = batch()
    net = decoder(4, strategy, drop=0.3)
    if not is_compiled:
        exact = step(decoder(4, "store", drop=0.3), x, memory, leaves=[memory])
        return agree(step(net, x, memory, leaves=[memory]), exact)
    net = compiled(net)  # Draws other numbers than the eager twin, so the gradient is measured.
    gradient = step(net, x, memory, leaves=[memory])[2]
    direction, h = torch.randn_like(memory), 1e-5
    ends = []
    for sign in (1, -1):
        torch.manual_seed(3)
        ends.append(loss_of(net(x, memory.detach() + sign * h * direction).detach()))
    expected = (ends[0] - ends[1]) / (2 * h)
    assert abs((gradient * direction).sum() - expected) < 1e-6 * abs(expected)
    return None


class Takes(nn.Module):
    """Reads whatever it is given with `read`, which makes a tensor of it that is added to the stream."""

    def __init__(self, read):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.read = read

    def forward(self, x, *context, **options):
        return torch.tanh(self.linear(x) + self.read(*context, **options))


def reading(read, depth=3, strategy="reverse"):
    torch.manual_seed(0)
    blocks = [ReversibleBlock(Takes(read), Takes(read), split_dim=-1) for _ in range(depth)]
    return ReversibleSequence(blocks, strategy, split_dim=-1).double()


def vector(seed=5, grad=True):
    return numbers(WIDTH, seed=seed, grad=grad)


Pair = namedtuple("Pair", "a b")

KINDS = {
    "a tensor": lambda: (lambda c: c, (vector(),), {}),
    "by name": lambda: (lambda c: c.sin(), (), {"c": vector()}),
    "two tensors": lambda: (lambda a, b: a * b, (vector(), vector(6)), {}),
    "one of them without a gradient": lambda: (lambda a, b: a * b, (vector(), vector(6, grad=False)), {}),
    "none with a gradient": lambda: (lambda a: a.cos(), (vector(grad=False),), {}),
    "a tuple": lambda: (lambda c: c[0] + c[1], ((vector(), vector(6)),), {}),
    "nested": lambda: (
        lambda c, d: c["k"][0] * d[0]["v"],
        ({"k": [vector(), 3]},),
        {"d": ({"v": vector(6)}, None)},
    ),
    "the same twice": lambda: (lambda a, b: a * b if a is b else a * b + 1, 2 * (vector(),), {}),
    "a computed tensor": lambda: (lambda c: c, (vector().exp(),), {}),
    "one that is not read": lambda: (lambda a, b: a, (vector(), vector(6)), {}),
    "a view of another": lambda: (lambda a, b: a * b, (v := numbers(3, WIDTH), v[1]), {}),
    "two on the same memory": lambda: (lambda a, b: a * b, (v := vector(), v.view_as(v)), {}),
    "a bool mask": lambda: (lambda m: m * 0.5, (torch.arange(WIDTH) % 2 == 0,), {}),
    "integers": lambda: (lambda i: i * 0.1, (torch.arange(WIDTH),), {}),
    "nothing but None": lambda: (lambda c: 1.0 if c is None else c, (None,), {}),
    "a number": lambda: (lambda c: c, (0.5,), {}),
    "a whole number by name": lambda: (lambda n: n / 4, (), {"n": 3}),
    "a string": lambda: (lambda s: len(s) / 4, ("abc",), {}),
    "a dtype": lambda: (lambda d: torch.ones((), dtype=d), (torch.float64,), {}),
}
OBJECTS = {
    "a named tuple": lambda: (lambda c: c.a * c.b, (Pair(vector(), vector(6)),), {}),
    "a function": lambda: (lambda f: f(0.5), (lambda x: x + 1,), {}),
    "an object": lambda: (lambda o: o.c, (SimpleNamespace(c=vector(grad=False)),), {}),
    "an object with a leaf": lambda: (lambda o: o.c * 2, (SimpleNamespace(c=vector()),), {}),
}


def leaves_in(context, options):
    found = given.tensors_in((context, options))
    found += [v.c for v in context if isinstance(v, SimpleNamespace)]
    return [t for t in {id(t): t for t in found}.values() if t.requires_grad]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", [*KINDS, *OBJECTS])
def test_context_of_every_kind(kind, strategy):
    read, context, options = {**KINDS, **OBJECTS}[kind]()
    x, leaves = numbers(3, 2 * WIDTH), leaves_in(context, options)
    exact = step(reading(read, strategy="store"), x, *context, leaves=leaves, **options)
    agree(step(put(reading(read), strategy), x, *context, leaves=leaves, **options), exact)


COMPILED = ("the same twice", "a computed tensor", "a bool mask", "nothing but None", "a number")
"""Kinds that a compiler guards in ways of their own; a wide run has the others too."""


@pytest.mark.parametrize("kind", [*COMPILED, *wide(*(kind for kind in KINDS if kind not in COMPILED))])
def test_context_of_every_kind_compiled(kind, strategy="reverse"):
    read, context, options = KINDS[kind]()
    x, leaves = numbers(3, 2 * WIDTH), leaves_in(context, options)
    exact = step(reading(read, strategy="store"), x, *context, leaves=leaves, **options)
    net = compiled(reading(read, strategy=strategy))
    agree(step(net, x, *context, leaves=leaves, **options), exact)


def test_a_compiled_network_follows_a_context_of_another_kind():
    x, net = numbers(3, 2 * WIDTH), reading(lambda c: 0.5 if c is None else c)
    twin, graph = copy.deepcopy(net), compiled(net)
    twin.strategy = "store"
    for c in (None, 0.25, 0.5, vector(), vector(grad=False), 3, 4, True):
        leaves = [c] if isinstance(c, torch.Tensor) and c.requires_grad else []
        agree(step(graph, x, c, leaves=leaves), step(twin, x, c, leaves=leaves))


def test_what_no_graph_can_hold_is_refused():
    with pytest.raises(Exception, match="holds a SimpleNamespace") as refusal:
        compiled(reading(lambda o: o.c))(numbers(3, 2 * WIDTH), SimpleNamespace(c=vector()))
    assert isinstance(refusal.value, CompileError) or "CompileError" in str(refusal.value)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_context_goes_on_to_what_made_it_and_what_else_reads_it(strategy):
    """An encoder in front, and a loss on its output beside the decoder."""
    torch.manual_seed(0)
    encoder = nn.Linear(KEYS, KEYS).double()

    def train(net):
        x, source = batch()
        memory = encoder(source)
        out = net(x, memory)
        return torch.autograd.grad(loss_of(out) + memory.sin().sum(), [x, source, *encoder.parameters()])

    agree(train(put(decoder(3), strategy)), train(decoder(3, "store")))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_streams_and_a_context(strategy):
    x, memory = batch()
    x1, x2 = (h.detach().requires_grad_(True) for h in x.chunk(2, -1))
    joined = step(decoder(3, "store"), x, memory, leaves=[memory])
    net = put(decoder(3), strategy)
    y = net((x1, x2), memory)
    assert isinstance(y, tuple)
    out = torch.cat(y, -1)
    found = torch.autograd.grad(loss_of(out), [x1, x2, memory])
    agree([out.detach(), torch.cat(found[:2], -1), found[2]], joined[:3])


def test_a_stage_entry_hands_the_context_to_its_functions():
    def net(strategy):
        torch.manual_seed(0)
        made = reading(lambda c: c)
        entry = StageEntry(Takes(lambda c: c), Takes(lambda c: c), nn.Linear(WIDTH, WIDTH), nn.Identity())
        made.blocks.insert(1, entry.double())
        return put(made, strategy)

    x, c = numbers(3, 2 * WIDTH), vector()
    exact = step(net("store"), x, c, leaves=[c])
    for strategy in STRATEGIES:
        agree(step(net(strategy), x, c, leaves=[c]), exact)


@pytest.mark.parametrize("context_grad", [False, True])
@pytest.mark.parametrize("strategy", ["reverse", "checkpoint"])
def test_gradients_where_only_some_are_asked_for(strategy, context_grad):
    def train(net):
        x, c = numbers(3, 2 * WIDTH, grad=False), vector(grad=context_grad)
        net.blocks[0].requires_grad_(False)
        loss_of(net(x, c)).backward()
        return [c.grad, *(p.grad for p in net.parameters())]

    net = reading(lambda c: c)
    agree(train(put(copy.deepcopy(net), strategy)), train(put(net, "store")))


def test_context_alone_needs_a_gradient():
    def train(net):
        x, c = numbers(3, 2 * WIDTH, grad=False), vector()
        loss_of(net.requires_grad_(False)(x, c)).backward()
        return [c.grad]

    net = reading(lambda c: c)
    agree(train(put(copy.deepcopy(net), "reverse")), train(put(net, "store")))


@pytest.mark.parametrize("around", ["forward", "both"])
def test_under_autocast(around):
    def train(strategy):
        x, memory = (t.detach().float().requires_grad_(True) for t in batch())
        net = decoder(3, strategy).float()
        with torch.autocast("cpu", torch.bfloat16):
            out = net(x, memory)
            if around == "both":
                loss_of(out.float()).backward()
        if around == "forward":
            loss_of(out.float()).backward()
        return [out.detach(), x.grad, memory.grad]

    agree(train("reverse"), train("store"), 5e-3)


def test_a_policy_of_precision():
    def train(strategy):
        x, memory = batch()
        net = decoder(3, strategy)
        net.set_precision(Precision(compute="fp64", stream="fp64", coupling="exact"))
        return step(net, x, memory, leaves=[memory])

    agree(train("reverse"), train("store"))


def test_a_graph_that_is_kept_is_differentiated_twice_and_then_lets_go_of_the_context():
    x, net = numbers(3, 2 * WIDTH), reading(lambda c: c)
    held = vector(grad=False).clone()
    alive = weakref.ref(held.untyped_storage())
    value = loss_of(net(x, held))
    first = torch.autograd.grad(value, x, retain_graph=True)
    agree(torch.autograd.grad(value, x), first)
    del held
    gc.collect()
    assert alive() is None and value.grad_fn is not None
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value, x)


def test_a_hook_that_gives_one_unit_another_context_is_heard():
    net, other = reading(lambda c: c), vector(9)

    def train(strategy):
        twin = put(copy.deepcopy(net), strategy)
        twin.blocks[1].register_forward_pre_hook(
            lambda _, args, options: ((*args[:2], other), options), with_kwargs=True
        )
        x, c = numbers(3, 2 * WIDTH), vector()
        return step(twin, x, c, leaves=[c, other])

    agree(train("reverse"), train("store"))


def test_the_input_follows_from_the_output():
    net = decoder(3).eval()
    x, memory = batch()
    with torch.no_grad():
        options = {"padding": padding(), "scale": 0.5}
        torch.testing.assert_close(net.inverse(net(x, memory, **options), memory, **options), x)
        block = net.blocks[0]
        pair = x.chunk(2, -1)
        torch.testing.assert_close(block.inverse(block(pair, memory), memory), tuple(pair))
        torch.testing.assert_close(block.inverse(block(x, memory), memory), x)


# Bytes


@pytest.mark.parametrize("needs_grad", [False, True])
def test_context_is_held_once_however_many_units(needs_grad):
    """A step holds and needs no more bytes for each further unit, and one copy of the context at most."""

    def figures(depth, rows):
        memory = numbers(2, rows, KEYS, seed=1)
        net = decoder(depth)
        run = lambda x, c: net(x, c if needs_grad else c.detach())  # noqa: E731
        run.parameters = net.parameters
        run.buffers = net.buffers
        return bytes_of_a_step(run, (batch()[0], memory))

    shallow, deep = figures(2, 7), figures(6, 7)
    assert deep[0] == shallow[0]
    assert deep[1] == shallow[1]


def test_context_is_saved_once_in_a_compiled_network():
    def saved(depth, strategy="reverse"):
        net, c = reading(lambda c: c, depth), numbers(1000, WIDTH)
        net.strategy = strategy
        x = numbers(1000, 2 * WIDTH)
        own = {p.untyped_storage()._cdata for p in net.parameters()}
        found = {}

        def pack(t):
            if t.untyped_storage()._cdata not in own:
                found[t.untyped_storage()._cdata] = t.untyped_storage().nbytes()
            return t

        graph = compiled(net)
        graph(x, c)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            graph(x, c)
        return sum(found.values())

    assert saved(6) == saved(2)
    assert saved(2, "store") > 2 * saved(2)


@pytest.mark.parametrize("strategy", ["store", "reverse", "checkpoint", "recursive", "budget"])
def test_predicted_bytes_are_measured_bytes(strategy):
    x, memory = batch()
    net, target = decoder(4, strategy), torch.zeros(2, TOKENS, 2 * WIDTH, dtype=torch.float64)
    context = {"padding": padding(), "scale": 0.5}
    sets = {"loss": nn.functional.mse_loss, "context": context}
    predicted = predict_memory(net, ((x, memory), target), **sets)
    assert predicted == peak_memory(net, ((x, memory), target), **sets)
    assert predicted.input_bytes == x.nbytes + memory.nbytes + target.nbytes + padding().nbytes


def test_a_budget_is_planned_for_the_context_too():
    x, memory = batch()
    net = decoder(6, "budget")
    frugal, stored = (
        peak_memory(
            decoder(6, s),
            (x, torch.zeros_like(x)),
            loss=nn.functional.mse_loss,
            context=(memory,),
        ).activation_bytes
        for s in ("reverse", "store")
    )
    net.memory_budget_bytes = (frugal + stored) // 2
    exact = step(decoder(6, "store"), x, memory, leaves=[memory])
    agree(step(net, x, memory, leaves=[memory]), exact)
    assert set(net.modes) == {"store", "reverse"}
    plans = len(net.plans.known)
    step(net, x, memory, leaves=[memory])
    assert len(net.plans.known) == plans
    step(net, x, torch.cat([memory, memory], 1), leaves=[memory])
    assert len(net.plans.known) == plans + 1


# What is refused


@pytest.mark.parametrize("strategy", ["reverse", "anchors", "checkpoint", "recursive", "budget"])
@pytest.mark.parametrize("place", ["tensor", "mask", "nested", "option", "object"])
def test_context_changed_between_the_passes(strategy, place):
    c = {"mask": torch.ones(WIDTH, dtype=torch.bool)}.get(place, vector(grad=place == "tensor"))
    read, context, options = {
        "nested": (lambda n: n["c"] * 1.0, ({"c": c},), {}),
        "option": (lambda c: c * 1.0, (), {"c": c}),
        "object": (lambda o: o.c * 1.0, (SimpleNamespace(c=c),), {}),
    }.get(place, (lambda c: c * 1.0, (c,), {}))
    net = put(reading(read), strategy)
    out = net(numbers(3, 2 * WIDTH), *context, **options)
    with torch.no_grad():
        c.logical_not_() if place == "mask" else c.add_(1)
    with pytest.raises(ReplayError, match=r"context that .* was modified in place between"):
        loss_of(out).backward()


class Writes(nn.Module):
    def __init__(self, write):
        super().__init__()
        self.linear, self.write = nn.Linear(WIDTH, WIDTH), write

    def forward(self, x, c):
        self.write(c)
        return self.linear(x)


@pytest.mark.parametrize(
    ("context", "write"),
    [
        (torch.zeros(3), lambda c: c.add_(1)),
        ({"cache": None}, lambda c: c.update(cache=1)),
        ([1, 2], lambda c: c.append(3)),
        ({"inner": [torch.zeros(2)]}, lambda c: c["inner"].append(torch.ones(2))),
    ],
)
def test_functions_that_change_their_context(context, write):
    blocks = [ReversibleBlock(Writes(write), Writes(write), split_dim=-1) for _ in range(2)]
    net = ReversibleSequence(blocks, split_dim=-1).double()
    with pytest.raises(ReplayError, match="F of unit 0 changes the context"):
        net(numbers(3, 2 * WIDTH), context)


def test_second_derivatives_are_refused_or_right():
    x, c = numbers(3, 2 * WIDTH), vector()

    def penalty(net):
        (g,) = torch.autograd.grad(loss_of(net(x, c)), c, create_graph=True)
        return torch.autograd.grad(g.square().sum(), [x, c])

    exact = penalty(reading(lambda c: c, strategy="store"))
    agree(penalty(reading(lambda c: c, strategy="checkpoint")), exact)
    with pytest.raises(DoubleBackwardError):
        penalty(reading(lambda c: c))


def test_functions_that_take_no_context_say_what_to_do():
    net = ReversibleSequence([ReversibleBlock(nn.Linear(4, 4), nn.Linear(4, 4))])
    with pytest.raises(ResidualError, match=r"handed the context .*\(str, mask=\).*Linear.*StreamAlone"):
        net(torch.randn(2, 8), "a", mask=None)
    with pytest.raises(ResidualError, match="StreamAlone"):
        net((torch.randn(2, 4), torch.randn(2, 4)), torch.randn(3))
    blocks = [ReversibleBlock(Takes(lambda c: c), StreamAlone(nn.Linear(WIDTH, WIDTH)), split_dim=-1)]
    wrapped = ReversibleSequence(blocks, split_dim=-1).double()
    x, c = numbers(3, 2 * WIDTH), vector()
    exact = step(put(copy.deepcopy(wrapped), "store"), x, c, leaves=[c])
    agree(step(wrapped, x, c, leaves=[c]), exact)


def test_a_second_tensor_is_a_stream_or_context_and_never_guessed():
    a, b = numbers(3, WIDTH), numbers(3, WIDTH, seed=1)
    linear = ReversibleBlock(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)).double()
    assert torch.equal(linear(a, b)[1], linear((a, b))[1])  # F takes one argument: it is the second stream.

    class Needs(nn.Module):
        def forward(self, x, c):
            return x * c.mean()

    needs = ReversibleBlock(Needs(), Needs())
    assert needs(a, b).shape == a.shape  # F needs two: it is context.

    class May(nn.Module):
        def forward(self, x, c=None):
            return x if c is None else x * c.mean()

    may = ReversibleSequence([ReversibleBlock(May(), May())])
    assert may(a, vector()).shape == a.shape  # It cannot be a stream.
    for block in (may, may.blocks[0]):
        with pytest.raises(ResidualError, match="can be the second stream or context"):
            block(a, b)
        assert isinstance(block((a, b)), tuple)
        assert block(a, c=b).shape == a.shape


def test_what_is_no_stream():
    net = reading(lambda c: c)
    with pytest.raises(SplitError, match="one tensor, or a pair of them"):
        net("text")
    with pytest.raises(SplitError, match=r"received \['Tensor', 'Tensor', 'Tensor'\]"):
        net((vector(), vector(), vector()))
    with pytest.raises(StrategyError, match="origin: the name is taken"):
        net(numbers(3, 2 * WIDTH), origin=3)


# Measures


def test_measures_take_a_context():
    x, memory = batch()
    net, target = decoder(3), torch.zeros(2, TOKENS, 2 * WIDTH, dtype=torch.float64)
    found = fidelity(net, (x, target), loss=nn.functional.mse_loss, context=(memory,), reference=True)
    assert 0 < found.reconstruction_rel_error < 1e-14
    by_name = lipschitz(net, x, context={"memory": memory, "scale": 2.0})
    once = lipschitz(net, x, context=(memory,))
    # Twice the value of the attention is twice its Jacobian, where the stream is the same: in the first unit.
    assert by_name[0].f == pytest.approx(2 * once[0].f, rel=1e-6)


def test_every_guarantee_holds_with_a_context():
    x, memory = batch()
    context = {"memory": memory, "padding": padding(), "scale": 0.5}
    report = check_reversible(decoder(3, drop=0.2), x, context=context)
    assert "input 1" in str([f.what for f in report["gradients"].figures])
    assert report["flat_memory"].outcome == report["inverse"].outcome == "holds"
    block = ReversibleBlock(CrossAttention(), Conditioned(), split_dim=-1)
    check_reversible(block, (x, memory))
