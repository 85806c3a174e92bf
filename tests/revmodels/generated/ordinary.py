"""Layers as users write them: each a name, the shapes it takes, and how it is made.

A stream has one of the `KINDS` of shape. A layer is a plain value, so that a case can be printed and read
back: a name, or a pair of a wrapper's name and the layers inside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from revmodels import ReversibleBlock, ReversibleSequence

WIDTH = 4
Layer = str | tuple[str, tuple["Layer", ...]]


@dataclass(frozen=True)
class Stream:
    """Shape of one stream: its kind, and its sizes. `channels` is the dimension that the streams halve."""

    kind: str
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Position of the channels."""
        return {"vector": 1, "single": 0, "tokens": 2, "image": 1, "map": 0}[self.kind]


def stream_of(kind: str, batch: int) -> Stream:
    shapes = {
        "vector": (batch, WIDTH),
        "single": (WIDTH,),
        "tokens": (batch, 3, WIDTH),
        "image": (batch, WIDTH, 3, 3),
        "map": (WIDTH, 3, 3),
    }
    return Stream(kind, shapes[kind])


KINDS = ("vector", "single", "tokens", "image", "map")
FLAT = ("vector", "single", "tokens")
SPATIAL = ("image", "map")


class Apply(nn.Module):
    """Calls a plain function, with the modules that it needs."""

    def __init__(self, fn: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.fn, self.inner = fn, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x, *self.inner)


class WithParameter(nn.Module):
    """Joins a parameter of a given shape to its input."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.join, self.p = join, nn.Parameter(torch.randn(shape) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.p)


class SelfAttention(nn.Module):
    """Attention of tokens to themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True, dropout=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    """A recurrent layer's outputs without its state."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


class ConstantEmbedding(nn.Module):
    """Adds a learnt embedding of fixed positions, as position embeddings are."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, WIDTH)
        self.register_buffer("at", torch.tensor(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.embedding(self.at)


class Moved(nn.Module):
    """Applies a layer with the channels at another place."""

    def __init__(self, layer: nn.Module, source: int, target: int) -> None:
        super().__init__()
        self.layer, self.source, self.target = layer, source, target

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.movedim(self.source, self.target)).movedim(self.target, self.source)


class Sine(torch.autograd.Function):
    """A sine, with what is needed for its gradient saved by hand."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.cos())
        return x.sin()

    @staticmethod
    def backward(ctx, d):
        (slope,) = ctx.saved_tensors
        return d * slope.conj()


class ClampedInPlace(torch.autograd.Function):
    """Writes to its input and says so."""

    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(0.5)

    @staticmethod
    def backward(ctx, d):
        return d * 0.5


class LearntScale(torch.autograd.Function):
    """Scales by a parameter and computes only the gradients asked for."""

    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(x, scale)
        return x * scale

    @staticmethod
    def backward(ctx, d):
        x, scale = ctx.saved_tensors
        dx = d * scale.conj() if ctx.needs_input_grad[0] else None
        return dx, (d * x.conj()).sum() if ctx.needs_input_grad[1] else None


class LinearFunction(torch.autograd.Function):
    """A linear map whose gradient of the weight needs its saved input."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx, d):
        x, weight = ctx.saved_tensors
        return d @ weight.T.conj(), x.reshape(-1, WIDTH).T.conj() @ d.reshape(-1, WIDTH)


def _linear() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


def _conv(**options) -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1, **options)


def _norm(kind: str, s: Stream) -> nn.Module:
    if kind == "batch":
        if s.kind == "tokens":
            return Moved(nn.BatchNorm1d(WIDTH), 2, 1)
        return nn.BatchNorm1d(WIDTH) if s.kind == "vector" else nn.BatchNorm2d(WIDTH)
    if kind == "group":
        return Moved(nn.GroupNorm(2, WIDTH), 2, 1) if s.kind == "tokens" else nn.GroupNorm(2, WIDTH)
    sizes = s.shape[s.channels :]
    return nn.LayerNorm(sizes) if kind == "layer" else nn.RMSNorm(sizes)


Make = Callable[[Stream], nn.Module]
REAL: dict[str, tuple[tuple[str, ...], Make]] = {
    "linear without bias": (FLAT, lambda s: nn.Linear(WIDTH, WIDTH, bias=False)),
    "wide": (FLAT, lambda s: nn.Sequential(nn.Linear(WIDTH, 7), nn.GELU(), nn.Linear(7, WIDTH))),
    "gated": (FLAT, lambda s: nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GLU(-1))),
    "bilinear": (FLAT, lambda s: Apply(lambda x, b: b(x, x), nn.Bilinear(WIDTH, WIDTH, WIDTH))),
    "conv of another padding": (SPATIAL, lambda s: _conv(padding_mode="circular")),
    "depthwise": (SPATIAL, lambda s: _conv(groups=WIDTH)),
    "dilated": (SPATIAL, lambda s: nn.Conv2d(WIDTH, WIDTH, 3, padding="same", dilation=2)),
    "transposed conv": (SPATIAL, lambda s: nn.ConvTranspose2d(WIDTH, WIDTH, 3, padding=1)),
    "batch norm": (("vector", "tokens", "image"), lambda s: _norm("batch", s)),
    "group norm": (("vector", "tokens", "image"), lambda s: _norm("group", s)),
    "layer norm": (KINDS, lambda s: _norm("layer", s)),
    "RMS norm": (KINDS, lambda s: _norm("rms", s)),
    "instance norm": (("image",), lambda s: nn.InstanceNorm2d(WIDTH, affine=True)),
    "response norm": (("image",), lambda s: nn.LocalResponseNorm(2)),
    "attention": (("tokens",), lambda s: SelfAttention()),
    "encoder layer": (
        ("tokens",),
        lambda s: nn.TransformerEncoderLayer(WIDTH, 2, 6, dropout=0.1, batch_first=True),
    ),
    "LSTM": (("tokens",), lambda s: Recurrent(nn.LSTM)),
    "GRU": (("tokens",), lambda s: Recurrent(nn.GRU)),
    "dropout": (KINDS, lambda s: nn.Dropout(0.3)),
    "alpha dropout": (KINDS, lambda s: nn.AlphaDropout(0.3)),
    "channel dropout": (("image",), lambda s: nn.Dropout2d(0.3)),
    "random ReLU": (KINDS, lambda s: nn.RReLU()),
    "ReLU": (KINDS, lambda s: nn.ReLU()),
    "GELU": (KINDS, lambda s: nn.GELU()),
    "PReLU": (("vector", "image"), lambda s: nn.PReLU(WIDTH)),
    "softmax": (KINDS, lambda s: nn.Softmax(-1)),
    "max pool": (SPATIAL, lambda s: nn.MaxPool2d(3, 1, 1)),
    "average pool": (SPATIAL, lambda s: nn.AvgPool2d(3, 1, 1)),
    "squeeze and excite": (
        SPATIAL,
        lambda s: Apply(lambda x, c: x * c(x).sigmoid().mean((-1, -2), True), _conv()),
    ),
    "spectral weight": (FLAT, lambda s: parametrizations.spectral_norm(_linear()).eval()),
    "orthogonal weight": (FLAT, lambda s: parametrizations.orthogonal(_linear())),
    "weight norm": (FLAT, lambda s: parametrizations.weight_norm(_linear())),
    "weight norm by hook": (FLAT, lambda s: nn.utils.weight_norm(_linear())),
    "sorted": (KINDS, lambda s: Apply(lambda x: x.sort(-1).values)),
    "data-dependent": (KINDS, lambda s: Apply(lambda x: x.tanh() if x.sum() > 0 else x.sin())),
}
"""Layers for real numbers alone."""

ANY: dict[str, tuple[tuple[str, ...], Make]] = {
    "linear": (FLAT, lambda s: _linear()),
    "conv": (SPATIAL, lambda s: _conv()),
    "pointwise": (SPATIAL, lambda s: nn.Conv2d(WIDTH, WIDTH, 1, bias=False)),
    "tanh": (KINDS, lambda s: nn.Tanh()),
    "plus a parameter of its shape": (KINDS, lambda s: WithParameter(torch.add, *s.shape)),
    "minus a parameter of its shape": (KINDS, lambda s: WithParameter(torch.sub, *s.shape)),
    "times a parameter of its shape": (KINDS, lambda s: WithParameter(torch.mul, *s.shape)),
    "plus a number": (KINDS, lambda s: WithParameter(torch.add, 1)),
    "a parameter and no input": (KINDS, lambda s: WithParameter(lambda x, p: p.expand_as(x), *s.shape)),
    "a parameter for its shape": (KINDS, lambda s: WithParameter(lambda x, p: p, *s.shape)),
    "embedding": (FLAT, lambda s: ConstantEmbedding()),
    "custom function": (KINDS, lambda s: Apply(Sine.apply)),
    "custom scale": (KINDS, lambda s: WithParameter(LearntScale.apply)),
    "custom linear": (FLAT, lambda s: WithParameter(LinearFunction.apply, WIDTH, WIDTH)),
    "identity": (KINDS, lambda s: nn.Identity()),
    "zeros": (KINDS, lambda s: Apply(torch.zeros_like)),
    "no gradient": (KINDS, lambda s: Apply(lambda x: x.detach().sin())),
    "its input twice": (KINDS, lambda s: Apply(lambda x: x + x)),
    "flipped": (KINDS, lambda s: Apply(lambda x: x.flip(-1))),
    "view": (KINDS, lambda s: Apply(lambda x: x.flatten().view(x.shape))),
    "as strided": (KINDS, lambda s: Apply(lambda x: x.transpose(0, -1).contiguous().transpose(0, -1))),
    "mean of all": (KINDS, lambda s: Apply(lambda x: x.mean().expand(x.shape))),
    "sum along": (KINDS, lambda s: Apply(lambda x: x.cumsum(-1) / 2)),
}

IN_PLACE: dict[str, tuple[tuple[str, ...], Make]] = {
    "ReLU in place": (KINDS, lambda s: nn.LeakyReLU(0.1, inplace=True)),
    "dropout in place": (KINDS, lambda s: nn.Dropout(0.3, inplace=True)),
    "SiLU in place": (KINDS, lambda s: nn.SiLU(inplace=True)),
    "halved in place": (KINDS, lambda s: Apply(lambda x: x.mul_(0.5))),
    "marked in place": (KINDS, lambda s: Apply(ClampedInPlace.apply)),
    "filled in place": (KINDS, lambda s: Apply(lambda x: torch.zeros_like(x).copy_(x).add_(1))),
}
"""Layers that write to their input: first in F they write to the stream."""


class Wrapped(nn.Sequential):
    """Layers in a row, called in a way of their own."""

    def __init__(self, call: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(super().forward, x)


def _checkpointed(reentrant: bool) -> Callable[..., Tensor]:
    return lambda fn, x: checkpoint(fn, x, use_reentrant=reentrant)


def _stored_elsewhere(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autograd.graph.save_on_cpu():
        return fn(x)


def _packed(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()):
        return fn(x)


def _always_with_graph(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.enable_grad():
        return fn(x)


def _never_with_graph(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return fn(x)


def _energy(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The slope of an energy: F differentiates inside itself."""
    with torch.enable_grad():
        at = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(fn(at).square().sum(), at, create_graph=True, materialize_grads=True)[0]


def _nested(strategy: str) -> Callable[[Stream, list[nn.Module]], nn.Module]:
    def make(s: Stream, layers: list[nn.Module]) -> nn.Module:
        middle = (len(layers) + 1) // 2
        halves = nn.Sequential(*layers[:middle]), nn.Sequential(*layers[middle:])
        inner = ReversibleSequence([ReversibleBlock(*halves) for _ in range(2)], strategy)
        return Apply(_through_pair, inner)

    return make


def _through_pair(x: Tensor, inner: ReversibleSequence) -> Tensor:
    y1, y2 = inner(x, x * 0.5)
    return y1 - y2


def _wrapped(call: Callable[..., Tensor]) -> Callable[[Stream, list[nn.Module]], nn.Module]:
    return lambda s, layers: Wrapped(call, *layers)


WRAPPERS: dict[str, Callable[[Stream, list[nn.Module]], nn.Module]] = {
    "in a row": lambda s, layers: nn.Sequential(*layers),
    "checkpointed": _wrapped(_checkpointed(reentrant=False)),
    "checkpointed, reentrant": _wrapped(_checkpointed(reentrant=True)),
    "saved elsewhere": _wrapped(_stored_elsewhere),
    "packed": _wrapped(_packed),
    "with graph": _wrapped(_always_with_graph),
    "without graph": _wrapped(_never_with_graph),
    "slope": _wrapped(_energy),
    "plus its input": _wrapped(lambda fn, x: x + fn(x)),
    "applied twice": _wrapped(lambda fn, x: fn(fn(x))),
    "nested, reversed": _nested("reverse"),
    "nested, checkpointed": _nested("checkpoint"),
    "nested, stored": _nested("store"),
}
