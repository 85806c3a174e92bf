"""Under torch.compile too: what the stored twin gives, or an error that names what cannot be."""

import copy
import random
from functools import partial

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from revmodels import ReversibleBlock, ReversibleSequence
from revmodels.strategies.budget_plan import plan_memory
from tests.revmodels.truth.judge import WIDTH, batch, sequence, train

OUTSIDE = torch.linspace(1, 2, WIDTH, dtype=torch.float64).requires_grad_()


class Layer(nn.Module):
    """A linear layer, and `then` of its input and result."""

    def __init__(self, then):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.then = then

    def forward(self, x):
        return self.then(self, x, self.linear(x))


def layer(then):
    return lambda: Layer(then)


class Added(nn.Module):
    """A parameter of the input's very shape, added to it."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.shift = nn.Parameter(torch.randn(1, WIDTH))

    def forward(self, x):
        return self.linear(x + self.shift)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.real = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.imaginary = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x):
        product = torch.complex(x, x * 0.5) @ torch.complex(self.real, self.imaginary).T
        return torch.view_as_real(product).sum(-1)


class Nested(nn.Module):
    """A sequence with batch norm inside F."""

    def __init__(self):
        super().__init__()
        half = WIDTH // 2
        f = nn.Sequential(nn.Linear(half, half), nn.BatchNorm1d(half))
        self.inner = ReversibleSequence([ReversibleBlock(f, nn.Linear(half, half))])

    def forward(self, x):
        return self.inner(x)


class FastPath(nn.Module):
    """A layer that takes another path where no gradient is needed."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, x):
        tokens = x[:, None].expand(-1, 3, -1)
        mask = torch.tensor([[False, False, True]]).expand(len(x), 3)
        return self.encoder(tokens, src_key_padding_mask=mask)[:, 0]


class InstanceNorm(nn.Module):
    """Its running statistics move in every call."""

    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm1d(WIDTH, track_running_stats=True)

    def forward(self, x):
        return self.norm(x[..., None] * torch.arange(1.0, 4.0, dtype=x.dtype))[..., 0]


class BufferWithGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.randn(WIDTH, dtype=torch.float64).requires_grad_())

    def forward(self, x):
        return x * self.scale


class OwnGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, x):
        return x * torch.rand(x.shape, generator=self.generator, dtype=x.dtype)


class Reentrant(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.linear, x, use_reentrant=True)


def keep(module, x, y):
    module.kept = y
    return y


def count(module, x, y):
    module.calls = getattr(module, "calls", 0) + 1
    return y * module.calls


def log(module, x, y):
    module.__dict__.setdefault("log", []).append(y.shape)
    return y


def spectral():
    return nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))


def shared():
    block = ReversibleBlock(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    return ReversibleSequence([block, block, block]).double()


def anchored():
    net = sequence(Added, 4)
    net.anchor_every = 2
    return net


def frozen():
    net = sequence(Added, 3)
    net.blocks[1].requires_grad_(False)
    return net


RIGHT = {
    "a parameter of the input's shape": (lambda: sequence(Added, 2), 1),
    "complex numbers": (lambda: sequence(Complex, 2), 3),
    "statistics of a nested sequence": (lambda: sequence(Nested, 2), 3),
    "fast path": (lambda: sequence(FastPath, 1), 3),
    "fast path in eval mode": (lambda: sequence(FastPath, 1).eval(), 3),
    "no parameters": (lambda: sequence(nn.Tanh, 2), 3),
    "one block three times": (shared, 3),
    "anchors": (anchored, 1),
    "frozen": (frozen, 1),
}


def step(net, x):
    """A training step of the network as one compiled graph."""
    torch._dynamo.reset()
    out = torch.compile(net, fullgraph=True, backend="aot_eager")
    return train_by(net, out, x)


def train_by(net, call, x):
    class Called(nn.Module):
        def forward(self, x):
            return call(x)

    return {**train(Called(), x), **{name: p.grad for name, p in net.named_parameters()}}


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_right(case):
    make, n = RIGHT[case]
    torch.manual_seed(0)
    net = make()
    stored = copy.deepcopy(net)
    stored.strategy = "store"
    expected, found = train(stored, batch(n, 2 * WIDTH)), step(net, batch(n, 2 * WIDTH))
    assert expected.keys() == found.keys()
    for name, right in expected.items():
        torch.testing.assert_close(
            found[name], right, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )
    for (name, b), c in zip(net.named_buffers(), stored.buffers(), strict=True):
        torch.testing.assert_close(b, c, msg=name)


def put_hook(kind, block, seen):
    """Make the hook do something that is seen in the gradients or in `seen`."""
    if kind == "forward":
        return block.register_forward_hook(lambda _, args, out: seen.append(out[0].square().sum()))
    if kind == "forward pre":
        return block.register_forward_pre_hook(lambda _, args: seen.append(args[0].square().sum()))
    return block.register_full_backward_hook(lambda _, dx, dy: tuple(2 * d for d in dx))


@pytest.mark.parametrize("kind", ["forward", "forward pre", "backward"])
def test_hooks_on_units_are_called_as_in_an_uncompiled_network(kind):
    def gradients_of(strategy, compiled):
        torch.manual_seed(0)
        torch._dynamo.reset()
        net, seen = sequence(nn.Tanh, 3), []
        net.strategy = strategy
        put_hook(kind, net.blocks[1], seen)
        x = [batch(3, WIDTH), batch(3, WIDTH) * 2]
        x = [part.detach().requires_grad_() for part in x]
        y1, y2 = (torch.compile(net, backend="aot_eager") if compiled else net)(*x)
        return torch.autograd.grad(y1.sum() + (y2 * y1).sum() + sum(seen), x)

    expected = gradients_of("store", compiled=False)
    for found, right in zip(gradients_of("reverse", compiled=True), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-10)


def test_hooks_on_units_are_refused_in_a_full_graph():
    net = sequence(Added, 2)
    net.blocks[0].register_forward_hook(lambda _, args, out: None)
    with pytest.raises(Exception, match="a unit has hooks, or the network an observer"):
        step(net, batch(1, 2 * WIDTH))


REFUSED = {
    "a tensor from outside": (layer(lambda m, x, y: y * OUTSIDE), "must be parameters or buffers"),
    "a buffer with a gradient": (BufferWithGradient, "has a buffer that needs a gradient, .*scale"),
    "a result that is kept": (layer(keep), r"blocks\.0\.f sets the attribute .*kept"),
    "a counter": (layer(count), r"blocks\.0\.f sets the attribute .*calls"),
    "a log": (layer(log), r"blocks\.0\.f sets the attribute .*log"),
    "running statistics": (InstanceNorm, "writes to its buffer"),
    "spectral norm": (spectral, "writes to its buffer"),
    "numbers of Python's": (layer(lambda m, x, y: y * random.random()), "Python.*s or NumPy.*s generator"),
    "a generator of its own": (OwnGenerator, "draws from a generator of the module.*s own"),
    "a branch on data": (layer(lambda m, x, y: y if x.sum() > 0 else -y), r"cannot trace blocks\.0\.f"),
    "another shape": (layer(lambda m, x, y: y.sum(1, keepdim=True)), "must keep the shape of their input"),
    "a reentrant checkpoint": (Reentrant, r"cannot trace blocks\.0\.g .*use_reentrant"),
    "a write to the input": (layer(lambda m, x, y: F.relu_(x) + y), "cannot trace blocks|unchanged|in-place"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    make, match = REFUSED[case]
    torch.manual_seed(0)
    with pytest.raises(Exception, match=match):
        step(sequence(make, 2), batch(3, 2 * WIDTH))


def test_a_hook_on_every_module_is_refused():
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda _, args, out: seen.append(out))
    try:
        with pytest.raises(Exception, match="a hook is registered for every module"):
            step(sequence(Added, 2), batch(1, 2 * WIDTH))
    finally:
        handle.remove()


def compiled(net):
    torch._dynamo.reset()
    return torch.compile(net, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("transform", ["grad", "vmap", "jvp"])
def test_function_transforms_inside(transform):
    net = sequence(Added, 2)

    def call(x):
        if transform == "grad":
            return torch.func.grad(lambda x: net(x).sum())(x)
        if transform == "vmap":
            return torch.func.vmap(lambda row: net(row[None]))(x)
        return torch.func.jvp(lambda x: net(x).sum(), (x,), (x,))[1]

    with pytest.raises(Exception, match="cannot pass through a reversible sequence"):
        compiled(call)(batch(1, 2 * WIDTH, requires_grad=False))


def test_function_transforms_around_are_refused_by_the_compiler():
    call = compiled(sequence(Added, 2))
    with pytest.raises(Exception, match="from eager mode is not supported"):
        torch.func.grad(lambda x: call(x).sum())(batch(1, 2 * WIDTH, requires_grad=False))


def test_forward_mode_differentiation_is_refused_by_the_compiler():
    call, x = compiled(sequence(Added, 2)), batch(1, 2 * WIDTH, requires_grad=False)
    with forward_ad.dual_level(), pytest.raises(Exception, match="dual tensor"):
        call(forward_ad.make_dual(x, torch.ones_like(x)))


def test_lazy_layers():
    net = ReversibleSequence([ReversibleBlock(nn.LazyLinear(WIDTH), nn.LazyLinear(WIDTH))])
    with pytest.raises(Exception, match=r"blocks\.0\.f\.weight has no shape yet"):
        compiled(net)(torch.randn(3, 2 * WIDTH))
    with torch.no_grad():
        net(torch.randn(3, 2 * WIDTH))
    compiled(net)(torch.randn(3, 2 * WIDTH)).sum().backward()


def test_the_meta_device():
    net, x = sequence(Added, 2).to("meta"), torch.empty(1, 2 * WIDTH, device="meta", dtype=torch.float64)
    compiled(net)(x).sum().backward()
    assert all(p.grad.shape == p.shape for p in net.parameters())


class To(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.layer = nn.Linear(a, b)

    def forward(self, x):
        return torch.tanh(self.layer(x))


class Unequal(nn.Module):
    """Streams of three and of five channels."""

    def __init__(self):
        super().__init__()
        self.body = ReversibleSequence([ReversibleBlock(To(5, 3), To(3, 5)) for _ in range(3)])

    def forward(self, x):
        return torch.cat(self.body(x[:, :3], x[:, 3:]), 1)


class Unbatched(nn.Module):
    """Convolutions of one image."""

    def __init__(self):
        super().__init__()
        make = partial(nn.Conv2d, 2, 2, 3, padding=1)
        blocks = [ReversibleBlock(make(), nn.Sequential(make(), nn.Tanh(), make())) for _ in range(3)]
        self.body = ReversibleSequence(blocks, split_dim=0)

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("anchors", [None, 1])
@pytest.mark.parametrize(("make", "shape"), [(Unequal, (4, 8)), (Unbatched, (4, 5, 6))])
def test_shapes(make, shape, anchors):
    torch.manual_seed(0)
    net = make().double()
    net.body.anchor_every = anchors
    stored = copy.deepcopy(net)
    stored.body.strategy, stored.body.anchor_every = "store", None
    expected, found = train(stored, batch(*shape)), step(net, batch(*shape))
    for name, right in expected.items():
        torch.testing.assert_close(found[name], right, rtol=1e-10, atol=1e-10)


def test_what_was_refused_is_left_as_it_was():
    net = sequence(layer(keep), 2)
    with pytest.raises(Exception, match="sets the attribute"):
        step(net, batch(3, 2 * WIDTH))
    assert not hasattr(net.blocks[0].f, "kept")
    stored = copy.deepcopy(net)
    stored.strategy = "store"
    for name, right in train(stored, batch(3, 2 * WIDTH)).items():
        assert right is not None, name


def test_a_budget_is_planned_before_the_network_is_compiled():
    net = sequence(Added, 4)
    net.strategy = "budget"
    with pytest.raises(Exception, match="cannot plan while the network is compiled"):
        step(net, batch(3, 2 * WIDTH))
    stored = copy.deepcopy(net)
    stored.strategy = "store"
    plan_memory(net, batch(3, 2 * WIDTH))
    expected, found = train(stored, batch(3, 2 * WIDTH)), step(net, batch(3, 2 * WIDTH))
    for name, right in expected.items():
        torch.testing.assert_close(found[name], right, rtol=1e-10, atol=1e-10)
